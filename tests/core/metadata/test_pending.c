/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_pending - what was dropped is busy until the drop is durable, nobody reads it any more, and
 * its discard is done
 *
 * Blocks are those of slab 0, by index. own() gives them references; drop() is an edit that takes
 * one of each away. Nothing that was submitted is delivered but by deliver().
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>

#include "core/metadata/pending.h"
#include "tests/core/metadata/space.h"

#define CAPACITY 16u
#define LANE	 1u

static struct space space;
static struct pending pending;
static uint32_t settled;

static void on_settled(void *context)
{
	cr_assert_eq(context, &space);
	cr_assert_neq(pthread_mutex_trylock(&space.lock), 0, "called without the lock");
	settled++;
}

static void start_with(uint32_t capacity, bool discard, bool can_discard)
{
	int r;

	space_init(&space, 2, 40);
	space_load_all(&space);
	space.mem.store.can_discard = can_discard;
	r = pending_init(&pending, &space.refs, &space.mem.store, &space.lock, capacity, discard);
	cr_assert_eq(r, 0);
	pending.on_settled = on_settled;
	pending.context = &space;
	settled = 0;
}

/* Discards are given back. */
static void start(void)
{
	start_with(CAPACITY, true, true);
}

/* Nothing is. */
static void start_plain(void)
{
	start_with(CAPACITY, false, true);
}

static void stop(void)
{
	pending_done(&pending);
	space_done(&space);
}

static pbn_t block(uint32_t index)
{
	return space_block(&space, 0, index);
}

static void own(uint32_t index, uint32_t blocks)
{
	refs_take(&space.refs, block(index), blocks);
}

static void drop(uint64_t lsn, uint32_t index, uint32_t blocks)
{
	refs_drop(&space.refs, block(index), blocks);
	pending_add(&pending, lsn, block(index), blocks);
}

/* Blocks that had one owner, who drops them. */
static void own_and_drop(uint64_t lsn, uint32_t index, uint32_t blocks)
{
	own(index, blocks);
	drop(lsn, index, blocks);
}

static void settle(uint64_t durable_lsn, uint64_t oldest_epoch)
{
	pthread_mutex_lock(&space.lock);
	pending_settle(&pending, durable_lsn, oldest_epoch, LANE);
	pthread_mutex_unlock(&space.lock);
}

static void reuse(void)
{
	pthread_mutex_lock(&space.lock);
	pending_reuse(&pending);
	pthread_mutex_unlock(&space.lock);
}

static void release_places(uint64_t tail_lsn)
{
	pthread_mutex_lock(&space.lock);
	pending_release_places(&pending, tail_lsn, LANE);
	pthread_mutex_unlock(&space.lock);
}

static uint32_t discards(void)
{
	return store_mem_in_flight(&space.mem, LANE);
}

static void deliver(int res)
{
	store_mem_deliver_at(&space.mem, LANE, 0, res);
}

static bool busy(uint32_t index)
{
	return refs_busy_count(&space.refs, block(index)) > 0;
}

static bool all_busy(uint32_t index, uint32_t blocks)
{
	uint32_t n = 0;

	while (n < blocks && busy(index + n))
		n++;
	return n == blocks;
}

static bool none_busy(uint32_t index, uint32_t blocks)
{
	uint32_t n = 0;

	while (n < blocks && !busy(index + n))
		n++;
	return n == blocks;
}

/* The i-th discard in flight is of these blocks. */
static void expect_discard(uint32_t i, uint32_t index, uint32_t blocks)
{
	const struct store_io *io = store_mem_get(&space.mem, LANE, i);

	cr_assert_eq(io->op, STORE_DISCARD);
	cr_assert_eq(io->off_bytes, pbn_off_bytes(block(index)), "discard %u: at block %lu", i,
		     io->off_bytes / BLOCK_BYTES - block(0).v);
	cr_assert_eq(io->len_bytes, blocks_to_bytes(blocks), "discard %u: of %lu blocks", i,
		     io->len_bytes / BLOCK_BYTES);
}

/* --- when a drop settles --- */

TestSuite(pending_settling, .init = start_plain, .fini = stop);

Test(pending_settling, dropped_blocks_are_busy_whether_they_have_another_owner_or_not)
{
	own(10, 8);
	own(10, 4);
	drop(5, 10, 8);
	cr_assert(all_busy(10, 8));
	cr_assert(none_busy(0, 10));
	cr_assert(none_busy(18, 10));
	cr_assert_eq(pending_blocks(&pending), 8);
	cr_assert(pending_any(&pending));
	settle(5, WORKER_IDLE);
	cr_assert(none_busy(10, 8));
	cr_assert_eq(pending_blocks(&pending), 0);
	cr_assert_not(pending_any(&pending));
}

Test(pending_settling, a_drop_waits_for_its_own_record_to_be_durable)
{
	own_and_drop(5, 0, 1);
	settle(4, WORKER_IDLE);
	cr_assert(busy(0));
	cr_assert_eq(settled, 0);
	settle(5, WORKER_IDLE);
	cr_assert_not(busy(0));
	cr_assert_eq(settled, 1);
}

/* A request with the epoch of the edit itself may have looked up before it. */
Test(pending_settling, a_drop_waits_for_requests_that_entered_at_or_before_it)
{
	own_and_drop(5, 0, 1);
	settle(100, 4);
	cr_assert(busy(0));
	settle(100, 5);
	cr_assert(busy(0));
	settle(100, 6);
	cr_assert_not(busy(0));
}

Test(pending_settling, what_came_later_waits_on)
{
	for (uint32_t i = 0; i < 6; i++)
		own_and_drop(10 + i, 2 * i, 2);
	settle(12, WORKER_IDLE);
	cr_assert(none_busy(0, 6));
	cr_assert(all_busy(6, 6));
	cr_assert_eq(pending_blocks(&pending), 6);
	settle(100, 14);
	cr_assert(none_busy(6, 2));
	cr_assert(all_busy(8, 4));
	settle(15, 100);
	cr_assert(none_busy(0, 12));
}

Test(pending_settling, who_waits_is_told_once_for_all_that_settled_and_not_for_nothing)
{
	settle(100, WORKER_IDLE);
	cr_assert_eq(settled, 0);
	own_and_drop(5, 0, 1);
	own_and_drop(6, 1, 1);
	own_and_drop(7, 2, 1);
	settle(4, WORKER_IDLE);
	cr_assert_eq(settled, 0);
	settle(6, WORKER_IDLE);
	cr_assert_eq(settled, 1);
}

Test(pending_settling, a_block_dropped_twice_is_busy_until_both_drops_have_settled)
{
	own(0, 1);
	own(0, 1);
	drop(5, 0, 1);
	drop(6, 0, 1);
	settle(5, WORKER_IDLE);
	cr_assert(busy(0), "the second drop could still be undone");
	settle(6, WORKER_IDLE);
	cr_assert_not(busy(0));
}

Test(pending_settling, the_oldest_run_waits_for_an_epoch_alone_once_its_record_is_durable)
{
	cr_assert_not(pending_epoch_bound(&pending, 100));
	own_and_drop(5, 0, 1);
	own_and_drop(9, 1, 1);
	cr_assert_not(pending_epoch_bound(&pending, 4));
	cr_assert(pending_epoch_bound(&pending, 5));
	settle(5, WORKER_IDLE);
	cr_assert_not(pending_epoch_bound(&pending, 5));
	cr_assert(pending_epoch_bound(&pending, 9));
}

/* --- room --- */

Test(pending_settling, room_is_what_the_fuller_of_queue_and_quarantine_has_left)
{
	cr_assert_eq(pending_room(&pending), CAPACITY);
	own_and_drop(1, 0, 5);
	own_and_drop(2, 5, 1);
	cr_assert_eq(pending_room(&pending), CAPACITY - 2, "it is counted in runs");
	pending_add_place(&pending, 3, block(20));
	cr_assert_eq(pending_room(&pending), CAPACITY - 2);
	pending_add_place(&pending, 4, block(22));
	pending_add_place(&pending, 5, block(24));
	cr_assert_eq(pending_room(&pending), CAPACITY - 3);
	release_places(5);
	settle(1, WORKER_IDLE);
	cr_assert_eq(pending_room(&pending), CAPACITY - 1);
}

Test(pending_settling, the_queue_goes_round)
{
	uint64_t lsn = 1;

	for (uint32_t round = 0; round < 20; round++) {
		while (pending_room(&pending) > 0) {
			own_and_drop(lsn, lsn % 100, 1);
			lsn++;
		}
		settle(lsn - 4, WORKER_IDLE);
		cr_assert_eq(pending_room(&pending), CAPACITY - 3);
		cr_assert_eq(pending_blocks(&pending), 3);
		for (uint64_t i = lsn - CAPACITY; i < lsn; i++)
			cr_assert_eq(busy(i % 100), i > lsn - 4, "round %u: LSN %lu of %lu", round,
				     i, lsn);
	}
}

Test(pending_settling, a_run_more_than_there_is_room_for_asserts, .signal = SIGABRT)
{
	for (uint32_t i = 0; i < CAPACITY; i++)
		own_and_drop(i + 1, i, 1);
	cr_assert_eq(pending_room(&pending), 0);
	own_and_drop(100, 100, 1);
}

/* --- the quarantine of leaf places --- */

Test(pending_settling, a_place_waits_for_a_checkpoint_that_began_after_its_edit)
{
	pending_add_place(&pending, 5, block(6));
	cr_assert(all_busy(6, 2));
	cr_assert_eq(pending_blocks(&pending), 2);
	settle(100, WORKER_IDLE);
	cr_assert(all_busy(6, 2), "replay would read the slots");
	release_places(5);
	cr_assert(all_busy(6, 2));
	cr_assert_eq(settled, 0);
	release_places(6);
	cr_assert(none_busy(6, 2));
	cr_assert_eq(settled, 1);
	cr_assert_eq(pending_blocks(&pending), 0);
}

Test(pending_settling, a_checkpoint_releases_places_alone_and_only_older_ones)
{
	own_and_drop(3, 0, 1);
	pending_add_place(&pending, 5, block(6));
	pending_add_place(&pending, 8, block(8));
	release_places(8);
	cr_assert(none_busy(6, 2));
	cr_assert(all_busy(8, 2));
	cr_assert(busy(0));
}

/* No commit, epoch or discard lets a place go, so waiting for one would never end. */
Test(pending_settling, the_quarantine_alone_is_nothing_that_is_waited_for)
{
	pending_add_place(&pending, 5, block(6));
	cr_assert_not(pending_any(&pending));
	cr_assert_not(pending_epoch_bound(&pending, 100));
}

/* --- giving back --- */

TestSuite(pending_giveback, .init = start, .fini = stop);

Test(pending_giveback, freed_blocks_are_busy_until_their_discard_is_done)
{
	own_and_drop(5, 10, 4);
	settle(4, WORKER_IDLE);
	cr_assert_eq(discards(), 0, "a crash could undo the drop, and the content is gone");
	settle(5, WORKER_IDLE);
	cr_assert_eq(discards(), 1);
	expect_discard(0, 10, 4);
	cr_assert(all_busy(10, 4));
	cr_assert(pending_any(&pending));
	cr_assert_eq(pending.discarded_bytes, 0);
	settled = 0;
	deliver(0);
	cr_assert(none_busy(10, 4));
	cr_assert_eq(settled, 1);
	cr_assert_not(pending_any(&pending));
	cr_assert_eq(pending.discarded_bytes, 4 * BLOCK_BYTES);
	cr_assert_eq(refs_available(&space.refs), geometry_data_blocks(space.geometry));
}

/* Goal: what is neither used nor free is pending, at every moment. */
Test(pending_giveback, blocks_are_pending_until_their_discard_is_done)
{
	uint32_t runs = PENDING_DISCARDS + 2; /* more than can be in flight */

	for (uint32_t i = 0; i < runs; i++)
		own_and_drop(i + 1, 6 * i, 5);
	cr_assert_eq(pending_blocks(&pending), 5 * runs);
	settle(100, WORKER_IDLE);
	for (uint32_t left = runs; left > 0; left--) {
		cr_assert_eq(pending_blocks(&pending), 5 * left);
		cr_assert_eq(refs_available(&space.refs) + pending_blocks(&pending),
			     geometry_data_blocks(space.geometry));
		deliver(left % 3 ? 0 : -EIO);
	}
	cr_assert_eq(pending_blocks(&pending), 0);
}

Test(pending_giveback, blocks_with_another_owner_are_not_discarded_and_settle_at_once)
{
	own(0, 10);
	own(3, 2);
	own(9, 1);
	drop(5, 0, 10);
	settle(5, WORKER_IDLE);
	cr_assert_eq(discards(), 2);
	expect_discard(0, 0, 3);
	expect_discard(1, 5, 4);
	cr_assert(none_busy(3, 2));
	cr_assert_not(busy(9));
	cr_assert(all_busy(0, 3));
	cr_assert(all_busy(5, 4));
	deliver(0);
	deliver(0);
	cr_assert(none_busy(0, 10));
}

/* Goal: the count is 0, but a crash could give the second owner back. */
Test(pending_giveback, a_block_with_a_later_drop_is_discarded_when_that_one_settles)
{
	own(0, 4);
	own(2, 1);
	drop(5, 0, 4);
	drop(6, 2, 1);
	settle(5, WORKER_IDLE);
	cr_assert_eq(discards(), 2);
	expect_discard(0, 0, 2);
	expect_discard(1, 3, 1);
	cr_assert(busy(2));
	deliver(0);
	deliver(0);
	settle(6, WORKER_IDLE);
	cr_assert_eq(discards(), 1);
	expect_discard(0, 2, 1);
	deliver(0);
	cr_assert_not(busy(2));
}

Test(pending_giveback, adjacent_runs_are_one_discard)
{
	own_and_drop(1, 10, 4);
	own_and_drop(2, 14, 2);
	own_and_drop(3, 16, 1);
	own_and_drop(4, 20, 3);
	own_and_drop(5, 17, 2);
	settle(5, WORKER_IDLE);
	cr_assert_eq(discards(), 3);
	expect_discard(0, 10, 7);
	expect_discard(1, 20, 3);
	expect_discard(2, 17, 2);
	while (discards() > 0)
		deliver(0);
	cr_assert(none_busy(10, 13));
	cr_assert_eq(pending.discarded_bytes, 12 * BLOCK_BYTES);
}

Test(pending_giveback, so_many_discards_are_in_flight_and_the_next_follow_on_the_same_lane)
{
	uint32_t max = 0, done = 0;

	for (uint32_t i = 0; i < PENDING_DISCARDS + 5; i++)
		own_and_drop(i + 1, 3 * i, 1);
	settle(100, WORKER_IDLE);
	while (discards() > 0) {
		max = discards() > max ? discards() : max;
		cr_assert_eq(store_mem_in_flight(&space.mem, 0), 0, "another thread's lane");
		cr_assert(pending_any(&pending));
		deliver(0);
		done++;
		cr_assert_eq(refs_available(&space.refs),
			     geometry_data_blocks(space.geometry) - 13 + done);
	}
	cr_assert_eq(max, PENDING_DISCARDS);
	cr_assert_eq(done, PENDING_DISCARDS + 5);
	cr_assert_not(pending_any(&pending));
	cr_assert(none_busy(0, 50));
}

Test(pending_giveback, what_is_not_sent_yet_can_be_reused_at_once)
{
	for (uint32_t i = 0; i < PENDING_DISCARDS + 5; i++)
		own_and_drop(i + 1, 3 * i, 1);
	settle(100, WORKER_IDLE);
	settled = 0;
	reuse();
	cr_assert_eq(settled, 1);
	cr_assert_eq(discards(), PENDING_DISCARDS);
	for (uint32_t i = 0; i < PENDING_DISCARDS + 5; i++)
		cr_assert_eq(busy(3 * i), i < PENDING_DISCARDS, "what was sent waits for its end");
	reuse();
	cr_assert_eq(settled, 1, "nothing is left to reuse");
	while (discards() > 0)
		deliver(0);
	cr_assert(none_busy(0, 50));
	cr_assert_eq(pending.discarded_bytes, PENDING_DISCARDS * BLOCK_BYTES);
}

/* Goal: a discard is a hint. */
Test(pending_giveback, a_discard_that_fails_frees_its_blocks_and_counts_no_bytes)
{
	own_and_drop(5, 0, 4);
	settle(5, WORKER_IDLE);
	deliver(-EIO);
	cr_assert(none_busy(0, 4));
	cr_assert_eq(pending.discarded_bytes, 0);
	own_and_drop(6, 0, 4);
	settle(6, WORKER_IDLE);
	cr_assert_eq(discards(), 1, "one that failed says nothing about the next");
	deliver(0);
	cr_assert_eq(pending.discarded_bytes, 4 * BLOCK_BYTES);
}

Test(pending_giveback, a_store_that_says_it_cannot_is_not_asked_again)
{
	own_and_drop(5, 0, 4);
	settle(5, WORKER_IDLE);
	deliver(-EOPNOTSUPP);
	cr_assert(none_busy(0, 4));
	own_and_drop(6, 0, 4);
	settle(6, WORKER_IDLE);
	cr_assert_eq(discards(), 0);
	cr_assert(none_busy(0, 4));
}

Test(pending_giveback, a_released_place_is_discarded_like_any_freed_block)
{
	pending_add_place(&pending, 5, block(6));
	release_places(6);
	cr_assert_eq(discards(), 1);
	expect_discard(0, 6, 2);
	cr_assert(all_busy(6, 2));
	deliver(0);
	cr_assert(none_busy(6, 2));
}

/* --- with other sizes and stores --- */

Test(pending, what_the_giveback_has_no_room_for_is_free_at_once_and_nothing_is_lost)
{
	uint32_t islands = 0;

	start_with(4, true, true);
	/* One run, of which every second block is free afterwards. */
	own(0, 20);
	for (uint32_t i = 1; i < 20; i += 2)
		own(i, 1);
	drop(5, 0, 20);
	settle(5, WORKER_IDLE);
	cr_assert_eq(discards(), 4);
	for (uint32_t i = 0; i < 20; i++)
		islands += busy(i);
	cr_assert_eq(islands, 4);
	while (discards() > 0)
		deliver(0);
	cr_assert(none_busy(0, 20));
	stop();
}

Test(pending, a_store_that_cannot_discard_is_never_asked_to)
{
	start_with(CAPACITY, true, false);
	own_and_drop(5, 0, 4);
	settle(5, WORKER_IDLE);
	cr_assert_eq(discards(), 0);
	cr_assert(none_busy(0, 4));
	stop();
}

Test(pending, nothing_is_discarded_unless_wanted)
{
	start_with(CAPACITY, false, true);
	own_and_drop(5, 0, 4);
	settle(5, WORKER_IDLE);
	cr_assert_eq(discards(), 0);
	stop();
}

/* Goal: a latched volume discards nothing more: what it says is free might come back. */
Test(pending_giveback, once_killed_only_what_is_in_flight_comes_to_an_end)
{
	for (uint32_t i = 0; i < PENDING_DISCARDS + 2; i++)
		own_and_drop(i + 1, 3 * i, 1);
	settle(100, WORKER_IDLE);
	cr_assert_eq(discards(), PENDING_DISCARDS);
	pending_kill(&pending);
	cr_assert(pending_any(&pending), "discards are in flight");
	while (discards() > 0)
		deliver(0);
	cr_assert_eq(store_mem_ops(&space.mem, STORE_DISCARD), PENDING_DISCARDS);
	cr_assert_not(pending_any(&pending));
	cr_assert(none_busy(0, 3 * PENDING_DISCARDS));
	cr_assert(busy(3 * PENDING_DISCARDS), "it was neither discarded nor settled");
}
