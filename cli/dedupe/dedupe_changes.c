/* SPDX-License-Identifier: GPL-2.0-or-later */
/* dedupe_changes - see the header */
#include "cli/dedupe/dedupe_changes.h"

#include <errno.h>
#include <string.h>

#include "cli/base/say.h"

/* One answer, or -ENOSYS: there is no such method. */
static int ask(struct client *client, json_t *params, json_t **ret_result)
{
	struct client_answer answer;
	uint64_t id;
	int r = client_send(client, "changes", params, &id);

	if (r == 0)
		r = client_answer(client, &answer);
	if (r < 0) {
		say_error("cannot ask for changes", client->server, "%s",
			  r == -EPIPE ? "the server has closed the connection" : strerror(-r));
		return r;
	}
	if (answer.result != NULL) {
		*ret_result = json_incref(answer.result);
	} else if (strcmp(answer.error_name, "ENOSYS") == 0) {
		r = -ENOSYS;
	} else {
		say_error("cannot ask for changes", client->server, "%s (%s)", answer.message,
			  answer.error_name);
		r = -EIO;
	}
	client_answer_done(&answer);
	return r;
}

/* The first answer has the generation; the others only go on with the list. */
static void take_first(struct dedupe_changes *changes, const json_t *result)
{
	changes->generation = client_number(result, "generation");
	changes->life = client_number(result, "life");
	changes->complete = json_is_true(json_object_get(result, "complete"));
	/* A store that was made without tracking. */
	changes->tracked = changes->generation != 0;
}

/* *from_bytes moves on. 1: the list goes on from there. */
static int take_list(struct client *client, struct dedupe_changes *changes, const json_t *result,
		     uint64_t size_bytes, uint64_t *from_bytes)
{
	uint64_t listed_to = client_number(result, "listed_to");

	if (json_array_extend(changes->ranges, json_object_get(result, "ranges")) < 0) {
		say_error("cannot ask for changes", client->server, "there is no list of ranges");
		return -EBADMSG;
	}
	if (listed_to <= *from_bytes || listed_to >= size_bytes)
		return 0;
	*from_bytes = listed_to;
	return 1;
}

int dedupe_changes_ask(struct client *client, uint64_t since, uint64_t size_bytes,
		       struct dedupe_changes *ret_changes)
{
	struct dedupe_changes changes = {.ranges = json_array()};
	uint64_t from_bytes = 0;
	int r;

	do {
		json_t *params = json_pack("{s:I}", "since", (json_int_t)since), *result = NULL;

		if (from_bytes > 0)
			json_object_set_new(params, "from", json_integer((json_int_t)from_bytes));
		r = ask(client, params, &result);
		if (r == -ENOSYS && from_bytes == 0) {
			r = 0;
			break;
		}
		if (r < 0)
			break;
		if (from_bytes == 0)
			take_first(&changes, result);
		r = take_list(client, &changes, result, size_bytes, &from_bytes);
		json_decref(result);
		/* From the beginning, or from nowhere: nobody needs the list. */
	} while (r == 1 && since != 0 && changes.complete);
	if (r < 0) {
		dedupe_changes_done(&changes);
		return r;
	}
	*ret_changes = changes;
	return 0;
}

void dedupe_changes_done(struct dedupe_changes *changes)
{
	json_decref(changes->ranges);
	changes->ranges = NULL;
}

uint64_t dedupe_changes_count(const struct dedupe_changes *changes)
{
	return json_array_size(changes->ranges);
}

void dedupe_changes_range(const struct dedupe_changes *changes, uint64_t index,
			  uint64_t *ret_off_bytes, uint64_t *ret_len_bytes)
{
	const json_t *range = json_array_get(changes->ranges, index);

	*ret_off_bytes = (uint64_t)json_integer_value(json_array_get(range, 0));
	*ret_len_bytes = (uint64_t)json_integer_value(json_array_get(range, 1));
}
