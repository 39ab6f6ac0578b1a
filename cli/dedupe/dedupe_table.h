/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dedupe_table - from a hash to the block that stands for all blocks with that content, in memory
 * that never grows
 *
 * Entries have 8 bytes: 40 bits of block number, 24 bits of tag. An entry stands in one of two
 * buckets of eight (a cache line each) that the hash names. When seven eighths are taken, the table
 * goes over to a sample: only hashes whose tag ends in `sample_bits` zero bits are kept, half as
 * many with every bit more. Whether a block is in the sample depends on its content alone, so the
 * copies of a block are all in it or none is, and a run of equal blocks is found by any of its
 * blocks.
 *
 * A found entry is a candidate: its tag agrees, its hash need not.
 *
 * Units     blocks are logical, in units of BLOCK_BYTES, below 2^40 - 1.
 * Errors    init: -ENOMEM. Never afterwards: what finds no room is left out and counted.
 * Memory    what init was given, and no more. Threads: one at a time.
 */
#ifndef CLI_DEDUPE_DEDUPE_TABLE_H
#define CLI_DEDUPE_DEDUPE_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli/dedupe/dedupe_hash.h"

#define DEDUPE_BLOCKS_MAX	((1ull << 40) - 1)
#define DEDUPE_SAMPLE_BITS_MAX	20u
#define DEDUPE_TABLE_BYTES_MIN	4096u
#define DEDUPE_TABLE_SLOT_BYTES 8u

struct dedupe_table {
	uint64_t *slots; /* 0: empty */
	uint64_t bucket_count;
	uint64_t count;
	uint64_t left_out; /* in the sample, but both buckets were full */
	unsigned sample_bits;
};

int dedupe_table_init(struct dedupe_table *table, uint64_t bytes);
void dedupe_table_done(struct dedupe_table *table);

static inline bool dedupe_table_samples(const struct dedupe_table *table, struct dedupe_hash hash)
{
	return (hash.low & ((1ull << table->sample_bits) - 1)) == 0;
}

/* False: no entry. */
bool dedupe_table_find(const struct dedupe_table *table, struct dedupe_hash hash,
		       uint64_t *ret_block);
/* Where find() finds nothing. */
void dedupe_table_add(struct dedupe_table *table, struct dedupe_hash hash, uint64_t block);
/* The entry that find() finds names another block from now on. */
void dedupe_table_move(struct dedupe_table *table, struct dedupe_hash hash, uint64_t block);

#endif
