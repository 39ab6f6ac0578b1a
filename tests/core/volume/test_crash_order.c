/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_crash_order - what must be durable before what: one named power cut each
 *
 * The store has a volatile cache. A test brings the engine to one point, cuts the power, and says
 * what of the unflushed survives: nothing, the journal ring alone, or data blocks alone. The
 * simulator enumerates such states without names; here each rule has its own.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/volume/volume_internal.h"
#include "tests/lib/engine.h"

#define A 0u
#define B 600u
#define C 1200u

static struct engine engine;
static struct geometry geometry;
static bool hold_flushes, hold_writes, fail_homes;

static bool is_ring(void *context, uint64_t off_bytes)
{
	uint64_t block = off_bytes / BLOCK_BYTES;

	(void)context;
	return block >= geometry.ring_start && block < geometry.ring_start + geometry.ring_blocks;
}

static bool is_data(void *context, uint64_t off_bytes)
{
	(void)context;
	return geometry_is_data(&geometry, (pbn_t){off_bytes / BLOCK_BYTES});
}

static bool is_anything(void *context, uint64_t off_bytes)
{
	(void)context;
	(void)off_bytes;
	return true;
}

static bool is_no_ring(void *context, uint64_t off_bytes)
{
	return !is_ring(context, off_bytes);
}

static int hook(void *context, const struct store_io *io)
{
	uint64_t block = io->off_bytes / BLOCK_BYTES;

	(void)context;
	if (io->op == STORE_FLUSH && hold_flushes)
		return MEM_HOLD;
	if (io->op != STORE_WRITE)
		return 0;
	if (fail_homes && !is_ring(NULL, io->off_bytes) && block != 0 &&
	    block < geometry.data_start && block != geometry.super_b_start)
		return -EIO;
	return hold_writes && is_data(NULL, io->off_bytes) ? MEM_HOLD : 0;
}

static void start(void)
{
	hold_flushes = hold_writes = fail_homes = false;
	engine_init(&engine, &(struct engine_options){.cached = true, .volume = {.discard = true}});
	geometry = engine.volume->metadata->super.geometry;
	engine.mem.hook = hook;
}

static void stop(void)
{
	engine.mem.hook = NULL;
	if (engine.volume)
		engine_kill(&engine);
	engine_done(&engine);
}

TestSuite(crash_order, .init = start, .fini = stop);

static uint64_t bytes(uint64_t blocks)
{
	return blocks * BLOCK_BYTES;
}

static void cut(bool (*survives)(void *context, uint64_t off_bytes))
{
	hold_flushes = hold_writes = fail_homes = false;
	engine_cut(&engine, survives, NULL);
	cr_assert_eq(engine_open(&engine), 0, "%s", engine.damage.text);
}

static void release(void)
{
	hold_flushes = hold_writes = false;
	store_mem_release(&engine.mem, 0);
}

/* Counts from the map, against what the engine counts. */
static void expect_counts_fit(void)
{
	struct volume_stats stats = engine_stats(&engine);
	uint64_t mapped = 0, shared = 0;

	for (uint64_t i = 0; i < geometry.logical_blocks; i++) {
		uint32_t references = engine_references(&engine, i, NULL);

		mapped += references > 0;
		shared += references > 1;
	}
	cr_expect_eq(stats.mapped_bytes, bytes(mapped));
	cr_expect_eq(stats.shared_bytes, bytes(shared));
}

static struct op flush_op = {.request = {.op = REQUEST_FLUSH}};

static void begin_flush(void)
{
	flush_op = (struct op){.request = {.op = REQUEST_FLUSH}};
	op_submit(&engine, &flush_op, 0);
}

Test(crash_order, what_was_flushed_survives_whatever_else_does)
{
	bool (*const survivors[])(void *, uint64_t) = {NULL, is_ring, is_data, is_anything};

	for (int i = 0; i < 4; i++) {
		engine_write(&engine, A, 20, 1 + i);
		engine_write(&engine, B + 3, 1, 11 + i);
		cr_assert_eq(engine_flush(&engine), 0);
		cut(survivors[i]);
		cr_expect(engine_holds(&engine, A, 20, 1 + i));
		cr_expect(engine_holds(&engine, B + 3, 1, 11 + i));
		expect_counts_fit();
	}
}

/* Mutants 7 and 1: an overwrite in place makes no edit, and a flush is for it, too. */
Test(crash_order, a_flush_covers_writes_in_place)
{
	engine_write(&engine, A, 4, 1);
	engine_flush(&engine);
	engine_write(&engine, A, 4, 2);
	cr_assert_eq(engine_flush(&engine), 0);
	cut(NULL);
	cr_expect(engine_holds(&engine, A, 4, 2));
}

/* Mutant 8. */
Test(crash_order, a_flush_in_flight_does_not_cover_what_completed_after_its_submission)
{
	struct op first = {.request = {.op = REQUEST_FLUSH}};

	engine_write(&engine, A, 4, 1);
	engine_write(&engine, B, 4, 1);
	engine_flush(&engine);
	engine_write(&engine, A, 4, 2);
	hold_flushes = true;
	op_submit(&engine, &first, 0);
	cr_assert(op_is_stuck(&first));
	cr_assert_eq(engine_write(&engine, B, 4, 2), 0);
	begin_flush();
	release();
	cr_assert_eq(op_finish(&flush_op), 0);
	cr_assert_eq(op_finish(&first), 0);
	cut(NULL);
	cr_expect(engine_holds(&engine, B, 4, 2));
}

/* Mutant 3: a record that is durable names only data that is. */
Test(crash_order, a_first_write_whose_data_is_in_flight_is_in_no_record)
{
	uint8_t *data = malloc(bytes(4));
	struct op write;

	pattern_fill(1, 4, data);
	engine_write(&engine, B, 1, 5);
	hold_writes = true;
	op_write(&engine, &write, bytes(A), bytes(4), data);
	cr_assert(op_is_stuck(&write));
	cr_assert_eq(engine_flush(&engine), 0);
	cut(is_ring);
	cr_expect(engine_holds(&engine, A, 4, 0));
	free(data);
}

/* Mutant 1: a first commit, cut at each of its moments; of what is not flushed the ring survives.
 * */
static bool first_commit_cut_after(int steps)
{
	bool over;

	engine_write(&engine, A, 4, 1);
	begin_flush();
	while (steps-- > 0 && !flush_op.done)
		engine_step(&engine);
	over = flush_op.done;
	cut(is_ring);
	cr_assert(engine_holds(&engine, A, 4, 1) || (!over && engine_holds(&engine, A, 4, 0)),
		  "a record is durable, and its data is not");
	stop();
	start();
	return over;
}

Test(crash_order, data_is_durable_before_the_record_that_maps_it)
{
	int steps = 0;

	while (!first_commit_cut_after(steps))
		cr_assert(++steps < 100);
	cr_assert(steps > 3);
}

/* Mutant 52: at each moment of a commit another edit comes; in the end the ring alone survives. */
static bool ring_alone_after(int steps)
{
	bool over;

	engine_write(&engine, A, 4, 1);
	begin_flush();
	while (steps-- > 0 && !flush_op.done)
		engine_step(&engine);
	/* This edit came while the commit was under way. */
	engine_write(&engine, C, 4, 3);
	over = flush_op.done;
	store_mem_release(&engine.mem, 0);
	while (!flush_op.done)
		engine_step(&engine);
	cut(is_ring);
	cr_assert(engine_holds(&engine, A, 4, 1));
	cr_assert(engine_holds(&engine, C, 4, 0) || engine_holds(&engine, C, 4, 3),
		  "a record is durable, and its data is not");
	stop();
	start();
	return over;
}

Test(crash_order, an_edit_that_comes_during_a_commit_joins_the_next_one)
{
	int steps = 0;

	while (!ring_alone_after(steps))
		cr_assert(++steps < 100);
}

/* The write completes while the commit's data flush is in flight. */
Test(crash_order, an_edit_never_joins_a_commit_whose_data_flush_was_submitted)
{
	engine_write(&engine, A, 4, 1);
	hold_flushes = true;
	begin_flush();
	cr_assert(op_is_stuck(&flush_op));
	cr_assert_eq(engine_write(&engine, C, 4, 3), 0);
	store_mem_deliver_at(&engine.mem, 0, 0, 0); /* the data flush; the next one is held */
	engine_settle(&engine);
	cut(is_ring);
	cr_expect(engine_holds(&engine, C, 4, 0) || engine_holds(&engine, C, 4, 3));
}

/* Mutant 9. */
Test(crash_order, nothing_is_overwritten_in_place_after_an_uncommitted_unshare)
{
	engine_write(&engine, A, 4, 1);
	engine_clone(&engine, A, 4, B);
	engine_flush(&engine);
	cr_assert_eq(engine_discard(&engine, B, 4), 0);
	cr_assert_eq(engine_write(&engine, A, 4, 2), 0);
	cut(is_data);
	cr_expect(engine_holds(&engine, A, 4, 1) || engine_holds(&engine, A, 4, 2));
	cr_expect(engine_holds(&engine, B, 4, 1) || engine_holds(&engine, B, 4, 0));
}

/* Takes what can be had. Returns the blocks from 0 on that were written. */
static uint64_t fill_store(void)
{
	uint64_t block = 0;

	while (engine_write(&engine, block, 1, 1) == 0)
		block++;
	return block;
}

static void start_small(void)
{
	stop();
	engine_init(&engine, &(struct engine_options){.logical_bytes = 32ull << 20,
						      .store_bytes = 2ull << 20,
						      .cached = true,
						      .volume = {.discard = true}});
	geometry = engine.volume->metadata->super.geometry;
	engine.mem.hook = hook;
}

/* Mutant 2: at whatever moment the power goes while a full store takes a write. */
static bool reuse_cut_after(int steps)
{
	uint8_t *data = malloc(BLOCK_BYTES);
	struct op write;
	uint64_t full;
	bool over;

	start_small();
	full = fill_store();
	engine_flush(&engine);
	cr_assert_eq(engine_discard(&engine, 10, 1), 0);
	pattern_fill(2, 1, data);
	op_write(&engine, &write, bytes(full), BLOCK_BYTES, data);
	while (steps-- > 0 && !write.done)
		engine_step(&engine);
	over = write.done;
	cut(is_data);
	cr_assert(engine_holds(&engine, 10, 1, 1) || engine_holds(&engine, 10, 1, 0));
	free(data);
	free(write.request.scratch);
	return over;
}

Test(crash_order, a_freed_block_is_not_reused_before_its_record_is_durable)
{
	int steps = 0;

	while (!reuse_cut_after(steps))
		cr_assert(++steps < 100);
	cr_assert(steps > 2);
}

/* Mutant 51. */
Test(crash_order, a_durable_write_in_place_waits_for_the_edit_that_made_its_place)
{
	uint8_t *data = malloc(bytes(4));

	pattern_fill(2, 4, data);
	engine_write(&engine, A, 4, 1); /* not committed */
	cr_assert_eq(engine_write_bytes(&engine, bytes(A), bytes(4), data, true), 0);
	cut(NULL);
	cr_expect(engine_holds(&engine, A, 4, 2));
	free(data);
}

static void lasting(enum request_op kind, uint64_t block, uint32_t pattern)
{
	uint8_t *data = malloc(bytes(4));
	struct op op = {.request = {.op = kind,
				    .lasting = true,
				    .off_bytes = bytes(block),
				    .len_bytes = bytes(4),
				    .src_off_bytes = bytes(A),
				    .data = data}};

	pattern_fill(pattern, 4, data);
	op_submit(&engine, &op, 0);
	cr_assert_eq(op_finish(&op), 0);
	free(data);
}

static void kill_server(void)
{
	engine_kill(&engine);
	cr_assert_eq(engine_open(&engine), 0, "%s", engine.damage.text);
}

/* Whoever has a ublk device open never learns that another process serves it now. Power is another
 * matter: for that there is flush. */
Test(crash_order, what_was_answered_to_a_lasting_request_outlives_the_process)
{
	lasting(REQUEST_WRITE, A, 1);
	kill_server();
	cr_expect(engine_holds(&engine, A, 4, 1), "a first write");
	lasting(REQUEST_WRITE, A, 2);
	engine_write(&engine, B, 4, 1); /* not committed */
	lasting(REQUEST_WRITE, B, 2);
	kill_server();
	cr_expect(engine_holds(&engine, A, 4, 2), "in place");
	cr_expect(engine_holds(&engine, B, 4, 2), "in a place that was not committed");
	lasting(REQUEST_CLONE, C, 0);
	kill_server();
	cr_expect(engine_holds(&engine, C, 4, 2), "a clone");
	lasting(REQUEST_WRITE, C, 3);
	lasting(REQUEST_ZERO, B, 0);
	kill_server();
	cr_expect(engine_holds(&engine, C, 4, 3), "copy-on-write");
	cr_expect(engine_holds(&engine, A, 4, 2), "what it was copied from");
	cr_expect(engine_holds(&engine, B, 4, 0), "zeroes");
	lasting(REQUEST_DISCARD, A, 0);
	kill_server();
	cr_expect(engine_holds(&engine, A, 4, 0), "a discard");
	expect_counts_fit();
}

/* It is no FUA: what goes in place waits for nothing. */
Test(crash_order, a_lasting_write_in_a_committed_place_needs_no_flush)
{
	uint64_t flushes;

	engine_write(&engine, A, 4, 1);
	engine_flush(&engine);
	flushes = store_mem_ops(&engine.mem, STORE_FLUSH);
	lasting(REQUEST_WRITE, A, 2);
	cr_expect_eq(store_mem_ops(&engine.mem, STORE_FLUSH), flushes);
	cr_expect(engine_holds(&engine, A, 4, 2));
}

/* Mutants 5 and 47: each life's log is its own. */
Test(crash_order, crash_after_crash_after_recovery)
{
	for (uint32_t life = 0; life < 40; life++) {
		engine_write(&engine, A + life, 1, 1 + life);
		engine_write(&engine, B, 1, 100 + life);
		engine_flush(&engine);
		if (life % 3 == 0)
			engine_discard(&engine, B, 1);
		if (life % 4 == 0)
			engine_clone(&engine, B, 1, C + life);
		engine_flush(&engine);
		cut(life % 2 ? NULL : is_anything);
		if (life % 5 == 0)
			cut(NULL); /* nothing but recovery in between */
		for (uint32_t i = 0; i <= life; i++)
			cr_assert(engine_holds(&engine, A + i, 1, 1 + i), "life %u", life);
		cr_assert(engine_holds(&engine, B, 1, life % 3 == 0 ? 0 : 100 + life));
		expect_counts_fit();
	}
}

/* Mutant 48. */
Test(crash_order, a_replayed_merge_tells_its_source_that_it_is_shared)
{
	for (int clone = 0; clone < 2; clone++) {
		/* In leaves: the flag is in the entry. */
		engine_write(&engine, A + 7, 1, 1);
		engine_write(&engine, A + 3, 1, 1);
		engine_write(&engine, B + 7, 1, 1);
		engine_write(&engine, B + 3, 1, 1);
		engine_flush(&engine);
		engine_checkpoint(&engine);
		if (clone)
			engine_clone(&engine, A + 3, 1, B + 3);
		else
			engine_same(&engine, A + 3, 1, B + 3, NULL);
		engine_flush(&engine);
		cut(NULL);
		cr_assert_eq(engine_references(&engine, A + 3, NULL), 2);
		engine_write(&engine, A + 3, 1, 2);
		cr_expect(engine_holds(&engine, B + 3, 1, 1));
		engine_write(&engine, A + 3, 1, 1);
		stop();
		start();
	}
}

/* Mutant 49. */
Test(crash_order, a_replayed_explode_knows_what_the_run_was)
{
	engine_write(&engine, A, 100, 1);
	engine_flush(&engine);
	engine_checkpoint(&engine);
	cr_assert_eq(map_kind(&engine.volume->metadata->map, 0), REGION_LINEAR);
	engine_write(&engine, A + 300, 1, 2);
	cr_assert_eq(map_kind(&engine.volume->metadata->map, 0), REGION_LEAF);
	engine_flush(&engine);
	cut(NULL);
	cr_expect(engine_holds(&engine, A, 100, 1));
	cr_expect(engine_holds(&engine, A + 300, 1, 2));
	expect_counts_fit();
}

/* Mutant 4, I11. */
Test(crash_order, a_failed_home_write_latches_and_no_superblock_follows)
{
	uint64_t generation;

	engine_write(&engine, A, 4, 1);
	engine_flush(&engine);
	generation = volume_generation(engine.volume);
	fail_homes = true;
	engine_checkpoint(&engine);
	cr_expect_eq(engine_stats(&engine).state, VOLUME_LATCHED);
	cr_expect_eq(engine_stats(&engine).latched_error, EIO);
	cr_expect_eq(volume_generation(engine.volume), generation);
	cr_expect_eq(engine_flush(&engine), -EIO);
	cr_expect_eq(engine_write(&engine, A, 1, 2), -EIO);
	cr_expect_eq(engine_discard(&engine, A, 1), -EIO);
	cr_expect(engine_holds(&engine, A, 4, 1), "reads go on");
	fail_homes = false;
	cut(NULL);
	cr_expect(engine_holds(&engine, A, 4, 1));
	cr_expect_eq(engine_write(&engine, A, 4, 2), 0);
}

Test(crash_order, a_failed_flush_latches_and_every_later_flush_fails)
{
	engine_write(&engine, A, 4, 1);
	hold_flushes = true;
	begin_flush();
	cr_assert(op_is_stuck(&flush_op));
	store_mem_deliver_at(&engine.mem, 0, 0, -EIO);
	hold_flushes = false;
	cr_expect_eq(op_finish(&flush_op), -EIO);
	cr_expect_eq(engine_flush(&engine), -EIO);
	cr_expect_eq(engine_flush(&engine), -EIO);
	cr_expect_eq(engine_stats(&engine).state, VOLUME_LATCHED);
}

/* A checkpoint with edits published all the while, cut at each of its steps. */
static bool checkpoint_cut_after(int steps, bool (*survives)(void *context, uint64_t off_bytes))
{
	uint32_t pattern = 10;
	bool over = false;

	for (uint64_t i = 0; i < 6; i++) {
		engine_write(&engine, A + 2 * i, 1, 1);
		engine_write(&engine, B + 2 * i, 1, 1);
	}
	engine_flush(&engine);
	/* Something to commit, so that edits come between the boundary and the copies. */
	engine_write(&engine, C, 1, 1);
	volume_checkpoint(engine.volume, &engine.workers[0]);
	while (steps-- > 0 && !over) {
		over = !engine_step(&engine);
		if (pattern < 40) {
			engine_discard(&engine, B + 2 * (pattern % 6), 1);
			engine_clone(&engine, A, 1, B + 2 * (pattern % 6));
			engine_write(&engine, B + 20 + pattern, 1, pattern);
			pattern++;
		}
	}
	cut(survives);
	for (uint64_t i = 0; i < 6; i++) {
		cr_assert(engine_holds(&engine, A + 2 * i, 1, 1));
		cr_assert(engine_holds(&engine, B + 2 * i, 1, 1) ||
			  engine_holds(&engine, B + 2 * i, 1, 0));
	}
	expect_counts_fit();
	stop();
	start();
	return over || steps > 60;
}

/* Mutants 6, 43 and 45. */
Test(crash_order, a_checkpoint_cut_at_any_step_leaves_the_old_state_or_the_new_one, .timeout = 60)
{
	bool (*const survivors[])(void *, uint64_t) = {NULL, is_no_ring, is_data, is_anything};

	for (int i = 0; i < 4; i++)
		for (int steps = 0; steps < 60 && !checkpoint_cut_after(steps, survivors[i]);)
			steps++;
}

/* Mutant 46: the slot that is not named by the parent is put in the place of the one that is. */
Test(crash_order, a_stale_slot_is_damage_and_not_believed)
{
	uint8_t *old = malloc(BLOCK_BYTES), *new = malloc(BLOCK_BYTES);
	struct root_entry entry;
	uint64_t newer, older;

	engine_write(&engine, A + 3, 1, 1);
	engine_checkpoint(&engine);
	engine_write(&engine, A + 5, 1, 2);
	engine_checkpoint(&engine);
	entry = map_entry(&engine.volume->metadata->map, 0);
	cr_assert(entry.kind == REGION_LEAF && entry.written);
	newer = entry.place.v + (entry.generation & 1);
	older = entry.place.v + (~entry.generation & 1);
	cr_assert_eq(engine_close(&engine), 0);
	store_mem_peek(&engine.mem, bytes(older), old, BLOCK_BYTES);
	store_mem_peek(&engine.mem, bytes(newer), new, BLOCK_BYTES);
	cr_assert(memcmp(old, new, BLOCK_BYTES) != 0);
	store_mem_poke(&engine.mem, bytes(newer), old, BLOCK_BYTES);
	cr_assert_eq(engine_open(&engine), 0);
	cr_expect_eq(engine_read_bytes(&engine, bytes(A + 3), BLOCK_BYTES, new), -EIO);
	cr_expect(strstr(engine.log, "damage") != NULL);
	free(old);
	free(new);
}
