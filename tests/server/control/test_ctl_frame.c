/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_ctl_frame - lines come out whole however they come in, and memory is bounded
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/control/protocol/ctl_frame.h"

#define LIMIT 10000u

/* Feeds at most `most` bytes at a time and writes what comes out to log: "L<len>:<first byte>"
 * or "!". */
static void feed(struct ctl_frame *frame, const char *bytes, size_t len, size_t most, char *log)
{
	const char *line;
	size_t line_len;

	while (len > 0) {
		enum ctl_frame_event event;
		size_t room;
		char *to = ctl_frame_room(frame, &room);
		size_t part = room < most ? room : most;

		cr_assert_not_null(to);
		cr_assert_gt(room, 0);
		part = part < len ? part : len;
		memcpy(to, bytes, part);
		ctl_frame_added(frame, part);
		bytes += part;
		len -= part;
		while ((event = ctl_frame_next(frame, &line, &line_len)) != CTL_FRAME_NONE) {
			if (event == CTL_FRAME_TOO_LONG)
				log += sprintf(log, "!");
			else
				log += sprintf(log, "L%zu:%.1s", line_len,
					       line_len > 0 ? line : "-");
		}
		cr_assert_leq(frame->capacity, LIMIT + 1, "the buffer outgrew its limit");
	}
}

static char *repeat(char c, size_t count, char *to)
{
	memset(to, c, count);
	return to + count;
}

Test(ctl_frame, the_cut_of_reads_does_not_matter)
{
	static const size_t cuts[] = {1, 2, 3, 7, 4096, 100000};
	char *bytes = malloc(5 * LIMIT);
	char *end = bytes;

	end = repeat('a', 5, end);
	end = repeat('\n', 2, end);
	end = repeat('b', LIMIT, end);
	end = repeat('\n', 1, end);
	end = repeat('c', LIMIT + 1, end);
	end = repeat('\n', 1, end);
	end = repeat('d', 2 * LIMIT, end);
	end = repeat('\n', 1, end);
	end = repeat('e', 1, end);
	end = repeat('\n', 1, end);
	for (size_t i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
		struct ctl_frame frame;
		char log[200] = "";

		ctl_frame_init(&frame, LIMIT);
		feed(&frame, bytes, (size_t)(end - bytes), cuts[i], log);
		cr_assert_str_eq(log, "L5:aL0:-L10000:b!!L1:e", "cut %zu: %s", cuts[i], log);
		cr_assert_not(ctl_frame_half(&frame));
		ctl_frame_done(&frame);
	}
	free(bytes);
}

Test(ctl_frame, half_a_line_is_known_as_such)
{
	struct ctl_frame frame;
	char log[100] = "";

	ctl_frame_init(&frame, LIMIT);
	cr_assert_not(ctl_frame_half(&frame));
	feed(&frame, "abc", 3, 10, log);
	cr_assert(ctl_frame_half(&frame));
	cr_assert_str_eq(log, "");
	feed(&frame, "d\n", 2, 10, log);
	cr_assert_not(ctl_frame_half(&frame));
	cr_assert_str_eq(log, "L4:a");
	ctl_frame_done(&frame);
}

/* Goal: what a line that was too long leaves behind is still no line of its own. */
Test(ctl_frame, the_tail_of_a_long_line_is_thrown_away)
{
	struct ctl_frame frame;
	char log[100] = "";
	char *bytes = malloc(LIMIT + 1);

	ctl_frame_init(&frame, LIMIT);
	repeat('x', LIMIT + 1, bytes);
	feed(&frame, bytes, LIMIT + 1, LIMIT + 1, log);
	cr_assert_str_eq(log, "!", "it is reported before its newline comes");
	cr_assert(ctl_frame_half(&frame));
	log[0] = '\0';
	feed(&frame, bytes, LIMIT, 999, log);
	feed(&frame, "tail\ngood\n", 10, 3, log);
	cr_assert_str_eq(log, "L4:g");
	ctl_frame_done(&frame);
	free(bytes);
}

Test(ctl_frame, memory_of_a_long_line_is_given_back)
{
	struct ctl_frame frame;
	char log[100] = "";
	char *bytes = malloc(LIMIT);
	size_t room;

	ctl_frame_init(&frame, LIMIT);
	repeat('x', LIMIT, bytes)[-1] = '\n';
	feed(&frame, bytes, LIMIT, LIMIT, log);
	cr_assert_not_null(ctl_frame_room(&frame, &room));
	cr_assert_leq(frame.capacity, 4096);
	ctl_frame_done(&frame);
	free(bytes);
}
