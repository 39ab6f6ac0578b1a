/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_check - the map and what follows from it
 *
 * Each test builds a store by hand, breaks one thing, and expects that finding and no other.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "check_expect.h"

/* --- what is clean --- */

Test(check, an_empty_volume_is_clean)
{
	struct image *image = image_new();

	expect_clean(image);
	cr_assert_eq(report.mapped_blocks, 0);
	cr_assert_eq(report.free_blocks, geometry_data_blocks(&image->geometry));
	image_free(image);
}

Test(check, a_filled_volume_is_clean_and_counted)
{
	struct image *image = image_new_filled();

	expect_clean(image);
	cr_assert_eq(report.mapped_blocks, 111);
	cr_assert_eq(report.used_blocks, 110);
	cr_assert_eq(report.shared_blocks, 2);
	cr_assert_eq(report.free_blocks, geometry_data_blocks(&image->geometry) - 116);
	cr_assert_eq(report.replayed_records, 0);
	cr_assert_not(report.clean_shutdown);
	image_free(image);
}

Test(check, a_stale_flag_is_clean)
{
	struct image *image = image_new_filled();

	image->words[1][5] |= LEAF_MAYBE_SHARED;
	image->entries[0].shared = true;
	image_write(image);
	expect_clean(image);
	image_free(image);
}

Test(check, what_lies_in_the_other_slots_does_not_matter)
{
	struct image *image = image_new_filled();

	memset(image_block(image, geometry_top_block(&image->geometry, 0, 5)), 0xee, BLOCK_BYTES);
	memset(image_block(image, geometry_top_block(&image->geometry, 1, 7)), 0xee, BLOCK_BYTES);
	memset(image_block(image, geometry_refs_block(&image->geometry, 0, 3)), 0xee, BLOCK_BYTES);
	memset(image_block(image, image->entries[1].place.v), 0xee, BLOCK_BYTES);
	expect_clean(image);
	image_free(image);
}

struct sparse {
	struct geometry geometry;
	uint8_t *supers[2];
};

static int sparse_read(void *context, uint64_t off_bytes, void *buf, size_t len_bytes)
{
	const struct sparse *sparse = context;

	memset(buf, 0, len_bytes);
	for (unsigned copy = 0; copy < 2; copy++) {
		uint64_t at = blocks_to_bytes(geometry_super_block(&sparse->geometry, copy));

		if (off_bytes >= at &&
		    off_bytes < at + blocks_to_bytes(sparse->geometry.super_blocks))
			memcpy(buf, sparse->supers[copy] + (off_bytes - at), len_bytes);
	}
	return 0;
}

/* Goal: what was never written costs neither time nor memory. */
Test(check, an_empty_volume_of_8_tib_is_checked_at_once, .timeout = 10)
{
	struct sparse sparse;
	struct check_source source = {.context = &sparse, .read = sparse_read};
	struct super super = {.tail_lsn = 1, .log_reaches_lsn = 1};
	uint32_t *generations;

	cr_assert_eq(geometry_plan((8ull << 40) / BLOCK_BYTES, (9ull << 40) / BLOCK_BYTES, 0,
				   &sparse.geometry),
		     0);
	super.geometry = sparse.geometry;
	generations = calloc(geometry_tops(&sparse.geometry), sizeof(*generations));
	for (unsigned copy = 0; copy < 2; copy++) {
		sparse.supers[copy] = malloc(blocks_to_bytes(sparse.geometry.super_blocks));
		super.checkpoint = copy;
		super_encode(&super, generations, sparse.supers[copy]);
	}
	source.size_bytes = 9ull << 40;
	cr_assert_eq(check_store(&source, false, &report), 0);
	cr_assert_eq(report.findings_total, 0);
	free(sparse.supers[0]);
	free(sparse.supers[1]);
	free(generations);
}

/* --- counts --- */

Test(check, a_leaked_block_is_found)
{
	struct image *image = image_new_filled();

	image->counts[0][500] = 1;
	image->summaries[0].free_blocks--;
	image_write(image);
	expect_one(image, "refcount of physical blocks", "1");
	expect_mended(image);
	image_free(image);
}

Test(check, a_block_in_use_but_counted_free_is_found)
{
	struct image *image = image_new_filled();

	image->counts[0][12] = 0;
	image->summaries[0].free_blocks++;
	image_write(image);
	expect_one(image, "refcount of physical blocks", "0");
	expect_mended(image);
	image_free(image);
}

Test(check, a_count_in_a_slab_that_nothing_uses_is_found)
{
	struct image *image = image_new_filled();

	image->counts[1][7] = 2;
	image->summaries[1] = (struct summary_entry){9, SLAB_DATA_BLOCKS - 1, 2, 0, 0};
	image_write(image);
	expect_one(image, "refcount of physical blocks", "2");
	expect_mended(image);
	image_free(image);
}

Test(check, a_count_beyond_the_end_of_a_short_slab_is_found)
{
	struct image *image = image_new_filled();
	uint32_t blocks = geometry_slab_blocks(&image->geometry, 2);

	cr_assert_lt(blocks, SLAB_DATA_BLOCKS);
	image->counts[2][blocks] = 1;
	image->summaries[2] = (struct summary_entry){1, blocks, 0, 0, 0};
	image_write(image);
	expect_one(image, "refcount of physical blocks", "1");
	image_free(image);
}

Test(check, adjacent_wrong_counts_are_one_finding)
{
	struct image *image = image_new_filled();

	for (uint32_t i = 300; i < 400; i++)
		image->counts[0][i] = 3;
	image->summaries[0].free_blocks -= 100;
	image->summaries[0].shared_refs += 300;
	image_write(image);
	expect_one(image, "refcount of physical blocks", "3");
	image_free(image);
}

Test(check, findings_beyond_the_maximum_are_counted_only)
{
	struct image *image = image_new_filled();

	for (uint32_t i = 0; i < SLAB_DATA_BLOCKS; i++)
		image->counts[1][i] = (uint16_t)(i + 1);
	image->summaries[1] = (struct summary_entry){1, 0, 0, 0, 0};
	for (uint32_t i = 1; i < SLAB_DATA_BLOCKS; i++)
		image->summaries[1].shared_refs += i + 1;
	image_write(image);
	expect_run(image, false);
	cr_assert_eq(report.findings_total, SLAB_DATA_BLOCKS);
	cr_assert_eq(report.finding_count, CHECK_FINDINGS_MAX);
	image_free(image);
}

Test(check, a_wrong_number_of_free_blocks_is_found)
{
	struct image *image = image_new_filled();

	image->summaries[0].free_blocks--;
	image_write(image);
	expect_one(image, "summary of slab 0", "free");
	expect_mended(image);
	image_free(image);
}

/* Of slab 0, which has runs of far more than 512 free blocks. */
Test(check, a_wrong_largest_piece_is_found)
{
	struct image *image = image_new_filled();

	image->summaries[0].piece = 11;
	image_write(image);
	expect_clean(image);
	image->summaries[0].piece = 10;
	image_write(image);
	expect_one(image, "summary of slab 0", "10");
	expect_mended(image);
	image->summaries[0].piece = 12;
	image_write(image);
	expect_one(image, "summary of slab 0", "12");
	image_free(image);
}

Test(check, a_wrong_sum_of_shared_references_is_found)
{
	struct image *image = image_new_filled();

	image->summaries[0].shared_refs = 0;
	image_write(image);
	expect_one(image, "summary of slab 0", "0 shared");
	expect_mended(image);
	image_free(image);
}

Test(check, a_summary_of_a_slab_that_the_store_has_not_is_found)
{
	struct image *image = image_new_filled();

	image->summaries[IMAGE_SLABS].free_blocks = 1;
	image_write(image);
	expect_one(image, "summary of slab 3", "1 free");
	expect_refused(image);
	image_free(image);
}

Test(check, wrong_counters_of_the_superblock_are_found)
{
	struct image *image = image_new_filled();

	image->super.mapped_blocks++;
	image_write(image);
	expect_one(image, "mapped blocks", "112");
	expect_mended(image);

	image_count(image);
	image->super.places = 2;
	image->super.checkpoint = 10;
	image_write(image);
	expect_one(image, "leaf places", "2");
	expect_mended(image);
	image_free(image);
}

/* --- owners --- */

Test(check, an_owner_without_the_flag_of_a_shared_block_is_found)
{
	struct image *image = image_new_filled();

	image->words[1][20] &= ~LEAF_MAYBE_SHARED;
	image_write(image);
	expect_one(image, "logical blocks 532 to 532", "other owners");
	expect_refused(image);
	image_free(image);
}

Test(check, a_linear_owner_needs_the_regions_shared_bit)
{
	struct image *image = image_new_filled();

	for (uint32_t i = 0; i < 5; i++)
		image->words[1][100 + i] = leaf_word(image_pbn(image, 20 + i), true);
	image_count(image);
	image_write(image);
	expect_one(image, "logical blocks 10 to 14", "other owners");

	image->entries[0].shared = true;
	image_write(image);
	expect_clean(image);
	image_free(image);
}

Test(check, a_place_with_two_owners_is_found)
{
	struct image *image = image_new_filled();

	image->entries[2].place = image->entries[0].place;
	image_count(image);
	image_write(image);
	expect_run(image, false);
	cr_assert_eq(report.findings_total, 2); /* one an owner */
	cr_assert(strstr(report.findings[0].where, "place of region 0"));
	cr_assert(strstr(report.findings[1].where, "place of region 2"));
	image_free(image);
}

Test(check, data_mapped_to_a_leafs_place_is_found)
{
	struct image *image = image_new_filled();

	image->words[1][30] = leaf_word(image->entries[2].place, true);
	image_count(image);
	image_write(image);
	expect_run(image, false);
	cr_assert_eq(report.findings_total, 2);
	cr_assert(strstr(report.findings[0].found, "belong to a leaf"));
	cr_assert(strstr(report.findings[1].where, "place of region 2"));
	expect_refused(image);
	image_free(image);
}

/* --- map entries --- */

Test(check, a_leaf_entry_that_is_no_data_block_is_found)
{
	struct image *image = image_new_filled();

	/* The slab's own refs page. */
	image_count(image);
	image->words[1][40] = leaf_word((pbn_t){image->geometry.data_start}, false);
	image_write(image);
	expect_one(image, "leaf of region 1, entry 40", "block 40");
	expect_refused(image);
	image_free(image);
}

Test(check, an_entry_beyond_the_volumes_end_is_found)
{
	struct image *image = image_new_filled();

	image->entries[2].kind = REGION_LEAF;
	image->entries[2].written = true;
	image_count(image);
	image->words[2][IMAGE_LOGICAL_BLOCKS - 2 * REGION_BLOCKS] =
		leaf_word(image_pbn(image, 900), false);
	image_write(image);
	expect_one(image, "leaf of region 2, entry 276", "block");
	image_free(image);
}

Test(check, a_region_beyond_the_volumes_end_is_found)
{
	struct image *image = image_new_filled();

	image->entries[IMAGE_REGIONS].place = image_pbn(image, 900);
	image_write(image);
	expect_one(image, "root entry of region 3", "0000");
	image_free(image);
}

Test(check, a_linear_run_out_of_range_is_found)
{
	struct image *image = image_new_filled();

	image->entries[0].base = geometry_slab_pbn(&image->geometry, 0, SLAB_DATA_BLOCKS - 1);
	image_write(image);
	expect_one(image, "root entry of region 0", "length 100");
	image_free(image);
}

/* Goal: mending would write it off as a hole. */
Test(check, a_hole_without_a_place_that_has_a_run_is_found)
{
	struct image *image = image_new_filled();

	image->entries[2] = (struct root_entry){.base = image_pbn(image, 600)};
	image_count(image);
	image_write(image);
	expect_one(image, "root entry of region 2", "kind 0");
	expect_refused(image);
	image_free(image);
}

/* Programs that know no such places would open the store and take the next block for the slot. */
Test(check, a_split_place_without_its_feature_is_found)
{
	struct image *image = image_new_filled();

	image->entries[1].second = image_pbn(image, 300);
	image->super.features_incompat = FEATURE_SPLIT_PLACES;
	image_count(image);
	image_write(image);
	expect_clean(image);
	image->super.features_incompat = 0;
	image_write(image);
	expect_one(image, "root entry of region 1", "a superblock with features 0");
	cr_assert(strstr(report.findings[0].expected, "features 1"));
	expect_refused(image);
	image_free(image);
}

Test(check, a_run_without_a_place_and_without_its_feature_is_found)
{
	struct image *image = image_new_filled();

	image->entries[0].place = PBN_NONE;
	image->super.features_incompat = FEATURE_LATE_PLACES;
	image_count(image);
	image_write(image);
	expect_clean(image);
	image->super.features_incompat = 0;
	image_write(image);
	expect_one(image, "root entry of region 0", "a superblock with features 0");
	cr_assert(strstr(report.findings[0].expected, "features 2"));
	expect_refused(image);
	image_free(image);
}

Test(check, a_leaf_written_to_no_place_is_found)
{
	struct image *image = image_new_filled();

	image->entries[2] = (struct root_entry){.generation = 3};
	image_count(image);
	image_write(image);
	expect_clean(image); /* it had one once */
	image->entries[2].written = true;
	/* By hand: image_write() would write the leaf. */
	root_page_put(image_root(image), 2, root_entry_encode(&image->entries[2]));
	page_seal(image_root(image), &(struct page_header){PAGE_ROOT, 0, 4, 99}, image->super.uuid);
	expect_one(image, "root entry of region 2", "place 0");
	expect_refused(image);
	image_free(image);
}

Test(check, a_leaf_that_is_nowhere_is_found)
{
	struct image *image = image_new_filled();

	image->entries[1].written = false;
	image_write(image);
	expect_one(image, "leaf of region 1", "neither");
	image_free(image);
}

/* --- pages --- */

/* Goal: no byte of a page in force can change unseen. */
static void flip_every_byte(struct image *image, uint8_t *page)
{
	for (uint32_t i = 0; i < BLOCK_BYTES; i++) {
		uint8_t bit = (uint8_t)(1u << i % 8);

		page[i] ^= bit;
		expect_damage(image);
		page[i] ^= bit;
	}
	expect_clean(image);
}

Test(check, a_flipped_bit_of_a_root_page_is_found)
{
	struct image *image = image_new_filled();

	flip_every_byte(image, image_root(image));
	image_free(image);
}

Test(check, a_flipped_bit_of_a_summary_page_is_found)
{
	struct image *image = image_new_filled();

	flip_every_byte(image, image_summary(image));
	image_free(image);
}

Test(check, a_flipped_bit_of_a_leaf_is_found)
{
	struct image *image = image_new_filled();

	flip_every_byte(image, image_leaf(image, 1));
	image_free(image);
}

Test(check, a_flipped_bit_of_a_refs_page_is_found)
{
	struct image *image = image_new_filled();

	flip_every_byte(image, image_refs(image, 0));
	image_free(image);
}

/* Goal: a valid page of an older generation is not believed: a lost write. */
Test(check, a_lost_write_of_a_page_is_found)
{
	struct image *image = image_new_filled();
	struct page_header header = {PAGE_LEAF, 1, 3, 50};

	page_seal(image_leaf(image, 1), &header, image->super.uuid);
	expect_one(image, "leaf of region 1", "3");
	expect_refused(image);
	image_free(image);
}

Test(check, a_misdirected_write_of_a_page_is_found)
{
	struct image *image = image_new_filled();
	struct page_header header = {PAGE_LEAF, 0, 5, 50};

	page_seal(image_leaf(image, 1), &header, image->super.uuid);
	expect_one(image, "leaf of region 1", "0");
	image_free(image);
}

Test(check, a_page_of_another_volume_is_found)
{
	struct image *image = image_new_filled();
	struct page_header header = {PAGE_ROOT, 0, 4, 50};
	uint8_t uuid[FORMAT_UUID_BYTES] = {1};

	page_seal(image_root(image), &header, uuid);
	expect_one(image, "root page 0", "UUID");
	image_free(image);
}

Test(check, a_bad_refs_page_is_one_finding_and_mended)
{
	struct image *image = image_new_filled();

	image_refs(image, 0)[100] ^= 1;
	expect_one(image, "refs of slab 0", "");
	expect_mended(image);
	image_free(image);
}

Test(check, a_bad_summary_page_is_one_finding_and_mended)
{
	struct image *image = image_new_filled();

	image_summary(image)[100] ^= 1;
	expect_one(image, "summary page 0", "");
	expect_mended(image);
	image_free(image);
}
