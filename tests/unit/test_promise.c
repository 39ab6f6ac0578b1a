/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_promise - the founding promise: overwriting what was written before costs no metadata
 *
 * journal_edits, metadata_reads and metadata_writes do not move: for LINEAR regions, for LEAF
 * regions, and for regions that were merged from the second overwrite and a flush on. Nor does the
 * store see any I/O but the payload.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "core/volume_internal.h"
#include "tests/lib/engine.h"

#define REGIONS 4u
#define BLOCKS	(REGIONS * REGION_BLOCKS)

static struct engine engine;

static void start(void)
{
	engine_init(&engine,
		    &(struct engine_options){.logical_bytes = 32ull << 20, .ring_blocks = 256});
}

static void stop(void)
{
	engine_done(&engine);
}

TestSuite(promise, .init = start, .fini = stop);

static uint64_t bytes(uint64_t blocks)
{
	return blocks * BLOCK_BYTES;
}

static enum region_kind kind(uint32_t region)
{
	return map_kind(&engine.volume->map, region);
}

static void expect_kind(enum region_kind expected)
{
	for (uint32_t i = 0; i < REGIONS; i++)
		cr_assert_eq(kind(i), expected, "region %u", i);
}

/* Sequential, scattered, of all sizes, also sectors. */
static void overwrite_all(uint32_t pattern)
{
	uint8_t sector[SECTOR_BYTES] = {1, 2, 3};

	for (uint32_t block = 0; block < BLOCKS; block += 128)
		cr_assert_eq(engine_write(&engine, block, 128, pattern), 0);
	for (uint32_t i = 0; i < BLOCKS; i += 7)
		cr_assert_eq(engine_write(&engine, i * 1031 % BLOCKS, 1, pattern + 1), 0);
	for (uint32_t i = 0; i < BLOCKS; i += 61)
		cr_assert_eq(
			engine_write_bytes(&engine, bytes(i) + 1024, sizeof(sector), sector, false),
			0);
	cr_assert_eq(engine_write(&engine, REGION_BLOCKS - 100, 700, pattern + 2), 0);
}

static void expect_no_metadata(uint32_t pattern)
{
	struct volume_stats before, after;
	uint64_t writes, reads = store_mem_ops(&engine.mem, STORE_READ);
	uint64_t written = engine.mem.lanes[0].bytes[STORE_WRITE];

	engine_settle(&engine);
	before = engine_stats(&engine);
	overwrite_all(pattern);
	engine_settle(&engine);
	after = engine_stats(&engine);
	writes = after.written_bytes - before.written_bytes;
	cr_expect_eq(after.journal_edits, before.journal_edits);
	cr_expect_eq(after.metadata_reads, before.metadata_reads);
	cr_expect_eq(after.metadata_writes, before.metadata_writes);
	cr_expect_eq(after.cow_blocks, before.cow_blocks);
	cr_expect_eq(store_mem_ops(&engine.mem, STORE_READ), reads);
	cr_expect_eq(engine.mem.lanes[0].bytes[STORE_WRITE] - written, writes,
		     "the store sees the payload alone");
	cr_expect(engine_holds(&engine, REGION_BLOCKS - 100, 700, pattern + 2));
}

Test(promise, linear_regions)
{
	for (uint32_t block = 0; block < BLOCKS; block += 64)
		cr_assert_eq(engine_write(&engine, block, 64, 1), 0);
	expect_kind(REGION_LINEAR);
	expect_no_metadata(10);
	expect_kind(REGION_LINEAR);
}

Test(promise, leaf_regions)
{
	for (uint32_t i = 0; i < BLOCKS; i++)
		cr_assert_eq(engine_write(&engine, i * 1031 % BLOCKS, 1, 1), 0);
	expect_kind(REGION_LEAF);
	expect_no_metadata(10);
}

/* Neither a flush in between nor a checkpoint changes it. */
Test(promise, leaf_regions_after_a_checkpoint_and_a_flush)
{
	for (uint32_t i = 0; i < BLOCKS; i++)
		cr_assert_eq(engine_write(&engine, i * 1031 % BLOCKS, 1, 1), 0);
	engine_checkpoint(&engine);
	expect_no_metadata(10);
	engine_flush(&engine);
	expect_no_metadata(20);
}

/* After a restart the leaves are read once; then nothing more. */
Test(promise, leaf_regions_after_a_restart_from_the_second_overwrite_on)
{
	for (uint32_t i = 0; i < BLOCKS; i++)
		cr_assert_eq(engine_write(&engine, i * 1031 % BLOCKS, 1, 1), 0);
	engine_reopen(&engine);
	overwrite_all(2);
	expect_no_metadata(10);
	expect_kind(REGION_LEAF);
}

Test(promise, merged_regions_from_the_second_overwrite_and_a_flush_on)
{
	struct volume_stats before, after;

	for (uint32_t block = 0; block < 2 * BLOCKS; block += 64)
		cr_assert_eq(engine_write(&engine, block, 64, 1), 0);
	cr_assert_eq(engine_same(&engine, 0, BLOCKS, BLOCKS, NULL), 0);
	cr_assert_eq(engine_references(&engine, 77, NULL), 2);
	engine_flush(&engine);
	before = engine_stats(&engine);
	overwrite_all(2); /* each block is copied, once */
	engine_flush(&engine);
	after = engine_stats(&engine);
	cr_expect_eq(after.cow_blocks - before.cow_blocks, BLOCKS);
	expect_no_metadata(10);
	cr_expect(engine_holds(&engine, BLOCKS, BLOCKS, 1), "the other owner is not touched");
}

/* The last owner of what was shared finds it private again, by one look at each count. */
Test(promise, the_last_owner_of_merged_regions_from_the_first_overwrite_on)
{
	for (uint32_t block = 0; block < 2 * BLOCKS; block += 64)
		cr_assert_eq(engine_write(&engine, block, 64, 1), 0);
	cr_assert_eq(engine_same(&engine, 0, BLOCKS, BLOCKS, NULL), 0);
	cr_assert_eq(engine_discard(&engine, BLOCKS, BLOCKS), 0);
	engine_flush(&engine);
	cr_assert_eq(engine_references(&engine, 77, NULL), 1);
	expect_no_metadata(10);
	expect_no_metadata(20);
}

Test(promise, durable_overwrites_of_committed_regions)
{
	struct volume_stats before, after;
	uint64_t flushes;
	uint8_t *buf = malloc(bytes(64));

	cr_assert_not_null(buf);
	for (uint32_t block = 0; block < BLOCKS; block += 64)
		cr_assert_eq(engine_write(&engine, block, 64, 1), 0);
	engine_flush(&engine);
	before = engine_stats(&engine);
	flushes = store_mem_ops(&engine.mem, STORE_FLUSH);
	pattern_fill(3, 64, buf);
	for (uint32_t block = 0; block < BLOCKS; block += 64)
		cr_assert_eq(engine_write_bytes(&engine, bytes(block), bytes(64), buf, true), 0);
	after = engine_stats(&engine);
	cr_expect_eq(after.journal_edits, before.journal_edits);
	cr_expect_eq(after.metadata_writes, before.metadata_writes);
	cr_expect_eq(store_mem_ops(&engine.mem, STORE_FLUSH), flushes, "the writes are FUA");
	free(buf);
}
