/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_geometry - no block has two uses, and sizes from outside are bounded
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/format/geometry.h"

#define LOGICAL_MIN ((1ull << 20) / BLOCK_BYTES)
#define LOGICAL_MAX ((64ull << 40) / BLOCK_BYTES)

static struct geometry plan(uint64_t logical_blocks, uint64_t store_blocks, uint32_t ring_blocks)
{
	struct geometry g;

	cr_assert_eq(geometry_plan(logical_blocks, store_blocks, ring_blocks, &g), 0);
	return g;
}

Test(geometry, sizes_out_of_range_are_refused)
{
	struct geometry g;

	cr_assert_eq(geometry_plan(LOGICAL_MIN - 1, 4096, 0, &g), -EINVAL);
	cr_assert_eq(geometry_plan(0, 4096, 0, &g), -EINVAL);
	cr_assert_eq(geometry_plan(LOGICAL_MAX + 1, 1ull << 34, 0, &g), -EINVAL);
	cr_assert_eq(geometry_plan(UINT64_MAX, UINT64_MAX, 0, &g), -EINVAL);
	cr_assert_eq(geometry_plan(LOGICAL_MIN, STORE_BLOCKS_MAX + 1, 0, &g), -EINVAL);
	cr_assert_eq(geometry_plan(LOGICAL_MIN, 4096, RING_BLOCKS_MIN - 1, &g), -EINVAL);
	cr_assert_eq(geometry_plan(LOGICAL_MIN, 4096, RING_BLOCKS_MAX + 1, &g), -EINVAL);
}

Test(geometry, a_store_without_room_for_one_slab_is_refused)
{
	struct geometry g = plan(LOGICAL_MIN, 4096, RING_BLOCKS_MIN);
	struct geometry small;

	for (uint64_t blocks = 0; blocks < g.data_start + SLAB_BLOCKS_MIN; blocks++)
		cr_assert_eq(geometry_plan(LOGICAL_MIN, blocks, RING_BLOCKS_MIN, &small), -ENOSPC);
	small = plan(LOGICAL_MIN, g.data_start + SLAB_BLOCKS_MIN, RING_BLOCKS_MIN);
	cr_assert_eq(small.slabs, 1);
	cr_assert_eq(geometry_data_blocks(&small), SLAB_BLOCKS_MIN - 2);
}

Test(geometry, the_extreme_sizes_are_planned)
{
	struct geometry g = plan(LOGICAL_MAX, LOGICAL_MAX + (1ull << 30), 0);

	cr_assert_eq(g.regions, LOGICAL_MAX / REGION_BLOCKS);
	cr_assert_eq(g.ring_blocks, RING_BLOCKS_MAX);
	cr_assert(geometry_valid(&g));
	/* Thin: the volume may be far larger than its store. */
	g = plan(LOGICAL_MAX, 1ull << 20, 0);
	cr_assert(geometry_valid(&g));
	g = plan(LOGICAL_MIN, STORE_BLOCKS_MAX, 0);
	cr_assert(geometry_valid(&g));
}

/* Goal: each block of a store has one use, and every block before store_blocks is accounted for. */
static void count_uses(const struct geometry *g)
{
	uint8_t *uses = calloc(g->store_blocks, 1);
	uint64_t data_blocks = 0;

	for (unsigned copy = 0; copy < 2; copy++) {
		for (uint32_t i = 0; i < g->super_blocks; i++)
			uses[geometry_super_block(g, copy) + i]++;
	}
	for (uint64_t sequence = 1000; sequence < 1000 + g->ring_blocks; sequence++)
		uses[geometry_ring_block(g, sequence)]++;
	for (uint32_t top = 0; top < geometry_tops(g); top++) {
		uses[geometry_top_block(g, top, 6)]++;
		uses[geometry_top_block(g, top, 7)]++;
	}
	for (uint32_t slab = 0; slab < g->slabs; slab++) {
		uses[geometry_refs_block(g, slab, 0)]++;
		uses[geometry_refs_block(g, slab, 1)]++;
		cr_assert_not(geometry_is_data(g, (pbn_t){geometry_refs_block(g, slab, 0)}));
		cr_assert_not(geometry_is_data(g, (pbn_t){geometry_refs_block(g, slab, 1)}));
		for (uint32_t i = 0; i < geometry_slab_blocks(g, slab); i++) {
			pbn_t pbn = geometry_slab_pbn(g, slab, i);

			cr_assert(geometry_is_data(g, pbn));
			cr_assert_eq(geometry_slab(g, pbn), slab);
			cr_assert_eq(geometry_slab_index(g, pbn), i);
			uses[pbn.v]++;
			data_blocks++;
		}
	}
	cr_assert_eq(data_blocks, geometry_data_blocks(g));
	for (uint64_t i = 0; i < g->store_blocks; i++) {
		bool rest = i >= g->data_start + (uint64_t)g->slabs * SLAB_BLOCKS;

		cr_assert_eq(uses[i], rest ? 0 : 1, "block %lu has %u uses", (unsigned long)i,
			     uses[i]);
		if (rest)
			cr_assert_not(geometry_is_data(g, (pbn_t){i}));
	}
	cr_assert_not(geometry_is_data(g, (pbn_t){g->store_blocks}));
	cr_assert_not(geometry_is_data(g, (pbn_t){UINT64_MAX}));
	cr_assert_not(geometry_is_data(g, PBN_NONE));
	free(uses);
}

Test(geometry, every_block_has_one_use)
{
	for (uint64_t store = 60; store < 60 + 2 * SLAB_BLOCKS; store += 97) {
		struct geometry g = plan(LOGICAL_MIN, store, RING_BLOCKS_MIN);

		count_uses(&g);
	}
}

Test(geometry, every_block_has_one_use_in_a_store_of_many_tops)
{
	struct geometry g = plan(1ull << 28, 1ull << 19, 0);

	cr_assert_gt(g.super_blocks, 2);
	count_uses(&g);
}

/* Goal: no slab is shorter than the minimum; what is left over is at most a stub. */
Test(geometry, a_short_last_slab_has_at_least_the_minimum)
{
	for (uint64_t store = 4096; store < 4096 + SLAB_BLOCKS; store++) {
		struct geometry g = plan(LOGICAL_MIN, store, RING_BLOCKS_MIN);
		uint64_t end = g.data_start + (uint64_t)g.slabs * SLAB_BLOCKS;

		cr_assert_geq(geometry_slab_blocks(&g, g.slabs - 1) + 2, SLAB_BLOCKS_MIN);
		cr_assert(end >= store || store - end < SLAB_BLOCKS_MIN);
	}
}

Test(geometry, the_last_region_may_be_short)
{
	struct geometry g = plan(2 * REGION_BLOCKS + 1, 8192, 0);

	cr_assert_eq(g.regions, 3);
	cr_assert_eq(geometry_region_blocks(&g, 0), REGION_BLOCKS);
	cr_assert_eq(geometry_region_blocks(&g, 2), 1);
	g = plan(2 * REGION_BLOCKS, 8192, 0);
	cr_assert_eq(g.regions, 2);
	cr_assert_eq(geometry_region_blocks(&g, 1), REGION_BLOCKS);
}

Test(geometry, the_two_generations_of_a_page_have_two_slots)
{
	struct geometry g = plan(LOGICAL_MIN, 8192, 0);

	cr_assert_neq(geometry_top_block(&g, 0, 4), geometry_top_block(&g, 0, 5));
	cr_assert_eq(geometry_top_block(&g, 0, 4), geometry_top_block(&g, 0, 6));
	cr_assert_neq(geometry_refs_block(&g, 1, 4), geometry_refs_block(&g, 1, 5));
	cr_assert_eq(geometry_refs_block(&g, 1, 5), geometry_refs_block(&g, 1, UINT32_MAX));
}

Test(geometry, the_ring_repeats)
{
	struct geometry g = plan(LOGICAL_MIN, 8192, 37);

	cr_assert_eq(geometry_ring_block(&g, 0), g.ring_start);
	cr_assert_eq(geometry_ring_block(&g, 36), g.ring_start + 36);
	cr_assert_eq(geometry_ring_block(&g, 37), g.ring_start);
}

/* Goal: a geometry from a store is believed only if planning makes the same one. */
Test(geometry, a_geometry_with_any_number_changed_is_invalid)
{
	struct geometry g = plan(1ull << 20, 1ull << 20, 0);
	uint64_t *const longs[] = {&g.ring_start, &g.tops_start, &g.super_b_start, &g.data_start};
	uint32_t *const ints[] = {&g.regions, &g.slabs, &g.root_pages, &g.summary_pages,
				  &g.super_blocks};

	cr_assert(geometry_valid(&g));
	for (unsigned i = 0; i < sizeof(longs) / sizeof(longs[0]); i++) {
		++*longs[i];
		cr_assert_not(geometry_valid(&g));
		--*longs[i];
	}
	for (unsigned i = 0; i < sizeof(ints) / sizeof(ints[0]); i++) {
		++*ints[i];
		cr_assert_not(geometry_valid(&g));
		--*ints[i];
	}
	g.logical_blocks = UINT64_MAX;
	cr_assert_not(geometry_valid(&g));
}
