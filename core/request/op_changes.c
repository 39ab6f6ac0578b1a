/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * op_changes - which regions changed since a generation
 *
 *   CUT --> DURABLE --> LIST --> LIST ... DONE
 *     \                  ^
 *      +-----------------+
 *
 *   CUT -> DURABLE  the generation that is answered has ended; a checkpoint makes that durable, and
 *                   with it all that was changed in it
 *   CUT -> LIST     it is durable already, or the volume is read-only
 *   LIST            the stamps, some regions at a time; a region that changes meanwhile has a stamp
 *                   beyond the generation that is answered, whether or not it is listed
 *
 * What cannot be known (the volume is not tracked, the generation lies in the future) is answered
 * with the whole range, and complete is false.
 */
#include <errno.h>

#include "core/request/request_internal.h"

#define LIST_REGIONS 65536u /* before others have a turn */

/* False: there is no room for it. */
static bool add_range(struct request *request, uint64_t begin_bytes, uint64_t end_bytes)
{
	struct map_run *last = request->runs_count ? &request->runs[request->runs_count - 1] : NULL;

	if (last && last->off_bytes + last->len_bytes == begin_bytes) {
		last->len_bytes += end_bytes - begin_bytes;
		return true;
	}
	if (request->runs_count == request->runs_max)
		return false;
	request->runs[request->runs_count++] =
		(struct map_run){begin_bytes, end_bytes - begin_bytes, PBN_NONE, 0};
	return true;
}

static void finish(struct request *request)
{
	request->mapped_to_bytes = request->progress_bytes;
	request_finish(request, 0);
}

static void all(struct request *request)
{
	request->complete = false;
	if (request->len_bytes == 0 ||
	    add_range(request, request->off_bytes, request->off_bytes + request->len_bytes))
		request->progress_bytes = request->len_bytes;
	finish(request);
}

static void list(struct request *request)
{
	const struct tracking *tracking = &request->volume->tracking;
	uint64_t end_bytes = request->off_bytes + request->len_bytes;
	uint64_t at_bytes = request->off_bytes + request->progress_bytes;
	uint32_t region = (uint32_t)(at_bytes / REGION_BYTES);
	uint32_t end = (uint32_t)div_up(end_bytes, REGION_BYTES);
	uint32_t stop = min_u32(end, region + LIST_REGIONS), first, count;

	while (tracking_next(tracking, request->since, region, stop, &first, &count)) {
		uint64_t begin = first * REGION_BYTES, after = (first + count) * REGION_BYTES;

		region = first + count;
		if (begin < request->off_bytes)
			begin = request->off_bytes;
		if (!add_range(request, begin, min_u64(after, end_bytes))) {
			request->progress_bytes = begin - request->off_bytes;
			finish(request);
			return;
		}
	}
	request->progress_bytes = min_u64(stop * REGION_BYTES, end_bytes) - request->off_bytes;
	if (stop < end)
		request_again(request, list);
	else
		finish(request);
}

static void answer(struct request *request)
{
	if (request->complete)
		list(request);
	else
		all(request);
}

static void durable(struct request *request)
{
	if (request->wait.res < 0)
		request_finish(request, -EIO);
	else
		answer(request);
}

void changes_start(struct request *request)
{
	struct volume *volume = request->volume;
	int r;

	request->fua = false;
	if (volume->tracking.areas == 0) {
		all(request);
		return;
	}
	request->step = durable;
	pthread_mutex_lock(&volume->metadata->lock);
	r = tracking_cut(&volume->tracking, &request->generation);
	request->complete = request->since <= request->generation;
	if (r > 0)
		checkpoint_start(&volume->metadata->checkpoint, request->worker, &request->wait);
	pthread_mutex_unlock(&volume->metadata->lock);
	if (r < 0)
		request_finish(request, r);
	else if (r == 0)
		answer(request);
}
