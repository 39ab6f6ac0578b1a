/* SPDX-License-Identifier: GPL-2.0-or-later */
/* dedupe_map - see the header */
#include "cli/dedupe/dedupe_map.h"

#include <errno.h>
#include <string.h>

#include "cli/base/say.h"

void dedupe_map_begin(struct dedupe_map *map, struct client *client, uint64_t off_bytes,
		      uint64_t end_bytes)
{
	*map = (struct dedupe_map){
		.client = client, .asked_to_bytes = off_bytes, .end_bytes = end_bytes};
}

void dedupe_map_end(struct dedupe_map *map)
{
	json_decref(map->answer);
	map->answer = NULL;
}

static int ask(struct dedupe_map *map)
{
	uint64_t mapped_to;

	json_decref(map->answer);
	map->answer = client_call(map->client, "cannot map", "map",
				  json_pack("{s:I, s:I}", "offset", (json_int_t)map->asked_to_bytes,
					    "length",
					    (json_int_t)(map->end_bytes - map->asked_to_bytes)));
	map->next_run = 0;
	if (map->answer == NULL)
		return -EIO;
	mapped_to = client_number(map->answer, "mapped_to");
	if (mapped_to <= map->asked_to_bytes || mapped_to > map->end_bytes) {
		say_error("cannot map", map->client->server, "the server made no progress");
		return -EBADMSG;
	}
	map->asked_to_bytes = mapped_to;
	return 0;
}

/* 1: a run is held; 0: there are no more. */
static int hold_run(struct dedupe_map *map)
{
	const json_t *run, *runs;
	const char *kind;

	while (!map->held) {
		int r = 0;

		runs = json_object_get(map->answer, "runs");
		if (map->next_run == json_array_size(runs)) {
			if (map->asked_to_bytes >= map->end_bytes)
				return 0;
			r = ask(map);
			if (r < 0)
				return r;
			continue;
		}
		run = json_array_get(runs, map->next_run++);
		kind = client_text(run, "kind");
		map->hole = kind == NULL || strcmp(kind, "data") != 0;
		map->off_bytes = client_number(run, "offset");
		map->len_bytes = client_number(run, "length");
		map->physical_bytes = client_number(run, "physical");
		map->references = client_number(run, "references");
		map->held = map->len_bytes > 0;
	}
	return 1;
}

/* Uses up what of the run lies before the end. */
static void use_run(struct dedupe_map *map, uint64_t end_bytes,
		    uint64_t places[DEDUPE_REGION_BLOCKS])
{
	uint64_t len_bytes = min_u64(map->len_bytes, end_bytes - map->off_bytes);
	uint64_t first = map->off_bytes / BLOCK_BYTES;

	for (uint64_t i = 0; !map->hole && i < len_bytes / BLOCK_BYTES; i++)
		places[dedupe_region_index(first + i)] =
			dedupe_place(map->physical_bytes / BLOCK_BYTES + i, map->references);
	map->off_bytes += len_bytes;
	map->len_bytes -= len_bytes;
	map->physical_bytes += len_bytes;
	map->held = map->len_bytes > 0;
}

int dedupe_map_next(struct dedupe_map *map, uint64_t *ret_number,
		    uint64_t ret_places[DEDUPE_REGION_BLOCKS])
{
	bool any = false;
	uint64_t end_bytes = 0;
	int r;

	memset(ret_places, 0, DEDUPE_REGION_BLOCKS * sizeof(ret_places[0]));
	while ((r = hold_run(map)) == 1) {
		if (!any && map->hole) {
			map->held = false;
			continue;
		}
		if (!any) {
			*ret_number = dedupe_region_of(map->off_bytes / BLOCK_BYTES);
			end_bytes = (*ret_number + 1) * REGION_BYTES;
		}
		any = true;
		if (map->off_bytes >= end_bytes)
			break;
		use_run(map, end_bytes, ret_places);
	}
	return r < 0 ? r : any;
}
