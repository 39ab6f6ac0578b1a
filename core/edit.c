/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/edit.h"

#include <assert.h>

#include "core/base/mutant.h"
#include "core/volume_internal.h"

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

static void add_refs_page(const struct volume *volume, struct edit_page *pages,
			  uint32_t *count_pages, pbn_t pbn)
{
	if (!pbn_is_none(pbn))
		add_page(pages, count_pages, false,
			 page_of_refs(&volume->super.geometry,
				      geometry_slab(&volume->super.geometry, pbn)));
}

uint32_t edit_pages(const struct volume *volume, const struct record *record,
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
	if (record->kind != RECORD_EXPLODE) {
		add_refs_page(volume, ret_pages, &n, record->new);
		add_refs_page(volume, ret_pages, &n, record->old);
	}
	return n;
}

page_t edit_missing(struct volume *volume, const struct record *record)
{
	struct edit_page pages[EDIT_PAGES_MAX];
	uint32_t n = edit_pages(volume, record, pages);

	for (uint32_t i = 0; i < n; i++) {
		bool leaf =
			!pages[i].root && page_is_leaf(&volume->super.geometry, pages[i].number);

		/* A leaf that its region gives up is not needed to be forgotten. */
		if (pages[i].root || (leaf && record->kind == RECORD_UNPLACE))
			continue;
		if (cache_find(&volume->cache, pages[i].number) == NULL)
			return pages[i].number;
	}
	return PAGE_NONE;
}

static void apply_root(struct volume *volume, const struct record *record, uint32_t root_page)
{
	struct map *map = &volume->map;
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
		map_root_explode(map, region);
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

static void apply_leaf(struct volume *volume, const struct record *record, uint32_t region,
		       struct frame *leaf)
{
	uint32_t index = lbn_index(record->lbn);

	(void)volume;
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
		    !(MUTANT(48) && !volume->cache.zero_new_refs) && /* not replayed */
		    !(MUTANT(13) &&
		      volume->cache.zero_new_refs)) /* the source is taken for private */
			map_leaf_share(leaf, lbn_index(record->src), record->count);
		break;
	default:
		assert(false);
	}
}

static uint32_t apply_refs(struct volume *volume, const struct record *record, uint32_t slab)
{
	const struct geometry *geometry = &volume->super.geometry;

	/* New references first: a run that is merged onto itself must not pass through 0. */
	if (!pbn_is_none(record->new) && geometry_slab(geometry, record->new) == slab &&
	    !(MUTANT(23) && record->kind == RECORD_SHARE && !volume->cache.zero_new_refs))
		refs_take(&volume->refs, record->new, record->count);
	if (!pbn_is_none(record->old) && geometry_slab(geometry, record->old) == slab)
		return refs_drop(&volume->refs, record->old, record->count);
	return 0;
}

uint32_t edit_apply(struct volume *volume, const struct record *record, uint64_t lsn,
		    struct edit_page page)
{
	const struct geometry *geometry = &volume->super.geometry;
	struct frame *frame;
	uint32_t freed = 0;

	if (page.root) {
		apply_root(volume, record, page.number);
		volume->map.tops[page.number].lsn = lsn;
		volume->map.tops[page.number].dirty = true;
		return 0;
	}
	if (record->kind == RECORD_UNPLACE && page_is_leaf(geometry, page.number)) {
		cache_forget(&volume->cache, page.number);
		return 0;
	}
	frame = cache_find(&volume->cache, page.number);
	assert(frame != NULL);
	if (page_is_leaf(geometry, page.number))
		apply_leaf(volume, record, page.number, frame);
	else
		freed = apply_refs(volume, record, page.number - geometry->regions);
	cache_dirty(&volume->cache, frame, lsn);
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
		break;
	}
}

uint64_t edit_publish(struct volume *volume, const struct record *record,
		      uint64_t *ret_freed_blocks)
{
	struct edit_page pages[EDIT_PAGES_MAX];
	uint32_t n = edit_pages(volume, record, pages), freed = 0;
	struct record journaled = *record;
	uint64_t lsn;

	if (MUTANT(49) && record->kind == RECORD_EXPLODE) { /* without its base */
		journaled.old = PBN_NONE;
		journaled.count = 0;
	}
	lsn = journal_append(&volume->journal, &journaled);
	for (uint32_t i = 0; i < n; i++)
		freed += edit_apply(volume, record, lsn + (MUTANT(44) && i > 0), pages[i]);
	edit_count(&volume->journal.counts, record);
	if (record->kind == RECORD_MAP || record->kind == RECORD_PLACE)
		refs_busy_sub(&volume->refs, record->new, record->count);
	if (record->kind == RECORD_UNPLACE)
		pending_add_place(&volume->pending, lsn, record->old);
	else if (record->kind != RECORD_EXPLODE && !pbn_is_none(record->old))
		pending_add(&volume->pending, lsn, record->old, record->count);
	if (ret_freed_blocks)
		*ret_freed_blocks += freed;
	return lsn;
}
