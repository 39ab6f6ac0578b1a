/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/metadata/flusher.h"

#include <assert.h>

#include "core/base/mutant.h"

static void flush_done(struct store_io *io, int res);

void flusher_init(struct flusher *flusher, struct store *store, pthread_mutex_t *lock,
		  void (*failed)(void *context, int error), void *context)
{
	*flusher = (struct flusher){
		.store = store,
		.lock = lock,
		.failed = failed,
		.context = context,
	};
	list_init(&flusher->waiting);
	list_init(&flusher->riding);
}

static void start(struct flusher *flusher, unsigned lane)
{
	assert(!flusher->busy && list_empty(&flusher->riding));
	list_splice_tail(&flusher->riding, &flusher->waiting);
	flusher->busy = true;
	flusher->io.op = STORE_FLUSH;
	flusher->io.lane = lane;
	flusher->io.off_bytes = 0;
	flusher->io.len_bytes = 0;
	flusher->io.done = flush_done;
	store_submit(flusher->store, &flusher->io);
}

void flusher_join(struct flusher *flusher, struct wait *wait)
{
	if (flusher->dead) {
		list_init(&wait->node);
		wait_wake(wait, flusher->dead);
		return;
	}
	/* A flush in flight does not cover what completed after it was submitted. */
	if (MUTANT(8) && flusher->busy) {
		list_add_tail(&flusher->riding, &wait->node);
		return;
	}
	list_add_tail(&flusher->waiting, &wait->node);
	if (!flusher->busy)
		start(flusher, wait->task.worker->lane);
}

static void flush_done(struct store_io *io, int res)
{
	struct flusher *flusher = container_of(io, struct flusher, io);

	pthread_mutex_lock(flusher->lock);
	assert(flusher->busy);
	flusher->busy = false;
	flusher->flushes++;
	if (res < 0 && !flusher->dead) {
		flusher_kill(flusher, res);
		flusher->failed(flusher->context, res);
	}
	wait_wake_all(&flusher->riding, flusher->dead);
	if (!list_empty(&flusher->waiting))
		start(flusher, io->lane);
	pthread_mutex_unlock(flusher->lock);
}

void flusher_kill(struct flusher *flusher, int error)
{
	assert(error < 0);
	if (!flusher->dead)
		flusher->dead = error;
	wait_wake_all(&flusher->waiting, flusher->dead);
	if (!flusher->busy)
		wait_wake_all(&flusher->riding, flusher->dead);
}
