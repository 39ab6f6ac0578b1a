/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/swarm/server/history.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *must(void *memory)
{
	if (!memory)
		abort();
	return memory;
}

void history_init(struct history *history, uint64_t sector_count)
{
	*history = (struct history){.sector_count = sector_count, .oldest = HISTORY_NEVER};
	history->table_size = 256;
	history->table = must(calloc(history->table_size, sizeof(struct history_region *)));
	history->regions = must(calloc(history->table_size, sizeof(struct history_region *)));
}

void history_done(struct history *history)
{
	for (uint32_t i = 0; i < history->region_count; i++) {
		for (uint32_t s = 0; s < HISTORY_REGION_SECTORS; s++)
			free(history->regions[i]->sectors[s].versions);
		free(history->regions[i]);
	}
	free(history->table);
	free(history->regions);
}

/* Where it is, or the free place where it would be. */
static uint32_t slot_of(const struct history *history, uint64_t number)
{
	uint32_t slot = (uint32_t)((number * 0x9e3779b97f4a7c15ull) >> 32) % history->table_size;

	while (history->table[slot] && history->table[slot]->number != number)
		slot = (slot + 1) % history->table_size;
	return slot;
}

static struct history_region *region_find(struct history *history, uint64_t number)
{
	if (!history->last || history->last->number != number) {
		struct history_region *region = history->table[slot_of(history, number)];

		if (!region)
			return NULL;
		history->last = region;
	}
	return history->last;
}

static void table_grow(struct history *history)
{
	history->table_size *= 2;
	free(history->table);
	history->table = must(calloc(history->table_size, sizeof(struct history_region *)));
	history->regions = must(
		realloc(history->regions, history->table_size * sizeof(struct history_region *)));
	for (uint32_t i = 0; i < history->region_count; i++)
		history->table[slot_of(history, history->regions[i]->number)] = history->regions[i];
}

static struct history_region *region_make(struct history *history, uint64_t number)
{
	struct history_region *region = region_find(history, number);

	if (region)
		return region;
	if (history->region_count * 2 >= history->table_size)
		table_grow(history);
	region = must(calloc(1, sizeof(*region)));
	region->number = number;
	history->table[slot_of(history, number)] = region;
	history->regions[history->region_count++] = region;
	return region;
}

struct sector *history_find(struct history *history, uint64_t sector)
{
	struct history_region *region = region_find(history, sector / HISTORY_REGION_SECTORS);

	assert(sector < history->sector_count);
	if (!region || region->sectors[sector % HISTORY_REGION_SECTORS].count == 0)
		return NULL;
	return &region->sectors[sector % HISTORY_REGION_SECTORS];
}

static bool is_durable(const struct history *history, const struct version *version)
{
	return version->good && (version->durable || version->ended < history->flushed);
}

/* Versions that ended before this were followed by one that is durable. */
static uint64_t killed_floor(const struct history *history, const struct sector *sector)
{
	uint64_t floor = 0;

	for (uint32_t i = 0; i < sector->count; i++)
		if (is_durable(history, &sector->versions[i]) &&
		    sector->versions[i].submitted > floor)
			floor = sector->versions[i].submitted;
	return floor;
}

/* Versions that ended before this were followed by one that was answered before `from`. */
static uint64_t live_floor(const struct sector *sector, uint64_t from)
{
	uint64_t floor = 0;

	for (uint32_t i = 0; i < sector->count; i++)
		if (sector->versions[i].good && sector->versions[i].ended < from &&
		    sector->versions[i].submitted > floor)
			floor = sector->versions[i].submitted;
	return floor;
}

/* What can neither be read by anybody nor come back after a kill needs no memory. */
static void prune(const struct history *history, struct sector *sector)
{
	uint64_t killed = killed_floor(history, sector);
	uint64_t live = live_floor(sector, history->oldest);
	uint64_t floor = killed < live ? killed : live;
	uint32_t kept = 0;

	for (uint32_t i = 0; i < sector->count; i++)
		if (sector->versions[i].ended >= floor)
			sector->versions[kept++] = sector->versions[i];
	sector->count = kept;
}

static void append(struct sector *sector, const struct version *version)
{
	if (sector->count == sector->room) {
		sector->room = sector->room ? sector->room * 2 : 2;
		sector->versions =
			must(realloc(sector->versions, sector->room * sizeof(*sector->versions)));
	}
	sector->versions[sector->count++] = *version;
}

void history_add(struct history *history, uint64_t sector, const struct version *version)
{
	struct history_region *region = region_make(history, sector / HISTORY_REGION_SECTORS);
	struct sector *s = &region->sectors[sector % HISTORY_REGION_SECTORS];
	const struct version zeros = {.id = CONTENT_ZERO, .good = true, .durable = true};

	assert(sector < history->sector_count);
	if (s->count == 0) {
		append(s, &zeros);
		for (uint32_t i = 0; i < history->all_count; i++)
			append(s, &(struct version){.id = CONTENT_ZERO,
						    .submitted = history->all[i],
						    .ended = HISTORY_NEVER});
	} else {
		prune(history, s);
	}
	append(s, version);
}

void history_submit(struct history *history, uint64_t sector, uint64_t submitted, uint32_t id)
{
	const struct version version = {.id = id, .submitted = submitted, .ended = HISTORY_NEVER};

	history_add(history, sector, &version);
}

void history_end(struct history *history, uint64_t sector, uint64_t submitted, bool good,
		 bool durable)
{
	struct sector *s = history_find(history, sector);

	assert(s != NULL);
	for (uint32_t i = s->count; i-- > 0;) {
		struct version *version = &s->versions[i];

		if (version->submitted != submitted)
			continue;
		version->ended = history->now;
		version->good = good;
		version->durable = good && durable;
		return;
	}
	assert(!"a version ends that was submitted");
}

/* For every sector that was ever written. */
#define FOR_EACH_WRITTEN(history, sector)                                                          \
	for (uint32_t r_ = 0; r_ < (history)->region_count; r_++)                                  \
		for (uint64_t s_ = 0, sector = 0; s_ < HISTORY_REGION_SECTORS; s_++)               \
			if (sector = (history)->regions[r_]->number * HISTORY_REGION_SECTORS + s_, \
			    (history)->regions[r_]->sectors[s_].count > 0)

void history_submit_all(struct history *history, uint64_t submitted)
{
	assert(history->all_count < HISTORY_ALL_MAX);
	FOR_EACH_WRITTEN(history, sector)
	history_submit(history, sector, submitted, CONTENT_ZERO);
	history->all[history->all_count++] = submitted;
}

void history_end_all(struct history *history, uint64_t submitted, bool good, bool durable)
{
	FOR_EACH_WRITTEN(history, sector)
	history_end(history, sector, submitted, good, durable);
	for (uint32_t i = 0; i < history->all_count; i++)
		if (history->all[i] == submitted) {
			history->all[i] = history->all[--history->all_count];
			return;
		}
}

void history_settle(struct history *history)
{
	history->all_count = 0;
	history->oldest = HISTORY_NEVER;
}

void history_adopt(struct history *history, uint64_t sector, uint32_t id)
{
	struct sector *s = history_find(history, sector);
	uint64_t now = history_tick(history);

	if (!s) {
		assert(id == CONTENT_ZERO);
		return;
	}
	s->count = 1;
	s->versions[0] = (struct version){
		.id = id, .good = true, .durable = true, .submitted = now, .ended = now};
}

void history_flushed(struct history *history, uint64_t submitted)
{
	if (submitted > history->flushed)
		history->flushed = submitted;
}

bool history_live(struct history *history, uint64_t sector, uint64_t from, uint64_t to,
		  bool (*take)(void *context, uint32_t id), void *context)
{
	struct sector *s = history_find(history, sector);
	uint64_t floor;

	if (!s)
		return take(context, CONTENT_ZERO);
	floor = live_floor(s, from);
	for (uint32_t i = 0; i < s->count; i++)
		if (s->versions[i].submitted < to && s->versions[i].ended >= floor &&
		    take(context, s->versions[i].id))
			return true;
	return false;
}

static bool is_id(void *context, uint32_t id)
{
	return id == *(const uint32_t *)context;
}

bool history_may_read(struct history *history, uint64_t sector, uint64_t from, uint64_t to,
		      uint32_t id)
{
	return history_live(history, sector, from, to, is_id, &id);
}

bool history_may_survive(struct history *history, uint64_t sector, uint32_t id)
{
	struct sector *s = history_find(history, sector);
	uint64_t floor;

	if (!s)
		return id == CONTENT_ZERO;
	floor = killed_floor(history, s);
	for (uint32_t i = 0; i < s->count; i++)
		if (s->versions[i].id == id && s->versions[i].ended >= floor)
			return true;
	return false;
}

bool history_busy(struct history *history, uint64_t sector, uint64_t from, uint64_t to)
{
	struct sector *s = history_find(history, sector);

	for (uint32_t i = 0; s && i < s->count; i++)
		if (s->versions[i].submitted < to && s->versions[i].ended >= from)
			return true;
	return false;
}

bool history_known(struct history *history, uint64_t sector, uint32_t *ret_id)
{
	struct sector *s = history_find(history, sector);
	uint64_t floor;
	bool found = false;

	*ret_id = CONTENT_ZERO;
	if (!s)
		return true;
	floor = live_floor(s, HISTORY_NEVER);
	for (uint32_t i = 0; i < s->count; i++) {
		const struct version *version = &s->versions[i];

		if (version->ended == HISTORY_NEVER ||
		    (found && version->ended >= floor && version->id != *ret_id))
			return false;
		if (version->ended >= floor) {
			*ret_id = version->id;
			found = true;
		}
	}
	return found;
}

void history_print(struct history *history, uint64_t sector, char *text, uint32_t size)
{
	struct sector *s = history_find(history, sector);
	uint32_t at = 0;

	text[0] = '\0';
	for (uint32_t i = 0; s && i < s->count && at + 80 < size; i++) {
		const struct version *v = &s->versions[i];

		at += (uint32_t)snprintf(text + at, size - at, " %" PRIu32 "[%" PRIu64 "-", v->id,
					 v->submitted);
		if (v->ended == HISTORY_NEVER)
			at += (uint32_t)snprintf(text + at, size - at, "]");
		else
			at += (uint32_t)snprintf(text + at, size - at, "%" PRIu64 "%s%s]", v->ended,
						 v->good ? "" : " failed",
						 is_durable(history, v) ? " durable" : "");
	}
	snprintf(text + at, size - at, " (flushed %" PRIu64 ")", history->flushed);
}
