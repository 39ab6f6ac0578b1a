/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * status - the command `sameblk status`: which server this is and how it is
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

static void print_text(const json_t *status, const char *key, const char *label)
{
	const char *text = client_text(status, key);

	if (text == NULL)
		return;
	printf("%-14s ", label);
	say_print(text);
	putchar('\n');
}

static void print_state(const json_t *status)
{
	const char *reason = client_text(status, "reason");

	printf("%-14s ", "state");
	say_print(client_text(status, "state"));
	fputs(reason != NULL ? ": " : "", stdout);
	say_print(reason != NULL ? reason : "");
	putchar('\n');
}

static void print_exports(const json_t *exports)
{
	const json_t *uri;
	size_t i;

	json_array_foreach(exports, i, uri)
	{
		printf("%-14s ", "export");
		say_print(json_is_string(uri) ? json_string_value(uri) : "?");
		putchar('\n');
	}
}

static void print_uptime(uint64_t seconds)
{
	printf("%-14s %" PRIu64 "d %02" PRIu64 ":%02" PRIu64 ":%02" PRIu64 "\n", "uptime",
	       seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
}

static void print_status(const json_t *status)
{
	const json_t *limits = json_object_get(status, "limits");
	const json_t *memory = json_object_get(status, "memory");

	print_text(status, "version", "version");
	printf("%-14s %" PRIu64 "\n", "pid", client_number(status, "pid"));
	print_text(status, "store", "store");
	print_text(status, "uuid", "uuid");
	print_state(status);
	if (client_number(status, "silent_seconds") > 0)
		printf("%-14s the store has answered nothing for %" PRIu64 " s\n", "",
		       client_number(status, "silent_seconds"));
	printf("%-14s %" PRIu64 "\n", "size", client_number(status, "size_bytes"));
	printf("%-14s %" PRIu64 "\n", "store size", client_number(status, "store_bytes"));
	printf("%-14s length %" PRIu64 ", destinations %" PRIu64 "\n", "same limits",
	       client_number(limits, "length_max"), client_number(limits, "destinations_max"));
	print_exports(json_object_get(status, "exports"));
	printf("%-14s %" PRIu64 "\n", "clients", client_number(status, "clients"));
	if (memory != NULL)
		printf("%-14s own %" PRIu64 ", mapped %" PRIu64 "\n", "memory",
		       client_number(memory, "own_bytes"), client_number(memory, "mapped_bytes"));
	print_uptime(client_number(status, "uptime_seconds"));
}

int status_main(int argc, char **argv)
{
	struct server_choice choice = {NULL, NULL};
	bool json = false;
	const struct parse_option options[] = {
		PARSE_SERVER(&choice),
		PARSE_JSON(&json),
		{NULL, 0, PARSE_FLAG, NULL, NULL, NULL},
	};
	const struct parse_command command = {
		"status", "", "Print which server this is and how it is.", options, 0, 0,
	};
	struct client client;
	json_t *status;
	const char *state;
	int count, exit_status;

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
	status = client_call(&client, "cannot get the status", "status", NULL);
	client_close(&client);
	state = client_text(status, "state");
	if (state == NULL) {
		json_decref(status);
		return EXIT_FAILED;
	}
	if (json) {
		json_dumpf(status, stdout, JSON_INDENT(2));
		putchar('\n');
	} else {
		print_status(status);
	}
	exit_status = strcmp(state, "read-only") == 0 ? EXIT_SEE : EXIT_GOOD;
	json_decref(status);
	return say_finish(exit_status);
}
