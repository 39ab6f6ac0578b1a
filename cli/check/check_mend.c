/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * check_mend - writes anew what follows from the map: counts, summaries, counters, a superblock
 * copy
 *
 *   refs pages, flush, summary pages, flush, superblock, flush
 *
 * Everything goes to the slot that the durable parents do not name, and the superblock to the copy
 * that is not in force: until the last write is whole, the store is what it was, and a crash in
 * between costs nothing. The journal stays; a refs page written here carries the LSN of the last
 * record in it, so that recovery replays none of them on that page again, and the superblock says
 * that the journal reaches so far.
 *
 * It is called only if nothing else was found: with a damaged map the recount would drop what is in
 * use.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/check/check_state.h"
#include "core/base/bytes.h"

#define PAGE_GENERATION_AT 32u /* docs/disk-format.md: page header */

static int mend_write(struct check *check, uint64_t block, const void *buf, size_t len_bytes)
{
	return check->source->write(check->source->context, blocks_to_bytes(block), buf, len_bytes);
}

static int mend_flush(struct check *check)
{
	return check->source->flush(check->source->context);
}

/* Of the last record in the journal. */
static uint64_t last_lsn(const struct check *check)
{
	return check->log.end_lsn == 0 ? 0 : check->log.end_lsn - 1;
}

/* The next generation, in the other slot; 0 means "never written". */
static uint32_t generation_next(uint32_t generation)
{
	return generation == UINT32_MAX ? 2 : generation + 1;
}

static bool slab_to_mend(const struct check *check, uint32_t slab)
{
	return check->mend_slabs[slab / 8] >> (slab % 8) & 1;
}

/* Where the summary is lost: the newest generation in a slot of the slab's refs page, or 0. */
static int refs_generation_find(struct check *check, uint32_t slab, uint32_t *ret_generation)
{
	struct page_header header = {.kind = PAGE_REFS, .number = slab};
	uint32_t newest = 0;
	struct why why;
	uint64_t lsn;
	int r;

	for (uint32_t slot = 0; slot < 2; slot++) {
		r = check_read(check, geometry_refs_block(&check->super.geometry, slab, slot), 1,
			       check->page);
		if (r < 0)
			return r;
		header.generation = get_le32(check->page + PAGE_GENERATION_AT);
		if (page_verify(check->page, &header, check->super.uuid, &lsn, &why) &&
		    (header.generation & 1) == slot && header.generation > newest)
			newest = header.generation;
	}
	*ret_generation = newest;
	return 0;
}

static int refs_mend(struct check *check, uint32_t slab, struct summary_entry *entry)
{
	const struct check_slab *recount = check->slabs[slab];
	uint32_t generation = generation_next(entry->generation);
	struct page_header header = {
		.kind = PAGE_REFS,
		.number = slab,
		.generation = generation,
		.lsn = last_lsn(check),
	};

	memset(check->page, 0, BLOCK_BYTES);
	for (uint32_t i = 0; recount && i < SLAB_DATA_BLOCKS; i++)
		refs_page_put(check->page, i, recount->counts[i]);
	page_seal(check->page, &header, check->super.uuid);
	memset(check->refs.counts, 0, sizeof(check->refs.counts));
	if (recount)
		memcpy(check->refs.counts, recount->counts, sizeof(check->refs.counts));
	*entry = check_count_summary(check, slab, check->refs.counts);
	entry->generation = generation;
	return mend_write(check, geometry_refs_block(&check->super.geometry, slab, generation),
			  check->page, BLOCK_BYTES);
}

static bool summary_to_mend(const struct check *check, uint32_t page)
{
	uint32_t first = page * SUMMARY_ENTRIES;
	uint32_t end = min_u32(first + SUMMARY_ENTRIES, check->super.geometry.slabs);

	for (uint32_t slab = first; slab < end; slab++) {
		if (slab_to_mend(check, slab))
			return true;
	}
	return false;
}

static bool slab_untouched(const struct check *check, uint32_t slab)
{
	return !check->slabs[slab] && check_log_touches(check, PAGE_REFS, slab).count == 0;
}

static int summary_make(struct check *check, uint32_t page, struct summary_entry *entries)
{
	uint32_t slabs =
		min_u32(SUMMARY_ENTRIES, check->super.geometry.slabs - page * SUMMARY_ENTRIES);
	bool good;
	int r;

	check->quiet = true; /* a bad page was found before */
	r = check_summary_load(check, page, entries, &good);
	check->quiet = false;
	for (uint32_t i = 0; r == 0 && i < slabs; i++) {
		uint32_t slab = page * SUMMARY_ENTRIES + i;

		if (!slab_to_mend(check, slab) || (!good && slab_untouched(check, slab)))
			continue;
		if (!good)
			r = refs_generation_find(check, slab, &entries[i].generation);
		if (r == 0)
			r = refs_mend(check, slab, &entries[i]);
	}
	return r;
}

static int summary_write(struct check *check, uint32_t page, const struct summary_entry *entries)
{
	uint32_t top = check->super.geometry.root_pages + page;
	struct page_header header = {
		.kind = PAGE_SUMMARY,
		.number = page,
		.generation = generation_next(check->generations[top]),
	};

	memset(check->page, 0, BLOCK_BYTES);
	for (uint32_t i = 0; i < SUMMARY_ENTRIES; i++)
		summary_page_put(check->page, i, &entries[i]);
	page_seal(check->page, &header, check->super.uuid);
	check->generations[top] = header.generation;
	return mend_write(check, geometry_top_block(&check->super.geometry, top, header.generation),
			  check->page, BLOCK_BYTES);
}

static int pages_mend(struct check *check)
{
	struct summary_entry entries[SUMMARY_ENTRIES];
	int r = 0;

	for (uint32_t page = 0; r == 0 && page < check->super.geometry.summary_pages; page++) {
		if (!summary_to_mend(check, page))
			continue;
		r = summary_make(check, page, entries);
		if (r == 0)
			r = mend_flush(check);
		if (r == 0)
			r = summary_write(check, page, entries);
	}
	return r == 0 ? mend_flush(check) : r;
}

static int super_mend(struct check *check)
{
	struct super *super = &check->super;
	size_t len_bytes = (size_t)super->geometry.super_blocks * BLOCK_BYTES;
	uint8_t *buf = malloc(len_bytes);
	int r;

	if (!buf)
		return -ENOMEM;
	super->checkpoint++;
	super->log_reaches_lsn = check->log.end_lsn;
	super->mapped_blocks = check->report->mapped_blocks - (uint64_t)check->log.mapped_delta;
	super->places = check->places - (uint64_t)check->log.places_delta;
	super_encode(super, check->generations, buf);
	r = mend_write(check, geometry_super_block(&super->geometry, super->checkpoint & 1), buf,
		       len_bytes);
	free(buf);
	return r == 0 ? mend_flush(check) : r;
}

int check_mend(struct check *check)
{
	struct check_report *report = check->report;
	int r;

	if (check->fatal_total > 0 || (report->findings_total == 0 && check->other_valid))
		return 0;
	assert(check->source->write && check->source->flush);
	if (report->findings_total == 0)
		check_find_why(check, DAMAGE_MENDS, &check->other_why, "superblock copy %s",
			       check->super.checkpoint & 1 ? "A" : "B");
	r = check_tracking_mend(check);
	if (r == 0)
		r = pages_mend(check);
	if (r == 0)
		r = super_mend(check);
	if (r < 0)
		return r;
	report->repaired_total = report->findings_total;
	for (uint32_t i = 0; i < report->finding_count; i++)
		report->findings[i].repaired = true;
	return 0;
}
