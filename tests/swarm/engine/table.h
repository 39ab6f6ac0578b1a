/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * table - how often each thing was drawn, so that a gap is seen
 *
 * A dimension is what is drawn, its buckets are what it can be. The counts are in memory that the
 * children of a run share; a bucket that stays empty in a long run is a failure of the run.
 *
 * Threads   any; processes too.
 */
#ifndef TESTS_SWARM_ENGINE_TABLE_H
#define TESTS_SWARM_ENGINE_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#define TABLE_BUCKETS 26u

enum dimension {
	DIM_SIZE,
	DIM_TAIL,
	DIM_STORE,
	DIM_RING,
	DIM_SECTOR,
	DIM_LANES,
	DIM_WORLD, /* yes or no: several of these at once */
	DIM_SHAPE,
	DIM_CACHE,
	DIM_HINT,
	DIM_DEPTH,
	DIM_LIFE, /* yes or no of a life */
	DIM_FAULT,
	DIM_END,
	DIM_NESTED, /* kills in recovery, one after the other */
	DIM_OP,
	DIM_LENGTH,
	DIM_ANSWER,
	DIM_LOOK, /* what was looked at */
	DIM_COUNT,
};

struct table {
	_Atomic uint64_t counts[DIM_COUNT][TABLE_BUCKETS];
};

/* Makes the memory, once, before any child. */
void table_init(void);
void table_add(enum dimension dimension, unsigned bucket);
/* Prints it; the number of buckets that are empty. */
unsigned table_print(void);
uint64_t table_sum(enum dimension dimension);

#endif
