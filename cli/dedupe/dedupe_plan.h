/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dedupe_plan - what of the hashfile still holds, and whether there is anything to do
 *
 * Before: what was written since the file's generation is forgotten, and the new generation noted,
 * in one transaction; so at any moment the rows that are there are true. Where nothing was written
 * and nothing is left to do, the file is only read: no sync is waited for. A file that cannot know
 * (writes are not tracked, or not since then; another life of the volume) is emptied. One
 * exception: without tracking, a run that was interrupted is gone on with, and what was written
 * meanwhile is found out by the server's compare.
 *
 * After: what was covered, with which shortest run and how much memory. Regions in which something
 * was rejected stay pending: a source that was written leaves copies behind that are still equal.
 *
 * Errors    a negative errno, after a complaint on stderr.
 */
#ifndef CLI_DEDUPE_DEDUPE_PLAN_H
#define CLI_DEDUPE_DEDUPE_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "cli/base/client.h"
#include "cli/dedupe/dedupe_scratch.h"

struct dedupe_plan {
	uint64_t first_region; /* all that the range touches */
	uint64_t end_region;
	uint64_t whole_first_region; /* all that lies wholly inside; the others stay pending */
	uint64_t whole_end_region;
	uint64_t min_run_blocks;
	uint64_t memory_bytes;
};

/* ret_anything: whether the run has anything to do. */
int dedupe_plan_begin(const struct dedupe_plan *plan, struct client *client,
		      struct dedupe_file *file, bool *ret_anything);
/* All matches of the range were carried out, or rejected. */
int dedupe_plan_end(const struct dedupe_plan *plan, struct dedupe_scratch *scratch,
		    unsigned sample_bits);

#endif
