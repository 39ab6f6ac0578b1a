/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * check_map - walks the remap table, region by region, as recovery would leave it
 *
 * What cannot be (an entry of a leaf out of range, a leaf that is damaged) is found here; the
 * visitor gets only what can be. Root pages that were never written and are not in the journal cost
 * nothing.
 */
#include <inttypes.h>
#include <stdio.h>

#include "cli/check/check_state.h"

static int leaf_run(struct check *check, const struct map_visitor *visitor, uint32_t index,
		    uint32_t count)
{
	uint64_t word = check->leaf.words[index];

	return visitor->run(visitor->context, lbn_add(region_lbn(check->leaf.region), index),
			    leaf_word_pbn(word), count, word & LEAF_MAYBE_SHARED);
}

static bool leaf_word_good(struct check *check, uint32_t index, uint32_t region_blocks)
{
	const struct check_leaf *leaf = &check->leaf;
	struct check_finding *finding;
	uint64_t word = leaf->words[index];

	if (word == 0)
		return true;
	if (index < region_blocks && !(word & ~LEAF_KNOWN_BITS) &&
	    geometry_is_data(&check->super.geometry, leaf_word_pbn(word)))
		return true;
	finding = check_find(check, DAMAGE_FATAL, "leaf of region %" PRIu32 ", entry %" PRIu32,
			     leaf->region, index);
	snprintf(finding->expected, sizeof(finding->expected),
		 index < region_blocks ? "a hole or a data block"
				       : "a hole: the volume ends before");
	snprintf(finding->found, sizeof(finding->found), "block %" PRIu64 ", flags %02" PRIx64,
		 leaf_word_pbn(word).v, word >> 40);
	check->incomplete = true;
	return false;
}

int check_leaf_walk(struct check *check, const struct map_visitor *visitor)
{
	const uint64_t *words = check->leaf.words;
	uint32_t blocks = geometry_region_blocks(&check->super.geometry, check->leaf.region);
	uint32_t start = 0, count = 0; /* of the run so far */
	int r;

	for (uint32_t i = 0; i < REGION_BLOCKS; i++) {
		bool good = leaf_word_good(check, i, blocks);

		if (good && count > 0 && words[i] == words[start] + count) {
			count++;
			continue;
		}
		if (count > 0) {
			r = leaf_run(check, visitor, start, count);
			if (r < 0)
				return r;
		}
		start = i;
		count = good && words[i] != 0;
	}
	return count > 0 ? leaf_run(check, visitor, start, count) : 0;
}

static int region_walk_leaf(struct check *check, const struct map_visitor *visitor, uint32_t region)
{
	bool good;
	int r;

	r = check_replay_leaf(check, &check->root, region, &check->leaf, &good);
	if (r < 0)
		return r;
	if (!good)
		check->incomplete = true;
	else if (check->root.entries[region % ROOT_ENTRIES].kind == REGION_LEAF)
		return check_leaf_walk(check, visitor);
	return 0;
}

static int region_walk(struct check *check, const struct map_visitor *visitor, uint32_t region)
{
	const struct root_entry *entry = &check->root.entries[region % ROOT_ENTRIES];
	bool was_written = check->root.home[region % ROOT_ENTRIES].written;
	int r = 0;

	if (!pbn_is_none(entry->place))
		r = visitor->place(visitor->context, region, entry);
	if (r == 0 && entry->kind == REGION_LINEAR)
		r = visitor->run(visitor->context, region_lbn(region), entry->base, entry->length,
				 entry->shared);
	/* Recovery reads a leaf too that the journal drops in the end. */
	if (r == 0 && (entry->kind == REGION_LEAF || was_written))
		r = region_walk_leaf(check, visitor, region);
	return r;
}

int check_map_walk(struct check *check, const struct map_visitor *visitor)
{
	bool good;
	int r;

	for (uint32_t page = 0; page < check->super.geometry.root_pages; page++) {
		if (check->generations[page] == 0 &&
		    check_log_touches(check, PAGE_ROOT, page).count == 0)
			continue;
		r = check_replay_root(check, page, &check->root, &good);
		if (r < 0)
			return r;
		if (!good) {
			check->incomplete = true;
			continue;
		}
		for (uint32_t i = 0; i < check->root.count; i++) {
			r = region_walk(check, visitor, page * ROOT_ENTRIES + i);
			if (r < 0)
				return r;
		}
	}
	return 0;
}
