/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * map - the remap table: which physical block each logical block reads from
 *
 * The root is in memory, 16 bytes a region; leaves are in the cache. A region is
 *
 *   HOLE     nothing is mapped; its place, if it has one, waits for a leaf
 *   LINEAR   its first length blocks lie in order from base; the rest are holes
 *   LEAF     512 entries, each a physical block or a hole, and a maybe_shared flag
 *
 * A count greater than 1 implies that every owner's entry is maybe_shared, or its LINEAR region's
 * shared bit is set. The reverse need not hold: a stale flag costs one look at the count, and is
 * then cleared in memory. A stale bit costs one look at the whole run and is not cleared, because
 * records that are written later have to agree with it. Instead the word in memory, and there
 * alone, says that the run is private, until something changes that.
 *
 * Units     blocks; index is a block's place in its region.
 * Threads   changing: the stripe of the region and the metadata lock. Reading the mapping: either
 *           of them. Reading or changing the home word (place, generation): the metadata lock.
 * Errors    a lookup that needs an absent leaf says so (false); nothing else fails. A mapping that
 *           the region's kind cannot hold asserts: the caller explodes it first.
 */
#ifndef CORE_METADATA_MAP_H
#define CORE_METADATA_MAP_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/units.h"
#include "core/format/format.h"
#include "core/metadata/cache.h"
#include "core/metadata/extent.h"

/* A root or summary page: always in memory, written by the checkpoint. */
struct top {
	uint32_t generation; /* of the last home write */
	bool dirty;
	_Atomic uint64_t lsn; /* root: of the last edit in it */
};

#define MAP_GUESSES 1024u

struct map {
	const struct geometry *geometry;
	struct cache *cache;
	struct root_words *entries; /* by region */
	struct top *tops; /* root pages */
	uint32_t unplaced; /* regions that are a run without a place */
	/* By region, modulo: the block of a LINEAR run that was found shared last. A guess. */
	uint16_t shared_at[MAP_GUESSES];
};

int map_init(struct map *map, const struct geometry *geometry, struct cache *cache);
void map_done(struct map *map);

static inline struct root_entry map_entry(const struct map *map, uint32_t region)
{
	return root_entry_decode(map->entries[region]);
}

static inline enum region_kind map_kind(const struct map *map, uint32_t region)
{
	return (enum region_kind)(map->entries[region].map >> 51 & 3);
}

/* Runs of blocks of one region from lbn on, at most `blocks` of them in at most `max` extents;
 * adjacent holes and adjacent physical blocks with one flag are one extent. Returns the extents'
 * number; 0: the leaf is absent. */
uint32_t map_lookup(struct map *map, lbn_t lbn, uint32_t blocks, struct extent *ret_extents,
		    uint32_t max);

/* Whether the region is a run without a place. */
static inline bool map_is_unplaced(const struct map *map, uint32_t region)
{
	struct root_entry entry = map_entry(map, region);

	return root_entry_is_unplaced(&entry);
}

/* The LSN of the last edit of the region's map: of its leaf, or of its root page. Leaf must be
 * resident. */
uint64_t map_lsn(struct map *map, uint32_t region);

/* Whether the region can take the run as it is, or has to be exploded first. */
bool map_fits(const struct map *map, lbn_t lbn, uint32_t blocks, pbn_t pbn);
bool map_fits_unmap(const struct map *map, lbn_t lbn, uint32_t blocks);

/* Clears a stale maybe_shared flag of one block of a LEAF (stripe held). No edit: nothing is
 * dirtied. */
void map_clear_shared(struct map *map, lbn_t lbn);
/* The same of all blocks of a LINEAR region (stripe held). */
void map_set_private(struct map *map, uint32_t region);
/* The entry as it goes home. */
struct root_words map_home_words(const struct map *map, uint32_t region);

/* An entry as a root page has it, when opening. */
void map_set_words(struct map *map, uint32_t region, struct root_words words);

/* The effects of edits, on one page each (see edit.h). */
void map_root_place(struct map *map, uint32_t region, pbn_t place);
void map_root_unplace(struct map *map, uint32_t region);
/* place and second: PBN_NONE if the region has a place. */
void map_root_explode(struct map *map, uint32_t region, pbn_t place, pbn_t second);
void map_root_map(struct map *map, lbn_t lbn, uint32_t blocks, pbn_t pbn, bool shared);
void map_root_unmap(struct map *map, lbn_t lbn, uint32_t blocks);
void map_root_share(struct map *map, uint32_t region);
void map_leaf_explode(struct frame *leaf, pbn_t base, uint32_t blocks, bool shared);
void map_leaf_map(struct frame *leaf, uint32_t index, uint32_t blocks, pbn_t pbn, bool shared);
void map_leaf_unmap(struct frame *leaf, uint32_t index, uint32_t blocks);
void map_leaf_share(struct frame *leaf, uint32_t index, uint32_t blocks);

/* The checkpoint: the leaf of the region is home with this generation. */
void map_leaf_home(struct map *map, uint32_t region, uint32_t generation);

#endif
