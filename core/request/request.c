/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/request/request.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "core/base/mutant.h"
#include "core/request/request_internal.h"

static void fenced(struct task *task)
{
	struct fence_hold *hold = container_of(task, struct fence_hold, task);
	struct request *request = hold->owner;

	if (volume_yield(request->volume, "fence given")) {
		worker_post(task);
		return;
	}
	request->step(request);
}

static void woken(struct task *task)
{
	struct wait *wait = container_of(task, struct wait, task);
	struct request *request = container_of(wait, struct request, wait);

	assert(request->magic == REQUEST_MAGIC);
	if (volume_yield(request->volume, "woken")) {
		worker_post(task);
		return;
	}
	request->step(request);
}

static bool in_range(const struct request *request)
{
	uint64_t size_bytes = volume_size_bytes(request->volume);

	if (MUTANT(42))
		return request->off_bytes + request->len_bytes <= size_bytes;
	return request->off_bytes <= size_bytes &&
	       request->len_bytes <= size_bytes - request->off_bytes;
}

static bool changes(enum request_op op)
{
	return op != REQUEST_READ && op != REQUEST_MAP && op != REQUEST_FLUSH &&
	       op != REQUEST_CHANGES;
}

static void init(struct request *request)
{
	request->magic = REQUEST_MAGIC;
	request->progress_bytes = 0;
	request->lsn = 0;
	request->reserved_records = 0;
	request->unused_records = 0;
	request->part_place = PBN_NONE;
	request->part_place_kept = false;
	request->part_left = false;
	request->holds_space = false;
	request->part_edit = 0;
	request->target_count = 0;
	request->io_count = 0;
	request->yielded = 0;
	request->runs_count = 0;
	request->mapped_to_bytes = 0;
	request->generation = 0;
	request->complete = false;
	request->same = (struct same_result){0};
	wait_init(&request->wait, request->worker, woken);
	worker_inflight_init(&request->inflight);
	for (unsigned i = 0; i < 2; i++) {
		request->hold[i] = (struct fence_hold){
			.owner = request,
			.task = {.worker = request->worker, .run = fenced},
		};
		request->watch[i] = (struct fence_watch){0};
	}
}

void request_submit(struct request *request)
{
	static void (*const start[])(struct request *) = {
		[REQUEST_READ] = read_start,	   [REQUEST_WRITE] = write_start,
		[REQUEST_ZERO] = unmap_start,	   [REQUEST_DISCARD] = unmap_start,
		[REQUEST_FLUSH] = flush_start,	   [REQUEST_MAP] = map_start,
		[REQUEST_SAME] = same_start,	   [REQUEST_CLONE] = same_start,
		[REQUEST_CHANGES] = changes_start,
	};
	struct volume *volume = request->volume;

	assert(request->foreign == 0 ||
	       (volume->metadata->store->reaches_foreign && request->bring_bytes != NULL &&
		(request->op == REQUEST_READ || request->op == REQUEST_WRITE)));
	init(request);
	if (request->op != REQUEST_FLUSH && !in_range(request))
		request_finish(request, -EINVAL);
	else if (changes(request->op) && volume->options.read_only)
		request_finish(request, -EROFS);
	else if (request->op != REQUEST_READ && request->op != REQUEST_MAP &&
		 volume_latched(volume))
		request_finish(request, -EIO);
	else
		start[request->op](request);
}

void request_next_part(struct request *request, uint32_t max_blocks)
{
	uint64_t at = request->off_bytes + request->progress_bytes;
	uint64_t left = request->len_bytes - request->progress_bytes;
	uint32_t in_block = (uint32_t)(at % BLOCK_BYTES), blocks;

	assert(left > 0);
	request->part_lbn = lbn_of_bytes(at);
	request->part_off_bytes = in_block;
	request->part_place = PBN_NONE;
	request->place_looks = 0;
	request->part_keeps_place = false;
	request->part_edit = 0;
	request->target_count = 0;
	request->hold[0].ticket = 0;
	request->hold[1].ticket = 0;
	if (in_block != 0 || left < BLOCK_BYTES) {
		request->part_blocks = 1;
		request->part_bytes = (uint32_t)min_u64(left, BLOCK_BYTES - in_block);
		return;
	}
	blocks = min_u32(max_blocks, REGION_BLOCKS - lbn_index(request->part_lbn));
	request->part_blocks = (uint32_t)min_u64(blocks, left / BLOCK_BYTES);
	request->part_bytes = request->part_blocks * BLOCK_BYTES;
}

void request_load_page(struct request *request, page_t page, void (*step)(struct request *request))
{
	struct volume *volume = request->volume;

	request->step = step;
	pthread_mutex_lock(&volume->metadata->lock);
	if (cache_find(&volume->metadata->cache, page) != NULL)
		wait_wake(&request->wait, 0);
	else
		cache_load(&volume->metadata->cache, page, &request->wait);
	pthread_mutex_unlock(&volume->metadata->lock);
}

bool request_pass_over(struct request *request)
{
	struct volume *volume = request->volume;
	uint32_t slab = request->part_page - volume->metadata->super.geometry.regions;
	int res = request->wait.res;
	bool passed, lost;

	if (volume_latched(volume))
		return false;
	pthread_mutex_lock(&volume->metadata->lock);
	passed = alloc_pass_over(&volume->metadata->alloc, request->part_page, res, &lost);
	if (lost)
		volume_log(
			volume,
			"slab %" PRIu32 " is left out: nothing is written to its %" PRIu64
			" free bytes, as its refs page cannot be read (%s)",
			slab,
			blocks_to_bytes((uint32_t)volume->metadata->refs.slabs[slab].free_blocks),
			res == -EUCLEAN ? "damaged" : strerror(-res));
	pthread_mutex_unlock(&volume->metadata->lock);
	return passed;
}

void request_wait_commit(struct request *request, void (*step)(struct request *request))
{
	request->step = step;
	journal_wait(&request->volume->metadata->journal, request->lsn, &request->wait);
}

bool request_wait_space(struct request *request, void (*step)(struct request *request))
{
	struct volume *volume = request->volume;
	bool hope = pending_any(&volume->metadata->pending) ||
		    volume->metadata->pending.quarantine.count > 0 ||
		    volume->metadata->space_holders > 0;

	assert(!request->holds_space); /* or two could wait for each other */
	if (!hope || volume_latched(volume) || backing_is_lacking(&volume->metadata->backing) ||
	    MUTANT(29) || MUTANT(20))
		return false;
	request->step = step;
	list_add_tail(&volume->metadata->space_waits, &request->wait.node);
	pending_reuse(&volume->metadata->pending);
	journal_kick(&volume->metadata->journal, request->worker);
	if (volume->metadata->pending.quarantine.count > 0)
		checkpoint_start(&volume->metadata->checkpoint, request->worker, NULL);
	metadata_settle(volume->metadata, request->worker->lane);
	return true;
}

bool request_is_crowded(const struct request *request)
{
	const struct volume *volume = request->volume;

	return volume->metadata->space_holders > 0 &&
	       volume->metadata->cache.busy_pages > volume->metadata->cache.frame_count / 2;
}

void request_hold_space(struct request *request)
{
	request->volume->metadata->space_holders += !request->holds_space;
	request->holds_space = true;
}

void request_drop_space(struct request *request)
{
	struct volume *volume = request->volume;

	if (!request->holds_space)
		return;
	request->holds_space = false;
	volume->metadata->space_holders--;
	wait_wake_all(&volume->metadata->space_waits, 0);
}

bool request_lacks_mark(const struct request *request, lbn_t lbn)
{
	const struct volume *volume = request->volume;

	return backing_is_lacking(&volume->metadata->backing) &&
	       !tracking_is_open(&volume->tracking, lbn_region(lbn));
}

bool request_reserve(struct request *request, uint32_t records,
		     void (*step)(struct request *request))
{
	struct metadata *metadata = request->volume->metadata;
	/* These ask again, and wait: they may make space (op_unmap.c). */
	bool waits = request->op == REQUEST_DISCARD ||
		     (request->op == REQUEST_ZERO && !request->no_hole);
	bool got;

	assert(request->reserved_records == 0);
	request->step = step;
	request->reserved_records = records;
	request->unused_records = records;
	pthread_mutex_lock(&metadata->lock);
	got = journal_reserve(&metadata->journal, records, &request->wait);
	/* Want of space that came up since the caller looked was told to who waited then. */
	if (!got && !waits && backing_is_lacking(&metadata->backing))
		journal_refuse(&metadata->journal, -ENOSPC);
	pthread_mutex_unlock(&metadata->lock);
	return got;
}

void request_release_held(struct request *request)
{
	if (request->reserved_records == 0)
		return;
	journal_release(&request->volume->metadata->journal, request->unused_records,
			request->reserved_records);
	request->reserved_records = 0;
	request->unused_records = 0;
}

void request_release(struct request *request)
{
	if (request->reserved_records == 0)
		return;
	pthread_mutex_lock(&request->volume->metadata->lock);
	request_release_held(request);
	pthread_mutex_unlock(&request->volume->metadata->lock);
}

void request_again(struct request *request, void (*step)(struct request *request))
{
	request->step = step;
	request->wait.res = 0;
	worker_post(&request->wait.task);
}

bool request_fence(struct request *request, unsigned which, const struct fence_ask *ask,
		   void (*step)(struct request *request))
{
	struct volume *volume = request->volume;
	struct fence_hold *hold = &request->hold[which];
	struct fence_stripe *stripe = fence_stripe(&volume->fence, lbn_region(ask->lbn));

	request->step = step;
	if (ask->changes && !tracking_is_open(&volume->tracking, lbn_region(ask->lbn)) &&
	    tracking_ask(&volume->tracking, lbn_region(ask->lbn), &request->wait))
		return false;
	if (hold->state == FENCE_HELD && ask->mode <= hold->mode)
		return true;
	if (hold->state == FENCE_HELD)
		fence_drop(stripe, hold); /* shared is not enough any more; the ticket stays */
	hold->begin = ask->lbn.v;
	hold->end = ask->lbn.v + ask->blocks;
	hold->mode = ask->mode;
	hold->changes = ask->changes;
	hold->passes = request->hold[1 - which].state == FENCE_HELD;
	if (MUTANT(54) && ask->changes) /* stamped before it changes */
		tracking_stamp(&volume->tracking, lbn_region(ask->lbn));
	return fence_take(&volume->fence, stripe, hold);
}

void request_unfence_one(struct request *request, unsigned which)
{
	struct fence_hold *hold = &request->hold[which];
	uint32_t region = lbn_region((lbn_t){hold->begin});

	if (hold->state != FENCE_HELD)
		return;
	if (hold->changes && !MUTANT(54))
		tracking_stamp(&request->volume->tracking, region);
	fence_drop(fence_stripe(&request->volume->fence, region), hold);
	hold->ticket = 0;
}

void request_unfence(struct request *request)
{
	for (unsigned i = 0; i < 2; i++) {
		const struct fence_hold *hold = &request->hold[i];
		struct fence_stripe *stripe =
			fence_stripe(&request->volume->fence, lbn_region((lbn_t){hold->begin}));

		if (hold->state != FENCE_HELD)
			continue;
		pthread_mutex_lock(&stripe->lock);
		request_unfence_one(request, i);
		pthread_mutex_unlock(&stripe->lock);
	}
}

void request_io_begin(struct request *request)
{
	request->io_count = 0;
	request->ios_res = 0;
}

static void note_error(struct request *request, const struct store_io *io, int res)
{
	struct volume *volume = request->volume;
	bool first = request->ios_res == 0;

	if (first)
		request->ios_res = store_error(io, res);
	if (!first || (io->foreign != 0 && res == STORE_NEEDS_BYTES))
		return;
	if (io->op != STORE_WRITE)
		count(&volume->counters.read_errors, 1);
	else if (store_lacks_space(res))
		volume_data_lacks(volume, res);
	else
		count(&volume->counters.write_errors, 1);
}

static void io_done(struct store_io *io, int res)
{
	struct request *request = io->context;

	assert(request->magic == REQUEST_MAGIC);
	if (res < 0)
		note_error(request, io, res);
	if (res >= 0 && io->foreign != 0)
		count(&request->volume->counters.zero_copy_bytes, io->len_bytes);
	if (--request->ios_pending == 0)
		request->after_io(request);
}

void request_io_add(struct request *request, enum store_op op, uint64_t off_bytes, void *buf,
		    uint64_t len_bytes, bool fua)
{
	struct store_io *io = &request->ios[request->io_count++];

	assert(request->io_count <= REQUEST_IOS_MAX);
	*io = (struct store_io){
		.op = op,
		.fua = fua,
		.lane = request->worker->lane,
		.off_bytes = off_bytes,
		.len_bytes = len_bytes,
		.buf = buf,
		.done = io_done,
		.context = request,
	};
}

void request_io_add_data(struct request *request, enum store_op op, uint64_t off_bytes,
			 uint64_t data_off_bytes, uint64_t len_bytes, bool fua)
{
	uintptr_t at = (uintptr_t)request->data + data_off_bytes;

	if (request->foreign == 0 && request->data == NULL)
		at = (uintptr_t)request->volume->zeros;
	request_io_add(request, op, off_bytes, (void *)at, len_bytes, fua);
	request->ios[request->io_count - 1].foreign = request->foreign;
}

void request_io_add_compare(struct request *request, uint64_t off_bytes, uint64_t other_off_bytes,
			    uint64_t len_bytes)
{
	request_io_add(request, STORE_COMPARE, off_bytes, NULL, len_bytes, false);
	request->ios[request->io_count - 1].other_off_bytes = other_off_bytes;
	request->ios[request->io_count - 1].urgent = request->piece_fenced;
}

void request_io_submit(struct request *request, void (*step)(struct request *request))
{
	request->after_io = step;
	request->ios_pending = request->io_count;
	/* Nothing but reads reaches the store of a latched volume (I11), also of what was admitted
	 * before. */
	if (request->io_count > 0 && request->ios[request->io_count - 1].op == STORE_WRITE &&
	    volume_latched(request->volume)) {
		request->ios_res = -EIO;
		request->io_count = 0;
	}
	if (request->io_count == 0) {
		step(request);
		return;
	}
	for (uint32_t i = 0, n = request->io_count; i < n; i++)
		store_submit(request->volume->metadata->store, &request->ios[i]);
}

void request_enter(struct request *request)
{
	worker_enter(request->worker, &request->inflight,
		     journal_next_lsn(&request->volume->metadata->journal));
}

void request_leave(struct request *request)
{
	metadata_leave(request->volume->metadata, request->worker, &request->inflight);
}

void request_depend_on_map(struct request *request, uint32_t region)
{
	uint64_t lsn;

	if ((!request->fua && !request->lasting) || MUTANT(51))
		return;
	lsn = map_lsn(&request->volume->metadata->map, region);
	if (lsn > request->lsn)
		request->lsn = lsn;
}

static void finish(struct request *request, int res)
{
	request_leave(request);
	assert(request->hold[0].state == FENCE_FREE && request->hold[1].state == FENCE_FREE);
	request->magic = 0;
	request->done(request, res);
}

static void committed(struct request *request)
{
	finish(request, request->wait.res < 0 ? -EIO : 0);
}

/* What a write has done stays done: nobody may see it a second time after what another wrote. What
 * was read lies where only the store reaches, so a read begins with its first part. */
static void go_on_with_bytes(struct request *request)
{
	uint64_t written_bytes = request->progress_bytes, lsn = request->lsn;
	int res;

	request_leave(request);
	request->magic = 0;
	res = request->bring_bytes(request);
	request->foreign = 0;
	init(request);
	if (request->op == REQUEST_WRITE) {
		request->progress_bytes = written_bytes;
		request->lsn = lsn;
	}
	if (res < 0)
		request_finish(request, res);
	else if (request->op == REQUEST_READ)
		read_go_on(request);
	else
		write_go_on(request);
}

void request_finish(struct request *request, int res)
{
	struct volume *volume = request->volume;

	request_unfence(request);
	request_release(request);
	if (res == STORE_NEEDS_BYTES && request->foreign != 0) {
		go_on_with_bytes(request);
		return;
	}
	if (res < 0 || (!request->fua && !request->lasting) ||
	    request->lsn <= journal_durable_lsn(&volume->metadata->journal)) {
		finish(request, res);
		return;
	}
	pthread_mutex_lock(&volume->metadata->lock);
	request_wait_commit(request, committed);
	pthread_mutex_unlock(&volume->metadata->lock);
}

void request_publish(struct request *request, const struct record *record)
{
	uint64_t freed = 0;

	assert(request->unused_records > 0);
	request->unused_records--;
	request->lsn = edit_publish(request->volume->metadata, record, &freed);
	if (record->kind != RECORD_UNPLACE) /* data alone counts */
		request->same.freed_bytes += blocks_to_bytes(freed);
}

bool request_publish_explode(struct request *request, uint32_t region, page_t *ret_page)
{
	struct volume *volume = request->volume;
	struct root_entry entry = map_entry(&volume->metadata->map, region);
	struct record record = {
		.kind = RECORD_EXPLODE,
		.flags = entry.shared ? RECORD_SHARED : 0,
		.count = entry.length,
		.lbn = region_lbn(region),
		.old = entry.base,
	};

	assert(entry.kind != REGION_LEAF && !pbn_is_none(entry.place));
	*ret_page = edit_missing(volume->metadata, &record);
	if (*ret_page != PAGE_NONE)
		return false;
	request_publish(request, &record);
	return true;
}
