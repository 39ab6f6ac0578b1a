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
#include "server/nbd_command.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "server/nbd_server.h"

#define RUNS_MAX (SCRATCH_BYTES / sizeof(struct map_run))

static const uint16_t flags_known =
	NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_DF | NBD_CMD_FLAG_REQ_ONE;

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
	command->conn = conn;
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

static void drop_command(struct nbd_command *command)
{
	struct nbd_conn *conn = command->conn;

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
	return command->conn->handshake.structured &&
	       (command->wire.command == NBD_CMD_READ ||
		command->wire.command == NBD_CMD_BLOCK_STATUS);
}

static void queue(struct nbd_piece *piece)
{
	struct nbd_conn *conn = piece->command->conn;

	list_del(&piece->node);
	list_add_tail(&conn->tx, &piece->node);
	nbd_conn_kick(conn);
}

/* Success or error, and nothing more. */
static void answer_status(struct nbd_piece *piece)
{
	struct nbd_command *command = piece->command;
	uint64_t cookie = command->wire.cookie;
	uint32_t error = nbd_error_of(command->error);

	drop_buffer(piece);
	if (!is_structured(command)) {
		nbd_encode_simple_reply(piece->head, error, cookie);
		piece->head_bytes = NBD_SIMPLE_REPLY_BYTES;
	} else if (error == NBD_OK) {
		nbd_encode_chunk(piece->head, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_NONE, cookie, 0);
		piece->head_bytes = NBD_CHUNK_BYTES;
	} else {
		nbd_encode_chunk(piece->head, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_ERROR, cookie,
				 NBD_ERROR_BYTES);
		nbd_encode_error(piece->head + NBD_CHUNK_BYTES, error);
		piece->head_bytes = NBD_CHUNK_BYTES + NBD_ERROR_BYTES;
	}
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
	if (!is_structured(command)) {
		assert(last);
		nbd_encode_simple_reply(piece->head, NBD_OK, command->wire.cookie);
		piece->head_bytes = NBD_SIMPLE_REPLY_BYTES;
	} else {
		nbd_encode_chunk(piece->head, last ? NBD_REPLY_FLAG_DONE : 0,
				 NBD_REPLY_TYPE_OFFSET_DATA, command->wire.cookie,
				 NBD_OFFSET_BYTES + piece->data_bytes);
		nbd_put_u64(piece->head + NBD_CHUNK_BYTES, piece->request.off_bytes);
		piece->head_bytes = NBD_CHUNK_BYTES + NBD_OFFSET_BYTES;
	}
	queue(piece);
}

static uint32_t run_flags(const struct map_run *run)
{
	return pbn_is_none(run->pbn) ? NBD_STATE_HOLE | NBD_STATE_ZERO : 0;
}

/* The runs become extents of the asked range where they lie: an extent is smaller than a run, so
 * none is overwritten before it was read. */
static void finish_block_status(struct nbd_piece *piece)
{
	struct nbd_command *command = piece->command;
	const struct map_run *runs = piece->request.runs;
	uint64_t at = command->wire.off_bytes;
	uint64_t end = at + command->wire.len_bytes;
	uint8_t *extents = (uint8_t *)piece->request.runs;
	uint32_t count = 0;

	static_assert(sizeof(struct map_run) >= NBD_EXTENT_BYTES, "extents overtake the runs");
	for (uint32_t i = 0; i < piece->request.runs_count && at < end; count++) {
		uint32_t flags = run_flags(&runs[i]);
		uint64_t to = at;

		for (; i < piece->request.runs_count && run_flags(&runs[i]) == flags; i++)
			to = min_u64(runs[i].off_bytes + runs[i].len_bytes, end);
		nbd_encode_extent(extents + (size_t)count * NBD_EXTENT_BYTES, (uint32_t)(to - at),
				  flags);
		at = to;
		if ((command->wire.flags & NBD_CMD_FLAG_REQ_ONE) != 0)
			end = at;
	}
	if (count == 0) {
		command->error = command->error != 0 ? command->error : -EIO;
		answer_status(piece);
		return;
	}
	piece->data = extents;
	piece->data_bytes = count * NBD_EXTENT_BYTES;
	nbd_encode_chunk(piece->head, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_BLOCK_STATUS,
			 command->wire.cookie, NBD_CONTEXT_BYTES + piece->data_bytes);
	nbd_put_u32(piece->head + NBD_CHUNK_BYTES, NBD_CONTEXT_ALLOCATION);
	piece->head_bytes = NBD_CHUNK_BYTES + NBD_CONTEXT_BYTES;
	queue(piece);
}

static void engine_done(struct request *request, int res);

static void to_engine(struct nbd_piece *piece, enum request_op op)
{
	struct nbd_command *command = piece->command;
	struct nbd_conn *conn = command->conn;
	struct request *request = &piece->request;
	size_t index = (size_t)(piece - conn->pieces);

	request->op = op;
	request->data = piece->buf;
	request->scratch = conn->scratch + index * SCRATCH_BYTES;
	request->volume = conn->lane->server->volume;
	request->worker = &conn->loop->worker;
	request->done = engine_done;
	request->context = piece;
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

/* READ and CACHE. True: all pieces are on their way, so that the next command can be looked at. */
static bool continue_read(struct nbd_conn *conn)
{
	struct nbd_command *command = conn->current;

	while (command->issued_bytes < command->total_bytes) {
		struct nbd_piece *piece;

		if (command->ordered && conn->commands_used > 1)
			return false;
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

static int check_range(const struct nbd_request *wire, uint64_t size_bytes, int error)
{
	return wire->off_bytes > size_bytes || wire->len_bytes > size_bytes - wire->off_bytes
		       ? error
		       : 0;
}

static int check_payload(const struct nbd_request *wire)
{
	return wire->len_bytes > NBD_PAYLOAD_BYTES_MAX ? -EINVAL : 0;
}

static int check_command(const struct nbd_conn *conn, const struct nbd_request *wire)
{
	const struct nbd_export *export = &conn->lane->server->export;
	bool structured = conn->handshake.structured;
	bool changes = wire->command == NBD_CMD_WRITE || wire->command == NBD_CMD_TRIM ||
		       wire->command == NBD_CMD_WRITE_ZEROES;
	int r = 0;

	if ((wire->flags & ~flags_known) != 0)
		return -EINVAL;
	if (changes && export->read_only)
		return -EROFS;
	switch (wire->command) {
	case NBD_CMD_READ:
		/* One chunk is one piece. */
		if ((wire->flags & NBD_CMD_FLAG_DF) != 0 && structured)
			r = wire->len_bytes > NBD_PIECE_BYTES_MAX ? -EOVERFLOW : 0;
		else if ((wire->flags & NBD_CMD_FLAG_DF) != 0)
			r = -EINVAL;
		if (r == 0)
			r = check_payload(wire);
		return r != 0 ? r : check_range(wire, export->size_bytes, -EINVAL);
	case NBD_CMD_WRITE:
		r = check_payload(wire);
		return r != 0 ? r : check_range(wire, export->size_bytes, -ENOSPC);
	case NBD_CMD_WRITE_ZEROES:
		return check_range(wire, export->size_bytes, -ENOSPC);
	case NBD_CMD_TRIM:
	case NBD_CMD_CACHE:
		return check_range(wire, export->size_bytes, -EINVAL);
	case NBD_CMD_BLOCK_STATUS:
		if (!conn->handshake.allocation || wire->len_bytes == 0)
			return -EINVAL;
		return check_range(wire, export->size_bytes, -EINVAL);
	case NBD_CMD_FLUSH:
		return 0;
	default:
		return -EINVAL;
	}
}

static void start_command(struct nbd_conn *conn, const struct nbd_request *wire)
{
	struct nbd_command *command = take_command(conn);
	bool by_pieces = wire->command == NBD_CMD_READ || wire->command == NBD_CMD_WRITE ||
			 wire->command == NBD_CMD_CACHE;
	bool nothing = wire->len_bytes == 0 && wire->command != NBD_CMD_FLUSH;

	command->wire = *wire;
	command->error = check_command(conn, wire);
	if (command->error != 0 && wire->command == NBD_CMD_WRITE)
		conn->skip_bytes = wire->len_bytes;
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
	command->total_bytes = wire->len_bytes;
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

static bool next_command(struct nbd_conn *conn)
{
	struct nbd_request wire;

	if (nbd_decode_request(nbd_rx_bytes(&conn->rx), &wire) < 0) {
		nbd_conn_break(conn, "no request where one should be");
		return false;
	}
	nbd_rx_skip(&conn->rx, NBD_REQUEST_BYTES);
	if (wire.command == NBD_CMD_DISC) {
		nbd_conn_drain(conn);
		return false;
	}
	start_command(conn, &wire);
	return true;
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
		} else if (nbd_rx_have(&conn->rx) < NBD_REQUEST_BYTES) {
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
	uint32_t wanted = NBD_REQUEST_BYTES;

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
	if (!conn->sending)
		release_all(&conn->tx);
}
