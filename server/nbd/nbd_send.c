/* SPDX-License-Identifier: GPL-2.0-or-later */
/* nbd_send - see the header */
#include "server/nbd/nbd_send.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "core/request/look.h"
#include "server/base/clock.h"
#include "server/nbd/nbd_command.h"
#include "server/nbd/nbd_conn.h"
#include "server/nbd/nbd_server.h"

#define EXTENTS_MAX (NBD_PIECE_BYTES_MAX / BLOCK_BYTES + 1)
#define ZERO_BYTES  (64u * 1024)

static const uint8_t zeros[ZERO_BYTES];

bool nbd_send_can_look(struct nbd_conn *conn, uint64_t off_bytes, uint32_t len_bytes)
{
	struct store_map_view *view = &conn->lane->view;
	lbn_t lbn = lbn_of_bytes(off_bytes);
	uint32_t blocks = (uint32_t)(div_up(off_bytes + len_bytes, BLOCK_BYTES) - lbn.v), count;
	struct extent extents[EXTENTS_MAX];
	struct look look;

	/* Encrypting a page that cannot be read would end the process, not the system call. */
	if (view->map == NULL || conn->tls != NULL)
		return false;
	look_begin(&look, conn->lane->server->volume, &conn->loop->worker);
	count = look_range(&look, lbn, blocks, extents, EXTENTS_MAX);
	look_end(&look);
	for (uint32_t i = 0; i < count; i++)
		if (!pbn_is_none(extents[i].pbn) &&
		    !store_map_resident(view, pbn_off_bytes(extents[i].pbn),
					blocks_to_bytes(extents[i].blocks), conn->loop->now_ms))
			return false;
	return count > 0;
}

/* --- what was sent --- */

static void sent_answer(struct nbd_conn *conn, uint32_t bytes)
{
	conn->answer_sent_bytes += bytes;
	assert(conn->answer_sent_bytes <= conn->answer.len_bytes);
	if (conn->answer_sent_bytes == conn->answer.len_bytes) {
		conn->answer.len_bytes = 0;
		conn->answer_sent_bytes = 0;
		nbd_conn_kick(conn); /* the handshake goes on */
	}
}

static void sent_pieces(struct nbd_conn *conn, uint32_t bytes)
{
	while (bytes > 0) {
		struct nbd_piece *piece = container_of(conn->tx.next, struct nbd_piece, node);
		uint32_t left = piece->head_bytes + piece->data_bytes - piece->sent_bytes;

		assert(!list_empty(&conn->tx));
		if (bytes < left) {
			piece->sent_bytes += bytes;
			return;
		}
		bytes -= left;
		if (conn->send.rest_piece == piece)
			conn->send.rest_piece = NULL;
		nbd_piece_release(piece);
	}
}

static void sent(struct nbd_conn *conn, uint32_t bytes)
{
	if (conn->answer.len_bytes > 0)
		sent_answer(conn, bytes);
	else
		sent_pieces(conn, bytes);
}

/* --- gathering --- */

static bool has_room(const struct nbd_conn *conn)
{
	return conn->send.msg.msg_iovlen < NBD_SEND_IOVS;
}

static void add(struct nbd_conn *conn, const uint8_t *bytes, uint64_t len_bytes)
{
	assert(has_room(conn));
	conn->send.iov[conn->send.msg.msg_iovlen++] =
		(struct iovec){(void *)(uintptr_t)bytes, len_bytes};
}

/* False: there was no room for all of it. */
static bool add_zeros(struct nbd_conn *conn, uint64_t len_bytes)
{
	while (len_bytes > 0 && has_room(conn)) {
		uint64_t len = min_u64(len_bytes, ZERO_BYTES);

		add(conn, zeros, len);
		len_bytes -= len;
	}
	return len_bytes == 0;
}

static bool add_extents(struct nbd_conn *conn, const struct extent *extents, uint32_t count,
			uint64_t begin_bytes, uint64_t end_bytes)
{
	const uint8_t *store = conn->lane->view.map->bytes;
	uint64_t at = begin_bytes / BLOCK_BYTES * BLOCK_BYTES;

	for (uint32_t i = 0; i < count; i++) {
		uint64_t extent_end = at + blocks_to_bytes(extents[i].blocks);
		uint64_t from = at < begin_bytes ? begin_bytes : at;
		uint64_t len = min_u64(extent_end, end_bytes) - from;

		if (!has_room(conn))
			return false;
		if (!pbn_is_none(extents[i].pbn))
			add(conn, store + pbn_off_bytes(extents[i].pbn) + (from - at), len);
		else if (!add_zeros(conn, len))
			return false;
		at = extent_end;
	}
	return true;
}

/* True: all of what is left of the piece was added. */
static bool add_looked(struct nbd_conn *conn, struct look *look, const struct nbd_piece *piece,
		       uint32_t data_sent_bytes)
{
	const struct nbd_send *send = &conn->send;
	uint64_t begin = piece->request.off_bytes + data_sent_bytes;
	uint64_t end = piece->request.off_bytes + piece->data_bytes;
	lbn_t lbn = lbn_of_bytes(begin);
	struct extent extents[EXTENTS_MAX];
	uint32_t count;

	if (send->rest_piece == piece && begin >= send->rest_begin_bytes &&
	    begin < send->rest_end_bytes) {
		add(conn, send->rest_buf + (begin - send->rest_begin_bytes),
		    send->rest_end_bytes - begin);
		return send->rest_end_bytes == end;
	}
	if (look->volume == NULL)
		look_begin(look, conn->lane->server->volume, &conn->loop->worker);
	count = look_range(look, lbn, (uint32_t)(div_up(end, BLOCK_BYTES) - lbn.v), extents,
			   EXTENTS_MAX);
	return count > 0 && add_extents(conn, extents, count, begin, end);
}

/* True: all of what is left of the piece was added. */
static bool add_piece(struct nbd_conn *conn, struct look *look, const struct nbd_piece *piece)
{
	uint32_t data_sent_bytes = 0;

	if (conn->send.msg.msg_iovlen + 2 > NBD_SEND_IOVS)
		return false;
	if (piece->sent_bytes < piece->head_bytes)
		add(conn, piece->head + piece->sent_bytes, piece->head_bytes - piece->sent_bytes);
	else
		data_sent_bytes = piece->sent_bytes - piece->head_bytes;
	if (data_sent_bytes == piece->data_bytes)
		return true;
	if (piece->looked)
		return add_looked(conn, look, piece, data_sent_bytes);
	add(conn, piece->data + data_sent_bytes, piece->data_bytes - data_sent_bytes);
	return true;
}

/* False: nothing could be gathered, because the first piece has to be read. */
static bool gather(struct nbd_conn *conn, struct look *look)
{
	struct nbd_send *send = &conn->send;
	unsigned pieces = 0;

	send->msg = (struct msghdr){.msg_iov = send->iov};
	if (conn->answer.len_bytes > 0) {
		add(conn, conn->answer.bytes + conn->answer_sent_bytes,
		    conn->answer.len_bytes - conn->answer_sent_bytes);
		return true;
	}
	list_for_each (pos, &conn->tx) {
		if (pieces++ == (send->one_by_one ? 1 : NBD_SEND_PIECES_MAX))
			break;
		if (!add_piece(conn, look, container_of(pos, struct nbd_piece, node)))
			break;
	}
	return send->msg.msg_iovlen > 0;
}

/* --- the rest of a piece --- */

/* The address of the first byte that was not sent. NULL: all was. */
static const uint8_t *unsent(const struct nbd_send *send, size_t sent_bytes)
{
	for (size_t i = 0; i < send->msg.msg_iovlen; i++) {
		if (sent_bytes < send->iov[i].iov_len)
			return (const uint8_t *)send->iov[i].iov_base + sent_bytes;
		sent_bytes -= send->iov[i].iov_len;
	}
	return NULL;
}

/* The socket took a part of a block. What is left of the block is kept as it is now: looked up
 * again later, it could be another, and a sector would be half old and half new. from: NULL, or
 * where in the store or among the zeros it is; called after sent(). */
static void keep_block(struct nbd_conn *conn, const uint8_t *from)
{
	const struct store_map *map = conn->lane->view.map;
	struct nbd_send *send = &conn->send;
	const struct nbd_piece *piece = container_of(conn->tx.next, struct nbd_piece, node);
	uint64_t begin = piece->request.off_bytes + piece->sent_bytes - piece->head_bytes;
	uint64_t end = min_u64(begin / BLOCK_BYTES * BLOCK_BYTES + BLOCK_BYTES,
			       piece->request.off_bytes + piece->data_bytes);

	bool kept = send->rest_piece == piece && begin >= send->rest_begin_bytes &&
		    begin < send->rest_end_bytes;

	if (!piece->looked || piece->sent_bytes < piece->head_bytes || begin % BLOCK_BYTES == 0 ||
	    kept)
		return;
	if (from >= map->bytes && from < map->bytes + map->size_bytes) {
		if (pread(map->fd, send->rest_buf, end - begin, from - map->bytes) !=
		    (ssize_t)(end - begin))
			return; /* it cannot be read later either */
	} else {
		memset(send->rest_buf, 0, end - begin);
	}
	send->rest_piece = piece;
	send->rest_begin_bytes = begin;
	send->rest_end_bytes = end;
}

static void rest_done(struct request *request, int res)
{
	struct nbd_conn *conn = request->context;
	struct nbd_send *send = &conn->send;

	send->resting = false;
	nbd_conn_kick(conn);
	if (res < 0) {
		send->rest_piece = NULL;
		if (conn->state != NBD_CONN_BROKEN)
			nbd_command_fail_first(conn, res);
	}
}

static void start_rest(struct nbd_conn *conn)
{
	struct nbd_send *send = &conn->send;
	struct nbd_piece *piece = container_of(conn->tx.next, struct nbd_piece, node);
	uint32_t data_sent_bytes =
		piece->sent_bytes > piece->head_bytes ? piece->sent_bytes - piece->head_bytes : 0;

	assert(piece->looked && !send->resting);
	send->resting = true;
	send->rest_piece = piece;
	send->rest_begin_bytes = piece->request.off_bytes + data_sent_bytes;
	send->rest_end_bytes = send->rest_begin_bytes +
			       min_u32(NBD_REST_BYTES, piece->data_bytes - data_sent_bytes);
	send->rest = (struct request){
		.op = REQUEST_READ,
		.tally = TALLY_NONE, /* it was when it was looked at */
		.off_bytes = send->rest_begin_bytes,
		.len_bytes = send->rest_end_bytes - send->rest_begin_bytes,
		.data = send->rest_buf,
		.scratch = send->rest_buf + NBD_REST_BYTES,
		.volume = conn->lane->server->volume,
		.worker = &conn->loop->worker,
		.done = rest_done,
		.context = conn,
	};
	request_submit(&send->rest);
}

/* --- sending --- */

static void writable(struct ring_op *op, int res, uint32_t flags)
{
	struct nbd_conn *conn = container_of(op, struct nbd_conn, send.writable_op);

	(void)flags;
	(void)res; /* sending will say what is wrong */
	assert(conn->magic == NBD_CONN_MAGIC && conn->send.waiting);
	conn->send.waiting = false;
	nbd_conn_kick(conn);
}

static void wait_writable(struct nbd_conn *conn)
{
	struct io_uring_sqe *sqe = ring_sqe(conn->loop->ring);

	io_uring_prep_poll_add(sqe, conn->fd, POLLOUT);
	ring_tag(conn->loop->ring, sqe, &conn->send.writable_op);
	conn->send.waiting = true;
	conn->sent_ms = conn->loop->now_ms;
}

static void failed(struct nbd_conn *conn, int res)
{
	if (res == -EINTR)
		return;
	if (res == -EAGAIN)
		wait_writable(conn);
	else if (res != -EFAULT)
		nbd_conn_fail(conn, res);
	else if (!conn->send.one_by_one)
		conn->send.one_by_one = true;
	else
		nbd_command_fail_first(conn, -EIO);
}

static void sent_some(struct nbd_conn *conn, uint32_t bytes, bool looked)
{
	const uint8_t *rest = looked ? unsent(&conn->send, bytes) : NULL;

	conn->send.one_by_one = false;
	conn->now_ns = clock_ns();
	sent(conn, bytes);
	if (rest != NULL)
		keep_block(conn, rest);
}

static ssize_t send_some(struct nbd_conn *conn)
{
	const struct msghdr *msg = &conn->send.msg;
	ssize_t res;

	if (conn->tls != NULL)
		return nbd_tls_send(conn->tls, msg->msg_iov, msg->msg_iovlen);
	res = sendmsg(conn->fd, msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	return res < 0 ? -errno : res;
}

static bool has_anything(const struct nbd_conn *conn)
{
	return conn->answer.len_bytes > 0 || !list_empty(&conn->tx);
}

void nbd_send_now(struct nbd_conn *conn)
{
	struct nbd_send *send = &conn->send;

	while (conn->state != NBD_CONN_BROKEN && !send->waiting && !send->resting &&
	       has_anything(conn)) {
		struct look look = {.volume = NULL};
		ssize_t res = -1;

		if (gather(conn, &look))
			res = send_some(conn);
		if (res >= 0)
			sent_some(conn, (uint32_t)res, look.volume != NULL);
		if (look.volume != NULL)
			look_end(&look);
		if (send->msg.msg_iovlen == 0)
			start_rest(conn);
		else if (res < 0)
			failed(conn, (int)res);
	}
}

void nbd_send_init(struct nbd_conn *conn, uint8_t *rest_buf)
{
	conn->send.writable_op.done = writable;
	conn->send.rest_buf = rest_buf;
}
