/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * clone - the command `sameblk clone`: DST reads as SRC does, part by part where the server clamps
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

struct clone {
	uint64_t src_off_bytes;
	uint64_t dst_off_bytes;
	uint64_t len_bytes;
	bool sync;
	uint64_t cloned_bytes;
	uint64_t freed_bytes;
	char error[20]; /* empty: none */
	char message[200];
};

static void fail(struct clone *clone, const char *error, const char *message)
{
	snprintf(clone->error, sizeof(clone->error), "%s", error);
	snprintf(clone->message, sizeof(clone->message), "%s", message);
}

static void take_result(struct clone *clone, const json_t *result)
{
	const char *error = client_text(result, "error");
	const char *message = client_text(result, "message");
	uint64_t cloned = client_number(result, "bytes_cloned");

	clone->cloned_bytes += cloned;
	clone->freed_bytes += client_number(result, "bytes_freed");
	if (error != NULL)
		fail(clone, error, message != NULL ? message : error);
	else if (clone->cloned_bytes > clone->len_bytes || (cloned == 0 && clone->len_bytes > 0))
		fail(clone, "EIO", "the server made no progress");
}

/* False: refused before anything was done, and complained about. */
static bool run_clone(struct client *client, struct clone *clone)
{
	do {
		uint64_t at = clone->cloned_bytes;
		json_t *result =
			client_call(client, "cannot clone", "clone",
				    json_pack("{s:I, s:I, s:I, s:b}", "src",
					      (json_int_t)(clone->src_off_bytes + at), "length",
					      (json_int_t)(clone->len_bytes - at), "dst",
					      (json_int_t)(clone->dst_off_bytes + at), "sync",
					      (int)clone->sync));

		if (result == NULL && at == 0)
			return false;
		if (result == NULL)
			fail(clone, "EIO", "the server refused to go on");
		else
			take_result(clone, result);
		json_decref(result);
	} while (clone->error[0] == '\0' && clone->cloned_bytes < clone->len_bytes);
	return true;
}

static void print_clone(const struct clone *clone, bool json)
{
	bool failed = clone->error[0] != '\0';
	json_t *root;

	if (!json && failed) {
		printf("%" PRIu64 " error %s %s\n", clone->dst_off_bytes, clone->error,
		       clone->message);
		return;
	}
	if (!json) {
		printf("%" PRIu64 " cloned %" PRIu64 " freed %" PRIu64 "\n", clone->dst_off_bytes,
		       clone->cloned_bytes, clone->freed_bytes);
		return;
	}
	root = json_pack("{s:I, s:I, s:I, s:s, s:I, s:I, s:s*, s:s*}", "src",
			 (json_int_t)clone->src_off_bytes, "length", (json_int_t)clone->len_bytes,
			 "dst", (json_int_t)clone->dst_off_bytes, "status",
			 failed ? "error" : "cloned", "bytes_cloned",
			 (json_int_t)clone->cloned_bytes, "bytes_freed",
			 (json_int_t)clone->freed_bytes, "error", failed ? clone->error : NULL,
			 "message", failed ? clone->message : NULL);
	json_dumpf(root, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(root);
}

/* The server sees one part at a time; a later part would read what an earlier one wrote. */
static bool overlaps(const struct clone *clone)
{
	uint64_t a = clone->src_off_bytes, b = clone->dst_off_bytes;

	return a < b ? b - a < clone->len_bytes : a - b < clone->len_bytes;
}

static int run(const struct server_choice *choice, struct clone *clone, bool json)
{
	struct client client;
	bool begun = true;

	if (servers_open(choice, &client) < 0)
		return EXIT_FAILED;
	if (overlaps(clone))
		fail(clone, "EINVAL", "the destination overlaps the source");
	else
		begun = run_clone(&client, clone);
	client_close(&client);
	if (!begun)
		return EXIT_FAILED;
	print_clone(clone, json);
	return say_finish(clone->error[0] != '\0' ? EXIT_FAILED : EXIT_GOOD);
}

int clone_main(int argc, char **argv)
{
	struct clone clone = {.sync = false};
	struct server_choice choice = {NULL, NULL};
	bool json = false;
	const struct parse_option options[] = {
		PARSE_SERVER(&choice),
		{"sync", 0, PARSE_FLAG, &clone.sync, NULL, "answer when the clone is durable"},
		PARSE_JSON(&json),
		{NULL, 0, PARSE_FLAG, NULL, NULL, NULL},
	};
	const struct parse_command command = {
		"clone", "SRC LEN DST", "Make DST read as SRC does, at once.", options, 3, 3,
	};
	int count;

	switch (parse_command(&command, argc, argv, &count)) {
	case PARSE_GO:
		break;
	case PARSE_DONE:
		return say_finish(EXIT_GOOD);
	case PARSE_BAD:
		return EXIT_FAILED;
	}
	if (parse_size_or_say("SRC", argv[1], &clone.src_off_bytes) < 0 ||
	    parse_size_or_say("LEN", argv[2], &clone.len_bytes) < 0 ||
	    parse_size_or_say("DST", argv[3], &clone.dst_off_bytes) < 0)
		return EXIT_FAILED;
	return run(&choice, &clone, json);
}
