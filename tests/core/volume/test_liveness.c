/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_liveness - nothing waits for ever: short rings, full caches, latched volumes, deep queues
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/volume/volume_internal.h"
#include "tests/lib/engine.h"

static struct engine engine;
static bool fail_flushes, hold_data;

static int hook(void *context, const struct store_io *io)
{
	(void)context;
	if (hold_data && io->op == STORE_WRITE && !io->locked)
		return MEM_HOLD;
	return io->op == STORE_FLUSH && fail_flushes ? -EIO : 0;
}

static void start(const struct engine_options *options)
{
	fail_flushes = hold_data = false;
	engine_init(&engine, options);
	engine.mem.hook = hook;
}

/* Scattered, so that each is a record of its own. */
static void write_scattered(uint64_t from, uint64_t to)
{
	for (uint64_t i = from; i < to; i++)
		cr_assert_eq(engine_write(&engine, i * 1031 % 2048, 1, 1), 0);
}

/* A merge needs room in the ring for its worst case. Whatever was committed and is still open, it
 * comes. */
static void merge_with(uint32_t commits, uint64_t records)
{
	struct op same;

	start(NULL);
	for (uint32_t i = 0; i < commits; i++) {
		write_scattered(i, i + 1);
		cr_assert_eq(engine_flush(&engine), 0);
	}
	write_scattered(commits, records);
	op_same(&engine, &same, 0, 4 * BLOCK_BYTES, 1024 * BLOCK_BYTES);
	cr_assert(!op_is_stuck(&same), "%u commits, then %lu records: it waits for ever; %u blocks",
		  commits, records, journal_used_blocks(&engine.volume->metadata->journal));
	op_finish(&same);
	engine_done(&engine);
}

Test(liveness, a_merge_alone_gets_its_journal_room_whatever_was_written_before)
{
	for (uint32_t commits = 0; commits < 16; commits += 1 + (commits > 8))
		for (uint64_t records = 500; records <= 800; records += 100)
			merge_with(commits, records);
}

/* Regions whose leaves are on the store, more than the cache has frames. */
static uint32_t make_leaves(void)
{
	uint32_t regions = CACHE_FRAMES_MIN + 40;

	start(&(struct engine_options){.logical_bytes = (CACHE_FRAMES_MIN + 40) * REGION_BYTES,
				       .store_bytes = 64ull << 20,
				       .ring_blocks = 512});
	for (uint32_t i = 0; i < regions; i++) {
		cr_assert_eq(engine_write(&engine, (uint64_t)i * REGION_BLOCKS, 1, 1), 0);
		cr_assert_eq(engine_write(&engine, (uint64_t)i * REGION_BLOCKS + 7, 1, 2), 0);
	}
	engine_checkpoint(&engine);
	return regions;
}

Test(liveness, a_cache_full_of_dirty_pages_is_cleaned_by_whoever_needs_a_frame)
{
	uint32_t regions = make_leaves();

	for (uint32_t i = 0; i < regions; i++)
		cr_assert_eq(engine_write(&engine, (uint64_t)i * REGION_BLOCKS + 9, 1, 3), 0);
	for (uint32_t i = 0; i < regions; i++)
		cr_assert(engine_holds(&engine, (uint64_t)i * REGION_BLOCKS + 9, 1, 3));
	engine_done(&engine);
}

/* Once latched no page can be cleaned any more; what is wanted then has to be read or fail, not
 * wait. */
Test(liveness, a_read_of_a_latched_volume_never_waits_for_a_frame)
{
	uint32_t regions = make_leaves();
	struct op write, read;
	uint8_t *buf = calloc(1, BLOCK_BYTES);

	fail_flushes = true;
	for (uint32_t i = 0; i < regions; i++) {
		op_write(&engine, &write, ((uint64_t)i * REGION_BLOCKS + 9) * BLOCK_BYTES,
			 BLOCK_BYTES, buf);
		cr_assert(!op_is_stuck(&write));
		if (op_finish(&write) < 0)
			break;
	}
	cr_assert_eq(engine_stats(&engine).state, VOLUME_LATCHED);
	for (uint32_t i = 0; i < regions; i++) {
		read = (struct op){.request = {.op = REQUEST_READ,
					       .off_bytes = i * REGION_BYTES,
					       .len_bytes = BLOCK_BYTES,
					       .data = buf}};
		op_submit(&engine, &read, 0);
		cr_assert(!op_is_stuck(&read), "region %u", i);
		op_finish(&read);
	}
	engine_kill(&engine);
	engine_done(&engine);
	free(buf);
}

/* A long discard or zero of holes takes no stack for each region. */
Test(liveness, a_discard_of_thousands_of_regions)
{
	start(&(struct engine_options){.logical_bytes = 1ull << 40, .store_bytes = 64ull << 20});
	cr_assert_eq(engine_write(&engine, 100000, 10, 1), 0);
	cr_assert_eq(engine_discard(&engine, 0, 10000 * REGION_BLOCKS), 0);
	cr_assert_eq(engine_zero(&engine, 0, 10000 * REGION_BLOCKS), 0);
	cr_expect_eq(engine_references(&engine, 100000, NULL), 0);
	engine_done(&engine);
}

/* Each slab has one free block, and the cache has fewer frames than there are slabs: the counts of
 * the others say that they have an owner each. */
static void start_with_single_blocks(void)
{
	const struct geometry *g;
	struct refs *refs;

	start(&(struct engine_options){.logical_bytes = 2048 * REGION_BYTES,
				       .store_bytes = 3ull << 30,
				       .ring_blocks = 512});
	g = &engine.volume->metadata->super.geometry;
	refs = &engine.volume->metadata->refs;
	for (uint32_t slab = 0; slab < g->slabs; slab++) {
		const struct page_header header = {PAGE_REFS, slab, 2, 0};
		const struct summary_entry entry = {
			.generation = 2, .free_blocks = 1, .piece = 2, .flags = SUMMARY_GIVEN};
		uint32_t blocks = geometry_slab_blocks(g, slab), hole = (slab * 37 + 5) % blocks;
		uint8_t page[BLOCK_BYTES] = {0};

		for (uint32_t i = 0; i < blocks; i++)
			refs_page_put(page, i, i != hole);
		page_seal(page, &header, engine.volume->metadata->super.uuid);
		store_mem_poke(&engine.mem, blocks_to_bytes(geometry_refs_block(g, slab, 2)), page,
			       sizeof(page));
		refs->free_blocks -= blocks;
		refs->owed_free[OWED_NOTHING] -= blocks;
		slabset_remove(&refs->by_piece[refs->slabs[slab].piece], slab);
		refs_set_summary(refs, slab, &entry);
	}
}

/* What only drives: a livelock is no end of it. */
static void step_many(unsigned steps)
{
	while (steps > 0 && engine_step(&engine))
		steps--;
}

#define WRITES 40u

/* Each into a region of its own: three blocks, of three slabs. Returns how many were answered. */
static unsigned write_to_regions(unsigned count, bool held)
{
	static struct op ops[WRITES];
	static uint8_t data[BLOCK_BYTES];
	unsigned done = 0;

	hold_data = held;
	for (unsigned i = 0; i < count; i++) {
		op_write(&engine, &ops[i], (i * 7ull * REGION_BLOCKS + 5) * BLOCK_BYTES,
			 BLOCK_BYTES, data);
		step_many(400);
	}
	hold_data = false;
	store_mem_release(&engine.mem, 0);
	step_many(20000);
	for (unsigned i = 0; i < count; i++)
		done += ops[i].done && op_finish(&ops[i]) == 0;
	return done;
}

/* Before: for the page that its data needed it gave its place back, and took the next slabs'. */
Test(liveness, a_first_write_where_each_slab_has_one_block_comes_to_its_end)
{
	start_with_single_blocks();
	cr_expect_eq(write_to_regions(1, false), 1, "it is not answered; %lu pages were read",
		     engine_stats(&engine).metadata_reads);
	cr_expect_lt(engine_stats(&engine).metadata_reads, 10);
	engine_kill(&engine);
	engine_done(&engine);
}

/* Before: with a page of counts in each frame none was left to publish with. */
Test(liveness, writes_in_flight_leave_frames_to_publish_with)
{
	unsigned done;

	start_with_single_blocks();
	done = write_to_regions(WRITES, true);
	cr_expect_eq(done, WRITES, "%u of %u are answered; %lu checkpoints", done, WRITES,
		     engine_stats(&engine).checkpoints);
	cr_expect_lt(engine_stats(&engine).checkpoints, 20);
	engine_kill(&engine);
	engine_done(&engine);
}
