/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dump - the command `sameblk dump`; argv[0] is the word dump. Returns the exit status.
 */
#ifndef CLI_CHECK_DUMP_H
#define CLI_CHECK_DUMP_H

int dump_main(int argc, char **argv);

#endif
