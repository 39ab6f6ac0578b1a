/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_look - where a range lies, and for how long that is true
 */
#include <criterion/criterion.h>

#include "core/request/look.h"
#include "core/volume/volume_internal.h"
#include "tests/lib/engine.h"

static struct engine engine;
static struct look look;
static struct extent extents[64];

static void start(void)
{
	engine_init(&engine, &(struct engine_options){.ring_blocks = 64});
}

static void stop(void)
{
	engine_done(&engine);
}

TestSuite(look, .init = start, .fini = stop);

static void begin(void)
{
	look_begin(&look, engine.volume, &engine.workers[0]);
}

static uint32_t range(uint64_t lbn, uint32_t blocks, uint32_t max)
{
	return look_range(&look, (lbn_t){lbn}, blocks, extents, max);
}

Test(look, finds_holes_and_blocks_across_regions)
{
	pbn_t last, first;

	cr_assert_eq(engine_write(&engine, REGION_BLOCKS - 4, 4, 1), 0);
	cr_assert_eq(engine_write(&engine, REGION_BLOCKS, 2, 2), 0);
	engine_references(&engine, REGION_BLOCKS - 4, &last);
	engine_references(&engine, REGION_BLOCKS, &first);
	begin();
	cr_assert_eq(range(REGION_BLOCKS - 6, 9, 64), 4);
	look_end(&look);
	cr_assert(pbn_is_none(extents[0].pbn) && extents[0].blocks == 2);
	cr_assert(extents[1].pbn.v == last.v && extents[1].blocks == 4);
	cr_assert(extents[2].pbn.v == first.v && extents[2].blocks == 2);
	cr_assert(pbn_is_none(extents[3].pbn) && extents[3].blocks == 1);
}

Test(look, finds_nothing_when_there_are_more_extents_than_room)
{
	cr_assert_eq(engine_write(&engine, 1, 1, 1), 0);
	begin();
	cr_assert_eq(range(0, 3, 2), 0);
	cr_assert_eq(range(0, 3, 3), 3);
	look_end(&look);
}

Test(look, finds_nothing_where_the_leaf_is_absent)
{
	cr_assert_eq(engine_write(&engine, 5, 1, 1), 0);
	engine_reopen(&engine);
	begin();
	cr_assert_eq(range(5, 1, 1), 0);
	look_end(&look);
	cr_assert(engine_holds(&engine, 5, 1, 1)); /* a read fetches it */
	begin();
	cr_assert_eq(range(5, 1, 1), 1);
	look_end(&look);
}

/* I3: a block that was given up is not handed out, nor discarded, while somebody looks at it. */
Test(look, keeps_what_it_found_from_being_used_again)
{
	uint64_t held_bytes;
	pbn_t old, now;

	cr_assert_eq(engine_write(&engine, 0, 2, 1), 0);
	cr_assert_eq(engine_flush(&engine), 0);
	engine_references(&engine, 0, &old);
	begin();
	cr_assert_eq(range(0, 1, 1), 1);
	cr_assert_eq(engine_discard(&engine, 0, 1), 0);
	cr_assert_eq(engine_flush(&engine), 0);
	engine_settle(&engine);
	held_bytes = engine_stats(&engine).pending_bytes;
	cr_assert_gt(held_bytes, 0);
	for (uint64_t block = 16; block < 300; block++) {
		cr_assert_eq(engine_write(&engine, block, 1, 2), 0);
		engine_references(&engine, block, &now);
		cr_assert_neq(now.v, old.v, "block %lu", (unsigned long)block);
	}
	look_end(&look);
	engine_settle(&engine);
	cr_assert_eq(engine_stats(&engine).pending_bytes, held_bytes - BLOCK_BYTES);
}
