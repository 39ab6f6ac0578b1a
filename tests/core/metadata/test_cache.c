/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_cache - what is loaded is verified, what is dirty stays, and frames have a bound
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "tests/core/metadata/pages.h"

TestSuite(cache, .init = pages_start, .fini = pages_stop);

/* --- loading --- */

Test(cache, a_leaf_that_was_never_written_is_made_without_io)
{
	pages_make(4);
	cr_assert(cache_find(&pages.cache, 3) == NULL);
	pages_ask(3, &pages.waiters[0]);
	cr_expect_eq(pages_answer(&pages.waiters[0]), 0);
	for (uint32_t i = 0; i < REGION_BLOCKS; i++)
		cr_assert_eq(pages_frame(3)->words[i], 0);
	cr_expect_eq(pages_frame(3)->page, 3);
	cr_expect_eq(pages_frame(3)->lsn, 0);
	cr_expect_eq(pages_frame(3)->mapped, 0);
	cr_expect_not(pages_frame(3)->dirty);
	cr_expect_null(pages_frame(3)->busy_counts);
	cr_expect_eq(store_mem_ops(&pages.mem, STORE_READ) + store_mem_ops(&pages.mem, STORE_WRITE),
		     0);
}

Test(cache, a_new_refs_page_is_there_after_both_its_slots_are_written_with_zeros)
{
	page_t page = page_of_refs(pages.geometry, 1);
	uint8_t slots[2 * BLOCK_BYTES], zeros[2 * BLOCK_BYTES] = {0};
	const struct store_io *io;

	pages_make(4);
	pages_ask(page, &pages.waiters[0]);
	cr_assert_eq(store_mem_in_flight(&pages.mem, 0), 1);
	io = store_mem_get(&pages.mem, 0, 0);
	cr_expect_eq(io->op, STORE_WRITE);
	cr_expect_eq(io->off_bytes, blocks_to_bytes(geometry_refs_block(pages.geometry, 1, 0)));
	cr_expect_eq(io->len_bytes, blocks_to_bytes(2));
	cr_expect_eq(pages_answer(&pages.waiters[0]), -EAGAIN);
	cr_expect(cache_is_loading(&pages.cache) && !pages_resident(page));
	pages_settle();
	cr_expect_eq(pages_answer(&pages.waiters[0]), 0);
	cr_expect(!cache_is_loading(&pages.cache));
	store_mem_peek(&pages.mem, blocks_to_bytes(geometry_refs_block(pages.geometry, 1, 0)),
		       slots, sizeof(slots));
	cr_expect(memcmp(slots, zeros, sizeof(slots)) == 0);
	for (uint32_t i = 0; i < SLAB_DATA_BLOCKS; i++) {
		cr_assert_eq(pages_frame(page)->counts[i], 0);
		cr_assert_eq(pages_frame(page)->busy_counts[i], 0);
	}
}

Test(cache, replay_makes_a_new_refs_page_without_writing)
{
	pages_make(4);
	pages.cache.zero_new_refs = false;
	pages_ask(page_of_refs(pages.geometry, 1), &pages.waiters[0]);
	cr_expect_eq(pages_answer(&pages.waiters[0]), 0);
	cr_expect(pages_resident(page_of_refs(pages.geometry, 1)));
	cr_expect_eq(store_mem_ops(&pages.mem, STORE_WRITE), 0);
}

Test(cache, a_slab_whose_zeros_find_no_space_is_not_opened)
{
	page_t page = page_of_refs(pages.geometry, 0);

	pages_make(4);
	pages.fail_writes = -ENOSPC;
	cr_expect_eq(pages_load(page), -ENOSPC);
	pages.fail_writes = -EROFS;
	cr_expect_eq(pages_load(page), -EIO);
	cr_expect(!pages_resident(page) && !cache_is_loading(&pages.cache));
	pages.fail_writes = 0;
	cr_expect_eq(pages_load(page), 0, "a failure does not stick");
}

Test(cache, a_leaf_is_read_from_its_home_and_decoded)
{
	pages_put_leaf(5, 3, 77, 40);
	pages_put_leaf(5, 4, 99, 50); /* in the other slot, and not at home there */
	pages_put_leaf(5, 3, 77, 40);
	pages_make(4);
	cr_assert_eq(pages_load(5), 0);
	for (uint32_t i = 0; i < REGION_BLOCKS; i++)
		cr_assert_eq(pages_frame(5)->words[i], i < 40 ? pages_leaf_entry(5, i) : 0);
	cr_expect_eq(pages_frame(5)->lsn, 77);
	cr_expect_eq(pages_frame(5)->mapped, 40);
	cr_expect_not(pages_frame(5)->dirty);
	cr_expect_eq(pages.cache.reads, 1);
}

Test(cache, a_refs_page_is_read_from_its_home_and_decoded)
{
	page_t page = page_of_refs(pages.geometry, 2);

	pages_put_refs(2, 6, 88);
	pages_make(4);
	cr_assert_eq(pages_load(page), 0);
	for (uint32_t i = 0; i < SLAB_DATA_BLOCKS; i++) {
		cr_assert_eq(pages_frame(page)->counts[i], pages_count(2, i));
		cr_assert_eq(pages_frame(page)->busy_counts[i], 0);
	}
	cr_expect_eq(pages_frame(page)->lsn, 88);
	cr_expect_eq(pages_frame(page)->busy, 0);
	cr_expect_eq(store_mem_ops(&pages.mem, STORE_WRITE), 0);
}

Test(cache, all_who_want_one_page_share_one_read)
{
	pages_put_leaves(1);
	pages_make(4);
	for (int i = 0; i < 3; i++)
		pages_ask(0, &pages.waiters[i]);
	cr_expect(cache_is_loading(&pages.cache));
	cr_expect_eq(store_mem_ops(&pages.mem, STORE_READ), 1);
	pages_settle();
	for (int i = 0; i < 3; i++)
		cr_expect_eq(pages_answer(&pages.waiters[i]), 0);
	cr_expect_eq(pages.cache.reads, 1);
	cr_expect_not(cache_is_loading(&pages.cache));
}

Test(cache, loading_what_is_there_is_a_bug, .signal = SIGABRT)
{
	pages_make(4);
	pages_load(0);
	pages_load(0);
}

Test(cache, a_failed_read_is_eio_for_all_who_wait_and_no_damage)
{
	pages_put_leaves(1);
	pages_make(4);
	pages.fail_reads = -ENOSPC;
	pages_ask(0, &pages.waiters[0]);
	pages_ask(0, &pages.waiters[1]);
	pages_settle();
	cr_expect_eq(pages_answer(&pages.waiters[0]), -EIO);
	cr_expect_eq(pages_answer(&pages.waiters[1]), -EIO);
	cr_expect_eq(pages.damages, 0);
	cr_expect(!pages_resident(0) && !cache_is_loading(&pages.cache));
	pages.fail_reads = 0;
	cr_expect_eq(pages_load(0), 0);
}

/* More loads than there are slots: the others look again once one is free. */
Test(cache, who_finds_no_load_slot_tries_again)
{
	unsigned loaded = 0, again = 0;

	pages_put_leaves(CACHE_LOADS + 4);
	pages_make(CACHE_LOADS + 4);
	for (unsigned i = 0; i < CACHE_LOADS + 4; i++)
		pages_ask(i, &pages.waiters[i]);
	cr_expect_eq(store_mem_in_flight(&pages.mem, 0), CACHE_LOADS);
	while (loaded < CACHE_LOADS + 4) {
		cr_assert(store_mem_deliver(&pages.mem, 0));
		cr_assert(store_mem_in_flight(&pages.mem, 0) <= CACHE_LOADS);
		loaded = 0;
		for (unsigned i = 0; i < CACHE_LOADS + 4; i++) {
			if (pages_answer(&pages.waiters[i]) == 0 && !pages_resident(i)) {
				again++;
				pages_ask(i, &pages.waiters[i]);
			}
			loaded += pages_resident(i);
		}
	}
	cr_expect(again >= 4);
	cr_expect_eq(pages.shorts, 0);
}

/* --- what is not believed --- */

enum lie {
	TRUTH,
	FLIPPED_BIT,
	OTHER_GENERATION,
	OTHER_NUMBER,
	OTHER_KIND,
	OTHER_VOLUME,
	LATER_LSN,
	NO_DATA_BLOCK,
	BEYOND_THE_STORE,
	BEYOND_THE_VOLUME,
	UNKNOWN_BIT,
	LIES,
};

/* The last region's leaf, generation 2, LSN 999. */
static void put_lie(enum lie lie)
{
	uint32_t region = PAGES_REGIONS - 1;
	uint8_t page[BLOCK_BYTES] = {0};
	uint8_t *entry = page + PAGE_HEADER_BYTES + 10 * 6;
	struct page_header header = {
		.kind = lie == OTHER_KIND ? PAGE_REFS : PAGE_LEAF,
		.number = lie == OTHER_NUMBER ? region - 1 : region,
		.generation = lie == OTHER_GENERATION ? 4 : 2,
		.lsn = lie == LATER_LSN ? 1000 : 999,
	};

	leaf_page_put(page, PAGES_LAST_BLOCKS - 1, pages_leaf_entry(0, 0));
	if (lie == NO_DATA_BLOCK)
		leaf_page_put(page, 10, geometry_refs_block(pages.geometry, 1, 0));
	if (lie == BEYOND_THE_STORE)
		leaf_page_put(page, 10, pages.geometry->store_blocks);
	if (lie == BEYOND_THE_VOLUME)
		leaf_page_put(page, PAGES_LAST_BLOCKS, pages_leaf_entry(0, 0));
	if (lie == UNKNOWN_BIT) {
		leaf_page_put(page, 10, pages_leaf_entry(0, 0));
		entry[5] |= 2;
	}
	page_seal(page, &header,
		  lie == OTHER_VOLUME ? (const uint8_t *)"another volume.." : pages.super.uuid);
	if (lie == FLIPPED_BIT)
		page[3000] ^= 1;
	store_mem_poke(&pages.mem, blocks_to_bytes(pages_place(region)), page, BLOCK_BYTES);
	pages.homes[region] = (struct cache_home){{pages_place(region)}, 2, false};
}

Test(cache, a_leaf_that_cannot_be_true_is_damage_and_said_where)
{
	char where[64];

	snprintf(where, sizeof(where), "region %u at block %" PRIu64, PAGES_REGIONS - 1,
		 pages_place(PAGES_REGIONS - 1));
	pages_make(4);
	for (enum lie lie = TRUTH + 1; lie < LIES; lie++) {
		put_lie(lie);
		cr_expect_eq(pages_load(PAGES_REGIONS - 1), -EUCLEAN, "lie %d", lie);
		cr_expect_eq(pages.damages, lie, "lie %d", lie);
		cr_expect(strstr(pages.damage, where) != NULL, "%s", pages.damage);
		cr_expect(!pages_resident(PAGES_REGIONS - 1));
	}
	put_lie(TRUTH);
	cr_expect_eq(pages_load(PAGES_REGIONS - 1), 0, "%s", pages.damage);
	cr_expect_eq(pages.damages, LIES - 1);
}

Test(cache, a_refs_page_that_cannot_be_true_is_damage)
{
	page_t page = page_of_refs(pages.geometry, 1);

	pages_make(4);
	pages_put_refs(1, 2, 1000);
	cr_expect_eq(pages_load(page), -EUCLEAN, "its LSN is the next edit's");
	pages_put_refs(1, 2, 5);
	pages.homes[page].generation = 4;
	cr_expect_eq(pages_load(page), -EUCLEAN);
	cr_expect(strstr(pages.damage, "slab 1") != NULL, "%s", pages.damage);
	pages.homes[page].generation = 2;
	cr_expect_eq(pages_load(page), 0);
}

/* The next edit is then the one after the whole log. */
Test(cache, replay_believes_no_later_lsns_either)
{
	pages_make(4);
	pages.cache.zero_new_refs = false;
	put_lie(LATER_LSN);
	cr_expect_eq(pages_load(PAGES_REGIONS - 1), -EUCLEAN);
	pages.lsn_limit = 1001;
	cr_expect_eq(pages_load(PAGES_REGIONS - 1), 0, "%s", pages.damage);
}

/* --- frames --- */

Test(cache, pages_in_memory_are_never_more_than_frames)
{
	pages_put_leaves(50);
	pages_make(8);
	for (uint32_t i = 0; i < 200; i++) {
		page_t page = i * 7 % 50;

		if (!pages_resident(page))
			cr_assert_eq(pages_load(page), 0);
		cr_assert(pages_resident(page));
		cr_assert_eq(pages_frame(page)->words[0], pages_leaf_entry(page, 0));
		cr_assert(pages_residents() <= 8);
	}
	cr_expect_eq(pages_residents(), 8);
	cr_expect_eq(pages.shorts, 0, "clean pages can always go");
	cr_expect_eq(store_mem_ops(&pages.mem, STORE_WRITE), 0);
}

/* Leaves, refs pages and new pages in turn, so that busy tables come and go as well. */
Test(cache, a_frame_is_empty_when_it_changes_hands)
{
	pages_put_leaves(10);
	pages_put_refs(0, 1, 5);
	pages_make(2);
	for (uint32_t i = 0; i < 60; i++) {
		page_t turns[] = {i % 10, page_of_refs(pages.geometry, 0), 20 + i,
				  page_of_refs(pages.geometry, 1)};
		page_t page = turns[i % 4];

		if (!pages_resident(page))
			cr_assert_eq(pages_load(page), 0);
		cr_assert_eq((pages_frame(page)->busy_counts == NULL),
			     page_is_leaf(pages.geometry, page));
		cr_assert(pages.cache.busy_table_count <= 2);
		cr_assert_eq(pages_frame(page)->busy, 0);
		if (i % 4 == 2)
			cr_assert_eq(pages_frame(page)->words[0] + pages_frame(page)->mapped, 0);
		if (i % 4 == 3)
			cr_assert_eq(pages_frame(page)->counts[0] + pages_frame(page)->lsn, 0);
	}
	pages_load(90);
	pages_load(91);
	cr_expect(pages_resident(90) && pages_resident(91));
	cr_expect(pages.cache.busy_table_count > 0, "the tables were not kept for the next");
}

Test(cache, a_page_in_use_outlives_one_that_is_not)
{
	pages_put_leaves(10);
	pages_make(4);
	for (page_t page = 0; page < 4; page++)
		pages_load(page);
	pages_load(4); /* the hand went round once: nothing counts as used but this */
	for (page_t page = 5; page < 10; page++) {
		cr_assert(pages_resident(2));
		cache_find(&pages.cache, 2);
		cr_assert_eq(pages_load(page), 0);
	}
	cr_expect(pages_resident(2));
}

Test(cache, dirty_pages_stay_whatever_is_loaded)
{
	pages_put_leaves(30);
	pages_make(4);
	for (page_t page = 0; page < 3; page++) {
		cr_assert_eq(pages_load(page), 0);
		atomic_store(&pages_frame(page)->words[9], 0x1234 + page);
		pages_dirty(page, 100 + page);
	}
	for (page_t page = 3; page < 30; page++)
		cr_assert_eq(pages_load(page), 0);
	for (page_t page = 0; page < 3; page++)
		cr_expect_eq(pages_frame(page)->words[9], 0x1234 + page);
	cr_expect_eq(store_mem_ops(&pages.mem, STORE_WRITE), 0, "only a checkpoint writes");
}

/* Both ways in: a page that is read, and one that is made in memory. */
Test(cache, a_cache_full_of_dirty_pages_waits_for_a_checkpoint)
{
	pages_put_leaves(3);
	pages_make(2);
	for (page_t page = 0; page < 2; page++) {
		pages_load(page);
		pages_dirty(page, 100 + page);
	}
	pages_ask(2, &pages.waiters[0]);
	pages_ask(50, &pages.waiters[1]);
	cr_assert_eq(pages_answer(&pages.waiters[0]), -EAGAIN);
	cr_assert_eq(pages_answer(&pages.waiters[1]), -EAGAIN);
	pages_settle();
	cr_assert_eq(pages_answer(&pages.waiters[0]), -EAGAIN);
	cr_expect(pages.shorts >= 2);
	cr_expect_not(cache_is_loading(&pages.cache), "who waits holds nothing");
	pages_bring_home(0);
	cr_expect_eq(pages_answer(&pages.waiters[0]), 0);
	cr_expect_eq(pages_answer(&pages.waiters[1]), 0);
	cr_expect(!pages_resident(2) && !pages_resident(50), "both look again");
	cr_expect_eq(pages_load(2), 0);
	cr_expect(!pages_resident(0) && pages_resident(1));
	cr_expect_eq(pages_load(50), 0);
	cr_expect(pages_resident(1) && !pages_resident(2));
	cr_expect_eq(store_mem_ops(&pages.mem, STORE_WRITE), 0);
}

Test(cache, a_page_whose_copy_is_going_home_stays)
{
	pages_put_leaves(2);
	pages_make(1);
	pages_load(0);
	pages_dirty(0, 100);
	cache_copied(&pages.cache, pages_frame(0));
	pages_ask(1, &pages.waiters[0]);
	pages_settle();
	cr_expect_eq(pages_answer(&pages.waiters[0]), -EAGAIN);
	cr_expect(pages_resident(0));
	cache_home_written(&pages.cache, pages_frame(0));
	pages_wake();
	cr_expect_eq(pages_answer(&pages.waiters[0]), 0);
	cr_expect_eq(pages_load(1), 0);
	cr_expect(!pages_resident(0));
}

Test(cache, a_refs_page_with_busy_blocks_stays)
{
	page_t page = page_of_refs(pages.geometry, 0);

	pages_put_leaves(2);
	pages_put_refs(0, 1, 5);
	pages_make(1);
	pages_load(page);
	pages_frame(page)->busy = 1;
	pages_frame(page)->busy_counts[7] = 1;
	pages_ask(1, &pages.waiters[0]);
	pages_settle();
	cr_expect_eq(pages_answer(&pages.waiters[0]), -EAGAIN);
	cr_expect(pages_resident(page));
	pages_frame(page)->busy = 0;
	pages_frame(page)->busy_counts[7] = 0;
	pages_wake();
	cr_expect_eq(pages_load(1), 0);
	cr_expect(!pages_resident(page));
}

/* Whoever holds the region's lock may be reading the leaf's words. */
Test(cache, a_leaf_whose_region_is_locked_stays)
{
	pages_put_leaves(2);
	pages_make(1);
	pages_load(0);
	pages.held[0] = 1;
	pages_ask(1, &pages.waiters[0]);
	pages_settle();
	cr_expect_eq(pages_answer(&pages.waiters[0]), -EAGAIN);
	cr_expect(pages_resident(0));
	pages.held[0] = 0;
	pages_wake();
	cr_expect_eq(pages_load(1), 0);
	cr_expect(!pages_resident(0));
}

Test(cache, a_leaf_makes_room_for_another_under_the_same_lock)
{
	pages_put_leaves(PAGES_STRIPES + 1);
	pages_make(1);
	pages_load(0);
	cr_expect_eq(pages_load(PAGES_STRIPES), 0);
	cr_expect(pages_resident(PAGES_STRIPES) && !pages_resident(0));
}

/* Pages that are needed together would push each other out for ever. */
Test(cache, cleaning_is_asked_for_before_all_frames_are_dirty)
{
	pages_put_leaves(8);
	pages_make(8);
	for (page_t page = 0; page < 4; page++) {
		pages_load(page);
		pages_dirty(page, 100 + page);
	}
	pages_load(4);
	cr_expect_eq(pages.shorts, 0);
	pages_dirty(4, 104);
	pages_load(5);
	cr_expect_eq(pages.shorts, 1);
}

/* A page that was never written takes a frame without any I/O: then it is a loop of tasks alone. */
Test(cache, the_last_frames_are_left_alone_while_a_checkpoint_is_under_way)
{
	pages_make(8);
	for (page_t page = 0; page < 7; page++) {
		pages_load(page);
		pages_dirty(page, 100 + page);
	}
	cr_assert_eq(pages.shorts, 2);
	cr_expect_eq(pages_load(7), 0, "none is under way");
	pages.checkpoint_comes = true;
	pages_ask(8, &pages.waiters[0]);
	cr_assert_eq(pages_answer(&pages.waiters[0]), -EAGAIN);
	pages_bring_home(0);
	cr_expect_eq(pages_answer(&pages.waiters[0]), 0);
	cr_expect(pages_resident(7), "and is not pushed out");
}

/* --- dirty --- */

Test(cache, the_oldest_dirty_frame_is_the_one_that_was_changed_first)
{
	pages_make(4);
	cr_expect_null(cache_oldest_dirty(&pages.cache));
	for (page_t page = 0; page < 3; page++)
		pages_load(page);
	pages_dirty(1, 10);
	pages_dirty(2, 11);
	pages_dirty(0, 12);
	pages_dirty(1, 13); /* changed again: as old as before */
	cr_expect_eq(cache_oldest_dirty(&pages.cache), pages_frame(1));
	cr_expect_eq(pages_frame(1)->first_lsn, 10);
	cr_expect_eq(pages_frame(1)->lsn, 13);
	cr_expect_eq(pages.cache.dirty_count, 3);
	pages_bring_home(1);
	cr_expect_eq(cache_oldest_dirty(&pages.cache), pages_frame(2));
	pages_bring_home(2);
	pages_bring_home(0);
	cr_expect_null(cache_oldest_dirty(&pages.cache));
	cr_expect_eq(pages.cache.dirty_count, 0);
}

Test(cache, an_edit_while_the_copy_is_going_home_makes_the_page_dirty_again)
{
	pages_put_leaves(2);
	pages_make(1);
	pages_load(0);
	pages_dirty(0, 100);
	cache_copied(&pages.cache, pages_frame(0));
	cr_expect_not(pages_frame(0)->dirty);
	pages_dirty(0, 101);
	cr_expect_eq(pages_frame(0)->first_lsn, 101);
	cache_home_written(&pages.cache, pages_frame(0));
	cr_expect(pages_frame(0)->dirty);
	cr_expect_eq(cache_oldest_dirty(&pages.cache), pages_frame(0));
	pages_ask(1, &pages.waiters[0]);
	pages_settle();
	cr_expect_eq(pages_answer(&pages.waiters[0]), -EAGAIN);
	cr_expect(pages_resident(0));
}

Test(cache, an_edit_that_is_older_than_the_page_is_a_bug, .signal = SIGABRT)
{
	pages_put_leaf(0, 1, 77, 1);
	pages_make(1);
	pages_load(0);
	pages_dirty(0, 77);
}

Test(cache, copying_a_clean_page_is_a_bug, .signal = SIGABRT)
{
	pages_make(1);
	pages_load(0);
	cache_copied(&pages.cache, pages_frame(0));
}

Test(cache, a_page_goes_home_once_at_a_time, .signal = SIGABRT)
{
	pages_make(1);
	pages_load(0);
	pages_dirty(0, 1);
	cache_copied(&pages.cache, pages_frame(0));
	pages_dirty(0, 2);
	cache_copied(&pages.cache, pages_frame(0));
}

/* --- forgetting --- */

Test(cache, a_forgotten_leaf_is_absent_and_not_dirty_any_more)
{
	pages_make(2);
	cache_forget(&pages.cache, 0); /* absent already */
	pages_load(0);
	pages_load(1);
	pages_dirty(0, 10);
	pages_dirty(1, 11);
	cache_forget(&pages.cache, 0);
	cr_expect_not(pages_resident(0));
	cr_expect_eq(pages.cache.dirty_count, 1);
	cr_expect_eq(cache_oldest_dirty(&pages.cache), pages_frame(1));
	cr_expect_eq(pages_load(2), 0, "its frame can be used");
	cr_expect_eq(pages_load(2 + PAGES_STRIPES * 2), 0);
}

/* The store still reads from the copy's owner: the frame must not become another page. */
Test(cache, the_frame_of_a_forgotten_leaf_stays_unused_while_its_copy_is_going_home)
{
	struct frame *frame;

	pages_make(1);
	pages_load(0);
	frame = pages_frame(0);
	pages_dirty(0, 10);
	cache_copied(&pages.cache, frame);
	cache_forget(&pages.cache, 0);
	cr_expect(!pages_resident(0) && frame->page == PAGE_NONE);
	pages_ask(1, &pages.waiters[0]);
	pages_settle();
	cr_expect_eq(pages_answer(&pages.waiters[0]), -EAGAIN);
	cache_home_written(&pages.cache, frame);
	pages_wake();
	cr_expect_eq(pages_load(1), 0);
	cr_expect_eq(frame->page, 1);
}

/* --- going home --- */

Test(cache, an_encoded_page_is_what_is_loaded_again)
{
	page_t refs = page_of_refs(pages.geometry, 1);
	uint8_t out[BLOCK_BYTES];

	pages_put_leaf(7, 1, 10, 512);
	pages_put_refs(1, 1, 10);
	pages_make(4);
	pages_load(7);
	pages_load(refs);
	atomic_store(&pages_frame(7)->words[3],
		     leaf_word(geometry_slab_pbn(pages.geometry, 1, 1), true));
	pages_frame(refs)->counts[3] = 65535;
	pages_dirty(7, 20);
	pages_dirty(refs, 21);
	memset(out, 0xff, sizeof(out));
	cache_encode(&pages.cache, pages_frame(7), 2, out);
	store_mem_poke(&pages.mem, blocks_to_bytes(pages_place(7)), out, BLOCK_BYTES);
	pages.homes[7] = (struct cache_home){{pages_place(7)}, 2, false};
	memset(out, 0xff, sizeof(out));
	cache_encode(&pages.cache, pages_frame(refs), 2, out);
	pages.homes[refs] =
		(struct cache_home){{geometry_refs_block(pages.geometry, 1, 2)}, 2, false};
	store_mem_poke(&pages.mem, blocks_to_bytes(pages.homes[refs].block.v), out, BLOCK_BYTES);
	cache_done(&pages.cache);
	pages_make(4);
	cr_assert_eq(pages_load(7), 0, "%s", pages.damage);
	cr_assert_eq(pages_load(refs), 0, "%s", pages.damage);
	for (uint32_t i = 0; i < REGION_BLOCKS; i++)
		cr_assert_eq(pages_frame(7)->words[i],
			     i == 3 ? leaf_word(geometry_slab_pbn(pages.geometry, 1, 1), true)
				    : pages_leaf_entry(7, i));
	for (uint32_t i = 0; i < SLAB_DATA_BLOCKS; i++)
		cr_assert_eq(pages_frame(refs)->counts[i], i == 3 ? 65535 : pages_count(1, i));
	cr_expect_eq(pages_frame(7)->lsn, 20);
	cr_expect_eq(pages_frame(refs)->lsn, 21);
}

/* --- dying --- */

Test(cache, nobody_waits_for_a_frame_of_a_dead_cache)
{
	pages_put_leaves(3);
	pages_make(1);
	pages_load(0);
	pages_dirty(0, 100);
	pages_ask(1, &pages.waiters[0]);
	pages_settle();
	pages_ask(2, &pages.waiters[1]); /* its read is in flight */
	cr_assert_eq(pages_answer(&pages.waiters[0]), -EAGAIN);
	pthread_mutex_lock(&pages.lock);
	cache_kill(&pages.cache, -EROFS);
	pthread_mutex_unlock(&pages.lock);
	cr_expect_eq(pages_answer(&pages.waiters[0]), -EROFS);
	pages_settle();
	cr_expect_eq(pages_answer(&pages.waiters[1]), -EIO);
	cr_expect_eq(pages_load(50), -EIO);
	cr_expect_not(cache_is_loading(&pages.cache));
}

/* Reads go on when a volume is latched, and nothing is written. */
Test(cache, a_dead_cache_still_reads_and_never_writes)
{
	pages_put_leaves(3);
	pages_put_refs(0, 1, 5);
	pages_make(2);
	cache_kill(&pages.cache, -EIO);
	for (page_t page = 0; page < 3; page++)
		cr_expect_eq(pages_load(page), 0);
	cr_expect_eq(pages_load(page_of_refs(pages.geometry, 0)), 0);
	cr_expect_eq(pages_load(page_of_refs(pages.geometry, 1)), -EIO);
	cr_expect_eq(store_mem_ops(&pages.mem, STORE_WRITE), 0);
}
