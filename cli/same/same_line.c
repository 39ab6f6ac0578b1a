/* SPDX-License-Identifier: GPL-2.0-or-later */
/* same_line - see the header */
#include "cli/same/same_line.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/base/client.h"
#include "core/base/units.h"
#include "core/request/request.h"

#define CONFLICT_PAIRS_MAX (1u << 22) /* more are not looked at one by one: they conflict */
#define NO_SRC		   UINT64_MAX

static void settle_error(struct same_outcome *outcome, const char *error, const char *message)
{
	outcome->status = SAME_ERROR;
	snprintf(outcome->error, sizeof(outcome->error), "%s", error);
	snprintf(outcome->message, sizeof(outcome->message), "%s", message);
}

static bool overlap(uint64_t a, uint64_t b, uint64_t len)
{
	return a < b ? b - a < len : a - b < len;
}

static struct same_group *new_group(const struct same_line *line, uint32_t count)
{
	struct same_group *group = malloc(sizeof(*group) + count * sizeof(group->members[0]));

	if (group == NULL)
		return NULL;
	group->next = NULL;
	group->src_off_bytes = line->src_off_bytes;
	group->at_bytes = 0;
	group->count = 0;
	return group;
}

int same_line_begin(struct same_line *line, uint64_t *dsts, uint32_t count)
{
	struct same_group **last = &line->groups;
	int r;

	line->groups = NULL;
	line->count = count;
	line->outcomes = calloc(count, sizeof(*line->outcomes));
	r = line->outcomes == NULL ? -ENOMEM : 0;
	for (uint32_t i = 0; r == 0 && i < count; i++) {
		struct same_outcome *outcome = &line->outcomes[i];

		outcome->dst_off_bytes = dsts[i];
		/* The server sees one part at a time, so the whole is looked at here. */
		if (!line->zero && overlap(line->src_off_bytes, dsts[i], line->len_bytes)) {
			settle_error(outcome, "EINVAL", "the destination overlaps the source");
			continue;
		}
		if (*last != NULL && (*last)->count == SAME_DSTS_MAX)
			last = &(*last)->next;
		if (*last == NULL)
			*last = new_group(line, min_u32(SAME_DSTS_MAX, count));
		if (*last == NULL)
			r = -ENOMEM;
		else
			(*last)->members[(*last)->count++] = i;
	}
	free(dsts);
	return r;
}

static void drop_group(struct same_line *line)
{
	struct same_group *group = line->groups;

	line->groups = group->next;
	free(group);
}

void same_line_done(struct same_line *line)
{
	while (line->groups != NULL)
		drop_group(line);
	free(line->outcomes);
	line->outcomes = NULL;
}

json_t *same_line_params(const struct same_line *line)
{
	const struct same_group *group = line->groups;
	json_t *dsts = json_array();
	json_t *src;
	int failed = 0;

	for (uint32_t i = 0; i < group->count; i++) {
		uint64_t off = line->outcomes[group->members[i]].dst_off_bytes + group->at_bytes;

		failed |= json_array_append_new(dsts, json_integer((json_int_t)off));
	}
	src = line->zero ? json_string("zero")
			 : json_integer((json_int_t)(group->src_off_bytes + group->at_bytes));
	if (failed != 0 || src == NULL) {
		json_decref(dsts);
		json_decref(src);
		return NULL;
	}
	return json_pack("{s:o, s:I, s:o, s:b}", "src", src, "length",
			 (json_int_t)(line->len_bytes - group->at_bytes), "dsts", dsts, "sync",
			 (int)line->sync);
}

/* The group for members that go on, made when the first of them is met. The new ones stand
 * before the groups that have not begun. */
static struct same_group *join(struct same_line *line, struct same_group **fresh,
			       uint64_t src_off_bytes, uint64_t at_bytes, uint32_t room,
			       uint32_t member)
{
	struct same_group *group;

	for (; *fresh != NULL; fresh = &(*fresh)->next) {
		group = *fresh;
		if (group->src_off_bytes == src_off_bytes && group->at_bytes == at_bytes) {
			group->members[group->count++] = member;
			return group;
		}
	}
	group = new_group(line, room);
	if (group == NULL)
		return NULL;
	group->src_off_bytes = src_off_bytes;
	group->at_bytes = at_bytes;
	group->members[group->count++] = member;
	*fresh = group;
	return group;
}

/* Adds up what the request did for a destination, whatever became of the rest. */
static uint64_t add_up(struct same_outcome *outcome, const json_t *entry)
{
	uint64_t deduped = client_number(entry, "bytes_deduped");
	uint64_t shared = client_number(entry, "bytes_already_shared");
	uint64_t redone = outcome->redo_bytes < shared ? outcome->redo_bytes : shared;

	outcome->redo_bytes = 0;
	outcome->freed_bytes += client_number(entry, "bytes_freed");
	outcome->shared_bytes += shared - redone;
	return deduped;
}

/* One destination's entry of the answer. new_src: NO_SRC until the first EMLINK. */
static int settle(struct same_line *line, struct same_group **fresh, uint32_t member,
		  const json_t *entry, uint64_t *new_src)
{
	const struct same_group *group = line->groups;
	struct same_outcome *outcome = &line->outcomes[member];
	const char *status = client_text(entry, "status");
	const char *error = client_text(entry, "error");
	const char *message = client_text(entry, "message");
	uint64_t deduped, at;

	if (status == NULL || (strcmp(status, "same") != 0 && strcmp(status, "differs") != 0 &&
			       (strcmp(status, "error") != 0 || error == NULL)))
		return -EBADMSG;
	deduped = add_up(outcome, entry);
	at = group->at_bytes + deduped;
	if (at > line->len_bytes)
		return -EBADMSG;
	outcome->same_bytes = at;
	if (strcmp(status, "same") == 0) {
		if (at == line->len_bytes)
			outcome->status = SAME_SAME;
		else if (deduped == 0)
			settle_error(outcome, "EIO", "the server made no progress");
		else if (join(line, fresh, group->src_off_bytes, at, group->count, member) == NULL)
			return -ENOMEM;
		return 0;
	}
	if (strcmp(status, "differs") == 0) {
		outcome->status = SAME_DIFFERS;
		outcome->differs_at_bytes = group->at_bytes + client_number(entry, "differs_at");
		return 0;
	}
	if (strcmp(error, "EMLINK") == 0 && !line->zero && *new_src != NO_SRC) {
		outcome->same_bytes = group->at_bytes;
		outcome->redo_bytes = deduped;
		return join(line, fresh, *new_src, group->at_bytes, group->count, member) == NULL
			       ? -ENOMEM
			       : 0;
	}
	if (strcmp(error, "EMLINK") == 0 && !line->zero)
		*new_src = outcome->dst_off_bytes;
	settle_error(outcome, error, message != NULL ? message : error);
	return 0;
}

static void put_before_groups(struct same_line *line, struct same_group *fresh)
{
	struct same_group **last = &fresh;

	drop_group(line);
	while (*last != NULL)
		last = &(*last)->next;
	*last = line->groups;
	line->groups = fresh;
}

int same_line_result(struct same_line *line, const json_t *result)
{
	const struct same_group *group = line->groups;
	const json_t *results = json_object_get(result, "results");
	struct same_group *fresh = NULL;
	uint64_t new_src = NO_SRC;
	int r = 0;

	if (json_array_size(results) != group->count)
		return -EBADMSG;
	line->begun = true;
	for (uint32_t i = 0; r == 0 && i < group->count; i++)
		r = settle(line, &fresh, group->members[i], json_array_get(results, i), &new_src);
	put_before_groups(line, fresh);
	return r;
}

int same_line_range_same(struct same_line *line, const struct ctl_range_same *same)
{
	struct same_outcome *outcome = &line->outcomes[0];

	line->begun = true;
	outcome->same_bytes = same->deduped_bytes;
	outcome->freed_bytes = same->freed_bytes;
	outcome->shared_bytes = same->shared_bytes;
	/* Far too little to be clamped. */
	if (outcome->same_bytes != line->len_bytes)
		return -EBADMSG;
	outcome->status = SAME_SAME;
	drop_group(line);
	return 0;
}

int same_line_range_result(struct same_line *line, const json_t *entry)
{
	struct same_group *fresh = NULL;
	uint64_t new_src = NO_SRC;
	int r;

	if (json_array_size(entry) == 3) {
		struct ctl_range_same same;

		same.deduped_bytes = (uint64_t)json_integer_value(json_array_get(entry, 0));
		same.freed_bytes = (uint64_t)json_integer_value(json_array_get(entry, 1));
		same.shared_bytes = (uint64_t)json_integer_value(json_array_get(entry, 2));
		return same_line_range_same(line, &same);
	}
	line->begun = true;
	r = settle(line, &fresh, 0, entry, &new_src);
	put_before_groups(line, fresh);
	return r;
}

void same_line_failed(struct same_line *line, const char *error, const char *message)
{
	if (!line->begun) {
		snprintf(line->error, sizeof(line->error), "%s", error);
		snprintf(line->message, sizeof(line->message), "%s", message);
	}
	/* What is under way and what has not begun: a server that refuses one refuses the
	 * others. */
	for (uint32_t i = 0; i < line->count; i++)
		if (line->outcomes[i].status == SAME_RUNNING)
			settle_error(&line->outcomes[i], error, message);
	while (line->groups != NULL)
		drop_group(line);
}

static bool touches(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
	return a < b ? b - a < a_len : a - b < b_len;
}

static bool remaps(const struct same_line *by, uint64_t off_bytes, uint64_t len_bytes)
{
	for (uint32_t i = 0; i < by->count; i++)
		if (touches(by->outcomes[i].dst_off_bytes, by->len_bytes, off_bytes, len_bytes))
			return true;
	return false;
}

bool same_line_conflicts(const struct same_line *a, const struct same_line *b)
{
	if ((uint64_t)a->count * b->count > CONFLICT_PAIRS_MAX)
		return true;
	if (!b->zero && remaps(a, b->src_off_bytes, b->len_bytes))
		return true;
	if (!a->zero && remaps(b, a->src_off_bytes, a->len_bytes))
		return true;
	for (uint32_t i = 0; i < b->count; i++)
		if (remaps(a, b->outcomes[i].dst_off_bytes, b->len_bytes))
			return true;
	return false;
}
