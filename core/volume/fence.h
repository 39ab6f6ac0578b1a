/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fence - which ranges are being changed, by whom, and who waits for them
 *
 * Every request that changes a part of a region holds the part's range while it does: *shared* for
 * a write that goes in place (two of them on the same block are the client's own race, as on any
 * disk), *exclusive* for everything that changes the map or reads before it writes: first write,
 * copy-on-write, read-modify-write, zero, discard, merge, clone. An exclusive hold is the fence:
 * it is given when what overlaps has drained, and what comes later waits. Reads hold nothing.
 *
 *   FREE ----> HELD ----> FREE
 *     \         ^
 *      v        |
 *      WAITING -+
 *
 *   FREE    -> HELD     fence_take   nothing that is held or waits conflicts
 *   FREE    -> WAITING  fence_take   otherwise; in order of arrival
 *   WAITING -> HELD     fence_drop   of the last one in its way; its task is posted
 *   HELD    -> FREE     fence_drop
 *
 * A *watch* is how a merge compares without a fence: it is touched by every hold that is given on
 * its range and may change content. Untouched at the end: what was compared still stands.
 *
 * A merge holds two ranges, and takes the lower one first. While it waits for its second range it
 * passes requests that hold nothing, because one of them may wait for its first range. It then
 * waits only for holders, and a holder waits only for ranges that begin further on: no circle can
 * close.
 *
 * Ranges lie within one region. Regions share 1,024 stripes, each with a lock and three lists that
 * are nearly always empty; the lock also guards the region's map entries against lookups (see
 * map.h).
 *
 * Threads   the stripe's lock is held by the caller for everything but init, done and stripe
 *           lookup.
 * Memory    nothing is allocated after fence_init().
 * Lock order  stripes by address, then the volume's metadata lock, then mailboxes.
 */
#ifndef CORE_VOLUME_FENCE_H
#define CORE_VOLUME_FENCE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/base/list.h"
#include "core/base/units.h"
#include "core/base/worker.h"

#define FENCE_STRIPES 1024u

enum fence_mode {
	FENCE_SHARED,
	FENCE_EXCLUSIVE,
};

enum fence_state {
	FENCE_FREE = 0,
	FENCE_WAITING,
	FENCE_HELD,
};

struct fence_hold {
	struct list node;
	struct task task; /* posted when a waiting hold is given; set by the caller */
	uint64_t begin; /* logical blocks, half-open */
	uint64_t end;
	uint64_t ticket; /* 0: not yet drawn */
	enum fence_mode mode;
	enum fence_state state;
	bool changes; /* content may change: touches watches */
	bool passes; /* its owner holds another range: it does not queue behind who waits */
	void *owner; /* the request */
};

struct fence_watch {
	struct list node;
	uint64_t begin;
	uint64_t end;
	bool touched;
	bool placed;
};

struct fence_stripe {
	pthread_mutex_t lock;
	struct list held;
	struct list waiting; /* by ticket */
	struct list watches;
} __attribute__((aligned(64)));

struct fence {
	struct fence_stripe *stripes;
	_Atomic uint64_t next_ticket;
	_Atomic uint64_t waits; /* holds that had to wait, for stats */
};

int fence_init(struct fence *fence);
void fence_done(struct fence *fence);

struct fence_stripe *fence_stripe(struct fence *fence, uint32_t region);

/* Locks the stripes of both regions (which may be one) in order; unlocks them. */
void fence_lock2(struct fence *fence, uint32_t region_a, uint32_t region_b);
void fence_unlock2(struct fence *fence, uint32_t region_a, uint32_t region_b);

/* begin, end, mode, changes and task are set. True: held. False: waiting; the task will be posted
 * once it is held. A ticket that is not 0 keeps its place in the order (a second try of one
 * request). */
bool fence_take(struct fence *fence, struct fence_stripe *stripe, struct fence_hold *hold);
/* Of a held hold. The ticket is kept; the caller clears it when its part is over. */
void fence_drop(struct fence_stripe *stripe, struct fence_hold *hold);

/* Whether somebody who may change content holds a range of the region. */
bool fence_is_changing(const struct fence_stripe *stripe, uint32_t region);

/* Whether it is touched already: somebody who may change content holds an overlapping range. */
void fence_watch(struct fence_stripe *stripe, struct fence_watch *watch);
void fence_unwatch(struct fence_watch *watch);

#endif
