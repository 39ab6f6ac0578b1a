/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_regressions_crash - bugs that were mended in the engine: what a crash brought up
 *
 * Each test says what broke, and was seen to fail on a tree without its mend (test_regressions.c
 * has those that need no crash).
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/volume/volume_internal.h"
#include "tests/lib/engine.h"

#define A	  0u
#define B	  600u
#define HOMES_MAX 64u

static struct engine engine;
static struct geometry geometry;
static bool hold_supers, hold_flushes, hold_writes, keep_homes;
static uint32_t writes_left; /* then each fails: the power is about to go */
static uint64_t homes[HOMES_MAX]; /* where pages went, outside of the ring, while keep_homes */
static uint32_t home_count;

static uint64_t bytes(uint64_t blocks)
{
	return blocks * BLOCK_BYTES;
}

static bool is_super(uint64_t off_bytes)
{
	return off_bytes < bytes(geometry.ring_start) ||
	       (off_bytes >= bytes(geometry.super_b_start) &&
		off_bytes < bytes(geometry.data_start));
}

static bool is_ring(uint64_t off_bytes)
{
	return off_bytes >= bytes(geometry.ring_start) &&
	       off_bytes < bytes(geometry.ring_start + geometry.ring_blocks);
}

static int hook(void *context, const struct store_io *io)
{
	(void)context;
	if (io->op == STORE_FLUSH && hold_flushes)
		return MEM_HOLD;
	if (io->op != STORE_WRITE)
		return 0;
	if (writes_left == 0)
		return -EIO;
	writes_left--;
	if (hold_writes || (hold_supers && is_super(io->off_bytes)))
		return MEM_HOLD;
	if (keep_homes && !is_ring(io->off_bytes)) {
		cr_assert_lt(home_count, HOMES_MAX);
		homes[home_count++] = io->off_bytes;
	}
	return 0;
}

static void let_go(void)
{
	hold_supers = hold_flushes = hold_writes = keep_homes = false;
	writes_left = UINT32_MAX;
	store_mem_release(&engine.mem, 0);
}

static void start(const struct engine_options *options)
{
	home_count = 0;
	engine_init(&engine, options);
	let_go();
	geometry = engine.volume->metadata->super.geometry;
	engine.mem.hook = hook;
}

static void kill_9(void)
{
	engine_kill(&engine);
	let_go();
}

static void open_well(void)
{
	cr_assert_eq(engine_open(&engine), 0, "%s", engine.damage.text);
}

/* A checkpoint that stops short of its superblock. */
static void checkpoint_without_super(void)
{
	hold_supers = true;
	keep_homes = true;
	engine_checkpoint(&engine);
	keep_homes = false;
	cr_assert_eq(engine.volume->metadata->checkpoint.state, CHECKPOINT_SUPER);
}

/* Whether something that the volume says tells that it is not what it was. */
static bool is_damage_seen(void)
{
	uint8_t *buf = calloc(1, BLOCK_BYTES);
	bool seen;

	engine.log[0] = '\0';
	seen = engine_open(&engine) == -EUCLEAN;
	if (!seen) {
		seen = engine_read_bytes(&engine, bytes(A + 7), BLOCK_BYTES, buf) == -EIO ||
		       engine_write(&engine, A + 11, 1, 4) == -EIO ||
		       strstr(engine.log, "damage"); /* a slab may be left out */
		kill_9();
	}
	free(buf);
	return seen;
}

/*
 * A checkpoint that was killed left pages in the spare slots. The next life wrote the same slots
 * under the same generations: where such a write never reached the medium, the page of the life
 * before was believed. Generations go by classes now, one for each life.
 *
 * Each page in turn is put back as if the later write there had been lost: leaf, refs page, root,
 * summary.
 */
Test(regressions_crash, a_page_that_a_killed_life_left_is_not_taken_for_the_next_ones)
{
	uint64_t size_bytes;
	uint8_t *left, *whole;

	start(NULL);
	size_bytes = engine.options.store_bytes;
	left = malloc(bytes(HOMES_MAX));
	whole = malloc(size_bytes);
	cr_assert_eq(engine_write(&engine, A + 3, 1, 1), 0);
	/* The next life says so of all slabs; the summary would go home once more, elsewhere. */
	refs_make_all_due(&engine.volume->metadata->refs);
	engine_checkpoint(&engine);
	cr_assert_eq(engine_write(&engine, A + 5, 1, 2), 0);
	checkpoint_without_super();
	cr_assert_eq(home_count, 4);
	/* An edit that is not in those pages and is durable. */
	cr_assert_eq(engine_write(&engine, A + 7, 1, 3), 0);
	cr_assert_eq(engine_flush(&engine), 0);
	kill_9();
	for (uint32_t i = 0; i < home_count; i++)
		store_mem_peek(&engine.mem, homes[i], left + bytes(i), BLOCK_BYTES);
	open_well();
	cr_expect(engine_holds(&engine, A + 7, 1, 3));
	cr_assert_eq(engine_close(&engine), 0);
	store_mem_peek(&engine.mem, 0, whole, size_bytes);
	for (uint32_t i = 0; i < home_count; i++) {
		cr_assert_neq(memcmp(whole + homes[i], left + bytes(i), BLOCK_BYTES), 0);
		store_mem_poke(&engine.mem, homes[i], left + bytes(i), BLOCK_BYTES);
		cr_expect(is_damage_seen(), "the old page at block %lu is believed",
			  homes[i] / BLOCK_BYTES);
		store_mem_poke(&engine.mem, 0, whole, size_bytes);
	}
	open_well();
	cr_expect(engine_holds(&engine, A + 7, 1, 3));
	engine_done(&engine);
	free(left);
	free(whole);
}

static bool is_no_super(void *context, uint64_t off_bytes)
{
	(void)context;
	return !is_super(off_bytes);
}

/* Killed with a superblock in the store's cache alone, and an edit behind it in the log; then
 * recovery, of which so many writes are made before the power goes. Whether that was all of it. */
static bool recovery_cut_after(uint32_t writes)
{
	bool recovered;

	start(&(struct engine_options){.cached = true});
	cr_assert_eq(engine_write(&engine, A + 3, 1, 1), 0);
	engine_checkpoint(&engine);
	cr_assert_eq(engine_write(&engine, A + 5, 1, 2), 0);
	cr_assert_eq(engine_flush(&engine), 0);
	checkpoint_without_super();
	cr_assert_eq(engine_write(&engine, A + 7, 1, 3), 0);
	cr_assert_eq(engine_flush(&engine), 0);
	let_go();
	hold_flushes = true;
	engine_settle(&engine);
	cr_assert_eq(engine.volume->metadata->checkpoint.state, CHECKPOINT_SUPER_FLUSH);
	kill_9();

	writes_left = writes;
	recovered = engine_open(&engine) == 0;
	if (recovered)
		engine_cut(&engine, is_no_super, NULL);
	else
		store_mem_cut(&engine.mem, is_no_super, NULL);
	let_go();
	cr_assert_eq(engine_open(&engine), 0, "%u writes of recovery: %s", writes,
		     engine.damage.text);
	cr_expect(engine_holds(&engine, A + 3, 1, 1), "%u writes of recovery", writes);
	cr_expect(engine_holds(&engine, A + 5, 1, 2), "%u writes of recovery", writes);
	cr_expect(engine_holds(&engine, A + 7, 1, 3), "%u writes of recovery", writes);
	cr_expect_eq(engine_write(&engine, A + 9, 1, 4), 0, "%u writes of recovery", writes);
	engine_done(&engine);
	return recovered;
}

/*
 * Recovery believed a superblock that was in the store's cache alone (a killed process leaves it
 * there), and wrote pages into the slots that this one does not name. The power went, the
 * superblock with it, and the durable one before it named exactly those slots.
 */
Test(regressions_crash, recovery_makes_what_it_read_durable_before_it_writes)
{
	uint32_t writes = 0;

	while (!recovery_cut_after(writes))
		cr_assert(++writes < 100);
	cr_assert_gt(writes, 4, "a leaf, a refs page, a root, a summary, a superblock");
}

/* One bit of the last ring block that was written. */
static void flip_bit_of_last_block(uint64_t sequence)
{
	uint64_t off_bytes = bytes(geometry_ring_block(&geometry, sequence - 1));
	uint8_t sector[SECTOR_BYTES];

	store_mem_peek(&engine.mem, off_bytes, sector, sizeof(sector));
	sector[JOURNAL_HEADER_BYTES + 5] ^= 4;
	store_mem_poke(&engine.mem, off_bytes, sector, sizeof(sector));
}

/* Killed after pages went home that are newer than the tail; flipped: the log's last group is lost
 * then. Whether the volume may be looked at. */
static bool opens_unless(bool flipped)
{
	uint64_t sequence = engine.volume->metadata->journal.sequence;

	cr_assert_eq(engine.volume->metadata->checkpoint.state, CHECKPOINT_IDLE);
	cr_assert_gt(journal_used_blocks(&engine.volume->metadata->journal), 0);
	kill_9();
	if (flipped) {
		flip_bit_of_last_block(sequence);
		cr_expect_eq(engine_open(&engine), -EUCLEAN);
		cr_expect(strstr(engine.damage.text, "proves them"), "%s", engine.damage.text);
		return false;
	}
	open_well();
	return true;
}

/*
 * A log whose last group cannot be read ends before it: that is how a torn write looks. But here
 * the group was durable, and pages went home that have its edits in them; recovery lost them and
 * said nothing, and gave their LSNs to other edits. The superblock says now how far the log was
 * durable when it was written.
 *
 * The checkpoint waits for its first flush while a region that was a hole is written: the boundary
 * is behind it, the copy of the root page before it.
 */
Test(regressions_crash, a_root_page_newer_than_the_log_proves_that_its_end_is_lost)
{
	for (int flipped = 0; flipped < 2; flipped++) {
		start(NULL);
		cr_assert_eq(engine_write(&engine, A + 3, 1, 1), 0);
		cr_assert_eq(engine_flush(&engine), 0);
		hold_flushes = true;
		engine_checkpoint(&engine);
		cr_assert_eq(engine.volume->metadata->checkpoint.state, CHECKPOINT_PAGES_FLUSH);
		cr_assert_eq(engine_write(&engine, B, 1, 2), 0);
		let_go();
		cr_assert_eq(engine_flush(&engine), 0);
		engine_settle(&engine);
		if (opens_unless(flipped)) {
			cr_expect(engine_holds(&engine, A + 3, 1, 1));
			cr_expect(engine_holds(&engine, B, 1, 2));
		}
		engine_done(&engine);
	}
}

/* More pages are dirty than a checkpoint copies at once, and the first batch is under way. */
static void hold_first_batch(void)
{
	cr_assert_eq(engine_flush(&engine), 0);
	hold_writes = true;
	engine_checkpoint(&engine);
	cr_assert_eq(store_mem_in_flight(&engine.mem, 0), CHECKPOINT_BATCH);
	hold_writes = false;
}

static void let_the_rest_go(void)
{
	let_go();
	engine_settle(&engine);
}

/*
 * The same with a leaf, which no recovery looks at. It was noticed where the region was accessed
 * before other edits had taken the LSNs that were lost; later the leaf was believed, and its counts
 * were wrong.
 *
 * While the first batch is under way a block is added to the last of the leaves.
 */
Test(regressions_crash, a_leaf_newer_than_the_log_proves_that_its_end_is_lost)
{
	uint64_t last = 40 * REGION_BLOCKS;

	for (int flipped = 0; flipped < 2; flipped++) {
		start(&(struct engine_options){.logical_bytes = 256ull << 20, .ring_blocks = 64});
		for (uint64_t i = 0; i <= 40; i++)
			cr_assert_eq(engine_write(&engine, i * REGION_BLOCKS + 7, 1, 1), 0);
		hold_first_batch();
		cr_assert_eq(engine_write(&engine, last + 9, 1, 2), 0);
		let_the_rest_go();
		cr_assert_gt(map_lsn(&engine.volume->metadata->map, 40),
			     engine.volume->metadata->super.tail_lsn - 1);
		cr_assert_lt(engine.volume->metadata->map.tops[0].lsn,
			     map_lsn(&engine.volume->metadata->map, 40));
		if (opens_unless(flipped)) {
			cr_expect(engine_holds(&engine, last + 7, 1, 1));
			cr_expect(engine_holds(&engine, last + 9, 1, 2));
		}
		engine_done(&engine);
	}
}

static const struct frame *refs_of(uint64_t block)
{
	const struct geometry *g = &geometry;
	pbn_t pbn;

	cr_assert_eq(engine_references(&engine, block, &pbn), 1);
	return cache_find(&engine.volume->metadata->cache, g->regions + geometry_slab(g, pbn));
}

/*
 * And with a refs page: the block of the lost edit was never free again.
 *
 * Slab 0 is full, and slab 1's page is the last one of those that go home; while the first batch is
 * under way another of its blocks is handed out, to a region whose leaf stays where it is.
 */
Test(regressions_crash, a_refs_page_newer_than_the_log_proves_that_its_end_is_lost)
{
	uint64_t last = 41 * REGION_BLOCKS;

	for (int flipped = 0; flipped < 2; flipped++) {
		start(&(struct engine_options){.logical_bytes = 256ull << 20, .ring_blocks = 64});
		for (uint64_t i = 0; i <= 41; i++)
			cr_assert_eq(engine_write(&engine, i * REGION_BLOCKS + 7, 1, 1), 0);
		for (uint64_t i = 60; i < 64; i++)
			cr_assert_eq(engine_write(&engine, i * REGION_BLOCKS, REGION_BLOCKS, 2), 0);
		engine_checkpoint(&engine);
		for (uint64_t i = 0; i <= 40; i++)
			cr_assert_eq(engine_clone(&engine, 7, 1, i * REGION_BLOCKS + 100), 0);
		cr_assert_eq(engine_write(&engine, 300, 1, 3), 0);
		hold_first_batch();
		cr_assert_eq(engine_write(&engine, last + 300, 1, 4), 0);
		let_the_rest_go();
		cr_assert_gt(refs_of(last + 300)->lsn, engine.volume->metadata->super.tail_lsn - 1);
		cr_assert(!refs_of(last + 300)->dirty, "it went home");
		cr_assert(cache_find(&engine.volume->metadata->cache, page_of_leaf(41))->dirty);
		cr_assert_lt(engine.volume->metadata->map.tops[0].lsn,
			     engine.volume->metadata->super.tail_lsn);
		if (opens_unless(flipped)) {
			cr_expect(engine_holds(&engine, 300, 1, 3));
			cr_expect(engine_holds(&engine, last + 300, 1, 4));
			cr_expect_eq(engine_references(&engine, last + 300, NULL), 1);
		}
		engine_done(&engine);
	}
}

#define MANY_REGIONS 90u

static void write_many_regions(void)
{
	for (uint64_t i = 0; i < MANY_REGIONS; i++) {
		cr_assert_eq(engine_write(&engine, i * REGION_BLOCKS + 3, 1, 2 + (uint32_t)i), 0);
		cr_assert_eq(engine_flush(&engine), 0);
	}
}

static bool has_many_regions(void)
{
	bool holds = true;

	for (uint64_t i = 0; i < MANY_REGIONS; i++)
		holds = holds && engine_holds(&engine, i * REGION_BLOCKS + 3, 1, 2 + (uint32_t)i);
	return holds;
}

/* Recovery of which so many writes are made; where it did not come to its end, the next one begins
 * somewhere in the log. Whether it did. */
static bool recovers_with(uint32_t writes, uint64_t sequence)
{
	bool recovered;

	writes_left = writes;
	recovered = engine_open(&engine) == 0;
	let_go();
	if (recovered) {
		cr_expect_gt(engine_stats(&engine).checkpoints, 1);
	} else {
		flip_bit_of_last_block(sequence);
		cr_expect_eq(engine_open(&engine), -EUCLEAN, "%u writes of recovery", writes);
		flip_bit_of_last_block(sequence);
		open_well();
	}
	cr_expect(has_many_regions(), "%u writes of recovery", writes);
	kill_9();
	return recovered;
}

/*
 * A root page had seen edits that replay had not come to when it made a checkpoint in between.
 * Recovery took them for edits that were not durable, and an assertion stopped it, each time.
 *
 * Regions are made, group by group, while a checkpoint's first batch is under way; then recovery
 * has no room for all of their leaves.
 */
Test(regressions_crash, a_checkpoint_in_the_midst_of_replay_takes_pages_newer_than_replay)
{
	const uint64_t size_bytes = 8ull << 20;
	uint8_t *whole = malloc(size_bytes);
	uint32_t writes = 0;
	uint64_t sequence;

	start(&(struct engine_options){.logical_bytes = 240 * REGION_BYTES,
				       .store_bytes = size_bytes,
				       .ring_blocks = 1024,
				       .volume = {.cache_bytes = 16ull << 20}});
	cr_assert_eq(engine_write(&engine, 200 * REGION_BLOCKS + 3, 1, 1), 0);
	cr_assert_eq(engine_flush(&engine), 0);
	hold_writes = true;
	engine_checkpoint(&engine);
	cr_assert_eq(engine.volume->metadata->checkpoint.state, CHECKPOINT_PAGES);
	hold_writes = false;
	write_many_regions();
	let_the_rest_go();
	cr_assert_eq(engine_stats(&engine).checkpoints, 2, "recovery's and this one");
	cr_assert_gt(engine.volume->metadata->map.tops[0].lsn,
		     engine.volume->metadata->super.tail_lsn + MANY_REGIONS);
	sequence = engine.volume->metadata->journal.sequence;
	kill_9();
	engine.options.volume.cache_bytes = 1;
	store_mem_peek(&engine.mem, 0, whole, size_bytes);
	while (!recovers_with(writes, sequence)) {
		cr_assert_lt(writes, 1000);
		writes += 5;
		store_mem_poke(&engine.mem, 0, whole, size_bytes);
	}
	cr_assert_gt(writes, MANY_REGIONS);
	engine_done(&engine);
	free(whole);
}

/*
 * The record of a leaf's place tells of two blocks of the store; they were taken for two of the
 * volume, so where its last region is of one block the record could not be, and what had been
 * written there and flushed did not open any more.
 */
Test(regressions_crash, a_last_region_of_any_length_is_replayed)
{
	static const uint32_t tails[] = {1, 2, REGION_BLOCKS - 1};

	for (size_t i = 0; i < sizeof(tails) / sizeof(tails[0]); i++) {
		uint64_t last = 2 * REGION_BLOCKS + tails[i] - 1;

		start(&(struct engine_options){.logical_bytes = bytes(last + 1)});
		cr_assert_eq(engine_write(&engine, 7, 1, 2), 0);
		for (uint32_t round = 0; round < 2; round++) { /* it gives its place up, too */
			cr_assert_eq(engine_write(&engine, last, 1, 1), 0);
			cr_assert_eq(engine_discard(&engine, last, 1), 0);
		}
		cr_assert_eq(engine_clone(&engine, 7, 1, last), 0);
		cr_assert_eq(engine_flush(&engine), 0);
		kill_9();
		cr_assert_eq(engine_open(&engine), 0, "%u blocks: %s", tails[i],
			     engine.damage.text);
		cr_expect(engine_holds(&engine, last, 1, 2));
		cr_expect_eq(engine_references(&engine, last, NULL), 2);
		engine_done(&engine);
	}
}

/* --- space that was not given back --- */

static bool hold_discards;

static int discards_hook(void *context, const struct store_io *io)
{
	(void)context;
	return hold_discards && io->op == STORE_DISCARD ? MEM_HOLD : 0;
}

static bool is_given_back(pbn_t pbn)
{
	uint8_t bytes[2];

	store_mem_peek(&engine.mem, pbn_off_bytes(pbn), bytes, 2);
	return bytes[0] == 0xdd && bytes[1] == 0xdd; /* store_mem.h */
}

static void check_given_back_after(bool clean)
{
	pbn_t pbn, last;

	hold_discards = false;
	engine_init(&engine, &(struct engine_options){.volume = {.discard = true}});
	engine.mem.hook = discards_hook;
	cr_assert_eq(engine_write(&engine, 0, 512, 1), 0);
	cr_assert_eq(engine_write(&engine, 600, 1, 2), 0);
	engine_references(&engine, 0, &pbn);
	engine_references(&engine, 511, &last);
	engine_checkpoint(&engine);
	hold_discards = true;
	cr_assert_eq(engine_discard(&engine, 0, 512), 0);
	cr_assert_eq(engine_flush(&engine), 0);
	if (clean)
		engine_checkpoint(&engine); /* its log is not replayed */
	engine_kill(&engine);
	hold_discards = false;
	cr_assert_eq(engine_open(&engine), 0);
	cr_assert_not(is_given_back(pbn));
	cr_expect_geq(engine_stats(&engine).giveback_due_bytes, blocks_to_bytes(512));
	volume_tick(engine.volume, &engine.workers[0]);
	engine_settle(&engine);
	cr_expect(is_given_back(pbn) && is_given_back(last));
	cr_expect_eq(engine_stats(&engine).giveback_due_bytes, 0);
	cr_expect(engine_holds(&engine, 600, 1, 2));
	/* Not once more. */
	engine_reopen(&engine);
	cr_expect_eq(engine_stats(&engine).giveback_due_bytes, 0);
	engine_done(&engine);
}

/* What was freed, durably, and not given back when the server was killed never was. */
Test(regressions_crash, what_a_killed_server_did_not_give_back_is_given_back_after_the_restart)
{
	check_given_back_after(false);
	check_given_back_after(true);
}
