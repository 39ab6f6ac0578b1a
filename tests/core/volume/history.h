/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * history - what was done to each block and when, and whether every read returned what it might
 *
 * Each block is a register. A write takes effect at some point between its begin and its end. A
 * read of value v is possible when some write of v began before the read ended, and no other write
 * began after it had ended and ended before the read began. A clone is a write of a value that its
 * source might hold between the clone's begin and end. Values need not be unique; then less is
 * proven.
 *
 * This is necessary for linearizability, per block, not sufficient: two reads are not compared with
 * each other.
 *
 * Units     time is a count that every event takes from one counter.
 * Memory    grows; history_judge() empties it, and keeps for each block what its last read said.
 * Threads   one each; history_move() joins them.
 */
#ifndef TESTS_CORE_VOLUME_HISTORY_H
#define TESTS_CORE_VOLUME_HISTORY_H

#include <stdint.h>

#define HISTORY_BLOCKS	128u
#define HISTORY_GARBAGE UINT32_MAX

enum event_kind {
	EVENT_WRITE,
	EVENT_CLONE,
	EVENT_READ,
};

struct event {
	enum event_kind kind;
	uint32_t block;
	uint32_t value; /* of a clone: the source's block */
	uint64_t began;
	uint64_t ended;
};

struct history {
	struct event *events;
	uint32_t count;
	uint32_t capacity;
};

/* All blocks hold 0. */
void history_begin(struct history *history);
void history_write(struct history *history, uint32_t block, uint32_t value, uint64_t began,
		   uint64_t ended);
void history_clone(struct history *history, uint32_t block, uint32_t src, uint64_t began,
		   uint64_t ended);
void history_read(struct history *history, uint32_t block, uint32_t value, uint64_t began,
		  uint64_t ended);
/* Appends all of from, which is empty afterwards. */
void history_move(struct history *to, struct history *from);
/* The number of reads that are not possible; each is printed. */
uint32_t history_judge(struct history *history);

#endif
