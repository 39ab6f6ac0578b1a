/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/volume/volume.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mutant.h"
#include "core/metadata/recovery.h"
#include "core/volume/volume_internal.h"

#define CACHE_BYTES_DEFAULT (128ull << 20)
#define COW_HINT_DEFAULT    32u
#define PENDING_MAX	    60000u
#define LOW_BACKED_BLOCKS   65536u /* 256 MiB: more below a thin store is no news */
#define WINDOW_FRAMES	    8u /* of the cache, for each reservation */
#define HOMES_FRAMES	    4u /* for each slab, so that all counts can stay in the cache */

/* What holes are written with and compared to; nobody ever writes here. */
static uint8_t zeros[ZEROS_BYTES] __attribute__((aligned(BLOCK_BYTES)));

void volume_log(struct volume *volume, const char *format, ...)
{
	char text[512];
	va_list args;

	if (!volume->options.log)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	volume->options.log(volume->options.log_context, text);
}

void volume_latch(struct volume *volume, int error, const char *what)
{
	if (volume_latched(volume))
		return;
	atomic_store(&volume->latched, error);
	snprintf(volume->latched_text, sizeof(volume->latched_text), "%s failed: %s", what,
		 strerror(-error));
	volume_log(volume, "%s; the volume is read-only until it is opened again",
		   volume->latched_text);
	flusher_kill(&volume->flusher, -EIO);
	journal_kill(&volume->journal, -EIO);
	checkpoint_kill(&volume->checkpoint, -EIO);
	cache_kill(&volume->cache, -EIO);
	tracking_kill(&volume->tracking, -EIO);
	backing_kill(&volume->backing);
	pending_kill(&volume->pending);
	wait_wake_all(&volume->space_waits, -EIO);
}

uint64_t volume_oldest_epoch(const struct volume *volume)
{
	uint64_t oldest = WORKER_IDLE;

	if (MUTANT(22)) /* blocks are free while requests in flight still read them */
		return oldest;
	for (unsigned i = 0; i < volume->worker_count; i++)
		oldest = min_u64(oldest, atomic_load(&volume->workers[i]->oldest_epoch));
	return oldest;
}

void volume_settle(struct volume *volume, unsigned lane)
{
	uint64_t durable = journal_durable_lsn(&volume->journal);

	if (volume_latched(volume))
		return;
	/* Wanted before the epochs are read: a reader that leaves meanwhile must not find it
	 * unsaid. */
	atomic_store(&volume->settle_wanted, true);
	pending_settle(&volume->pending, durable, volume_oldest_epoch(volume), lane);
	if (!pending_epoch_bound(&volume->pending, durable))
		atomic_store(&volume->settle_wanted, false);
}

void volume_leave(struct volume *volume, struct worker *worker, struct inflight *inflight)
{
	if (!worker_leave(worker, inflight) || !atomic_load(&volume->settle_wanted))
		return;
	pthread_mutex_lock(&volume->meta);
	volume_settle(volume, worker->lane);
	pthread_mutex_unlock(&volume->meta);
}

/* Nobody ticks: the owner says how long metadata waits for space. */
static bool wait_for_space(struct volume *volume)
{
	const struct volume_options *options = &volume->options;
	bool held, goes_on;

	pthread_mutex_lock(&volume->meta);
	held = volume->backing.held != NULL && volume->backing.in_flight == 0;
	pthread_mutex_unlock(&volume->meta);
	if (!held)
		return false;
	goes_on = options->lacking && options->lacking(options->log_context);
	pthread_mutex_lock(&volume->meta);
	if (goes_on)
		backing_retry(&volume->backing, volume->workers[0]->lane);
	else
		volume_latch(volume, atomic_load(&volume->backing.metadata_error),
			     "a metadata write");
	pthread_mutex_unlock(&volume->meta);
	return true;
}

void volume_wait_for_store(struct volume *volume)
{
	if (!wait_for_space(volume))
		volume->store->ops->wait(volume->store, 0);
}

void volume_pump(struct volume *volume, const bool *done)
{
	while (!*done)
		if (!worker_run(volume->workers[0]) && !*done)
			volume_wait_for_store(volume);
}

/* --- what the parts call back --- */

static void flush_failed(void *context, int error)
{
	volume_latch(context, error, "a flush of the store");
}

static void journal_failed(void *context, int error)
{
	volume_latch(context, error, "a journal write");
}

void volume_data_lacks(struct volume *volume, int error)
{
	count(&volume->counters.no_space_errors, 1);
	if (backing_data_lacks(&volume->backing, error))
		volume_log(volume, "the backing has no space for data: %s; such writes get ENOSPC",
			   strerror(-error));
}

static void data_lacks(void *context, int error)
{
	volume_data_lacks(context, error);
}

/* Who waits for room, blocks or marks would wait for the backing. A discard asks again. */
static void backing_changed(void *context, bool data, int error)
{
	struct volume *volume = context;

	if (error == 0) {
		volume_log(volume, data ? "the backing refuses no data any more"
					: "the backing has space for metadata again");
		journal_grant(&volume->journal);
		return;
	}
	volume_log(volume,
		   "the backing has no space for metadata: %s; flushes wait, and what needs new "
		   "blocks gets ENOSPC until there is some",
		   strerror(-error));
	journal_refuse(&volume->journal, -ENOSPC);
	wait_wake_all(&volume->space_waits, -ENOSPC);
	tracking_wake(&volume->tracking);
	cache_wake(&volume->cache);
}

/* Of these, what the backing has no space for. That may be most of them for as long as a thin store
 * lives, so it is for the statistics; what is nearly all of it is news (update_space()). */
static uint64_t unbacked_blocks(const struct volume *volume)
{
	uint64_t missing = backing_missing_bytes(&volume->backing) / BLOCK_BYTES;

	return min_u64(missing, volume_spare_blocks(volume));
}

static void update_space(struct volume *volume)
{
	/* What is free may be given back, a slab at a time, and is as good as free meanwhile. */
	uint64_t free = volume_spare_blocks(volume) + pending_given_blocks(&volume->pending);
	uint64_t backed = free - unbacked_blocks(volume);
	uint64_t available = backed < LOW_BACKED_BLOCKS ? backed : free;
	uint64_t all = geometry_data_blocks(&volume->super.geometry);
	bool low = available < all / 20;

	if (low == volume->low_on_space)
		return;
	/* Some slack, so that the state does not flutter at the border. */
	if (!low && available < all / 20 + all / 100)
		return;
	volume->low_on_space = low;
	volume_log(volume,
		   low ? "low on space: %" PRIu64 " bytes of the store are free"
		       : "space again: %" PRIu64 " bytes of the store are free",
		   blocks_to_bytes(available));
}

/* A checkpoint before ring or cache are short: what is long in coming should not be waited for. */
static void on_durable(void *context, struct worker *worker)
{
	struct volume *volume = context;
	bool ring = journal_used_blocks(&volume->journal) > volume->super.geometry.ring_blocks / 2;
	bool cache = volume->cache.dirty_count > volume->cache.frame_count / 2;

	volume_settle(volume, worker->lane);
	update_space(volume);
	if ((ring || cache) && volume->checkpoint.state == CHECKPOINT_IDLE)
		checkpoint_start(&volume->checkpoint, worker, NULL);
}

/* Ring space is short: move the tail. */
static void on_journal_short(void *context, struct worker *worker)
{
	struct volume *volume = context;

	/* With an empty ring it is other requests' room, which they give back. */
	if (journal_used_blocks(&volume->journal) == 0)
		return;
	checkpoint_start(&volume->checkpoint, worker, NULL);
}

static bool on_cache_short(void *context, struct worker *worker)
{
	struct volume *volume = context;
	const struct cache *cache = &volume->cache;

	/* Replay sees to it itself, before it loads a page: a checkpoint in the midst of its steps
	 * would be none of a state that it knows. */
	if (volume->opening)
		return false;
	/* Pages stay for what is to be given back to the backing, which may be slow. */
	if (cache->busy_pages > cache->frame_count / 4)
		pending_reuse(&volume->pending);
	/* One that runs wakes who waits for a frame when it is over; they come back here. */
	if (!volume->options.read_only && volume->checkpoint.state == CHECKPOINT_IDLE)
		checkpoint_start(&volume->checkpoint, worker, NULL);
	/* One that waits for the backing's space may take for ever; reads go on. */
	return !volume->options.read_only && !volume_latched(volume) &&
	       !backing_is_lacking(&volume->backing);
}

static void on_settled(void *context)
{
	struct volume *volume = context;

	wait_wake_all(&volume->space_waits, 0);
	journal_grant(&volume->journal);
	update_space(volume);
}

static void on_given(void *context, unsigned lane)
{
	struct volume *volume = context;

	sweep_go_on(&volume->sweep, lane);
}

static uint32_t pending_room_of(void *context)
{
	struct volume *volume = context;

	return volume_takes_edits(volume) ? pending_room(&volume->pending) : 0;
}

static struct cache_home page_home(void *context, page_t page)
{
	struct volume *volume = context;
	const struct geometry *geometry = &volume->super.geometry;
	struct cache_home home;

	if (page_is_leaf(geometry, page)) {
		struct root_entry entry = map_entry(&volume->map, page);

		home.block = root_entry_slot(&entry, entry.generation);
		home.generation = entry.generation;
		home.absent = !entry.written;
	} else {
		uint32_t slab = page - geometry->regions;

		home.generation = volume->refs.slabs[slab].generation;
		home.block.v = geometry_refs_block(geometry, slab, home.generation);
		home.absent = home.generation == 0;
	}
	return home;
}

static bool try_lock_region(void *context, uint32_t region)
{
	struct volume *volume = context;

	return pthread_mutex_trylock(&fence_stripe(&volume->fence, region)->lock) == 0;
}

static bool one_lock(void *context, uint32_t region_a, uint32_t region_b)
{
	struct volume *volume = context;

	return fence_stripe(&volume->fence, region_a) == fence_stripe(&volume->fence, region_b);
}

static void lock_region(void *context, uint32_t region)
{
	struct volume *volume = context;

	pthread_mutex_lock(&fence_stripe(&volume->fence, region)->lock);
}

static void unlock_region(void *context, uint32_t region)
{
	struct volume *volume = context;

	pthread_mutex_unlock(&fence_stripe(&volume->fence, region)->lock);
}

static void on_damage(void *context, const char *text)
{
	struct volume *volume = context;

	volume_log(volume, "damage: %s", text);
	if (volume->opening)
		snprintf(volume->opening->text, sizeof(volume->opening->text), "%s", text);
}

static void on_refs_loaded(void *context, const struct frame *frame)
{
	struct volume *volume = context;

	refs_loaded(&volume->refs, frame);
}

static void on_refs_evicted(void *context, const struct frame *frame)
{
	struct volume *volume = context;

	refs_evicted(&volume->refs, frame->page - volume->super.geometry.regions);
}

static uint64_t lsn_limit(void *context)
{
	struct volume *volume = context;

	return journal_next_lsn(&volume->journal);
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

static uint32_t frames_for(const struct volume *volume)
{
	uint64_t bytes =
		volume->options.cache_bytes ? volume->options.cache_bytes : CACHE_BYTES_DEFAULT;
	uint64_t pages = (uint64_t)volume->super.geometry.regions + volume->super.geometry.slabs;
	/* A quarter of a frame more, for the busy tables of refs pages. */
	uint64_t frames = bytes / (sizeof(struct frame) + sizeof(struct frame) / 4);

	if (frames > pages + 1)
		frames = pages + 1;
	return frames < CACHE_FRAMES_MIN ? CACHE_FRAMES_MIN : (uint32_t)frames;
}

/* Read-only no page goes home, so all that the log changes are held; the frames beyond the bound
 * are only touched, and so only cost memory, where that is needed. */
static uint32_t frames_for_replay(const struct volume *volume, const struct recovery_log *log)
{
	uint64_t pages = (uint64_t)volume->super.geometry.regions + volume->super.geometry.slabs;
	uint64_t frames = min_u64(log->records * EDIT_PAGES_MAX, pages) + CACHE_FRAMES_MIN;
	uint32_t bound = frames_for(volume);

	return volume->options.read_only && frames > bound ? (uint32_t)frames : bound;
}

static int init_parts(struct volume *volume, const struct recovery_log *log)
{
	struct store *store = volume->store;
	pthread_mutex_t *meta = &volume->meta;
	uint32_t frames = frames_for_replay(volume, log), windows, room;
	int r;

	flusher_init(&volume->flusher, store, meta, flush_failed, volume);
	backing_init(&volume->backing, store, backing_changed, volume);
	r = journal_init(&volume->journal, &volume->backing, &volume->super, &volume->flusher,
			 meta);
	volume->journal.on_durable = on_durable;
	volume->journal.on_short = on_journal_short;
	volume->journal.failed = journal_failed;
	volume->journal.pending_room = pending_room_of;
	volume->journal.context = volume;
	if (r == 0)
		r = cache_init(&volume->cache, store, &volume->super, meta, frames,
			       &cache_callbacks, volume);
	if (r == 0 && volume->options.populate)
		cache_populate(&volume->cache, frames_for(volume));
	if (r == 0)
		r = map_init(&volume->map, &volume->super.geometry, &volume->cache);
	if (r == 0)
		r = refs_init(&volume->refs, &volume->super.geometry, &volume->cache);
	room = min_u32(8 * volume->journal.capacity_records, PENDING_MAX);
	if (r == 0)
		r = pending_init(&volume->pending, &volume->refs, store, meta, room,
				 volume->options.discard);
	volume->pending.on_settled = on_settled;
	volume->pending.on_given = on_given;
	sweep_init(&volume->sweep, volume);
	volume->pending.context = volume;
	windows = min_u32(frames_for(volume) / WINDOW_FRAMES, ALLOC_WINDOWS_MAX);
	alloc_init(&volume->alloc, &volume->refs, &volume->super.geometry,
		   volume->options.cow_hint_blocks ? volume->options.cow_hint_blocks
						   : COW_HINT_DEFAULT,
		   windows);
	if (volume->super.geometry.slabs <= frames_for(volume) / HOMES_FRAMES)
		alloc_use_homes(&volume->alloc);
	if (r == 0)
		r = tracking_init(&volume->tracking, volume);
	if (r == 0)
		r = checkpoint_init(&volume->checkpoint, volume);
	return r;
}

static void free_parts(struct volume *volume)
{
	checkpoint_done(&volume->checkpoint);
	tracking_done(&volume->tracking);
	pending_done(&volume->pending);
	refs_done(&volume->refs);
	map_done(&volume->map);
	cache_done(&volume->cache);
	journal_done(&volume->journal);
}

static struct volume *volume_new(struct store *store, const struct volume_options *options,
				 struct worker **workers, unsigned worker_count)
{
	struct volume *volume = calloc(1, sizeof(*volume));

	if (volume == NULL)
		return NULL;
	volume->store = store;
	volume->options = *options;
	volume->options.read_only = options->read_only || store->read_only;
	for (unsigned i = 0; i < worker_count; i++)
		volume->workers[i] = workers[i];
	volume->worker_count = worker_count;
	pthread_mutex_init(&volume->meta, NULL);
	list_init(&volume->space_waits);
	/* The list heads of parts that may be freed before they were made. */
	list_init(&volume->cache.dirty);
	list_init(&volume->tracking.waits);
	volume->zeros = zeros;
	if (fence_init(&volume->fence) < 0) {
		volume_abandon(volume);
		return NULL;
	}
	return volume;
}

/* Once latched, only the I/O that is out counts. */
bool volume_is_idle(struct volume *volume)
{
	bool busy;

	pthread_mutex_lock(&volume->meta);
	busy = volume->flusher.busy || volume->backing.in_flight > 0 ||
	       volume->pending.discards_in_flight > 0 || cache_is_loading(&volume->cache) ||
	       volume->sweep.state == SWEEP_LOADING;
	if (!volume_latched(volume))
		busy = busy || volume->backing.held != NULL ||
		       volume->checkpoint.state != CHECKPOINT_IDLE ||
		       volume->journal.state != JOURNAL_IDLE ||
		       volume->tracking.state != TRACKING_IDLE;
	pthread_mutex_unlock(&volume->meta);
	return !busy;
}

/* Until nothing is under way and nothing is queued. */
static void drain(struct volume *volume)
{
	bool ran = true;

	while (ran || !volume_is_idle(volume)) {
		ran = worker_run(volume->workers[0]);
		if (ran || volume_is_idle(volume))
			continue;
		volume_wait_for_store(volume);
		ran = true; /* maybe: what came may have posted a task, and be the last */
	}
}

static int recover(struct volume *volume, struct damage *reterr_damage)
{
	struct recovery_log log = {0};
	uint32_t *generations = NULL;
	bool clean;
	int r = 0;

	/* What is read may be in the system's cache alone; it must not be lost after it was
	 * believed (I15). */
	if (!volume->options.read_only)
		r = recovery_io(volume->store, STORE_FLUSH, 0, NULL, 0);
	if (r < 0)
		return r;
	r = recovery_read_super(volume->store, volume->options.read_only, &volume->super,
				&generations, reterr_damage);
	if (r < 0)
		return r;
	volume->life = volume->super.epoch + 1;
	clean = volume->super.clean;
	r = recovery_read_log(volume->store, &volume->super, &log, reterr_damage);
	if (r == 0)
		r = init_parts(volume, &log);
	if (r == 0)
		r = recovery_read_tops(volume, generations, reterr_damage);
	if (r == 0)
		r = tracking_load(volume, reterr_damage);
	volume->opening = reterr_damage;
	if (r == 0)
		r = recovery_replay(volume, &log, reterr_damage);
	volume->opening = NULL;
	if (r == 0 && !clean && !volume->options.read_only && !MUTANT(92))
		refs_make_all_due(&volume->refs);
	if (r < 0 && volume->checkpoint.volume) /* what replay began, if anything, ends before */
		drain(volume);
	free(generations);
	free(log.ring);
	return r;
}

int volume_open(struct store *store, const struct volume_options *options, struct worker **workers,
		unsigned worker_count, struct volume **ret_volume, struct damage *reterr_damage)
{
	struct volume *volume;
	int r;

	assert(worker_count > 0 && worker_count <= VOLUME_WORKERS_MAX);
	reterr_damage->text[0] = '\0';
	volume = volume_new(store, options, workers, worker_count);
	if (volume == NULL)
		return -ENOMEM;
	r = recover(volume, reterr_damage);
	if (r < 0) {
		int lacks = atomic_load(&volume->backing.metadata_error);

		if (lacks != 0) {
			r = -ENOSPC;
			snprintf(reterr_damage->text, sizeof(reterr_damage->text),
				 "the backing has no space for metadata: %s", strerror(-lacks));
		} else if (reterr_damage->text[0] == '\0') {
			snprintf(reterr_damage->text, sizeof(reterr_damage->text), "%s",
				 strerror(-r));
		}
		volume_abandon(volume);
		return r;
	}
	volume->cache.zero_new_refs = !volume->options.read_only;
	update_space(volume);
	*ret_volume = volume;
	return 0;
}

/* --- closing --- */

struct closing {
	struct wait wait;
	bool done;
};

static void closing_done(struct task *task)
{
	container_of(task, struct closing, wait.task)->done = true;
}

/* Afterwards every stamp is on the store, and nothing changes any more. */
static void close_areas(struct volume *volume)
{
	struct closing closing = {0};

	wait_init(&closing.wait, volume->workers[0], closing_done);
	pthread_mutex_lock(&volume->meta);
	tracking_close(&volume->tracking, volume->workers[0], &closing.wait);
	pthread_mutex_unlock(&volume->meta);
	volume_pump(volume, &closing.done);
}

static int checkpoint_clean(struct volume *volume)
{
	struct closing closing = {0};

	wait_init(&closing.wait, volume->workers[0], closing_done);
	pthread_mutex_lock(&volume->meta);
	alloc_drop_windows(&volume->alloc);
	volume->checkpoint.clean = true;
	checkpoint_start(&volume->checkpoint, volume->workers[0], &closing.wait);
	pthread_mutex_unlock(&volume->meta);
	volume_pump(volume, &closing.done);
	return closing.wait.res;
}

int volume_close(struct volume *volume)
{
	int r = 0;

	/* What a worker whose thread has ended began, and waits for space, goes on here. */
	volume->checkpoint.step.task.worker = volume->workers[0];
	volume->journal.step.task.worker = volume->workers[0];
	volume->tracking.step.task.worker = volume->workers[0];
	sweep_close(&volume->sweep, volume->workers[0]);
	if (!volume_latched(volume) && !volume->options.read_only) {
		close_areas(volume);
		/* Twice: either superblock alone says so, should the other be lost. */
		for (unsigned copy = 0; r == 0 && copy < 2; copy++)
			r = checkpoint_clean(volume);
	}
	drain(volume);
	r = volume_latched(volume) ? volume_latched(volume) : r;
	volume_abandon(volume);
	return r;
}

void volume_abandon(struct volume *volume)
{
	free_parts(volume);
	fence_done(&volume->fence);
	pthread_mutex_destroy(&volume->meta);
	free(volume);
}

/* --- the caller's timer, and what it asks --- */

void volume_tick(struct volume *volume, struct worker *worker)
{
	if (volume->options.read_only || volume_latched(volume))
		return;
	pthread_mutex_lock(&volume->meta);
	backing_tick(&volume->backing, worker->lane);
	journal_kick(&volume->journal, worker);
	volume_settle(volume, worker->lane);
	alloc_retry(&volume->alloc);
	checkpoint_tick(&volume->checkpoint, worker);
	sweep_tick(&volume->sweep, worker);
	pthread_mutex_unlock(&volume->meta);
	tracking_tick(&volume->tracking, worker);
}

void volume_checkpoint(struct volume *volume, struct worker *worker)
{
	if (volume->options.read_only || volume_latched(volume))
		return;
	pthread_mutex_lock(&volume->meta);
	checkpoint_start(&volume->checkpoint, worker, NULL);
	pthread_mutex_unlock(&volume->meta);
}

void volume_cancel(struct volume *volume)
{
	atomic_store(&volume->cancelled, true);
}

const uint8_t *volume_uuid(const struct volume *volume)
{
	return volume->super.uuid;
}

bool volume_reaches_foreign(const struct volume *volume)
{
	return volume->store->reaches_foreign;
}

uint64_t volume_size_bytes(const struct volume *volume)
{
	return blocks_to_bytes(volume->super.geometry.logical_blocks);
}

uint64_t volume_generation(const struct volume *volume)
{
	return volume->super.checkpoint;
}

static enum volume_state state_of(struct volume *volume)
{
	if (volume_latched(volume))
		return VOLUME_LATCHED;
	if (volume->options.read_only)
		return VOLUME_READ_ONLY;
	if (backing_is_lacking(&volume->backing) || atomic_load(&volume->backing.data_error) != 0)
		return VOLUME_BACKING_FULL;
	return volume->low_on_space ? VOLUME_LOW_ON_SPACE : VOLUME_OK;
}

static void backing_stats(struct volume *volume, struct volume_stats *ret)
{
	bool metadata = backing_is_lacking(&volume->backing);
	int error = atomic_load(metadata ? &volume->backing.metadata_error
					 : &volume->backing.data_error);

	ret->metadata_waits = volume->backing.metadata_waits;
	ret->metadata_waiting = metadata;
	if (error == 0)
		return;
	snprintf(ret->backing_text, sizeof(ret->backing_text),
		 metadata ? "metadata waits: %s" : "data: %s", strerror(-error));
}

static void space_stats(struct volume *volume, struct volume_stats *ret)
{
	const struct geometry *g = &volume->super.geometry;
	uint64_t data = geometry_data_blocks(g), places = volume->journal.counts.places;
	const struct refs *refs = &volume->refs;
	uint64_t unbacked = unbacked_blocks(volume);
	uint64_t free = volume_free_blocks(volume),
		 kept = free - min_u64(free, volume_spare_blocks(volume));

	ret->size_bytes = blocks_to_bytes(g->logical_blocks);
	ret->store_bytes = blocks_to_bytes(g->store_blocks);
	ret->mapped_bytes = blocks_to_bytes(volume->journal.counts.mapped_blocks);
	ret->used_bytes = blocks_to_bytes(data - refs->free_blocks - 2 * places);
	ret->shared_bytes = blocks_to_bytes(refs->shared_refs);
	ret->saved_bytes = ret->mapped_bytes - ret->used_bytes;
	ret->free_bytes = blocks_to_bytes(volume_spare_blocks(volume) - unbacked);
	ret->unbacked_bytes = blocks_to_bytes(unbacked);
	ret->pending_bytes = blocks_to_bytes(refs->busy_free - volume->alloc.reserved_blocks);
	/* With what is kept for places: as much of it as is there, where something is pending. */
	ret->metadata_bytes = blocks_to_bytes(g->store_blocks - data + 2 * places + kept);
	ret->lost_bytes = blocks_to_bytes(refs->lost_free);
}

/* The lock is held, and given back. */
static void stats_locked(struct volume *volume, struct volume_stats *ret)
{
	memset(ret, 0, sizeof(*ret));
	update_space(volume);
	ret->state = state_of(volume);
	ret->latched_error = -volume_latched(volume);
	memcpy(ret->latched_text, volume->latched_text, sizeof(ret->latched_text));
	space_stats(volume, ret);
	backing_stats(volume, ret);
	ret->journal_edits = volume->journal.edits;
	ret->journal_commits = volume->journal.commits;
	ret->checkpoints = volume->checkpoint.checkpoints;
	ret->metadata_reads = volume->cache.reads;
	ret->metadata_writes = volume->journal.blocks_written + volume->checkpoint.pages_written +
			       volume->checkpoint.checkpoints + volume->tracking.pages_written;
	ret->discarded_bytes = volume->pending.discarded_bytes;
	if (volume->pending.discard)
		ret->giveback_due_bytes = blocks_to_bytes(sweep_due_blocks(&volume->sweep));
	ret->giveback_rounds = volume->sweep.rounds;
	ret->giveback_failed_bytes = blocks_to_bytes(volume->refs.owed_free[OWED_FAILED]);
	pthread_mutex_unlock(&volume->meta);
	ret->reads = atomic_load(&volume->counters.reads);
	ret->writes = atomic_load(&volume->counters.writes);
	ret->zeroes = atomic_load(&volume->counters.zeroes);
	ret->flushes = atomic_load(&volume->counters.flushes);
	ret->discards = atomic_load(&volume->counters.discards);
	ret->read_bytes = atomic_load(&volume->counters.read_bytes);
	ret->written_bytes = atomic_load(&volume->counters.written_bytes);
	ret->cow_blocks = atomic_load(&volume->counters.cow_blocks);
	ret->same_requests = atomic_load(&volume->counters.same_requests);
	ret->same_bytes = atomic_load(&volume->counters.same_bytes);
	ret->differs = atomic_load(&volume->counters.differs);
	ret->clone_requests = atomic_load(&volume->counters.clone_requests);
	ret->cloned_bytes = atomic_load(&volume->counters.cloned_bytes);
	ret->fenced_read_bytes = atomic_load(&volume->counters.fenced_read_bytes);
	ret->copied_bytes = atomic_load(&volume->counters.copied_bytes) +
			    atomic_load(&volume->store->copied_bytes);
	ret->zero_copy_bytes = atomic_load(&volume->counters.zero_copy_bytes);
	ret->fence_waits = atomic_load(&volume->fence.waits);
	ret->read_errors = atomic_load(&volume->counters.read_errors);
	ret->write_errors = atomic_load(&volume->counters.write_errors);
	ret->no_space_errors = atomic_load(&volume->counters.no_space_errors);
}

void volume_stats(struct volume *volume, struct volume_stats *ret_stats)
{
	pthread_mutex_lock(&volume->meta);
	stats_locked(volume, ret_stats);
}

bool volume_try_stats(struct volume *volume, struct volume_stats *ret_stats)
{
	if (pthread_mutex_trylock(&volume->meta) != 0)
		return false;
	stats_locked(volume, ret_stats);
	return true;
}
