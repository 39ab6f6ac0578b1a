/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dedupe_cache - the regions that are in memory, the one used longest ago leaving first
 *
 * Errors    0 or a negative errno of the source.
 * Memory    what init was given, at least DEDUPE_CACHE_REGIONS_MIN regions.
 * Threads   one at a time. Blocking: as the source does.
 */
#ifndef CLI_DEDUPE_DEDUPE_CACHE_H
#define CLI_DEDUPE_DEDUPE_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "cli/dedupe/dedupe_region.h"

#define DEDUPE_CACHE_REGIONS_MIN 8u

/* Where regions come from, and what holds the roles of those that left memory. */
struct dedupe_source {
	void *context;
	/* The first region from `from` on of which anything is known. -ENOENT: none. */
	int (*next)(void *context, uint64_t from, uint64_t *ret_number);
	/* Fills in all but the number; one that is not known has no places. */
	int (*load)(void *context, uint64_t number, struct dedupe_region *ret_region);
	int (*keep_roles)(void *context, uint64_t number, const struct dedupe_roles *roles);
};

struct dedupe_cached {
	struct dedupe_region region;
	uint32_t chain; /* the next in its bucket */
	uint32_t newer, older;
	uint32_t pins;
	bool used;
	bool dirty; /* roles changed since they were loaded */
};

struct dedupe_cache {
	const struct dedupe_source *source;
	struct dedupe_cached *entries;
	uint32_t *buckets;
	uint32_t count; /* of entries, and of buckets */
	uint32_t taken; /* entries used at least once */
	uint32_t newest, oldest;
};

/* A place in the volume, and its region, held in memory. */
struct dedupe_cursor {
	struct dedupe_cached *entry; /* NULL: nowhere */
	uint32_t index;
};

int dedupe_cache_init(struct dedupe_cache *cache, const struct dedupe_source *source,
		      uint64_t bytes);
void dedupe_cache_done(struct dedupe_cache *cache);

/* Moves to a block, wherever the cursor was. */
int dedupe_cursor_seek(struct dedupe_cache *cache, struct dedupe_cursor *cursor, uint64_t block);
void dedupe_cursor_leave(struct dedupe_cursor *cursor);

static inline uint64_t dedupe_cursor_place(const struct dedupe_cursor *cursor)
{
	return cursor->entry->region.places[cursor->index];
}

static inline struct dedupe_hash dedupe_cursor_hash(const struct dedupe_cursor *cursor)
{
	return cursor->entry->region.hashes[cursor->index];
}

#endif
