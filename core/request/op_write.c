/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * op_write - one client write, part by part, from admission to answer
 *
 *   ADMIT --> IN_PLACE -----------------------------> PART_DONE --> ADMIT ... DONE
 *    ^  \                                               ^
 *    |   v                                              |
 *    |  RESERVE --> ADMIT --> TARGETS --> [OLD] --> DATA --> PUBLISH
 *    |                          ^  \                          ^  \
 *    +- LOAD                    |   v                         |   v
 *                               +- LOAD, SPACE                +- LOAD, PLACE
 *
 *   ADMIT     the mapping is read under the stripe's lock, after the fence is held. Every block
 *             private and whole sectors: a shared hold, in place. Else an exclusive hold, for which
 *             journal room comes first
 *   TARGETS   each run of the part gets its blocks: its own, if private, else fresh ones; with the
 *             first fresh one a region without a place for a leaf gets that. Whatever is lacking is
 *             waited for with nothing but the fence and the journal room held
 *   OLD       a part of a block: what the sectors around it hold is read, inside the fence (I22)
 *   DATA      in-place runs and fresh blocks are written; nothing maps the fresh ones yet
 *   PUBLISH   when all data is written (I2): one edit a run. Then the fence falls
 *
 * With foreign payload ADMIT and DATA may find that the bytes themselves are needed: then the part
 * is given up as after an error, they are brought, and it begins again (request.c).
 *
 * On an error before PUBLISH the part's fresh blocks are put back and the map is as it was. The
 * founding promise is the first line of the graph: an overwrite of private blocks touches no
 * metadata at all.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core/base/mutant.h"
#include "core/request/request_internal.h"

#define PART_BLOCKS_MAX (ZEROS_BYTES / BLOCK_BYTES)
/* A place, an explode, and a record for each target. */
#define PART_RECORDS (2 + REQUEST_EXTENTS_MAX)

_Static_assert(PART_RECORDS <= JOURNAL_BATCH, "a part is published in one batch");

static void admit(struct request *request);
static void find_targets(struct request *request);
static void write_data(struct request *request);
static void publish(struct request *request);
static bool publish_all(struct request *request, bool *ret_need_place);

static void next_part(struct request *request)
{
	request_next_part(request, PART_BLOCKS_MAX);
	admit(request);
}

/* Fresh blocks that were not published go back. */
static void put_fresh_locked(struct request *request)
{
	struct alloc *alloc = &request->volume->metadata->alloc;

	for (uint32_t i = request->part_edit; i < request->target_count; i++)
		if (request->targets[i].fresh)
			alloc_put(alloc, request->targets[i].new, request->targets[i].blocks);
	request_put_place_held(request);
	request->target_count = 0;
	request->part_edit = 0;
	request_drop_space(request);
}

static void put_fresh(struct request *request)
{
	pthread_mutex_lock(&request->volume->metadata->lock);
	put_fresh_locked(request);
	pthread_mutex_unlock(&request->volume->metadata->lock);
}

static void fail(struct request *request, int res)
{
	put_fresh(request);
	request_finish(request, res);
}

static void part_done(struct request *request)
{
	request_unfence(request);
	request_release(request);
	request->progress_bytes += request->part_bytes;
	request->part_next(request);
}

static void write_next(struct request *request)
{
	if (request->progress_bytes == request->len_bytes)
		request_finish(request, 0);
	else
		next_part(request);
}

void write_part_then(struct request *request, void (*next)(struct request *request))
{
	request->part_next = next;
	admit(request);
}

void write_go_on(struct request *request)
{
	request->part_next = write_next;
	write_next(request);
}

void write_start(struct request *request)
{
	struct volume *volume = request->volume;

	request_count(request, &volume->counters.writes, &volume->counters.written_bytes);
	write_go_on(request);
}

/* --- admission --- */

/* Whether the block's count allows to overwrite it through its only owner (I4). */
static bool is_private(struct volume *volume, pbn_t pbn)
{
	if (MUTANT(9)) /* an uncommitted unshare is believed */
		return refs_count(&volume->metadata->refs, pbn) == 1;
	return refs_count(&volume->metadata->refs, pbn) == 1 &&
	       refs_busy_count(&volume->metadata->refs, pbn) == 0;
}

/* A LINEAR region has one flag for all of its run. What was found shared the last time is looked at
 * first, so that a run of which something stays shared costs one look more each time, not 512. */
static void look_at_run(struct volume *volume, uint32_t region)
{
	struct root_entry entry = map_entry(&volume->metadata->map, region);
	uint16_t *at = &volume->metadata->map.shared_at[region % MAP_GUESSES];

	if (entry.kind != REGION_LINEAR)
		return;
	for (uint32_t i = 0; i < entry.length; i++) {
		uint32_t index = (*at + i) % entry.length;

		if (!is_private(volume, pbn_add(entry.base, index))) {
			*at = (uint16_t)index;
			return;
		}
	}
	map_set_private(&volume->metadata->map, region);
}

/* A flagged run: 1 if all its blocks are private after all (their flags are cleared), 0 if not,
 * -EAGAIN if its refs page is absent. Stripe held. */
static int look_at_counts(struct request *request, lbn_t lbn, const struct extent *extent,
			  page_t *ret_page)
{
	struct volume *volume = request->volume;
	bool all = true;

	pthread_mutex_lock(&volume->metadata->lock);
	if (refs_frame(&volume->metadata->refs, extent->pbn) == NULL) {
		*ret_page =
			page_of_refs(&volume->metadata->super.geometry,
				     geometry_slab(&volume->metadata->super.geometry, extent->pbn));
		pthread_mutex_unlock(&volume->metadata->lock);
		return -EAGAIN;
	}
	for (uint32_t i = 0; i < extent->blocks; i++) {
		if (is_private(volume, pbn_add(extent->pbn, i)))
			map_clear_shared(&volume->metadata->map, lbn_add(lbn, i));
		else
			all = false;
	}
	if (all)
		look_at_run(volume, lbn_region(lbn));
	pthread_mutex_unlock(&volume->metadata->lock);
	return all;
}

/* Whether the part can go in place: 1, 0 or -EAGAIN. Cuts it to what was looked up. Stripe held. */
static int fits_in_place(struct request *request, page_t *ret_page)
{
	struct volume *volume = request->volume;
	uint32_t sector = volume->metadata->store->sector_bytes, blocks = 0;
	bool in_place = request->part_off_bytes % sector == 0 && request->part_bytes % sector == 0;

	for (uint32_t i = 0; i < request->extent_count; i++) {
		const struct extent *extent = &request->extents[i];
		int r = !pbn_is_none(extent->pbn);

		if (r && extent->maybe_shared && !MUTANT(14))
			r = look_at_counts(request, lbn_add(request->part_lbn, blocks), extent,
					   ret_page);
		if (r < 0)
			return r;
		in_place = in_place && r;
		blocks += extent->blocks;
	}
	assert(blocks <= request->part_blocks);
	if (part_is_whole(request)) {
		request->part_blocks = blocks;
		request->part_bytes = blocks * BLOCK_BYTES;
	}
	return in_place;
}

static void in_place_done(struct request *request)
{
	if (request->ios_res < 0)
		request_finish(request, request->ios_res);
	else
		part_done(request);
}

static void write_in_place(struct request *request)
{
	uint32_t at = 0;

	request_io_begin(request);
	for (uint32_t i = 0; i < request->extent_count; i++) {
		const struct extent *extent = &request->extents[i];
		uint32_t len = min_u32(extent->blocks * BLOCK_BYTES, request->part_bytes);

		request_io_add_data(request, STORE_WRITE,
				    pbn_off_bytes(extent->pbn) + request->part_off_bytes,
				    request->progress_bytes + at, len, request->fua);
		at += len;
	}
	request_io_submit(request, in_place_done);
}

static void loaded_for_admit(struct request *request)
{
	if (request->wait.res < 0)
		request_finish(request, -EIO);
	else
		admit(request);
}

static void reserved(struct request *request)
{
	if (request->wait.res < 0) {
		request->reserved_records = 0;
		request_finish(request, request->wait.res == -ENOSPC ? -ENOSPC : -EIO);
	} else {
		admit(request);
	}
}

/* The lookup of an admission; stripe held. True: extents are there. False: *ret_page has to be
 * loaded. */
static bool look_up(struct request *request, page_t *ret_page)
{
	struct volume *volume = request->volume;

	if (MUTANT(11) && request->hold[0].state == FENCE_HELD && request->extent_count > 0)
		return true; /* the mapping read before admission */
	request->extent_count =
		map_lookup(&volume->metadata->map, request->part_lbn, request->part_blocks,
			   request->extents, REQUEST_EXTENTS_MAX);
	*ret_page = page_of_leaf(lbn_region(request->part_lbn));
	return request->extent_count > 0;
}

static void admit(struct request *request)
{
	struct volume *volume = request->volume;
	struct fence_stripe *stripe = fence_stripe(&volume->fence, lbn_region(request->part_lbn));
	page_t page = PAGE_NONE;
	struct fence_ask ask;
	int in_place = -EAGAIN;
	bool held;

	if (volume_latched(volume)) {
		request_finish(request, -EIO);
		return;
	}
	pthread_mutex_lock(&stripe->lock);
	if (look_up(request, &page))
		in_place = fits_in_place(request, &page);
	if (in_place < 0) {
		pthread_mutex_unlock(&stripe->lock);
		request_load_page(request, page, loaded_for_admit);
		return;
	}
	if (!in_place && request->foreign != 0 && !part_is_whole(request)) {
		pthread_mutex_unlock(&stripe->lock);
		request_finish(request, STORE_NEEDS_BYTES);
		return;
	}
	if (!in_place && request->reserved_records == 0) {
		/* Journal room is not waited for with a fence held (I23). */
		if (request->hold[0].state == FENCE_HELD)
			fence_drop(stripe, &request->hold[0]);
		pthread_mutex_unlock(&stripe->lock);
		if (backing_is_lacking(&volume->metadata->backing))
			request_finish(request, -ENOSPC);
		else if (request_reserve(request, PART_RECORDS, reserved))
			admit(request);
		return;
	}
	if (request_lacks_mark(request, request->part_lbn)) {
		pthread_mutex_unlock(&stripe->lock);
		request_finish(request, -ENOSPC);
		return;
	}
	ask = (struct fence_ask){request->part_lbn, request->part_blocks,
				 in_place ? FENCE_SHARED : FENCE_EXCLUSIVE, true};
	held = request_fence(request, 0, &ask, admit);
	if (held)
		request_depend_on_map(request, lbn_region(request->part_lbn));
	pthread_mutex_unlock(&stripe->lock);
	if (!held)
		return;
	if (in_place)
		write_in_place(request);
	else
		find_targets(request);
}

/* --- targets --- */

static void loaded_for_targets(struct request *request)
{
	if (request->wait.res < 0 && !(request->part_page_any && request_pass_over(request)))
		request_finish(request, -EIO);
	else
		find_targets(request);
}

static void space_came(struct request *request)
{
	if (request->wait.res < 0)
		request_finish(request, request->wait.res);
	else
		find_targets(request);
}

/* Fresh blocks for a run, as few targets as can be. */
static int add_fresh(struct request *request, lbn_t lbn, const struct extent *extent,
		     uint32_t first, uint32_t blocks, bool stream)
{
	struct volume *volume = request->volume;

	while (blocks > 0 && request->target_count < REQUEST_EXTENTS_MAX) {
		struct target *target = &request->targets[request->target_count];
		pbn_t old = pbn_is_none(extent->pbn) ? PBN_NONE : pbn_add(extent->pbn, first);
		/* Or what is kept for places is taken for data. */
		uint64_t spare = MUTANT(94) ? UINT32_MAX : metadata_spare_blocks(volume->metadata);
		uint32_t got;
		int r = -ENOSPC;

		if (spare > 0)
			r = alloc_get(&volume->metadata->alloc, lbn,
				      (uint32_t)min_u64(blocks, spare), stream, &target->new, &got,
				      &request->part_page);
		request->part_page_any = r == -EAGAIN;
		if (r < 0)
			return r;
		target->index = lbn_index(lbn);
		target->blocks = got;
		target->old = old;
		target->fresh = true;
		request->target_count++;
		lbn = lbn_add(lbn, got);
		first += got;
		blocks -= got;
	}
	return 0;
}

static void add_own(struct request *request, lbn_t lbn, pbn_t pbn, uint32_t blocks)
{
	struct target *target = &request->targets[request->target_count++];

	*target = (struct target){lbn_index(lbn), blocks, pbn, pbn, false};
}

/* Blocks of the extent from first on that are alike: private or not. */
static uint32_t alike(struct volume *volume, const struct extent *extent, uint32_t first,
		      bool *ret_own)
{
	uint32_t n = 1;

	if (pbn_is_none(extent->pbn) || !extent->maybe_shared) {
		*ret_own = !pbn_is_none(extent->pbn);
		return extent->blocks - first;
	}
	*ret_own = is_private(volume, pbn_add(extent->pbn, first));
	while (first + n < extent->blocks &&
	       is_private(volume, pbn_add(extent->pbn, first + n)) == *ret_own)
		n++;
	return n;
}

/* A region needs a place with its first fresh block; what is written where it is needs none. */
static int place_for_fresh(struct request *request)
{
	struct root_entry entry =
		map_entry(&request->volume->metadata->map, lbn_region(request->part_lbn));
	int r = 0;

	if (pbn_is_none(entry.place) && pbn_is_none(request->part_place))
		r = request_take_place(request);
	request->part_page_any = r == -EAGAIN;
	return r;
}

static int extent_targets(struct request *request, lbn_t lbn, const struct extent *extent,
			  bool stream)
{
	struct volume *volume = request->volume;

	if (extent->maybe_shared && refs_frame(&volume->metadata->refs, extent->pbn) == NULL) {
		request->part_page =
			page_of_refs(&volume->metadata->super.geometry,
				     geometry_slab(&volume->metadata->super.geometry, extent->pbn));
		request->part_page_any = false;
		return -EAGAIN;
	}
	for (uint32_t first = 0, n; first < extent->blocks; first += n) {
		bool own;
		int r = 0;

		if (request->target_count == REQUEST_EXTENTS_MAX)
			return 0;
		n = alike(volume, extent, first, &own);
		if (own)
			add_own(request, lbn_add(lbn, first), pbn_add(extent->pbn, first), n);
		else
			r = place_for_fresh(request);
		if (r == 0 && !own)
			r = add_fresh(request, lbn_add(lbn, first), extent, first, n, stream);
		if (r < 0)
			return r;
	}
	return 0;
}

/* With the stripe and meta held: 0, -EAGAIN (part_page) or -ENOSPC. */
static int make_targets(struct request *request)
{
	struct volume *volume = request->volume;
	struct root_entry entry = map_entry(&volume->metadata->map, lbn_region(request->part_lbn));
	bool stream = entry.kind == REGION_HOLE && lbn_index(request->part_lbn) == 0 &&
		      part_is_whole(request);
	uint32_t blocks = 0;
	int r = 0;

	request->extent_count =
		map_lookup(&volume->metadata->map, request->part_lbn, request->part_blocks,
			   request->extents, REQUEST_EXTENTS_MAX);
	request->part_page = page_of_leaf(lbn_region(request->part_lbn));
	request->part_page_any = false;
	if (request->extent_count == 0)
		return -EAGAIN;
	for (uint32_t i = 0; r == 0 && i < request->extent_count; i++) {
		r = extent_targets(request, lbn_add(request->part_lbn, blocks),
				   &request->extents[i], stream);
		blocks += request->extents[i].blocks;
	}
	return r;
}

static bool any_fresh(const struct request *request)
{
	for (uint32_t i = 0; i < request->target_count; i++)
		if (request->targets[i].fresh)
			return true;
	return false;
}

/* The part ends where its targets end. */
static void cut_to_targets(struct request *request)
{
	uint32_t blocks = 0;

	for (uint32_t i = 0; i < request->target_count; i++)
		blocks += request->targets[i].blocks;
	assert(blocks > 0 && blocks <= request->part_blocks);
	if (!part_is_whole(request))
		return;
	request->part_blocks = blocks;
	request->part_bytes = blocks * BLOCK_BYTES;
}

static void find_targets(struct request *request)
{
	struct volume *volume = request->volume;
	struct fence_stripe *stripe = fence_stripe(&volume->fence, lbn_region(request->part_lbn));
	bool waits = false;
	int r;

	if (volume_latched(volume)) {
		request_finish(request, -EIO);
		return;
	}
	request->target_count = 0;
	request->part_edit = 0;
	request->part_place = PBN_NONE;
	pthread_mutex_lock(&stripe->lock);
	pthread_mutex_lock(&volume->metadata->lock);
	r = request_is_crowded(request) ? -ENOSPC : make_targets(request);
	/* What was found is written; the rest is the next part's. To give it back for a page would
	 * let a write's own reservations displace each other for ever. */
	if (request->target_count > 0)
		r = 0;
	if (!any_fresh(request))
		request_put_place_held(request);
	if (r < 0)
		put_fresh_locked(request);
	else
		request_hold_space(request);
	if (r == -ENOSPC)
		waits = request_wait_space(request, space_came);
	pthread_mutex_unlock(&volume->metadata->lock);
	pthread_mutex_unlock(&stripe->lock);
	if (r == 0) {
		cut_to_targets(request);
		write_data(request);
	} else if (r == -EAGAIN) {
		request_load_page(request, request->part_page, loaded_for_targets);
	} else if (!waits) {
		request_finish(request, volume_latched(volume) ? -EIO : r);
	}
}

/* --- data --- */

static void data_done(struct request *request)
{
	if (request->ios_res < 0) {
		fail(request, request->ios_res);
		return;
	}
	publish(request);
}

static void publish_early(struct request *request)
{
	uint32_t region = lbn_region(request->part_lbn);
	bool need_place;

	fence_lock2(&request->volume->fence, region, region);
	pthread_mutex_lock(&request->volume->metadata->lock);
	publish_all(request, &need_place);
	pthread_mutex_unlock(&request->volume->metadata->lock);
	fence_unlock2(&request->volume->fence, region, region);
}

/* part: the one block's bytes that are written, from the scratch; NULL: whole blocks of payload. */
static void submit_data(struct request *request, void *part, uint32_t off_bytes, uint32_t len_bytes)
{
	uint32_t at = 0;

	request_io_begin(request);
	request_add_place_io(request);
	for (uint32_t i = 0; i < request->target_count; i++) {
		const struct target *target = &request->targets[i];
		uint32_t len = part_is_whole(request) ? target->blocks * BLOCK_BYTES : len_bytes;
		uint64_t to_bytes = pbn_off_bytes(target->new) + off_bytes;
		bool fua = request->fua && !target->fresh;

		if (part != NULL)
			request_io_add(request, STORE_WRITE, to_bytes, part, len, fua);
		else
			request_io_add_data(request, STORE_WRITE, to_bytes,
					    request->progress_bytes + at, len, fua);
		at += len;
	}
	if (MUTANT(3)) /* the record is on its way before its data */
		publish_early(request);
	request_io_submit(request, data_done);
}

/* The sectors around a part of a block were read; the payload goes in between. */
static void old_read(struct request *request)
{
	uint32_t sector = request->volume->metadata->store->sector_bytes;
	uint32_t begin = request->part_off_bytes, end = begin + request->part_bytes;
	uint8_t *scratch = request->scratch;

	if (request->ios_res < 0 && !MUTANT(17)) {
		fail(request, request->ios_res);
		return;
	}
	if (request->data == NULL)
		memset(scratch + begin, 0, request->part_bytes);
	else
		memcpy(scratch + begin, (uint8_t *)request->data + request->progress_bytes,
		       request->part_bytes);
	count(&request->volume->counters.copied_bytes, request->part_bytes);
	if (request->targets[0].fresh) { /* to a new block, whole */
		begin = 0;
		end = BLOCK_BYTES;
	} else {
		begin -= begin % sector;
		end = (uint32_t)div_up(end, sector) * sector;
	}
	submit_data(request, scratch + begin, begin, end - begin);
}

static void write_data(struct request *request)
{
	const struct target *target = &request->targets[0];

	if (volume_yield(request->volume, "before data")) {
		request_again(request, write_data);
		return;
	}
	if (part_is_whole(request)) {
		submit_data(request, NULL, 0, 0);
		return;
	}
	request_io_begin(request);
	if (pbn_is_none(target->old))
		memset(request->scratch, 0, SCRATCH_BYTES);
	else
		request_io_add(request, STORE_READ, pbn_off_bytes(target->old), request->scratch,
			       BLOCK_BYTES, false);
	if (MUTANT(50)) /* the block is open to others while it is read */
		request_unfence(request);
	request_io_submit(request, old_read);
}

/* --- publishing --- */

static void loaded_for_publish(struct request *request)
{
	if (request->wait.res < 0)
		fail(request, -EIO);
	else
		publish(request);
}

static struct record map_record(const struct request *request, const struct target *target)
{
	return (struct record){
		.kind = RECORD_MAP,
		.count = target->blocks,
		.lbn = lbn_add(region_lbn(lbn_region(request->part_lbn)), target->index),
		.old = target->old,
		.new = target->new,
	};
}

/* Whether the region will take all targets without a leaf: as a run from its start, or a run's
 * continuation. */
static bool stays_linear(const struct request *request)
{
	const struct map *map = &request->volume->metadata->map;
	const struct target *target = &request->targets[0];
	struct record first = map_record(request, target);

	return request->target_count == 1 && target->fresh && !request_place_is_split(request) &&
	       map_kind(map, lbn_region(first.lbn)) != REGION_LEAF &&
	       map_fits(map, first.lbn, first.count, first.new);
}

/* The first page that is absent and needed for any of the part's edits, or PAGE_NONE. */
static page_t missing_page(struct request *request)
{
	struct volume *volume = request->volume;
	page_t leaf = page_of_leaf(lbn_region(request->part_lbn)), page;

	if (!stays_linear(request) && cache_find(&volume->metadata->cache, leaf) == NULL)
		return leaf;
	for (uint32_t i = 0; i < request->target_count; i++) {
		struct record record = map_record(request, &request->targets[i]);

		record.flags = RECORD_ON_ROOT; /* the leaf was looked for above */
		page = edit_missing(volume->metadata, &record);
		if (request->targets[i].fresh && page != PAGE_NONE)
			return page;
	}
	return PAGE_NONE;
}

static void publish_target(struct request *request, const struct target *target)
{
	struct volume *volume = request->volume;
	struct record record = map_record(request, target);
	uint32_t region = lbn_region(record.lbn);

	if (!map_fits(&volume->metadata->map, record.lbn, record.count, record.new)) {
		bool exploded = request_publish_explode(request, region, &request->part_page);

		assert(exploded); /* the leaf is resident */
	}
	record.flags = map_kind(&volume->metadata->map, region) == REGION_LEAF ? 0 : RECORD_ON_ROOT;
	request_publish(request, &record);
	if (!pbn_is_none(target->old))
		count(&volume->counters.cow_blocks, target->blocks);
}

/* Stripe and meta are held. All of the part's edits or none: false, and part_page or
 * *ret_need_place tells what is lacking. */
static bool publish_all(struct request *request, bool *ret_need_place)
{
	uint32_t region = lbn_region(request->part_lbn);

	if (!any_fresh(request)) {
		put_fresh_locked(request);
		return true;
	}
	*ret_need_place = request_lacks_place(request, region);
	request->part_page = missing_page(request);
	if (*ret_need_place || request->part_page != PAGE_NONE)
		return false;
	request_publish_place(request, region);
	for (; request->part_edit < request->target_count; request->part_edit++)
		if (request->targets[request->part_edit].fresh)
			publish_target(request, &request->targets[request->part_edit]);
	request_drop_space(request);
	return true;
}

/* A discard emptied the region while the data was written, and took its place. Once more from the
 * targets on: a place is not waited for with blocks in hand. */
static void lost_place(struct request *request)
{
	put_fresh(request);
	find_targets(request);
}

static void publish(struct request *request)
{
	struct volume *volume = request->volume;
	struct fence_stripe *stripe = fence_stripe(&volume->fence, lbn_region(request->part_lbn));
	bool need_place = false, all;

	if (volume_yield(volume, "before publish")) {
		request_again(request, publish);
		return;
	}
	if (volume_latched(volume)) {
		fail(request, -EIO);
		return;
	}
	pthread_mutex_lock(&stripe->lock);
	pthread_mutex_lock(&volume->metadata->lock);
	all = publish_all(request, &need_place);
	pthread_mutex_unlock(&volume->metadata->lock);
	pthread_mutex_unlock(&stripe->lock);
	if (all)
		part_done(request);
	else if (need_place)
		lost_place(request);
	else
		request_load_page(request, request->part_page, loaded_for_publish);
}
