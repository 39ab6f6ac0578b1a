/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * look - where a range of the volume lies at this moment, for a front end that reads the store by
 * itself
 *
 * A front end that can reach the store's bytes without asking for I/O (because they are mapped into
 * its memory) looks a range up, uses what it found, and says that it is done. Between begin and end
 * the blocks may be remapped, but stay readable and hold what they held or what was written to the
 * same logical block since: exactly what a read in flight may see (I3). Blocks that are given up
 * meanwhile wait for the end, so it must come soon: nothing may be waited for in between.
 *
 * Units     whole logical blocks, any number of regions.
 * Errors    none: a range whose metadata is not at hand is not found; a READ request fetches it.
 * Memory    the look belongs to the caller; begun at most once at a time.
 * Threads   begin, range and end on one worker's thread. Blocking: never.
 */
#ifndef CORE_REQUEST_LOOK_H
#define CORE_REQUEST_LOOK_H

#include <stdint.h>

#include "core/base/units.h"
#include "core/base/worker.h"
#include "core/request/request.h"

struct look {
	struct volume *volume;
	struct worker *worker;
	struct inflight inflight;
};

void look_begin(struct look *look, struct volume *volume, struct worker *worker);
void look_end(struct look *look);

/* A client's read that is answered by looking, for the statistics. */
void look_count_read(struct volume *volume, uint64_t len_bytes, bool first);

/* The extents of the range in order. 0: not at hand, or more than max of them. */
uint32_t look_range(struct look *look, lbn_t lbn, uint32_t blocks, struct extent *ret_extents,
		    uint32_t max);

#endif
