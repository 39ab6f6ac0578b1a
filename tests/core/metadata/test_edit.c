/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_edit - what each record does to which page, published or replayed
 *
 * A volume without a single request: tests publish records by hand, as requests do, onto blocks of
 * slab 0 that they name by index. The volume has 4 regions and is killed in the end, unless a test
 * closes it. Which pages a record changes is in test_edit_pages.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "core/volume/volume_internal.h"
#include "tests/lib/engine.h"

#define REGIONS	  4u
#define SLABS	  2u
#define BLOCKS	  400u /* of each slab: tests use no others */
#define PLACE(r)  (100 + 2 * (r)) /* where the region's leaf lies */
#define ROOT	  RECORD_ON_ROOT
#define SRC_ROOT  RECORD_SRC_ON_ROOT
#define BOTH_ROOT (RECORD_ON_ROOT | RECORD_SRC_ON_ROOT)

static struct engine engine;
static struct volume *volume;

static void start(void)
{
	engine_init(&engine, &(struct engine_options){.store_bytes = 14ull << 20});
	volume = engine.volume;
	cr_assert_eq(volume->metadata->super.geometry.regions, REGIONS);
	cr_assert_eq(volume->metadata->super.geometry.slabs, SLABS);
}

static void stop(void)
{
	if (engine.volume)
		engine_kill(&engine);
	engine_done(&engine);
}

TestSuite(edit, .init = start, .fini = stop);

static pbn_t at(uint32_t index)
{
	return geometry_slab_pbn(&volume->metadata->super.geometry, 0, index);
}

static lbn_t lbn(uint32_t region, uint32_t index)
{
	return lbn_add(region_lbn(region), index);
}

/* --- records, in short --- */

static struct record record_of(enum record_kind kind, uint32_t flags, lbn_t to, uint32_t count,
			       pbn_t old, pbn_t new)
{
	return (struct record){
		.kind = kind, .flags = flags, .count = count, .lbn = to, .old = old, .new = new};
}

static struct record place(uint32_t region)
{
	return record_of(RECORD_PLACE, 0, region_lbn(region), 2, PBN_NONE, at(PLACE(region)));
}

static struct record unplace(uint32_t region)
{
	return record_of(RECORD_UNPLACE, 0, region_lbn(region), 2, at(PLACE(region)), PBN_NONE);
}

static struct record explode(uint32_t region, pbn_t old, uint32_t count, uint32_t flags)
{
	return record_of(RECORD_EXPLODE, flags, region_lbn(region), count, old, PBN_NONE);
}

static struct record map(uint32_t flags, lbn_t to, uint32_t count, pbn_t old, pbn_t new)
{
	return record_of(RECORD_MAP, flags, to, count, old, new);
}

static struct record unmap(uint32_t flags, lbn_t from, uint32_t count, pbn_t old)
{
	return record_of(RECORD_UNMAP, flags, from, count, old, PBN_NONE);
}

static struct record share(uint32_t flags, lbn_t to, uint32_t count, pbn_t old, pbn_t new,
			   lbn_t src)
{
	struct record record = record_of(RECORD_SHARE, flags, to, count, old, new);

	record.src = src;
	return record;
}

/* --- publishing --- */

static void woken(struct task *task)
{
	(void)task;
}

static void load(page_t page)
{
	struct wait wait;

	wait_init(&wait, &engine.workers[0], woken);
	pthread_mutex_lock(&volume->metadata->lock);
	cache_load(&volume->metadata->cache, page, &wait);
	pthread_mutex_unlock(&volume->metadata->lock);
	engine_settle(&engine);
	cr_assert_eq(wait.res, 0);
}

static void load_for(const struct record *record)
{
	for (page_t page; (page = edit_missing(volume->metadata, record)) != PAGE_NONE;)
		load(page);
}

static struct frame *frame_of(page_t page)
{
	struct frame *frame = cache_find(&volume->metadata->cache, page);

	cr_assert(frame != NULL, "page %u is absent", page);
	return frame;
}

static struct frame *refs_page(uint32_t slab)
{
	page_t page = page_of_refs(&volume->metadata->super.geometry, slab);

	if (cache_find(&volume->metadata->cache, page) == NULL)
		load(page);
	return frame_of(page);
}

/* Publishes on a reservation, after what it needs was loaded and what is new was handed out. */
static uint64_t publish_onto(struct record record, uint64_t *freed)
{
	struct wait wait;
	uint64_t lsn;
	bool reserved;

	load_for(&record);
	wait_init(&wait, &engine.workers[0], woken);
	pthread_mutex_lock(&volume->metadata->lock);
	reserved = journal_reserve(&volume->metadata->journal, 1, &wait);
	cr_assert(reserved);
	if (record.kind == RECORD_MAP || record.kind == RECORD_PLACE)
		refs_busy_add(&volume->metadata->refs, record.new, record.count);
	lsn = edit_publish(volume->metadata, &record, freed);
	journal_release(&volume->metadata->journal, 0, 1);
	pthread_mutex_unlock(&volume->metadata->lock);
	return lsn;
}

/* Returns the blocks that it freed. */
static uint64_t publish(struct record record)
{
	uint64_t freed = 0;

	publish_onto(record, &freed);
	return freed;
}

static uint16_t count_of(uint32_t index)
{
	refs_page(0);
	return refs_count(&volume->metadata->refs, at(index));
}

static uint16_t busy_of(uint32_t index)
{
	refs_page(0);
	return refs_busy_count(&volume->metadata->refs, at(index));
}

static void expect_run(lbn_t from, uint32_t blocks, pbn_t pbn, bool maybe_shared)
{
	struct extent extents[2];

	cr_assert_eq(map_lookup(&volume->metadata->map, from, blocks, extents, 2), 1);
	cr_expect_eq(extents[0].pbn.v, pbn.v);
	cr_expect_eq(extents[0].maybe_shared, maybe_shared);
}

static uint64_t mapped_blocks(void)
{
	return volume->metadata->journal.counts.mapped_blocks;
}

/* --- the state of the whole volume --- */

struct state {
	uint64_t root[REGIONS]; /* the mapping's words */
	uint64_t places[REGIONS];
	uint64_t words[REGIONS][REGION_BLOCKS];
	uint16_t mapped[REGIONS];
	uint16_t counts[SLABS][BLOCKS];
	uint64_t free_blocks;
	uint64_t shared_refs;
	struct journal_counts journal;
};

static void take_state(struct state *state)
{
	memset(state, 0, sizeof(*state));
	for (uint32_t region = 0; region < REGIONS; region++) {
		state->root[region] = volume->metadata->map.entries[region].map;
		state->places[region] = map_entry(&volume->metadata->map, region).place.v;
		if (map_kind(&volume->metadata->map, region) != REGION_LEAF)
			continue;
		if (cache_find(&volume->metadata->cache, page_of_leaf(region)) == NULL)
			load(page_of_leaf(region));
		state->mapped[region] = frame_of(region)->mapped;
		for (uint32_t i = 0; i < REGION_BLOCKS; i++)
			state->words[region][i] = frame_of(region)->words[i];
	}
	for (uint32_t slab = 0; slab < SLABS; slab++)
		memcpy(state->counts[slab], refs_page(slab)->counts, sizeof(state->counts[slab]));
	state->free_blocks = volume->metadata->refs.free_blocks;
	state->shared_refs = volume->metadata->refs.shared_refs;
	state->journal = volume->metadata->journal.counts;
}

static void expect_same_state(const struct state *a, const struct state *b, int record)
{
	cr_expect(memcmp(a->root, b->root, sizeof(a->root)) == 0, "roots, record %d", record);
	cr_expect(memcmp(a->words, b->words, sizeof(a->words)) == 0, "leaves, record %d", record);
	cr_expect(memcmp(a->counts, b->counts, sizeof(a->counts)) == 0, "counts, record %d",
		  record);
	cr_expect(memcmp(a, b, sizeof(*a)) == 0, "places or sums, record %d", record);
}

/* An owner more of the block, as the map says. */
static void own(uint16_t (*owners)[BLOCKS], pbn_t pbn)
{
	const struct geometry *geometry = &volume->metadata->super.geometry;

	if (pbn_is_none(pbn))
		return;
	cr_assert(geometry_slab_index(geometry, pbn) < BLOCKS);
	owners[geometry_slab(geometry, pbn)][geometry_slab_index(geometry, pbn)]++;
}

/* Each count is the number of its owners, each counter the sum of what it counts. */
static void expect_sound(int record)
{
	uint16_t owners[SLABS][BLOCKS] = {0};
	struct state state;
	uint64_t mapped = 0, places = 0;

	take_state(&state);
	for (uint32_t region = 0; region < REGIONS; region++) {
		for (uint32_t i = 0; i < REGION_BLOCKS; i++) {
			struct extent extent;

			map_lookup(&volume->metadata->map, lbn(region, i), 1, &extent, 1);
			own(owners, extent.pbn);
			mapped += !pbn_is_none(extent.pbn);
		}
		places += state.places[region] != 0;
		own(owners, (pbn_t){state.places[region]});
		if (state.places[region] != 0)
			own(owners, (pbn_t){state.places[region] + 1});
	}
	cr_expect(memcmp(owners, state.counts, sizeof(owners)) == 0, "counts, record %d", record);
	cr_expect_eq(state.journal.mapped_blocks, mapped, "record %d", record);
	cr_expect_eq(state.journal.places, places, "record %d", record);
}

/* --- what is missing --- */

Test(edit, an_edit_lacks_the_pages_that_are_absent_and_no_root_page)
{
	struct record record = place(0);

	cr_expect_eq(edit_missing(volume->metadata, &record),
		     page_of_refs(&volume->metadata->super.geometry, 0));
	refs_page(0);
	cr_expect_eq(edit_missing(volume->metadata, &record), PAGE_NONE);
	record = map(0, lbn(0, 3), 1, PBN_NONE, at(200));
	cr_expect_eq(edit_missing(volume->metadata, &record), page_of_leaf(0));
	record.flags = ROOT;
	cr_expect_eq(edit_missing(volume->metadata, &record), PAGE_NONE);
	record.old = geometry_slab_pbn(&volume->metadata->super.geometry, 1, 0);
	cr_expect_eq(edit_missing(volume->metadata, &record),
		     page_of_refs(&volume->metadata->super.geometry, 1));
	record = explode(1, PBN_NONE, 0, 0);
	cr_expect_eq(edit_missing(volume->metadata, &record), page_of_leaf(1));
	load(page_of_leaf(1));
	cr_expect_eq(edit_missing(volume->metadata, &record), PAGE_NONE);
	record = share(SRC_ROOT, lbn(1, 0), 1, PBN_NONE, at(200), lbn(2, 0));
	cr_expect_eq(edit_missing(volume->metadata, &record), PAGE_NONE);
	record.flags = 0;
	cr_expect_eq(edit_missing(volume->metadata, &record), page_of_leaf(2));
}

Test(edit, a_leaf_is_not_needed_to_be_forgotten)
{
	struct record record = unplace(0);

	refs_page(0);
	cr_assert_null(cache_find(&volume->metadata->cache, page_of_leaf(0)));
	cr_expect_eq(edit_missing(volume->metadata, &record), PAGE_NONE);
}

Test(edit, applying_to_an_absent_page_is_a_bug, .signal = SIGABRT)
{
	struct record record = map(0, lbn(0, 3), 1, PBN_NONE, at(200));

	edit_apply(volume->metadata, &record, journal_next_lsn(&volume->metadata->journal),
		   (struct edit_page){false, page_of_leaf(0)});
}

Test(edit, publishing_without_a_reservation_is_a_bug, .signal = SIGABRT)
{
	struct record record = place(0);

	load_for(&record);
	refs_busy_add(&volume->metadata->refs, record.new, 2);
	edit_publish(volume->metadata, &record, NULL);
}

/* --- each kind --- */

Test(edit, a_place_belongs_to_its_region)
{
	cr_expect_eq(publish(place(1)), 0);
	cr_expect_eq(map_entry(&volume->metadata->map, 1).place.v, at(PLACE(1)).v);
	cr_expect_eq(map_kind(&volume->metadata->map, 1), REGION_HOLE);
	cr_expect(count_of(PLACE(1)) == 1 && count_of(PLACE(1) + 1) == 1);
	cr_expect(count_of(PLACE(1) - 1) == 0 && count_of(PLACE(1) + 2) == 0);
	cr_expect(busy_of(PLACE(1)) == 0 && busy_of(PLACE(1) + 1) == 0);
	cr_expect_eq(volume->metadata->journal.counts.places, 1);
	cr_expect_eq(mapped_blocks(), 0);
	expect_sound(0);
}

/* Replay from an older checkpoint reads its slots: it waits for the next one, a commit is not
 * enough. */
Test(edit, a_place_that_was_given_back_waits_for_a_checkpoint)
{
	publish(place(1));
	publish(explode(1, PBN_NONE, 0, 0));
	cr_expect_eq(publish(unplace(1)), 2);
	cr_expect_eq(map_kind(&volume->metadata->map, 1), REGION_HOLE);
	cr_expect(pbn_is_none(map_entry(&volume->metadata->map, 1).place));
	cr_expect_null(cache_find(&volume->metadata->cache, page_of_leaf(1)),
		       "its leaf is forgotten");
	cr_expect_eq(volume->metadata->journal.counts.places, 0);
	cr_expect(count_of(PLACE(1)) == 0 && busy_of(PLACE(1)) == 1);
	engine_flush(&engine);
	cr_expect_eq(busy_of(PLACE(1)), 1);
	cr_expect_eq(pending_blocks(&volume->metadata->pending), 2);
	engine_checkpoint(&engine);
	cr_expect(busy_of(PLACE(1)) == 0 && busy_of(PLACE(1) + 1) == 0);
	expect_sound(0);
}

Test(edit, a_map_onto_holes_takes_the_new_blocks)
{
	publish(place(0));
	cr_expect_eq(publish(map(ROOT, lbn(0, 0), 10, PBN_NONE, at(200))), 0);
	cr_expect_eq(map_kind(&volume->metadata->map, 0), REGION_LINEAR);
	expect_run(lbn(0, 0), 10, at(200), false);
	cr_expect(count_of(200) == 1 && count_of(209) == 1 && count_of(210) == 0);
	cr_expect(busy_of(200) == 0 && busy_of(209) == 0);
	cr_expect_eq(mapped_blocks(), 10);
	cr_expect_eq(pending_blocks(&volume->metadata->pending), 0);
	expect_sound(0);
}

/* Region r as a leaf whose first 10 blocks are 200 to 209. */
static void make_leaf(uint32_t region)
{
	publish(place(region));
	publish(map(ROOT, lbn(region, 0), 10, PBN_NONE, at(200)));
	publish(explode(region, at(200), 10, 0));
}

/* I3: what was replaced is not available before the record is durable. */
Test(edit, a_map_onto_private_blocks_frees_them_once_it_is_durable)
{
	make_leaf(0);
	cr_expect_eq(publish(map(0, lbn(0, 3), 2, at(203), at(300))), 2);
	expect_run(lbn(0, 0), 3, at(200), false);
	expect_run(lbn(0, 3), 2, at(300), false);
	expect_run(lbn(0, 5), 5, at(205), false);
	cr_expect(count_of(203) == 0 && busy_of(203) == 1 && busy_of(204) == 1);
	cr_expect(count_of(300) == 1 && busy_of(300) == 0);
	cr_expect_eq(mapped_blocks(), 10);
	engine_flush(&engine);
	cr_expect(busy_of(203) == 0 && busy_of(204) == 0);
	expect_sound(0);
}

/* I4: the other owner is not alone with it before the record is durable. */
Test(edit, a_map_onto_shared_blocks_leaves_them_to_the_others_and_busy)
{
	make_leaf(0);
	publish(place(1));
	publish(share(ROOT, lbn(1, 0), 10, PBN_NONE, at(200), lbn(0, 0)));
	cr_expect_eq(publish(map(0, lbn(0, 3), 2, at(203), at(300))), 0);
	cr_expect(count_of(203) == 1 && busy_of(203) == 1);
	expect_run(lbn(1, 0), 10, at(200), true);
	engine_flush(&engine);
	cr_expect_eq(busy_of(203), 0);
	expect_sound(0);
}

Test(edit, an_unmap_leaves_holes)
{
	make_leaf(0);
	cr_expect_eq(publish(unmap(0, lbn(0, 4), 3, at(204))), 3);
	expect_run(lbn(0, 4), 3, PBN_NONE, false);
	expect_run(lbn(0, 0), 4, at(200), false);
	expect_run(lbn(0, 7), 3, at(207), false);
	cr_expect(count_of(204) == 0 && busy_of(204) == 1 && busy_of(207) == 0);
	cr_expect_eq(mapped_blocks(), 7);
	expect_sound(0);
}

Test(edit, an_explosion_changes_no_count_and_no_content)
{
	publish(place(0));
	publish(map(ROOT, lbn(0, 0), 10, PBN_NONE, at(200)));
	cr_expect_eq(publish(explode(0, at(200), 10, 0)), 0);
	cr_expect_eq(map_kind(&volume->metadata->map, 0), REGION_LEAF);
	expect_run(lbn(0, 0), 10, at(200), false);
	expect_run(lbn(0, 10), 502, PBN_NONE, false);
	cr_expect(count_of(200) == 1 && busy_of(200) == 0);
	cr_expect_eq(mapped_blocks(), 10);
	expect_sound(0);
}

Test(edit, an_explosion_of_a_shared_run_flags_every_block)
{
	publish(place(0));
	publish(map(ROOT, lbn(0, 0), 10, PBN_NONE, at(200)));
	publish(place(1));
	publish(share(BOTH_ROOT, lbn(1, 0), 1, PBN_NONE, at(200), lbn(0, 0)));
	publish(explode(0, at(200), 10, RECORD_SHARED));
	expect_run(lbn(0, 0), 10, at(200), true);
}

/* A count above 1 implies that every owner is flagged, wherever its mapping is. */
Test(edit, a_share_flags_both_sides)
{
	for (uint32_t leaves = 0; leaves < 4; leaves++) {
		bool dst = leaves & 1, src = leaves & 2;
		uint32_t flags = (dst ? 0 : ROOT) | (src ? 0 : SRC_ROOT);

		publish(place(0));
		publish(map(ROOT, lbn(0, 0), 10, PBN_NONE, at(200)));
		publish(place(1));
		if (src)
			publish(explode(0, at(200), 10, 0));
		if (dst)
			publish(explode(1, PBN_NONE, 0, 0));
		cr_expect_eq(publish(share(flags, lbn(1, 0), 4, PBN_NONE, at(200), lbn(0, 0))), 0);
		expect_run(lbn(1, 0), 4, at(200), true);
		expect_run(lbn(0, 0), 4, at(200), true);
		/* A leaf has a flag for each block. */
		expect_run(lbn(0, 4), 6, at(204), !src);
		cr_expect(count_of(203) == 2 && count_of(204) == 1);
		cr_expect_eq(mapped_blocks(), 14);
		cr_expect_eq(volume->metadata->refs.shared_refs, 8);
		expect_sound((int)leaves);
		stop();
		start();
	}
}

Test(edit, a_share_gives_back_what_was_there)
{
	make_leaf(0);
	publish(map(0, lbn(0, 20), 4, PBN_NONE, at(300)));
	cr_expect_eq(publish(share(0, lbn(0, 20), 4, at(300), at(202), lbn(0, 2))), 4);
	expect_run(lbn(0, 20), 4, at(202), true);
	expect_run(lbn(0, 2), 4, at(202), true);
	expect_run(lbn(0, 0), 2, at(200), false);
	cr_expect(count_of(300) == 0 && busy_of(300) == 1 && count_of(202) == 2);
	cr_expect_eq(mapped_blocks(), 14);
	expect_sound(0);
}

/* The new references come first: the count does not pass through 0. */
Test(edit, a_share_of_what_is_the_same_block_already_frees_nothing)
{
	make_leaf(0);
	cr_expect_eq(publish(share(0, lbn(0, 2), 3, at(202), at(202), lbn(0, 2))), 0);
	cr_expect_eq(count_of(202), 1);
	expect_run(lbn(0, 2), 3, at(202), true);
	expect_sound(0);
}

/* Old and new overlap: blocks that move along are taken once and dropped once. */
Test(edit, a_share_with_a_shifted_run_counts_each_block_right)
{
	make_leaf(0);
	cr_expect_eq(publish(share(0, lbn(0, 3), 4, at(203), at(202), lbn(0, 2))), 1);
	cr_expect(count_of(202) == 2 && count_of(203) == 1 && count_of(206) == 0);
	expect_sound(0);
}

/* --- LSNs and the journal --- */

Test(edit, each_page_of_an_edit_gets_its_lsn_and_is_dirty)
{
	uint64_t first, lsn;

	first = publish_onto(place(0), NULL);
	cr_expect_eq(volume->metadata->map.tops[0].lsn, first);
	cr_expect(volume->metadata->map.tops[0].dirty);
	cr_expect_eq(refs_page(0)->lsn, first);
	lsn = publish_onto(explode(0, PBN_NONE, 0, 0), NULL);
	cr_expect_eq(lsn, first + 1);
	cr_expect_eq(volume->metadata->map.tops[0].lsn, lsn);
	cr_expect_eq(frame_of(0)->lsn, lsn);
	cr_expect_eq(refs_page(0)->lsn, first, "it was not changed");
	lsn = publish_onto(map(0, lbn(0, 7), 1, PBN_NONE, at(200)), NULL);
	cr_expect_eq(lsn, first + 2);
	cr_expect(frame_of(0)->lsn == lsn && frame_of(0)->dirty);
	cr_expect(refs_page(0)->lsn == lsn && refs_page(0)->dirty);
	cr_expect_eq(volume->metadata->map.tops[0].lsn, first + 1, "it was not changed");
}

/* Several edits under one reservation, none let go in between. */
Test(edit, a_batch_is_journaled_record_by_record_as_it_was_published)
{
	struct record batch[] = {place(0), place(1), map(ROOT, lbn(0, 0), 10, PBN_NONE, at(200)),
				 share(BOTH_ROOT, lbn(1, 0), 5, PBN_NONE, at(200), lbn(0, 0)),
				 explode(0, at(200), 10, RECORD_SHARED)};
	uint32_t n = sizeof(batch) / sizeof(batch[0]),
		 first = volume->metadata->journal.open.records;
	uint8_t wanted[BLOCK_BYTES];
	struct wait wait;

	for (uint32_t i = 0; i < n; i++)
		load_for(&batch[i]);
	wait_init(&wait, &engine.workers[0], woken);
	pthread_mutex_lock(&volume->metadata->lock);
	cr_assert(journal_reserve(&volume->metadata->journal, n, &wait));
	for (uint32_t i = 0; i < n; i++) {
		uint32_t offset = JOURNAL_HEADER_BYTES + (first + i) * JOURNAL_RECORD_BYTES;
		uint64_t next = journal_next_lsn(&volume->metadata->journal);

		if (batch[i].kind != RECORD_SHARE && batch[i].kind != RECORD_EXPLODE)
			refs_busy_add(&volume->metadata->refs, batch[i].new, batch[i].count);
		cr_expect_eq(edit_publish(volume->metadata, &batch[i], NULL), next);
		record_put(wanted, first + i, &batch[i]);
		cr_expect(memcmp(wanted + offset, volume->metadata->journal.open.blocks + offset,
				 JOURNAL_RECORD_BYTES) == 0);
	}
	journal_release(&volume->metadata->journal, 0, n);
	pthread_mutex_unlock(&volume->metadata->lock);
	cr_expect_eq(volume->metadata->journal.reserved_records, 0);
	expect_sound(0);
}

Test(edit, what_is_freed_is_added_up_or_not_asked_for)
{
	uint64_t freed = 100;

	make_leaf(0);
	publish_onto(unmap(0, lbn(0, 0), 3, at(200)), &freed);
	publish_onto(unmap(0, lbn(0, 3), 2, at(203)), &freed);
	cr_expect_eq(freed, 105);
	publish_onto(unmap(0, lbn(0, 5), 5, at(205)), NULL);
	cr_expect_eq(mapped_blocks(), 0);
}

Test(edit, the_counters_are_what_the_record_says)
{
	const struct {
		struct record record;
		int mapped;
		int places;
	} cases[] = {
		{place(0), 0, 1},
		{unplace(0), 0, -1},
		{explode(0, at(200), 10, 0), 0, 0},
		{map(0, lbn(0, 0), 7, PBN_NONE, at(200)), 7, 0},
		{map(0, lbn(0, 0), 7, at(300), at(200)), 0, 0},
		{unmap(0, lbn(0, 0), 7, at(300)), -7, 0},
		{share(0, lbn(0, 0), 7, PBN_NONE, at(200), lbn(1, 0)), 7, 0},
		{share(0, lbn(0, 0), 7, at(300), at(200), lbn(1, 0)), 0, 0},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct journal_counts counts = {100, 50};

		edit_count(&counts, &cases[i].record);
		cr_expect_eq(counts.mapped_blocks, 100u + (uint64_t)cases[i].mapped, "case %zu", i);
		cr_expect_eq(counts.places, 50u + (uint64_t)cases[i].places, "case %zu", i);
	}
}

/* --- page by page, and again --- */

Test(edit, applying_changes_one_page_alone)
{
	struct record record = map(0, lbn(0, 3), 2, at(203), at(300));
	uint64_t lsn;

	make_leaf(0);
	lsn = journal_next_lsn(&volume->metadata->journal);
	cr_expect_eq(edit_apply(volume->metadata, &record, lsn,
				(struct edit_page){false, page_of_leaf(0)}),
		     0);
	expect_run(lbn(0, 3), 2, at(300), false);
	cr_expect(count_of(203) == 1 && count_of(300) == 0);
	cr_expect_eq(frame_of(0)->lsn, lsn);
	cr_expect(refs_page(0)->lsn < lsn);
	cr_expect_eq(edit_apply(volume->metadata, &record, lsn,
				(struct edit_page){
					false, page_of_refs(&volume->metadata->super.geometry, 0)}),
		     2, "two blocks lost their last reference there");
	cr_expect(count_of(203) == 0 && count_of(300) == 1);
	cr_expect_eq(journal_next_lsn(&volume->metadata->journal), lsn, "nothing is journaled");
	expect_sound(0);
}

/* Every kind, on root pages and in leaves, within and between regions and slabs. */
#define SCRIPT 21u

static void write_script(struct record *script)
{
	pbn_t other = geometry_slab_pbn(&volume->metadata->super.geometry, 1, 3);
	const struct record all[SCRIPT] = {
		place(0),
		map(ROOT, lbn(0, 0), 10, PBN_NONE, at(200)),
		map(ROOT, lbn(0, 10), 5, PBN_NONE, at(210)),
		place(1),
		share(BOTH_ROOT, lbn(1, 0), 4, PBN_NONE, at(200), lbn(0, 0)),
		explode(0, at(200), 15, RECORD_SHARED),
		unmap(ROOT, lbn(1, 2), 2, at(202)),
		map(0, lbn(0, 100), 8, PBN_NONE, at(300)),
		map(0, lbn(0, 3), 2, at(203), at(310)),
		place(2),
		share(ROOT, lbn(2, 0), 8, PBN_NONE, at(300), lbn(0, 100)),
		explode(1, at(200), 2, RECORD_SHARED),
		share(0, lbn(1, 50), 4, PBN_NONE, at(302), lbn(0, 102)),
		share(0, lbn(0, 5), 2, at(205), at(208), lbn(0, 8)),
		share(SRC_ROOT, lbn(1, 60), 2, PBN_NONE, at(306), lbn(2, 6)),
		map(0, lbn(0, 100), 2, at(300), other),
		unmap(0, lbn(1, 0), 2, at(200)),
		unmap(0, lbn(1, 50), 4, at(302)),
		unmap(0, lbn(1, 60), 2, at(306)),
		unplace(1),
		unmap(ROOT, lbn(2, 0), 8, at(300)),
	};

	memcpy(script, all, sizeof(all));
}

/* Commits, is killed, and is what it was when it is open again. */
static void expect_replay(int record)
{
	static struct state published, replayed;

	cr_assert_eq(engine_flush(&engine), 0);
	expect_sound(record);
	take_state(&published);
	engine_kill(&engine);
	cr_assert_eq(engine_open(&engine), 0, "%s", engine.damage.text);
	volume = engine.volume;
	take_state(&replayed);
	expect_same_state(&published, &replayed, record);
}

/* I20. The log begins with the record: everything before has been at home. */
Test(edit, a_replayed_record_does_what_the_published_one_did)
{
	struct record script[SCRIPT];

	write_script(script);
	for (uint32_t i = 0; i < SCRIPT; i++) {
		publish(script[i]);
		expect_replay((int)i);
	}
}

Test(edit, a_replayed_log_does_what_its_records_did)
{
	struct record script[SCRIPT];

	write_script(script);
	for (uint32_t i = 0; i < SCRIPT; i++)
		publish(script[i]);
	expect_replay(SCRIPT);
}

/* Pages went home at different times: replay reaches some of them with part of the records. */
Test(edit, records_are_replayed_onto_the_pages_that_are_older)
{
	struct record script[SCRIPT];

	for (uint32_t home = 1; home < SCRIPT; home += 3) {
		write_script(script);
		for (uint32_t i = 0; i < SCRIPT; i++) {
			publish(script[i]);
			if (i == home)
				engine_checkpoint(&engine);
		}
		expect_replay((int)home);
		stop();
		start();
	}
}

/* What a record does to a page depends on the two alone. */
Test(edit, the_order_of_the_pages_does_not_matter)
{
	static struct state forwards, backwards;
	struct edit_page pages[EDIT_PAGES_MAX];
	struct record script[SCRIPT];

	write_script(script);
	for (uint32_t i = 0; i < SCRIPT; i++)
		publish(script[i]);
	take_state(&forwards);
	stop();
	start();
	write_script(script);
	for (uint32_t i = 0; i < SCRIPT; i++) {
		load_for(&script[i]);
		for (uint32_t n = edit_pages(volume->metadata, &script[i], pages); n > 0; n--)
			edit_apply(volume->metadata, &script[i], 1000 + i, pages[n - 1]);
		edit_count(&volume->metadata->journal.counts, &script[i]);
	}
	take_state(&backwards);
	expect_same_state(&forwards, &backwards, SCRIPT);
}
