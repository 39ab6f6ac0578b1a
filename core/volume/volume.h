/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * volume - an open store: it joins map, refs, allocator, journal and checkpoint
 *
 * Units     as named. Errors: 0 or a negative errno; volume_open() fills in a damage report when
 *           the store is bad.
 * Threads   volume_format, volume_open and volume_close run before the workers start and after they
 *           have stopped, on one thread, on lane 0. Everything else from any worker's thread.
 * Blocking  format, open and close block on the store (store->ops->wait); nothing else does.
 */
#ifndef CORE_VOLUME_VOLUME_H
#define CORE_VOLUME_VOLUME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/damage.h"
#include "core/base/store.h"
#include "core/base/units.h"
#include "core/format/geometry.h"
#include "core/base/worker.h"
#include "core/volume/counters.h"

#define VOLUME_WORKERS_MAX 64

struct volume;
struct geometry;

struct volume_format_options {
	uint64_t logical_bytes;
	uint32_t ring_blocks; /* 0: chosen from the sizes */
	bool tracking; /* with pages for change tracking (tracking.h) */
	uint8_t uuid[16]; /* random; core has no randomness of its own */
	bool (*stop)(void); /* asked between pieces: true ends it, with EINTR; or NULL */
};

/* Writes an empty volume onto the store, all of store->size_bytes. EINVAL (sizes), ENOSPC (store
 * too small for the metadata), EIO, EINTR: there is no volume on the store. */
int volume_format(struct store *store, const struct volume_format_options *options,
		  struct damage *reterr_damage);

/* The store size for which `sameblk create --size` without --store-size asks. */
uint64_t volume_store_bytes_for(uint64_t logical_bytes, uint32_t ring_blocks);
/* What change tracking takes of the store besides. */
uint64_t volume_tracking_bytes(uint64_t logical_bytes);
/* The largest logical size for which every block of the volume has one in the store. 0: too small.
 * */
uint64_t volume_logical_bytes_for(uint64_t store_bytes, uint32_t ring_blocks);

struct volume_options {
	uint64_t cache_bytes; /* metadata cache; 0: 128 MiB */
	uint32_t cow_hint_blocks; /* power of two, 1 to 512; 0: 32 (128 KiB) */
	bool read_only; /* nothing is written; a crashed store is replayed in memory */
	bool populate; /* the cache has its memory from the start, not as it is used */
	bool discard; /* give freed blocks back to the store */
	uint32_t tracking_rest_ticks; /* without a change, then a crash forgets nothing; 0: 60 */
	/* Called, on any worker's thread, when the volume changes to a worse or better state or
	 * finds damage. May be NULL. */
	void (*log)(void *context, const char *text);
	/* While the volume is opened or closed, a metadata write finds no space in the backing:
	 * pause and true, or false: give up. NULL: give up at once. Gets log_context. */
	bool (*lacking)(void *context);
	void *log_context;
	/* The simulator's: delays a step named by the point. NULL in a server. */
	bool (*yield)(void *context, const char *point);
	void *yield_context;
};

/* workers[i] is the caller's, initialised, with lane i; their threads must not run yet. ENOTSUP: a
 * format or feature we do not know; EUCLEAN: damage; EROFS: needs read_only. */
int volume_open(struct store *store, const struct volume_options *options, struct worker **workers,
		unsigned worker_count, struct volume **ret_volume, struct damage *reterr_damage);

/* Whether nothing of the volume's own is under way (commit, checkpoint, discards). With no request
 * in flight and no tick nothing new begins, so the threads of the workers may then stop. */
bool volume_is_idle(struct volume *volume);

/* No request may be in flight, the volume idle but for lane 0 and metadata that waits for space.
 * Checkpoints, marks the store clean, frees everything. With a latched volume it only frees and
 * returns the latched error. */
int volume_close(struct volume *volume);

/* Frees without writing anything: what a crash leaves. For tests. No I/O may be in flight, or none
 * of it may ever complete. */
void volume_abandon(struct volume *volume);

/* Starts a commit if anything is uncommitted; the caller's timer, every few seconds. */
void volume_tick(struct volume *volume, struct worker *worker);

/* Starts a checkpoint; it runs in the background. */
void volume_checkpoint(struct volume *volume, struct worker *worker);

/* All that is free is given back to the backing in the background, whatever is known of it: from
 * the next tick on. It is done when so many rounds are over (giveback_rounds). EROFS, EIO
 * (latched), EOPNOTSUPP: nothing is given back. */
int volume_trim(struct volume *volume, uint64_t *ret_round);
/* Stops giving back: the server is about to end. The next server goes on with what is left. */
void volume_end_trim(struct volume *volume);

/* Cancels the SAME and CLONE requests that are under way: they end with what they have. */
void volume_cancel(struct volume *volume);

enum volume_state {
	VOLUME_OK,
	VOLUME_LOW_ON_SPACE,
	VOLUME_READ_ONLY, /* opened so */
	VOLUME_BACKING_FULL, /* the backing refuses data or metadata for want of space */
	VOLUME_LATCHED, /* a metadata write or a flush failed */
};

struct volume_stats {
	enum volume_state state;
	int latched_error; /* a positive errno if VOLUME_LATCHED */
	char latched_text[160];
	char backing_text[160]; /* if VOLUME_BACKING_FULL */
	bool metadata_waiting; /* for space in the backing */
	COUNTERS(COUNTER_FIELD) /* counters.h says what they are */
};

void volume_stats(struct volume *volume, struct volume_stats *ret_stats);
/* The same without waiting for the lock. False: somebody has it now. */
bool volume_try_stats(struct volume *volume, struct volume_stats *ret_stats);

const uint8_t *volume_uuid(const struct volume *volume);
/* Whether requests may have foreign payload. */
bool volume_reaches_foreign(const struct volume *volume);
uint64_t volume_size_bytes(const struct volume *volume);
uint64_t volume_generation(const struct volume *volume);

#endif
