/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/metadata/pending.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "core/base/mutant.h"

#define DISCARD_BLOCKS_MAX 256u

static void discard_done(struct store_io *io, int res);

static int queue_init(struct pending_queue *queue, uint32_t capacity)
{
	*queue = (struct pending_queue){.capacity = capacity};
	queue->runs = calloc(capacity, sizeof(struct pending_run));
	return queue->runs ? 0 : -ENOMEM;
}

static void queue_push(struct pending_queue *queue, struct pending_run run)
{
	assert(queue->count < queue->capacity);
	queue->runs[(queue->first + queue->count) % queue->capacity] = run;
	queue->count++;
	queue->blocks += run.blocks;
}

static const struct pending_run *queue_first(const struct pending_queue *queue)
{
	return queue->count > 0 ? &queue->runs[queue->first] : NULL;
}

static struct pending_run queue_pop(struct pending_queue *queue)
{
	struct pending_run run = queue->runs[queue->first];

	assert(queue->count > 0);
	queue->first = (queue->first + 1) % queue->capacity;
	queue->count--;
	queue->blocks -= run.blocks;
	return run;
}

int pending_init(struct pending *pending, struct refs *refs, struct store *store,
		 pthread_mutex_t *lock, uint32_t capacity, bool discard)
{
	*pending = (struct pending){
		.refs = refs,
		.store = store,
		.lock = lock,
		.discard = discard && store->can_discard,
	};
	for (uint32_t i = 0; i < PENDING_DISCARDS; i++)
		pending->discards[i].pending = pending;
	if (queue_init(&pending->queue, capacity) < 0 ||
	    queue_init(&pending->quarantine, capacity) < 0 ||
	    queue_init(&pending->giveback, capacity) < 0)
		return -ENOMEM;
	return 0;
}

void pending_done(struct pending *pending)
{
	free(pending->queue.runs);
	free(pending->quarantine.runs);
	free(pending->giveback.runs);
}

void pending_add(struct pending *pending, uint64_t lsn, pbn_t pbn, uint32_t blocks)
{
	refs_busy_add(pending->refs, pbn, blocks);
	if (MUTANT(2)) { /* freed blocks are reused before the free is durable */
		refs_busy_sub(pending->refs, pbn, blocks);
		return;
	}
	queue_push(&pending->queue, (struct pending_run){lsn, pbn, blocks, false});
}

void pending_add_place(struct pending *pending, uint64_t lsn, pbn_t place)
{
	refs_busy_add(pending->refs, place, 2);
	queue_push(&pending->quarantine, (struct pending_run){lsn, place, 2, false});
}

void pending_add_slot(struct pending *pending, uint64_t lsn, pbn_t slot)
{
	refs_busy_add(pending->refs, slot, 1);
	queue_push(&pending->quarantine, (struct pending_run){lsn, slot, 1, false});
}

void pending_kill(struct pending *pending)
{
	pending->discard = false;
	pending->giveback.count = 0; /* they stay busy: nothing is allocated any more either */
	pending->giveback.blocks = 0;
}

uint32_t pending_room(const struct pending *pending)
{
	uint32_t queued = pending->queue.count > pending->quarantine.count
				  ? pending->queue.count
				  : pending->quarantine.count;

	return pending->queue.capacity - queued;
}

bool pending_any(const struct pending *pending)
{
	return pending->queue.count > 0 || pending->giveback.count > 0 ||
	       pending->discards_in_flight > 0;
}

bool pending_epoch_bound(const struct pending *pending, uint64_t durable_lsn)
{
	const struct pending_run *run = queue_first(&pending->queue);

	return run != NULL && run->lsn <= durable_lsn;
}

uint64_t pending_given_blocks(const struct pending *pending)
{
	uint64_t blocks = pending->giveback.blocks;

	for (uint32_t i = 0; i < PENDING_DISCARDS; i++)
		blocks += pending->discards[i].run.blocks; /* 0: none in flight there */
	return blocks;
}

uint64_t pending_blocks(const struct pending *pending)
{
	return pending->queue.blocks + pending->quarantine.blocks + pending_given_blocks(pending);
}

static struct pending_discard *free_discard(struct pending *pending)
{
	for (uint32_t i = 0; i < PENDING_DISCARDS; i++)
		if (pending->discards[i].run.blocks == 0)
			return &pending->discards[i];
	return NULL;
}

static void set_owed(struct pending *pending, pbn_t pbn, enum owed owed)
{
	refs_set_owed(pending->refs, geometry_slab(pending->refs->geometry, pbn), owed);
}

static void let_go(struct pending *pending, const struct pending_run *run)
{
	if (run->held)
		refs_unhold(pending->refs, geometry_slab(pending->refs->geometry, run->pbn));
	else
		refs_busy_sub(pending->refs, run->pbn, run->blocks);
}

/* Sends queued runs to the store, adjacent ones as one as long as it is a small one: what has been
 * sent cannot be reused. */
static void submit_discards(struct pending *pending, unsigned lane)
{
	while (pending->giveback.count > 0) {
		struct pending_discard *discard = free_discard(pending);
		const struct pending_run *next;

		if (discard == NULL)
			return;
		discard->run = queue_pop(&pending->giveback);
		while ((next = queue_first(&pending->giveback)) != NULL && !next->held &&
		       next->pbn.v == discard->run.pbn.v + discard->run.blocks &&
		       discard->run.blocks + next->blocks <= DISCARD_BLOCKS_MAX)
			discard->run.blocks += queue_pop(&pending->giveback).blocks;
		discard->io = (struct store_io){
			.op = STORE_DISCARD,
			.lane = lane,
			.off_bytes = pbn_off_bytes(discard->run.pbn),
			.len_bytes = blocks_to_bytes(discard->run.blocks),
			.done = discard_done,
			.context = discard,
		};
		pending->discards_in_flight++;
		store_submit(pending->store, &discard->io);
		if (MUTANT(27)) /* handed out while its discard is in flight */
			let_go(pending, &discard->run);
	}
}

static void discard_done(struct store_io *io, int res)
{
	struct pending_discard *discard = io->context;
	struct pending *pending = discard->pending;

	pthread_mutex_lock(pending->lock);
	if (res == 0)
		pending->discarded_bytes += io->len_bytes;
	else if (res == -EOPNOTSUPP)
		pending->discard = false; /* a hint that the store does not take */
	if (res < 0)
		set_owed(pending, discard->run.pbn, OWED_FAILED);
	if (!MUTANT(27))
		let_go(pending, &discard->run);
	discard->run.blocks = 0;
	pending->discards_in_flight--;
	submit_discards(pending, io->lane);
	pending->on_settled(pending->context);
	if (pending->on_given)
		pending->on_given(pending->context, io->lane);
	pthread_mutex_unlock(pending->lock);
}

/* Whether the block has no owner, and this run is all that keeps it busy: a later drop, which need
 * not be durable yet, has a run of its own. */
static bool is_released(struct pending *pending, pbn_t pbn)
{
	return refs_count(pending->refs, pbn) == 0 && refs_busy_count(pending->refs, pbn) == 1;
}

/* Not given back now: what is free is due. */
static void settle(struct pending *pending, pbn_t pbn, uint32_t blocks, bool released)
{
	if (released)
		set_owed(pending, pbn, OWED_DUE);
	refs_busy_sub(pending->refs, pbn, blocks);
}

/* One run: what still has references is overwritable again, what has none is given back or
 * allocatable. */
static void settle_run(struct pending *pending, struct pending_run run)
{
	uint32_t i = 0;

	while (i < run.blocks) {
		bool released = is_released(pending, pbn_add(run.pbn, i));
		uint32_t end = i + 1;

		while (end < run.blocks && is_released(pending, pbn_add(run.pbn, end)) == released)
			end++;
		if (released && pending->discard &&
		    pending->giveback.count < pending->giveback.capacity)
			queue_push(
				&pending->giveback,
				(struct pending_run){run.lsn, pbn_add(run.pbn, i), end - i, false});
		else
			settle(pending, pbn_add(run.pbn, i), end - i, released);
		i = end;
	}
}

static void settle_queue(struct pending *pending, struct pending_queue *queue, uint64_t before_lsn,
			 unsigned lane)
{
	const struct pending_run *run;
	bool any = false;

	while ((run = queue_first(queue)) != NULL && run->lsn < before_lsn) {
		settle_run(pending, queue_pop(queue));
		any = true;
	}
	if (!any)
		return;
	submit_discards(pending, lane);
	pending->on_settled(pending->context);
}

void pending_settle(struct pending *pending, uint64_t durable_lsn, uint64_t oldest_epoch,
		    unsigned lane)
{
	settle_queue(pending, &pending->queue, min_u64(durable_lsn + 1, oldest_epoch), lane);
}

void pending_reuse(struct pending *pending)
{
	if (pending->giveback.count == 0)
		return;
	while (pending->giveback.count > 0) {
		struct pending_run run = queue_pop(&pending->giveback);

		set_owed(pending, run.pbn, OWED_DUE);
		let_go(pending, &run);
	}
	pending->on_settled(pending->context);
}

void pending_release_places(struct pending *pending, uint64_t tail_lsn, unsigned lane)
{
	settle_queue(pending, &pending->quarantine, tail_lsn, lane);
}

void pending_give(struct pending *pending, pbn_t pbn, uint32_t blocks)
{
	refs_busy_add(pending->refs, pbn, blocks);
	queue_push(&pending->giveback, (struct pending_run){0, pbn, blocks, false});
}

void pending_give_slab(struct pending *pending, uint32_t slab)
{
	const struct geometry *geometry = pending->refs->geometry;

	refs_hold(pending->refs, slab);
	queue_push(&pending->giveback,
		   (struct pending_run){0, geometry_slab_pbn(geometry, slab, 0),
					geometry_slab_blocks(geometry, slab), true});
}

void pending_send(struct pending *pending, unsigned lane)
{
	submit_discards(pending, lane);
}
