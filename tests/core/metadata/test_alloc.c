/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_alloc - no block is handed out twice, every free one is handed out in the end, and what will
 * be read together lies together
 *
 * A store of two slabs, 2,016 and 40 blocks, unless a test makes another. get() asks for blocks of
 * the volume; what came is in `pbn`.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "core/metadata/alloc.h"
#include "core/metadata/pending.h"
#include "tests/core/metadata/space.h"

#define HINT	    32u
#define WINDOWS	    8u
#define LAST_BLOCKS 40u

static struct space space;
static struct alloc alloc;
static uint64_t data_blocks;
static pbn_t pbn; /* of the last get() */
static page_t wanted; /* of the last that said -EAGAIN */

static void start_with(uint32_t slabs, uint32_t last_blocks, uint32_t hint, uint32_t windows)
{
	space_init(&space, slabs, last_blocks);
	alloc_init(&alloc, &space.refs, space.geometry, hint, windows);
	data_blocks = geometry_data_blocks(space.geometry);
}

static void start(void)
{
	start_with(2, LAST_BLOCKS, HINT, WINDOWS);
	space_load_all(&space);
}

static void stop(void)
{
	space_done(&space);
}

TestSuite(alloc, .init = start, .fini = stop);
/* Those that begin otherwise. */
TestSuite(alloc_space, .fini = stop);

static lbn_t lbn(uint32_t region, uint32_t index)
{
	return lbn_add(region_lbn(region), index);
}

/* How many came, or a negative errno. */
static int get(uint32_t region, uint32_t index, uint32_t blocks, bool stream)
{
	uint32_t got = 0;
	int r = alloc_get(&alloc, lbn(region, index), blocks, stream, &pbn, &got, &wanted);

	if (r < 0)
		return r;
	cr_assert(got > 0 && got <= blocks);
	for (uint32_t i = 0; i < got; i++) {
		cr_assert_eq(refs_count(&space.refs, pbn_add(pbn, i)), 0);
		cr_assert_eq(refs_busy_count(&space.refs, pbn_add(pbn, i)), 1);
	}
	return (int)got;
}

/* One block of the volume; where it is. */
static uint64_t get_one(uint32_t region, uint32_t index)
{
	cr_assert_eq(get(region, index, 1, false), 1);
	return pbn.v;
}

/* The page that was wanted does not come. */
static void pass_over(int res)
{
	bool lost;

	cr_assert(alloc_pass_over(&alloc, wanted, res, &lost));
	cr_assert_eq(lost, res != -ENOSPC);
}

static uint64_t available(void)
{
	return refs_available(&space.refs);
}

static uint32_t index_of(uint64_t block)
{
	return geometry_slab_index(space.geometry, (pbn_t){block});
}

/* Blocks of a slab get an owner, so that they are not free. */
static void use(uint32_t slab, uint32_t index, uint32_t blocks)
{
	refs_take(&space.refs, space_block(&space, slab, index), blocks);
}

/* --- neighbours --- */

Test(alloc, blocks_of_a_window_lie_as_they_do_in_the_volume_in_whatever_order_they_are_asked_for)
{
	static const uint32_t order[] = {5, 3, 31, 0, 4, 17};
	uint64_t base = get_one(7, 20) - 20;

	for (unsigned i = 0; i < sizeof(order) / sizeof(order[0]); i++)
		cr_assert_eq(get_one(7, order[i]), base + order[i]);
	cr_assert_eq(index_of(base) % HINT, 0, "the run is aligned");
}

/* Goal: windows of different sizes do not cut up each other's runs. */
Test(alloc, a_window_is_aligned_also_behind_blocks_that_are_taken)
{
	pbn_t place;

	cr_assert_eq(alloc_get_place(&alloc, true, &place, &wanted), 0);
	cr_assert_eq(index_of(place.v), 0);
	cr_assert_eq(index_of(get_one(0, 0)), HINT);
	cr_assert_eq(get(1, 0, 64, false), 64);
	cr_assert_eq(index_of(pbn.v), 2 * HINT);
	cr_assert_eq(alloc_get_place(&alloc, true, &place, &wanted), 0);
	cr_assert_eq(index_of(place.v), 2, "what is small goes where it fits");
}

Test(alloc, a_first_block_reserves_as_many_as_the_hint_says)
{
	for (uint32_t hint = 1; hint <= REGION_BLOCKS; hint *= 2) {
		alloc_init(&alloc, &space.refs, space.geometry, hint, WINDOWS);
		get_one(0, 100);
		cr_assert_eq(available(), data_blocks - hint);
		alloc_put(&alloc, pbn, 1);
		alloc_drop_windows(&alloc);
		cr_assert_eq(available(), data_blocks);
	}
}

Test(alloc, a_window_ends_where_the_volume_has_a_multiple_of_its_size)
{
	get_one(0, HINT - 1);
	cr_assert_eq(available(), data_blocks - HINT);
	get_one(0, HINT);
	cr_assert_eq(available(), data_blocks - 2 * HINT, "the next block has a window of its own");
	get_one(0, 0);
	get_one(0, 2 * HINT - 1);
	cr_assert_eq(available(), data_blocks - 2 * HINT);
}

Test(alloc, equal_places_of_two_regions_have_different_windows)
{
	uint64_t first = get_one(0, 3), second = get_one(1, 3);

	cr_assert_eq(available(), data_blocks - 2 * HINT);
	cr_assert_eq(get_one(0, 4), first + 1);
	cr_assert_eq(get_one(1, 4), second + 1);
	cr_assert_eq(get_one(1, 2), second - 1);
}

Test(alloc, a_write_longer_than_the_hint_comes_in_one_piece)
{
	cr_assert_eq(get(0, 128, 100, false), 100);
	cr_assert_eq(available(), data_blocks - 128);
	cr_assert_eq(get(1, 0, REGION_BLOCKS, false), REGION_BLOCKS);
	cr_assert_eq(available(), data_blocks - 128 - REGION_BLOCKS);
}

Test(alloc, a_write_past_its_window_gets_what_is_left_of_it_and_then_another)
{
	uint64_t first = get_one(0, HINT - 4);

	cr_assert_eq(get(0, HINT - 3, 8, false), 3);
	cr_assert_eq(pbn.v, first + 1);
	cr_assert_eq(get(0, HINT, 5, false), 5);
}

Test(alloc, a_write_gets_blocks_up_to_one_that_was_handed_out)
{
	uint64_t taken = get_one(0, 10);

	cr_assert_eq(get(0, 4, 20, false), 6);
	cr_assert_eq(pbn.v, taken - 6);
}

Test(alloc, a_stream_is_linear_to_the_end_of_its_region)
{
	uint64_t base;

	cr_assert_eq(get(2, 0, 10, true), 10);
	base = pbn.v;
	cr_assert_eq(available(), data_blocks - REGION_BLOCKS);
	get_one(3, 0); /* somebody else */
	for (uint32_t i = 10; i < REGION_BLOCKS; i += 10) {
		uint32_t blocks = min_u32(10, REGION_BLOCKS - i);

		cr_assert_eq(get(2, i, blocks, i % 20 == 0), (int)blocks);
		cr_assert_eq(pbn.v, base + i);
	}
}

Test(alloc, a_stream_in_a_short_last_region_reserves_no_more_than_that)
{
	cr_assert_eq(get(SPACE_LAST_REGION, 0, 10, true), 10);
	cr_assert_eq(available(), data_blocks - SPACE_LAST_REGION_BLOCKS);
	cr_assert_eq(get(SPACE_LAST_REGION, 10, 90, false), 90);
}

/* The copy of a copy: the block's own place in the window is in use. */
Test(alloc, a_block_asked_for_again_gets_another_and_the_old_window_is_given_up)
{
	uint64_t first = get_one(0, 3);
	uint64_t again = get_one(0, 3);

	cr_assert_neq(first, again);
	cr_assert_eq(available(), data_blocks - HINT - 1);
	cr_assert_eq(get_one(0, 4), again + 1);
	alloc_drop_windows(&alloc);
	cr_assert_eq(available(), data_blocks - 3);
}

/* --- reservations are memory alone --- */

Test(alloc, dropping_the_windows_frees_what_was_not_handed_out)
{
	uint64_t first = get_one(0, 0), second = get_one(1, 9);

	alloc_drop_windows(&alloc);
	cr_assert_eq(available(), data_blocks - 2);
	cr_assert_eq(refs_busy_count(&space.refs, (pbn_t){first}), 1);
	cr_assert_eq(refs_busy_count(&space.refs, (pbn_t){second}), 1);
	alloc_drop_windows(&alloc);
	cr_assert_eq(available(), data_blocks - 2, "there was nothing left to drop");
}

Test(alloc, what_is_published_stays_taken_when_its_window_goes)
{
	get_one(0, 0);
	space_publish(&space, pbn, 1);
	cr_assert_eq(refs_busy_count(&space.refs, pbn), 0);
	alloc_drop_windows(&alloc);
	cr_assert_eq(refs_busy_count(&space.refs, pbn), 0);
	cr_assert_eq(available(), data_blocks - 1);
}

Test(alloc, a_window_too_many_takes_the_place_of_the_least_recently_used_one)
{
	uint64_t at[WINDOWS];

	for (uint32_t i = 0; i < WINDOWS; i++)
		at[i] = get_one(i, 0);
	get_one(0, 1);
	get_one(2, 1);
	cr_assert_eq(available(), data_blocks - WINDOWS * HINT);
	get_one(WINDOWS, 0); /* in place of region 1's */
	cr_assert_eq(available(), data_blocks - WINDOWS * HINT - 1);
	for (uint32_t i = 0; i < WINDOWS; i++)
		cr_assert_eq(refs_busy_count(&space.refs, (pbn_t){at[i] + 2}), i != 1, "region %u",
			     i);
	cr_assert_eq(refs_busy_count(&space.refs, (pbn_t){at[1]}), 1, "it was handed out");
}

/* Goal: no neighbour's reservation is lost while there is an unused one. */
Test(alloc_space, a_window_that_was_given_up_is_the_first_to_be_used_again)
{
	uint64_t old, other;

	start_with(2, LAST_BLOCKS, HINT, 2);
	space_load_all(&space);
	other = get_one(0, 0);
	old = get_one(1, 0);
	cr_assert_neq(get_one(1, 0), old);
	cr_assert_eq(get_one(0, 1), other + 1);
}

/* --- putting back --- */

Test(alloc, what_is_put_back_stays_reserved_for_its_block_of_the_volume)
{
	cr_assert_eq(get(0, 0, 8, false), 8);
	alloc_put(&alloc, pbn_add(pbn, 5), 3);
	cr_assert_eq(available(), data_blocks - HINT);
	cr_assert_eq(get(0, 5, 3, false), 3);
	cr_assert_eq(index_of(pbn.v) % HINT, 5);
	alloc_put(&alloc, pbn, 3);
	alloc_drop_windows(&alloc);
	cr_assert_eq(available(), data_blocks - 5);
}

Test(alloc, what_is_put_back_after_its_window_went_is_free)
{
	cr_assert_eq(get(0, 0, 8, false), 8);
	alloc_drop_windows(&alloc);
	alloc_put(&alloc, pbn, 8);
	cr_assert_eq(available(), data_blocks);
}

Test(alloc, a_place_that_is_put_back_is_free)
{
	pbn_t place;

	cr_assert_eq(alloc_get_place(&alloc, true, &place, &wanted), 0);
	cr_assert_eq(available(), data_blocks - 2);
	alloc_put(&alloc, place, 2);
	cr_assert_eq(available(), data_blocks);
}

/* --- pages that are not there --- */

Test(alloc_space, an_absent_refs_page_is_asked_for_and_nothing_is_taken)
{
	pbn_t place;

	start_with(2, LAST_BLOCKS, HINT, WINDOWS);
	cr_assert_eq(get(0, 0, 1, false), -EAGAIN);
	cr_assert_eq(wanted, page_of_refs(space.geometry, 0));
	wanted = PAGE_NONE;
	cr_assert_eq(alloc_get_place(&alloc, true, &place, &wanted), -EAGAIN);
	cr_assert_eq(wanted, page_of_refs(space.geometry, 0));
	cr_assert_eq(available(), data_blocks);
	space_load(&space, wanted);
	cr_assert_eq(get(0, 0, 1, false), 1);
	cr_assert_eq(geometry_slab(space.geometry, pbn), 0);
	cr_assert_eq(alloc_get_place(&alloc, true, &place, &wanted), 0);
}

Test(alloc_space, a_full_slab_is_passed_over)
{
	start_with(2, LAST_BLOCKS, HINT, WINDOWS);
	space_load(&space, page_of_refs(space.geometry, 0));
	use(0, 0, SLAB_DATA_BLOCKS);
	cr_assert_eq(get(0, 0, 1, false), -EAGAIN);
	cr_assert_eq(wanted, page_of_refs(space.geometry, 1));
	space_load(&space, wanted);
	cr_assert_eq(get(0, 0, 1, false), 1);
	cr_assert_eq(geometry_slab(space.geometry, pbn), 1);
}

/* Goal: next fit. What becomes free behind is looked at when the end was reached. */
Test(alloc_space, the_search_goes_on_where_it_stopped_and_round)
{
	start_with(3, 200, HINT, 1);
	space_load_all(&space);
	use(0, 0, SLAB_DATA_BLOCKS);
	get_one(0, 0);
	cr_assert_eq(geometry_slab(space.geometry, pbn), 1);
	refs_drop(&space.refs, space_block(&space, 0, 0), 64);
	refs_busy_add(&space.refs, space_block(&space, 0, 0), 64);
	refs_busy_sub(&space.refs, space_block(&space, 0, 0), 64); /* as when it settles */
	get_one(1, 0);
	cr_assert_eq(geometry_slab(space.geometry, pbn), 1);
	use(1, HINT * 2, SLAB_DATA_BLOCKS - HINT * 2);
	use(2, 0, 200);
	alloc_drop_windows(&alloc);
	use(1, 1, HINT - 1);
	use(1, HINT + 1, HINT - 1);
	get_one(2, 0);
	cr_assert_eq(geometry_slab(space.geometry, pbn), 0);
}

/* Goal: what cannot be read is not asked for again and again, is not counted as free, and is told
 * of once. */
Test(alloc_space, a_slab_whose_page_is_damaged_is_left_out_until_the_page_comes_after_all)
{
	bool lost;

	start_with(2, LAST_BLOCKS, HINT, WINDOWS);
	cr_assert_eq(get(0, 0, 1, false), -EAGAIN);
	cr_assert_eq(wanted, page_of_refs(space.geometry, 0));
	pass_over(-EUCLEAN);
	cr_expect_eq(available(), LAST_BLOCKS);
	cr_expect(alloc_pass_over(&alloc, wanted, -EIO, &lost), "who waited beside goes on, too");
	cr_expect_not(lost, "told a second time");
	alloc_retry(&alloc);
	cr_assert_eq(get(0, 0, 1, false), -EAGAIN);
	cr_assert_eq(wanted, page_of_refs(space.geometry, 1));
	cr_expect_not(alloc_pass_over(&alloc, wanted, -ENOMEM, &lost), "not the slab's fault");
	pass_over(-EIO);
	cr_expect_eq(available(), 0);
	cr_expect_eq(get(0, 0, 1, false), -ENOSPC);
	space_load(&space, page_of_refs(space.geometry, 0));
	refs_loaded(&space.refs, refs_frame(&space.refs, space_block(&space, 0, 0)));
	cr_expect_eq(available(), SLAB_DATA_BLOCKS);
	cr_expect_eq(get(0, 0, 1, false), 1);
}

Test(alloc_space, a_barred_slab_is_passed_over_until_the_retry)
{
	pbn_t place;

	start_with(2, LAST_BLOCKS, HINT, WINDOWS);
	cr_assert_eq(get(0, 0, 1, false), -EAGAIN);
	pass_over(-ENOSPC);
	cr_assert_eq(get(0, 0, 1, false), -EAGAIN);
	cr_assert_eq(wanted, page_of_refs(space.geometry, 1));
	pass_over(-ENOSPC);
	cr_assert_eq(get(0, 0, 1, false), -ENOSPC);
	cr_assert_eq(alloc_get_place(&alloc, true, &place, &wanted), -ENOSPC);
	alloc_retry(&alloc);
	for (uint32_t i = 0; i < 2; i++) {
		uint32_t slab;

		cr_assert_eq(get(0, 0, 1, false), -EAGAIN, "all but %u are still barred", i);
		space_load(&space, wanted);
		slab = wanted - page_of_refs(space.geometry, 0);
		use(slab, 0, geometry_slab_blocks(space.geometry, slab));
	}
	cr_assert_eq(get(0, 0, 1, false), -ENOSPC);
}

/* --- little space --- */

/* One block at a time, from all over the volume, until there is none. Returns how many. */
static uint64_t take_all(uint8_t *taken)
{
	uint64_t count = 0;

	for (uint32_t i = 0;; i++) {
		int r = get(i * 7 % SPACE_LAST_REGION, i * 31 % REGION_BLOCKS, 1, false);

		if (r == -ENOSPC)
			return count;
		cr_assert_eq(r, 1);
		cr_assert_eq(taken[pbn.v], 0, "block %lu was handed out before", pbn.v);
		taken[pbn.v] = 1;
		count++;
	}
}

Test(alloc, every_block_of_the_store_is_handed_out_once_and_then_there_is_no_space)
{
	uint8_t *taken = calloc(space.geometry->store_blocks, 1);

	cr_assert_eq(take_all(taken), data_blocks);
	cr_assert_eq(available(), 0);
	free(taken);
}

Test(alloc, one_block_that_is_free_again_is_found_wherever_it_is)
{
	uint8_t *taken = calloc(space.geometry->store_blocks, 1);

	take_all(taken);
	alloc_drop_windows(&alloc);
	for (uint32_t i = 0; i < SLAB_DATA_BLOCKS + LAST_BLOCKS; i += 97) {
		uint32_t slab = i >= SLAB_DATA_BLOCKS;
		pbn_t freed = space_block(&space, slab, i - slab * SLAB_DATA_BLOCKS);

		alloc_put(&alloc, freed, 1);
		cr_assert_eq(get_one(0, i % REGION_BLOCKS), freed.v);
		cr_assert_eq(get(1, 0, 1, false), -ENOSPC);
	}
	free(taken);
}

/* Reservations must not make a request fail that wants one block. */
Test(alloc_space, reservations_of_others_are_taken_back_before_there_is_no_space)
{
	uint32_t regions = 0;
	pbn_t place;

	start_with(1, 32, HINT, WINDOWS);
	space_load_all(&space);
	for (; regions < 32; regions++)
		get_one(regions, regions);
	cr_assert_eq(available(), 0);
	cr_assert_eq(get(40, 0, 1, false), -ENOSPC);
	stop();

	start_with(1, 32, HINT, WINDOWS);
	space_load_all(&space);
	get_one(0, 0);
	cr_assert_eq(available(), 0);
	cr_assert_eq(alloc_get_place(&alloc, true, &place, &wanted), 0);
	cr_assert_eq(available(), 29);
}

Test(alloc_space, a_window_is_as_large_as_the_largest_run_that_is_left)
{
	uint64_t base;

	start_with(1, 128, HINT, WINDOWS);
	space_load_all(&space);
	/* Runs of 8, aligned, and none longer. */
	for (uint32_t i = 8; i < 128; i += 16)
		use(0, i, 8);
	base = get_one(0, 13);
	cr_assert_eq(available(), 128 / 2 - 8);
	for (uint32_t i = 8; i < 16; i++)
		cr_assert(i == 13 || get_one(0, i) == base + i - 13);
	cr_assert_eq(available(), 128 / 2 - 8);
	/* And the same for more than one window has: what there is, then the rest. */
	cr_assert_eq(get(1, 0, 20, true), 8);
	cr_assert_eq(get(1, 8, 12, true), 8);
	cr_assert_eq(get(1, 16, 4, true), 4);
}

Test(alloc_space, a_place_is_two_adjacent_blocks_of_one_slab)
{
	pbn_t first, second;

	start_with(2, 8, HINT, WINDOWS);
	space_load_all(&space);
	/* Free: single blocks, the last of slab 0 and the first of slab 1 among them, and one
	 * pair. */
	use(0, 0, SLAB_DATA_BLOCKS);
	use(1, 0, 8);
	for (uint32_t i = 1; i < SLAB_DATA_BLOCKS; i += 2)
		refs_drop(&space.refs, space_block(&space, 0, i), 1);
	refs_drop(&space.refs, space_block(&space, 1, 0), 1);
	refs_drop(&space.refs, space_block(&space, 1, 5), 2);
	cr_assert_eq(alloc_get_place(&alloc, true, &first, &wanted), 0);
	cr_assert_eq(first.v, space_block(&space, 1, 5).v);
	cr_assert_eq(refs_busy_count(&space.refs, first), 1);
	cr_assert_eq(refs_busy_count(&space.refs, pbn_add(first, 1)), 1);
	cr_assert_eq(alloc_get_place(&alloc, true, &second, &wanted), -ENOSPC);
	cr_assert_eq(get(0, 0, 2, false), 1, "single blocks will do for data");
	alloc_put(&alloc, first, 2);
	cr_assert_eq(alloc_get_place(&alloc, true, &second, &wanted), 0);
}

/* --- with what is pending --- */

static void on_settled(void *context)
{
	(void)context;
}

/* Goal: freed, not durable: no space. Durable, the discard in flight: no space. Then there is. */
Test(alloc_space, what_is_freed_is_no_space_until_it_has_settled)
{
	struct pending pending;

	start_with(1, 32, HINT, WINDOWS);
	space_load_all(&space);
	cr_assert_eq(pending_init(&pending, &space.refs, &space.mem.store, &space.lock, 8, true),
		     0);
	pending.on_settled = on_settled;
	cr_assert_eq(get(0, 0, 32, false), 32);
	space_publish(&space, pbn, 32);
	refs_drop(&space.refs, pbn_add(pbn, 4), 3);
	pending_add(&pending, 10, pbn_add(pbn, 4), 3);
	cr_assert_eq(space.refs.free_blocks, 3);
	cr_assert_eq(get(1, 0, 1, false), -ENOSPC);
	pthread_mutex_lock(&space.lock);
	pending_settle(&pending, 10, 10, 0);
	cr_assert_eq(get(1, 0, 1, false), -ENOSPC, "who reads the blocks is in flight");
	pending_settle(&pending, 10, 11, 0);
	pthread_mutex_unlock(&space.lock);
	cr_assert_eq(get(1, 0, 1, false), -ENOSPC, "its discard is in flight");
	cr_assert(store_mem_deliver(&space.mem, 0));
	cr_assert_eq(get(1, 0, 1, false), 1);
	cr_assert_eq(available(), 1, "two of three are a window");
	pending_done(&pending);
}

/* --- what is a bug of the caller's --- */

/* --- homes --- */

static void start_with_homes(void)
{
	start_with(3, SLAB_DATA_BLOCKS, HINT, WINDOWS);
	space_load_all(&space);
	alloc_use_homes(&alloc);
}

/* Where block number `at` of the data area is. */
static uint64_t data_block(uint64_t at)
{
	return space_block(&space, (uint32_t)(at / SLAB_DATA_BLOCKS),
			   (uint32_t)(at % SLAB_DATA_BLOCKS))
		.v;
}

/* More windows than there are room for, in an order that comes back to each. */
Test(alloc_space, blocks_go_home_in_whatever_order_and_however_many_windows_are_forgotten)
{
	start_with_homes();
	for (uint32_t i = 0; i < 6 * REGION_BLOCKS; i++) {
		uint64_t at = i * 1031ull % (6 * REGION_BLOCKS);

		cr_assert_eq(get_one((uint32_t)(at / REGION_BLOCKS), at % REGION_BLOCKS),
			     data_block(at), "block %lu", (unsigned long)at);
		refs_take(&space.refs, pbn, 1);
	}
}

Test(alloc_space, a_home_that_is_taken_is_left_alone)
{
	start_with_homes();
	use(0, 5, 1);
	cr_assert_neq(get_one(0, 5), data_block(5));
	cr_assert_eq(get_one(0, 100), data_block(100));
}

Test(alloc_space, a_stream_goes_home_whole_or_not_at_all)
{
	start_with_homes();
	cr_assert_eq(get(0, 0, REGION_BLOCKS, true), REGION_BLOCKS);
	cr_assert_eq(pbn.v, data_block(0));
	use(0, REGION_BLOCKS + 400, 1);
	cr_assert_eq(get(1, 0, 256, true), 256);
	cr_assert_neq(pbn.v, data_block(REGION_BLOCKS));
}

/* Region 3 lies across the end of the first slab. */
Test(alloc_space, a_window_at_the_end_of_a_slab_is_shorter)
{
	start_with_homes();
	for (uint32_t i = 448; i < 512; i++)
		cr_assert_eq(get_one(3, i), data_block(3 * REGION_BLOCKS + i));
}

Test(alloc_space, a_volume_larger_than_its_store_goes_round)
{
	start_with_homes();
	cr_assert_eq(get_one((uint32_t)(data_blocks / REGION_BLOCKS) + 1, 0),
		     data_block((data_blocks / REGION_BLOCKS + 1) * REGION_BLOCKS - data_blocks));
}

Test(alloc_space, an_absent_home_is_asked_for)
{
	start_with(3, SLAB_DATA_BLOCKS, HINT, WINDOWS);
	alloc_use_homes(&alloc);
	cr_assert_eq(get(4, 100, 1, false), -EAGAIN);
	cr_assert_eq(wanted, page_of_refs(space.geometry, 1));
	pass_over(-ENOSPC);
	cr_assert_eq(get(4, 100, 1, false), -EAGAIN);
	cr_assert_neq(wanted, page_of_refs(space.geometry, 1), "a barred one is passed over");
}

Test(alloc, a_hint_that_is_no_power_of_two_asserts, .signal = SIGABRT)
{
	alloc_init(&alloc, &space.refs, space.geometry, 48, WINDOWS);
}

Test(alloc, more_windows_than_there_are_asserts, .signal = SIGABRT)
{
	alloc_init(&alloc, &space.refs, space.geometry, HINT, ALLOC_WINDOWS_MAX + 1);
}

Test(alloc, blocks_past_the_end_of_a_region_assert, .signal = SIGABRT)
{
	get(0, REGION_BLOCKS - 1, 2, false);
}

/* --- by chance --- */

enum use {
	FREE, /* or reserved */
	OUT, /* handed out */
	USED, /* published */
	FREED, /* and pending */
};

#define ASKS 4000u

static uint8_t *uses; /* by block of the store */

static uint64_t count_uses(enum use use)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < space.geometry->store_blocks; i++)
		n += geometry_is_data(space.geometry, (pbn_t){i}) && uses[i] == use;
	return n;
}

static void hand(pbn_t first, uint32_t blocks, uint64_t seed)
{
	for (uint32_t i = 0; i < blocks; i++) {
		cr_assert(geometry_is_data(space.geometry, pbn_add(first, i)));
		cr_assert_eq(uses[first.v + i], FREE, "seed %lu: block %lu has an owner", seed,
			     first.v + i);
		uses[first.v + i] = OUT;
	}
}

static uint64_t count_pairs(void)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i + 1 < space.geometry->store_blocks; i++)
		n += geometry_is_data(space.geometry, (pbn_t){i}) &&
		     geometry_is_data(space.geometry, (pbn_t){i + 1}) && uses[i] == FREE &&
		     uses[i + 1] == FREE;
	return n;
}

static void ask_at_random(struct rng *rng, uint64_t seed)
{
	uint32_t index = rng_below(rng, REGION_BLOCKS), blocks = 1 + rng_below(rng, 64);
	bool stream = rng_once_in(rng, 8);
	pbn_t place;
	int r;

	if (rng_once_in(rng, 10)) {
		r = alloc_get_place(&alloc, true, &place, &wanted);
		if (r == 0)
			hand(place, 2, seed);
		else
			cr_assert_eq(count_pairs(), 0, "seed %lu: there was a place", seed);
		return;
	}
	index = stream ? 0 : index;
	r = get(rng_below(rng, 6), index, min_u32(blocks, REGION_BLOCKS - index), stream);
	if (r > 0) {
		hand(pbn, (uint32_t)r, seed);
	} else {
		cr_assert_eq(r, -ENOSPC);
		cr_assert_eq(count_uses(FREE), 0, "seed %lu: there was space", seed);
	}
}

/* What becomes of each of a few blocks. */
static void move_on_at_random(struct rng *rng)
{
	uint64_t first = rng_below(rng, (uint32_t)space.geometry->store_blocks);

	for (uint64_t i = first; i < first + 60 && i < space.geometry->store_blocks; i++) {
		pbn_t block = {i};

		if (!geometry_is_data(space.geometry, block) || uses[i] == FREE)
			continue;
		if (uses[i] == OUT && rng_once_in(rng, 3)) {
			alloc_put(&alloc, block, 1);
			uses[i] = FREE;
		} else if (uses[i] == OUT) {
			space_publish(&space, block, 1);
			uses[i] = USED;
		} else if (uses[i] == USED) {
			refs_drop(&space.refs, block, 1);
			refs_busy_add(&space.refs, block, 1);
			uses[i] = FREED;
		} else {
			refs_busy_sub(&space.refs, block, 1);
			uses[i] = FREE;
		}
	}
}

Test(alloc_space, whatever_is_asked_no_block_has_two_owners_and_none_is_lost)
{
	for (uint64_t seed = 1; seed <= 6; seed++) {
		struct rng rng = rng_for(seed, 0);

		start_with(2, 300, HINT, 1 + rng_below(&rng, 6));
		space_load_all(&space);
		uses = calloc(space.geometry->store_blocks, 1);
		for (uint32_t i = 0; i < ASKS; i++) {
			if (rng_below(&rng, 100) < 30 + 10 * (i / 500))
				move_on_at_random(&rng);
			else
				ask_at_random(&rng, seed);
		}
		alloc_drop_windows(&alloc);
		cr_assert_eq(available(), count_uses(FREE), "seed %lu: blocks are lost", seed);
		free(uses);
		if (seed < 6)
			stop();
	}
}
