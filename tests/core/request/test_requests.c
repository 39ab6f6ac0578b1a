/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_requests - reads, writes, zeroes, discards and maps, alone and against each other
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/volume/volume_internal.h"
#include "tests/lib/engine.h"

static struct engine engine;
static bool hold_reads, hold_writes, hold_discards;
static int read_error;

static int hook(void *context, const struct store_io *io)
{
	(void)context;
	if (io->op == STORE_READ && read_error)
		return read_error;
	return (io->op == STORE_READ && hold_reads) || (io->op == STORE_WRITE && hold_writes) ||
			       (io->op == STORE_DISCARD && hold_discards)
		       ? MEM_HOLD
		       : 0;
}

static void start_with(const struct engine_options *options)
{
	hold_reads = hold_writes = hold_discards = false;
	read_error = 0;
	if (engine.volume)
		engine_done(&engine);
	engine_init(&engine, options);
	engine.mem.hook = hook;
}

static void start(void)
{
	start_with(&(struct engine_options){.ring_blocks = 128, .volume = {.discard = true}});
}

static void stop(void)
{
	engine.mem.hook = NULL;
	store_mem_release(&engine.mem, 0);
	engine_done(&engine);
}

TestSuite(requests, .init = start, .fini = stop);

static uint64_t bytes(uint64_t blocks)
{
	return blocks * BLOCK_BYTES;
}

static void release(void)
{
	hold_reads = hold_writes = hold_discards = false;
	store_mem_release(&engine.mem, 0);
}

static int range(enum request_op what, uint64_t off_bytes, uint64_t len_bytes)
{
	struct op op = {.request = {.op = what, .off_bytes = off_bytes, .len_bytes = len_bytes}};

	op_submit(&engine, &op, 0);
	return op_finish(&op);
}

Test(requests, bytes_outside_the_volume_are_einval)
{
	uint64_t size = 8ull << 20;
	uint8_t byte = 1;

	cr_expect_eq(engine_write_bytes(&engine, size, 1, &byte, false), -EINVAL);
	cr_expect_eq(engine_read_bytes(&engine, UINT64_MAX, 1, &byte), -EINVAL);
	cr_expect_eq(range(REQUEST_DISCARD, UINT64_MAX - 4095, 8192), -EINVAL);
	cr_expect_eq(range(REQUEST_ZERO, 4096, UINT64_MAX - 4095), -EINVAL);
	cr_expect_eq(range(REQUEST_READ, size, 0), 0);
	cr_expect_eq(engine_write_bytes(&engine, size - 1, 1, &byte, false), 0);
}

/* Writes of all alignments against a model in memory: to holes, to private and to shared blocks. */
Test(requests, any_bytes_of_any_block_can_be_written_zeroed_and_read)
{
	enum { SIZE = 40 * BLOCK_BYTES };
	uint8_t *model = calloc(1, SIZE), *buf = malloc(SIZE);
	struct rng rng = rng_for(7, 7);

	for (int i = 0; i < 1500; i++) {
		uint32_t off = rng_below(&rng, SIZE), len = 1 + rng_below(&rng, 9000);
		uint32_t what = rng_below(&rng, 10);

		len = len > SIZE - off ? SIZE - off : len;
		if (what < 6) {
			memset(buf, (int)rng_below(&rng, 256), len);
			cr_assert_eq(engine_write_bytes(&engine, off, len, buf, what == 0), 0);
			memcpy(model + off, buf, len);
		} else if (what == 6) {
			cr_assert_eq(range(REQUEST_ZERO, off, len), 0);
			memset(model + off, 0, len);
		} else if (what == 7) {
			uint32_t first = (uint32_t)div_up(off, BLOCK_BYTES) * BLOCK_BYTES;
			uint32_t end = (off + len) / BLOCK_BYTES * BLOCK_BYTES;

			cr_assert_eq(range(REQUEST_DISCARD, off, len), 0);
			if (end > first)
				memset(model + first, 0, end - first);
		} else if (what == 8) {
			cr_assert_eq(engine_clone(&engine, 0, 20, 600), 0);
		} else {
			cr_assert_eq(engine_flush(&engine), 0);
		}
		cr_assert_eq(engine_read_bytes(&engine, off, len, buf), 0);
		cr_assert_eq(memcmp(buf, model + off, len), 0, "step %d", i);
	}
	cr_assert_eq(engine_read_bytes(&engine, 0, SIZE, buf), 0);
	cr_assert_eq(memcmp(buf, model, SIZE), 0);
	free(model);
	free(buf);
}

/* Mutant 28. */
Test(requests, a_discard_leaves_a_partial_head_and_tail_alone_also_of_shared_blocks)
{
	for (int shared = 0; shared < 2; shared++) {
		engine_write(&engine, 10, 5, 1);
		if (shared)
			engine_clone(&engine, 10, 5, 600);
		cr_assert_eq(range(REQUEST_DISCARD, bytes(10) + 100, bytes(4)), 0);
		cr_expect(engine_holds(&engine, 10, 1, 1));
		cr_expect(engine_holds(&engine, 11, 3, 0));
		cr_expect(engine_holds(&engine, 14, 1, 1));
		cr_assert_eq(range(REQUEST_DISCARD, bytes(14) + 512, 1024), 0);
		cr_expect(engine_holds(&engine, 14, 1, 1));
		cr_expect(!shared || engine_holds(&engine, 600, 5, 1));
	}
}

/* Mutant 30. */
Test(requests, offsets_beyond_4_gib_are_not_cut)
{
	uint64_t far = (4ull << 30) / BLOCK_BYTES;

	start_with(
		&(struct engine_options){.logical_bytes = 9ull << 30, .store_bytes = 32ull << 20});
	engine_write(&engine, 5, 10, 1);
	engine_write(&engine, far + 5, 10, 2);
	engine_write(&engine, 2 * far + 5, 10, 3);
	cr_assert_eq(engine_discard(&engine, far + 5, 10), 0);
	cr_expect(engine_holds(&engine, 5, 10, 1));
	cr_expect(engine_holds(&engine, far + 5, 10, 0));
	cr_expect(engine_holds(&engine, 2 * far + 5, 10, 3));
	cr_assert_eq(engine_zero(&engine, 2 * far + 5, 3), 0);
	cr_expect(engine_holds(&engine, 5, 10, 1));
	cr_expect(engine_holds(&engine, 2 * far + 8, 7, 3));
}

/* Mutant 17. */
Test(requests, a_read_error_in_a_read_modify_write_fails_the_write_and_changes_nothing)
{
	uint8_t data[100] = {9};

	for (int shared = 0; shared < 2; shared++) {
		engine_write(&engine, 10, 1, 1);
		if (shared)
			engine_clone(&engine, 10, 1, 600);
		read_error = -EIO;
		cr_expect_eq(engine_write_bytes(&engine, bytes(10) + 33, 100, data, false), -EIO);
		read_error = 0;
		cr_expect(engine_holds(&engine, 10, 1, 1));
		cr_expect_eq(engine_write(&engine, 10, 1, 1), 0, "its fence is gone");
	}
}

/* Mutant 50, I22: two parts of one sector. */
Test(requests, a_block_is_closed_during_its_read_modify_write)
{
	for (int shared = 0; shared < 2; shared++) {
		uint8_t one[64], two[64], now[BLOCK_BYTES];
		struct op first, second;

		memset(one, 1, sizeof(one));
		memset(two, 2, sizeof(two));
		engine_write(&engine, 10, 1, 7);
		if (shared)
			engine_clone(&engine, 10, 1, 600);
		hold_reads = true;
		op_write(&engine, &first, bytes(10) + 100, 64, one);
		op_write(&engine, &second, bytes(10) + 300, 64, two);
		cr_assert(op_is_stuck(&first));
		cr_expect_eq(store_mem_in_flight(&engine.mem, 0), 1, "the second has to wait");
		release();
		cr_assert_eq(op_finish(&first), 0);
		cr_assert_eq(op_finish(&second), 0);
		cr_assert_eq(engine_read_bytes(&engine, bytes(10), BLOCK_BYTES, now), 0);
		cr_expect_eq(memcmp(now + 100, one, 64), 0);
		cr_expect_eq(memcmp(now + 300, two, 64), 0);
	}
}

/* A whole-block write that comes during the read is not undone by what was read before. */
Test(requests, a_write_during_a_read_modify_write_waits_for_it)
{
	uint8_t part[64] = {1}, *whole = malloc(BLOCK_BYTES);
	struct op first, second;

	engine_write(&engine, 10, 1, 7);
	pattern_fill(8, 1, whole);
	hold_reads = true;
	op_write(&engine, &first, bytes(10) + 100, 64, part);
	op_write(&engine, &second, bytes(10), BLOCK_BYTES, whole);
	cr_assert(op_is_stuck(&second));
	release();
	cr_assert_eq(op_finish(&first), 0);
	cr_assert_eq(op_finish(&second), 0);
	cr_expect(engine_holds(&engine, 10, 1, 8));
	free(whole);
}

/* Mutant 31: it waits for a copy-on-write, which changes what there is to discard. */
Test(requests, a_discard_looks_up_again_under_the_fence)
{
	uint8_t *data = malloc(BLOCK_BYTES);
	struct op write, discard = {.request = {.op = REQUEST_DISCARD,
						.off_bytes = bytes(10),
						.len_bytes = BLOCK_BYTES}};
	uint64_t used;

	engine_write(&engine, 10, 1, 1);
	engine_clone(&engine, 10, 1, 600);
	engine_flush(&engine);
	used = engine_stats(&engine).used_bytes;
	pattern_fill(2, 1, data);
	hold_writes = true;
	op_write(&engine, &write, bytes(10), BLOCK_BYTES, data);
	op_submit(&engine, &discard, 0);
	cr_assert(op_is_stuck(&discard));
	release();
	cr_assert_eq(op_finish(&write), 0);
	cr_assert_eq(op_finish(&discard), 0);
	cr_expect(engine_holds(&engine, 10, 1, 0));
	cr_expect(engine_holds(&engine, 600, 1, 1));
	cr_expect_eq(engine_references(&engine, 600, NULL), 1);
	engine_flush(&engine);
	cr_expect_eq(engine_stats(&engine).used_bytes, used);
	free(data);
}

/* Mutants 26 and 31, seen from the write: nobody gets its block while it is in flight. */
Test(requests, a_discard_waits_for_the_write_in_flight_on_its_range)
{
	uint8_t *data = malloc(BLOCK_BYTES);
	struct op write, discard = {.request = {.op = REQUEST_DISCARD,
						.off_bytes = bytes(8),
						.len_bytes = bytes(8)}};

	engine_write(&engine, 8, 8, 1);
	pattern_fill(2, 1, data);
	hold_writes = true;
	op_write(&engine, &write, bytes(10), BLOCK_BYTES, data);
	op_submit(&engine, &discard, 0);
	cr_expect(op_is_stuck(&discard));
	release();
	cr_assert_eq(op_finish(&write), 0);
	cr_assert_eq(op_finish(&discard), 0);
	cr_expect(engine_holds(&engine, 8, 8, 0));
	free(data);
}

static uint64_t start_full(void)
{
	uint64_t block = 0;

	start_with(&(struct engine_options){.logical_bytes = 32ull << 20,
					    .store_bytes = 2ull << 20,
					    .volume = {.discard = true}});
	while (engine_write(&engine, block, 1, 1) == 0)
		block++;
	return block;
}

/* Mutant 22, I3. */
Test(requests, a_freed_block_is_not_reused_while_a_read_of_it_is_in_flight)
{
	uint64_t full = start_full();
	uint8_t *read = malloc(BLOCK_BYTES), *data = malloc(BLOCK_BYTES);
	struct op late = {.request = {.op = REQUEST_READ,
				      .off_bytes = bytes(10),
				      .len_bytes = BLOCK_BYTES,
				      .data = read}};
	struct op write;

	hold_reads = true;
	op_submit(&engine, &late, 0);
	cr_assert_eq(engine_discard(&engine, 10, 1), 0);
	cr_assert_eq(engine_flush(&engine), 0);
	pattern_fill(2, 1, data);
	op_write(&engine, &write, bytes(full), BLOCK_BYTES, data);
	cr_expect(op_is_stuck(&write), "the only block that is free is being read");
	release();
	cr_assert_eq(op_finish(&late), 0);
	cr_expect(pattern_is(1, 1, read));
	cr_expect_eq(op_finish(&write), 0);
	cr_expect(engine_holds(&engine, full, 1, 2));
	free(read);
	free(data);
}

/* Mutant 27, I13. */
Test(requests, a_freed_block_is_not_handed_out_while_its_discard_is_in_flight)
{
	uint64_t full = start_full();
	uint8_t *data = malloc(BLOCK_BYTES);
	struct op write;

	hold_discards = true;
	cr_assert_eq(engine_discard(&engine, 10, 1), 0);
	cr_assert_eq(engine_flush(&engine), 0);
	pattern_fill(2, 1, data);
	op_write(&engine, &write, bytes(full), BLOCK_BYTES, data);
	cr_expect(op_is_stuck(&write));
	release();
	cr_assert_eq(op_finish(&write), 0, "no false ENOSPC");
	cr_expect(engine_holds(&engine, full, 1, 2));
	free(data);
}

/* Mutants 20 and 29. */
Test(requests, what_is_freed_but_not_committed_is_waited_for_and_no_enospc)
{
	uint64_t full = start_full();

	for (int i = 0; i < 20; i++) {
		cr_assert_eq(engine_write(&engine, full + i, 1, 2), -ENOSPC);
		cr_assert_eq(engine_discard(&engine, 10 + i, 1), 0);
		cr_assert_eq(engine_write(&engine, full + i, 1, 2), 0);
	}
	cr_expect(engine_holds(&engine, full, 20, 2));
	cr_expect(engine_holds(&engine, 9, 1, 1) && engine_holds(&engine, 10, 20, 0));
}

/* Mutant 25. */
Test(requests, a_map_shows_data_as_data_also_when_no_page_is_in_memory)
{
	engine_write(&engine, 10, 3, 1);
	engine_write(&engine, 600, 1, 1);
	engine_clone(&engine, 10, 3, 700);
	engine_reopen(&engine);
	cr_expect_eq(engine_references(&engine, 11, NULL), 2);
	engine_reopen(&engine);
	cr_expect_eq(engine_references(&engine, 600, NULL), 1);
	cr_expect_eq(engine_references(&engine, 601, NULL), 0);
}

/* Mutant 18: merges of the same two ranges in both directions, while writes make them wait. */
Test(requests, merges_in_opposite_directions_do_not_wait_for_each_other, .timeout = 60)
{
	engine.mem.order = MEM_ORDER_RANDOM;
	for (uint32_t n = 0; n < 200; n++) {
		uint8_t *data = malloc(BLOCK_BYTES);
		struct op there, back, writes[2];

		engine_write(&engine, 0, 8, 1);
		engine_write(&engine, 600, 8, 1);
		pattern_fill(1, 1, data);
		hold_writes = true;
		op_write(&engine, &writes[0], bytes(n % 8), BLOCK_BYTES, data);
		op_write(&engine, &writes[1], bytes(600 + n / 8 % 8), BLOCK_BYTES, data);
		op_same(&engine, &there, bytes(0), bytes(8), bytes(600));
		op_same(&engine, &back, bytes(600), bytes(8), bytes(0));
		engine_settle(&engine);
		release();
		cr_assert(!op_is_stuck(&there) && !op_is_stuck(&back), "try %u", n);
		cr_assert_eq(op_finish(&there), 0);
		cr_assert_eq(op_finish(&back), 0);
		for (int i = 0; i < 2; i++)
			cr_assert_eq(op_finish(&writes[i]), 0);
		free(data);
	}
}

/* Mutant 14: one write across private and shared blocks, and one that goes on into a hole. */
Test(requests, a_large_write_does_not_run_over_shared_blocks)
{
	engine_write(&engine, 0, 40, 1);
	engine_clone(&engine, 10, 5, 600);
	engine_clone(&engine, 20, 1, 700);
	cr_assert_eq(engine_write(&engine, 0, 40, 3), 0);
	cr_expect(engine_holds(&engine, 600, 5, 1));
	engine_clone(&engine, 30, 5, 800);
	cr_assert_eq(engine_write(&engine, 0, 60, 2), 0);
	cr_expect(engine_holds(&engine, 0, 60, 2));
	cr_expect(engine_holds(&engine, 800, 5, 3));
	cr_expect(engine_holds(&engine, 600, 5, 1));
	cr_expect(engine_holds(&engine, 700, 1, 1));
}

/* Mutant 13, also in one commit and through several generations. */
Test(requests, a_clone_and_an_overwrite_in_one_commit_keep_both)
{
	for (int i = 0; i < 5; i++) {
		engine_write(&engine, 3, 1, 10 + i);
		engine_write(&engine, 9, 1, 20 + i);
		cr_assert_eq(engine_clone(&engine, 3, 1, 600 + i), 0);
		cr_assert_eq(engine_write(&engine, 3, 1, 30 + i), 0);
		cr_expect(engine_holds(&engine, 600 + i, 1, 10 + i));
		cr_expect(engine_holds(&engine, 3, 1, 30 + i));
	}
}

/* What a store cannot do with its data blocks is the request's error, and latches nothing. */
Test(requests, a_data_error_latches_nothing)
{
	uint8_t *buf = malloc(BLOCK_BYTES);

	engine_write(&engine, 3, 1, 1);
	read_error = -EIO;
	cr_expect_eq(engine_read_bytes(&engine, bytes(3), BLOCK_BYTES, buf), -EIO);
	read_error = 0;
	cr_expect_eq(engine_stats(&engine).state, VOLUME_OK);
	cr_expect(engine_holds(&engine, 3, 1, 1));
	free(buf);
}
