/* SPDX-License-Identifier: GPL-2.0-or-later */
/* session - see the header */
#include "tests/server/control/session.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define WAIT_MS 10000

static void count_stop(void *context)
{
	struct session *session = context;

	atomic_fetch_add(&session->stops, 1);
}

static int answer_detach(void *context, bool force, char *ret_text)
{
	struct session *session = context;

	session->detach_force = force;
	strcpy(ret_text, session->detach_result < 0 ? "it is mounted on /mnt" : "/dev/ublkb3");
	return session->detach_result;
}

static int hand_out(void *context)
{
	struct session *session = context;
	int ends[2];

	if (atomic_load(&session->nbd_error) != 0)
		return atomic_load(&session->nbd_error);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		return -errno;
	atomic_store(&session->nbd_fd, ends[0]);
	return ends[1];
}

static unsigned three_clients(void *context)
{
	(void)context;
	return 3;
}

void session_begin(struct session *session, const struct ctl_times *times)
{
	static const char *const uris[] = {"nbd+unix:///?socket=/run/x", NULL};
	struct ctl_server_options options = {
		.group = (gid_t)-1,
		.store_path = "/var/lib/images/disk.img",
		.uris = uris,
		.stop = count_stop,
		.clients = three_clients,
		.detach = session->has_device ? answer_detach : NULL,
		.nbd = hand_out,
		.context = session,
		.times = times,
	};
	const char *message = NULL;

	strcpy(session->folder, "/tmp/sameblk-test.XXXXXX");
	cr_assert_not_null(mkdtemp(session->folder));
	snprintf(session->path, sizeof(session->path), "%s/sameblk", session->folder);
	setenv("SAMEBLK_CONTROL_DIR", session->path, 1);
	snprintf(session->path, sizeof(session->path), "%s/sock", session->folder);
	cr_assert_eq(mkdir(session->path, 0700), 0);
	strcat(session->path, "/c");
	atomic_init(&session->stops, 0);
	atomic_init(&session->nbd_error, 0);
	atomic_init(&session->nbd_fd, -1);
	session->volume = fake_new();
	options.volume = session->volume;
	options.worker = fake_worker(session->volume);
	options.path = session->path;
	cr_assert_eq(ctl_server_start(&options, &session->server, &message), 0, "%s", message);
}

void session_end(struct session *session)
{
	char command[128];

	ctl_server_stop(session->server);
	fake_free(session->volume);
	cr_assert_neq(access(session->path, F_OK), 0, "the socket was left behind");
	snprintf(command, sizeof(command), "rm -rf %s", session->folder);
	cr_assert_eq(system(command), 0);
}

int session_connect(const struct session *session)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path, session->path);
	cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

void session_send(int fd, const char *text)
{
	size_t len = strlen(text);

	while (len > 0) {
		ssize_t sent = send(fd, text, len, MSG_NOSIGNAL);

		cr_assert_gt(sent, 0, "%s", strerror(errno));
		text += sent;
		len -= (size_t)sent;
	}
}

/* One byte, and the descriptor that it may carry. */
static bool receive_byte(int fd, char *ret_byte, int *passed)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr aligned;
	} control;
	struct iovec piece = {ret_byte, 1};
	struct msghdr message = {.msg_iov = &piece,
				 .msg_iovlen = 1,
				 .msg_control = control.bytes,
				 .msg_controllen = sizeof(control.bytes)};

	if (recvmsg(fd, &message, MSG_CMSG_CLOEXEC) <= 0)
		return false;
	if (CMSG_FIRSTHDR(&message) != NULL) {
		cr_assert_eq(*passed, -1, "two descriptors with one answer");
		memcpy(passed, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(*passed));
	}
	return true;
}

json_t *session_answer(int fd)
{
	int passed;
	json_t *answer = session_answer_fd(fd, &passed);

	cr_assert_eq(passed, -1, "a descriptor that nobody asked for");
	return answer;
}

json_t *session_answer_fd(int fd, int *ret_passed)
{
	struct pollfd poller = {.fd = fd, .events = POLLIN};
	size_t len = 0, room = 256;
	char *line = malloc(room);
	json_t *answer;

	*ret_passed = -1;
	for (;;) {
		cr_assert_gt(poll(&poller, 1, WAIT_MS), 0, "no answer in %d ms", WAIT_MS);
		if (!receive_byte(fd, line + len, ret_passed)) {
			cr_assert_eq(len, 0, "half an answer");
			free(line);
			return NULL;
		}
		if (line[len] == '\n')
			break;
		if (++len == room)
			line = realloc(line, room *= 2);
	}
	answer = json_loadb(line, len, 0, NULL);
	cr_assert_not_null(answer, "not JSON: %.*s", (int)len, line);
	cr_assert_str_eq(json_string_value(json_object_get(answer, "jsonrpc")), "2.0");
	free(line);
	return answer;
}

json_t *session_ask(int fd, const char *text)
{
	session_send(fd, text);
	return session_answer(fd);
}

const char *session_fault(json_t *answer)
{
	static char name[32];
	json_t *error = json_object_get(answer, "error");
	const char *text =
		json_string_value(json_object_get(json_object_get(error, "data"), "errno"));

	if (answer == NULL)
		return "closed";
	snprintf(name, sizeof(name), "%s", text != NULL ? text : error != NULL ? "?" : "");
	json_decref(answer);
	return name;
}
