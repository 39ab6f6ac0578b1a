/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * piece - how large a run of free blocks a slab has to offer, in a byte
 *
 * Runs are handed out in powers of two up to a region, those of 8 blocks and more aligned to their
 * size, but to 32 blocks at the most (alloc.h). A slab's piece is the largest that it has:
 *
 *   0    none: no block is free
 *   n    2^(n-1) blocks, 1 to 512; where there is a piece there are all smaller ones
 *
 * On the store a summary entry holds it plus 1, so that 0 means that it is not known
 * (docs/disk-format.md).
 */
#ifndef CORE_METADATA_PIECE_H
#define CORE_METADATA_PIECE_H

#include <stdint.h>

#include "core/base/units.h"

#define PIECE_ALIGN_MIN 8u
#define PIECE_ALIGN_MAX 32u
#define PIECES		11u /* 0 to 10 */
#define PIECE_MAX	(PIECES - 1)

/* Blocks of a piece that is not 0; what it begins at is a multiple of. */
static inline uint32_t piece_blocks(uint32_t piece)
{
	return 1u << (piece - 1);
}

static inline uint32_t piece_step(uint32_t piece)
{
	uint32_t blocks = piece_blocks(piece);

	return blocks < PIECE_ALIGN_MIN ? 1 : min_u32(blocks, PIECE_ALIGN_MAX);
}

/* The smallest that has so many blocks. */
static inline uint32_t piece_for(uint32_t blocks)
{
	uint32_t piece = 1;

	while (piece_blocks(piece) < blocks)
		piece++;
	return piece;
}

/* The largest one in the run of free blocks from begin to end, which are indices in a slab. */
static inline uint32_t piece_in(uint32_t begin, uint32_t end)
{
	for (uint32_t piece = PIECE_MAX; piece > 0; piece--) {
		uint32_t step = piece_step(piece), from = (begin + step - 1) / step * step;

		if (from + piece_blocks(piece) <= end)
			return piece;
	}
	return 0;
}

/* What a slab of so many blocks has at the least when so many are free, wherever they lie: the
 * others cannot cut all runs shorter than that. */
static inline uint32_t piece_at_least(uint32_t blocks, uint32_t free_blocks)
{
	uint32_t run, piece = PIECE_MAX;

	if (free_blocks == blocks)
		return piece_in(0, blocks);
	run = (uint32_t)div_up(free_blocks, blocks - free_blocks + 1);
	while (piece > 0 && piece_blocks(piece) + piece_step(piece) - 1 > run)
		piece--;
	return piece;
}

#endif
