/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_journal - what is durable when, in which order, and that the ring never runs over
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "tests/core/metadata/journal_bed.h"

TestSuite(journal, .init = start, .fini = stop);

/* --- LSNs and the format --- */

Test(journal, it_goes_on_where_the_superblock_says)
{
	cr_expect_eq(journal_next_lsn(&journal), 1000);
	cr_expect_eq(journal_durable_lsn(&journal), 999);
	cr_expect_eq(journal_used_blocks(&journal), 0);
	cr_expect_eq(journal.durable.lsn, 1000);
	cr_expect_eq(journal.durable.sequence, TAIL);
	cr_expect_eq(journal.durable.prev, 0xabcdef);
	cr_expect_eq(journal.durable.group, 5);
	cr_expect_eq(journal.durable.counts.mapped_blocks, 11);
	cr_expect_eq(journal.durable.counts.places, 2);
}

Test(journal, each_edit_gets_the_next_lsn_and_is_not_durable_yet)
{
	cr_assert(reserve(3, &waiters[0]));
	for (uint64_t i = 0; i < 3; i++) {
		cr_expect_eq(append(), 1000 + i);
		cr_expect_eq(journal_next_lsn(&journal), 1001 + i);
	}
	settle();
	cr_expect_eq(journal_durable_lsn(&journal), 999);
	cr_expect_str_eq(ops, "");
	cr_expect_eq(journal.edits, 3);
}

Test(journal, an_edit_without_a_reservation_is_a_bug, .signal = SIGABRT)
{
	cr_assert(reserve(1, &waiters[0]));
	append();
	append();
}

Test(journal, giving_back_more_than_was_reserved_is_a_bug, .signal = SIGABRT)
{
	cr_assert(reserve(3, &waiters[0]));
	release(4, 3);
}

Test(journal, waiting_for_an_edit_that_nobody_made_is_a_bug, .signal = SIGABRT)
{
	wait_for(journal_next_lsn(&journal), &waiters[0]);
}

Test(journal, a_group_of_several_blocks_is_one_chain_and_its_last_block_says_so)
{
	uint8_t block[BLOCK_BYTES];
	uint64_t checksum;

	wait_for(edit(250), &waiters[0]);
	settle();
	cr_expect(is_woken(&waiters[0], 0));
	cr_expect_eq(expect_chain(), 1);
	for (uint32_t i = 0; i < 3; i++) {
		struct journal_header header = header_at(TAIL + i, block, &checksum);

		cr_expect_eq(header.count, i < 2 ? 100 : 50);
		cr_expect_eq(header.last, i == 2);
		cr_expect_eq(header.checkpoint, 9);
	}
	cr_expect_eq(journal_used_blocks(&journal), 3);
	cr_expect_eq(journal.blocks_written, 3);
	cr_expect_str_eq(ops, "FWF");
}

/* --- order --- */

Test(journal, a_group_is_written_after_one_flush_and_durable_after_the_next)
{
	uint64_t lsn = edit(1);

	wait_for(lsn, &waiters[0]);
	cr_expect_str_eq(ops, "F");
	deliver();
	cr_expect_str_eq(ops, "FW", "the data flush is over");
	cr_expect(sleeps(&waiters[0]) && journal_durable_lsn(&journal) < lsn);
	deliver();
	cr_expect_str_eq(ops, "FWF", "the group is written");
	cr_expect(sleeps(&waiters[0]) && journal_durable_lsn(&journal) < lsn);
	deliver();
	cr_expect(is_woken(&waiters[0], 0));
	cr_expect_eq(journal_durable_lsn(&journal), lsn);
	cr_expect_eq(durables, 1);
	cr_expect_str_eq(ops, "FWF");
}

Test(journal, all_who_wait_for_one_group_share_its_commit)
{
	uint64_t lsn[3];

	for (int i = 0; i < 3; i++)
		lsn[i] = edit(1);
	/* The first starts it, so the others' edits have to be there before. */
	for (int i = 0; i < 3; i++)
		wait_for(lsn[i], &waiters[i]);
	settle();
	for (int i = 0; i < 3; i++)
		cr_expect(is_woken(&waiters[i], 0));
	cr_expect_eq(journal.commits, 1);
	cr_expect_str_eq(ops, "FWF");
	cr_expect_eq(expect_chain(), 1);
}

Test(journal, an_edit_that_comes_after_the_data_flush_was_submitted_is_in_the_next_group)
{
	uint8_t block[BLOCK_BYTES];
	uint64_t first = edit(2), second, checksum;

	wait_for(first, &waiters[0]);
	second = edit(3);
	wait_for(second, &waiters[1]);
	while (sleeps(&waiters[0]))
		deliver();
	cr_expect_eq(journal_durable_lsn(&journal), first);
	cr_expect_eq(header_at(TAIL, block, &checksum).count, 2);
	cr_expect(sleeps(&waiters[1]));
	settle();
	cr_expect(is_woken(&waiters[1], 0));
	cr_expect_eq(journal_durable_lsn(&journal), second);
	cr_expect_eq(expect_chain(), 2);
}

/* The flush that makes one group durable is the data flush of the next: it is submitted after the
 * next one was frozen. */
Test(journal, a_busy_journal_pays_one_flush_a_commit)
{
	wait_for(edit(1), &waiters[0]);
	for (unsigned i = 1; i < 10; i++) {
		wait_for(edit(1), &waiters[i]);
		while (sleeps(&waiters[i - 1]))
			deliver();
	}
	settle();
	cr_expect(is_woken(&waiters[9], 0));
	cr_expect_eq(journal.commits, 10);
	cr_expect_str_eq(ops, "FWFWFWFWFWFWFWFWFWFWF");
	cr_expect_eq(expect_chain(), 10);
}

/* The group's flush is out already: it covers nothing that completed since. */
Test(journal, an_edit_that_comes_during_the_last_flush_gets_a_data_flush_of_its_own)
{
	wait_for(edit(1), &waiters[0]);
	deliver();
	deliver();
	cr_assert_str_eq(ops, "FWF");
	wait_for(edit(1), &waiters[1]);
	cr_expect_str_eq(ops, "FWF");
	deliver();
	cr_expect(is_woken(&waiters[0], 0));
	cr_expect_str_eq(ops, "FWFF");
	settle();
	cr_expect(is_woken(&waiters[1], 0));
	cr_expect_str_eq(ops, "FWFFWF");
}

Test(journal, an_edit_that_nobody_asked_for_waits_for_a_commit_of_its_own)
{
	uint64_t first = edit(1);

	wait_for(first, &waiters[0]);
	edit(1);
	settle();
	cr_expect_eq(journal_durable_lsn(&journal), first);
	cr_expect_str_eq(ops, "FWF");
}

Test(journal, what_is_durable_is_not_waited_for)
{
	uint64_t lsn = edit(1);

	wait_for(lsn, &waiters[0]);
	settle();
	edit(1);
	wait_for(lsn, &waiters[1]);
	cr_expect(is_woken(&waiters[1], 0));
	wait_for(0, &waiters[2]);
	cr_expect(is_woken(&waiters[2], 0));
	cr_expect_str_eq(ops, "FWF");
}

Test(journal, a_flush_follows_unless_the_one_that_makes_it_durable_is_submitted)
{
	uint64_t first, second;

	cr_expect_not(flush_follows(999));
	first = edit(1);
	cr_expect(flush_follows(first));
	wait_for(first, &waiters[0]);
	cr_expect(flush_follows(first), "the data flush is not the one that counts");
	deliver();
	cr_expect(flush_follows(first), "the group is being written");
	deliver();
	second = edit(1);
	cr_expect_not(flush_follows(first), "its flush is out");
	cr_expect(flush_follows(second));
	settle();
	cr_expect_not(flush_follows(first));
	kill_journal(-EIO);
	cr_expect_not(flush_follows(second));
}

Test(journal, a_kick_commits_all_there_is_and_nothing_if_there_is_nothing)
{
	uint64_t lsn;

	kick();
	cr_expect_str_eq(ops, "");
	lsn = edit(2);
	kick();
	kick();
	settle();
	cr_expect_eq(journal_durable_lsn(&journal), lsn);
	cr_expect_str_eq(ops, "FWF");
}

Test(journal, a_kick_during_a_commit_makes_another_one_follow)
{
	uint64_t lsn;

	edit(1);
	kick();
	lsn = edit(1);
	kick();
	settle();
	cr_expect_eq(journal_durable_lsn(&journal), lsn);
	cr_expect_eq(journal.commits, 2);
}

/* What a checkpoint takes as its boundary has to be that of the durable group, not of now. */
Test(journal, the_boundary_is_the_end_of_the_durable_group_with_its_counters)
{
	uint8_t block[BLOCK_BYTES];
	uint64_t checksum;

	edit(150);
	journal.counts = (struct journal_counts){160, 3};
	kick();
	journal.counts = (struct journal_counts){170, 4};
	edit(10);
	deliver();
	deliver();
	cr_expect_eq(journal.durable.lsn, 1000, "not before the flush");
	settle();
	cr_expect_eq(journal.durable.lsn, 1150);
	cr_expect_eq(journal.durable.sequence, TAIL + 2);
	cr_expect_eq(journal.durable.group, 6);
	cr_expect_eq(journal.durable.counts.mapped_blocks, 160);
	cr_expect_eq(journal.durable.counts.places, 3);
	header_at(TAIL + 1, block, &checksum);
	cr_expect_eq(journal.durable.prev, checksum);
}

/* --- the ring --- */

Test(journal, a_group_goes_round_the_end_of_the_ring_in_two_writes)
{
	restart_at(TAIL - 4);
	wait_for(edit(600), &waiters[0]);
	deliver();
	cr_assert_str_eq(ops, "FWW");
	cr_expect_eq(store_mem_get(&mem, 0, 0)->off_bytes,
		     blocks_to_bytes(super.geometry.ring_start + RING_BLOCKS - 4));
	cr_expect_eq(store_mem_get(&mem, 0, 0)->len_bytes, blocks_to_bytes(4));
	cr_expect_eq(store_mem_get(&mem, 0, 1)->off_bytes,
		     blocks_to_bytes(super.geometry.ring_start));
	cr_expect_eq(store_mem_get(&mem, 0, 1)->len_bytes, blocks_to_bytes(2));
	store_mem_deliver_at(&mem, 0, 1, 0);
	worker_run(&worker);
	cr_expect_str_eq(ops, "FWW", "no flush before both are written");
	settle();
	cr_expect_str_eq(ops, "FWWF");
	cr_expect(is_woken(&waiters[0], 0));
	cr_expect_eq(expect_chain(), 1);
}

Test(journal, a_group_that_ends_with_the_ring_is_one_write)
{
	restart_at(TAIL - 4);
	wait_for(edit(400), &waiters[0]);
	settle();
	wait_for(edit(1), &waiters[1]);
	settle();
	cr_expect_str_eq(ops, "FWFFWF");
	cr_expect_eq(expect_chain(), 2);
}

Test(journal, a_full_ring_grants_nothing_until_the_tail_moves)
{
	unsigned commits = fill_ring(&waiters[0]);

	cr_expect(commits > RING_BLOCKS * 3 / 4, "%u commits", commits);
	cr_expect_eq(journal_used_blocks(&journal), commits);
	cr_expect_eq(shorts, 1);
	settle();
	cr_expect(sleeps(&waiters[0]));
	set_tail(journal.durable.sequence, 10);
	cr_expect(is_woken(&waiters[0], 0));
	cr_expect_eq(journal_used_blocks(&journal), 0);
	append();
	release(0, 1);
}

/* Batches as long as they are granted, up to this many. Returns the last LSN. */
static uint64_t edit_while_granted(uint32_t batches, struct waiter *waiter)
{
	while (batches-- > 0 && reserve(JOURNAL_BATCH, waiter)) {
		for (uint32_t i = 0; i < JOURNAL_BATCH; i++)
			append();
		release(0, JOURNAL_BATCH);
	}
	return journal_next_lsn(&journal) - 1;
}

/* However full the ring is: what is published and not committed yet counts as well, be it frozen or
 * not. */
Test(journal, edits_that_wait_for_their_commit_have_their_room_in_the_ring)
{
	for (unsigned commits = 20; commits < RING_BLOCKS; commits++) {
		uint64_t lsn;

		restart_at(TAIL);
		for (unsigned i = 0; i < commits && reserve(1, &waiters[0]); i++) {
			append();
			release(0, 1);
			kick();
			settle();
		}
		edit_while_granted(20, &waiters[1]);
		kick();
		lsn = edit_while_granted(UINT32_MAX, &waiters[2]);
		settle();
		cr_assert(journal_used_blocks(&journal) <= RING_BLOCKS);
		cr_assert_eq(journal_durable_lsn(&journal), lsn);
		expect_chain();
	}
}

/* Round and round: each block is written where it belongs, none before its tail has moved on. */
Test(journal, the_ring_is_used_again_behind_the_tail)
{
	uint8_t block[BLOCK_BYTES];
	uint64_t checksum, before;

	for (unsigned round = 0; round < 5; round++) {
		struct waiter *waiter = &waiters[round];

		fill_ring(waiter);
		cr_assert(journal_used_blocks(&journal) <= RING_BLOCKS);
		/* All from the tail on is still there. */
		for (uint64_t s = journal.tail_sequence; s < journal.sequence; s++)
			cr_assert_eq(header_at(s, block, &checksum).sequence, s);
		before = journal.durable.sequence;
		set_tail(before, 10 + round);
		cr_assert(is_woken(waiter, 0));
		append();
		release(0, 1);
		kick();
		settle();
		cr_assert_eq(header_at(before, block, &checksum).checkpoint, 10 + round);
	}
	cr_expect(journal.sequence > TAIL + 2 * RING_BLOCKS);
}

Test(journal, a_tail_beyond_what_is_written_is_a_bug, .signal = SIGABRT)
{
	set_tail(TAIL + 1, 10);
}

Test(journal, a_tail_that_goes_back_is_a_bug, .signal = SIGABRT)
{
	set_tail(TAIL - 1, 10);
}

Test(journal, a_new_life_writes_its_own_epoch)
{
	super.epoch = 8;
	pthread_mutex_lock(&lock);
	journal_restart(&journal, 8);
	pthread_mutex_unlock(&lock);
	wait_for(edit(1), &waiters[0]);
	settle();
	cr_expect_eq(expect_chain(), 1);
}

Test(journal, a_new_life_with_edits_of_the_old_one_is_a_bug, .signal = SIGABRT)
{
	edit(1);
	journal_restart(&journal, 8);
}
