/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_lasting - what a client was told is done outlives the process, where the front end asked for
 * that, and costs nothing where a block is overwritten in place
 *
 * A block device of the kernel goes on when its server is killed: nobody above it knows that
 * anything was lost.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/engine.h"

#define BLOCKS 16u

static struct engine engine;
static uint8_t data[BLOCKS * BLOCK_BYTES];

static void start(void)
{
	engine_init(&engine, &(struct engine_options){.ring_blocks = 256});
}

static void stop(void)
{
	engine_done(&engine);
}

TestSuite(lasting, .init = start, .fini = stop);

static int run(enum request_op what, bool lasting, uint64_t block, uint64_t blocks,
	       uint32_t pattern)
{
	struct op op = {.request = {.op = what,
				    .lasting = lasting,
				    .off_bytes = block * BLOCK_BYTES,
				    .len_bytes = blocks * BLOCK_BYTES,
				    .data = what == REQUEST_WRITE ? data : NULL}};

	if (what == REQUEST_WRITE)
		pattern_fill(pattern, blocks, data);
	op_submit(&engine, &op, 0);
	return op_finish(&op);
}

static void kill_and_open(void)
{
	engine_kill(&engine);
	cr_assert_eq(engine_open(&engine), 0);
}

Test(lasting, a_first_write_that_was_answered_outlives_a_kill)
{
	cr_assert_eq(run(REQUEST_WRITE, true, 3, BLOCKS, 7), 0);
	kill_and_open();
	cr_assert(engine_holds(&engine, 3, BLOCKS, 7));
	cr_assert(engine_holds(&engine, 3 + BLOCKS, 1, 0));
}

/* What makes the tests here tests: without being asked, the engine answers earlier. */
Test(lasting, a_write_that_is_not_lasting_waits_for_no_commit)
{
	cr_assert_eq(run(REQUEST_WRITE, false, 3, BLOCKS, 7), 0);
	kill_and_open();
	cr_assert(engine_holds(&engine, 3, BLOCKS, 0));
}

Test(lasting, an_overwrite_waits_for_the_edit_that_made_its_place)
{
	cr_assert_eq(run(REQUEST_WRITE, false, 3, BLOCKS, 7), 0);
	cr_assert_eq(run(REQUEST_WRITE, true, 3, BLOCKS, 8), 0);
	kill_and_open();
	cr_assert(engine_holds(&engine, 3, BLOCKS, 8));
}

Test(lasting, a_copy_on_write_that_was_answered_outlives_a_kill)
{
	cr_assert_eq(run(REQUEST_WRITE, true, 0, 8, 5), 0);
	cr_assert_eq(engine_clone(&engine, 0, 8, 512), 0);
	cr_assert_eq(run(REQUEST_WRITE, true, 514, 2, 6), 0);
	kill_and_open();
	cr_assert(engine_holds(&engine, 0, 8, 5));
	cr_assert(engine_holds(&engine, 512, 2, 5));
	cr_assert(engine_holds(&engine, 514, 2, 6));
	cr_assert(engine_holds(&engine, 516, 4, 5));
}

Test(lasting, discards_and_zeroes_that_were_answered_outlive_a_kill)
{
	cr_assert_eq(run(REQUEST_WRITE, true, 0, BLOCKS, 5), 0);
	cr_assert_eq(run(REQUEST_DISCARD, true, 0, 4, 0), 0);
	cr_assert_eq(run(REQUEST_ZERO, true, 8, 4, 0), 0);
	kill_and_open();
	cr_assert(engine_holds(&engine, 0, 4, 0));
	cr_assert(engine_holds(&engine, 4, 4, 5));
	cr_assert(engine_holds(&engine, 8, 4, 0));
	cr_assert(engine_holds(&engine, 12, 4, 5));
}

Test(lasting, an_overwrite_of_what_is_committed_costs_its_payload_alone)
{
	uint64_t writes, flushes;

	cr_assert_eq(run(REQUEST_WRITE, true, 0, BLOCKS, 5), 0);
	engine_settle(&engine);
	writes = store_mem_ops(&engine.mem, STORE_WRITE);
	flushes = store_mem_ops(&engine.mem, STORE_FLUSH);
	cr_assert_eq(run(REQUEST_WRITE, true, 0, BLOCKS, 6), 0);
	cr_assert_eq(store_mem_ops(&engine.mem, STORE_WRITE), writes + 1);
	cr_assert_eq(store_mem_ops(&engine.mem, STORE_FLUSH), flushes);
	kill_and_open();
	cr_assert(engine_holds(&engine, 0, BLOCKS, 6));
}
