/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * stats - the command `sameblk stats`: the server's counters, once or again and again
 *
 * What the server sends is printed whatever it is; only --prometheus has to know which numbers
 * go up and down (gauges) and which only up (counters), and says no more than the engine's table of
 * counters (core/volume/counters.h) knows.
 */
#include <ctype.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/base/client.h"
#include "cli/base/commands.h"
#include "cli/base/parse.h"
#include "cli/base/say.h"
#include "cli/base/servers.h"
#include "core/volume/counters.h"

#define INTERVAL_SECONDS_DEFAULT 2u
#define INTERVAL_SECONDS_MAX	 86400u

enum stats_format {
	STATS_TEXT,
	STATS_JSON,
	STATS_JSON_LINES,
	STATS_PROMETHEUS,
};

/* Of the server, which the volume's table (counters.h) does not know. */
static const struct counter uptime = {
	COUNTER_GAUGE, COUNTER_COUNT, "uptime_seconds", "seconds since the server was started", 0,
};

static volatile sig_atomic_t interrupted;

static void on_signal(int signal)
{
	(void)signal;
	interrupted = 1;
}

/* As the text format wants the value of a label. */
static void print_escaped(const char *text)
{
	for (; *text != '\0'; text++) {
		if (*text == '\n')
			fputs("\\n", stdout);
		else if (*text == '"' || *text == '\\')
			printf("\\%c", *text);
		else
			putchar(*text);
	}
}

/* Which server a sample is of, after the sample's own label: several may go into one folder. */
static void print_labels(const json_t *stats, const char *own)
{
	static const char *const keys[] = {"store", "uuid"};
	const char *between = own[0] != '\0' ? "," : "";

	printf("{%s", own);
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		const char *value = client_text(stats, keys[i]);

		if (value == NULL)
			continue;
		printf("%s%s=\"", between, keys[i]);
		print_escaped(value);
		putchar('"');
		between = ",";
	}
	putchar('}');
}

static void print_metric(const json_t *stats, const struct counter *counter)
{
	const char *end = counter->kind == COUNTER_GAUGE ? "" : "_total";
	const char *name = counter->name;

	if (json_object_get(stats, name) == NULL)
		return;
	printf("# HELP sameblk_%s%s %c%s.\n# TYPE sameblk_%s%s %s\nsameblk_%s%s", name, end,
	       toupper(counter->help[0]), counter->help + 1, name, end,
	       counter->kind == COUNTER_GAUGE ? "gauge" : "counter", name, end);
	print_labels(stats, "");
	printf(" %" PRIu64 "\n", client_number(stats, name));
}

static uint64_t number_at(const json_t *counts, size_t i)
{
	return (uint64_t)json_integer_value(json_array_get(counts, i));
}

/* One line of the histogram; name and end make its own labels. */
static void print_sample(const json_t *stats, const char *what, const char *own)
{
	printf("sameblk_request_seconds_%s", what);
	print_labels(stats, own);
}

/* Bucket i ends at 2^i microseconds; the last one has no end. */
static void print_histogram(const json_t *stats, const char *op, const json_t *one)
{
	const json_t *counts = json_object_get(one, "counts");
	size_t buckets = json_array_size(counts);
	uint64_t sum = 0, total_ns = client_number(one, "total_ns");
	char own[64];

	for (size_t i = 0; i < buckets; i++) {
		sum += number_at(counts, i);
		if (i + 1 < buckets)
			snprintf(own, sizeof(own), "op=\"%s\",le=\"%g\"", op,
				 (double)(1ull << i) / 1e6);
		else
			snprintf(own, sizeof(own), "op=\"%s\",le=\"+Inf\"", op);
		print_sample(stats, "bucket", own);
		printf(" %" PRIu64 "\n", sum);
	}
	snprintf(own, sizeof(own), "op=\"%s\"", op);
	print_sample(stats, "sum", own);
	/* All digits: whoever reads it takes the difference of two. */
	printf(" %" PRIu64 ".%09" PRIu64 "\n", total_ns / 1000000000, total_ns % 1000000000);
	print_sample(stats, "count", own);
	printf(" %" PRIu64 "\n", sum);
}

static void print_histograms(const json_t *stats)
{
	json_t *latency = json_object_get(stats, "latency");
	const char *op;
	json_t *one;

	if (latency == NULL)
		return;
	printf("# HELP sameblk_request_seconds How long clients' requests took.\n"
	       "# TYPE sameblk_request_seconds histogram\n");
	json_object_foreach(latency, op, one) print_histogram(stats, op, one);
}

/* The bucket's end, in microseconds, that so many per mille of the requests are below. */
static uint64_t quantile_us(const json_t *counts, uint64_t sum, uint64_t per_mille)
{
	uint64_t below = 0;
	size_t i = 0;

	for (; i + 1 < json_array_size(counts); i++) {
		below += number_at(counts, i);
		if (below * 1000 >= sum * per_mille)
			break;
	}
	return 1ull << i;
}

static void print_latencies(const json_t *latency)
{
	const char *op;
	json_t *one;

	json_object_foreach((json_t *)(uintptr_t)latency, op, one)
	{
		const json_t *counts = json_object_get(one, "counts");
		uint64_t sum = 0;
		char name[32];

		for (size_t i = 0; i < json_array_size(counts); i++)
			sum += number_at(counts, i);
		snprintf(name, sizeof(name), "%s_latency", op);
		if (sum > 0)
			printf("%-20s half under %" PRIu64 " us, 99 %% under %" PRIu64 " us\n",
			       name, quantile_us(counts, sum, 500), quantile_us(counts, sum, 990));
	}
}

static void print_prometheus(const json_t *stats)
{
	static const char *const states[] = {"ok", "low on space", "backing full", "read-only"};
	const char *state = client_text(stats, "state");
	char version[64];

	print_metric(stats, &uptime);
	for (size_t i = 0; i < counter_table_count; i++)
		print_metric(stats, &counter_table[i]);
	print_histograms(stats);
	printf("# HELP sameblk_state 1 for the state the volume is in.\n"
	       "# TYPE sameblk_state gauge\n");
	for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
		char own[64];

		snprintf(own, sizeof(own), "state=\"%s\"", states[i]);
		printf("sameblk_state");
		print_labels(stats, own);
		printf(" %d\n", state != NULL && strcmp(state, states[i]) == 0);
	}
	printf("# HELP sameblk_info The server's version; always 1.\n"
	       "# TYPE sameblk_info gauge\nsameblk_info");
	snprintf(version, sizeof(version), "version=\"%s\"",
		 client_text(stats, "version") != NULL ? client_text(stats, "version") : "");
	print_labels(stats, version);
	puts(" 1");
}

static void print_text(json_t *stats)
{
	const char *key;
	json_t *value;

	json_object_foreach(stats, key, value)
	{
		if (json_is_integer(value))
			printf("%-20s %" JSON_INTEGER_FORMAT "\n", key, json_integer_value(value));
		else if (json_is_string(value))
			printf("%-20s %s\n", key, json_string_value(value));
		else if (strcmp(key, "latency") == 0)
			print_latencies(value);
	}
}

static void print_stats(json_t *stats, enum stats_format format)
{
	switch (format) {
	case STATS_TEXT:
		print_text(stats);
		break;
	case STATS_JSON:
		json_dumpf(stats, stdout, JSON_INDENT(2));
		putchar('\n');
		break;
	case STATS_JSON_LINES:
		json_dumpf(stats, stdout, JSON_COMPACT);
		putchar('\n');
		break;
	case STATS_PROMETHEUS:
		print_prometheus(stats);
		break;
	}
}

static bool print_once(struct client *client, enum stats_format format)
{
	json_t *stats = client_call(client, "cannot get the counters", "stats", NULL);

	if (stats == NULL)
		return false;
	print_stats(stats, format);
	json_decref(stats);
	return true;
}

/* Until a signal, or until nobody reads what is printed. */
static int watch(struct client *client, enum stats_format format, uint64_t seconds)
{
	struct sigaction action = {.sa_handler = on_signal};
	bool screen = format == STATS_TEXT && say_can_draw(STDOUT_FILENO);
	uint64_t samples = 0;

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	while (interrupted == 0) {
		struct timespec pause = {.tv_sec = (time_t)seconds};

		if (screen)
			fputs("\033[H\033[2J", stdout);
		if (!print_once(client, format))
			return EXIT_FAILED;
		samples++;
		if (format == STATS_TEXT && !screen)
			putchar('\n');
		if (fflush(stdout) != 0)
			break;
		if (interrupted == 0)
			nanosleep(&pause, NULL);
	}
	if (format == STATS_JSON_LINES)
		printf("{\"summary\":{\"samples\":%" PRIu64 "}}\n", samples);
	return EXIT_GOOD;
}

struct stats_options {
	struct server_choice choice;
	bool json;
	bool json_lines;
	bool prometheus;
	bool watch;
	struct parse_size_value interval;
};

/* What does not go together. NULL: all is well. */
static const char *find_fault(const struct stats_options *options)
{
	if (options->json + options->json_lines + options->prometheus > 1)
		return "--json, --json-lines and --prometheus exclude each other";
	if (options->watch && (options->json || options->prometheus))
		return "--watch goes with text or --json-lines";
	if (options->interval.given && !options->watch)
		return "--interval goes with --watch";
	if (options->interval.bytes == 0 || options->interval.bytes > INTERVAL_SECONDS_MAX)
		return "--interval must be 1 to 86400 seconds";
	return NULL;
}

static int run_stats(const struct stats_options *options)
{
	enum stats_format format = options->json	 ? STATS_JSON
				   : options->json_lines ? STATS_JSON_LINES
				   : options->prometheus ? STATS_PROMETHEUS
							 : STATS_TEXT;
	struct client client;
	int status;

	if (servers_open(&options->choice, &client) < 0)
		return EXIT_FAILED;
	if (options->watch)
		status = watch(&client, format, options->interval.bytes);
	else
		status = print_once(&client, format) ? EXIT_GOOD : EXIT_FAILED;
	client_close(&client);
	return say_finish(status);
}

int stats_main(int argc, char **argv)
{
	struct stats_options chosen = {.interval = {INTERVAL_SECONDS_DEFAULT, false}};
	const struct parse_option options[] = {
		PARSE_SERVER(&chosen.choice),
		PARSE_JSON(&chosen.json),
		{"json-lines", 0, PARSE_FLAG, &chosen.json_lines, NULL, "a document a line"},
		{"prometheus", 0, PARSE_FLAG, &chosen.prometheus, NULL, "text exposition format"},
		{"watch", 'w', PARSE_FLAG, &chosen.watch, NULL, "print again and again"},
		{"interval", 0, PARSE_SIZE, &chosen.interval, "SECONDS",
		 "between two of --watch (default 2)"},
		{NULL, 0, PARSE_FLAG, NULL, NULL, NULL},
	};
	const struct parse_command command = {
		"stats", "", "Print the server's counters.", options, 0, 0,
	};
	const char *fault;
	int count;

	switch (parse_command(&command, argc, argv, &count)) {
	case PARSE_GO:
		break;
	case PARSE_DONE:
		return say_finish(EXIT_GOOD);
	case PARSE_BAD:
		return EXIT_FAILED;
	}
	fault = find_fault(&chosen);
	if (fault != NULL) {
		say_error("cannot run", "", "%s", fault);
		return EXIT_FAILED;
	}
	return run_stats(&chosen);
}
