/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * geometry - which block of the store is what
 *
 *   block 0                                                                     store_blocks
 *   | super A | journal ring | tops (root, then summaries; two slots each) | super B | tracking |
 *   slabs ... |
 *
 *   slab:  | refs slot 0 | refs slot 1 | up to 2,016 data blocks |
 *
 * A slab's refs page counts the references of its data blocks. Data blocks hold data or, two
 * adjacent ones per region that is not a hole, the slots of a leaf (its place). The last slab may
 * be short.
 *
 * Change tracking (tracking.h) has a page for each area of 512 regions, or is not there at all.
 *
 * Pure arithmetic: no memory, no I/O, no locks. A caller's bug (a block that is no data block where
 * one is needed) asserts; sizes from outside are checked by geometry_plan() and geometry_valid().
 */
#ifndef CORE_FORMAT_GEOMETRY_H
#define CORE_FORMAT_GEOMETRY_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/units.h"

#define SLAB_DATA_BLOCKS 2016u
#define SLAB_BLOCKS	 (SLAB_DATA_BLOCKS + 2u)
#define SLAB_BLOCKS_MIN	 10u /* a shorter tail of the store is left unused */
#define ROOT_ENTRIES	 252u /* regions per root page */
#define SUMMARY_ENTRIES	 252u /* slabs per summary page */
#define AREA_REGIONS	 512u /* regions per tracking page: 1 GiB */
#define AREA_BYTES	 (AREA_REGIONS * REGION_BYTES)
#define RING_BLOCKS_MIN	 32u
#define RING_BLOCKS_MAX	 8192u
#define STORE_BLOCKS_MAX (1ull << 40)
#define SUPER_BLOCKS_MAX 4096u /* the largest volume on the largest store has fewer */

/* Of a volume. */
#define VOLUME_LOGICAL_BYTES_MIN (1ull << 20)
#define VOLUME_LOGICAL_BYTES_MAX (64ull << 40)

struct geometry {
	uint64_t logical_blocks;
	uint64_t store_blocks;
	uint32_t regions;
	uint32_t slabs;
	uint32_t root_pages;
	uint32_t summary_pages;
	uint32_t super_blocks; /* of one copy: a head and the generations of all tops */
	uint32_t ring_blocks;
	uint64_t ring_start;
	uint64_t tops_start;
	uint64_t super_b_start;
	uint64_t data_start;
	uint64_t tracking_start; /* a page for each area, up to data_start; 0: not tracked */
};

/* ring_blocks 0: chosen from the sizes. 0, EINVAL (a size out of range) or ENOSPC (the store is too
 * small for the metadata and one slab). */
int geometry_plan(uint64_t logical_blocks, uint64_t store_blocks, uint32_t ring_blocks,
		  struct geometry *ret_geometry);

/* Puts the tracking pages into a planned geometry; the slabs move up. 0 or ENOSPC. */
int geometry_track(struct geometry *geometry);

/* Whether a geometry read from a store is one that geometry_plan() makes. */
bool geometry_valid(const struct geometry *geometry);

/* Areas of change tracking, whether there are pages for them or not. */
static inline uint32_t geometry_areas(const struct geometry *geometry)
{
	return (uint32_t)div_up(geometry->regions, AREA_REGIONS);
}

/* Tops: root pages 0 .. root_pages-1, then summary pages. */
static inline uint32_t geometry_tops(const struct geometry *geometry)
{
	return geometry->root_pages + geometry->summary_pages;
}

uint64_t geometry_super_block(const struct geometry *geometry, unsigned copy);
uint64_t geometry_ring_block(const struct geometry *geometry, uint64_t sequence);
uint64_t geometry_top_block(const struct geometry *geometry, uint32_t top, uint32_t generation);
uint64_t geometry_tracking_block(const struct geometry *geometry, uint32_t area);
uint64_t geometry_refs_block(const struct geometry *geometry, uint32_t slab, uint32_t generation);

/* Data blocks of a slab: SLAB_DATA_BLOCKS but for the last. */
uint32_t geometry_slab_blocks(const struct geometry *geometry, uint32_t slab);
/* Data blocks of all slabs. */
uint64_t geometry_data_blocks(const struct geometry *geometry);
/* Blocks of a region: REGION_BLOCKS but for the last. */
uint32_t geometry_region_blocks(const struct geometry *geometry, uint32_t region);

bool geometry_is_data(const struct geometry *geometry, pbn_t pbn);
/* Of a data block: its slab, and its index among the slab's data blocks. */
uint32_t geometry_slab(const struct geometry *geometry, pbn_t pbn);
uint32_t geometry_slab_index(const struct geometry *geometry, pbn_t pbn);
pbn_t geometry_slab_pbn(const struct geometry *geometry, uint32_t slab, uint32_t index);

#endif
