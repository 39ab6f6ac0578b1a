/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/refs.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "core/base/mutant.h"

int refs_init(struct refs *refs, const struct geometry *geometry, struct cache *cache)
{
	*refs = (struct refs){.geometry = geometry, .cache = cache};
	refs->slabs = calloc(geometry->slabs, sizeof(struct slab));
	refs->tops = calloc(geometry->summary_pages, sizeof(struct top));
	return refs->slabs && refs->tops ? 0 : -ENOMEM;
}

void refs_done(struct refs *refs)
{
	free(refs->slabs);
	free(refs->tops);
}

void refs_set_summary(struct refs *refs, uint32_t slab, const struct summary_entry *entry)
{
	uint32_t blocks = geometry_slab_blocks(refs->geometry, slab);
	uint32_t free_blocks = entry->generation == 0 ? blocks : entry->free_blocks;

	refs->slabs[slab] = (struct slab){
		.generation = entry->generation,
		.free_blocks = (int16_t)free_blocks,
		.shared_refs = entry->shared_refs,
		.max_run = SLAB_DATA_BLOCKS,
	};
	refs->free_blocks += free_blocks;
	refs->shared_refs += entry->shared_refs;
}

struct frame *refs_frame(struct refs *refs, pbn_t pbn)
{
	return cache_find(refs->cache,
			  page_of_refs(refs->geometry, geometry_slab(refs->geometry, pbn)));
}

/* The page that must be resident: who calls made sure before. */
static struct frame *page_of(struct refs *refs, pbn_t pbn, uint32_t blocks)
{
	struct frame *frame = refs_frame(refs, pbn);

	assert(frame != NULL && blocks > 0);
	assert(geometry_slab(refs->geometry, pbn) ==
	       geometry_slab(refs->geometry, pbn_add(pbn, blocks - 1)));
	return frame;
}

uint16_t refs_count(struct refs *refs, pbn_t pbn)
{
	return page_of(refs, pbn, 1)->counts[geometry_slab_index(refs->geometry, pbn)];
}

uint16_t refs_busy_count(struct refs *refs, pbn_t pbn)
{
	return page_of(refs, pbn, 1)->busy_counts[geometry_slab_index(refs->geometry, pbn)];
}

void refs_busy_add(struct refs *refs, pbn_t pbn, uint32_t blocks)
{
	struct frame *frame = page_of(refs, pbn, blocks);
	struct slab *slab = &refs->slabs[geometry_slab(refs->geometry, pbn)];
	uint32_t first = geometry_slab_index(refs->geometry, pbn);

	for (uint32_t i = first; i < first + blocks; i++) {
		assert(frame->busy_counts[i] < UINT16_MAX);
		if (frame->busy_counts[i]++ > 0)
			continue;
		frame->busy++;
		if (frame->counts[i] == 0) {
			slab->busy_free++;
			refs->busy_free++;
		}
	}
}

void refs_busy_sub(struct refs *refs, pbn_t pbn, uint32_t blocks)
{
	struct frame *frame = page_of(refs, pbn, blocks);
	struct slab *slab = &refs->slabs[geometry_slab(refs->geometry, pbn)];
	uint32_t first = geometry_slab_index(refs->geometry, pbn);

	for (uint32_t i = first; i < first + blocks; i++) {
		assert(frame->busy_counts[i] > 0);
		if (--frame->busy_counts[i] > 0)
			continue;
		frame->busy--;
		if (frame->counts[i] == 0) {
			slab->busy_free--;
			refs->busy_free--;
			slab->max_run = SLAB_DATA_BLOCKS;
		}
	}
}

static void count_changed(struct refs *refs, struct slab *slab, uint32_t before, uint32_t after,
			  bool busy)
{
	int free_delta = (after == 0) - (before == 0);
	int64_t shared_delta =
		(int64_t)(after > 1 ? after : 0) - (int64_t)(before > 1 ? before : 0);

	slab->free_blocks = (int16_t)(slab->free_blocks + free_delta);
	refs->free_blocks += (uint64_t)(int64_t)free_delta;
	if (busy) {
		slab->busy_free = (int16_t)(slab->busy_free + free_delta);
		refs->busy_free += (uint64_t)(int64_t)free_delta;
	}
	slab->shared_refs += shared_delta;
	refs->shared_refs += (uint64_t)shared_delta;
}

void refs_take(struct refs *refs, pbn_t pbn, uint32_t blocks)
{
	struct frame *frame = page_of(refs, pbn, blocks);
	struct slab *slab = &refs->slabs[geometry_slab(refs->geometry, pbn)];
	uint32_t first = geometry_slab_index(refs->geometry, pbn);

	for (uint32_t i = first; i < first + blocks; i++) {
		uint16_t before = frame->counts[i];

		assert(before < REFS_MAX || MUTANT(41));
		frame->counts[i] = (uint16_t)(before + 1);
		count_changed(refs, slab, before, frame->counts[i], frame->busy_counts[i] > 0);
	}
}

uint32_t refs_drop(struct refs *refs, pbn_t pbn, uint32_t blocks)
{
	struct frame *frame = page_of(refs, pbn, blocks);
	struct slab *slab = &refs->slabs[geometry_slab(refs->geometry, pbn)];
	uint32_t first = geometry_slab_index(refs->geometry, pbn), freed = 0;

	for (uint32_t i = first; i < first + blocks; i++) {
		uint16_t before = frame->counts[i];

		assert(before > 0);
		frame->counts[i] = (uint16_t)(before - 1);
		count_changed(refs, slab, before, before - 1u, frame->busy_counts[i] > 0);
		freed += before == 1;
	}
	return freed;
}

bool refs_lose(struct refs *refs, uint32_t slab)
{
	struct slab *s = &refs->slabs[slab];

	if (s->lost)
		return false;
	assert(s->busy_free == 0); /* it is absent */
	s->lost = true;
	s->max_run = 0;
	refs->lost_free += (uint64_t)s->free_blocks;
	return true;
}

void refs_loaded(struct refs *refs, uint32_t slab)
{
	struct slab *s = &refs->slabs[slab];

	if (!s->lost)
		return;
	s->lost = false;
	s->max_run = SLAB_DATA_BLOCKS;
	refs->lost_free -= (uint64_t)s->free_blocks;
}

void refs_recount(struct refs *refs, uint32_t slab)
{
	uint32_t blocks = geometry_slab_blocks(refs->geometry, slab);
	const struct frame *frame = cache_find(refs->cache, page_of_refs(refs->geometry, slab));
	struct slab *s = &refs->slabs[slab];
	int16_t free_blocks = 0;
	int64_t shared = 0;

	assert(frame != NULL);
	for (uint32_t i = 0; i < blocks; i++) {
		free_blocks = (int16_t)(free_blocks + (frame->counts[i] == 0));
		shared += frame->counts[i] > 1 ? frame->counts[i] : 0;
	}
	refs->free_blocks += (uint64_t)(int64_t)(free_blocks - s->free_blocks);
	refs->shared_refs += (uint64_t)(shared - s->shared_refs);
	s->free_blocks = free_blocks;
	s->shared_refs = shared;
}
