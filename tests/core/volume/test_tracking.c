/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_tracking - what is said to have changed, through restarts, crashes and requests in flight
 *
 * A volume of three areas on a store with a volatile cache. An area rests after one tick.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/volume/volume_internal.h"
#include "tests/lib/engine.h"

#define REGIONS	   (3u * AREA_REGIONS)
#define ANSWER_MAX 64u

static struct engine engine;
static struct geometry geometry;
static bool hold_flushes, hold_data, fail_marks;

struct answer {
	int res;
	uint32_t generation;
	bool complete;
	uint32_t count;
	struct map_run runs[ANSWER_MAX];
};

static bool is_tracking(void *context, uint64_t off_bytes)
{
	uint64_t block = off_bytes / BLOCK_BYTES;

	(void)context;
	return block >= geometry.tracking_start && block < geometry.data_start;
}

static bool is_data(void *context, uint64_t off_bytes)
{
	(void)context;
	return geometry_is_data(&geometry, (pbn_t){off_bytes / BLOCK_BYTES});
}

static bool is_anything(void *context, uint64_t off_bytes)
{
	(void)context;
	(void)off_bytes;
	return true;
}

static bool is_nothing(void *context, uint64_t off_bytes)
{
	(void)context;
	(void)off_bytes;
	return false;
}

static int hook(void *context, const struct store_io *io)
{
	(void)context;
	if (io->op == STORE_FLUSH && hold_flushes)
		return MEM_HOLD;
	if (io->op != STORE_WRITE)
		return 0;
	if (fail_marks && is_tracking(NULL, io->off_bytes))
		return -EIO;
	return hold_data && is_data(NULL, io->off_bytes) ? MEM_HOLD : 0;
}

static void begin(bool tracking)
{
	hold_flushes = hold_data = fail_marks = false;
	engine_init(&engine, &(struct engine_options){.logical_bytes = 3 * AREA_BYTES,
						      .store_bytes = 64ull << 20,
						      .cached = true,
						      .tracking = tracking,
						      .volume = {.tracking_rest_ticks = 1}});
	geometry = engine.volume->metadata->super.geometry;
	engine.mem.hook = hook;
}

static void start(void)
{
	begin(true);
}

static void stop(void)
{
	engine.mem.hook = NULL;
	if (engine.volume)
		engine_kill(&engine);
	engine_done(&engine);
}

TestSuite(tracking, .init = start, .fini = stop);

/* --- asking --- */

static struct answer ask_from(uint32_t since, uint64_t from_bytes, uint32_t runs_max,
			      uint64_t *ret_listed_bytes)
{
	struct answer answer = {0};
	struct op op = {.request = {.op = REQUEST_CHANGES,
				    .off_bytes = from_bytes,
				    .len_bytes = 3 * AREA_BYTES - from_bytes,
				    .since = since,
				    .runs = answer.runs,
				    .runs_max = runs_max}};

	op_submit(&engine, &op, 0);
	answer.res = op_finish(&op);
	answer.generation = op.request.generation;
	answer.complete = op.request.complete;
	answer.count = op.request.runs_count;
	*ret_listed_bytes = from_bytes + op.request.mapped_to_bytes;
	return answer;
}

static struct answer ask(uint32_t since)
{
	uint64_t listed_bytes;
	struct answer answer = ask_from(since, 0, ANSWER_MAX, &listed_bytes);

	cr_assert_eq(answer.res, 0);
	cr_assert_eq(listed_bytes, 3 * AREA_BYTES);
	return answer;
}

static uint32_t cut(void)
{
	return ask(0).generation;
}

static bool tells(const struct answer *answer, uint32_t region)
{
	uint64_t at_bytes = region * REGION_BYTES;

	for (uint32_t i = 0; i < answer->count; i++)
		if (at_bytes >= answer->runs[i].off_bytes &&
		    at_bytes < answer->runs[i].off_bytes + answer->runs[i].len_bytes)
			return true;
	return false;
}

static uint32_t told(const struct answer *answer)
{
	uint32_t count = 0;

	for (uint32_t region = 0; region < REGIONS; region++)
		count += tells(answer, region);
	return count;
}

/* These regions changed since then, and no other. */
static void expect_changed(uint32_t since, uint32_t count, const uint32_t *regions)
{
	struct answer answer = ask(since);

	cr_expect(answer.complete);
	cr_expect_eq(told(&answer), count, "%u regions are told, not %u", told(&answer), count);
	for (uint32_t i = 0; i < count; i++)
		cr_expect(tells(&answer, regions[i]), "region %u is not told", regions[i]);
}

static void expect_unchanged(uint32_t since)
{
	expect_changed(since, 0, NULL);
}

static void expect_one(uint32_t since, uint32_t region)
{
	expect_changed(since, 1, &region);
}

/* --- doing --- */

static uint64_t block_of(uint32_t region)
{
	return (uint64_t)region * REGION_BLOCKS;
}

static void put(uint32_t region, uint32_t pattern)
{
	cr_assert_eq(engine_write(&engine, block_of(region), 2, pattern), 0);
}

static bool holds(uint32_t region, uint32_t pattern)
{
	return engine_holds(&engine, block_of(region), 2, pattern);
}

static void tick(unsigned times)
{
	for (unsigned i = 0; i < times; i++) {
		volume_tick(engine.volume, &engine.workers[0]);
		engine_settle(&engine);
	}
}

static void release(void)
{
	hold_flushes = hold_data = false;
	store_mem_release(&engine.mem, 0);
}

static void power_cut(bool (*survives)(void *context, uint64_t off_bytes))
{
	hold_flushes = hold_data = false;
	engine_cut(&engine, survives, NULL);
	cr_assert_eq(engine_open(&engine), 0, "%s", engine.damage.text);
}

/* An op that is under way when the power is cut. */
static struct op in_flight;
static uint8_t payload[2 * BLOCK_BYTES] __attribute__((aligned(BLOCK_BYTES)));

static void begin_put(uint32_t region, uint32_t pattern)
{
	pattern_fill(pattern, 2, payload);
	op_write(&engine, &in_flight, block_of(region) * BLOCK_BYTES, sizeof(payload), payload);
}

static void drop_op(void)
{
	free(in_flight.request.scratch);
}

/* --- what is told --- */

Test(tracking, what_changed_is_told_and_nothing_else)
{
	const uint32_t both[] = {0, 600};
	uint32_t first, second;

	expect_unchanged(0);
	put(0, 1);
	put(600, 2);
	expect_changed(0, 2, both);
	first = cut();
	expect_unchanged(first);
	put(3, 3);
	expect_one(first, 3);
	second = cut();
	put(600, 4); /* in place */
	expect_one(second, 600);
	cr_expect_gt(second, first);
}

Test(tracking, zero_discard_and_clone_are_changes)
{
	const uint32_t three[] = {1, 2, 5};
	uint32_t since;

	put(1, 1);
	put(2, 2);
	put(4, 4);
	since = cut();
	cr_assert_eq(engine_zero(&engine, block_of(1), 2), 0);
	cr_assert_eq(engine_discard(&engine, block_of(2), 2), 0);
	cr_assert_eq(engine_clone(&engine, block_of(4), 2, block_of(5)), 0);
	expect_changed(since, 3, three);
}

Test(tracking, a_merge_is_no_change)
{
	struct same_result result;
	uint32_t since;

	put(1, 7);
	put(600, 7);
	put(2, 0);
	since = cut();
	cr_assert_eq(engine_same(&engine, block_of(1), 2, block_of(600), &result), 0);
	cr_assert_eq(result.deduped_bytes, 2 * BLOCK_BYTES);
	cr_assert_eq(engine_same(&engine, ENGINE_ZERO, 2, block_of(2), &result), 0);
	cr_assert_eq(result.deduped_bytes, 2 * BLOCK_BYTES);
	expect_unchanged(since);
	put(600, 8); /* a copy on write is one */
	expect_one(since, 600);
}

Test(tracking, a_discard_of_nothing_is_no_change)
{
	uint32_t since = cut();

	cr_assert_eq(engine_discard(&engine, block_of(9), 512), 0);
	expect_unchanged(since);
}

Test(tracking, a_generation_that_was_never_answered_is_answered_with_everything)
{
	struct answer answer;

	put(0, 1);
	answer = ask(cut() + 5);
	cr_expect_not(answer.complete);
	cr_expect_eq(told(&answer), REGIONS);
}

Test(tracking, answers_come_in_parts)
{
	uint64_t at_bytes = 0;
	uint32_t parts = 0, since = cut();

	put(1, 1);
	put(3, 1);
	put(1000, 1);
	while (at_bytes < 3 * AREA_BYTES) {
		struct answer answer = ask_from(since, at_bytes, 1, &at_bytes);

		cr_assert_eq(answer.res, 0);
		cr_assert_eq(answer.count, 1);
		parts++;
	}
	cr_expect_eq(parts, 3);
	/* From within a region: the rest of it. */
	ask_from(since, REGION_BYTES + 4096, 8, &at_bytes);
	cr_expect_eq(at_bytes, 3 * AREA_BYTES);
}

Test(tracking, a_volume_without_tracking_says_that_it_does_not_know)
{
	struct answer answer;

	stop();
	begin(false);
	answer = ask(0);
	cr_expect_not(answer.complete);
	cr_expect_eq(answer.generation, 0);
	cr_expect_eq(told(&answer), REGIONS);
}

/* --- restarts --- */

Test(tracking, what_changed_is_known_after_a_clean_restart)
{
	uint32_t since, later;

	put(0, 1);
	put(600, 1);
	since = cut();
	put(600, 2);
	engine_reopen(&engine);
	expect_one(since, 600);
	later = cut();
	engine_reopen(&engine);
	expect_unchanged(later);
	expect_one(since, 600);
	put(0, 3);
	expect_one(later, 0);
}

Test(tracking, after_a_crash_an_area_in_use_counts_as_changed_and_no_other)
{
	uint32_t since;

	put(0, 1);
	put(600, 1);
	engine_reopen(&engine);
	since = cut();
	put(601, 1);
	power_cut(is_nothing);
	for (unsigned i = 0; i < 2; i++) {
		struct answer answer = ask(since);

		cr_expect(answer.complete);
		cr_expect_eq(told(&answer), AREA_REGIONS);
		cr_expect(tells(&answer, 512) && tells(&answer, 1023));
		power_cut(is_nothing); /* and again */
	}
}

Test(tracking, an_area_at_rest_is_not_told_after_a_crash)
{
	struct answer answer;
	uint32_t since;

	put(0, 1);
	put(600, 1);
	since = cut();
	tick(1);
	put(600, 2);
	tick(2);
	cr_expect_eq(engine.volume->tracking.open_areas, 0);
	put(600, 3);
	tick(1); /* area 1 is in use */
	cr_assert_eq(engine_flush(&engine), 0);
	power_cut(is_nothing);
	answer = ask(since);
	cr_expect_eq(told(&answer), AREA_REGIONS);
	cr_expect(tells(&answer, 600) && !tells(&answer, 0));
}

Test(tracking, a_read_only_volume_tells_and_its_generation_is_good_afterwards)
{
	struct answer answer;
	uint32_t since;

	put(0, 1);
	put(600, 1);
	engine_reopen(&engine);
	since = cut();
	put(600, 2);
	engine_kill(&engine);
	engine.options.volume.read_only = true;
	cr_assert_eq(engine_open(&engine), 0);
	answer = ask(since);
	cr_expect_eq(told(&answer), AREA_REGIONS);
	since = answer.generation;
	cr_assert_eq(engine_close(&engine), 0);
	engine.options.volume.read_only = false;
	cr_assert_eq(engine_open(&engine), 0);
	put(0, 3);
	answer = ask(since);
	cr_expect(answer.complete && tells(&answer, 0));
}

Test(tracking, a_page_that_is_no_good_counts_as_changed)
{
	uint64_t at_bytes = geometry_tracking_block(&geometry, 1) * BLOCK_BYTES + 80;
	struct answer answer;
	uint32_t since;
	uint8_t byte;

	put(600, 1);
	since = cut();
	cr_assert_eq(engine_close(&engine), 0);
	store_mem_peek(&engine.mem, at_bytes, &byte, 1);
	byte ^= 4;
	store_mem_poke(&engine.mem, at_bytes, &byte, 1);
	cr_assert_eq(engine_open(&engine), 0);
	cr_expect(strstr(engine.log, "tracking page of area 1"), "%s", engine.log);
	answer = ask(since);
	cr_expect_eq(told(&answer), AREA_REGIONS);
	cr_expect(tells(&answer, 512));
	since = answer.generation;
	engine_reopen(&engine);
	expect_unchanged(since);
}

/* --- crashes and races --- */

Test(tracking, no_data_is_written_before_the_mark_of_its_area_is_durable)
{
	uint32_t since;

	put(0, 1);
	since = cut();
	engine_reopen(&engine);
	hold_flushes = true;
	begin_put(0, 2);
	cr_expect(op_is_stuck(&in_flight));
	power_cut(is_data);
	drop_op();
	cr_expect(holds(0, 1), "the write did not wait for the mark");
	expect_unchanged(since);
}

Test(tracking, who_waits_for_a_mark_goes_on_when_it_is_durable)
{
	hold_flushes = true;
	begin_put(0, 2);
	cr_expect(op_is_stuck(&in_flight));
	release();
	cr_expect_eq(op_finish(&in_flight), 0);
	cr_expect(holds(0, 2));
}

Test(tracking, a_write_in_flight_at_a_cut_is_told_after_it)
{
	struct answer answer;
	uint32_t since;

	put(0, 1);
	cut();
	hold_data = true;
	begin_put(0, 2);
	cr_assert(op_is_stuck(&in_flight));
	since = cut();
	cr_assert(holds(0, 1));
	release();
	cr_assert_eq(op_finish(&in_flight), 0);
	cr_assert(holds(0, 2));
	answer = ask(since);
	cr_expect(tells(&answer, 0));
}

Test(tracking, an_area_with_a_write_in_flight_is_not_closed)
{
	struct answer answer;
	uint32_t since;

	put(0, 1);
	cr_assert_eq(engine_flush(&engine), 0);
	since = cut();
	hold_data = true;
	begin_put(0, 2);
	cr_assert(op_is_stuck(&in_flight));
	tick(5);
	power_cut(is_anything);
	drop_op();
	cr_assert(holds(0, 2));
	answer = ask(since);
	cr_expect(tells(&answer, 0));
}

/* The timer's part that commits nothing. */
static void tracking_ticks(unsigned times)
{
	for (unsigned i = 0; i < times; i++) {
		tracking_tick(&engine.volume->tracking, &engine.workers[0]);
		engine_settle(&engine);
	}
}

/* The cut finds its number durable already, by a checkpoint that did not commit the write. */
Test(tracking, an_area_is_closed_only_when_what_changed_there_is_durable)
{
	struct answer answer;
	uint32_t since;

	put(0, 1);
	cr_assert_eq(engine_write(&engine, 7, 1, 1),
		     0); /* a leaf: later writes leave the root alone */
	cut();
	hold_flushes = true;
	volume_checkpoint(engine.volume, &engine.workers[0]);
	engine_settle(&engine);
	cr_assert_eq(engine_write(&engine, 9, 1, 2), 0);
	tracking_ticks(1);
	release();
	engine_settle(&engine);
	since = cut();
	cr_assert(engine_holds(&engine, 9, 1, 2));
	cr_assert_lt(journal_durable_lsn(&engine.volume->metadata->journal),
		     journal_next_lsn(&engine.volume->metadata->journal) - 1);
	tracking_ticks(3);
	cr_assert_eq(engine.volume->tracking.open_areas, 0);
	power_cut(is_tracking);
	answer = ask(since);
	cr_expect(engine_holds(&engine, 9, 1, 2) || tells(&answer, 0));
}

Test(tracking, a_generation_that_was_answered_never_comes_again)
{
	struct answer answer;
	uint32_t since;

	for (uint32_t pattern = 1; pattern < 5; pattern++) {
		put(0, pattern);
		since = cut();
	}
	power_cut(is_nothing);
	put(600, 9);
	answer = ask(since);
	cr_expect(answer.complete);
	cr_expect(tells(&answer, 600) && tells(&answer, 0));
}

Test(tracking, a_mark_that_cannot_be_written_latches_the_volume)
{
	fail_marks = true;
	begin_put(0, 1);
	cr_expect_eq(op_finish(&in_flight), -EIO);
	cr_expect_eq(engine_stats(&engine).state, VOLUME_LATCHED);
	cr_expect_eq(engine_write(&engine, 0, 1, 1), -EIO);
	cr_expect_eq(engine_discard(&engine, 0, 1), -EIO);
}

Test(tracking, many_areas_are_marked_at_once_and_closed_in_one_go)
{
	uint32_t since;

	put(0, 1);
	put(512, 1);
	put(1024, 1);
	cr_expect_eq(engine.volume->tracking.open_areas, 3);
	since = cut();
	engine_reopen(&engine);
	cr_expect_eq(engine.volume->tracking.open_areas, 0);
	expect_unchanged(since);
}

/* The founding promise holds: no metadata, and no wait, from the second overwrite on. */
Test(tracking, an_overwrite_in_an_open_area_writes_no_page)
{
	uint64_t before;

	put(0, 1);
	before = engine.volume->tracking.pages_written;
	for (uint32_t i = 2; i < 50; i++) {
		put(0, i);
		cut();
	}
	cr_expect_eq(engine.volume->tracking.pages_written, before);
}
