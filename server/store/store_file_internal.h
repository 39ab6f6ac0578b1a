/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * store_file_internal - what store_file_open.c (opening) and store_file.c (I/O) share
 */
#ifndef SERVER_STORE_STORE_FILE_INTERNAL_H
#define SERVER_STORE_STORE_FILE_INTERNAL_H

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "server/base/ring.h"
#include "server/store/store_compare.h"
#include "server/store/store_file.h"
#include "server/store/store_gate.h"

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
	uint64_t began_ns; /* a piece of a discard */
	struct __kernel_timespec pause; /* after it */
};

struct store_lane {
	struct store_file *file;
	struct ring ring;
	bool has_ring;
	uint64_t owner; /* a thread: see this_thread() */
	/* Set by the lane's thread alone; store_watch looks at them. */
	_Atomic unsigned in_flight; /* store_io, those that wait included */
	_Atomic uint64_t finished;
	struct file_io *ios;
	struct file_io *free;
	struct store_io *waiting; /* for a file_io or for the bounce buffer */
	struct store_io **waiting_last;
	uint8_t *bounce; /* with direct */
	bool bounce_used;
	struct store_io *refused; /* this thread got no ring */
	struct store_io *written; /* by a plain system call; done() is still to be called */
	struct store_io **written_last;
	_Atomic uint64_t work; /* writes and comparisons so far; set by the lane's thread alone */
	uint64_t work_before; /* of all lanes, when the last piece of a discard began */
	struct store_io *discarding; /* the one under way; NULL: none */
	struct store_io *discards; /* that wait for it */
	struct store_io **discards_last;
	uint64_t write_now_after_ns; /* the kernel made a writer wait: not before that */
	struct store_map_view view; /* of what is compared at once */
	unsigned comparing; /* in the hands of other threads */
	pthread_mutex_t compared_lock;
	pthread_cond_t compared_cond;
	struct store_io *_Atomic compared; /* done() is still to be called, oldest first */
	struct store_io *compared_last;
	void (*wake)(void *context); /* something was compared; may be NULL */
	void *wake_context;
} __attribute__((aligned(64)));

struct store_file {
	struct store store;
	uint32_t magic;
	int fd;
	bool created;
	bool locked;
	bool fresh; /* it was empty when it was locked, and was made as long as asked for */
	uint32_t piece_bytes;
	uint32_t memory_align_bytes; /* with direct */
	_Atomic uint64_t probed_ns; /* store_watch waits for the file since then; 0: it does not */
	_Atomic int sync_error; /* negative errno: something written was not made durable */
	_Atomic unsigned discarding; /* pieces that the kernel has now */
	_Atomic uint64_t discards_begun; /* pieces so far */
	struct store_lane *lanes;
	struct store_gate gate;
	struct store_map *map; /* NULL: nothing is compared here */
	struct store_compare *compare;
};

static inline void store_lane_begin(struct store_lane *lane)
{
	unsigned before = atomic_load_explicit(&lane->in_flight, memory_order_relaxed);

	atomic_store_explicit(&lane->in_flight, before + 1, memory_order_relaxed);
}

static inline void store_lane_finish(struct store_lane *lane)
{
	unsigned before = atomic_load_explicit(&lane->in_flight, memory_order_relaxed);
	uint64_t finished = atomic_load_explicit(&lane->finished, memory_order_relaxed);

	assert(before > 0);
	atomic_store_explicit(&lane->in_flight, before - 1, memory_order_relaxed);
	atomic_store_explicit(&lane->finished, finished + 1, memory_order_relaxed);
}

/* Allocates lanes and checks that rings can be made at all. */
int store_file_lanes_init(struct store_file *file, unsigned lanes);
void store_file_lanes_done(struct store_file *file);
extern const struct store_ops store_file_ops;
/* Of these: who has the lock lets it go; who compares is told whom to wake. */
void store_file_close(struct store *store);
void store_file_set_wake(struct store *store, unsigned lane, void (*wake)(void *context),
			 void *context);

/* A comparison is submitted. */
void store_file_compare(struct store_lane *lane, struct store_io *io);
/* Calls done() of what other threads have compared; true if there was any. With wait it waits for
 * one, if any is under way. */
bool store_file_compared(struct store_lane *lane, bool wait);

#endif
