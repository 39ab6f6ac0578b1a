/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * checkpoint - brings dirty pages home, so that the journal's tail can move and frames become clean
 *
 *   IDLE -> BOUNDARY -> PAGES -> PAGES_FLUSH -> TOPS -> TOPS_FLUSH -> SUPER -> SUPER_FLUSH -> IDLE
 *                       ^   |                   ^  |
 *                       +---+ batch by batch    +--+
 *
 *   IDLE        -> BOUNDARY     what is open is committed; the end of the last durable group is the
 *                               boundary: replay from the new superblock will begin there
 *   BOUNDARY    -> PAGES        leaves and refs pages with an edit before the boundary are copied
 *                               under the lock, a batch at a time; when the copy's own LSN is
 *                               durable (I18) it is written to the slot that the durable parent
 *                               does not name; then the parent in memory names it
 *   PAGES       -> PAGES_FLUSH  none is left
 *   PAGES_FLUSH -> TOPS         dirty root and summary pages: copied, committed, written in the
 *                               same way
 *   TOPS        -> TOPS_FLUSH
 *   TOPS_FLUSH  -> SUPER        the superblock copy that is not the newest is written: generations
 *                               of all tops, boundary
 *   SUPER       -> SUPER_FLUSH
 *   SUPER_FLUSH -> IDLE         durable: ring blocks before the boundary, the slots that were named
 *                               before, and places given back before the boundary may be used again
 *                               (I21)
 *   any         -> DEAD         the volume is latched
 *
 * A request that lacks journal room, a frame or blocks starts one. Places that were given back wait
 * for a checkpoint; where nobody edits any more, the timer starts it (checkpoint_tick).
 *
 * A page goes home at most once in a checkpoint and only by a checkpoint, so the slot that the
 * durable parent names is never written: until the new superblock is durable, the old state is
 * whole on the store, and recovery reads exactly the pages that the durable parents name (see
 * recovery.h).
 *
 * Threads   the caller holds the metadata lock. Memory: taken by checkpoint_init().
 */
#ifndef CORE_METADATA_CHECKPOINT_H
#define CORE_METADATA_CHECKPOINT_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/wait.h"
#include "core/metadata/cache.h"
#include "core/metadata/journal.h"

#define CHECKPOINT_BATCH 32u

struct metadata;

enum checkpoint_state {
	CHECKPOINT_IDLE,
	CHECKPOINT_BOUNDARY,
	CHECKPOINT_PAGES,
	CHECKPOINT_PAGES_FLUSH,
	CHECKPOINT_TOPS,
	CHECKPOINT_TOPS_FLUSH,
	CHECKPOINT_SUPER,
	CHECKPOINT_SUPER_FLUSH,
	CHECKPOINT_DEAD,
};

struct checkpoint_slot {
	struct checkpoint *checkpoint;
	struct store_io io;
	uint8_t *buf;
	struct frame *frame; /* PAGES */
	page_t page;
	uint32_t top; /* TOPS */
	uint32_t generation;
	uint32_t piece; /* of a refs page: what the copy has to offer (piece.h) */
	uint64_t block;
};

struct checkpoint {
	struct metadata *metadata;
	enum checkpoint_state state;
	bool again; /* asked for while one was running */
	bool clean; /* the next one marks the store clean */
	int error;
	struct journal_boundary boundary;
	struct wait step;
	struct list waits; /* for the end of the one that runs or of the next */
	struct list next_waits;
	struct checkpoint_slot slots[CHECKPOINT_BATCH];
	uint8_t *slot_memory;
	uint32_t slot_count;
	uint64_t batch_lsn;
	bool batch_written;
	uint32_t ios_pending;
	int ios_res;
	uint32_t next_top;
	uint8_t *super_buf;
	uint32_t *generations;
	struct store_io super_io;
	uint64_t rest_lsn; /* the next edit's at the last tick; none since: the volume rests */
	uint32_t rest_ticks;
	uint64_t checkpoints;
	uint64_t pages_written;
};

int checkpoint_init(struct checkpoint *checkpoint, struct metadata *metadata);
void checkpoint_done(struct checkpoint *checkpoint);

/* Starts one, or another after the one that runs. The wait (may be NULL) is woken when a checkpoint
 * that began after this call is durable, or with an error. */
void checkpoint_start(struct checkpoint *checkpoint, struct worker *worker, struct wait *wait);

/* The timer's: where places wait for a checkpoint and no edit came for some ticks, starts one. */
void checkpoint_tick(struct checkpoint *checkpoint, struct worker *worker);

void checkpoint_kill(struct checkpoint *checkpoint, int error);

#endif
