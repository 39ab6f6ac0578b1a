/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_check_tracking - what check says about tracking pages, and what --repair makes of them
 */
#include <criterion/criterion.h>
#include <string.h>

#include "cli/check/check.h"
#include "core/volume/volume_internal.h"
#include "tests/lib/engine.h"

static struct engine engine;
static struct geometry geometry;

static int source_read(void *context, uint64_t off_bytes, void *buf, size_t len_bytes)
{
	store_mem_peek(context, off_bytes, buf, len_bytes);
	return 0;
}

static int source_write(void *context, uint64_t off_bytes, const void *buf, size_t len_bytes)
{
	store_mem_poke(context, off_bytes, buf, len_bytes);
	return 0;
}

static int source_flush(void *context)
{
	(void)context;
	return 0;
}

/* The number of findings; the first one is about this, if there is any. */
static uint64_t look(bool repair, const char *where)
{
	struct check_source source = {
		.context = &engine.mem,
		.size_bytes = engine.mem.store.size_bytes,
		.read = source_read,
		.write = source_write,
		.flush = source_flush,
	};
	struct check_report report;
	uint64_t total;

	cr_assert_eq(check_store(&source, repair, &report), 0);
	total = report.findings_total;
	if (total > 0)
		cr_expect(strstr(report.findings[0].where, where), "%s", report.findings[0].where);
	if (repair)
		cr_expect_eq(report.repaired_total, total);
	check_report_done(&report);
	return total;
}

static uint64_t page_bytes(uint32_t area)
{
	return geometry_tracking_block(&geometry, area) * BLOCK_BYTES;
}

static void flip(uint64_t at_bytes)
{
	uint8_t byte;

	store_mem_peek(&engine.mem, at_bytes, &byte, 1);
	byte ^= 1;
	store_mem_poke(&engine.mem, at_bytes, &byte, 1);
}

static void start(void)
{
	engine_init(&engine, &(struct engine_options){.logical_bytes = 2 * AREA_BYTES,
						      .store_bytes = 32ull << 20,
						      .tracking = true});
	geometry = engine.volume->metadata->super.geometry;
	cr_assert_eq(engine_write(&engine, 0, 4, 1), 0);
}

static void stop(void)
{
	engine_done(&engine);
}

TestSuite(check_tracking, .init = start, .fini = stop);

Test(check_tracking, a_store_that_tracks_is_clean)
{
	cr_assert_eq(engine_close(&engine), 0);
	cr_expect_eq(look(false, ""), 0);
	cr_assert_eq(engine_open(&engine), 0);
	cr_assert_eq(engine_write(&engine, 0, 4, 2), 0);
	engine_kill(&engine);
	cr_expect_eq(look(false, ""), 0);
}

Test(check_tracking, a_bad_page_of_a_clean_store_is_found_and_mended)
{
	struct op op = {.request = {.op = REQUEST_CHANGES, .since = 0}};
	struct map_run runs[4];

	cr_assert_eq(engine_close(&engine), 0);
	flip(page_bytes(1) + 100);
	cr_expect_eq(look(false, "tracking page of area 1"), 1);
	cr_expect_eq(look(true, "tracking page of area 1"), 1);
	cr_expect_eq(look(false, ""), 0);
	cr_assert_eq(engine_open(&engine), 0);
	op.request.len_bytes = 2 * AREA_BYTES;
	op.request.runs = runs;
	op.request.runs_max = 4;
	op_submit(&engine, &op, 0);
	cr_assert_eq(op_finish(&op), 0);
	cr_assert_eq(op.request.runs_count, 2); /* region 0, and all of area 1 */
	cr_expect_eq(runs[0].len_bytes, REGION_BYTES);
	cr_expect_eq(runs[1].off_bytes, AREA_BYTES);
	cr_expect_eq(runs[1].len_bytes, AREA_BYTES);
}

/* Goal: what a crash may leave is no finding. */
Test(check_tracking, a_torn_page_of_a_store_that_was_not_shut_down_is_no_damage)
{
	engine_kill(&engine);
	flip(page_bytes(0) + 64);
	cr_expect_eq(look(false, ""), 0);
	cr_assert_eq(engine_open(&engine), 0);
}

Test(check_tracking, a_stamp_from_the_future_is_found)
{
	struct tracking_page page = {.stamps = {[3] = 4000}};
	uint8_t block[BLOCK_BYTES];

	cr_assert_eq(engine_close(&engine), 0);
	tracking_page_encode(&page, 0, (const uint8_t *)"sixteen octets..", block);
	store_mem_poke(&engine.mem, page_bytes(0), block, sizeof(block));
	cr_expect_eq(look(false, "tracking page of area 0"), 1);
	cr_expect_eq(look(true, "tracking page of area 0"), 1);
	cr_expect_eq(look(false, ""), 0);
}
