/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_refs - counts go up and down by one, and the sums over slab and store follow
 *
 * Three slabs of which the last has 100 blocks. After each step a test may recount everything from
 * the pages (expect_sums), which is slow and simple.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "core/metadata/refs.h"
#include "tests/core/metadata/space.h"
#include "tests/lib/rng.h"

#define SLABS	    3u
#define LAST_BLOCKS 100u

static struct space space;
static struct refs *refs;

static void start(void)
{
	space_init(&space, SLABS, LAST_BLOCKS);
	space_load_all(&space);
	refs = &space.refs;
}

static void stop(void)
{
	space_done(&space);
}

TestSuite(refs, .init = start, .fini = stop);

static pbn_t at(uint32_t slab, uint32_t index)
{
	return space_block(&space, slab, index);
}

/* A count that would take long to reach. The sums do not know of it until a recount. */
static void set_count(uint32_t slab, uint32_t index, uint16_t count)
{
	refs_frame(refs, at(slab, index))->counts[index] = count;
}

static void recount_all(void)
{
	for (uint32_t slab = 0; slab < SLABS; slab++)
		refs_recount(refs, slab);
}

/* The sums are those of the blocks, one by one. */
static void expect_sums(void)
{
	uint64_t free_all = 0, busy_free_all = 0, shared_all = 0;

	for (uint32_t slab = 0; slab < SLABS; slab++) {
		uint32_t free_blocks = 0, busy_free = 0, busy = 0, shared = 0;

		for (uint32_t i = 0; i < geometry_slab_blocks(space.geometry, slab); i++) {
			uint16_t count = refs_count(refs, at(slab, i));
			bool is_busy = refs_busy_count(refs, at(slab, i)) > 0;

			free_blocks += count == 0;
			busy_free += count == 0 && is_busy;
			busy += is_busy;
			shared += count > 1 ? count : 0;
		}
		cr_assert_eq(refs->slabs[slab].free_blocks, (int)free_blocks);
		cr_assert_eq(refs->slabs[slab].busy_free, (int)busy_free);
		cr_assert_eq(refs->slabs[slab].shared_refs, shared);
		cr_assert_eq(refs_frame(refs, at(slab, 0))->busy, busy);
		cr_assert_eq(refs_slab_available(refs, slab), free_blocks - busy_free);
		free_all += free_blocks;
		busy_free_all += busy_free;
		shared_all += shared;
	}
	cr_assert_eq(refs->free_blocks, free_all);
	cr_assert_eq(refs->busy_free, busy_free_all);
	cr_assert_eq(refs->shared_refs, shared_all);
	cr_assert_eq(refs_available(refs), free_all - busy_free_all);
}

/* --- opening --- */

Test(refs, a_slab_that_was_never_written_is_all_free)
{
	cr_expect_eq(refs_available(refs), 2 * SLAB_DATA_BLOCKS + LAST_BLOCKS);
	cr_expect_eq(refs_slab_available(refs, 0), SLAB_DATA_BLOCKS);
	cr_expect_eq(refs_slab_available(refs, 2), LAST_BLOCKS);
	cr_expect_eq(refs->shared_refs, 0);
	expect_sums();
}

Test(refs, a_summary_tells_what_a_slab_holds_before_its_page_is_read)
{
	struct refs opened;
	struct summary_entry entries[SLABS] = {
		{.generation = 3, .free_blocks = 1000, .shared_refs = 70},
		{.generation = 0, .free_blocks = 5, .shared_refs = 0}, /* never written */
		{.generation = 8, .free_blocks = 0, .shared_refs = 30},
	};
	/* A thousand blocks may all be apart, as far as is known. */
	static const uint32_t pieces[SLABS] = {1, PIECE_MAX, 0};

	cr_assert_eq(refs_init(&opened, space.geometry, &space.cache), 0);
	for (uint32_t slab = 0; slab < SLABS; slab++)
		refs_set_summary(&opened, slab, &entries[slab]);
	cr_expect_eq(refs_slab_available(&opened, 0), 1000);
	cr_expect_eq(refs_slab_available(&opened, 1), SLAB_DATA_BLOCKS);
	cr_expect_eq(refs_slab_available(&opened, 2), 0);
	cr_expect_eq(refs_available(&opened), 1000 + SLAB_DATA_BLOCKS);
	cr_expect_eq(opened.shared_refs, 100);
	cr_expect_eq(opened.slabs[0].generation, 3);
	cr_expect_eq(opened.slabs[1].generation, 0);
	cr_expect_eq(opened.slabs[2].shared_refs, 30);
	for (uint32_t slab = 0; slab < SLABS; slab++)
		cr_expect_eq(opened.slabs[slab].piece, pieces[slab], "slab %u", slab);
	refs_done(&opened);
}

Test(refs, a_block_finds_the_page_of_its_slab)
{
	for (uint32_t slab = 0; slab < SLABS; slab++) {
		page_t page = page_of_refs(space.geometry, slab);
		uint32_t last = geometry_slab_blocks(space.geometry, slab) - 1;

		cr_expect_eq(refs_frame(refs, at(slab, 0)), cache_find(&space.cache, page));
		cr_expect_eq(refs_frame(refs, at(slab, last)), cache_find(&space.cache, page));
	}
}

/* --- an absent page --- */

static void start_empty(void)
{
	space_init(&space, SLABS, LAST_BLOCKS);
	refs = &space.refs;
}

TestSuite(refs_absent, .init = start_empty, .fini = stop);

Test(refs_absent, the_page_of_an_absent_slab_is_null)
{
	space_load(&space, page_of_refs(space.geometry, 1));
	cr_expect_null(refs_frame(refs, at(0, 0)));
	cr_expect_not_null(refs_frame(refs, at(1, 0)));
	cr_expect_null(refs_frame(refs, at(2, 0)));
}

Test(refs_absent, the_count_of_an_absent_slab_is_a_bug, .signal = SIGABRT)
{
	refs_count(refs, at(0, 0));
}

Test(refs_absent, recounting_an_absent_slab_is_a_bug, .signal = SIGABRT)
{
	refs_recount(refs, 0);
}

/* --- references --- */

Test(refs, each_block_of_a_run_gains_one_and_no_other)
{
	refs_take(refs, at(0, 10), 5);
	refs_take(refs, at(0, 12), 1);
	for (uint32_t i = 0; i < 30; i++)
		cr_expect_eq(refs_count(refs, at(0, i)), i == 12 ? 2 : i >= 10 && i < 15);
	cr_expect_eq(refs_count(refs, at(1, 10)), 0);
	cr_expect_eq(refs->shared_refs, 2);
	expect_sums();
}

Test(refs, a_drop_says_how_many_lost_their_last_one)
{
	refs_take(refs, at(1, 0), 6);
	refs_take(refs, at(1, 2), 2);
	cr_expect_eq(refs_drop(refs, at(1, 0), 6), 4);
	expect_sums();
	cr_expect_eq(refs_count(refs, at(1, 1)), 0);
	cr_expect_eq(refs_count(refs, at(1, 2)), 1);
	cr_expect_eq(refs_drop(refs, at(1, 2), 1), 1);
	cr_expect_eq(refs_drop(refs, at(1, 3), 1), 1);
	cr_expect_eq(refs_slab_available(refs, 1), SLAB_DATA_BLOCKS);
	expect_sums();
}

/* Shared are those with two or more: the second owner makes two at once, the last but one none. */
Test(refs, shared_references_are_those_of_blocks_with_more_than_one)
{
	const uint64_t shared[] = {0, 0, 2, 3, 4};

	for (int owners = 0; owners < 5; owners++) {
		cr_expect_eq(refs->shared_refs, shared[owners]);
		cr_expect_eq(refs->slabs[0].shared_refs, (int64_t)shared[owners]);
		refs_take(refs, at(0, 0), 1);
	}
	for (int owners = 4; owners >= 0; owners--) {
		refs_drop(refs, at(0, 0), 1);
		cr_expect_eq(refs->shared_refs, shared[owners]);
	}
}

Test(refs, a_whole_slab_can_be_taken_and_dropped)
{
	refs_take(refs, at(0, 0), SLAB_DATA_BLOCKS);
	refs_take(refs, at(2, 0), LAST_BLOCKS);
	cr_expect_eq(refs_slab_available(refs, 0), 0);
	cr_expect_eq(refs_available(refs), SLAB_DATA_BLOCKS);
	expect_sums();
	cr_expect_eq(refs_drop(refs, at(0, 0), SLAB_DATA_BLOCKS), SLAB_DATA_BLOCKS);
	cr_expect_eq(refs_drop(refs, at(2, 0), LAST_BLOCKS), LAST_BLOCKS);
	expect_sums();
}

Test(refs, a_run_that_leaves_its_slab_is_a_bug, .signal = SIGABRT)
{
	refs_take(refs, at(0, SLAB_DATA_BLOCKS - 1), 4);
}

Test(refs, an_empty_run_is_a_bug, .signal = SIGABRT)
{
	refs_take(refs, at(0, 0), 0);
}

/* --- the limit --- */

Test(refs, a_block_has_up_to_65535_references)
{
	cr_assert_eq(REFS_MAX, 65535);
	for (uint32_t i = 0; i < REFS_MAX; i++)
		refs_take(refs, at(0, 7), 1);
	cr_expect_eq(refs_count(refs, at(0, 7)), 65535);
	cr_expect_eq(refs->shared_refs, 65535);
	expect_sums();
	cr_expect_eq(refs_drop(refs, at(0, 7), 1), 0);
	cr_expect_eq(refs_count(refs, at(0, 7)), 65534);
	for (uint32_t i = 1; i < REFS_MAX - 1; i++)
		cr_assert_eq(refs_drop(refs, at(0, 7), 1), 0);
	cr_expect_eq(refs_drop(refs, at(0, 7), 1), 1);
	expect_sums();
}

Test(refs, one_reference_more_than_the_limit_is_a_bug, .signal = SIGABRT)
{
	set_count(0, 7, REFS_MAX);
	refs_take(refs, at(0, 7), 1);
}

Test(refs, dropping_what_nobody_has_is_a_bug, .signal = SIGABRT)
{
	refs_take(refs, at(0, 7), 1);
	refs_drop(refs, at(0, 7), 2);
}

/* All blocks of a slab at the limit: the sum needs more than 16 bits, by far. */
Test(refs, the_sum_of_a_slab_at_the_limit_is_right)
{
	for (uint32_t i = 0; i < SLAB_DATA_BLOCKS; i++)
		set_count(1, i, REFS_MAX);
	refs_recount(refs, 1);
	cr_expect_eq(refs->shared_refs, (uint64_t)SLAB_DATA_BLOCKS * REFS_MAX);
	expect_sums();
}

/* --- busy --- */

Test(refs, a_free_block_that_is_busy_is_not_available)
{
	refs_busy_add(refs, at(0, 10), 5);
	cr_expect_eq(refs_busy_count(refs, at(0, 9)), 0);
	cr_expect_eq(refs_busy_count(refs, at(0, 10)), 1);
	cr_expect_eq(refs_busy_count(refs, at(0, 14)), 1);
	cr_expect_eq(refs_busy_count(refs, at(0, 15)), 0);
	cr_expect_eq(refs_slab_available(refs, 0), SLAB_DATA_BLOCKS - 5);
	cr_expect_eq(refs->free_blocks, 2 * SLAB_DATA_BLOCKS + LAST_BLOCKS, "free all the same");
	expect_sums();
	refs_busy_sub(refs, at(0, 10), 5);
	cr_expect_eq(refs_slab_available(refs, 0), SLAB_DATA_BLOCKS);
	expect_sums();
}

/* Each reason is taken back by itself; the block is busy until the last one is. */
Test(refs, a_block_is_busy_for_each_reason)
{
	for (int i = 0; i < 3; i++) {
		refs_busy_add(refs, at(0, 4), 1);
		expect_sums();
	}
	cr_expect_eq(refs_busy_count(refs, at(0, 4)), 3);
	cr_expect_eq(refs->busy_free, 1);
	for (uint16_t left = 2; left > 0; left--) {
		refs_busy_sub(refs, at(0, 4), 1);
		cr_expect_eq(refs_busy_count(refs, at(0, 4)), left);
		cr_expect_eq(refs->busy_free, 1);
	}
	refs_busy_sub(refs, at(0, 4), 1);
	cr_expect_eq(refs->busy_free, 0);
	expect_sums();
}

Test(refs, a_block_with_owners_that_is_busy_takes_no_space)
{
	refs_take(refs, at(0, 4), 1);
	refs_busy_add(refs, at(0, 4), 1);
	cr_expect_eq(refs->busy_free, 0);
	cr_expect_eq(refs_slab_available(refs, 0), SLAB_DATA_BLOCKS - 1);
	expect_sums();
	refs_busy_sub(refs, at(0, 4), 1);
	expect_sums();
}

/* A write: handed out, published. */
Test(refs, a_busy_block_that_gains_an_owner_is_not_free_any_more)
{
	refs_busy_add(refs, at(0, 4), 2);
	refs_take(refs, at(0, 4), 2);
	expect_sums();
	cr_expect_eq(refs->busy_free, 0);
	refs_busy_sub(refs, at(0, 4), 2);
	cr_expect_eq(refs_available(refs), 2 * SLAB_DATA_BLOCKS + LAST_BLOCKS - 2);
	expect_sums();
}

/* A discard: dropped and pending, settled. */
Test(refs, a_busy_block_that_loses_its_last_owner_is_not_available_before_it_settles)
{
	refs_take(refs, at(0, 4), 2);
	refs_busy_add(refs, at(0, 4), 2);
	refs_drop(refs, at(0, 4), 2);
	expect_sums();
	cr_expect_eq(refs_slab_available(refs, 0), SLAB_DATA_BLOCKS - 2);
	refs_busy_sub(refs, at(0, 4), 2);
	cr_expect_eq(refs_slab_available(refs, 0), SLAB_DATA_BLOCKS);
	expect_sums();
}

/* What is known of the longest run is an upper bound: a block that can be handed out again may
 * lengthen one. */
Test(refs, a_block_that_settles_makes_longer_runs_possible)
{
	refs_busy_add(refs, at(0, 4), 1);
	refs_busy_add(refs, at(0, 8), SLAB_DATA_BLOCKS - 8);
	refs_measure(refs, 0);
	cr_expect_eq(refs->slabs[0].piece, piece_for(4));
	refs_busy_sub(refs, at(0, 4), 1);
	cr_expect_eq(refs->slabs[0].piece, piece_for(8), "joined with those on both sides");
	refs_busy_sub(refs, at(0, 40), 24);
	cr_expect_eq(refs->slabs[0].piece, piece_for(16), "from 48 on");
	refs_busy_sub(refs, at(0, 64), 32);
	cr_expect_eq(refs->slabs[0].piece, piece_for(32));
	refs_busy_sub(refs, at(0, 8), 32);
	cr_expect_eq(refs->slabs[0].piece, piece_for(64), "0 to 95");
	refs_busy_add(refs, at(0, 0), 96);
	cr_expect_eq(refs->slabs[0].piece, 0, "nothing is left");
	cr_expect_eq(refs->slabs[1].piece, PIECE_MAX, "another slab's are as they were");
}

Test(refs, a_page_with_busy_blocks_is_known_to_the_cache)
{
	struct frame *frame = refs_frame(refs, at(0, 0));

	refs_busy_add(refs, at(0, 0), 3);
	refs_busy_add(refs, at(0, 2), 3);
	cr_expect_eq(frame->busy, 5);
	refs_busy_sub(refs, at(0, 0), 3);
	cr_expect_eq(frame->busy, 3);
	refs_busy_sub(refs, at(0, 2), 3);
	cr_expect_eq(frame->busy, 0);
}

Test(refs, a_block_that_is_not_busy_cannot_become_less_so, .signal = SIGABRT)
{
	refs_busy_add(refs, at(0, 4), 1);
	refs_busy_sub(refs, at(0, 4), 2);
}

Test(refs, more_reasons_than_can_be_counted_are_a_bug, .signal = SIGABRT)
{
	refs_frame(refs, at(0, 4))->busy_counts[4] = UINT16_MAX;
	refs_busy_add(refs, at(0, 4), 1);
}

/* --- recounting --- */

Test(refs, a_recount_makes_the_sums_those_of_the_page)
{
	set_count(0, 0, 1);
	set_count(0, 1, 2);
	set_count(0, SLAB_DATA_BLOCKS - 1, 40);
	set_count(2, LAST_BLOCKS - 1, 3);
	refs_recount(refs, 0);
	refs_recount(refs, 2);
	cr_expect_eq(refs->slabs[0].free_blocks, SLAB_DATA_BLOCKS - 3);
	cr_expect_eq(refs->shared_refs, 45);
	expect_sums();
	set_count(0, 1, 0);
	recount_all();
	cr_expect_eq(refs->shared_refs, 43);
	expect_sums();
	recount_all();
	expect_sums();
}

/* A short slab's page has entries for blocks that are not there. */
Test(refs, a_recount_of_a_short_slab_counts_its_own_blocks)
{
	refs_recount(refs, 2);
	cr_expect_eq(refs_slab_available(refs, 2), LAST_BLOCKS);
	expect_sums();
}

/* --- all of it --- */

/* Random steps, each of them one that is allowed. */
Test(refs, the_sums_are_right_after_any_steps)
{
	struct rng rng = rng_for(1, 0);

	for (int step = 0; step < 3000; step++) {
		uint32_t slab = rng_below(&rng, SLABS), index = rng_below(&rng, 60);
		pbn_t pbn = at(slab, index);
		uint32_t blocks = 1 + rng_below(&rng, 20);
		bool owned = true, busy = true;

		for (uint32_t i = 0; i < blocks; i++) {
			owned = owned && refs_count(refs, pbn_add(pbn, i)) > 0;
			busy = busy && refs_busy_count(refs, pbn_add(pbn, i)) > 0;
		}
		switch (rng_below(&rng, 4)) {
		case 0:
			refs_take(refs, pbn, blocks);
			break;
		case 1:
			if (owned)
				refs_drop(refs, pbn, blocks);
			break;
		case 2:
			refs_busy_add(refs, pbn, blocks);
			break;
		case 3:
			if (busy)
				refs_busy_sub(refs, pbn, blocks);
			break;
		}
		if (step % 50 == 0)
			expect_sums();
	}
	expect_sums();
}
