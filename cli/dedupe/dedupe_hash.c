/* SPDX-License-Identifier: GPL-2.0-or-later */
/* dedupe_hash - see the header */
#include "cli/dedupe/dedupe_hash.h"

#include <xxhash.h>

#include "core/base/units.h"

struct dedupe_hash dedupe_hash_block(const void *block)
{
	XXH128_hash_t hash = XXH3_128bits(block, BLOCK_BYTES);

	return (struct dedupe_hash){.low = hash.low64, .high = hash.high64};
}
