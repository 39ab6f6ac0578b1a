/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * pending - references that were dropped by edits which a crash could still undo
 *
 *   dropped ----> QUEUED ----> (GIVING BACK) ----> settled
 *
 *   dropped -> QUEUED       pending_add     the edit was published; the blocks are busy
 *   QUEUED  -> GIVING BACK  pending_settle  its record is durable, and no request that may have
 *                                           read the old mapping is in flight (I3); freed blocks
 *                                           are discarded in the store
 *   QUEUED  -> settled      pending_settle  the same, where nothing is given back: the blocks are
 *                                           not busy any more
 *   GIVING BACK -> settled  discard done    only now can the blocks be handed out (I13)
 *   GIVING BACK -> settled  pending_reuse   space is short: runs whose discard is not yet submitted
 *
 * Leaf places wait longer: until a checkpoint that began after the edit is durable, because replay
 * from the older one reads their slots. They are a queue of their own (the quarantine).
 *
 * Units     runs of blocks, each within a slab.
 * Threads   the caller holds the metadata lock; discards complete on the lane that submitted them.
 * Memory    fixed; pending_room() tells how many runs fit, and the journal grants no record without
 *           room for one.
 */
#ifndef CORE_METADATA_PENDING_H
#define CORE_METADATA_PENDING_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/base/store.h"
#include "core/metadata/refs.h"

#define PENDING_DISCARDS 8u

struct pending_run {
	uint64_t lsn;
	pbn_t pbn;
	uint32_t blocks;
	bool held; /* all of a slab that was never used: see refs_hold() */
};

struct pending_queue {
	struct pending_run *runs; /* a ring */
	uint32_t capacity;
	uint32_t first;
	uint32_t count;
	uint64_t blocks; /* in it, freed or not */
};

struct pending {
	struct refs *refs;
	struct store *store;
	pthread_mutex_t *lock;
	struct pending_queue queue;
	struct pending_queue quarantine;
	struct pending_queue giveback;
	bool discard;
	struct pending_discard {
		struct pending *pending;
		struct pending_run run; /* blocks 0: slot is free */
		struct store_io io;
	} discards[PENDING_DISCARDS];
	uint32_t discards_in_flight;
	uint64_t discarded_bytes;
	/* Called with the lock held: blocks became allocatable or overwritable. */
	void (*on_settled)(void *context);
	/* The same after a discard, on its lane. May be NULL. */
	void (*on_given)(void *context, unsigned lane);
	void *context;
};

int pending_init(struct pending *pending, struct refs *refs, struct store *store,
		 pthread_mutex_t *lock, uint32_t capacity, bool discard);
void pending_done(struct pending *pending);

/* The edit with this LSN dropped a reference of each block; they become busy. */
void pending_add(struct pending *pending, uint64_t lsn, pbn_t pbn, uint32_t blocks);
void pending_add_place(struct pending *pending, uint64_t lsn, pbn_t place);
/* One of the two single blocks of a place. */
void pending_add_slot(struct pending *pending, uint64_t lsn, pbn_t slot);

/* Nothing is given back any more: the volume is latched. */
void pending_kill(struct pending *pending);

uint32_t pending_room(const struct pending *pending);
/* Whether anything waits for a commit, an epoch or a discard (not the quarantine). */
bool pending_any(const struct pending *pending);
/* Whether the oldest run waits for an epoch alone. */
bool pending_epoch_bound(const struct pending *pending, uint64_t durable_lsn);
/* All that has not settled, the quarantine and discards in flight among it. */
uint64_t pending_blocks(const struct pending *pending);
/* Of these, what is being given back: whoever waits for blocks gets them. */
uint64_t pending_given_blocks(const struct pending *pending);

/* Settles what is durable up to durable_lsn and older than every request in flight. Discards go to
 * the lane. */
void pending_settle(struct pending *pending, uint64_t durable_lsn, uint64_t oldest_epoch,
		    unsigned lane);
/* Somebody waits for blocks: what is still to be given back is settled as it is, since it is about
 * to be written again. */
void pending_reuse(struct pending *pending);
/* Free blocks of a slab that is due, in nobody's hands, are given back; so is all of a slab that
 * was never used and whose page is absent. pending_send() begins. */
void pending_give(struct pending *pending, pbn_t pbn, uint32_t blocks);
void pending_give_slab(struct pending *pending, uint32_t slab);
void pending_send(struct pending *pending, unsigned lane);
/* A checkpoint with this tail is durable: places given back by older edits are free. */
void pending_release_places(struct pending *pending, uint64_t tail_lsn, unsigned lane);

#endif
