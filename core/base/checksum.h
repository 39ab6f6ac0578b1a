/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * checksum - of a block that carries its own checksum somewhere inside
 *
 * The XXH3-64 of what follows the eight bytes at `at`, seeded with the XXH3-64 of what precedes
 * them.
 */
#ifndef CORE_BASE_CHECKSUM_H
#define CORE_BASE_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>
#include <xxhash.h>

static inline uint64_t checksum_around(const uint8_t *block, size_t at, size_t len_bytes)
{
	return XXH3_64bits_withSeed(block + at + 8, len_bytes - at - 8, XXH3_64bits(block, at));
}

#endif
