/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_piece - a run is found at a bounded price, whatever the store's size and however its free
 * space lies
 *
 * The arithmetic of pieces and sets of slabs is compared with looking at everything; what a first
 * write costs is counted in pages that it has to read.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "core/volume/volume_internal.h"
#include "tests/core/metadata/space.h"
#include "tests/lib/engine.h"
#include "tests/lib/rng.h"

/* A page of counts for the window, one for a leaf's place, one for the block that a write replaces
 * and the leaf. */
#define READS_MAX 4u
/* Where a leaf's place is wanted on a store that tells nothing: so many more are looked at, and a
 * place of two single blocks is of two pages. */
#define PLACE_READS_MAX (READS_MAX + 4 + 2)

static bool has_piece(const bool *is_free, uint32_t blocks, uint32_t piece)
{
	for (uint32_t i = 0; i + piece_blocks(piece) <= blocks; i += piece_step(piece)) {
		uint32_t n = 0;

		while (n < piece_blocks(piece) && is_free[i + n])
			n++;
		if (n == piece_blocks(piece))
			return true;
	}
	return false;
}

Test(piece, a_run_has_the_pieces_that_looking_finds)
{
	bool is_free[700];

	for (uint32_t begin = 0; begin < 70; begin++) {
		for (uint32_t end = begin + 1; end < 700; end += 1 + end / 40) {
			uint32_t piece = piece_in(begin, end);

			for (uint32_t i = 0; i < 700; i++)
				is_free[i] = i >= begin && i < end;
			cr_assert(has_piece(is_free, 700, piece), "%u to %u", begin, end);
			cr_assert(piece == PIECE_MAX || !has_piece(is_free, 700, piece + 1));
		}
	}
}

/* The worst that can be: what is taken cuts what is free into runs as even as can be. */
Test(piece, so_many_free_blocks_have_at_least_that_piece_wherever_they_lie)
{
	bool is_free[SLAB_DATA_BLOCKS];

	for (uint32_t every = 1; every < 400; every++) {
		for (uint32_t at = 0; at < every; at += 1 + every / 7) {
			uint32_t free_blocks = 0, piece;

			for (uint32_t i = 0; i < SLAB_DATA_BLOCKS; i++) {
				is_free[i] = i % every != at;
				free_blocks += is_free[i];
			}
			piece = piece_at_least(SLAB_DATA_BLOCKS, free_blocks);
			cr_assert(piece == 0 || has_piece(is_free, SLAB_DATA_BLOCKS, piece));
			cr_assert(piece > 0 || free_blocks == 0);
		}
	}
	cr_assert_eq(piece_at_least(SLAB_DATA_BLOCKS, SLAB_DATA_BLOCKS), PIECE_MAX);
}

Test(piece, a_set_tells_the_next_one_as_looking_does)
{
	static const uint32_t sizes[] = {1, 63, 64, 65, 4096, 4097, 300000};

	for (unsigned n = 0; n < sizeof(sizes) / sizeof(sizes[0]); n++) {
		bool *in = calloc(sizes[n], sizeof(bool));
		struct slabset set;
		struct rng rng = rng_for(n, 0);

		cr_assert_eq(slabset_init(&set, sizes[n]), 0);
		for (uint32_t i = 0; i < 2000; i++) {
			uint32_t slab = (uint32_t)rng_below(&rng, sizes[n]), from = slab;
			uint32_t around = (uint32_t)rng_below(&rng, 200);

			in[slab] = i % 3 > 0;
			if (in[slab])
				slabset_add(&set, slab);
			else
				slabset_remove(&set, slab);
			from -= min_u32(from, around);
			while (from < sizes[n] && !in[from])
				from++;
			cr_assert_eq(slabset_next(&set, slab - min_u32(slab, around)),
				     from < sizes[n] ? from : SLABSET_NONE);
		}
		for (uint32_t i = 0; i < sizes[n]; i++)
			slabset_remove(&set, i);
		cr_assert_eq(slabset_next(&set, 0), SLABSET_NONE);
		slabset_done(&set);
		free(in);
	}
}

static uint32_t looked_at(const struct space *space, uint32_t slab)
{
	uint32_t blocks = geometry_slab_blocks(space->geometry, slab), piece = 0;
	const struct frame *frame =
		refs_frame((struct refs *)&space->refs, space_block(space, slab, 0));
	bool is_free[SLAB_DATA_BLOCKS];

	for (uint32_t i = 0; i < blocks; i++)
		is_free[i] = frame->counts[i] == 0 && frame->busy_counts[i] == 0;
	while (piece < PIECE_MAX && has_piece(is_free, blocks, piece + 1))
		piece++;
	return piece;
}

/* Goal: never too low, or space would stay unused; exact again when it was measured. */
Test(piece, whatever_happens_to_a_slab_its_piece_is_never_too_small)
{
	struct space space;
	struct rng rng = rng_for(1, 0);
	uint16_t busy[SLAB_DATA_BLOCKS] = {0};

	space_init(&space, 2, 300);
	space_load_all(&space);
	for (uint32_t n = 0; n < 20000; n++) {
		uint32_t slab = n / 10000, blocks = slab ? 300 : SLAB_DATA_BLOCKS;
		uint32_t first = (uint32_t)rng_below(&rng, blocks), piece;
		uint32_t len = 1 + (uint32_t)rng_below(&rng, min_u32(blocks - first, 60));
		bool add = rng_below(&rng, 100) < (n / 500 % 2 ? 70 : 30), any = false;

		if (n == 10000)
			memset(busy, 0, sizeof(busy));
		for (uint32_t i = first; i < first + len; i++) {
			any = any || (busy[i] > 0) == add;
			busy[i] = add;
		}
		if (any) { /* block by block */
			for (uint32_t i = first; i < first + len; i++) {
				pbn_t block = space_block(&space, slab, i);
				bool is = refs_busy_count(&space.refs, block) > 0;

				if (add && !is)
					refs_busy_add(&space.refs, block, 1);
				else if (!add && is)
					refs_busy_sub(&space.refs, block, 1);
			}
		} else if (add) {
			refs_busy_add(&space.refs, space_block(&space, slab, first), len);
		} else {
			refs_busy_sub(&space.refs, space_block(&space, slab, first), len);
		}
		piece = looked_at(&space, slab);
		cr_assert_geq(space.refs.slabs[slab].piece, piece, "step %u", n);
		if (n % 7 == 0) {
			refs_measure(&space.refs, slab);
			cr_assert_eq(space.refs.slabs[slab].piece, piece, "step %u", n);
		}
	}
	space_done(&space);
}

/* --- what a first write costs --- */

static struct engine engine;

/* Every block of the volume written, then every 17th freed: free space without a run of 2. */
static void start_fragmented(uint64_t slabs)
{
	uint64_t blocks = slabs * SLAB_DATA_BLOCKS;

	engine_init(&engine, &(struct engine_options){.logical_bytes = blocks_to_bytes(blocks),
						      .ring_blocks = 1024,
						      .volume = {.cache_bytes = 64ull << 20}});
	for (uint64_t b = 0; b < blocks; b += 256)
		cr_assert_eq(engine_write(&engine, b, min_u64(256, blocks - b), 1), 0);
	for (uint64_t b = 0; b < blocks; b += 17)
		cr_assert_eq(engine_discard(&engine, b, 1), 0);
	cr_assert_eq(engine_flush(&engine), 0);
	engine.options.volume.cache_bytes = 1;
	engine_reopen(&engine);
	cr_assert_not(engine.volume->metadata->alloc.homes);
}

static void check_first_writes(void)
{
	for (uint64_t i = 0; i < 20; i++) {
		uint64_t reads = engine_stats(&engine).metadata_reads;

		cr_assert_eq(engine_write(&engine, 17 * (40 + i * 200), 1, 5), 0);
		cr_expect_leq(engine_stats(&engine).metadata_reads - reads, READS_MAX, "write %u",
			      (unsigned)i);
	}
}

/* Each first write read the counts of nearly all slabs, one after the other, in search of a run. */
Test(piece, a_first_write_on_a_fragmented_store_reads_few_pages_after_a_restart)
{
	start_fragmented(40);
	check_first_writes();
	engine_kill(&engine);
	cr_assert_eq(engine_open(&engine), 0);
	check_first_writes();
	engine_done(&engine);
}

static void forget_pieces(void)
{
	for (uint32_t i = 0; i < engine.volume->metadata->super.geometry.slabs; i++) {
		engine.volume->metadata->refs.slabs[i].home_piece = 0;
		if (refs_frame(&engine.volume->metadata->refs,
			       geometry_slab_pbn(&engine.volume->metadata->super.geometry, i, 0)) ==
		    NULL)
			refs_evicted(&engine.volume->metadata->refs, i);
	}
}

/* An older store has no pieces in its summaries. */
Test(piece, what_is_not_known_is_learnt_by_and_by_and_kept)
{
	uint32_t known = 0;

	start_fragmented(40);
	forget_pieces();
	check_first_writes();
	engine_reopen(&engine);
	for (uint32_t i = 0; i < engine.volume->metadata->super.geometry.slabs; i++)
		known += engine.volume->metadata->refs.slabs[i].home_piece > 0;
	cr_expect_gt(known, 0);
	check_first_writes();
	engine_done(&engine);
}

/* Fewer blocks than the volume has: all written, then every 17th freed. What was never written
 * has no place, and there is not one with two neighbours. Returns the first such region. */
static uint64_t start_thin(uint64_t slabs)
{
	uint64_t blocks = slabs * SLAB_DATA_BLOCKS, end = 0;

	engine_init(&engine,
		    &(struct engine_options){.logical_bytes = 2 * blocks_to_bytes(blocks),
					     .store_bytes = blocks_to_bytes(slabs * SLAB_BLOCKS),
					     .ring_blocks = 1024,
					     .volume = {.cache_bytes = 64ull << 20}});
	while (engine_write(&engine, end, 64, 1) == 0)
		end += 64;
	while (engine_write(&engine, end, 1, 1) == 0)
		end++;
	for (uint64_t b = 0; b < end; b += 17)
		cr_assert_eq(engine_discard(&engine, b, 1), 0);
	cr_assert_eq(engine_flush(&engine), 0);
	engine.options.volume.cache_bytes = 1;
	engine_reopen(&engine);
	return end / REGION_BLOCKS + 1;
}

/* A place wants two neighbours, of which no slab is known to have any: the counts of all of them
 * were read, one after the other, before two single blocks were taken. */
Test(piece, a_place_on_a_store_that_tells_nothing_is_found_after_few_reads)
{
	uint64_t first = start_thin(20);
	uint32_t slabs = engine.volume->metadata->super.geometry.slabs, known = 0;

	forget_pieces();
	for (uint64_t r = first; r < first + 10; r++) {
		uint64_t reads = engine_stats(&engine).metadata_reads;

		cr_assert_eq(engine_write(&engine, r * REGION_BLOCKS + 5, 1, 5), 0);
		reads = engine_stats(&engine).metadata_reads - reads;
		cr_expect_leq(reads, PLACE_READS_MAX, "region %lu: %lu of %u", r, reads, slabs);
	}
	cr_assert_eq(engine_flush(&engine), 0);
	engine_reopen(&engine);
	for (uint32_t i = 0; i < slabs; i++)
		known += engine.volume->metadata->refs.slabs[i].home_piece > 0;
	cr_expect_gt(known, 0);
	for (uint64_t r = first; r < first + 10; r++)
		cr_expect(engine_holds(&engine, r * REGION_BLOCKS + 5, 1, 5));
	engine_done(&engine);
}
