/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/rigs/linear_check.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PRINTED_MAX 20

/* Anything that changes a register, with what its reads tell about it. */
struct change {
	uint64_t value; /* as the event's */
	uint64_t begin;
	uint64_t end; /* as answered */
	uint64_t seen; /* first answer that proves it took place; end if no read is earlier */
	uint64_t last; /* last submission of a read that saw it; begin if none */
	uint64_t begin_max; /* of all changes up to this one, in the order of seen */
	enum event_kind kind;
};

struct reg {
	struct event *events; /* by begin */
	size_t event_count;
	struct change *changes; /* by seen */
	struct change **by_value; /* the unique ones */
	struct change **zones; /* the forward ones, by their begin */
	size_t change_count;
	size_t unique_count;
	size_t zone_count;
};

struct check {
	struct reg *regs;
	uint32_t reg_count;
	size_t bad;
};

static void contradiction(struct check *check, uint32_t reg, const char *format, ...)
{
	va_list arguments;

	if (check->bad++ >= PRINTED_MAX)
		return;
	fprintf(stderr, "register %" PRIu32 ": ", reg);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
}

static void *must(void *memory)
{
	if (!memory)
		abort();
	return memory;
}

static int order_u64(uint64_t a, uint64_t b)
{
	return (a > b) - (a < b);
}

static int order_events(const void *a, const void *b)
{
	const struct event *x = a, *y = b;

	return x->reg != y->reg ? order_u64(x->reg, y->reg) : order_u64(x->begin, y->begin);
}

static int order_seen(const void *a, const void *b)
{
	return order_u64(((const struct change *)a)->seen, ((const struct change *)b)->seen);
}

static int order_value(const void *a, const void *b)
{
	const struct change *const *x = a, *const *y = b;

	return order_u64((*x)->value, (*y)->value);
}

static int order_zone(const void *a, const void *b)
{
	const struct change *const *x = a, *const *y = b;

	return order_u64((*x)->seen, (*y)->seen);
}

static struct change *find_value(const struct reg *reg, uint64_t value)
{
	struct change key = {.value = value};
	const struct change *key_at = &key;
	struct change **found = bsearch(&key_at, reg->by_value, reg->unique_count,
					sizeof(*reg->by_value), order_value);

	return found ? *found : NULL;
}

static void collect_unique(struct reg *reg)
{
	reg->unique_count = 0;
	for (size_t i = 0; i < reg->change_count; i++)
		if (reg->changes[i].kind == EVENT_WRITE)
			reg->by_value[reg->unique_count++] = &reg->changes[i];
	qsort(reg->by_value, reg->unique_count, sizeof(*reg->by_value), order_value);
}

static void collect_changes(struct reg *reg)
{
	/* One more for the zeros that were there before the first event. */
	reg->changes = must(calloc(reg->event_count + 1, sizeof(*reg->changes)));
	reg->by_value = must(calloc(reg->event_count + 1, sizeof(*reg->by_value)));
	reg->zones = must(calloc(reg->event_count + 1, sizeof(*reg->zones)));
	reg->changes[reg->change_count++] = (struct change){.kind = EVENT_ZERO};
	for (size_t i = 0; i < reg->event_count; i++) {
		const struct event *e = &reg->events[i];

		if (e->kind == EVENT_READ || e->kind == EVENT_TORN)
			continue;
		reg->changes[reg->change_count++] = (struct change){.value = e->value,
								    .begin = e->begin,
								    .end = e->end,
								    .seen = e->end,
								    .last = e->begin,
								    .kind = e->kind};
	}
}

static void learn_from_reads(struct reg *reg)
{
	uint64_t begin_max = 0;

	collect_unique(reg);
	for (size_t i = 0; i < reg->event_count; i++) {
		const struct event *e = &reg->events[i];
		struct change *c = e->kind == EVENT_READ ? find_value(reg, e->value) : NULL;

		if (!c)
			continue;
		c->seen = e->end < c->seen ? e->end : c->seen;
		c->last = e->begin > c->last ? e->begin : c->last;
	}
	qsort(reg->changes, reg->change_count, sizeof(*reg->changes), order_seen);
	for (size_t i = 0; i < reg->change_count; i++) {
		begin_max = reg->changes[i].begin > begin_max ? reg->changes[i].begin : begin_max;
		reg->changes[i].begin_max = begin_max;
	}
	collect_unique(reg);
	for (size_t i = 0; i < reg->unique_count; i++)
		if (reg->by_value[i]->seen < reg->by_value[i]->last)
			reg->zones[reg->zone_count++] = reg->by_value[i];
	qsort(reg->zones, reg->zone_count, sizeof(*reg->zones), order_zone);
}

/* The latest begin of a change that was certainly over at this time. */
static uint64_t overwritten_from(const struct reg *reg, uint64_t time)
{
	size_t low = 0, high = reg->change_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (reg->changes[middle].seen < time)
			low = middle + 1;
		else
			high = middle;
	}
	return low == 0 ? 0 : reg->changes[low - 1].begin_max;
}

/* The forward zone in which all of begin..end lies, or NULL. */
static const struct change *zone_around(const struct reg *reg, uint64_t begin, uint64_t end)
{
	size_t low = 0, high = reg->zone_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (reg->zones[middle]->seen < begin)
			low = middle + 1;
		else
			high = middle;
	}
	return low > 0 && end < reg->zones[low - 1]->last ? reg->zones[low - 1] : NULL;
}

/* Whether a change can be what something between begin and end saw. */
static bool in_reach(const struct reg *reg, const struct change *c, uint64_t begin, uint64_t end)
{
	return c->begin < end && c->end >= overwritten_from(reg, begin);
}

/* Whether the register can have held the value at some moment between begin and end. Clones of
 * clones do not occur: sources are never destinations. */
static bool can_hold(const struct reg *reg, uint64_t value, uint64_t begin, uint64_t end)
{
	const struct change *c = value ? find_value(reg, value) : NULL;

	if (value)
		return c && in_reach(reg, c, begin, end);
	for (size_t i = 0; i < reg->change_count; i++)
		if (reg->changes[i].kind == EVENT_ZERO &&
		    in_reach(reg, &reg->changes[i], begin, end))
			return true;
	return false;
}

static bool from_clone(const struct check *check, const struct reg *reg, const struct event *e)
{
	for (size_t i = 0; i < reg->change_count; i++) {
		const struct change *c = &reg->changes[i];

		if (c->kind == EVENT_CLONE && in_reach(reg, c, e->begin, e->end) &&
		    can_hold(&check->regs[c->value], e->value, c->begin, c->end))
			return true;
	}
	return false;
}

static void check_read(struct check *check, uint32_t number, const struct event *e)
{
	const struct reg *reg = &check->regs[number];
	const struct change *zone;

	if (e->value && find_value(reg, e->value)) {
		if (!can_hold(reg, e->value, e->begin, e->end))
			contradiction(check, number,
				      "value %" PRIu64 " read at %" PRIu64 "-%" PRIu64
				      " was overwritten, or not yet written",
				      e->value, e->begin, e->end);
		return;
	}
	zone = zone_around(reg, e->begin, e->end);
	if (zone)
		contradiction(check, number,
			      "value %" PRIu64 " read at %" PRIu64 "-%" PRIu64
			      " while the register held %" PRIu64,
			      e->value, e->begin, e->end, zone->value);
	else if (!(e->value == 0 && can_hold(reg, 0, e->begin, e->end)) &&
		 !from_clone(check, reg, e))
		contradiction(check, number,
			      "value %" PRIu64 " read at %" PRIu64 "-%" PRIu64
			      " cannot have been there",
			      e->value, e->begin, e->end);
}

/* Only a change under way can tear a sector. */
static void check_torn(struct check *check, uint32_t number, const struct event *e)
{
	const struct reg *reg = &check->regs[number];

	for (size_t i = 0; i < reg->change_count; i++)
		if (reg->changes[i].begin < e->end && reg->changes[i].end > e->begin)
			return;
	contradiction(check, number, "torn at %" PRIu64 "-%" PRIu64 " while nobody wrote", e->begin,
		      e->end);
}

static void check_zones(struct check *check, uint32_t number)
{
	const struct reg *reg = &check->regs[number];

	for (size_t i = 1; i < reg->zone_count; i++)
		if (reg->zones[i]->seen < reg->zones[i - 1]->last)
			contradiction(check, number,
				      "values %" PRIu64 " and %" PRIu64
				      " were both there at %" PRIu64,
				      reg->zones[i - 1]->value, reg->zones[i]->value,
				      reg->zones[i]->seen);
	for (size_t i = 0; i < reg->change_count; i++) {
		const struct change *c = &reg->changes[i];
		bool unique = c->kind == EVENT_WRITE;
		uint64_t begin = unique ? c->last : c->begin;
		uint64_t end = unique ? c->seen : c->end;
		const struct change *zone;

		if (unique && c->seen < c->last)
			continue;
		zone = zone_around(reg, begin, end);
		if (zone && zone != c)
			contradiction(check, number,
				      "a change at %" PRIu64 "-%" PRIu64
				      " left no trace: the register held %" PRIu64,
				      begin, end, zone->value);
	}
}

static void split(struct check *check, struct event *events, size_t count)
{
	qsort(events, count, sizeof(*events), order_events);
	for (size_t i = 0; i < count; i++) {
		struct reg *reg = &check->regs[events[i].reg];

		if (reg->event_count++ == 0)
			reg->events = &events[i];
	}
}

size_t linear_check(struct event *events, size_t count, uint32_t reg_count)
{
	struct check check = {.regs = must(calloc(reg_count, sizeof(*check.regs))),
			      .reg_count = reg_count};

	split(&check, events, count);
	for (uint32_t i = 0; i < reg_count; i++) {
		collect_changes(&check.regs[i]);
		learn_from_reads(&check.regs[i]);
	}
	for (uint32_t i = 0; i < reg_count; i++) {
		check_zones(&check, i);
		for (size_t e = 0; e < check.regs[i].event_count; e++) {
			const struct event *event = &check.regs[i].events[e];

			if (event->kind == EVENT_READ)
				check_read(&check, i, event);
			else if (event->kind == EVENT_TORN)
				check_torn(&check, i, event);
		}
	}
	for (uint32_t i = 0; i < reg_count; i++) {
		free(check.regs[i].changes);
		free(check.regs[i].by_value);
		free(check.regs[i].zones);
	}
	free(check.regs);
	return check.bad;
}
