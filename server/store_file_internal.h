/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * store_file_internal - what store_open.c (opening) and store_file.c (I/O) share
 */
#ifndef SERVER_STORE_FILE_INTERNAL_H
#define SERVER_STORE_FILE_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "server/store_file.h"

#define STORE_FILE_MAGIC       0x53464c21u
#define STORE_BOUNCE_BYTES     (1024u * 1024u)
#define STORE_DIRECT_ALIGN_MAX 4096u

struct store_lane;

/* One operation that the kernel has: an attempt at the rest of a store_io. */
struct file_io {
	struct ring_op op;
	struct store_lane *lane;
	struct store_io *io;
	struct file_io *next_free;
	uint32_t piece_bytes;
	unsigned tries; /* without progress */
	bool bounced;
	bool without_sync; /* see retry_without_sync() */
};

struct store_lane {
	struct store_file *file;
	struct ring ring;
	bool has_ring;
	uint64_t owner; /* a thread: see this_thread() */
	unsigned in_flight; /* store_io, those that wait included */
	uint64_t finished;
	struct file_io *ios;
	struct file_io *free;
	struct store_io *waiting; /* for a file_io or for the bounce buffer */
	struct store_io **waiting_last;
	uint8_t *bounce; /* with direct */
	bool bounce_used;
	struct store_io *refused; /* this thread got no ring */
	struct store_io *written; /* by a plain system call; done() is still to be called */
	struct store_io **written_last;
	uint64_t write_now_after_ns; /* the kernel made a writer wait: not before that */
} __attribute__((aligned(64)));

struct store_file {
	struct store store;
	uint32_t magic;
	int fd;
	bool direct;
	bool created;
	uint32_t piece_bytes;
	uint32_t memory_align_bytes; /* with direct */
	_Atomic int sync_error; /* negative errno: something written was not made durable */
	struct store_lane *lanes;
};

/* Allocates lanes and checks that rings can be made at all. */
int store_file_lanes_init(struct store_file *file, unsigned lanes);
void store_file_lanes_done(struct store_file *file);
extern const struct store_ops store_file_ops;

#endif
