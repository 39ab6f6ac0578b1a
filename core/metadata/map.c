/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/metadata/map.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "core/base/mutant.h"

/* Beyond the bits that go home: no block of the LINEAR run has another owner, whatever the shared
 * bit says. entry_set() takes it away. */
#define WORD_PRIVATE (1ull << 63)

int map_init(struct map *map, const struct geometry *geometry, struct cache *cache)
{
	map->geometry = geometry;
	map->cache = cache;
	map->entries = calloc(geometry->regions, sizeof(struct root_words));
	map->tops = calloc(geometry->root_pages, sizeof(struct top));
	return map->entries && map->tops ? 0 : -ENOMEM;
}

void map_done(struct map *map)
{
	free(map->entries);
	free(map->tops);
}

static uint64_t leaf_get(const struct frame *leaf, uint32_t index)
{
	return atomic_load_explicit(&leaf->words[index], memory_order_relaxed);
}

static void leaf_set(struct frame *leaf, uint32_t index, uint64_t word)
{
	atomic_store_explicit(&leaf->words[index], word, memory_order_relaxed);
}

static uint32_t lookup_linear(const struct root_entry *entry, uint32_t index, uint32_t blocks,
			      struct extent *ret_extents, uint32_t max)
{
	uint32_t mapped = 0, count = 0;

	if (entry->kind == REGION_LINEAR && index < entry->length)
		mapped = min_u32(blocks, entry->length - index);
	if (mapped > 0)
		ret_extents[count++] =
			(struct extent){pbn_add(entry->base, index), mapped, entry->shared};
	if (mapped < blocks && count < max)
		ret_extents[count++] = (struct extent){PBN_NONE, blocks - mapped, false};
	return count;
}

/* Whether the word goes on where the extent ends. */
static bool extends(const struct extent *extent, uint64_t word)
{
	pbn_t pbn = leaf_word_pbn(word);

	if (pbn_is_none(extent->pbn) || pbn_is_none(pbn))
		return pbn_is_none(extent->pbn) && pbn_is_none(pbn);
	return pbn.v == extent->pbn.v + extent->blocks &&
	       extent->maybe_shared == ((word & LEAF_MAYBE_SHARED) != 0);
}

static uint32_t lookup_leaf(const struct frame *leaf, uint32_t index, uint32_t blocks,
			    struct extent *ret_extents, uint32_t max)
{
	uint32_t count = 0;

	for (uint32_t i = index; i < index + blocks; i++) {
		uint64_t word = leaf_get(leaf, i);

		if (count > 0 && extends(&ret_extents[count - 1], word)) {
			ret_extents[count - 1].blocks++;
			continue;
		}
		if (count == max)
			break;
		ret_extents[count++] =
			(struct extent){leaf_word_pbn(word), 1, (word & LEAF_MAYBE_SHARED) != 0};
	}
	return count;
}

uint32_t map_lookup(struct map *map, lbn_t lbn, uint32_t blocks, struct extent *ret_extents,
		    uint32_t max)
{
	uint32_t region = lbn_region(lbn), index = lbn_index(lbn);
	/* The mapping's word alone: the checkpoint changes the other under the metadata lock. */
	struct root_words words = {.map = map->entries[region].map};
	struct root_entry entry = root_entry_decode(words);
	const struct frame *leaf;

	assert(blocks > 0 && max > 0 && index + blocks <= REGION_BLOCKS);
	entry.shared = entry.shared && !(words.map & WORD_PRIVATE);
	if (entry.kind != REGION_LEAF)
		return lookup_linear(&entry, index, blocks, ret_extents, max);
	leaf = cache_find(map->cache, page_of_leaf(region));
	if (leaf == NULL)
		return 0;
	return lookup_leaf(leaf, index, blocks, ret_extents, max);
}

uint64_t map_lsn(struct map *map, uint32_t region)
{
	const struct frame *leaf;

	if (map_kind(map, region) != REGION_LEAF)
		return map->tops[region / ROOT_ENTRIES].lsn;
	leaf = cache_find(map->cache, page_of_leaf(region));
	assert(leaf != NULL);
	return leaf->lsn;
}

bool map_fits(const struct map *map, lbn_t lbn, uint32_t blocks, pbn_t pbn)
{
	struct root_entry entry = map_entry(map, lbn_region(lbn));
	uint32_t index = lbn_index(lbn);

	(void)blocks;
	if (entry.kind == REGION_LEAF)
		return true;
	if (entry.kind == REGION_HOLE)
		return index == 0;
	/* Appending, in order and within one slab: slabs are not adjacent, so order alone tells. */
	return index == entry.length && pbn.v == entry.base.v + entry.length;
}

bool map_fits_unmap(const struct map *map, lbn_t lbn, uint32_t blocks)
{
	struct root_entry entry = map_entry(map, lbn_region(lbn));

	assert(entry.kind != REGION_HOLE);
	return entry.kind == REGION_LEAF || lbn_index(lbn) + blocks == entry.length;
}

void map_clear_shared(struct map *map, lbn_t lbn)
{
	struct frame *leaf;

	if (map_kind(map, lbn_region(lbn)) != REGION_LEAF)
		return;
	leaf = cache_find(map->cache, page_of_leaf(lbn_region(lbn)));
	assert(leaf != NULL);
	leaf_set(leaf, lbn_index(lbn), leaf_get(leaf, lbn_index(lbn)) & ~LEAF_MAYBE_SHARED);
}

void map_set_private(struct map *map, uint32_t region)
{
	assert(map_kind(map, region) == REGION_LINEAR);
	map->entries[region].map |= WORD_PRIVATE;
}

static bool is_private(const struct map *map, uint32_t region)
{
	return map->entries[region].map & WORD_PRIVATE;
}

struct root_words map_home_words(const struct map *map, uint32_t region)
{
	struct root_words words = map->entries[region];

	words.map &= ~WORD_PRIVATE;
	return words;
}

void map_set_words(struct map *map, uint32_t region, struct root_words words)
{
	struct root_entry entry = root_entry_decode(words);

	map->unplaced -= map_is_unplaced(map, region);
	map->unplaced += root_entry_is_unplaced(&entry);
	map->entries[region] = words;
}

static void entry_set(struct map *map, uint32_t region, const struct root_entry *entry)
{
	map_set_words(map, region, root_entry_encode(entry));
	map->tops[region / ROOT_ENTRIES].dirty = true;
}

void map_root_place(struct map *map, uint32_t region, pbn_t place)
{
	struct root_entry entry = map_entry(map, region);
	bool stays_private = is_private(map, region);

	entry.place = place;
	entry.second = pbn_add(place, 1);
	entry.written = false;
	entry_set(map, region, &entry);
	if (stays_private)
		map_set_private(map, region);
}

void map_root_unplace(struct map *map, uint32_t region)
{
	struct root_entry entry = map_entry(map, region);

	/* The generation stays: a later life of the leaf goes on counting from it. */
	entry = (struct root_entry){.kind = REGION_HOLE, .generation = entry.generation};
	entry_set(map, region, &entry);
}

void map_root_explode(struct map *map, uint32_t region, pbn_t place, pbn_t second)
{
	struct root_entry entry = map_entry(map, region);

	if (!pbn_is_none(second)) {
		entry.place = place;
		entry.second = second;
		entry.written = false;
	}
	entry.kind = REGION_LEAF;
	entry.base = PBN_NONE;
	entry.length = 0;
	entry.shared = false;
	entry_set(map, region, &entry);
}

void map_root_map(struct map *map, lbn_t lbn, uint32_t blocks, pbn_t pbn, bool shared)
{
	struct root_entry entry = map_entry(map, lbn_region(lbn));
	uint32_t index = lbn_index(lbn);
	bool stays_private = !shared && is_private(map, lbn_region(lbn));

	if (index == 0) {
		entry.kind = REGION_LINEAR;
		entry.base = pbn;
		entry.shared = false;
	}
	assert(entry.kind == REGION_LINEAR && pbn.v == entry.base.v + index);
	entry.length = index + blocks;
	entry.shared = entry.shared || shared;
	entry_set(map, lbn_region(lbn), &entry);
	if (stays_private)
		map_set_private(map, lbn_region(lbn));
}

void map_root_unmap(struct map *map, lbn_t lbn, uint32_t blocks)
{
	struct root_entry entry = map_entry(map, lbn_region(lbn));
	bool stays_private = is_private(map, lbn_region(lbn));

	(void)blocks;
	assert(entry.kind == REGION_LINEAR);
	entry.length = lbn_index(lbn);
	if (entry.length == 0) {
		entry.kind = REGION_HOLE;
		entry.base = PBN_NONE;
		entry.shared = false;
	}
	entry_set(map, lbn_region(lbn), &entry);
	if (stays_private && entry.length > 0)
		map_set_private(map, lbn_region(lbn));
}

void map_root_share(struct map *map, uint32_t region)
{
	struct root_entry entry = map_entry(map, region);

	assert(entry.kind == REGION_LINEAR);
	entry.shared = true;
	entry_set(map, region, &entry);
}

void map_leaf_explode(struct frame *leaf, pbn_t base, uint32_t blocks, bool shared)
{
	for (uint32_t i = 0; i < REGION_BLOCKS; i++)
		leaf_set(leaf, i, i < blocks ? leaf_word(pbn_add(base, i), shared) : 0);
	leaf->mapped = (uint16_t)blocks;
}

void map_leaf_map(struct frame *leaf, uint32_t index, uint32_t blocks, pbn_t pbn, bool shared)
{
	for (uint32_t i = 0; i < blocks; i++) {
		leaf->mapped += pbn_is_none(leaf_word_pbn(leaf_get(leaf, index + i)));
		leaf_set(leaf, index + i, leaf_word(pbn_add(pbn, i), shared));
	}
}

void map_leaf_unmap(struct frame *leaf, uint32_t index, uint32_t blocks)
{
	for (uint32_t i = 0; i < blocks; i++) {
		leaf->mapped -= !pbn_is_none(leaf_word_pbn(leaf_get(leaf, index + i)));
		leaf_set(leaf, index + i, 0);
	}
}

void map_leaf_share(struct frame *leaf, uint32_t index, uint32_t blocks)
{
	for (uint32_t i = 0; i < blocks; i++)
		leaf_set(leaf, index + i, leaf_get(leaf, index + i) | LEAF_MAYBE_SHARED);
}

void map_leaf_home(struct map *map, uint32_t region, uint32_t generation)
{
	struct root_words *words = &map->entries[region];
	struct root_entry entry = root_entry_decode(*words);

	entry.generation = generation & ROOT_GENERATION_MASK;
	entry.written = true;
	/* The mapping's word is left alone: its readers do not hold the metadata lock. */
	words->home = root_entry_encode(&entry).home;
	map->tops[region / ROOT_ENTRIES].dirty = true;
}
