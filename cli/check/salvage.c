/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * salvage - see the header
 *
 * The metadata is walked twice: first to learn how far the records went that pages have seen (one
 * beyond the end of the journal proves that its end is lost), then, quietly, to copy.
 */
#include "cli/check/salvage.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/check/check_state.h"

#define COPY_BLOCKS	     64u
#define GENERATION_STEP_MAX  9u
#define GENERATION_FIRST_MAX 7u

struct walk {
	struct check *check;
	const struct salvage_target *target; /* NULL: the first walk, which copies nothing */
	uint8_t blocks[REGION_BLOCKS]; /* enum salvage_verdict, of the region at hand */
	/* Told when one follows that does not go on with it. */
	enum salvage_verdict verdict;
	uint64_t start; /* blocks */
	uint64_t end;
	uint8_t data[COPY_BLOCKS * BLOCK_BYTES];
};

void check_salvage_mark(struct check *check, uint32_t region, enum salvage_verdict verdict)
{
	enum salvage_verdict *known;

	if (!check->salvage)
		return;
	known = &check->salvage->regions[region % ROOT_ENTRIES];
	if (*known < verdict)
		*known = verdict;
}

/* --- which page is in force --- */

struct slot {
	bool good; /* a page of this kind and number, in the slot of its generation */
	bool empty; /* never written */
	uint32_t generation;
	uint64_t lsn;
};

static bool is_zeros(const uint8_t *bytes, size_t len)
{
	return bytes[0] == 0 && memcmp(bytes, bytes + 1, len - 1) == 0;
}

static int slot_look(struct check *check, uint64_t block, unsigned parity, enum page_kind kind,
		     uint64_t number, struct slot *ret_slot)
{
	struct page_header header = {.kind = kind, .number = number};
	struct slot slot = {.good = false};
	struct why why;
	int r = check_read(check, block, 1, check->page);

	if (r < 0)
		return r;
	header.generation = slot.generation = page_generation(check->page);
	slot.empty = is_zeros(check->page, BLOCK_BYTES);
	slot.good = (slot.generation & 1) == parity &&
		    page_verify(check->page, &header, check->super.uuid, &slot.lsn, &why) &&
		    slot.lsn < check->super.log_reaches_lsn;
	*ret_slot = slot;
	return 0;
}

static int root_slots(struct check *check, uint32_t page, struct slot slots[2])
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < 2; i++)
		r = slot_look(check, geometry_top_block(&check->super.geometry, page, i), i,
			      PAGE_ROOT, page, &slots[i]);
	return r;
}

/* As a checkpoint counts: the next one of its life's class, and never 0. */
static bool follows(const struct slot *newer, const struct slot *older)
{
	uint32_t step = newer->generation - older->generation;

	return (step & 1) && step <= GENERATION_STEP_MAX;
}

static bool is_newer(const struct slot *a, const struct slot *b)
{
	return follows(a, b) || (!follows(b, a) && a->generation > b->generation);
}

/* Without a superblock to name it: that no newer page was there is known if both slots are. */
static enum salvage_verdict root_newest(const struct slot slots[2], uint32_t named,
					uint32_t *ret_generation)
{
	const struct slot *newer = &slots[0], *older = &slots[1];

	if (slots[0].empty && slots[1].empty) {
		*ret_generation = 0;
		return named == 0 ? SALVAGE_SURE : SALVAGE_LOST_MAP;
	}
	if (!newer->good || (older->good && is_newer(older, newer))) {
		newer = &slots[1];
		older = &slots[0];
	}
	*ret_generation = newer->generation;
	if (!newer->good)
		return SALVAGE_LOST_MAP;
	if (older->good ? follows(newer, older)
			: older->empty && newer->generation <= GENERATION_FIRST_MAX)
		return SALVAGE_SURE;
	return SALVAGE_OLDER_PAGE;
}

static void say_root(struct check *check, uint32_t page, enum salvage_verdict verdict)
{
	struct check_finding *finding = check_find(check, DAMAGE_FATAL, "root page %" PRIu32, page);

	snprintf(finding->expected, sizeof(finding->expected),
		 "generation %" PRIu32 " in block "
		 "%" PRIu64,
		 check->generations[page],
		 geometry_top_block(&check->super.geometry, page, check->generations[page]));
	snprintf(finding->found, sizeof(finding->found), "%s",
		 salvage_is_lost(verdict) ? "no page, and none in the other slot"
					  : "an older page alone");
}

int check_salvage_root(struct check *check, uint32_t page, uint32_t *ret_generation, bool *ret_good)
{
	uint32_t named = check->generations[page];
	enum salvage_verdict verdict;
	struct slot slots[2];
	int r;

	*ret_generation = named;
	memset(check->salvage->regions, 0, sizeof(check->salvage->regions));
	if (check->salvage->certain && named == 0)
		return 0;
	r = root_slots(check, page, slots);
	if (r < 0)
		return r;
	if (check->salvage->certain && slots[named & 1].good &&
	    slots[named & 1].generation == named)
		return 0;
	verdict = root_newest(slots, named, ret_generation);
	if (check->salvage->certain && verdict == SALVAGE_SURE)
		verdict = SALVAGE_OLDER_PAGE;
	if (verdict != SALVAGE_SURE)
		say_root(check, page, verdict);
	*ret_good = !salvage_is_lost(verdict);
	for (uint32_t i = 0; i < ROOT_ENTRIES; i++)
		check->salvage->regions[i] = verdict;
	return 0;
}

int check_salvage_leaf(struct check *check, uint32_t region, struct root_entry *home,
		       bool *ret_good)
{
	const bool trusted = check->salvage->regions[region % ROOT_ENTRIES] == SALVAGE_SURE;
	struct check_finding *finding;
	struct slot slots[2], *found;
	int r = 0;

	/* Where the root page is an older one, its leaf may have gone home after it. */
	if (pbn_is_none(home->place) || (trusted && !home->written))
		return 0;
	for (unsigned i = 0; r == 0 && i < 2; i++)
		r = slot_look(check, root_entry_slot(home, i).v, i, PAGE_LEAF, region, &slots[i]);
	if (r < 0)
		return r;
	found = &slots[home->generation & 1];
	if (trusted && found->good && found->generation == home->generation)
		return 0;
	if (!slots[0].good || (slots[1].good && slots[1].lsn > slots[0].lsn))
		found = &slots[1];
	else
		found = &slots[0];
	if (home->written || found->good) {
		*ret_good = found->good;
		home->written = found->good;
		home->generation = found->generation;
	}
	if (!trusted)
		return 0;
	check_salvage_mark(check, region, *ret_good ? SALVAGE_OLDER_PAGE : SALVAGE_LOST_MAP);
	finding = check_find(check, DAMAGE_FATAL, "leaf of region %" PRIu32, region);
	snprintf(finding->expected, sizeof(finding->expected), "a page at block %" PRIu64,
		 root_entry_slot(home, home->generation).v);
	snprintf(finding->found, sizeof(finding->found), "%s",
		 *ret_good ? "an older page alone" : "no page, and none in the other slot");
	return 0;
}

/* --- ranges --- */

static int range_flush(struct walk *walk)
{
	int r = 0;

	if (walk->verdict != SALVAGE_SURE && walk->end > walk->start)
		r = walk->target->range(walk->target->context, walk->verdict,
					blocks_to_bytes(walk->start),
					blocks_to_bytes(walk->end - walk->start));
	walk->start = walk->end;
	return r;
}

static int range_add(struct walk *walk, enum salvage_verdict verdict, uint64_t lbn, uint64_t count)
{
	int r = 0;

	if (verdict != walk->verdict || lbn != walk->end) {
		r = range_flush(walk);
		walk->verdict = verdict;
		walk->start = lbn;
	}
	walk->end = lbn + count;
	return r;
}

/* --- a region --- */

static bool is_written(const struct walk *walk, lbn_t lbn, uint32_t i)
{
	return !salvage_is_lost(walk->blocks[lbn_index(lbn) + i]) &&
	       !is_zeros(walk->data + (size_t)i * BLOCK_BYTES, BLOCK_BYTES);
}

/* What could be read goes out, but for zeros, which are holes there. */
static int copy_write(struct walk *walk, lbn_t lbn, uint32_t count)
{
	uint32_t i = 0;

	while (i < count) {
		uint32_t start = i;
		int r = 0;

		while (i < count && is_written(walk, lbn, i))
			i++;
		if (i > start)
			r = walk->target->write(walk->target->context,
						blocks_to_bytes(lbn.v + start),
						walk->data + (size_t)start * BLOCK_BYTES,
						(size_t)blocks_to_bytes(i - start));
		else
			i++;
		if (r < 0)
			return r;
	}
	return 0;
}

static bool copy_read(struct walk *walk, uint64_t block, uint32_t i, uint32_t count)
{
	const struct check_source *source = walk->check->source;

	return block + count <= walk->check->size_blocks &&
	       source->read(source->context, blocks_to_bytes(block),
			    walk->data + (size_t)i * BLOCK_BYTES,
			    (size_t)blocks_to_bytes(count)) == 0;
}

static int copy_run(void *context, lbn_t lbn, pbn_t pbn, uint32_t count, bool flagged)
{
	struct walk *walk = context;

	(void)flagged;
	for (uint32_t done = 0; walk->target && done < count; done += COPY_BLOCKS) {
		uint32_t blocks = min_u32(COPY_BLOCKS, count - done);
		bool whole = copy_read(walk, pbn.v + done, 0, blocks);
		int r;

		for (uint32_t i = 0; !whole && i < blocks; i++) {
			if (!copy_read(walk, pbn.v + done + i, i, 1))
				walk->blocks[lbn_index(lbn) + done + i] = SALVAGE_LOST_DATA;
		}
		r = copy_write(walk, lbn_add(lbn, done), blocks);
		if (r < 0)
			return r;
	}
	return 0;
}

static int leave_place(void *context, uint32_t region, const struct root_entry *entry)
{
	(void)context;
	(void)region;
	(void)entry;
	return 0;
}

static void leaf_mark_impossible(struct walk *walk, uint32_t region_blocks)
{
	const struct check *check = walk->check;

	for (uint32_t i = 0; i < region_blocks; i++) {
		uint64_t word = check->leaf.words[i];

		if (word != 0 && ((word & ~LEAF_KNOWN_BITS) ||
				  !geometry_is_data(&check->super.geometry, leaf_word_pbn(word))))
			walk->blocks[i] = SALVAGE_LOST_MAP;
	}
}

static bool may_lack_some(const struct check *check, uint64_t home_lsn)
{
	return home_lsn + 1 < check->salvage->doubt_lsn;
}

static int region_walk_leaf(struct walk *walk, uint32_t region, uint32_t region_blocks)
{
	struct check *check = walk->check;
	struct map_visitor visitor = {.place = leave_place, .run = copy_run, .context = walk};
	enum salvage_verdict *verdict = &check->salvage->regions[region % ROOT_ENTRIES];
	bool good;
	int r = check_replay_leaf(check, &check->root, region, &check->leaf, &good);

	if (r < 0)
		return r;
	check->salvage->lsn_max = max_u64(check->salvage->lsn_max, check->leaf.home_lsn);
	if (!good)
		*verdict = SALVAGE_LOST_MAP;
	else if (may_lack_some(check, check->leaf.home_lsn))
		check_salvage_mark(check, region, SALVAGE_OLDER_LOG);
	memset(walk->blocks, *verdict, sizeof(walk->blocks));
	if (!good)
		return 0;
	leaf_mark_impossible(walk, region_blocks);
	return check_leaf_walk(check, &visitor);
}

static int region_add(struct walk *walk, uint32_t region, uint32_t region_blocks)
{
	uint32_t start = 0;
	int r = 0;

	for (uint32_t i = 1; r == 0 && i <= region_blocks; i++) {
		if (i < region_blocks && walk->blocks[i] == walk->blocks[start])
			continue;
		r = range_add(walk, walk->blocks[start], region_lbn(region).v + start, i - start);
		start = i;
	}
	return r;
}

static int region_walk(struct walk *walk, uint32_t region)
{
	struct check *check = walk->check;
	const struct root_entry *entry = &check->root.entries[region % ROOT_ENTRIES];
	uint32_t blocks = geometry_region_blocks(&check->super.geometry, region);
	enum salvage_verdict *verdict = &check->salvage->regions[region % ROOT_ENTRIES];
	int r = 0;

	if (entry->kind != REGION_LEAF && may_lack_some(check, check->root.home_lsn))
		check_salvage_mark(check, region, SALVAGE_OLDER_LOG);
	memset(walk->blocks, *verdict, sizeof(walk->blocks));
	if (entry->kind == REGION_LEAF)
		r = region_walk_leaf(walk, region, blocks);
	else if (entry->kind == REGION_LINEAR)
		r = copy_run(walk, region_lbn(region), entry->base, entry->length, false);
	return r == 0 && walk->target ? region_add(walk, region, blocks) : r;
}

/* --- all of it --- */

static int page_lost(struct walk *walk, uint32_t page)
{
	uint32_t first = page * ROOT_ENTRIES, count = walk->check->root.count;
	uint64_t start = region_lbn(first).v;
	uint64_t end = region_lbn(first + count - 1).v +
		       geometry_region_blocks(&walk->check->super.geometry, first + count - 1);

	return walk->target ? range_add(walk, SALVAGE_LOST_MAP, start, end - start) : 0;
}

static int pages_walk(struct walk *walk)
{
	struct check *check = walk->check;
	bool good;
	int r = 0;

	for (uint32_t page = 0; r == 0 && page < check->super.geometry.root_pages; page++) {
		r = check_replay_root(check, page, &check->root, &good);
		if (r < 0)
			return r;
		if (!good) {
			r = page_lost(walk, page);
			continue;
		}
		check->salvage->lsn_max = max_u64(check->salvage->lsn_max, check->root.home_lsn);
		for (uint32_t i = 0; r == 0 && i < check->root.count; i++)
			r = region_walk(walk, page * ROOT_ENTRIES + i);
	}
	return r == 0 && walk->target ? range_flush(walk) : r;
}

/* A page has seen records that are not there. */
static void find_lost_end(struct check *check)
{
	const struct check_salvage *salvage = check->salvage;

	if (salvage->lsn_max >= check->log.end_lsn && salvage->lsn_max >= salvage->doubt_lsn)
		check_log_gap(check, check->log.end_lsn, salvage->lsn_max);
}

static int records_tell(const struct check *check, const struct salvage_target *target)
{
	const struct check_salvage *salvage = check->salvage;
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < salvage->gap_count; i++)
		r = target->records(target->context, salvage->gaps[i].first, salvage->gaps[i].last);
	return r;
}

static int store_walk(struct check *check, const struct salvage_target *target)
{
	struct walk *walk = calloc(1, sizeof(*walk));
	int r;

	if (!walk)
		return -ENOMEM;
	walk->check = check;
	r = pages_walk(walk);
	if (r == 0) {
		find_lost_end(check);
		check->quiet = true;
		walk->target = target;
		r = target->size(target->context,
				 blocks_to_bytes(check->super.geometry.logical_blocks));
	}
	if (r == 0)
		r = pages_walk(walk);
	if (r == 0)
		r = records_tell(check, target);
	free(walk);
	return r;
}

static int super_look_at_other(struct check *check)
{
	uint64_t before = check->report->findings_total;
	int r = check_super_other(check);

	check->salvage->other_lost = check->report->findings_total > before;
	return r;
}

int salvage(const struct check_source *source, const struct salvage_target *target,
	    struct check_report *ret_report)
{
	struct check_salvage state = {.certain = false};
	struct check *check;
	int r;

	memset(ret_report, 0, sizeof(*ret_report));
	check = check_new(source, ret_report);
	if (!check)
		return -ENOMEM;
	check->salvage = &state;
	r = check_super_salvage(check);
	if (r == 0 && check->generations) {
		ret_report->clean_shutdown = check->super.clean;
		r = super_look_at_other(check);
		if (r == 0)
			r = check_log_salvage(check);
		ret_report->replayed_records = check->log.record_count;
		if (r == 0)
			r = store_walk(check, target);
	}
	check_free(check);
	if (r < 0)
		check_report_done(ret_report);
	return r;
}
