/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * map - the command `sameblk map`: runs of the remap table
 *
 * The server answers part by part. A run that goes on in the next part is printed as one, so
 * that the output depends on the volume alone; runs are printed as they come, however many
 * there are.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "cli/base/client.h"
#include "cli/base/commands.h"
#include "cli/base/parse.h"
#include "cli/base/say.h"
#include "cli/base/servers.h"

struct run {
	uint64_t off_bytes;
	uint64_t len_bytes;
	bool hole;
	uint64_t physical_bytes;
	uint64_t references;
};

struct map_print {
	bool json;
	bool any; /* something was printed */
	bool held; /* run has not been printed: it may go on */
	struct run run;
};

static void print_run(struct map_print *print)
{
	const struct run *run = &print->run;

	if (!print->held)
		return;
	if (print->json)
		printf("%s\n  {\"offset\":%" PRIu64 ",\"length\":%" PRIu64 ",\"kind\":\"%s\"",
		       print->any ? "," : "{\"runs\":[", run->off_bytes, run->len_bytes,
		       run->hole ? "hole" : "data");
	else
		printf("%" PRIu64 " %" PRIu64 " %s", run->off_bytes, run->len_bytes,
		       run->hole ? "hole" : "data");
	if (!run->hole)
		printf(print->json ? ",\"physical\":%" PRIu64 ",\"references\":%" PRIu64
				   : " %" PRIu64 " %" PRIu64,
		       run->physical_bytes, run->references);
	fputs(print->json ? "}" : "\n", stdout);
	print->any = true;
	print->held = false;
}

static bool goes_on(const struct run *run, const struct run *next)
{
	if (run->off_bytes + run->len_bytes != next->off_bytes || run->hole != next->hole)
		return false;
	return run->hole || (run->physical_bytes + run->len_bytes == next->physical_bytes &&
			     run->references == next->references);
}

static void take_run(struct map_print *print, const json_t *entry)
{
	const char *kind = client_text(entry, "kind");
	struct run next = {
		.off_bytes = client_number(entry, "offset"),
		.len_bytes = client_number(entry, "length"),
		.hole = kind != NULL && strcmp(kind, "hole") == 0,
		.physical_bytes = client_number(entry, "physical"),
		.references = client_number(entry, "references"),
	};

	if (print->held && goes_on(&print->run, &next)) {
		print->run.len_bytes += next.len_bytes;
		return;
	}
	print_run(print);
	print->run = next;
	print->held = true;
}

/* One answer; *off_bytes moves on, and *end_bytes is learnt from the first. */
static bool map_part(struct client *client, struct map_print *print, uint64_t *off_bytes,
		     uint64_t *end_bytes, bool whole)
{
	json_t *params = json_pack("{s:I}", "offset", (json_int_t)*off_bytes);
	json_t *result;
	const json_t *entry;
	uint64_t mapped_to;
	size_t i;

	if (!whole)
		json_object_set_new(params, "length",
				    json_integer((json_int_t)(*end_bytes - *off_bytes)));
	result = client_call(client, "cannot map", "map", params);
	if (result == NULL)
		return false;
	if (whole)
		*end_bytes = *off_bytes + client_number(result, "length");
	json_array_foreach(json_object_get(result, "runs"), i, entry) take_run(print, entry);
	mapped_to = client_number(result, "mapped_to");
	json_decref(result);
	if (mapped_to <= *off_bytes && *off_bytes < *end_bytes) {
		say_error("cannot map", client->server, "the server made no progress");
		return false;
	}
	*off_bytes = mapped_to;
	return true;
}

static int run_map(struct client *client, bool whole, uint64_t off_bytes, uint64_t end_bytes,
		   bool json)
{
	struct map_print print = {.json = json};
	bool good = map_part(client, &print, &off_bytes, &end_bytes, whole);

	/* A range that is refused prints nothing at all. */
	if (!good)
		return EXIT_FAILED;
	while (good && off_bytes < end_bytes && !ferror(stdout))
		good = map_part(client, &print, &off_bytes, &end_bytes, false);
	print_run(&print);
	if (json)
		puts(print.any ? "\n]}" : "{\"runs\":[]}");
	return good ? EXIT_GOOD : EXIT_FAILED;
}

int map_main(int argc, char **argv)
{
	uint64_t off = 0, len = 0;
	struct server_choice choice = {NULL, NULL};
	bool json = false;
	const struct parse_option options[] = {
		PARSE_SERVER(&choice),
		PARSE_JSON(&json),
		{NULL, 0, PARSE_FLAG, NULL, NULL, NULL},
	};
	const struct parse_command command = {
		"map", "[OFF LEN]", "Print runs of the remap table, holes too.", options, 0, 2,
	};
	struct client client;
	int count, status;

	switch (parse_command(&command, argc, argv, &count)) {
	case PARSE_GO:
		break;
	case PARSE_DONE:
		return say_finish(EXIT_GOOD);
	case PARSE_BAD:
		return EXIT_FAILED;
	}
	if (count == 1) {
		say_error("cannot run", "", "LEN is missing");
		return EXIT_FAILED;
	}
	if (count == 2 && (parse_size_or_say("OFF", argv[1], &off) < 0 ||
			   parse_size_or_say("LEN", argv[2], &len) < 0))
		return EXIT_FAILED;
	if (servers_open(&choice, &client) < 0)
		return EXIT_FAILED;
	status = run_map(&client, count == 0, off, off + len, json);
	client_close(&client);
	return say_finish(status);
}
