/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * metadata - all that a store holds beside data, and the lock that guards it
 *
 * Maps and counts in the cache, the journal that makes their edits durable, the checkpoint that
 * brings them home, and the free blocks: one for each store. What belongs to a volume (its fence,
 * its tracking, its counters) is the owner's (core/volume), which is told of what it has to know by
 * metadata_ops.
 *
 *   OPENING -> SERVING  metadata_open() has read or replayed what the store has
 *   SERVING -> LATCHED  the first metadata write or flush that failed: what is in flight gets EIO,
 *                       nothing but reads reaches the store from now on (I11)
 *
 * Lock order (I14): the regions' locks (the owner's), then lock, then the workers' mailboxes.
 *
 * Errors    0 or a negative errno; a damaged store says where, expected, found in struct damage.
 * Threads   whoever holds lock owns all of it; latched, and what says so, may be read without.
 * Blocking  opening and closing alone wait for the store: metadata_call_wait().
 */
#ifndef CORE_METADATA_METADATA_H
#define CORE_METADATA_METADATA_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/base/store.h"
#include "core/base/units.h"
#include "core/base/worker.h"
#include "core/format/format.h"
#include "core/metadata/alloc.h"
#include "core/metadata/backing.h"
#include "core/metadata/cache.h"
#include "core/metadata/checkpoint.h"
#include "core/metadata/edit.h"
#include "core/metadata/flusher.h"
#include "core/metadata/journal.h"
#include "core/metadata/map.h"
#include "core/metadata/pending.h"
#include "core/metadata/recovery.h"
#include "core/metadata/refs.h"
#include "core/metadata/sweep.h"

#define METADATA_WORKERS_MAX 64u

/* What it tells and asks its owner. "Held": with the lock held. */
struct metadata_ops {
	/* A line for the log. Any thread. */
	void (*log)(void *owner, const char *text);
	/* While it is opened or closed a write lacks space: pause and true, or false: give up. */
	bool (*goes_on_without_space)(void *owner);
	/* The simulator's: true delays the step named by the point. */
	bool (*yield)(void *owner, const char *point);
	/* Held: nothing more is written; what waits at the owner's has to be told. */
	void (*latched)(void *owner);
	/* Held: a metadata write waits for space, and nobody knows for how long. */
	void (*waits_for_space)(void *owner);
	/* A block of zeros that a page needs first found no space. */
	void (*data_lacks)(void *owner, int error);
	/* Held: the generation that the next superblock has, and that one with it is durable. */
	uint32_t (*generation)(void *owner);
	void (*superblock_is_durable)(void *owner, uint32_t generation);
	/* Who looks a region's leaf up holds its lock. one_lock: whether two regions have the
	 * same. */
	bool (*try_lock_region)(void *owner, uint32_t region);
	bool (*one_lock)(void *owner, uint32_t region_a, uint32_t region_b);
	void (*lock_region)(void *owner, uint32_t region);
	void (*unlock_region)(void *owner, uint32_t region);
};

struct metadata_options {
	uint64_t cache_bytes;
	uint32_t cow_hint_blocks;
	bool read_only;
	bool populate; /* the cache has its memory from the start */
	bool discard;
};

struct metadata {
	struct store *store;
	const struct metadata_ops *ops;
	void *owner;
	struct metadata_options options;
	uint64_t life; /* the epoch that this opening began; pages go home in its class */
	struct super super; /* the durable one, and what the next one takes over from it */
	struct worker *workers[METADATA_WORKERS_MAX];
	unsigned worker_count;

	pthread_mutex_t lock; /* guards all from here to latched */
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
};

/* Makes it, with nothing read yet. workers[i] has lane i. NULL: no memory. */
struct metadata *metadata_new(struct store *store, const struct metadata_options *options,
			      struct worker **workers, unsigned worker_count,
			      const struct metadata_ops *ops, void *owner);
/* Frees without writing anything; NULL is fine. */
void metadata_free(struct metadata *metadata);

/* The superblock and the log as they were found; the log's memory is the caller's. */
int metadata_find(struct metadata *metadata, uint32_t **ret_generations,
		  struct recovery_log *ret_log, struct damage *reterr_damage);
/* The parts, with frames for the log. */
int metadata_init_parts(struct metadata *metadata, const struct recovery_log *log);
/* Applies what the log has. If the store was not shut down cleanly, whatever is free is due. */
int metadata_replay(struct metadata *metadata, const struct recovery_log *log, bool clean,
		    struct damage *reterr_damage);

/* A checkpoint that says, and leaves, that the store was shut down. */
int metadata_checkpoint_clean(struct metadata *metadata);
/* Starts one; it runs in the background. */
void metadata_checkpoint(struct metadata *metadata, struct worker *worker);
/* What the caller's timer does here: commits, retries, closes what rests. */
void metadata_tick(struct metadata *metadata, struct worker *worker);

void metadata_log(struct metadata *metadata, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* The first failed metadata write or flush: read-only from now on. The lock is held. */
void metadata_latch(struct metadata *metadata, int error, const char *what);

static inline int metadata_latched(struct metadata *metadata)
{
	return atomic_load_explicit(&metadata->latched, memory_order_relaxed);
}

/* Blocks that can be handed out. What is kept in windows is taken back when space is short. */
static inline uint64_t metadata_free_blocks(const struct metadata *metadata)
{
	return refs_available(&metadata->refs) + metadata->alloc.reserved_blocks;
}

/* Of these, what a run without a place does not need for one: two blocks are kept for each. Several
 * requests may have taken some for one run, of which one alone needs them. The lock is held. */
static inline uint64_t metadata_spare_blocks(const struct metadata *metadata)
{
	uint64_t free = metadata_free_blocks(metadata);
	uint64_t kept = (uint64_t)PLACE_BLOCKS * metadata->map.unplaced;
	uint64_t untaken = kept - min_u64(kept, metadata->kept_taken);

	return free - min_u64(free, untaken);
}

/* Of these, what the backing has no space for: for the statistics. */
uint64_t metadata_unbacked_blocks(const struct metadata *metadata);
/* Tells when space becomes short, or is not any more. The lock is held. */
void metadata_look_at_space(struct metadata *metadata);

/* While metadata waits for space no page is cleaned: half of the cache is left to who reads. The
 * lock is held. */
static inline bool metadata_takes_edits(const struct metadata *metadata)
{
	return !backing_is_lacking(&metadata->backing) ||
	       metadata->cache.dirty_count <= metadata->cache.frame_count / 2;
}

/* The oldest request in flight on any worker. */
uint64_t metadata_oldest_epoch(const struct metadata *metadata);

/* Settles what can be settled; the lock is held. */
void metadata_settle(struct metadata *metadata, unsigned lane);

/* The end of a stay on the worker (worker_leave), and what may be settled because of it. */
void metadata_leave(struct metadata *metadata, struct worker *worker, struct inflight *inflight);

/* Whether nothing of its own is under way. Once latched, only the I/O that is out counts. The lock
 * is held. */
bool metadata_is_idle(const struct metadata *metadata);

/* What is begun on worker 0 and waited for, while the store is opened or closed: prepare the call,
 * hand its wait over with the lock held, then wait. */
struct metadata_call {
	struct wait wait;
	bool done;
};

void metadata_call_prepare(struct metadata *metadata, struct metadata_call *ret_call);
/* Runs worker 0 and lane 0 until the wait is woken; what it was woken with. */
int metadata_call_wait(struct metadata *metadata, struct metadata_call *call);
/* One step of that without a task to run: until the store has done something, or, where metadata
 * waits for space, the owner has said whether it goes on. If not, it is latched. */
void metadata_wait_for_store(struct metadata *metadata);

/* Whether the simulator delays the step named point. */
static inline bool metadata_yield(struct metadata *metadata, const char *point)
{
#ifdef SAMEBLK_YIELD
	return metadata->ops->yield(metadata->owner, point);
#else
	(void)metadata;
	(void)point;
	return false;
#endif
}

#endif
