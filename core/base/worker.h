/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * worker - one thread's share of the engine: its mailbox, and the oldest request it has in flight
 *
 * A request stays on its worker from the first byte to the answer. Whoever wakes it (another
 * worker that releases a fence, the commit that it waited for) posts its task to the mailbox.
 *
 * Epochs: before a request looks a mapping up it enters with the LSN that the next edit will get.
 * What an edit with LSN e took out of the map may be touched by requests that entered at or before
 * e; when every worker's oldest entry is later than e, nothing in flight can still reach it (I3).
 *
 * Threads   worker_post() from any thread; all else on the worker's own.
 * Memory    nothing is allocated: tasks and entries are members of their owners.
 * Blocking  never (the mailbox's lock is held for a few instructions).
 */
#ifndef CORE_BASE_WORKER_H
#define CORE_BASE_WORKER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/base/list.h"

struct worker;

struct task {
	struct task *next;
	struct worker *worker;
	void (*run)(struct task *task);
};

struct inflight {
	struct list node; /* self-linked when not entered: see worker_inflight_init() */
	uint64_t epoch;
};

#define WORKER_IDLE UINT64_MAX

struct worker {
	unsigned lane; /* of the store; also the worker's index in its volume */
	pthread_mutex_t mailbox_lock;
	struct task *mailbox_first;
	struct task **mailbox_last;
	struct list inflight; /* in order of entry; the worker's thread only */
	_Atomic uint64_t oldest_epoch; /* WORKER_IDLE when nothing is in flight */
	void (*wake)(struct worker *worker); /* the mailbox was empty and is not now; may be NULL */
	void *wake_context;
};

void worker_init(struct worker *worker, unsigned lane);
void worker_done(struct worker *worker);

/* Queues the task on its worker. A task is in at most one mailbox, once. */
void worker_post(struct task *task);

/* Runs the tasks that are queued now (not those they queue). True if there was any. */
bool worker_run(struct worker *worker);

void worker_inflight_init(struct inflight *inflight);
/* epoch must not be older than that of an entry made before. Entering twice asserts. */
void worker_enter(struct worker *worker, struct inflight *inflight, uint64_t epoch);
/* Harmless when not entered. True if it was the worker's oldest entry: oldest_epoch has moved,
 * unless the next one entered with the same epoch. */
bool worker_leave(struct worker *worker, struct inflight *inflight);

#endif
