/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * scenario - what kind of life a simulated volume leads: sizes, and how often which request comes
 *
 * The seed does the rest. Scenarios are data; world.c acts on them.
 */
#ifndef TESTS_SIM_SCENARIO_H
#define TESTS_SIM_SCENARIO_H

#include <stdbool.h>
#include <stdint.h>

enum op_kind {
	OP_READ,
	OP_WRITE, /* whole blocks, contents that exist nowhere else */
	OP_WRITE_POOL, /* whole blocks, contents from a small pool: these can be merged */
	OP_WRITE_SUB, /* sectors of one or two blocks */
	OP_WRITE_BYTES, /* not even sectors; runs alone */
	OP_ZERO, /* whole blocks, become holes */
	OP_ZERO_KEEP, /* whole blocks, zeros are written */
	OP_ZERO_SUB, /* with a partial head and tail */
	OP_DISCARD,
	OP_DISCARD_SUB,
	OP_FLUSH,
	OP_SAME,
	OP_SAME_ZERO,
	OP_SAME_MANY, /* a job with several destinations */
	OP_CLONE,
	OP_MAP,
	OP_CHANGES, /* and a scan after it */
	OP_INVALID, /* one that has to be refused */
	OP_KINDS,
};

/* What is done before the random part. */
enum fill {
	FILL_NOTHING,
	FILL_LINEAR, /* the window, in order, unique contents */
	FILL_POOL, /* the window, in order, contents of the pool */
	FILL_LEAF, /* the window, every other block first */
	FILL_MERGED, /* as POOL, and equal blocks merged */
	FILL_CLONED, /* LINEAR, and its first half cloned onto the second */
	FILL_ALL, /* every block of the volume, until the store is full */
};

struct scenario {
	const char *name;
	const char *what;
	uint32_t logical_blocks;
	uint32_t store_blocks;
	uint32_t ring_blocks;
	uint32_t window; /* blocks at the beginning of each zone that requests aim at */
	uint32_t zones; /* how many */
	uint32_t zone_gap; /* blocks from one zone to the next */
	uint32_t start; /* block where the first begins */
	uint32_t blocks_max; /* of one request */
	uint32_t workers;
	uint32_t depth; /* requests at a time */
	uint32_t requests; /* in one life */
	uint32_t lives;
	uint32_t fua_percent;
	uint32_t checkpoint_in; /* one step in so many starts a checkpoint; or NEVER */
	uint32_t tick_in; /* one step in so many, the timer */
	uint32_t trim_in; /* the same, all that is free is given back; 0: never */
	uint32_t nested_in; /* one recovery in so many is crashed again */
	enum fill fill;
	bool tracking; /* the volume tracks changes */
	bool discard; /* blocks are given back to the store */
	bool may_fill; /* ENOSPC is an answer */
	bool sequential; /* writes go on where the last one ended */
	uint8_t weights[OP_KINDS];
};

#define NEVER UINT32_MAX

extern const unsigned scenario_count;

struct scenario scenario_at(unsigned i);
bool scenario_find(const char *name, unsigned *ret_i);

#endif
