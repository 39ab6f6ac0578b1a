/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * history - what each sector of a volume may hold while many clients write it, and after a kill
 *
 * A version of a sector has a submission and an end, drawn from one clock, so that requests which
 * overlap in time have no order and those that do not have one. Two rules say all:
 *
 *   live    a version may be read in [from, to] when it was submitted before `to`, unless another
 *           one that was answered before `from` was submitted after its end;
 *   killed  a version is gone when another one was submitted after its end and is durable: it was
 *           answered with FUA (or by a server that is --lasting), or before a flush was submitted
 *           that succeeded, or it was read after a recovery.
 *
 * A request that failed, or whose answer never came, is a version that makes no other one go. What
 * is in flight has no end. A clone is a set of versions with the same times, one for each thing
 * that its source held meanwhile.
 *
 * Units     sectors of 512 bytes; ids are those of tests/lib/content.h.
 * Memory    regions of 4,096 sectors, made when first written: a volume of 64 TiB costs nothing.
 *           Aborts when there is none: this is a test.
 * Threads   one.
 */
#ifndef TESTS_SWARM_SERVER_HISTORY_H
#define TESTS_SWARM_SERVER_HISTORY_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/lib/content.h"

#define HISTORY_NEVER	       UINT64_MAX
#define HISTORY_REGION_SECTORS 4096u
#define HISTORY_ALL_MAX	       128u

struct version {
	uint64_t submitted;
	uint64_t ended; /* HISTORY_NEVER: in flight, or it died with its server */
	uint32_t id;
	bool good; /* answered without an error */
	bool durable; /* whatever is flushed */
};

struct sector {
	struct version *versions; /* none: zeros since ever */
	uint32_t count;
	uint32_t room;
};

struct history_region {
	uint64_t number;
	struct sector sectors[HISTORY_REGION_SECTORS];
};

struct history {
	uint64_t sector_count;
	uint64_t now;
	uint64_t flushed; /* submission of the latest flush that succeeded */
	uint64_t oldest; /* submission of the oldest request in flight; the owner keeps it */
	struct history_region **table; /* open addressing by number */
	uint32_t table_size;
	struct history_region **regions; /* those that were written, in order of that */
	uint32_t region_count;
	struct history_region *last; /* looked up */
	uint64_t all[HISTORY_ALL_MAX]; /* zeros of everything that are in flight */
	uint32_t all_count;
};

void history_init(struct history *history, uint64_t sector_count);
void history_done(struct history *history);

static inline uint64_t history_tick(struct history *history)
{
	return ++history->now;
}

void history_flushed(struct history *history, uint64_t submitted);

/* NULL: zeros since ever. */
struct sector *history_find(struct history *history, uint64_t sector);

/* A version in flight; `submitted` names it to history_end(). */
void history_submit(struct history *history, uint64_t sector, uint64_t submitted, uint32_t id);
void history_end(struct history *history, uint64_t sector, uint64_t submitted, bool good,
		 bool durable);
/* Zeros all over the volume, whatever its size: of a trim of everything. */
void history_submit_all(struct history *history, uint64_t submitted);
void history_end_all(struct history *history, uint64_t submitted, bool good, bool durable);
/* Nothing is in flight any more, not even in the server. */
void history_settle(struct history *history);

/* A whole version at once: of a clone that has ended. */
void history_add(struct history *history, uint64_t sector, const struct version *version);
/* It is the only one from now on, and durable. */
void history_adopt(struct history *history, uint64_t sector, uint32_t id);

/* Calls take(context, id) for each version that may be read in [from, to]; stops on true. */
bool history_live(struct history *history, uint64_t sector, uint64_t from, uint64_t to,
		  bool (*take)(void *context, uint32_t id), void *context);
bool history_may_read(struct history *history, uint64_t sector, uint64_t from, uint64_t to,
		      uint32_t id);
bool history_may_survive(struct history *history, uint64_t sector, uint32_t id);
/* Whether some write of it was under way in [from, to]. */
bool history_busy(struct history *history, uint64_t sector, uint64_t from, uint64_t to);
/* True if the sector holds one thing only now, and nothing is in flight there. */
bool history_known(struct history *history, uint64_t sector, uint32_t *ret_id);

/* `ID[submitted-ended flags]...`, for whoever looks into a failure. */
void history_print(struct history *history, uint64_t sector, char *text, uint32_t size);

#endif
