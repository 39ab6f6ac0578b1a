/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_sweep - what is free is given back to the backing in the end, whatever came between
 *
 * store_mem tells: what was never written reads 0xee, what was given back 0xdd. So where all of the
 * volume is a hole, each data block reads as one of these, or it was forgotten.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "core/volume/volume_internal.h"
#include "tests/lib/engine.h"

static struct engine engine;
static bool hold_discards, hold_writes;
static int discard_error;
static uint64_t asked; /* the round */

static int hook(void *context, const struct store_io *io)
{
	(void)context;
	if (io->op != STORE_DISCARD)
		return hold_writes && io->op == STORE_WRITE ? MEM_HOLD : 0;
	return hold_discards ? MEM_HOLD : discard_error;
}

static void start(const struct engine_options *options)
{
	struct engine_options all = *options;

	all.volume.discard = true;
	hold_discards = hold_writes = false;
	discard_error = 0;
	engine_init(&engine, &all);
	engine.mem.hook = hook;
}

static void release(void)
{
	hold_discards = false;
	store_mem_release(&engine.mem, 0);
	engine_settle(&engine);
}

static void tick(void)
{
	volume_tick(engine.volume, &engine.workers[0]);
	engine_settle(&engine);
}

/* Ticks until nothing is due. */
static void rest(void)
{
	for (unsigned i = 0; i < 20 && (i < 2 || engine_stats(&engine).giveback_due_bytes > 0); i++)
		tick();
	cr_expect_eq(engine_stats(&engine).giveback_due_bytes, 0);
}

static void reopen_after_kill(void)
{
	engine_kill(&engine);
	hold_discards = false;
	cr_assert_eq(engine_open(&engine), 0, "%s", engine.damage.text);
}

/* Free data blocks that the backing still holds. */
static uint64_t kept(void)
{
	const struct geometry *g = &engine.volume->metadata->super.geometry;
	uint64_t count = 0;

	for (uint32_t slab = 0; slab < g->slabs; slab++)
		for (uint32_t i = 0; i < geometry_slab_blocks(g, slab); i++) {
			pbn_t pbn = geometry_slab_pbn(g, slab, i);
			struct frame *frame = refs_frame(&engine.volume->metadata->refs, pbn);
			uint8_t byte;

			store_mem_peek(&engine.mem, pbn_off_bytes(pbn), &byte, 1);
			count += byte != 0xee && byte != 0xdd &&
				 (frame == NULL || frame->counts[i] == 0);
		}
	return count;
}

static void empty(void)
{
	uint64_t blocks = engine.volume->metadata->super.geometry.logical_blocks;

	cr_assert_eq(engine_discard(&engine, 0, blocks), 0);
	cr_assert_eq(engine_flush(&engine), 0);
	engine_checkpoint(&engine); /* places too */
	engine_settle(&engine);
}

/* Data that was written when the server was killed before the commit, into a slab that was never
 * used and into one of which the store says that nothing is due; also where the next life ends
 * before it came to that. */
Test(sweep, what_was_written_and_never_committed_is_given_back_after_a_kill)
{
	for (unsigned i = 0; i < 4; i++) {
		bool used = i % 2, brief = i / 2;

		start(&(struct engine_options){0});
		if (used) {
			cr_assert_eq(engine_write(&engine, 0, 512, 1), 0);
			empty();
			engine_reopen(&engine);
			rest();
			engine_reopen(&engine);
			cr_expect_eq(engine_stats(&engine).giveback_due_bytes, 0);
		}
		cr_assert_eq(engine_write(&engine, 0, 100, 2), 0);
		reopen_after_kill();
		cr_expect(engine_holds(&engine, 0, 100, 0));
		cr_expect_geq(kept(), 100);
		if (brief)
			engine_reopen(&engine);
		rest();
		cr_expect_eq(kept(), 0, "used %u, brief %u: %lu", used, brief, kept());
		/* Its pages were not made for that. */
		for (uint32_t slab = 0; slab < engine.volume->metadata->super.geometry.slabs;
		     slab++)
			cr_expect(used ||
				  engine.volume->metadata->refs.slabs[slab].generation == 0);
		engine_done(&engine);
	}
}

/* A stop that is clean says exactly what is due, and nothing is where all was given back. */
Test(sweep, what_is_due_outlives_a_clean_stop_and_what_is_not_is_not_made_due)
{
	start(&(struct engine_options){0});
	cr_assert_eq(engine_write(&engine, 0, 1024, 1), 0);
	discard_error = -EIO;
	empty();
	cr_expect_eq(engine_stats(&engine).giveback_due_bytes, 0);
	cr_expect_geq(engine_stats(&engine).giveback_failed_bytes, blocks_to_bytes(1024));
	rest();
	discard_error = 0;
	engine_reopen(&engine);
	cr_expect_geq(engine_stats(&engine).giveback_due_bytes, blocks_to_bytes(1024));
	cr_expect_geq(kept(), 1024);
	rest();
	cr_expect_eq(kept(), 0);
	engine_reopen(&engine);
	cr_expect_eq(engine_stats(&engine).giveback_due_bytes, 0);
	engine_done(&engine);
}

/* The queue of what is given back holds so many runs. */
Test(sweep, what_does_not_fit_into_the_queue_is_given_back_later)
{
	start(&(struct engine_options){0});
	for (uint64_t i = 0; i < 512; i += 2)
		cr_assert_eq(engine_write(&engine, i, 1, 1), 0);
	engine.volume->metadata->pending.giveback.capacity = 16;
	hold_discards = true;
	empty();
	cr_expect_gt(engine_stats(&engine).giveback_due_bytes, 0);
	cr_expect_gt(kept(), 200);
	release();
	rest();
	cr_expect_eq(kept(), 0);
	engine_done(&engine);
}

/* Blocks that are reserved have their turn later, and clients keep what they were given. */
Test(sweep, reserved_blocks_are_neither_forgotten_nor_given_back_under_a_write)
{
	start(&(struct engine_options){0});
	cr_assert_eq(engine_write(&engine, 0, 1024, 1), 0);
	engine.volume->metadata->pending.discard = false; /* all is left */
	empty();
	engine.volume->metadata->pending.discard = true;
	cr_assert_eq(engine_write(&engine, 700, 3, 2), 0); /* a window, on stale blocks */
	hold_discards = true;
	tick();
	cr_assert_gt(store_mem_in_flight(&engine.mem, 0), 0);
	cr_assert_eq(engine_write(&engine, 2000, 1, 3), 0); /* another one, meanwhile */
	cr_assert_eq(engine_write(&engine, 40, 1, 4), 0);
	release();
	rest();
	cr_expect_eq(kept(), 0);
	cr_expect(engine_holds(&engine, 700, 3, 2) && engine_holds(&engine, 2000, 1, 3) &&
		  engine_holds(&engine, 40, 1, 4));
	engine_done(&engine);
}

/* I3: a crash undoes the discard, and what it freed must be there. */
Test(sweep, what_is_not_freed_durably_is_not_given_back)
{
	start(&(struct engine_options){0});
	cr_assert_eq(engine_write(&engine, 0, 64, 1), 0);
	engine_checkpoint(&engine);
	cr_assert_eq(engine_discard(&engine, 0, 64), 0);
	hold_writes = true; /* the record's among them */
	cr_assert_eq(volume_trim(engine.volume, &asked), 0);
	tick();
	tick();
	hold_writes = false;
	engine_kill(&engine);
	cr_assert_eq(engine_open(&engine), 0, "%s", engine.damage.text);
	cr_expect(engine_holds(&engine, 0, 64, 1));
	engine_done(&engine);
}

/* I13: also of a slab that was never used, whose page is absent. */
Test(sweep, a_slab_is_not_handed_out_while_it_is_given_back)
{
	pbn_t pbn;

	start(&(struct engine_options){.logical_bytes = 24ull << 20});
	cr_assert_eq(volume_trim(engine.volume, &asked), 0);
	hold_discards = true;
	tick();
	cr_assert_eq(store_mem_in_flight(&engine.mem, 0), 1);
	cr_assert_eq(engine_write(&engine, 0, 64, 1), 0);
	engine_references(&engine, 0, &pbn);
	cr_expect_neq(geometry_slab(&engine.volume->metadata->super.geometry, pbn), 0);
	release();
	rest();
	cr_expect(engine_holds(&engine, 0, 64, 1));
	cr_expect_eq(
		engine_stats(&engine).free_bytes + engine_stats(&engine).used_bytes +
			blocks_to_bytes(2 * engine.volume->metadata->journal.counts.places),
		blocks_to_bytes(geometry_data_blocks(&engine.volume->metadata->super.geometry)));
	engine_done(&engine);
}

/* Who needs the blocks gets them, without an error. */
Test(sweep, a_writer_who_needs_all_the_space_waits_for_a_discard_at_most)
{
	uint64_t blocks;
	struct op op;

	start(&(struct engine_options){.logical_bytes = 2ull << 20, .store_bytes = 0});
	blocks = engine.volume->metadata->super.geometry.logical_blocks;
	cr_assert_eq(volume_trim(engine.volume, &asked), 0);
	hold_discards = true;
	tick();
	cr_assert_gt(store_mem_in_flight(&engine.mem, 0), 0);
	op_write(&engine, &op, 0, blocks_to_bytes(blocks), engine.scratch);
	memset(engine.scratch, 7, blocks_to_bytes(blocks));
	cr_assert(op_is_stuck(&op));
	hold_discards = false;
	store_mem_release(&engine.mem, 0);
	cr_expect_eq(op_finish(&op), 0);
	rest();
	engine_done(&engine);
}

/* One whose counts cannot be read is left, told by a counter, and keeps nobody busy. */
Test(sweep, a_slab_whose_page_is_damaged_is_tried_once)
{
	const struct geometry *g;
	uint8_t bad[BLOCK_BYTES];
	uint64_t reads;

	memset(bad, 0x5a, sizeof(bad));
	start(&(struct engine_options){0});
	g = &engine.volume->metadata->super.geometry;
	cr_assert_eq(engine_write(&engine, 0, 8, 1), 0);
	engine_reopen(&engine);
	g = &engine.volume->metadata->super.geometry;
	for (uint32_t i = 0; i < 2; i++)
		store_mem_poke(&engine.mem, blocks_to_bytes(geometry_refs_block(g, 0, i)), bad,
			       sizeof(bad));
	cr_assert_eq(volume_trim(engine.volume, &asked), 0);
	rest();
	cr_expect_gt(engine_stats(&engine).giveback_failed_bytes, 0);
	reads = engine_stats(&engine).metadata_reads;
	tick();
	tick();
	cr_expect_eq(engine_stats(&engine).metadata_reads, reads);
	engine_done(&engine);
}

/* A place that was given back waits for a checkpoint; where nothing else is done, one comes. */
Test(sweep, an_idle_volume_has_nothing_pending)
{
	uint64_t before;

	start(&(struct engine_options){0});
	before = engine_stats(&engine).checkpoints;
	cr_assert_eq(engine_write(&engine, 0, 700, 1), 0);
	cr_assert_eq(engine_discard(&engine, 0, 1024), 0);
	cr_expect_gt(engine_stats(&engine).pending_bytes, 0);
	for (unsigned i = 0; i < 10; i++)
		tick();
	cr_expect_eq(engine_stats(&engine).pending_bytes, 0);
	cr_expect_eq(kept(), 0);
	/* One that comes for nothing would wear the backing. */
	cr_expect_eq(engine_stats(&engine).checkpoints, before + 1);
	engine_done(&engine);
}

/* Whoever asks is told when it is done: not by a round that was under way. */
Test(sweep, the_round_that_is_answered_has_given_all_back)
{
	start(&(struct engine_options){.logical_bytes = 24ull << 20});
	cr_assert_eq(volume_trim(engine.volume, &asked), 0);
	cr_expect_eq(asked, 1);
	hold_discards = true;
	tick();
	cr_assert_eq(engine_stats(&engine).giveback_rounds, 0);
	cr_assert_eq(engine_write(&engine, 0, 512, 1), 0);
	engine.volume->metadata->pending.discard = false; /* it is left */
	empty();
	engine.volume->metadata->pending.discard = true;
	cr_assert_eq(volume_trim(engine.volume, &asked), 0);
	cr_expect_eq(asked, 2);
	release();
	while (engine_stats(&engine).giveback_rounds < asked)
		tick();
	cr_expect_eq(kept(), 0);
	engine_done(&engine);
}

/* As some filesystems do, whatever they said before. */
Test(sweep, a_store_that_takes_no_discards_keeps_nobody_waiting)
{
	start(&(struct engine_options){.logical_bytes = 24ull << 20});
	discard_error = -EOPNOTSUPP;
	cr_assert_eq(volume_trim(engine.volume, &asked), 0);
	tick();
	tick();
	cr_expect_geq(engine_stats(&engine).giveback_rounds, asked);
	cr_expect_eq(engine_stats(&engine).giveback_due_bytes, 0);
	cr_expect_gt(engine_stats(&engine).giveback_failed_bytes, 0);
	cr_expect_eq(volume_trim(engine.volume, &asked), -EOPNOTSUPP);
	engine_done(&engine);
}

/* A stop ends it where it is; the next life goes on. */
Test(sweep, a_stop_does_not_wait_until_all_is_given_back)
{
	uint64_t discards;

	start(&(struct engine_options){.logical_bytes = 24ull << 20});
	cr_assert_eq(volume_trim(engine.volume, &asked), 0);
	hold_discards = true;
	tick();
	cr_assert_eq(store_mem_in_flight(&engine.mem, 0), 1);
	discards = store_mem_ops(&engine.mem, STORE_DISCARD);
	volume_end_trim(engine.volume);
	release();
	cr_expect_eq(store_mem_ops(&engine.mem, STORE_DISCARD), discards);
	engine_done(&engine);
}

/* Before: "low on space: 0 bytes of the store are free" in the log of an empty store. */
Test(sweep, what_is_given_back_is_no_want_of_space)
{
	start(&(struct engine_options){.logical_bytes = 2ull << 20});
	cr_assert_eq(volume_trim(engine.volume, &asked), 0);
	hold_discards = true;
	tick();
	cr_assert_gt(store_mem_in_flight(&engine.mem, 0), 0);
	cr_expect_eq(engine_stats(&engine).state, VOLUME_OK, "%s", engine.log);
	release();
	engine_done(&engine);
}

/* Before: a place that was put back for a page that the data needed made its slab due, and each
 * tick gave back, and took from who wrote there, what had never been written. */
Test(sweep, first_writes_make_nothing_due)
{
	start(&(struct engine_options){.logical_bytes = 200ull << 20,
				       .volume = {.cache_bytes = 1ull << 20}});
	for (uint64_t i = 0; i < 50; i++)
		cr_assert_eq(engine_write(&engine, (i * 2 + 1) * REGION_BLOCKS + 9, 1, 1), 0);
	cr_expect_eq(engine_stats(&engine).giveback_due_bytes, 0);
	tick();
	cr_expect_eq(engine_stats(&engine).discarded_bytes, 0);
	engine_done(&engine);
}

static bool none_survives(void *context, uint64_t off_bytes)
{
	(void)context;
	(void)off_bytes;
	return false;
}

static bool all_survive(void *context, uint64_t off_bytes)
{
	(void)context;
	(void)off_bytes;
	return true;
}

/* Some I/O at a time, as many as are left. False: it came to its end. */
static bool cut_short(uint64_t steps)
{
	struct op op = {.request = {.op = REQUEST_DISCARD, .len_bytes = 4ull << 20}};

	op_submit(&engine, &op, 0);
	while (steps > 0 && engine_step(&engine))
		steps--;
	if (steps > 0 && engine.volume->metadata->checkpoint.checkpoints < 3) {
		volume_checkpoint(engine.volume, &engine.workers[0]);
		volume_tick(engine.volume, &engine.workers[0]);
		while (steps > 0 && engine_step(&engine))
			steps--;
	}
	return steps == 0;
}

/* What a slab says of itself is true after every cut; else it would keep its blocks for ever. */
Test(sweep, after_a_cut_anywhere_all_that_is_free_is_given_back)
{
	bool cut = true;
	uint64_t n;

	for (n = 0; cut; n += 1 + n / 6) {
		start(&(struct engine_options){.cached = true, .logical_bytes = 3ull << 20});
		cr_assert_eq(engine_write(&engine, 0, 300, 1), 0);
		engine_reopen(&engine);
		cr_assert_eq(engine_write(&engine, 600, 20, 2), 0);
		cut = cut_short(n);
		engine_cut(&engine, n % 2 ? all_survive : none_survives, NULL);
		cr_assert_eq(engine_open(&engine), 0, "%s", engine.damage.text);
		rest();
		cr_expect_eq(kept(), 0, "cut after %lu: %lu", n, kept());
		empty();
		rest();
		cr_expect_eq(kept(), 0, "cut after %lu, emptied: %lu", n, kept());
		engine_done(&engine);
	}
	cr_expect_gt(n, 20, "%lu", n);
}
