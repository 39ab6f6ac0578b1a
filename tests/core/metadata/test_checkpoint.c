/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_checkpoint - what a checkpoint writes, in which order, and what it leaves when it fails
 *
 * Every I/O of the engine is told to the test, which knows from its address what it is. Most tests
 * bring the volume to one state, start a checkpoint, and look at each I/O as it is submitted.
 * (Power cuts in the middle of one are in test_crash_order.)
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/metadata/recovery.h"
#include "core/volume/volume_internal.h"
#include "tests/lib/engine.h"

#define A 0u
#define B 600u
#define C 1200u

enum what {
	READ,
	FLUSH,
	RING,
	PAGE, /* a leaf, a refs page (or data, which these tests do not write meanwhile) */
	TOP,
	SUPER,
	WHATS,
};

#define NEVER UINT64_MAX

static struct engine engine;
static struct geometry geometry;
static bool watching; /* else the hook says yes to all */
static uint64_t counts[WHATS]; /* submitted while watching */
static uint64_t fails_at; /* the operation that fails, counted from when watching began */
static enum what stage; /* of the checkpoint: what it wrote last */
static enum what held; /* is held back; WHATS: nothing is */
static bool out_of_order;

static enum what what_is(const struct store_io *io)
{
	uint64_t block = io->off_bytes / BLOCK_BYTES;

	if (io->op != STORE_WRITE)
		return io->op == STORE_FLUSH ? FLUSH : READ;
	if (block < geometry.super_blocks ||
	    (block >= geometry.super_b_start &&
	     block < geometry.super_b_start + geometry.super_blocks))
		return SUPER;
	if (block < geometry.tops_start)
		return RING;
	return block < geometry.super_b_start ? TOP : PAGE;
}

/* A write of the next stage comes only after a flush that was submitted when nothing of the stage
 * before was in flight any more, and that is done. */
static void look_at_order(enum what what)
{
	static uint64_t writes_before_flush;
	uint32_t in_flight = store_mem_in_flight(&engine.mem, 0);

	if (what == FLUSH) {
		out_of_order = out_of_order || in_flight > 0;
		writes_before_flush = counts[PAGE] + counts[TOP] + counts[SUPER];
		return;
	}
	if (what < PAGE || what == stage)
		return;
	out_of_order = out_of_order || what < stage || in_flight > 0 ||
		       (stage >= PAGE &&
			writes_before_flush != counts[PAGE] + counts[TOP] + counts[SUPER]);
	stage = what;
}

static int hook(void *context, const struct store_io *io)
{
	enum what what = what_is(io);
	uint64_t n = 0;

	(void)context;
	if (!watching)
		return 0;
	for (enum what i = READ; i < WHATS; i++)
		n += counts[i];
	look_at_order(what);
	counts[what]++;
	if (n == fails_at)
		return -EIO;
	return what == held ? MEM_HOLD : 0;
}

static void watch(void)
{
	watching = true;
	stage = READ;
	out_of_order = false;
	memset(counts, 0, sizeof(counts));
}

static void start(void)
{
	watching = false;
	fails_at = NEVER;
	held = WHATS;
	engine_init(&engine, &(struct engine_options){.cached = true});
	geometry = engine.volume->metadata->super.geometry;
	engine.mem.hook = hook;
}

static void stop(void)
{
	engine.mem.hook = NULL;
	if (engine.volume)
		engine_kill(&engine);
	engine_done(&engine);
}

TestSuite(checkpoint, .init = start, .fini = stop);

static void let_go(void)
{
	held = WHATS;
	store_mem_release(&engine.mem, 0);
}

static void cut(bool (*survives)(void *context, uint64_t off_bytes))
{
	watching = false;
	fails_at = NEVER;
	held = WHATS;
	engine_cut(&engine, survives, NULL);
	cr_assert_eq(engine_open(&engine), 0, "%s", engine.damage.text);
}

static bool is_anything(void *context, uint64_t off_bytes)
{
	(void)context;
	(void)off_bytes;
	return true;
}

/* Leaves of three regions, refs pages, a root page, a summary page: all dirty. */
static void dirty_all(uint32_t pattern)
{
	for (uint32_t i = 0; i < 5; i++) {
		cr_assert_eq(engine_discard(&engine, A + 2 * i, 1), 0);
		cr_assert_eq(engine_discard(&engine, B + 2 * i, 1), 0);
		cr_assert_eq(engine_write(&engine, A + 2 * i, 1, pattern), 0);
		cr_assert_eq(engine_write(&engine, B + 2 * i, 1, pattern), 0);
	}
	cr_assert_eq(engine_clone(&engine, A, 1, C), 0);
	cr_assert_eq(engine_clone(&engine, A, 1, C + 7), 0);
}

static bool holds_all(uint32_t pattern)
{
	bool holds = engine_holds(&engine, C, 1, pattern);

	for (uint32_t i = 0; i < 5; i++)
		holds = holds && engine_holds(&engine, A + 2 * i, 1, pattern) &&
			engine_holds(&engine, B + 2 * i, 1, pattern);
	return holds;
}

struct waiter {
	struct wait wait;
	bool woken;
};

static void woken(struct task *task)
{
	struct wait *wait = container_of(task, struct wait, task);

	container_of(wait, struct waiter, wait)->woken = true;
}

/* Started with somebody who waits for its end. */
static void begin(struct waiter *waiter)
{
	*waiter = (struct waiter){0};
	wait_init(&waiter->wait, &engine.workers[0], woken);
	pthread_mutex_lock(&engine.volume->metadata->lock);
	checkpoint_start(&engine.volume->metadata->checkpoint, &engine.workers[0], &waiter->wait);
	pthread_mutex_unlock(&engine.volume->metadata->lock);
}

static struct super durable_super(void)
{
	struct damage ignored;
	uint32_t *generations;
	struct super now;

	cr_assert_eq(recovery_read_super(&engine.mem.store, true, &now, &generations, &ignored), 0);
	free(generations);
	return now;
}

/* --- order --- */

/* Children, flush, parents, flush, superblock, flush; before all that, the commit. */
Test(checkpoint, each_stage_is_durable_before_the_next_is_submitted)
{
	struct waiter waiter;

	for (uint32_t i = 1; i < 4; i++) {
		dirty_all(i);
		watch();
		begin(&waiter);
		engine_settle(&engine);
		cr_assert(waiter.woken && waiter.wait.res == 0);
		cr_expect_not(out_of_order);
		cr_expect_eq(counts[RING], 1);
		cr_expect_geq(counts[PAGE], 4);
		cr_expect_eq(counts[TOP], 2);
		cr_expect_eq(counts[SUPER], 1);
		cr_expect_eq(counts[FLUSH], 5, "two of the commit, three of its own");
		cr_expect_eq(engine.volume->metadata->cache.dirty_count, 0);
		cut(NULL);
		cr_expect(holds_all(i));
	}
}

/* Goal: no stage begins because time has passed. */
Test(checkpoint, a_stage_that_is_held_back_holds_back_all_after_it)
{
	for (enum what what = PAGE; what <= SUPER; what++) {
		struct waiter waiter;
		uint64_t flushes;

		dirty_all(1);
		cr_assert_eq(engine_flush(&engine), 0);
		watch();
		held = what;
		begin(&waiter);
		engine_settle(&engine);
		flushes = what == PAGE ? 0 : what == TOP ? 1 : 2;
		cr_expect_gt(counts[what], 0);
		cr_expect_eq(counts[FLUSH], flushes);
		cr_expect_eq(what < SUPER ? counts[SUPER] : 0, 0);
		cr_expect_eq(what < TOP ? counts[TOP] : 0, 0);
		cr_expect_not(waiter.woken);
		let_go();
		engine_settle(&engine);
		cr_expect(waiter.woken && waiter.wait.res == 0);
		cr_expect_not(out_of_order);
		watching = false;
	}
}

/* I21: what the older superblock leads to may be overwritten only now. */
Test(checkpoint, the_tail_moves_when_the_superblock_is_durable_and_not_before)
{
	struct journal *journal = &engine.volume->metadata->journal;
	struct waiter waiter;
	uint64_t tail;

	dirty_all(1);
	cr_assert_eq(engine_flush(&engine), 0);
	tail = journal->tail_sequence;
	watch();
	begin(&waiter);
	while (counts[SUPER] == 0)
		cr_assert(engine_step(&engine));
	held = FLUSH;
	engine_settle(&engine);
	cr_expect_eq(counts[FLUSH], 3, "the last one is out");
	cr_expect_eq(journal->tail_sequence, tail);
	cr_expect_gt(journal_used_blocks(journal), 0);
	cr_expect_not(waiter.woken);
	let_go();
	engine_settle(&engine);
	cr_expect(waiter.woken);
	cr_expect_eq(journal_used_blocks(journal), 0);
	cr_expect_eq(journal->checkpoint, engine.volume->metadata->super.checkpoint);
}

Test(checkpoint, a_volume_without_edits_gets_a_superblock_and_nothing_else)
{
	struct waiter waiter;

	engine_checkpoint(&engine);
	for (int i = 0; i < 3; i++) {
		uint64_t before = volume_generation(engine.volume);

		watch();
		begin(&waiter);
		engine_settle(&engine);
		cr_expect(waiter.woken && waiter.wait.res == 0);
		cr_expect_eq(counts[RING] + counts[PAGE] + counts[TOP] + counts[READ], 0);
		cr_expect_eq(counts[SUPER], 1);
		cr_expect_eq(volume_generation(engine.volume), before + 1);
	}
}

static uint64_t super_at[2]; /* checkpoint numbers that the copies hold */
static bool clean_at[2];

static void read_copies(void)
{
	for (unsigned copy = 0; copy < 2; copy++) {
		uint64_t len_bytes = blocks_to_bytes(geometry.super_blocks);
		uint64_t at = blocks_to_bytes(geometry_super_block(&geometry, copy));
		uint32_t generations[16];
		uint8_t *buf = malloc(len_bytes);
		struct super super;
		struct why why;

		store_mem_peek(&engine.mem, at, buf, len_bytes);
		cr_assert(super_decode(buf, copy, &super, generations, &why));
		super_at[copy] = super.checkpoint;
		clean_at[copy] = super.clean;
		free(buf);
	}
}

Test(checkpoint, the_two_superblocks_alternate)
{
	uint64_t n = volume_generation(engine.volume);

	for (int i = 0; i < 4; i++) {
		engine_checkpoint(&engine);
		n++;
		read_copies();
		cr_expect_eq(super_at[n & 1], n);
		cr_expect_eq(super_at[~n & 1], n - 1);
	}
}

/* Only a clean shutdown says so, and the first checkpoint of the next life takes it back. */
Test(checkpoint, only_a_close_leaves_a_clean_superblock)
{
	dirty_all(1);
	engine_checkpoint(&engine);
	cr_expect_not(durable_super().clean, "all is home, but it is still open");
	cr_assert_eq(engine_close(&engine), 0);
	cr_expect(durable_super().clean);
	read_copies();
	cr_expect(clean_at[0] && clean_at[1], "each copy alone says so");
	cr_assert_eq(engine_open(&engine), 0);
	cr_expect_not(durable_super().clean);
}

/* --- who asks while one runs --- */

/* Edits that came after its boundary need another; who asked then waits for that. */
Test(checkpoint, who_asks_while_one_runs_waits_for_another)
{
	struct waiter first, second, third;
	uint64_t before = volume_generation(engine.volume);

	dirty_all(1);
	watch();
	begin(&first);
	while (counts[TOP] == 0)
		cr_assert(engine_step(&engine));
	cr_assert_eq(engine_write(&engine, A + 100, 1, 5), 0);
	begin(&second);
	begin(&third);
	while (!first.woken)
		cr_assert(engine_step(&engine));
	cr_expect_not(second.woken);
	cr_expect_eq(counts[SUPER], 1);
	engine_settle(&engine);
	cr_expect(second.woken && third.woken);
	cr_expect_eq(counts[SUPER], 2, "the second is for both");
	cr_expect_eq(volume_generation(engine.volume), before + 2);
	cr_expect_eq(journal_used_blocks(&engine.volume->metadata->journal), 0);
	cut(NULL);
	cr_expect(engine_holds(&engine, A + 100, 1, 5));
}

/* --- errors --- */

/* Lets the n-th operation of a checkpoint fail. Whether there was one. */
static bool fail_at(uint64_t n, bool (*survives)(void *context, uint64_t off_bytes))
{
	struct waiter waiter, later;
	uint64_t before, supers;
	bool met;

	dirty_all(2);
	cr_assert_eq(engine_flush(&engine), 0);
	cr_assert_eq(engine_write(&engine, A + 50, 1, 7), 0); /* so that it begins with a commit */
	before = volume_generation(engine.volume);
	watch();
	fails_at = n;
	begin(&waiter);
	engine_settle(&engine);
	fails_at = NEVER;
	met = waiter.wait.res < 0;
	cr_assert(waiter.woken);
	cr_assert_eq(engine_stats(&engine).state, met ? VOLUME_LATCHED : VOLUME_OK);
	supers = counts[SUPER];
	cr_assert(!met || supers <= 1);
	begin(&later);
	cr_assert_eq(engine_flush(&engine), met ? -EIO : 0);
	engine_settle(&engine);
	cr_assert(later.woken && (later.wait.res < 0) == met);
	cr_assert(!met || counts[SUPER] == supers, "operation %lu: a superblock afterwards", n);
	cut(survives);
	cr_assert(holds_all(2), "operation %lu", n);
	cr_assert(engine_holds(&engine, A + 50, 1, 7) ||
			  (met && engine_holds(&engine, A + 50, 1, 0)),
		  "operation %lu", n);
	cr_assert_geq(volume_generation(engine.volume), before);
	return met;
}

/* I11: whichever write or flush fails, no superblock is written any more that could lead to what
 * is not there, and whatever then survives a power cut is the old state or the new one. */
Test(checkpoint, an_error_of_any_operation_latches_and_leaves_the_old_state_or_the_new_one)
{
	bool (*const survivors[])(void *, uint64_t) = {NULL, is_anything};

	for (int i = 0; i < 2; i++) {
		uint64_t n = 0;

		while (fail_at(n, survivors[i])) {
			n++;
			stop();
			start();
		}
		cr_expect_gt(n, 10);
	}
}

Test(checkpoint, of_a_latched_volume_it_fails_at_once)
{
	struct waiter waiter;

	dirty_all(1);
	watch();
	fails_at = 0;
	cr_assert_eq(engine_flush(&engine), -EIO);
	watch();
	fails_at = NEVER;
	begin(&waiter);
	engine_settle(&engine);
	cr_expect(waiter.woken && waiter.wait.res == -EIO);
	cr_expect_eq(counts[PAGE] + counts[TOP] + counts[SUPER] + counts[RING] + counts[FLUSH], 0);
}

/* --- generations --- */

static struct root_entry entry_of(uint32_t region)
{
	return map_entry(&engine.volume->metadata->map, region);
}

static void expect_next(uint64_t before, uint64_t after, const char *page)
{
	cr_expect_neq(before & 1, after & 1, "%s: the slot in force was written", page);
	cr_expect_eq((after >> 1) % 4, engine.volume->metadata->life % 4, "%s", page);
	cr_expect_neq(after, 0, "%s", page);
}

/* The other slot each time, and this life's class: what a crashed life left in that slot is of
 * another, so that it cannot be taken for a write of this one that was lost. */
Test(checkpoint, generations_are_of_the_other_parity_and_of_this_lifes_class)
{
	for (uint32_t i = 0; i < 10; i++) {
		uint32_t leaf, refs, root, summary;
		struct volume *volume = engine.volume;

		dirty_all(1 + i);
		leaf = entry_of(1).generation;
		refs = volume->metadata->refs.slabs[0].generation;
		root = volume->metadata->map.tops[0].generation;
		summary = volume->metadata->refs.tops[0].generation;
		engine_checkpoint(&engine);
		cr_assert_neq(root, volume->metadata->map.tops[0].generation);
		expect_next(leaf, entry_of(1).generation, "leaf");
		expect_next(refs, volume->metadata->refs.slabs[0].generation, "refs page");
		expect_next(root, volume->metadata->map.tops[0].generation, "root page");
		expect_next(summary, volume->metadata->refs.tops[0].generation, "summary page");
		if (i % 2)
			cut(NULL); /* another life */
	}
}

/* 0 would mean that the page was never written; a leaf's number has 23 bits. */
Test(checkpoint, generations_wrap_and_are_never_0)
{
	for (uint32_t back = 0; back < 12; back++) {
		struct volume *volume = engine.volume;
		uint32_t leaf = ROOT_GENERATION_MASK - back, refs = UINT32_MAX - back;

		dirty_all(1 + back);
		engine_checkpoint(&engine);
		dirty_all(100 + back);
		map_leaf_home(&volume->metadata->map, 1, leaf);
		volume->metadata->refs.slabs[0].generation = refs;
		volume->metadata->map.tops[0].generation = refs;
		volume->metadata->refs.tops[0].generation = refs;
		engine_checkpoint(&engine);
		expect_next(leaf, entry_of(1).generation, "leaf");
		expect_next(refs, volume->metadata->refs.slabs[0].generation, "refs page");
		expect_next(refs, volume->metadata->map.tops[0].generation, "root page");
		expect_next(refs, volume->metadata->refs.tops[0].generation, "summary page");
		cut(NULL);
		cr_assert(holds_all(100 + back));
	}
}

static uint64_t spare_slot_of_leaf(uint32_t region)
{
	struct root_entry entry = entry_of(region);

	return blocks_to_bytes(entry.place.v + (~entry.generation & 1));
}

/* I16. A life writes a leaf home and crashes before its superblock; the next one writes the same
 * slot, and that write is lost. What lies there then is whole, of the right page and slot, and
 * newer than the log's tail: only the class of its generation tells that it is not what the
 * superblock means. */
Test(checkpoint, what_a_crashed_life_left_in_the_slot_of_a_lost_write_is_not_believed)
{
	uint8_t left[BLOCK_BYTES], data[BLOCK_BYTES];
	struct waiter waiter;
	uint64_t slot;

	dirty_all(1);
	engine_checkpoint(&engine);
	cr_assert_eq(engine_discard(&engine, B, 1), 0);
	cr_assert_eq(engine_flush(&engine), 0);
	slot = spare_slot_of_leaf(1);
	watch();
	held = SUPER;
	begin(&waiter);
	engine_settle(&engine);
	store_mem_peek(&engine.mem, slot, left, sizeof(left));
	cut(NULL); /* and its superblock with it; recovery writes the leaf again */
	cr_assert_eq(spare_slot_of_leaf(1) ^ slot, BLOCK_BYTES, "the slot is in force now");
	store_mem_poke(&engine.mem, slot, left, sizeof(left));
	cut(NULL);
	cr_expect_eq(engine_read_bytes(&engine, blocks_to_bytes(B + 2), sizeof(data), data), -EIO);
	cr_expect(strstr(engine.log, "leaf of region 1"), "%s", engine.log);
}
