/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd_command - see the header
 *
 * A command is cut into pieces: of reads at most 1 MiB, of writes at most a slice of the input
 * ring. A piece has a buffer (for payload), the engine's request, and carries its part of the
 * answer:
 *
 *   free ----> ENGINE ----> TX ----> free
 *                |           ^
 *                +--> ORDERED
 *
 *   free    -> ENGINE   start_write   all of a slice of the payload has come: only now is anything
 *                                     admitted. The engine gets it where it was received
 *   free    -> ENGINE   start_read, start_plain
 *   ENGINE  -> TX       finish_read     each piece of a read is a chunk of a structured reply
 *   ENGINE  -> TX       finish_status   the last piece carries the answer; the others are released
 *   ENGINE  -> ORDERED  finish_ordered  see below
 *
 * A read that is longer than one piece and is answered with a simple reply must go out in order and
 * without anything between. It starts when all else is answered and sent, nothing is parsed until
 * its last piece is in the queue, and its pieces queue in the order of the volume. An error after
 * its header can only end the connection.
 *
 * A write of several pieces with FUA is written without, then flushed.
 */
#include "server/nbd/nbd_command.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core/base/mutant.h"
#include "core/request/look.h"
#include "server/nbd/nbd_check.h"
#include "server/nbd/nbd_server.h"
#include "server/nbd/nbd_status.h"

/* The scratch of a BLOCK_STATUS: the engine's runs, and behind them what is made of them. */
#define RUNS_MAX                                                                                   \
	((SCRATCH_BYTES - NBD_STATUS_BYTES(0)) /                                                   \
	 (sizeof(struct map_run) + NBD_CONTEXTS_MAX * NBD_EXTENDED_EXTENT_BYTES))
/* Of what a client asks to have at hand, no more is read: it is a hint. */
#define CACHE_BYTES_MAX NBD_PAYLOAD_BYTES_MAX

static_assert(RUNS_MAX * sizeof(struct map_run) + NBD_STATUS_BYTES(RUNS_MAX) <= SCRATCH_BYTES,
	      "runs and their reply fit");
static_assert(NBD_CHUNK_DATA_BYTES_MAX == NBD_PIECE_BYTES_MAX, "one chunk is one piece");

/* --- pools --- */

static bool pools_left(const struct nbd_conn *conn)
{
	return conn->commands_used < NBD_COMMANDS_MAX && conn->pieces_used < NBD_PIECES_MAX;
}

static struct nbd_command *take_command(struct nbd_conn *conn)
{
	struct nbd_command *command;

	assert(conn->commands_used < NBD_COMMANDS_MAX);
	if (!list_empty(&conn->free_commands)) {
		command = container_of(conn->free_commands.next, struct nbd_command, node);
		list_del(&command->node);
	} else {
		command = &conn->commands[conn->commands_made++];
		list_init(&command->node);
	}
	conn->commands_used++;
	conn->commands_begun++;
	command->conn = conn;
	command->started_ns = conn->now_ns;
	command->total_bytes = 0;
	command->issued_bytes = 0;
	command->pieces = 0;
	command->pending = 0;
	command->error = 0;
	command->ordered = false;
	command->head_queued = false;
	command->syncing = false;
	return command;
}

static void note_latency(const struct nbd_command *command)
{
	static const enum latency_op ops[] = {
		[NBD_CMD_READ] = LATENCY_READ,
		[NBD_CMD_WRITE] = LATENCY_WRITE,
		[NBD_CMD_FLUSH] = LATENCY_FLUSH,
		[NBD_CMD_TRIM] = LATENCY_DISCARD,
		[NBD_CMD_WRITE_ZEROES] = LATENCY_DISCARD,
	};
	const struct nbd_conn *conn = command->conn;
	uint16_t what = command->wire.command;

	if (what == NBD_CMD_DISC || what == NBD_CMD_CACHE || what > NBD_CMD_WRITE_ZEROES ||
	    command->error != 0)
		return;
	latency_note(&conn->lane->latency, ops[what], conn->now_ns - command->started_ns);
}

static void drop_command(struct nbd_command *command)
{
	struct nbd_conn *conn = command->conn;

	note_latency(command);
	/* What was used last is at the front: a client that asks little touches little memory. */
	list_add_before(conn->free_commands.next, &command->node);
	conn->commands_used--;
	nbd_conn_kick(conn);
}

static struct nbd_piece *take_piece(struct nbd_command *command)
{
	struct nbd_conn *conn = command->conn;
	struct nbd_piece *piece;

	assert(conn->pieces_used < NBD_PIECES_MAX);
	if (!list_empty(&conn->free_pieces)) {
		piece = container_of(conn->free_pieces.next, struct nbd_piece, node);
		list_del(&piece->node);
	} else {
		piece = &conn->pieces[conn->pieces_made++];
		list_init(&piece->node);
		list_init(&piece->slice.node);
	}
	conn->pieces_used++;
	command->pieces++;
	command->pending++;
	piece->command = command;
	piece->buf = NULL;
	piece->len_bytes = 0;
	piece->head_bytes = 0;
	piece->data_bytes = 0;
	piece->sent_bytes = 0;
	piece->own = false;
	piece->finished = false;
	piece->looked = false;
	piece->last = false;
	return piece;
}

static void drop_buffer(struct nbd_piece *piece)
{
	struct nbd_conn *conn = piece->command->conn;

	if (!list_empty(&piece->slice.node))
		nbd_rx_drop(&conn->rx, &piece->slice);
	else if (piece->own)
		conn->own_used = false;
	else if (piece->buf != NULL)
		buffers_drop(&conn->loop->buffers, piece->buf);
	piece->own = false;
	piece->buf = NULL;
}

void nbd_piece_release(struct nbd_piece *piece)
{
	struct nbd_command *command = piece->command;
	struct nbd_conn *conn = command->conn;

	drop_buffer(piece);
	list_del(&piece->node);
	list_add_before(conn->free_pieces.next, &piece->node);
	conn->pieces_used--;
	command->pieces--;
	if (command->pieces == 0 && command != conn->current)
		drop_command(command);
	else
		nbd_conn_kick(conn);
}

static void release_all(struct list *pieces)
{
	while (!list_empty(pieces))
		nbd_piece_release(container_of(pieces->next, struct nbd_piece, node));
}

static void end_current(struct nbd_conn *conn)
{
	struct nbd_command *command = conn->current;

	conn->current = NULL;
	if (command->pieces == 0)
		drop_command(command);
}

/* A buffer for as much of len_bytes as there is memory for. NULL: the connection waits, and since
 * its own slice is then in use by the engine or on its way to the client, it does not wait for
 * ever. */
static uint8_t *take_buffer(struct nbd_conn *conn, uint32_t len_bytes, uint32_t *ret_len_bytes,
			    bool *ret_own)
{
	struct buffers *buffers = &conn->loop->buffers;
	uint32_t len = min_u32(len_bytes, NBD_PIECE_BYTES_MAX);
	/* Who waits comes first. */
	uint8_t *buf = buffers_contended(buffers) ? NULL : buffers_take(buffers, len);

	*ret_own = false;
	if (buf == NULL && !conn->own_used) {
		buf = conn->own_buf;
		len = min_u32(len, NBD_OWN_BYTES);
		conn->own_used = true;
		*ret_own = true;
	}
	if (buf == NULL)
		buffers_wait(buffers, &conn->buffers_waiter);
	*ret_len_bytes = len;
	return buf;
}

/* --- answers --- */

static bool is_structured(const struct nbd_command *command)
{
	const struct nbd_handshake *handshake = &command->conn->handshake;

	return handshake->extended ||
	       (handshake->structured && (command->wire.command == NBD_CMD_READ ||
					  command->wire.command == NBD_CMD_BLOCK_STATUS));
}

static void put_head(struct nbd_piece *piece, uint16_t flags, uint16_t type, uint32_t len_bytes)
{
	const struct nbd_command *command = piece->command;

	piece->head_bytes = nbd_encode_head(piece->head, command->conn->handshake.extended, flags,
					    type, &command->wire, len_bytes);
}

static void queue(struct nbd_piece *piece)
{
	struct nbd_conn *conn = piece->command->conn;

	list_del(&piece->node);
	list_add_tail(&conn->tx, &piece->node);
	nbd_conn_kick(conn);
}

/* Success or error; done: nothing more follows. */
static void encode_status(struct nbd_piece *piece, bool done)
{
	struct nbd_command *command = piece->command;
	uint32_t error = nbd_error_of(command->error);
	uint16_t flags = done ? NBD_REPLY_FLAG_DONE : 0;

	if (!is_structured(command)) {
		nbd_encode_simple_reply(piece->head, error, command->wire.cookie);
		piece->head_bytes = NBD_SIMPLE_REPLY_BYTES;
	} else if (error == NBD_OK) {
		put_head(piece, flags, NBD_REPLY_TYPE_NONE, 0);
	} else {
		put_head(piece, flags, NBD_REPLY_TYPE_ERROR, NBD_ERROR_BYTES);
		nbd_encode_error(piece->head + piece->head_bytes, error);
		piece->head_bytes += NBD_ERROR_BYTES;
	}
}

/* Success or error, and nothing more. */
static void answer_status(struct nbd_piece *piece)
{
	drop_buffer(piece);
	encode_status(piece, true);
	piece->data_bytes = 0;
	queue(piece);
}

static bool is_last(const struct nbd_command *command)
{
	return command->pending == 0 && command->issued_bytes == command->total_bytes;
}

static void finish_ordered(struct nbd_piece *piece)
{
	struct nbd_command *command = piece->command;
	struct nbd_conn *conn = command->conn;

	piece->finished = true;
	if (command->error != 0 && command->head_queued) {
		nbd_conn_break(conn, "an error in the middle of a simple reply");
		nbd_piece_release(piece);
		return;
	}
	if (command->error != 0) {
		if (command->pending > 0)
			return;
		/* This piece tells the error; the others that finished are not needed. */
		list_del(&piece->node);
		release_all(&conn->ordered);
		answer_status(piece);
		return;
	}
	while (!list_empty(&conn->ordered)) {
		piece = container_of(conn->ordered.next, struct nbd_piece, node);
		if (!piece->finished)
			return;
		if (!command->head_queued) {
			nbd_encode_simple_reply(piece->head, NBD_OK, command->wire.cookie);
			piece->head_bytes = NBD_SIMPLE_REPLY_BYTES;
		}
		command->head_queued = true;
		piece->data = piece->buf;
		piece->data_bytes = piece->len_bytes;
		queue(piece);
	}
}

static void finish_read(struct nbd_piece *piece)
{
	struct nbd_command *command = piece->command;
	bool last = is_last(command);

	if (command->ordered) {
		finish_ordered(piece);
		return;
	}
	if (command->error != 0) {
		if (last)
			answer_status(piece);
		else
			nbd_piece_release(piece);
		return;
	}
	piece->data = piece->buf;
	piece->data_bytes = piece->len_bytes;
	piece->last = last;
	if (!is_structured(command)) {
		assert(last);
		nbd_encode_simple_reply(piece->head, NBD_OK, command->wire.cookie);
		piece->head_bytes = NBD_SIMPLE_REPLY_BYTES;
	} else {
		put_head(piece, last ? NBD_REPLY_FLAG_DONE : 0, NBD_REPLY_TYPE_OFFSET_DATA,
			 NBD_OFFSET_BYTES + piece->data_bytes);
		nbd_put_u64(piece->head + piece->head_bytes, piece->request.off_bytes);
		piece->head_bytes += NBD_OFFSET_BYTES;
	}
	queue(piece);
}

/* The reply has all of its heads in its data. */
static void finish_block_status(struct nbd_piece *piece)
{
	struct nbd_command *command = piece->command;
	const struct request *request = &piece->request;
	uint8_t *bytes = (uint8_t *)(request->runs + RUNS_MAX);
	size_t len_bytes = nbd_encode_status(&command->conn->handshake, &command->wire,
					     request->runs, request->runs_count, bytes);

	if (len_bytes == 0) {
		command->error = -EIO;
		answer_status(piece);
		return;
	}
	piece->data = bytes;
	piece->data_bytes = (uint32_t)len_bytes;
	queue(piece);
}

static void engine_done(struct request *request, int res);

/* A command counts once, however many pieces it has. */
static enum request_tally tally(const struct nbd_piece *piece, enum request_op op)
{
	const struct nbd_command *command = piece->command;

	if (op == REQUEST_FLUSH)
		return command->syncing ? TALLY_NONE : TALLY_ALL;
	return piece->request.off_bytes == command->wire.off_bytes ? TALLY_ALL : TALLY_BYTES;
}

static void to_engine(struct nbd_piece *piece, enum request_op op)
{
	struct nbd_command *command = piece->command;
	struct nbd_conn *conn = command->conn;
	struct request *request = &piece->request;
	size_t index = (size_t)(piece - conn->pieces);

	request->op = op;
	request->tally = tally(piece, op);
	request->lasting = conn->lane->server->lasting && op != REQUEST_FLUSH;
	request->data = piece->buf;
	request->scratch = conn->scratch + index * SCRATCH_BYTES;
	request->volume = conn->lane->server->volume;
	request->worker = &conn->loop->worker;
	request->done = engine_done;
	request->context = piece;
	request->cancel = &conn->cancelled;
	request_submit(request);
}

static void finish_status(struct nbd_piece *piece)
{
	struct nbd_command *command = piece->command;
	bool wants_sync = command->wire.command == NBD_CMD_WRITE &&
			  (command->wire.flags & NBD_CMD_FLAG_FUA) != 0 &&
			  piece->len_bytes < command->total_bytes;

	if (!is_last(command)) {
		nbd_piece_release(piece);
		return;
	}
	if (wants_sync && command->error == 0 && !command->syncing) {
		command->syncing = true;
		command->pending++;
		piece->request.fua = false;
		to_engine(piece, REQUEST_FLUSH);
		return;
	}
	answer_status(piece);
}

static void finish_piece(struct nbd_piece *piece, int res)
{
	struct nbd_command *command = piece->command;

	assert(command->pending > 0);
	command->pending--;
	if (res < 0 && command->error == 0)
		command->error = res;
	/* The rest of a read need not be read any more; the rest of a write has to come, to be
	 * thrown away. */
	if (command->error != 0 && command->wire.command != NBD_CMD_WRITE)
		command->issued_bytes = command->total_bytes;
	if (command->conn->state == NBD_CONN_BROKEN)
		nbd_piece_release(piece);
	else if (command->wire.command == NBD_CMD_READ && piece->len_bytes > 0)
		finish_read(piece);
	else if (command->wire.command == NBD_CMD_BLOCK_STATUS && command->error == 0)
		finish_block_status(piece);
	else
		finish_status(piece);
}

static void engine_done(struct request *request, int res)
{
	finish_piece(request->context, res);
}

/* --- pieces --- */

/* Everything that is no payload: one request, one answer. */
static void start_plain(struct nbd_piece *piece)
{
	const struct nbd_request *wire = &piece->command->wire;
	struct request *request = &piece->request;
	struct nbd_conn *conn = piece->command->conn;
	uint64_t end = wire->off_bytes + wire->len_bytes;

	request->fua = (wire->flags & NBD_CMD_FLAG_FUA) != 0;
	request->no_hole = (wire->flags & NBD_CMD_FLAG_NO_HOLE) != 0;
	request->off_bytes = wire->off_bytes;
	request->len_bytes = wire->len_bytes;
	switch (wire->command) {
	case NBD_CMD_FLUSH:
		request->fua = false;
		request->off_bytes = 0;
		request->len_bytes = 0;
		to_engine(piece, REQUEST_FLUSH);
		break;
	case NBD_CMD_TRIM:
		to_engine(piece, REQUEST_DISCARD);
		break;
	case NBD_CMD_WRITE_ZEROES:
		to_engine(piece, REQUEST_ZERO);
		break;
	case NBD_CMD_BLOCK_STATUS:
		request->fua = false;
		request->off_bytes = wire->off_bytes / BLOCK_BYTES * BLOCK_BYTES;
		request->len_bytes = div_up(end, BLOCK_BYTES) * BLOCK_BYTES - request->off_bytes;
		if (MUTANT(35)) /* a length in 32 bits */
			request->len_bytes = (uint32_t)request->len_bytes;
		request->runs =
			(void *)(conn->scratch + (size_t)(piece - conn->pieces) * SCRATCH_BYTES);
		request->runs_max = RUNS_MAX;
		to_engine(piece, REQUEST_MAP);
		break;
	default:
		assert(!"a command that nobody checked");
	}
}

/* The next piece of current, with a buffer. NULL: something has to come free first. */
static struct nbd_piece *next_piece(struct nbd_conn *conn)
{
	struct nbd_command *command = conn->current;
	uint32_t left = command->total_bytes - command->issued_bytes;
	struct nbd_piece *piece;
	uint32_t len_bytes;
	uint8_t *buf;
	bool own;

	if (conn->pieces_used == NBD_PIECES_MAX)
		return NULL;
	buf = take_buffer(conn, left, &len_bytes, &own);
	if (buf == NULL)
		return NULL;
	piece = take_piece(command);
	piece->buf = buf;
	piece->own = own;
	piece->len_bytes = len_bytes;
	piece->request.off_bytes = command->wire.off_bytes + command->issued_bytes;
	piece->request.len_bytes = len_bytes;
	command->issued_bytes += len_bytes;
	return piece;
}

/* One piece, one answer: it is what the client wants (DF), or all that a simple reply can do. */
static bool needs_whole(const struct nbd_command *command)
{
	if (command->wire.command != NBD_CMD_READ || command->ordered)
		return false;
	return !is_structured(command) || (command->wire.flags & NBD_CMD_FLAG_DF) != 0;
}

/* There is no memory for one piece: the client is told with DF, and served slowly otherwise. */
static void give_up_whole(struct nbd_piece *piece)
{
	struct nbd_command *command = piece->command;
	struct nbd_conn *conn = command->conn;

	if (is_structured(command)) {
		command->issued_bytes = command->total_bytes;
		finish_piece(piece, -EOVERFLOW);
		return;
	}
	command->ordered = true;
	command->issued_bytes = 0;
	command->pending--;
	nbd_piece_release(piece);
	nbd_conn_kick(conn);
}

static void start_read(struct nbd_piece *piece)
{
	struct nbd_command *command = piece->command;

	if (needs_whole(command) && piece->len_bytes < command->total_bytes) {
		give_up_whole(piece);
		return;
	}
	piece->request.fua = false;
	if (command->ordered)
		list_add_tail(&command->conn->ordered, &piece->node);
	to_engine(piece, REQUEST_READ);
}

/* A part of a read whose blocks are in memory: true, if it is on its way to be sent from there. */
static bool start_looked(struct nbd_conn *conn)
{
	struct nbd_command *command = conn->current;
	uint64_t off_bytes = command->wire.off_bytes + command->issued_bytes;
	uint32_t len_bytes =
		min_u32(command->total_bytes - command->issued_bytes, NBD_PIECE_BYTES_MAX);
	struct nbd_piece *piece;

	if (command->wire.command != NBD_CMD_READ || command->ordered ||
	    conn->pieces_used == NBD_PIECES_MAX || !nbd_send_can_look(conn, off_bytes, len_bytes))
		return false;
	piece = take_piece(command);
	piece->looked = true;
	piece->len_bytes = len_bytes;
	piece->request.off_bytes = off_bytes;
	look_count_read(conn->lane->server->volume, len_bytes, command->issued_bytes == 0);
	command->issued_bytes += len_bytes;
	finish_piece(piece, 0);
	return true;
}

/* READ and CACHE. True: all pieces are on their way, so that the next command can be looked at. */
static bool continue_read(struct nbd_conn *conn)
{
	struct nbd_command *command = conn->current;

	while (command->issued_bytes < command->total_bytes) {
		struct nbd_piece *piece;

		if (command->ordered && conn->commands_used > 1)
			return false;
		if (start_looked(conn))
			continue;
		piece = next_piece(conn);
		if (piece == NULL)
			return false;
		start_read(piece);
	}
	if (command->ordered && (command->pending > 0 || !list_empty(&conn->ordered)))
		return false;
	end_current(conn);
	return true;
}

/* The next slice of current's payload. It ends where a block ends, if the payload goes on. */
static uint32_t slice_bytes(const struct nbd_command *command)
{
	uint64_t at = command->wire.off_bytes + command->issued_bytes;
	uint32_t left = command->total_bytes - command->issued_bytes;

	if (left <= NBD_RX_SLICE_BYTES)
		return left;
	return NBD_RX_SLICE_BYTES - (uint32_t)(at % BLOCK_BYTES);
}

static void start_write(struct nbd_conn *conn, uint32_t len_bytes)
{
	struct nbd_command *command = conn->current;
	struct nbd_piece *piece = take_piece(command);

	piece->buf = nbd_rx_hold(&conn->rx, &piece->slice, len_bytes);
	piece->len_bytes = len_bytes;
	piece->request.off_bytes = command->wire.off_bytes + command->issued_bytes;
	piece->request.len_bytes = len_bytes;
	piece->request.fua =
		(command->wire.flags & NBD_CMD_FLAG_FUA) != 0 && len_bytes == command->total_bytes;
	command->issued_bytes += len_bytes;
	if (command->error != 0)
		finish_piece(piece, command->error);
	else
		to_engine(piece, REQUEST_WRITE);
}

/* True: the payload is complete and all pieces are on their way. *ret_input: input is what it waits
 * for. */
static bool continue_write(struct nbd_conn *conn, bool *ret_input)
{
	struct nbd_command *command = conn->current;

	while (command->issued_bytes < command->total_bytes) {
		uint32_t len_bytes = slice_bytes(command);

		*ret_input = nbd_rx_have(&conn->rx) < len_bytes;
		if (*ret_input || conn->pieces_used == NBD_PIECES_MAX)
			return false;
		start_write(conn, len_bytes);
	}
	end_current(conn);
	return true;
}

/* --- commands --- */

static void start_command(struct nbd_conn *conn, const struct nbd_request *wire)
{
	struct nbd_command *command = take_command(conn);
	bool by_pieces = wire->command == NBD_CMD_READ || wire->command == NBD_CMD_WRITE ||
			 wire->command == NBD_CMD_CACHE;
	bool nothing = wire->len_bytes == 0 && wire->command != NBD_CMD_FLUSH;

	command->wire = *wire;
	command->error = nbd_check_request(&conn->handshake, wire);
	if (command->error != 0 && nbd_has_payload(&conn->handshake, wire) && !MUTANT(39))
		conn->skip_bytes = (uint32_t)wire->len_bytes;
	if (command->error != 0 || nothing) {
		struct nbd_piece *piece = take_piece(command);

		command->pending = 0;
		answer_status(piece);
		return;
	}
	if (!by_pieces) {
		start_plain(take_piece(command));
		return;
	}
	command->total_bytes = (uint32_t)min_u64(wire->len_bytes, CACHE_BYTES_MAX);
	command->ordered = wire->command == NBD_CMD_READ && !conn->handshake.structured &&
			   wire->len_bytes > NBD_PIECE_BYTES_MAX;
	conn->current = command;
}

static void skip_payload(struct nbd_conn *conn)
{
	uint32_t skipped = min_u32(conn->skip_bytes, nbd_rx_have(&conn->rx));

	conn->skip_bytes -= skipped;
	nbd_rx_skip(&conn->rx, skipped);
}

static uint32_t request_bytes(const struct nbd_conn *conn)
{
	return conn->handshake.extended ? NBD_EXTENDED_REQUEST_BYTES : NBD_REQUEST_BYTES;
}

static bool next_command(struct nbd_conn *conn)
{
	const uint8_t *bytes = nbd_rx_bytes(&conn->rx);
	struct nbd_request wire;
	int r = conn->handshake.extended ? nbd_decode_extended_request(bytes, &wire)
					 : nbd_decode_request(bytes, &wire);

	if (r < 0) {
		nbd_conn_break(conn, "its client sent something that is no request");
		return false;
	}
	if (nbd_payload_is_absurd(&conn->handshake, &wire)) {
		nbd_conn_break(conn, "a payload beyond all limits");
		return false;
	}
	nbd_rx_skip(&conn->rx, request_bytes(conn));
	if (wire.command == NBD_CMD_DISC) {
		nbd_conn_drain(conn);
		return false;
	}
	start_command(conn, &wire);
	return true;
}

void nbd_command_fail_first(struct nbd_conn *conn, int error)
{
	struct nbd_piece *piece = container_of(conn->tx.next, struct nbd_piece, node);
	struct nbd_command *command = piece->command;

	assert(!list_empty(&conn->tx));
	if (!piece->looked || piece->sent_bytes > 0) {
		nbd_conn_break(conn, "an error in the middle of a reply");
		return;
	}
	command->error = error;
	piece->looked = false;
	piece->data_bytes = 0;
	encode_status(piece, piece->last);
}

bool nbd_command_parse(struct nbd_conn *conn)
{
	if (conn->state == NBD_CONN_DRAINING && conn->current != NULL)
		continue_read(conn);
	while (conn->state == NBD_CONN_OPEN) {
		bool input = false;

		skip_payload(conn);
		if (conn->skip_bytes > 0)
			return true;
		if (conn->current != NULL && conn->current->wire.command == NBD_CMD_WRITE) {
			if (!continue_write(conn, &input))
				return input;
		} else if (conn->current != NULL) {
			if (!continue_read(conn))
				return false;
		} else if (nbd_rx_have(&conn->rx) < request_bytes(conn)) {
			return true;
		} else if (!pools_left(conn) || !next_command(conn)) {
			return false;
		}
	}
	return false;
}

uint32_t nbd_command_missing(const struct nbd_conn *conn)
{
	uint32_t have = nbd_rx_have(&conn->rx);
	uint32_t wanted = request_bytes(conn);

	if (conn->skip_bytes > 0)
		wanted = conn->skip_bytes;
	else if (conn->current != NULL)
		wanted = slice_bytes(conn->current);
	return wanted > have ? wanted - have : 0;
}

/* Of a write: what has come is written, but what has not must not be answered for. */
static void abandon_payload(struct nbd_conn *conn)
{
	if (conn->current->error == 0)
		conn->current->error = -ESHUTDOWN;
	end_current(conn);
}

static void release_finished(struct list *pieces)
{
	list_for_each (pos, pieces) {
		struct nbd_piece *piece = container_of(pos, struct nbd_piece, node);

		if (piece->finished)
			nbd_piece_release(piece);
	}
}

void nbd_command_abandon(struct nbd_conn *conn)
{
	bool broken = conn->state == NBD_CONN_BROKEN;

	conn->skip_bytes = 0;
	if (conn->current != NULL && conn->current->wire.command == NBD_CMD_WRITE)
		abandon_payload(conn);
	else if (conn->current != NULL && broken)
		end_current(conn);
	if (!broken)
		return;
	release_finished(&conn->ordered);
	if (!MUTANT(38))
		release_all(&conn->tx);
}
