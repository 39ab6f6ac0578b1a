/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dedupe_region - what is known of 2 MiB of the volume: hashes, places, and roles in matches
 *
 * Hashes are of the content as it was read and stay true until the region is written. Places are
 * where the blocks lay, and by how many references, when this run looked. Roles are this run's own:
 * a block that is the source of a match never becomes a destination, and the other way round, so
 * that matches may be carried out in any order, and side by side.
 *
 * All of it is a hint: the server compares.
 */
#ifndef CLI_DEDUPE_DEDUPE_REGION_H
#define CLI_DEDUPE_DEDUPE_REGION_H

#include <stdbool.h>
#include <stdint.h>

#include "cli/dedupe/dedupe_hash.h"
#include "core/base/units.h"

#define DEDUPE_REGION_BLOCKS  REGION_BLOCKS
#define DEDUPE_REGION_SHIFT   REGION_SHIFT
#define DEDUPE_ROLE_WORDS     (DEDUPE_REGION_BLOCKS / 64)
#define DEDUPE_PLACE_BITS     16 /* of a place, how many of them count references */
#define DEDUPE_REFERENCES_MAX ((1u << DEDUPE_PLACE_BITS) - 1)

struct dedupe_roles {
	uint64_t sources[DEDUPE_ROLE_WORDS];
	uint64_t destinations[DEDUPE_ROLE_WORDS];
};

struct dedupe_region {
	uint64_t number;
	bool pending; /* its matches have not been looked for since it was read */
	struct dedupe_roles roles;
	struct dedupe_hash hashes[DEDUPE_REGION_BLOCKS];
	uint64_t places[DEDUPE_REGION_BLOCKS]; /* 0: a hole, or nothing is known */
};

static inline uint64_t dedupe_place(uint64_t physical_block, uint64_t references)
{
	return physical_block << DEDUPE_PLACE_BITS |
	       (references < DEDUPE_REFERENCES_MAX ? references : DEDUPE_REFERENCES_MAX);
}

static inline uint64_t dedupe_place_block(uint64_t place)
{
	return place >> DEDUPE_PLACE_BITS;
}

static inline uint32_t dedupe_place_references(uint64_t place)
{
	return (uint32_t)(place & DEDUPE_REFERENCES_MAX);
}

/* A block with all the references that it can have takes no more; and all of them cannot be taken
 * away from it either, since another one that has any has no room for so many. */
static inline bool dedupe_place_is_full(uint64_t place)
{
	return dedupe_place_references(place) == DEDUPE_REFERENCES_MAX;
}

static inline uint64_t dedupe_region_of(uint64_t block)
{
	return block >> DEDUPE_REGION_SHIFT;
}

static inline uint32_t dedupe_region_index(uint64_t block)
{
	return (uint32_t)(block & (DEDUPE_REGION_BLOCKS - 1));
}

static inline bool dedupe_role_has(const uint64_t *words, uint32_t index)
{
	return (words[index / 64] >> index % 64 & 1) != 0;
}

static inline void dedupe_role_set(uint64_t *words, uint32_t index)
{
	words[index / 64] |= 1ull << index % 64;
}

#endif
