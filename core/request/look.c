/* SPDX-License-Identifier: GPL-2.0-or-later */
/* look - see the header */
#include "core/request/look.h"

#include <assert.h>

#include "core/volume/volume_internal.h"

void look_begin(struct look *look, struct volume *volume, struct worker *worker)
{
	look->volume = volume;
	look->worker = worker;
	worker_inflight_init(&look->inflight);
	worker_enter(worker, &look->inflight, journal_next_lsn(&volume->metadata->journal));
}

void look_end(struct look *look)
{
	metadata_leave(look->volume->metadata, look->worker, &look->inflight);
}

void look_count_read(struct volume *volume, uint64_t len_bytes, bool first)
{
	if (first)
		count(&volume->counters.reads, 1);
	count(&volume->counters.read_bytes, len_bytes);
}

uint32_t look_range(struct look *look, lbn_t lbn, uint32_t blocks, struct extent *ret_extents,
		    uint32_t max)
{
	struct volume *volume = look->volume;
	uint32_t count = 0;

	assert(blocks > 0 && lbn.v + blocks <= volume->metadata->super.geometry.logical_blocks);
	while (blocks > 0) {
		struct fence_stripe *stripe = fence_stripe(&volume->fence, lbn_region(lbn));
		uint32_t here = min_u32(blocks, REGION_BLOCKS - lbn_index(lbn)), found, got = 0;

		if (count == max)
			return 0;
		pthread_mutex_lock(&stripe->lock);
		found = map_lookup(&volume->metadata->map, lbn, here, ret_extents + count,
				   max - count);
		pthread_mutex_unlock(&stripe->lock);
		for (uint32_t i = count; i < count + found; i++)
			got += ret_extents[i].blocks;
		if (got < here)
			return 0;
		count += found;
		blocks -= here;
		lbn = lbn_add(lbn, here);
	}
	return count;
}
