/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_recovery_log - where the journal ends, what proves that more of it was durable, and replay
 *
 * The first half writes a ring by hand, with the encoders of core/format/format.h, and asks
 * recovery_read_log(). The second lets the engine write one, takes the power away, and looks at
 * what recovery does with the store.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/metadata/recovery.h"
#include "core/volume/volume_internal.h"
#include "tests/lib/engine.h"

/* --- a ring by hand --- */

static struct store_mem mem;
static struct super super;
static struct journal_header next; /* of the block that is appended next */
static struct recovery_log found;
static struct damage damage;

static void start_ring(void)
{
	uint8_t zeros[BLOCK_BYTES] = {0};

	super = (struct super){
		.checkpoint = 8,
		.epoch = 3,
		.tail_sequence = 60, /* the ring's end is near */
		.tail_lsn = 100,
		.tail_prev = 0x1234,
		.tail_group = 7,
	};
	cr_assert_eq(geometry_plan(2048, 4096, 32, &super.geometry), 0);
	memset(super.uuid, 0x5a, sizeof(super.uuid));
	next = (struct journal_header){
		.epoch = super.epoch,
		.sequence = super.tail_sequence,
		.first_lsn = super.tail_lsn,
		.group = super.tail_group,
		.checkpoint = super.checkpoint,
		.prev = super.tail_prev,
	};
	store_mem_init(&mem, 4096 * BLOCK_BYTES, 1, 1);
	for (uint32_t i = 0; i < super.geometry.ring_blocks; i++)
		store_mem_poke(&mem, blocks_to_bytes(super.geometry.ring_start + i), zeros,
			       sizeof(zeros));
}

static void stop_ring(void)
{
	store_mem_done(&mem);
}

TestSuite(recovery_ring, .init = start_ring, .fini = stop_ring);

static uint64_t ring_off_bytes(uint64_t sequence)
{
	return blocks_to_bytes(geometry_ring_block(&super.geometry, sequence));
}

static struct record map_record(uint64_t lbn)
{
	return (struct record){
		.kind = RECORD_MAP,
		.flags = RECORD_ON_ROOT,
		.count = 1,
		.lbn = {lbn},
		.new = geometry_slab_pbn(&super.geometry, 0, (uint32_t)lbn),
	};
}

/* Seals a block of so many records as the header says, where its sequence belongs. */
static uint64_t put_block(const struct journal_header *header)
{
	uint8_t block[BLOCK_BYTES] = {0};
	uint64_t checksum;

	for (uint32_t i = 0; i < header->count; i++) {
		struct record record = map_record(i);

		record_put(block, i, &record);
	}
	checksum = journal_seal(block, header, super.uuid);
	store_mem_poke(&mem, ring_off_bytes(header->sequence), block, sizeof(block));
	return checksum;
}

static void append(uint32_t records, bool last)
{
	next.count = records;
	next.last = last;
	next.prev = put_block(&next);
	next.sequence++;
	next.first_lsn += records;
	next.group += last;
}

static void append_group(uint32_t blocks)
{
	for (uint32_t i = 1; i <= blocks; i++)
		append(i == blocks ? 3 : JOURNAL_RECORDS, i == blocks);
}

static int read_log(void)
{
	int r;

	damage.text[0] = '\0';
	r = recovery_read_log(&mem.store, &super, &found, &damage);
	free(found.ring);
	found.ring = NULL;
	return r;
}

static void expect_log(uint64_t blocks, uint64_t records)
{
	cr_assert_eq(read_log(), 0, "%s", damage.text);
	cr_assert_eq(found.blocks, blocks);
	cr_assert_eq(found.records, records);
}

static void expect_loss(const char *text)
{
	cr_assert_eq(read_log(), -EUCLEAN);
	cr_assert(strstr(damage.text, text), "%s", damage.text);
}

static void flip_sector(struct store_mem *store, uint64_t off_bytes)
{
	uint8_t sector[SECTOR_BYTES];

	store_mem_peek(store, off_bytes, sector, sizeof(sector));
	for (uint32_t i = 0; i < sizeof(sector); i++)
		sector[i] ^= 0x5a;
	store_mem_poke(store, off_bytes, sector, sizeof(sector));
}

Test(recovery_ring, an_empty_log_is_one)
{
	expect_log(0, 0);
}

Test(recovery_ring, whole_groups_are_found_also_around_the_rings_end)
{
	append_group(1);
	append_group(3);
	append_group(2);
	expect_log(6, 3 + 203 + 103);
}

Test(recovery_ring, a_ring_that_is_full_ends_after_one_round)
{
	for (uint32_t i = 0; i < super.geometry.ring_blocks; i++)
		append_group(1);
	expect_log(super.geometry.ring_blocks, 3ull * super.geometry.ring_blocks);
}

Test(recovery_ring, a_group_without_its_last_block_is_dropped)
{
	append_group(1);
	append(JOURNAL_RECORDS, false);
	append(JOURNAL_RECORDS, false);
	expect_log(1, 3);
}

/* Whichever of its sectors a crash left out. */
Test(recovery_ring, a_torn_last_group_is_dropped)
{
	append_group(1);
	append_group(3);
	for (uint64_t block = 61; block < 64; block++)
		for (uint64_t at = 0; at < BLOCK_BYTES; at += SECTOR_BYTES) {
			flip_sector(&mem, ring_off_bytes(block) + at);
			expect_log(1, 3);
			flip_sector(&mem, ring_off_bytes(block) + at);
		}
	expect_log(4, 206);
}

/* A group is written only when the one before it is durable. */
Test(recovery_ring, a_hole_before_a_later_group_is_damage)
{
	append_group(1);
	append_group(2);
	append_group(1);
	for (uint64_t block = 60; block < 63; block++)
		for (uint64_t at = 0; at < BLOCK_BYTES; at += SECTOR_BYTES) {
			flip_sector(&mem, ring_off_bytes(block) + at);
			expect_loss(block == 60 ? "expected group 7" : "expected group 8");
			flip_sector(&mem, ring_off_bytes(block) + at);
		}
	expect_log(4, 109);
}

/* One block is proof enough: its write was submitted. */
Test(recovery_ring, a_hole_before_a_later_group_that_is_torn_itself_is_damage)
{
	for (uint64_t remains = 62; remains < 64; remains++) {
		append_group(1);
		append_group(1);
		append_group(2);
		flip_sector(&mem, ring_off_bytes(61));
		flip_sector(&mem, ring_off_bytes(remains == 62 ? 63 : 62));
		expect_loss("group 9 follows it");
		stop_ring();
		start_ring();
	}
}

/* Another life's blocks say nothing about this one, whatever groups and checkpoints they name. */
Test(recovery_ring, an_older_lifes_blocks_are_neither_replayed_nor_proof)
{
	append_group(1);
	for (uint64_t sequence = 61; sequence < 92; sequence++) {
		struct journal_header older = next;

		older.epoch = 2;
		older.sequence = sequence;
		older.group = sequence - 53;
		older.checkpoint = 20;
		older.count = 5;
		older.last = true;
		put_block(&older);
	}
	expect_log(1, 3);
}

/* Such a block was written after a newer superblock had been durable, and that is gone. */
Test(recovery_ring, a_block_of_a_newer_life_or_checkpoint_is_damage)
{
	struct journal_header newer;

	append_group(1);
	newer = next;
	newer.count = 1;
	newer.sequence = 70;
	newer.epoch = 4;
	newer.checkpoint = 2;
	put_block(&newer);
	expect_loss("superblock: expected checkpoint 2 or newer");
	newer.epoch = 3;
	newer.checkpoint = 9;
	put_block(&newer);
	expect_loss("superblock: expected checkpoint 9 or newer");
	newer.epoch = 2;
	put_block(&newer);
	expect_log(1, 3);
}

/* Each of what ties a block to the one before it. */
Test(recovery_ring, a_block_that_does_not_follow_ends_the_log)
{
	for (int field = 0; field < 6; field++) {
		struct journal_header header;

		append_group(1);
		header = next;
		header.count = field == 0 ? 0 : 3;
		header.last = true;
		header.epoch -= field == 1;
		header.first_lsn += field == 2;
		header.prev ^= field == 3;
		header.group -= field == 4;
		put_block(&header);
		if (field == 5) { /* of another volume */
			super.uuid[5] ^= 1;
			put_block(&header);
			super.uuid[5] ^= 1;
		}
		expect_log(1, 3);
		stop_ring();
		start_ring();
	}
}

Test(recovery_ring, a_block_that_belongs_elsewhere_ends_the_log)
{
	uint8_t block[BLOCK_BYTES];

	append_group(1);
	next.sequence++;
	append_group(1);
	store_mem_peek(&mem, ring_off_bytes(62), block, sizeof(block));
	store_mem_poke(&mem, ring_off_bytes(61), block, sizeof(block));
	memset(block, 0, sizeof(block));
	store_mem_poke(&mem, ring_off_bytes(62), block, sizeof(block));
	expect_log(1, 3);
}

/* Also in a group that is not replayed: it was written so. */
Test(recovery_ring, a_record_that_cannot_be_is_damage)
{
	struct record record = map_record(0);
	uint8_t block[BLOCK_BYTES] = {0};

	record.lbn.v = super.geometry.logical_blocks;
	record_put(block, 0, &record);
	next.count = 1;
	journal_seal(block, &next, super.uuid);
	store_mem_poke(&mem, ring_off_bytes(next.sequence), block, sizeof(block));
	expect_loss("journal block 60 record 0: expected a valid journal record");
}

Test(recovery_ring, a_record_of_a_split_place_without_its_feature_is_damage)
{
	struct record record = {.kind = RECORD_EXPLODE, .flags = RECORD_SPLIT};
	uint8_t block[BLOCK_BYTES] = {0};

	record.new = geometry_slab_pbn(&super.geometry, 0, 4);
	record.src.v = geometry_slab_pbn(&super.geometry, 0, 7).v;
	record_put(block, 0, &record);
	next.count = 1;
	next.last = true;
	journal_seal(block, &next, super.uuid);
	store_mem_poke(&mem, ring_off_bytes(next.sequence), block, sizeof(block));
	super.features_incompat = FEATURE_SPLIT_PLACES;
	expect_log(1, 1);
	super.features_incompat = 0;
	expect_loss("journal block 60 record 0: expected nothing that needs incompatible "
		    "features 1, found a superblock with features 0");
}

static int no_reads(void *context, const struct store_io *io)
{
	(void)context;
	return io->op == STORE_READ ? -EIO : 0;
}

Test(recovery_ring, a_ring_that_cannot_be_read_is_the_stores_error)
{
	append_group(1);
	mem.hook = no_reads;
	cr_assert_eq(read_log(), -EIO);
	cr_expect(strstr(damage.text, "journal: cannot be read"), "%s", damage.text);
}

/* --- replay --- */

#define A 0u
#define B 600u

static struct engine engine;
static struct geometry geometry;
static uint64_t ops; /* of the store, counted */
static uint64_t fails_from, fails_at; /* all from one on fail; one alone */
static enum store_op trace[64]; /* the first ones */

static int hook(void *context, const struct store_io *io)
{
	(void)context;
	if (ops < sizeof(trace) / sizeof(trace[0]))
		trace[ops] = io->op;
	ops++;
	return ops - 1 >= fails_from || ops - 1 == fails_at ? -EIO : 0;
}

static void start_with(const struct engine_options *options)
{
	engine_init(&engine, options);
	geometry = engine.volume->metadata->super.geometry;
	fails_from = fails_at = UINT64_MAX;
	engine.mem.hook = hook;
}

static void start(void)
{
	start_with(&(struct engine_options){.logical_bytes = 4ull << 20, .cached = true});
}

static void stop(void)
{
	engine.mem.hook = NULL;
	if (engine.volume)
		engine_kill(&engine);
	engine_done(&engine);
}

TestSuite(recovery_log, .init = start, .fini = stop);

static bool is_ring(void *context, uint64_t off_bytes)
{
	uint64_t block = off_bytes / BLOCK_BYTES;

	(void)context;
	return block >= geometry.ring_start && block < geometry.ring_start + geometry.ring_blocks;
}

static bool is_no_ring(void *context, uint64_t off_bytes)
{
	return !is_ring(context, off_bytes);
}

static bool is_every_other(void *context, uint64_t off_bytes)
{
	(void)context;
	return off_bytes / BLOCK_BYTES % 2;
}

static bool is_anything(void *context, uint64_t off_bytes)
{
	(void)context;
	(void)off_bytes;
	return true;
}

static bool (*const survivors[])(void *, uint64_t) = {NULL, is_ring, is_no_ring, is_every_other,
						      is_anything};

/* Opens a store whose operations fail from the n-th on, then cuts its power. Whether it had not
 * been enough of them to matter. */
static bool open_cut_at(uint64_t n, bool (*survives)(void *context, uint64_t off_bytes))
{
	int r;

	ops = 0;
	fails_from = n;
	r = engine_open(&engine);
	fails_from = UINT64_MAX;
	if (r == 0)
		engine_cut(&engine, survives, NULL);
	else
		store_mem_cut(&engine.mem, survives, NULL);
	return r == 0;
}

static void clone_and_discard(uint32_t i)
{
	cr_assert_eq(engine_clone(&engine, A + i, 1, B + 20 + i), 0);
	cr_assert_eq(engine_discard(&engine, A + 40 + i, 1), 0);
}

/* Leaves, merges, holes; a log of several groups, and pages at home of which some have seen the
 * first of them: those edits came when the boundary was fixed and no page was copied yet. */
static void make_log(void)
{
	engine_write(&engine, A, 60, 1);
	engine_write(&engine, B, 1, 2);
	engine_write(&engine, B + 9, 1, 2);
	engine_checkpoint(&engine);
	engine_write(&engine, A + 250, 1, 3);
	volume_checkpoint(engine.volume, &engine.workers[0]);
	for (uint32_t i = 0; i < 3; i++)
		clone_and_discard(i);
	cr_assert_eq(engine.volume->metadata->checkpoint.state, CHECKPOINT_BOUNDARY);
	engine_settle(&engine);
	for (uint32_t i = 0; i < 6; i++) {
		engine_write(&engine, A + 100 + i * 3, 2, 10 + i);
		if (i >= 3)
			clone_and_discard(i);
		engine_write(&engine, A + i, 1, 30 + i);
		cr_assert_eq(engine_flush(&engine), 0);
	}
}

static bool is_made(void)
{
	bool holds = engine_holds(&engine, A + 6, 34, 1) && engine_holds(&engine, A + 40, 6, 0) &&
		     engine_holds(&engine, A + 46, 14, 1) && engine_holds(&engine, B, 1, 2) &&
		     engine_holds(&engine, B + 20, 6, 1) && engine_holds(&engine, B + 9, 1, 2);

	for (uint32_t i = 0; i < 6; i++)
		holds = holds && engine_holds(&engine, A + i, 1, 30 + i) &&
			engine_holds(&engine, A + 100 + i * 3, 2, 10 + i) &&
			engine_references(&engine, B + 20 + i, NULL) == 1;
	return holds && engine_stats(&engine).mapped_bytes == blocks_to_bytes(60 + 2 + 12 + 1);
}

/* All that the store holds. */
static uint8_t *image_take(void)
{
	uint8_t *image = malloc(engine.mem.store.size_bytes);

	cr_assert(image);
	store_mem_peek(&engine.mem, 0, image, engine.mem.store.size_bytes);
	return image;
}

/* Goal: a crash within recovery, at whichever of its operations and whatever survives of what they
 * wrote, changes nothing about what the next recovery finds. */
Test(recovery_log, recovery_cut_at_any_operation_and_done_again_gives_the_same)
{
	uint64_t n = 0, runs = 0;
	uint8_t *image;
	bool over = false;

	make_log();
	engine_cut(&engine, NULL, NULL);
	image = image_take();
	for (; !over; n++)
		for (int i = 0; i < 5; i++, runs++) {
			store_mem_poke(&engine.mem, 0, image, engine.mem.store.size_bytes);
			over = open_cut_at(n, survivors[i]);
			cr_assert_eq(engine_open(&engine), 0, "operation %lu, survivors %d: %s", n,
				     i, engine.damage.text);
			cr_assert(is_made(), "operation %lu, survivors %d", n, i);
			engine_kill(&engine);
		}
	cr_expect_gt(n, 10);
	free(image);
}

/* One operation alone fails: that is told, or (a superblock copy of two) does not matter. */
Test(recovery_log, an_error_of_any_operation_of_recovery_is_told_and_loses_nothing)
{
	bool over = false;
	uint8_t *image;

	make_log();
	engine_cut(&engine, NULL, NULL);
	image = image_take();
	for (uint64_t n = 0; !over; n++) {
		int r;

		store_mem_poke(&engine.mem, 0, image, engine.mem.store.size_bytes);
		ops = 0;
		fails_at = n;
		r = engine_open(&engine);
		fails_at = UINT64_MAX;
		over = ops <= n;
		cr_assert(r == 0 || r == -EIO || r == -EUCLEAN, "operation %lu: %d", n, r);
		cr_assert(r == 0 || engine.damage.text[0], "operation %lu", n);
		cr_assert(n > 0 || (r == -EIO && ops == 1), "not one more after a failed flush");
		if (r < 0)
			store_mem_cut(&engine.mem, NULL, NULL);
		if (r < 0)
			cr_assert_eq(engine_open(&engine), 0, "operation %lu", n);
		cr_assert(is_made(), "operation %lu", n);
		engine_kill(&engine);
	}
	free(image);
}

/* I15. What is read may be in the cache of a store that lives longer than its server. */
Test(recovery_log, recovery_flushes_before_it_reads_and_before_it_writes)
{
	make_log();
	engine_kill(&engine);
	ops = 0;
	cr_assert_eq(engine_open(&engine), 0);
	cr_expect_eq(trace[0], STORE_FLUSH);
	cr_expect_eq(trace[1], STORE_READ);
}

/* I15, for either way to open: a value that was served is not lost at the next power cut, though
 * nobody had flushed it before the server was killed. */
Test(recovery_log, what_a_killed_server_left_and_was_read_never_goes_back)
{
	for (int read_only = 0; read_only < 2; read_only++) {
		engine_write(&engine, A, 4, 1);
		engine_write(&engine, A + 9, 1, 1);
		cr_assert_eq(engine_flush(&engine), 0);
		engine_write(&engine, A, 4, 2); /* in place: in the store's cache, not flushed */
		engine_kill(&engine);
		engine.options.volume.read_only = read_only;
		cr_assert_eq(engine_open(&engine), 0);
		cr_assert(engine_holds(&engine, A, 4, 2));
		engine_cut(&engine, NULL, NULL);
		engine.options.volume.read_only = false;
		cr_assert_eq(engine_open(&engine), 0);
		cr_expect(engine_holds(&engine, A, 4, 2), "read_only %d", read_only);
	}
}

/* The newer superblock copy, as it is durable. */
static struct super durable_super(void)
{
	struct damage ignored;
	struct super now;
	uint32_t *generations;

	cr_assert_eq(recovery_read_super(&engine.mem.store, true, &now, &generations, &ignored), 0);
	free(generations);
	return now;
}

/* I21. */
Test(recovery_log, each_recovery_makes_a_new_epoch_durable_before_it_serves)
{
	uint64_t epoch = durable_super().epoch;

	for (int i = 0; i < 3; i++) {
		engine_cut(&engine, NULL, NULL);
		cr_assert_eq(engine_open(&engine), 0);
		engine_cut(&engine, NULL, NULL);
		cr_expect_eq(durable_super().epoch, ++epoch);
		cr_assert_eq(engine_open(&engine), 0);
		epoch++;
	}
}

/* Regions enough for replay to dirty more than half of a small cache, in groups so small that a
 * large one was never needed. */
#define MANY_REGIONS 90u

static void make_long_log(void)
{
	stop();
	start_with(&(struct engine_options){.logical_bytes = 240 * REGION_BYTES,
					    .store_bytes = 8ull << 20,
					    .ring_blocks = 1024,
					    .cached = true,
					    .volume = {.cache_bytes = 16ull << 20}});
	for (uint32_t i = 0; i < MANY_REGIONS; i++) {
		engine_write(&engine, (uint64_t)i * REGION_BLOCKS + 3, 1, 1 + i);
		engine_write(&engine, (uint64_t)i * REGION_BLOCKS + 9, 1, 100 + i);
		cr_assert_eq(engine_flush(&engine), 0);
	}
	cr_assert_eq(engine_stats(&engine).checkpoints, 1, "the log is whole");
	engine.options.volume.cache_bytes = 1;
}

static bool is_long_made(void)
{
	bool holds = true;

	for (uint32_t i = 0; i < MANY_REGIONS; i++)
		holds = holds && engine_holds(&engine, (uint64_t)i * REGION_BLOCKS + 3, 1, 1 + i) &&
			engine_holds(&engine, (uint64_t)i * REGION_BLOCKS + 9, 1, 100 + i);
	return holds && engine_stats(&engine).mapped_bytes == blocks_to_bytes(2 * MANY_REGIONS);
}

/* With a tail that moves while replay is on, a crash finds pages of every age. */
Test(recovery_log, a_log_of_more_pages_than_the_cache_holds_is_replayed_also_after_a_crash)
{
	uint8_t *image;

	make_long_log();
	engine_cut(&engine, NULL, NULL);
	image = image_take();
	cr_assert_eq(engine_open(&engine), 0);
	cr_assert_gt(engine_stats(&engine).checkpoints, 1);
	cr_assert(is_long_made());
	engine_kill(&engine);
	for (uint64_t n = 5; n < 400; n += 37) {
		store_mem_poke(&engine.mem, 0, image, engine.mem.store.size_bytes);
		open_cut_at(n, survivors[n % 5]);
		cr_assert_eq(engine_open(&engine), 0, "operation %lu: %s", n, engine.damage.text);
		cr_assert(is_long_made(), "operation %lu", n);
		engine_kill(&engine);
	}
	free(image);
}

Test(recovery_log, a_log_is_replayed_in_memory_when_nothing_may_be_written)
{
	uint64_t writes;

	make_long_log();
	engine_cut(&engine, NULL, NULL);
	writes = store_mem_ops(&engine.mem, STORE_WRITE);
	engine.options.volume.read_only = true;
	for (int i = 0; i < 2; i++) {
		cr_assert_eq(engine_open(&engine), 0, "%s", engine.damage.text);
		cr_expect(is_long_made());
		cr_assert_eq(engine_close(&engine), 0);
	}
	cr_expect_eq(store_mem_ops(&engine.mem, STORE_WRITE), writes);
}

/* --- the end of the log against the pages --- */

static void wipe_ring(void)
{
	uint8_t zeros[BLOCK_BYTES] = {0};

	for (uint32_t i = 0; i < geometry.ring_blocks; i++)
		store_mem_poke(&engine.mem, blocks_to_bytes(geometry.ring_start + i), zeros,
			       sizeof(zeros));
}

/* Nothing goes home before its record is durable, so a page that is newer than the log's end proves
 * that the end is lost. Here the log's end is newer than the checkpoint's boundary, and the root
 * page saw it. */
Test(recovery_log, a_log_that_ends_before_what_a_root_page_has_seen_is_damage)
{
	engine_write(&engine, A, 4, 1);
	volume_checkpoint(engine.volume, &engine.workers[0]);
	while (engine.volume->metadata->checkpoint.state == CHECKPOINT_BOUNDARY)
		cr_assert(engine_step(&engine));
	engine_write(&engine, B, 1, 1); /* a place, on the root page */
	engine_settle(&engine);
	engine_cut(&engine, NULL, NULL);
	wipe_ring();
	cr_expect_eq(engine_open(&engine), -EUCLEAN);
	cr_expect(strstr(engine.damage.text, "proves them"), "%s", engine.damage.text);
}

static void put_leaf_lsn(uint64_t lsn)
{
	struct root_entry entry = map_entry(&engine.volume->metadata->map, 0);
	struct page_header header = {PAGE_LEAF, 0, entry.generation, lsn};
	uint64_t at = blocks_to_bytes(entry.place.v + (entry.generation & 1));
	uint8_t page[BLOCK_BYTES];

	cr_assert(entry.kind == REGION_LEAF && entry.written);
	store_mem_peek(&engine.mem, at, page, sizeof(page));
	page_seal(page, &header, engine.volume->metadata->super.uuid);
	store_mem_poke(&engine.mem, at, page, sizeof(page));
}

/* Leaves are looked at when they are read. */
Test(recovery_log, a_leaf_newer_than_the_log_is_damage_when_it_is_read)
{
	for (int newer = 0; newer < 2; newer++) {
		uint64_t next_lsn;

		engine_write(&engine, A + 3, 1, 1);
		engine_write(&engine, A + 9, 1, 1);
		engine_checkpoint(&engine);
		next_lsn = journal_next_lsn(&engine.volume->metadata->journal);
		put_leaf_lsn(next_lsn - 1 + (uint64_t)newer);
		engine_cut(&engine, NULL, NULL);
		cr_assert_eq(engine_open(&engine), 0);
		cr_expect_eq(engine_holds(&engine, A + 3, 1, 1), !newer);
		cr_expect_eq(strstr(engine.log, "leaf of region 0") != NULL, newer);
	}
}
