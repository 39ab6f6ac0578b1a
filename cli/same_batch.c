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
 * not been sent. Small lines that may run are gathered and sent many at a time, as the ranges of
 * one call.
 */
#include "cli/same_batch.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/parse.h"
#include "cli/same_conflicts.h"
#include "cli/say.h"
#include "server/ctl_rpc.h"

#define BLANKS	       " \t\r\n"
#define RANGES_A_CALL  128u
#define LINE_BYTES_MAX (16u << 20)

struct batch_slot {
	struct same_line line;
	uint64_t id; /* of the request under way; 0: none */
	bool gathered; /* it is, or will be, one of the ranges of a call */
};

struct batch {
	struct client *client;
	const char *path;
	int fd;
	struct ctl_frame frame;
	bool eof; /* of the input */
	uint64_t number; /* of the line read last */
	bool sync;
	bool ended; /* no more lines */
	int broken; /* negative errno of the connection */
	enum same_format format;
	struct same_sums sums;
	bool held; /* the slot before tail is not sent yet */
	struct ctl_text ranges; /* gathered and not sent yet */
	unsigned gathered; /* so many */
	struct same_conflicts conflicts;
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

enum input {
	INPUT_LINE,
	INPUT_LATER, /* there may be more, but not now */
	INPUT_END,
};

static bool readable_now(int fd)
{
	struct pollfd poller = {.fd = fd, .events = POLLIN};

	return poll(&poller, 1, 0) != 0;
}

static void read_more(struct batch *batch)
{
	size_t room;
	char *to = ctl_frame_room(&batch->frame, &room);
	ssize_t got;

	do {
		got = to == NULL ? -1 : read(batch->fd, to, room);
	} while (got < 0 && to != NULL && errno == EINTR);
	if (got < 0) {
		say_error("cannot read the batch", batch->path, "%s",
			  strerror(to == NULL ? ENOMEM : errno));
		batch->sums.errors++;
	}
	if (got > 0) {
		ctl_frame_added(&batch->frame, (size_t)got);
		return;
	}
	batch->eof = true;
	/* The last line may lack its end. */
	if (got == 0 && ctl_frame_half(&batch->frame)) {
		*to = '\n';
		ctl_frame_added(&batch->frame, 1);
	}
}

/* While lines are in flight it does not wait for more: they have to be sent and printed. */
static enum input next_text(struct batch *batch, char **ret_text)
{
	const char *line;
	size_t len;

	for (;;) {
		switch (ctl_frame_next(&batch->frame, &line, &len)) {
		case CTL_FRAME_LINE:
			batch->number++;
			*ret_text = (char *)line; /* of the frame's buffer, which is ours */
			(*ret_text)[len] = '\0';
			return INPUT_LINE;
		case CTL_FRAME_TOO_LONG:
			batch->number++;
			bad_line(batch, "", "too long");
			continue;
		case CTL_FRAME_NONE:
			break;
		}
		if (batch->eof)
			return INPUT_END;
		if (batch->head != batch->tail && !readable_now(batch->fd))
			return INPUT_LATER;
		if (batch->head == batch->tail)
			fflush(stdout); /* somebody may wait for the answers before asking more */
		read_more(batch);
	}
}

/* Reads up to the next line that names something to do. */
static enum input next_line(struct batch *batch, struct same_line *line)
{
	enum input input;
	char *text;

	while ((input = next_text(batch, &text)) == INPUT_LINE) {
		text += strspn(text, BLANKS);
		if (*text != '\0' && *text != '#' && read_line(batch, text, line))
			break;
	}
	return input;
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

/* The next call's ranges are the slots that are gathered and have no id, in their order. */
static void gather(struct batch *batch, struct batch_slot *slot)
{
	const struct same_line *line = &slot->line;
	struct ctl_text *text = &batch->ranges;

	if (same_line_finished(line))
		return;
	ctl_text_add(text, batch->gathered == 0 ? "{\"ranges\":[[" : ",[");
	if (line->zero)
		ctl_text_add(text, "\"zero\"");
	else
		ctl_text_add_number(text, line->src_off_bytes);
	ctl_text_add(text, ",");
	ctl_text_add_number(text, line->len_bytes);
	ctl_text_add(text, ",");
	ctl_text_add_number(text, line->outcomes[0].dst_off_bytes);
	ctl_text_add(text, "]");
	batch->gathered++;
	slot->gathered = true;
}

static void send_gathered(struct batch *batch)
{
	char *params;
	uint64_t id;
	int r;

	if (batch->gathered == 0)
		return;
	batch->gathered = 0;
	ctl_text_add(&batch->ranges, batch->sync ? "],\"sync\":true}" : "]}");
	params = ctl_text_take(&batch->ranges);
	r = params == NULL ? -ENOMEM : client_send_text(batch->client, "same_ranges", params, &id);
	free(params);
	if (r < 0) {
		break_off(batch, r);
		return;
	}
	for (uint64_t i = batch->head; i < batch->tail; i++)
		if (slot_at(batch, i)->gathered && slot_at(batch, i)->id == 0)
			slot_at(batch, i)->id = id;
}

static void send_or_gather(struct batch *batch, struct batch_slot *slot)
{
	same_conflicts_add(&batch->conflicts, &slot->line);
	if (!same_line_is_small(&slot->line)) {
		send_slot(batch, slot);
		return;
	}
	gather(batch, slot);
	if (batch->gathered == RANGES_A_CALL)
		send_gathered(batch);
}

static bool must_wait(struct batch *batch, const struct batch_slot *slot)
{
	if (!same_conflicts_maybe(&batch->conflicts, &slot->line))
		return false;
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
		enum input input;

		if (!batch->held) {
			if (batch->ended || batch->tail - batch->head == SAME_BATCH_LINES ||
			    batch->conflicts.large >= SAME_BATCH_LARGE_LINES)
				return;
			slot = slot_at(batch, batch->tail);
			input = next_line(batch, &slot->line);
			batch->ended = input == INPUT_END;
			if (input != INPUT_LINE)
				return;
			slot->id = 0;
			slot->gathered = false;
			batch->tail++;
		}
		slot = slot_at(batch, batch->tail - 1);
		batch->held = must_wait(batch, slot);
		if (batch->held)
			return;
		send_or_gather(batch, slot);
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
		same_conflicts_remove(&batch->conflicts, line);
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

static void settled(struct batch *batch, struct batch_slot *slot, int r)
{
	if (r < 0)
		same_line_failed(&slot->line, ctl_errno_name(r), strerror(-r));
	slot->gathered = false;
	slot->id = 0;
	send_slot(batch, slot);
}

/* The results are in the order of the slots. */
static void take_ranges(struct batch *batch, const struct client_answer *answer)
{
	const json_t *results = json_object_get(answer->result, "results");
	size_t n = 0;

	for (uint64_t i = batch->head; i < batch->tail; i++) {
		struct batch_slot *slot = slot_at(batch, i);
		int r = 0;

		if (slot->id != answer->id || !slot->gathered)
			continue;
		if (n < answer->range_count)
			r = same_line_range_same(&slot->line, &answer->ranges[n]);
		else if (answer->result != NULL)
			r = same_line_range_result(&slot->line, json_array_get(results, n));
		else
			same_line_failed(&slot->line, answer->error_name, answer->message);
		n++;
		settled(batch, slot, r);
	}
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
	if (slot->gathered) {
		take_ranges(batch, &answer);
		client_answer_done(&answer);
		return 0;
	}
	if (answer.result != NULL)
		r = same_line_result(&slot->line, answer.result);
	else
		same_line_failed(&slot->line, answer.error_name, answer.message);
	client_answer_done(&answer);
	settled(batch, slot, r);
	return 0;
}

static void run_batch(struct batch *batch)
{
	while (batch->broken == 0) {
		int r;

		fill(batch);
		send_gathered(batch);
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
		batch->fd =
			strcmp(path, "-") == 0 ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
	if (batch == NULL || batch->fd < 0) {
		say_error("cannot read the batch", path, "%s", strerror(errno));
		free(batch);
		return EXIT_FAILED;
	}
	ctl_frame_init(&batch->frame, LINE_BYTES_MAX);
	batch->client = client;
	batch->path = path;
	batch->sync = sync;
	batch->format = format;
	run_batch(batch);
	same_sums_print(&batch->sums, format);
	status = same_sums_status(&batch->sums);
	if (batch->broken != 0)
		status = EXIT_FAILED;
	if (batch->fd != STDIN_FILENO)
		close(batch->fd);
	ctl_text_done(&batch->ranges);
	ctl_frame_done(&batch->frame);
	free(batch);
	return status;
}
