/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * client - a connection to a server's control socket
 *
 * Calls go out as soon as the socket takes them, and answers come in the server's order, not
 * that of the calls. While an answer is waited for, calls are still being sent, so the two
 * sides cannot block each other.
 *
 * Errors    opening and client_call() complain on stderr themselves. client_answer() returns a
 *           negative errno when the connection failed: EPIPE (the server went away), EBADMSG,
 *           ETIMEDOUT (it took too long),
 *           ENOMEM, ...
 * Memory    what is not sent yet is held; a caller bounds it by the calls it has in flight.
 * Blocking  client_answer(), client_call().
 */
#ifndef CLI_BASE_CLIENT_H
#define CLI_BASE_CLIENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/control/protocol/ctl_frame.h"
#include "server/control/protocol/ctl_path.h"
#include "server/control/protocol/ctl_ranges.h"

struct client {
	int fd;
	unsigned limit_ms; /* how long an answer may take to come whole; 0: as long as it likes */
	char path[4096];
	char server[4096 + 16]; /* as messages call it: (server PATH) */
	uint64_t next_id;
	struct ctl_frame frame;
	char *out;
	size_t out_start;
	size_t out_end;
};

/* Either result or error_name is set. Freed by client_answer_done(). */
struct client_answer {
	uint64_t id;
	json_t *root;
	json_t *result; /* borrowed from root; NULL also where ranges has it */
	struct ctl_range_same
		*ranges; /* of same_ranges, where all of them are the same: no error */
	size_t range_count;
	const char *error_name; /* "EINVAL"; borrowed */
	const char *message; /* borrowed */
};

/* Moves those of the list where a server listens, each once, to its front; returns how many. */
size_t client_keep_live(struct ctl_path_list *list);
/* Two names for one socket are one server. */
bool client_same_socket(const char *a, const char *b);

/* path NULL: the only running server of this user. */
int client_open(const char *path, struct client *ret_client);
/* The same, of a server that may have been stopped, or be anybody's: it has that long to take the
 * connection, and again for each whole answer. */
int client_open_within(const char *path, unsigned limit_ms, struct client *ret_client);
void client_close(struct client *client);

/* Takes over params, which may be NULL. 0 or a negative errno. */
int client_send(struct client *client, const char *method, json_t *params, uint64_t *ret_id);
/* The same with params as JSON text. */
int client_send_text(struct client *client, const char *method, const char *params,
		     uint64_t *ret_id);
int client_answer(struct client *client, struct client_answer *ret_answer);
void client_answer_done(struct client_answer *answer);

/* One call and its answer, with nothing else in flight. The result, to be released; NULL: it
 * failed, and stderr has `sameblk: what, on PATH: why`. */
json_t *client_call(struct client *client, const char *what, const char *method, json_t *params);

/* The next line of a server, which is no answer. 0 and an object, to be released; ETIMEDOUT, or as
 * client_answer(). */
int client_notice(struct client *client, unsigned limit_ms, json_t **ret_notice);

/* Members of an answer: 0, NULL where they are missing or of another type. */
uint64_t client_number(const json_t *object, const char *key);
const char *client_text(const json_t *object, const char *key);

#endif
