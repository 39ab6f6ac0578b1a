/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_counters - each counter says what its name says
 */
#include <criterion/criterion.h>
#include <string.h>

#include "core/volume/counters.h"
#include "core/volume/volume_internal.h"
#include "tests/lib/engine.h"

#define KIB 1024ull

static struct engine engine;

static void start(void)
{
	engine_init(&engine, NULL);
}

static void stop(void)
{
	engine_done(&engine);
}

TestSuite(counters, .init = start, .fini = stop);

static struct volume_stats balanced(const char *when)
{
	struct volume_stats s = engine_stats(&engine);

	cr_expect_eq(s.used_bytes + s.free_bytes + s.pending_bytes + s.metadata_bytes +
			     s.lost_bytes,
		     s.store_bytes, "%s: used %lu free %lu pending %lu metadata %lu lost %lu", when,
		     s.used_bytes, s.free_bytes, s.pending_bytes, s.metadata_bytes, s.lost_bytes);
	return s;
}

static int ask(struct request request)
{
	struct op op = {.request = request};

	op_submit(&engine, &op, 0);
	return op_finish(&op);
}

Test(counters, bytes_are_named_so)
{
	for (size_t i = 0; i < counter_table_count; i++) {
		const char *end = strstr(counter_table[i].name, "_bytes");

		cr_expect_eq(counter_table[i].unit == COUNTER_BYTES,
			     end != NULL && strcmp(end, "_bytes") == 0, "%s",
			     counter_table[i].name);
	}
}

Test(counters, the_parts_make_up_the_store_at_any_moment)
{
	struct volume_stats s;

	balanced("empty");
	cr_assert_eq(engine_write(&engine, 0, 64, 1), 0);
	balanced("written");
	cr_assert_eq(engine_flush(&engine), 0);
	s = balanced("flushed");
	cr_expect_eq(s.pending_bytes, 0);
	cr_assert_eq(engine_clone(&engine, 0, 64, 512), 0);
	cr_assert_eq(engine_flush(&engine), 0);
	balanced("cloned");
	/* 64 references are dropped, and nothing is freed. */
	cr_assert_eq(engine_write(&engine, 512, 64, 2), 0);
	s = balanced("the clone is overwritten");
	cr_expect_eq(s.pending_bytes, 0, "%lu", s.pending_bytes);
	cr_assert_eq(engine_discard(&engine, 0, 64), 0);
	s = balanced("discarded");
	cr_expect_geq(s.pending_bytes, 64 * BLOCK_BYTES);
	cr_assert_eq(engine_flush(&engine), 0);
	engine_settle(&engine);
	engine_checkpoint(&engine);
	engine_settle(&engine);
	s = balanced("settled");
	cr_expect_eq(s.pending_bytes, 0, "%lu", s.pending_bytes);
	cr_expect_eq(s.used_bytes, 64 * BLOCK_BYTES);
}

/* What windows hold is taken back when space is short. */
Test(counters, what_is_reserved_for_neighbours_is_free)
{
	struct volume_stats before, after;

	engine_done(&engine);
	engine_init(&engine, &(struct engine_options){.logical_bytes = 24ull << 20});
	before = balanced("empty");
	for (uint32_t i = 0; i < 12; i++)
		cr_assert_eq(engine_write(&engine, i * (uint64_t)REGION_BLOCKS, 1, 1), 0);
	cr_assert_eq(engine_flush(&engine), 0);
	after = balanced("12 blocks written");
	cr_expect_eq(after.state, VOLUME_OK, "state %d, %s", after.state, engine.log);
	cr_expect_eq(before.free_bytes - after.free_bytes, 3 * 12 * BLOCK_BYTES,
		     "12 blocks and 12 places took %lu bytes",
		     before.free_bytes - after.free_bytes);
}

Test(counters, clones_and_merges_are_told_apart)
{
	struct volume_stats s;
	struct same_result result;

	cr_assert_eq(engine_write(&engine, 0, 10, 1), 0);
	cr_assert_eq(engine_clone(&engine, 0, 10, 512), 0);
	s = engine_stats(&engine);
	cr_expect_eq(s.same_requests, 0);
	cr_expect_eq(s.same_bytes, 0, "%lu", s.same_bytes);
	cr_expect_eq(s.clone_requests, 1);
	cr_expect_eq(s.cloned_bytes, 10 * BLOCK_BYTES);
	cr_assert_eq(engine_write(&engine, 1024, 10, 1), 0);
	cr_assert_eq(engine_same(&engine, 0, 10, 1024, &result), 0);
	s = engine_stats(&engine);
	cr_expect_eq(s.same_requests, 1);
	cr_expect_eq(s.same_bytes, result.deduped_bytes);
	cr_expect_eq(s.cloned_bytes, 10 * BLOCK_BYTES);
}

Test(counters, zeros_into_a_part_of_a_hole_take_nothing)
{
	struct volume_stats before = engine_stats(&engine), after;
	struct request zero = {.op = REQUEST_ZERO, .off_bytes = 4 * KIB * KIB + 512};

	zero.len_bytes = 512;
	cr_assert_eq(ask(zero), 0);
	zero.fua = true;
	zero.len_bytes = 16 * KIB + 512; /* from the middle of a block to the middle of another */
	cr_assert_eq(ask(zero), 0);
	after = balanced("zeros");
	cr_expect_eq(after.used_bytes, before.used_bytes, "%lu bytes were allocated",
		     after.used_bytes - before.used_bytes);
	cr_expect_eq(after.metadata_bytes, before.metadata_bytes);
	cr_expect_eq(after.zeroes, 2);
	cr_expect_eq(after.discards, 0);
	zero.no_hole = true;
	cr_assert_eq(ask(zero), 0);
	cr_expect_eq(engine_stats(&engine).used_bytes, 5 * BLOCK_BYTES);
}

/* A front end that cuts a request into pieces says so. */
Test(counters, pieces_count_their_bytes_alone)
{
	static uint8_t data[BLOCK_BYTES] __attribute__((aligned(BLOCK_BYTES)));
	struct request write = {.op = REQUEST_WRITE, .len_bytes = BLOCK_BYTES, .data = data};
	struct volume_stats s;

	cr_assert_eq(ask(write), 0);
	write.tally = TALLY_BYTES;
	write.off_bytes = BLOCK_BYTES;
	cr_assert_eq(ask(write), 0);
	write.tally = TALLY_NONE;
	cr_assert_eq(ask(write), 0);
	s = engine_stats(&engine);
	cr_expect_eq(s.writes, 1);
	cr_expect_eq(s.written_bytes, 2 * BLOCK_BYTES);
}

Test(counters, what_the_backing_has_no_space_for_is_not_free)
{
	struct volume *volume = engine.volume;
	struct volume_stats before = balanced("before"), s;

	atomic_store(&volume->metadata->store->backing_allocated_bytes, 64 * KIB);
	atomic_store(&volume->metadata->store->backing_free_bytes, before.store_bytes - 96 * KIB);
	atomic_store(&volume->metadata->store->backing_known, true);
	s = engine_stats(&engine);
	cr_expect_eq(s.unbacked_bytes, 32 * KIB);
	cr_expect_eq(s.free_bytes, before.free_bytes - 32 * KIB);
	cr_expect_eq(s.state, VOLUME_OK);
	atomic_store(&volume->metadata->store->backing_free_bytes, 0);
	s = engine_stats(&engine);
	cr_expect_eq(s.free_bytes, 0);
	cr_expect_eq(s.unbacked_bytes, before.free_bytes);
	cr_expect_eq(s.state, VOLUME_LOW_ON_SPACE);
	/* It has given all of it. */
	atomic_store(&volume->metadata->store->backing_allocated_bytes, before.store_bytes);
	s = engine_stats(&engine);
	cr_expect_eq(s.free_bytes, before.free_bytes);
	cr_expect_eq(s.state, VOLUME_OK);
}
