/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * request_place - a home for the leaf of a region that has none
 *
 *   ALLOCATE ----> ZERO ----> done
 *     ^   \
 *     |    v
 *     +-- LOAD, SPACE
 *
 *   ALLOCATE -> ZERO   two adjacent blocks were had; both are written with zeros, so that the leaf
 *                      going home later cannot lack space in the backing
 *   ALLOCATE -> LOAD   a refs page is absent. Could it not be had (it is damaged, or cannot be made
 *                      for lack of space in the backing), its slab is passed over: another may do
 *   ALLOCATE -> SPACE  nothing is free, but something is pending
 *
 * The place is the request's own (part_place) until it is published or put back. It is published
 * together with the first edit that needs it and never without one; and the edits that take the
 * last mapping away give it back. So that they can, the counts of the place are loaded like every
 * other page of theirs. Only where those are damaged the region keeps its place, and a region that
 * was found without mappings, but with a place, loses it at the next discard.
 */
#include <assert.h>
#include <errno.h>

#include "core/base/mutant.h"
#include "core/request_internal.h"

#define PLACE_BLOCKS 2u

static void allocate(struct request *request);

static void finish(struct request *request, int res)
{
	request->place_res = res;
	request->place_next(request);
}

static void zeroed(struct request *request)
{
	finish(request, request->ios_res);
}

static void woken(struct request *request)
{
	if (request->wait.res < 0)
		finish(request, -EIO);
	else
		allocate(request);
}

static void loaded(struct request *request)
{
	if (request->wait.res < 0 && !request_pass_over(request))
		finish(request, -EIO);
	else
		allocate(request);
}

static void allocate(struct request *request)
{
	struct volume *volume = request->volume;
	bool waits = false;
	int r;

	pthread_mutex_lock(&volume->meta);
	r = alloc_get_place(&volume->alloc, &request->part_place, &request->part_page);
	if (r < 0)
		request->part_place = PBN_NONE;
	if (r == -ENOSPC)
		waits = request_wait_space(request, woken);
	pthread_mutex_unlock(&volume->meta);
	if (r == -EAGAIN) {
		request_load_page(request, request->part_page, loaded);
	} else if (r < 0 && !waits) {
		finish(request, volume_latched(volume) ? -EIO : r);
	} else if (r == 0) {
		request_io_begin(request);
		request_add_place_io(request);
		request_io_submit(request, zeroed);
	}
}

void request_get_place(struct request *request, void (*step)(struct request *request))
{
	assert(pbn_is_none(request->part_place));
	request->place_next = step;
	allocate(request);
}

void request_add_place_io(struct request *request)
{
	if (!pbn_is_none(request->part_place))
		request_io_add(request, STORE_WRITE, pbn_off_bytes(request->part_place),
			       request->volume->zeros, blocks_to_bytes(PLACE_BLOCKS), false);
}

void request_publish_place(struct request *request, uint32_t region)
{
	struct volume *volume = request->volume;
	struct record record = {
		.kind = RECORD_PLACE,
		.count = PLACE_BLOCKS,
		.lbn = region_lbn(region),
		.new = request->part_place,
	};

	if (pbn_is_none(request->part_place))
		return;
	if (pbn_is_none(map_entry(&volume->map, region).place))
		request_publish(request, &record);
	else /* another request was faster */
		alloc_put(&volume->alloc, request->part_place, PLACE_BLOCKS);
	request->part_place = PBN_NONE;
}

void request_put_place(struct request *request)
{
	struct volume *volume = request->volume;

	if (pbn_is_none(request->part_place))
		return;
	pthread_mutex_lock(&volume->meta);
	alloc_put(&volume->alloc, request->part_place, PLACE_BLOCKS);
	pthread_mutex_unlock(&volume->meta);
	request->part_place = PBN_NONE;
}

/* --- giving it back --- */

/* Blocks of the region that are mapped; UINT32_MAX: its leaf is absent. */
static uint32_t mapped_blocks(struct volume *volume, uint32_t region)
{
	struct root_entry entry = map_entry(&volume->map, region);
	const struct frame *leaf;

	if (entry.kind != REGION_LEAF)
		return entry.length;
	leaf = cache_find(&volume->cache, page_of_leaf(region));
	return leaf ? leaf->mapped : UINT32_MAX;
}

static struct record unplace_record(struct volume *volume, uint32_t region)
{
	return (struct record){
		.kind = RECORD_UNPLACE,
		.count = PLACE_BLOCKS,
		.lbn = region_lbn(region),
		.old = map_entry(&volume->map, region).place,
	};
}

bool request_has_idle_place(struct request *request, uint32_t region)
{
	struct volume *volume = request->volume;
	bool idle;

	pthread_mutex_lock(&volume->meta);
	idle = !pbn_is_none(map_entry(&volume->map, region).place) &&
	       mapped_blocks(volume, region) == 0;
	pthread_mutex_unlock(&volume->meta);
	return idle;
}

page_t request_unplace_missing(struct request *request, uint32_t region, uint32_t unmapped_blocks)
{
	struct volume *volume = request->volume;
	struct record record = unplace_record(volume, region);

	if (pbn_is_none(record.old) || mapped_blocks(volume, region) != unmapped_blocks ||
	    request->part_keeps_place || MUTANT(62)) /* kept for ever if it is not at hand */
		return PAGE_NONE;
	return edit_missing(volume, &record);
}

bool request_keep_place(struct request *request, uint32_t region)
{
	struct volume *volume = request->volume;
	struct record record;

	if (request->part_keeps_place) /* then it was wanted for more than that */
		return false;
	pthread_mutex_lock(&volume->meta);
	record = unplace_record(volume, region);
	request->part_keeps_place =
		!pbn_is_none(record.old) && request->part_page == edit_missing(volume, &record);
	pthread_mutex_unlock(&volume->meta);
	return request->part_keeps_place;
}

void request_publish_unplace(struct request *request, uint32_t region)
{
	struct volume *volume = request->volume;
	struct record record = unplace_record(volume, region);

	if (pbn_is_none(record.old) || mapped_blocks(volume, region) != 0)
		return;
	/* No room, or its counts cannot be had: the place stays with its region, which may use it
	 * again. The next discard there tries anew. */
	if (request->unused_records > 0 && edit_missing(volume, &record) == PAGE_NONE)
		request_publish(request, &record);
}
