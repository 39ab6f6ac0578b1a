/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/format/geometry.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define LOGICAL_BLOCKS_MIN ((1ull << 20) / BLOCK_BYTES)
#define LOGICAL_BLOCKS_MAX ((64ull << 40) / BLOCK_BYTES)
#define RING_BLOCKS_SMALL  64u

/* 1/64 of the volume, from 256 KiB to 32 MiB: a ring that a checkpoint can empty in well under a
 * second and that recovery can read as fast. */
static uint32_t ring_blocks_default(uint64_t logical_blocks)
{
	uint64_t blocks = logical_blocks / 64;

	if (blocks < RING_BLOCKS_SMALL)
		return RING_BLOCKS_SMALL;
	return (uint32_t)min_u64(blocks, RING_BLOCKS_MAX);
}

/* Slabs from data_start to the end of the store. */
static int plan_slabs(struct geometry *g)
{
	uint64_t left;

	if (g->data_start + SLAB_BLOCKS_MIN > g->store_blocks)
		return -ENOSPC;
	left = g->store_blocks - g->data_start;
	g->slabs = (uint32_t)(left / SLAB_BLOCKS);
	if (left % SLAB_BLOCKS >= SLAB_BLOCKS_MIN)
		g->slabs++;
	return 0;
}

int geometry_plan(uint64_t logical_blocks, uint64_t store_blocks, uint32_t ring_blocks,
		  struct geometry *ret_geometry)
{
	struct geometry g;
	int r;

	if (logical_blocks < LOGICAL_BLOCKS_MIN || logical_blocks > LOGICAL_BLOCKS_MAX)
		return -EINVAL;
	if (store_blocks > STORE_BLOCKS_MAX)
		return -EINVAL;
	if (ring_blocks == 0)
		ring_blocks = ring_blocks_default(logical_blocks);
	if (ring_blocks < RING_BLOCKS_MIN || ring_blocks > RING_BLOCKS_MAX)
		return -EINVAL;

	memset(&g, 0, sizeof(g));
	g.logical_blocks = logical_blocks;
	g.store_blocks = store_blocks;
	g.regions = (uint32_t)div_up(logical_blocks, REGION_BLOCKS);
	g.root_pages = (uint32_t)div_up(g.regions, ROOT_ENTRIES);
	/* Enough for slabs on the whole store; a few entries of the last page may stay unused. */
	g.summary_pages = (uint32_t)div_up(div_up(store_blocks, SLAB_BLOCKS), SUMMARY_ENTRIES);
	g.super_blocks = 1 + (uint32_t)div_up(4ull * geometry_tops(&g), BLOCK_BYTES);
	g.ring_blocks = ring_blocks;
	g.ring_start = g.super_blocks;
	g.tops_start = g.ring_start + ring_blocks;
	g.super_b_start = g.tops_start + 2ull * geometry_tops(&g);
	g.data_start = g.super_b_start + g.super_blocks;
	r = plan_slabs(&g);
	if (r == 0)
		*ret_geometry = g;
	return r;
}

int geometry_track(struct geometry *geometry)
{
	struct geometry g = *geometry;
	int r;

	assert(g.tracking_start == 0);
	g.tracking_start = g.data_start;
	g.data_start += geometry_areas(&g);
	r = plan_slabs(&g);
	if (r == 0)
		*geometry = g;
	return r;
}

bool geometry_valid(const struct geometry *geometry)
{
	struct geometry g;

	if (geometry_plan(geometry->logical_blocks, geometry->store_blocks, geometry->ring_blocks,
			  &g) < 0)
		return false;
	if (geometry->tracking_start != 0 && geometry_track(&g) < 0)
		return false;
	return g.regions == geometry->regions && g.slabs == geometry->slabs &&
	       g.root_pages == geometry->root_pages && g.summary_pages == geometry->summary_pages &&
	       g.super_blocks == geometry->super_blocks && g.ring_start == geometry->ring_start &&
	       g.tops_start == geometry->tops_start && g.super_b_start == geometry->super_b_start &&
	       g.data_start == geometry->data_start && g.tracking_start == geometry->tracking_start;
}

uint64_t geometry_super_block(const struct geometry *geometry, unsigned copy)
{
	return copy == 0 ? 0 : geometry->super_b_start;
}

uint64_t geometry_ring_block(const struct geometry *geometry, uint64_t sequence)
{
	return geometry->ring_start + sequence % geometry->ring_blocks;
}

uint64_t geometry_top_block(const struct geometry *geometry, uint32_t top, uint32_t generation)
{
	assert(top < geometry_tops(geometry));
	return geometry->tops_start + 2ull * top + (generation & 1);
}

uint64_t geometry_tracking_block(const struct geometry *geometry, uint32_t area)
{
	assert(geometry->tracking_start != 0 && area < geometry_areas(geometry));
	return geometry->tracking_start + area;
}

static uint64_t slab_start(const struct geometry *geometry, uint32_t slab)
{
	assert(slab < geometry->slabs);
	return geometry->data_start + (uint64_t)slab * SLAB_BLOCKS;
}

uint64_t geometry_refs_block(const struct geometry *geometry, uint32_t slab, uint32_t generation)
{
	return slab_start(geometry, slab) + (generation & 1);
}

uint32_t geometry_slab_blocks(const struct geometry *geometry, uint32_t slab)
{
	uint64_t left = geometry->store_blocks - slab_start(geometry, slab) - 2;

	return (uint32_t)min_u64(left, SLAB_DATA_BLOCKS);
}

uint64_t geometry_data_blocks(const struct geometry *geometry)
{
	return (uint64_t)(geometry->slabs - 1) * SLAB_DATA_BLOCKS +
	       geometry_slab_blocks(geometry, geometry->slabs - 1);
}

uint32_t geometry_region_blocks(const struct geometry *geometry, uint32_t region)
{
	assert(region < geometry->regions);
	return (uint32_t)min_u64(geometry->logical_blocks - region_lbn(region).v, REGION_BLOCKS);
}

bool geometry_is_data(const struct geometry *geometry, pbn_t pbn)
{
	uint64_t slab;

	if (pbn.v < geometry->data_start || pbn.v >= geometry->store_blocks)
		return false;
	slab = (pbn.v - geometry->data_start) / SLAB_BLOCKS;
	return slab < geometry->slabs && (pbn.v - geometry->data_start) % SLAB_BLOCKS >= 2;
}

uint32_t geometry_slab(const struct geometry *geometry, pbn_t pbn)
{
	assert(geometry_is_data(geometry, pbn));
	return (uint32_t)((pbn.v - geometry->data_start) / SLAB_BLOCKS);
}

uint32_t geometry_slab_index(const struct geometry *geometry, pbn_t pbn)
{
	assert(geometry_is_data(geometry, pbn));
	return (uint32_t)((pbn.v - geometry->data_start) % SLAB_BLOCKS) - 2;
}

pbn_t geometry_slab_pbn(const struct geometry *geometry, uint32_t slab, uint32_t index)
{
	assert(index < geometry_slab_blocks(geometry, slab));
	return (pbn_t){slab_start(geometry, slab) + 2 + index};
}
