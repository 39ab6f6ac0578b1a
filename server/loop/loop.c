/* SPDX-License-Identifier: GPL-2.0-or-later */
/* loop - see the header */
#include "server/loop/loop.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "server/base/clock.h"
#include "server/base/log.h"

#define TICK_SECONDS 1
/* So often what has come is run before the ring is looked at again: what goes on by itself (merges,
 * range by range) takes turns with the sockets. Requests of clients are done in three. */
#define RUNS_MAX 3u

/* A loop that is not asleep looks into its mailbox, and what was compared for it, before it goes to
 * sleep; see go_to_sleep(). */
static void wake_loop(void *context)
{
	struct loop *loop = context;
	uint64_t one = 1;
	ssize_t written;

	if (!atomic_exchange(&loop->sleeping, false))
		return;
	written = write(loop->event_fd, &one, sizeof(one));
	/* It fails only when the counter is full, and then the event is up. */
	assert(written == sizeof(one) || errno == EAGAIN);
}

static void wake(struct worker *worker)
{
	wake_loop(worker->wake_context);
}

int loop_init(struct loop *loop, struct store *store, unsigned lane, uint64_t buffer_bytes)
{
	int r;

	memset(loop, 0, sizeof(*loop));
	loop->store = store;
	loop->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (loop->event_fd < 0)
		return -errno;
	r = buffers_init(&loop->buffers, buffer_bytes);
	if (r < 0) {
		close(loop->event_fd);
		return r;
	}
	list_init(&loop->soon);
	list_init(&loop->ticks);
	pthread_mutex_init(&loop->lock, NULL);
	pthread_cond_init(&loop->started_cond, NULL);
	worker_init(&loop->worker, lane);
	loop->worker.wake = wake;
	loop->worker.wake_context = loop;
	loop->now_ms = clock_coarse_ms();
	store->ops->set_wake(store, lane, wake_loop, loop);
	return 0;
}

void loop_done(struct loop *loop)
{
	assert(!loop->has_thread && loop->busy == 0);
	loop->store->ops->set_wake(loop->store, loop->worker.lane, NULL, NULL);
	worker_done(&loop->worker);
	pthread_cond_destroy(&loop->started_cond);
	pthread_mutex_destroy(&loop->lock);
	buffers_done(&loop->buffers);
	close(loop->event_fd);
}

void loop_run_soon(struct loop *loop, struct loop_soon *soon)
{
	if (list_empty(&soon->node))
		list_add_tail(&loop->soon, &soon->node);
}

void loop_add_tick(struct loop *loop, struct loop_tick *tick)
{
	list_add_tail(&loop->ticks, &tick->node);
}

void loop_del_tick(struct loop_tick *tick)
{
	list_del(&tick->node);
}

static void arm_event(struct loop *loop);

/* The ring waits for readability; the count is read here, because a read that the ring holds would
 * have to be unblocked when the loop ends. */
static void event_done(struct ring_op *op, int res, uint32_t flags)
{
	struct loop *loop = container_of(op, struct loop, event_op);

	(void)flags;
	if (res >= 0 && read(loop->event_fd, &loop->event_value, sizeof(loop->event_value)) < 0)
		assert(errno == EAGAIN);
	if (!loop->ended)
		arm_event(loop);
}

static void arm_event(struct loop *loop)
{
	struct io_uring_sqe *sqe = ring_sqe(loop->ring);

	io_uring_prep_poll_add(sqe, loop->event_fd, POLLIN);
	loop->event_op.done = event_done;
	ring_tag(loop->ring, sqe, &loop->event_op);
}

static void arm_timer(struct loop *loop);

static void timer_done(struct ring_op *op, int res, uint32_t flags)
{
	struct loop *loop = container_of(op, struct loop, timer_op);

	(void)flags;
	(void)res;
	if (loop->ended)
		return;
	loop->now_ms = clock_coarse_ms();
	list_for_each (pos, &loop->ticks) {
		struct loop_tick *tick = container_of(pos, struct loop_tick, node);

		tick->run(tick, loop->now_ms);
	}
	arm_timer(loop);
}

static void arm_timer(struct loop *loop)
{
	struct io_uring_sqe *sqe = ring_sqe(loop->ring);

	loop->timer = (struct __kernel_timespec){.tv_sec = TICK_SECONDS};
	io_uring_prep_timeout(sqe, &loop->timer, 0, 0);
	loop->timer_op.done = timer_done;
	ring_tag(loop->ring, sqe, &loop->timer_op);
}

static bool run_soon(struct loop *loop)
{
	struct list todo;
	bool any = !list_empty(&loop->soon);

	list_init(&todo);
	list_splice_tail(&todo, &loop->soon);
	while (!list_empty(&todo)) {
		struct loop_soon *soon = container_of(todo.next, struct loop_soon, node);

		list_del(&soon->node);
		soon->run(soon);
	}
	return any;
}

static bool may_end(const struct loop *loop)
{
	return loop->stopping && loop->busy == 0 &&
	       loop->store->ops->in_flight(loop->store, loop->worker.lane) == 0;
}

/* True: nothing is to be done, so wait. From the store of sleeping on, whoever posts raises the
 * event; what was posted before is seen by this last look into the mailbox. */
static bool go_to_sleep(struct loop *loop)
{
	atomic_store(&loop->sleeping, true);
	if (!worker_run(&loop->worker) &&
	    !loop->store->ops->deliver(loop->store, loop->worker.lane) && list_empty(&loop->soon))
		return true;
	atomic_store(&loop->sleeping, false);
	return false;
}

/* One of each kind, whatever the others do: the store always has something to deliver as long as
 * ranges are merged, and sockets and mailbox must not wait for the end of that. */
static bool run_once(struct loop *loop)
{
	bool any = loop->store->ops->deliver(loop->store, loop->worker.lane);

	any = run_soon(loop) || any;
	return worker_run(&loop->worker) || any;
}

/* True: nothing is left. */
static bool run_all(struct loop *loop)
{
	for (unsigned runs = 0; runs < RUNS_MAX; runs++)
		if (!run_once(loop))
			return true;
	return false;
}

static void run(struct loop *loop)
{
	for (;;) {
		bool wait;
		int r;

		if (run_all(loop) && may_end(loop))
			return;
		wait = go_to_sleep(loop);
		loop->sleeps += wait;
		r = ring_turn(loop->ring, wait);
		atomic_store(&loop->sleeping, false);
		if (r < 0) {
			log_error("worker %u: the ring failed: %s", loop->worker.lane,
				  strerror(-r));
			assert(!"a ring that cannot be entered");
		}
	}
}

/* Leaves the lane's ring empty, so that another thread can take the lane over. */
static void disarm(struct loop *loop)
{
	int r;

	loop->ended = true;
	ring_cancel(loop->ring, &loop->event_op);
	ring_cancel(loop->ring, &loop->timer_op);
	r = ring_settle(loop->ring);
	assert(r >= 0);
	ring_unregister(loop->ring);
}

static void say_started(struct loop *loop, int res)
{
	pthread_mutex_lock(&loop->lock);
	loop->started = true;
	loop->start_res = res;
	pthread_cond_signal(&loop->started_cond);
	pthread_mutex_unlock(&loop->lock);
}

static void *thread_main(void *argument)
{
	struct loop *loop = argument;
	char name[16];
	int r = loop->store->ops->take_lane(loop->store, loop->worker.lane, &loop->ring);

	snprintf(name, sizeof(name), "worker-%u", loop->worker.lane);
	prctl(PR_SET_NAME, name);
	say_started(loop, r);
	if (r < 0)
		return NULL;
	ring_register(loop->ring);
	arm_event(loop);
	arm_timer(loop);
	run(loop);
	disarm(loop);
	return NULL;
}

int loop_start(struct loop *loop)
{
	sigset_t all, before;
	int r;

	assert(!loop->has_thread);
	/* Signals are the main thread's, but for the one that store_compare_now() may raise. */
	sigfillset(&all);
	sigdelset(&all, SIGBUS);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&loop->thread, NULL, thread_main, loop);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r != 0)
		return -r;
	loop->has_thread = true;
	pthread_mutex_lock(&loop->lock);
	while (!loop->started)
		pthread_cond_wait(&loop->started_cond, &loop->lock);
	r = loop->start_res;
	pthread_mutex_unlock(&loop->lock);
	if (r < 0)
		loop_join(loop);
	return r;
}

static void stop_now(struct task *task)
{
	struct loop *loop = container_of(task, struct loop, stop_task);

	loop->stopping = true;
}

void loop_stop(struct loop *loop)
{
	loop->stop_task.worker = &loop->worker;
	loop->stop_task.run = stop_now;
	worker_post(&loop->stop_task);
}

void loop_join(struct loop *loop)
{
	if (loop->has_thread)
		pthread_join(loop->thread, NULL);
	loop->has_thread = false;
}
