/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * op_unmap - write zeroes and discard: whole blocks become holes
 *
 *   LOOK_UP --> RESERVE --> FENCED --> PUBLISH --> LOOK_UP ... DONE
 *     |  ^                     ^  \
 *     |  +--- nothing mapped   +- LOAD, PLACE
 *     v
 *   PARTIAL   of a block: ZERO writes zeros there (op_write.c), unless it is a hole, DISCARD leaves
 *             it alone
 *
 *   LOOK_UP -> RESERVE  something is mapped in the part: journal room first, then the fence
 *   FENCED  -> PUBLISH  looked up again under the fence; a run at a time loses its blocks, the last
 *                       first, so that a LINEAR region shrinks instead of exploding; what empties
 *                       its region gives the place back. So does a part that finds its region
 *                       empty, but with a place
 *   FENCED  -> PLACE    a run that has no place is cut in its midst: two blocks are kept for that
 *
 * A part may need what the backing has no space for, a place or the mark of its area. ZERO ends
 * there with ENOSPC; DISCARD, which is what a backing is emptied with, goes on with the next part
 * and answers ENOSPC at its end, unless it is a hint.
 *
 * A request that is cancelled ends before its next part. What it has done so far stays.
 *
 * ZERO with no_hole keeps the blocks allocated: it is a write of zeros. The backing store is not
 * asked to forget anything here; that happens when the edits are settled (pending.h, I13).
 */
#include <assert.h>
#include <errno.h>

#include "core/base/mutant.h"
#include "core/request/request_internal.h"

/* A place, an explode, a record for each extent, an unplace. */
#define PART_RECORDS (2 + REQUEST_EXTENTS_MAX + UNPLACE_RECORDS)
#define SPINS_MAX    4096u /* regions passed over before others have a turn */

static void next_part(struct request *request);
static void fenced(struct request *request);

static void go_on(struct request *request)
{
	if (request->progress_bytes == request->len_bytes)
		request_finish(request, request->part_left ? -ENOSPC : 0);
	else if (++request->yielded % SPINS_MAX == 0)
		request_again(request, next_part);
	else
		next_part(request);
}

static void part_done(struct request *request)
{
	request_put_place(request);
	request_unfence(request);
	request_release(request);
	request->progress_bytes += request->part_bytes;
	go_on(request);
}

static void end(struct request *request, int res)
{
	request_put_place(request);
	request_finish(request, res);
}

static void failed(struct request *request)
{
	end(request, request->wait.res == -ENOSPC ? -ENOSPC : -EIO);
}

static void loaded_for_look(struct request *request)
{
	if (request->wait.res < 0)
		failed(request);
	else
		next_part(request);
}

static void loaded_for_publish(struct request *request)
{
	if (request->wait.res < 0 && !request_keep_place(request, lbn_region(request->part_lbn)))
		failed(request);
	else
		fenced(request);
}

static void lacks_space(struct request *request)
{
	if (request->op != REQUEST_DISCARD) {
		end(request, -ENOSPC);
		return;
	}
	request->part_left = !request->hint;
	part_done(request);
}

static void place_came(struct request *request)
{
	if (request->place_res == 0)
		fenced(request);
	else if (request->place_res == -ENOSPC)
		lacks_space(request);
	else
		end(request, request->place_res);
}

static void take_fence(struct request *request)
{
	struct volume *volume = request->volume;
	struct fence_stripe *stripe = fence_stripe(&volume->fence, lbn_region(request->part_lbn));
	struct fence_ask ask = {request->part_lbn, request->part_blocks, FENCE_EXCLUSIVE, true};
	bool held;

	if (request_lacks_mark(request, request->part_lbn)) {
		lacks_space(request);
		return;
	}
	pthread_mutex_lock(&stripe->lock);
	held = request_fence(request, 0, &ask, take_fence);
	pthread_mutex_unlock(&stripe->lock);
	if (held)
		fenced(request);
}

static void reserved(struct request *request)
{
	int res = request->wait.res;

	if (res < 0)
		request->reserved_records = 0;
	/* The backing lacks space for metadata: then this is what may bring some. */
	if (res == -ENOSPC && !request_reserve(request, PART_RECORDS, reserved))
		return;
	if (res < 0 && res != -ENOSPC)
		failed(request);
	else
		take_fence(request);
}

static bool any_mapped(const struct request *request)
{
	for (uint32_t i = 0; i < request->extent_count; i++)
		if (!pbn_is_none(request->extents[i].pbn))
			return true;
	return false;
}

static void cut_part(struct request *request)
{
	uint32_t blocks = 0;

	for (uint32_t i = 0; i < request->extent_count; i++)
		blocks += request->extents[i].blocks;
	request->part_blocks = blocks;
	request->part_bytes = blocks * BLOCK_BYTES;
}

/* Reads the mapping of the part; stripe held. */
static bool look_up(struct request *request)
{
	request->extent_count =
		map_lookup(&request->volume->metadata->map, request->part_lbn, request->part_blocks,
			   request->extents, REQUEST_EXTENTS_MAX);
	if (request->extent_count == 0)
		return false;
	request_depend_on_map(request, lbn_region(request->part_lbn));
	return true;
}

static void partial_done(struct request *request)
{
	go_on(request);
}

static void next_part(struct request *request)
{
	struct volume *volume = request->volume;
	struct fence_stripe *stripe;
	bool found, idle_place, partial;

	if (volume_latched(volume) || request_cancelled(request)) {
		request_finish(request, request_cancelled(request) ? -ECANCELED : -EIO);
		return;
	}
	if (MUTANT(30)) /* an offset in 32 bits */
		request->off_bytes = (uint32_t)request->off_bytes;
	request_next_part(request, request->no_hole ? ZEROS_BYTES / BLOCK_BYTES : REGION_BLOCKS);
	if (!part_is_whole(request) && request->op == REQUEST_DISCARD && !MUTANT(28)) {
		request->progress_bytes += request->part_bytes;
		go_on(request);
		return;
	}
	if (request->op == REQUEST_ZERO && request->no_hole) {
		write_part_then(request, partial_done);
		return;
	}
	partial = request->op == REQUEST_ZERO && !part_is_whole(request);
	stripe = fence_stripe(&volume->fence, lbn_region(request->part_lbn));
	pthread_mutex_lock(&stripe->lock);
	found = look_up(request);
	idle_place = found && request_has_idle_place(request, lbn_region(request->part_lbn));
	pthread_mutex_unlock(&stripe->lock);
	if (!found) {
		request_load_page(request, page_of_leaf(lbn_region(request->part_lbn)),
				  loaded_for_look);
		return;
	}
	if (part_is_whole(request))
		cut_part(request);
	if (partial && any_mapped(request))
		write_part_then(request, partial_done);
	else if (partial || (!any_mapped(request) && !idle_place))
		part_done(request);
	else if (request_reserve(request, PART_RECORDS, reserved))
		take_fence(request);
}

/* --- under the fence --- */

static bool publish_run(struct request *request, lbn_t lbn, const struct extent *extent)
{
	struct volume *volume = request->volume;
	uint32_t region = lbn_region(lbn);
	struct record record = {
		.kind = RECORD_UNMAP,
		.flags = RECORD_ON_ROOT,
		.count = extent->blocks,
		.lbn = lbn,
		.old = extent->pbn,
	};

	request->part_page = edit_missing(volume->metadata, &record);
	if (request->part_page != PAGE_NONE)
		return false;
	if (!map_fits_unmap(&volume->metadata->map, lbn, extent->blocks)) {
		request_publish_place(request, region); /* which may explode it, too */
		if (map_kind(&volume->metadata->map, region) != REGION_LEAF &&
		    !request_publish_explode(request, region, &request->part_page))
			return false;
	}
	record.flags = map_kind(&volume->metadata->map, region) == REGION_LEAF ? 0 : RECORD_ON_ROOT;
	request_publish(request, &record);
	return true;
}

/* The first absent page that any of the part's edits needs, or PAGE_NONE. */
static page_t missing_page(struct request *request)
{
	struct volume *volume = request->volume;
	lbn_t end = lbn_add(request->part_lbn, request->part_blocks);
	page_t leaf = page_of_leaf(lbn_region(request->part_lbn));
	uint32_t unmapped = 0;

	for (uint32_t i = request->extent_count; i-- > 0;) {
		const struct extent *extent = &request->extents[i];
		struct record record = {.kind = RECORD_UNMAP, .flags = RECORD_ON_ROOT};
		page_t page;

		end.v -= extent->blocks;
		record.lbn = end;
		record.old = extent->pbn;
		record.count = extent->blocks;
		if (pbn_is_none(extent->pbn))
			continue;
		unmapped += extent->blocks;
		page = edit_missing(volume->metadata, &record);
		if (page != PAGE_NONE)
			return page;
		if (!map_fits_unmap(&volume->metadata->map, end, extent->blocks) &&
		    cache_find(&volume->metadata->cache, leaf) == NULL)
			return leaf;
	}
	return request_unplace_missing(request, lbn_region(request->part_lbn), unmapped);
}

/* Whether any of them cuts a run that has no place. Stripe and meta are held. */
static bool needs_place(struct request *request)
{
	lbn_t end = lbn_add(request->part_lbn, request->part_blocks);
	bool fits = true;

	for (uint32_t i = request->extent_count; i-- > 0;) {
		const struct extent *extent = &request->extents[i];

		end.v -= extent->blocks;
		fits = fits &&
		       (pbn_is_none(extent->pbn) ||
			map_fits_unmap(&request->volume->metadata->map, end, extent->blocks));
	}
	return request_lacks_place(request, lbn_region(request->part_lbn)) && !fits;
}

/* Stripe and meta are held: from the last run to the first. False: a place is needed, or part_page
 * has to be loaded. */
static bool publish_all(struct request *request, bool *ret_need_place)
{
	lbn_t end = lbn_add(request->part_lbn, request->part_blocks);

	/* All or nothing: the journal room is for one batch. */
	request->part_page = missing_page(request);
	*ret_need_place = needs_place(request);
	if (*ret_need_place || request->part_page != PAGE_NONE)
		return false;
	for (uint32_t i = request->extent_count; i-- > 0;) {
		const struct extent *extent = &request->extents[i];

		end.v -= extent->blocks;
		if (!pbn_is_none(extent->pbn) && !publish_run(request, end, extent))
			return false;
	}
	request_publish_unplace(request, lbn_region(request->part_lbn));
	request_put_place_held(request);
	request_drop_space(request);
	return true;
}

static void fenced(struct request *request)
{
	struct volume *volume = request->volume;
	struct fence_stripe *stripe = fence_stripe(&volume->fence, lbn_region(request->part_lbn));
	bool need_place = false, all;

	if (volume_latched(volume)) {
		end(request, -EIO);
		return;
	}
	pthread_mutex_lock(&stripe->lock);
	all = MUTANT(31) || look_up(request); /* or what was found before the fence */
	request->part_page = page_of_leaf(lbn_region(request->part_lbn));
	if (all && part_is_whole(request))
		cut_part(request);
	if (all) {
		pthread_mutex_lock(&volume->metadata->lock);
		all = publish_all(request, &need_place);
		pthread_mutex_unlock(&volume->metadata->lock);
	}
	pthread_mutex_unlock(&stripe->lock);
	if (all)
		part_done(request);
	else if (need_place)
		request_get_place(request, place_came);
	else
		request_load_page(request, request->part_page, loaded_for_publish);
}

void unmap_start(struct request *request)
{
	struct volume *volume = request->volume;

	count(request->op == REQUEST_ZERO ? &volume->counters.zeroes : &volume->counters.discards,
	      1);
	request->data = NULL; /* what has to be written is zeros */
	if (request->len_bytes == 0)
		request_finish(request, 0);
	else
		next_part(request);
}
