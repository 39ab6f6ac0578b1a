/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * recovery_fit - whether a record is possible on a page as replay finds it
 *
 * A page whose LSN is lower than the record's is, once the records between were applied, what it
 * was when the record was published; so what the engine wrote fits. Where a record does not, page
 * or journal are not the engine's work, though every checksum is right. edit_apply() and what it
 * calls rely on it and assert, or would change what the record does not mean.
 *
 *   page   what the record needs there
 *   root   PLACE       no LEAF, and no place
 *          UNPLACE     no run, and the place that it gives back
 *          EXPLODE     a HOLE if it is of no blocks, else the run that it names; a place, or none
 *                      if it brings two single blocks
 *          MAP, SHARE  a HOLE or a run that ends where they begin; for MAP, a place
 *          UNMAP       a run that ends with these blocks
 *          SHARE       on the source's side: a run with these blocks
 *   leaf   UNPLACE     no mapping
 *          MAP, SHARE, UNMAP  old, from lbn on
 *          SHARE       on the source's side: new, from src on
 *   refs   new         no reference; for SHARE at least one, and room for one more
 *          old         at least one
 *
 * Each side is looked at as it was before any is changed. Only what the page itself says counts: of
 * the others some are older, some newer.
 */
#include <inttypes.h>
#include <stdio.h>

#include "core/metadata/recovery.h"
#include "core/metadata/metadata.h"

/* --- root --- */

/* What the entry lacks; NULL: nothing. */
static const char *entry_lacks(const struct root_entry *entry, const struct record *r)
{
	bool hole = entry->kind == REGION_HOLE, linear = entry->kind == REGION_LINEAR;
	bool place = !pbn_is_none(entry->place), split = r->flags & RECORD_SPLIT, fits = false;
	uint32_t index = lbn_index(r->lbn);

	switch (r->kind) {
	case RECORD_PLACE:
		fits = (hole || linear) && !place;
		return fits ? NULL : "a HOLE or a run without a place";
	case RECORD_UNPLACE:
		fits = !linear && entry->place.v == r->old.v &&
		       entry->second.v == (split ? record_second(r).v : r->old.v + 1);
		return fits ? NULL : "no run, and the place that is given back";
	case RECORD_EXPLODE:
		fits = r->count == 0
			       ? hole
			       : linear && entry->base.v == r->old.v && entry->length == r->count &&
					 (!entry->shared || (r->flags & RECORD_SHARED));
		if (split)
			return fits && !place ? NULL : "no place, and the run that is exploded";
		return fits && place ? NULL : "a place, and the run that is exploded";
	case RECORD_MAP:
	case RECORD_SHARE:
		fits = hole ? index == 0
			    : linear && index == entry->length && r->new.v == entry->base.v + index;
		fits = fits && pbn_is_none(r->old);
		if (r->kind == RECORD_SHARE)
			return fits ? NULL : "holes behind a run that goes on with the new blocks";
		return fits && place
			       ? NULL
			       : "a place, and holes behind a run that goes on with the new blocks";
	case RECORD_UNMAP:
		fits = linear && index + r->count == entry->length &&
		       r->old.v == entry->base.v + index;
		return fits ? NULL : "a run that ends with the old blocks";
	}
	return "another record";
}

static const char *source_lacks(const struct root_entry *entry, const struct record *r)
{
	uint32_t index = lbn_index(r->src);
	bool fits = entry->kind == REGION_LINEAR && index + r->count <= entry->length &&
		    r->new.v == entry->base.v + index;

	return fits ? NULL : "a run with the blocks that are shared";
}

static bool region_fits(const struct root_entry *entry, uint32_t region, const char *lacks,
			struct why *why)
{
	if (lacks == NULL)
		return true;
	snprintf(why->expected, sizeof(why->expected), "%s", lacks);
	snprintf(why->found, sizeof(why->found),
		 "region %" PRIu32 ": kind %u, base %" PRIu64 ", length %" PRIu32
		 ", place %" PRIu64,
		 region, entry->kind, entry->base.v, entry->length, entry->place.v);
	return false;
}

static bool root_fits(const struct map *map, const struct record *record, uint32_t page,
		      struct why *why)
{
	bool always = record->kind == RECORD_PLACE || record->kind == RECORD_UNPLACE ||
		      record->kind == RECORD_EXPLODE;
	uint32_t region = lbn_region(record->lbn), src = lbn_region(record->src);
	struct root_entry entry = map_entry(map, region), source = map_entry(map, src);

	if ((always || (record->flags & RECORD_ON_ROOT)) && region / ROOT_ENTRIES == page &&
	    !region_fits(&entry, region, entry_lacks(&entry, record), why))
		return false;
	if (record->kind != RECORD_SHARE || !(record->flags & RECORD_SRC_ON_ROOT) ||
	    src / ROOT_ENTRIES != page)
		return true;
	return region_fits(&source, src, source_lacks(&source, record), why);
}

/* --- leaf --- */

/* Whether the leaf reads from pbn on there, or has holes if that is none. */
static bool leaf_reads(const struct frame *leaf, uint32_t index, uint32_t blocks, pbn_t pbn,
		       struct why *why)
{
	for (uint32_t i = 0; i < blocks; i++) {
		uint64_t word = atomic_load_explicit(&leaf->words[index + i], memory_order_relaxed);
		uint64_t expected = pbn_is_none(pbn) ? 0 : pbn.v + i;

		if (leaf_word_pbn(word).v == expected)
			continue;
		snprintf(why->expected, sizeof(why->expected),
			 "block %" PRIu64 " in entry %" PRIu32 " of the leaf of region %" PRIu32,
			 expected, index + i, leaf->page);
		snprintf(why->found, sizeof(why->found), "block %" PRIu64, leaf_word_pbn(word).v);
		return false;
	}
	return true;
}

static bool leaf_fits(const struct frame *leaf, const struct record *record, struct why *why)
{
	if (record->kind == RECORD_EXPLODE)
		return true;
	if (record->kind == RECORD_UNPLACE)
		return leaf_reads(leaf, 0, REGION_BLOCKS, PBN_NONE, why);
	if (!(record->flags & RECORD_ON_ROOT) && lbn_region(record->lbn) == leaf->page &&
	    !leaf_reads(leaf, lbn_index(record->lbn), record->count, record->old, why))
		return false;
	if (record->kind != RECORD_SHARE || (record->flags & RECORD_SRC_ON_ROOT) ||
	    lbn_region(record->src) != leaf->page)
		return true;
	return leaf_reads(leaf, lbn_index(record->src), record->count, record->new, why);
}

/* --- refs --- */

/* Whether each block of the run, if it is of this slab, has a count from low to high. */
static bool counts_fit(const struct geometry *geometry, const struct frame *frame, pbn_t pbn,
		       uint32_t blocks, uint32_t low, uint32_t high, struct why *why)
{
	uint32_t first;

	if (pbn_is_none(pbn) || page_of_refs(geometry, geometry_slab(geometry, pbn)) != frame->page)
		return true;
	first = geometry_slab_index(geometry, pbn);
	for (uint32_t i = 0; i < blocks; i++) {
		if (frame->counts[first + i] >= low && frame->counts[first + i] <= high)
			continue;
		snprintf(why->expected, sizeof(why->expected),
			 "%" PRIu32 " to %" PRIu32 " references to block %" PRIu64, low, high,
			 pbn.v + i);
		snprintf(why->found, sizeof(why->found), "%u", frame->counts[first + i]);
		return false;
	}
	return true;
}

static bool refs_fit(const struct geometry *geometry, const struct frame *frame,
		     const struct record *record, struct why *why)
{
	bool share = record->kind == RECORD_SHARE, explode = record->kind == RECORD_EXPLODE;
	pbn_t dropped = explode ? PBN_NONE : record->old, second = record_second(record);

	return counts_fit(geometry, frame, record->new, record_counted(record), share ? 1 : 0,
			  share ? REFS_MAX - 1 : 0, why) &&
	       counts_fit(geometry, frame, dropped, record->count, 1, REFS_MAX, why) &&
	       counts_fit(geometry, frame, second, 1, explode ? 0 : 1, explode ? 0 : REFS_MAX, why);
}

bool recovery_fits(struct metadata *metadata, const struct record *record, struct edit_page page,
		   struct why *why)
{
	const struct geometry *geometry = &metadata->super.geometry;
	const struct frame *frame;

	if (page.root)
		return root_fits(&metadata->map, record, page.number, why);
	frame = cache_find(&metadata->cache, page.number);
	if (page_is_leaf(geometry, page.number))
		return leaf_fits(frame, record, why);
	return refs_fit(geometry, frame, record, why);
}
