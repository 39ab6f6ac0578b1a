/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ctl_frame - cuts a stream of bytes into lines of a bounded length
 *
 * The reader asks for room, reads into it, says how much it got, and takes lines until there
 * are none:
 *
 *   room -> read() -> added -> next, next, ... -> CTL_FRAME_NONE -> room ...
 *
 * A line that grows beyond the limit is reported once, as soon as that is certain, and the
 * rest of it is thrown away up to its newline; what follows is a good line again.
 *
 * Pure: no I/O. Memory grows up to the limit and is given back when a long line is done.
 */
#ifndef SERVER_CONTROL_PROTOCOL_CTL_FRAME_H
#define SERVER_CONTROL_PROTOCOL_CTL_FRAME_H

#include <stdbool.h>
#include <stddef.h>

struct ctl_frame {
	char *buf;
	size_t limit_bytes;
	size_t capacity;
	size_t start; /* of the line that is not finished */
	size_t scanned; /* no newline between start and here */
	size_t end;
	bool skipping; /* inside a line that was too long */
};

enum ctl_frame_event {
	CTL_FRAME_NONE,
	CTL_FRAME_LINE,
	CTL_FRAME_TOO_LONG,
};

void ctl_frame_init(struct ctl_frame *frame, size_t limit_bytes);
void ctl_frame_done(struct ctl_frame *frame);

/* Where to read to, at least one byte; NULL: no memory. Only after next() said NONE. */
char *ctl_frame_room(struct ctl_frame *frame, size_t *ret_len_bytes);
void ctl_frame_added(struct ctl_frame *frame, size_t len_bytes);

/* The line has no newline and no NUL at its end, and lives until the next room(). */
enum ctl_frame_event ctl_frame_next(struct ctl_frame *frame, const char **ret_line,
				    size_t *ret_len_bytes);

/* Whether part of a line is there; after next() said NONE. */
bool ctl_frame_half(const struct ctl_frame *frame);

#endif
