/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/volume/tracking.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mutant.h"
#include "core/volume/volume_internal.h"

#define ROUND_AREAS 4096u /* open ones that a tick looks at */

static void next(struct tracking *tracking, struct worker *worker);

int tracking_init(struct tracking *tracking, struct volume *volume)
{
	const struct geometry *geometry = &volume->metadata->super.geometry;

	tracking->volume = volume;
	tracking->state = TRACKING_IDLE;
	list_init(&tracking->waits);
	if (geometry->tracking_start == 0)
		return 0;
	tracking->areas = geometry_areas(geometry);
	tracking->regions = geometry->regions;
	tracking->states = calloc(tracking->areas, sizeof(tracking->states[0]));
	tracking->stamps = calloc(tracking->regions, sizeof(tracking->stamps[0]));
	tracking->pages = aligned_alloc(BLOCK_BYTES, (size_t)TRACKING_BATCH * BLOCK_BYTES);
	return tracking->states && tracking->stamps && tracking->pages ? 0 : -ENOMEM;
}

void tracking_done(struct tracking *tracking)
{
	free(tracking->states);
	free(tracking->stamps);
	free(tracking->pages);
}

static enum area_state state_of(const struct tracking *tracking, uint32_t area)
{
	return (enum area_state)atomic_load_explicit(&tracking->states[area], memory_order_relaxed);
}

static void set_state(struct tracking *tracking, uint32_t area, enum area_state state)
{
	atomic_store(&tracking->states[area], (uint8_t)state);
}

static uint32_t area_end(const struct tracking *tracking, uint32_t area)
{
	return min_u32((area + 1) * AREA_REGIONS, tracking->regions);
}

/* --- stamps and cuts --- */

/* A cut may come in between. It lists the stamps after it has begun the next generation: either it
 * sees this one, or the new number is seen here, and the region belongs to the next list. */
void tracking_stamp_new(struct tracking *tracking, uint32_t region)
{
	uint32_t now, stamp = atomic_load(&tracking->generation);

	for (;;) {
		atomic_store(&tracking->stamps[region], stamp);
		now = atomic_load(&tracking->generation);
		if (now == stamp)
			break;
		stamp = now;
	}
	if (!atomic_load_explicit(&tracking->stamped, memory_order_relaxed))
		atomic_store(&tracking->stamped, true);
}

/* A stamp that comes in between leaves `stamped` true or false; either is right, see
 * tracking_cut(). */
static void bump(struct tracking *tracking)
{
	uint32_t generation = atomic_load(&tracking->generation);

	if (generation >= TRACKING_LAST || !atomic_load(&tracking->stamped))
		return;
	atomic_store(&tracking->stamped, false);
	atomic_store(&tracking->generation, generation + 1);
}

/* If nothing was stamped in the current generation, the one before ends as well now as it did.
 * Read-only, none is ever begun: whoever opens the store next begins the one that this is. */
int tracking_cut(struct tracking *tracking, uint32_t *ret_generation)
{
	bool read_only = tracking->volume->options.read_only;

	if (!read_only)
		bump(tracking);
	*ret_generation = atomic_load(&tracking->generation) - 1;
	if (*ret_generation + 1 >= TRACKING_LAST)
		return -EOVERFLOW;
	if (read_only || MUTANT(57)) /* or a cut that may be lost */
		return 0;
	return tracking->durable_generation == *ret_generation + 1 ? 0 : 1;
}

bool tracking_next(const struct tracking *tracking, uint32_t since, uint32_t first, uint32_t end,
		   uint32_t *ret_first, uint32_t *ret_count)
{
	uint32_t region = first;

	while (region < end && atomic_load(&tracking->stamps[region]) <= since)
		region++;
	*ret_first = region;
	while (region < end && atomic_load(&tracking->stamps[region]) > since)
		region++;
	*ret_count = region - *ret_first;
	return *ret_count > 0;
}

/* --- pages --- */

static void page_done(struct store_io *io, int res)
{
	struct tracking *tracking = io->context;
	struct volume *volume = tracking->volume;

	pthread_mutex_lock(&volume->metadata->lock);
	if (!backing_holds(&volume->metadata->backing, io, res)) {
		if (res < 0)
			tracking->ios_res = res;
		if (--tracking->ios_pending == 0)
			wait_wake(&tracking->step, tracking->ios_res);
	}
	pthread_mutex_unlock(&volume->metadata->lock);
}

static void write_page(struct tracking *tracking, uint32_t i, bool open)
{
	struct volume *volume = tracking->volume;
	uint32_t area = tracking->batch[i], first = area * AREA_REGIONS;
	uint8_t *out = tracking->pages + (size_t)i * BLOCK_BYTES;
	struct tracking_page page = {.open = open};

	for (uint32_t region = first; region < area_end(tracking, area); region++)
		page.stamps[region - first] = atomic_load(&tracking->stamps[region]);
	tracking_page_encode(&page, area, volume->metadata->super.uuid, out);
	tracking->ios[i] = (struct store_io){
		.op = STORE_WRITE,
		.lane = tracking->step.task.worker->lane,
		.off_bytes = blocks_to_bytes(
			geometry_tracking_block(&volume->metadata->super.geometry, area)),
		.len_bytes = BLOCK_BYTES,
		.buf = out,
		.done = page_done,
		.context = tracking,
	};
	tracking->pages_written++;
	backing_write(&volume->metadata->backing, &tracking->ios[i]);
}

static void write_batch(struct tracking *tracking, enum tracking_state state, bool open)
{
	tracking->state = state;
	tracking->ios_res = 0;
	tracking->ios_pending = tracking->batch_count;
	for (uint32_t i = 0; i < tracking->batch_count; i++)
		write_page(tracking, i, open);
}

/* The batch is over: its areas have this state, and the number of open ones has changed. */
static void end_batch(struct tracking *tracking, enum area_state state)
{
	for (uint32_t i = 0; i < tracking->batch_count; i++)
		set_state(tracking, tracking->batch[i], state);
	tracking->batch_count = 0;
}

static void opened(struct tracking *tracking)
{
	tracking->open_areas += tracking->batch_count;
	end_batch(tracking, AREA_OPEN);
	next(tracking, tracking->step.task.worker);
}

/* More to close at the volume's end: nothing has changed since it was flushed. */
static bool choose_all(struct tracking *tracking)
{
	for (uint32_t area = 0; tracking->all_closed && area < tracking->areas; area++) {
		if (tracking->batch_count == TRACKING_BATCH)
			break;
		if (state_of(tracking, area) != AREA_OPEN)
			continue;
		set_state(tracking, area, AREA_CLOSING);
		tracking->batch[tracking->batch_count++] = area;
	}
	return tracking->batch_count > 0;
}

static void closed(struct tracking *tracking)
{
	tracking->open_areas -= tracking->batch_count;
	end_batch(tracking, AREA_CLOSED);
	next(tracking, tracking->step.task.worker);
}

static void step(struct tracking *tracking)
{
	switch (tracking->state) {
	case TRACKING_OPEN_WRITE:
		tracking->state = TRACKING_OPEN_FLUSH;
		flusher_join(&tracking->volume->metadata->flusher, &tracking->step);
		break;
	case TRACKING_OPEN_FLUSH:
		opened(tracking);
		break;
	case TRACKING_CLOSE_COMMIT:
		tracking->state = TRACKING_CLOSE_FLUSH;
		flusher_join(&tracking->volume->metadata->flusher, &tracking->step);
		break;
	case TRACKING_CLOSE_FLUSH:
		write_batch(tracking, TRACKING_CLOSE_WRITE, false);
		break;
	case TRACKING_CLOSE_WRITE:
		closed(tracking);
		break;
	case TRACKING_IDLE:
	case TRACKING_LOOKING:
	case TRACKING_DEAD:
		assert(false);
	}
}

/* What it waited for has come: its writes, a commit, a flush. */
static void advance(struct task *task)
{
	struct wait *wait = container_of(task, struct wait, task);
	struct tracking *tracking = container_of(wait, struct tracking, step);
	struct volume *volume = tracking->volume;

	if (volume_yield(volume, "tracking step")) {
		worker_post(task);
		return;
	}
	pthread_mutex_lock(&volume->metadata->lock);
	if (tracking->state != TRACKING_DEAD) {
		if (wait->res < 0)
			metadata_latch(volume->metadata, wait->res, "a write of change tracking");
		else
			step(tracking);
	}
	pthread_mutex_unlock(&volume->metadata->lock);
}

/* --- opening --- */

static void wake_open(struct tracking *tracking)
{
	list_for_each (pos, &tracking->waits) {
		struct wait *wait = container_of(pos, struct wait, node);

		if (state_of(tracking, (uint32_t)wait->value) == AREA_OPEN)
			wait_wake(wait, 0);
	}
}

static void begin_open(struct tracking *tracking, struct worker *worker)
{
	list_for_each (pos, &tracking->waits) {
		uint32_t area = (uint32_t)container_of(pos, struct wait, node)->value;

		if (tracking->batch_count == TRACKING_BATCH)
			break;
		if (state_of(tracking, area) != AREA_CLOSED)
			continue;
		set_state(tracking, area, MUTANT(53) ? AREA_OPEN : AREA_OPENING);
		tracking->batch[tracking->batch_count++] = area;
	}
	assert(tracking->batch_count > 0);
	wait_init(&tracking->step, worker, advance);
	write_batch(tracking, TRACKING_OPEN_WRITE, true);
	if (MUTANT(53)) /* writes go on while the mark is on its way */
		wake_open(tracking);
}

static void begin_close(struct tracking *tracking, struct worker *worker)
{
	struct journal *journal = &tracking->volume->metadata->journal;

	tracking->state = TRACKING_CLOSE_COMMIT;
	tracking->final = tracking->all_closed != NULL;
	wait_init(&tracking->step, worker, advance);
	if (MUTANT(56)) /* closed while what was changed is volatile */
		write_batch(tracking, TRACKING_CLOSE_WRITE, false);
	else
		journal_wait(journal, journal_next_lsn(journal) - 1, &tracking->step);
}

/* Idle: what else there is to do. */
static void next(struct tracking *tracking, struct worker *worker)
{
	tracking->state = TRACKING_IDLE;
	wake_open(tracking);
	if (!list_empty(&tracking->waits)) {
		begin_open(tracking, worker);
	} else if (choose_all(tracking)) {
		if (tracking->final)
			write_batch(tracking, TRACKING_CLOSE_WRITE, false);
		else
			begin_close(tracking, worker);
	} else if (tracking->all_closed) {
		wait_wake(tracking->all_closed, 0);
		tracking->all_closed = NULL;
	}
}

bool tracking_ask(struct tracking *tracking, uint32_t region, struct wait *wait)
{
	struct volume *volume = tracking->volume;
	uint32_t area = region / AREA_REGIONS;
	bool waits;

	pthread_mutex_lock(&volume->metadata->lock);
	waits = tracking->state != TRACKING_DEAD && state_of(tracking, area) != AREA_OPEN;
	if (waits) {
		wait->value = area;
		list_add_tail(&tracking->waits, &wait->node);
		if (tracking->state == TRACKING_IDLE)
			begin_open(tracking, wait->task.worker);
		/* It may have looked before, and all others were told. */
		if (backing_is_lacking(&volume->metadata->backing))
			tracking_wake(tracking);
	}
	pthread_mutex_unlock(&volume->metadata->lock);
	return waits;
}

/* --- closing what rests --- */

static bool rests(const struct tracking *tracking, uint32_t area)
{
	for (uint32_t r = area * AREA_REGIONS; r < area_end(tracking, area); r++)
		if (atomic_load_explicit(&tracking->stamps[r], memory_order_relaxed) >=
		    tracking->round_generation)
			return false;
	return true;
}

/* The next areas that rest are CLOSING. False: there is none. */
static bool choose(struct tracking *tracking)
{
	uint32_t looked = 0;

	for (; tracking->cursor < tracking->areas; tracking->cursor++) {
		uint32_t area = tracking->cursor;

		if (looked == ROUND_AREAS || tracking->batch_count == TRACKING_BATCH)
			return tracking->batch_count > 0;
		if (state_of(tracking, area) != AREA_OPEN)
			continue;
		looked++;
		if (!rests(tracking, area))
			continue;
		set_state(tracking, area, AREA_CLOSING);
		tracking->batch[tracking->batch_count++] = area;
	}
	tracking->cursor = 0;
	tracking->ticks = 0;
	bump(tracking);
	tracking->round_generation = atomic_load(&tracking->generation);
	return tracking->batch_count > 0;
}

/* Whether nothing that may change the area is in flight; no lock is held. */
static bool is_quiet(struct volume *volume, uint32_t area)
{
	struct tracking *tracking = &volume->tracking;
	bool quiet = true;

	if (MUTANT(55)) /* nobody asks */
		return true;
	for (uint32_t r = area * AREA_REGIONS; quiet && r < area_end(tracking, area); r++) {
		struct fence_stripe *stripe = fence_stripe(&volume->fence, r);

		pthread_mutex_lock(&stripe->lock);
		quiet = !fence_is_changing(stripe, r);
		pthread_mutex_unlock(&stripe->lock);
	}
	return quiet;
}

/* Areas that are in use after all leave the batch. */
static void keep_quiet(struct tracking *tracking, const bool *quiet)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < tracking->batch_count; i++) {
		if (quiet[i])
			tracking->batch[count++] = tracking->batch[i];
		else
			set_state(tracking, tracking->batch[i], AREA_OPEN);
	}
	tracking->batch_count = count;
}

void tracking_tick(struct tracking *tracking, struct worker *worker)
{
	struct volume *volume = tracking->volume;
	uint32_t rest = volume->options.tracking_rest_ticks;
	bool quiet[TRACKING_BATCH], chosen = false;

	pthread_mutex_lock(&volume->metadata->lock);
	if (tracking->open_areas > 0 && tracking->state == TRACKING_IDLE &&
	    (tracking->cursor > 0 || ++tracking->ticks >= (rest ? rest : TRACKING_REST)))
		chosen = choose(tracking);
	if (chosen)
		tracking->state = TRACKING_LOOKING;
	pthread_mutex_unlock(&volume->metadata->lock);
	if (!chosen)
		return;
	for (uint32_t i = 0; i < tracking->batch_count; i++)
		quiet[i] = is_quiet(volume, tracking->batch[i]);
	pthread_mutex_lock(&volume->metadata->lock);
	if (tracking->state != TRACKING_DEAD) {
		keep_quiet(tracking, quiet);
		if (tracking->batch_count > 0)
			begin_close(tracking, worker);
		else
			next(tracking, worker);
	}
	pthread_mutex_unlock(&volume->metadata->lock);
}

void tracking_close(struct tracking *tracking, struct worker *worker, struct wait *wait)
{
	tracking->all_closed = wait;
	if (tracking->state == TRACKING_IDLE)
		next(tracking, worker);
}

/* --- the end --- */

void tracking_kill(struct tracking *tracking, int error)
{
	tracking->state = TRACKING_DEAD;
	wait_wake_all(&tracking->waits, error);
	if (tracking->all_closed)
		wait_wake(tracking->all_closed, error);
	tracking->all_closed = NULL;
}

void tracking_wake(struct tracking *tracking)
{
	wait_wake_all(&tracking->waits, 0);
}
