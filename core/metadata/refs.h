/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * refs - how many logical blocks point at each physical block, and which blocks are busy
 *
 * The counts are in refs pages in the cache; of each slab a summary stays in memory, with the
 * largest piece that it has (piece.h), by which slabs are found (slabset.h). While the page is
 * absent the piece is exact. (A store written by an older program has no pieces: the least possible
 * one is assumed until the page is read.) So a page that is read for its piece always has it. While
 * the page is resident the piece is an upper bound; a search that finds nothing makes it exact.
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
 * Memory    refs_init() allocates 16 bytes a slab, and the sets: under 2.
 */
#ifndef CORE_METADATA_REFS_H
#define CORE_METADATA_REFS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/metadata/cache.h"
#include "core/metadata/map.h"
#include "core/metadata/piece.h"
#include "core/metadata/slabset.h"

/* What of a slab's free blocks is to be given back to the backing. */
enum owed {
	OWED_NOTHING,
	OWED_DUE, /* it may hold some of them */
	OWED_FAILED, /* the backing refused to take them; not tried again before the next start */
	OWED_KINDS,
};

struct slab {
	uint32_t generation; /* of its refs page's last home write; 0: never */
	int16_t free_blocks; /* count 0, busy or not */
	int16_t busy_free; /* of these: busy */
	uint32_t shared_refs;
	uint8_t piece; /* no larger one is allocatable (piece.h); while the page is absent: exact */
	uint8_t home_piece; /* of the page as it is at home, + 1; 0: not known */
	bool barred : 1; /* passed over until refs_unbar() */
	bool lost : 1; /* its page could not be read: nothing of it is handed out */
	uint8_t owed : 2; /* enum owed */
};

struct refs {
	const struct geometry *geometry;
	struct cache *cache;
	struct slab *slabs;
	struct top *tops; /* summary pages */
	struct slabset by_piece[PIECES]; /* which slabs are of that piece; barred and lost: none */
	struct slabset unknown; /* whose piece is not known: it is the least that can be */
	struct slabset barred;
	struct slabset due; /* OWED_DUE */
	uint64_t free_blocks; /* sums over the slabs */
	uint64_t busy_free;
	uint64_t shared_refs;
	uint64_t lost_free; /* of free_blocks: in lost slabs */
	uint64_t owed_free[OWED_KINDS]; /* free_blocks, by what is owed of their slabs */
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

/* The absent page of the slab cannot be had. False: that was known, or the slab is held. */
bool refs_lose(struct refs *refs, uint32_t slab);
/* The page came in; nothing of it is busy. It is known now what it has. */
void refs_loaded(struct refs *refs, const struct frame *frame);
/* The page is about to leave, clean and with nothing busy. */
void refs_evicted(struct refs *refs, uint32_t slab);
/* A copy of the page went home: its generation and what it had to offer. */
void refs_home(struct refs *refs, uint32_t slab, uint32_t generation, uint32_t piece);

/* What is owed of the slab. The next checkpoint puts into its summary whether that is nothing. */
void refs_set_owed(struct refs *refs, uint32_t slab, enum owed owed);
/* Whatever is free is due: for who wants it so, and after an end that was not clean. */
void refs_make_all_due(struct refs *refs);
/* All of a slab that was never used is busy, though its page is absent and stays so; until
 * refs_unhold(). */
void refs_hold(struct refs *refs, uint32_t slab);
void refs_unhold(struct refs *refs, uint32_t slab);

/* Passed over until refs_unbar(), which ends that for all. */
void refs_bar(struct refs *refs, uint32_t slab);
void refs_unbar(struct refs *refs);

/* The first slab from `from` on, and round, of which such a piece may be had; SLABSET_NONE. */
uint32_t refs_find(const struct refs *refs, uint32_t from, uint32_t piece);
/* The piece of a resident page, by its counts alone; made exact in the summary. */
uint32_t refs_free_piece(const struct refs *refs, const struct frame *frame);
void refs_measure(struct refs *refs, uint32_t slab);

/* The effects of edits (see edit.h): each block of the run gains or loses one reference. */
void refs_take(struct refs *refs, pbn_t pbn, uint32_t blocks);
/* Returns how many lost their last one. */
uint32_t refs_drop(struct refs *refs, pbn_t pbn, uint32_t blocks);

/* Recounts a slab's summary from its resident page, after replay. */
void refs_recount(struct refs *refs, uint32_t slab);

#endif
