/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * background - a server started in the background, and its ready line
 *
 * The server gets a session of its own, its standard error goes to a log file, and it is waited
 * for until it says that it is ready, ends, or the time is up. In the last case it is told to stop.
 *
 * The program: $SAMEBLKD; else sameblkd beside this program or in the folders where it is installed
 * or built beside it; else as the shell finds it.
 *
 * Errors    0 or -1, and then stderr has said why, with what the server wrote to its log.
 * Blocking  until ready.
 */
#ifndef CLI_DEVICE_BACKGROUND_H
#define CLI_DEVICE_BACKGROUND_H

#include <stddef.h>

#define BACKGROUND_SECONDS_DEFAULT 120u
#define BACKGROUND_SECONDS_MAX	   86400u
#define BACKGROUND_DEVICE_BYTES	   64u

struct background {
	const char *store; /* for messages and the log's name */
	const char *directory; /* to start in; NULL: this one */
	const char *log_path; /* NULL: NAME.log in the directory of the control sockets */
	const char *const *arguments; /* of the server, NULL-terminated */
	unsigned wait_seconds;
};

/* ret_device: the block device of the ready line. */
int background_start(const struct background *what, char ret_device[BACKGROUND_DEVICE_BYTES]);

#endif
