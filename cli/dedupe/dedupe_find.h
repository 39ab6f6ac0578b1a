/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dedupe_find - which runs of blocks are equal, with memory that does not depend on how many there
 * are
 *
 *   learn   all regions in order: each content gets a block that stands for it, the one with most
 *           references, and the first of those
 *   match   all regions in order: a block that another one stands for is extended with it in both
 *           directions as far as the hashes agree; what is long enough is a match
 *
 * The blocks of a match have roles (dedupe_region.h) that exclude each other, so matches are
 * independent: any order will do. While the table takes no sample, and runs of one block count,
 * all copies of a content end up as destinations of one block, so that what is freed is exactly
 * what a count of equal blocks gives. A sample, or a longer shortest run, may leave some out.
 *
 * Blocks of zeros match SAME's word `zero`. Blocks with all the references that they can have take
 * no part.
 *
 * Errors    0 or a negative errno: of the source, of options.match or options.tick.
 * Memory    options.memory_bytes for all of it (at least DEDUPE_FIND_BYTES_MIN), in the proportions
 *           of docs/dedupe.md. Threads: one at a time.
 */
#ifndef CLI_DEDUPE_DEDUPE_FIND_H
#define CLI_DEDUPE_DEDUPE_FIND_H

#include <stdint.h>

#include "cli/dedupe/dedupe_cache.h"
#include "cli/dedupe/dedupe_table.h"

#define DEDUPE_FIND_BYTES_MIN (512u * 1024u)
#define DEDUPE_ZERO	      UINT64_MAX /* the source of a match that becomes a hole */

struct dedupe_match {
	uint64_t src_block; /* or DEDUPE_ZERO */
	uint64_t dst_block;
	uint64_t blocks;
};

struct dedupe_find_options {
	uint64_t first_block; /* nothing outside [first, end) takes part */
	uint64_t end_block;
	uint64_t min_run_blocks;
	uint64_t memory_bytes;
	const struct dedupe_source *source;
	void *context;
	int (*match)(void *context, const struct dedupe_match *match);
	/* After each region; anything but 0 ends the search with it. */
	int (*tick)(void *context, uint64_t regions_done);
};

struct dedupe_find {
	struct dedupe_find_options options;
	struct dedupe_hash zero;
	struct dedupe_table table;
	struct dedupe_cache cache;
	struct dedupe_cursor at; /* where the walk is */
	struct dedupe_cursor dst;
	struct dedupe_cursor src;
	uint64_t regions_done;
	uint64_t tried_distance; /* of a run that was too short; it is not tried again */
	uint64_t tried_end;
	uint64_t duplicate_blocks; /* of destinations that lie elsewhere than their sources */
	double freed_blocks; /* an estimate: what a block with n references gives is 1/n */
};

int dedupe_find_init(struct dedupe_find *find, const struct dedupe_find_options *options);
void dedupe_find_done(struct dedupe_find *find);

int dedupe_find_learn(struct dedupe_find *find);
int dedupe_find_match(struct dedupe_find *find);

#endif
