/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * same - the command `sameblk same`: one line of operands, or a batch of lines
 */
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "cli/base/client.h"
#include "cli/base/commands.h"
#include "cli/base/parse.h"
#include "cli/base/priority.h"
#include "cli/base/say.h"
#include "cli/base/servers.h"
#include "cli/same/same_batch.h"
#include "cli/same/same_line.h"
#include "cli/same/same_print.h"
#include "server/control/protocol/ctl_rpc.h"

/* SRC LEN DST [DST...] -> a line that has begun. */
static int read_operands(char **words, uint32_t count, struct same_line *line)
{
	uint32_t dst_count = count - 2;
	uint64_t *dsts;

	line->zero = strcmp(words[0], "zero") == 0;
	if (!line->zero && parse_size_or_say("SRC", words[0], &line->src_off_bytes) < 0)
		return -1;
	if (parse_size_or_say("LEN", words[1], &line->len_bytes) < 0)
		return -1;
	dsts = calloc(dst_count, sizeof(*dsts));
	for (uint32_t i = 0; dsts != NULL && i < dst_count; i++)
		if (parse_size_or_say("DST", words[2 + i], &dsts[i]) < 0) {
			free(dsts);
			return -1;
		}
	if (dsts == NULL || same_line_begin(line, dsts, dst_count) < 0) {
		say_error("cannot merge", words[0], "%s", strerror(ENOMEM));
		same_line_done(line);
		return -1;
	}
	return 0;
}

/* Carries the line to its end, one request at a time. */
static int run_line(struct client *client, struct same_line *line)
{
	while (!same_line_finished(line)) {
		struct client_answer answer;
		json_t *params = same_line_params(line);
		uint64_t id;
		int r = params == NULL ? -ENOMEM : client_send(client, "same", params, &id);

		if (r == 0)
			r = client_answer(client, &answer);
		if (r < 0) {
			same_line_failed(line, ctl_errno_name(r),
					 r == -EPIPE ? "the server has closed the connection"
						     : strerror(-r));
			return r;
		}
		if (answer.result != NULL)
			r = same_line_result(line, answer.result);
		else
			same_line_failed(line, answer.error_name, answer.message);
		client_answer_done(&answer);
		if (r < 0)
			same_line_failed(line, ctl_errno_name(r), strerror(-r));
	}
	return 0;
}

static int run_one(struct client *client, struct same_line *line, enum same_format format)
{
	struct same_sums sums = {.requests = 0};

	run_line(client, line);
	same_print(line, format);
	same_sums_add(&sums, line);
	if (format == SAME_JSON_LINES)
		same_sums_print(&sums, format);
	return same_sums_status(&sums);
}

static int run_same(const struct server_choice *choice, const char *batch, char **words,
		    uint32_t count, bool sync, enum same_format format)
{
	struct same_line line = {.sync = sync};
	struct client client;
	int status;

	if (batch == NULL && read_operands(words, count, &line) < 0)
		return EXIT_FAILED;
	if (servers_open(choice, &client) < 0) {
		same_line_done(&line);
		return EXIT_FAILED;
	}
	if (batch != NULL) {
		priority_make_way();
		status = same_batch(&client, batch, sync, format);
	} else {
		status = run_one(&client, &line, format);
	}
	same_line_done(&line);
	client_close(&client);
	return say_finish(status);
}

int same_main(int argc, char **argv)
{
	struct server_choice choice = {NULL, NULL};
	const char *batch = NULL;
	bool sync = false, json = false, json_lines = false;
	const struct parse_option options[] = {
		PARSE_SERVER(&choice),
		{"batch", 0, PARSE_TEXT, &batch, "FILE",
		 "take lines SRC LEN DST [DST...]; - is stdin"},
		{"sync", 0, PARSE_FLAG, &sync, NULL, "answer when the merges are durable"},
		PARSE_JSON(&json),
		{"json-lines", 0, PARSE_FLAG, &json_lines, NULL,
		 "a document a line, then a summary"},
		{NULL, 0, PARSE_FLAG, NULL, NULL, NULL},
	};
	const struct parse_command command = {
		"same",
		"SRC LEN DST [DST...] | --batch FILE",
		"Merge ranges that hold the same bytes. SRC may be the word zero.",
		options,
		0,
		INT_MAX,
	};
	enum same_format format;
	int count;

	switch (parse_command(&command, argc, argv, &count)) {
	case PARSE_GO:
		break;
	case PARSE_DONE:
		return say_finish(EXIT_GOOD);
	case PARSE_BAD:
		return EXIT_FAILED;
	}
	if (batch != NULL ? count > 0 : count < 3) {
		say_error("cannot run", "", "%s",
			  batch != NULL ? "--batch takes no operands"
					: "SRC, LEN and at least one DST are needed");
		return EXIT_FAILED;
	}
	if (json && (json_lines || batch != NULL)) {
		say_error("cannot run", "", "--json is one document; use --json-lines alone");
		return EXIT_FAILED;
	}
	format = json ? SAME_JSON : json_lines ? SAME_JSON_LINES : SAME_TEXT;
	return run_same(&choice, batch, argv + 1, (uint32_t)count, sync, format);
}
