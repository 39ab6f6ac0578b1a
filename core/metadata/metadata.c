/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/metadata/metadata.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mutant.h"

#define CACHE_BYTES_DEFAULT (128ull << 20)
#define COW_HINT_DEFAULT    32u
#define PENDING_MAX	    60000u
#define LOW_BACKED_BLOCKS   65536u /* 256 MiB: more below a thin store is no news */
#define WINDOW_FRAMES	    8u /* of the cache, for each reservation */
#define HOMES_FRAMES	    4u /* for each slab, so that all counts can stay in the cache */

void metadata_log(struct metadata *metadata, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	metadata->ops->log(metadata->owner, text);
}

void metadata_latch(struct metadata *metadata, int error, const char *what)
{
	if (metadata_latched(metadata))
		return;
	atomic_store(&metadata->latched, error);
	snprintf(metadata->latched_text, sizeof(metadata->latched_text), "%s failed: %s", what,
		 strerror(-error));
	metadata_log(metadata, "%s; the volume is read-only until it is opened again",
		     metadata->latched_text);
	flusher_kill(&metadata->flusher, -EIO);
	journal_kill(&metadata->journal, -EIO);
	checkpoint_kill(&metadata->checkpoint, -EIO);
	cache_kill(&metadata->cache, -EIO);
	metadata->ops->latched(metadata->owner);
	backing_kill(&metadata->backing);
	pending_kill(&metadata->pending);
	wait_wake_all(&metadata->space_waits, -EIO);
}

uint64_t metadata_oldest_epoch(const struct metadata *metadata)
{
	uint64_t oldest = WORKER_IDLE;

	if (MUTANT(22)) /* blocks are free while requests in flight still read them */
		return oldest;
	for (unsigned i = 0; i < metadata->worker_count; i++)
		oldest = min_u64(oldest, atomic_load(&metadata->workers[i]->oldest_epoch));
	return oldest;
}

void metadata_settle(struct metadata *metadata, unsigned lane)
{
	uint64_t durable = journal_durable_lsn(&metadata->journal);

	if (metadata_latched(metadata))
		return;
	/* Wanted before the epochs are read: a reader that leaves meanwhile must not find it
	 * unsaid. */
	atomic_store(&metadata->settle_wanted, true);
	pending_settle(&metadata->pending, durable, metadata_oldest_epoch(metadata), lane);
	if (!pending_epoch_bound(&metadata->pending, durable))
		atomic_store(&metadata->settle_wanted, false);
}

void metadata_leave(struct metadata *metadata, struct worker *worker, struct inflight *inflight)
{
	if (!worker_leave(worker, inflight) || !atomic_load(&metadata->settle_wanted))
		return;
	pthread_mutex_lock(&metadata->lock);
	metadata_settle(metadata, worker->lane);
	pthread_mutex_unlock(&metadata->lock);
}

/* Nobody ticks: the owner says how long metadata waits for space. */
static bool wait_for_space(struct metadata *metadata)
{
	bool held, goes_on;

	pthread_mutex_lock(&metadata->lock);
	held = metadata->backing.held != NULL && metadata->backing.in_flight == 0;
	pthread_mutex_unlock(&metadata->lock);
	if (!held)
		return false;
	goes_on = metadata->ops->goes_on_without_space(metadata->owner);
	pthread_mutex_lock(&metadata->lock);
	if (goes_on)
		backing_retry(&metadata->backing, metadata->workers[0]->lane);
	else
		metadata_latch(metadata, atomic_load(&metadata->backing.metadata_error),
			       "a metadata write");
	pthread_mutex_unlock(&metadata->lock);
	return true;
}

void metadata_wait_for_store(struct metadata *metadata)
{
	if (!wait_for_space(metadata))
		metadata->store->ops->wait(metadata->store, 0);
}

static void call_done(struct task *task)
{
	container_of(task, struct metadata_call, wait.task)->done = true;
}

void metadata_call_prepare(struct metadata *metadata, struct metadata_call *ret_call)
{
	*ret_call = (struct metadata_call){.done = false};
	wait_init(&ret_call->wait, metadata->workers[0], call_done);
}

int metadata_call_wait(struct metadata *metadata, struct metadata_call *call)
{
	while (!call->done)
		if (!worker_run(metadata->workers[0]) && !call->done)
			metadata_wait_for_store(metadata);
	return call->wait.res;
}

bool metadata_is_idle(const struct metadata *metadata)
{
	bool busy = metadata->flusher.busy || metadata->backing.in_flight > 0 ||
		    metadata->pending.discards_in_flight > 0 ||
		    cache_is_loading(&metadata->cache) || metadata->sweep.state == SWEEP_LOADING;

	if (atomic_load(&metadata->latched) == 0)
		busy = busy || metadata->backing.held != NULL ||
		       metadata->checkpoint.state != CHECKPOINT_IDLE ||
		       metadata->journal.state != JOURNAL_IDLE;
	return !busy;
}

/* --- what the parts call back --- */

static void flush_failed(void *context, int error)
{
	metadata_latch(context, error, "a flush of the store");
}

static void journal_failed(void *context, int error)
{
	metadata_latch(context, error, "a journal write");
}

static void data_lacks(void *context, int error)
{
	struct metadata *metadata = context;

	metadata->ops->data_lacks(metadata->owner, error);
}

/* Requests that wait for journal room, blocks or marks would now wait for the backing: they are
 * refused. Discards ask again, since they may make space. */
static void backing_changed(void *context, bool data, int error)
{
	struct metadata *metadata = context;

	if (error == 0) {
		metadata_log(metadata, data ? "the backing refuses no data any more"
					    : "the backing has space for metadata again");
		journal_grant(&metadata->journal);
		return;
	}
	metadata_log(metadata,
		     "the backing has no space for metadata: %s; flushes wait, and what needs new "
		     "blocks gets ENOSPC until there is some",
		     strerror(-error));
	journal_refuse(&metadata->journal, -ENOSPC);
	wait_wake_all(&metadata->space_waits, -ENOSPC);
	metadata->ops->waits_for_space(metadata->owner);
	cache_wake(&metadata->cache);
}

uint64_t metadata_unbacked_blocks(const struct metadata *metadata)
{
	uint64_t missing = backing_missing_bytes(&metadata->backing) / BLOCK_BYTES;

	return min_u64(missing, metadata_spare_blocks(metadata));
}

void metadata_look_at_space(struct metadata *metadata)
{
	/* What is free may be given back, a slab at a time, and is as good as free meanwhile. */
	uint64_t free = metadata_spare_blocks(metadata) + pending_given_blocks(&metadata->pending);
	uint64_t backed = free - metadata_unbacked_blocks(metadata);
	uint64_t available = backed < LOW_BACKED_BLOCKS ? backed : free;
	uint64_t all = geometry_data_blocks(&metadata->super.geometry);
	bool low = available < all / 20;

	if (low == metadata->low_on_space)
		return;
	/* Some slack, so that the state does not flutter at the border. */
	if (!low && available < all / 20 + all / 100)
		return;
	metadata->low_on_space = low;
	metadata_log(metadata,
		     low ? "low on space: %" PRIu64 " bytes of the store are free"
			 : "space again: %" PRIu64 " bytes of the store are free",
		     blocks_to_bytes(available));
}

/* A checkpoint before ring or cache are short: what is long in coming should not be waited for. */
static void on_durable(void *context, struct worker *worker)
{
	struct metadata *metadata = context;
	bool ring =
		journal_used_blocks(&metadata->journal) > metadata->super.geometry.ring_blocks / 2;
	bool cache = metadata->cache.dirty_count > metadata->cache.frame_count / 2;

	metadata_settle(metadata, worker->lane);
	metadata_look_at_space(metadata);
	if ((ring || cache) && metadata->checkpoint.state == CHECKPOINT_IDLE)
		checkpoint_start(&metadata->checkpoint, worker, NULL);
}

/* Ring space is short: move the tail. */
static void on_journal_short(void *context, struct worker *worker)
{
	struct metadata *metadata = context;

	/* With an empty ring it is other requests' room, which they give back. */
	if (journal_used_blocks(&metadata->journal) == 0)
		return;
	checkpoint_start(&metadata->checkpoint, worker, NULL);
}

static bool on_cache_short(void *context, struct worker *worker)
{
	struct metadata *metadata = context;
	const struct cache *cache = &metadata->cache;

	/* Replay sees to it itself, before it loads a page: a checkpoint in the midst of its steps
	 * would be none of a state that it knows. */
	if (metadata->opening)
		return false;
	/* Pages stay for what is to be given back to the backing, which may be slow. */
	if (cache->busy_pages > cache->frame_count / 4)
		pending_reuse(&metadata->pending);
	/* A checkpoint that is running wakes those who wait for a frame; they call this again. */
	if (!metadata->options.read_only && metadata->checkpoint.state == CHECKPOINT_IDLE)
		checkpoint_start(&metadata->checkpoint, worker, NULL);
	/* A checkpoint that waits for space in the backing may never end; reads go on. */
	return !metadata->options.read_only && !metadata_latched(metadata) &&
	       !backing_is_lacking(&metadata->backing);
}

static void on_settled(void *context)
{
	struct metadata *metadata = context;

	wait_wake_all(&metadata->space_waits, 0);
	journal_grant(&metadata->journal);
	metadata_look_at_space(metadata);
}

static void on_given(void *context, unsigned lane)
{
	struct metadata *metadata = context;

	sweep_go_on(&metadata->sweep, lane);
}

static uint32_t pending_room_of(void *context)
{
	struct metadata *metadata = context;

	return metadata_takes_edits(metadata) ? pending_room(&metadata->pending) : 0;
}

static struct cache_home page_home(void *context, page_t page)
{
	struct metadata *metadata = context;
	const struct geometry *geometry = &metadata->super.geometry;
	struct cache_home home;

	if (page_is_leaf(geometry, page)) {
		struct root_entry entry = map_entry(&metadata->map, page);

		home.block = root_entry_slot(&entry, entry.generation);
		home.generation = entry.generation;
		home.absent = !entry.written;
	} else {
		uint32_t slab = page - geometry->regions;

		home.generation = metadata->refs.slabs[slab].generation;
		home.block.v = geometry_refs_block(geometry, slab, home.generation);
		home.absent = home.generation == 0;
	}
	return home;
}

static bool try_lock_region(void *context, uint32_t region)
{
	struct metadata *metadata = context;

	return metadata->ops->try_lock_region(metadata->owner, region);
}

static bool one_lock(void *context, uint32_t region_a, uint32_t region_b)
{
	struct metadata *metadata = context;

	return metadata->ops->one_lock(metadata->owner, region_a, region_b);
}

static void lock_region(void *context, uint32_t region)
{
	struct metadata *metadata = context;

	metadata->ops->lock_region(metadata->owner, region);
}

static void unlock_region(void *context, uint32_t region)
{
	struct metadata *metadata = context;

	metadata->ops->unlock_region(metadata->owner, region);
}

static void on_damage(void *context, const char *text)
{
	struct metadata *metadata = context;

	metadata_log(metadata, "damage: %s", text);
	if (metadata->opening)
		snprintf(metadata->opening->text, sizeof(metadata->opening->text), "%s", text);
}

static void on_refs_loaded(void *context, const struct frame *frame)
{
	struct metadata *metadata = context;

	refs_loaded(&metadata->refs, frame);
}

static void on_refs_evicted(void *context, const struct frame *frame)
{
	struct metadata *metadata = context;

	refs_evicted(&metadata->refs, frame->page - metadata->super.geometry.regions);
}

static uint64_t lsn_limit(void *context)
{
	struct metadata *metadata = context;

	return journal_next_lsn(&metadata->journal);
}

static const struct cache_ops cache_callbacks = {
	.lsn_limit = lsn_limit,
	.home = page_home,
	.try_lock_region = try_lock_region,
	.one_lock = one_lock,
	.lock_region = lock_region,
	.unlock_region = unlock_region,
	.on_short = on_cache_short,
	.lacks_space = data_lacks,
	.damage = on_damage,
	.refs_loaded = on_refs_loaded,
	.refs_evicted = on_refs_evicted,
};

/* --- opening --- */

struct metadata *metadata_new(struct store *store, const struct metadata_options *options,
			      struct worker **workers, unsigned worker_count,
			      const struct metadata_ops *ops, void *owner)
{
	struct metadata *metadata = calloc(1, sizeof(*metadata));

	assert(worker_count > 0 && worker_count <= METADATA_WORKERS_MAX);
	if (metadata == NULL)
		return NULL;
	metadata->store = store;
	metadata->ops = ops;
	metadata->owner = owner;
	metadata->options = *options;
	for (unsigned i = 0; i < worker_count; i++)
		metadata->workers[i] = workers[i];
	metadata->worker_count = worker_count;
	pthread_mutex_init(&metadata->lock, NULL);
	list_init(&metadata->space_waits);
	/* The list head of a part that may be freed before it was made. */
	list_init(&metadata->cache.dirty);
	return metadata;
}

static uint32_t frames_for(const struct metadata *metadata)
{
	uint64_t bytes =
		metadata->options.cache_bytes ? metadata->options.cache_bytes : CACHE_BYTES_DEFAULT;
	uint64_t pages =
		(uint64_t)metadata->super.geometry.regions + metadata->super.geometry.slabs;
	/* A quarter of a frame more, for the busy tables of refs pages. */
	uint64_t frames = bytes / (sizeof(struct frame) + sizeof(struct frame) / 4);

	if (frames > pages + 1)
		frames = pages + 1;
	return frames < CACHE_FRAMES_MIN ? CACHE_FRAMES_MIN : (uint32_t)frames;
}

/* Read-only no page goes home, so all that the log changes are held; the frames beyond the bound
 * are only touched, and so only cost memory, where that is needed. */
static uint32_t frames_for_replay(const struct metadata *metadata, const struct recovery_log *log)
{
	uint64_t pages =
		(uint64_t)metadata->super.geometry.regions + metadata->super.geometry.slabs;
	uint64_t frames = min_u64(log->records * EDIT_PAGES_MAX, pages) + CACHE_FRAMES_MIN;
	uint32_t bound = frames_for(metadata);

	return metadata->options.read_only && frames > bound ? (uint32_t)frames : bound;
}

int metadata_init_parts(struct metadata *metadata, const struct recovery_log *log)
{
	struct store *store = metadata->store;
	pthread_mutex_t *lock = &metadata->lock;
	uint32_t frames = frames_for_replay(metadata, log), windows, room;
	int r;

	flusher_init(&metadata->flusher, store, lock, flush_failed, metadata);
	backing_init(&metadata->backing, store, backing_changed, metadata);
	r = journal_init(&metadata->journal, &metadata->backing, &metadata->super,
			 &metadata->flusher, lock);
	metadata->journal.on_durable = on_durable;
	metadata->journal.on_short = on_journal_short;
	metadata->journal.failed = journal_failed;
	metadata->journal.pending_room = pending_room_of;
	metadata->journal.context = metadata;
	if (r == 0)
		r = cache_init(&metadata->cache, store, &metadata->super, lock, frames,
			       &cache_callbacks, metadata);
	if (r == 0 && metadata->options.populate)
		cache_populate(&metadata->cache, frames_for(metadata));
	if (r == 0)
		r = map_init(&metadata->map, &metadata->super.geometry, &metadata->cache);
	if (r == 0)
		r = refs_init(&metadata->refs, &metadata->super.geometry, &metadata->cache);
	room = min_u32(8 * metadata->journal.capacity_records, PENDING_MAX);
	if (r == 0)
		r = pending_init(&metadata->pending, &metadata->refs, store, lock, room,
				 metadata->options.discard);
	metadata->pending.on_settled = on_settled;
	metadata->pending.on_given = on_given;
	sweep_init(&metadata->sweep, metadata);
	metadata->pending.context = metadata;
	windows = min_u32(frames_for(metadata) / WINDOW_FRAMES, ALLOC_WINDOWS_MAX);
	alloc_init(&metadata->alloc, &metadata->refs, &metadata->super.geometry,
		   metadata->options.cow_hint_blocks ? metadata->options.cow_hint_blocks
						     : COW_HINT_DEFAULT,
		   windows);
	if (metadata->super.geometry.slabs <= frames_for(metadata) / HOMES_FRAMES)
		alloc_use_homes(&metadata->alloc);
	if (r == 0)
		r = checkpoint_init(&metadata->checkpoint, metadata);
	return r;
}

int metadata_find(struct metadata *metadata, uint32_t **ret_generations,
		  struct recovery_log *ret_log, struct damage *reterr_damage)
{
	int r = 0;

	/* What is read may be in the system's cache alone; it must not be lost after it was
	 * believed (I15). */
	if (!metadata->options.read_only)
		r = recovery_io(metadata->store, STORE_FLUSH, 0, NULL, 0);
	if (r == 0)
		r = recovery_read_super(metadata->store, metadata->options.read_only,
					&metadata->super, ret_generations, reterr_damage);
	if (r < 0) {
		*ret_generations = NULL;
		return r;
	}
	metadata->life = metadata->super.epoch + 1;
	return recovery_read_log(metadata->store, &metadata->super, ret_log, reterr_damage);
}

int metadata_replay(struct metadata *metadata, const struct recovery_log *log, bool clean,
		    struct damage *reterr_damage)
{
	int r;

	metadata->opening = reterr_damage;
	r = recovery_replay(metadata, log, reterr_damage);
	metadata->opening = NULL;
	if (r == 0 && !clean && !metadata->options.read_only && !MUTANT(92))
		refs_make_all_due(&metadata->refs);
	return r;
}

/* --- closing --- */

int metadata_checkpoint_clean(struct metadata *metadata)
{
	struct metadata_call call;

	metadata_call_prepare(metadata, &call);
	pthread_mutex_lock(&metadata->lock);
	alloc_drop_windows(&metadata->alloc);
	metadata->checkpoint.clean = true;
	checkpoint_start(&metadata->checkpoint, metadata->workers[0], &call.wait);
	pthread_mutex_unlock(&metadata->lock);
	return metadata_call_wait(metadata, &call);
}

void metadata_free(struct metadata *metadata)
{
	if (metadata == NULL)
		return;
	checkpoint_done(&metadata->checkpoint);
	pending_done(&metadata->pending);
	refs_done(&metadata->refs);
	map_done(&metadata->map);
	cache_done(&metadata->cache);
	journal_done(&metadata->journal);
	pthread_mutex_destroy(&metadata->lock);
	free(metadata);
}

/* --- the caller's timer, and what it asks --- */

void metadata_tick(struct metadata *metadata, struct worker *worker)
{
	pthread_mutex_lock(&metadata->lock);
	backing_tick(&metadata->backing, worker->lane);
	journal_kick(&metadata->journal, worker);
	metadata_settle(metadata, worker->lane);
	alloc_retry(&metadata->alloc);
	checkpoint_tick(&metadata->checkpoint, worker);
	sweep_tick(&metadata->sweep, worker);
	pthread_mutex_unlock(&metadata->lock);
}

void metadata_checkpoint(struct metadata *metadata, struct worker *worker)
{
	if (metadata->options.read_only || metadata_latched(metadata))
		return;
	pthread_mutex_lock(&metadata->lock);
	checkpoint_start(&metadata->checkpoint, worker, NULL);
	pthread_mutex_unlock(&metadata->lock);
}
