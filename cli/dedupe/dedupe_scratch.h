/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dedupe_scratch - what a run knows for itself and forgets at its end, in temporary tables beside
 * the hashfile's
 *
 *   place(number, places)               where a region's blocks lay when this run asked
 *   todo(number)                        regions to be read
 *   roles(number, roles)                of regions that left memory (dedupe_cache.h)
 *   seen(physical, blocks, logical)     shared blocks whose content was read, as runs, and where
 *   again(number)                       regions with a destination that differed: it or its source
 *                                       changed, so what else is equal has still to be found
 *
 * Errors    a negative errno, after a complaint on stderr.
 * Memory    pages, as many as open was given; the rest is on disk. Threads: one.
 */
#ifndef CLI_DEDUPE_DEDUPE_SCRATCH_H
#define CLI_DEDUPE_DEDUPE_SCRATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "cli/dedupe/dedupe_cache.h"
#include "cli/dedupe/dedupe_file.h"
#include "cli/dedupe/dedupe_region.h"

struct dedupe_scratch {
	struct dedupe_file *file;
	struct dedupe_source source; /* of what both know together */
	sqlite3_stmt *put_place, *put_todo, *next_todo, *put_roles, *put_seen, *seen_from,
		*seen_after;
	sqlite3_stmt *get_places, *put_again, *load;
};

struct dedupe_seen {
	uint64_t physical_block;
	uint64_t blocks;
	uint64_t logical_block;
};

int dedupe_scratch_open(struct dedupe_scratch *scratch, struct dedupe_file *file,
			uint64_t cache_bytes);
void dedupe_scratch_close(struct dedupe_scratch *scratch);

int dedupe_scratch_put_places(struct dedupe_scratch *scratch, uint64_t number,
			      const uint64_t places[DEDUPE_REGION_BLOCKS]);
/* Of a region whose places were not put: none. */
int dedupe_scratch_get_places(struct dedupe_scratch *scratch, uint64_t number,
			      uint64_t ret_places[DEDUPE_REGION_BLOCKS]);
int dedupe_scratch_put_todo(struct dedupe_scratch *scratch, uint64_t number);
/* -ENOENT: there is none from there on; not complained about. */
int dedupe_scratch_next_todo(struct dedupe_scratch *scratch, uint64_t from, uint64_t *ret_number);

int dedupe_scratch_put_seen(struct dedupe_scratch *scratch, const struct dedupe_seen *seen);
/* How many blocks from this physical one on were seen (1), or not (0), in one run; at most so many.
 * */
int dedupe_scratch_seen(struct dedupe_scratch *scratch, uint64_t physical_block, uint64_t most,
			uint64_t *ret_blocks, uint64_t *ret_logical_block);

int dedupe_scratch_put_again(struct dedupe_scratch *scratch, uint64_t number);
/* Those stay pending, or become it again. */
int dedupe_scratch_keep_pending(struct dedupe_scratch *scratch);

/* Hashes, places and all; the number is filled in too. */
int dedupe_scratch_load(struct dedupe_scratch *scratch, uint64_t number,
			struct dedupe_region *ret_region);

#endif
