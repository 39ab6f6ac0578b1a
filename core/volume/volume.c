/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/volume/volume.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mutant.h"
#include "core/volume/volume_internal.h"

_Static_assert(VOLUME_WORKERS_MAX == METADATA_WORKERS_MAX,
	       "the volume's workers are its metadata's");

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

/* --- what the parts call back --- */

void volume_data_lacks(struct volume *volume, int error)
{
	count(&volume->counters.no_space_errors, 1);
	if (backing_data_lacks(&volume->metadata->backing, error))
		volume_log(volume, "the backing has no space for data: %s; such writes get ENOSPC",
			   strerror(-error));
}

static void log_line(void *owner, const char *text)
{
	volume_log(owner, "%s", text);
}

static bool goes_on_without_space(void *owner)
{
	const struct volume_options *options = &((struct volume *)owner)->options;

	return options->lacking && options->lacking(options->log_context);
}

static bool yield(void *owner, const char *point)
{
	return volume_yield(owner, point);
}

static void latched(void *owner)
{
	struct volume *volume = owner;

	tracking_kill(&volume->tracking, -EIO);
}

static void waits_for_space(void *owner)
{
	struct volume *volume = owner;

	tracking_wake(&volume->tracking);
}

static void data_lacks(void *owner, int error)
{
	volume_data_lacks(owner, error);
}

static uint32_t generation(void *owner)
{
	struct volume *volume = owner;

	return atomic_load(&volume->tracking.generation);
}

static void superblock_is_durable(void *owner, uint32_t durable_generation)
{
	struct volume *volume = owner;

	volume->tracking.durable_generation = durable_generation;
}

static bool try_lock_region(void *owner, uint32_t region)
{
	struct volume *volume = owner;

	return pthread_mutex_trylock(&fence_stripe(&volume->fence, region)->lock) == 0;
}

static bool one_lock(void *owner, uint32_t region_a, uint32_t region_b)
{
	struct volume *volume = owner;

	return fence_stripe(&volume->fence, region_a) == fence_stripe(&volume->fence, region_b);
}

static void lock_region(void *owner, uint32_t region)
{
	struct volume *volume = owner;

	pthread_mutex_lock(&fence_stripe(&volume->fence, region)->lock);
}

static void unlock_region(void *owner, uint32_t region)
{
	struct volume *volume = owner;

	pthread_mutex_unlock(&fence_stripe(&volume->fence, region)->lock);
}

static const struct metadata_ops metadata_callbacks = {
	.log = log_line,
	.goes_on_without_space = goes_on_without_space,
	.yield = yield,
	.latched = latched,
	.waits_for_space = waits_for_space,
	.data_lacks = data_lacks,
	.generation = generation,
	.superblock_is_durable = superblock_is_durable,
	.try_lock_region = try_lock_region,
	.one_lock = one_lock,
	.lock_region = lock_region,
	.unlock_region = unlock_region,
};

/* --- opening --- */

static struct volume *volume_new(struct store *store, const struct volume_options *options,
				 struct worker **workers, unsigned worker_count)
{
	struct volume *volume = calloc(1, sizeof(*volume));
	struct metadata_options metadata_options = {
		.cache_bytes = options->cache_bytes,
		.cow_hint_blocks = options->cow_hint_blocks,
		.read_only = options->read_only || store->read_only,
		.populate = options->populate,
		.discard = options->discard,
	};

	if (volume == NULL)
		return NULL;
	volume->options = *options;
	volume->options.read_only = metadata_options.read_only;
	/* The list head of a part that may be freed before it was made. */
	list_init(&volume->tracking.waits);
	volume->zeros = zeros;
	volume->metadata = metadata_new(store, &metadata_options, workers, worker_count,
					&metadata_callbacks, volume);
	if (fence_init(&volume->fence) < 0 || volume->metadata == NULL) {
		volume_abandon(volume);
		return NULL;
	}
	return volume;
}

bool volume_is_idle(struct volume *volume)
{
	struct metadata *metadata = volume->metadata;
	bool idle;

	pthread_mutex_lock(&metadata->lock);
	idle = metadata_is_idle(metadata) &&
	       (volume_latched(volume) || volume->tracking.state == TRACKING_IDLE);
	pthread_mutex_unlock(&metadata->lock);
	return idle;
}

/* Until nothing is under way and nothing is queued. */
static void drain(struct volume *volume)
{
	bool ran = true;

	while (ran || !volume_is_idle(volume)) {
		ran = worker_run(volume->metadata->workers[0]);
		if (ran || volume_is_idle(volume))
			continue;
		metadata_wait_for_store(volume->metadata);
		ran = true; /* maybe: what came may have posted a task, and be the last */
	}
}

static int recover(struct volume *volume, struct damage *reterr_damage)
{
	struct metadata *metadata = volume->metadata;
	struct recovery_log log = {0};
	uint32_t *generations = NULL;
	int r = metadata_find(metadata, &generations, &log, reterr_damage);
	bool clean = metadata->super.clean;

	if (r == 0)
		r = metadata_init_parts(metadata, &log);
	if (r == 0)
		r = tracking_init(&volume->tracking, volume);
	if (r == 0)
		r = recovery_read_tops(metadata, generations, reterr_damage);
	if (r == 0)
		r = tracking_load(volume, reterr_damage);
	if (r == 0)
		r = metadata_replay(metadata, &log, clean, reterr_damage);
	/* What replay began, if anything, ends before. */
	if (r < 0 && metadata->checkpoint.metadata)
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
		int lacks = atomic_load(&volume->metadata->backing.metadata_error);

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
	volume->metadata->cache.zero_new_refs = !volume->options.read_only;
	metadata_look_at_space(volume->metadata);
	*ret_volume = volume;
	return 0;
}

/* --- closing --- */

/* Afterwards every stamp is on the store, and nothing changes any more. */
static void close_areas(struct volume *volume)
{
	struct metadata_call call;

	metadata_call_prepare(volume->metadata, &call);
	pthread_mutex_lock(&volume->metadata->lock);
	tracking_close(&volume->tracking, volume->metadata->workers[0], &call.wait);
	pthread_mutex_unlock(&volume->metadata->lock);
	(void)metadata_call_wait(volume->metadata, &call); /* a latched volume says so itself */
}

int volume_close(struct volume *volume)
{
	int r = 0;

	/* What a worker whose thread has ended began, and waits for space, goes on here. */
	volume->metadata->checkpoint.step.task.worker = volume->metadata->workers[0];
	volume->metadata->journal.step.task.worker = volume->metadata->workers[0];
	volume->tracking.step.task.worker = volume->metadata->workers[0];
	sweep_close(&volume->metadata->sweep, volume->metadata->workers[0]);
	if (!volume_latched(volume) && !volume->options.read_only) {
		close_areas(volume);
		/* Twice: either superblock alone says so, should the other be lost. */
		for (unsigned copy = 0; r == 0 && copy < 2; copy++)
			r = metadata_checkpoint_clean(volume->metadata);
	}
	drain(volume);
	r = volume_latched(volume) ? volume_latched(volume) : r;
	volume_abandon(volume);
	return r;
}

void volume_abandon(struct volume *volume)
{
	metadata_free(volume->metadata);
	tracking_done(&volume->tracking);
	fence_done(&volume->fence);
	free(volume);
}

/* --- the caller's timer, and what it asks --- */

void volume_tick(struct volume *volume, struct worker *worker)
{
	if (volume->options.read_only || volume_latched(volume))
		return;
	metadata_tick(volume->metadata, worker);
	tracking_tick(&volume->tracking, worker);
}

void volume_checkpoint(struct volume *volume, struct worker *worker)
{
	metadata_checkpoint(volume->metadata, worker);
}

int volume_trim(struct volume *volume, uint64_t *ret_round)
{
	struct metadata *metadata = volume->metadata;
	int r = volume_latched(volume) ? -EIO : 0;

	if (volume->options.read_only)
		return -EROFS;
	pthread_mutex_lock(&metadata->lock);
	if (r == 0 && !metadata->pending.discard)
		r = -EOPNOTSUPP;
	if (r == 0)
		*ret_round = sweep_ask(&metadata->sweep);
	pthread_mutex_unlock(&metadata->lock);
	return r;
}

void volume_end_trim(struct volume *volume)
{
	pthread_mutex_lock(&volume->metadata->lock);
	sweep_stop(&volume->metadata->sweep);
	pthread_mutex_unlock(&volume->metadata->lock);
}

void volume_cancel(struct volume *volume)
{
	atomic_store(&volume->cancelled, true);
}

const uint8_t *volume_uuid(const struct volume *volume)
{
	return volume->metadata->super.uuid;
}

bool volume_reaches_foreign(const struct volume *volume)
{
	return volume->metadata->store->reaches_foreign;
}

uint64_t volume_size_bytes(const struct volume *volume)
{
	return blocks_to_bytes(volume->metadata->super.geometry.logical_blocks);
}

uint64_t volume_generation(const struct volume *volume)
{
	return volume->metadata->super.checkpoint;
}

static enum volume_state state_of(struct volume *volume)
{
	if (volume_latched(volume))
		return VOLUME_LATCHED;
	if (volume->options.read_only)
		return VOLUME_READ_ONLY;
	if (backing_is_lacking(&volume->metadata->backing) ||
	    atomic_load(&volume->metadata->backing.data_error) != 0)
		return VOLUME_BACKING_FULL;
	return volume->metadata->low_on_space ? VOLUME_LOW_ON_SPACE : VOLUME_OK;
}

static void backing_stats(struct volume *volume, struct volume_stats *ret)
{
	bool metadata = backing_is_lacking(&volume->metadata->backing);
	int error = atomic_load(metadata ? &volume->metadata->backing.metadata_error
					 : &volume->metadata->backing.data_error);

	ret->metadata_waits = volume->metadata->backing.metadata_waits;
	ret->metadata_waiting = metadata;
	if (error == 0)
		return;
	snprintf(ret->backing_text, sizeof(ret->backing_text),
		 metadata ? "metadata waits: %s" : "data: %s", strerror(-error));
}

static void space_stats(struct volume *volume, struct volume_stats *ret)
{
	const struct geometry *g = &volume->metadata->super.geometry;
	uint64_t data = geometry_data_blocks(g), places = volume->metadata->journal.counts.places;
	const struct refs *refs = &volume->metadata->refs;
	uint64_t unbacked = metadata_unbacked_blocks(volume->metadata);
	uint64_t free = metadata_free_blocks(volume->metadata),
		 kept = free - min_u64(free, metadata_spare_blocks(volume->metadata));

	ret->size_bytes = blocks_to_bytes(g->logical_blocks);
	ret->store_bytes = blocks_to_bytes(g->store_blocks);
	ret->mapped_bytes = blocks_to_bytes(volume->metadata->journal.counts.mapped_blocks);
	ret->used_bytes = blocks_to_bytes(data - refs->free_blocks - 2 * places);
	ret->shared_bytes = blocks_to_bytes(refs->shared_refs);
	ret->saved_bytes = ret->mapped_bytes - ret->used_bytes;
	ret->free_bytes = blocks_to_bytes(metadata_spare_blocks(volume->metadata) - unbacked);
	ret->unbacked_bytes = blocks_to_bytes(unbacked);
	ret->pending_bytes =
		blocks_to_bytes(refs->busy_free - volume->metadata->alloc.reserved_blocks);
	/* With what is kept for places: as much of it as is there, where something is pending. */
	ret->metadata_bytes = blocks_to_bytes(g->store_blocks - data + 2 * places + kept);
	ret->lost_bytes = blocks_to_bytes(refs->lost_free);
}

/* The lock is held, and given back. */
static void stats_locked(struct volume *volume, struct volume_stats *ret)
{
	memset(ret, 0, sizeof(*ret));
	metadata_look_at_space(volume->metadata);
	ret->state = state_of(volume);
	ret->latched_error = -volume_latched(volume);
	memcpy(ret->latched_text, volume->metadata->latched_text, sizeof(ret->latched_text));
	space_stats(volume, ret);
	backing_stats(volume, ret);
	ret->journal_edits = volume->metadata->journal.edits;
	ret->journal_commits = volume->metadata->journal.commits;
	ret->checkpoints = volume->metadata->checkpoint.checkpoints;
	ret->metadata_reads = volume->metadata->cache.reads;
	ret->metadata_writes = volume->metadata->journal.blocks_written +
			       volume->metadata->checkpoint.pages_written +
			       volume->metadata->checkpoint.checkpoints +
			       volume->tracking.pages_written;
	ret->discarded_bytes = volume->metadata->pending.discarded_bytes;
	if (volume->metadata->pending.discard)
		ret->giveback_due_bytes =
			blocks_to_bytes(sweep_due_blocks(&volume->metadata->sweep));
	ret->giveback_rounds = volume->metadata->sweep.rounds;
	ret->giveback_failed_bytes = blocks_to_bytes(volume->metadata->refs.owed_free[OWED_FAILED]);
	pthread_mutex_unlock(&volume->metadata->lock);
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
			    atomic_load(&volume->metadata->store->copied_bytes);
	ret->zero_copy_bytes = atomic_load(&volume->counters.zero_copy_bytes);
	ret->fence_waits = atomic_load(&volume->fence.waits);
	ret->read_errors = atomic_load(&volume->counters.read_errors);
	ret->write_errors = atomic_load(&volume->counters.write_errors);
	ret->no_space_errors = atomic_load(&volume->counters.no_space_errors);
}

void volume_stats(struct volume *volume, struct volume_stats *ret_stats)
{
	pthread_mutex_lock(&volume->metadata->lock);
	stats_locked(volume, ret_stats);
}

bool volume_try_stats(struct volume *volume, struct volume_stats *ret_stats)
{
	if (pthread_mutex_trylock(&volume->metadata->lock) != 0)
		return false;
	stats_locked(volume, ret_stats);
	return true;
}
