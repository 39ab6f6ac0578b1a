/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ublk_record - what a server leaves behind about its device: which store it is of, and how the
 * server was started
 *
 * A file UUID.ublk in the directory of the control sockets (ctl_path.h), made when the device is
 * live and taken away with it. A device whose server was killed keeps it, so that `sameblk recover`
 * can start the server again. It is a help only: a server knows its device by the mark that the
 * kernel keeps (ublk_shape.h). But a copy of a store has the same mark; where a record says that
 * the device is of a store that is still there, nobody but that store gets it.
 *
 * Errors    0 or a negative errno.
 * Memory    a loaded record is freed by ublk_records_done().
 */
#ifndef SERVER_UBLK_DRIVER_UBLK_RECORD_H
#define SERVER_UBLK_DRIVER_UBLK_RECORD_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define UBLK_RECORD_SUFFIX ".ublk"

struct ublk_record {
	char *path; /* of the record itself */
	json_t *root;
	/* Borrowed from root. */
	const char *store; /* absolute */
	const char *directory; /* where the server was started */
	json_t *arguments; /* strings, without the program's name */
	uint64_t mark;
	uint32_t id;
	pid_t pid;
};

struct ublk_record_fields {
	const uint8_t *uuid;
	uint32_t id;
	const char *store;
	int argc;
	char **argv; /* as main() got them */
};

int ublk_record_save(const struct ublk_record_fields *fields);
void ublk_record_remove(const uint8_t uuid[16]);

struct ublk_records {
	struct ublk_record *records;
	size_t count;
};

/* All of both directories. What is none, or is not ours to read, is passed over; on an error
 * *ret_records has what was read before. */
int ublk_records_load(struct ublk_records *ret_records);
void ublk_records_done(struct ublk_records *records);
/* NULL: there is none. */
const struct ublk_record *ublk_records_find(const struct ublk_records *records, uint64_t mark);
/* 1: the record's store is still there and is another file or device than the one at this path: a
 * copy has the UUID of what it was copied from. 0: it is not there, or is the one at this path.
 * ETIMEDOUT: it lies where nobody answers; another errno: it cannot be told. */
int ublk_record_is_of_another(const struct ublk_record *record, const char *store);

#endif
