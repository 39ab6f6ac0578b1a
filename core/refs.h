/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * refs - how many logical blocks point at each physical block, and which blocks are busy
 *
 * The counts are in refs pages in the cache; of each slab a summary stays in memory.
 *
 * A block is *busy* while something uncommitted or in flight forbids to judge it by its count
 * alone:
 *   - count 0, reserved for a write under way (alloc.h), until published or given back;
 *   - count 0, freed by an edit that is not yet settled (pending.h): not allocatable (I3);
 *   - count > 0 after an uncommitted decrement: a recovery could still produce the other owner, so
 *     the block is not overwritten in place (I4).
 * Each reason adds one to the block's busy count, and takes it back when it is over. A refs page
 * with busy blocks stays in memory, so settling never waits for one.
 *
 * Units     counts are references, never bytes; shared_refs is the sum of the counts above 1.
 * Errors    none: a caller's bug (a drop below 0, a take above REFS_MAX, an absent page) asserts.
 * Threads   the caller holds the metadata lock.
 * Memory    refs_init() allocates 24 bytes a slab.
 */
#ifndef CORE_REFS_H
#define CORE_REFS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/cache.h"
#include "core/map.h"

struct slab {
	uint32_t generation; /* of its refs page's last home write; 0: never */
	int16_t free_blocks; /* count 0, busy or not */
	int16_t busy_free; /* of these: busy */
	int64_t shared_refs;
	uint16_t max_run; /* no longer run of allocatable blocks is known to be there (alloc.h) */
	bool lost; /* its page could not be read: nothing of it is handed out */
};

struct refs {
	const struct geometry *geometry;
	struct cache *cache;
	struct slab *slabs;
	struct top *tops; /* summary pages */
	uint64_t free_blocks; /* sums over the slabs */
	uint64_t busy_free;
	uint64_t shared_refs;
	uint64_t lost_free; /* of free_blocks: in lost slabs */
};

int refs_init(struct refs *refs, const struct geometry *geometry, struct cache *cache);
void refs_done(struct refs *refs);

/* As an entry of a summary page said, when opening. */
void refs_set_summary(struct refs *refs, uint32_t slab, const struct summary_entry *entry);

/* The resident refs page of a data block, or NULL. */
struct frame *refs_frame(struct refs *refs, pbn_t pbn);

uint16_t refs_count(struct refs *refs, pbn_t pbn);
uint16_t refs_busy_count(struct refs *refs, pbn_t pbn);
void refs_busy_add(struct refs *refs, pbn_t pbn, uint32_t blocks);
void refs_busy_sub(struct refs *refs, pbn_t pbn, uint32_t blocks);

/* Blocks of a slab that can be handed out now; of the whole store. */
static inline uint32_t refs_slab_available(const struct refs *refs, uint32_t slab)
{
	return (uint32_t)(refs->slabs[slab].free_blocks - refs->slabs[slab].busy_free);
}

static inline uint64_t refs_available(const struct refs *refs)
{
	return refs->free_blocks - refs->busy_free - refs->lost_free;
}

/* The absent page of the slab cannot be had. False: that was known. */
bool refs_lose(struct refs *refs, uint32_t slab);
/* The page came in after all. */
void refs_loaded(struct refs *refs, uint32_t slab);

/* The effects of edits (see edit.h): each block of the run gains or loses one reference. */
void refs_take(struct refs *refs, pbn_t pbn, uint32_t blocks);
/* Returns how many lost their last one. */
uint32_t refs_drop(struct refs *refs, pbn_t pbn, uint32_t blocks);

/* Recounts a slab's summary from its resident page, after replay. */
void refs_recount(struct refs *refs, uint32_t slab);

#endif
