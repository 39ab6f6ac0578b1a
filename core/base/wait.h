/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * wait - one request's place in a queue of the metadata owner, and the answer it got there
 *
 * Whatever can be waited for (a page, a commit, ring space, a checkpoint) keeps a list of these.
 * Waking takes the wait off its list, stores the result and posts the task to the waiter's worker.
 */
#ifndef CORE_BASE_WAIT_H
#define CORE_BASE_WAIT_H

#include "core/base/list.h"
#include "core/base/worker.h"

struct wait {
	struct task task; /* task.worker and task.run are set by the waiter */
	struct list node;
	uint64_t value; /* waiting for a commit: an LSN; for ring space: how much */
	int res;
};

static inline void wait_init(struct wait *wait, struct worker *worker, void (*run)(struct task *))
{
	wait->task.worker = worker;
	wait->task.run = run;
	wait->task.next = NULL;
	list_init(&wait->node);
	wait->res = 0;
}

static inline void wait_wake(struct wait *wait, int res)
{
	list_del(&wait->node);
	wait->res = res;
	worker_post(&wait->task);
}

static inline void wait_wake_all(struct list *waits, int res)
{
	list_for_each (pos, waits)
		wait_wake(container_of(pos, struct wait, node), res);
}

#endif
