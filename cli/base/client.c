/* SPDX-License-Identifier: GPL-2.0-or-later */
/* client - see the header */
#include "cli/base/client.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "cli/base/say.h"
#include "server/base/clock.h"
#include "server/control/protocol/ctl_limits.h"
#include "server/control/protocol/ctl_path.h"
#include "server/control/protocol/ctl_rpc.h"

/* --- which server --- */

bool client_same_socket(const char *a, const char *b)
{
	char real_a[PATH_MAX], real_b[PATH_MAX];

	return realpath(a, real_a) != NULL && realpath(b, real_b) != NULL &&
	       strcmp(real_a, real_b) == 0;
}

size_t client_keep_live(struct ctl_path_list *list)
{
	size_t live = 0;

	for (size_t i = 0; i < list->count; i++) {
		bool known = false;
		char *path = list->paths[i];

		if (ctl_path_probe(path) < 0)
			continue;
		for (size_t j = 0; j < live; j++)
			known = known || client_same_socket(list->paths[j], path);
		if (known)
			continue;
		list->paths[i] = list->paths[live];
		list->paths[live++] = path;
	}
	return live;
}

static void say_several(const struct ctl_path_list *list, size_t live)
{
	say_error("cannot choose a server", "", "several are running; name one with -c or -S:");
	for (size_t i = 0; i < live; i++)
		fprintf(stderr, "  %s\n", list->paths[i]);
}

static int find_server(char ret_path[CTL_PATH_BYTES])
{
	struct ctl_path_list list;
	size_t live;
	int r = ctl_path_list(&list);

	if (r < 0) {
		say_error("cannot look for a server", "", "%s", strerror(-r));
		return -1;
	}
	live = client_keep_live(&list);
	if (live == 1)
		strcpy(ret_path, list.paths[0]);
	else if (live == 0)
		say_error("cannot find a server", "",
			  "none is running for this user; start one with "
			  "`sameblkd -U SOCKET STORE`, or name its control socket with -c");
	else
		say_several(&list, live);
	ctl_path_list_done(&list);
	return live == 1 ? 0 : -1;
}

static int connect_to(const char *path, unsigned limit_ms)
{
	const struct timeval limit = {limit_ms / 1000, limit_ms % 1000 * 1000};
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd, error;

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	/* Who cannot take it any more has many that wait. */
	if (limit_ms > 0 && setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0) {
		error = errno;
		close(fd);
		return -error;
	}
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	error = limit_ms > 0 && errno == EAGAIN ? ETIMEDOUT : errno;
	close(fd);
	return -error;
}

static const char *reason(int error)
{
	if (error == -EPIPE)
		return "the server has closed the connection";
	return error == -ETIMEDOUT ? "the server does not answer" : strerror(-error);
}

int client_open(const char *path, struct client *ret_client)
{
	return client_open_within(path, 0, ret_client);
}

int client_open_within(const char *path, unsigned limit_ms, struct client *ret_client)
{
	struct client client = {.fd = -1, .limit_ms = limit_ms, .next_id = 1};

	if (path == NULL && find_server(client.path) < 0)
		return -1;
	if (path != NULL)
		snprintf(client.path, sizeof(client.path), "%s", path);
	snprintf(client.server, sizeof(client.server), "(server %s)", client.path);
	client.fd = connect_to(client.path, limit_ms);
	if (client.fd < 0) {
		bool none = client.fd == -ECONNREFUSED || client.fd == -ENOENT;

		say_error("cannot connect to the server at", client.path, "%s%s", reason(client.fd),
			  none ? " (no server is running there)" : "");
		return -1;
	}
	ctl_frame_init(&client.frame, CTL_ANSWER_BYTES_MAX);
	*ret_client = client;
	return 0;
}

void client_close(struct client *client)
{
	ctl_frame_done(&client->frame);
	free(client->out);
	close(client->fd);
}

/* --- sending and receiving --- */

static int flush_some(struct client *client)
{
	while (client->out_end > client->out_start) {
		ssize_t sent =
			send(client->fd, client->out + client->out_start,
			     client->out_end - client->out_start, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return errno == EAGAIN ? 0 : -errno;
		client->out_start += (size_t)sent;
	}
	free(client->out);
	client->out = NULL;
	client->out_start = client->out_end = 0;
	return 0;
}

/* Takes over line. */
static int send_line(struct client *client, char *line)
{
	size_t unsent = client->out_end - client->out_start;
	size_t len;
	char *out;
	int r;

	if (line == NULL)
		return -ENOMEM;
	len = strlen(line);
	if (unsent > 0)
		memmove(client->out, client->out + client->out_start, unsent);
	client->out_start = 0;
	client->out_end = unsent;
	out = realloc(client->out, unsent + len);
	if (out == NULL) {
		free(line);
		return -ENOMEM;
	}
	memcpy(out + unsent, line, len);
	free(line);
	client->out = out;
	client->out_end = unsent + len;
	r = flush_some(client);
	/* A server that hangs up may have said why before: that is read first. */
	return r == -EPIPE || r == -ECONNRESET ? 0 : r;
}

int client_send(struct client *client, const char *method, json_t *params, uint64_t *ret_id)
{
	*ret_id = client->next_id++;
	return send_line(client, ctl_rpc_encode_call(*ret_id, method, params));
}

int client_send_text(struct client *client, const char *method, const char *params,
		     uint64_t *ret_id)
{
	struct ctl_text text = {.bytes = NULL};

	*ret_id = client->next_id++;
	ctl_rpc_encode_text(&text, *ret_id, method, params);
	return send_line(client, ctl_text_take(&text));
}

static int decode_answer(const char *line, size_t len, struct client_answer *ret_answer)
{
	struct client_answer answer = {.root = NULL};
	json_t *error;

	if (ctl_ranges_read_answer(line, len, &answer.id, &answer.ranges, &answer.range_count)) {
		/* For who asked for something else, or for more. */
		answer.error_name = "EBADMSG";
		answer.message = "the server answered something else";
		*ret_answer = answer;
		return 0;
	}
	answer.root = json_loadb(line, len, 0, NULL);
	error = json_object_get(answer.root, "error");

	answer.id = client_number(answer.root, "id");
	answer.result = json_object_get(answer.root, "result");
	if (error != NULL) {
		answer.error_name = client_text(json_object_get(error, "data"), "errno");
		answer.message = client_text(error, "message");
		if (answer.error_name == NULL)
			answer.error_name = "EIO";
		if (answer.message == NULL)
			answer.message = "the server gave no reason";
	}
	if ((answer.result == NULL) == (error == NULL)) {
		json_decref(answer.root);
		return -EBADMSG;
	}
	*ret_answer = answer;
	return 0;
}

/* timeout_ms -1: it waits as long as it takes. */
static int receive_some(struct client *client, int timeout_ms)
{
	struct pollfd poller = {.fd = client->fd, .events = POLLIN};
	size_t room;
	char *to = ctl_frame_room(&client->frame, &room);
	ssize_t got;
	int ready;

	if (to == NULL)
		return -ENOMEM;
	if (client->out_end > client->out_start)
		poller.events |= POLLOUT;
	ready = poll(&poller, 1, timeout_ms);
	if (ready < 0)
		return errno == EINTR ? 0 : -errno;
	if (ready == 0)
		return -ETIMEDOUT;
	if ((poller.revents & POLLOUT) && !(poller.revents & POLLIN))
		return flush_some(client);
	if (poller.revents & POLLOUT)
		flush_some(client);
	got = recv(client->fd, to, room, 0);
	if (got < 0)
		return errno == EINTR ? 0 : -errno;
	if (got == 0)
		return -EPIPE;
	ctl_frame_added(&client->frame, (size_t)got);
	return 0;
}

int client_answer(struct client *client, struct client_answer *ret_answer)
{
	uint64_t began = clock_ms(), passed;
	const char *line;
	size_t len;
	int r;

	for (;;) {
		switch (ctl_frame_next(&client->frame, &line, &len)) {
		case CTL_FRAME_LINE:
			return decode_answer(line, len, ret_answer);
		case CTL_FRAME_TOO_LONG:
			return -EMSGSIZE;
		case CTL_FRAME_NONE:
			break;
		}
		/* A byte now and then is no answer. */
		passed = clock_ms() - began;
		if (client->limit_ms > 0 && passed >= client->limit_ms)
			return -ETIMEDOUT;
		r = receive_some(client,
				 client->limit_ms > 0 ? (int)(client->limit_ms - passed) : -1);
		if (r < 0)
			return r;
	}
}

void client_answer_done(struct client_answer *answer)
{
	json_decref(answer->root);
	free(answer->ranges);
	answer->root = NULL;
	answer->ranges = NULL;
}

json_t *client_call(struct client *client, const char *what, const char *method, json_t *params)
{
	struct client_answer answer;
	json_t *result = NULL;
	uint64_t id;
	int r = client_send(client, method, params, &id);

	if (r == 0)
		r = client_answer(client, &answer);
	if (r < 0) {
		say_error(what, client->server, "%s", reason(r));
		return NULL;
	}
	if (answer.result != NULL)
		result = json_incref(answer.result);
	else
		say_error(what, client->server, "%s (%s)", answer.message, answer.error_name);
	client_answer_done(&answer);
	return result;
}

int client_notice(struct client *client, unsigned limit_ms, json_t **ret_notice)
{
	uint64_t began = clock_ms(), passed;
	const char *line;
	size_t len;
	int r;

	while (ctl_frame_next(&client->frame, &line, &len) != CTL_FRAME_LINE) {
		struct pollfd poller = {.fd = client->fd, .events = POLLIN};

		passed = clock_ms() - began;
		r = passed < limit_ms ? poll(&poller, 1, (int)(limit_ms - passed)) : 0;
		if (r == 0)
			return -ETIMEDOUT;
		if (r < 0 && errno != EINTR)
			return -errno;
		r = r > 0 ? receive_some(client, -1) : 0;
		if (r < 0)
			return r;
	}
	*ret_notice = json_loadb(line, len, 0, NULL);
	return *ret_notice != NULL ? 0 : -EBADMSG;
}

uint64_t client_number(const json_t *object, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(object, key));
}

const char *client_text(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}
