/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * client_nbd - see the header
 *
 * The call has a control connection of its own: the descriptor comes with the answer's first
 * byte, which an ordinary read would take without it.
 */
#include "cli/base/client_nbd.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli/base/client.h"
#include "cli/base/say.h"

/* The first byte of the answer, and what it carries. 0 or a negative errno. */
static int receive_first(int socket_fd, char *ret_byte, int *ret_fd)
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
	const struct cmsghdr *header;
	ssize_t got;

	do {
		got = recvmsg(socket_fd, &message, MSG_CMSG_CLOEXEC);
	} while (got < 0 && errno == EINTR);
	if (got <= 0)
		return got < 0 ? -errno : -EPIPE;
	*ret_fd = -1;
	header = CMSG_FIRSTHDR(&message);
	if (header != NULL && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS)
		memcpy(ret_fd, CMSG_DATA(header), sizeof(*ret_fd));
	return 0;
}

/* 0, or a negative errno; a refusal is told here. */
static int ask(struct client *client, int *ret_fd)
{
	struct client_answer answer;
	size_t room;
	uint64_t id;
	char first, *to;
	int r = client_send(client, "nbd", NULL, &id);

	if (r == 0)
		r = receive_first(client->fd, &first, ret_fd);
	if (r < 0)
		return r;
	to = ctl_frame_room(&client->frame, &room);
	if (to == NULL)
		return -ENOMEM;
	to[0] = first;
	ctl_frame_added(&client->frame, 1);
	r = client_answer(client, &answer);
	if (r < 0)
		return r;
	if (answer.error_name != NULL) {
		say_error("cannot use the volume", client->server, "%s (%s)", answer.message,
			  answer.error_name);
		r = -EREMOTEIO;
	} else if (*ret_fd < 0) {
		r = -EBADMSG;
	}
	client_answer_done(&answer);
	return r;
}

int client_nbd_connect(const char *path)
{
	struct client client;
	int fd = -1, r;

	if (client_open(path, &client) < 0)
		return -1;
	r = ask(&client, &fd);
	if (r < 0 && r != -EREMOTEIO)
		say_error("cannot use the volume through", path, "%s",
			  r == -EPIPE ? "the server has closed the connection" : strerror(-r));
	if (r < 0 && fd >= 0)
		close(fd);
	client_close(&client);
	return r < 0 ? -1 : fd;
}
