/* SPDX-License-Identifier: GPL-2.0-or-later */
/* same_print - see the header */
#include "cli/same/same_print.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/base/say.h"

static void print_outcome(const struct same_outcome *outcome)
{
	switch (outcome->status) {
	case SAME_SAME:
		printf("%" PRIu64 " same %" PRIu64 " freed %" PRIu64 "\n", outcome->dst_off_bytes,
		       outcome->same_bytes, outcome->freed_bytes);
		break;
	case SAME_DIFFERS:
		printf("%" PRIu64 " differs at %" PRIu64 " same %" PRIu64 " freed %" PRIu64 "\n",
		       outcome->dst_off_bytes, outcome->differs_at_bytes, outcome->same_bytes,
		       outcome->freed_bytes);
		break;
	case SAME_RUNNING:
	case SAME_ERROR:
		printf("%" PRIu64 " error %s %s\n", outcome->dst_off_bytes, outcome->error,
		       outcome->message);
		break;
	}
}

static json_t *outcome_json(const struct same_outcome *outcome)
{
	static const char *const names[] = {"error", "same", "differs", "error"};
	json_t *object = json_pack(
		"{s:I, s:s, s:I, s:I, s:I}", "dst", (json_int_t)outcome->dst_off_bytes, "status",
		names[outcome->status], "bytes_deduped", (json_int_t)outcome->same_bytes,
		"bytes_freed", (json_int_t)outcome->freed_bytes, "bytes_already_shared",
		(json_int_t)outcome->shared_bytes);

	if (outcome->status == SAME_DIFFERS)
		json_object_set_new(object, "differs_at",
				    json_integer((json_int_t)outcome->differs_at_bytes));
	if (outcome->status == SAME_ERROR) {
		json_object_set_new(object, "error", json_string(outcome->error));
		json_object_set_new(object, "message", json_string(outcome->message));
	}
	return object;
}

static void print_json(const struct same_line *line, enum same_format format)
{
	json_t *results = json_array();
	json_t *src =
		line->zero ? json_string("zero") : json_integer((json_int_t)line->src_off_bytes);
	json_t *root = json_pack("{s:o, s:I, s:o}", "src", src, "length",
				 (json_int_t)line->len_bytes, "results", results);

	if (line->number != 0)
		json_object_set_new(root, "line", json_integer((json_int_t)line->number));
	if (line->error[0] != '\0') {
		json_object_set_new(root, "error", json_string(line->error));
		json_object_set_new(root, "message", json_string(line->message));
	} else {
		for (uint32_t i = 0; i < line->count; i++)
			json_array_append_new(results, outcome_json(&line->outcomes[i]));
	}
	json_dumpf(root, stdout, format == SAME_JSON ? JSON_INDENT(2) : JSON_COMPACT);
	putchar('\n');
	json_decref(root);
}

void same_print(const struct same_line *line, enum same_format format)
{
	char where[32] = "", what[128];

	if (line->number != 0)
		snprintf(where, sizeof(where), "line %" PRIu64 ": ", line->number);
	if (line->error[0] != '\0') {
		if (line->zero)
			snprintf(what, sizeof(what), "%szero %" PRIu64, where, line->len_bytes);
		else
			snprintf(what, sizeof(what), "%s%" PRIu64 " %" PRIu64, where,
				 line->src_off_bytes, line->len_bytes);
		say_error("cannot merge", what, "%s (%s)", line->message, line->error);
	}
	if (format != SAME_TEXT)
		print_json(line, format);
	else if (line->error[0] == '\0')
		for (uint32_t i = 0; i < line->count; i++)
			print_outcome(&line->outcomes[i]);
}

void same_sums_add(struct same_sums *sums, const struct same_line *line)
{
	sums->requests++;
	sums->destinations += line->count;
	for (uint32_t i = 0; i < line->count; i++) {
		const struct same_outcome *outcome = &line->outcomes[i];

		sums->same += outcome->status == SAME_SAME;
		sums->differs += outcome->status == SAME_DIFFERS;
		sums->errors += outcome->status == SAME_ERROR || outcome->status == SAME_RUNNING;
		sums->same_bytes += outcome->same_bytes;
		sums->freed_bytes += outcome->freed_bytes;
		sums->shared_bytes += outcome->shared_bytes;
	}
}

void same_sums_print(const struct same_sums *sums, enum same_format format)
{
	if (format == SAME_TEXT) {
		printf("summary: requests %" PRIu64 " destinations %" PRIu64 " same %" PRIu64
		       " differs %" PRIu64 " errors %" PRIu64 " bytes_deduped %" PRIu64
		       " bytes_freed %" PRIu64 " bytes_already_shared %" PRIu64 "\n",
		       sums->requests, sums->destinations, sums->same, sums->differs, sums->errors,
		       sums->same_bytes, sums->freed_bytes, sums->shared_bytes);
		return;
	}
	printf("{\"summary\":{\"requests\":%" PRIu64 ",\"destinations\":%" PRIu64
	       ",\"same\":%" PRIu64 ",\"differs\":%" PRIu64 ",\"errors\":%" PRIu64
	       ",\"bytes_deduped\":%" PRIu64 ",\"bytes_freed\":%" PRIu64
	       ",\"bytes_already_shared\":%" PRIu64 "}}\n",
	       sums->requests, sums->destinations, sums->same, sums->differs, sums->errors,
	       sums->same_bytes, sums->freed_bytes, sums->shared_bytes);
}

int same_sums_status(const struct same_sums *sums)
{
	if (sums->errors > 0)
		return EXIT_FAILED;
	return sums->differs > 0 ? EXIT_SEE : EXIT_GOOD;
}
