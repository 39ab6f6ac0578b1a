/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * units - blocks, sectors, regions and bytes, and the only place that shifts between them
 *
 * A logical block number (lbn_t) and a physical one (pbn_t) are different types, so that a
 * mix-up does not compile. Everything else is a plain integer whose name ends in its unit.
 * Ranges are half-open.
 */
#ifndef CORE_BASE_UNITS_H
#define CORE_BASE_UNITS_H

#include <stdbool.h>
#include <stdint.h>

#define BLOCK_BYTES   4096u
#define BLOCK_SHIFT   12
#define SECTOR_BYTES  512u
#define REGION_BLOCKS 512u
#define REGION_SHIFT  9
#define REGION_BYTES  ((uint64_t)REGION_BLOCKS * BLOCK_BYTES)

/* A logical block: an address of the volume, in blocks. */
typedef struct {
	uint64_t v;
} lbn_t;

/* A physical block: an address of the store, in blocks. Block 0 is a superblock, so PBN_NONE
 * can stand for "no block", that is, a hole. */
typedef struct {
	uint64_t v;
} pbn_t;

#define PBN_NONE ((pbn_t){0})

static inline bool pbn_is_none(pbn_t pbn)
{
	return pbn.v == 0;
}

static inline lbn_t lbn_add(lbn_t lbn, uint64_t blocks)
{
	return (lbn_t){lbn.v + blocks};
}

static inline pbn_t pbn_add(pbn_t pbn, uint64_t blocks)
{
	return (pbn_t){pbn.v + blocks};
}

static inline uint64_t pbn_off_bytes(pbn_t pbn)
{
	return pbn.v << BLOCK_SHIFT;
}

static inline uint64_t lbn_off_bytes(lbn_t lbn)
{
	return lbn.v << BLOCK_SHIFT;
}

static inline lbn_t lbn_of_bytes(uint64_t off_bytes)
{
	return (lbn_t){off_bytes >> BLOCK_SHIFT};
}

static inline uint64_t blocks_to_bytes(uint64_t blocks)
{
	return blocks << BLOCK_SHIFT;
}

static inline uint32_t lbn_region(lbn_t lbn)
{
	return (uint32_t)(lbn.v >> REGION_SHIFT);
}

static inline uint32_t lbn_index(lbn_t lbn)
{
	return (uint32_t)(lbn.v & (REGION_BLOCKS - 1));
}

static inline lbn_t region_lbn(uint32_t region)
{
	return (lbn_t){(uint64_t)region << REGION_SHIFT};
}

static inline uint32_t max_u32(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}

static inline uint32_t min_u32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t div_up(uint64_t a, uint64_t b)
{
	return a / b + (a % b != 0);
}

#endif
