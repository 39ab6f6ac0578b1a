/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ctl_frame - see the header. The buffer never exceeds the limit by more than one byte, the
 * newline. */
#include "server/control/protocol/ctl_frame.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define FRAME_BYTES_MIN 4096u

void ctl_frame_init(struct ctl_frame *frame, size_t limit_bytes)
{
	*frame = (struct ctl_frame){.limit_bytes = limit_bytes};
}

void ctl_frame_done(struct ctl_frame *frame)
{
	free(frame->buf);
	frame->buf = NULL;
}

static void compact(struct ctl_frame *frame)
{
	if (frame->start == 0)
		return;
	memmove(frame->buf, frame->buf + frame->start, frame->end - frame->start);
	frame->end -= frame->start;
	frame->scanned -= frame->start;
	frame->start = 0;
}

/* A long line is done: its memory is not kept for the short ones that follow. */
static void shrink(struct ctl_frame *frame)
{
	if (frame->end > 0 || frame->capacity <= FRAME_BYTES_MIN)
		return;
	free(frame->buf);
	frame->buf = NULL;
	frame->capacity = 0;
}

char *ctl_frame_room(struct ctl_frame *frame, size_t *ret_len_bytes)
{
	compact(frame);
	shrink(frame);
	if (frame->end == frame->capacity) {
		size_t capacity = frame->capacity == 0 ? FRAME_BYTES_MIN : 2 * frame->capacity;
		char *buf;

		if (capacity > frame->limit_bytes + 1)
			capacity = frame->limit_bytes + 1;
		assert(capacity > frame->end);
		buf = realloc(frame->buf, capacity);
		if (buf == NULL)
			return NULL;
		frame->buf = buf;
		frame->capacity = capacity;
	}
	*ret_len_bytes = frame->capacity - frame->end;
	return frame->buf + frame->end;
}

void ctl_frame_added(struct ctl_frame *frame, size_t len_bytes)
{
	assert(len_bytes <= frame->capacity - frame->end);
	frame->end += len_bytes;
}

enum ctl_frame_event ctl_frame_next(struct ctl_frame *frame, const char **ret_line,
				    size_t *ret_len_bytes)
{
	while (frame->scanned < frame->end) {
		char *from = frame->buf + frame->scanned;
		char *newline = memchr(from, '\n', frame->end - frame->scanned);
		size_t line = frame->start;

		if (newline == NULL)
			break;
		frame->start = frame->scanned = (size_t)(newline - frame->buf) + 1;
		if (frame->skipping) {
			frame->skipping = false;
			continue;
		}
		*ret_line = frame->buf + line;
		*ret_len_bytes = (size_t)(newline - frame->buf) - line;
		return CTL_FRAME_LINE;
	}
	frame->scanned = frame->end;
	if (frame->skipping) {
		frame->start = frame->scanned = frame->end = 0;
		return CTL_FRAME_NONE;
	}
	if (frame->end - frame->start <= frame->limit_bytes)
		return CTL_FRAME_NONE;
	frame->skipping = true;
	frame->start = frame->scanned = frame->end = 0;
	return CTL_FRAME_TOO_LONG;
}

bool ctl_frame_half(const struct ctl_frame *frame)
{
	return frame->skipping || frame->end > frame->start;
}
