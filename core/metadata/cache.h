/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache - the leaves and refs pages that are in memory, in a bounded number of frames
 *
 *   ABSENT -> LOADING -> CLEAN <-> DIRTY
 *      ^                   |
 *      +-------------------+
 *
 *   ABSENT  -> LOADING  cache_load    a load slot reads the page's newer slot
 *   ABSENT  -> CLEAN    cache_load    a page that was never written is made in memory (for a refs
 *                                     page, after both its slots were written with zeros, so that
 *                                     going home cannot lack space)
 *   LOADING -> CLEAN    load_done     verified and decoded; who waits tries again
 *   LOADING -> ABSENT   load_done     could not be read, or is damaged; who waits gets the error
 *   CLEAN   -> DIRTY    cache_dirty   an edit was applied
 *   DIRTY   -> CLEAN    cache_copied  the checkpoint has a copy, which is going home (*copying*
 *                                     until it is there)
 *   CLEAN   -> ABSENT   eviction      the clock's hand found it; never while dirty, copying or busy
 *
 * Nobody keeps a frame while waiting: a request that lacks a page waits for it holding none, and
 * looks again. Only the checkpoint writes pages, so a full cache waits for a checkpoint, which
 * needs no frame. Pages that are needed together, a leaf and the counts of its blocks, would push
 * each other out of a few frames for ever. So on_short() is called when less than half of the
 * frames can be reused, and the last CACHE_FRAMES_SPARE are left alone while a checkpoint is about
 * to clean some.
 *
 * In memory a leaf is 512 64-bit words; a refs page is its counts and, beside the frame, a table of
 * *busy* counts: reasons why a block is not to be judged by its count alone (see refs.h).
 *
 * Page numbers: leaves by region, then refs pages: regions + slab.
 *
 * Threads   the caller holds the metadata lock. A leaf's words and its place in the table are
 *           changed with the lock of its region's stripe held as well, so that holding either is
 *           enough to read them.
 * Memory    frames are taken from the system as they are first used, busy tables as refs pages come
 *           in; never more of either than cache_init() was given frames.
 * Errors    -EIO, -EUCLEAN (damage; told to the log), -ENOSPC (writing the zeros).
 */
#ifndef CORE_METADATA_CACHE_H
#define CORE_METADATA_CACHE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/base/list.h"
#include "core/base/store.h"
#include "core/base/wait.h"
#include "core/format/format.h"
#include "core/format/geometry.h"

#define CACHE_FRAMES_MIN   96u
#define CACHE_FRAMES_SPARE (CACHE_FRAMES_MIN / 4)
#define CACHE_LOADS	   64u
#define CACHE_TOLD	   32u
#define PAGE_NONE	   UINT32_MAX

typedef uint32_t page_t;

struct frame {
	page_t page;
	bool dirty;
	bool copying;
	_Atomic bool referenced;
	uint16_t busy; /* refs: blocks whose busy count is not 0 */
	uint16_t mapped; /* leaf: entries that are not holes */
	uint64_t lsn; /* of the last edit in it */
	uint64_t first_lsn; /* DIRTY: of the first edit that is not in a copy */
	struct list dirty_node;
	union {
		_Atomic uint64_t words[REGION_BLOCKS];
		uint16_t counts[SLAB_DATA_BLOCKS];
	};
	/* A refs page's: one for each block of the slab; NULL in a leaf's frame. */
	uint16_t *busy_counts;
};

struct cache_home {
	pbn_t block; /* where to read */
	uint32_t generation; /* what its header must say */
	bool absent; /* was never written: make it in memory */
};

struct cache_ops {
	struct cache_home (*home)(void *context, page_t page);
	/* Takes and drops the stripe lock of a leaf's region; try is false if it would have to
	 * wait. */
	bool (*try_lock_region)(void *context, uint32_t region);
	bool (*one_lock)(void *context, uint32_t region_a, uint32_t region_b);
	void (*lock_region)(void *context, uint32_t region);
	void (*unlock_region)(void *context, uint32_t region);
	/* No frame, or few, can be reused: clean some. True: cache_wake() will be called. */
	bool (*on_short)(void *context, struct worker *worker);
	/* The zeros of a new refs page found no space. */
	void (*lacks_space)(void *context, int error);
	void (*damage)(void *context, const char *text);
	/* A refs page came in; nothing of it is busy. May be NULL. */
	void (*refs_loaded)(void *context, const struct frame *frame);
	/* It leaves: clean, and nothing of it is busy. May be NULL. */
	void (*refs_evicted)(void *context, const struct frame *frame);
	/* The LSN of the next edit: a page at home that has it, or a later one, is damage. */
	uint64_t (*lsn_limit)(void *context);
};

struct cache_load {
	struct cache *cache;
	page_t page; /* PAGE_NONE: slot is free */
	uint32_t generation;
	bool zeroing;
	struct list waits;
	struct store_io io;
	uint8_t *buf; /* two blocks */
};

struct cache {
	struct store *store;
	const struct geometry *geometry;
	const uint8_t *uuid;
	pthread_mutex_t *lock;
	const struct cache_ops *ops;
	void *context;

	struct frame *frames;
	uint32_t frame_count;
	uint32_t frames_used; /* frames below were used at least once */
	uint32_t hand;
	uint32_t *frame_of; /* by page: frame index + 1, 0 when absent */
	struct list dirty; /* by first_lsn */
	uint32_t dirty_count;
	uint32_t copying_count;
	uint32_t busy_pages; /* refs pages of which something is busy (refs.h); they stay */
	struct list free_waits; /* for a frame or a load slot */
	struct cache_load loads[CACHE_LOADS];
	uint8_t *load_memory;
	uint16_t **busy_tables; /* those that no frame uses */
	uint32_t busy_table_count;
	page_t loading; /* the leaf whose region's lock load_done() holds, or PAGE_NONE */
	bool dead; /* nothing is written any more */
	bool zero_new_refs; /* serving, not replaying */
	uint64_t told[CACHE_TOLD]; /* hashes of what was told of damage: once is enough */
	uint32_t told_at;

	uint64_t reads;
};

int cache_init(struct cache *cache, struct store *store, const struct super *super,
	       pthread_mutex_t *lock, uint32_t frame_count, const struct cache_ops *ops,
	       void *context);
/* The memory of so many frames is there from now on, not only as it is used. */
void cache_populate(struct cache *cache, uint32_t frames);
void cache_done(struct cache *cache);

static inline page_t page_of_leaf(uint32_t region)
{
	return region;
}

static inline page_t page_of_refs(const struct geometry *geometry, uint32_t slab)
{
	return geometry->regions + slab;
}

static inline bool page_is_leaf(const struct geometry *geometry, page_t page)
{
	return page < geometry->regions;
}

/* NULL when absent. The frame is good until the locks are dropped. */
static inline struct frame *cache_find(struct cache *cache, page_t page)
{
	uint32_t index = cache->frame_of[page];
	struct frame *frame;

	if (index == 0)
		return NULL;
	frame = &cache->frames[index - 1];
	atomic_store_explicit(&frame->referenced, true, memory_order_relaxed);
	return frame;
}

/* For an absent page. The wait is woken with 0 when it is worth looking again, or with an error. */
void cache_load(struct cache *cache, page_t page, struct wait *wait);

/* The frame was changed by the edit with this LSN. */
void cache_dirty(struct cache *cache, struct frame *frame, uint64_t lsn);

/* The oldest dirty frame, or NULL. */
struct frame *cache_oldest_dirty(struct cache *cache);
/* The checkpoint copied it / the copy is home. */
void cache_copied(struct cache *cache, struct frame *frame);
void cache_home_written(struct cache *cache, struct frame *frame);

/* Forgets a leaf whose region gave its place back. Nothing of it goes home any more. */
void cache_forget(struct cache *cache, page_t page);

/* Whether a load is under way; of this page. */
bool cache_is_loading(const struct cache *cache);
bool cache_is_loading_page(struct cache *cache, page_t page);

/* Frames may have become evictable: who waits for one tries again. */
void cache_wake(struct cache *cache);

/* Encodes the frame as it goes to disk. */
void cache_encode(const struct cache *cache, const struct frame *frame, uint32_t generation,
		  uint8_t *out);

void cache_kill(struct cache *cache, int error);

#endif
