/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_regressions - bugs that were mended in the engine: what waited or went round for ever
 *
 * Each test says what broke, and was seen to fail on a tree without its mend. None of them waits
 * for time: who goes round for ever is found by the number of steps that the engine takes
 * (test_regressions_crash.c has those that a crash brought up).
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

#include "core/volume/volume_internal.h"
#include "tests/lib/engine.h"

/* Far more than any of the requests here needs when it is not going round for ever. */
#define STEPS_MAX 20000u
#define SLABS	  16u /* that the scattered region's blocks are in: from 1 on */
#define SCATTERED 3u /* that region */

static struct engine engine;
static bool hold_tops, hold_reads, hold_discards;
static struct op *leaving; /* the read that is answered in the middle of settling */

static bool is_top(uint64_t off_bytes)
{
	const struct geometry *geometry = &engine.volume->metadata->super.geometry;
	uint64_t block = off_bytes / BLOCK_BYTES;

	return block < geometry->data_start &&
	       (block < geometry->ring_start ||
		block >= geometry->ring_start + geometry->ring_blocks);
}

static int hook(void *context, const struct store_io *io)
{
	(void)context;
	if (io->op == STORE_DISCARD && leaving) {
		leaving = NULL;
		store_mem_deliver_at(&engine.mem, 1, 0, 0);
	}
	if ((io->op == STORE_READ && hold_reads) || (io->op == STORE_DISCARD && hold_discards))
		return MEM_HOLD;
	return io->op == STORE_WRITE && hold_tops && is_top(io->off_bytes) ? MEM_HOLD : 0;
}

/* The cursor says where blocks go. */
static void no_homes(void)
{
	engine.volume->metadata->alloc.homes = false;
	engine.volume->metadata->alloc.cursor = 0;
}

static void start(const struct engine_options *options)
{
	hold_tops = hold_reads = hold_discards = false;
	leaving = NULL;
	engine_init(&engine, options);
	no_homes();
	engine.mem.hook = hook;
}

static uint64_t bytes(uint64_t blocks)
{
	return blocks * BLOCK_BYTES;
}

static uint64_t region(uint64_t number)
{
	return number * REGION_BLOCKS;
}

/* Whether it is answered before it has had more turns than it can need. */
static bool is_answered(struct op *op)
{
	for (uint32_t i = 0; i < STEPS_MAX && !op->done; i++)
		if (!engine_step(&engine))
			break;
	return op->done;
}

/* The region's first blocks, each in a slab of its own. Nothing is resident afterwards. */
static void make_scattered(void)
{
	/* From the last one on: what begins at a hole's start is a stream, and gets a run. */
	for (uint32_t i = SLABS; i-- > 0;) {
		pbn_t pbn;

		engine.volume->metadata->alloc.cursor = 1 + i;
		cr_assert_eq(engine_write(&engine, region(SCATTERED) + i, 1, 1 + i), 0);
		cr_assert_eq(engine_references(&engine, region(SCATTERED) + i, &pbn), 1);
		cr_assert_eq(geometry_slab(&engine.volume->metadata->super.geometry, pbn), 1 + i);
	}
	cr_assert_eq(engine_flush(&engine), 0);
	engine_reopen(&engine);
	no_homes();
}

static void discard_scattered(struct op *op)
{
	*op = (struct op){.request = {.op = REQUEST_DISCARD,
				      .off_bytes = bytes(region(SCATTERED)),
				      .len_bytes = REGION_BYTES}};
	op_submit(&engine, op, 0);
}

/* The metadata lock may be taken again by who holds it: another worker's step is made in the middle
 * of this one's. */
static void make_meta_recursive(void)
{
	pthread_mutexattr_t attributes;

	pthread_mutex_destroy(&engine.volume->metadata->lock);
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&engine.volume->metadata->lock, &attributes);
	pthread_mutexattr_destroy(&attributes);
}

/*
 * Who settled read the epochs first and said afterwards that it wants to hear of a reader that
 * leaves. One that left in between found nothing said and told nobody: what waited for its epoch
 * alone stayed pending.
 *
 * Here the discard of block 0 settles at the commit, that of block 8 waits for the reader of worker
 * 1; that one leaves when the first is given back, which is after the epochs were read.
 */
Test(regressions, a_reader_that_leaves_while_somebody_settles_is_not_missed)
{
	struct op read;
	uint8_t *buf = malloc(BLOCK_BYTES);

	start(&(struct engine_options){.lane_count = 2, .volume = {.discard = true}});
	make_meta_recursive();
	cr_assert_eq(engine_write(&engine, 0, 16, 1), 0);
	cr_assert_eq(engine_flush(&engine), 0);
	cr_assert_eq(engine_discard(&engine, 0, 1), 0);
	hold_reads = true;
	read = (struct op){.request = {.op = REQUEST_READ,
				       .off_bytes = bytes(8),
				       .len_bytes = BLOCK_BYTES,
				       .data = buf}};
	op_submit(&engine, &read, 1);
	cr_assert_eq(store_mem_in_flight(&engine.mem, 1), 1);
	cr_assert_eq(engine_discard(&engine, 8, 1), 0);
	leaving = &read;
	cr_assert_eq(engine_flush(&engine), 0);
	engine_settle(&engine);
	cr_assert_null(leaving, "nothing was given back: not the order that is meant");
	cr_assert(read.done);
	cr_expect_eq(op_finish(&read), 0);
	cr_expect(pattern_is(1, 1, buf));
	cr_expect_eq(engine_stats(&engine).pending_bytes, 0,
		     "somebody waits for a reader that left");
	engine_done(&engine);
	free(buf);
}

/* One block is free in each slab, as far as the summaries tell; there are more slabs than frames.
 * Really full ones would take a gigabyte of data. */
static void make_nearly_full(void)
{
	struct refs *refs = &engine.volume->metadata->refs;
	uint32_t slabs = engine.volume->metadata->super.geometry.slabs;

	cr_assert_gt(slabs, engine.volume->metadata->cache.frame_count + 10);
	alloc_drop_windows(&engine.volume->metadata->alloc);
	for (uint32_t i = 0; i < slabs; i++) {
		refs->slabs[i].free_blocks = 1;
		refs_evicted(refs, i);
	}
	refs->free_blocks = slabs;
}

/*
 * When a page was lacking for one of its blocks, a write gave all that it had found back and began
 * again. A part has up to 16 runs, a small cache allows 12 windows: the write's own reservations
 * displaced each other, the search went on to the next slab, and when it came round the pages were
 * gone again.
 */
Test(regressions, a_write_on_a_nearly_full_store_keeps_the_blocks_that_it_found)
{
	uint8_t *data = malloc(bytes(32));
	struct op write;

	start(&(struct engine_options){.logical_bytes = 1ull << 30,
				       .store_bytes = 120ull * SLAB_BLOCKS * BLOCK_BYTES});
	cr_assert_lt(engine.volume->metadata->alloc.window_count, REQUEST_EXTENTS_MAX);
	cr_assert_eq(engine_write(&engine, 100, 1, 1), 0);
	cr_assert_eq(engine_flush(&engine), 0);
	make_nearly_full();
	pattern_fill(2, 32, data);
	op_write(&engine, &write, bytes(200), bytes(32), data);
	cr_assert(is_answered(&write), "it gives its blocks back for ever");
	cr_expect_eq(op_finish(&write), 0);
	cr_expect(engine_holds(&engine, 200, 32, 2));
	engine_kill(&engine); /* what the summaries say now is not to be kept */
	engine_done(&engine);
	free(data);
}

static void deliver_reads(void)
{
	for (uint32_t i = store_mem_in_flight(&engine.mem, 0); i-- > 0;)
		if (store_mem_get(&engine.mem, 0, i)->op == STORE_READ)
			store_mem_deliver_at(&engine.mem, 0, i, 0);
}

/*
 * A discard published what it could and waited for the next page that was lacking; in between
 * others committed. It had reserved ring blocks for one batch and used one for each of its runs: an
 * assertion in the commit, at the end of the ring.
 *
 * Here the ring is as full as it can be when the discard still gets its room, the checkpoint that
 * would empty it stands still, and each of the discard's pages takes a commit to come.
 */
Test(regressions, a_discard_that_waits_for_many_pages_stays_within_its_journal_room)
{
	struct journal *journal;
	struct op discard;
	uint32_t used, room = 3;
	uint64_t i = 0;

	start(&(struct engine_options){.store_bytes = (SLABS + 2ull) * SLAB_BLOCKS * BLOCK_BYTES,
				       .volume = {.cow_hint_blocks = 1}});
	make_scattered();
	journal = &engine.volume->metadata->journal;
	hold_tops = true;
	/* Three ring blocks for the discard, and one that is kept for what is open. */
	while (journal_used_blocks(journal) < engine.options.ring_blocks - room - 1) {
		cr_assert_eq(engine_write(&engine, 2 * i++, 1, 1), 0);
		cr_assert_eq(engine_flush(&engine), 0);
	}
	used = journal_used_blocks(journal);
	hold_reads = true;
	discard_scattered(&discard);
	for (i = 0; i < 100 && op_is_stuck(&discard); i++) {
		cr_assert_eq(engine_flush(&engine), 0);
		cr_assert_leq(journal_used_blocks(journal), used + room, "after %lu pages", i);
		deliver_reads();
	}
	cr_assert(discard.done);
	cr_assert_gt(i, SLABS, "the pages were not as absent as is meant");
	cr_expect_eq(op_finish(&discard), 0);
	cr_expect_eq(engine_flush(&engine), 0);
	cr_expect_leq(journal_used_blocks(journal), used + room);
	hold_tops = hold_reads = hold_discards = false;
	store_mem_release(&engine.mem, 0);
	cr_expect(engine_holds(&engine, region(SCATTERED), REGION_BLOCKS, 0));
	engine_done(&engine);
}

/* Leaves that are resident and clean, then each with an edit: all frames but a few are dirty. */
static void dirty_leaves(uint32_t leaves)
{
	for (uint32_t i = 0; i < leaves; i++)
		cr_assert(engine_holds(&engine, region(10 + i) + 7, 1, 1));
	for (uint32_t i = 0; i < leaves; i++)
		cr_assert_eq(engine_write(&engine, region(10 + i) + 9, 1, 2), 0);
	cr_assert_eq(engine.volume->metadata->cache.dirty_count, leaves + 1); /* and a refs page */
}

/*
 * A checkpoint was asked for when no frame at all could be had. With a few that could, a request
 * that needed more pages than that at once had each of them push out another, for ever.
 */
Test(regressions, pages_needed_together_find_frames_when_most_are_dirty)
{
	uint32_t leaves = CACHE_FRAMES_MIN - 6;
	struct op discard;

	start(&(struct engine_options){.logical_bytes = 256ull << 20,
				       .store_bytes = (SLABS + 2ull) * SLAB_BLOCKS * BLOCK_BYTES,
				       .ring_blocks = 512,
				       .volume = {.cow_hint_blocks = 1}});
	for (uint32_t i = 0; i < leaves; i++)
		cr_assert_eq(engine_write(&engine, region(10 + i) + 7, 1, 1), 0);
	make_scattered();
	dirty_leaves(leaves);
	discard_scattered(&discard);
	cr_assert(is_answered(&discard), "its pages push each other out for ever");
	cr_expect_eq(op_finish(&discard), 0);
	cr_expect(engine_holds(&engine, region(SCATTERED), REGION_BLOCKS, 0));
	for (uint32_t i = 0; i < leaves; i++)
		cr_assert(engine_holds(&engine, region(10 + i) + 9, 1, 2));
	engine_done(&engine);
}

/*
 * A leaf is taken out of its frame with its stripe locked, tried because another leaf's stripe is
 * held already. Where all frames had leaves of that very stripe the try failed on the lock that the
 * thread itself held: no frame could be had, and one checkpoint after the other did not help.
 */
Test(regressions, a_cache_full_of_one_stripes_leaves_takes_another_one)
{
	uint32_t leaves = CACHE_FRAMES_MIN + 4;
	uint8_t *buf = malloc(BLOCK_BYTES);
	struct op read;

	start(&(struct engine_options){.logical_bytes = leaves * FENCE_STRIPES * REGION_BYTES,
				       .store_bytes = 64ull << 20,
				       .ring_blocks = 512});
	for (uint64_t i = 0; i < leaves; i++)
		cr_assert_eq(engine_write(&engine, region(i * FENCE_STRIPES) + 7, 1, 1 + i), 0);
	engine_reopen(&engine);
	no_homes();
	for (uint64_t i = 0; i < leaves; i++) {
		read = (struct op){.request = {.op = REQUEST_READ,
					       .off_bytes = bytes(region(i * FENCE_STRIPES) + 7),
					       .len_bytes = BLOCK_BYTES,
					       .data = buf}};
		op_submit(&engine, &read, 0);
		cr_assert(is_answered(&read), "leaf %lu of the stripe never gets a frame", i);
		cr_expect_eq(op_finish(&read), 0);
		cr_expect(pattern_is(1 + i, 1, buf));
	}
	engine_done(&engine);
	free(buf);
}

/* Both slots: which of them is in force does not matter then. */
static void damage_refs(const struct geometry *geometry, uint32_t slab)
{
	uint8_t byte;

	for (uint32_t i = 0; i < 2; i++) {
		uint64_t at = bytes(geometry_refs_block(geometry, slab, i)) + 100;

		store_mem_peek(&engine.mem, at, &byte, 1);
		byte ^= 1;
		store_mem_poke(&engine.mem, at, &byte, 1);
	}
}

static unsigned times_told(const char *what)
{
	unsigned n = 0;

	for (const char *at = engine.log; (at = strstr(at, what)) != NULL; at++)
		n++;
	return n;
}

static void check_damaged(uint64_t cache_bytes, bool homes)
{
	struct geometry geometry;
	uint64_t free_bytes;

	hold_tops = hold_reads = hold_discards = false;
	engine_init(&engine,
		    &(struct engine_options){.logical_bytes = bytes(60ull * SLAB_DATA_BLOCKS),
					     .ring_blocks = 256,
					     .volume = {.cache_bytes = cache_bytes}});
	cr_assert_eq(engine.volume->metadata->alloc.homes, homes);
	for (uint32_t i = 0; i < 20; i++)
		cr_assert_eq(engine_write(&engine, region(i) + 3, 1, 1), 0);
	free_bytes = engine_stats(&engine).free_bytes;
	geometry = engine.volume->metadata->super.geometry;
	cr_assert_eq(engine_close(&engine), 0);
	damage_refs(&geometry, 0);
	cr_assert_eq(engine_open(&engine), 0);
	engine.volume->metadata->alloc.cursor = 0;
	for (uint32_t i = 0; i < 70; i++)
		cr_assert_eq(engine_write(&engine, region(i) + 5, 1, 2), 0, "region %u", i);
	cr_expect_lt(engine_stats(&engine).free_bytes, free_bytes - bytes(SLAB_DATA_BLOCKS - 200));
	for (uint32_t i = 0; i < 70; i++)
		cr_expect(engine_holds(&engine, region(i) + 5, 1, 2), "region %u", i);
	/* What needs that page fails, and nothing else does. */
	for (uint32_t i = 0; i < 2; i++) {
		cr_expect_eq(engine_discard(&engine, region(0) + 3, 1), -EIO);
		cr_expect_eq(engine_clone(&engine, region(0) + 3, 1, region(70)), -EIO);
	}
	cr_expect(engine_holds(&engine, region(0) + 3, 1, 1));
	cr_expect_eq(engine_clone(&engine, region(1) + 5, 1, region(71)), 0);
	cr_expect_eq(engine_discard(&engine, region(2) + 5, 1), 0);
	cr_expect_eq(engine_flush(&engine), 0);
	for (uint32_t i = 0; i < 3; i++) {
		volume_tick(engine.volume, &engine.workers[0]);
		cr_expect_eq(engine_write(&engine, region(i) + 80, 1, 3), 0);
	}
	cr_expect_eq(times_told("damage: refs page of slab 0"), 1, "%s", engine.log);
	cr_expect_eq(times_told("slab 0 is left out"), 1, "%s", engine.log);
	engine_done(&engine);
}

/* One damaged refs page made every first write fail whose search came by its slab. */
Test(regressions, a_damaged_refs_page_is_no_matter_of_other_slabs)
{
	check_damaged(1, false);
}

Test(regressions, a_damaged_refs_page_is_no_matter_of_those_whose_home_it_is)
{
	check_damaged(64ull << 20, true);
}

/* Submitted, and driven until it is answered with success; false: it goes round for ever. */
static bool ends(struct op *op)
{
	op_submit(&engine, op, 0);
	for (unsigned steps = 0; !op->done && steps < STEPS_MAX && engine_step(&engine); steps++)
		;
	return op->done && op_finish(op) == 0;
}

/* What is to be given back keeps its page of counts in memory, and a backing that is slow to take
 * it back left one frame of the smallest cache for a leaf and a page of counts. */
Test(regressions, a_slow_backing_leaves_frames_for_pages_that_are_needed_together)
{
	uint8_t *buf = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);
	uint64_t slabs = CACHE_FRAMES_MIN + 24;

	start(&(struct engine_options){.logical_bytes = bytes(slabs * SLAB_DATA_BLOCKS),
				       .ring_blocks = 1024,
				       .volume = {.cache_bytes = 64ull << 20, .discard = true}});
	alloc_use_homes(&engine.volume->metadata->alloc);
	for (uint32_t s = 0; s < slabs; s++) {
		cr_assert_eq(engine_write(&engine, s * SLAB_DATA_BLOCKS + 700, 1, 1 + s), 0);
		cr_assert_eq(engine_write(&engine, s * SLAB_DATA_BLOCKS + 1500, 1, 1), 0);
	}
	engine.options.volume.cache_bytes = 1;
	engine_reopen(&engine);
	cr_assert_eq(engine.volume->metadata->cache.frame_count, CACHE_FRAMES_MIN);
	hold_discards = true;
	for (uint32_t s = 0; s < slabs; s++) {
		uint64_t at = bytes(s * SLAB_DATA_BLOCKS);
		struct op discard = {
			.request = {REQUEST_DISCARD, .off_bytes = at + bytes(700),
				    .len_bytes = BLOCK_BYTES},
		};
		struct op read = {
			.request = {REQUEST_READ, .off_bytes = at + bytes(1500),
				    .len_bytes = BLOCK_BYTES, .data = buf},
		};

		cr_assert(ends(&discard), "discard in slab %u", s);
		cr_assert(ends(&read), "read in slab %u", s);
		if (s % 8 == 7)
			cr_assert_eq(engine_flush(&engine), 0);
	}
	hold_discards = false;
	store_mem_release(&engine.mem, 0);
	engine_done(&engine);
	free(buf);
}
