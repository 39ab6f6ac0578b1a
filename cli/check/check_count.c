/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * check_count - who owns which block, recounted from the map and compared with what the store says
 *
 * First walk: every mapping counts one reference, every leaf's place one for each of its two
 * blocks; per block two bits are kept besides, whether it is part of a place and whether an owner
 * carries neither maybe_shared nor its region's shared bit. Then each slab's refs page, replayed,
 * must say the same, and so must its summary (unless the journal touches the slab: then recovery
 * recomputes it) and the counters of the superblock. A second walk is made only if an owner is
 * known to be wrong, to name it.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/check/check_state.h"

static bool bit_get(const uint64_t *bits, uint32_t index)
{
	return bits[index / 64] >> (index % 64) & 1;
}

static void bit_set(uint64_t *bits, uint32_t index)
{
	bits[index / 64] |= 1ull << (index % 64);
}

/* --- first walk --- */

/* NULL: no memory. */
static struct check_slab *slab_get(struct check *check, uint32_t slab)
{
	if (!check->slabs[slab])
		check->slabs[slab] = calloc(1, sizeof(*check->slabs[slab]));
	return check->slabs[slab];
}

static void count_one(struct check *check, struct check_slab *slab, uint32_t index, pbn_t pbn)
{
	struct check_finding *finding;

	if (slab->counts[index] < REFS_MAX) {
		slab->counts[index]++;
		return;
	}
	finding = check_find(check, DAMAGE_FATAL, "physical block %" PRIu64, pbn.v);
	snprintf(finding->expected, sizeof(finding->expected), "at most %u references", REFS_MAX);
	snprintf(finding->found, sizeof(finding->found), "one more");
}

static int count_place(void *context, uint32_t region, const struct root_entry *entry)
{
	struct check *check = context;
	const struct geometry *geometry = &check->super.geometry;

	(void)region;
	check->places++;
	for (uint32_t i = 0; i < 2; i++) {
		pbn_t pbn = root_entry_slot(entry, i);
		uint32_t index = geometry_slab_index(geometry, pbn);
		struct check_slab *slab = slab_get(check, geometry_slab(geometry, pbn));

		if (!slab)
			return -ENOMEM;
		check->has_unflagged |= slab->counts[index] > 0;
		count_one(check, slab, index, pbn);
		bit_set(slab->place, index);
	}
	return 0;
}

static int count_run(void *context, lbn_t lbn, pbn_t pbn, uint32_t count, bool flagged)
{
	struct check *check = context;
	const struct root_entry *entry = &check->root.entries[lbn_region(lbn) % ROOT_ENTRIES];
	struct check_slab *slab = slab_get(check, geometry_slab(&check->super.geometry, pbn));
	uint32_t index = geometry_slab_index(&check->super.geometry, pbn);

	if (!slab)
		return -ENOMEM;
	check->unplaced += root_entry_is_unplaced(entry);
	check->report->mapped_blocks += count;
	for (uint32_t i = 0; i < count; i++, index++) {
		count_one(check, slab, index, pbn_add(pbn, i));
		if (!flagged)
			bit_set(slab->unflagged, index);
		if (slab->counts[index] > 1)
			check->has_unflagged |=
				bit_get(slab->unflagged, index) || bit_get(slab->place, index);
	}
	return 0;
}

/* --- second walk --- */

/* What the walk itself finds was found by the first one: it is quiet, only this is said aloud. */
static struct check_finding *owner_find(struct check *check, const char *what, uint64_t first,
					uint64_t last)
{
	struct check_finding *finding;

	check->quiet = false;
	finding = check_find(check, DAMAGE_FATAL, "%s %" PRIu64 " to %" PRIu64, what, first, last);
	check->quiet = true;
	return finding;
}

/* Said once for adjacent blocks. */
static void owner_find_run(struct check *check, lbn_t lbn, pbn_t pbn, uint32_t count, bool place)
{
	struct check_finding *finding;

	finding = owner_find(check, "logical blocks", lbn.v, lbn.v + count - 1);
	snprintf(finding->expected, sizeof(finding->expected),
		 place ? "data blocks" : "the flag maybe_shared, or the region's shared bit");
	snprintf(finding->found, sizeof(finding->found), "physical blocks from %" PRIu64 " %s",
		 pbn.v, place ? "belong to a leaf" : "have other owners");
}

static int owner_run(void *context, lbn_t lbn, pbn_t pbn, uint32_t count, bool flagged)
{
	struct check *check = context;
	const struct check_slab *slab = check->slabs[geometry_slab(&check->super.geometry, pbn)];
	uint32_t first = geometry_slab_index(&check->super.geometry, pbn);
	uint32_t i = 0;

	while (i < count) {
		bool place = bit_get(slab->place, first + i);
		bool bad = place || (!flagged && slab->counts[first + i] > 1);
		uint32_t start = i;

		for (i++; i < count; i++) {
			bool next_place = bit_get(slab->place, first + i);

			if (next_place != place ||
			    (next_place || (!flagged && slab->counts[first + i] > 1)) != bad)
				break;
		}
		if (bad)
			owner_find_run(check, lbn_add(lbn, start), pbn_add(pbn, start), i - start,
				       place);
	}
	return 0;
}

static int owner_place(void *context, uint32_t region, const struct root_entry *entry)
{
	struct check *check = context;
	const struct geometry *geometry = &check->super.geometry;
	struct check_finding *finding;
	uint16_t owners[2];

	for (uint32_t i = 0; i < 2; i++) {
		pbn_t pbn = root_entry_slot(entry, i);

		owners[i] = check->slabs[geometry_slab(geometry, pbn)]
				    ->counts[geometry_slab_index(geometry, pbn)];
	}
	if (owners[0] == 1 && owners[1] == 1)
		return 0;
	finding = owner_find(check, "place of region", region, region);
	snprintf(finding->expected, sizeof(finding->expected), "two blocks that nothing else owns");
	snprintf(finding->found, sizeof(finding->found),
		 "blocks %" PRIu64 " and %" PRIu64 " with %u and %u owners", entry->place.v,
		 entry->second.v, owners[0], owners[1]);
	return 0;
}

static int count_map(struct check *check)
{
	struct map_visitor count = {.place = count_place, .run = count_run, .context = check};
	struct map_visitor owners = {.place = owner_place, .run = owner_run, .context = check};
	int r;

	r = check_map_walk(check, &count);
	if (r < 0 || !check->has_unflagged)
		return r;
	check->quiet = true;
	r = check_map_walk(check, &owners);
	check->quiet = false;
	return r;
}

/* --- comparing --- */

struct summary_entry check_count_summary(const struct check *check, uint32_t slab,
					 const uint16_t *counts)
{
	uint32_t blocks = geometry_slab_blocks(&check->super.geometry, slab);
	struct summary_entry entry = {0};

	for (uint32_t i = 0; i < blocks; i++) {
		entry.free_blocks += counts[i] == 0;
		if (counts[i] > 1)
			entry.shared_refs += counts[i];
	}
	return entry;
}

/* Blocks of a piece (docs/disk-format.md: summary pages); 0 of none. */
static uint32_t piece_size(unsigned piece)
{
	return piece == 0 ? 0 : 1u << (piece - 1);
}

/* Whether the page has a free run of so many blocks where one may begin. */
static bool has_piece(const uint16_t *counts, uint32_t blocks, uint32_t size)
{
	uint32_t align = size < 8 ? 1 : size < 32 ? size : 32;

	for (uint32_t first = 0; first + size <= blocks; first += align) {
		uint32_t n = 0;

		while (n < size && counts[first + n] == 0)
			n++;
		if (n == size)
			return true;
	}
	return false;
}

static void mend_later(struct check *check, uint32_t slab)
{
	if (check->mend_slabs)
		check->mend_slabs[slab / 8] |= (uint8_t)(1u << slab % 8);
}

static void refs_find(struct check *check, uint32_t index, uint32_t count, uint32_t expected)
{
	const struct check_refs *refs = &check->refs;
	const struct geometry *geometry = &check->super.geometry;
	uint64_t first = geometry_refs_block(geometry, refs->slab, 0) + 2 + index;
	struct check_finding *finding;

	finding = check_find(check, DAMAGE_MENDS,
			     "refcount of physical blocks %" PRIu64 " to %" PRIu64, first,
			     first + count - 1);
	snprintf(finding->expected, sizeof(finding->expected), "%" PRIu32, expected);
	snprintf(finding->found, sizeof(finding->found), "%u", refs->counts[index]);
	mend_later(check, refs->slab);
}

/* With a part of the map missing, what is counted too low proves nothing. */
static bool refs_differ(const struct check *check, uint32_t expected, uint32_t found)
{
	return check->incomplete ? expected > found : expected != found;
}

static void refs_compare(struct check *check, const struct check_slab *slab)
{
	const struct check_refs *refs = &check->refs;
	uint32_t i = 0;

	while (i < SLAB_DATA_BLOCKS) {
		uint32_t expected = slab ? slab->counts[i] : 0, found = refs->counts[i];
		uint32_t start = i;

		do {
			i++;
		} while (i < SLAB_DATA_BLOCKS && refs->counts[i] == found &&
			 (slab ? slab->counts[i] : 0) == expected);
		if (refs_differ(check, expected, found))
			refs_find(check, start, i - start, expected);
	}
}

static void summary_compare(struct check *check, uint32_t slab, const struct summary_entry *entry)
{
	struct summary_entry counted = check_count_summary(check, slab, check->refs.counts);
	struct check_finding *finding;

	/* An entry whose refs page never went home says nothing about free blocks: all are. */
	if (entry->generation == 0 && entry->free_blocks == 0 && entry->shared_refs == 0)
		return;
	if (entry->free_blocks == counted.free_blocks && entry->shared_refs == counted.shared_refs)
		return;
	finding = check_find(check, DAMAGE_MENDS, "summary of slab %" PRIu32, slab);
	snprintf(finding->expected, sizeof(finding->expected),
		 "%" PRIu32 " free, %" PRIu32 " shared references", counted.free_blocks,
		 counted.shared_refs);
	snprintf(finding->found, sizeof(finding->found),
		 "%" PRIu32 " free, %" PRIu32 " shared references", entry->free_blocks,
		 entry->shared_refs);
	mend_later(check, slab);
}

/* What the entry says of the largest piece, where it says anything. It is a hint, for which nothing
 * is lost, but a wrong one costs reads or leaves space unused. */
static void piece_compare(struct check *check, uint32_t slab, const struct summary_entry *entry)
{
	uint32_t blocks = geometry_slab_blocks(&check->super.geometry, slab);
	struct check_finding *finding;
	unsigned largest = 0;

	if (entry->generation == 0 || entry->piece == 0)
		return;
	while (largest < 10 && has_piece(check->refs.counts, blocks, piece_size(largest + 1)))
		largest++;
	if (entry->piece == largest + 1)
		return;
	finding = check_find(check, DAMAGE_MENDS, "summary of slab %" PRIu32, slab);
	snprintf(finding->expected, sizeof(finding->expected),
		 "largest free piece: %u (%" PRIu32 " blocks)", largest + 1, piece_size(largest));
	snprintf(finding->found, sizeof(finding->found), "%u", entry->piece);
	mend_later(check, slab);
}

/* Of a slab that replay will recount: the entry is read all the same, and must be one. */
static void summary_bound(struct check *check, uint32_t slab, const struct summary_entry *entry)
{
	uint32_t blocks = geometry_slab_blocks(&check->super.geometry, slab);
	struct check_finding *finding;

	if (entry->free_blocks <= blocks)
		return;
	finding = check_find(check, DAMAGE_MENDS, "summary of slab %" PRIu32, slab);
	snprintf(finding->expected, sizeof(finding->expected), "at most %" PRIu32 " free", blocks);
	snprintf(finding->found, sizeof(finding->found), "%" PRIu32 " free", entry->free_blocks);
	mend_later(check, slab);
}

static int slab_compare(struct check *check, uint32_t slab, const struct summary_entry *entry)
{
	struct check_touches touches = check_log_touches(check, PAGE_REFS, slab);
	bool good = true;
	int r;

	if (entry->generation == 0 && entry->free_blocks == 0 && entry->shared_refs == 0 &&
	    !check->slabs[slab] && touches.count == 0)
		return 0;
	r = check_replay_refs(check, slab, entry->generation, &check->refs, &good);
	if (r < 0)
		return r;
	if (!good) {
		mend_later(check, slab);
		return 0;
	}
	refs_compare(check, check->slabs[slab]);
	if (check->refs.touched) {
		summary_bound(check, slab, entry);
	} else {
		summary_compare(check, slab, entry);
		piece_compare(check, slab, entry);
	}
	return 0;
}

/* Entries of slabs that the store has not. */
static void summary_tail_compare(struct check *check, uint32_t slab,
				 const struct summary_entry *entry)
{
	struct check_finding *finding;

	if ((entry->generation | entry->free_blocks | entry->shared_refs) == 0)
		return;
	finding = check_find(check, DAMAGE_FATAL, "summary of slab %" PRIu32, slab);
	snprintf(finding->expected, sizeof(finding->expected),
		 "zeros: the store has %" PRIu32 " slabs", check->super.geometry.slabs);
	snprintf(finding->found, sizeof(finding->found), "generation %" PRIu32 ", %" PRIu32 " free",
		 entry->generation, entry->free_blocks);
}

int check_summary_load(struct check *check, uint32_t page, struct summary_entry *entries,
		       bool *ret_good)
{
	const struct geometry *geometry = &check->super.geometry;
	uint32_t generation = check->generations[geometry->root_pages + page];
	uint64_t block = geometry_top_block(geometry, geometry->root_pages + page, generation);
	struct page_header header = {
		.kind = PAGE_SUMMARY, .number = page, .generation = generation};
	uint64_t lsn;
	struct why why;
	int r;

	memset(entries, 0, SUMMARY_ENTRIES * sizeof(*entries));
	*ret_good = true;
	if (generation == 0)
		return 0;
	r = check_read(check, block, 1, check->page);
	if (r < 0)
		return r;
	if (!page_verify(check->page, &header, check->super.uuid, &lsn, &why)) {
		check_find_why(check,
			       page * SUMMARY_ENTRIES < geometry->slabs ? DAMAGE_MENDS
									: DAMAGE_FATAL,
			       &why, "summary page %" PRIu32 " (block %" PRIu64 ")", page, block);
		*ret_good = false;
		return 0;
	}
	for (uint32_t i = 0; i < SUMMARY_ENTRIES; i++)
		entries[i] = summary_page_get(check->page, i);
	return 0;
}

static int summary_page_compare(struct check *check, uint32_t page)
{
	struct summary_entry entries[SUMMARY_ENTRIES];
	uint32_t slabs = check->super.geometry.slabs;
	bool good;
	int r;

	r = check_summary_load(check, page, entries, &good);
	for (uint32_t i = 0; r == 0 && i < SUMMARY_ENTRIES; i++) {
		uint32_t slab = page * SUMMARY_ENTRIES + i;

		if (!good) {
			if (slab < slabs)
				mend_later(check, slab);
		} else if (slab < slabs) {
			r = slab_compare(check, slab, &entries[i]);
		} else {
			summary_tail_compare(check, slab, &entries[i]);
		}
	}
	return r;
}

static void counter_compare(struct check *check, const char *what, uint64_t counted,
			    uint64_t stored, int64_t delta)
{
	struct check_finding *finding;

	if (counted == stored + (uint64_t)delta)
		return;
	finding = check_find(check, DAMAGE_MENDS, "superblock's counter of %s", what);
	snprintf(finding->expected, sizeof(finding->expected),
		 "%" PRIu64 " with the journal's changes", counted);
	snprintf(finding->found, sizeof(finding->found),
		 "%" PRIu64 " and %" PRId64 " by the journal", stored, delta);
}

static void report_fill(struct check *check)
{
	struct check_report *report = check->report;
	uint64_t places_blocks = 0, rest;

	for (uint32_t s = 0; s < check->super.geometry.slabs; s++) {
		const struct check_slab *slab = check->slabs[s];

		for (uint32_t i = 0; slab && i < SLAB_DATA_BLOCKS; i++) {
			if (bit_get(slab->place, i))
				places_blocks++;
			else if (slab->counts[i] > 0)
				report->used_blocks++;
			if (slab->counts[i] > 1)
				report->shared_blocks += slab->counts[i];
		}
	}
	rest = geometry_data_blocks(&check->super.geometry) - report->used_blocks - places_blocks;
	/* As the server does, which keeps two for each run without a place. */
	report->free_blocks = rest - min_u64(rest, 2 * check->unplaced);
}

int check_count(struct check *check)
{
	const struct geometry *geometry = &check->super.geometry;
	int r;

	check->slabs = calloc(geometry->slabs, sizeof(struct check_slab *));
	check->mend_slabs = calloc(geometry->slabs / 8 + 1, 1);
	if (!check->slabs || !check->mend_slabs)
		return -ENOMEM;
	r = count_map(check);
	for (uint32_t page = 0; r == 0 && page < geometry->summary_pages; page++)
		r = summary_page_compare(check, page);
	if (r < 0)
		return r;
	report_fill(check);
	if (!check->incomplete) {
		counter_compare(check, "mapped blocks", check->report->mapped_blocks,
				check->super.mapped_blocks, check->log.mapped_delta);
		counter_compare(check, "leaf places", check->places, check->super.places,
				check->log.places_delta);
	}
	return 0;
}
