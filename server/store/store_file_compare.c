/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * store_file_compare - how a store_file compares: at once, or on the threads of store_compare.h
 *
 *   submit ----> COMPARING ----> COMPARED ----> done()
 *      \                           ^
 *       +--------------------------+
 *
 *   submit    -> COMPARED   in memory, and little or urgent: done here and now, which takes less
 *                           time than waking a thread
 *   submit    -> COMPARING  store_compare_submit   all else
 *   COMPARING -> COMPARED   finished               on a thread of store_compare; the lane is woken
 *   COMPARED  -> done()     store_file_compared    on the lane's thread
 *
 * Threads   start and stop before and after anything is in flight; finished() on store_compare's
 *           threads; the rest on the lane's own. The two meet in lane->compared, under its lock.
 */
#include <assert.h>
#include <errno.h>
#include <unistd.h>

#include "server/base/clock.h"

#include "core/base/units.h"
#include "server/store/store_file_internal.h"

/* Some 2 us, as long as it takes to wake a thread and be woken. */
#define NOW_BYTES (32u << 10)
/* Some 100 us: no longer than it takes until a thread runs on a busy machine. */
#define URGENT_BYTES (1u << 20)

static bool compare_now(struct store_lane *lane, struct store_io *io)
{
	uint64_t now_ms;

	if (io->len_bytes > (io->urgent ? URGENT_BYTES : NOW_BYTES))
		return false;
	if (io->urgent)
		return store_map_is_resident(lane->file->map, io->off_bytes, io->len_bytes) &&
		       (io->other_off_bytes == STORE_ZEROS ||
			store_map_is_resident(lane->file->map, io->other_off_bytes,
					      io->len_bytes)) &&
		       store_compare_now(lane->file->map, io) == 0;
	now_ms = clock_coarse_ms();
	if (!store_map_resident(&lane->view, io->off_bytes, io->len_bytes, now_ms))
		return false;
	if (io->other_off_bytes != STORE_ZEROS &&
	    !store_map_resident(&lane->view, io->other_off_bytes, io->len_bytes, now_ms))
		return false;
	/* An error is found again by a thread that has the time to wait for it. */
	return store_compare_now(lane->file->map, io) == 0;
}

void store_file_compare(struct store_lane *lane, struct store_io *io)
{
	store_lane_begin(lane);
	if (compare_now(lane, io)) {
		*lane->written_last = io;
		lane->written_last = &io->store_next;
		return;
	}
	lane->comparing++;
	store_compare_submit(lane->file->compare, io);
}

static void finished(void *context, struct store_io *io, int res)
{
	struct store_file *file = context;
	struct store_lane *lane = &file->lanes[io->lane];
	bool was_empty;

	io->store_progress_bytes = (uint64_t)-res;
	io->store_next = NULL;
	pthread_mutex_lock(&lane->compared_lock);
	was_empty = lane->compared == NULL;
	if (was_empty)
		lane->compared = io;
	else
		lane->compared_last->store_next = io;
	lane->compared_last = io;
	pthread_cond_signal(&lane->compared_cond);
	pthread_mutex_unlock(&lane->compared_lock);
	if (was_empty && lane->wake != NULL)
		lane->wake(lane->wake_context);
}

bool store_file_compared(struct store_lane *lane, bool wait)
{
	struct store_io *io;

	if (lane->comparing == 0 || (!wait && atomic_load(&lane->compared) == NULL))
		return false;
	pthread_mutex_lock(&lane->compared_lock);
	while (lane->compared == NULL)
		pthread_cond_wait(&lane->compared_cond, &lane->compared_lock);
	io = lane->compared;
	lane->compared = NULL;
	pthread_mutex_unlock(&lane->compared_lock);
	while (io != NULL) {
		struct store_io *next = io->store_next;

		lane->comparing--;
		store_lane_finish(lane);
		io->magic = 0;
		io->done(io, -(int)io->store_progress_bytes);
		io = next;
	}
	return true;
}

int store_file_compare_start(struct store *store, struct store_map *map)
{
	struct store_file *file = (struct store_file *)store;
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned threads = (unsigned)min_u64(processors > 0 ? (uint64_t)processors : 1,
					     STORE_COMPARE_THREADS_MAX);
	int r;

	assert(file->magic == STORE_FILE_MAGIC && !file->store.direct && file->compare == NULL);
	r = store_compare_start(map, &file->gate, threads, finished, file, &file->compare);
	if (r < 0)
		return r;
	file->map = map;
	for (unsigned i = 0; i < store->lane_count; i++)
		file->lanes[i].view.map = map;
	store->can_compare = true;
	return 0;
}

void store_file_compare_stop(struct store *store)
{
	struct store_file *file = (struct store_file *)store;

	assert(file->magic == STORE_FILE_MAGIC);
	store->can_compare = false;
	store_compare_stop(file->compare);
	file->compare = NULL;
	file->map = NULL;
}

int store_file_map(struct store *store, struct store_map *map)
{
	struct store_file *file = (struct store_file *)store;
	int r = store->direct ? -ENOTSUP : store_map_make(map, file->fd, store->size_bytes);

	if (r == 0 && !store->read_only)
		(void)store_file_compare_start(store, map);
	return r;
}

void store_file_unmap(struct store *store, struct store_map *map)
{
	if (store != NULL && store->can_compare)
		store_file_compare_stop(store);
	store_map_done(map);
}

void store_file_set_wake(struct store *store, unsigned index, void (*wake)(void *context),
			 void *context)
{
	struct store_file *file = (struct store_file *)store;

	assert(file->magic == STORE_FILE_MAGIC && index < store->lane_count);
	file->lanes[index].wake = wake;
	file->lanes[index].wake_context = context;
}
