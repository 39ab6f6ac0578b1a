/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/metadata/backing.h"

#include <assert.h>
#include <string.h>

#include "core/base/units.h"

#define PAUSE_TICKS_MAX	  16u
#define DATA_TICKS	  30u /* that a data write's lack of space is news for */
#define SPACE_AGAIN_BYTES (4ull << 20)

void backing_init(struct backing *backing, struct store *store,
		  void (*changed)(void *context, bool data, int error), void *context)
{
	memset(backing, 0, sizeof(*backing));
	backing->store = store;
	backing->held_last = &backing->held;
	backing->changed = changed;
	backing->context = context;
}

void backing_write(struct backing *backing, struct store_io *io)
{
	assert(io->op == STORE_WRITE);
	io->locked = true;
	backing->in_flight++;
	store_submit(backing->store, io);
}

static void hold(struct backing *backing, struct store_io *io, int res)
{
	io->store_next = NULL;
	*backing->held_last = io;
	backing->held_last = &io->store_next;
	backing->held_count++;
	backing->metadata_waits++;
	if (backing_is_lacking(backing))
		return;
	backing->pause_ticks = 1;
	backing->ticks_left = 1;
	atomic_store(&backing->metadata_error, res);
	backing->changed(backing->context, false, res);
}

bool backing_holds(struct backing *backing, struct store_io *io, int res)
{
	assert(backing->in_flight > 0);
	backing->in_flight--;
	if (store_lacks_space(res) && !backing->killed) {
		hold(backing, io, res);
		return true;
	}
	if (backing_is_lacking(backing) && backing->in_flight == 0 && backing->held == NULL) {
		atomic_store(&backing->metadata_error, 0);
		backing->changed(backing->context, false, 0);
	}
	return false;
}

uint64_t backing_missing_bytes(const struct backing *backing)
{
	const struct store *store = backing->store;
	uint64_t has;

	if (!atomic_load(&store->backing_known))
		return 0;
	has = atomic_load(&store->backing_allocated_bytes) +
	      atomic_load(&store->backing_free_bytes);
	return store->size_bytes - min_u64(has, store->size_bytes);
}

bool backing_data_lacks(struct backing *backing, int error)
{
	atomic_store(&backing->data_ticks, 0);
	return atomic_exchange(&backing->data_error, error) == 0;
}

void backing_retry(struct backing *backing, unsigned lane)
{
	struct store_io *io = backing->held;

	backing->held = NULL;
	backing->held_last = &backing->held;
	backing->held_count = 0;
	while (io != NULL) {
		struct store_io *next = io->store_next;

		io->lane = lane;
		backing_write(backing, io);
		io = next;
	}
}

/* Where the backing tells how much it has left, that decides; a quota tells nothing. */
static bool is_old_news(const struct backing *backing)
{
	const struct store *store = backing->store;

	if (atomic_load(&store->backing_known) &&
	    atomic_load(&store->backing_free_bytes) < SPACE_AGAIN_BYTES)
		return false;
	return atomic_load(&backing->data_ticks) > DATA_TICKS;
}

void backing_tick(struct backing *backing, unsigned lane)
{
	if (atomic_load(&backing->data_error) != 0) {
		atomic_fetch_add(&backing->data_ticks, 1);
		if (is_old_news(backing)) {
			atomic_store(&backing->data_error, 0);
			backing->changed(backing->context, true, 0);
		}
	}
	if (backing->held == NULL || backing->killed)
		return;
	if (backing->ticks_left > 1) {
		backing->ticks_left--;
		return;
	}
	if (backing->pause_ticks < PAUSE_TICKS_MAX)
		backing->pause_ticks *= 2;
	backing->ticks_left = backing->pause_ticks;
	backing_retry(backing, lane);
}

void backing_kill(struct backing *backing)
{
	backing->killed = true;
	backing->held = NULL;
	backing->held_last = &backing->held;
}
