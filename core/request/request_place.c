/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * request_place - a home for the leaf of a region that has none
 *
 *   ALLOCATE ----> ZERO ----> done
 *     ^   \
 *     |    v
 *     +-- LOAD, SPACE
 *
 *   ALLOCATE -> ZERO   two blocks were had, adjacent ones if there are any; both are written with
 *                      zeros, so that the leaf going home later cannot lack space in the backing
 *   ALLOCATE -> LOAD   a refs page is absent. If it cannot be loaded (it is damaged, or the
 *                      backing has no space for it), its slab is passed over and another is tried
 *   ALLOCATE -> SPACE  nothing is free, but something is pending, or another request has blocks
 *                      that it may put back
 *
 * The place is the request's own (part_place) until it is published or put back. It is published
 * together with the first edit that needs it and never without one; and the edits that take the
 * last mapping away give it back. So that they can, the counts of the place are loaded like every
 * other page of theirs. Only where those are damaged the region keeps its place, and a region that
 * was found without mappings, but with a place, loses it at the next discard.
 *
 * A run that was cloned has no place until it is cut. Two free blocks are kept for each such run
 * (metadata_spare_blocks()), and its place alone is taken of them.
 */
#include <assert.h>
#include <errno.h>

#include "core/base/mutant.h"
#include "core/request/request_internal.h"

#define PLACE_LOOKS_MAX 4u /* pages of counts read for two neighbours */

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
		finish(request, request->wait.res == -ENOSPC ? -ENOSPC : -EIO);
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

int request_take_place(struct request *request)
{
	struct volume *volume = request->volume;
	struct alloc *alloc = &volume->metadata->alloc;
	bool kept = map_is_unplaced(&volume->metadata->map, lbn_region(request->part_lbn));
	bool learns = request->place_looks < PLACE_LOOKS_MAX;
	int r;

	if (!kept && metadata_spare_blocks(volume->metadata) < PLACE_BLOCKS)
		return -ENOSPC;
	r = alloc_get_place(alloc, learns, &request->part_place, &request->part_page);
	if (r == 0)
		request->part_second = pbn_add(request->part_place, 1);
	else if (r == -ENOSPC && !MUTANT(90)) /* no two neighbours are left: any two will do */
		r = alloc_get_split(alloc, &request->part_place, &request->part_second,
				    &request->part_page);
	request->place_looks += r == -EAGAIN;
	if (r < 0)
		request->part_place = PBN_NONE;
	request->part_place_written = false;
	request->part_place_kept = r == 0 && kept;
	volume->metadata->kept_taken += request->part_place_kept ? PLACE_BLOCKS : 0;
	return r;
}

static void allocate(struct request *request)
{
	struct volume *volume = request->volume;
	bool waits = false;
	int r;

	pthread_mutex_lock(&volume->metadata->lock);
	r = request_is_crowded(request) ? -ENOSPC : request_take_place(request);
	if (r == 0)
		request_hold_space(request);
	if (r == -ENOSPC)
		waits = request_wait_space(request, woken);
	pthread_mutex_unlock(&volume->metadata->lock);
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
	bool split = request_place_is_split(request);

	if (pbn_is_none(request->part_place))
		return;
	request->part_place_written = true;
	request_io_add(request, STORE_WRITE, pbn_off_bytes(request->part_place),
		       request->volume->zeros, blocks_to_bytes(split ? 1 : PLACE_BLOCKS), false);
	if (split)
		request_io_add(request, STORE_WRITE, pbn_off_bytes(request->part_second),
			       request->volume->zeros, BLOCK_BYTES, false);
}

static void forget_place(struct request *request)
{
	request->volume->metadata->kept_taken -= request->part_place_kept ? PLACE_BLOCKS : 0;
	request->part_place_kept = false;
	request->part_place = PBN_NONE;
}

void request_publish_place(struct request *request, uint32_t region)
{
	struct volume *volume = request->volume;
	struct root_entry entry = map_entry(&volume->metadata->map, region);
	struct record record = {
		.kind = RECORD_PLACE,
		.count = PLACE_BLOCKS,
		.lbn = region_lbn(region),
		.new = request->part_place,
	};

	if (pbn_is_none(request->part_place))
		return;
	if (!pbn_is_none(entry.place)) { /* another was faster */
		request_put_place_held(request);
		return;
	}
	assert(!request->part_place_kept || root_entry_is_unplaced(&entry));
	if (request_place_is_split(request)) { /* only a LEAF has room to say so */
		record.kind = RECORD_EXPLODE;
		record.flags = RECORD_SPLIT | (entry.shared ? RECORD_SHARED : 0);
		record.count = entry.length;
		record.old = entry.base;
		record.src.v = request->part_second.v;
		assert(edit_missing(volume->metadata, &record) == PAGE_NONE);
	}
	request_publish(request, &record);
	forget_place(request);
}

void request_put_place_held(struct request *request)
{
	struct alloc *alloc = &request->volume->metadata->alloc;
	void (*put)(struct alloc *, pbn_t, uint32_t) =
		request->part_place_written ? alloc_put : alloc_put_unwritten;

	if (pbn_is_none(request->part_place))
		return;
	put(alloc, request->part_place, 1);
	put(alloc, request->part_second, 1);
	forget_place(request);
}

bool request_lacks_place(struct request *request, uint32_t region)
{
	struct map *map = &request->volume->metadata->map;

	if (request->part_place_kept && !map_is_unplaced(map, region))
		request_put_place_held(request);
	return pbn_is_none(map_entry(map, region).place) && pbn_is_none(request->part_place);
}

void request_put_place(struct request *request)
{
	struct volume *volume = request->volume;

	if (!request->holds_space)
		return;
	pthread_mutex_lock(&volume->metadata->lock);
	request_put_place_held(request);
	request_drop_space(request);
	pthread_mutex_unlock(&volume->metadata->lock);
}

/* --- giving it back --- */

/* Blocks of the region that are mapped; UINT32_MAX: its leaf is absent. */
static uint32_t mapped_blocks(struct volume *volume, uint32_t region)
{
	struct root_entry entry = map_entry(&volume->metadata->map, region);
	const struct frame *leaf;

	if (entry.kind != REGION_LEAF)
		return entry.length;
	leaf = cache_find(&volume->metadata->cache, page_of_leaf(region));
	return leaf ? leaf->mapped : UINT32_MAX;
}

static struct record unplace_record(struct volume *volume, uint32_t region)
{
	struct root_entry entry = map_entry(&volume->metadata->map, region);
	struct record record = {
		.kind = RECORD_UNPLACE,
		.count = PLACE_BLOCKS,
		.lbn = region_lbn(region),
		.old = entry.place,
	};

	if (root_entry_is_split(&entry)) {
		record.flags = RECORD_SPLIT;
		record.count = 1;
		record.src.v = entry.second.v;
	}
	return record;
}

bool request_has_idle_place(struct request *request, uint32_t region)
{
	struct volume *volume = request->volume;
	bool idle;

	pthread_mutex_lock(&volume->metadata->lock);
	idle = !pbn_is_none(map_entry(&volume->metadata->map, region).place) &&
	       mapped_blocks(volume, region) == 0;
	pthread_mutex_unlock(&volume->metadata->lock);
	return idle;
}

page_t request_unplace_missing(struct request *request, uint32_t region, uint32_t unmapped_blocks)
{
	struct volume *volume = request->volume;
	struct record record = unplace_record(volume, region);

	if (pbn_is_none(record.old) || mapped_blocks(volume, region) != unmapped_blocks ||
	    request->part_keeps_place || MUTANT(62)) /* kept for ever if it is not at hand */
		return PAGE_NONE;
	return edit_missing(volume->metadata, &record);
}

bool request_keep_place(struct request *request, uint32_t region)
{
	struct volume *volume = request->volume;
	struct record record;

	if (request->part_keeps_place) /* then it was wanted for more than that */
		return false;
	pthread_mutex_lock(&volume->metadata->lock);
	record = unplace_record(volume, region);
	request->part_keeps_place = !pbn_is_none(record.old) &&
				    request->part_page == edit_missing(volume->metadata, &record);
	pthread_mutex_unlock(&volume->metadata->lock);
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
	if (request->unused_records < UNPLACE_RECORDS ||
	    edit_missing(volume->metadata, &record) != PAGE_NONE)
		return;
	request_publish(request, &record);
}
