/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/core/volume/history.h"

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

/* Clones of clones beyond this are believed. */
#define DEPTH_MAX   6u
#define PRINTED_MAX 10u

/* Events sorted by block, so that each block's are together. */
struct index {
	const struct event *events;
	uint32_t first[HISTORY_BLOCKS + 1];
};

static void add(struct history *history, struct event event)
{
	assert(event.block < HISTORY_BLOCKS && event.began < event.ended);
	if (history->count == history->capacity) {
		history->capacity = history->capacity ? 2 * history->capacity : 1024;
		history->events =
			realloc(history->events, history->capacity * sizeof(history->events[0]));
		assert(history->events);
	}
	history->events[history->count++] = event;
}

void history_begin(struct history *history)
{
	for (uint32_t i = 0; i < HISTORY_BLOCKS; i++)
		history_write(history, i, 0, 0, 1);
}

void history_write(struct history *history, uint32_t block, uint32_t value, uint64_t began,
		   uint64_t ended)
{
	add(history, (struct event){EVENT_WRITE, block, value, began, ended});
}

void history_clone(struct history *history, uint32_t block, uint32_t src, uint64_t began,
		   uint64_t ended)
{
	add(history, (struct event){EVENT_CLONE, block, src, began, ended});
}

void history_read(struct history *history, uint32_t block, uint32_t value, uint64_t began,
		  uint64_t ended)
{
	add(history, (struct event){EVENT_READ, block, value, began, ended});
}

void history_move(struct history *to, struct history *from)
{
	for (uint32_t i = 0; i < from->count; i++)
		add(to, from->events[i]);
	from->count = 0;
}

static int compare(const void *a, const void *b)
{
	const struct event *x = a, *y = b;

	if (x->block != y->block)
		return x->block < y->block ? -1 : 1;
	return x->began < y->began ? -1 : x->began > y->began;
}

/* Whether something replaced what `event` wrote before the time came. */
static bool is_replaced(const struct index *index, const struct event *event, uint64_t time)
{
	for (uint32_t i = index->first[event->block]; i < index->first[event->block + 1]; i++) {
		const struct event *other = &index->events[i];

		if (other->kind != EVENT_READ && other->began > event->ended && other->ended < time)
			return true;
	}
	return false;
}

/* Whether the block might hold the value at some point from `from` to `to`. */
static bool might_hold(const struct index *index, uint32_t block, uint32_t value, uint64_t from,
		       uint64_t to, unsigned depth)
{
	if (depth == DEPTH_MAX)
		return true;
	for (uint32_t i = index->first[block]; i < index->first[block + 1]; i++) {
		const struct event *event = &index->events[i];

		if (event->began >= to)
			break;
		if (event->kind == EVENT_READ || is_replaced(index, event, from))
			continue;
		if (event->kind == EVENT_WRITE && event->value == value)
			return true;
		if (event->kind == EVENT_CLONE &&
		    might_hold(index, event->value, value, event->began, event->ended, depth + 1))
			return true;
	}
	return false;
}

static void explain(const struct index *index, const struct event *read)
{
	printf("# block %u read as %u from %lu to %lu\n", read->block, read->value, read->began,
	       read->ended);
	for (uint32_t i = index->first[read->block]; i < index->first[read->block + 1]; i++) {
		const struct event *event = &index->events[i];

		if (event->kind != EVENT_READ && event->began < read->ended &&
		    !is_replaced(index, event, read->began))
			printf("#     %s %u from %lu to %lu\n",
			       event->kind == EVENT_CLONE ? "clone of" : "write", event->value,
			       event->began, event->ended);
	}
}

static void make_index(struct index *index, struct history *history)
{
	uint32_t at = 0;

	qsort(history->events, history->count, sizeof(history->events[0]), compare);
	index->events = history->events;
	for (uint32_t block = 0; block <= HISTORY_BLOCKS; block++) {
		while (at < history->count && history->events[at].block < block)
			at++;
		index->first[block] = at;
	}
}

/* The last read of each block becomes the only write: nothing was in flight when it was made. */
static void keep_last(struct history *history)
{
	struct event last[HISTORY_BLOCKS] = {0};

	for (uint32_t i = 0; i < history->count; i++) {
		const struct event *event = &history->events[i];

		if (event->kind == EVENT_READ && event->ended > last[event->block].ended)
			last[event->block] = *event;
	}
	history->count = 0;
	for (uint32_t i = 0; i < HISTORY_BLOCKS; i++)
		history_write(history, i, last[i].value, last[i].began, last[i].ended);
}

uint32_t history_judge(struct history *history)
{
	struct index index;
	uint32_t bad = 0;

	make_index(&index, history);
	for (uint32_t i = 0; i < history->count; i++) {
		const struct event *event = &history->events[i];

		if (event->kind != EVENT_READ ||
		    might_hold(&index, event->block, event->value, event->began, event->ended, 0))
			continue;
		if (bad++ < PRINTED_MAX)
			explain(&index, event);
	}
	keep_last(history);
	return bad;
}
