/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/metadata/sweep.h"

#include "core/base/mutant.h"
#include "core/volume/volume_internal.h"

#define TICK_LOADS     256u
#define RUNS_AT_A_TIME 8u
#define RUN_BLOCKS_MAX 256u

static void loaded(struct task *task);

void sweep_init(struct sweep *sweep, struct volume *volume)
{
	*sweep = (struct sweep){.volume = volume};
}

void sweep_stop(struct sweep *sweep)
{
	sweep->stopped = true;
}

void sweep_close(struct sweep *sweep, struct worker *worker)
{
	sweep_stop(sweep);
	sweep->wait.task.worker = worker;
}

static bool may_go_on(const struct sweep *sweep)
{
	struct volume *volume = sweep->volume;
	const struct pending *pending = &volume->pending;

	return !sweep->stopped && sweep->state != SWEEP_LOADING && !volume_latched(volume) &&
	       pending->discard && pending->giveback.count == 0 &&
	       pending->discards_in_flight == 0 && list_empty(&volume->space_waits);
}

static bool begin_next(struct sweep *sweep)
{
	struct volume *volume = sweep->volume;
	uint32_t slab = slabset_next(&volume->refs.due, sweep->slab);

	if (slab == SLABSET_NONE) { /* the round is over; the next tick begins another */
		sweep->rounds++;
		sweep->slab = 0;
		sweep->loads = 0;
		return false;
	}
	sweep->slab = slab;
	sweep->at = 0;
	sweep->state = SWEEP_GIVING;
	alloc_leave(&volume->alloc, slab);
	refs_set_owed(&volume->refs, slab, OWED_NOTHING);
	return true;
}

static void end(struct sweep *sweep)
{
	sweep->state = SWEEP_IDLE;
	sweep->volume->refs.tops[sweep->slab / SUMMARY_ENTRIES].dirty = true;
	sweep->slab++;
}

static void load(struct sweep *sweep, struct worker *worker)
{
	struct volume *volume = sweep->volume;

	sweep->state = SWEEP_LOADING;
	sweep->loads--;
	wait_init(&sweep->wait, worker, loaded);
	cache_load(&volume->cache, page_of_refs(&volume->super.geometry, sweep->slab),
		   &sweep->wait);
}

/* The next runs that are free and in nobody's hands. */
static void give_runs(struct sweep *sweep, const struct frame *frame)
{
	struct volume *volume = sweep->volume;
	const struct geometry *geometry = &volume->super.geometry;
	uint32_t blocks = geometry_slab_blocks(geometry, sweep->slab), runs = 0;

	while (sweep->at < blocks && runs < RUNS_AT_A_TIME) {
		uint32_t begin = sweep->at;

		while (sweep->at < blocks && sweep->at - begin < RUN_BLOCKS_MAX &&
		       frame->counts[sweep->at] == 0 &&
		       (frame->busy_counts[sweep->at] == 0 || MUTANT(93)))
			sweep->at++;
		if (sweep->at > begin) {
			pending_give(&volume->pending,
				     geometry_slab_pbn(geometry, sweep->slab, begin),
				     sweep->at - begin);
			runs++;
			continue;
		}
		/* What is written, or freed, makes itself known; what stays reserved has to have
		 * its turn later. */
		if (frame->counts[begin] == 0 &&
		    alloc_keeps(&volume->alloc, geometry_slab_pbn(geometry, sweep->slab, begin)))
			refs_set_owed(&volume->refs, sweep->slab, OWED_DUE);
		sweep->at++;
	}
}

/* A slab that never went home, and whose page is absent, was not used, or by a life that ended
 * before it said so. Its page is not made for this: that would cost the backing two blocks. */
static void give_unused(struct sweep *sweep)
{
	struct volume *volume = sweep->volume;
	const struct geometry *geometry = &volume->super.geometry;

	sweep->loads--;
	sweep->at = geometry_slab_blocks(geometry, sweep->slab);
	if (volume->refs.slabs[sweep->slab].lost) /* not even its page can be written */
		refs_set_owed(&volume->refs, sweep->slab, OWED_FAILED);
	else if (cache_is_loading_page(&volume->cache, page_of_refs(geometry, sweep->slab)))
		refs_set_owed(&volume->refs, sweep->slab, OWED_DUE); /* somebody begins with it */
	else
		pending_give_slab(&volume->pending, sweep->slab);
}

static void run(struct sweep *sweep, struct worker *worker)
{
	struct volume *volume = sweep->volume;
	const struct geometry *geometry = &volume->super.geometry;

	while (may_go_on(sweep)) {
		struct frame *frame;

		if (sweep->state == SWEEP_IDLE && (sweep->loads == 0 || !begin_next(sweep)))
			return;
		frame = cache_find(&volume->cache, page_of_refs(geometry, sweep->slab));
		if (sweep->at == geometry_slab_blocks(geometry, sweep->slab)) {
			end(sweep);
			continue;
		}
		if (frame == NULL && sweep->loads == 0)
			return;
		if (frame == NULL && volume->refs.slabs[sweep->slab].generation == 0) {
			give_unused(sweep);
		} else if (frame == NULL) {
			load(sweep, worker);
			return;
		} else {
			give_runs(sweep, frame);
		}
		pending_send(&volume->pending, worker->lane);
	}
}

static void loaded(struct task *task)
{
	struct wait *wait = container_of(task, struct wait, task);
	struct sweep *sweep = container_of(wait, struct sweep, wait);
	struct volume *volume = sweep->volume;

	pthread_mutex_lock(&volume->meta);
	sweep->state = SWEEP_GIVING;
	if (wait->res < 0) {
		refs_set_owed(&volume->refs, sweep->slab, OWED_FAILED);
		end(sweep);
	}
	run(sweep, task->worker);
	pthread_mutex_unlock(&volume->meta);
}

void sweep_tick(struct sweep *sweep, struct worker *worker)
{
	/* The store found out that it gives nothing back: nobody waits for that any longer. */
	if (!sweep->volume->pending.discard && sweep->rounds < sweep->asked)
		sweep->rounds = sweep->asked;
	sweep->loads = sweep->rounds < sweep->asked ? UINT32_MAX : TICK_LOADS;
	run(sweep, worker);
}

uint64_t sweep_ask(struct sweep *sweep)
{
	bool at_start = sweep->state == SWEEP_IDLE && sweep->slab == 0;

	refs_make_all_due(&sweep->volume->refs);
	sweep->asked = sweep->rounds + (at_start ? 1 : 2);
	return sweep->asked;
}

void sweep_go_on(struct sweep *sweep, unsigned lane)
{
	run(sweep, sweep->volume->workers[lane]);
}

uint64_t sweep_due_blocks(const struct sweep *sweep)
{
	const struct refs *refs = &sweep->volume->refs;
	const struct slab *slab = &refs->slabs[sweep->slab];
	uint64_t blocks = refs->owed_free[OWED_DUE];

	if (sweep->state != SWEEP_IDLE && slab->owed == OWED_NOTHING)
		blocks += (uint64_t)slab->free_blocks;
	return blocks;
}

/* --- what the caller of the volume asks for --- */

int volume_trim(struct volume *volume, uint64_t *ret_round)
{
	int r = volume_latched(volume) ? -EIO : 0;

	if (volume->options.read_only)
		return -EROFS;
	pthread_mutex_lock(&volume->meta);
	if (r == 0 && !volume->pending.discard)
		r = -EOPNOTSUPP;
	if (r == 0)
		*ret_round = sweep_ask(&volume->sweep);
	pthread_mutex_unlock(&volume->meta);
	return r;
}

void volume_end_trim(struct volume *volume)
{
	pthread_mutex_lock(&volume->meta);
	sweep_stop(&volume->sweep);
	pthread_mutex_unlock(&volume->meta);
}
