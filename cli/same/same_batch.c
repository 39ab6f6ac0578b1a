/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * same_batch - see the header
 *
 * The lines in flight stand in their ring (same_flight.h) in the order they were read, and are
 * printed from its head. The line that was read last may be `held`: it conflicts with one in
 * flight and has not been sent.
 *
 * After Ctrl-C no more lines are read; those in flight are finished, printed and summed up.
 */
#include "cli/same/same_batch.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/base/dedupe_signal.h"
#include "cli/base/parse.h"
#include "cli/base/say.h"
#include "cli/same/same_conflicts.h"
#include "cli/same/same_flight.h"
#include "server/base/size.h"

#define BLANKS	       " \t\r\n"
#define LINE_BYTES_MAX (16u << 20)

struct batch {
	struct same_flight flight;
	const char *path;
	int fd;
	struct ctl_frame frame;
	bool eof; /* of the input */
	uint64_t number; /* of the line read last */
	bool sync;
	bool ended; /* no more lines */
	enum same_format format;
	struct same_sums sums;
	bool held; /* the slot before tail is not sent yet */
	struct same_conflicts conflicts;
};

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
	int r = size_parse(word, ret_bytes);

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

/* A signal ends the wait. */
static bool is_readable(int fd, int timeout_ms)
{
	struct pollfd poller = {.fd = fd, .events = POLLIN};

	return poll(&poller, 1, timeout_ms) > 0;
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
		if (dedupe_signal_came())
			return INPUT_END;
		switch (ctl_frame_next(&batch->frame, &line, &len)) {
		case CTL_FRAME_LINE:
			batch->number++;
			if (memchr(line, '\0', len) != NULL) {
				bad_line(batch, "", "it has a NUL byte");
				continue;
			}
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
		if (!same_flight_empty(&batch->flight)) {
			if (!is_readable(batch->fd, 0))
				return INPUT_LATER;
		} else {
			fflush(stdout); /* somebody may wait for the answers before asking more */
			if (!is_readable(batch->fd, -1))
				continue;
		}
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

static bool must_wait(struct batch *batch, const struct same_slot *slot)
{
	struct same_flight *flight = &batch->flight;

	if (!same_conflicts_maybe(&batch->conflicts, &slot->line))
		return false;
	for (uint64_t i = flight->head; same_flight_at(flight, i) != slot; i++) {
		const struct same_line *before = &same_flight_at(flight, i)->line;

		if (!same_line_finished(before) && same_line_conflicts(before, &slot->line))
			return true;
	}
	return false;
}

/* Sends what may run now. */
static void fill(struct batch *batch)
{
	struct same_flight *flight = &batch->flight;

	while (flight->broken == 0) {
		struct same_slot *slot;
		enum input input;

		if (!batch->held) {
			if (batch->ended || same_flight_full(flight) ||
			    batch->conflicts.large >= SAME_FLIGHT_LARGE)
				return;
			slot = same_flight_at(flight, flight->tail);
			input = next_line(batch, &slot->line);
			batch->ended = input == INPUT_END;
			if (input != INPUT_LINE)
				return;
			slot->line.number = batch->number;
			slot->id = 0;
			slot->gathered = false;
			flight->tail++;
		}
		slot = same_flight_at(flight, flight->tail - 1);
		batch->held = must_wait(batch, slot);
		if (batch->held)
			return;
		same_conflicts_add(&batch->conflicts, &slot->line);
		same_flight_send(flight, slot);
	}
}

static void print_finished(struct batch *batch)
{
	struct same_flight *flight = &batch->flight;

	while (!same_flight_empty(flight)) {
		struct same_line *line = &same_flight_at(flight, flight->head)->line;

		if (!same_line_finished(line))
			return;
		same_print(line, batch->format);
		same_sums_add(&batch->sums, line);
		same_conflicts_remove(&batch->conflicts, line);
		same_line_done(line);
		flight->head++;
	}
}

static void run_batch(struct batch *batch)
{
	struct same_flight *flight = &batch->flight;

	while (flight->broken == 0) {
		fill(batch);
		same_flight_push(flight);
		print_finished(batch);
		if (same_flight_empty(flight) && batch->ended && flight->broken == 0)
			return;
		if (!same_flight_empty(flight) && flight->broken == 0)
			same_flight_answer(flight);
	}
	say_error("the batch is broken off", flight->client->server, "%s, at line %" PRIu64,
		  flight->broken == -EPIPE ? "the server has closed the connection"
					   : strerror(-flight->broken),
		  batch->number);
	same_flight_give_up(flight);
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
	batch->flight.client = client;
	batch->flight.sync = sync;
	batch->path = path;
	batch->sync = sync;
	batch->format = format;
	dedupe_signal_catch();
	run_batch(batch);
	same_sums_print(&batch->sums, format);
	status = same_sums_status(&batch->sums);
	if (batch->flight.broken != 0)
		status = EXIT_FAILED;
	if (dedupe_signal_came() && !batch->eof) {
		say_error("interrupted", path, "after line %" PRIu64, batch->number);
		status = exit_worse(status, EXIT_SEE);
	}
	if (batch->fd != STDIN_FILENO)
		close(batch->fd);
	same_flight_done(&batch->flight);
	ctl_frame_done(&batch->frame);
	free(batch);
	return status;
}
