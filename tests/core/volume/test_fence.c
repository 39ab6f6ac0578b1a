/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_fence - ranges are given in order of arrival, one changer at a time, and no circle closes
 *
 * A taker is one hold with a task that counts how often it was posted; `given` lists the takers in
 * the order in which their tasks ran. Everything is in region 0 unless a test is about stripes.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>

#include "core/volume/fence.h"
#include "tests/lib/rng.h"

#define TAKERS_MAX 64u
#define SHARED	   FENCE_SHARED
#define EXCLUSIVE  FENCE_EXCLUSIVE

struct taker {
	struct fence_hold hold;
	uint32_t posted;
};

static struct fence fence;
static struct worker worker;
static struct taker *given[TAKERS_MAX];
static uint32_t given_count;

static void start(void)
{
	cr_assert_eq(fence_init(&fence), 0);
	worker_init(&worker, 0);
	given_count = 0;
}

static void stop(void)
{
	worker_done(&worker);
	fence_done(&fence);
}

TestSuite(fence, .init = start, .fini = stop, .timeout = 20);

static void posted(struct task *task)
{
	struct fence_hold *hold = container_of(task, struct fence_hold, task);
	struct taker *taker = container_of(hold, struct taker, hold);

	cr_assert_eq(hold->state, FENCE_HELD, "a task ran whose range is not held");
	cr_assert_lt(given_count, TAKERS_MAX);
	taker->posted++;
	given[given_count++] = taker;
}

static uint32_t region_of(const struct fence_hold *hold)
{
	return lbn_region((lbn_t){hold->begin});
}

/* True: held at once. */
static bool take_again(struct taker *taker)
{
	uint32_t region = region_of(&taker->hold);
	bool held;

	fence_lock2(&fence, region, region);
	held = fence_take(&fence, fence_stripe(&fence, region), &taker->hold);
	fence_unlock2(&fence, region, region);
	cr_assert_eq(taker->hold.state, held ? FENCE_HELD : FENCE_WAITING);
	return held;
}

static void set(struct taker *taker, uint64_t begin, uint64_t end, enum fence_mode mode)
{
	*taker = (struct taker){
		.hold = {.task = {.worker = &worker, .run = posted},
			 .begin = begin,
			 .end = end,
			 .mode = mode},
	};
}

static bool take(struct taker *taker, uint64_t begin, uint64_t end, enum fence_mode mode)
{
	set(taker, begin, end, mode);
	return take_again(taker);
}

static bool take_changing(struct taker *taker, uint64_t begin, uint64_t end)
{
	set(taker, begin, end, EXCLUSIVE);
	taker->hold.changes = true;
	return take_again(taker);
}

/* By one that holds another range. */
static bool take_passing(struct taker *taker, uint64_t begin, uint64_t end)
{
	set(taker, begin, end, EXCLUSIVE);
	taker->hold.passes = true;
	return take_again(taker);
}

/* And runs the tasks that this posts. */
static void drop(struct taker *taker)
{
	uint32_t region = region_of(&taker->hold);

	fence_lock2(&fence, region, region);
	fence_drop(fence_stripe(&fence, region), &taker->hold);
	fence_unlock2(&fence, region, region);
	cr_assert_eq(taker->hold.state, FENCE_FREE);
	worker_run(&worker);
}

static bool is_held(const struct taker *taker)
{
	return taker->hold.state == FENCE_HELD;
}

static void place(struct fence_watch *watch, uint64_t begin, uint64_t end)
{
	watch->begin = begin;
	watch->end = end;
	fence_watch(fence_stripe(&fence, lbn_region((lbn_t){begin})), watch);
	cr_assert(watch->placed);
}

/* --- what conflicts --- */

Test(fence, only_shared_holds_overlap)
{
	const enum fence_mode modes[] = {SHARED, EXCLUSIVE};

	for (unsigned i = 0; i < 2; i++) {
		for (unsigned j = 0; j < 2; j++) {
			bool both = modes[i] == SHARED && modes[j] == SHARED;
			struct taker a, b;

			cr_assert(take(&a, 0, 8, modes[i]));
			cr_assert_eq(take(&b, 4, 12, modes[j]), both, "modes %u, %u", i, j);
			drop(&a);
			drop(&b);
		}
	}
}

/* Goal: ranges are half-open, and what merely touches does not wait. */
Test(fence, an_exclusive_hold_stops_what_overlaps_and_nothing_else)
{
	static const struct {
		uint64_t begin, end;
		bool free;
	} asks[] = {
		{0, 100, true},	   {200, 300, true},  {99, 100, true},	 {200, 201, true},
		{0, 101, false},   {199, 300, false}, {100, 101, false}, {199, 200, false},
		{120, 130, false}, {100, 200, false}, {99, 201, false},
	};
	struct taker holder, other;

	for (unsigned i = 0; i < sizeof(asks) / sizeof(asks[0]); i++) {
		cr_assert(take(&holder, 100, 200, EXCLUSIVE));
		cr_assert_eq(take(&other, asks[i].begin, asks[i].end, SHARED), asks[i].free,
			     "[%lu, %lu)", asks[i].begin, asks[i].end);
		drop(&holder);
		drop(&other);
	}
}

Test(fence, the_last_block_of_a_region_belongs_to_it)
{
	struct taker last, next;

	cr_assert(take(&last, REGION_BLOCKS - 1, REGION_BLOCKS, EXCLUSIVE));
	cr_assert(take(&next, REGION_BLOCKS, REGION_BLOCKS + 1, EXCLUSIVE));
	drop(&last);
	drop(&next);
}

Test(fence, a_range_over_two_regions_asserts, .signal = SIGABRT)
{
	struct taker taker;

	take(&taker, REGION_BLOCKS - 1, REGION_BLOCKS + 1, EXCLUSIVE);
}

Test(fence, taking_what_is_held_asserts, .signal = SIGABRT)
{
	struct taker taker;

	cr_assert(take(&taker, 0, 8, SHARED));
	take_again(&taker);
}

/* --- waiting --- */

Test(fence, who_waits_is_posted_once_when_the_last_in_the_way_is_gone)
{
	struct taker a, b, waiter;

	cr_assert(take(&a, 0, 8, SHARED));
	cr_assert(take(&b, 8, 16, SHARED));
	cr_assert_not(take(&waiter, 4, 12, EXCLUSIVE));
	drop(&a);
	cr_assert_eq(waiter.hold.state, FENCE_WAITING);
	cr_assert_eq(waiter.posted, 0);
	drop(&b);
	cr_assert(is_held(&waiter));
	cr_assert_eq(waiter.posted, 1);
	drop(&waiter);
	cr_assert_eq(waiter.posted, 1);
}

Test(fence, who_gets_the_range_at_once_is_not_posted)
{
	struct taker taker;

	cr_assert(take(&taker, 0, 8, EXCLUSIVE));
	worker_run(&worker);
	cr_assert_eq(taker.posted, 0);
	drop(&taker);
	cr_assert_eq(taker.posted, 0);
}

/* Goal: a stream of writes in place cannot starve a merge. */
Test(fence, a_shared_hold_that_comes_later_waits_behind_a_waiting_exclusive_one)
{
	struct taker first, exclusive, later;

	cr_assert(take(&first, 0, 8, SHARED));
	cr_assert_not(take(&exclusive, 0, 8, EXCLUSIVE));
	cr_assert_not(take(&later, 0, 8, SHARED), "it overtakes");
	drop(&first);
	cr_assert(is_held(&exclusive));
	cr_assert_not(is_held(&later));
	drop(&exclusive);
	cr_assert(is_held(&later));
	drop(&later);
}

Test(fence, who_waits_is_in_nobodys_way_outside_its_range)
{
	struct taker holder, waiter, beside, shared;

	cr_assert(take(&holder, 0, 4, SHARED));
	cr_assert_not(take(&waiter, 0, 8, EXCLUSIVE));
	cr_assert(take(&beside, 8, 16, EXCLUSIVE));
	drop(&beside);
	drop(&holder);
	drop(&waiter);
	/* Nor inside it, if neither changes the other's blocks. */
	cr_assert(take(&holder, 0, 4, EXCLUSIVE));
	cr_assert_not(take(&waiter, 0, 8, SHARED));
	cr_assert(take(&shared, 4, 8, SHARED));
	drop(&holder);
	drop(&waiter);
	drop(&shared);
}

Test(fence, one_drop_gives_all_that_it_freed_in_order_of_arrival)
{
	struct taker holder, a, b, c, d;

	cr_assert(take(&holder, 0, 16, EXCLUSIVE));
	cr_assert_not(take(&a, 8, 16, EXCLUSIVE));
	cr_assert_not(take(&b, 0, 4, SHARED));
	cr_assert_not(take(&c, 0, 16, EXCLUSIVE));
	cr_assert_not(take(&d, 2, 4, SHARED));
	drop(&holder);
	cr_assert_eq(given_count, 2);
	cr_assert_eq(given[0], &a);
	cr_assert_eq(given[1], &b);
	cr_assert_not(is_held(&c));
	cr_assert_not(is_held(&d), "it overtook who waits for more");
	drop(&a);
	cr_assert_not(is_held(&c));
	drop(&b);
	cr_assert(is_held(&c));
	cr_assert_not(is_held(&d));
	drop(&c);
	drop(&d);
}

Test(fence, waits_are_counted_and_takes_without_one_are_not)
{
	struct taker a, b, c;

	take(&a, 0, 8, EXCLUSIVE);
	cr_assert_eq(atomic_load(&fence.waits), 0);
	take(&b, 0, 8, EXCLUSIVE);
	take(&c, 0, 8, EXCLUSIVE);
	cr_assert_eq(atomic_load(&fence.waits), 2);
	drop(&a);
	drop(&b);
	drop(&c);
	cr_assert_eq(atomic_load(&fence.waits), 2);
}

/* --- tickets --- */

Test(fence, tickets_are_drawn_in_order_of_arrival_and_kept_when_dropped)
{
	struct taker a, b;
	uint64_t ticket;

	take(&a, 0, 8, SHARED);
	ticket = a.hold.ticket;
	cr_assert_neq(ticket, 0);
	take(&b, 8, 16, SHARED);
	cr_assert_gt(b.hold.ticket, ticket);
	drop(&a);
	cr_assert_eq(a.hold.ticket, ticket);
	take_again(&a);
	cr_assert_eq(a.hold.ticket, ticket);
	drop(&a);
	a.hold.ticket = 0;
	take_again(&a);
	cr_assert_gt(a.hold.ticket, b.hold.ticket);
	drop(&a);
	drop(&b);
}

/* A write that was given its range shared and finds that it needs it exclusive. */
Test(fence, a_second_try_with_its_ticket_goes_before_those_who_came_after_the_first)
{
	struct taker other, writer, later;

	cr_assert(take(&other, 0, 8, SHARED));
	cr_assert(take(&writer, 0, 8, SHARED));
	cr_assert_not(take(&later, 0, 8, EXCLUSIVE));
	drop(&writer);
	writer.hold.mode = EXCLUSIVE;
	cr_assert_not(take_again(&writer));
	drop(&other);
	cr_assert(is_held(&writer), "who came later was given the range first");
	cr_assert_not(is_held(&later));
	drop(&writer);
	cr_assert(is_held(&later));
	drop(&later);
}

Test(fence, a_second_try_does_not_queue_behind_who_came_after_the_first)
{
	struct taker other, writer, later, newest;

	cr_assert(take(&other, 0, 4, SHARED));
	cr_assert(take(&writer, 4, 8, SHARED));
	cr_assert_not(take(&later, 0, 8, EXCLUSIVE));
	drop(&writer);
	writer.hold.mode = EXCLUSIVE;
	cr_assert(take_again(&writer));
	cr_assert_not(take(&newest, 4, 8, EXCLUSIVE));
	drop(&writer);
	cr_assert_not(is_held(&newest));
	drop(&other);
	cr_assert(is_held(&later));
	drop(&later);
	drop(&newest);
}

/* --- a second range --- */

Test(fence, who_holds_another_range_passes_those_that_only_wait)
{
	struct taker holder, waiter, merge, ordinary;

	cr_assert(take(&holder, 0, 4, SHARED));
	cr_assert_not(take(&waiter, 0, 8, EXCLUSIVE));
	cr_assert_not(take(&ordinary, 4, 8, EXCLUSIVE));
	cr_assert(take_passing(&merge, 4, 8));
	drop(&merge);
	drop(&holder);
	drop(&waiter);
	drop(&ordinary);
}

/* Goal: the waiter has the lower ticket and waits for both ranges of the merge. */
Test(fence, who_waits_for_both_ranges_of_a_merge_does_not_block_it)
{
	struct taker first, second, holder, waiter;

	cr_assert(take(&first, 0, 4, EXCLUSIVE));
	cr_assert(take(&holder, 4, 8, EXCLUSIVE));
	cr_assert_not(take(&waiter, 0, 8, EXCLUSIVE));
	cr_assert_not(take_passing(&second, 4, 8), "it passes who holds");
	cr_assert_gt(second.hold.ticket, waiter.hold.ticket);
	drop(&holder);
	cr_assert(is_held(&second), "a circle: each waits for the other");
	cr_assert_eq(second.posted, 1);
	drop(&first);
	drop(&second);
	cr_assert(is_held(&waiter));
	drop(&waiter);
}

Test(fence, who_passed_is_in_the_way_of_who_comes_later)
{
	struct taker holder, merge, later;

	cr_assert(take(&holder, 0, 8, SHARED));
	cr_assert_not(take_passing(&merge, 0, 8));
	cr_assert_not(take(&later, 0, 8, SHARED));
	drop(&holder);
	cr_assert(is_held(&merge));
	cr_assert_not(is_held(&later));
	drop(&merge);
	drop(&later);
}

/* --- watches --- */

Test(fence, a_watch_is_touched_by_a_change_that_overlaps_and_stays_touched)
{
	static const struct {
		uint64_t begin, end;
		bool touches;
	} changes[] = {
		{0, 100, false},  {200, 210, false}, {0, 101, true},
		{199, 210, true}, {100, 200, true},  {150, 151, true},
	};

	for (unsigned i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
		struct fence_watch watch = {0};
		struct taker taker;

		place(&watch, 100, 200);
		cr_assert_not(watch.touched);
		cr_assert(take_changing(&taker, changes[i].begin, changes[i].end));
		cr_assert_eq(watch.touched, changes[i].touches, "[%lu, %lu)", changes[i].begin,
			     changes[i].end);
		drop(&taker);
		cr_assert_eq(watch.touched, changes[i].touches);
		fence_unwatch(&watch);
		cr_assert_not(watch.placed);
	}
}

Test(fence, a_hold_that_changes_nothing_touches_no_watch)
{
	struct fence_watch watch = {0};
	struct taker before, after;

	take(&before, 0, 8, EXCLUSIVE);
	place(&watch, 0, 8);
	drop(&before);
	take(&after, 0, 8, EXCLUSIVE);
	cr_assert_not(watch.touched);
	drop(&after);
	fence_unwatch(&watch);
}

/* Goal: its change may land after the comparison read the old content. */
Test(fence, a_watch_is_touched_from_the_start_by_a_change_under_way)
{
	struct fence_watch over = {0}, beside = {0};
	struct taker taker;

	set(&taker, 0, 8, SHARED);
	taker.hold.changes = true;
	cr_assert(take_again(&taker));
	place(&over, 7, 20);
	place(&beside, 8, 20);
	cr_assert(over.touched);
	cr_assert_not(beside.touched);
	drop(&taker);
	fence_unwatch(&over);
	fence_unwatch(&beside);
}

Test(fence, a_change_that_waits_touches_the_watch_when_it_is_given_not_before)
{
	struct fence_watch early = {0}, late = {0};
	struct taker holder, changer;

	take(&holder, 0, 8, EXCLUSIVE);
	place(&early, 0, 8);
	cr_assert_not(take_changing(&changer, 0, 8));
	place(&late, 0, 8);
	cr_assert_not(early.touched);
	cr_assert_not(late.touched);
	drop(&holder);
	cr_assert(early.touched);
	cr_assert(late.touched);
	drop(&changer);
	fence_unwatch(&early);
	fence_unwatch(&late);
}

Test(fence, a_watch_taken_away_is_touched_no_more_and_begins_anew_when_placed_again)
{
	struct fence_watch watch = {0}, stays = {0};
	struct taker taker;

	place(&watch, 0, 8);
	place(&stays, 0, 8);
	fence_unwatch(&watch);
	take_changing(&taker, 0, 8);
	cr_assert_not(watch.touched);
	cr_assert(stays.touched);
	drop(&taker);
	fence_unwatch(&stays);
	place(&stays, 0, 8);
	cr_assert_not(stays.touched, "the change is over");
	fence_unwatch(&stays);
}

/* --- stripes --- */

static bool is_locked(uint32_t region)
{
	pthread_mutex_t *lock = &fence_stripe(&fence, region)->lock;

	if (pthread_mutex_trylock(lock) != 0)
		return true;
	pthread_mutex_unlock(lock);
	return false;
}

Test(fence, neighbouring_regions_have_stripes_of_their_own)
{
	for (uint32_t i = 0; i < FENCE_STRIPES; i++) {
		cr_assert_eq(fence_stripe(&fence, i), fence_stripe(&fence, i + FENCE_STRIPES));
		for (uint32_t j = 1; j < 8; j++)
			cr_assert_neq(fence_stripe(&fence, i), fence_stripe(&fence, i + j));
	}
	cr_assert_eq(fence_stripe(&fence, UINT32_MAX), fence_stripe(&fence, FENCE_STRIPES - 1));
}

Test(fence, regions_of_one_stripe_do_not_wait_for_each_other)
{
	struct taker here, there;
	struct fence_watch watch = {0};
	uint64_t far = (uint64_t)FENCE_STRIPES * REGION_BLOCKS;

	place(&watch, 0, REGION_BLOCKS);
	cr_assert(take_changing(&there, far, far + REGION_BLOCKS));
	cr_assert_not(watch.touched);
	cr_assert(take(&here, 0, REGION_BLOCKS, EXCLUSIVE));
	drop(&here);
	drop(&there);
	fence_unwatch(&watch);
}

Test(fence, two_regions_are_locked_and_unlocked_together_also_when_they_share_a_stripe)
{
	static const uint32_t pairs[][2] = {{3, 5}, {5, 3}, {4, 4}, {4, 4 + FENCE_STRIPES}};

	for (unsigned i = 0; i < 4; i++) {
		fence_lock2(&fence, pairs[i][0], pairs[i][1]);
		cr_assert(is_locked(pairs[i][0]));
		cr_assert(is_locked(pairs[i][1]));
		cr_assert_not(is_locked(6));
		fence_unlock2(&fence, pairs[i][0], pairs[i][1]);
		cr_assert_not(is_locked(pairs[i][0]));
		cr_assert_not(is_locked(pairs[i][1]));
	}
}

/* Goal: a second unlock would let go of what another thread has taken by then. A recursive lock,
 * held here once before, counts. */
Test(fence, a_stripe_that_two_regions_share_is_locked_and_unlocked_once)
{
	pthread_mutex_t *lock = &fence_stripe(&fence, 4)->lock;
	pthread_mutexattr_t recursive;

	pthread_mutexattr_init(&recursive);
	pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_destroy(lock);
	pthread_mutex_init(lock, &recursive);
	pthread_mutex_lock(lock);
	fence_lock2(&fence, 4, 4 + FENCE_STRIPES);
	fence_unlock2(&fence, 4, 4 + FENCE_STRIPES);
	cr_assert_eq(pthread_mutex_unlock(lock), 0, "it was unlocked twice");
	cr_assert_eq(pthread_mutex_unlock(lock), EPERM, "it was locked twice");
	pthread_mutexattr_destroy(&recursive);
}

struct locker {
	uint32_t region_a;
	uint32_t region_b;
};

static void *lock_both(void *context)
{
	const struct locker *locker = context;

	fence_lock2(&fence, locker->region_a, locker->region_b);
	fence_unlock2(&fence, locker->region_a, locker->region_b);
	return NULL;
}

/* Goal: with the higher one taken away, the lower one is taken all the same, whichever was named
 * first. Were it the other way round, this would wait for ever and the suite's timeout end it. */
Test(fence, stripes_are_locked_by_address_whichever_is_named_first)
{
	struct locker lockers[] = {{7, 9}, {9, 7}, {9, 7 + FENCE_STRIPES}};

	for (unsigned i = 0; i < sizeof(lockers) / sizeof(lockers[0]); i++) {
		pthread_t thread;

		pthread_mutex_lock(&fence_stripe(&fence, 9)->lock);
		cr_assert_eq(pthread_create(&thread, NULL, lock_both, &lockers[i]), 0);
		while (!is_locked(7))
			sched_yield();
		pthread_mutex_unlock(&fence_stripe(&fence, 9)->lock);
		pthread_join(thread, NULL);
	}
}

/* --- by chance --- */

/* One request: it takes a range, perhaps tries it again exclusive, perhaps takes a second one that
 * begins further on, and drops what it has. */
struct actor {
	struct taker takers[2];
	uint32_t want; /* ranges, 1 or 2 */
	uint32_t asked;
	bool upgrades;
};

#define ACTORS 12u

static bool conflict(const struct fence_hold *a, const struct fence_hold *b)
{
	return a->begin < b->end && b->begin < a->end &&
	       (a->mode == EXCLUSIVE || b->mode == EXCLUSIVE);
}

/* Nothing held conflicts, and who waits has a reason to. */
static void check_all(struct actor *actors, uint64_t seed)
{
	struct fence_hold *holds[2 * ACTORS];

	for (uint32_t i = 0; i < 2 * ACTORS; i++)
		holds[i] = &actors[i / 2].takers[i % 2].hold;
	for (uint32_t i = 0; i < 2 * ACTORS; i++) {
		bool reason = false;

		for (uint32_t j = 0; j < 2 * ACTORS; j++) {
			if (i == j || holds[j]->state == FENCE_FREE ||
			    !conflict(holds[i], holds[j]))
				continue;
			cr_assert(holds[i]->state != FENCE_HELD || holds[j]->state != FENCE_HELD,
				  "seed %lu: two hold one block", seed);
			reason = reason || holds[j]->state == FENCE_HELD ||
				 (!holds[i]->passes && holds[j]->ticket < holds[i]->ticket);
		}
		cr_assert(holds[i]->state != FENCE_WAITING || reason,
			  "seed %lu: it waits for nobody", seed);
	}
}

static void begin(struct actor *actor, struct rng *rng)
{
	uint64_t first = rng_below(rng, 24), blocks = 1 + rng_below(rng, 8);
	bool exclusive = rng_once_in(rng, 2);

	*actor = (struct actor){.want = 1 + rng_below(rng, 2), .asked = 1};
	actor->upgrades = actor->want == 1 && !exclusive && rng_once_in(rng, 2);
	take(&actor->takers[0], first, first + blocks,
	     actor->want == 2 || exclusive ? EXCLUSIVE : SHARED);
}

static void begin_second(struct actor *actor, struct rng *rng)
{
	uint64_t first = actor->takers[0].hold.end + rng_below(rng, 8);

	if (rng_once_in(rng, 2))
		first += REGION_BLOCKS; /* in another stripe */
	actor->asked = 2;
	take_passing(&actor->takers[1], first, first + 1 + rng_below(rng, 8));
}

/* False: it waits, or was over already. */
static bool go_on(struct actor *actor, struct rng *rng)
{
	if (actor->asked == 0 || !is_held(&actor->takers[actor->asked - 1]))
		return false;
	if (actor->upgrades) {
		actor->upgrades = false;
		drop(&actor->takers[0]);
		actor->takers[0].hold.mode = EXCLUSIVE;
		take_again(&actor->takers[0]);
	} else if (actor->asked < actor->want) {
		begin_second(actor, rng);
	} else {
		for (uint32_t i = 0; i < actor->asked; i++)
			drop(&actor->takers[i]);
		actor->asked = 0;
	}
	given_count = 0;
	return true;
}

Test(fence, whatever_is_asked_all_of_it_is_given_in_the_end)
{
	for (uint64_t seed = 1; seed <= 200; seed++) {
		struct rng rng = rng_for(seed, 0);
		struct actor actors[ACTORS] = {0};
		bool moved = true;

		for (uint32_t step = 0; step < 200; step++) {
			struct actor *actor = &actors[rng_below(&rng, ACTORS)];

			if (actor->asked == 0)
				begin(actor, &rng);
			else
				go_on(actor, &rng);
			check_all(actors, seed);
		}
		while (moved) {
			moved = false;
			for (uint32_t i = 0; i < ACTORS; i++)
				moved = go_on(&actors[i], &rng) || moved;
		}
		for (uint32_t i = 0; i < ACTORS; i++)
			cr_assert_eq(actors[i].asked, 0, "seed %lu: actor %u waits for ever", seed,
				     i);
	}
}
