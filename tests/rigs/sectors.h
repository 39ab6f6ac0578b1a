/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sectors - whole blocks of recognisable contents (tests/lib/content.h), and sectors read back
 */
#ifndef TESTS_RIGS_SECTORS_H
#define TESTS_RIGS_SECTORS_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/lib/content.h"

static inline void block_fill(uint8_t *block, uint64_t id)
{
	for (unsigned i = 0; i < BLOCK_SECTORS; i++)
		content_fill((uint32_t)id, i, block + i * SECTOR_BYTES);
}

/* False: not a sector of ours, or not of this index. */
static inline bool sector_decode(const uint8_t *sector, unsigned index, uint64_t *ret_id)
{
	static const struct contents none;
	uint32_t id = contents_identify(&none, sector, index);

	*ret_id = id;
	return id != CONTENT_GARBAGE;
}

#endif
