/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ctl_conn - see the header */
#include "server/control/ctl_conn.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/control/protocol/ctl_limits.h"

#define OUT_BYTES_MORE 8192u /* for the answers that follow before anything is sent */

struct ctl_conn *ctl_conn_new(int fd, bool trusted, uint64_t now_ms)
{
	struct ctl_conn *conn = calloc(1, sizeof(*conn));

	if (conn == NULL) {
		close(fd);
		return NULL;
	}
	list_init(&conn->node);
	conn->fd = fd;
	conn->pass_fd = -1;
	conn->trusted = trusted;
	conn->drained = true;
	conn->sent_ms = now_ms;
	conn->active_ms = now_ms;
	ctl_frame_init(&conn->frame, CTL_LINE_BYTES_MAX);
	return conn;
}

void ctl_conn_free(struct ctl_conn *conn)
{
	assert(conn->calls == 0);
	list_del(&conn->node);
	ctl_frame_done(&conn->frame);
	free(conn->out);
	if (conn->pass_fd >= 0)
		close(conn->pass_fd);
	close(conn->fd);
	free(conn);
}

void ctl_conn_read(struct ctl_conn *conn, uint64_t now_ms)
{
	size_t room;
	char *to = ctl_frame_room(&conn->frame, &room);
	ssize_t got;

	assert(conn->drained);
	if (to == NULL) {
		conn->gone = true;
		return;
	}
	do {
		got = recv(conn->fd, to, room, 0);
	} while (got < 0 && errno == EINTR);
	if (got > 0) {
		ctl_frame_added(&conn->frame, (size_t)got);
		conn->drained = false;
		conn->active_ms = now_ms;
	} else if (got == 0) {
		conn->eof = true;
	} else if (errno != EAGAIN) {
		conn->gone = true;
	}
}

enum ctl_frame_event ctl_conn_next(struct ctl_conn *conn, uint64_t now_ms, const char **ret_line,
				   size_t *ret_len_bytes)
{
	enum ctl_frame_event event = ctl_frame_next(&conn->frame, ret_line, ret_len_bytes);

	if (event != CTL_FRAME_NONE) {
		conn->half = false;
		return event;
	}
	conn->drained = true;
	if (!ctl_frame_half(&conn->frame)) {
		conn->half = false;
	} else if (!conn->half) {
		conn->half = true;
		conn->half_since_ms = now_ms;
	}
	return event;
}

static bool out_append(struct ctl_conn *conn, const char *line, size_t len)
{
	size_t unsent = ctl_conn_unsent(conn);

	if (conn->out_start > 0) {
		memmove(conn->out, conn->out + conn->out_start, unsent);
		conn->pass_at -= conn->pass_fd >= 0 ? conn->out_start : 0;
		conn->out_start = 0;
		conn->out_end = unsent;
	}
	if (conn->out_capacity - unsent < len) {
		size_t capacity = unsent + len + OUT_BYTES_MORE;
		char *out = realloc(conn->out, capacity);

		if (out == NULL)
			return false;
		conn->out = out;
		conn->out_capacity = capacity;
	}
	memcpy(conn->out + unsent, line, len);
	conn->out_end = unsent + len;
	return true;
}

void ctl_conn_send(struct ctl_conn *conn, char *line, uint64_t now_ms)
{
	if (conn->gone) {
		free(line);
		return;
	}
	if (ctl_conn_unsent(conn) == 0)
		conn->sent_ms = now_ms;
	conn->active_ms = now_ms;
	if (line == NULL || !out_append(conn, line, strlen(line)))
		conn->gone = true;
	free(line);
}

void ctl_conn_send_fd(struct ctl_conn *conn, char *line, int fd, uint64_t now_ms)
{
	assert(!ctl_conn_passes(conn));
	conn->pass_fd = fd;
	conn->pass_at = conn->out_end;
	ctl_conn_send(conn, line, now_ms);
}

/* Sends what may go in one piece: up to the byte that carries the descriptor, or from it on. */
static ssize_t send_piece(struct ctl_conn *conn)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr aligned;
	} control = {.bytes = ""};
	struct iovec piece = {conn->out + conn->out_start, ctl_conn_unsent(conn)};
	struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
	bool passes = ctl_conn_passes(conn) && conn->pass_at == conn->out_start;
	ssize_t sent;

	if (ctl_conn_passes(conn) && !passes)
		piece.iov_len = conn->pass_at - conn->out_start;
	if (passes) {
		message.msg_control = control.bytes;
		message.msg_controllen = sizeof(control.bytes);
		CMSG_FIRSTHDR(&message)->cmsg_level = SOL_SOCKET;
		CMSG_FIRSTHDR(&message)->cmsg_type = SCM_RIGHTS;
		CMSG_FIRSTHDR(&message)->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&message)), &conn->pass_fd, sizeof(int));
	}
	sent = sendmsg(conn->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (sent > 0 && passes) {
		close(conn->pass_fd);
		conn->pass_fd = -1;
	}
	return sent;
}

void ctl_conn_flush(struct ctl_conn *conn, uint64_t now_ms)
{
	while (!conn->gone && ctl_conn_unsent(conn) > 0) {
		ssize_t sent = send_piece(conn);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0) {
			conn->gone = errno != EAGAIN;
			return;
		}
		conn->out_start += (size_t)sent;
		conn->sent_ms = now_ms;
	}
	if (ctl_conn_unsent(conn) == 0) {
		/* What a long answer took is not kept. */
		free(conn->out);
		conn->out = NULL;
		conn->out_start = conn->out_end = conn->out_capacity = 0;
	}
}
