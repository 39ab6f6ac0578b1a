/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * loop - a worker's thread: one ring for everything, the engine's mailbox, and what runs between
 *
 * A turn: run what asked to run (sockets that have something to parse or send), run the mailbox,
 * again until neither has anything; submit all that came of it with one system call and wait;
 * deliver.
 *
 *   NEW ----> RUNNING ----> STOPPING ----> ENDED
 *
 *   NEW      -> RUNNING   loop_start    the thread has its ring
 *   RUNNING  -> STOPPING  loop_stop
 *   STOPPING -> ENDED     the thread    nothing of this loop is in flight and its mailbox is empty
 *
 * Errors    0 or a negative errno.
 * Threads   loop_start, loop_stop and loop_join on the thread that owns the loop; loop_run_soon on
 *           the loop's own; others talk to a loop with worker_post().
 * Blocking  start and join do.
 */
#ifndef SERVER_LOOP_LOOP_H
#define SERVER_LOOP_LOOP_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/base/list.h"
#include "core/base/store.h"
#include "core/base/worker.h"
#include "server/base/ring.h"
#include "server/loop/buffers.h"

/* Something to be run between the deliveries of this turn and its submission, once each time it
 * asks. */
struct loop_soon {
	struct list node; /* list_init() it once */
	void (*run)(struct loop_soon *soon);
};

/* Called every second on the loop's thread. */
struct loop_tick {
	struct list node;
	void (*run)(struct loop_tick *tick, uint64_t now_ms);
};

struct loop {
	struct worker worker;
	struct store *store;
	struct ring *ring;
	struct buffers buffers;
	struct list soon;
	struct list ticks;
	uint64_t now_ms; /* of a clock that only goes forward; a turn old at most */
	uint64_t sleeps; /* turns with nothing to do but wait, so far */
	unsigned busy; /* what must end before the loop does: connections, listeners */
	bool stopping;
	bool ended; /* no wake-up and no timer is armed any more */
	pthread_t thread;
	bool has_thread;
	/* Between start and the thread. */
	pthread_mutex_t lock;
	pthread_cond_t started_cond;
	bool started;
	int start_res;
	/* Wake-ups. */
	int event_fd;
	_Atomic bool sleeping;
	uint64_t event_value;
	struct ring_op event_op;
	struct ring_op timer_op;
	struct __kernel_timespec timer;
	struct task stop_task;
};

int loop_init(struct loop *loop, struct store *store, unsigned lane, uint64_t buffer_bytes);
void loop_done(struct loop *loop);

int loop_start(struct loop *loop);
void loop_stop(struct loop *loop);
void loop_join(struct loop *loop);

void loop_run_soon(struct loop *loop, struct loop_soon *soon);
void loop_add_tick(struct loop *loop, struct loop_tick *tick);
void loop_del_tick(struct loop_tick *tick);

static inline struct loop *loop_of(struct worker *worker)
{
	return container_of(worker, struct loop, worker);
}

#endif
