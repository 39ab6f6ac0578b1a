/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_check_journal - what check replays, and what it takes for a crash or for damage
 */
#include <criterion/criterion.h>
#include <string.h>

#include "check_expect.h"

Test(check, every_kind_of_record_is_replayed)
{
	struct image *image = image_new_filled();
	struct record share = share_record(image, 1022, 2, 201, 513);
	struct record grow = map_record(image, 100, 5, 0, 110);
	struct record place = {.kind = RECORD_PLACE, .count = 2};

	/* Region 2 gives its place back and takes another. */
	image_record(image, (struct record){.kind = RECORD_UNPLACE,
					    .count = 2,
					    .lbn = {1024},
					    .old = image_pbn(image, 4)});
	place.lbn = (lbn_t){1024};
	place.new = image_pbn(image, 6);
	image_record(image, place);
	/* Region 0 grows, explodes, loses three blocks and has two overwritten. */
	grow.flags = RECORD_ON_ROOT;
	image_record(image, grow);
	image_seal(image, false);
	image_record(
		image,
		(struct record){.kind = RECORD_EXPLODE, .count = 105, .old = image_pbn(image, 10)});
	image_record(image, unmap_record(image, 0, 3, 10));
	image_record(image, map_record(image, 50, 2, 60, 300));
	image_seal(image, true);
	/* Region 1 shares two of its blocks with itself. */
	image_record(image, share);
	/* Region 2 becomes a LINEAR that shares region 1's block 5, and is cut again. */
	share = share_record(image, 1024, 3, 205, 517);
	share.flags = RECORD_ON_ROOT;
	image_record(image, share);
	grow = unmap_record(image, 1025, 2, 206);
	grow.flags = RECORD_ON_ROOT;
	image_record(image, grow);
	image_seal(image, true);
	expect_clean(image);
	cr_assert_eq(report.replayed_records, 9);
	cr_assert_eq(report.mapped_blocks, 111 + 5 - 3 + 2 + 3 - 2);
	image_free(image);
}

Test(check, a_leaf_source_and_a_linear_source_are_flagged_by_replay)
{
	struct image *image = image_new_filled();
	struct record share = share_record(image, 600, 10, 20, 10);

	share.flags = RECORD_SRC_ON_ROOT;
	image_record(image, share);
	image_record(image, share_record(image, 700, 4, 203, 515));
	image_seal(image, true);
	expect_clean(image);
	cr_assert_eq(report.shared_blocks, 2 + 20 + 8);
	image_free(image);
}

/* Recovery recounts it, but reads the entry first. */
Test(check, a_summary_that_cannot_be_is_found_also_where_replay_recounts)
{
	struct image *image = image_new_filled();
	struct record record = map_record(image, 522, 3, 0, 210);

	image->summaries[2] = (struct summary_entry){
		.generation = 1, .free_blocks = geometry_slab_blocks(&image->geometry, 2) + 1};
	image_write(image);
	record.new = geometry_slab_pbn(&image->geometry, 2, 0); /* the short one */
	image_record(image, record);
	image_seal(image, true);
	expect_one(image, "summary of slab 2", "free");
	expect_mended(image);
	image_free(image);
}

Test(check, a_group_cut_short_is_not_replayed)
{
	struct image *image = image_new_filled();

	image_record(image, map_record(image, 522, 3, 0, 210));
	image_seal(image, true);
	image_record(image, map_record(image, 525, 3, 0, 213));
	image_seal(image, false);
	expect_clean(image);
	cr_assert_eq(report.replayed_records, 1);
	image_free(image);
}

/* Goal: of a group in flight any blocks may be missing. */
Test(check, a_hole_in_the_last_group_is_clean)
{
	struct image *image = image_new_filled();

	image_record(image, map_record(image, 522, 3, 0, 210));
	image_seal(image, false);
	image_record(image, map_record(image, 525, 3, 0, 213));
	image_seal(image, true);
	memset(image_block(image, geometry_ring_block(&image->geometry, 40)), 0, BLOCK_BYTES);
	expect_clean(image);
	cr_assert_eq(report.replayed_records, 0);
	image_free(image);
}

Test(check, a_lost_group_before_a_durable_one_is_found)
{
	struct image *image = image_new_filled();

	image_record(image, map_record(image, 522, 3, 0, 210));
	image_seal(image, true);
	image_record(image, map_record(image, 525, 3, 0, 213));
	image_seal(image, true);
	image_block(image, geometry_ring_block(&image->geometry, 40))[120] ^= 1;
	expect_one(image, "journal, from sequence 40", "breaks off");
	expect_refused(image);
	image_free(image);
}

/* Goal: nothing in the ring tells a lost last group from one that a crash cut short; the superblock
 * does. */
Test(check, a_log_that_ends_before_what_the_superblock_says_is_found)
{
	for (uint64_t reaches = 100; reaches <= 103; reaches++) {
		struct image *image = image_new_filled();

		image->super.log_reaches_lsn = reaches;
		image_write(image);
		image_record(image, map_record(image, 522, 3, 0, 210));
		image_seal(image, true);
		image_record(image, map_record(image, 525, 3, 0, 213));
		image_seal(image, true);
		if (reaches <= 102)
			expect_clean(image);
		image_block(image, geometry_ring_block(&image->geometry, 41))[120] ^= 1;
		if (reaches <= 101) {
			expect_clean(image);
		} else {
			expect_one(image, "journal, from sequence 41", "the last one is 100");
			expect_refused(image);
		}
		image_free(image);
	}
}

static void seal_with_lsn(struct image *image, uint8_t *page, enum page_kind kind, uint64_t number,
			  uint32_t generation, uint64_t lsn)
{
	struct page_header header = {kind, number, generation, lsn};

	page_seal(page, &header, image->super.uuid);
}

Test(check, a_page_newer_than_the_superblock_allows_is_found)
{
	for (uint64_t lsn = 99; lsn <= 100; lsn++) {
		struct image *image = image_new_filled();

		seal_with_lsn(image, image_leaf(image, 1), PAGE_LEAF, 1, 5, lsn);
		lsn < 100 ? expect_clean(image) : expect_one(image, "leaf of region 1", "100");
		image_free(image);
		image = image_new_filled();
		seal_with_lsn(image, image_root(image), PAGE_ROOT, 0, 4, lsn);
		lsn < 100 ? expect_clean(image) : expect_one(image, "root page 0", "100");
		image_free(image);
		image = image_new_filled();
		seal_with_lsn(image, image_refs(image, 0), PAGE_REFS, 0, 2, lsn);
		lsn < 100 ? expect_clean(image) : expect_one(image, "refs of slab 0", "100");
		if (lsn == 100)
			expect_mended(image);
		image_free(image);
	}
}

static void put_spare(struct image *image, uint64_t block, enum page_kind kind, uint64_t number,
		      uint64_t lsn)
{
	struct page_header header = {.kind = kind, .number = number, .generation = 99, .lsn = lsn};
	uint8_t *page = image_block(image, block);

	memset(page, 0, BLOCK_BYTES);
	page_seal(page, &header, image->super.uuid);
}

/* Goal: a copy that was made while a server wrote is told from what a crash leaves: of a page that
 * went home all records were durable before, also where no superblock names it. */
Test(check, a_page_out_of_force_newer_than_the_log_shows_a_copy_of_a_store_in_use)
{
	const struct {
		enum page_kind kind;
		uint64_t number;
	} pages[] = {{PAGE_ROOT, 0}, {PAGE_LEAF, 1}};

	for (unsigned i = 0; i < 2; i++) {
		struct image *image = image_new_filled();
		uint64_t spare = geometry_top_block(&image->geometry, 0, image->generations[0] + 1);

		if (pages[i].kind == PAGE_LEAF)
			spare = root_entry_slot(&image->entries[1],
						image->entries[1].generation + 1)
					.v;
		image_record(image, map_record(image, 522, 3, 0, 210));
		image_seal(image, true);
		put_spare(image, spare, pages[i].kind, pages[i].number, 100);
		expect_clean(image); /* of a checkpoint that was cut short */
		cr_expect_not(report.copied_in_use);
		put_spare(image, spare, pages[i].kind, pages[i].number, 101);
		expect_one(image, "spare slot", "101: this was copied while in use");
		cr_expect(report.copied_in_use);
		expect_refused(image);
		image->bytes[blocks_to_bytes(spare) + 900] ^= 1;
		expect_clean(image); /* no page */
		image_free(image);
	}
}

Test(check, an_older_epochs_blocks_are_not_replayed)
{
	struct image *image = image_new_filled();

	image->header.epoch = 2;
	image_record(image, map_record(image, 522, 3, 0, 210));
	image_seal(image, true);
	image_record(image, map_record(image, 525, 3, 0, 213));
	image_seal(image, true);
	expect_clean(image);
	cr_assert_eq(report.replayed_records, 0);
	image_free(image);
}

Test(check, a_block_that_names_another_predecessor_ends_the_log)
{
	struct image *image = image_new_filled();

	image->header.prev ^= 1;
	image_record(image, map_record(image, 522, 3, 0, 210));
	image_seal(image, true);
	expect_clean(image);
	cr_assert_eq(report.replayed_records, 0);
	image_free(image);
}

/* Goal: pages copied at different times; each takes only what it lacks. */
Test(check, a_page_newer_than_the_tail_takes_no_record_twice)
{
	struct image *image = image_new_filled();
	struct page_header header = {PAGE_REFS, 0, image->summaries[0].generation, 100};

	image->super.log_reaches_lsn = 101;
	image_write(image);
	image_record(image, map_record(image, 522, 3, 0, 210));
	image_record(image, map_record(image, 525, 1, 0, 213));
	image_seal(image, true);
	/* The refs page went home after the first record, LSN 100. */
	for (uint32_t i = 210; i < 213; i++)
		refs_page_put(image_refs(image, 0), i, 1);
	page_seal(image_refs(image, 0), &header, image->super.uuid);
	expect_clean(image);
	image_free(image);
}

Test(check, a_block_that_begins_with_another_lsn_ends_the_log)
{
	struct image *image = image_new_filled();

	image->header.first_lsn = 99;
	image_record(image, map_record(image, 522, 3, 0, 210));
	image_seal(image, true);
	expect_clean(image);
	cr_assert_eq(report.replayed_records, 0);
	image_free(image);
}

/* Goal: a ring block proves what was durable also where it does not belong. */
Test(check, a_misdirected_ring_block_is_not_replayed_but_proves_loss)
{
	struct image *image = image_new_filled();
	uint8_t *block = image_block(image, geometry_ring_block(&image->geometry, 40));

	image->header.group = 8;
	image_record(image, map_record(image, 522, 3, 0, 210));
	image_seal(image, true);
	memcpy(block + BLOCK_BYTES, block, BLOCK_BYTES);
	memset(block, 0, BLOCK_BYTES);
	expect_one(image, "journal, from sequence 40", "breaks off");
	image_free(image);
}

Test(check, a_record_that_tells_another_story_than_the_leaf_is_found)
{
	struct image *image = image_new_filled();

	/* It says that a hole was there. */
	image_record(image, map_record(image, 512, 1, 0, 210));
	image_seal(image, true);
	expect_run(image, false);
	cr_assert_gt(report.findings_total, 0);
	cr_assert(strstr(report.findings[0].where, "leaf of region 1, journal record 100"));
	expect_refused(image);
	image_free(image);
}

Test(check, a_record_that_the_root_cannot_take_is_found)
{
	struct image *image = image_new_filled();
	struct record record = map_record(image, 101, 1, 0, 111);

	record.flags = RECORD_ON_ROOT;
	image_record(image, record);
	image_seal(image, true);
	expect_run(image, false);
	cr_assert_gt(report.findings_total, 0);
	cr_assert(strstr(report.findings[0].where, "root entry of region 0, journal record 100"));
	image_free(image);
}

Test(check, a_record_that_cannot_be_is_found)
{
	struct image *image = image_new_filled();
	struct record record = map_record(image, 2000, 1, 0, 111);

	image_record(image, record);
	image_seal(image, true);
	expect_one(image, "journal record 100", "lbn 2000");
	image_free(image);
}

/* Goal: recovery looks at it as well, though it would not be replayed. */
Test(check, a_record_that_cannot_be_in_a_group_cut_short_is_found)
{
	for (unsigned groups = 0; groups < 2; groups++) {
		struct image *image = image_new_filled();

		if (groups > 0) {
			image_record(image, map_record(image, 522, 3, 0, 210));
			image_seal(image, true);
		}
		image_record(image, map_record(image, 2000, 1, 0, 111));
		image_seal(image, false);
		expect_one(image, "journal record 10", "lbn 2000");
		expect_refused(image);
		image_free(image);
	}
}

Test(check, a_record_of_a_split_place_without_its_feature_is_found)
{
	for (unsigned features = 0; features <= FEATURE_SPLIT_PLACES; features++) {
		struct image *image = image_new_filled();
		struct record record = {.kind = RECORD_UNPLACE, .count = 2, .lbn = {1024}};

		image->super.features_incompat = features;
		image_write(image);
		record.old = image_pbn(image, 4);
		image_record(image, record);
		record = (struct record){.kind = RECORD_EXPLODE, .flags = RECORD_SPLIT};
		record.lbn.v = 1024;
		record.new = image_pbn(image, 300);
		record.src.v = image_pbn(image, 302).v;
		image_record(image, record);
		image_seal(image, true);
		if (features & FEATURE_SPLIT_PLACES) {
			expect_clean(image);
		} else {
			expect_one(image, "journal record 101", "a superblock with features 0");
			expect_refused(image);
		}
		image_free(image);
	}
}

/* Goal: recovery looks at an entry before the journal changes it. */
Test(check, a_bad_root_entry_that_the_journal_replaces_is_found)
{
	struct image *image = image_new_filled();

	image->entries[2].base = image_pbn(image, 600);
	image_write(image);
	image_record(image, (struct record){.kind = RECORD_UNPLACE,
					    .count = 2,
					    .lbn = {1024},
					    .old = image_pbn(image, 4)});
	image_seal(image, true);
	expect_run(image, false);
	cr_assert_gt(report.findings_total, 0);
	cr_assert(strstr(report.findings[0].where, "root entry of region 2"));
	expect_refused(image);
	image_free(image);
}

/* Goal: a count that ends right did not pass through what cannot be. */
static void expect_misfit_of_counts(struct record record, uint32_t index, uint16_t count)
{
	struct image *image = image_new_filled();

	image->counts[0][index] = count;
	image_write(image);
	image_record(image, record);
	image_seal(image, true);
	expect_one(image, "refs of slab 0, journal record 100", "blocks at");
	expect_mended(image);
	image_free(image);
}

Test(check, a_record_that_the_counts_cannot_take_is_found)
{
	struct image *image = image_new_filled();

	expect_misfit_of_counts(unmap_record(image, 513, 2, 201), 202, 0);
	expect_misfit_of_counts(map_record(image, 600, 2, 0, 300), 301, 1);
	expect_misfit_of_counts(share_record(image, 600, 2, 201, 513), 202, 0);
	expect_misfit_of_counts(share_record(image, 600, 2, 201, 513), 201, REFS_MAX);
	image_free(image);
}

/* Goal: replay flags the source only if it is the source. */
Test(check, a_share_from_a_source_that_reads_other_blocks_is_found)
{
	struct image *image = image_new_filled();

	image_record(image, share_record(image, 700, 1, 205, 518));
	image_seal(image, true);
	expect_run(image, false);
	cr_assert_gt(report.findings_total, 0);
	cr_assert(strstr(report.findings[0].expected, "a source that reads from the new blocks"));
	image_free(image);
}

Test(check, a_leaf_dropped_and_made_again_is_replayed)
{
	struct image *image = image_new_filled();

	/* Region 1 is emptied, gives its place back and takes another. */
	image_record(image, unmap_record(image, 512, 10, 200));
	image_record(image, unmap_record(image, 532, 1, 200));
	image_record(image, (struct record){.kind = RECORD_UNPLACE,
					    .count = 2,
					    .lbn = {512},
					    .old = image_pbn(image, 2)});
	image_record(image, (struct record){.kind = RECORD_PLACE,
					    .count = 2,
					    .lbn = {512},
					    .new = image_pbn(image, 8)});
	image_record(image, (struct record){.kind = RECORD_EXPLODE, .lbn = {512}});
	image_record(image, map_record(image, 600, 2, 0, 300));
	image_seal(image, true);
	expect_clean(image);
	cr_assert_eq(report.mapped_blocks, 102);
	/* Recovery reads the leaf of the first life, too. */
	image_leaf(image, 1)[200] ^= 1;
	expect_damage(image);
	image_free(image);
}

Test(check, a_leaf_dropped_with_mappings_in_it_is_found)
{
	struct image *image = image_new_filled();

	image_record(image, unmap_record(image, 512, 10, 200));
	image_record(image, (struct record){.kind = RECORD_UNPLACE,
					    .count = 2,
					    .lbn = {512},
					    .old = image_pbn(image, 2)});
	image_seal(image, true);
	expect_run(image, false);
	cr_assert_gt(report.findings_total, 0);
	cr_assert(strstr(report.findings[0].expected, "a leaf without mappings"));
	image_free(image);
}

/* Goal: a root page newer than the records does not lead to the old leaf's records. */
Test(check, records_of_a_leafs_former_life_are_skipped)
{
	struct image *image = image_new_filled();

	image->super.log_reaches_lsn = 103;
	image_write(image);
	image_record(image, unmap_record(image, 512, 10, 200));
	image_record(image, unmap_record(image, 532, 1, 200));
	image_record(image, (struct record){.kind = RECORD_UNPLACE,
					    .count = 2,
					    .lbn = {512},
					    .old = image_pbn(image, 2)});
	image_seal(image, true);
	/* The root page was copied after all of it; the others before. */
	image->entries[1] = (struct root_entry){0};
	for (uint32_t i = 0; i < ROOT_ENTRIES; i++)
		root_page_put(image_root(image), i, root_entry_encode(&image->entries[i]));
	page_seal(image_root(image), &(struct page_header){PAGE_ROOT, 0, 4, 102},
		  image->super.uuid);
	expect_clean(image);
	cr_assert_eq(report.mapped_blocks, 100);
	image_free(image);
}

Test(check, counters_of_the_superblock_follow_the_journal)
{
	struct image *image = image_new_filled();

	image_record(image, map_record(image, 522, 3, 0, 210));
	image_seal(image, true);
	image->super.mapped_blocks += 3; /* as if they were of the end, not of the tail */
	image_write(image);
	expect_one(image, "mapped blocks", "114 and 3");
	expect_mended(image);
	image_free(image);
}

Test(check, records_after_a_clean_shutdown_are_found)
{
	struct image *image = image_new_filled();

	image->super.clean = true;
	image_write(image);
	expect_clean(image);
	cr_assert(report.clean_shutdown);
	image_record(image, map_record(image, 522, 3, 0, 210));
	image_seal(image, true);
	expect_one(image, "journal, from sequence 40", "1 records");
	image_free(image);
}

Test(check, the_log_goes_around_the_ring)
{
	struct image *image = image_new_filled();

	for (uint32_t i = 0; i < IMAGE_RING_BLOCKS; i++) {
		image_record(image, map_record(image, 600 + i, 1, 0, 210 + i));
		image_seal(image, true);
	}
	expect_clean(image);
	cr_assert_eq(report.replayed_records, IMAGE_RING_BLOCKS);
	image_free(image);
}
