/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * store_mem - a disk in memory for tests of the engine: struct store, with every I/O in the test's
 * hands
 *
 * An I/O waits in the queue of its lane until the test has it delivered: the first one, one that a
 * seed chooses, or the one that the test picks. It takes effect on delivery. The hook answers for
 * each I/O as it is submitted: go on, fail, or be held until the test lets go of it.
 *
 * With `cached` set the store has a volatile cache: what a good flush did not cover is lost by
 * store_mem_cut(), but for what the test says survives. (tests/lib/store_sim enumerates such
 * states; here a test names the one it is about.) Without it every write is durable at once.
 *
 * Units     bytes; a lane's queue is in order of submission.
 * Memory    the content is reserved, not filled: a store of terabytes costs what is written to it.
 *           What was never written reads 0xee (zeros in a large store), what was discarded 0xdd.
 * Threads   a lane belongs to one thread. Content is copied block by block under a lock of its own,
 *           so that overlapping I/O of two lanes is no data race here. cached: one lane only.
 * Errors    no memory asserts.
 */
#ifndef TESTS_LIB_STORE_MEM_H
#define TESTS_LIB_STORE_MEM_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/base/list.h"
#include "core/base/store.h"
#include "tests/lib/rng.h"

#define MEM_LANES_MAX 8u
#define MEM_LOCKS     64u

/* What the hook says besides 0 and negative errnos: the I/O is held. */
#define MEM_HOLD 1

#define MEM_FOREIGN 7u

enum mem_order {
	MEM_ORDER_FIFO,
	MEM_ORDER_RANDOM,
};

struct mem_io {
	struct store_io *io;
	int error; /* 0: it succeeds */
	bool held;
	uint64_t delivered_before; /* of a flush: what it covers */
};

struct mem_lane {
	struct mem_io *ios;
	uint32_t count;
	uint32_t capacity;
	uint32_t held;
	struct rng rng;
	uint64_t ops[STORE_OPS]; /* submitted, by enum store_op */
	uint64_t bytes[STORE_OPS];
};

/* A write that no flush covered yet; cached only. */
struct mem_write {
	struct list node; /* by delivery */
	uint64_t number;
	uint64_t off_bytes;
	uint64_t len_bytes;
	uint8_t data[];
};

struct store_mem {
	struct store store; /* first: the engine knows only this */
	enum mem_order order;
	/* 0, a negative errno or MEM_HOLD for each I/O; on the thread of its lane. May be NULL. */
	int (*hook)(void *context, const struct store_io *io);
	void *hook_context;
	uint8_t *data;
	uint8_t *foreign; /* the memory that io->foreign == MEM_FOREIGN means; NULL: none */
	struct mem_lane lanes[MEM_LANES_MAX];
	pthread_mutex_t locks[MEM_LOCKS];
	bool cached;
	uint8_t *durable; /* cached: what survives a power cut */
	struct list writes;
	uint64_t delivered; /* writes, so far */
};

void store_mem_init(struct store_mem *mem, uint64_t size_bytes, unsigned lane_count, uint64_t seed);
void store_mem_done(struct store_mem *mem);
/* From now on the store reaches this memory as MEM_FOREIGN. */
void store_mem_reach(struct store_mem *mem, void *foreign);
/* From now on the store has a volatile cache; what it holds now is durable. One lane. */
void store_mem_cache(struct store_mem *mem);

uint32_t store_mem_in_flight(const struct store_mem *mem, unsigned lane);
/* The i-th in flight on the lane, also when held. */
const struct store_io *store_mem_get(const struct store_mem *mem, unsigned lane, uint32_t i);

/* One that is not held, as the order says. False: there is none. */
bool store_mem_deliver(struct store_mem *mem, unsigned lane);
/* The i-th of the lane, held or not; with an error if res is negative. */
void store_mem_deliver_at(struct store_mem *mem, unsigned lane, uint32_t i, int res);
/* Those that are held go on. */
void store_mem_release(struct store_mem *mem, unsigned lane);

/* Nothing in flight will ever be delivered: the process was killed. Nobody's thread may run. */
void store_mem_kill(struct store_mem *mem);
/* A power cut: of what was not flushed, delivered or not, that alone survives for which survives()
 * is true. */
void store_mem_cut(struct store_mem *mem, bool (*survives)(void *context, uint64_t off_bytes),
		   void *context);

/* Offline. */
void store_mem_peek(struct store_mem *mem, uint64_t off_bytes, void *buf, uint64_t len_bytes);
void store_mem_poke(struct store_mem *mem, uint64_t off_bytes, const void *buf, uint64_t len_bytes);

uint64_t store_mem_ops(const struct store_mem *mem, enum store_op op);

#endif
