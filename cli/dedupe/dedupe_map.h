/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dedupe_map - the remap table of a range, region by region, as the server tells it
 *
 * A volume in use changes meanwhile: what is told was true when it was asked.
 *
 * Errors    a negative errno, after a complaint on stderr. Blocking: for the server.
 */
#ifndef CLI_DEDUPE_DEDUPE_MAP_H
#define CLI_DEDUPE_DEDUPE_MAP_H

#include <stdbool.h>
#include <stdint.h>

#include "cli/base/client.h"
#include "cli/dedupe/dedupe_region.h"

struct dedupe_map {
	struct client *client;
	uint64_t asked_to_bytes; /* how far runs have come */
	uint64_t end_bytes;
	json_t *answer;
	size_t next_run; /* of the answer */
	/* A run that was not used up. */
	bool held;
	bool hole;
	uint64_t off_bytes;
	uint64_t len_bytes;
	uint64_t physical_bytes;
	uint64_t references;
};

void dedupe_map_begin(struct dedupe_map *map, struct client *client, uint64_t off_bytes,
		      uint64_t end_bytes);
void dedupe_map_end(struct dedupe_map *map);

/* The next region with data: 1. No more: 0. */
int dedupe_map_next(struct dedupe_map *map, uint64_t *ret_number,
		    uint64_t ret_places[DEDUPE_REGION_BLOCKS]);

#endif
