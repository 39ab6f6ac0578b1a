/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/sim/scans.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/content.h"
#include "tests/sim/report.h"

void scans_done(struct scans *scans)
{
	for (unsigned i = 0; i < SCANS_MAX; i++)
		free(scans->each[i].ids);
	memset(scans, 0, sizeof(*scans));
}

uint32_t *scans_add(struct scans *scans, uint32_t generation, uint64_t first, uint32_t blocks)
{
	struct scan *scan = &scans->each[scans->next++ % SCANS_MAX];

	free(scan->ids);
	scan->ids = calloc((size_t)blocks * BLOCK_SECTORS, sizeof(scan->ids[0]));
	assert(scan->ids != NULL);
	scan->generation = generation;
	scan->first = first;
	scan->blocks = blocks;
	return scan->ids;
}

bool scans_unchanged(const struct request *changes, uint64_t block)
{
	uint64_t at_bytes = blocks_to_bytes(block);

	if (!changes->complete || at_bytes >= changes->off_bytes + changes->mapped_to_bytes)
		return false;
	for (uint32_t i = 0; i < changes->runs_count; i++) {
		const struct map_run *run = &changes->runs[i];

		if (at_bytes >= run->off_bytes && at_bytes < run->off_bytes + run->len_bytes)
			return false;
	}
	return true;
}

void scans_compare(const struct scan *scan, uint64_t block, const uint32_t *ids)
{
	const uint32_t *was = scan->ids + (block - scan->first) * BLOCK_SECTORS;

	for (unsigned s = 0; s < BLOCK_SECTORS; s++)
		if (ids[s] != was[s])
			sim_fail("block %" PRIu64
				 " is said to be unchanged since generation %" PRIu32
				 ", but sector %u reads %" PRId32 " and read %" PRId32,
				 block, scan->generation, s, (int32_t)ids[s], (int32_t)was[s]);
}
