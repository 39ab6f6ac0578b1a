/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/base/worker.h"

#include <assert.h>
#include <stddef.h>

void worker_init(struct worker *worker, unsigned lane)
{
	worker->lane = lane;
	pthread_mutex_init(&worker->mailbox_lock, NULL);
	worker->mailbox_first = NULL;
	worker->mailbox_last = &worker->mailbox_first;
	list_init(&worker->inflight);
	atomic_init(&worker->oldest_epoch, WORKER_IDLE);
	worker->wake = NULL;
	worker->wake_context = NULL;
}

void worker_done(struct worker *worker)
{
	assert(worker->mailbox_first == NULL);
	pthread_mutex_destroy(&worker->mailbox_lock);
}

void worker_post(struct task *task)
{
	struct worker *worker = task->worker;
	bool was_empty;

	task->next = NULL;
	pthread_mutex_lock(&worker->mailbox_lock);
	was_empty = worker->mailbox_first == NULL;
	*worker->mailbox_last = task;
	worker->mailbox_last = &task->next;
	pthread_mutex_unlock(&worker->mailbox_lock);
	if (was_empty && worker->wake)
		worker->wake(worker);
}

bool worker_run(struct worker *worker)
{
	struct task *task;

	pthread_mutex_lock(&worker->mailbox_lock);
	task = worker->mailbox_first;
	worker->mailbox_first = NULL;
	worker->mailbox_last = &worker->mailbox_first;
	pthread_mutex_unlock(&worker->mailbox_lock);
	if (task == NULL)
		return false;
	while (task != NULL) {
		struct task *next = task->next;

		task->run(task);
		task = next;
	}
	return true;
}

void worker_inflight_init(struct inflight *inflight)
{
	list_init(&inflight->node);
}

static uint64_t oldest(const struct worker *worker)
{
	if (list_empty(&worker->inflight))
		return WORKER_IDLE;
	return container_of(worker->inflight.next, struct inflight, node)->epoch;
}

void worker_enter(struct worker *worker, struct inflight *inflight, uint64_t epoch)
{
	assert(list_empty(&inflight->node));
	inflight->epoch = epoch;
	list_add_tail(&worker->inflight, &inflight->node);
	if (worker->inflight.next == &inflight->node)
		atomic_store(&worker->oldest_epoch, epoch);
}

bool worker_leave(struct worker *worker, struct inflight *inflight)
{
	bool was_oldest = worker->inflight.next == &inflight->node;

	if (list_empty(&inflight->node))
		return false;
	list_del(&inflight->node);
	if (was_oldest)
		atomic_store(&worker->oldest_epoch, oldest(worker));
	return was_oldest;
}
