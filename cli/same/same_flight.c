/* SPDX-License-Identifier: GPL-2.0-or-later */
/* same_flight - see the header */
#include "cli/same/same_flight.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/base/say.h"
#include "server/control/protocol/ctl_rpc.h"

#define RANGES_A_CALL 128u

void same_flight_done(struct same_flight *flight)
{
	ctl_text_done(&flight->ranges);
}

/* --- sending --- */

static void send_slot(struct same_flight *flight, struct same_slot *slot)
{
	json_t *params;
	int r;

	if (same_line_finished(&slot->line))
		return;
	params = same_line_params(&slot->line);
	r = params == NULL ? -ENOMEM : client_send(flight->client, "same", params, &slot->id);
	if (r < 0)
		flight->broken = r;
}

/* The next call's ranges are the slots that are gathered and have no id, in their order. */
static void gather(struct same_flight *flight, struct same_slot *slot)
{
	const struct same_line *line = &slot->line;
	struct ctl_text *text = &flight->ranges;

	if (same_line_finished(line))
		return;
	ctl_text_add(text, flight->gathered == 0 ? "{\"ranges\":[[" : ",[");
	if (line->zero)
		ctl_text_add(text, "\"zero\"");
	else
		ctl_text_add_number(text, line->src_off_bytes);
	ctl_text_add(text, ",");
	ctl_text_add_number(text, line->len_bytes);
	ctl_text_add(text, ",");
	ctl_text_add_number(text, line->outcomes[0].dst_off_bytes);
	ctl_text_add(text, "]");
	flight->gathered++;
	slot->gathered = true;
}

void same_flight_push(struct same_flight *flight)
{
	char *params;
	uint64_t id;
	int r;

	if (flight->gathered == 0)
		return;
	flight->gathered = 0;
	ctl_text_add(&flight->ranges, flight->sync ? "],\"sync\":true}" : "]}");
	params = ctl_text_take(&flight->ranges);
	r = params == NULL ? -ENOMEM : client_send_text(flight->client, "same_ranges", params, &id);
	free(params);
	if (r < 0) {
		flight->broken = r;
		return;
	}
	for (uint64_t i = flight->head; i < flight->tail; i++) {
		struct same_slot *slot = same_flight_at(flight, i);

		if (slot->gathered && slot->id == 0)
			slot->id = id;
	}
}

void same_flight_send(struct same_flight *flight, struct same_slot *slot)
{
	slot->id = 0;
	slot->gathered = false;
	if (!same_line_is_small(&slot->line)) {
		send_slot(flight, slot);
		return;
	}
	gather(flight, slot);
	if (flight->gathered == RANGES_A_CALL)
		same_flight_push(flight);
}

/* --- answers --- */

/* An id of 0 stands for none, on both sides. */
static struct same_slot *find_slot(struct same_flight *flight, uint64_t id)
{
	if (id == 0)
		return NULL;
	for (uint64_t i = flight->head; i < flight->tail; i++) {
		struct same_slot *slot = same_flight_at(flight, i);

		if (slot->id == id && !same_line_finished(&slot->line))
			return slot;
	}
	return NULL;
}

static void settled(struct same_flight *flight, struct same_slot *slot, int r)
{
	if (r < 0)
		same_line_failed(&slot->line, ctl_errno_name(r), strerror(-r));
	slot->gathered = false;
	slot->id = 0;
	send_slot(flight, slot);
}

/* The results are in the order of the slots. */
static void take_ranges(struct same_flight *flight, const struct client_answer *answer)
{
	const json_t *results = json_object_get(answer->result, "results");
	size_t n = 0;

	for (uint64_t i = flight->head; i < flight->tail; i++) {
		struct same_slot *slot = same_flight_at(flight, i);
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
		settled(flight, slot, r);
	}
}

static void take_answer(struct same_flight *flight, struct same_slot *slot,
			const struct client_answer *answer)
{
	int r = 0;

	if (slot->gathered) {
		take_ranges(flight, answer);
		return;
	}
	if (answer->result != NULL)
		r = same_line_result(&slot->line, answer->result);
	else
		same_line_failed(&slot->line, answer->error_name, answer->message);
	settled(flight, slot, r);
}

void same_flight_answer(struct same_flight *flight)
{
	struct client_answer answer;
	struct same_slot *slot;
	int r = client_answer(flight->client, &answer);

	if (r < 0) {
		flight->broken = r;
		return;
	}
	slot = find_slot(flight, answer.id);
	if (slot != NULL) {
		take_answer(flight, slot, &answer);
	} else {
		/* An error that belongs to no call: the server is about to hang up, and says
		 * why. */
		if (answer.error_name != NULL)
			say_error("the server gives up", flight->client->server, "%s",
				  answer.message);
		flight->broken = -EPIPE;
	}
	client_answer_done(&answer);
}

void same_flight_give_up(struct same_flight *flight)
{
	for (uint64_t i = flight->head; i < flight->tail; i++) {
		struct same_line *line = &same_flight_at(flight, i)->line;

		if (!same_line_finished(line))
			same_line_failed(line, ctl_errno_name(flight->broken),
					 "the connection to the server failed");
	}
}
