/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_journal_room - who gets room in the ring and when, and that a dead journal stays dead
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "tests/core/metadata/journal_bed.h"

TestSuite(journal_room, .init = start, .fini = stop);

/* --- reservations --- */

/* I23: whatever was granted finds room, also if each batch becomes a group of its own and no
 * checkpoint helps. */
static void use_up(const uint32_t *granted, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		for (uint32_t left = granted[i]; left > 0;) {
			uint32_t batch = min_u32(left, JOURNAL_BATCH);

			for (uint32_t j = 0; j < batch; j++)
				append();
			kick();
			settle();
			left -= batch;
		}
		cr_assert(journal_used_blocks(&journal) <= RING_BLOCKS);
	}
}

Test(journal_room, whatever_was_granted_finds_room_in_the_ring)
{
	const uint32_t sizes[] = {1, 18, 19, 36, 37, 100, 101, 2};
	unsigned last = WAITERS - 1;

	for (unsigned s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
		uint32_t granted[WAITERS];
		unsigned count = 0;

		restart_at(TAIL);
		while (reserve(sizes[s], &waiters[last]))
			granted[count++] = sizes[s];
		/* What is smaller may not pass what waits, so that is all. */
		cr_assert(count > 0);
		use_up(granted, count);
		cr_assert(sleeps(&waiters[last]));
		cr_assert_eq(journal_durable_lsn(&journal), 999 + (uint64_t)count * sizes[s]);
		expect_chain();
	}
}

Test(journal_room, a_reservation_given_back_is_granted_again_in_order)
{
	unsigned granted = 0;

	while (reserve(18, &waiters[granted]))
		granted++;
	reserve(1, &waiters[granted + 1]);
	reserve(18, &waiters[granted + 2]);
	settle();
	cr_expect(sleeps(&waiters[granted]));
	cr_expect(sleeps(&waiters[granted + 1]), "a small one does not overtake a large one");
	release(18, 18);
	cr_expect(is_woken(&waiters[granted], 0));
	release(18, 18);
	cr_expect(is_woken(&waiters[granted + 1], 0));
	cr_expect_eq(waiters[granted].order, 1);
	cr_expect_eq(waiters[granted + 1].order, 2);
	release(18, 18);
	cr_expect(is_woken(&waiters[granted + 2], 0));
	cr_expect_str_eq(ops, "", "nothing was edited");
}

/* Nobody who comes later slips in before who waits, though there would be room for him. */
Test(journal_room, who_comes_while_others_wait_has_to_wait)
{
	room = 10;
	cr_assert(reserve(5, &waiters[0]));
	cr_expect_not(reserve(6, &waiters[1]));
	cr_expect_not(reserve(1, &waiters[2]));
	release(5, 5);
	cr_expect(is_woken(&waiters[1], 0));
	cr_expect(is_woken(&waiters[2], 0));
	cr_expect_eq(waiters[1].order, 1);
}

Test(journal_room, a_release_gives_back_all_of_it)
{
	unsigned first = 0, second = 0;

	while (reserve(40, &waiters[0]))
		first++;
	for (unsigned i = 0; i < first; i++)
		release(40, 40);
	cr_assert(is_woken(&waiters[0], 0));
	release(40, 40);
	cr_expect_eq(journal.reserved_records, 0);
	cr_expect_eq(journal.reserved_blocks, 0);
	while (reserve(40, &waiters[1]))
		second++;
	cr_expect_eq(first, second);
}

/* The group has a bound as well: it is committed to make room, without anybody's asking. */
Test(journal_room, a_full_group_is_committed_for_who_waits_for_room)
{
	uint32_t records = 0;

	while (reserve(JOURNAL_BATCH, &waiters[0])) {
		for (uint32_t i = 0; i < JOURNAL_BATCH; i++)
			append();
		release(0, JOURNAL_BATCH);
		records += JOURNAL_BATCH;
		cr_assert(records <= GROUP_MAX);
	}
	cr_expect(records > GROUP_MAX - JOURNAL_BATCH);
	cr_expect_str_eq(ops, "F");
	settle();
	cr_expect(is_woken(&waiters[0], 0));
	cr_expect_str_eq(ops, "FWF");
	cr_expect_eq(expect_chain(), 1);
}

/* Each record may drop a run, which is queued until it is durable. */
Test(journal_room, no_more_records_are_granted_than_dropped_runs_can_be_queued)
{
	room = 20;
	cr_assert(reserve(15, &waiters[0]));
	cr_assert(reserve(5, &waiters[0]));
	cr_expect_not(reserve(1, &waiters[1]));
	cr_expect_eq(shorts, 1);
	room = 21;
	cr_expect(sleeps(&waiters[1]));
	pthread_mutex_lock(&lock);
	journal_grant(&journal);
	pthread_mutex_unlock(&lock);
	cr_expect(is_woken(&waiters[1], 0));
}

/* A commit that did not help says so again, for a checkpoint has to. */
Test(journal_room, after_a_commit_that_made_no_room_space_is_still_short)
{
	fill_ring(&waiters[0]);
	cr_assert_eq(shorts, 1);
	set_tail(journal.durable.sequence, 10);
	cr_assert(is_woken(&waiters[0], 0));
	append();
	release(0, 1);
	room = 0;
	cr_assert_not(reserve(1, &waiters[1]));
	cr_expect_eq(shorts, 2);
	settle();
	cr_expect_eq(shorts, 3);
	cr_expect(sleeps(&waiters[1]));
}

/* --- errors --- */

static void expect_dead(int error)
{
	size_t ios = strlen(ops);

	cr_expect_not(reserve(1, &waiters[10]));
	cr_expect(is_woken(&waiters[10], error));
	wait_for(journal_next_lsn(&journal) - 1, &waiters[11]);
	cr_expect(is_woken(&waiters[11], error));
	wait_for(0, &waiters[12]);
	cr_expect(is_woken(&waiters[12], error));
	kick();
	settle();
	cr_expect_eq(strlen(ops), ios, "nothing is written any more");
}

Test(journal_room, after_a_failed_data_flush_nothing_is_written)
{
	uint64_t lsn = edit(1);

	room = 3;
	cr_assert_not(reserve(4, &waiters[1]));
	wait_for(lsn, &waiters[0]);
	cr_assert_str_eq(ops, "F");
	store_mem_deliver_at(&mem, 0, 0, -EIO);
	settle();
	cr_expect(is_woken(&waiters[0], -EIO));
	cr_expect(is_woken(&waiters[1], -EIO), "who waits for room hears it as well");
	cr_expect_str_eq(ops, "F");
	cr_expect_eq(journal_durable_lsn(&journal), 999);
	cr_expect_eq(deaths, 1);
	cr_expect_eq(death, -EIO);
	expect_dead(-EIO);
}

Test(journal_room, after_a_failed_write_nothing_is_flushed)
{
	uint64_t lsn = edit(1);

	fail_write = -EIO;
	wait_for(lsn, &waiters[0]);
	wait_for(edit(1), &waiters[1]);
	settle();
	cr_expect(is_woken(&waiters[0], -EIO));
	cr_expect(is_woken(&waiters[1], -EIO));
	cr_expect_str_eq(ops, "FW");
	cr_expect_eq(journal_durable_lsn(&journal), 999);
	cr_expect_eq(deaths, 1);
	cr_expect_eq(death, -EIO);
	expect_dead(-EIO);
}

Test(journal_room, one_of_two_writes_that_fails_is_enough_and_both_are_waited_for)
{
	restart_at(TAIL - 1);
	wait_for(edit(200), &waiters[0]);
	deliver();
	cr_assert_str_eq(ops, "FWW");
	store_mem_deliver_at(&mem, 0, 0, -EIO);
	cr_expect(sleeps(&waiters[0]), "the other one's buffer is still in the store's hands");
	cr_expect_eq(deaths, 0);
	settle();
	cr_expect(is_woken(&waiters[0], -EIO));
	cr_expect_eq(deaths, 1);
	expect_dead(-EIO);
}

Test(journal_room, a_group_whose_flush_failed_is_not_durable)
{
	uint64_t lsn = edit(1);

	wait_for(lsn, &waiters[0]);
	deliver();
	deliver();
	cr_assert_str_eq(ops, "FWF");
	store_mem_deliver_at(&mem, 0, 0, -EIO);
	settle();
	cr_expect(is_woken(&waiters[0], -EIO));
	cr_expect_eq(journal_durable_lsn(&journal), 999);
	cr_expect_eq(journal.durable.lsn, 1000);
	cr_expect_eq(durables, 0);
	cr_expect_eq(flush_deaths, 1);
	expect_dead(-EIO);
}

/* The volume was latched by somebody else: what is in flight comes back and changes nothing. */
Test(journal_room, a_killed_journal_ends_its_commit_without_becoming_durable)
{
	for (int delivered = 0; delivered < 3; delivered++) {
		restart_at(TAIL);
		wait_for(edit(1), &waiters[0]);
		for (int i = 0; i < delivered; i++)
			deliver();
		kill_journal(-EIO);
		cr_expect(is_woken(&waiters[0], -EIO));
		settle();
		cr_expect_eq(journal_durable_lsn(&journal), 999);
		cr_expect_eq(strlen(ops), (size_t)delivered + 1, "%s", ops);
		kill_journal(-ENOSPC);
		cr_expect_eq(waiters[0].woken, 1);
		expect_dead(-EIO);
	}
	cr_expect_eq(durables, 0);
}

Test(journal_room, a_dead_journal_grants_nothing)
{
	room = 0;
	cr_assert_not(reserve(1, &waiters[0]));
	kill_journal(-EIO);
	cr_expect(is_woken(&waiters[0], -EIO));
	room = 100;
	pthread_mutex_lock(&lock);
	journal_grant(&journal);
	pthread_mutex_unlock(&lock);
	cr_expect_eq(waiters[0].woken, 1);
	cr_expect_eq(journal.reserved_records, 0);
}
