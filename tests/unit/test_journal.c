/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_journal - what is durable when, in which order, and that the ring never runs over
 *
 * A journal and a flusher on a disk in memory, without a volume: the test is the volume. Each I/O
 * is noted as it is submitted (F a flush, W a write), and is delivered when the test says so.
 * Record n of the log is a MAP of logical block n, so that what lies in the ring can be recognised.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "core/journal.h"
#include "tests/lib/store_mem.h"

#define RING_BLOCKS 32u
#define GROUP_MAX   (RING_BLOCKS / 4 * JOURNAL_RECORDS) /* records */
#define TAIL	    (5ull * RING_BLOCKS) /* sequence at which the ring begins anew */
#define WAITERS	    64u

struct waiter {
	struct wait wait;
	unsigned woken; /* how many times */
	unsigned order; /* the first to be woken has 1 */
	int res;
};

static struct store_mem mem;
static struct worker worker;
static struct super super;
static struct flusher flusher;
static struct journal journal;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct waiter waiters[WAITERS];
static char ops[4096];
static int fail_flush, fail_write;
static unsigned wakes, shorts, durables, deaths, flush_deaths;
static int death;
static uint32_t room;

static int note_io(void *context, const struct store_io *io)
{
	size_t used = strlen(ops);

	(void)context;
	cr_assert(used + 1 < sizeof(ops));
	ops[used] = io->op == STORE_FLUSH ? 'F' : io->op == STORE_WRITE ? 'W' : '?';
	return io->op == STORE_FLUSH ? fail_flush : fail_write;
}

static void note_durable(void *context, struct worker *on)
{
	cr_assert(context == &super && on == &worker);
	durables++;
}

static void note_short(void *context, struct worker *on)
{
	cr_assert(context == &super && on == &worker);
	shorts++;
}

static void note_death(void *context, int error)
{
	cr_assert(context == &super);
	deaths++;
	death = error;
}

static void note_flush_death(void *context, int error)
{
	(void)context;
	(void)error;
	flush_deaths++;
}

static uint32_t tell_room(void *context)
{
	cr_assert(context == &super);
	return room;
}

static void woken(struct task *task)
{
	struct wait *wait = container_of(task, struct wait, task);
	struct waiter *waiter = container_of(wait, struct waiter, wait);

	waiter->woken++;
	waiter->order = ++wakes;
	waiter->res = wait->res;
}

static void start_at(uint64_t tail_sequence)
{
	super = (struct super){
		.uuid = "sixteen octets..",
		.checkpoint = 9,
		.epoch = 7,
		.tail_sequence = tail_sequence,
		.tail_lsn = 1000,
		.tail_prev = 0xabcdef,
		.tail_group = 5,
		.mapped_blocks = 11,
		.places = 2,
	};
	cr_assert_eq(geometry_plan(4096, 2048, RING_BLOCKS, &super.geometry), 0);
	store_mem_init(&mem, blocks_to_bytes(super.geometry.store_blocks), 1, 0);
	mem.hook = note_io;
	worker_init(&worker, 0);
	flusher_init(&flusher, &mem.store, &lock, note_flush_death, &super);
	cr_assert_eq(journal_init(&journal, &mem.store, &super, &flusher, &lock), 0);
	journal.on_durable = note_durable;
	journal.on_short = note_short;
	journal.failed = note_death;
	journal.pending_room = tell_room;
	journal.context = &super;
	room = 10000;
	for (unsigned i = 0; i < WAITERS; i++)
		wait_init(&waiters[i].wait, &worker, woken);
}

static void start(void)
{
	start_at(TAIL);
}

static void stop(void)
{
	journal_done(&journal);
	store_mem_done(&mem);
}

static void kill_journal(int error)
{
	pthread_mutex_lock(&lock);
	journal_kill(&journal, error);
	pthread_mutex_unlock(&lock);
}

/* Another one, as if nothing had been. */
static void restart_at(uint64_t tail_sequence)
{
	kill_journal(-EIO);
	while (worker_run(&worker))
		;
	stop();
	memset(waiters, 0, sizeof(waiters));
	memset(ops, 0, sizeof(ops));
	wakes = 0;
	start_at(tail_sequence);
}

TestSuite(journal, .init = start, .fini = stop);

/* --- driving --- */

static bool step(void)
{
	return worker_run(&worker) || store_mem_deliver(&mem, 0);
}

static void settle(void)
{
	while (step())
		;
	cr_assert_eq(store_mem_in_flight(&mem, 0), 0);
}

/* Delivers one I/O, and runs what that made ready. */
static void deliver(void)
{
	while (worker_run(&worker))
		;
	cr_assert(store_mem_deliver(&mem, 0));
	while (worker_run(&worker))
		;
}

static bool reserve(uint32_t records, struct waiter *waiter)
{
	bool reserved;

	pthread_mutex_lock(&lock);
	reserved = journal_reserve(&journal, records, &waiter->wait);
	pthread_mutex_unlock(&lock);
	return reserved;
}

static void release(uint32_t unused_records, uint32_t records)
{
	pthread_mutex_lock(&lock);
	journal_release(&journal, unused_records, records);
	pthread_mutex_unlock(&lock);
}

static uint64_t append(void)
{
	struct record record = {
		.kind = RECORD_MAP,
		.count = 1,
		.lbn = {journal_next_lsn(&journal)},
		.new = {super.geometry.data_start + 2},
	};
	uint64_t lsn;

	pthread_mutex_lock(&lock);
	lsn = journal_append(&journal, &record);
	pthread_mutex_unlock(&lock);
	return lsn;
}

/* As many edits, in batches as requests make them. Returns the last one's LSN. */
static uint64_t edit(uint32_t records)
{
	uint64_t lsn = 0;

	while (records > 0) {
		uint32_t batch = min_u32(records, JOURNAL_BATCH);

		cr_assert(reserve(batch, &waiters[WAITERS - 1]));
		for (uint32_t i = 0; i < batch; i++)
			lsn = append();
		release(0, batch);
		records -= batch;
	}
	return lsn;
}

static void wait_for(uint64_t lsn, struct waiter *waiter)
{
	pthread_mutex_lock(&lock);
	journal_wait(&journal, lsn, &waiter->wait);
	pthread_mutex_unlock(&lock);
}

static void kick(void)
{
	pthread_mutex_lock(&lock);
	journal_kick(&journal, &worker);
	pthread_mutex_unlock(&lock);
}

static void set_tail(uint64_t tail_sequence, uint64_t checkpoint)
{
	pthread_mutex_lock(&lock);
	journal_set_tail(&journal, tail_sequence, checkpoint);
	pthread_mutex_unlock(&lock);
}

static bool flush_follows(uint64_t lsn)
{
	return journal_flush_follows(&journal, lsn);
}

static bool is_woken(const struct waiter *waiter, int res)
{
	while (worker_run(&worker))
		;
	return waiter->woken == 1 && waiter->res == res;
}

static bool sleeps(const struct waiter *waiter)
{
	while (worker_run(&worker))
		;
	return waiter->woken == 0;
}

static struct journal_header header_at(uint64_t sequence, uint8_t *block, uint64_t *ret_checksum)
{
	struct journal_header header;
	struct why why;

	store_mem_peek(
		&mem,
		blocks_to_bytes(super.geometry.ring_start + sequence % super.geometry.ring_blocks),
		block, BLOCK_BYTES);
	cr_assert(journal_verify(block, super.uuid, &header, ret_checksum, &why), "%s, not %s",
		  why.found, why.expected);
	return header;
}

/* The log in the ring, from the superblock's tail to where the journal is: a chain without a gap.
 * Returns the groups. */
static unsigned expect_chain(void)
{
	uint64_t lsn = super.tail_lsn, prev = super.tail_prev, checksum;
	unsigned groups = 0;
	uint8_t block[BLOCK_BYTES];
	struct record record;
	struct why why;

	for (uint64_t s = super.tail_sequence; s < journal.sequence; s++) {
		struct journal_header header = header_at(s, block, &checksum);

		cr_assert_eq(header.epoch, super.epoch);
		cr_assert_eq(header.sequence, s);
		cr_assert_eq(header.first_lsn, lsn);
		cr_assert_eq(header.prev, prev);
		cr_assert_eq(header.group, super.tail_group + groups);
		cr_assert(header.count == JOURNAL_RECORDS || header.last);
		for (uint32_t i = 0; i < header.count; i++) {
			cr_assert(record_get(block, i, &super.geometry, &record, &why));
			cr_assert_eq(record.lbn.v, lsn + i);
		}
		lsn += header.count;
		prev = checksum;
		groups += header.last;
	}
	cr_assert_eq(lsn, journal_durable_lsn(&journal) + 1);
	return groups;
}

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

/* Commits of one edit until no more fit. Returns how many. */
static unsigned fill_ring(struct waiter *waiter)
{
	unsigned commits = 0;

	while (reserve(1, waiter)) {
		append();
		release(0, 1);
		kick();
		settle();
		cr_assert(++commits <= RING_BLOCKS);
	}
	return commits;
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

Test(journal, whatever_was_granted_finds_room_in_the_ring)
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

Test(journal, a_reservation_given_back_is_granted_again_in_order)
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
Test(journal, who_comes_while_others_wait_has_to_wait)
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

Test(journal, a_release_gives_back_all_of_it)
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
Test(journal, a_full_group_is_committed_for_who_waits_for_room)
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
Test(journal, no_more_records_are_granted_than_dropped_runs_can_be_queued)
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
Test(journal, after_a_commit_that_made_no_room_space_is_still_short)
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

Test(journal, after_a_failed_data_flush_nothing_is_written)
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

Test(journal, after_a_failed_write_nothing_is_flushed)
{
	uint64_t lsn = edit(1);

	fail_write = -ENOSPC;
	wait_for(lsn, &waiters[0]);
	wait_for(edit(1), &waiters[1]);
	settle();
	cr_expect(is_woken(&waiters[0], -ENOSPC));
	cr_expect(is_woken(&waiters[1], -ENOSPC));
	cr_expect_str_eq(ops, "FW");
	cr_expect_eq(journal_durable_lsn(&journal), 999);
	cr_expect_eq(deaths, 1);
	cr_expect_eq(death, -ENOSPC);
	expect_dead(-ENOSPC);
}

Test(journal, one_of_two_writes_that_fails_is_enough_and_both_are_waited_for)
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

Test(journal, a_group_whose_flush_failed_is_not_durable)
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
Test(journal, a_killed_journal_ends_its_commit_without_becoming_durable)
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
		cr_expect_eq(strlen(ops), delivered + 1, "%s", ops);
		kill_journal(-ENOSPC);
		cr_expect_eq(waiters[0].woken, 1);
		expect_dead(-EIO);
	}
	cr_expect_eq(durables, 0);
}

Test(journal, a_dead_journal_grants_nothing)
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
