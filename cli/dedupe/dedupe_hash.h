/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dedupe_hash - what a block's content is recognised by: XXH3 with 128 bits
 *
 * A hash finds candidates and proves nothing: the server compares byte for byte. So it needs to be
 * fast and well spread, not strong. In a hashfile it has 16 bytes, `low` first, both in the
 * byte order of the machine.
 */
#ifndef CLI_DEDUPE_DEDUPE_HASH_H
#define CLI_DEDUPE_DEDUPE_HASH_H

#include <stdbool.h>
#include <stdint.h>

struct dedupe_hash {
	uint64_t low;
	uint64_t high;
};

/* block: BLOCK_BYTES of content. */
struct dedupe_hash dedupe_hash_block(const void *block);

static inline bool dedupe_hash_equal(struct dedupe_hash a, struct dedupe_hash b)
{
	return a.low == b.low && a.high == b.high;
}

#endif
