/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_reservation - who waits for room in the journal holds nothing that others need (I23)
 *
 * The test takes some room and queues for more than there is, so that whoever comes later waits
 * behind it: as if the ring were full for as long as the test likes.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "core/volume/volume_internal.h"
#include "tests/lib/engine.h"

#define A     0u
#define B     600u
#define HOLES 1200u
#define TAKEN JOURNAL_BATCH

static struct engine engine;
static struct wait queued;
static bool hold_reads;

static int hook(void *context, const struct store_io *io)
{
	(void)context;
	return io->op == STORE_READ && hold_reads ? MEM_HOLD : 0;
}

static void never(struct task *task)
{
	(void)task;
	cr_assert_fail("there is not so much room");
}

static void block_journal(void)
{
	struct journal *journal = &engine.volume->metadata->journal;
	bool took, waits;

	wait_init(&queued, &engine.workers[0], never);
	pthread_mutex_lock(&engine.volume->metadata->lock);
	took = journal_reserve(journal, TAKEN, &queued);
	waits = !journal_reserve(journal, journal->capacity_records, &queued);
	pthread_mutex_unlock(&engine.volume->metadata->lock);
	cr_assert(took && waits);
	engine_settle(&engine);
}

static void unblock_journal(void)
{
	pthread_mutex_lock(&engine.volume->metadata->lock);
	list_del(&queued.node);
	journal_release(&engine.volume->metadata->journal, TAKEN, TAKEN);
	pthread_mutex_unlock(&engine.volume->metadata->lock);
}

static void start_with(uint32_t ring_blocks)
{
	hold_reads = false;
	engine_init(&engine, &(struct engine_options){.ring_blocks = ring_blocks});
	engine.mem.hook = hook;
	cr_assert_eq(engine_write(&engine, A, 20, 1), 0);
	cr_assert_eq(engine_write(&engine, B, 20, 1), 0);
	cr_assert_eq(engine_flush(&engine), 0);
}

static void start(void)
{
	start_with(128);
}

static void stop(void)
{
	engine_done(&engine);
}

TestSuite(reservation, .init = start, .fini = stop);

static void submit(struct op *op, const struct request *request)
{
	*op = (struct op){.request = *request};
	op_submit(&engine, op, 0);
	engine_settle(&engine);
	cr_assert_not(op->done, "it did not wait for its turn");
}

static uint64_t bytes(uint64_t blocks)
{
	return blocks * BLOCK_BYTES;
}

/* Each kind of request that edits, on blocks that others go on to write in place and to read. */
Test(reservation, whoever_waits_for_journal_room_is_in_nobodys_way)
{
	uint8_t *data = calloc(1, bytes(4));
	const struct request waiting[] = {
		{.op = REQUEST_DISCARD, .off_bytes = bytes(A), .len_bytes = bytes(4)},
		{.op = REQUEST_ZERO, .off_bytes = bytes(A), .len_bytes = bytes(4)},
		{.op = REQUEST_WRITE, .off_bytes = bytes(A) + 5, .len_bytes = 99, .data = data},
		{.op = REQUEST_WRITE,
		 .off_bytes = bytes(HOLES),
		 .len_bytes = bytes(4),
		 .data = data},
		{.op = REQUEST_CLONE,
		 .off_bytes = bytes(A),
		 .len_bytes = bytes(4),
		 .src_off_bytes = bytes(B)},
		{.op = REQUEST_CLONE,
		 .off_bytes = bytes(HOLES),
		 .len_bytes = bytes(4),
		 .src_off_bytes = bytes(A)},
		{.op = REQUEST_SAME,
		 .off_bytes = bytes(A),
		 .len_bytes = bytes(4),
		 .src_off_bytes = bytes(B)},
	};

	for (size_t i = 0; i < sizeof(waiting) / sizeof(waiting[0]); i++) {
		struct volume_stats before, now;
		struct op op;

		block_journal();
		before = engine_stats(&engine);
		submit(&op, &waiting[i]);
		now = engine_stats(&engine);
		cr_expect_eq(now.free_bytes, before.free_bytes, "request %zu has taken blocks", i);
		cr_expect_eq(now.pending_bytes, before.pending_bytes, "request %zu", i);
		cr_expect_eq(engine_write(&engine, A, 4, 2), 0);
		cr_expect(engine_holds(&engine, A, 4, 2), "request %zu", i);
		cr_expect_eq(engine_write(&engine, B, 4, 2), 0);
		cr_expect_eq(engine_flush(&engine), 0);
		cr_expect_not(op.done);
		unblock_journal();
		cr_expect_eq(op_finish(&op), 0, "request %zu", i);
		stop();
		start();
	}
	free(data);
}

static void submit_clone(struct op *op, uint64_t src_block, uint64_t dst_block)
{
	*op = (struct op){.request = {.op = REQUEST_CLONE,
				      .off_bytes = bytes(dst_block),
				      .len_bytes = bytes(1),
				      .src_off_bytes = bytes(src_block)}};
	op_submit(&engine, op, 0);
}

/* A write that could go in place waits for a clone of its first block, and has to make room for a
 * copy when the fence is its own. Another clone, which has its room, waits for the second block:
 * would the write keep its fence, each had what the other needs. */
Test(reservation, a_write_that_finds_its_block_shared_gives_its_fence_back_to_wait_for_room)
{
	uint8_t part[9] = {1}, *data = malloc(bytes(2));
	struct op rmw, clone, write, other;

	pattern_fill(5, 2, data);
	hold_reads = true;
	op_write(&engine, &rmw, bytes(A) + 33, sizeof(part), part);
	submit_clone(&clone, A, B);
	op_write(&engine, &write, bytes(A), bytes(2), data);
	submit_clone(&other, A + 1, B + 1);
	engine_settle(&engine);
	block_journal();
	hold_reads = false;
	store_mem_release(&engine.mem, 0);
	cr_assert_eq(op_finish(&rmw), 0);
	cr_assert_eq(op_finish(&clone), 0);
	cr_assert(!op_is_stuck(&other));
	cr_assert_eq(op_finish(&other), 0);
	engine_settle(&engine);
	cr_assert_not(write.done, "it needs room for a copy");
	unblock_journal();
	cr_expect_eq(op_finish(&write), 0);
	cr_expect(engine_holds(&engine, A, 2, 5));
	cr_expect(engine_holds(&engine, B + 1, 1, 1));
	free(data);
}

/* The ring is as full as it gets without a checkpoint, and nothing is open that a commit could be
 * for: a request that needs more than is left makes room itself. */
Test(reservation, a_request_alone_makes_room_in_a_ring_of_committed_groups)
{
	for (uint32_t commits = 1; commits < 18; commits++) {
		struct op same;

		stop();
		start_with(32);
		for (uint32_t i = 0; i < commits; i++) {
			cr_assert_eq(engine_write(&engine, HOLES + 3 * i, 1, 1), 0);
			cr_assert_eq(engine_flush(&engine), 0);
		}
		op_same(&engine, &same, bytes(A), bytes(20), bytes(B));
		cr_assert(!op_is_stuck(&same), "%u commits", commits);
		cr_assert_eq(op_finish(&same), 0);
	}
}
