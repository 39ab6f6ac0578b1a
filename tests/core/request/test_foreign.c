/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_foreign - payload in memory that only the store reaches (zero copy)
 *
 * Whole blocks go between that memory and the store, and nobody here sees them. What has to be
 * looked at (a part of a block, a hole that is read, memory that the store refuses) is brought
 * into this process, once; then a write goes on with the part that needed it, a read begins again.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/engine.h"

#define BLOCKS 16u
#define BYTES  (BLOCKS * BLOCK_BYTES)

static struct engine engine;
static uint8_t foreign[BYTES]; /* a client's, as far as this process is concerned out of reach */
static uint8_t own[BYTES];
static unsigned brought;
static int bring_res;
static unsigned refusals; /* so many transfers of foreign memory are refused */
static unsigned refuse_after; /* or one, after so many others */

#define NO_REFUSAL UINT_MAX

static int refuse(void *context, const struct store_io *io)
{
	(void)context;
	if (io->foreign == 0)
		return 0;
	if (refuse_after != NO_REFUSAL && refuse_after-- == 0)
		return STORE_NEEDS_BYTES;
	if (refusals == 0)
		return 0;
	refusals--;
	return STORE_NEEDS_BYTES;
}

static void start(void)
{
	engine_init(&engine, &(struct engine_options){.ring_blocks = 256});
	store_mem_reach(&engine.mem, foreign);
	engine.mem.hook = refuse;
	brought = 0;
	bring_res = 0;
	refusals = 0;
	refuse_after = NO_REFUSAL;
}

static void stop(void)
{
	engine.mem.hook = NULL;
	engine_done(&engine);
}

TestSuite(foreign, .init = start, .fini = stop);

static int bring(struct request *request)
{
	cr_assert_eq(request->foreign, MEM_FOREIGN);
	brought++;
	memset(own, 0xbb, sizeof(own));
	if (request->op == REQUEST_WRITE)
		memcpy(own, foreign, request->len_bytes);
	request->data = own;
	return bring_res;
}

static int run(enum request_op what, uint64_t off_bytes, uint64_t len_bytes, bool fua)
{
	struct op op = {.request = {.op = what,
				    .fua = fua,
				    .off_bytes = off_bytes,
				    .len_bytes = len_bytes,
				    .foreign = MEM_FOREIGN,
				    .bring_bytes = bring}};
	int res;

	op_submit(&engine, &op, 0);
	res = op_finish(&op);
	/* As a front end does. */
	if (what == REQUEST_READ && res == 0 && op.request.foreign == 0)
		memcpy(foreign, own, len_bytes);
	return res;
}

static int write_blocks(uint64_t block, uint64_t blocks, uint32_t pattern, bool fua)
{
	pattern_fill(pattern, blocks, foreign);
	return run(REQUEST_WRITE, block * BLOCK_BYTES, blocks * BLOCK_BYTES, fua);
}

static bool reads(uint64_t block, uint64_t blocks, uint32_t pattern)
{
	memset(foreign, 0xff, sizeof(foreign));
	cr_assert_eq(run(REQUEST_READ, block * BLOCK_BYTES, blocks * BLOCK_BYTES, false), 0);
	return pattern_is(pattern, blocks, foreign);
}

Test(foreign, whole_blocks_go_straight_whatever_they_replace)
{
	cr_assert_eq(write_blocks(3, BLOCKS, 7, false), 0, "first");
	cr_assert(engine_holds(&engine, 3, BLOCKS, 7));
	cr_assert_eq(write_blocks(3, BLOCKS, 8, true), 0, "in place");
	cr_assert(engine_holds(&engine, 3, BLOCKS, 8));
	cr_assert_eq(engine_clone(&engine, 3, BLOCKS, 100), 0);
	cr_assert_eq(write_blocks(3, BLOCKS, 9, false), 0, "copy-on-write");
	cr_assert(engine_holds(&engine, 3, BLOCKS, 9));
	cr_assert(engine_holds(&engine, 100, BLOCKS, 8));
	cr_assert(reads(3, BLOCKS, 9));
	cr_assert_eq(brought, 0);
}

Test(foreign, a_hole_that_is_read_is_brought)
{
	cr_assert_eq(write_blocks(3, 2, 7, false), 0);
	cr_assert(reads(50, 4, 0));
	cr_assert_eq(brought, 1);
	/* Two blocks that are there, then two that are not. */
	memset(foreign, 0xff, sizeof(foreign));
	cr_assert_eq(run(REQUEST_READ, 3 * BLOCK_BYTES, 4 * BLOCK_BYTES, false), 0);
	cr_assert_eq(brought, 2);
	cr_assert(pattern_is(7, 2, foreign));
	cr_assert(pattern_is(0, 2, foreign + 2 * BLOCK_BYTES));
}

Test(foreign, a_part_of_a_block_is_brought_once_and_counted_once)
{
	struct volume_stats before, after;
	uint8_t expected[3 * BLOCK_BYTES];

	cr_assert_eq(write_blocks(3, 3, 7, false), 0);
	cr_assert_eq(engine_clone(&engine, 3, 3, 100), 0);
	before = engine_stats(&engine);
	pattern_fill(7, 3, expected);
	memset(foreign, 0x5a, BYTES);
	memset(expected + 100, 0x5a, 2 * BLOCK_BYTES);
	cr_assert_eq(run(REQUEST_WRITE, 3 * BLOCK_BYTES + 100, 2 * BLOCK_BYTES, false), 0);
	cr_assert_eq(brought, 1);
	after = engine_stats(&engine);
	cr_assert_eq(after.writes, before.writes + 1);
	cr_assert_eq(after.written_bytes, before.written_bytes + 2 * BLOCK_BYTES);
	memset(foreign, 0xff, sizeof(foreign));
	cr_assert_eq(run(REQUEST_READ, 3 * BLOCK_BYTES + 1, sizeof(expected) - 1, false), 0);
	cr_assert_eq(brought, 2);
	cr_assert_arr_eq(foreign, expected + 1, sizeof(expected) - 1);
	cr_assert_eq(engine_stats(&engine).reads, after.reads + 1);
	cr_assert(engine_holds(&engine, 100, 3, 7));
}

Test(foreign, sectors_of_a_private_block_go_straight)
{
	cr_assert_eq(write_blocks(3, 1, 7, false), 0);
	memset(foreign, 0x5a, BYTES);
	cr_assert_eq(run(REQUEST_WRITE, 3 * BLOCK_BYTES + 512, 1024, false), 0);
	memset(foreign, 0xff, BYTES);
	cr_assert_eq(run(REQUEST_READ, 3 * BLOCK_BYTES + 512, 1024, false), 0);
	for (unsigned i = 0; i < 1024; i++)
		cr_assert_eq(foreign[i], 0x5a);
	cr_assert_eq(brought, 0);
}

Test(foreign, what_the_store_refuses_is_brought_and_nothing_is_lost)
{
	uint64_t used;

	cr_assert_eq(engine_write(&engine, 3, BLOCKS, 1), 0);
	cr_assert_eq(engine_flush(&engine), 0);
	used = engine_stats(&engine).used_bytes;
	for (unsigned fua = 0; fua < 2; fua++) {
		refusals = 1;
		cr_assert_eq(write_blocks(3, BLOCKS, 8 + fua, fua), 0, "in place");
		cr_assert(engine_holds(&engine, 3, BLOCKS, 8 + fua));
		refusals = 1;
		cr_assert_eq(write_blocks(40 + fua * BLOCKS, BLOCKS, 9 + fua, fua), 0, "first");
		cr_assert(engine_holds(&engine, 40 + fua * BLOCKS, BLOCKS, 9 + fua));
	}
	cr_assert_eq(brought, 4);
	cr_assert_eq(engine_flush(&engine), 0);
	cr_assert_eq(engine_stats(&engine).used_bytes, used + 2 * BYTES, "no block is lost");
	refusals = 1;
	cr_assert(reads(3, BLOCKS, 9));
	cr_assert_eq(brought, 5);
}

static uint64_t overwritten_at = UINT64_MAX; /* bytes of the volume; a write begins there then */
static struct op other;
static uint8_t between[BLOCK_BYTES];

/* Between a request's parts, when its bytes are brought, somebody else writes and is answered. */
static int bring_late(struct request *request)
{
	op_write(&engine, &other, overwritten_at, BLOCK_BYTES, between);
	cr_assert_eq(op_finish(&other), 0);
	return bring(request);
}

/* Parts end with regions. The first one, which went straight, is not written again: another may
 * have overwritten it, and been read, since. */
static void write_two_parts(bool fua, uint64_t len_bytes, unsigned refused_part)
{
	const uint64_t first = REGION_BLOCKS - 4;
	uint64_t zero_copy = engine_stats(&engine).zero_copy_bytes;
	struct op op = {.request = {.op = REQUEST_WRITE,
				    .fua = fua,
				    .off_bytes = first * BLOCK_BYTES,
				    .len_bytes = len_bytes,
				    .foreign = MEM_FOREIGN,
				    .bring_bytes = bring_late}};

	cr_assert_eq(engine_write(&engine, first, 8, 1), 0);
	cr_assert_eq(engine_clone(&engine, first, 8, 1000), 0);
	pattern_fill(20, 8, foreign);
	pattern_fill(30, 1, between);
	overwritten_at = first * BLOCK_BYTES;
	refuse_after = refused_part;
	brought = 0;
	op_submit(&engine, &op, 0);
	cr_assert_eq(op_finish(&op), 0);
	cr_assert_eq(brought, 1);
	cr_assert(engine_holds(&engine, first, 1, 30), "what was written in between stays");
	cr_assert(engine_holds(&engine, 1000, 8, 1), "the clone is as it was");
	cr_assert_gt(engine_stats(&engine).zero_copy_bytes, zero_copy);
	cr_assert_leq(engine_stats(&engine).zero_copy_bytes - zero_copy, 7 * BLOCK_BYTES);
}

static void expect_blocks(uint64_t first, uint64_t blocks, uint64_t in_pattern, uint32_t pattern)
{
	static uint8_t expected[8 * BLOCK_BYTES], found[8 * BLOCK_BYTES];

	pattern_fill(pattern, 8, expected);
	cr_assert_eq(engine_read_bytes(&engine, first * BLOCK_BYTES, blocks * BLOCK_BYTES, found),
		     0);
	cr_assert_arr_eq(found, expected + in_pattern * BLOCK_BYTES, blocks * BLOCK_BYTES);
}

Test(foreign, a_write_whose_end_is_brought_leaves_alone_what_it_has_done)
{
	for (unsigned fua = 0; fua < 2; fua++) {
		write_two_parts(fua, 8 * BLOCK_BYTES - 512, NO_REFUSAL);
		expect_blocks(REGION_BLOCKS - 3, 3, 1, 20);
		expect_blocks(REGION_BLOCKS, 3, 4, 20);
	}
}

Test(foreign, a_write_that_is_refused_halfway_goes_on_from_there)
{
	for (unsigned fua = 0; fua < 2; fua++) {
		write_two_parts(fua, 8 * BLOCK_BYTES, 1);
		expect_blocks(REGION_BLOCKS - 3, 3, 1, 20);
		expect_blocks(REGION_BLOCKS, 4, 4, 20);
	}
}

/* What the first part published is durable with the rest. */
Test(foreign, a_durable_write_that_was_brought_halfway_survives_a_kill)
{
	write_two_parts(true, 8 * BLOCK_BYTES - 512, NO_REFUSAL);
	engine.mem.hook = NULL;
	engine_kill(&engine);
	cr_assert_eq(engine_open(&engine), 0);
	expect_blocks(REGION_BLOCKS - 3, 3, 1, 20);
	expect_blocks(REGION_BLOCKS, 3, 4, 20);
}

Test(foreign, bytes_that_cannot_be_brought_fail_the_request_alone)
{
	cr_assert_eq(write_blocks(3, BLOCKS, 7, false), 0);
	bring_res = -EIO;
	refusals = 1;
	cr_assert_eq(write_blocks(3, BLOCKS, 8, false), -EIO);
	cr_assert_eq(run(REQUEST_READ, 50 * BLOCK_BYTES, BLOCK_BYTES, false), -EIO);
	cr_assert_eq(brought, 2);
	bring_res = 0;
	cr_assert_eq(write_blocks(3, BLOCKS, 9, false), 0);
	cr_assert(engine_holds(&engine, 3, BLOCKS, 9));
}
