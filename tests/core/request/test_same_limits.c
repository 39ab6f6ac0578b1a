/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_same_limits - rows 18, 19 and 22 of the same-range rules: a full store, a full count, holes
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/engine.h"

#define REFS_LIMIT 65535u

static struct engine engine;
static bool fail_places; /* writes of two blocks of zeros: a leaf's place */

static int hook(void *context, const struct store_io *io)
{
	static const uint8_t zeros[2 * BLOCK_BYTES];

	(void)context;
	if (fail_places && io->op == STORE_WRITE && io->len_bytes == sizeof(zeros) &&
	    memcmp(io->buf, zeros, sizeof(zeros)) == 0)
		return -ENOSPC;
	return 0;
}

static void start(uint64_t logical_bytes, uint64_t store_bytes)
{
	fail_places = false;
	engine_init(&engine, &(struct engine_options){.logical_bytes = logical_bytes,
						      .store_bytes = store_bytes});
	engine.mem.hook = hook;
}

static void stop(void)
{
	engine_done(&engine);
}

TestSuite(same_limits, .fini = stop);

static uint64_t bytes(uint64_t blocks)
{
	return blocks * BLOCK_BYTES;
}

static int job(bool clone, uint64_t src_off_bytes, uint64_t blocks, struct same_dst *dsts,
	       uint32_t n)
{
	struct same_job job = {
		.src_off_bytes = src_off_bytes,
		.len_bytes = bytes(blocks),
		.dsts = dsts,
		.dst_count = n,
		.clone = clone,
	};

	return engine_job(&engine, &job);
}

/* Takes every block that can be had, in regions 0 to last; pattern 1. Returns the blocks written.
 * */
static uint64_t fill(uint64_t blocks)
{
	uint64_t block = 0;

	while (block < blocks && engine_write(&engine, block, 1, 1) == 0)
		block++;
	return block;
}

Test(same_limits, row_18_a_clone_into_a_hole_region_of_a_full_store_is_enospc_and_changes_nothing)
{
	struct same_dst dsts[2] = {0};
	struct volume_stats before, after;
	uint64_t full;

	start(32ull << 20, 4ull << 20);
	cr_assert_eq(engine_write(&engine, 2048, 1, 1),
		     0); /* region 4 has a place, region 5 none */
	full = fill(2048);
	cr_assert(full > 100 && full < 2048);
	cr_assert_eq(engine_write(&engine, full, 1, 1), -ENOSPC);
	before = engine_stats(&engine);
	cr_expect_eq(before.free_bytes, 0);
	dsts[0].off_bytes = bytes(2560);
	dsts[1].off_bytes = bytes(2049);
	cr_assert_eq(job(true, 0, 2, dsts, 2), 0);
	after = engine_stats(&engine);
	cr_expect_eq(dsts[0].error, -ENOSPC);
	cr_expect_eq(dsts[0].result.deduped_bytes, 0);
	cr_expect_eq(dsts[1].error, 0, "the region has its place already");
	cr_expect_eq(engine_references(&engine, 2560, NULL), 0);
	cr_expect_eq(engine_references(&engine, 2050, NULL), 2);
	cr_expect_eq(after.used_bytes, before.used_bytes);
	/* The rest goes on. */
	cr_expect_eq(engine_write(&engine, 0, 1, 2), -ENOSPC, "copy-on-write of a shared block");
	cr_expect_eq(engine_write(&engine, 10, 1, 2), 0, "in place");
	cr_expect_eq(engine_flush(&engine), 0);
	cr_expect_eq(engine_same(&engine, 20, 50, 80, NULL), 0, "a merge needs nothing");
	cr_expect_eq(engine_write(&engine, full, 1, 1), 0, "what it freed is there at once");
	cr_expect(engine_holds(&engine, full, 1, 1) && engine_holds(&engine, 10, 1, 2));
}

Test(same_limits, row_18_earlier_slices_stay_cloned)
{
	struct same_dst dst = {.off_bytes = bytes(2048 + 256)};

	start(32ull << 20, 4ull << 20);
	cr_assert_eq(engine_write(&engine, 2048, 1, 1), 0);
	cr_assert(fill(2048) > 512);
	cr_assert_eq(job(true, 0, 512, &dst, 1), 0); /* half of it into region 5 */
	cr_expect_eq(dst.error, -ENOSPC);
	cr_expect_eq(dst.result.deduped_bytes, bytes(256));
	cr_expect_eq(engine_references(&engine, 2048 + 511, NULL), 2);
	cr_expect_eq(engine_references(&engine, 2048 + 512, NULL), 0);
	cr_expect_eq(engine_references(&engine, 256, NULL), 1);
}

Test(same_limits, row_18_by_an_injected_fault_of_the_metadata_reserve)
{
	struct same_dst dst = {.off_bytes = bytes(1025)};
	uint64_t used;

	start(8ull << 20, 0);
	cr_assert_eq(engine_write(&engine, 0, 100, 1), 0);
	used = engine_stats(&engine).used_bytes;
	fail_places = true;
	cr_assert_eq(job(true, 0, 100, &dst, 1), 0);
	cr_expect_eq(dst.error, -ENOSPC);
	cr_expect_eq(engine_references(&engine, 1025, NULL), 0);
	cr_expect_eq(engine_references(&engine, 0, NULL), 1);
	cr_expect_eq(engine_stats(&engine).used_bytes, used);
	cr_expect_eq(engine_stats(&engine).state, VOLUME_BACKING_FULL);
	fail_places = false;
	cr_assert_eq(job(true, 0, 100, &dst, 1), 0);
	cr_expect_eq(dst.error, 0);
	cr_expect(engine_holds(&engine, 1025, 100, 1));
}

/* Block 0 ends up with as many references as can be counted; all of 0 .. 65534 read from it. */
static void saturate(void)
{
	start(300ull << 20, 32ull << 20);
	cr_assert_eq(engine_write(&engine, 0, 1, 1), 0);
	for (uint64_t n = 1; n < REFS_LIMIT; n *= 2) {
		uint64_t blocks = 2 * n <= REFS_LIMIT ? n : REFS_LIMIT - n;

		cr_assert_eq(engine_clone(&engine, 0, blocks, n), 0);
	}
	cr_assert_eq(engine_references(&engine, 0, NULL), REFS_LIMIT);
}

Test(same_limits, row_19_a_saturated_source_is_emlink_and_the_count_never_wraps)
{
	struct same_dst dsts[] = {{.off_bytes = bytes(70000)}, {.off_bytes = bytes(70010)}};
	uint64_t used;

	saturate();
	engine_write(&engine, 70000, 1, 1);
	engine_write(&engine, 70010, 1, 1);
	used = engine_stats(&engine).used_bytes;
	cr_assert_eq(job(false, 0, 1, dsts, 2), 0);
	cr_expect(dsts[0].error == -EMLINK && dsts[1].error == -EMLINK);
	cr_expect_eq(dsts[0].result.deduped_bytes, 0);
	cr_expect_eq(engine_references(&engine, 0, NULL), REFS_LIMIT);
	cr_expect_eq(engine_references(&engine, 70000, NULL), 1);
	cr_expect_eq(engine_stats(&engine).used_bytes, used);
	cr_expect_eq(engine_clone(&engine, 0, 1, 70020), -EMLINK);
	/* The CLI goes on with that destination as the source. */
	cr_assert_eq(job(false, bytes(70000), 1, &dsts[1], 1), 0);
	cr_expect_eq(dsts[1].error, 0);
	cr_expect_eq(engine_references(&engine, 70010, NULL), 2);
	/* One fewer, and it can be merged again. */
	cr_assert_eq(engine_discard(&engine, 5, 1), 0);
	cr_assert_eq(job(false, 0, 1, dsts, 1), 0);
	cr_expect_eq(dsts[0].error, 0);
	cr_expect_eq(engine_references(&engine, 0, NULL), REFS_LIMIT);
	cr_expect(engine_holds(&engine, 0, 1, 1) && engine_holds(&engine, 70000, 1, 1));
}

Test(same_limits, row_19_what_comes_before_the_saturated_block_stays_merged)
{
	struct same_result result;

	saturate();
	engine_write(&engine, 70000, 3, 1); /* the source: private, saturated, private */
	engine_write(&engine, 70010, 3, 1);
	cr_assert_eq(engine_discard(&engine, 5, 1), 0);
	cr_assert_eq(engine_clone(&engine, 0, 1, 70001), 0);
	cr_assert_eq(engine_references(&engine, 70001, NULL), REFS_LIMIT);
	cr_expect_eq(engine_same(&engine, 70000, 3, 70010, &result), -EMLINK);
	cr_expect_eq(result.deduped_bytes, bytes(1));
	cr_expect_eq(engine_references(&engine, 70010, NULL), 2);
	cr_expect_eq(engine_references(&engine, 70011, NULL), 1);
	cr_expect_eq(engine_references(&engine, 70012, NULL), 1);
}

Test(same_limits, row_22_zeros_that_equal_a_hole_become_one)
{
	struct same_result result;
	uint64_t used;

	start(8ull << 20, 0);
	engine_write(&engine, 600, 20, 0);
	engine_write(&engine, 700, 20, 0);
	used = engine_stats(&engine).used_bytes;
	cr_assert_eq(engine_same(&engine, 0, 20, 600, &result), 0);
	cr_expect(!result.differs && result.deduped_bytes == bytes(20));
	cr_expect_eq(result.freed_bytes, bytes(20));
	cr_expect_eq(engine_references(&engine, 605, NULL), 0);
	cr_assert_eq(engine_same(&engine, ENGINE_ZERO, 20, 700, &result), 0);
	cr_expect(!result.differs && result.deduped_bytes == bytes(20));
	cr_expect_eq(result.freed_bytes, bytes(20), "%lu: data alone counts", result.freed_bytes);
	cr_expect_eq(engine_references(&engine, 705, NULL), 0);
	cr_expect_eq(used - engine_stats(&engine).used_bytes, bytes(40));
	cr_expect(engine_holds(&engine, 600, 20, 0) && engine_holds(&engine, 700, 20, 0));
}

Test(same_limits, row_22_mapped_zeros_onto_a_hole_leave_the_hole)
{
	struct same_result result;
	uint64_t edits;

	start(8ull << 20, 0);
	engine_write(&engine, 600, 20, 0);
	edits = engine_stats(&engine).journal_edits;
	cr_assert_eq(engine_same(&engine, 600, 20, 0, &result), 0);
	cr_expect(!result.differs && result.deduped_bytes == bytes(20));
	cr_expect_eq(result.freed_bytes, 0);
	cr_expect_eq(engine_references(&engine, 3, NULL), 0);
	cr_expect_eq(engine_references(&engine, 603, NULL), 1);
	cr_expect_eq(engine_stats(&engine).journal_edits, edits);
}

Test(same_limits, row_22_what_is_not_zeros_differs_from_a_hole_and_from_zero)
{
	struct same_result result;

	start(8ull << 20, 0);
	engine_write(&engine, 600, 20, 0);
	engine_write(&engine, 619, 1, 3);
	cr_assert_eq(engine_same(&engine, 0, 20, 600, &result), 0);
	cr_expect(result.differs && result.deduped_bytes == 0);
	cr_expect_eq(result.differs_at_bytes / BLOCK_BYTES, 19);
	cr_assert_eq(engine_same(&engine, ENGINE_ZERO, 20, 600, &result), 0);
	cr_expect(result.differs);
	cr_assert_eq(engine_same(&engine, 600, 20, 0, &result), 0);
	cr_expect(result.differs);
	cr_expect_eq(engine_references(&engine, 600, NULL), 1);
}

Test(same_limits, row_22_a_hole_and_a_hole_are_the_same)
{
	struct same_result result;

	start(8ull << 20, 0);
	cr_assert_eq(engine_same(&engine, 0, 600, 1000, &result), 0);
	cr_expect(!result.differs && result.deduped_bytes == bytes(600));
	cr_expect_eq(result.freed_bytes, 0);
	cr_assert_eq(engine_same(&engine, ENGINE_ZERO, 600, 1000, &result), 0);
	cr_expect(!result.differs && result.deduped_bytes == bytes(600));
}

/*
 * A clone whose source has a hole gives up the end of the destination's run, and what would have
 * continued that run then needs a leaf. Each was judged by the map as it was before the batch: the
 * leaf was not there, and an assertion stopped the server. To none of what was left of the run, to
 * some of it, and in a region that the batch makes a hole first.
 */
Test(same_limits, row_22_a_hole_that_cuts_the_destination_before_its_run_would_go_on)
{
	for (uint32_t kept = 0; kept < 10; kept += 4) {
		uint64_t to = REGION_BLOCKS;

		start(16u << 20, 0);
		cr_assert_eq(engine_write(&engine, 0, 20, 1), 0);
		cr_assert_eq(engine_clone(&engine, 0, 10, to), 0);
		cr_assert_eq(engine_discard(&engine, kept, 10 - kept), 0);
		cr_assert_eq(engine_clone(&engine, kept, 16 - kept, to + kept), 0);
		cr_expect(kept == 0 || engine_holds(&engine, to, kept, 1));
		cr_expect(engine_holds(&engine, to + kept, 10 - kept, 0));
		cr_expect(engine_holds(&engine, to + 10, 6, 1));
		cr_expect(engine_holds(&engine, to + 16, 1, 0));
		cr_expect_eq(engine_references(&engine, to + 10, NULL), 2);
		cr_expect_eq(engine_flush(&engine), 0);
		engine_kill(&engine);
		cr_assert_eq(engine_open(&engine), 0);
		cr_expect(engine_holds(&engine, to + kept, 10 - kept, 0));
		cr_expect(engine_holds(&engine, to + 10, 6, 1));
		engine_done(&engine);
	}
	start(1u << 20, 0); /* for stop() */
}
