/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tracking - which regions changed since a generation, so that nobody reads all of a volume twice
 *
 * Each region has a *stamp*, the generation in which its content last changed. A *cut* ends a
 * generation: it answers N, and what changes afterwards is stamped N + 1 or more. Whoever read the
 * volume after cut N and asks for what changed since N is told every region that may read otherwise
 * now. A merge changes no content and leaves no stamp; write, zero, discard and clone do.
 *
 * Stamps are in memory. What a crash must not lose is that something *may* have changed: before the
 * first write to an area of 512 regions (1 GiB) its page on the store says OPEN, durably.
 *
 *   CLOSED ---> OPENING ---> OPEN ---> CLOSING ---> CLOSED
 *                             ^-----------+
 *
 *   CLOSED  -> OPENING  a request that may change content finds the area so, and waits
 *   OPENING -> OPEN     the page was written, OPEN, and flushed; who waits is woken
 *   OPEN    -> CLOSING  nothing in the area was stamped for a while, or the volume is closed
 *   CLOSING -> OPEN     a request that may change it is in flight
 *   CLOSING -> CLOSED   what was changed there is durable (a commit, then a flush), and only then
 *                       the page was written, CLOSED, with the area's stamps
 *
 * After a clean stop all areas are closed and every stamp is known. After any other, all regions of
 * an area whose page is open, or cannot be read, count as changed when the volume was opened.
 *
 * Why it never says "unchanged" of a region that changed:
 *   A crash      loses or keeps what was changed after the last commit and flush. A request holds
 *                its range from before it submits anything until it ends, and is given it only
 *                while the area is OPEN; CLOSING looks at the ranges held after it has shut the
 *                gate. So with the area closed nothing is in flight in it, all of it is durable,
 *                and the stamps that the page holds are the last ones. An area that is open on the
 *                store counts as changed as a whole.
 *   A torn page  A page is written in place, from CLOSED to OPEN or back. No content changes before
 *                the first is durable or after the second was begun, so old, new and unreadable are
 *                all right: unreadable counts as open.
 *   A race       The stamp is set when a range is given back: after the data is in the store and
 *                before the answer. A write that a cut finds in flight is stamped later, so with a
 *                generation after the cut's, whether or not a reader saw it.
 *   Numbers that come again  A cut is answered once its successor's number is durable, in a
 *                superblock. Opening begins a generation beyond that and beyond all stamps in
 *                closed pages: no number that was ever answered is stamped again. Generations that
 *                nobody asked for may be lost; whatever was stamped with them is on a closed page,
 *                which counts, or in an open area, which counts as changed.
 *
 * What it cannot see: a store that loses a write which it had flushed (a page stays CLOSED), and
 * one that was put back from a copy: generations known from its later life mean nothing then.
 *
 * Costs     an overwrite reads its area's state, the generation and its region's stamp, and writes
 *           the stamp once a generation. No lock and no journal.
 * Units     regions and areas are numbers; a generation is 32 bits and stops at its maximum: then
 *           no cut can be made (EOVERFLOW).
 * Errors    a page that cannot be written or flushed latches the volume, as any metadata. One that
 *           cannot be read costs knowledge, and is told to the log.
 * Threads   states change under the metadata lock; stamps under their stripe's. Both may be read
 *           without. Memory: 4 bytes a region, 1 an area, 128 KiB; taken by tracking_init().
 * Blocking  tracking_load() blocks on the store; nothing else.
 */
#ifndef CORE_VOLUME_TRACKING_H
#define CORE_VOLUME_TRACKING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/base/store.h"
#include "core/base/wait.h"
#include "core/format/geometry.h"

#define TRACKING_BATCH 32u /* pages written at a time */
#define TRACKING_REST  60u /* ticks without a change after which an area is closed */
#define TRACKING_LAST  (UINT32_MAX - 1) /* generation */

enum area_state {
	AREA_CLOSED,
	AREA_OPENING,
	AREA_OPEN,
	AREA_CLOSING,
};

enum tracking_state {
	TRACKING_IDLE,
	TRACKING_LOOKING, /* for requests in flight in areas that rest */
	TRACKING_OPEN_WRITE,
	TRACKING_OPEN_FLUSH,
	TRACKING_CLOSE_COMMIT,
	TRACKING_CLOSE_FLUSH,
	TRACKING_CLOSE_WRITE,
	TRACKING_DEAD, /* the volume is latched */
};

struct volume;
struct damage;

struct tracking {
	struct volume *volume;
	uint32_t areas; /* 0: this volume is not tracked */
	uint32_t regions;
	_Atomic uint32_t generation; /* what changes now is stamped with it */
	_Atomic bool stamped; /* something was, in this generation; may be true for nothing */
	_Atomic uint8_t *states; /* by area: enum area_state */
	_Atomic uint32_t *stamps; /* by region */

	/* Under the metadata lock. */
	uint32_t durable_generation;
	enum tracking_state state;
	struct list waits; /* for an area (value) to be open */
	struct wait *all_closed; /* who closes the volume */
	bool final; /* what is closed now is closed for good: one flush does for all of it */
	uint32_t open_areas;
	/* Areas at rest are looked for in rounds: from area to area, over as many ticks as it
	 * takes. */
	uint32_t ticks;
	uint32_t cursor;
	uint32_t round_generation; /* stamps of this one or later: no rest */
	struct wait step;
	uint32_t batch_count;
	uint32_t batch[TRACKING_BATCH];
	struct store_io ios[TRACKING_BATCH];
	uint32_t ios_pending;
	int ios_res;
	uint8_t *pages;
	uint64_t pages_written;
};

int tracking_init(struct tracking *tracking, struct volume *volume);
void tracking_done(struct tracking *tracking);

/* Reads the pages (tracking_load.c), in recovery. Those that are no good are written anew, open,
 * unless the volume is read-only. */
int tracking_load(struct volume *volume, struct damage *reterr_damage);

/* The gate: whether content of the region may be changed. Its stripe is held, so that either the
 * hold that is taken now is seen by who closes the area, or the closing is seen here. */
static inline bool tracking_is_open(const struct tracking *tracking, uint32_t region)
{
	return tracking->areas == 0 ||
	       atomic_load_explicit(&tracking->states[region / AREA_REGIONS],
				    memory_order_relaxed) == AREA_OPEN;
}

void tracking_stamp_new(struct tracking *tracking, uint32_t region);

/* Content of the region may have changed, and is in the store. Its stripe is held. */
static inline void tracking_stamp(struct tracking *tracking, uint32_t region)
{
	if (tracking->areas != 0 &&
	    atomic_load_explicit(&tracking->stamps[region], memory_order_relaxed) !=
		    atomic_load_explicit(&tracking->generation, memory_order_acquire))
		tracking_stamp_new(tracking, region);
}

/* Opens the region's area; the wait is woken when it is open, or with an error. False: it is open,
 * or there is nothing to wait for because the volume is latched. No lock but stripes is held. */
bool tracking_ask(struct tracking *tracking, uint32_t region, struct wait *wait);

/* Ends a generation. 0: all that changes from now on has a stamp beyond *ret_generation, which may
 * be answered at once. 1: only when a checkpoint that begins now is durable. Or EOVERFLOW. Meta is
 * held. */
int tracking_cut(struct tracking *tracking, uint32_t *ret_generation);

/* The first run of regions from `first` on, before `end`, that changed after `since`. False: there
 * is none. */
bool tracking_next(const struct tracking *tracking, uint32_t since, uint32_t first, uint32_t end,
		   uint32_t *ret_first, uint32_t *ret_count);

/* The caller's timer: closes areas that rest. No lock is held. */
void tracking_tick(struct tracking *tracking, struct worker *worker);

/* Closes all areas; no request is in flight. The wait is woken at the end. Meta is held. */
void tracking_close(struct tracking *tracking, struct worker *worker, struct wait *wait);

/* Meta is held. */
void tracking_kill(struct tracking *tracking, int error);
/* The backing has no space for a mark, which is written once it has some: who waits looks again. */
void tracking_wake(struct tracking *tracking);

#endif
