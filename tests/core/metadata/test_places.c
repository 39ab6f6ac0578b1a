/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_places - where leaves live: what takes two blocks for a region gives them back
 *
 * The rule of every test here: at a quiet point, when nothing is mapped any more, nothing is used,
 * no region has a place, nothing is pending, and every data block can be handed out.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/check/check.h"
#include "core/volume/volume_internal.h"
#include "tests/lib/engine.h"
#include "tests/lib/rng.h"

#define REFS_LIMIT 65535u

static struct engine engine;
static uint64_t damaged_block; /* reads of it fail; 0: none does */
static bool backing_full; /* what is written to data blocks finds no space */
static uint32_t operations_left; /* writes and flushes; what comes then is never performed */

static int hook(void *context, const struct store_io *io)
{
	(void)context;
	if (damaged_block != 0 && io->op == STORE_READ &&
	    io->off_bytes == blocks_to_bytes(damaged_block))
		return -EIO;
	if (backing_full && io->op == STORE_WRITE &&
	    geometry_is_data(&engine.volume->metadata->super.geometry,
			     (pbn_t){io->off_bytes / BLOCK_BYTES}))
		return -ENOSPC;
	if (io->op == STORE_READ || operations_left == UINT32_MAX)
		return 0;
	if (operations_left == 0)
		return -EIO;
	operations_left--;
	return 0;
}

static void start(uint64_t regions, uint64_t store_bytes)
{
	damaged_block = 0;
	backing_full = false;
	operations_left = UINT32_MAX;
	engine_init(&engine, &(struct engine_options){
				     .logical_bytes = regions * REGION_BYTES,
				     .store_bytes = store_bytes,
				     .ring_blocks = 1024,
				     .volume = {.discard = true},
			     });
	engine.mem.hook = hook;
}

static void stop(void)
{
	if (engine.volume)
		engine_done(&engine);
}

TestSuite(places, .fini = stop);

static uint64_t region(uint64_t number)
{
	return number * REGION_BLOCKS;
}

static uint64_t places(void)
{
	return engine.volume->metadata->journal.counts.places;
}

/* Nothing is mapped: then nothing is taken, either. */
static void expect_nothing_left(const char *when)
{
	struct volume_stats stats;

	cr_assert_eq(engine_flush(&engine), 0);
	engine_checkpoint(&engine);
	engine_settle(&engine);
	stats = engine_stats(&engine);
	cr_expect_eq(stats.mapped_bytes, 0, "%s: %lu bytes mapped", when, stats.mapped_bytes);
	cr_expect_eq(stats.used_bytes, 0, "%s: %lu bytes used", when, stats.used_bytes);
	cr_expect_eq(places(), 0, "%s: %lu places", when, places());
	cr_expect_eq(stats.pending_bytes, 0, "%s: %lu bytes pending", when, stats.pending_bytes);
	pthread_mutex_lock(&engine.volume->metadata->lock);
	alloc_drop_windows(&engine.volume->metadata->alloc);
	pthread_mutex_unlock(&engine.volume->metadata->lock);
	cr_expect_eq(refs_available(&engine.volume->metadata->refs),
		     geometry_data_blocks(&engine.volume->metadata->super.geometry), "%s: %lu free",
		     when, refs_available(&engine.volume->metadata->refs));
}

static int read_mem(void *context, uint64_t off_bytes, void *buf, size_t len_bytes)
{
	(void)context;
	store_mem_peek(&engine.mem, off_bytes, buf, len_bytes);
	return 0;
}

/* So says another program, of the store as it lies there. */
static void expect_clean_check(void)
{
	struct check_source source = {.size_bytes = engine.mem.store.size_bytes, .read = read_mem};
	struct check_report check;

	cr_assert_eq(check_store(&source, false, &check), 0);
	cr_expect_eq(check.findings_total, 0);
	check_report_done(&check);
}

/* From now on blocks come from that slab. */
static void allocate_in(uint32_t slab)
{
	pthread_mutex_lock(&engine.volume->metadata->lock);
	alloc_drop_windows(&engine.volume->metadata->alloc);
	engine.volume->metadata->alloc.homes = false;
	engine.volume->metadata->alloc.cursor = slab;
	pthread_mutex_unlock(&engine.volume->metadata->lock);
}

/* Of each region a block, so that it is a LEAF, in another slab than its place. */
static void write_leaves(uint64_t regions)
{
	allocate_in(1);
	for (uint64_t r = 0; r < regions; r++)
		cr_assert_eq(engine_write(&engine, region(r) + 3, 1, 1), 0);
	allocate_in(2);
	for (uint64_t r = 0; r < regions; r++) {
		cr_assert_eq(engine_write(&engine, region(r) + 100, 1, 2), 0);
		cr_assert_eq(engine_discard(&engine, region(r) + 3, 1), 0);
	}
	cr_assert_eq(engine_flush(&engine), 0);
}

/* The counts of the places were not in memory after a restart: what emptied a region left it its
 * place, which nothing ever gave back. */
Test(places, what_empties_a_region_after_a_restart_gives_its_place_back)
{
	start(512, 0);
	write_leaves(512);
	cr_assert_eq(places(), 512);
	engine_reopen(&engine);
	for (uint64_t r = 0; r < 512; r += 64)
		cr_assert_eq(engine_discard(&engine, region(r), region(64)), 0);
	expect_nothing_left("discarded after a restart");
	engine_reopen(&engine);
	expect_nothing_left("opened again");
}

Test(places, a_discard_in_small_pieces_leaves_nothing_either)
{
	start(32, 0);
	write_leaves(4);
	cr_assert_eq(engine_write(&engine, region(5), 512, 3), 0); /* LINEAR */
	cr_assert_eq(engine_clone(&engine, region(5), 300, region(6) + 7), 0);
	engine_reopen(&engine);
	for (uint64_t block = 0; block < region(8); block += 7) {
		uint64_t blocks = region(8) - block < 7 ? region(8) - block : 7;

		cr_assert_eq(engine_discard(&engine, block, blocks), 0);
		if (block % 301 == 0)
			engine_reopen(&engine);
	}
	expect_nothing_left("discarded by sevens");
}

Test(places, a_merge_that_empties_a_region_gives_its_place_back)
{
	start(32, 0);
	allocate_in(1); /* the places; the data that stays elsewhere */
	cr_assert_eq(engine_write(&engine, region(1) + 105, 20, 0), 0);
	cr_assert_eq(engine_write(&engine, region(2) + 105, 20, 0), 0);
	allocate_in(2);
	cr_assert_eq(engine_write(&engine, region(1) + 5, 20, 0), 0);
	cr_assert_eq(engine_write(&engine, region(2) + 5, 20, 0), 0);
	cr_assert_eq(engine_discard(&engine, region(1) + 105, 20), 0);
	cr_assert_eq(engine_discard(&engine, region(2) + 105, 20), 0);
	engine_reopen(&engine);
	cr_assert_eq(engine_same(&engine, ENGINE_ZERO, 512, region(1), NULL), 0);
	cr_assert_eq(engine_clone(&engine, region(3), 100, region(2)), 0);
	expect_nothing_left("made holes");
}

/* A clone refused for a full count had taken a place for its region before it looked. */
Test(places, a_refused_clone_takes_no_place)
{
	uint64_t before;

	start(300, 24ull << 20);
	cr_assert_eq(engine_write(&engine, 0, 1, 1), 0);
	for (uint64_t n = 1; n < REFS_LIMIT; n *= 2) {
		uint64_t blocks = 2 * n <= REFS_LIMIT ? n : REFS_LIMIT - n;

		cr_assert_eq(engine_clone(&engine, 0, blocks, n), 0);
	}
	before = places();
	for (uint64_t r = 140; r < 240; r++)
		cr_assert_eq(engine_clone(&engine, 0, 1, region(r) + 7), -EMLINK);
	cr_expect_eq(places(), before, "%lu places more", places() - before);
	/* What was mapped there is a hole afterwards, and then the end comes. */
	cr_assert_eq(engine_write(&engine, region(250) + 9, 1, 3), 0);
	cr_assert_eq(engine_discard(&engine, 5, 1), 0);
	cr_assert_eq(engine_clone(&engine, 0, 1, region(251) + 1), 0);
	before = places();
	cr_assert_eq(engine_clone(&engine, region(251), 2, region(250) + 9), -EMLINK);
	cr_expect_eq(engine_references(&engine, region(250) + 9, NULL), 0);
	cr_expect_eq(places(), before - 1, "the emptied region keeps its place");
	cr_assert_eq(engine_discard(&engine, 0, region(300)), 0);
	expect_nothing_left("all discarded");
}

/* An image of whole runs, cloned many times, of which some are written to, as machines are that are
 * made of one image: what the clones took for their leaves is given back with them. */
Test(places, clones_of_an_image_leave_nothing_when_they_are_trimmed)
{
	const uint64_t image = 12, clones = 20;
	struct volume_stats before, after;

	start((clones + 1) * image, 0);
	for (uint64_t block = 0; block < region(image); block += REGION_BLOCKS)
		cr_assert_eq(engine_write(&engine, block, REGION_BLOCKS, 1), 0);
	before = engine_stats(&engine);
	for (uint64_t n = 1; n <= clones; n++)
		for (uint64_t r = 0; r < image; r++)
			cr_assert_eq(engine_clone(&engine, region(r), REGION_BLOCKS,
						  region(n * image + r)),
				     0);
	cr_expect_eq(places(), image, "a clone takes none before it needs one");
	after = engine_stats(&engine);
	cr_expect_eq(after.free_bytes, before.free_bytes - clones * image * 2 * BLOCK_BYTES,
		     "but they are kept");
	cr_expect_eq(after.metadata_bytes,
		     before.metadata_bytes + clones * image * 2 * BLOCK_BYTES);
	for (uint64_t n = 1; n <= clones; n += 4)
		for (uint64_t i = 0; i < 40; i++)
			cr_assert_eq(
				engine_write(&engine, region(n * image) + i % 6 * 1024 + i, 1, 2),
				0);
	cr_assert_eq(engine_flush(&engine), 0);
	cr_expect_eq(places(), image + clones / 4 * 6);
	engine_reopen(&engine); /* neither leaves nor counts are at hand */
	for (uint64_t n = clones; n <= clones; n--)
		cr_assert_eq(engine_discard(&engine, region(n * image), region(image)), 0);
	expect_nothing_left("trimmed");
	cr_assert_eq(engine_close(&engine), 0);
	expect_clean_check();
}

/* They waited for the next checkpoint, which only some thousands of edits more would start. */
Test(places, what_is_given_back_is_free_when_the_volume_rests)
{
	uint64_t before;

	start(64, 0);
	for (uint64_t r = 0; r < 64; r++)
		cr_assert_eq(engine_write(&engine, region(r) + 3, 1, 1), 0);
	cr_assert_eq(engine_discard(&engine, 0, region(64)), 0);
	cr_assert_eq(engine_flush(&engine), 0);
	engine_settle(&engine);
	cr_expect_eq(engine_stats(&engine).pending_bytes, 64 * 2 * BLOCK_BYTES);
	for (unsigned i = 0; i < 10; i++) {
		volume_tick(engine.volume, &engine.workers[0]);
		engine_settle(&engine);
	}
	cr_expect_eq(engine_stats(&engine).pending_bytes, 0);
	cr_expect_eq(engine_stats(&engine).used_bytes, 0);
	before = engine_stats(&engine).checkpoints;
	for (unsigned i = 0; i < 20; i++) {
		volume_tick(engine.volume, &engine.workers[0]);
		engine_settle(&engine);
	}
	cr_expect_eq(engine_stats(&engine).checkpoints, before, "one is enough");
}

/* An empty region with a place: older programs left them behind, and so does this one where the
 * counts of the place cannot be read. The discard is not refused for that. */
Test(places, an_empty_region_that_has_a_place_loses_it_at_the_next_discard)
{
	struct slab *slab;

	start(32, 0);
	allocate_in(1);
	cr_assert_eq(engine_write(&engine, 3, 1, 1), 0);
	allocate_in(2);
	cr_assert_eq(engine_write(&engine, 100, 1, 2), 0);
	cr_assert_eq(engine_discard(&engine, 3, 1), 0);
	engine_reopen(&engine);
	slab = &engine.volume->metadata->refs.slabs[1];
	damaged_block =
		geometry_refs_block(&engine.volume->metadata->super.geometry, 1, slab->generation);
	cr_assert_eq(engine_discard(&engine, 0, 512), 0);
	cr_expect_eq(places(), 1, "its counts cannot be read");
	damaged_block = 0;
	engine_reopen(&engine);
	cr_assert_eq(engine_discard(&engine, 17, 1), 0);
	expect_nothing_left("discarded once more");
}

/* --- two single blocks --- */

/* Every second block of the store is free, the others are the volume's first ones. */
static uint64_t make_scattered(uint64_t regions)
{
	uint64_t end = 0;

	while (end < region(regions) && engine_write(&engine, end, 1, 1) == 0)
		end++;
	for (uint64_t block = 0; block < end; block += 2)
		cr_assert_eq(engine_discard(&engine, block, 1), 0);
	cr_assert_eq(engine_flush(&engine), 0);
	engine_checkpoint(&engine);
	engine_settle(&engine);
	return end;
}

static bool is_split(uint64_t number)
{
	struct root_entry entry = map_entry(&engine.volume->metadata->map, (uint32_t)number);

	return root_entry_is_split(&entry);
}

/* A place wanted two neighbours: with every second block free a first write in a region without
 * one was ENOSPC. */
Test(places, there_is_no_enospc_while_blocks_are_free)
{
	uint64_t end, n = 0;

	start(64, 16ull << 20);
	end = make_scattered(32);
	cr_assert_lt(end, region(32), "the store is not full");
	/* A first write, a stream, two clones, each in a region of its own; then all there is. */
	cr_assert_eq(engine_write(&engine, region(40) + 9, 1, 2), 0);
	cr_assert_eq(engine_write(&engine, region(41), 20, 3), 0);
	cr_assert_eq(engine_clone(&engine, 1, 1, region(42)), 0);
	cr_assert_eq(engine_clone(&engine, 1, 1, region(43) + 7), 0);
	cr_expect(is_split(40) && is_split(41) && is_split(43));
	cr_expect(map_is_unplaced(&engine.volume->metadata->map, 42));
	while (engine_write(&engine, region(44) + n, 1, 4) == 0)
		n++;
	cr_expect_lt(engine_stats(&engine).free_bytes, 3 * BLOCK_BYTES, "%lu bytes left at ENOSPC",
		     engine_stats(&engine).free_bytes);
	engine_reopen(&engine);
	cr_expect(is_split(40) && is_split(41) && is_split(43));
	cr_expect(map_is_unplaced(&engine.volume->metadata->map, 42));
	cr_expect(engine_holds(&engine, region(40) + 9, 1, 2));
	cr_expect(engine_holds(&engine, region(41), 20, 3));
	cr_expect(engine_holds(&engine, region(42), 1, 1));
	cr_expect(engine_holds(&engine, region(43) + 7, 1, 1));
	cr_expect(engine_holds(&engine, region(44), n, 4));
	expect_clean_check();
	cr_assert_eq(engine_discard(&engine, 0, region(64)), 0);
	expect_nothing_left("all discarded");
}

/* What a kill at any operation leaves opens, is clean, and has what was flushed. */
Test(places, a_split_place_survives_a_kill_at_any_operation)
{
	bool done = false;

	for (uint32_t cut = 1; !done; cut++) {
		start(64, 8ull << 20);
		make_scattered(32);
		cr_assert_eq(engine_write(&engine, region(50) + 5, 1, 7), 0);
		cr_assert_eq(engine_flush(&engine), 0);
		cr_assert(is_split(50));
		operations_left = cut;
		engine_write(&engine, region(51) + 5, 1, 8);
		engine_clone(&engine, region(50) + 5, 1, region(52));
		engine_flush(&engine);
		engine_discard(&engine, region(51), 512);
		engine_write(&engine, region(50) + 6, 1, 9);
		engine_checkpoint(&engine);
		engine_write(&engine, region(53) + 1, 1, 8);
		engine_discard(&engine, region(52), 512);
		engine_checkpoint(&engine);
		done = operations_left > 0;
		engine_kill(&engine);
		operations_left = UINT32_MAX;
		cr_assert_eq(engine_open(&engine), 0, "cut %u: %s", cut, engine.damage.text);
		cr_expect(engine_holds(&engine, region(50) + 5, 1, 7), "cut %u", cut);
		expect_clean_check();
		cr_assert_eq(engine_discard(&engine, 0, region(64)), 0);
		expect_nothing_left("after a kill");
		engine_done(&engine);
		engine.volume = NULL;
	}
}

/* --- runs without a place --- */

#define CLONED 6u /* regions */

/* The first region, and clones of it in the next ones. */
static void make_clones(void)
{
	cr_assert_eq(engine_write(&engine, 0, REGION_BLOCKS, 1), 0);
	for (uint64_t r = 1; r <= CLONED; r++)
		cr_assert_eq(engine_clone(&engine, 0, REGION_BLOCKS, region(r)), 0);
	cr_assert_eq(places(), 1);
}

/* Blocks that take all that is free, from region 10 on. */
static uint64_t fill_up(void)
{
	uint64_t n = 0;

	while (engine_write(&engine, region(10) + n, 1, 2) == 0)
		n++;
	cr_expect_eq(engine_stats(&engine).free_bytes, 0);
	return n;
}

/* Two blocks are kept for each, whoever asks: so all of them can be cut on a full store, by
 * discards, zeros and merges, also after a restart. */
Test(places, on_a_full_store_every_clone_can_be_cut)
{
	struct same_result result;
	uint64_t n;

	start(64, 16ull << 20);
	make_clones();
	engine_reopen(&engine);
	n = fill_up();
	cr_expect_eq(engine_write(&engine, region(1) + 9, 1, 3), -ENOSPC);
	cr_expect_eq(engine_write(&engine, region(9), 1, 3), -ENOSPC);
	cr_expect_eq(engine_clone(&engine, 0, REGION_BLOCKS, region(9)), -ENOSPC);
	cr_expect_eq(places(), 1 + (n + REGION_BLOCKS - 1) / REGION_BLOCKS);
	for (uint64_t r = 1; r < CLONED - 1; r++)
		cr_expect_eq(engine_discard(&engine, region(r) + 9, 30), 0, "region %lu", r);
	cr_expect_eq(engine_zero(&engine, region(CLONED - 1) + 9, 30), 0);
	/* In place of a block that is alike. */
	cr_assert_eq(engine_write(&engine, region(10), 1, 1), 0);
	cr_expect_eq(engine_same(&engine, region(10), 1, region(CLONED) + 100, &result), 0);
	cr_expect_eq(result.deduped_bytes, BLOCK_BYTES);
	for (uint64_t r = 1; r < CLONED; r++) {
		cr_expect(engine_holds(&engine, region(r), 9, 1), "region %lu", r);
		cr_expect(engine_holds(&engine, region(r) + 9, 30, 0), "region %lu", r);
		cr_expect(engine_holds(&engine, region(r) + 39, 473, 1), "region %lu", r);
	}
	cr_expect(engine_holds(&engine, region(CLONED), REGION_BLOCKS, 1));
	cr_assert_eq(engine_flush(&engine), 0);
	cr_assert_eq(engine_close(&engine), 0);
	expect_clean_check();
	cr_assert_eq(engine_open(&engine), 0);
	cr_assert_eq(engine_discard(&engine, 0, region(64)), 0);
	expect_nothing_left("all discarded");
}

/* Before: check told what is kept as free. */
Test(places, check_and_stats_tell_the_same_of_what_is_free)
{
	struct check_source source = {.size_bytes = 16ull << 20, .read = read_mem};
	struct check_report check;
	uint64_t free_bytes;

	start(64, 16ull << 20);
	make_clones();
	cr_assert_eq(engine_discard(&engine, region(1) + 9, 1), 0);
	cr_assert_eq(engine_flush(&engine), 0);
	free_bytes = engine_stats(&engine).free_bytes;
	cr_assert_eq(engine_close(&engine), 0);
	cr_assert_eq(check_store(&source, false, &check), 0);
	cr_expect_eq(blocks_to_bytes(check.free_blocks), free_bytes, "%lu, not %lu",
		     blocks_to_bytes(check.free_blocks), free_bytes);
	check_report_done(&check);
}

static bool sums_up(void)
{
	struct volume_stats stats = engine_stats(&engine);

	return stats.used_bytes + stats.free_bytes + stats.unbacked_bytes + stats.pending_bytes +
		       stats.metadata_bytes + stats.lost_bytes ==
	       stats.store_bytes;
}

/* Two that cut one run take two blocks each of what is kept for it. Before: stats told of two free
 * blocks that are not there. */
Test(places, stats_sum_up_while_two_cut_a_run)
{
	struct op ops[2];

	start(64, 16ull << 20);
	make_clones();
	cr_assert_eq(engine_discard(&engine, region(2), region(CLONED)), 0);
	engine_settle(&engine);
	for (unsigned i = 0; i < 2; i++) {
		ops[i] = (struct op){.request = {.op = REQUEST_DISCARD,
						 .off_bytes = blocks_to_bytes(region(1) + 9 + i),
						 .len_bytes = BLOCK_BYTES}};
		op_submit(&engine, &ops[i], 0);
	}
	do {
		cr_expect(sums_up(), "%lu taken", engine.volume->metadata->kept_taken);
	} while (engine_step(&engine));
	for (unsigned i = 0; i < 2; i++)
		cr_expect_eq(op_finish(&ops[i]), 0);
	cr_expect(sums_up());
}

/* What cannot be written because the backing is full: a discard, which is what a backing is emptied
 * with, leaves the part as it is, goes on, and tells at the end. */
Test(places, on_a_full_backing_a_discard_leaves_what_needs_a_place)
{
	start(64, 16ull << 20);
	make_clones();
	cr_assert_eq(engine_flush(&engine), 0);
	backing_full = true;
	cr_expect_eq(engine_discard(&engine, region(1) + 9, REGION_BLOCKS - 12), -ENOSPC);
	cr_expect(engine_holds(&engine, region(1), REGION_BLOCKS, 1), "as it was");
	backing_full = false;
	cr_assert_eq(engine_write(&engine, region(5), 1, 3), 0);
	backing_full = true;
	cr_expect_eq(engine_discard(&engine, region(4) + 9, REGION_BLOCKS + 91), 0, "cut after it");
	cr_expect(engine_holds(&engine, region(4), 9, 1));
	cr_expect(engine_holds(&engine, region(5), 100, 0));
	cr_expect(engine_holds(&engine, region(5) + 100, REGION_BLOCKS - 100, 1));
	cr_expect_eq(engine_discard(&engine, region(2) + 9, REGION_BLOCKS - 9), 0, "its end");
	cr_expect(engine_holds(&engine, region(2), 9, 1));
	cr_expect(engine_holds(&engine, region(2) + 9, REGION_BLOCKS - 9, 0));
	cr_expect_eq(engine_zero(&engine, region(3) + 9, 1), -ENOSPC);
	cr_expect_eq(engine_write(&engine, region(3) + 9, 1, 2), -ENOSPC);
	cr_expect_eq(engine_discard(&engine, region(3), REGION_BLOCKS), 0, "whole");
	cr_expect(engine_holds(&engine, region(3), REGION_BLOCKS, 0));
	cr_expect_eq(engine_discard(&engine, region(1) + 9, 2 * REGION_BLOCKS), 0);
	cr_expect_eq(places(), 2);
	cr_expect_eq(engine_discard(&engine, region(6) + 9, 8), -ENOSPC);
	cr_expect_eq(engine_discard(&engine, region(5) + 200, REGION_BLOCKS), -ENOSPC,
		     "half of it");
	cr_expect(engine_holds(&engine, region(5) + 200, REGION_BLOCKS - 200, 0));
	cr_expect(engine_holds(&engine, region(6), REGION_BLOCKS, 1));
	backing_full = false;
	cr_expect_eq(engine_discard(&engine, region(6) + 9, 8), 0);
	cr_expect(engine_holds(&engine, region(6) + 9, 8, 0));
	cr_expect_eq(places(), 3);
	cr_assert_eq(engine_discard(&engine, 0, region(64)), 0);
	expect_nothing_left("all discarded");
}

static pbn_t only; /* there alone is space for data */

static int only_hook(void *context, const struct store_io *io)
{
	pbn_t pbn = {io->off_bytes / BLOCK_BYTES};

	(void)context;
	return io->op == STORE_WRITE && pbn.v != only.v &&
			       geometry_is_data(&engine.volume->metadata->super.geometry, pbn)
		       ? -ENOSPC
		       : 0;
}

/* A part of a block that nobody else owns any more is written where it is, as in any region.
 * Before: a place was taken, written and given back each time, or ENOSPC. */
Test(places, a_part_of_a_private_block_of_a_clone_takes_no_place)
{
	uint8_t bytes[100] = {1}, found[100];

	start(64, 16ull << 20);
	make_clones();
	cr_assert_eq(engine_discard(&engine, 0, region(1)), 0);
	cr_assert_eq(engine_discard(&engine, region(2), region(8)), 0);
	cr_assert_eq(engine_flush(&engine), 0);
	cr_assert(map_is_unplaced(&engine.volume->metadata->map, 1));
	cr_assert_eq(engine_references(&engine, region(1) + 7, &only), 1);
	engine.mem.hook = only_hook;
	cr_expect_eq(
		engine_write_bytes(&engine, blocks_to_bytes(region(1) + 7) + 50, 100, bytes, false),
		0);
	engine.mem.hook = hook;
	cr_expect_eq(engine_read_bytes(&engine, blocks_to_bytes(region(1) + 7) + 50, 100, found),
		     0);
	cr_expect_arr_eq(found, bytes, 100);
	cr_expect_eq(places(), 0);
}

/* A block device's discard: ext4 takes an error for the end of fstrim. */
Test(places, a_hint_leaves_what_needs_a_place_without_a_word)
{
	struct op op = {.request = {.op = REQUEST_DISCARD,
				    .hint = true,
				    .off_bytes = blocks_to_bytes(region(1) + 9),
				    .len_bytes = blocks_to_bytes(REGION_BLOCKS / 2)}};

	start(64, 16ull << 20);
	make_clones();
	cr_assert_eq(engine_flush(&engine), 0);
	backing_full = true;
	op_submit(&engine, &op, 0);
	cr_expect_eq(op_finish(&op), 0);
	cr_expect(engine_holds(&engine, region(1), REGION_BLOCKS, 1), "as it was");
}

/* Whatever a run without a place can become, with two neighbours at hand and without. */
Test(places, a_clone_without_a_place_survives_a_kill_at_any_operation)
{
	for (unsigned scattered = 0; scattered < 2; scattered++) {
		bool done = false;

		for (uint32_t cut = 1; !done; cut++) {
			start(64, 8ull << 20);
			cr_assert_eq(engine_write(&engine, region(50), 40, 7), 0);
			if (scattered)
				make_scattered(32);
			cr_assert_eq(engine_clone(&engine, region(50), 40, region(51)), 0);
			cr_assert_eq(engine_clone(&engine, region(50), 40, region(52)), 0);
			cr_assert_eq(engine_flush(&engine), 0);
			cr_assert(map_is_unplaced(&engine.volume->metadata->map, 51));
			operations_left = cut;
			engine_discard(&engine, region(51) + 5, 2);
			engine_write(&engine, region(52) + 9, 1, 9);
			engine_clone(&engine, region(50), 30, region(53));
			engine_flush(&engine);
			engine_discard(&engine, region(53) + 20, 10);
			engine_checkpoint(&engine);
			engine_clone(&engine, region(50) + 20, 10, region(53) + 20);
			engine_discard(&engine, region(53), 3);
			engine_discard(&engine, region(52), REGION_BLOCKS);
			engine_clone(&engine, region(50), 40, region(52));
			engine_checkpoint(&engine);
			done = operations_left > 0;
			engine_kill(&engine);
			expect_clean_check();
			operations_left = UINT32_MAX;
			cr_assert_eq(engine_open(&engine), 0, "cut %u: %s", cut,
				     engine.damage.text);
			cr_expect(engine_holds(&engine, region(50), 40, 7), "cut %u", cut);
			cr_expect(engine_holds(&engine, region(51), 5, 7), "cut %u", cut);
			cr_expect(engine_holds(&engine, region(51) + 7, 33, 7), "cut %u", cut);
			expect_clean_check();
			cr_assert_eq(engine_discard(&engine, 0, region(64)), 0);
			expect_nothing_left("after a kill");
			engine_done(&engine);
			engine.volume = NULL;
		}
	}
}

/* --- a store that is large enough --- */

static void random_op(struct rng *rng, uint64_t blocks)
{
	uint64_t at = rng_u64(rng) % blocks, from = rng_u64(rng) % blocks;
	uint64_t most = blocks - (at > from ? at : from);
	uint64_t count = 1 + rng_u64(rng) % (most < 40 ? most : 40);
	int r = 0;

	switch (rng_below(rng, 8)) {
	case 0:
		r = engine_discard(&engine, at, count);
		break;
	case 1:
	case 2:
		if (at + count <= from || from + count <= at)
			r = engine_clone(&engine, from, count, at);
		break;
	case 3:
		r = rng_once_in(rng, 20) ? engine_flush(&engine) : 0;
		break;
	default:
		r = engine_write(&engine, at, rng_once_in(rng, 2) ? 1 : count, rng_below(rng, 9));
	}
	cr_assert_eq(r, 0, "block %lu: error %d", at, r);
}

/* A store that create sized has a block for each of the volume and a place for each region. With
 * free blocks in pieces there was ENOSPC all the same. */
Test(places, a_store_of_the_size_that_create_gives_never_is_full)
{
	static const uint64_t sizes[] = {256, 511, 513, 1025, 2049, 4 * 512 + 63};

	for (uint32_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct rng rng = rng_for(sizes[i], 1);
		uint64_t logical_bytes = blocks_to_bytes(sizes[i]);

		operations_left = UINT32_MAX;
		damaged_block = 0;
		backing_full = false;
		engine_init(&engine,
			    &(struct engine_options){
				    .logical_bytes = logical_bytes,
				    .store_bytes = volume_store_bytes_for(logical_bytes, 64),
				    .ring_blocks = 64,
			    });
		for (uint64_t block = 0; block + 1 < sizes[i]; block++)
			cr_assert_eq(engine_write(&engine, block, 1, 1), 0);
		for (uint32_t n = 0; n < 1200; n++)
			random_op(&rng, sizes[i] - (n < 900));
		for (uint64_t block = 0; block < sizes[i]; block++)
			cr_assert_eq(engine_write(&engine, block, 1, 2), 0, "block %lu", block);
		engine_done(&engine);
		engine.volume = NULL;
	}
}
