/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ctl_conn - one control connection: its socket, the input that is not a line yet, the output
 * not yet sent
 *
 * It knows nothing of calls but their number and what they hold; ctl_server.c joins the two.
 *
 * Errors    a connection that cannot go on is `gone`: nothing is sent or read any more.
 * Times     milliseconds of a clock that only goes forward, passed in.
 * Threads   the control thread only. Blocking: never.
 */
#ifndef SERVER_CONTROL_CTL_CONN_H
#define SERVER_CONTROL_CTL_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/list.h"
#include "server/control/protocol/ctl_frame.h"

struct ctl_conn {
	struct list node;
	int fd;
	bool trusted; /* may do everything; others may look */
	bool eof; /* the peer sends no more, but may still read */
	bool closing; /* reads no more; closed when everything is answered and sent */
	bool gone;
	bool drained; /* no whole line is in frame */
	struct ctl_frame frame;
	char *out;
	size_t out_start;
	size_t out_end;
	size_t out_capacity;
	int pass_fd; /* goes with the byte at pass_at; -1: none */
	size_t pass_at;
	unsigned calls; /* not answered yet */
	size_t calls_bytes;
	bool half; /* part of a line is there, since */
	uint64_t half_since_ms;
	uint64_t sent_ms; /* when output last moved */
	uint64_t active_ms;
};

/* Takes over fd. NULL: no memory (fd is closed). */
struct ctl_conn *ctl_conn_new(int fd, bool trusted, uint64_t now_ms);
void ctl_conn_free(struct ctl_conn *conn);

/* Reads once, as much as there is room for. */
void ctl_conn_read(struct ctl_conn *conn, uint64_t now_ms);
/* The next line, or why there is none. */
enum ctl_frame_event ctl_conn_next(struct ctl_conn *conn, uint64_t now_ms, const char **ret_line,
				   size_t *ret_len_bytes);

/* Queues: many answers are sent at a time. line is freed; NULL (no memory for it) ends the
 * connection. */
void ctl_conn_send(struct ctl_conn *conn, char *line, uint64_t now_ms);
/* The same, with a descriptor that the line's first byte carries; taken over. One at a time: not
 * while ctl_conn_passes(). */
void ctl_conn_send_fd(struct ctl_conn *conn, char *line, int fd, uint64_t now_ms);
/* Sends what can be sent at once. */
void ctl_conn_flush(struct ctl_conn *conn, uint64_t now_ms);

static inline size_t ctl_conn_unsent(const struct ctl_conn *conn)
{
	return conn->out_end - conn->out_start;
}

static inline bool ctl_conn_passes(const struct ctl_conn *conn)
{
	return conn->pass_fd >= 0;
}

static inline size_t ctl_conn_held(const struct ctl_conn *conn)
{
	return ctl_conn_unsent(conn) + conn->calls_bytes;
}

#endif
