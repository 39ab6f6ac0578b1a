/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * command - asks the server through the CLI, as a user does
 *
 * Errors    command_run() returns the exit status, or -1 when there was none.
 */
#ifndef TESTS_RIGS_COMMAND_H
#define TESTS_RIGS_COMMAND_H

#include <stdint.h>
#include <stdio.h>

struct command {
	const char *sameblk; /* the program */
	const char *control; /* the socket */
};

/* `sameblk NAME SRC LEN DST`, quietly; waits for its end. */
int command_run(const struct command *command, const char *name, uint64_t src_bytes,
		uint64_t len_bytes, uint64_t dst_bytes);

/* `sameblk same --batch -`, quietly, for lines to be written to; ended with pclose(). */
FILE *command_batch(const struct command *command);

#endif
