/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dedupe_scan - makes sure that the hashfile has every region of the range
 *
 *   survey  the remap table, region by region: where blocks lie, and which regions have to be read
 *   read    those regions, several at a time
 *
 * A physical block that several logical blocks share is read for the first of them only; the others
 * get its hash. (Unless they are under way at the same moment.)
 *
 * Errors    0 or a negative errno, after a complaint on stderr. A signal ends it early with 0. What
 *           cannot be read is left out, and counted.
 * Blocking  yes.
 */
#ifndef CLI_DEDUPE_DEDUPE_SCAN_H
#define CLI_DEDUPE_DEDUPE_SCAN_H

#include <stdint.h>

#include "cli/base/client.h"
#include "cli/dedupe/dedupe_account.h"
#include "cli/dedupe/dedupe_rate.h"
#include "cli/dedupe/dedupe_reader.h"
#include "cli/dedupe/dedupe_scratch.h"

struct dedupe_scan {
	struct client *client;
	struct dedupe_scratch *scratch;
	struct dedupe_rate *rate;
	struct dedupe_progress *progress;
	uint64_t first_region;
	uint64_t end_region;
	uint64_t size_bytes; /* of the volume */
	uint64_t memory_bytes; /* for reading */
	/* Its own. */
	uint64_t mapped_bytes; /* of the regions surveyed */
	uint64_t todo_bytes; /* of those to be read */
	uint64_t todo_regions;
	uint64_t committed_ns;
	unsigned uncommitted;
	struct dedupe_reader reader;
	struct dedupe_region lender; /* hashes that were copied last come from here */
	bool has_lender;
};

int dedupe_scan_survey(struct dedupe_scan *scan);
int dedupe_scan_read(struct dedupe_scan *scan);

#endif
