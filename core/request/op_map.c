/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * op_map - tells the runs of the remap table: hole, private, shared by how many
 *
 *   LOOK_UP --> LOOK_UP ... DONE
 *      ^  \
 *      |   v
 *      +- LOAD    a leaf or a refs page
 *
 * Each run is true at the moment of its own lookup; a map of a volume in use is no snapshot.
 */
#include <errno.h>

#include "core/base/mutant.h"
#include "core/request/request_internal.h"

#define SPINS_MAX 1024u

static void next_part(struct request *request);

static void loaded(struct request *request)
{
	if (request->wait.res < 0)
		request_finish(request, -EIO);
	else
		next_part(request);
}

/* Appends to the last run, or begins one. False: there is no room. */
static bool add_run(struct request *request, uint64_t off_bytes, uint64_t len_bytes, pbn_t pbn,
		    uint32_t references)
{
	struct map_run *last = request->runs_count ? &request->runs[request->runs_count - 1] : NULL;
	bool joins =
		last && last->references == references &&
		last->off_bytes + last->len_bytes == off_bytes &&
		(pbn_is_none(pbn) ? pbn_is_none(last->pbn)
				  : !pbn_is_none(last->pbn) &&
					    last->pbn.v + last->len_bytes / BLOCK_BYTES == pbn.v);

	if (joins) {
		last->len_bytes += len_bytes;
	} else if (request->runs_count < request->runs_max) {
		request->runs[request->runs_count++] =
			(struct map_run){off_bytes, len_bytes, pbn, references};
	} else {
		return false;
	}
	request->progress_bytes += len_bytes;
	return true;
}

/* One extent, cut where the references change; meta is held. 1: done, 0: no room, -EAGAIN:
 * part_page is absent. */
static int add_extent(struct request *request, const struct extent *extent)
{
	struct refs *refs = &request->volume->metadata->refs;
	uint64_t at = request->off_bytes + request->progress_bytes;

	if (pbn_is_none(extent->pbn))
		return add_run(request, at, blocks_to_bytes(extent->blocks), PBN_NONE, 0);
	if (MUTANT(25) && refs_frame(refs, extent->pbn) == NULL)
		return add_run(request, at, blocks_to_bytes(extent->blocks), PBN_NONE, 0);
	if (refs_frame(refs, extent->pbn) == NULL) {
		request->part_page =
			page_of_refs(refs->geometry, geometry_slab(refs->geometry, extent->pbn));
		return -EAGAIN;
	}
	for (uint32_t i = 0, n; i < extent->blocks; i += n) {
		uint16_t references = refs_count(refs, pbn_add(extent->pbn, i));

		n = 1;
		while (i + n < extent->blocks &&
		       refs_count(refs, pbn_add(extent->pbn, i + n)) == references)
			n++;
		if (!add_run(request, at + blocks_to_bytes(i), blocks_to_bytes(n),
			     pbn_add(extent->pbn, i), references))
			return 0;
	}
	return 1;
}

/* With the stripe held: what the region says, as far as room and pages go. */
static int add_part(struct request *request)
{
	struct volume *volume = request->volume;
	int r = 1;

	request->part_page = page_of_leaf(lbn_region(request->part_lbn));
	request->extent_count =
		map_lookup(&volume->metadata->map, request->part_lbn, request->part_blocks,
			   request->extents, REQUEST_EXTENTS_MAX);
	if (request->extent_count == 0)
		return -EAGAIN;
	pthread_mutex_lock(&volume->metadata->lock);
	for (uint32_t i = 0; r > 0 && i < request->extent_count; i++)
		r = add_extent(request, &request->extents[i]);
	pthread_mutex_unlock(&volume->metadata->lock);
	return r;
}

static void next_part(struct request *request)
{
	struct fence_stripe *stripe;
	int r = 1;

	while (r > 0 && request->progress_bytes < request->len_bytes &&
	       !request_cancelled(request)) {
		request_next_part(request, REGION_BLOCKS);
		stripe = fence_stripe(&request->volume->fence, lbn_region(request->part_lbn));
		pthread_mutex_lock(&stripe->lock);
		r = add_part(request);
		pthread_mutex_unlock(&stripe->lock);
		if (r > 0 && ++request->yielded % SPINS_MAX == 0) {
			request_again(request, next_part);
			return;
		}
	}
	request->mapped_to_bytes = request->progress_bytes;
	if (r == -EAGAIN)
		request_load_page(request, request->part_page, loaded);
	else
		request_finish(request, request_cancelled(request) ? -ECANCELED : 0);
}

void map_start(struct request *request)
{
	if (request->off_bytes % BLOCK_BYTES != 0 || request->len_bytes % BLOCK_BYTES != 0)
		request_finish(request, -EINVAL);
	else
		next_part(request);
}
