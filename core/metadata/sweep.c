/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/metadata/sweep.h"

#include "core/base/mutant.h"
#include "core/metadata/metadata.h"

#define TICK_LOADS     256u
#define RUNS_AT_A_TIME 8u
#define RUN_BLOCKS_MAX 256u

static void loaded(struct task *task);

void sweep_init(struct sweep *sweep, struct metadata *metadata)
{
	*sweep = (struct sweep){.metadata = metadata};
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
	struct metadata *metadata = sweep->metadata;
	const struct pending *pending = &metadata->pending;

	return !sweep->stopped && sweep->state != SWEEP_LOADING && !metadata_latched(metadata) &&
	       pending->discard && pending->giveback.count == 0 &&
	       pending->discards_in_flight == 0 && list_empty(&metadata->space_waits);
}

static bool begin_next(struct sweep *sweep)
{
	struct metadata *metadata = sweep->metadata;
	uint32_t slab = slabset_next(&metadata->refs.due, sweep->slab);

	if (slab == SLABSET_NONE) { /* the round is over; the next tick begins another */
		sweep->rounds++;
		sweep->slab = 0;
		sweep->loads = 0;
		return false;
	}
	sweep->slab = slab;
	sweep->at = 0;
	sweep->state = SWEEP_GIVING;
	alloc_leave(&metadata->alloc, slab);
	refs_set_owed(&metadata->refs, slab, OWED_NOTHING);
	return true;
}

static void end(struct sweep *sweep)
{
	sweep->state = SWEEP_IDLE;
	sweep->metadata->refs.tops[sweep->slab / SUMMARY_ENTRIES].dirty = true;
	sweep->slab++;
}

static void load(struct sweep *sweep, struct worker *worker)
{
	struct metadata *metadata = sweep->metadata;

	sweep->state = SWEEP_LOADING;
	sweep->loads--;
	wait_init(&sweep->wait, worker, loaded);
	cache_load(&metadata->cache, page_of_refs(&metadata->super.geometry, sweep->slab),
		   &sweep->wait);
}

/* The next runs that are free and in nobody's hands. */
static void give_runs(struct sweep *sweep, const struct frame *frame)
{
	struct metadata *metadata = sweep->metadata;
	const struct geometry *geometry = &metadata->super.geometry;
	uint32_t blocks = geometry_slab_blocks(geometry, sweep->slab), runs = 0;

	while (sweep->at < blocks && runs < RUNS_AT_A_TIME) {
		uint32_t begin = sweep->at;

		while (sweep->at < blocks && sweep->at - begin < RUN_BLOCKS_MAX &&
		       frame->counts[sweep->at] == 0 &&
		       (frame->busy_counts[sweep->at] == 0 || MUTANT(93)))
			sweep->at++;
		if (sweep->at > begin) {
			pending_give(&metadata->pending,
				     geometry_slab_pbn(geometry, sweep->slab, begin),
				     sweep->at - begin);
			runs++;
			continue;
		}
		/* What is written, or freed, makes itself known; what stays reserved has to have
		 * its turn later. */
		if (frame->counts[begin] == 0 &&
		    alloc_keeps(&metadata->alloc, geometry_slab_pbn(geometry, sweep->slab, begin)))
			refs_set_owed(&metadata->refs, sweep->slab, OWED_DUE);
		sweep->at++;
	}
}

/* A slab that never went home, and whose page is absent, was not used, or by a life that ended
 * before it said so. Its page is not made for this: that would cost the backing two blocks. */
static void give_unused(struct sweep *sweep)
{
	struct metadata *metadata = sweep->metadata;
	const struct geometry *geometry = &metadata->super.geometry;

	sweep->loads--;
	sweep->at = geometry_slab_blocks(geometry, sweep->slab);
	if (metadata->refs.slabs[sweep->slab].lost) /* not even its page can be written */
		refs_set_owed(&metadata->refs, sweep->slab, OWED_FAILED);
	else if (cache_is_loading_page(&metadata->cache, page_of_refs(geometry, sweep->slab)))
		refs_set_owed(&metadata->refs, sweep->slab, OWED_DUE); /* somebody begins with it */
	else
		pending_give_slab(&metadata->pending, sweep->slab);
}

static void run(struct sweep *sweep, struct worker *worker)
{
	struct metadata *metadata = sweep->metadata;
	const struct geometry *geometry = &metadata->super.geometry;

	while (may_go_on(sweep)) {
		struct frame *frame;

		if (sweep->state == SWEEP_IDLE && (sweep->loads == 0 || !begin_next(sweep)))
			return;
		frame = cache_find(&metadata->cache, page_of_refs(geometry, sweep->slab));
		if (sweep->at == geometry_slab_blocks(geometry, sweep->slab)) {
			end(sweep);
			continue;
		}
		if (frame == NULL && sweep->loads == 0)
			return;
		if (frame == NULL && metadata->refs.slabs[sweep->slab].generation == 0) {
			give_unused(sweep);
		} else if (frame == NULL) {
			load(sweep, worker);
			return;
		} else {
			give_runs(sweep, frame);
		}
		pending_send(&metadata->pending, worker->lane);
	}
}

static void loaded(struct task *task)
{
	struct wait *wait = container_of(task, struct wait, task);
	struct sweep *sweep = container_of(wait, struct sweep, wait);
	struct metadata *metadata = sweep->metadata;

	pthread_mutex_lock(&metadata->lock);
	sweep->state = SWEEP_GIVING;
	if (wait->res < 0) {
		refs_set_owed(&metadata->refs, sweep->slab, OWED_FAILED);
		end(sweep);
	}
	run(sweep, task->worker);
	pthread_mutex_unlock(&metadata->lock);
}

void sweep_tick(struct sweep *sweep, struct worker *worker)
{
	/* The store found out that it gives nothing back: nobody waits for that any longer. */
	if (!sweep->metadata->pending.discard && sweep->rounds < sweep->asked)
		sweep->rounds = sweep->asked;
	sweep->loads = sweep->rounds < sweep->asked ? UINT32_MAX : TICK_LOADS;
	run(sweep, worker);
}

uint64_t sweep_ask(struct sweep *sweep)
{
	bool at_start = sweep->state == SWEEP_IDLE && sweep->slab == 0;

	refs_make_all_due(&sweep->metadata->refs);
	sweep->asked = sweep->rounds + (at_start ? 1 : 2);
	return sweep->asked;
}

void sweep_go_on(struct sweep *sweep, unsigned lane)
{
	run(sweep, sweep->metadata->workers[lane]);
}

uint64_t sweep_due_blocks(const struct sweep *sweep)
{
	const struct refs *refs = &sweep->metadata->refs;
	const struct slab *slab = &refs->slabs[sweep->slab];
	uint64_t blocks = refs->owed_free[OWED_DUE];

	if (sweep->state != SWEEP_IDLE && slab->owed == OWED_NOTHING)
		blocks += (uint64_t)slab->free_blocks;
	return blocks;
}
