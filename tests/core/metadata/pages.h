/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * pages - a metadata cache on a disk in memory, without a volume around it
 *
 * For tests of the cache. Where a page is at home is a table; the locks of regions are counters, so
 * that a test can hold one and see that none is forgotten. Until the test puts a page, it was never
 * written. The leaf of region r has its two slots at pages_place(r).
 *
 * Threads   one. There is one of it, `pages`; a test runs in a process of its own.
 */
#ifndef TESTS_CORE_METADATA_PAGES_H
#define TESTS_CORE_METADATA_PAGES_H

#include "core/metadata/cache.h"
#include "tests/lib/store_mem.h"

#define PAGES_REGIONS	  100u
#define PAGES_LAST_BLOCKS 100u /* of the last region */
#define PAGES_SLABS	  3u
#define PAGES_STRIPES	  8u /* region r is locked by stripe r % PAGES_STRIPES */
#define PAGES_WAITERS	  80u

struct pages_waiter {
	struct wait wait;
	unsigned woken; /* how many times */
	int res;
};

struct pages {
	struct super super;
	const struct geometry *geometry;
	struct store_mem mem;
	struct worker worker;
	pthread_mutex_t lock;
	struct cache cache;
	struct cache_home homes[PAGES_REGIONS + PAGES_SLABS];
	unsigned held[PAGES_STRIPES]; /* by the cache, or by the test */
	unsigned shorts; /* how often cleaning was asked for */
	bool checkpoint_comes; /* the answer to that */
	unsigned damages;
	char damage[320]; /* the last one */
	uint64_t lsn_limit;
	int fail_reads; /* 0 or the negative errno */
	int fail_writes;
	struct pages_waiter waiters[PAGES_WAITERS];
};

extern struct pages pages;

/* The disk; then a cache with so many frames, that is serving, not replaying. */
void pages_start(void);
void pages_make(uint32_t frames);
void pages_stop(void);

/* Of the leaf: an even generation is in the first block. */
uint64_t pages_place(uint32_t region);
/* What the entries of leaves are. */
uint64_t pages_leaf_entry(uint32_t region, uint32_t index);

/* Puts a page into its slot, and makes it the one at home. A leaf's first `mapped` entries are no
 * holes; a refs page's counts are pages_count(). */
void pages_put_leaf(uint32_t region, uint32_t generation, uint64_t lsn, uint32_t mapped);
void pages_put_refs(uint32_t slab, uint32_t generation, uint64_t lsn);
/* Those of the first regions, LSN 10, one block mapped in each. */
void pages_put_leaves(uint32_t count);

static inline uint16_t pages_count(uint32_t slab, uint32_t index)
{
	return (uint16_t)(index * 3 + slab);
}

/* Runs tasks and delivers I/O until nothing moves. */
void pages_settle(void);
/* Asks for an absent page; delivers nothing. */
void pages_ask(page_t page, struct pages_waiter *waiter);
/* What the waiter was told. -EAGAIN: nothing yet. */
int pages_answer(const struct pages_waiter *waiter);
/* Both, and all that moves in between. */
int pages_load(page_t page);

/* Unlike cache_find(), these do not count as a use. */
bool pages_resident(page_t page);
uint32_t pages_residents(void);

/* Of a page that must be resident. */
struct frame *pages_frame(page_t page);
void pages_dirty(page_t page, uint64_t lsn);
void pages_wake(void);
/* As a checkpoint does, in short; who waits for a frame is woken. */
void pages_bring_home(page_t page);

#endif
