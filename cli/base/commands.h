/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * commands - one function per command of `sameblk`, in a file of its own; each returns the
 * exit status
 *
 * argv[0] is the command's word. check and dump have headers of their own.
 */
#ifndef CLI_BASE_COMMANDS_H
#define CLI_BASE_COMMANDS_H

int create_main(int argc, char **argv);
int same_main(int argc, char **argv);
int clone_main(int argc, char **argv);
int discard_main(int argc, char **argv);
int dedupe_main(int argc, char **argv);
int map_main(int argc, char **argv);
int status_main(int argc, char **argv);
int stats_main(int argc, char **argv);
int trim_main(int argc, char **argv);
int stop_main(int argc, char **argv);
int attach_main(int argc, char **argv);
int detach_main(int argc, char **argv);
int list_main(int argc, char **argv);
int recover_main(int argc, char **argv);
int cleanup_main(int argc, char **argv);

#endif
