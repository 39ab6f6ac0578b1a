/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_volume - making, opening and closing a volume, and what its owner asks of it besides
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/metadata/recovery.h"
#include "core/volume/volume_internal.h"
#include "tests/lib/engine.h"

#define A 0u
#define B 600u

static struct engine engine;
static uint64_t ops, fails_at; /* of the store: counted; the one that fails */
static enum store_op held; /* is held back */
static bool holding;
static int logged; /* lines */

static int hook(void *context, const struct store_io *io)
{
	(void)context;
	if (ops++ == fails_at)
		return -EIO;
	return holding && io->op == held ? MEM_HOLD : 0;
}

static void keep_line(void *context, const char *text)
{
	(void)context;
	cr_expect_null(strchr(text, '\n'));
	logged++;
}

static void start(void)
{
	fails_at = UINT64_MAX;
	holding = false;
	logged = 0;
	engine_init(&engine,
		    &(struct engine_options){.cached = true, .volume = {.log = keep_line}});
	engine.mem.hook = hook;
}

static void stop(void)
{
	engine.mem.hook = NULL;
	if (engine.volume)
		engine_kill(&engine);
	engine_done(&engine);
}

TestSuite(volume, .init = start, .fini = stop);

static uint8_t *image_take(void)
{
	uint8_t *image = malloc(engine.mem.store.size_bytes);

	cr_assert(image);
	store_mem_peek(&engine.mem, 0, image, engine.mem.store.size_bytes);
	return image;
}

static bool is_image(const uint8_t *image)
{
	uint8_t *now = image_take();
	bool same = memcmp(now, image, engine.mem.store.size_bytes) == 0;

	free(now);
	return same;
}

/* --- making one --- */

static int format(struct store_mem *mem, uint64_t logical_bytes, uint32_t ring_blocks,
		  struct damage *damage)
{
	struct volume_format_options options = {
		.logical_bytes = logical_bytes,
		.ring_blocks = ring_blocks,
		.uuid = "another sixteen",
	};

	damage->text[0] = '\0';
	return volume_format(&mem->store, &options, damage);
}

Test(volume, sizes_that_cannot_be_are_refused_and_the_store_is_left_alone)
{
	uint64_t size_bytes = engine.mem.store.size_bytes;
	struct damage damage;
	uint8_t *image;

	cr_assert_eq(engine_close(&engine), 0);
	image = image_take();
	cr_expect_eq(format(&engine.mem, VOLUME_LOGICAL_BYTES_MIN - BLOCK_BYTES, 32, &damage),
		     -EINVAL);
	cr_expect_eq(format(&engine.mem, VOLUME_LOGICAL_BYTES_MIN + 512, 32, &damage), -EINVAL);
	cr_expect_eq(format(&engine.mem, VOLUME_LOGICAL_BYTES_MAX + BLOCK_BYTES, 32, &damage),
		     -EINVAL);
	cr_expect(strstr(damage.text, "sizes out of range"), "%s", damage.text);
	cr_expect_eq(format(&engine.mem, VOLUME_LOGICAL_BYTES_MIN, 31, &damage), -EINVAL);
	engine.mem.store.size_bytes = 40 * BLOCK_BYTES;
	cr_expect_eq(format(&engine.mem, VOLUME_LOGICAL_BYTES_MIN, 32, &damage), -ENOSPC);
	cr_expect(strstr(damage.text, "too small"), "%s", damage.text);
	engine.mem.store.size_bytes = size_bytes;
	cr_expect(is_image(image));
	cr_expect_eq(engine_open(&engine), 0);
	free(image);
}

/* Goal: what a crash leaves of a new volume is nobody's, or empty: never a mixture with what was
 * there. */
Test(volume, an_error_of_any_operation_of_making_one_leaves_none_or_an_empty_one)
{
	struct damage damage;
	uint8_t *image;
	int r = -EIO;

	cr_assert_eq(engine_write(&engine, A, 100, 1), 0);
	cr_assert_eq(engine_flush(&engine), 0);
	engine_kill(&engine);
	image = image_take();
	for (uint64_t n = 0; r < 0; n++) {
		store_mem_poke(&engine.mem, 0, image, engine.mem.store.size_bytes);
		ops = 0;
		fails_at = n;
		r = format(&engine.mem, 8ull << 20, 32, &damage);
		fails_at = UINT64_MAX;
		cr_assert(r == 0 || strstr(damage.text, "writing the metadata"), "operation %lu",
			  n);
		store_mem_cut(&engine.mem, NULL, NULL);
		if (engine_open(&engine) < 0) {
			cr_assert(r < 0, "operation %lu: %s", n, engine.damage.text);
			continue;
		}
		/* A cut before the first flush leaves what was there. */
		cr_assert(engine_holds(&engine, A, 100, n < 2 ? 1 : 0), "operation %lu", n);
		cr_assert_eq(engine_stats(&engine).mapped_bytes, n < 2 ? blocks_to_bytes(100) : 0,
			     "operation %lu", n);
		engine_kill(&engine);
	}
	free(image);
}

/* What `create` promises of a volume without --store-size. */
Test(volume, the_store_that_is_asked_for_holds_every_block_of_the_volume)
{
	stop();
	for (uint64_t blocks = 256; blocks < 3000; blocks += 613) {
		struct engine_options options = {.logical_bytes = blocks_to_bytes(blocks)};

		engine_init(&engine, &options);
		for (uint64_t i = 0; i < blocks; i++) /* every one a record of its own */
			cr_assert_eq(engine_write(&engine, i * 7 % blocks, 1, 1 + (uint32_t)i), 0,
				     "%lu of %lu", i, blocks);
		cr_expect_eq(engine_stats(&engine).mapped_bytes, blocks_to_bytes(blocks));
		cr_expect_geq(volume_logical_bytes_for(engine.mem.store.size_bytes, 32),
			      blocks_to_bytes(blocks));
		engine_done(&engine);
	}
	start();
}

/* --- opening and closing --- */

Test(volume, a_clean_shutdown_leaves_nothing_to_replay)
{
	struct damage damage;
	struct recovery_log log;
	uint32_t *generations;
	struct super super;

	cr_assert_eq(engine_write(&engine, A, 100, 1), 0);
	cr_assert_eq(engine_write(&engine, B, 1, 2), 0);
	cr_assert_eq(engine_close(&engine), 0);
	cr_assert_eq(recovery_read_super(&engine.mem.store, true, &super, &generations, &damage),
		     0);
	cr_assert_eq(recovery_read_log(&engine.mem.store, &super, &log, &damage), 0);
	cr_expect(super.clean);
	cr_expect_eq(log.blocks, 0);
	cr_expect_eq(super.mapped_blocks, 101);
	cr_expect_eq(super.places, 2);
	store_mem_cut(&engine.mem, NULL, NULL); /* and all of it is durable */
	cr_assert_eq(engine_open(&engine), 0);
	cr_expect(engine_holds(&engine, A, 100, 1) && engine_holds(&engine, B, 1, 2));
	free(log.ring);
	free(generations);
}

/* A write that closing still has to make fails: that is told, and what was flushed stays. */
Test(volume, an_error_of_any_operation_of_closing_is_told)
{
	bool closed = false;

	for (uint64_t n = 0; !closed; n++) {
		cr_assert_eq(engine_write(&engine, A, 40, 1), 0);
		cr_assert_eq(engine_write(&engine, B + 3, 1, 1), 0);
		cr_assert_eq(engine_flush(&engine), 0);
		cr_assert_eq(engine_write(&engine, B + 9, 1, 1), 0);
		ops = 0;
		fails_at = n;
		closed = engine_close(&engine) == 0;
		cr_assert(closed == (ops <= n), "operation %lu", n);
		fails_at = UINT64_MAX;
		store_mem_cut(&engine.mem, NULL, NULL);
		cr_assert_eq(engine_open(&engine), 0, "operation %lu: %s", n, engine.damage.text);
		cr_assert(engine_holds(&engine, A, 40, 1) && engine_holds(&engine, B + 3, 1, 1));
		cr_assert(!closed || engine_holds(&engine, B + 9, 1, 1));
		cr_assert_eq(engine_discard(&engine, A, 1000), 0);
		cr_assert_eq(engine_flush(&engine), 0);
	}
}

Test(volume, a_latched_volume_is_closed_without_another_write)
{
	uint64_t writes, flushes;

	cr_assert_eq(engine_write(&engine, A, 4, 1), 0);
	fails_at = ops;
	cr_assert_eq(engine_flush(&engine), -EIO);
	cr_expect_eq(logged, 1, "it is told once");
	writes = store_mem_ops(&engine.mem, STORE_WRITE);
	flushes = store_mem_ops(&engine.mem, STORE_FLUSH);
	volume_tick(engine.volume, &engine.workers[0]);
	volume_checkpoint(engine.volume, &engine.workers[0]);
	cr_expect_eq(engine_close(&engine), -EIO);
	cr_expect_eq(store_mem_ops(&engine.mem, STORE_WRITE), writes);
	cr_expect_eq(store_mem_ops(&engine.mem, STORE_FLUSH), flushes);
	cr_expect_eq(logged, 1);
	cr_expect_eq(engine_open(&engine), 0, "an operator may open it again");
}

/* Not one of the journal's: nothing but the flush itself knows of it. */
Test(volume, a_failed_flush_latches_also_when_there_is_no_edit)
{
	cr_assert_eq(engine_write(&engine, A, 4, 1), 0);
	cr_assert_eq(engine_flush(&engine), 0);
	cr_assert_eq(engine_write(&engine, A, 4, 2), 0);
	fails_at = ops;
	cr_expect_eq(engine_flush(&engine), -EIO);
	cr_expect_eq(engine_stats(&engine).state, VOLUME_LATCHED);
	cr_expect_eq(engine_write(&engine, A, 4, 3), -EIO);
	cr_expect_eq(engine_flush(&engine), -EIO);
}

/* I11. A write that reads first: it was admitted before the latch, and must not write after it. */
Test(volume, what_was_admitted_before_the_latch_writes_nothing_after_it)
{
	uint8_t part[100] = {1};
	struct op write;
	uint64_t writes;

	cr_assert_eq(engine_write(&engine, A, 4, 1), 0);
	holding = true;
	held = STORE_READ;
	op_write(&engine, &write, 33, sizeof(part), part);
	cr_assert(op_is_stuck(&write));
	fails_at = ops;
	cr_assert_eq(engine_flush(&engine), -EIO);
	writes = store_mem_ops(&engine.mem, STORE_WRITE);
	holding = false;
	store_mem_release(&engine.mem, 0);
	cr_expect_eq(op_finish(&write), -EIO);
	cr_expect_eq(store_mem_ops(&engine.mem, STORE_WRITE), writes);
	cr_expect(engine_holds(&engine, A, 4, 1));
}

/* --- read-only --- */

static int range(enum request_op what)
{
	struct op op = {.request = {.op = what,
				    .off_bytes = 8 * BLOCK_BYTES,
				    .len_bytes = 2 * BLOCK_BYTES,
				    .src_off_bytes = 0}};
	uint8_t data[2 * BLOCK_BYTES] = {0};

	op.request.data = data;
	op_submit(&engine, &op, 0);
	return op_finish(&op);
}

Test(volume, read_only_serves_a_crashed_store_and_changes_none_of_it)
{
	const enum request_op refused[] = {REQUEST_WRITE, REQUEST_ZERO, REQUEST_DISCARD,
					   REQUEST_SAME, REQUEST_CLONE};
	uint8_t *image;

	cr_assert_eq(engine_write(&engine, A, 10, 1), 0);
	cr_assert_eq(engine_clone(&engine, A, 4, B), 0);
	cr_assert_eq(engine_flush(&engine), 0);
	engine_kill(&engine);
	image = image_take();
	engine.options.volume.read_only = true;
	cr_assert_eq(engine_open(&engine), 0);
	cr_expect_eq(engine_stats(&engine).state, VOLUME_READ_ONLY);
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
		cr_expect_eq(range(refused[i]), -EROFS);
	cr_expect(engine_holds(&engine, A, 10, 1) && engine_holds(&engine, B, 4, 1));
	cr_expect_eq(engine_references(&engine, B, NULL), 2);
	volume_tick(engine.volume, &engine.workers[0]);
	volume_checkpoint(engine.volume, &engine.workers[0]);
	cr_assert_eq(engine_close(&engine), 0);
	cr_expect(is_image(image));
	free(image);
}

/* Goal: a store that can only be read is never asked for more, whatever the caller said. */
Test(volume, a_store_that_is_read_only_makes_its_volume_so)
{
	uint64_t writes;

	cr_assert_eq(engine_write(&engine, A, 10, 1), 0);
	cr_assert_eq(engine_flush(&engine), 0);
	engine_kill(&engine);
	engine.mem.store.read_only = true;
	writes = store_mem_ops(&engine.mem, STORE_WRITE);
	cr_assert_eq(engine_open(&engine), 0);
	cr_expect_eq(engine_stats(&engine).state, VOLUME_READ_ONLY);
	cr_expect(engine_holds(&engine, A, 10, 1));
	cr_expect_eq(engine_write(&engine, A, 1, 2), -EROFS);
	cr_assert_eq(engine_close(&engine), 0);
	cr_expect_eq(store_mem_ops(&engine.mem, STORE_WRITE), writes);
	engine.mem.store.read_only = false;
}

/* --- space for metadata --- */

/* I12. A backing that fills up later has both slots of a refs page already, so that going home
 * cannot fail for space. (The same for a leaf's place is in test_same_limits.) */
Test(volume, a_slabs_refs_slots_are_written_before_its_first_block_is_used)
{
	const struct geometry *geometry = &engine.volume->metadata->super.geometry;
	uint8_t page[BLOCK_BYTES], zeros[BLOCK_BYTES] = {0};

	cr_assert_eq(engine_write(&engine, A, 1, 1), 0);
	for (uint32_t generation = 0; generation < 2; generation++) {
		uint64_t block = geometry_refs_block(geometry, 0, generation);

		store_mem_peek(&engine.mem, blocks_to_bytes(block), page, sizeof(page));
		cr_expect_eq(memcmp(page, zeros, sizeof(page)), 0, "slot %u", generation);
	}
}

/* --- what its owner asks --- */

/* The timer bounds what a power cut takes from a client that never flushes. */
Test(volume, a_tick_commits_what_nobody_flushed)
{
	cr_assert_eq(engine_write(&engine, A, 4, 1), 0);
	cr_assert_eq(engine_write(&engine, B, 1, 1), 0);
	volume_tick(engine.volume, &engine.workers[0]);
	engine_settle(&engine);
	engine_cut(&engine, NULL, NULL);
	cr_assert_eq(engine_open(&engine), 0);
	cr_expect(engine_holds(&engine, A, 4, 1) && engine_holds(&engine, B, 1, 1));
}

Test(volume, a_tick_without_edits_asks_the_store_for_nothing)
{
	cr_assert_eq(engine_write(&engine, A, 4, 1), 0);
	cr_assert_eq(engine_flush(&engine), 0);
	engine_settle(&engine);
	ops = 0;
	volume_tick(engine.volume, &engine.workers[0]);
	engine_settle(&engine);
	cr_expect_eq(ops, 0);
}

/* Whoever stops the workers' threads must not leave I/O behind. */
Test(volume, it_is_idle_only_when_nothing_of_its_own_is_in_flight)
{
	const enum store_op each[] = {STORE_FLUSH, STORE_WRITE};

	for (int checkpoint = 0; checkpoint < 2; checkpoint++)
		for (int i = 0; i < 2; i++) {
			cr_assert_eq(engine_write(&engine, A + 4 * (uint64_t)i, 1, 1), 0);
			cr_assert_eq(engine_write(&engine, B + 4 * (uint64_t)i, 1, 1), 0);
			cr_expect(volume_is_idle(engine.volume));
			holding = true;
			held = each[i];
			if (checkpoint)
				volume_checkpoint(engine.volume, &engine.workers[0]);
			else
				volume_tick(engine.volume, &engine.workers[0]);
			engine_settle(&engine);
			cr_expect_not(volume_is_idle(engine.volume));
			holding = false;
			store_mem_release(&engine.mem, 0);
			engine_settle(&engine);
			cr_expect(volume_is_idle(engine.volume));
			cr_assert_eq(engine_discard(&engine, A, 2000), 0);
			cr_assert_eq(engine_flush(&engine), 0);
		}
}

Test(volume, what_the_statistics_say_adds_up)
{
	struct volume_stats stats;
	uint64_t free_bytes = engine_stats(&engine).free_bytes;

	cr_assert_eq(engine_write(&engine, A, 10, 1), 0);
	cr_assert_eq(engine_clone(&engine, A, 4, B), 0);
	cr_assert_eq(engine_clone(&engine, A, 2, B + 100), 0);
	stats = engine_stats(&engine);
	cr_expect_eq(stats.mapped_bytes, blocks_to_bytes(16));
	cr_expect_eq(stats.used_bytes, blocks_to_bytes(10));
	cr_expect_eq(stats.saved_bytes, blocks_to_bytes(6));
	cr_expect_eq(stats.shared_bytes, blocks_to_bytes(10), "four blocks and their owners");
	cr_expect_eq(engine_discard(&engine, A + 4, 6), 0);
	cr_expect_eq(engine_stats(&engine).pending_bytes, blocks_to_bytes(6), "not committed");
	cr_assert_eq(engine_flush(&engine), 0);
	engine_reopen(&engine);
	stats = engine_stats(&engine);
	cr_expect_eq(stats.pending_bytes, 0);
	cr_expect_eq(stats.mapped_bytes, blocks_to_bytes(10));
	cr_expect_eq(stats.used_bytes, blocks_to_bytes(4));
	cr_expect_eq(stats.free_bytes, free_bytes - blocks_to_bytes(4 + 2 * 2));
	cr_expect_eq(stats.used_bytes + stats.free_bytes + stats.metadata_bytes, stats.store_bytes);
}

/* It changes back only with some slack, so the log does not fill while space is near the border. */
Test(volume, being_low_on_space_is_told_once_and_taken_back_once)
{
	uint64_t block = 0;

	stop();
	engine_init(&engine, &(struct engine_options){.logical_bytes = 32ull << 20,
						      .store_bytes = 2ull << 20,
						      .volume = {.log = keep_line}});
	logged = 0;
	while (engine_write(&engine, block, 1, 1) == 0)
		block++;
	cr_expect_eq(engine_stats(&engine).state, VOLUME_LOW_ON_SPACE);
	cr_expect_eq(logged, 1);
	for (uint64_t i = 0; i < 3; i++) {
		cr_assert_eq(engine_discard(&engine, i, 1), 0);
		cr_assert_eq(engine_write(&engine, i, 1, 1), 0);
	}
	cr_expect_eq(logged, 1);
	cr_assert_eq(engine_discard(&engine, 0, block / 2), 0);
	cr_assert_eq(engine_flush(&engine), 0);
	cr_expect_eq(engine_stats(&engine).state, VOLUME_OK);
	cr_expect_eq(logged, 2);
}
