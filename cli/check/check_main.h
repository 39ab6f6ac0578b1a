/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * check_main - the command `sameblk check`; argv[0] is the word check. Returns the exit status.
 */
#ifndef CLI_CHECK_CHECK_MAIN_H
#define CLI_CHECK_CHECK_MAIN_H

int check_main(int argc, char **argv);

#endif
