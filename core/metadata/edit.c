/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/metadata/edit.h"

#include <assert.h>

#include "core/base/mutant.h"
#include "core/metadata/metadata.h"

static void add_page(struct edit_page *pages, uint32_t *count_pages, bool root, uint32_t number)
{
	for (uint32_t i = 0; i < *count_pages; i++)
		if (pages[i].root == root && pages[i].number == number)
			return;
	assert(*count_pages < EDIT_PAGES_MAX);
	pages[(*count_pages)++] = (struct edit_page){root, number};
}

static void add_map_page(struct edit_page *pages, uint32_t *count_pages, lbn_t lbn, bool root)
{
	uint32_t region = lbn_region(lbn);

	add_page(pages, count_pages, root, root ? region / ROOT_ENTRIES : page_of_leaf(region));
}

static void add_refs_page(const struct metadata *metadata, struct edit_page *pages,
			  uint32_t *count_pages, pbn_t pbn)
{
	if (!pbn_is_none(pbn))
		add_page(pages, count_pages, false,
			 page_of_refs(&metadata->super.geometry,
				      geometry_slab(&metadata->super.geometry, pbn)));
}

uint32_t edit_pages(const struct metadata *metadata, const struct record *record,
		    struct edit_page *ret_pages)
{
	uint32_t n = 0;

	switch (record->kind) {
	case RECORD_PLACE:
		add_map_page(ret_pages, &n, record->lbn, true);
		break;
	case RECORD_UNPLACE:
	case RECORD_EXPLODE:
		add_map_page(ret_pages, &n, record->lbn, true);
		add_map_page(ret_pages, &n, record->lbn, false);
		break;
	case RECORD_SHARE:
		add_map_page(ret_pages, &n, record->lbn, record->flags & RECORD_ON_ROOT);
		add_map_page(ret_pages, &n, record->src, record->flags & RECORD_SRC_ON_ROOT);
		break;
	case RECORD_MAP:
	case RECORD_UNMAP:
		add_map_page(ret_pages, &n, record->lbn, record->flags & RECORD_ON_ROOT);
		break;
	}
	add_refs_page(metadata, ret_pages, &n, record->new);
	add_refs_page(metadata, ret_pages, &n, record_second(record));
	if (record->kind != RECORD_EXPLODE)
		add_refs_page(metadata, ret_pages, &n, record->old);
	return n;
}

page_t edit_missing(struct metadata *metadata, const struct record *record)
{
	struct edit_page pages[EDIT_PAGES_MAX];
	uint32_t n = edit_pages(metadata, record, pages);

	for (uint32_t i = 0; i < n; i++) {
		bool leaf =
			!pages[i].root && page_is_leaf(&metadata->super.geometry, pages[i].number);

		/* A leaf that its region gives up is not needed to be forgotten. */
		if (pages[i].root || (leaf && record->kind == RECORD_UNPLACE))
			continue;
		if (cache_find(&metadata->cache, pages[i].number) == NULL)
			return pages[i].number;
	}
	return PAGE_NONE;
}

static void apply_root(struct metadata *metadata, const struct record *record, uint32_t root_page)
{
	struct map *map = &metadata->map;
	uint32_t region = lbn_region(record->lbn);
	bool on_root = record->flags & RECORD_ON_ROOT;

	switch (record->kind) {
	case RECORD_PLACE:
		map_root_place(map, region, record->new);
		break;
	case RECORD_UNPLACE:
		map_root_unplace(map, region);
		break;
	case RECORD_EXPLODE:
		map_root_explode(map, region, record->new, record_second(record));
		break;
	case RECORD_MAP:
		map_root_map(map, record->lbn, record->count, record->new, false);
		break;
	case RECORD_UNMAP:
		map_root_unmap(map, record->lbn, record->count);
		break;
	case RECORD_SHARE:
		if (on_root && region / ROOT_ENTRIES == root_page)
			map_root_map(map, record->lbn, record->count, record->new, true);
		if ((record->flags & RECORD_SRC_ON_ROOT) &&
		    lbn_region(record->src) / ROOT_ENTRIES == root_page)
			map_root_share(map, lbn_region(record->src));
		break;
	}
}

static void apply_leaf(struct metadata *metadata, const struct record *record, uint32_t region,
		       struct frame *leaf)
{
	uint32_t index = lbn_index(record->lbn);

	(void)metadata;
	switch (record->kind) {
	case RECORD_EXPLODE:
		map_leaf_explode(leaf, record->old, record->count, record->flags & RECORD_SHARED);
		break;
	case RECORD_MAP:
		map_leaf_map(leaf, index, record->count, record->new, false);
		break;
	case RECORD_UNMAP:
		map_leaf_unmap(leaf, index, record->count);
		break;
	case RECORD_SHARE:
		if (!(record->flags & RECORD_ON_ROOT) && lbn_region(record->lbn) == region)
			map_leaf_map(leaf, index, record->count, record->new, true);
		if (!(record->flags & RECORD_SRC_ON_ROOT) && lbn_region(record->src) == region &&
		    !(MUTANT(48) && !metadata->cache.zero_new_refs) && /* not replayed */
		    !(MUTANT(13) &&
		      metadata->cache.zero_new_refs)) /* the source is taken for private */
			map_leaf_share(leaf, lbn_index(record->src), record->count);
		break;
	default:
		assert(false);
	}
}

static uint32_t apply_refs(struct metadata *metadata, const struct record *record, uint32_t slab)
{
	const struct geometry *geometry = &metadata->super.geometry;
	pbn_t second = record_second(record);
	bool has_second = !pbn_is_none(second) && geometry_slab(geometry, second) == slab;
	uint32_t freed = 0;

	/* New references first: a run that is merged onto itself must not pass through 0. */
	if (!pbn_is_none(record->new) && geometry_slab(geometry, record->new) == slab &&
	    !(MUTANT(23) && record->kind == RECORD_SHARE && !metadata->cache.zero_new_refs))
		refs_take(&metadata->refs, record->new, record_counted(record));
	if (record->kind == RECORD_EXPLODE) { /* its run stays */
		if (has_second)
			refs_take(&metadata->refs, second, 1);
		return 0;
	}
	if (!pbn_is_none(record->old) && geometry_slab(geometry, record->old) == slab)
		freed += refs_drop(&metadata->refs, record->old, record->count);
	if (has_second)
		freed += refs_drop(&metadata->refs, second, 1);
	return freed;
}

uint32_t edit_apply(struct metadata *metadata, const struct record *record, uint64_t lsn,
		    struct edit_page page)
{
	const struct geometry *geometry = &metadata->super.geometry;
	struct frame *frame;
	uint32_t freed = 0;

	if (page.root) {
		apply_root(metadata, record, page.number);
		metadata->map.tops[page.number].lsn = lsn;
		metadata->map.tops[page.number].dirty = true;
		return 0;
	}
	if (record->kind == RECORD_UNPLACE && page_is_leaf(geometry, page.number)) {
		cache_forget(&metadata->cache, page.number);
		return 0;
	}
	frame = cache_find(&metadata->cache, page.number);
	assert(frame != NULL);
	if (page_is_leaf(geometry, page.number))
		apply_leaf(metadata, record, page.number, frame);
	else
		freed = apply_refs(metadata, record, page.number - geometry->regions);
	cache_dirty(&metadata->cache, frame, lsn);
	return freed;
}

void edit_count(struct journal_counts *counts, const struct record *record)
{
	bool onto_hole = pbn_is_none(record->old);

	switch (record->kind) {
	case RECORD_PLACE:
		counts->places++;
		break;
	case RECORD_UNPLACE:
		counts->places--;
		break;
	case RECORD_MAP:
	case RECORD_SHARE:
		counts->mapped_blocks += onto_hole ? record->count : 0;
		break;
	case RECORD_UNMAP:
		counts->mapped_blocks -= record->count;
		break;
	case RECORD_EXPLODE:
		counts->places += record->flags & RECORD_SPLIT ? 1 : 0;
		break;
	}
}

/* What it allocated is no longer busy for that, what it dropped is until it is durable. */
static void settle_blocks(struct metadata *metadata, const struct record *record, uint64_t lsn)
{
	pbn_t second = record_second(record);

	switch (record->kind) {
	case RECORD_EXPLODE:
		if (!pbn_is_none(second)) {
			refs_busy_sub(&metadata->refs, record->new, 1);
			refs_busy_sub(&metadata->refs, second, 1);
		}
		break;
	case RECORD_UNPLACE:
		if (pbn_is_none(second)) {
			pending_add_place(&metadata->pending, lsn, record->old);
		} else {
			pending_add_slot(&metadata->pending, lsn, record->old);
			pending_add_slot(&metadata->pending, lsn, second);
		}
		break;
	case RECORD_MAP:
	case RECORD_PLACE:
		refs_busy_sub(&metadata->refs, record->new, record->count);
		/* fall through */
	default:
		if (!pbn_is_none(record->old))
			pending_add(&metadata->pending, lsn, record->old, record->count);
	}
}

uint64_t edit_publish(struct metadata *metadata, const struct record *record,
		      uint64_t *ret_freed_blocks)
{
	struct edit_page pages[EDIT_PAGES_MAX];
	uint32_t n = edit_pages(metadata, record, pages), freed = 0;
	struct record journaled = *record;
	uint64_t lsn;

	if (MUTANT(49) && record->kind == RECORD_EXPLODE) { /* without its base */
		journaled.old = PBN_NONE;
		journaled.count = 0;
	}
	lsn = journal_append(&metadata->journal, &journaled);
	for (uint32_t i = 0; i < n; i++)
		freed += edit_apply(metadata, record, lsn + (MUTANT(44) && i > 0), pages[i]);
	edit_count(&metadata->journal.counts, record);
	settle_blocks(metadata, record, lsn);
	if (ret_freed_blocks)
		*ret_freed_blocks += freed;
	return lsn;
}
