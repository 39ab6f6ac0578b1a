/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * disk - a sparse disk with a volatile cache, of any size and with several lanes: struct store for
 * the swarm
 *
 * tests/lib/store_sim enumerates what a crash may leave and tests/lib/store_mem lets a test name
 * it; both hold tables or copies as large as the store. Here a *cell* exists for each block that
 * was ever written, so a store of terabytes costs what is in it, the blocks that the backing has
 * allocated can be counted, and what a crash leaves is drawn once.
 *
 * A cell has the newest content, which reads return, and the durable one. What was delivered and is
 * not durable yet is a list of *changes*, a block each:
 *
 *   submit  -> in a lane's queue; nothing has happened
 *   deliver -> newest, and a change; done() is called. FUA: durable at once
 *   flush   -> the changes that were delivered before its submission are durable
 *   a failed flush leaves what it covered undecided: no later one covers it, a power cut decides
 *
 *   disk_kill   the process ends: what is in flight was done or not, sector by sector; the changes
 *               stay, and may become durable later
 *   disk_cut    the power fails: so, and of the sectors of all changes any subset is left
 *
 * A process can also be made to die at an I/O of the disk's choice (disk_die_after): from then on
 * nothing has any effect and all fails with EIO, so that an engine in the middle of opening or
 * closing comes back to be thrown away.
 *
 * Space     limit_blocks is what the backing can allocate. A first write of a block beyond that is
 *           refused with full_error; discards give blocks back.
 * Faults    one in so many I/Os of an operation fails: after a part of a write was done, or because
 *           a backing that puts what is overwritten into a new place has none.
 * Time      I/Os of a lane are delivered in any order, and some are slow: others pass them by until
 *           the disk was asked some hundred times more.
 * Memory    foreign memory is what disk_reach() was told; it is refused now and then.
 * Threads   one.
 */
#ifndef TESTS_SWARM_ENGINE_DISK_H
#define TESTS_SWARM_ENGINE_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/list.h"
#include "core/base/store.h"
#include "core/base/units.h"
#include "tests/lib/rng.h"

#define DISK_LANES_MAX	 4u
#define DISK_FOREIGN_MAX 20u
#define DISK_NEVER	 UINT64_MAX

/* Of a block: never changed, since several name it. */
struct disk_content {
	uint32_t names;
	struct disk_content *next; /* of those that nobody names */
	uint8_t data[BLOCK_BYTES];
};

struct disk_cell {
	uint64_t block;
	struct disk_content *newest; /* NULL: nothing is allocated */
	struct disk_content *durable;
	struct list changes; /* of this block, by delivery */
};

struct disk_change {
	struct list node; /* of all, by delivery */
	struct list of_cell;
	struct disk_cell *cell;
	uint64_t number;
	uint8_t mask; /* sectors that it still may change */
	bool undecided;
	struct disk_content *content; /* NULL: a discard */
};

struct disk_io {
	struct store_io *io;
	int error; /* that it will be answered with */
	uint64_t due; /* not before the disk was asked so often, if it has the choice */
	uint64_t before; /* of a flush: what it covers */
};

struct disk_lane {
	struct disk_io *ios;
	uint32_t count;
	uint32_t capacity;
};

/* One I/O of the operation in so many fails, between the two counts of submitted I/Os. */
struct disk_fault {
	enum store_op op;
	int error; /* EIO, after a part was written; want of space, and nothing was */
	uint32_t one_in; /* 0: none */
	bool once; /* one only */
	uint64_t from;
	uint64_t to;
};

struct disk {
	struct store store; /* first: the engine knows only this */
	struct rng rng;
	struct disk_cell **cells; /* a hash table by block */
	uint64_t cell_slots;
	uint64_t cell_count;
	uint64_t allocated; /* cells with content: what the backing has allocated */
	uint64_t limit_blocks; /* DISK_NEVER: no limit */
	int full_error;
	uint8_t junk; /* what reads where nothing is */
	struct list changes;
	struct list spare; /* changes to use again */
	struct disk_content *spare_contents;
	void *pools; /* that they lie in; the first word leads on */
	uint32_t slow_in; /* one I/O in so many takes its time; 0: none */
	uint64_t asked; /* for I/Os to deliver */
	uint64_t delivered; /* changes so far */
	struct disk_lane lanes[DISK_LANES_MAX];
	struct disk_fault fault;
	uint64_t faults; /* that were injected */
	uint64_t full; /* refused for want of space */
	bool undecided; /* a flush failed: only a power cut can follow */
	bool must_not_write; /* opened read-only */
	uint64_t written; /* although it must not */
	uint64_t submitted;
	uint64_t die_at; /* count of submitted I/Os; DISK_NEVER */
	bool dead;
	uint8_t *foreign[DISK_FOREIGN_MAX]; /* what io->foreign names, from 1 on */
};

void disk_init(struct disk *disk, uint64_t size_bytes, unsigned lanes, uint64_t seed);
void disk_done(struct disk *disk);

/* Delivers one I/O of the lane, chosen at random. False: there is none, or none but slow ones and
 * those can wait. */
bool disk_deliver(struct disk *disk, unsigned lane, bool slow_too);
bool disk_idle(const struct disk *disk);

/* The process dies at the n-th I/O from now; 0 takes it back. */
void disk_die_after(struct disk *disk, uint64_t n);
/* What is in flight ends now, done or not, while its memory is still there; until disk_kill() or
 * disk_cut() nothing works. */
void disk_stop(struct disk *disk);
/* What the end of the process, or of the power, leaves. Alive again afterwards. */
void disk_kill(struct disk *disk);
void disk_cut(struct disk *disk);

/* Offline: the newest content. */
void disk_read(const struct disk *disk, uint64_t off_bytes, void *buf, uint64_t len_bytes);
/* Allocated blocks for which the question is answered with true. */
uint64_t disk_count(const struct disk *disk, bool (*is)(const void *context, uint64_t block),
		    const void *context);
/* Changes that are not durable; discards are hints and do not count. */
uint64_t disk_undurable(const struct disk *disk);

#endif
