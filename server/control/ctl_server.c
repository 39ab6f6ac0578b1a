/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ctl_server - see the header
 *
 * One turn of the thread's loop: take what the worker answered and send it, read the lines
 * that are there and start their calls, close what has ended or outstayed its time, then poll.
 *
 * A connection is not read while it has too many calls, or while it or all connections
 * together hold too much (calls and unsent answers). Both shrink by themselves: calls end, and
 * an answer that does not move ends its connection. So nothing can wait for ever.
 *
 * A peer that has hung up wants no answers: its calls are cancelled. One that has only shut
 * down its sending side still gets them.
 */
#include "server/control/ctl_server.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/base/clock.h"
#include "server/control/ctl_answer.h"
#include "server/control/ctl_call.h"
#include "server/control/ctl_conn.h"
#include "server/control/ctl_listen.h"
#include "server/control/protocol/ctl_limits.h"
#include "server/control/protocol/ctl_path.h"
#include "server/control/protocol/ctl_rpc.h"

#define TICK_MS	       250
#define ACCEPT_REST_MS 100u /* after accept() failed for want of descriptors */
#define READS_A_TURN   16u /* of one connection, so that the others get their turn */

struct ctl_server {
	struct ctl_server_options options;
	struct ctl_times times;
	char path[CTL_PATH_BYTES];
	char record[CTL_PATH_BYTES];
	struct ctl_listen listener;
	struct ctl_calls calls;
	pthread_t thread;
	_Atomic bool stopping;
	/* The thread's own. */
	struct list conns;
	unsigned conn_count;
	unsigned stranger_count;
	unsigned call_count;
	size_t calls_bytes;
	uint64_t now_ms;
	uint64_t started_ms;
	uint64_t accept_again_ms;
	uint64_t goodbye_ms; /* when the last answers are given up; 0: not stopping */
	bool stop_asked;
	struct pollfd polls[2 + CTL_CONNECTIONS_MAX];
};

/* --- calls --- */

static void send_fault(struct ctl_server *server, struct ctl_conn *conn, json_t *id,
		       const struct ctl_rpc_fault *fault)
{
	ctl_conn_send(conn, ctl_rpc_encode_fault(id, fault), server->now_ms);
}

static void answer_call(struct ctl_server *server, struct ctl_call *call)
{
	struct ctl_conn *conn = call->owner;
	struct ctl_rpc_fault fault;

	if (call->rpc.id == NULL)
		return;
	if (call->error == 0 && call->rpc.method == CTL_METHOD_SAME_RANGES) {
		ctl_conn_send(conn, ctl_answer_ranges(call), server->now_ms);
		return;
	}
	if (call->error == 0) {
		struct latency_sums latency;
		struct ctl_answer_server about = {
			.store_path = server->options.store_path,
			.uris = server->options.uris,
			.clients = server->options.clients != NULL
					   ? server->options.clients(server->options.context)
					   : 0,
			.uptime_seconds = (server->now_ms - server->started_ms) / 1000,
			.silent_seconds =
				server->options.silent_ms != NULL
					? server->options.silent_ms(server->options.context) / 1000
					: 0,
		};

		if (server->options.latency != NULL && call->rpc.method == CTL_METHOD_STATS) {
			server->options.latency(server->options.context, &latency);
			about.latency = &latency;
		}
		ctl_conn_send(conn, ctl_rpc_encode_result(call->rpc.id, ctl_answer(call, &about)),
			      server->now_ms);
		return;
	}
	ctl_rpc_fault_set(&fault, CTL_CODE_FAILED, call->error, "%s", call->message);
	send_fault(server, conn, call->rpc.id, &fault);
}

static void reap_calls(struct ctl_server *server)
{
	struct ctl_call *call;

	while ((call = ctl_calls_reap(&server->calls)) != NULL) {
		struct ctl_conn *conn = call->owner;
		size_t bytes = ctl_call_bytes(&call->rpc);

		if (conn != NULL) {
			answer_call(server, call);
			conn->calls--;
			conn->calls_bytes -= bytes;
			conn->active_ms = server->now_ms;
		}
		server->call_count--;
		server->calls_bytes -= bytes;
		ctl_call_free(call);
	}
}

/* The connection itself goes with all others when the control thread ends. */
static bool keep_for_farewell(struct ctl_server *server, const struct ctl_conn *conn)
{
	int fd = -1;

	if (server->options.farewell != NULL)
		fd = fcntl(conn->fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	return fd >= 0 && server->options.farewell(server->options.context, fd);
}

static void answer_stop(struct ctl_server *server, struct ctl_conn *conn, json_t *id)
{
	if (id != NULL)
		ctl_conn_send(
			conn,
			ctl_rpc_encode_result(id, json_pack("{s:I, s:b}", "pid",
							    (json_int_t)getpid(), "end_follows",
							    keep_for_farewell(server, conn))),
			server->now_ms);
	server->stop_asked = true;
}

/* Nothing else is answered meanwhile. It takes as long as what is cached of the device takes to be
 * written. */
static bool answer_detach(struct ctl_server *server, struct ctl_conn *conn,
			  const struct ctl_rpc_call *rpc, struct ctl_rpc_fault *fault)
{
	char text[CTL_DETACH_TEXT_BYTES] = "this server has no block device";
	int r = -ENODEV;

	if (server->options.detach != NULL)
		r = server->options.detach(server->options.context, rpc->force, text);
	server->now_ms = clock_ms();
	if (r < 0) {
		ctl_rpc_fault_set(fault, CTL_CODE_FAILED, -r, "%s", text);
		return false;
	}
	if (rpc->id != NULL)
		ctl_conn_send(
			conn,
			ctl_rpc_encode_result(rpc->id, json_pack("{s:s, s:I}", "device", text,
								 "pid", (json_int_t)getpid())),
			server->now_ms);
	return true;
}

/* False: refused, and the fault says why. */
static bool answer_nbd(struct ctl_server *server, struct ctl_conn *conn, json_t *id,
		       struct ctl_rpc_fault *fault)
{
	int fd;

	/* A descriptor belongs to an answer: nothing is opened for a notification. */
	if (id == NULL)
		return true;
	ctl_conn_flush(conn, server->now_ms);
	if (ctl_conn_passes(conn)) {
		ctl_rpc_fault_set(fault, CTL_CODE_FAILED, EBUSY,
				  "the connection handed out before has not been taken yet");
		return false;
	}
	fd = server->options.nbd != NULL ? server->options.nbd(server->options.context)
					 : -EOPNOTSUPP;
	if (fd < 0) {
		ctl_rpc_fault_set(fault, CTL_CODE_FAILED, -fd, "no NBD connection: %s",
				  fd == -EBUSY ? "there are too many clients" : strerror(-fd));
		return false;
	}
	ctl_conn_send_fd(conn, ctl_rpc_encode_result(id, json_pack("{s:i}", "descriptors", 1)), fd,
			 server->now_ms);
	return true;
}

static bool start_call(struct ctl_server *server, struct ctl_conn *conn, struct ctl_rpc_call *rpc,
		       struct ctl_rpc_fault *fault)
{
	size_t bytes = ctl_call_bytes(rpc);

	if (!conn->trusted && ctl_method_needs_control(rpc->method)) {
		ctl_rpc_fault_set(fault, CTL_CODE_FAILED, EPERM,
				  "only root, the server's user and its group may do that");
		return false;
	}
	if (rpc->method == CTL_METHOD_STOP) {
		answer_stop(server, conn, rpc->id);
		return true;
	}
	if (rpc->method == CTL_METHOD_DETACH)
		return answer_detach(server, conn, rpc, fault);
	if (rpc->method == CTL_METHOD_NBD)
		return answer_nbd(server, conn, rpc->id, fault);
	if (ctl_call_start(&server->calls, rpc, conn) == NULL) {
		ctl_rpc_fault_set(fault, CTL_CODE_FAILED, ENOMEM, "out of memory");
		return false;
	}
	conn->calls++;
	conn->calls_bytes += bytes;
	server->call_count++;
	server->calls_bytes += bytes;
	return true;
}

static bool is_blank(const char *line, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (strchr(" \t\r", line[i]) == NULL || line[i] == '\0')
			return false;
	return true;
}

static void handle_line(struct ctl_server *server, struct ctl_conn *conn, const char *line,
			size_t len)
{
	struct ctl_rpc_call rpc;
	struct ctl_rpc_fault fault;

	if (is_blank(line, len))
		return;
	if (ctl_rpc_decode(line, len, &rpc, &fault) < 0 ||
	    !start_call(server, conn, &rpc, &fault)) {
		/* A notification is never answered, unless it is none that can be understood. */
		if (rpc.id != NULL || fault.code == CTL_CODE_PARSE ||
		    fault.code == CTL_CODE_INVALID)
			send_fault(server, conn, rpc.id, &fault);
	}
	ctl_rpc_call_done(&rpc);
}

/* --- connections --- */

static size_t held_bytes(const struct ctl_server *server)
{
	size_t held = server->calls_bytes;

	list_for_each (node, &server->conns)
		held += ctl_conn_unsent(container_of(node, struct ctl_conn, node));
	return held;
}

static bool may_read(const struct ctl_server *server, const struct ctl_conn *conn)
{
	if (conn->gone || conn->closing || server->goodbye_ms != 0)
		return false;
	/* Who has nothing here may always ask one thing: a status, or to stop, must not wait for
	 * others to read. */
	if (conn->calls == 0 && ctl_conn_held(conn) == 0)
		return true;
	return conn->calls < CTL_CALLS_MAX && ctl_conn_held(conn) < CTL_CONN_BYTES_MAX &&
	       held_bytes(server) < CTL_HELD_BYTES_MAX;
}

static void end_input(struct ctl_server *server, struct ctl_conn *conn, const char *why)
{
	struct ctl_rpc_fault fault;

	if (conn->half) {
		ctl_rpc_fault_set(&fault, CTL_CODE_PARSE, EBADMSG, "half a message: %s", why);
		send_fault(server, conn, NULL, &fault);
	}
	conn->half = false;
	conn->closing = true;
}

static void take_lines(struct ctl_server *server, struct ctl_conn *conn)
{
	struct ctl_rpc_fault fault;
	const char *line;
	size_t len;

	while (!conn->drained && may_read(server, conn)) {
		switch (ctl_conn_next(conn, server->now_ms, &line, &len)) {
		case CTL_FRAME_NONE:
			break;
		case CTL_FRAME_LINE:
			handle_line(server, conn, line, len);
			break;
		case CTL_FRAME_TOO_LONG:
			ctl_rpc_fault_set(&fault, CTL_CODE_PARSE, EMSGSIZE,
					  "the message is longer than %u bytes",
					  CTL_LINE_BYTES_MAX);
			send_fault(server, conn, NULL, &fault);
			break;
		}
	}
	if (conn->drained && conn->eof && !conn->closing)
		end_input(server, conn, "the connection ended before its newline");
}

static void read_conn(struct ctl_server *server, struct ctl_conn *conn)
{
	for (unsigned i = 0; i < READS_A_TURN; i++) {
		if (conn->eof || !conn->drained || !may_read(server, conn))
			return;
		ctl_conn_read(conn, server->now_ms);
		if (conn->drained && !conn->eof)
			return;
		take_lines(server, conn);
	}
}

static void drop_conn(struct ctl_server *server, struct ctl_conn *conn)
{
	list_for_each (node, &server->calls.all) {
		struct ctl_call *call = container_of(node, struct ctl_call, all_node);

		if (call->owner != conn)
			continue;
		call->owner = NULL;
		ctl_call_cancel(call);
	}
	conn->calls = 0;
	server->conn_count--;
	server->stranger_count -= conn->trusted ? 0 : 1;
	ctl_conn_free(conn);
}

/* Ends what has lasted too long, and what is done. */
static void tend_conn(struct ctl_server *server, struct ctl_conn *conn)
{
	uint64_t now = server->now_ms;

	if (conn->half && now - conn->half_since_ms >= server->times.half_line_ms)
		end_input(server, conn, "its newline did not come in time");
	if (ctl_conn_unsent(conn) > 0 && now - conn->sent_ms >= server->times.unsent_ms)
		conn->gone = true;
	if (conn->calls == 0 && ctl_conn_unsent(conn) == 0) {
		if (conn->closing || now - conn->active_ms >= server->times.idle_ms)
			conn->gone = true;
	}
	if (conn->gone)
		drop_conn(server, conn);
}

static void refuse(struct ctl_server *server, struct ctl_conn *conn)
{
	struct ctl_rpc_fault fault;

	ctl_rpc_fault_set(&fault, CTL_CODE_FAILED, EBUSY,
			  "too many control connections: at most %u, %u of them to look only",
			  CTL_CONNECTIONS_MAX, CTL_STRANGERS_MAX);
	send_fault(server, conn, NULL, &fault);
	ctl_conn_flush(conn, server->now_ms);
	ctl_conn_free(conn);
}

static void accept_conns(struct ctl_server *server)
{
	for (unsigned i = 0; i < CTL_CONNECTIONS_MAX; i++) {
		int fd = ctl_listen_accept(server->listener.fd);
		struct ctl_conn *conn;
		bool trusted;

		if (fd < 0) {
			if (fd != -EAGAIN)
				server->accept_again_ms = server->now_ms + ACCEPT_REST_MS;
			return;
		}
		trusted = ctl_listen_peer_trusted(fd, server->options.group);
		conn = ctl_conn_new(fd, trusted, server->now_ms);
		if (conn == NULL)
			return;
		if (server->conn_count == CTL_CONNECTIONS_MAX ||
		    (!trusted && server->stranger_count == CTL_STRANGERS_MAX)) {
			refuse(server, conn);
			continue;
		}
		server->conn_count++;
		server->stranger_count += trusted ? 0 : 1;
		list_add_tail(&server->conns, &conn->node);
	}
}

/* --- the loop --- */

/* The connections' entries follow in the order of the list. */
static unsigned fill_polls(struct ctl_server *server)
{
	bool accepting = server->goodbye_ms == 0 && server->now_ms >= server->accept_again_ms;
	unsigned count = 2;

	server->polls[0] = (struct pollfd){.fd = server->calls.event_fd, .events = POLLIN};
	server->polls[1] =
		(struct pollfd){.fd = accepting ? server->listener.fd : -1, .events = POLLIN};
	list_for_each (node, &server->conns) {
		struct ctl_conn *conn = container_of(node, struct ctl_conn, node);
		short events = 0;

		if (!conn->eof && conn->drained && may_read(server, conn))
			events |= POLLIN;
		if (ctl_conn_unsent(conn) > 0)
			events |= POLLOUT;
		server->polls[count++] = (struct pollfd){.fd = conn->fd, .events = events};
	}
	return count;
}

static void take_events(struct ctl_server *server)
{
	unsigned index = 2;

	list_for_each (node, &server->conns) {
		struct ctl_conn *conn = container_of(node, struct ctl_conn, node);
		short events = server->polls[index++].revents;

		if (events & POLLOUT)
			ctl_conn_flush(conn, server->now_ms);
		if (events & POLLIN)
			read_conn(server, conn);
		/* What it sent before it hung up counts; that is read when nothing more comes. */
		else if (events & (POLLHUP | POLLERR | POLLNVAL))
			conn->gone = true;
	}
	if (server->polls[1].revents & POLLIN)
		accept_conns(server);
}

static void begin_goodbye(struct ctl_server *server)
{
	server->goodbye_ms = server->now_ms + server->times.goodbye_ms;
	list_for_each (node, &server->calls.all)
		ctl_call_cancel(container_of(node, struct ctl_call, all_node));
	list_for_each (node, &server->conns)
		container_of(node, struct ctl_conn, node)->closing = true;
}

/* True when the thread may end. The calls must have come back: they are in the worker's hands. */
static bool all_said(struct ctl_server *server)
{
	if (server->goodbye_ms == 0 || server->call_count > 0)
		return false;
	return server->conn_count == 0 || server->now_ms >= server->goodbye_ms;
}

/* Time limits are looked at every tick; without connections there are none. */
static int wait_ms(const struct ctl_server *server)
{
	bool idle = server->conn_count == 0 && server->goodbye_ms == 0 &&
		    server->accept_again_ms <= server->now_ms;

	return idle ? -1 : TICK_MS;
}

static void *run_thread(void *argument)
{
	struct ctl_server *server = argument;

	pthread_setname_np(pthread_self(), "control");
	for (;;) {
		unsigned count;

		server->now_ms = clock_ms();
		if (atomic_load(&server->stopping) && server->goodbye_ms == 0)
			begin_goodbye(server);
		reap_calls(server);
		list_for_each (node, &server->conns)
			take_lines(server, container_of(node, struct ctl_conn, node));
		list_for_each (node, &server->conns)
			ctl_conn_flush(container_of(node, struct ctl_conn, node), server->now_ms);
		list_for_each (node, &server->conns)
			tend_conn(server, container_of(node, struct ctl_conn, node));
		if (server->stop_asked) {
			server->stop_asked = false;
			server->options.stop(server->options.context);
		}
		if (all_said(server))
			break;
		count = fill_polls(server);
		if (poll(server->polls, count, wait_ms(server)) <= 0)
			continue;
		server->now_ms = clock_ms();
		take_events(server);
	}
	list_for_each (node, &server->conns)
		drop_conn(server, container_of(node, struct ctl_conn, node));
	return NULL;
}

/* --- start and stop --- */

static char start_message[CTL_PATH_BYTES + 128];

static int start_failed(int r, const char **reterr_message, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(start_message, sizeof(start_message), format, args);
	va_end(args);
	*reterr_message = start_message;
	return r;
}

static const char *listen_error(int r)
{
	switch (r) {
	case -EADDRINUSE:
		return "a running server has it; name another with -c";
	case -EEXIST:
		return "something else than a socket is there";
	case -EBUSY:
		return "another server has been starting there for too long";
	case -ENAMETOOLONG:
		return "the path is too long for a socket (at most 107 bytes)";
	default:
		return strerror(-r);
	}
}

static const char *dir_error(int r)
{
	switch (r) {
	case -EPERM:
		return "it belongs to somebody else, or others may change what is in it; it is "
		       "left as it is: name another with SAMEBLK_CONTROL_DIR or -c";
	case -EACCES:
		return "the group of --group may not pass through it; it is left as it is (chgrp, "
		       "chmod g+x)";
	default:
		return strerror(-r);
	}
}

/* The default socket. A server of another store that is called the same may have it, or a record
 * there, which leads to its socket elsewhere. */
static int open_default(struct ctl_server *server)
{
	const struct ctl_server_options *options = &server->options;
	int r = ctl_path_default(options->store_path, NULL, server->path);

	if (r == 0)
		r = ctl_listen_open(server->path, options->group, &server->listener);
	if (r != -EADDRINUSE && r != -EEXIST)
		return r;
	r = ctl_path_default(options->store_path, volume_uuid(options->volume), server->path);
	if (r == 0)
		r = ctl_listen_open(server->path, options->group, &server->listener);
	return r;
}

static int open_listener(struct ctl_server *server, const char **reterr_message)
{
	const struct ctl_server_options *options = &server->options;
	char dir[CTL_PATH_BYTES];
	int r;

	if (options->listen_fd > 0) {
		server->listener.fd = options->listen_fd;
		r = fcntl(options->listen_fd, F_GETFL);
		if (r < 0 || fcntl(options->listen_fd, F_SETFL, r | O_NONBLOCK) < 0)
			return start_failed(-errno, reterr_message,
					    "cannot use the control socket handed over: %s",
					    strerror(errno));
		return 0;
	}
	if (options->path == NULL) {
		r = ctl_path_dir(dir);
		if (r == 0)
			r = ctl_path_dir_make(dir, options->group);
		if (r < 0)
			return start_failed(r, reterr_message,
					    "cannot make the control directory %s: %s", dir,
					    dir_error(r));
		/* One of them may have the name. */
		ctl_path_drop_dead(dir);
		r = open_default(server);
	} else if (strlen(options->path) < CTL_PATH_BYTES) {
		/* A directory that is not there is a mistake in the path: none is made. */
		strcpy(server->path, options->path);
		r = ctl_listen_open(server->path, options->group, &server->listener);
	} else {
		r = -ENAMETOOLONG;
	}
	if (r < 0)
		return start_failed(r, reterr_message, "cannot make the control socket %.2000s: %s",
				    options->path != NULL ? options->path : server->path,
				    listen_error(r));
	/* Without a record `sameblk` finds the server by -c alone: no reason to refuse service. */
	if (options->path != NULL)
		ctl_path_record(options->store_path, server->path, server->record);
	return 0;
}

static void close_listener(struct ctl_server *server)
{
	if (server->record[0] != '\0')
		unlink(server->record);
	if (server->path[0] != '\0')
		ctl_listen_close(&server->listener, server->path);
}

/* Signals are the main thread's. */
static int start_thread(struct ctl_server *server)
{
	sigset_t all, old;
	int error;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	error = pthread_create(&server->thread, NULL, run_thread, server);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -error;
}

int ctl_server_start(const struct ctl_server_options *options, struct ctl_server **ret_server,
		     const char **reterr_message)
{
	struct ctl_server *server = calloc(1, sizeof(*server));
	int r;

	if (server == NULL)
		return start_failed(-ENOMEM, reterr_message, "cannot start control: %s",
				    strerror(ENOMEM));
	server->options = *options;
	server->times = options->times != NULL ? *options->times
					       : (struct ctl_times){CTL_HALF_LINE_MS, CTL_UNSENT_MS,
								    CTL_IDLE_MS, CTL_GOODBYE_MS};
	server->started_ms = clock_ms();
	list_init(&server->conns);
	r = open_listener(server, reterr_message);
	if (r < 0) {
		free(server);
		return r;
	}
	if (options->workers != NULL)
		r = ctl_calls_init(&server->calls, options->volume, options->workers,
				   options->worker_count);
	else
		r = ctl_calls_init(&server->calls, options->volume, &server->options.worker, 1);
	if (r == 0) {
		server->calls.lasting = options->lasting;
		r = start_thread(server);
		if (r < 0)
			ctl_calls_done(&server->calls);
	}
	if (r < 0) {
		close_listener(server);
		free(server);
		return start_failed(r, reterr_message, "cannot start control: %s", strerror(-r));
	}
	*ret_server = server;
	return 0;
}

void ctl_server_stop(struct ctl_server *server)
{
	uint64_t one = 1;
	ssize_t written;

	if (server == NULL)
		return;
	atomic_store(&server->stopping, true);
	written = write(server->calls.event_fd, &one, sizeof(one));
	assert(written == sizeof(one) || errno == EAGAIN);
	pthread_join(server->thread, NULL);
	close_listener(server);
	ctl_calls_done(&server->calls);
	free(server);
}

const char *ctl_server_path(const struct ctl_server *server)
{
	return server->path;
}
