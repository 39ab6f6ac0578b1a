/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * check_replay - one page as recovery makes it: its home slot, and the records that touch it
 *
 * A record is applied to a page if and only if the page's LSN is lower; then the page has the
 * record's LSN. Each record says what it found before (old); a map page that holds something else
 * is damage, because the page and the journal tell two stories. Counts are compared with the map by
 * the recount at the end; here only, whether each could be changed as the record says.
 *
 *   slot's LSN     5         records   3  4  5  6  9
 *                                               ^  ^ applied
 *
 * A leaf's slot is read if its root entry says so as it lies on the store. UNPLACE drops the leaf;
 * its place is kept from reuse until a root page without it is durable, so the slot is still what
 * it was. A leaf that never went home is made by its EXPLODE; what else the journal says of it
 * before, of a former life, is skipped.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/check/check_state.h"

#define ROOT_MAP_UNKNOWN_BITS (~0ull << 53)

static void found_other_story(struct check *check, enum check_damage damage,
			      const struct check_record *record, const char *page, uint64_t number,
			      const char *expected)
{
	struct check_finding *finding;
	const struct record *r = &record->record;

	/* Counts are of no interest there: number is a region. */
	if (check->salvage)
		check_salvage_mark(check, (uint32_t)number, SALVAGE_OLDER_LOG);
	finding = check_find(check, damage, "%s %" PRIu64 ", journal record %" PRIu64, page, number,
			     record->lsn);
	snprintf(finding->expected, sizeof(finding->expected), "%s", expected);
	snprintf(finding->found, sizeof(finding->found),
		 "kind %u of %" PRIu32 " blocks at %" PRIu64 ", old %" PRIu64 ", new %" PRIu64,
		 r->kind, r->count, r->lbn.v, r->old.v, r->new.v);
}

/* A page that goes home has nothing in it that is not durable, and the superblock that put it in
 * force says how far the log was. */
static bool lsn_fits(const struct check *check, uint64_t lsn, struct why *why)
{
	uint64_t limit = check->super.log_reaches_lsn;

	if (lsn < limit)
		return true;
	snprintf(why->expected, sizeof(why->expected), "an LSN below %" PRIu64, limit);
	snprintf(why->found, sizeof(why->found), "%" PRIu64, lsn);
	return false;
}

/* --- root --- */

static bool entry_explode(struct root_entry *entry, const struct record *r)
{
	uint32_t split = r->flags & RECORD_SPLIT;
	bool fits = r->count == 0 ? entry->kind == REGION_HOLE
				  : entry->kind == REGION_LINEAR && entry->base.v == r->old.v &&
					    entry->length == r->count;

	/* It brings a place, or finds one. */
	if (!fits || pbn_is_none(entry->place) != (split != 0) ||
	    (entry->shared && !(r->flags & RECORD_SHARED)))
		return false;
	if (split) {
		entry->place = r->new;
		entry->second = record_second(r);
		entry->written = false;
	}
	entry->kind = REGION_LEAF;
	entry->length = 0;
	entry->base = PBN_NONE;
	entry->shared = false;
	return true;
}

/* MAP or SHARE: the region's run begins or grows. */
static bool entry_extend(struct root_entry *entry, const struct record *r)
{
	uint32_t index = lbn_index(r->lbn);

	if (!pbn_is_none(r->old) || (r->kind == RECORD_MAP && pbn_is_none(entry->place)))
		return false;
	if (entry->kind == REGION_HOLE && index == 0) {
		entry->kind = REGION_LINEAR;
		entry->base = r->new;
		entry->length = 0;
	} else if (entry->kind != REGION_LINEAR || index != entry->length ||
		   r->new.v != entry->base.v + entry->length) {
		return false;
	}
	entry->length += r->count;
	if (r->kind == RECORD_SHARE)
		entry->shared = true;
	return true;
}

static bool entry_cut(struct root_entry *entry, const struct record *r)
{
	uint32_t index = lbn_index(r->lbn);

	if (entry->kind != REGION_LINEAR || index + r->count != entry->length ||
	    r->old.v != entry->base.v + index)
		return false;
	entry->length = index;
	if (index == 0) {
		entry->kind = REGION_HOLE;
		entry->base = PBN_NONE;
		entry->shared = false;
	}
	return true;
}

static bool entry_apply(struct root_entry *entry, const struct record *r)
{
	pbn_t second;

	switch (r->kind) {
	case RECORD_PLACE:
		if (entry->kind == REGION_LEAF || !pbn_is_none(entry->place))
			return false;
		entry->place = r->new;
		entry->second = pbn_add(r->new, 1);
		entry->written = false;
		return true;
	case RECORD_UNPLACE:
		second = r->flags & RECORD_SPLIT ? record_second(r) : pbn_add(r->old, 1);
		if (entry->kind == REGION_LINEAR || entry->place.v != r->old.v ||
		    entry->second.v != second.v)
			return false;
		memset(entry, 0, sizeof(*entry));
		return true;
	case RECORD_EXPLODE:
		return entry_explode(entry, r);
	case RECORD_MAP:
	case RECORD_SHARE:
		return entry_extend(entry, r);
	case RECORD_UNMAP:
		return entry_cut(entry, r);
	}
	return false;
}

static bool entry_apply_src(struct root_entry *entry, const struct record *r)
{
	uint32_t index = lbn_index(r->src);

	if (entry->kind != REGION_LINEAR || index + r->count > entry->length ||
	    r->new.v != entry->base.v + index)
		return false;
	entry->shared = true;
	return true;
}

static bool on_root(const struct record *r)
{
	return r->kind == RECORD_PLACE || r->kind == RECORD_UNPLACE || r->kind == RECORD_EXPLODE ||
	       (r->flags & RECORD_ON_ROOT);
}

static void root_apply(struct check *check, struct check_root *root,
		       const struct check_record *record)
{
	const struct record *r = &record->record;
	uint32_t region = lbn_region(r->lbn), src = lbn_region(r->src);
	uint32_t first = root->page * ROOT_ENTRIES;

	if (r->kind == RECORD_SHARE && (r->flags & RECORD_SRC_ON_ROOT) &&
	    src / ROOT_ENTRIES == root->page && !entry_apply_src(&root->entries[src - first], r))
		found_other_story(check, DAMAGE_FATAL, record, "root entry of region", src,
				  "a LINEAR source with these blocks");
	if (on_root(r) && region / ROOT_ENTRIES == root->page &&
	    !entry_apply(&root->entries[region - first], r))
		found_other_story(check, DAMAGE_FATAL, record, "root entry of region", region,
				  "an entry on which the record is possible");
	root->lsn = record->lsn;
}

/* Recovery looks at each entry as it lies on the store, whatever the journal makes of it. A bad one
 * is left out. */
static void root_decode_entry(struct check *check, struct check_root *root, uint32_t index,
			      struct root_words words)
{
	uint32_t region = root->page * ROOT_ENTRIES + index;
	struct root_entry entry = root_entry_decode(words);
	struct why why;

	if (root_entry_valid(&entry, &check->super.geometry, region, &why) &&
	    features_suffice(check->super.features_incompat, root_entry_features(&entry), &why)) {
		root->entries[index] = entry;
		return;
	}
	check_find_why(check, DAMAGE_FATAL, &why, "root entry of region %" PRIu32, region);
	check_salvage_mark(check, region, SALVAGE_LOST_MAP);
	check->incomplete = true;
}

static void root_decode(struct check *check, struct check_root *root)
{
	struct check_finding *finding;

	for (uint32_t i = 0; i < ROOT_ENTRIES; i++) {
		struct root_words words = root_page_get(check->page, i);
		uint32_t region = root->page * ROOT_ENTRIES + i;

		if ((words.map | words.home) == 0)
			continue;
		if (i >= root->count || (words.map & ROOT_MAP_UNKNOWN_BITS)) {
			finding = check_find(check, DAMAGE_FATAL, "root entry of region %" PRIu32,
					     region);
			snprintf(finding->expected, sizeof(finding->expected),
				 i >= root->count ? "zeros: the volume ends before"
						  : "no unknown bits");
			snprintf(finding->found, sizeof(finding->found),
				 "%016" PRIx64 " %016" PRIx64, words.map, words.home);
		}
		if (i < root->count)
			root_decode_entry(check, root, i, words);
	}
}

static int root_load(struct check *check, struct check_root *root, uint32_t generation,
		     bool *ret_good)
{
	uint64_t block = geometry_top_block(&check->super.geometry, root->page, generation);
	struct page_header header = {
		.kind = PAGE_ROOT,
		.number = root->page,
		.generation = generation,
	};
	struct why why;
	int r;

	r = check_spare(check,
			geometry_top_block(&check->super.geometry, root->page, generation + 1));
	if (r == 0)
		r = check_read(check, block, 1, check->page);
	if (r < 0)
		return r;
	if (!page_verify(check->page, &header, check->super.uuid, &root->lsn, &why) ||
	    !lsn_fits(check, root->lsn, &why)) {
		check_find_why(check, DAMAGE_FATAL, &why,
			       "root page %" PRIu32 " (block %" PRIu64 ")", root->page, block);
		*ret_good = false;
		return 0;
	}
	root_decode(check, root);
	return 0;
}

int check_replay_root(struct check *check, uint32_t page, struct check_root *root, bool *ret_good)
{
	struct check_touches touches = check_log_touches(check, PAGE_ROOT, page);
	uint32_t generation = check->generations[page];
	int r;

	root->page = page;
	root->lsn = 0;
	root->count = min_u32(ROOT_ENTRIES, check->super.geometry.regions - page * ROOT_ENTRIES);
	memset(root->entries, 0, sizeof(root->entries[0]) * root->count);
	*ret_good = true;
	if (check->salvage) {
		r = check_salvage_root(check, page, &generation, ret_good);
		if (r < 0 || !*ret_good)
			return r;
	}
	if (generation != 0) {
		r = root_load(check, root, generation, ret_good);
		if (r < 0 || !*ret_good)
			return r;
	}
	root->home_lsn = root->lsn;
	memcpy(root->home, root->entries, sizeof(root->entries[0]) * root->count);
	for (uint32_t i = 0; i < touches.count; i++) {
		const struct check_record *record = &check->log.records[touches.first[i].record];

		if (record->lsn > root->lsn)
			root_apply(check, root, record);
	}
	return 0;
}

/* --- leaf --- */

static void leaf_explode(struct check_leaf *leaf, const struct record *r)
{
	leaf->exists = true;
	memset(leaf->words, 0, sizeof(leaf->words));
	for (uint32_t i = 0; i < r->count; i++)
		leaf->words[i] = leaf_word(pbn_add(r->old, i), r->flags & RECORD_SHARED);
}

/* Whether the words from index on lie in order from pbn, or are holes if that is none. */
static bool leaf_reads(const struct check_leaf *leaf, uint32_t index, uint32_t count, pbn_t pbn)
{
	for (uint32_t i = 0; i < count; i++) {
		uint64_t expected = pbn_is_none(pbn) ? 0 : pbn.v + i;

		if (leaf_word_pbn(leaf->words[index + i]).v != expected)
			return false;
	}
	return true;
}

static bool leaf_apply_dst(struct check_leaf *leaf, const struct record *r)
{
	uint32_t index = lbn_index(r->lbn);
	bool fits = leaf_reads(leaf, index, r->count, r->old);

	for (uint32_t i = 0; i < r->count; i++) {
		if (r->kind == RECORD_UNMAP)
			leaf->words[index + i] = 0;
		else
			leaf->words[index + i] =
				leaf_word(pbn_add(r->new, i), r->kind == RECORD_SHARE);
	}
	return fits;
}

static bool leaf_apply_src(struct check_leaf *leaf, const struct record *r)
{
	uint32_t index = lbn_index(r->src);

	if (!leaf_reads(leaf, index, r->count, r->new))
		return false;
	for (uint32_t i = 0; i < r->count; i++)
		leaf->words[index + i] |= LEAF_MAYBE_SHARED;
	return true;
}

static bool leaf_is_empty(const struct check_leaf *leaf)
{
	return leaf_reads(leaf, 0, REGION_BLOCKS, PBN_NONE);
}

static void leaf_apply(struct check *check, struct check_leaf *leaf,
		       const struct check_record *record)
{
	const struct record *r = &record->record;

	if (r->kind == RECORD_EXPLODE) {
		leaf_explode(leaf, r);
		leaf->lsn = record->lsn;
		return;
	}
	if (!leaf->exists)
		return;
	if (r->kind == RECORD_UNPLACE) {
		if (!leaf_is_empty(leaf))
			found_other_story(check, DAMAGE_FATAL, record, "leaf of region",
					  leaf->region, "a leaf without mappings");
		leaf->exists = false;
		leaf->lsn = record->lsn;
		return;
	}
	if (r->kind == RECORD_SHARE && !(r->flags & RECORD_SRC_ON_ROOT) &&
	    lbn_region(r->src) == leaf->region && !leaf_apply_src(leaf, r))
		found_other_story(check, DAMAGE_FATAL, record, "leaf of region", leaf->region,
				  "a source that reads from the new blocks");
	if (!(r->flags & RECORD_ON_ROOT) && lbn_region(r->lbn) == leaf->region &&
	    !leaf_apply_dst(leaf, r))
		found_other_story(check, DAMAGE_FATAL, record, "leaf of region", leaf->region,
				  "a range that reads from the old blocks");
	leaf->lsn = record->lsn;
}

static int leaf_load(struct check *check, const struct root_entry *home, struct check_leaf *leaf,
		     bool *ret_good)
{
	uint64_t block = root_entry_slot(home, home->generation).v;
	struct page_header header = {
		.kind = PAGE_LEAF,
		.number = leaf->region,
		.generation = home->generation,
	};
	struct why why;
	int r;

	r = check_read(check, block, 1, check->page);
	if (r < 0)
		return r;
	if (!page_verify(check->page, &header, check->super.uuid, &leaf->lsn, &why) ||
	    !lsn_fits(check, leaf->lsn, &why)) {
		check_find_why(check, DAMAGE_FATAL, &why,
			       "leaf of region %" PRIu32 " (block %" PRIu64 ")", leaf->region,
			       block);
		*ret_good = false;
		return 0;
	}
	for (uint32_t i = 0; i < REGION_BLOCKS; i++)
		leaf->words[i] = leaf_page_get(check->page, i);
	leaf->exists = true;
	return 0;
}

/* In the place that it had, or got in the journal: then neither slot is in force. */
static int leaf_look_at_spares(struct check *check, const struct root_entry *home,
			       const struct root_entry *now)
{
	const struct root_entry *entry = pbn_is_none(home->place) ? now : home;
	int r;

	if (pbn_is_none(entry->place))
		return 0;
	r = check_spare(check, root_entry_slot(entry, entry->generation + 1).v);
	if (r == 0 && !home->written)
		r = check_spare(check, root_entry_slot(entry, entry->generation).v);
	return r;
}

int check_replay_leaf(struct check *check, const struct check_root *root, uint32_t region,
		      struct check_leaf *leaf, bool *ret_good)
{
	struct check_touches touches = check_log_touches(check, PAGE_LEAF, region);
	struct root_entry home = root->home[region % ROOT_ENTRIES];
	struct check_finding *finding;
	int r;

	leaf->region = region;
	leaf->exists = false;
	leaf->lsn = 0;
	*ret_good = true;
	if (check->salvage) {
		r = check_salvage_leaf(check, region, &home, ret_good);
		if (r < 0 || !*ret_good)
			return r;
	}
	r = leaf_look_at_spares(check, &home, &root->entries[region % ROOT_ENTRIES]);
	if (r < 0)
		return r;
	if (home.written) {
		r = leaf_load(check, &home, leaf, ret_good);
		if (r < 0 || !*ret_good)
			return r;
	}
	leaf->home_lsn = leaf->lsn;
	for (uint32_t i = 0; i < touches.count; i++) {
		const struct check_record *record = &check->log.records[touches.first[i].record];

		if (record->lsn > leaf->lsn)
			leaf_apply(check, leaf, record);
	}
	if (leaf->exists || root->entries[region % ROOT_ENTRIES].kind != REGION_LEAF)
		return 0;
	finding = check_find(check, DAMAGE_FATAL, "leaf of region %" PRIu32, region);
	snprintf(finding->expected, sizeof(finding->expected),
		 "a leaf at home, or its making in the journal");
	snprintf(finding->found, sizeof(finding->found), "neither");
	*ret_good = false;
	return 0;
}

/* --- refs --- */

/* The counts of the run, if it is of this slab, or NULL. */
static uint16_t *refs_run(struct check *check, struct check_refs *refs, pbn_t pbn)
{
	const struct geometry *geometry = &check->super.geometry;

	if (pbn_is_none(pbn) || geometry_slab(geometry, pbn) != refs->slab)
		return NULL;
	return &refs->counts[geometry_slab_index(geometry, pbn)];
}

/* New blocks have no owner yet, shared ones have one and room for another, old ones have one. */
static bool refs_can_change(const struct record *r, uint32_t count, const uint16_t *taken,
			    const uint16_t *dropped)
{
	for (uint32_t i = 0; i < count; i++) {
		if (taken && r->kind == RECORD_SHARE && (taken[i] == 0 || taken[i] == REFS_MAX))
			return false;
		if (taken && r->kind != RECORD_SHARE && taken[i] != 0)
			return false;
		if (dropped && dropped[i] == 0)
			return false;
	}
	return true;
}

static bool refs_apply(struct check *check, struct check_refs *refs,
		       const struct check_record *record)
{
	const struct record *r = &record->record;
	bool explode = r->kind == RECORD_EXPLODE;
	uint16_t *taken = refs_run(check, refs, r->new);
	uint16_t *dropped = refs_run(check, refs, explode ? PBN_NONE : r->old);
	uint16_t *second = refs_run(check, refs, record_second(r));
	uint32_t count = explode ? 1 : r->count;

	if (!refs_can_change(r, count, taken, dropped))
		return false;
	if (second && (explode ? *second != 0 : *second == 0))
		return false;
	if (second)
		*second = explode ? 1 : (uint16_t)(*second - 1);
	for (uint32_t i = 0; i < count; i++) {
		if (taken)
			taken[i]++;
		if (dropped)
			dropped[i]--;
	}
	refs->lsn = record->lsn;
	return true;
}

int check_replay_refs(struct check *check, uint32_t slab, uint32_t generation,
		      struct check_refs *refs, bool *ret_good)
{
	struct check_touches touches = check_log_touches(check, PAGE_REFS, slab);
	uint64_t block = geometry_refs_block(&check->super.geometry, slab, generation);
	struct page_header header = {.kind = PAGE_REFS, .number = slab, .generation = generation};
	struct why why;
	int r;

	refs->slab = slab;
	refs->lsn = 0;
	refs->touched = touches.count > 0;
	memset(refs->counts, 0, sizeof(refs->counts));
	*ret_good = true;
	if (generation != 0) {
		r = check_read(check, block, 1, check->page);
		if (r < 0)
			return r;
		if (!page_verify(check->page, &header, check->super.uuid, &refs->lsn, &why) ||
		    !lsn_fits(check, refs->lsn, &why)) {
			check_find_why(check, DAMAGE_MENDS, &why,
				       "refs of slab %" PRIu32 " (block %" PRIu64 ")", slab, block);
			*ret_good = false;
			return 0;
		}
		for (uint32_t i = 0; i < SLAB_DATA_BLOCKS; i++)
			refs->counts[i] = refs_page_get(check->page, i);
	}
	for (uint32_t i = 0; i < touches.count; i++) {
		const struct check_record *record = &check->log.records[touches.first[i].record];

		if (record->lsn > refs->lsn && !refs_apply(check, refs, record)) {
			found_other_story(check, DAMAGE_MENDS, record, "refs of slab", slab,
					  "counts on which the record is possible");
			*ret_good = false;
			return 0;
		}
	}
	return 0;
}
