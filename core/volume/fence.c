/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/volume/fence.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "core/base/mutant.h"

int fence_init(struct fence *fence)
{
	fence->stripes = aligned_alloc(64, FENCE_STRIPES * sizeof(struct fence_stripe));
	if (fence->stripes == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < FENCE_STRIPES; i++) {
		struct fence_stripe *stripe = &fence->stripes[i];

		pthread_mutex_init(&stripe->lock, NULL);
		list_init(&stripe->held);
		list_init(&stripe->waiting);
		list_init(&stripe->watches);
	}
	atomic_init(&fence->next_ticket, 1);
	atomic_init(&fence->waits, 0);
	return 0;
}

void fence_done(struct fence *fence)
{
	for (uint32_t i = 0; fence->stripes && i < FENCE_STRIPES; i++)
		pthread_mutex_destroy(&fence->stripes[i].lock);
	free(fence->stripes);
	fence->stripes = NULL;
}

struct fence_stripe *fence_stripe(struct fence *fence, uint32_t region)
{
	/* Neighbouring regions get neighbouring stripes: a stream walks through all of them. */
	return &fence->stripes[region % FENCE_STRIPES];
}

void fence_lock2(struct fence *fence, uint32_t region_a, uint32_t region_b)
{
	struct fence_stripe *a = fence_stripe(fence, region_a);
	struct fence_stripe *b = fence_stripe(fence, region_b);

	if (a == b) {
		pthread_mutex_lock(&a->lock);
	} else if (a < b) {
		pthread_mutex_lock(&a->lock);
		pthread_mutex_lock(&b->lock);
	} else {
		pthread_mutex_lock(&b->lock);
		pthread_mutex_lock(&a->lock);
	}
}

void fence_unlock2(struct fence *fence, uint32_t region_a, uint32_t region_b)
{
	struct fence_stripe *a = fence_stripe(fence, region_a);
	struct fence_stripe *b = fence_stripe(fence, region_b);

	pthread_mutex_unlock(&a->lock);
	if (a != b)
		pthread_mutex_unlock(&b->lock);
}

static bool overlaps(uint64_t begin_a, uint64_t end_a, uint64_t begin_b, uint64_t end_b)
{
	return begin_a < end_b && begin_b < end_a;
}

static bool conflicts(const struct fence_hold *a, const struct fence_hold *b)
{
	if (!overlaps(a->begin, a->end, b->begin, b->end))
		return false;
	/* A discard or a merge that does not drain what is in flight. */
	if (MUTANT(26) && a->state == FENCE_HELD && a->mode == FENCE_SHARED)
		return false;
	return a->mode == FENCE_EXCLUSIVE || b->mode == FENCE_EXCLUSIVE;
}

/* Whether anything held, or anything that waited before, is in the way. */
static bool blocked(const struct fence_stripe *stripe, const struct fence_hold *hold)
{
	list_for_each (pos, &stripe->held)
		if (conflicts(container_of(pos, struct fence_hold, node), hold))
			return true;
	if (hold->passes)
		return false;
	list_for_each (pos, &stripe->waiting) {
		const struct fence_hold *other = container_of(pos, struct fence_hold, node);

		if (other->ticket >= hold->ticket)
			break;
		if (conflicts(other, hold))
			return true;
	}
	return false;
}

static void give(struct fence_stripe *stripe, struct fence_hold *hold)
{
	hold->state = FENCE_HELD;
	list_add_tail(&stripe->held, &hold->node);
	if (!hold->changes)
		return;
	list_for_each (pos, &stripe->watches) {
		struct fence_watch *watch = container_of(pos, struct fence_watch, node);

		if (overlaps(watch->begin, watch->end, hold->begin, hold->end))
			watch->touched = true;
	}
}

static void enqueue(struct fence_stripe *stripe, struct fence_hold *hold)
{
	struct list *at = &stripe->waiting;

	while (at->prev != &stripe->waiting &&
	       container_of(at->prev, struct fence_hold, node)->ticket > hold->ticket)
		at = at->prev;
	hold->state = FENCE_WAITING;
	list_add_before(at, &hold->node);
}

bool fence_take(struct fence *fence, struct fence_stripe *stripe, struct fence_hold *hold)
{
	assert(hold->state == FENCE_FREE && hold->begin < hold->end);
	assert((hold->begin >> REGION_SHIFT) == ((hold->end - 1) >> REGION_SHIFT));
	if (hold->ticket == 0)
		hold->ticket = atomic_fetch_add(&fence->next_ticket, 1);
	if (!blocked(stripe, hold)) {
		give(stripe, hold);
		return true;
	}
	enqueue(stripe, hold);
	atomic_fetch_add_explicit(&fence->waits, 1, memory_order_relaxed);
	return false;
}

void fence_drop(struct fence_stripe *stripe, struct fence_hold *hold)
{
	assert(hold->state == FENCE_HELD);
	list_del(&hold->node);
	hold->state = FENCE_FREE;
	list_for_each (pos, &stripe->waiting) {
		struct fence_hold *next = container_of(pos, struct fence_hold, node);

		if (blocked(stripe, next))
			continue;
		list_del(&next->node);
		give(stripe, next);
		worker_post(&next->task);
	}
}

bool fence_is_changing(const struct fence_stripe *stripe, uint32_t region)
{
	list_for_each (pos, &stripe->held) {
		const struct fence_hold *hold = container_of(pos, struct fence_hold, node);

		if (hold->changes && hold->begin >> REGION_SHIFT == region)
			return true;
	}
	return false;
}

void fence_watch(struct fence_stripe *stripe, struct fence_watch *watch)
{
	assert(!watch->placed);
	watch->touched = false;
	list_for_each (pos, &stripe->held) {
		const struct fence_hold *hold = container_of(pos, struct fence_hold, node);

		if (hold->changes && overlaps(watch->begin, watch->end, hold->begin, hold->end))
			watch->touched = true;
	}
	watch->placed = true;
	list_add_tail(&stripe->watches, &watch->node);
}

void fence_unwatch(struct fence_watch *watch)
{
	assert(watch->placed);
	list_del(&watch->node);
	watch->placed = false;
}
