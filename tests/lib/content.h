/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * content - what test clients write: every 512-byte sector says what it is
 *
 *   | magic 8 | id 8 | index in its block 8 | filler from id and index | XXH3 of the rest 8 |
 *
 * Id 0 is a sector of zeros. Two blocks written with one id are equal byte for byte, so they can be
 * merged; a sector that is torn inside, in the wrong place of its block or not ours is recognised.
 * A write that is not aligned to sectors makes a sector that is neither: it is *interned*, which
 * gives it an id of its own by which it is found again.
 *
 * Units     a sector is SECTOR_BYTES, a block 8 of them.
 * Memory    the table of interned sectors grows; contents_clear() empties it.
 * Threads   pure, but for the table: one thread.
 */
#ifndef TESTS_LIB_CONTENT_H
#define TESTS_LIB_CONTENT_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/units.h"

#define BLOCK_SECTORS	 (BLOCK_BYTES / SECTOR_BYTES)
#define CONTENT_ZERO	 0u
#define CONTENT_INTERNED 0x40000000u /* ids from here on are of interned sectors */
#define CONTENT_GARBAGE	 UINT32_MAX

void content_fill(uint32_t id, unsigned index, uint8_t *sector);
/* Whether it begins as a sector of ours does. */
bool content_is_ours(const uint8_t *sector);
bool content_is_zero(const uint8_t *sector);

struct contents {
	uint32_t count;
	uint32_t capacity;
	uint8_t *sectors;
};

void contents_clear(struct contents *contents);
uint32_t contents_intern(struct contents *contents, const uint8_t *sector, unsigned index);
/* The bytes that an id stands for. */
void contents_get(const struct contents *contents, uint32_t id, unsigned index, uint8_t *sector);
/* The id of a sector found at this index of a block, or CONTENT_GARBAGE. */
uint32_t contents_identify(const struct contents *contents, const uint8_t *sector, unsigned index);

#endif
