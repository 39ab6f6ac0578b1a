/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_same_rules - rows 1 to 13 and 16 of the same-range rules, on the engine alone
 *
 * Rows 14, 15 and 18 to 25 are in test_same_races.c and test_same_limits.c. A test is named after
 * its row.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "tests/lib/engine.h"

#define MIB 256u /* blocks */

static struct engine engine;

/* Built twice: for a store that compares and for one that is read from. */
static void init(const struct engine_options *options)
{
	engine_init(&engine, options);
	engine.mem.store.can_compare = STORE_COMPARES;
}

static void start(uint64_t logical_bytes)
{
	if (engine.volume)
		engine_done(&engine); /* the suite's own */
	init(&(struct engine_options){.logical_bytes = logical_bytes});
}

static void start_small(void)
{
	start(8ull << 20);
}

static void stop(void)
{
	engine_done(&engine);
}

TestSuite(same_rules, .init = start_small, .fini = stop);

static uint64_t bytes(uint64_t blocks)
{
	return blocks * BLOCK_BYTES;
}

static int job(uint64_t src_off_bytes, uint64_t len_bytes, struct same_dst *dsts, uint32_t n)
{
	struct same_job job = {
		.src_off_bytes = src_off_bytes,
		.len_bytes = len_bytes,
		.dsts = dsts,
		.dst_count = n,
	};

	return engine_job(&engine, &job);
}

static bool names_the_block_size(const char *message)
{
	return message && strstr(message, "4096");
}

static bool shares(uint64_t block_a, uint64_t block_b)
{
	pbn_t a, b;

	return engine_references(&engine, block_a, &a) > 1 &&
	       engine_references(&engine, block_b, &b) > 1 && a.v == b.v;
}

Test(same_rules, row_01_an_error_of_the_source_fails_the_request_and_touches_no_destination)
{
	struct same_dst dsts[2] = {{.off_bytes = bytes(4), .error = 77}, {.off_bytes = bytes(8)}};
	struct volume_stats before, after;

	engine_write(&engine, 4, 2, 1);
	before = engine_stats(&engine);
	cr_assert_eq(job(8ull << 20, bytes(2), dsts, 2), -EINVAL);
	cr_assert_eq(job(512, bytes(2), dsts, 2), -EINVAL);
	after = engine_stats(&engine);
	cr_assert_eq(dsts[0].error, 77, "not even its status is touched");
	cr_assert_eq(after.journal_edits, before.journal_edits);
	cr_assert_eq(after.same_requests, before.same_requests);
}

Test(same_rules, row_01_an_error_of_one_destination_does_not_stop_the_others)
{
	struct same_dst dsts[] = {
		{.off_bytes = bytes(4)}, {.off_bytes = 512},	   {.off_bytes = 8ull << 20},
		{.off_bytes = bytes(0)}, {.off_bytes = bytes(12)}, {.off_bytes = bytes(8)},
	};

	engine_write(&engine, 0, 2, 1);
	engine_write(&engine, 4, 2, 1);
	engine_write(&engine, 8, 2, 1);
	engine_write(&engine, 12, 2, 2);
	cr_assert_eq(job(0, bytes(2), dsts, 6), 0);
	cr_expect_eq(dsts[0].error, 0);
	cr_expect_eq(dsts[1].error, -EINVAL);
	cr_expect_eq(dsts[2].error, -EINVAL);
	cr_expect_eq(dsts[3].error, -EINVAL);
	cr_expect(dsts[4].error == 0 && dsts[4].result.differs);
	cr_expect_eq(dsts[5].error, 0);
	cr_expect(shares(0, 4) && shares(1, 9));
}

Test(same_rules, row_02_destinations_run_in_order_and_say_truthfully_what_was_freed_and_shared)
{
	/* 4: private. 4 again: shared by then. 8: its block has another owner. 12: half of each. */
	struct same_dst dsts[] = {{.off_bytes = bytes(4)},
				  {.off_bytes = bytes(4)},
				  {.off_bytes = bytes(8)},
				  {.off_bytes = bytes(12)}};

	for (uint64_t block = 0; block <= 12; block += 4)
		engine_write(&engine, block, 2, 1);
	cr_assert_eq(engine_clone(&engine, 8, 2, 100), 0);
	cr_assert_eq(engine_same(&engine, 0, 1, 12, NULL), 0);
	cr_assert_eq(job(0, bytes(2), dsts, 4), 0);
	for (int i = 0; i < 4; i++) {
		cr_expect_eq(dsts[i].error, 0);
		cr_expect_eq(dsts[i].result.deduped_bytes, bytes(2));
		cr_expect(!dsts[i].result.differs);
	}
	cr_expect_eq(dsts[0].result.freed_bytes, bytes(2));
	cr_expect_eq(dsts[0].result.already_shared_bytes, 0);
	cr_expect_eq(dsts[1].result.freed_bytes, 0);
	cr_expect_eq(dsts[1].result.already_shared_bytes, bytes(2));
	cr_expect_eq(dsts[2].result.freed_bytes, 0, "its blocks have another owner");
	cr_expect_eq(dsts[2].result.already_shared_bytes, 0);
	cr_expect_eq(dsts[3].result.freed_bytes, bytes(1));
	cr_expect_eq(dsts[3].result.already_shared_bytes, bytes(1));
}

Test(same_rules, row_03_4096_destinations_are_taken_and_one_more_is_e2big)
{
	static struct same_dst dsts[SAME_DSTS_MAX + 1];

	start(32ull << 20);
	for (uint32_t i = 0; i < 17; i++)
		cr_assert_eq(engine_write(&engine, i * MIB, MIB, 1), 0);
	for (uint32_t i = 0; i <= SAME_DSTS_MAX; i++)
		dsts[i].off_bytes = bytes(i + 1);
	cr_assert(SAME_DSTS_MAX >= 4096);
	cr_assert_eq(job(0, bytes(1), dsts, SAME_DSTS_MAX + 1), -E2BIG);
	cr_expect_eq(engine_references(&engine, 0, NULL), 1, "nothing was merged");
	cr_assert_eq(job(0, bytes(1), dsts, SAME_DSTS_MAX), 0);
	for (uint32_t i = 0; i < SAME_DSTS_MAX; i++)
		cr_assert(dsts[i].error == 0 && dsts[i].result.deduped_bytes == bytes(1));
	cr_expect_eq(engine_references(&engine, 0, NULL), SAME_DSTS_MAX + 1);
}

/* Each is answered without waiting for anything: the stack must not grow with their number. */
Test(same_rules, row_03_4096_destinations_that_need_no_io)
{
	static struct same_dst dsts[SAME_DSTS_MAX];

	start(32ull << 20);
	engine_write(&engine, 0, 2, 1);
	engine_same(&engine, 0, 1, 1, NULL);
	for (uint32_t i = 0; i < SAME_DSTS_MAX; i++)
		dsts[i].off_bytes = bytes(1);
	cr_assert_eq(job(0, bytes(1), dsts, SAME_DSTS_MAX), 0);
	for (uint32_t i = 0; i < SAME_DSTS_MAX; i++)
		cr_assert_eq(dsts[i].result.already_shared_bytes, bytes(1));
}

Test(same_rules, row_04_length_0_succeeds_with_0_bytes)
{
	struct same_dst dst = {.off_bytes = bytes(4)};
	struct same_result result;

	cr_assert_eq(job(0, 0, &dst, 1), 0);
	cr_expect(dst.error == 0 && dst.result.deduped_bytes == 0 && !dst.result.differs);
	cr_assert_eq(engine_same(&engine, 0, 0, 0, &result), 0);
	cr_expect_eq(result.deduped_bytes, 0);
	dst.off_bytes = 8ull << 20; /* the end itself is a place */
	cr_assert_eq(job(8ull << 20, 0, &dst, 1), 0);
	cr_expect_eq(dst.error, 0);
}

Test(same_rules, row_05_a_range_that_wraps_or_ends_past_the_volume_is_einval)
{
	uint64_t size = 8ull << 20, high = UINT64_MAX - BLOCK_BYTES + 1;
	struct same_dst dst = {.off_bytes = bytes(4)};
	uint64_t wrong[][2] = {{size, BLOCK_BYTES}, {size - BLOCK_BYTES, 2 * BLOCK_BYTES},
			       {high, BLOCK_BYTES}, {high, 2 * BLOCK_BYTES},
			       {BLOCK_BYTES, high}, {0, high}};

	for (unsigned i = 0; i < 6; i++) {
		cr_expect_eq(job(wrong[i][0], wrong[i][1], &dst, 1), -EINVAL, "source %u", i);
		cr_expect_eq(engine_same(&engine, wrong[i][0] / BLOCK_BYTES,
					 wrong[i][1] / BLOCK_BYTES, 4, NULL),
			     -EINVAL, "request %u", i);
		cr_expect_eq(engine_same(&engine, 4, wrong[i][1] / BLOCK_BYTES,
					 wrong[i][0] / BLOCK_BYTES, NULL),
			     -EINVAL, "request's destination %u", i);
	}
	for (unsigned i = 0; i < 4; i++) {
		dst.off_bytes = wrong[i][0];
		cr_expect_eq(job(0, wrong[i][1], &dst, 1), 0);
		cr_expect_eq(dst.error, -EINVAL, "destination %u", i);
	}
}

Test(same_rules, row_06_what_is_no_multiple_of_the_block_size_is_einval_and_says_so)
{
	struct same_dst dst = {.off_bytes = bytes(4)};
	struct same_job whole = {.dsts = &dst, .dst_count = 1};

	for (int i = 0; i < 2; i++) {
		whole.src_off_bytes = i == 0 ? 512 : 0;
		whole.len_bytes = i == 1 ? BLOCK_BYTES + 1 : BLOCK_BYTES;
		cr_expect_eq(engine_job(&engine, &whole), -EINVAL);
		cr_expect(names_the_block_size(whole.message));
	}
	dst.off_bytes = bytes(4) + 2048;
	cr_expect_eq(job(0, BLOCK_BYTES, &dst, 1), 0);
	cr_expect_eq(dst.error, -EINVAL);
	cr_expect(names_the_block_size(dst.message));
}

static int unaligned(enum request_op what, uint64_t src, uint64_t len, uint64_t dst)
{
	struct op op = {
		.request = {.op = what, .off_bytes = dst, .len_bytes = len, .src_off_bytes = src}};

	op_submit(&engine, &op, 0);
	return op_finish(&op);
}

/* Also below the job: nothing smaller than a block can be shared. */
Test(same_rules, row_06_no_part_of_a_block_is_ever_shared)
{
	for (int i = 0; i < 2; i++) {
		enum request_op what = i ? REQUEST_CLONE : REQUEST_SAME;

		engine_write(&engine, 0, 2, 1);
		engine_write(&engine, 8, 2, 1);
		cr_expect_eq(unaligned(what, 0, 512, bytes(8)), -EINVAL);
		cr_expect_eq(unaligned(what, 512, BLOCK_BYTES, bytes(8)), -EINVAL);
		cr_expect_eq(unaligned(what, 0, BLOCK_BYTES, bytes(8) + 512), -EINVAL);
		cr_expect_eq(unaligned(what, 0, BLOCK_BYTES + 512, bytes(8)), -EINVAL);
		cr_expect_eq(engine_references(&engine, 0, NULL), 1);
	}
}

Test(same_rules, row_07_a_length_over_the_maximum_is_clamped_and_the_caller_goes_on)
{
	uint64_t len = SAME_LENGTH_MAX + (3ull << 20);
	struct same_dst dst = {.off_bytes = 128ull << 20};

	engine_done(&engine);
	init(&(struct engine_options){.logical_bytes = 256ull << 20, .store_bytes = 32ull << 20});
	cr_assert(SAME_LENGTH_MAX >= 16ull << 20);
	engine_write(&engine, 3, 5, 1);
	engine_write(&engine, (128ull << 20) / BLOCK_BYTES + 3, 5, 1);
	cr_assert_eq(job(0, len, &dst, 1), 0);
	cr_assert(dst.error == 0 && !dst.result.differs);
	cr_expect_eq(dst.result.deduped_bytes, SAME_LENGTH_MAX);
	cr_expect_eq(dst.result.freed_bytes, bytes(5));
	dst.off_bytes += dst.result.deduped_bytes;
	cr_assert_eq(job(SAME_LENGTH_MAX, len - SAME_LENGTH_MAX, &dst, 1), 0);
	cr_expect(dst.error == 0 && dst.result.deduped_bytes == 3ull << 20);
}

/* Whole or DIFFERS or an error: never success with nothing done. */
Test(same_rules, row_07_every_call_makes_progress_or_says_why_not)
{
	struct same_result result;

	for (uint64_t len = 1; len < 1200; len += 173) {
		cr_assert_eq(engine_same(&engine, 0, len, 600, &result), len > 600 ? -EINVAL : 0,
			     "%lu blocks", len);
		cr_assert(len > 600 || (result.deduped_bytes == bytes(len) && !result.differs));
	}
	engine_write(&engine, 0, 1, 1);
	cr_assert_eq(engine_same(&engine, 0, 10, 600, &result), 0);
	cr_assert(result.deduped_bytes == 0 && result.differs);
}

Test(same_rules, row_08_all_successful_destinations_report_the_same_count)
{
	struct same_dst dsts[] = {
		{.off_bytes = bytes(600)}, {.off_bytes = bytes(1000)}, {.off_bytes = bytes(1500)}};

	engine_write(&engine, 0, 100, 1);
	engine_write(&engine, 600, 100, 1);
	engine_write(&engine, 1000, 100, 1);
	engine_write(&engine, 1500, 100, 1);
	engine_clone(&engine, 0, 50, 1000);
	engine_same(&engine, 0, 300, 600, NULL);
	cr_assert_eq(job(0, bytes(300), dsts, 3), 0);
	for (int i = 0; i < 3; i++)
		cr_expect(dsts[i].error == 0 && dsts[i].result.deduped_bytes == bytes(300) &&
			  !dsts[i].result.differs);
}

/* A range of `blocks` at 0 and at dst, equal but for one byte. */
static void differ_at(uint64_t blocks, uint64_t dst, uint64_t at)
{
	uint8_t *buf = malloc(bytes(blocks));

	pattern_fill(1, blocks, buf);
	cr_assert_eq(engine_write_bytes(&engine, 0, bytes(blocks), buf, false), 0);
	buf[at] ^= 0x40;
	cr_assert_eq(engine_write_bytes(&engine, bytes(dst), bytes(blocks), buf, false), 0);
	free(buf);
}

Test(same_rules, row_09_one_differing_byte_is_found_and_changes_nothing)
{
	uint64_t places[] = {0,
			     1,
			     511,
			     512,
			     4095,
			     4096,
			     7777,
			     8191,
			     40000,
			     40959,
			     9 * BLOCK_BYTES + 8,
			     10 * BLOCK_BYTES - 1};

	for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		struct volume_stats before, after;
		struct same_result result;

		differ_at(10, 20, places[i]);
		before = engine_stats(&engine);
		cr_assert_eq(engine_same(&engine, 0, 10, 20, &result), 0);
		after = engine_stats(&engine);
		cr_expect(result.differs, "byte %lu", places[i]);
		cr_expect_eq(result.differs_at_bytes, places[i]);
		cr_expect_eq(result.deduped_bytes, 0);
		cr_expect_eq(after.journal_edits, before.journal_edits);
		cr_expect_eq(after.used_bytes, before.used_bytes);
		cr_expect_eq(engine_references(&engine, 0, NULL), 1);
	}
}

/* The compare of a slice is over before its remap begins. */
Test(same_rules, row_09_a_difference_at_a_slices_end_leaves_all_of_it_alone)
{
	struct volume_stats before, after;
	struct same_result result;

	differ_at(MIB, 512, bytes(MIB) - 1);
	before = engine_stats(&engine);
	cr_assert_eq(engine_same(&engine, 0, MIB, 512, &result), 0);
	after = engine_stats(&engine);
	cr_expect(result.differs && result.deduped_bytes == 0);
	cr_expect_eq(after.journal_edits, before.journal_edits);
	cr_expect_eq(after.shared_bytes, 0);
}

Test(same_rules, row_10_a_later_slice_that_differs_leaves_the_earlier_ones_merged)
{
	struct same_result result;

	differ_at(3 * MIB, 1024, 2 * bytes(MIB) + 12345);
	cr_assert_eq(engine_same(&engine, 0, 3 * MIB, 1024, &result), 0);
	cr_expect(result.differs);
	cr_expect_eq(result.deduped_bytes, 2 * bytes(MIB));
	cr_expect_eq(result.freed_bytes, 2 * bytes(MIB));
	cr_expect_eq(result.differs_at_bytes, 2 * bytes(MIB) + 12345);
	cr_expect(shares(0, 1024) && shares(2 * MIB - 1, 1024 + 2 * MIB - 1));
	cr_expect_eq(engine_references(&engine, 2 * MIB, NULL), 1);
	cr_expect_eq(engine_references(&engine, 1024 + 2 * MIB, NULL), 1);
}

Test(same_rules, row_11_overlap_and_identity_are_einval_for_that_destination)
{
	struct same_dst dsts[] = {{.off_bytes = bytes(10)},
				  {.off_bytes = bytes(19)},
				  {.off_bytes = bytes(1)},
				  {.off_bytes = bytes(20)},
				  {.off_bytes = bytes(0)}};
	int expected[] = {-EINVAL, -EINVAL, -EINVAL, 0, 0};

	for (int clone = 0; clone < 2; clone++) {
		struct same_job whole = {.src_off_bytes = bytes(10),
					 .len_bytes = bytes(10),
					 .dsts = dsts,
					 .dst_count = 5,
					 .clone = clone};

		engine_write(&engine, 0, 30, 1);
		cr_assert_eq(engine_job(&engine, &whole), 0);
		for (int i = 0; i < 5; i++)
			cr_expect_eq(dsts[i].error, expected[i], "destination %d", i);
		cr_expect_eq(engine_references(&engine, 12, NULL), 3);
		cr_expect(engine_holds(&engine, 0, 30, 1));
	}
}

static int raw(enum request_op what, uint64_t src, uint64_t blocks, uint64_t dst)
{
	return unaligned(what, bytes(src), bytes(blocks), bytes(dst));
}

Test(same_rules, row_11_no_request_overlaps_itself)
{
	engine_write(&engine, 0, 30, 1);
	for (int i = 0; i < 2; i++) {
		enum request_op what = i ? REQUEST_CLONE : REQUEST_SAME;

		cr_expect_eq(raw(what, 10, 10, 10), -EINVAL);
		cr_expect_eq(raw(what, 10, 10, 19), -EINVAL);
		cr_expect_eq(raw(what, 10, 10, 1), -EINVAL);
		cr_expect_eq(engine_references(&engine, 12, NULL), 1);
	}
}

Test(same_rules, row_12_what_is_shared_already_is_the_same_with_full_bytes_and_nothing_freed)
{
	struct volume_stats before, after;
	struct same_result result;
	uint64_t reads;

	engine_write(&engine, 0, 300, 1);
	engine_write(&engine, 600, 300, 1);
	cr_assert_eq(engine_same(&engine, 0, 300, 600, NULL), 0);
	before = engine_stats(&engine);
	reads = store_mem_ops(&engine.mem, STORE_READ) + store_mem_ops(&engine.mem, STORE_COMPARE);
	cr_assert_eq(engine_same(&engine, 0, 300, 600, &result), 0);
	after = engine_stats(&engine);
	cr_expect(!result.differs);
	cr_expect_eq(result.deduped_bytes, bytes(300));
	cr_expect_eq(result.already_shared_bytes, bytes(300));
	cr_expect_eq(result.freed_bytes, 0);
	cr_expect_eq(after.journal_edits, before.journal_edits);
	cr_expect_eq(store_mem_ops(&engine.mem, STORE_READ) +
			     store_mem_ops(&engine.mem, STORE_COMPARE),
		     reads, "one block needs no compare");
}

Test(same_rules, row_13_the_sources_blocks_are_kept_and_the_destinations_freed)
{
	struct volume_stats before, after;
	pbn_t src, dst, kept, now;

	engine_write(&engine, 0, 4, 1);
	engine_write(&engine, 600, 4, 1);
	engine_flush(&engine);
	engine_references(&engine, 2, &src);
	engine_references(&engine, 602, &dst);
	before = engine_stats(&engine);
	cr_assert_eq(engine_same(&engine, 0, 4, 600, NULL), 0);
	engine_flush(&engine);
	engine_settle(&engine);
	after = engine_stats(&engine);
	engine_references(&engine, 2, &kept);
	engine_references(&engine, 602, &now);
	cr_expect(kept.v == src.v && now.v == src.v && dst.v != src.v);
	cr_expect_eq(before.used_bytes - after.used_bytes, bytes(4));
	cr_expect_eq(after.free_bytes - before.free_bytes, bytes(4), "and can be allocated");
	cr_expect(engine_holds(&engine, 0, 4, 1) && engine_holds(&engine, 600, 4, 1));
}

Test(same_rules, row_16_a_volume_opened_read_only_answers_erofs)
{
	struct same_dst dst = {.off_bytes = bytes(4)};

	engine_write(&engine, 0, 1, 1);
	engine_write(&engine, 4, 1, 1);
	cr_assert_eq(engine_close(&engine), 0);
	engine.options.volume.read_only = true;
	cr_assert_eq(engine_open(&engine), 0);
	cr_expect_eq(job(0, BLOCK_BYTES, &dst, 1), -EROFS);
	cr_expect_eq(engine_same(&engine, 0, 1, 4, NULL), -EROFS);
	cr_expect_eq(engine_clone(&engine, 0, 1, 4), -EROFS);
	cr_expect(engine_holds(&engine, 4, 1, 1));
}
