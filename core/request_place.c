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
 * The place is the request's own (part_place) until it is published or put back.
 */
#include <assert.h>
#include <errno.h>

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
