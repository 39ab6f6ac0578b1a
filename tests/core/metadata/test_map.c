/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_map - what a region reads from, whichever kind it is, and what each edit makes of it
 *
 * Regions 0 to 2 get a leaf where a test wants one. Physical runs are of slab 0, by index.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "core/metadata/map.h"
#include "tests/core/metadata/space.h"

#define EXTENTS 600u

static struct space space;
static struct map map;
static struct extent found[EXTENTS];

static void start(void)
{
	space_init(&space, 4, 100);
	cr_assert_eq(map_init(&map, space.geometry, &space.cache), 0);
}

static void stop(void)
{
	map_done(&map);
	space_done(&space);
}

TestSuite(map, .init = start, .fini = stop);

static pbn_t at(uint32_t index)
{
	return space_block(&space, 0, index);
}

static lbn_t lbn(uint32_t region, uint32_t index)
{
	return lbn_add(region_lbn(region), index);
}

static struct extent hole(uint32_t blocks)
{
	return (struct extent){PBN_NONE, blocks, false};
}

static struct extent run(uint32_t index, uint32_t blocks)
{
	return (struct extent){at(index), blocks, false};
}

static struct extent shared(uint32_t index, uint32_t blocks)
{
	return (struct extent){at(index), blocks, true};
}

static void expect(lbn_t from, uint32_t blocks, uint32_t max, const struct extent *wanted,
		   uint32_t count)
{
	memset(found, 0x77, sizeof(found));
	cr_assert_eq(map_lookup(&map, from, blocks, found, max), count);
	for (uint32_t i = 0; i < count; i++) {
		cr_expect_eq(found[i].pbn.v, wanted[i].pbn.v, "extent %u", i);
		cr_expect_eq(found[i].blocks, wanted[i].blocks, "extent %u", i);
		cr_expect_eq(found[i].maybe_shared, wanted[i].maybe_shared, "extent %u", i);
	}
}

/* All the extents from there on, in order. */
#define EXPECT(from, blocks, ...)                                                                  \
	do {                                                                                       \
		const struct extent wanted[] = {__VA_ARGS__};                                      \
                                                                                                   \
		expect(from, blocks, EXTENTS, wanted, sizeof(wanted) / sizeof(wanted[0]));         \
	} while (0)

/* The region's place is 2 blocks at 1000 + 2 * region. */
static void give_place(uint32_t region)
{
	map_root_place(&map, region, at(1000 + 2 * region));
}

static void make_linear(uint32_t region, uint32_t index, uint32_t blocks)
{
	give_place(region);
	map_root_map(&map, region_lbn(region), blocks, at(index), false);
}

/* As EXPLODE does: the root page's half, and the leaf's. */
static struct frame *make_leaf(uint32_t region, uint32_t index, uint32_t blocks, bool is_shared)
{
	struct frame *leaf;

	space_load(&space, page_of_leaf(region));
	leaf = cache_find(&space.cache, page_of_leaf(region));
	if (pbn_is_none(map_entry(&map, region).place))
		give_place(region);
	map_root_explode(&map, region, PBN_NONE, PBN_NONE);
	map_leaf_explode(leaf, blocks ? at(index) : PBN_NONE, blocks, is_shared);
	return leaf;
}

/* --- lookups --- */

Test(map, a_new_map_is_holes)
{
	for (uint32_t region = 0; region < space.geometry->regions; region++) {
		cr_assert_eq(map_kind(&map, region), REGION_HOLE);
		EXPECT(region_lbn(region), REGION_BLOCKS, hole(REGION_BLOCKS));
	}
	EXPECT(lbn(3, 511), 1, hole(1));
	cr_expect(pbn_is_none(map_entry(&map, 0).place));
	cr_expect_not(map.tops[0].dirty);
}

Test(map, a_linear_region_is_a_run_and_then_a_hole)
{
	make_linear(1, 20, 100);
	cr_expect_eq(map_kind(&map, 1), REGION_LINEAR);
	EXPECT(lbn(1, 0), 512, run(20, 100), hole(412));
	EXPECT(lbn(1, 0), 100, run(20, 100));
	EXPECT(lbn(1, 40), 10, run(60, 10));
	EXPECT(lbn(1, 99), 2, run(119, 1), hole(1));
	EXPECT(lbn(1, 100), 412, hole(412));
	EXPECT(lbn(1, 511), 1, hole(1));
	EXPECT(lbn(0, 0), 512, hole(512));
	EXPECT(lbn(2, 0), 512, hole(512));
}

Test(map, a_full_linear_region_has_no_hole)
{
	make_linear(1, 20, 512);
	EXPECT(lbn(1, 0), 512, run(20, 512));
	EXPECT(lbn(1, 511), 1, run(531, 1));
}

Test(map, a_shared_linear_region_says_so_of_its_blocks_and_not_of_its_hole)
{
	make_linear(1, 20, 100);
	map_root_share(&map, 1);
	EXPECT(lbn(1, 90), 20, shared(110, 10), hole(10));
}

Test(map, a_lookup_ends_when_its_extents_are_used_up)
{
	make_linear(1, 20, 100);
	expect(lbn(1, 90), 20, 1, (struct extent[]){run(110, 10)}, 1);
	expect(lbn(1, 100), 20, 1, (struct extent[]){hole(20)}, 1);
	make_leaf(0, 0, 0, false);
	for (uint32_t i = 0; i < 10; i += 2)
		map_leaf_map(cache_find(&space.cache, 0), i, 1, at(i), false);
	expect(lbn(0, 0), 10, 3, (struct extent[]){run(0, 1), hole(1), run(2, 1)}, 3);
}

/* What ends is the last extent, not the room: a run that goes on is told whole. */
Test(map, the_last_extent_that_fits_is_told_to_its_end)
{
	make_leaf(0, 0, 0, false);
	map_leaf_map(cache_find(&space.cache, 0), 1, 30, at(5), false);
	expect(lbn(0, 0), 512, 2, (struct extent[]){hole(1), run(5, 30)}, 2);
}

Test(map, a_leaf_whose_page_is_absent_is_not_known)
{
	give_place(0);
	map_root_explode(&map, 0, PBN_NONE, PBN_NONE);
	cr_expect_eq(map_lookup(&map, lbn(0, 0), 1, found, EXTENTS), 0);
	space_load(&space, page_of_leaf(0));
	EXPECT(lbn(0, 0), 512, hole(512));
}

Test(map, a_leaf_is_told_in_the_longest_runs)
{
	struct frame *leaf = make_leaf(0, 0, 0, false);

	map_leaf_map(leaf, 10, 5, at(100), false);
	map_leaf_map(leaf, 15, 5, at(105), false); /* goes on */
	map_leaf_map(leaf, 20, 5, at(105), false); /* the same blocks again */
	map_leaf_map(leaf, 25, 5, at(109), false); /* one block back */
	map_leaf_map(leaf, 30, 5, at(300), false);
	EXPECT(lbn(0, 0), 512, hole(10), run(100, 10), run(105, 5), run(109, 5), run(300, 5),
	       hole(477));
	EXPECT(lbn(0, 12), 5, run(102, 5));
	EXPECT(lbn(0, 19), 2, run(109, 1), run(105, 1));
	EXPECT(lbn(0, 34), 1, run(304, 1));
}

Test(map, blocks_that_may_be_shared_are_runs_of_their_own)
{
	struct frame *leaf = make_leaf(0, 0, 0, false);

	map_leaf_map(leaf, 0, 30, at(100), false);
	map_leaf_share(leaf, 10, 5);
	EXPECT(lbn(0, 0), 30, run(100, 10), shared(110, 5), run(115, 15));
	map_leaf_share(leaf, 12, 8);
	EXPECT(lbn(0, 0), 30, run(100, 10), shared(110, 10), run(120, 10));
}

Test(map, a_leaf_of_single_blocks_is_as_many_extents)
{
	struct frame *leaf = make_leaf(0, 0, 0, false);

	for (uint32_t i = 0; i < REGION_BLOCKS; i++)
		map_leaf_map(leaf, i, 1, at(2 * i), false);
	cr_assert_eq(map_lookup(&map, lbn(0, 0), 512, found, EXTENTS), 512);
	for (uint32_t i = 0; i < REGION_BLOCKS; i++)
		cr_assert(found[i].pbn.v == at(2 * i).v && found[i].blocks == 1);
}

/* A run that lies in two regions: each region knows its own half. */
Test(map, neighbouring_regions_are_looked_up_one_by_one)
{
	struct frame *low = make_leaf(0, 0, 0, false), *high = make_leaf(1, 0, 0, false);

	map_leaf_map(low, 500, 12, at(100), false);
	map_leaf_map(high, 0, 20, at(112), true);
	EXPECT(lbn(0, 490), 22, hole(10), run(100, 12));
	EXPECT(lbn(1, 0), 30, shared(112, 20), hole(10));
	map_leaf_unmap(high, 0, 20);
	EXPECT(lbn(0, 490), 22, hole(10), run(100, 12));
	EXPECT(lbn(1, 0), 512, hole(512));
}

Test(map, a_lookup_that_leaves_its_region_is_a_bug, .signal = SIGABRT)
{
	map_lookup(&map, lbn(0, 500), 13, found, EXTENTS);
}

Test(map, a_lookup_without_room_is_a_bug, .signal = SIGABRT)
{
	map_lookup(&map, lbn(0, 0), 1, found, 0);
}

/* --- LINEAR --- */

Test(map, a_linear_region_grows_at_its_end)
{
	make_linear(0, 100, 10);
	map_root_map(&map, lbn(0, 10), 20, at(110), false);
	map_root_map(&map, lbn(0, 30), 482, at(130), false);
	EXPECT(lbn(0, 0), 512, run(100, 512));
	cr_expect_eq(map_entry(&map, 0).place.v, at(1000).v);
}

/* One bit for the whole region: it stays. */
Test(map, a_linear_region_that_grew_by_something_shared_is_shared)
{
	make_linear(0, 100, 10);
	map_root_map(&map, lbn(0, 10), 10, at(110), true);
	EXPECT(lbn(0, 0), 20, shared(100, 20));
	map_root_map(&map, lbn(0, 20), 10, at(120), false);
	EXPECT(lbn(0, 0), 30, shared(100, 30));
}

Test(map, a_linear_region_that_begins_anew_is_not_shared)
{
	make_linear(0, 100, 10);
	map_root_share(&map, 0);
	map_root_unmap(&map, lbn(0, 0), 10);
	map_root_map(&map, lbn(0, 0), 5, at(300), false);
	EXPECT(lbn(0, 0), 10, run(300, 5), hole(5));
}

Test(map, a_linear_region_shrinks_at_its_end)
{
	make_linear(0, 100, 30);
	map_root_share(&map, 0);
	map_root_unmap(&map, lbn(0, 20), 10);
	EXPECT(lbn(0, 0), 30, shared(100, 20), hole(10));
	cr_expect_eq(map_kind(&map, 0), REGION_LINEAR);
	map_root_unmap(&map, lbn(0, 0), 20);
	cr_expect_eq(map_kind(&map, 0), REGION_HOLE);
	EXPECT(lbn(0, 0), 30, hole(30));
	cr_expect_eq(map_entry(&map, 0).place.v, at(1000).v, "its place waits for a leaf");
}

/* Whatever is done to a region, its entry is one that recovery takes. */
Test(map, the_entry_is_valid_after_each_edit)
{
	struct root_entry entry;
	struct why why;

	for (int edits = 0; edits < 6; edits++) {
		if (edits == 0)
			give_place(0);
		if (edits == 1)
			map_root_map(&map, lbn(0, 0), 30, at(100), true);
		if (edits == 2)
			map_root_unmap(&map, lbn(0, 0), 30);
		if (edits == 3)
			map_root_map(&map, lbn(0, 0), 30, at(100), true);
		if (edits == 4)
			map_root_explode(&map, 0, PBN_NONE, PBN_NONE);
		if (edits == 5)
			map_root_unplace(&map, 0);
		entry = map_entry(&map, 0);
		cr_assert(root_entry_valid(&entry, space.geometry, 0, &why), "after edit %d: %s",
			  edits, why.found);
	}
}

Test(map, a_linear_region_cannot_hold_what_is_not_in_order, .signal = SIGABRT)
{
	make_linear(0, 100, 10);
	map_root_map(&map, lbn(0, 10), 10, at(111), false);
}

Test(map, a_linear_region_cannot_hold_what_leaves_a_gap, .signal = SIGABRT)
{
	give_place(0);
	map_root_map(&map, lbn(0, 1), 10, at(100), false);
}

Test(map, a_leaf_cannot_be_unmapped_in_its_root_entry, .signal = SIGABRT)
{
	make_leaf(0, 100, 10, false);
	map_root_unmap(&map, lbn(0, 0), 10);
}

Test(map, a_hole_cannot_be_shared, .signal = SIGABRT)
{
	give_place(0);
	map_root_share(&map, 0);
}

/* --- what fits --- */

Test(map, a_hole_takes_what_begins_at_its_first_block)
{
	cr_expect(map_fits(&map, lbn(0, 0), 1, at(7)));
	cr_expect(map_fits(&map, lbn(0, 0), 512, at(7)));
	cr_expect_not(map_fits(&map, lbn(0, 1), 1, at(7)));
	cr_expect_not(map_fits(&map, lbn(0, 511), 1, at(7)));
}

Test(map, a_linear_region_takes_what_goes_on_where_it_ends)
{
	make_linear(0, 100, 10);
	cr_expect(map_fits(&map, lbn(0, 10), 1, at(110)));
	cr_expect(map_fits(&map, lbn(0, 10), 502, at(110)));
	cr_expect_not(map_fits(&map, lbn(0, 10), 1, at(111)), "not in order");
	cr_expect_not(map_fits(&map, lbn(0, 10), 1, at(109)));
	cr_expect_not(map_fits(&map, lbn(0, 11), 1, at(111)), "a gap");
	cr_expect_not(map_fits(&map, lbn(0, 9), 1, at(109)), "inside");
	cr_expect_not(map_fits(&map, lbn(0, 9), 1, at(110)), "the next block, but inside");
	cr_expect_not(map_fits(&map, lbn(0, 0), 1, at(100)), "at its beginning");
}

/* The two refs blocks lie in between. */
Test(map, a_linear_region_does_not_go_on_in_the_next_slab)
{
	give_place(0);
	map_root_map(&map, lbn(0, 0), 10, at(SLAB_DATA_BLOCKS - 10), false);
	cr_expect_not(map_fits(&map, lbn(0, 10), 1, space_block(&space, 1, 0)));
}

Test(map, a_leaf_takes_everything)
{
	make_leaf(0, 100, 10, false);
	cr_expect(map_fits(&map, lbn(0, 0), 1, at(7)));
	cr_expect(map_fits(&map, lbn(0, 300), 200, at(7)));
	cr_expect(map_fits_unmap(&map, lbn(0, 3), 1));
	cr_expect(map_fits_unmap(&map, lbn(0, 0), 512));
}

Test(map, a_linear_region_can_lose_its_end_alone)
{
	make_linear(0, 100, 10);
	cr_expect(map_fits_unmap(&map, lbn(0, 9), 1));
	cr_expect(map_fits_unmap(&map, lbn(0, 0), 10));
	cr_expect_not(map_fits_unmap(&map, lbn(0, 0), 9));
	cr_expect_not(map_fits_unmap(&map, lbn(0, 4), 5));
}

Test(map, asking_whether_a_hole_can_lose_something_is_a_bug, .signal = SIGABRT)
{
	map_fits_unmap(&map, lbn(0, 0), 1);
}

/* --- LEAF --- */

Test(map, a_region_reads_the_same_after_it_is_exploded)
{
	const bool flags[] = {false, true};

	for (uint32_t region = 0; region < 2; region++) {
		struct extent before[2];

		make_linear(region, 100, 70);
		if (flags[region])
			map_root_share(&map, region);
		cr_assert_eq(map_lookup(&map, region_lbn(region), 512, before, 2), 2);
		make_leaf(region, 100, 70, flags[region]);
		cr_expect_eq(map_kind(&map, region), REGION_LEAF);
		EXPECT(region_lbn(region), 512, before[0], before[1]);
		cr_expect_eq(map_entry(&map, region).place.v, at(1000 + 2 * region).v);
		cr_expect_eq(cache_find(&space.cache, region)->mapped, 70);
	}
}

Test(map, an_exploded_leaf_forgets_what_it_was_in_an_earlier_life)
{
	struct frame *leaf = make_leaf(0, 100, 512, true);

	map_leaf_explode(leaf, at(300), 10, false);
	EXPECT(lbn(0, 0), 512, run(300, 10), hole(502));
	cr_expect_eq(leaf->mapped, 10);
	map_leaf_explode(leaf, PBN_NONE, 0, false);
	EXPECT(lbn(0, 0), 512, hole(512));
	cr_expect_eq(leaf->mapped, 0);
}

/* Mapped counts the entries that are no holes, whatever was there before. */
Test(map, a_leaf_counts_what_is_mapped)
{
	struct frame *leaf = make_leaf(0, 0, 0, false);

	map_leaf_map(leaf, 10, 20, at(100), false);
	cr_expect_eq(leaf->mapped, 20);
	map_leaf_map(leaf, 20, 20, at(300), false);
	cr_expect_eq(leaf->mapped, 30);
	map_leaf_unmap(leaf, 0, 15);
	cr_expect_eq(leaf->mapped, 25);
	map_leaf_unmap(leaf, 0, 512);
	cr_expect_eq(leaf->mapped, 0);
	map_leaf_map(leaf, 0, 512, at(0), true);
	cr_expect_eq(leaf->mapped, 512);
	map_leaf_share(leaf, 0, 512);
	cr_expect_eq(leaf->mapped, 512);
}

Test(map, mapping_and_unmapping_split_a_run)
{
	struct frame *leaf = make_leaf(0, 100, 100, false);

	map_leaf_map(leaf, 40, 10, at(500), true);
	EXPECT(lbn(0, 0), 100, run(100, 40), shared(500, 10), run(150, 50));
	map_leaf_unmap(leaf, 60, 10);
	EXPECT(lbn(0, 0), 100, run(100, 40), shared(500, 10), run(150, 10), hole(10), run(170, 30));
	map_leaf_map(leaf, 40, 10, at(140), false);
	map_leaf_map(leaf, 60, 10, at(160), false);
	EXPECT(lbn(0, 0), 100, run(100, 100));
}

Test(map, a_block_that_is_mapped_anew_is_not_flagged_by_what_was_there)
{
	struct frame *leaf = make_leaf(0, 100, 10, true);

	map_leaf_map(leaf, 3, 2, at(500), false);
	EXPECT(lbn(0, 0), 10, shared(100, 3), run(500, 2), shared(105, 5));
}

Test(map, a_stale_flag_is_cleared_of_one_block_and_nothing_is_dirty)
{
	struct frame *leaf = make_leaf(0, 100, 10, true);

	map.tops[0].dirty = false;
	map_clear_shared(&map, lbn(0, 3));
	EXPECT(lbn(0, 0), 10, shared(100, 3), run(103, 1), shared(104, 6));
	cr_expect(!leaf->dirty && leaf->lsn == 0 && leaf->mapped == 10);
	cr_expect_not(map.tops[0].dirty);
	map_clear_shared(&map, lbn(0, 3));
	EXPECT(lbn(0, 3), 1, run(103, 1));
}

/* One bit for many blocks: one block does not tell that all are private. */
Test(map, the_bit_of_a_linear_region_is_not_cleared_for_one_block)
{
	make_linear(0, 100, 10);
	map_root_share(&map, 0);
	map_clear_shared(&map, lbn(0, 3));
	EXPECT(lbn(0, 0), 10, shared(100, 10));
}

/* --- the home word --- */

Test(map, a_place_is_new_and_nothing_is_in_it)
{
	struct root_entry entry;

	map_root_place(&map, 0, at(50));
	map_leaf_home(&map, 0, 7);
	map_root_place(&map, 0, at(60));
	entry = map_entry(&map, 0);
	cr_expect_eq(entry.kind, REGION_HOLE);
	cr_expect_eq(entry.place.v, at(60).v);
	cr_expect_not(entry.written);
	cr_expect_eq(entry.generation, 7, "it goes on counting");
}

Test(map, a_place_given_back_leaves_a_hole_and_its_generation)
{
	struct root_entry entry;

	make_leaf(0, 100, 10, false);
	map_leaf_home(&map, 0, 9);
	map_root_unplace(&map, 0);
	entry = map_entry(&map, 0);
	cr_expect_eq(entry.kind, REGION_HOLE);
	cr_expect(pbn_is_none(entry.place) && pbn_is_none(entry.base));
	cr_expect(entry.length == 0 && !entry.shared && !entry.written);
	cr_expect_eq(entry.generation, 9);
	EXPECT(lbn(0, 0), 512, hole(512));
}

/* The bit stays where it goes home: EXPLODE records are held against it. */
Test(map, a_private_run_is_no_part_of_what_goes_home)
{
	struct extent extent;
	uint64_t word;

	map_root_place(&map, 0, at(1000));
	map_root_map(&map, lbn(0, 0), 100, at(10), true);
	word = map.entries[0].map;
	map_set_private(&map, 0);
	cr_assert_eq(map_lookup(&map, lbn(0, 5), 10, &extent, 1), 1);
	cr_expect_not(extent.maybe_shared);
	cr_expect(map_entry(&map, 0).shared);
	cr_expect_eq(map_home_words(&map, 0).map, word);
	map_root_map(&map, lbn(0, 100), 10, at(110), false);
	cr_assert_eq(map_lookup(&map, lbn(0, 0), 110, &extent, 1), 1);
	cr_expect(extent.blocks == 110 && !extent.maybe_shared, "appended by a first write");
	map_root_share(&map, 0);
	cr_assert_eq(map_lookup(&map, lbn(0, 5), 10, &extent, 1), 1);
	cr_expect(extent.maybe_shared);
	map_set_private(&map, 0);
	map_root_map(&map, lbn(0, 110), 10, at(120), true);
	cr_assert_eq(map_lookup(&map, lbn(0, 5), 10, &extent, 1), 1);
	cr_expect(extent.maybe_shared);
}

Test(map, a_leaf_that_came_home_says_so_and_reads_as_before)
{
	struct root_entry entry;
	uint64_t word;

	make_leaf(0, 100, 10, true);
	word = map.entries[0].map;
	map.tops[0].dirty = false;
	map_leaf_home(&map, 0, 5);
	entry = map_entry(&map, 0);
	cr_expect(entry.written && entry.generation == 5);
	cr_expect_eq(entry.place.v, at(1000).v);
	cr_expect_eq(map.entries[0].map, word, "readers do not hold the metadata lock");
	cr_expect(map.tops[0].dirty);
	/* The entry has room for 23 bits; only their parity tells the slot. */
	map_leaf_home(&map, 0, ROOT_GENERATION_MASK + 2);
	cr_expect_eq(map_entry(&map, 0).generation, 1);
}

/* --- root pages --- */

static void edit_root(struct map *wide, uint32_t region, int edit)
{
	pbn_t pbn = geometry_slab_pbn(wide->geometry, 0, 5);

	if (edit == 0)
		map_root_place(wide, region, pbn);
	if (edit == 1)
		map_root_map(wide, region_lbn(region), 3, pbn, false);
	if (edit == 2)
		map_root_share(wide, region);
	if (edit == 3)
		map_root_unmap(wide, lbn(region, 1), 2);
	if (edit == 4)
		map_root_explode(wide, region, PBN_NONE, PBN_NONE);
	if (edit == 5)
		map_leaf_home(wide, region, 1);
	if (edit == 6)
		map_root_unplace(wide, region);
}

/* 300 regions have two. */
Test(map, an_edit_dirties_the_root_page_of_its_region)
{
	struct geometry geometry;
	struct map wide;

	cr_assert_eq(geometry_plan(300ull * REGION_BLOCKS, 1u << 20, 0, &geometry), 0);
	cr_assert_eq(geometry.root_pages, 2);
	cr_assert_eq(map_init(&wide, &geometry, &space.cache), 0);
	for (int page = 0; page < 2; page++) {
		for (int edit = 0; edit < 7; edit++) {
			wide.tops[0].dirty = wide.tops[1].dirty = false;
			edit_root(&wide, page ? ROOT_ENTRIES : ROOT_ENTRIES - 1, edit);
			cr_expect(wide.tops[page].dirty && !wide.tops[!page].dirty,
				  "edit %d of root page %d", edit, page);
		}
	}
	map_done(&wide);
}

Test(map, the_lsn_is_that_of_the_page_which_holds_the_mapping)
{
	make_linear(0, 100, 10);
	make_leaf(1, 200, 10, false)->lsn = 44;
	map.tops[0].lsn = 33;
	cr_expect_eq(map_lsn(&map, 0), 33);
	cr_expect_eq(map_lsn(&map, 1), 44);
	cr_expect_eq(map_lsn(&map, 2), 33, "a hole");
}

Test(map, the_lsn_of_an_absent_leaf_is_a_bug, .signal = SIGABRT)
{
	give_place(0);
	map_root_explode(&map, 0, PBN_NONE, PBN_NONE);
	map_lsn(&map, 0);
}
