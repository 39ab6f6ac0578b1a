/* SPDX-License-Identifier: GPL-2.0-or-later */
/* dedupe_changes - see the header */
#include "cli/dedupe_changes.h"

#include <errno.h>
#include <string.h>

#include "cli/say.h"

static int take_answer(struct client *client, const struct client_answer *answer,
		       struct dedupe_changes *changes)
{
	if (answer->error_name != NULL && strcmp(answer->error_name, "ENOSYS") == 0)
		return 0;
	if (answer->error_name != NULL) {
		say_error("cannot ask for changes", client->path, "%s (%s)", answer->message,
			  answer->error_name);
		return -EIO;
	}
	changes->tracked = true;
	changes->complete = json_is_true(json_object_get(answer->result, "complete"));
	changes->generation = client_number(answer->result, "generation");
	changes->life = client_number(answer->result, "life");
	changes->answer = json_incref(answer->root);
	changes->ranges = json_object_get(answer->result, "ranges");
	return 0;
}

int dedupe_changes_ask(struct client *client, uint64_t since, struct dedupe_changes *ret_changes)
{
	struct client_answer answer;
	uint64_t id;
	int r = client_send(client, "changes", json_pack("{s:I}", "since", (json_int_t)since), &id);

	*ret_changes = (struct dedupe_changes){.answer = NULL};
	if (r == 0)
		r = client_answer(client, &answer);
	if (r < 0) {
		say_error("cannot ask for changes", client->path, "%s",
			  r == -EPIPE ? "the server has closed the connection" : strerror(-r));
		return r;
	}
	r = take_answer(client, &answer, ret_changes);
	client_answer_done(&answer);
	return r;
}

void dedupe_changes_done(struct dedupe_changes *changes)
{
	json_decref(changes->answer);
	changes->answer = NULL;
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
