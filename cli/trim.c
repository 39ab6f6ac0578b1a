/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * trim - the command `sameblk trim`: all free space of the store is given back to the file or
 * device that it lies in
 *
 * The server does it in the background and names a round; the command looks at its counters until
 * that is over. Whoever ends the command does not end the round.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cli/base/client.h"
#include "cli/base/commands.h"
#include "cli/base/parse.h"
#include "cli/base/say.h"
#include "cli/base/servers.h"

#define LOOK_MS 100

static json_t *get_stats(struct client *client)
{
	return client_call(client, "cannot get the counters", "stats", NULL);
}

/* A volume that became read-only meanwhile gives nothing back. */
static bool is_lost(const struct client *client, const json_t *stats)
{
	const char *state = client_text(stats, "state");
	const char *reason = client_text(stats, "reason");

	if (state == NULL || strcmp(state, "read-only") != 0)
		return false;
	say_error("cannot trim", client->path, "%s", reason != NULL ? reason : "it is read-only");
	return true;
}

/* The counters once the round is over; NULL: stderr says why not. */
static json_t *wait_for(struct client *client, uint64_t round)
{
	const struct timespec pause = {.tv_nsec = LOOK_MS * 1000000L};
	json_t *stats = get_stats(client);

	while (stats != NULL && client_number(stats, "giveback_rounds") < round) {
		bool lost = is_lost(client, stats);

		json_decref(stats);
		if (lost)
			return NULL;
		nanosleep(&pause, NULL);
		stats = get_stats(client);
	}
	return stats;
}

static int run_trim(struct client *client, bool json)
{
	json_t *before = get_stats(client), *after, *result;
	uint64_t given, failed, round;

	if (before == NULL)
		return EXIT_FAILED;
	given = client_number(before, "discarded_bytes");
	json_decref(before);
	result = client_call(client, "cannot trim", "trim", NULL);
	if (result == NULL)
		return EXIT_FAILED;
	round = client_number(result, "round");
	json_decref(result);
	after = wait_for(client, round);
	if (after == NULL)
		return EXIT_FAILED;
	given = client_number(after, "discarded_bytes") - given;
	failed = client_number(after, "giveback_failed_bytes");
	json_decref(after);
	if (json)
		printf("{\"discarded_bytes\":%" PRIu64 ",\"failed_bytes\":%" PRIu64 "}\n", given,
		       failed);
	else
		printf("%" PRIu64 " bytes given back\n", given);
	if (failed == 0)
		return EXIT_GOOD;
	say_error("not all was given back", client->path,
		  "the file or device did not take up to %" PRIu64 " bytes", failed);
	return EXIT_SEE;
}

int trim_main(int argc, char **argv)
{
	struct server_choice choice = {NULL, NULL};
	bool json = false;
	const struct parse_option options[] = {
		PARSE_SERVER(&choice),
		PARSE_JSON(&json),
		{NULL, 0, PARSE_FLAG, NULL, NULL, NULL},
	};
	const struct parse_command command = {
		"trim",	 "", "Give all free space of the store back to its file or device.",
		options, 0,  0,
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
	if (servers_open(&choice, &client) < 0)
		return EXIT_FAILED;
	status = run_trim(&client, json);
	client_close(&client);
	return say_finish(status);
}
