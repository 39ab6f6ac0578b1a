/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sweep - gives back to the backing what was freed and could not be given back at the time
 *
 *   IDLE --> LOADING --> GIVING --> IDLE ... the next slab that is due
 *     ^        |           |  ^
 *     +--------+           +--+ a few runs at a time
 *
 *   IDLE    -> GIVING   a slab is due (refs.h)
 *   GIVING  -> LOADING  its page is absent
 *   LOADING -> GIVING   it came in
 *   LOADING -> IDLE     it cannot be had: it stays due, but is not tried again in this life
 *   GIVING  -> GIVING   its free blocks that nothing else keeps busy become busy, run by run, and
 *                       go through the queue of what is given back (pending.h, I13), from which a
 *                       writer who finds no space takes them back
 *   GIVING  -> IDLE     its end was reached, and all discards are done. It is due no longer, unless
 *                       something made it due meanwhile
 *
 * A slab becomes due by a full queue, a discard that failed, a writer who could not wait, a write
 * that was given up. Its summary keeps that over a clean stop (docs/disk-format.md). After a crash
 * nobody knows what was written and not recorded, so every slab with free blocks is due. A slab
 * that was never used is given back whole, without reading its page: all of it is busy meanwhile
 * (refs_hold).
 *
 * Out of clients' way: one slab at a time, so many absent ones a tick; discards are paced by the
 * store, and only while nothing else is given back and nobody waits for space. A stop of the server
 * ends it where it is. sweep_ask() makes all free space due and answers the number of a round: when
 * so many rounds are over, all that was free at that time has been given back.
 *
 * Threads   the caller holds the metadata lock, but not of volume_trim() and volume_end_trim()
 *           (volume.h). Memory: none. Errors: none; what could not be given back is counted
 *           (OWED_FAILED) and tried again in the next life, or when it is asked for.
 */
#ifndef CORE_METADATA_SWEEP_H
#define CORE_METADATA_SWEEP_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/wait.h"

struct metadata;

enum sweep_state {
	SWEEP_IDLE,
	SWEEP_LOADING,
	SWEEP_GIVING,
};

struct sweep {
	struct metadata *metadata;
	enum sweep_state state;
	bool stopped;
	uint32_t slab; /* under way, or where the search goes on */
	uint32_t at; /* index in it */
	uint32_t loads; /* left in this tick */
	uint64_t rounds; /* over: from the first slab to the last */
	uint64_t asked; /* the round that somebody waits for */
	struct wait wait;
};

void sweep_init(struct sweep *sweep, struct metadata *metadata);
/* The caller's timer: a new round. */
void sweep_tick(struct sweep *sweep, struct worker *worker);
/* All that is free is due. The round with whose end it was given back. */
uint64_t sweep_ask(struct sweep *sweep);
/* Something was given back: it goes on. */
void sweep_go_on(struct sweep *sweep, unsigned lane);
/* Nothing new is begun. */
void sweep_stop(struct sweep *sweep);
/* The same where no other worker runs any more: what one of them began goes on on this one. */
void sweep_close(struct sweep *sweep, struct worker *worker);
/* Free blocks that may have to be given back, at the most. */
uint64_t sweep_due_blocks(const struct sweep *sweep);
/* Whether the slab is being given back: its summary must not yet say that nothing is due. */
static inline bool sweep_is_at(const struct sweep *sweep, uint32_t slab)
{
	return sweep->state != SWEEP_IDLE && sweep->slab == slab;
}

#endif
