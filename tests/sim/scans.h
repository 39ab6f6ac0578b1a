/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * scans - what was read of a volume after a cut, and whether what is said to be unchanged since
 * then still reads so
 *
 * A client asks for changes, gets a generation, and reads a part of the volume while others go on
 * writing. What it read is kept. Whenever somebody is told, in this life or after any crash, what
 * changed since that generation, every block of the part that is not among the ranges has to read
 * as it did. Nothing is asked of the blocks that are: tracking may err towards "changed".
 *
 * Memory    scans_add() allocates; scans_done() frees. Threads: one.
 */
#ifndef TESTS_SIM_SCANS_H
#define TESTS_SIM_SCANS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/request/request.h"

#define SCANS_MAX 6u

struct scan {
	uint32_t generation; /* 0: none */
	uint64_t first; /* block */
	uint32_t blocks;
	uint32_t *ids; /* 8 a block */
};

struct scans {
	struct scan each[SCANS_MAX];
	uint32_t next; /* to be replaced */
};

void scans_done(struct scans *scans);

/* Room for the ids of that many blocks, which were read after the cut. */
uint32_t *scans_add(struct scans *scans, uint32_t generation, uint64_t first, uint32_t blocks);

/* Whether the answer says that the block did not change. */
bool scans_unchanged(const struct request *changes, uint64_t block);

/* Fails the simulation: the block reads otherwise. */
void scans_compare(const struct scan *scan, uint64_t block, const uint32_t *ids);

#endif
