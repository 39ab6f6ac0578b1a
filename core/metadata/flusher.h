/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * flusher - one flush of the store at a time, which all who need one share
 *
 * Linux reports a writeback error once per open file, so two flushes must not be in flight: one
 * could swallow the other's error (I11). Who asks while a flush is in flight rides on the next one,
 * because a flush covers only writes that were complete when it was submitted.
 *
 *   IDLE -> BUSY  flusher_join  what waits becomes what rides, and the flush is submitted
 *   BUSY -> BUSY  done          riders are answered; those who came meanwhile ride next
 *   BUSY -> IDLE  done          nobody came
 *   any  -> DEAD  done, res < 0 for ever: every later flush fails
 *
 * Threads   the caller holds the volume's metadata lock; the completion takes it.
 * Memory    none.
 */
#ifndef CORE_METADATA_FLUSHER_H
#define CORE_METADATA_FLUSHER_H

#include <pthread.h>

#include "core/base/store.h"
#include "core/base/wait.h"

struct flusher {
	struct store *store;
	pthread_mutex_t *lock;
	struct list waiting; /* of struct wait: for the flush after the one in flight */
	struct list riding;
	struct store_io io;
	bool busy;
	int dead; /* 0 or the negative errno that every flush fails with */
	uint64_t flushes;
	/* Called with the lock held, once, when a flush failed. */
	void (*failed)(void *context, int error);
	void *context;
};

void flusher_init(struct flusher *flusher, struct store *store, pthread_mutex_t *lock,
		  void (*failed)(void *context, int error), void *context);

/* The wait is woken when a flush that was submitted after this call has succeeded, or with an
 * error. The flush may be submitted on the lane of the waiter's worker, so the caller is on that
 * worker's thread. */
void flusher_join(struct flusher *flusher, struct wait *wait);

/* Every flush from now on fails with error, or with the first one if there was one before. Who
 * waits for the next flush hears it now, who rides on the one in flight when that is complete. */
void flusher_kill(struct flusher *flusher, int error);

#endif
