/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * same_batch - see the header
 *
 * The lines in flight stand in a ring in the order they were read:
 *
 *   head (printed next) ... tail (read next)
 *
 * A slot holds a line under way, or one that has finished and waits for those before it to be
 * printed. The line that was read last may be `held`: it conflicts with one in flight and has
 * not been sent.
 */
#include "cli/same_batch.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/parse.h"
#include "cli/say.h"
#include "server/ctl_rpc.h"

#define BLANKS " \t\r\n"

struct batch_slot {
	struct same_line line;
	uint64_t id; /* of the request under way */
};

struct batch {
	struct client *client;
	const char *path;
	FILE *file;
	char *text;
	size_t text_size;
	uint64_t number; /* of the line read last */
	bool sync;
	bool ended; /* no more lines */
	int broken; /* negative errno of the connection */
	enum same_format format;
	struct same_sums sums;
	bool held; /* the slot before tail is not sent yet */
	uint64_t head;
	uint64_t tail;
	struct batch_slot slots[SAME_BATCH_LINES];
};

static struct batch_slot *slot_at(struct batch *batch, uint64_t index)
{
	return &batch->slots[index % SAME_BATCH_LINES];
}

/* --- reading --- */

static void bad_line(struct batch *batch, const char *word, const char *why)
{
	say_error("cannot read the batch", batch->path, "line %" PRIu64 ": %s%s%s", batch->number,
		  word, word[0] != '\0' ? ": " : "", why);
	batch->sums.requests++;
	batch->sums.errors++;
}

static bool read_number(struct batch *batch, const char *word, uint64_t *ret_bytes)
{
	int r = parse_size(word, ret_bytes);

	if (r == -ERANGE)
		bad_line(batch, word, "too large");
	else if (r < 0)
		bad_line(batch, word, "no size");
	return r == 0;
}

/* The destinations of the rest of the line. NULL: complained about. */
static uint64_t *read_dsts(struct batch *batch, char **save, uint32_t *ret_count)
{
	uint64_t *dsts = NULL;
	uint32_t count = 0;
	char *word;

	while ((word = strtok_r(NULL, BLANKS, save)) != NULL) {
		if ((count & (count - 1)) == 0) {
			size_t room = count == 0 ? 1 : 2 * (size_t)count;
			uint64_t *grown = realloc(dsts, room * sizeof(*dsts));

			if (grown == NULL) {
				bad_line(batch, "", strerror(ENOMEM));
				free(dsts);
				return NULL;
			}
			dsts = grown;
		}
		if (!read_number(batch, word, &dsts[count])) {
			free(dsts);
			return NULL;
		}
		count++;
	}
	if (dsts == NULL)
		bad_line(batch, "", "SRC, LEN and at least one DST are needed");
	*ret_count = count;
	return dsts;
}

static bool read_line(struct batch *batch, char *text, struct same_line *line)
{
	char *save = NULL;
	char *src = strtok_r(text, BLANKS, &save);
	char *len = strtok_r(NULL, BLANKS, &save);
	uint64_t *dsts;
	uint32_t count;

	*line = (struct same_line){.sync = batch->sync};
	line->zero = strcmp(src, "zero") == 0;
	if (!line->zero && !read_number(batch, src, &line->src_off_bytes))
		return false;
	if (len != NULL && !read_number(batch, len, &line->len_bytes))
		return false;
	dsts = read_dsts(batch, &save, &count);
	if (dsts == NULL)
		return false;
	if (same_line_begin(line, dsts, count) == 0)
		return true;
	same_line_done(line);
	bad_line(batch, "", strerror(ENOMEM));
	return false;
}

/* Reads up to the next line that names something to do. False: there is none. */
static bool next_line(struct batch *batch, struct same_line *line)
{
	while (getline(&batch->text, &batch->text_size, batch->file) >= 0) {
		char *text = batch->text + strspn(batch->text, BLANKS);

		batch->number++;
		if (*text == '\0' || *text == '#')
			continue;
		if (read_line(batch, text, line))
			return true;
	}
	if (ferror(batch->file)) {
		say_error("cannot read the batch", batch->path, "%s", strerror(errno));
		batch->sums.errors++;
	}
	return false;
}

/* --- running --- */

static void break_off(struct batch *batch, int r)
{
	batch->broken = r;
	batch->ended = true;
}

static void send_slot(struct batch *batch, struct batch_slot *slot)
{
	json_t *params;
	int r;

	if (same_line_finished(&slot->line))
		return;
	params = same_line_params(&slot->line);
	r = params == NULL ? -ENOMEM : client_send(batch->client, "same", params, &slot->id);
	if (r < 0)
		break_off(batch, r);
}

static bool must_wait(struct batch *batch, const struct batch_slot *slot)
{
	for (uint64_t i = batch->head; slot_at(batch, i) != slot; i++) {
		const struct same_line *before = &slot_at(batch, i)->line;

		if (!same_line_finished(before) && same_line_conflicts(before, &slot->line))
			return true;
	}
	return false;
}

/* Sends what may run now. */
static void fill(struct batch *batch)
{
	for (;;) {
		struct batch_slot *slot;

		if (!batch->held) {
			if (batch->ended || batch->tail - batch->head == SAME_BATCH_LINES)
				return;
			slot = slot_at(batch, batch->tail);
			if (!next_line(batch, &slot->line)) {
				batch->ended = true;
				return;
			}
			slot->id = 0;
			batch->tail++;
		}
		slot = slot_at(batch, batch->tail - 1);
		batch->held = must_wait(batch, slot);
		if (batch->held)
			return;
		send_slot(batch, slot);
	}
}

static void print_finished(struct batch *batch)
{
	while (batch->head < batch->tail) {
		struct same_line *line = &slot_at(batch, batch->head)->line;

		if (!same_line_finished(line))
			return;
		same_print(line, batch->format);
		same_sums_add(&batch->sums, line);
		same_line_done(line);
		batch->head++;
	}
}

/* An id of 0 stands for none, on both sides. */
static struct batch_slot *find_slot(struct batch *batch, uint64_t id)
{
	if (id == 0)
		return NULL;
	for (uint64_t i = batch->head; i < batch->tail; i++)
		if (slot_at(batch, i)->id == id && !same_line_finished(&slot_at(batch, i)->line))
			return slot_at(batch, i);
	return NULL;
}

static int take_answer(struct batch *batch)
{
	struct client_answer answer;
	struct batch_slot *slot;
	int r = client_answer(batch->client, &answer);

	if (r < 0)
		return r;
	slot = find_slot(batch, answer.id);
	if (slot == NULL) {
		/* An error that belongs to no call: the server is about to hang up, and says
		 * why. */
		if (answer.error_name != NULL)
			say_error("the server gives up", batch->client->path, "%s", answer.message);
		client_answer_done(&answer);
		return -EPIPE;
	}
	if (answer.result != NULL)
		r = same_line_result(&slot->line, answer.result);
	else
		same_line_failed(&slot->line, answer.error_name, answer.message);
	client_answer_done(&answer);
	if (r < 0)
		same_line_failed(&slot->line, ctl_errno_name(r), strerror(-r));
	send_slot(batch, slot);
	return 0;
}

static void run_batch(struct batch *batch)
{
	while (batch->broken == 0) {
		int r;

		fill(batch);
		print_finished(batch);
		if (batch->head == batch->tail && batch->ended)
			return;
		if (batch->head == batch->tail || batch->broken != 0)
			continue;
		r = take_answer(batch);
		if (r < 0)
			break_off(batch, r);
	}
	say_error("the batch is broken off", batch->client->path, "%s, at line %" PRIu64,
		  batch->broken == -EPIPE ? "the server has closed the connection"
					  : strerror(-batch->broken),
		  batch->number);
	for (uint64_t i = batch->head; i < batch->tail; i++)
		if (!same_line_finished(&slot_at(batch, i)->line))
			same_line_failed(&slot_at(batch, i)->line, ctl_errno_name(batch->broken),
					 "the connection to the server failed");
	print_finished(batch);
}

int same_batch(struct client *client, const char *path, bool sync, enum same_format format)
{
	struct batch *batch = calloc(1, sizeof(*batch));
	int status;

	if (batch != NULL)
		batch->file = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
	if (batch == NULL || batch->file == NULL) {
		say_error("cannot read the batch", path, "%s", strerror(errno));
		free(batch);
		return EXIT_FAILED;
	}
	batch->client = client;
	batch->path = path;
	batch->sync = sync;
	batch->format = format;
	run_batch(batch);
	same_sums_print(&batch->sums, format);
	status = same_sums_status(&batch->sums);
	if (batch->broken != 0)
		status = EXIT_FAILED;
	if (batch->file != stdin)
		fclose(batch->file);
	free(batch->text);
	free(batch);
	return status;
}
