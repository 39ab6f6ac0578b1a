/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * same_flight - same_lines under way over one connection, in a ring
 *
 *   head (over first) ... tail (begun last)
 *
 * Lines are begun at the tail and taken away at the head; in between each is under way, or has
 * finished and waits for those before it. Whoever owns the ring fills a line in, sends it, takes
 * answers, and takes finished lines away. Small lines are gathered and sent many at a time, as the
 * ranges of one call; same_flight_push() sends what is gathered.
 *
 * Errors    a connection that fails is `broken`: nothing more is sent, and same_flight_give_up()
 *           finishes what was under way with that error.
 * Memory    SAME_FLIGHT_LINES lines, and what done() gives back. Blocking: same_flight_answer().
 */
#ifndef CLI_SAME_SAME_FLIGHT_H
#define CLI_SAME_SAME_FLIGHT_H

#include <stdbool.h>
#include <stdint.h>

#include "cli/base/client.h"
#include "cli/same/same_line.h"
#include "server/control/protocol/ctl_text.h"

#define SAME_FLIGHT_LINES 1024u
#define SAME_FLIGHT_LARGE 32u /* of them, lines that are not small; the owner sees to that */

struct same_slot {
	struct same_line line;
	uint64_t id; /* of the call under way; 0: none */
	bool gathered; /* it is, or will be, one of the ranges of a call */
};

struct same_flight {
	struct client *client;
	bool sync;
	int broken; /* negative errno of the connection */
	struct ctl_text ranges; /* gathered and not sent yet */
	unsigned gathered; /* so many */
	uint64_t head;
	uint64_t tail;
	struct same_slot slots[SAME_FLIGHT_LINES];
};

void same_flight_done(struct same_flight *flight);

static inline struct same_slot *same_flight_at(struct same_flight *flight, uint64_t index)
{
	return &flight->slots[index % SAME_FLIGHT_LINES];
}

static inline bool same_flight_empty(const struct same_flight *flight)
{
	return flight->head == flight->tail;
}

static inline bool same_flight_full(const struct same_flight *flight)
{
	return flight->tail - flight->head == SAME_FLIGHT_LINES;
}

/* The first request of the slot's line, at once or with others; nothing if the line has
 * finished. */
void same_flight_send(struct same_flight *flight, struct same_slot *slot);
void same_flight_push(struct same_flight *flight);

/* Waits for an answer, gives it to its lines and sends what they want next. */
void same_flight_answer(struct same_flight *flight);

/* The connection has failed: so have all lines that had not finished. */
void same_flight_give_up(struct same_flight *flight);

#endif
