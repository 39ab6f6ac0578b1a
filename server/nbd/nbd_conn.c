/* SPDX-License-Identifier: GPL-2.0-or-later */
/* nbd_conn - see the header */
#include "server/nbd/nbd_conn.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/base/mutant.h"
#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/nbd/nbd_command.h"
#include "server/nbd/nbd_listen.h"
#include "server/nbd/nbd_server.h"

#define SOCKET_BUFFER_BYTES (2 * 1024 * 1024)

static size_t round_up(size_t bytes)
{
	return (bytes + BUFFERS_PAGE_BYTES - 1) / BUFFERS_PAGE_BYTES * BUFFERS_PAGE_BYTES;
}

static size_t conn_bytes(void)
{
	return round_up(sizeof(struct nbd_conn)) + NBD_OWN_BYTES +
	       (size_t)NBD_PIECES_MAX * SCRATCH_BYTES + NBD_REST_BYTES + SCRATCH_BYTES;
}

void nbd_conn_kick(struct nbd_conn *conn)
{
	loop_run_soon(conn->loop, &conn->turn);
}

static void buffers_ready(struct buffers_waiter *waiter)
{
	nbd_conn_kick(container_of(waiter, struct nbd_conn, buffers_waiter));
}

void nbd_conn_break(struct nbd_conn *conn, const char *why)
{
	if (conn->state == NBD_CONN_BROKEN)
		return;
	log_debug("nbd: connection ended: %s", why);
	conn->state = NBD_CONN_BROKEN;
	/* What nobody waits for any more: a trim of a large volume takes a while. */
	atomic_store(&conn->cancelled, !MUTANT(66));
	/* Ends what the ring has in flight. */
	shutdown(conn->fd, SHUT_RDWR);
	nbd_conn_kick(conn);
}

void nbd_conn_fail(struct nbd_conn *conn, int error)
{
	bool is_tls = conn->tls != NULL && error == -EPROTO;

	nbd_conn_break(conn, is_tls ? nbd_tls_why(conn->tls) : strerror(-error));
}

void nbd_conn_drain(struct nbd_conn *conn)
{
	if (conn->state == NBD_CONN_BROKEN || conn->state == NBD_CONN_DRAINING)
		return;
	conn->state = NBD_CONN_DRAINING;
	shutdown(conn->fd, SHUT_RD);
	nbd_conn_kick(conn);
}

/* Both sides have ended: nobody reads the answers. A client that has only ended its own still does.
 * Of TCP that shows when an answer is sent. */
static bool has_hung_up(const struct nbd_conn *conn)
{
	struct pollfd event = {.fd = conn->fd};

	return poll(&event, 1, 0) > 0 && (event.revents & (POLLHUP | POLLERR)) != 0;
}

/* Also who has ended it, and takes no answer to that. */
static bool is_shaking_hands(const struct nbd_conn *conn)
{
	return conn->state != NBD_CONN_BROKEN &&
	       conn->handshake.state != NBD_HANDSHAKE_TRANSMISSION;
}

void nbd_conn_tick(struct nbd_conn *conn, uint64_t now_ms)
{
	bool contended = buffers_contended(&conn->loop->buffers);

	if (is_shaking_hands(conn) && now_ms - conn->received_ms > NBD_HANDSHAKE_MS && !MUTANT(36))
		nbd_conn_break(conn, "the handshake took too long");
	else if (conn->state == NBD_CONN_DRAINING && has_hung_up(conn))
		nbd_conn_break(conn, "its client has gone");
	else if (contended && conn->send.waiting && now_ms - conn->sent_ms > NBD_STALLED_MS)
		nbd_conn_break(conn, "its client does not read the answers, and other connections "
				     "need the memory");
}

/* --- receiving --- */

/* True: something came. */
static bool received(struct nbd_conn *conn, ssize_t res, uint32_t wanted_bytes)
{
	conn->filled = false;
	if (res > 0) {
		/* The handshake as a whole has a time limit. */
		if (conn->state == NBD_CONN_OPEN)
			conn->received_ms = conn->loop->now_ms;
		conn->filled = (uint32_t)res == wanted_bytes;
		nbd_rx_received(&conn->rx, (uint32_t)res);
		return true;
	}
	if (res == 0 && MUTANT(37))
		return false;
	if (res == 0)
		nbd_conn_drain(conn);
	else if (res != -EINTR && res != -EAGAIN)
		nbd_conn_fail(conn, (int)res);
	return false;
}

/* Where to receive, and how much. A store that needs aligned memory gets every payload at the
 * beginning of a page, so nothing is received beyond the message that has begun. */
static uint8_t *recv_window(struct nbd_conn *conn, uint32_t *ret_bytes)
{
	uint32_t missing;
	uint8_t *at;

	if (!conn->lane->server->aligns_payloads || conn->state != NBD_CONN_OPEN)
		return nbd_rx_room(&conn->rx, ret_bytes);
	missing = nbd_command_missing(conn);
	if (conn->current != NULL && nbd_rx_have(&conn->rx) == 0)
		nbd_rx_align(&conn->rx);
	at = nbd_rx_room(&conn->rx, ret_bytes);
	*ret_bytes = min_u32(*ret_bytes, missing);
	return at;
}

static void recv_tls(struct nbd_conn *conn)
{
	uint32_t bytes;
	uint8_t *at = recv_window(conn, &bytes);

	received(conn, nbd_tls_recv(conn->tls, at, bytes), bytes);
}

static void recv_done(struct ring_op *op, int res, uint32_t flags)
{
	struct nbd_conn *conn = container_of(op, struct nbd_conn, recv_op);

	(void)flags;
	assert(conn->magic == NBD_CONN_MAGIC && conn->receiving);
	conn->receiving = false;
	nbd_conn_kick(conn);
	if (conn->state != NBD_CONN_HANDSHAKE && conn->state != NBD_CONN_OPEN)
		return;
	if (conn->tls == NULL)
		received(conn, res, conn->recv_bytes);
	else if (conn->handshake.tls) /* else the turn goes on with TLS's handshake */
		recv_tls(conn);
}

/* Until the socket has something, or takes something. */
static void start_poll(struct nbd_conn *conn, short events)
{
	struct io_uring_sqe *sqe = ring_sqe(conn->loop->ring);

	io_uring_prep_poll_add(sqe, conn->fd, (unsigned)events);
	ring_tag(conn->loop->ring, sqe, &conn->recv_op);
	conn->receiving = true;
}

static void start_recv_tls(struct nbd_conn *conn)
{
	if (!nbd_tls_has_input(conn->tls)) {
		start_poll(conn, POLLIN);
		return;
	}
	nbd_conn_kick(conn);
	recv_tls(conn);
}

static void start_recv(struct nbd_conn *conn)
{
	struct io_uring_sqe *sqe;
	uint8_t *at = recv_window(conn, &conn->recv_bytes);

	if (conn->recv_bytes == 0) /* a slice comes free first */
		return;
	if (conn->tls != NULL) {
		start_recv_tls(conn);
		return;
	}
	sqe = ring_sqe(conn->loop->ring);
	io_uring_prep_recv(sqe, conn->fd, at, conn->recv_bytes, 0);
	ring_tag(conn->loop->ring, sqe, &conn->recv_op);
	conn->receiving = true;
}

static ssize_t recv_some(struct nbd_conn *conn, uint8_t *at, uint32_t bytes)
{
	ssize_t res;

	if (conn->tls != NULL)
		return nbd_tls_recv(conn->tls, at, bytes);
	res = recv(conn->fd, at, bytes, MSG_DONTWAIT);
	return res < 0 ? -errno : res;
}

/* True: more has come, without waiting. */
static bool recv_now(struct nbd_conn *conn)
{
	bool awaited = conn->current != NULL;
	unsigned looks = awaited ? conn->looks : conn->filled;
	uint32_t bytes;
	uint8_t *at = recv_window(conn, &bytes);

	if (bytes == 0)
		return false;
	for (; looks > 0; looks--) {
		ssize_t res = recv_some(conn, at, bytes);

		if (res == -EAGAIN)
			continue;
		conn->looks = NBD_LOOKS_MAX;
		return received(conn, res, bytes);
	}
	if (awaited && conn->looks > 1)
		conn->looks /= 2;
	return false;
}

/* --- turns --- */

static void shaken(struct nbd_shake *shake)
{
	struct nbd_conn *conn = container_of(shake, struct nbd_conn, shake);

	assert(conn->magic == NBD_CONN_MAGIC && conn->shaking);
	conn->shaking = false;
	conn->tls = shake->tls;
	nbd_conn_kick(conn);
	if (conn->state != NBD_CONN_HANDSHAKE)
		return;
	if (shake->res == 0)
		nbd_handshake_tls_began(&conn->handshake);
	else if (shake->res == -EAGAIN)
		start_poll(conn, nbd_tls_events(conn->tls));
	else
		nbd_conn_fail(conn, shake->res);
}

/* STARTTLS was answered. */
static void turn_starttls(struct nbd_conn *conn)
{
	/* Nobody waits for the answer and sends something meanwhile: see nbd_handshake.h. */
	if (conn->tls == NULL && nbd_rx_have(&conn->rx) > 0) {
		nbd_conn_break(conn, "plain text behind STARTTLS");
		return;
	}
	conn->shake.owner = &conn->loop->worker;
	conn->shake.keys = conn->lane->server->tls_keys;
	conn->shake.fd = conn->fd;
	conn->shake.tls = conn->tls;
	conn->shake.done = shaken;
	conn->shaking = true;
	nbd_shaker_step(&conn->lane->server->shaker, &conn->shake);
}

static void open_now(struct nbd_conn *conn)
{
	conn->state = NBD_CONN_OPEN;
	nbd_guests_settle(&conn->lane->server->guests, &conn->guest);
}

/* True: it needs input. */
static bool turn_handshake(struct nbd_conn *conn)
{
	while (conn->state == NBD_CONN_HANDSHAKE && conn->answer.len_bytes == 0) {
		size_t taken;

		if (conn->handshake.state == NBD_HANDSHAKE_STARTTLS) {
			turn_starttls(conn);
			return false;
		}
		taken = nbd_handshake_step(&conn->handshake, nbd_rx_bytes(&conn->rx),
					   nbd_rx_have(&conn->rx), &conn->answer);

		nbd_rx_skip(&conn->rx, (uint32_t)taken);
		if (conn->handshake.state == NBD_HANDSHAKE_TRANSMISSION)
			open_now(conn);
		else if (conn->handshake.state == NBD_HANDSHAKE_CLOSE)
			nbd_conn_drain(conn);
		else if (taken == 0)
			return true;
	}
	return false;
}

static void conn_free(struct nbd_conn *conn)
{
	struct nbd_server *server = conn->lane->server;
	struct nbd_guest guest = conn->guest;

	assert(conn->pieces_used == 0 && conn->commands_used == 0);
	assert(list_empty(&conn->tx) && list_empty(&conn->ordered) && !conn->own_used);
	list_del(&conn->node);
	list_del(&conn->turn.node);
	nbd_near_gone(&conn->lane->near, conn);
	buffers_unwait(&conn->buffers_waiter);
	if (conn->tls != NULL && conn->handshake.tls && conn->state == NBD_CONN_DRAINING)
		nbd_tls_bye(conn->tls);
	nbd_tls_free(conn->tls);
	close(conn->fd);
	nbd_rx_done(&conn->rx);
	conn->loop->busy--;
	conn->magic = 0;
	munmap(conn, conn_bytes());
	nbd_server_client_gone(server, &guest);
}

/* True: it is gone. */
static bool end_turn(struct nbd_conn *conn)
{
	nbd_command_abandon(conn);
	if (conn->state == NBD_CONN_DRAINING) {
		nbd_command_parse(conn);
		if (conn->commands_used > 0 || conn->answer.len_bytes > 0)
			return false;
	}
	if (conn->commands_used > 0 || conn->send.resting || conn->shaking)
		return false;
	if (conn->receiving || conn->send.waiting) {
		shutdown(conn->fd, SHUT_RDWR);
		return false;
	}
	conn_free(conn);
	return true;
}

/* True: it needs input. */
static bool turn_open(struct nbd_conn *conn)
{
	for (unsigned count = 0; conn->state == NBD_CONN_OPEN; count++) {
		if (!nbd_command_parse(conn))
			return false;
		/* Others want their turn too. */
		if (count == NBD_RECVS_MAX || !recv_now(conn))
			return true;
	}
	return false;
}

static void tell_near(struct nbd_conn *conn)
{
	nbd_near_request(&conn->lane->near,
			 &(struct nbd_near_sent){
				 .client = conn,
				 .fd = conn->fd,
				 .alone = conn->commands_begun == 1 && conn->commands_used <= 1,
				 .sleeps = conn->loop->sleeps,
				 .now_ns = conn->now_ns,
			 });
}

static void turn(struct loop_soon *soon)
{
	struct nbd_conn *conn = container_of(soon, struct nbd_conn, turn);
	bool wants_input = false;

	assert(conn->magic == NBD_CONN_MAGIC);
	conn->now_ns = clock_ns();
	conn->commands_begun = 0;
	/* While a receive is in flight, there is nothing new to look at. */
	if (conn->state == NBD_CONN_HANDSHAKE && !conn->receiving && !conn->shaking)
		wants_input = turn_handshake(conn);
	if (conn->state == NBD_CONN_OPEN && !conn->receiving)
		wants_input = turn_open(conn);
	if ((conn->state == NBD_CONN_DRAINING || conn->state == NBD_CONN_BROKEN) && end_turn(conn))
		return;
	if (conn->commands_begun > 0)
		tell_near(conn);
	nbd_send_now(conn);
	if (wants_input && (conn->state == NBD_CONN_HANDSHAKE || conn->state == NBD_CONN_OPEN))
		start_recv(conn);
}

static void set_socket_buffers(int fd)
{
	int bytes = SOCKET_BUFFER_BYTES;

	/* More than the administrator's maximum is for root only; less is slower, no worse. */
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

int nbd_conn_new(struct nbd_lane *lane, int fd, const struct nbd_export *export,
		 const struct nbd_guest *guest)
{
	struct nbd_conn *conn = mmap(NULL, conn_bytes(), PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint8_t *memory = (uint8_t *)conn + round_up(sizeof(*conn));
	int r;

	if (conn == MAP_FAILED)
		return -ENOMEM;
	r = nbd_rx_init(&conn->rx);
	if (r < 0) {
		munmap(conn, conn_bytes());
		return r;
	}
	conn->magic = NBD_CONN_MAGIC;
	conn->lane = lane;
	conn->loop = lane->loop;
	conn->fd = fd;
	conn->guest = *guest;
	conn->looks = NBD_LOOKS_MAX;
	conn->own_buf = memory;
	conn->scratch = conn->own_buf + NBD_OWN_BYTES;
	conn->turn.run = turn;
	conn->buffers_waiter.ready = buffers_ready;
	conn->recv_op.done = recv_done;
	nbd_send_init(conn, conn->scratch + (size_t)NBD_PIECES_MAX * SCRATCH_BYTES);
	conn->received_ms = conn->loop->now_ms;
	list_init(&conn->turn.node);
	list_init(&conn->buffers_waiter.node);
	list_init(&conn->tx);
	list_init(&conn->ordered);
	list_init(&conn->free_commands);
	list_init(&conn->free_pieces);
	list_add_tail(&lane->conns, &conn->node);
	set_socket_buffers(fd);
	nbd_handshake_init(&conn->handshake, export);
	nbd_encode_greeting(conn->answer.bytes,
			    NBD_HANDSHAKE_FIXED_NEWSTYLE | NBD_HANDSHAKE_NO_ZEROES);
	conn->answer.len_bytes = NBD_GREETING_BYTES;
	conn->loop->busy++;
	nbd_conn_kick(conn);
	return 0;
}
