/* SPDX-License-Identifier: GPL-2.0-or-later */
/* dedupe_submit - see the header */
#include "cli/dedupe/dedupe_submit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/base/dedupe_signal.h"
#include "cli/base/say.h"
#include "core/request/request.h"

#define COMPLAINTS_MAX 10u

void dedupe_submit_init(struct dedupe_submit *submit, struct client *client,
			struct dedupe_rate *rate, struct dedupe_progress *progress)
{
	*submit = (struct dedupe_submit){.progress = progress, .rate = rate};
	submit->flight.client = client;
}

void dedupe_submit_done(struct dedupe_submit *submit)
{
	same_flight_done(&submit->flight);
	free(submit->again);
	submit->again = NULL;
}

/* --- full sources --- */

/* The source that has room as far as is known. A source is replaced at most as often as there are
 * entries. */
static uint64_t source_with_room(const struct dedupe_submit *submit, uint64_t src_block,
				 uint64_t blocks)
{
	for (unsigned hops = 0; hops < DEDUPE_FULL_SOURCES; hops++) {
		uint64_t before = src_block;

		for (unsigned i = 0; i < DEDUPE_FULL_SOURCES; i++)
			if (submit->full[i].src_block == src_block &&
			    submit->full[i].blocks == blocks)
				src_block = submit->full[i].instead_block;
		if (src_block == before)
			break;
	}
	return src_block;
}

static void replace_source(struct dedupe_submit *submit, uint64_t src_block, uint64_t blocks,
			   uint64_t instead_block)
{
	/* Others that were in flight found it full too, and one new source is enough. */
	if (source_with_room(submit, src_block, blocks) != src_block)
		return;
	submit->full[submit->next_full] = (struct dedupe_full){src_block, blocks, instead_block};
	submit->next_full = (submit->next_full + 1) % DEDUPE_FULL_SOURCES;
}

/* --- sending --- */

static int ask_again(struct dedupe_submit *submit, uint64_t src_block, uint64_t dst_block,
		     uint64_t blocks)
{
	if (blocks == 0)
		return 0;
	if (submit->again_count == submit->again_capacity) {
		uint64_t capacity = submit->again_capacity == 0 ? 64 : 2 * submit->again_capacity;
		struct dedupe_match *again =
			realloc(submit->again, capacity * sizeof(*submit->again));

		if (again == NULL)
			return -ENOMEM;
		submit->again = again;
		submit->again_capacity = capacity;
	}
	submit->again[submit->again_count++] = (struct dedupe_match){src_block, dst_block, blocks};
	return 0;
}

static int begin_line(struct dedupe_submit *submit, const struct dedupe_match *pieces,
		      uint32_t count)
{
	struct same_flight *flight = &submit->flight;
	struct same_slot *slot = same_flight_at(flight, flight->tail);
	uint64_t src = source_with_room(submit, pieces->src_block, pieces->blocks);
	uint64_t *dsts = calloc(count, sizeof(*dsts));

	if (dsts == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < count; i++)
		dsts[i] = blocks_to_bytes(pieces[i].dst_block);
	*slot = (struct same_slot){.id = 0};
	slot->line.zero = pieces->src_block == DEDUPE_ZERO;
	slot->line.src_off_bytes = slot->line.zero ? 0 : blocks_to_bytes(src);
	slot->line.len_bytes = blocks_to_bytes(pieces->blocks);
	if (same_line_begin(&slot->line, dsts, count) < 0) {
		same_line_done(&slot->line);
		return -ENOMEM;
	}
	flight->tail++;
	submit->large += !same_line_is_small(&slot->line);
	submit->progress->account.requests++;
	dedupe_rate_wait(submit->rate, slot->line.len_bytes * count);
	same_flight_send(flight, slot);
	return 0;
}

/* 1: a line was begun; 0: there is nothing more, or no room. */
static int begin_next(struct dedupe_submit *submit, struct dedupe_list *list)
{
	const struct dedupe_match *pieces;
	struct dedupe_match piece;
	uint32_t count;
	int r;

	if (same_flight_full(&submit->flight) || submit->large == SAME_FLIGHT_LARGE ||
	    submit->flight.broken != 0 || dedupe_signal_came())
		return 0;
	if (submit->again_count > 0) {
		piece = submit->again[--submit->again_count];
		r = begin_line(submit, &piece, 1);
		return r < 0 ? r : 1;
	}
	count = dedupe_list_take(list, SAME_DSTS_MAX, &pieces);
	if (count == 0)
		return 0;
	r = begin_line(submit, pieces, count);
	return r < 0 ? r : 1;
}

/* --- what came back --- */

static void complain(struct dedupe_submit *submit, const struct same_outcome *outcome)
{
	char where[48];

	if (submit->progress->account.errors++ >= COMPLAINTS_MAX)
		return;
	dedupe_progress_clear(submit->progress);
	snprintf(where, sizeof(where), "%" PRIu64, outcome->dst_off_bytes);
	say_error("cannot merge", where, "%s (%s)", outcome->message, outcome->error);
}

static int ask_for_part(struct dedupe_submit *submit, const struct same_line *line,
			const struct same_outcome *outcome, uint64_t from_block, uint64_t blocks)
{
	uint64_t src = line->zero ? DEDUPE_ZERO : line->src_off_bytes / BLOCK_BYTES + from_block;

	return ask_again(submit, src, outcome->dst_off_bytes / BLOCK_BYTES + from_block, blocks);
}

static int take_differs(struct dedupe_submit *submit, const struct same_line *line,
			const struct same_outcome *outcome)
{
	uint64_t blocks = line->len_bytes / BLOCK_BYTES;
	uint64_t same = outcome->same_bytes / BLOCK_BYTES;
	uint64_t at = outcome->differs_at_bytes / BLOCK_BYTES;
	int r;

	/* Whatever the answer says, there is less to do afterwards. */
	if (at < same || at >= blocks)
		at = same;
	submit->progress->account.rejected_bytes += BLOCK_BYTES;
	r = submit->rejected == NULL
		    ? 0
		    : submit->rejected(submit->context, outcome->dst_off_bytes / BLOCK_BYTES + at);
	if (r == 0)
		r = ask_for_part(submit, line, outcome, same, at - same);
	return r < 0 ? r : ask_for_part(submit, line, outcome, at + 1, blocks - at - 1);
}

static int take_full(struct dedupe_submit *submit, const struct same_line *line,
		     const struct same_outcome *outcome)
{
	uint64_t same = outcome->same_bytes / BLOCK_BYTES;
	uint64_t rest = line->len_bytes / BLOCK_BYTES - same;
	int r;

	if (line->count > 1 || rest <= 1) {
		submit->progress->account.kept_bytes += blocks_to_bytes(rest);
		replace_source(submit, line->src_off_bytes / BLOCK_BYTES + same, rest,
			       outcome->dst_off_bytes / BLOCK_BYTES + same);
		return 0;
	}
	r = ask_for_part(submit, line, outcome, same, rest / 2);
	return r < 0 ? r : ask_for_part(submit, line, outcome, same + rest / 2, rest - rest / 2);
}

static int take_outcome(struct dedupe_submit *submit, const struct same_line *line,
			const struct same_outcome *outcome)
{
	struct dedupe_account *account = &submit->progress->account;

	account->merged_bytes += outcome->same_bytes - outcome->shared_bytes;
	account->freed_bytes += outcome->freed_bytes;
	switch (outcome->status) {
	case SAME_SAME:
		return 0;
	case SAME_DIFFERS:
		return take_differs(submit, line, outcome);
	case SAME_RUNNING:
	case SAME_ERROR:
		break;
	}
	if (strcmp(outcome->error, "EMLINK") == 0)
		return take_full(submit, line, outcome);
	/* What broke the connection is told once. */
	if (submit->flight.broken == 0)
		complain(submit, outcome);
	return 0;
}

static int take_finished(struct dedupe_submit *submit)
{
	struct same_flight *flight = &submit->flight;
	int r = 0;

	while (r == 0 && !same_flight_empty(flight)) {
		struct same_line *line = &same_flight_at(flight, flight->head)->line;

		if (!same_line_finished(line))
			return 0;
		for (uint32_t i = 0; r == 0 && i < line->count; i++)
			r = take_outcome(submit, line, &line->outcomes[i]);
		submit->done_bytes += line->len_bytes * line->count;
		submit->large -= !same_line_is_small(line);
		same_line_done(line);
		flight->head++;
	}
	return r;
}

static int run(struct dedupe_submit *submit, struct dedupe_list *list)
{
	struct same_flight *flight = &submit->flight;
	int r;

	while (flight->broken == 0) {
		do {
			r = begin_next(submit, list);
		} while (r == 1);
		if (r < 0)
			return r;
		same_flight_push(flight);
		r = take_finished(submit);
		if (r < 0)
			return r;
		if (same_flight_empty(flight) && (submit->again_count == 0 || dedupe_signal_came()))
			if (list->taken == list->count || dedupe_signal_came())
				return 0;
		if (!same_flight_empty(flight) && flight->broken == 0)
			same_flight_answer(flight);
		dedupe_progress_at(submit->progress, submit->done_bytes);
	}
	return flight->broken;
}

int dedupe_submit_run(struct dedupe_submit *submit, struct dedupe_list *list)
{
	struct same_flight *flight = &submit->flight;
	uint64_t total_bytes = 0;
	int r;

	dedupe_list_sort(list);
	for (uint64_t i = 0; i < list->count; i++)
		total_bytes += blocks_to_bytes(list->pieces[i].blocks);
	submit->done_bytes = 0;
	dedupe_progress_phase(submit->progress, "merge", total_bytes);
	r = run(submit, list);
	if (r == 0)
		return 0;
	dedupe_progress_clear(submit->progress);
	say_error("cannot merge", flight->client->server, "%s",
		  r == -EPIPE ? "the server has closed the connection" : strerror(-r));
	if (flight->broken == 0)
		flight->broken = r;
	same_flight_give_up(flight);
	take_finished(submit);
	return r;
}
