/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_liveness - nothing waits for ever: short rings, full caches, latched volumes, deep queues
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

#include "core/volume_internal.h"
#include "tests/lib/engine.h"

static struct engine engine;
static bool fail_flushes;

static int hook(void *context, const struct store_io *io)
{
	(void)context;
	return io->op == STORE_FLUSH && fail_flushes ? -EIO : 0;
}

static void start(const struct engine_options *options)
{
	fail_flushes = false;
	engine_init(&engine, options);
	engine.mem.hook = hook;
}

/* Scattered, so that each is a record of its own. */
static void write_scattered(uint64_t from, uint64_t to)
{
	for (uint64_t i = from; i < to; i++)
		cr_assert_eq(engine_write(&engine, i * 1031 % 2048, 1, 1), 0);
}

/* A merge needs room in the ring for its worst case. Whatever was committed and is still open, it
 * comes. */
static void merge_with(uint32_t commits, uint64_t records)
{
	struct op same;

	start(NULL);
	for (uint32_t i = 0; i < commits; i++) {
		write_scattered(i, i + 1);
		cr_assert_eq(engine_flush(&engine), 0);
	}
	write_scattered(commits, records);
	op_same(&engine, &same, 0, 4 * BLOCK_BYTES, 1024 * BLOCK_BYTES);
	cr_assert(!op_is_stuck(&same), "%u commits, then %lu records: it waits for ever; %u blocks",
		  commits, records, journal_used_blocks(&engine.volume->journal));
	op_finish(&same);
	engine_done(&engine);
}

Test(liveness, a_merge_alone_gets_its_journal_room_whatever_was_written_before)
{
	for (uint32_t commits = 0; commits < 16; commits += 1 + (commits > 8))
		for (uint64_t records = 500; records <= 800; records += 100)
			merge_with(commits, records);
}

/* Regions whose leaves are on the store, more than the cache has frames. */
static uint32_t make_leaves(void)
{
	uint32_t regions = CACHE_FRAMES_MIN + 40;

	start(&(struct engine_options){.logical_bytes = (CACHE_FRAMES_MIN + 40) * REGION_BYTES,
				       .store_bytes = 64ull << 20,
				       .ring_blocks = 512});
	for (uint32_t i = 0; i < regions; i++) {
		cr_assert_eq(engine_write(&engine, (uint64_t)i * REGION_BLOCKS, 1, 1), 0);
		cr_assert_eq(engine_write(&engine, (uint64_t)i * REGION_BLOCKS + 7, 1, 2), 0);
	}
	engine_checkpoint(&engine);
	return regions;
}

Test(liveness, a_cache_full_of_dirty_pages_is_cleaned_by_whoever_needs_a_frame)
{
	uint32_t regions = make_leaves();

	for (uint32_t i = 0; i < regions; i++)
		cr_assert_eq(engine_write(&engine, (uint64_t)i * REGION_BLOCKS + 9, 1, 3), 0);
	for (uint32_t i = 0; i < regions; i++)
		cr_assert(engine_holds(&engine, (uint64_t)i * REGION_BLOCKS + 9, 1, 3));
	engine_done(&engine);
}

/* Once latched no page can be cleaned any more; what is wanted then has to be read or fail, not
 * wait. */
Test(liveness, a_read_of_a_latched_volume_never_waits_for_a_frame)
{
	uint32_t regions = make_leaves();
	struct op write, read;
	uint8_t *buf = calloc(1, BLOCK_BYTES);

	fail_flushes = true;
	for (uint32_t i = 0; i < regions; i++) {
		op_write(&engine, &write, ((uint64_t)i * REGION_BLOCKS + 9) * BLOCK_BYTES,
			 BLOCK_BYTES, buf);
		cr_assert(!op_is_stuck(&write));
		if (op_finish(&write) < 0)
			break;
	}
	cr_assert_eq(engine_stats(&engine).state, VOLUME_LATCHED);
	for (uint32_t i = 0; i < regions; i++) {
		read = (struct op){.request = {.op = REQUEST_READ,
					       .off_bytes = i * REGION_BYTES,
					       .len_bytes = BLOCK_BYTES,
					       .data = buf}};
		op_submit(&engine, &read, 0);
		cr_assert(!op_is_stuck(&read), "region %u", i);
		op_finish(&read);
	}
	engine_kill(&engine);
	engine_done(&engine);
	free(buf);
}

/* A long discard or zero of holes takes no stack for each region. */
Test(liveness, a_discard_of_thousands_of_regions)
{
	start(&(struct engine_options){.logical_bytes = 1ull << 40, .store_bytes = 64ull << 20});
	cr_assert_eq(engine_write(&engine, 100000, 10, 1), 0);
	cr_assert_eq(engine_discard(&engine, 0, 10000 * REGION_BLOCKS), 0);
	cr_assert_eq(engine_zero(&engine, 0, 10000 * REGION_BLOCKS), 0);
	cr_expect_eq(engine_references(&engine, 100000, NULL), 0);
	engine_done(&engine);
}
