/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_flusher - one flush at a time, shared by who asked before it was submitted, and none after
 * one failed
 *
 * A rider is a wait with a task that counts how often it was answered. Nothing is delivered but by
 * deliver(), and answers are read after answers() ran the workers.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "core/metadata/flusher.h"
#include "tests/lib/rng.h"
#include "tests/lib/store_mem.h"

#define LANES 2u

struct rider {
	struct wait wait;
	uint32_t answered;
	bool joins_again;
	/* by chance: */
	uint64_t joined_at; /* flushes submitted before */
};

static struct store_mem mem;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct worker workers[LANES];
static struct flusher flusher;
static uint32_t failures;
static int failed_error;

static void on_failed(void *context, int error)
{
	cr_assert_eq(context, &mem);
	cr_assert_neq(pthread_mutex_trylock(&lock), 0, "called without the lock");
	failures++;
	failed_error = error;
}

static void start(void)
{
	store_mem_init(&mem, 1 << 20, LANES, 0);
	for (unsigned i = 0; i < LANES; i++)
		worker_init(&workers[i], i);
	flusher_init(&flusher, &mem.store, &lock, on_failed, &mem);
	failures = 0;
	failed_error = 0;
}

static void stop(void)
{
	for (unsigned i = 0; i < LANES; i++)
		worker_done(&workers[i]);
	store_mem_done(&mem);
}

TestSuite(flusher, .init = start, .fini = stop);

static void join(struct rider *rider)
{
	pthread_mutex_lock(&lock);
	flusher_join(&flusher, &rider->wait);
	pthread_mutex_unlock(&lock);
}

static void answered(struct task *task)
{
	struct wait *wait = container_of(task, struct wait, task);
	struct rider *rider = container_of(wait, struct rider, wait);

	rider->answered++;
	if (rider->joins_again) {
		rider->joins_again = false;
		join(rider);
	}
}

/* On a worker. */
static void ride(struct rider *rider, unsigned worker)
{
	memset(rider, 0, sizeof(*rider));
	wait_init(&rider->wait, &workers[worker], answered);
	rider->wait.res = 77;
	join(rider);
}

static void run_tasks(void)
{
	for (unsigned i = 0; i < LANES; i++)
		worker_run(&workers[i]);
}

/* How often it was answered so far. */
static uint32_t answers(const struct rider *rider)
{
	run_tasks();
	return rider->answered;
}

static uint32_t in_flight(void)
{
	return store_mem_in_flight(&mem, 0) + store_mem_in_flight(&mem, 1);
}

static void deliver(int res)
{
	cr_assert_eq(in_flight(), 1, "%u flushes are in flight", in_flight());
	store_mem_deliver_at(&mem, store_mem_in_flight(&mem, 0) ? 0 : 1, 0, res);
}

static void kill_it(int error)
{
	pthread_mutex_lock(&lock);
	flusher_kill(&flusher, error);
	pthread_mutex_unlock(&lock);
}

/* --- sharing --- */

Test(flusher, a_flush_is_submitted_at_once_and_answers_when_it_is_done)
{
	struct rider rider;

	ride(&rider, 0);
	cr_assert_eq(in_flight(), 1);
	cr_assert_eq(store_mem_get(&mem, 0, 0)->op, STORE_FLUSH);
	cr_assert_eq(answers(&rider), 0);
	deliver(0);
	cr_assert_eq(answers(&rider), 1);
	cr_assert_eq(rider.wait.res, 0);
	cr_assert_eq(flusher.flushes, 1);
	cr_assert_eq(in_flight(), 0);
}

Test(flusher, the_flush_is_on_the_lane_of_who_asked)
{
	struct rider rider;

	for (unsigned i = 0; i < LANES; i++) {
		ride(&rider, i);
		cr_assert_eq(store_mem_in_flight(&mem, i), 1);
		deliver(0);
		cr_assert_eq(answers(&rider), 1);
	}
}

Test(flusher, who_asks_during_a_flush_is_answered_by_the_next_one)
{
	struct rider first, second;

	ride(&first, 0);
	ride(&second, 1);
	cr_assert_eq(in_flight(), 1, "two flushes at a time");
	deliver(0);
	cr_assert_eq(answers(&first), 1);
	cr_assert_eq(answers(&second), 0, "the flush was submitted before it asked");
	/* Not on the second one's lane: that is another thread's. */
	cr_assert_eq(store_mem_in_flight(&mem, 0), 1);
	deliver(0);
	cr_assert_eq(answers(&second), 1);
	cr_assert_eq(answers(&first), 1);
	cr_assert_eq(in_flight(), 0);
}

Test(flusher, all_who_ask_during_a_flush_share_the_next_one)
{
	struct rider first, others[10];

	ride(&first, 0);
	for (unsigned i = 0; i < 10; i++)
		ride(&others[i], i % LANES);
	deliver(0);
	deliver(0);
	for (unsigned i = 0; i < 10; i++) {
		cr_assert_eq(answers(&others[i]), 1);
		cr_assert_eq(others[i].wait.res, 0);
	}
	cr_assert_eq(flusher.flushes, 2);
	cr_assert_eq(store_mem_ops(&mem, STORE_FLUSH), 2);
}

Test(flusher, who_was_answered_can_ask_again_at_once)
{
	struct rider rider;

	ride(&rider, 0);
	rider.joins_again = true;
	deliver(0);
	cr_assert_eq(answers(&rider), 1);
	deliver(0);
	cr_assert_eq(answers(&rider), 2);
	cr_assert_eq(flusher.flushes, 2);
}

/* --- failing --- */

Test(flusher, a_failed_flush_fails_who_rides_who_waits_and_whoever_asks_later)
{
	struct rider riding, waiting, later;

	ride(&riding, 0);
	ride(&waiting, 1);
	deliver(-ENOSPC);
	cr_assert_eq(failures, 1);
	cr_assert_eq(failed_error, -ENOSPC);
	cr_assert_eq(answers(&riding), 1);
	cr_assert_eq(answers(&waiting), 1);
	ride(&later, 1);
	cr_assert_eq(answers(&later), 1);
	cr_assert_eq(riding.wait.res, -ENOSPC);
	cr_assert_eq(waiting.wait.res, -ENOSPC);
	cr_assert_eq(later.wait.res, -ENOSPC);
	cr_assert_eq(in_flight(), 0, "another flush could succeed, and mean nothing");
	cr_assert_eq(failures, 1);
}

Test(flusher, a_failure_says_nothing_about_flushes_that_succeeded_before)
{
	struct rider before, after;

	ride(&before, 0);
	ride(&after, 0);
	deliver(0);
	deliver(-EIO);
	cr_assert_eq(answers(&before), 1);
	cr_assert_eq(before.wait.res, 0);
	cr_assert_eq(answers(&after), 1);
	cr_assert_eq(after.wait.res, -EIO);
}

Test(flusher, once_killed_nothing_is_flushed_any_more)
{
	struct rider rider;

	kill_it(-EROFS);
	ride(&rider, 0);
	cr_assert_eq(answers(&rider), 1);
	cr_assert_eq(rider.wait.res, -EROFS);
	cr_assert_eq(in_flight(), 0);
	cr_assert_eq(failures, 0, "no flush has failed");
}

Test(flusher, a_kill_answers_who_waits_now_and_who_rides_when_the_flush_is_done)
{
	struct rider riding, waiting;

	ride(&riding, 0);
	ride(&waiting, 0);
	kill_it(-EROFS);
	cr_assert_eq(answers(&waiting), 1);
	cr_assert_eq(waiting.wait.res, -EROFS);
	cr_assert_eq(answers(&riding), 0, "the store still has its flush");
	deliver(0);
	cr_assert_eq(answers(&riding), 1);
	cr_assert_eq(riding.wait.res, -EROFS);
	cr_assert_eq(answers(&waiting), 1);
	cr_assert_eq(in_flight(), 0);
}

Test(flusher, the_first_error_stays)
{
	struct rider riding, later;

	ride(&riding, 0);
	kill_it(-EROFS);
	kill_it(-EIO);
	deliver(-ENOSPC);
	cr_assert_eq(failures, 0, "who killed it knows");
	cr_assert_eq(answers(&riding), 1);
	cr_assert_eq(riding.wait.res, -EROFS);
	ride(&later, 0);
	cr_assert_eq(answers(&later), 1);
	cr_assert_eq(later.wait.res, -EROFS);
}

/* --- by chance --- */

#define RIDERS 20u

/* Goal: whatever the order of asking and completing, nobody is answered by a flush that was
 * submitted before it asked, and nobody waits for more than the next one. */
Test(flusher, the_flush_that_answers_was_submitted_after_the_question)
{
	static struct rider riders[RIDERS];
	struct rng rng = rng_for(1, 0);
	uint64_t submitted;

	for (uint32_t i = 0; i < RIDERS; i++)
		wait_init(&riders[i].wait, &workers[i % LANES], answered);
	for (uint32_t step = 0; step < 5000; step++) {
		struct rider *rider = &riders[rng_below(&rng, RIDERS)];

		submitted = store_mem_ops(&mem, STORE_FLUSH);
		if (rider->joined_at == 0 && !rng_once_in(&rng, 4)) {
			rider->joined_at = submitted + 1;
			join(rider);
		} else if (in_flight() > 0) {
			deliver(0);
			run_tasks();
			/* The one delivered was the last one submitted. */
			for (uint32_t i = 0; i < RIDERS; i++) {
				bool due =
					riders[i].joined_at > 0 && riders[i].joined_at <= submitted;

				cr_assert_eq(riders[i].answered, due, "seed 1, step %u", step);
				riders[i].answered = 0;
				riders[i].joined_at = due ? 0 : riders[i].joined_at;
			}
		}
		cr_assert_leq(in_flight(), 1);
	}
	while (in_flight() > 0)
		deliver(0);
	run_tasks();
}
