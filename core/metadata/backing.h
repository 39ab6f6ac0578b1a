/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * backing - what the store's backing has no space for: metadata waits, data is told
 *
 * Metadata is written where zeros were written before (I12), so on most backings it cannot lack
 * space. Some put what is overwritten into a new place all the same: btrfs, a file that shares its
 * extents with a copy, a thin device with a snapshot, a quota that counts it. There a metadata
 * write that finds no space waits here and is submitted again, so that its owner (the journal, the
 * checkpoint, change tracking) sees one long write and keeps its order. Nothing latches: what was
 * answered as durable is durable, and what is in flight becomes so when there is space.
 *
 *   GOOD    -> LACKING  backing_holds   a metadata write came back without space
 *   LACKING -> LACKING  backing_tick    what waits is submitted, after a pause that doubles
 *   LACKING -> GOOD     backing_holds   all that was out has been written
 *
 * While it is lacking, what needs new metadata but makes no space gets ENOSPC at once; discards
 * queue for the journal, whose open group takes some thousands of edits meanwhile, as long as half
 * of the cache can be reused; reads and writes in place go on. A flush waits. Opening and closing
 * have no ticks: they ask the owner (metadata_ops.goes_on_without_space) whether to go on, and give
 * up when it says no.
 *
 * Data writes without space fail for who asked. That is remembered for a while, for the status.
 *
 * Threads   the caller holds the metadata lock, but for backing_data_lacks().
 * Memory    none: what waits is linked by its own field.
 */
#ifndef CORE_METADATA_BACKING_H
#define CORE_METADATA_BACKING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/base/store.h"

struct backing {
	struct store *store;
	struct store_io *held; /* by store_next, in the order in which they came back */
	struct store_io **held_last;
	uint32_t held_count;
	uint32_t in_flight; /* metadata writes that the store has */
	uint32_t pause_ticks, ticks_left;
	bool killed;
	_Atomic int metadata_error; /* 0, or why metadata waits */
	_Atomic int data_error; /* 0, or why a data write failed not long ago */
	_Atomic uint32_t data_ticks; /* since then */
	/* Called with the lock held: metadata_error or data_error became 0 or not. */
	void (*changed)(void *context, bool data, int error);
	void *context;
	uint64_t metadata_waits; /* writes that found no space, each time */
};

void backing_init(struct backing *backing, struct store *store,
		  void (*changed)(void *context, bool data, int error), void *context);

/* Submits a metadata write; its done() begins with backing_holds(). */
void backing_write(struct backing *backing, struct store_io *io);

/* True: the write waits for space and done() will be called again. */
bool backing_holds(struct backing *backing, struct store_io *io, int res);

static inline bool backing_is_lacking(const struct backing *backing)
{
	return atomic_load_explicit(&backing->metadata_error, memory_order_relaxed) != 0;
}

/* So much of the store is not there yet and there is no space for it: 0 where nobody knows. Any
 * thread. */
uint64_t backing_missing_bytes(const struct backing *backing);

/* A data write found no space. True: for the first time in a while. No lock is needed. */
bool backing_data_lacks(struct backing *backing, int error);

/* Submits again what waits, all of it, on this lane. */
void backing_retry(struct backing *backing, unsigned lane);
/* The timer's: retries when the pause is over, forgets data errors. */
void backing_tick(struct backing *backing, unsigned lane);

/* What waits will never be written: the volume is latched. Its owners are told by others. */
void backing_kill(struct backing *backing);

#endif
