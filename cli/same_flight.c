/* SPDX-License-Identifier: GPL-2.0-or-later */
/* same_flight - see the header */
#include "cli/same_flight.h"

#include <errno.h>
#include <string.h>

#include "cli/say.h"
#include "server/ctl_rpc.h"

void same_flight_send(struct same_flight *flight, struct same_slot *slot)
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

static struct same_slot *find_slot(struct same_flight *flight, uint64_t id)
{
	/* An id of 0 stands for none, on both sides. */
	if (id == 0)
		return NULL;
	for (uint64_t i = flight->head; i < flight->tail; i++) {
		struct same_slot *slot = same_flight_at(flight, i);

		if (slot->id == id && !same_line_finished(&slot->line))
			return slot;
	}
	return NULL;
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
	if (slot == NULL) {
		/* An error that belongs to no call: the server is about to hang up, and says
		 * why. */
		if (answer.error_name != NULL)
			say_error("the server gives up", flight->client->path, "%s",
				  answer.message);
		client_answer_done(&answer);
		flight->broken = -EPIPE;
		return;
	}
	if (answer.result != NULL)
		r = same_line_result(&slot->line, answer.result);
	else
		same_line_failed(&slot->line, answer.error_name, answer.message);
	client_answer_done(&answer);
	if (r < 0)
		same_line_failed(&slot->line, ctl_errno_name(r), strerror(-r));
	same_flight_send(flight, slot);
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
