/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * volume_internal - the inside of a volume, for what is joined in it: edit, checkpoint, recovery,
 * requests
 *
 * Lock order (I14): stripes by address, then meta, then mailboxes. "The owner of the metadata" is
 * whoever holds meta: the lock serialises everything that is not a lookup or a data transfer,
 * in-place writes and reads of resident mappings never take it.
 */
#ifndef CORE_VOLUME_VOLUME_INTERNAL_H
#define CORE_VOLUME_VOLUME_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/metadata/alloc.h"
#include "core/metadata/backing.h"
#include "core/metadata/cache.h"
#include "core/metadata/checkpoint.h"
#include "core/metadata/edit.h"
#include "core/metadata/flusher.h"
#include "core/metadata/journal.h"
#include "core/metadata/map.h"
#include "core/metadata/pending.h"
#include "core/metadata/refs.h"
#include "core/metadata/sweep.h"
#include "core/volume/fence.h"
#include "core/volume/tracking.h"
#include "core/volume/volume.h"

#define ZEROS_BYTES (1024u * 1024u)

struct volume {
	struct store *store;
	struct volume_options options;
	uint64_t life; /* the epoch that this opening began; pages go home in its class */
	struct super super; /* the durable one, and what the next one takes over from it */
	struct worker *workers[VOLUME_WORKERS_MAX];
	unsigned worker_count;
	struct fence fence;
	struct tracking tracking;

	pthread_mutex_t meta; /* guards all from here to the counters */
	struct flusher flusher;
	struct backing backing;
	struct journal journal;
	struct cache cache;
	struct map map;
	struct refs refs;
	struct pending pending;
	struct alloc alloc;
	struct checkpoint checkpoint;
	struct sweep sweep;
	struct list space_waits; /* requests that wait for blocks to become allocatable */
	uint32_t space_holders; /* requests with blocks that are not published yet */
	uint64_t kept_taken; /* blocks that they took of what is kept */
	bool low_on_space;
	char latched_text[160];
	struct damage *opening; /* while replay is on: damage of a page is told here, too */

	_Atomic int latched; /* 0 or a negative errno */
	_Atomic bool settle_wanted; /* something pending waits for an epoch alone */
	_Atomic bool cancelled;
	uint8_t *zeros; /* ZEROS_BYTES, never written */

	struct {
		_Atomic uint64_t reads, writes, zeroes, flushes, discards, read_bytes,
			written_bytes, cow_blocks, same_requests, same_bytes, differs,
			clone_requests, cloned_bytes, fenced_read_bytes, copied_bytes,
			zero_copy_bytes, read_errors, write_errors, no_space_errors;
	} counters;
};

static inline void count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

void volume_log(struct volume *volume, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* The first failed metadata write or flush: read-only from now on. Meta is held. */
void volume_latch(struct volume *volume, int error, const char *what);

static inline int volume_latched(struct volume *volume)
{
	return atomic_load_explicit(&volume->latched, memory_order_relaxed);
}

/* A data write, or what it needs, found no space in the backing. No lock is needed. */
void volume_data_lacks(struct volume *volume, int error);

/* Blocks that can be handed out. What is kept in windows is taken back when space is short. */
static inline uint64_t volume_free_blocks(const struct volume *volume)
{
	return refs_available(&volume->refs) + volume->alloc.reserved_blocks;
}

/* Of these, what a run without a place does not need for one: two blocks are kept for each. Several
 * requests may have taken some for one run, of which one alone needs them. Meta is held. */
static inline uint64_t volume_spare_blocks(const struct volume *volume)
{
	uint64_t free = volume_free_blocks(volume);
	uint64_t kept = (uint64_t)PLACE_BLOCKS * volume->map.unplaced;
	uint64_t untaken = kept - min_u64(kept, volume->kept_taken);

	return free - min_u64(free, untaken);
}

/* While metadata waits for space no page is cleaned: half of the cache is left to who reads. Meta
 * is held. */
static inline bool volume_takes_edits(const struct volume *volume)
{
	return !backing_is_lacking(&volume->backing) ||
	       volume->cache.dirty_count <= volume->cache.frame_count / 2;
}

/* The oldest request in flight on any worker. */
uint64_t volume_oldest_epoch(const struct volume *volume);

/* Settles what can be settled; meta is held. */
void volume_settle(struct volume *volume, unsigned lane);

/* The end of a stay on the worker (worker_leave), and what may be settled because of it. */
void volume_leave(struct volume *volume, struct worker *worker, struct inflight *inflight);

/* Runs worker 0 and lane 0 until *done. For opening and closing only. */
void volume_pump(struct volume *volume, const bool *done);
/* One step of that without a task to run: until the store has done something, or, where metadata
 * waits for space, the owner has said whether it goes on. If not, the volume is latched. */
void volume_wait_for_store(struct volume *volume);

/* Whether the simulator delays the step named point. */
static inline bool volume_yield(struct volume *volume, const char *point)
{
#ifdef SAMEBLK_YIELD
	return volume->options.yield && volume->options.yield(volume->options.yield_context, point);
#else
	(void)volume;
	(void)point;
	return false;
#endif
}

#endif
