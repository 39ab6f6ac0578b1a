/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * op_read - looks up, reads, and goes on until all is read
 *
 *   LOOK_UP ----> DATA ----> LOOK_UP ... DONE
 *      ^  \
 *      |   v
 *      +- LOAD
 *
 *   LOOK_UP -> DATA     the mapping of the next part is known; holes are zeroed at once
 *   LOOK_UP -> LOAD     the region's leaf is absent
 *   DATA    -> LOOK_UP  data_done  more is left
 *
 * With foreign payload LOOK_UP and DATA may find that the bytes themselves are needed; then they
 * are brought and the whole read begins again (request.c).
 *
 * A read holds no fence; what it looked up may be remapped meanwhile, but stays readable until it
 * leaves (I3). Parts of sectors are read whole, into the scratch.
 */
#include <errno.h>
#include <string.h>

#include "core/base/mutant.h"
#include "core/request/request_internal.h"

static void look_up(struct request *request);

/* The bytes of the part that are in whole sectors go straight to the caller. */
static bool sector_aligned(const struct request *request)
{
	uint32_t sector = request->volume->metadata->store->sector_bytes;

	return request->part_off_bytes % sector == 0 && request->part_bytes % sector == 0;
}

/* Foreign memory can be filled from the store, and no other way. */
static bool needs_bytes(const struct request *request)
{
	if (request->foreign == 0)
		return false;
	for (uint32_t i = 0; i < request->extent_count; i++)
		if (pbn_is_none(request->extents[i].pbn))
			return true;
	return !sector_aligned(request);
}

static void copy_part(struct request *request)
{
	memcpy((uint8_t *)request->data + request->progress_bytes,
	       (uint8_t *)request->scratch + request->part_off_bytes, request->part_bytes);
	count(&request->volume->counters.copied_bytes, request->part_bytes);
}

static void data_done(struct request *request)
{
	request_leave(request);
	if (request->ios_res < 0) {
		request_finish(request, request->ios_res);
		return;
	}
	if (request->io_count > 0 && !sector_aligned(request))
		copy_part(request);
	request->progress_bytes += request->part_bytes;
	if (request->progress_bytes == request->len_bytes)
		request_finish(request, 0);
	else
		look_up(request);
}

static void add_extents(struct request *request)
{
	uint64_t at = request->progress_bytes;

	for (uint32_t i = 0; i < request->extent_count; i++) {
		const struct extent *extent = &request->extents[i];
		uint64_t len_bytes = part_is_whole(request) ? blocks_to_bytes(extent->blocks)
							    : request->part_bytes;

		if (pbn_is_none(extent->pbn))
			memset((uint8_t *)request->data + at, 0, len_bytes);
		else if (!sector_aligned(request))
			request_io_add(request, STORE_READ, pbn_off_bytes(extent->pbn),
				       request->scratch, BLOCK_BYTES, false);
		else
			request_io_add_data(request, STORE_READ,
					    pbn_off_bytes(extent->pbn) + request->part_off_bytes,
					    at, len_bytes, false);
		at += len_bytes;
	}
}

/* Fewer extents than the part has: it ends where they end. */
static void cut_part(struct request *request)
{
	uint32_t blocks = 0;

	if (!part_is_whole(request))
		return;
	for (uint32_t i = 0; i < request->extent_count; i++)
		blocks += request->extents[i].blocks;
	request->part_blocks = blocks;
	request->part_bytes = blocks * BLOCK_BYTES;
}

static void leaf_loaded(struct request *request)
{
	if (request->wait.res < 0)
		request_finish(request, -EIO);
	else
		look_up(request);
}

static void look_up(struct request *request)
{
	struct volume *volume = request->volume;
	struct fence_stripe *stripe;

	request_next_part(request, REGION_BLOCKS);
	stripe = fence_stripe(&volume->fence, lbn_region(request->part_lbn));
	pthread_mutex_lock(&stripe->lock);
	if (!MUTANT(24)) /* the read races the end of a clone */
		request_enter(request);
	request->extent_count =
		map_lookup(&volume->metadata->map, request->part_lbn, request->part_blocks,
			   request->extents, REQUEST_EXTENTS_MAX);
	pthread_mutex_unlock(&stripe->lock);
	if (request->extent_count == 0) {
		request_leave(request);
		request_load_page(request, page_of_leaf(lbn_region(request->part_lbn)),
				  leaf_loaded);
		return;
	}
	if (needs_bytes(request)) {
		request_finish(request, STORE_NEEDS_BYTES);
		return;
	}
	cut_part(request);
	request_io_begin(request);
	add_extents(request);
	request_io_submit(request, data_done);
}

void read_go_on(struct request *request)
{
	if (request->len_bytes == 0)
		request_finish(request, 0);
	else
		look_up(request);
}

void read_start(struct request *request)
{
	struct volume *volume = request->volume;

	request_count(request, &volume->counters.reads, &volume->counters.read_bytes);
	read_go_on(request);
}
