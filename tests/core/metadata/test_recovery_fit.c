/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_recovery_fit - records that are whole and right in themselves, and not possible on the store
 *
 * The engine makes a store and is killed with an empty log; a test appends records by hand, as a
 * commit would have written them, and opens it. What does not fit is refused with the record's LSN,
 * and check finds it, too; what fits is replayed.
 *
 *   region 0  LINEAR, RUN blocks
 *   region 1  LEAF, blocks LEAF_AT and the next
 *   region 2  HOLE without a place
 *
 * Blocks that nobody has: those from FREE on in slab 0.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/check/check.h"
#include "core/metadata/recovery.h"
#include "core/volume/volume_internal.h"
#include "tests/lib/engine.h"

#define RUN	16u
#define LEAF_AT 3u
#define FREE	700u

#define ROOT	 RECORD_ON_ROOT
#define SRC_ROOT RECORD_SRC_ON_ROOT

static struct engine engine;
static uint8_t *image; /* the store as it is at the beginning of each case */
static struct super super;
static struct root_entry linear, leaf;
static pbn_t leaf_data;
static uint32_t refs_generation;

static void learn(void)
{
	struct volume *volume = engine.volume;
	uint32_t references;

	linear = map_entry(&volume->metadata->map, 0);
	leaf = map_entry(&volume->metadata->map, 1);
	references = engine_references(&engine, REGION_BLOCKS + LEAF_AT, &leaf_data);
	cr_assert(linear.kind == REGION_LINEAR && linear.length == RUN);
	cr_assert(leaf.kind == REGION_LEAF && leaf.written && references == 1);
	cr_assert_eq(map_entry(&volume->metadata->map, 2).place.v, PBN_NONE.v);
	refs_generation = volume->metadata->refs.slabs[0].generation;
}

static void start(void)
{
	uint32_t *generations;
	struct damage damage;

	engine_init(&engine, NULL);
	engine_write(&engine, 0, RUN, 1);
	engine_write(&engine, REGION_BLOCKS + LEAF_AT, 2, 2);
	engine_flush(&engine);
	engine_checkpoint(&engine);
	learn();
	engine_kill(&engine);
	image = malloc(engine.mem.store.size_bytes);
	store_mem_peek(&engine.mem, 0, image, engine.mem.store.size_bytes);
	cr_assert_eq(recovery_read_super(&engine.mem.store, true, &super, &generations, &damage),
		     0);
	free(generations);
}

static void stop(void)
{
	free(image);
	engine_done(&engine);
}

TestSuite(recovery_fit, .init = start, .fini = stop);

static pbn_t unused(uint32_t i)
{
	return geometry_slab_pbn(&super.geometry, 0, FREE + i);
}

static lbn_t at(uint32_t region, uint32_t index)
{
	return lbn_add(region_lbn(region), index);
}

/* --- the journal --- */

static void put_log(const struct record *records, uint32_t count)
{
	struct journal_header header = {
		.epoch = super.epoch,
		.sequence = super.tail_sequence,
		.first_lsn = super.tail_lsn,
		.group = super.tail_group,
		.checkpoint = super.checkpoint,
		.prev = super.tail_prev,
		.count = count,
		.last = true,
	};
	uint8_t block[BLOCK_BYTES] = {0};

	for (uint32_t i = 0; i < count; i++)
		record_put(block, i, &records[i]);
	journal_seal(block, &header, super.uuid);
	store_mem_poke(&engine.mem,
		       blocks_to_bytes(geometry_ring_block(&super.geometry, header.sequence)),
		       block, sizeof(block));
}

static int read_mem(void *context, uint64_t off_bytes, void *buf, size_t len_bytes)
{
	(void)context;
	store_mem_peek(&engine.mem, off_bytes, buf, len_bytes);
	return 0;
}

static uint64_t ask_check(void)
{
	struct check_source source = {.size_bytes = engine.mem.store.size_bytes, .read = read_mem};
	struct check_report report;
	uint64_t findings;

	cr_assert_eq(check_store(&source, false, &report), 0);
	findings = report.findings_total;
	check_report_done(&report);
	return findings;
}

/* The last of the records does not fit; what was changed on the store before stays. */
static void expect_misfit(const struct record *records, uint32_t count, const char *text)
{
	char where[64];

	snprintf(where, sizeof(where), "journal record %lu (ring block %lu): expected",
		 super.tail_lsn + count - 1, super.tail_sequence % super.geometry.ring_blocks);
	put_log(records, count);
	for (int read_only = 1; read_only >= 0; read_only--) {
		engine.options.volume.read_only = read_only;
		cr_expect_eq(engine_open(&engine), -EUCLEAN, "%s", text);
		cr_expect(strstr(engine.damage.text, where), "%s", engine.damage.text);
		cr_expect(strstr(engine.damage.text, text), "%s: %s", text, engine.damage.text);
		cr_expect_gt(ask_check(), 0, "%s", text);
	}
	store_mem_poke(&engine.mem, 0, image, engine.mem.store.size_bytes);
}

static void expect_one_misfit(struct record record, const char *text)
{
	expect_misfit(&record, 1, text);
}

static void expect_fit(const struct record *records, uint32_t count)
{
	put_log(records, count);
	cr_expect_eq(ask_check(), 0);
	cr_expect_eq(engine_open(&engine), 0, "%s", engine.damage.text);
	if (engine.volume)
		cr_expect_eq(engine_close(&engine), 0);
	cr_expect_eq(ask_check(), 0);
	store_mem_poke(&engine.mem, 0, image, engine.mem.store.size_bytes);
}

/* --- records --- */

static struct record place(uint32_t region, pbn_t new)
{
	return (struct record){.kind = RECORD_PLACE, .count = 2, .lbn = at(region, 0), .new = new};
}

static struct record unplace(uint32_t region, pbn_t old)
{
	return (struct record){
		.kind = RECORD_UNPLACE, .count = 2, .lbn = at(region, 0), .old = old};
}

static struct record explode(uint32_t region, pbn_t old, uint32_t count)
{
	return (struct record){
		.kind = RECORD_EXPLODE, .count = count, .lbn = at(region, 0), .old = old};
}

static struct record map(uint32_t flags, lbn_t lbn, uint32_t count, pbn_t old, pbn_t new)
{
	return (struct record){.kind = RECORD_MAP,
			       .flags = flags,
			       .count = count,
			       .lbn = lbn,
			       .old = old,
			       .new = new};
}

static struct record unmap(uint32_t flags, lbn_t lbn, uint32_t count, pbn_t old)
{
	return (struct record){
		.kind = RECORD_UNMAP, .flags = flags, .count = count, .lbn = lbn, .old = old};
}

static struct record share(uint32_t flags, lbn_t lbn, uint32_t count, pbn_t new, lbn_t src)
{
	return (struct record){.kind = RECORD_SHARE,
			       .flags = flags,
			       .count = count,
			       .lbn = lbn,
			       .new = new,
			       .src = src};
}

/* --- what fits --- */

/* Goal: none of what follows is refused for another reason than the one that is meant. */
Test(recovery_fit, a_log_that_fits_is_replayed)
{
	const struct record grow[] = {
		place(2, unused(0)),
		map(ROOT, at(2, 0), 5, PBN_NONE, unused(10)),
		map(ROOT, at(2, 5), 3, PBN_NONE, unused(15)),
	};
	const struct record shrink[] = {
		unmap(ROOT, at(0, RUN - 4), 4, pbn_add(linear.base, RUN - 4)),
		unmap(ROOT, at(0, 0), RUN - 4, linear.base),
		unplace(0, linear.place),
		unmap(0, at(1, LEAF_AT), 2, leaf_data),
		unplace(1, leaf.place),
	};
	const struct record change[] = {
		explode(0, linear.base, RUN),
		map(0, at(0, 2), 1, pbn_add(linear.base, 2), unused(0)),
		share(0, at(1, 100), 2, linear.base, at(0, 0)),
		share(0, at(1, 200), 2, leaf_data, at(1, LEAF_AT)),
	};
	const struct record late[] = {
		share(ROOT | SRC_ROOT, at(2, 0), 3, linear.base, at(0, 0)),
		share(ROOT | SRC_ROOT, at(2, 3), 3, pbn_add(linear.base, 3), at(0, 3)),
		place(2, unused(0)),
		unmap(ROOT, at(2, 5), 1, pbn_add(linear.base, 5)),
	};
	const struct record make[] = {
		place(2, unused(0)),
		explode(2, PBN_NONE, 0),
		share(SRC_ROOT, at(2, 7), 3, pbn_add(linear.base, 1), at(0, 1)),
	};

	expect_fit(grow, 3);
	expect_fit(shrink, 5);
	expect_fit(change, 4);
	expect_fit(late, 4);
	expect_fit(make, 3);
}

/* --- root entries --- */

Test(recovery_fit, a_place_is_for_a_region_that_has_none)
{
	const struct record twice[] = {place(2, unused(0)), place(2, unused(2))};

	expect_misfit(twice, 2, "a HOLE or a run without a place");
	expect_one_misfit(place(0, unused(0)), "region 0: kind 1");
	expect_one_misfit(place(1, unused(0)), "region 1: kind 2");
}

Test(recovery_fit, a_place_is_given_back_by_whom_it_belongs_to)
{
	expect_one_misfit(unplace(0, linear.place), "no run, and the place that is given back");
	expect_one_misfit(unplace(1, linear.place), "region 1: kind 2");
	expect_one_misfit(unplace(2, linear.place), "region 2: kind 0");
}

Test(recovery_fit, an_explosion_names_the_run_that_is_there)
{
	struct record shared[] = {share(SRC_ROOT, at(1, 50), 2, linear.base, at(0, 0)),
				  explode(0, linear.base, RUN)};

	expect_one_misfit(explode(0, linear.base, RUN - 1), "the run that is exploded");
	expect_one_misfit(explode(0, pbn_add(linear.base, 1), RUN), "region 0: kind 1");
	expect_one_misfit(explode(0, PBN_NONE, 0), "region 0: kind 1");
	expect_one_misfit(explode(1, PBN_NONE, 0), "region 1: kind 2");
	expect_one_misfit(explode(2, PBN_NONE, 0), "region 2: kind 0");
	expect_misfit(shared, 2, "region 0: kind 1"); /* it does not say that it is shared */
	shared[1].flags = RECORD_SHARED;
	expect_fit(shared, 2);
}

Test(recovery_fit, a_run_begins_at_block_0_and_goes_on_where_it_ends)
{
	const char *text = "a place, and holes behind a run that goes on with the new blocks";
	struct record gap[] = {place(2, unused(0)), map(ROOT, at(2, 1), 1, PBN_NONE, unused(10))};
	pbn_t next = pbn_add(linear.base, RUN);

	expect_misfit(gap, 2, text);
	expect_one_misfit(map(ROOT, at(2, 0), 1, PBN_NONE, unused(0)), text); /* no place */
	expect_one_misfit(map(ROOT, at(0, RUN + 1), 1, PBN_NONE, pbn_add(next, 1)), text);
	expect_one_misfit(map(ROOT, at(0, RUN), 1, PBN_NONE, unused(0)), text);
	expect_one_misfit(map(ROOT, at(0, RUN), 1, linear.base, next), text);
	expect_one_misfit(map(ROOT, at(0, 0), 1, linear.base, unused(0)), text);
	expect_one_misfit(map(ROOT, at(1, 0), 1, PBN_NONE, unused(0)), text); /* a LEAF */
	/* What is shared needs no place yet. */
	text = "holes behind a run that goes on with the new blocks";
	expect_one_misfit(share(ROOT, at(2, 1), 1, leaf_data, at(1, LEAF_AT)), text);
	expect_one_misfit(share(ROOT, at(0, RUN), 1, leaf_data, at(1, LEAF_AT)), text);
}

Test(recovery_fit, a_run_is_cut_at_its_end)
{
	const char *text = "a run that ends with the old blocks";

	expect_one_misfit(unmap(ROOT, at(0, 2), 1, pbn_add(linear.base, 2)), text);
	expect_one_misfit(unmap(ROOT, at(0, RUN - 1), 1, linear.base), text);
	expect_one_misfit(unmap(ROOT, at(0, RUN - 1), 2, pbn_add(linear.base, RUN - 1)), text);
	expect_one_misfit(unmap(ROOT, at(1, LEAF_AT), 2, leaf_data), text);
	expect_one_misfit(unmap(ROOT, at(2, 0), 1, linear.base), text);
}

Test(recovery_fit, what_is_shared_is_in_the_sources_run)
{
	const char *text = "a run with the blocks that are shared";

	expect_one_misfit(share(SRC_ROOT, at(1, 50), 2, linear.base, at(0, 1)), text);
	expect_one_misfit(
		share(SRC_ROOT, at(1, 50), 2, pbn_add(linear.base, RUN - 1), at(0, RUN - 1)), text);
	expect_one_misfit(share(SRC_ROOT, at(0, RUN), 2, leaf_data, at(1, LEAF_AT)), text);
	expect_one_misfit(share(SRC_ROOT, at(1, 50), 2, linear.base, at(2, 0)), text);
}

/* --- leaves --- */

Test(recovery_fit, a_leaf_reads_from_the_old_blocks)
{
	expect_one_misfit(map(0, at(1, LEAF_AT), 1, PBN_NONE, unused(0)),
			  "block 0 in entry 3 of the leaf of region 1");
	expect_one_misfit(map(0, at(1, LEAF_AT + 1), 2, pbn_add(leaf_data, 1), unused(0)),
			  "in entry 5 of the leaf of region 1, found block 0");
	expect_one_misfit(unmap(0, at(1, LEAF_AT), 2, linear.base), "in entry 3 of the leaf");
	expect_one_misfit(share(SRC_ROOT, at(1, LEAF_AT), 1, linear.base, at(0, 0)),
			  "block 0 in entry 3 of the leaf of region 1");
}

Test(recovery_fit, a_leaf_that_is_dropped_is_empty)
{
	const struct record one_left[] = {unmap(0, at(1, LEAF_AT), 1, leaf_data),
					  unplace(1, leaf.place)};

	expect_misfit(one_left, 2, "entry 4 of the leaf of region 1");
}

Test(recovery_fit, a_leaf_that_is_shared_from_reads_from_the_new_blocks)
{
	expect_one_misfit(share(0, at(1, 50), 2, linear.base, at(1, LEAF_AT)),
			  "in entry 3 of the leaf of region 1");
	expect_one_misfit(share(0, at(1, 50), 3, leaf_data, at(1, LEAF_AT)),
			  "in entry 5 of the leaf of region 1, found block 0");
}

/* --- counts --- */

/* In the refs page at home. */
static void put_count(pbn_t pbn, uint16_t count)
{
	uint64_t off_bytes =
		blocks_to_bytes(geometry_refs_block(&super.geometry, 0, refs_generation));
	struct page_header header = {.kind = PAGE_REFS, .generation = refs_generation};
	uint8_t page[BLOCK_BYTES];

	store_mem_peek(&engine.mem, off_bytes, page, sizeof(page));
	refs_page_put(page, geometry_slab_index(&super.geometry, pbn), count);
	page_seal(page, &header, super.uuid);
	store_mem_poke(&engine.mem, off_bytes, page, sizeof(page));
}

Test(recovery_fit, new_blocks_are_nobodys)
{
	expect_one_misfit(map(0, at(1, 50), 2, PBN_NONE, pbn_add(linear.base, 4)),
			  "0 to 0 references to block");
	expect_one_misfit(place(2, leaf_data), "0 to 0 references to block");
}

Test(recovery_fit, old_blocks_are_somebodys)
{
	put_count(pbn_add(leaf_data, 1), 0);
	expect_one_misfit(unmap(0, at(1, LEAF_AT), 2, leaf_data), "1 to 65535 references to block");
	put_count(linear.base, 0);
	expect_one_misfit(unmap(ROOT, at(0, 0), RUN, linear.base),
			  "1 to 65535 references to block");
}

Test(recovery_fit, shared_blocks_have_an_owner_and_room_for_another)
{
	const struct record record = share(0, at(1, 50), 2, leaf_data, at(1, LEAF_AT));

	put_count(leaf_data, 0);
	expect_misfit(&record, 1, "1 to 65534 references to block");
	put_count(leaf_data, REFS_MAX);
	expect_misfit(&record, 1, "found 65535");
}

/* --- pages that replay reads --- */

Test(recovery_fit, a_bad_page_that_replay_needs_is_said_where_it_is)
{
	struct record record = unmap(0, at(1, LEAF_AT), 2, leaf_data);
	uint8_t zeros[BLOCK_BYTES] = {0};
	char where[64];

	snprintf(where, sizeof(where), "leaf of region 1 at block %lu: expected page magic",
		 leaf.place.v + (leaf.generation & 1));
	put_log(&record, 1);
	store_mem_poke(&engine.mem, blocks_to_bytes(leaf.place.v), zeros, sizeof(zeros));
	store_mem_poke(&engine.mem, blocks_to_bytes(leaf.place.v + 1), zeros, sizeof(zeros));
	cr_expect_eq(engine_open(&engine), -EUCLEAN);
	cr_expect(strstr(engine.damage.text, where), "%s", engine.damage.text);
	cr_expect_gt(ask_check(), 0);
}
