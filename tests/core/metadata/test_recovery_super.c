/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_recovery_super - which superblock the engine believes, and which root and summary pages
 *
 * The store is one that the engine wrote and closed; a test breaks something of it and asks
 * recovery_read_super(), or opens it. (That check, which has decoders of its own, judges the same
 * stores alike is shown by test_check_super.)
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/bytes.h"
#include "core/base/checksum.h"
#include "core/metadata/recovery.h"
#include "core/volume/volume_internal.h"
#include "tests/lib/engine.h"

#define RING_BLOCKS 512u /* copy B is not found by the first look around */

static struct engine engine;
static struct super super; /* of the store as it was closed, then what was read last */
static uint32_t *generations;
static struct damage damage;
static uint64_t unreadable_block;

static int hook(void *context, const struct store_io *io)
{
	uint64_t begin = io->off_bytes / BLOCK_BYTES;

	(void)context;
	return io->op == STORE_READ && unreadable_block >= begin &&
			       unreadable_block < begin + io->len_bytes / BLOCK_BYTES
		       ? -EIO
		       : 0;
}

static int read_super(bool read_only)
{
	int r;

	free(generations);
	generations = NULL;
	damage.text[0] = '\0';
	r = recovery_read_super(&engine.mem.store, read_only, &super, &generations, &damage);
	if (r < 0)
		generations = NULL; /* they were given back */
	return r;
}

static void start(void)
{
	unreadable_block = UINT64_MAX;
	engine_init(&engine, &(struct engine_options){.ring_blocks = RING_BLOCKS});
	cr_assert_eq(engine_write(&engine, 0, 100, 1), 0);
	cr_assert_eq(engine_write(&engine, 600, 1, 2), 0);
	engine_checkpoint(&engine); /* so that either slot of each page holds something */
	cr_assert_eq(engine_write(&engine, 700, 1, 2), 0);
	cr_assert_eq(engine_close(&engine), 0);
	engine.mem.hook = hook;
	cr_assert_eq(read_super(false), 0);
}

static void stop(void)
{
	engine.mem.hook = NULL;
	free(generations);
	generations = NULL;
	engine_done(&engine);
}

TestSuite(recovery_super, .init = start, .fini = stop);

static uint64_t copy_off_bytes(uint64_t checkpoint)
{
	return blocks_to_bytes(geometry_super_block(&super.geometry, checkpoint & 1));
}

static void put_super(const struct super *what)
{
	uint64_t len_bytes = blocks_to_bytes(what->geometry.super_blocks);
	uint8_t *buf = aligned_alloc(BLOCK_BYTES, len_bytes);

	super_encode(what, generations, buf);
	store_mem_poke(&engine.mem, copy_off_bytes(what->checkpoint), buf, len_bytes);
	free(buf);
}

static void fill(uint64_t block, uint8_t byte)
{
	uint8_t bytes[BLOCK_BYTES];

	memset(bytes, byte, sizeof(bytes));
	store_mem_poke(&engine.mem, blocks_to_bytes(block), bytes, sizeof(bytes));
}

static void flip_sector(uint64_t off_bytes)
{
	uint8_t sector[SECTOR_BYTES];

	store_mem_peek(&engine.mem, off_bytes, sector, sizeof(sector));
	for (uint32_t i = 0; i < sizeof(sector); i++)
		sector[i] ^= 0x5a;
	store_mem_poke(&engine.mem, off_bytes, sector, sizeof(sector));
}

/* --- the two copies --- */

Test(recovery_super, the_newer_of_two_valid_copies_is_in_force)
{
	for (int i = 0; i < 4; i++) {
		struct super newer = super;

		newer.checkpoint++;
		newer.tail_lsn += 7;
		newer.log_reaches_lsn += 7;
		put_super(&newer);
		cr_assert_eq(read_super(false), 0);
		cr_assert_eq(super.checkpoint, newer.checkpoint);
		cr_assert_eq(super.tail_lsn, newer.tail_lsn);
	}
}

/* Whichever sectors a crash left behind, of the newer copy or (by damage) of the older one. */
Test(recovery_super, a_copy_of_which_any_sector_is_torn_leaves_the_other_in_force)
{
	uint64_t newest = super.checkpoint;
	uint64_t len_bytes = blocks_to_bytes(super.geometry.super_blocks);

	for (uint64_t torn = newest - 1; torn <= newest; torn++)
		for (uint64_t at = 0; at < len_bytes; at += SECTOR_BYTES) {
			uint64_t off_bytes = copy_off_bytes(torn) + at;

			flip_sector(off_bytes);
			cr_assert_eq(read_super(false), 0, "%s", damage.text);
			cr_assert_eq(super.checkpoint, torn == newest ? newest - 1 : newest);
			flip_sector(off_bytes);
		}
}

/* Copy A alone says where copy B is, if it says anything. */
Test(recovery_super, copy_b_is_found_when_nothing_of_copy_a_can_be_had)
{
	uint64_t in_b = super.checkpoint | 1;
	struct super newer = super;

	newer.checkpoint = in_b;
	put_super(&newer);
	fill(0, 0);
	cr_assert_eq(read_super(false), 0, "%s", damage.text);
	cr_expect_eq(super.checkpoint, in_b);
	fill(0, 0xa5);
	cr_assert_eq(read_super(false), 0, "%s", damage.text);
	cr_expect_eq(super.checkpoint, in_b);
	unreadable_block = 0;
	cr_assert_eq(read_super(false), 0, "%s", damage.text);
	cr_expect_eq(super.checkpoint, in_b);
}

/* A block that says of itself that it lies elsewhere is no copy B. */
Test(recovery_super, what_only_looks_like_copy_b_is_passed_over)
{
	struct super newer = super;
	uint8_t head[BLOCK_BYTES];

	newer.checkpoint |= 1;
	put_super(&newer);
	store_mem_peek(&engine.mem, copy_off_bytes(1), head, sizeof(head));
	store_mem_poke(&engine.mem, blocks_to_bytes(super.geometry.ring_start + 3), head,
		       sizeof(head));
	fill(0, 0);
	cr_assert_eq(read_super(false), 0, "%s", damage.text);
	cr_expect_eq(super.checkpoint, newer.checkpoint);
}

Test(recovery_super, a_copy_in_the_others_place_is_no_copy)
{
	uint64_t len_bytes = blocks_to_bytes(super.geometry.super_blocks);
	uint8_t *a = malloc(len_bytes), *b = malloc(len_bytes);

	store_mem_peek(&engine.mem, copy_off_bytes(0), a, len_bytes);
	store_mem_peek(&engine.mem, copy_off_bytes(1), b, len_bytes);
	store_mem_poke(&engine.mem, copy_off_bytes(0), b, len_bytes);
	store_mem_poke(&engine.mem, copy_off_bytes(1), a, len_bytes);
	cr_expect_eq(read_super(false), -EUCLEAN);
	free(a);
	free(b);
}

/* Two bad copies are damage; that nothing can be read is the store's error, not damage. */
Test(recovery_super, without_any_copy_it_is_damage_or_the_stores_error)
{
	uint64_t copy_b = super.geometry.super_b_start;

	flip_sector(copy_off_bytes(0) + 1024);
	flip_sector(copy_off_bytes(1) + 1024);
	cr_expect_eq(read_super(false), -EUCLEAN);
	cr_expect(strstr(damage.text, "superblock at block 0: expected checksum"), "%s",
		  damage.text);
	unreadable_block = 0;
	fill(copy_b, 0);
	cr_expect_eq(read_super(false), -EIO);
}

/* --- what else a superblock may say --- */

static void put_features(uint64_t incompat, uint64_t ro_compat, uint64_t compat)
{
	struct super what;

	cr_assert_eq(read_super(true), 0);
	what = super;
	what.features_incompat = incompat;
	what.features_ro_compat = ro_compat;
	what.features_compat = compat;
	put_super(&what);
}

static int open_with(bool read_only)
{
	engine.options.volume.read_only = read_only;
	return engine_open(&engine);
}

Test(recovery_super, an_unknown_incompatible_feature_refuses_also_to_read)
{
	put_features(1ull << 63, 0, 0);
	cr_expect_eq(open_with(false), -ENOTSUP);
	cr_expect(strstr(engine.damage.text, "0x8000000000000000"), "%s", engine.damage.text);
	cr_expect_eq(open_with(true), -ENOTSUP);
}

Test(recovery_super, an_unknown_read_only_compatible_feature_opens_to_read_alone)
{
	uint64_t writes = store_mem_ops(&engine.mem, STORE_WRITE);

	put_features(0, 1ull << 5, 0);
	cr_expect_eq(open_with(false), -EROFS);
	cr_expect(strstr(engine.damage.text, "0x20"), "%s", engine.damage.text);
	cr_assert_eq(open_with(true), 0);
	cr_expect(engine_holds(&engine, 0, 100, 1));
	cr_expect_eq(engine_write(&engine, 0, 1, 3), -EROFS);
	cr_assert_eq(engine_close(&engine), 0);
	cr_expect_eq(store_mem_ops(&engine.mem, STORE_WRITE), writes);
}

/* Goal: whoever does know the feature finds its bit again, in either copy. */
Test(recovery_super, an_unknown_compatible_feature_opens_and_is_kept)
{
	uint64_t bits = 1ull << 40 | 3, newest;

	put_features(0, 0, bits);
	cr_assert_eq(open_with(false), 0);
	cr_assert_eq(engine_write(&engine, 0, 100, 3), 0);
	engine_checkpoint(&engine);
	cr_assert_eq(engine_close(&engine), 0);
	cr_assert_eq(read_super(false), 0);
	newest = super.checkpoint;
	cr_expect_eq(super.features_compat, bits);
	flip_sector(copy_off_bytes(newest));
	cr_assert_eq(read_super(false), 0);
	cr_expect_eq(super.checkpoint, newest - 1);
	cr_expect_eq(super.features_compat, bits);
}

/* Changes the version of a copy; sealed: with the checksum made right again. */
static void put_version(uint64_t checkpoint, uint32_t version, bool sealed)
{
	uint64_t len_bytes = blocks_to_bytes(super.geometry.super_blocks);
	uint8_t *buf = aligned_alloc(BLOCK_BYTES, len_bytes);

	store_mem_peek(&engine.mem, copy_off_bytes(checkpoint), buf, len_bytes);
	put_le32(buf + 8, version);
	if (sealed)
		put_le64(buf + 16, checksum_around(buf, 16, len_bytes));
	store_mem_poke(&engine.mem, copy_off_bytes(checkpoint), buf, len_bytes);
	free(buf);
}

static void expect_unknown(uint64_t checkpoint)
{
	for (int read_only = 0; read_only < 2; read_only++) {
		cr_expect_eq(open_with(read_only), -ENOTSUP, "checkpoint %lu", checkpoint);
		cr_expect(strstr(engine.damage.text, "expected format version 1, found version 2"),
			  "%s", engine.damage.text);
	}
}

/* Whichever of the two it is; the other one is of our version, or a torn write of either. */
Test(recovery_super, a_whole_copy_of_an_unknown_version_refuses_also_to_read)
{
	for (uint64_t other = super.checkpoint; other >= super.checkpoint - 1; other--) {
		uint64_t unknown = 2 * super.checkpoint - 1 - other;

		put_version(unknown, FORMAT_VERSION + 1, true);
		expect_unknown(unknown);
		flip_sector(copy_off_bytes(other) + SECTOR_BYTES);
		expect_unknown(unknown);
		put_version(other, FORMAT_VERSION + 1, false);
		expect_unknown(unknown);
		put_version(other, FORMAT_VERSION, false);
		flip_sector(copy_off_bytes(other) + SECTOR_BYTES);
		put_version(unknown, FORMAT_VERSION, true);
		cr_assert_eq(read_super(true), 0, "%s", damage.text);
	}
}

Test(recovery_super, what_is_of_another_version_and_not_whole_is_a_torn_write)
{
	for (uint64_t torn = super.checkpoint - 1; torn <= super.checkpoint; torn++) {
		put_version(torn, FORMAT_VERSION + 1, false);
		cr_expect_eq(open_with(true), 0, "%s", engine.damage.text);
		if (engine.volume)
			cr_assert_eq(engine_close(&engine), 0);
		put_version(torn, FORMAT_VERSION, false);
	}
	put_version(super.checkpoint - 1, FORMAT_VERSION + 1, false);
	put_version(super.checkpoint, FORMAT_VERSION + 1, false);
	cr_expect_eq(open_with(true), -EUCLEAN);
	cr_expect(strstr(engine.damage.text, "version 2"), "%s", engine.damage.text);
}

/* The older copy's features are those of a state that is gone. */
Test(recovery_super, features_of_the_older_copy_do_not_matter)
{
	struct super older = super;

	older.checkpoint--;
	older.features_incompat = FEATURES_INCOMPAT_KNOWN + 1;
	put_super(&older);
	cr_expect_eq(open_with(false), 0);
}

Test(recovery_super, a_store_that_became_shorter_is_damage_and_a_longer_one_is_none)
{
	uint64_t size_bytes = engine.mem.store.size_bytes;

	engine.mem.store.size_bytes = size_bytes - BLOCK_BYTES;
	cr_expect_eq(read_super(false), -EUCLEAN);
	cr_expect(strstr(damage.text, "truncated"), "%s", damage.text);
	engine.mem.store.size_bytes = SECTOR_BYTES;
	cr_expect_eq(read_super(false), -EUCLEAN);
	cr_expect(strstr(damage.text, "512 bytes"), "%s", damage.text);
	engine.mem.store.size_bytes = size_bytes;
	cr_expect_eq(read_super(false), 0);
	engine.options.store_bytes = size_bytes;
}

Test(recovery_super, a_copy_that_the_store_has_no_room_for_is_none)
{
	/* Copy A is whole, and copy B would begin behind the end. */
	engine.mem.store.size_bytes = blocks_to_bytes(super.geometry.super_b_start);
	cr_expect_eq(read_super(false), -EUCLEAN);
	cr_expect(strstr(damage.text, "truncated"), "%s", damage.text);
	/* Copy A itself goes beyond it. */
	engine.mem.store.size_bytes = BLOCK_BYTES;
	cr_expect_eq(read_super(false), -EUCLEAN);
	cr_expect(strstr(damage.text, "a store that ends before"), "%s", damage.text);
	engine.mem.store.size_bytes = engine.options.store_bytes;
}

/* --- root and summary pages --- */

/* Where the top in force lies, and its other slot. */
static uint64_t top_block(uint32_t top, bool other)
{
	return geometry_top_block(&super.geometry, top, generations[top] + other);
}

static void expect_open(int expected, const char *text)
{
	cr_expect_eq(open_with(false), expected);
	cr_expect(strstr(engine.damage.text, text), "%s", engine.damage.text);
	cr_expect_null(engine.volume);
}

static const char *const top_names[] = {"root page 0 at block", "summary page 0 at block"};

Test(recovery_super, a_flipped_top_is_damage)
{
	for (uint32_t top = 0; top < 2; top++) {
		uint64_t off_bytes = blocks_to_bytes(top_block(top, false)) + 3 * SECTOR_BYTES;

		flip_sector(off_bytes);
		expect_open(-EUCLEAN, top_names[top]);
		flip_sector(off_bytes);
	}
	cr_expect_eq(open_with(false), 0);
}

/* Its last write was lost: what is there is valid, and older than its parent says. */
Test(recovery_super, a_stale_top_is_damage)
{
	for (uint32_t top = 0; top < 2; top++) {
		uint8_t now[BLOCK_BYTES], old[BLOCK_BYTES];
		uint64_t at = blocks_to_bytes(top_block(top, false));

		store_mem_peek(&engine.mem, at, now, sizeof(now));
		store_mem_peek(&engine.mem, blocks_to_bytes(top_block(top, true)), old,
			       sizeof(old));
		store_mem_poke(&engine.mem, at, old, sizeof(old));
		expect_open(-EUCLEAN, "generation");
		store_mem_poke(&engine.mem, at, now, sizeof(now));
	}
	cr_expect_eq(open_with(false), 0);
}

Test(recovery_super, a_top_that_cannot_be_read_is_the_stores_error)
{
	for (uint32_t top = 0; top < 2; top++) {
		unreadable_block = top_block(top, false);
		expect_open(-EIO, top_names[top]);
	}
	unreadable_block = UINT64_MAX;
	cr_expect_eq(open_with(false), 0);
}

/* The page as it is, with another body. */
static void reseal(uint32_t top, uint8_t *page)
{
	struct page_header header = {top == 0 ? PAGE_ROOT : PAGE_SUMMARY, 0, generations[top], 1};

	page_seal(page, &header, super.uuid);
	store_mem_poke(&engine.mem, blocks_to_bytes(top_block(top, false)), page, BLOCK_BYTES);
}

/* A checksum that fits proves only that it was written so. */
Test(recovery_super, a_root_entry_that_cannot_be_is_damage)
{
	struct root_entry entry = {.kind = REGION_LINEAR, .length = 4};
	uint8_t page[BLOCK_BYTES];

	store_mem_peek(&engine.mem, blocks_to_bytes(top_block(0, false)), page, sizeof(page));
	entry.base = (pbn_t){super.geometry.store_blocks - 2};
	entry.place = geometry_slab_pbn(&super.geometry, 0, 0);
	root_page_put(page, 2, root_entry_encode(&entry));
	reseal(0, page);
	expect_open(-EUCLEAN, "root entry of region 2");
}

Test(recovery_super, a_split_place_without_its_feature_is_damage)
{
	struct root_entry entry = {.kind = REGION_LEAF};
	struct super fresh = super;
	uint8_t page[BLOCK_BYTES];

	store_mem_peek(&engine.mem, blocks_to_bytes(top_block(0, false)), page, sizeof(page));
	entry.place = geometry_slab_pbn(&super.geometry, 0, 2000);
	entry.second = geometry_slab_pbn(&super.geometry, 0, 2002);
	root_page_put(page, 2, root_entry_encode(&entry));
	reseal(0, page);
	cr_expect_eq(open_with(true), 0, "%s", engine.damage.text);
	cr_assert_eq(engine_close(&engine), 0);
	fresh.features_incompat = 0;
	put_super(&fresh);
	expect_open(-EUCLEAN, "root entry of region 2: expected nothing that needs incompatible "
			      "features 1, found a superblock with features 0");
}

Test(recovery_super, a_run_without_a_place_and_without_its_feature_is_damage)
{
	struct root_entry entry = {.kind = REGION_LINEAR, .length = 2};
	struct super fresh = super;
	uint8_t page[BLOCK_BYTES];

	store_mem_peek(&engine.mem, blocks_to_bytes(top_block(0, false)), page, sizeof(page));
	entry.base = geometry_slab_pbn(&super.geometry, 0, 2000);
	root_page_put(page, 2, root_entry_encode(&entry));
	reseal(0, page);
	cr_expect_eq(open_with(true), 0, "%s", engine.damage.text);
	cr_assert_eq(engine_close(&engine), 0);
	fresh.features_incompat = FEATURE_SPLIT_PLACES;
	put_super(&fresh);
	expect_open(-EUCLEAN, "root entry of region 2: expected nothing that needs incompatible "
			      "features 2, found a superblock with features 1");
}

Test(recovery_super, a_summary_of_more_free_blocks_than_there_are_is_damage)
{
	uint32_t blocks = geometry_slab_blocks(&super.geometry, 0);
	uint8_t page[BLOCK_BYTES];

	store_mem_peek(&engine.mem, blocks_to_bytes(top_block(1, false)), page, sizeof(page));
	cr_assert_lt(summary_page_get(page, 0).free_blocks, blocks);
	put_le32(page + PAGE_HEADER_BYTES + 4, blocks + 1); /* the encoder refuses to */
	reseal(1, page);
	expect_open(-EUCLEAN, "summary of slab 0");
}

/* Generation 0: what lies in the slots was never this volume's. */
Test(recovery_super, a_top_that_was_never_written_is_not_read)
{
	struct super fresh = super;

	fresh.checkpoint++;
	fresh.mapped_blocks = 0;
	fresh.places = 0;
	memset(generations, 0, geometry_tops(&super.geometry) * sizeof(*generations));
	put_super(&fresh);
	for (uint64_t i = super.geometry.tops_start; i < super.geometry.super_b_start; i++)
		fill(i, 0xa5);
	cr_assert_eq(open_with(false), 0, "%s", engine.damage.text);
	cr_expect(engine_holds(&engine, 0, 800, 0));
}

/* Nothing that goes home has edits that the log had not when the superblock was written. */
Test(recovery_super, a_root_page_newer_than_the_superblock_allows_is_damage)
{
	uint64_t at = blocks_to_bytes(top_block(0, false));
	struct page_header header = {PAGE_ROOT, 0, generations[0], super.log_reaches_lsn};
	uint8_t page[BLOCK_BYTES];

	store_mem_peek(&engine.mem, at, page, sizeof(page));
	page_seal(page, &header, super.uuid);
	store_mem_poke(&engine.mem, at, page, sizeof(page));
	expect_open(-EUCLEAN, top_names[0]);
	header.lsn--;
	page_seal(page, &header, super.uuid);
	store_mem_poke(&engine.mem, at, page, sizeof(page));
	cr_expect_eq(open_with(false), 0);
}
