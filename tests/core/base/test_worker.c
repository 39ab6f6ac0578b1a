/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_worker - every task runs once and in order, and the oldest epoch is never too young
 */
#include <criterion/criterion.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>

#include "core/base/worker.h"

#define NOTES_MAX 16u

struct job {
	struct task task;
	uint32_t number;
	struct job *posts; /* by its run; may be itself */
};

static struct worker worker;
static uint32_t notes[NOTES_MAX];
static uint32_t note_count;
static uint32_t wakes;

static void start(void)
{
	worker_init(&worker, 3);
	note_count = 0;
	wakes = 0;
}

static void stop(void)
{
	worker_done(&worker);
}

TestSuite(worker, .init = start, .fini = stop, .timeout = 20);

static void note(struct task *task)
{
	struct job *job = container_of(task, struct job, task);

	cr_assert_lt(note_count, NOTES_MAX);
	notes[note_count++] = job->number;
	if (job->posts)
		worker_post(&job->posts->task);
}

static struct job job_for(uint32_t number)
{
	return (struct job){.task = {.worker = &worker, .run = note}, .number = number};
}

static void count_wake(struct worker *woken)
{
	cr_assert_eq(woken, &worker);
	wakes++;
}

static uint64_t oldest(void)
{
	return atomic_load(&worker.oldest_epoch);
}

/* --- the mailbox --- */

Test(worker, a_new_worker_has_its_lane_nothing_to_run_and_nothing_in_flight)
{
	cr_assert_eq(worker.lane, 3);
	cr_assert_not(worker_run(&worker));
	cr_assert_eq(oldest(), WORKER_IDLE);
}

Test(worker, tasks_run_once_in_the_order_in_which_they_were_posted)
{
	struct job jobs[NOTES_MAX];

	for (uint32_t i = 0; i < NOTES_MAX; i++) {
		jobs[i] = job_for(i);
		worker_post(&jobs[i].task);
	}
	cr_assert_eq(note_count, 0, "it ran inside the post");
	cr_assert(worker_run(&worker));
	cr_assert_eq(note_count, NOTES_MAX);
	for (uint32_t i = 0; i < NOTES_MAX; i++)
		cr_assert_eq(notes[i], i);
	cr_assert_not(worker_run(&worker));
	cr_assert_eq(note_count, NOTES_MAX);
}

/* Goal: a task that posts on and on does not keep its worker from its I/O. */
Test(worker, what_a_task_posts_runs_the_next_time)
{
	struct job first = job_for(1), second = job_for(2), third = job_for(3);

	first.posts = &third;
	second.posts = &second;
	worker_post(&first.task);
	worker_post(&second.task);
	cr_assert(worker_run(&worker));
	cr_assert_eq(note_count, 2);
	second.posts = NULL;
	cr_assert(worker_run(&worker));
	cr_assert_eq(note_count, 4);
	cr_assert_eq(notes[2], 3);
	cr_assert_eq(notes[3], 2);
	cr_assert_not(worker_run(&worker));
}

static void scribble(struct task *task)
{
	note(task);
	task->next = task;
	task->run = NULL;
}

/* Goal: a request that is answered may be freed, or used again, by its last task. */
Test(worker, a_task_is_its_owners_again_while_it_runs)
{
	struct job first = job_for(1), second = job_for(2);

	first.task.run = scribble;
	worker_post(&first.task);
	worker_post(&second.task);
	worker_run(&worker);
	cr_assert_eq(note_count, 2);
	cr_assert_eq(notes[1], 2);
}

Test(worker, a_task_that_ran_can_be_posted_again)
{
	struct job job = job_for(1), other = job_for(2);

	worker_post(&other.task);
	worker_post(&job.task);
	worker_run(&worker);
	worker_post(&other.task);
	worker_run(&worker);
	cr_assert_eq(note_count, 3, "what was queued behind it the first time ran again");
}

Test(worker, the_worker_is_woken_when_its_mailbox_was_empty_and_only_then)
{
	struct job a = job_for(1), b = job_for(2), c = job_for(3);

	worker.wake = count_wake;
	worker_post(&a.task);
	cr_assert_eq(wakes, 1);
	worker_post(&b.task);
	cr_assert_eq(wakes, 1);
	b.posts = &c;
	worker_run(&worker);
	cr_assert_eq(wakes, 2, "the mailbox was empty when the task was posted");
	worker_run(&worker);
	b.posts = NULL;
	worker_post(&b.task);
	cr_assert_eq(wakes, 3);
	worker_run(&worker);
}

/* --- posting from other threads --- */

#define POSTERS	   4u
#define POSTS_EACH 2000u

struct post {
	struct task task;
	uint32_t poster;
	uint32_t number;
};

static struct post posts[POSTERS][POSTS_EACH];
static uint32_t next_number[POSTERS]; /* the worker's thread only */
static uint32_t ran_count;
static sem_t awake;

static void count_post(struct task *task)
{
	const struct post *post = container_of(task, struct post, task);

	cr_assert_eq(post->number, next_number[post->poster], "out of order, or twice");
	next_number[post->poster]++;
	ran_count++;
}

static void *post_all(void *context)
{
	struct post *own = context;

	for (uint32_t i = 0; i < POSTS_EACH; i++)
		worker_post(&own[i].task);
	return NULL;
}

static void wake_up(struct worker *woken)
{
	(void)woken;
	sem_post(&awake);
}

/* Goal: the worker sleeps whenever it finds nothing, so a wake that is missing hangs it. */
Test(worker, nothing_posted_by_other_threads_is_lost_and_no_wake_either)
{
	pthread_t threads[POSTERS];

	sem_init(&awake, 0, 0);
	worker.wake = wake_up;
	for (uint32_t p = 0; p < POSTERS; p++) {
		for (uint32_t i = 0; i < POSTS_EACH; i++)
			posts[p][i] = (struct post){{NULL, &worker, count_post}, p, i};
		cr_assert_eq(pthread_create(&threads[p], NULL, post_all, posts[p]), 0);
	}
	while (ran_count < POSTERS * POSTS_EACH) {
		sem_wait(&awake);
		while (worker_run(&worker))
			;
	}
	for (uint32_t p = 0; p < POSTERS; p++)
		pthread_join(threads[p], NULL);
	cr_assert_not(worker_run(&worker));
	cr_assert_eq(ran_count, POSTERS * POSTS_EACH);
}

/* --- epochs --- */

Test(worker, the_oldest_epoch_is_that_of_the_first_entry_that_has_not_left)
{
	struct inflight a, b, c;

	worker_inflight_init(&a);
	worker_inflight_init(&b);
	worker_inflight_init(&c);
	worker_enter(&worker, &a, 10);
	cr_assert_eq(oldest(), 10);
	worker_enter(&worker, &b, 20);
	worker_enter(&worker, &c, 30);
	cr_assert_eq(oldest(), 10);
	cr_assert_not(worker_leave(&worker, &b));
	cr_assert_eq(oldest(), 10);
	cr_assert(worker_leave(&worker, &a));
	cr_assert_eq(oldest(), 30, "the one between has left before");
	cr_assert(worker_leave(&worker, &c));
	cr_assert_eq(oldest(), WORKER_IDLE);
}

Test(worker, an_epoch_that_two_entered_with_lasts_until_both_have_left)
{
	struct inflight a, b;

	worker_inflight_init(&a);
	worker_inflight_init(&b);
	worker_enter(&worker, &a, 10);
	worker_enter(&worker, &b, 10);
	worker_leave(&worker, &a);
	cr_assert_eq(oldest(), 10);
	cr_assert(worker_leave(&worker, &b));
	cr_assert_eq(oldest(), WORKER_IDLE);
}

Test(worker, leaving_without_having_entered_changes_nothing)
{
	struct inflight never, gone, stays;

	worker_inflight_init(&never);
	worker_inflight_init(&gone);
	worker_inflight_init(&stays);
	cr_assert_not(worker_leave(&worker, &never));
	worker_enter(&worker, &gone, 10);
	worker_enter(&worker, &stays, 20);
	worker_leave(&worker, &gone);
	cr_assert_not(worker_leave(&worker, &gone));
	cr_assert_not(worker_leave(&worker, &never));
	cr_assert_eq(oldest(), 20);
	worker_leave(&worker, &stays);
}

Test(worker, who_left_can_enter_again_with_a_later_epoch)
{
	struct inflight a, b;

	worker_inflight_init(&a);
	worker_inflight_init(&b);
	worker_enter(&worker, &a, 10);
	worker_enter(&worker, &b, 20);
	worker_leave(&worker, &a);
	worker_enter(&worker, &a, 30);
	cr_assert_eq(oldest(), 20);
	worker_leave(&worker, &b);
	cr_assert_eq(oldest(), 30);
	worker_leave(&worker, &a);
}

Test(worker, entering_twice_asserts, .signal = SIGABRT)
{
	struct inflight a;

	worker_inflight_init(&a);
	worker_enter(&worker, &a, 10);
	worker_enter(&worker, &a, 11);
}
