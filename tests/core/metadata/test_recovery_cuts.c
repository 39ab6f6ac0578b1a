/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_recovery_cuts - a crash in recovery, wherever it comes, and again in the next one
 *
 * The log here is of more leaves than the smallest cache holds, and none of them is in memory: each
 * is read by replay, and checkpoints begin in its midst. Recovery is cut at every operation of the
 * store; of what was not flushed all survives, nothing, or what a seed chooses. What follows is cut
 * as well, up to four deep, in caches of this size and that. In the end the store has to open, with
 * all that was flushed before the first crash.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

#include "core/volume/volume_internal.h"
#include "tests/lib/engine.h"
#include "tests/lib/rng.h"

#define REGIONS_MAX 110u /* more than frames */
#define REGIONS_FEW 64u /* more than half of them; the last ones stay free (CACHE_FRAMES_SPARE) */
#define STORE_BYTES (12ull << 20) /* two slabs */
#define LARGE	    (64ull << 20)
#define SMALLEST    1u
#define DEEP	    4u

static struct engine engine;
static uint64_t ops, stop_at; /* from this operation on all of them fail: the power is gone */
static bool hold_slots; /* pages on their way home stay there */
static uint8_t *crashed;
static uint32_t regions;

static int hook(void *context, const struct store_io *io)
{
	const struct checkpoint *checkpoint =
		engine.volume ? &engine.volume->metadata->checkpoint : NULL;
	const uint8_t *buf = io->buf;

	(void)context;
	if (hold_slots && io->op == STORE_WRITE && buf >= checkpoint->slot_memory &&
	    buf < checkpoint->slot_memory + CHECKPOINT_BATCH * BLOCK_BYTES)
		return MEM_HOLD;
	return ops++ >= stop_at ? -EIO : 0;
}

static bool survives(void *context, uint64_t off_bytes)
{
	uint64_t seed = *(uint64_t *)context;
	struct rng rng = rng_for(seed, off_bytes);

	return seed < 2 ? seed == 1 : rng_once_in(&rng, 2);
}

static uint64_t at(uint32_t region, uint32_t index)
{
	return (uint64_t)region * REGION_BLOCKS + index;
}

/* What recovery will need is on the store, and not in memory. */
static void start(uint64_t cache_bytes, uint32_t region_count)
{
	regions = region_count;
	stop_at = UINT64_MAX;
	hold_slots = false;
	engine_init(&engine, &(struct engine_options){.logical_bytes = 400 * REGION_BYTES,
						      .store_bytes = STORE_BYTES,
						      .ring_blocks = 128,
						      .cached = true,
						      .volume = {.cache_bytes = cache_bytes}});
	engine.mem.hook = hook;
	for (uint32_t i = 0; i < regions; i++) {
		cr_assert_eq(engine_write(&engine, at(i, 3), 1, 1 + i), 0);
		cr_assert_eq(engine_write(&engine, at(i, 9), 1, 1 + i), 0);
	}
	engine_reopen(&engine);
}

/* A first write and a clone in each region, so many regions between two flushes; then the power
 * goes. */
static void crash(uint32_t group)
{
	for (uint32_t i = 0; i < regions; i++) {
		cr_assert_eq(engine_write(&engine, at(i, 20), 1, 5000 + i), 0);
		cr_assert_eq(engine_clone(&engine, at(i, 3), 1, at(i, 30)), 0);
		if (i % group == group - 1)
			cr_assert_eq(engine_flush(&engine), 0);
	}
	hold_slots = false;
	engine_cut(&engine, NULL, NULL);
	crashed = malloc(STORE_BYTES);
	store_mem_peek(&engine.mem, 0, crashed, STORE_BYTES);
}

/* One recovery of which so many operations are made. */
static int recover_until(uint64_t operations, uint64_t survivors)
{
	int r;

	ops = 0;
	stop_at = operations;
	r = engine_open(&engine);
	cr_assert_eq(store_mem_in_flight(&engine.mem, 0), 0, "%lu operations", operations);
	stop_at = UINT64_MAX;
	if (r == 0)
		engine_cut(&engine, survives, &survivors);
	else
		store_mem_cut(&engine.mem, survives, &survivors);
	return r;
}

static void expect_all(const char *what, uint64_t n)
{
	cr_assert_eq(engine_open(&engine), 0, "%s %lu: %s", what, n, engine.damage.text);
	for (uint32_t i = 0; i < regions; i++) {
		cr_assert(engine_holds(&engine, at(i, 3), 1, 1 + i), "%s %lu", what, n);
		cr_assert(engine_holds(&engine, at(i, 20), 1, 5000 + i), "%s %lu", what, n);
		cr_assert(engine_holds(&engine, at(i, 30), 1, 1 + i), "%s %lu", what, n);
		cr_assert_eq(engine_references(&engine, at(i, 30), NULL), 2, "%s %lu", what, n);
	}
	engine_kill(&engine);
}

static void cut_everywhere(uint32_t deep)
{
	struct rng rng = rng_for(deep, 0);
	int r = -EIO;

	for (uint64_t n = 0; r != 0; n++) {
		cr_assert_lt(n, 4000);
		store_mem_poke(&engine.mem, 0, crashed, STORE_BYTES);
		r = recover_until(n, n % 3);
		for (uint32_t i = 1; i < deep; i++) {
			engine.options.volume.cache_bytes = n % 2 ? LARGE : SMALLEST;
			recover_until(rng_below(&rng, (uint32_t)n + 20), rng_below(&rng, 1000));
		}
		engine.options.volume.cache_bytes = n % 4 < 2 ? LARGE : SMALLEST;
		expect_all("operations", n);
		engine.options.volume.cache_bytes = SMALLEST;
	}
}

static void stop(void)
{
	engine_done(&engine);
	free(crashed);
}

TestSuite(recovery_cuts, .fini = stop);

/*
 * A checkpoint that replay had started by loading a page was not waited for: it wrote the new
 * epoch's superblock over records of the old. A crash right then left a store that did not open.
 */
Test(recovery_cuts, a_smaller_cache_than_the_crashed_ones_at_every_operation)
{
	start(LARGE, REGIONS_MAX);
	crash(5);
	engine.options.volume.cache_bytes = SMALLEST;
	cut_everywhere(1);
}

/* The same with no option changed: the crash came while a checkpoint was under way. */
Test(recovery_cuts, a_cache_of_the_same_size_at_every_operation)
{
	start(SMALLEST, REGIONS_FEW);
	hold_slots = true;
	crash(2);
	cut_everywhere(1);
}

Test(recovery_cuts, four_recoveries_deep)
{
	start(LARGE, REGIONS_MAX);
	crash(5);
	engine.options.volume.cache_bytes = SMALLEST;
	cut_everywhere(DEEP);
}

/* What a failed recovery had begun it did not wait for: the store wrote from memory that was
 * freed. */
Test(recovery_cuts, nothing_is_in_flight_when_a_failed_recovery_returns)
{
	struct root_entry entry;
	uint8_t sector[512];
	uint64_t off_bytes;

	start(LARGE, REGIONS_MAX);
	entry = map_entry(&engine.volume->metadata->map, regions - 1);
	crash(5);
	off_bytes = (entry.place.v + (entry.generation & 1)) * BLOCK_BYTES;
	store_mem_peek(&engine.mem, off_bytes, sector, sizeof(sector));
	sector[99] ^= 1;
	store_mem_poke(&engine.mem, off_bytes, sector, sizeof(sector));
	engine.options.volume.cache_bytes = SMALLEST;
	cr_assert_eq(engine_open(&engine), -EUCLEAN);
	cr_expect_eq(store_mem_in_flight(&engine.mem, 0), 0);
	sector[99] ^= 1;
	store_mem_poke(&engine.mem, off_bytes, sector, sizeof(sector));
	expect_all("after the damage", 0);
}
