/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dedupe_cache - see the header
 *
 * Entries are found by chained buckets and stand in a list from newest to oldest. A cursor pins its
 * region; there are far fewer cursors than entries, so one can always leave.
 */
#include "cli/dedupe/dedupe_cache.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX

int dedupe_cache_init(struct dedupe_cache *cache, const struct dedupe_source *source,
		      uint64_t bytes)
{
	uint64_t count = bytes / (sizeof(struct dedupe_cached) + sizeof(uint32_t));

	if (count < DEDUPE_CACHE_REGIONS_MIN)
		count = DEDUPE_CACHE_REGIONS_MIN;
	if (count > NONE - 1)
		count = NONE - 1;
	*cache = (struct dedupe_cache){
		.source = source,
		.entries = calloc(count, sizeof(*cache->entries)),
		.buckets = calloc(count, sizeof(*cache->buckets)),
		.count = (uint32_t)count,
		.newest = NONE,
		.oldest = NONE,
	};
	if (cache->entries == NULL || cache->buckets == NULL) {
		dedupe_cache_done(cache);
		return -ENOMEM;
	}
	memset(cache->buckets, 0xff, count * sizeof(*cache->buckets));
	return 0;
}

void dedupe_cache_done(struct dedupe_cache *cache)
{
	free(cache->entries);
	free(cache->buckets);
	cache->entries = NULL;
	cache->buckets = NULL;
}

/* --- the list and the buckets --- */

static uint32_t *bucket_of(struct dedupe_cache *cache, uint64_t number)
{
	uint64_t mixed = (number * 0x9e3779b97f4a7c15ull) >> 32;

	return &cache->buckets[mixed * cache->count >> 32];
}

static void take_out(struct dedupe_cache *cache, uint32_t index)
{
	struct dedupe_cached *entry = &cache->entries[index];

	if (entry->newer != NONE)
		cache->entries[entry->newer].older = entry->older;
	else
		cache->newest = entry->older;
	if (entry->older != NONE)
		cache->entries[entry->older].newer = entry->newer;
	else
		cache->oldest = entry->newer;
}

static void put_first(struct dedupe_cache *cache, uint32_t index)
{
	struct dedupe_cached *entry = &cache->entries[index];

	entry->newer = NONE;
	entry->older = cache->newest;
	if (cache->newest != NONE)
		cache->entries[cache->newest].newer = index;
	else
		cache->oldest = index;
	cache->newest = index;
}

static void unchain(struct dedupe_cache *cache, uint32_t index)
{
	struct dedupe_cached *entry = &cache->entries[index];
	uint32_t *link = bucket_of(cache, entry->region.number);

	while (*link != index)
		link = &cache->entries[*link].chain;
	*link = entry->chain;
}

/* --- regions --- */

/* An entry that holds nothing and stands nowhere. */
static int free_entry(struct dedupe_cache *cache, uint32_t *ret_index)
{
	uint32_t index = cache->oldest;
	struct dedupe_cached *entry;
	int r;

	if (cache->taken < cache->count) {
		*ret_index = cache->taken++;
		return 0;
	}
	while (index != NONE && cache->entries[index].pins > 0)
		index = cache->entries[index].newer;
	assert(index != NONE);
	entry = &cache->entries[index];
	if (entry->used && entry->dirty) {
		r = cache->source->keep_roles(cache->source->context, entry->region.number,
					      &entry->region.roles);
		if (r < 0)
			return r;
	}
	if (entry->used)
		unchain(cache, index);
	take_out(cache, index);
	entry->used = false;
	*ret_index = index;
	return 0;
}

static int load_region(struct dedupe_cache *cache, uint64_t number, struct dedupe_cached **ret)
{
	struct dedupe_cached *entry;
	uint32_t index;
	int r = free_entry(cache, &index);

	if (r < 0)
		return r;
	entry = &cache->entries[index];
	entry->region.number = number;
	entry->dirty = false;
	/* One that could not be loaded holds nothing, and nobody finds it. */
	put_first(cache, index);
	r = cache->source->load(cache->source->context, number, &entry->region);
	if (r < 0)
		return r;
	entry->used = true;
	entry->chain = *bucket_of(cache, number);
	*bucket_of(cache, number) = index;
	*ret = entry;
	return 0;
}

static int get_region(struct dedupe_cache *cache, uint64_t number, struct dedupe_cached **ret)
{
	uint32_t index = *bucket_of(cache, number);

	while (index != NONE && cache->entries[index].region.number != number)
		index = cache->entries[index].chain;
	if (index == NONE)
		return load_region(cache, number, ret);
	take_out(cache, index);
	put_first(cache, index);
	*ret = &cache->entries[index];
	return 0;
}

/* --- cursors --- */

int dedupe_cursor_seek(struct dedupe_cache *cache, struct dedupe_cursor *cursor, uint64_t block)
{
	struct dedupe_cached *entry = cursor->entry;
	int r;

	cursor->index = dedupe_region_index(block);
	if (entry != NULL && entry->region.number == dedupe_region_of(block))
		return 0;
	dedupe_cursor_leave(cursor);
	r = get_region(cache, dedupe_region_of(block), &entry);
	if (r < 0)
		return r;
	entry->pins++;
	cursor->entry = entry;
	return 0;
}

void dedupe_cursor_leave(struct dedupe_cursor *cursor)
{
	if (cursor->entry != NULL) {
		assert(cursor->entry->pins > 0);
		cursor->entry->pins--;
	}
	cursor->entry = NULL;
}
