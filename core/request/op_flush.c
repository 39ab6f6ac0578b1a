/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * op_flush - everything that was answered before is durable
 *
 *   START ----> COMMITTED
 *     \              ^
 *      v             |
 *     FLUSHED -------+
 *
 *   START   -> COMMITTED  edits are open, or in a group whose last flush is not submitted yet: the
 *                         commit's own flushes cover the writes that went in place as well
 *   START   -> FLUSHED    no edits, or their last flush is out already: it does not cover what went
 *                         in place since (catalogue 8), so a flush of its own comes first
 *   FLUSHED -> COMMITTED  the records are durable too; at once, when there were none
 */
#include <errno.h>

#include "core/base/mutant.h"
#include "core/request/request_internal.h"

static void committed(struct request *request)
{
	request->fua = false;
	request_finish(request, request->wait.res < 0 ? -EIO : 0);
}

static void flushed(struct request *request)
{
	struct volume *volume = request->volume;

	request->fua = false;
	if (request->wait.res < 0) {
		request_finish(request, -EIO);
		return;
	}
	pthread_mutex_lock(&volume->metadata->lock);
	request_wait_commit(request, committed);
	pthread_mutex_unlock(&volume->metadata->lock);
}

void flush_start(struct request *request)
{
	struct volume *volume = request->volume;

	if (request->tally == TALLY_ALL)
		count(&volume->counters.flushes, 1);
	request->fua = false;
	if (volume->options.read_only) { /* recovery flushed; nothing was written since */
		request_finish(request, 0);
		return;
	}
	request->step = flushed;
	pthread_mutex_lock(&volume->metadata->lock);
	request->lsn = journal_next_lsn(&volume->metadata->journal) - 1;
	if (journal_flush_follows(&volume->metadata->journal, request->lsn) && !MUTANT(7)) {
		request_wait_commit(request, committed);
		pthread_mutex_unlock(&volume->metadata->lock);
		return;
	}
	journal_kick(&volume->metadata->journal, request->worker);
	if (MUTANT(7)) /* a flush of the map alone */
		wait_wake(&request->wait, 0);
	else
		flusher_join(&volume->metadata->flusher, &request->wait);
	pthread_mutex_unlock(&volume->metadata->lock);
}
