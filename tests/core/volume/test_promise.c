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

#include "core/volume/volume_internal.h"
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
	return map_kind(&engine.volume->metadata->map, region);
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

/* Nobody takes the metadata lock meanwhile. It is ours, and of a kind that refuses to be taken
 * twice: so whoever takes it goes on without, and gives it away. */
static bool overwrites_without_the_lock(uint32_t pattern)
{
	pthread_mutex_t *meta = &engine.volume->metadata->lock;
	pthread_mutexattr_t kind;
	bool untouched;

	pthread_mutexattr_init(&kind);
	pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_ERRORCHECK);
	pthread_mutex_destroy(meta);
	pthread_mutex_init(meta, &kind);
	pthread_mutexattr_destroy(&kind);
	pthread_mutex_lock(meta);
	for (uint32_t i = 0; i < REGIONS; i++)
		cr_assert_eq(engine_write(&engine, i * REGION_BLOCKS + 10 * i, 3, pattern), 0);
	untouched = pthread_mutex_unlock(meta) == 0;
	for (uint32_t i = 0; i < REGIONS; i++)
		cr_assert(engine_holds(&engine, i * REGION_BLOCKS + 10 * i, 3, pattern));
	return untouched;
}

static void write_and_clone(void)
{
	for (uint32_t block = 0; block < BLOCKS; block += 64)
		cr_assert_eq(engine_write(&engine, block, 64, 1), 0);
	cr_assert_eq(engine_clone(&engine, 0, BLOCKS, BLOCKS), 0);
	engine_flush(&engine);
	expect_kind(REGION_LINEAR);
}

/* A region's bit that says "shared" stayed for good: each overwrite took the metadata lock and
 * looked at its counts. */
Test(promise, linear_regions_that_were_cloned_once_take_no_lock)
{
	write_and_clone();
	cr_assert_eq(engine_discard(&engine, BLOCKS, BLOCKS), 0);
	engine_flush(&engine);
	for (unsigned life = 0; life < 3; life++) {
		expect_no_metadata(10 * life + 10);
		cr_expect(overwrites_without_the_lock(10 * life + 15), "life %u", life);
		expect_kind(REGION_LINEAR);
		if (life == 0)
			engine_reopen(&engine);
		if (life == 1) {
			engine_kill(&engine);
			cr_assert_eq(engine_open(&engine), 0, "%s", engine.damage.text);
		}
		/* The counts are read, once. */
		for (uint32_t i = 0; life < 2 && i < REGIONS; i++)
			cr_assert_eq(engine_write(&engine, i * REGION_BLOCKS, 1, 1), 0);
	}
}

/* What is appended to the run, or cut off its end, leaves it private; what shares it does not. */
Test(promise, a_cloned_region_is_private_until_it_is_shared_again)
{
	write_and_clone();
	cr_assert_eq(engine_discard(&engine, BLOCKS, BLOCKS), 0);
	engine_flush(&engine);
	overwrite_all(2);
	cr_assert_eq(engine_discard(&engine, REGION_BLOCKS - 64, 64), 0);
	cr_expect(overwrites_without_the_lock(3));
	cr_assert_eq(engine_clone(&engine, REGION_BLOCKS, 100, BLOCKS), 0);
	cr_expect_not(overwrites_without_the_lock(4));
	cr_expect_neq(kind(1), REGION_LINEAR, "its shared blocks were overwritten in place");
	cr_expect(engine_holds(&engine, BLOCKS + 10, 3, 3), "so says the clone");
}

/* One block of the run is still shared: the others go in place, that one does not. */
Test(promise, of_a_cloned_region_the_blocks_that_stay_shared_are_copied)
{
	write_and_clone();
	cr_assert_eq(engine_discard(&engine, BLOCKS, 300), 0);
	cr_assert_eq(engine_discard(&engine, BLOCKS + 301, BLOCKS - 301), 0);
	engine_flush(&engine);
	for (uint32_t block = 0; block < 300; block++)
		cr_assert_eq(engine_write(&engine, block, 1, 2), 0);
	cr_expect_eq(kind(0), REGION_LINEAR);
	cr_assert_eq(engine_write(&engine, 300, 1, 2), 0);
	cr_expect(engine_holds(&engine, BLOCKS + 300, 1, 1), "the clone's is another");
	cr_expect_eq(kind(0), REGION_LEAF);
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
