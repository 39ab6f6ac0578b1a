/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * journal - edits in a ring on the store, committed in groups
 *
 * An edit is appended to the open group when it is published; it has its LSN from then on. A commit
 * makes one group durable:
 *
 *   IDLE ----> DATA_FLUSH ----> WRITE ----> FLUSH ----> IDLE
 *                                 ^           |
 *                                 +-----------+
 *
 *   IDLE       -> DATA_FLUSH  start        somebody needs it: the open group is frozen, then a
 *                                          flush asked for. Its data was complete before, so the
 *                                          flush covers it (I2, I5)
 *   DATA_FLUSH -> WRITE       data_flushed the frozen group's blocks are sealed and written
 *   WRITE      -> FLUSH       written      if more was asked for, the next group is frozen now:
 *                                          this flush is its data flush too, so a busy journal
 *                                          costs one flush a commit
 *   FLUSH      -> WRITE       flushed      the group is durable; the one frozen meanwhile is
 *                                          written
 *   FLUSH      -> IDLE        flushed      the group is durable, nothing more was asked for
 *   any        -> DEAD        on an error  for ever; the volume is latched
 *
 * Ring space is never short in a commit: an editing request reserves its records and the blocks
 * that they may take in the worst case (each batch in a group of its own) before it takes anything
 * else (I23).
 *
 * Units     records and ring blocks as named; LSNs count records from 1.
 * Threads   the caller holds the metadata lock, but for journal_next_lsn() and
 *           journal_durable_lsn().
 * Memory    journal_init() allocates both groups.
 * Blocking  never.
 */
#ifndef CORE_METADATA_JOURNAL_H
#define CORE_METADATA_JOURNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "core/base/store.h"
#include "core/base/wait.h"
#include "core/format/format.h"
#include "core/format/geometry.h"
#include "core/metadata/backing.h"
#include "core/metadata/flusher.h"

/* Records that a request publishes without letting go of the metadata lock, at the most. */
#define JOURNAL_BATCH 18u

/* Counters that are exact at a group's end; the superblock holds those of its tail. */
struct journal_counts {
	uint64_t mapped_blocks;
	uint64_t places;
};

/* The end of a durable group: where a checkpoint's replay would begin. */
struct journal_boundary {
	uint64_t lsn; /* of the first record after it */
	uint64_t sequence;
	uint64_t prev;
	uint64_t group;
	struct journal_counts counts;
};

struct journal_group {
	uint8_t *blocks;
	uint32_t records;
	uint64_t first_lsn;
	struct journal_counts counts;
};

enum journal_state {
	JOURNAL_IDLE,
	JOURNAL_DATA_FLUSH,
	JOURNAL_WRITE,
	JOURNAL_FLUSH,
	JOURNAL_DEAD,
};

struct journal {
	struct backing *backing;
	const struct geometry *geometry;
	const uint8_t *uuid;
	struct flusher *flusher;
	pthread_mutex_t *lock;

	enum journal_state state;
	int error; /* DEAD: the negative errno */
	_Atomic uint64_t next_lsn;
	_Atomic uint64_t durable_lsn;
	uint64_t wanted_lsn; /* somebody asked for a commit up to here */
	uint64_t flushing_lsn; /* last of the group that was written */
	struct journal_boundary flushing;
	struct journal_boundary durable;

	uint64_t epoch;
	uint64_t sequence; /* of the next ring block */
	uint64_t tail_sequence; /* of the durable superblock */
	uint64_t prev;
	uint64_t group; /* of the next commit */
	uint64_t checkpoint; /* the durable superblock */

	struct journal_counts counts; /* live */
	struct journal_group open;
	struct journal_group frozen;
	uint32_t capacity_records;
	uint32_t reserved_records;
	uint32_t reserved_blocks;

	struct list commit_waits;
	struct list space_waits;
	struct wait step;
	struct store_io ios[2];
	unsigned ios_pending;
	int ios_res;

	uint64_t edits;
	uint64_t commits;
	uint64_t blocks_written;

	/* Called with the lock held: after the durable LSN moved; when space is short; once when it
	 * died. */
	void (*on_durable)(void *context, struct worker *worker);
	void (*on_short)(void *context, struct worker *worker);
	void (*failed)(void *context, int error);
	/* How many dropped runs can still be queued: a record may drop one. 0 if no edit is
	 * wanted for a while. */
	uint32_t (*pending_room)(void *context);
	void *context;
};

int journal_init(struct journal *journal, struct backing *backing, const struct super *super,
		 struct flusher *flusher, pthread_mutex_t *lock);
void journal_done(struct journal *journal);

static inline uint64_t journal_next_lsn(const struct journal *journal)
{
	return atomic_load(&journal->next_lsn);
}

static inline uint64_t journal_durable_lsn(const struct journal *journal)
{
	return atomic_load(&journal->durable_lsn);
}

/* Room for records edits. True: reserved. False: the wait is queued, in order, and is woken with
 * the reservation made, or with an error. */
bool journal_reserve(struct journal *journal, uint32_t records, struct wait *wait);
/* Gives back what is left: unused records, and the blocks charged for `records` of
 * journal_reserve(). */
void journal_release(struct journal *journal, uint32_t unused_records, uint32_t records);

/* One edit, on a reservation. Returns its LSN. Cannot fail. */
uint64_t journal_append(struct journal *journal, const struct record *record);

/* The wait is woken when everything up to lsn is durable; a commit is started if need be. */
void journal_wait(struct journal *journal, uint64_t lsn, struct wait *wait);
/* Whether making lsn durable takes a flush that is not submitted yet, so that it covers all that is
 * complete now. */
bool journal_flush_follows(const struct journal *journal, uint64_t lsn);
/* Starts a commit of everything there is, if there is anything; nobody waits. */
void journal_kick(struct journal *journal, struct worker *worker);

/* After a checkpoint: ring blocks before the tail may be used again. */
void journal_set_tail(struct journal *journal, uint64_t tail_sequence, uint64_t checkpoint);

/* A new life: what recovery starts with once its superblock is durable. */
void journal_restart(struct journal *journal, uint64_t epoch);

/* Room came from elsewhere (what was dropped settled): who waits for it may go on. */
void journal_grant(struct journal *journal);

uint32_t journal_used_blocks(const struct journal *journal);

void journal_kill(struct journal *journal, int error);

/* Who waits for room hears it: there will be none for a while. */
void journal_refuse(struct journal *journal, int error);

#endif
