/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * check_file - a store in a file or block device, opened for check and dump
 *
 * The lock is the server's (flock on the store): shared for reading, exclusive for repair, so that
 * neither runs beside a server. One that is held is waited for as long as a server waits. Reads
 * come from the page cache, which a killed server's writes are in.
 *
 * Errors    0 or a negative errno; EWOULDBLOCK: another process holds the store, ret_pid says which
 * (0:
 *           the system does not tell).
 */
#ifndef CLI_CHECK_CHECK_FILE_H
#define CLI_CHECK_CHECK_FILE_H

#include <stdbool.h>
#include <sys/types.h>

#include "cli/check/check.h"

struct check_file {
	int fd;
	struct check_source source;
};

int check_file_open(const char *path, bool write, struct check_file *ret_file, pid_t *ret_pid);
void check_file_close(struct check_file *file);
/* A sentence for a person about an error of opening or checking. */
void check_file_say(const char *path, int error, pid_t pid);

#endif
