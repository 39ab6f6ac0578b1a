/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd_conn - one NBD connection: its socket, what it has received, what it still has to send
 *
 *   HANDSHAKE ----> OPEN ----> DRAINING ----> gone
 *       |            |            |            ^
 *       +------------+------------+-> BROKEN --+
 *
 *   HANDSHAKE -> OPEN      both sides agree; requests follow
 *   these     -> DRAINING  the client says goodbye or ends its side, or the server stops: what was
 *                          asked is answered, nothing more is read
 *   any       -> BROKEN    the socket failed, the peer broke the protocol or took too long: nothing
 *                          more is sent
 *   DRAINING, BROKEN -> gone  the engine has given back every request, the ring every operation
 *
 * Work is done in turns: a turn parses all that has come, hands it to the engine, and sends all
 * answers that are there with one sendmsg(). Whatever may let a turn get further (a completion, an
 * answer, a free buffer) kicks the connection; the loop then runs one turn for all kicks.
 *
 * Sockets are used without waiting, by plain system calls, and the ring waits: for input, and for
 * room when the peer's side is full. One receive and one send are in flight at most. A payload that
 * has not come with its request is on its way as a rule, because clients send the two one after the
 * other, so the turn looks again for some microseconds before it leaves the waiting to the ring
 * (each look that is for nothing makes it look less often the next time): going to sleep and being
 * woken costs more than that.
 *
 * TLS begins within the handshake (nbd_tls.h), which a thread of its own computes (nbd_shaker.h),
 * and from then on takes the place of the system calls;
 * the ring waits for the socket only when nothing is left inside TLS.
 *
 * Memory    a connection has fixed pools of commands and pieces, an input ring in which the
 *           payloads of writes stay until they are written, and one buffer that no other can take.
 *           What reads read is sent from the mapped store, or is in the loop's buffers, or in that
 *           one when those are used up. When no pool has anything left, nothing more is parsed or
 *           received.
 * Threads   the loop's own. Blocking: never.
 */
#ifndef SERVER_NBD_NBD_CONN_H
#define SERVER_NBD_NBD_CONN_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "core/base/list.h"
#include "core/request/request.h"
#include "server/loop/loop.h"
#include "server/nbd/nbd_guests.h"
#include "server/nbd/nbd_handshake.h"
#include "server/nbd/nbd_rx.h"
#include "server/nbd/nbd_send.h"
#include "server/nbd/nbd_shaker.h"
#include "server/nbd/nbd_tls.h"
#include "server/nbd/nbd_wire.h"

#define NBD_CONN_MAGIC	    0x4e434f4eu
#define NBD_COMMANDS_MAX    128u
#define NBD_PIECES_MAX	    128u
#define NBD_PIECE_BYTES_MAX BUFFERS_CHUNK_BYTES
#define NBD_OWN_BYTES	    (128u * 1024)
#define NBD_CONN_BYTES	    (NBD_RX_BYTES + NBD_OWN_BYTES) /* of payload memory, each its own */
#define NBD_HEAD_BYTES	    (NBD_EXTENDED_CHUNK_BYTES + NBD_OFFSET_BYTES)
#define NBD_LOOKS_MAX	    32u /* some microseconds */
#define NBD_RECVS_MAX	    4u /* in a turn */
#define NBD_HANDSHAKE_MS    10000u
#define NBD_STALLED_MS	    30000u

static_assert(NBD_RX_BYTES >= 2 * (NBD_OPTION_HEADER_BYTES + NBD_OPTION_BYTES_MAX),
	      "an option fits into the input buffer");

struct nbd_conn;
struct nbd_lane;

/* What the client asked for, from its header to the last byte of its answer. */
struct nbd_command {
	struct list node; /* among the free ones */
	struct nbd_conn *conn;
	struct nbd_request wire;
	uint64_t started_ns;
	uint32_t total_bytes; /* to be read, written or cached piece by piece; 0 for all else */
	uint32_t issued_bytes; /* of these, given to pieces */
	unsigned pieces; /* of this command, wherever they are */
	unsigned pending; /* of these, not finished by the engine */
	int error; /* the first one */
	bool ordered; /* a long read that is answered with a simple reply: see nbd_command.c */
	bool head_queued; /* its header is on its way, so an error cannot be told any more */
	bool syncing; /* all is written, the flush for FUA is under way */
};

/* A part of a command that the engine gets as one request, and a part of an answer. */
struct nbd_piece {
	struct list node; /* free, ordered or to be sent */
	struct nbd_command *command;
	uint8_t *buf;
	uint32_t len_bytes;
	struct nbd_rx_slice slice; /* of a write: where buf is */
	uint32_t head_bytes;
	const uint8_t *data; /* to be sent behind the head */
	uint32_t data_bytes;
	uint32_t sent_bytes;
	bool own; /* buf is the connection's own buffer */
	bool finished; /* an ordered one, in order of finishing */
	bool looked; /* its data is looked up when it is sent: see nbd_send.h */
	bool last; /* of its command's answer */
	uint8_t head[NBD_HEAD_BYTES];
	struct request request;
};

enum nbd_conn_state {
	NBD_CONN_HANDSHAKE,
	NBD_CONN_OPEN,
	NBD_CONN_DRAINING,
	NBD_CONN_BROKEN,
};

struct nbd_conn {
	uint32_t magic;
	struct nbd_guest guest;
	_Atomic bool cancelled; /* broken: the engine need not go on with what it has */
	enum nbd_conn_state state;
	struct list node; /* of the lane's connections */
	struct nbd_lane *lane;
	struct loop *loop;
	struct loop_soon turn;
	uint64_t now_ns; /* of this turn, or of its last send */
	struct buffers_waiter buffers_waiter;
	int fd;
	struct nbd_tls *tls; /* NULL: plain */
	struct nbd_shake shake;
	bool shaking; /* TLS and the socket are the shaker's for now */
	struct nbd_handshake handshake;
	struct nbd_answer answer;
	uint32_t answer_sent_bytes;
	uint64_t sent_ms; /* when it began to wait for the peer to take more */
	uint64_t received_ms; /* when something came, or it began */
	/* Receiving. */
	struct ring_op recv_op;
	bool receiving;
	uint32_t recv_bytes; /* at most; of the receive in flight */
	bool filled; /* the last receive took all that it had room for */
	unsigned looks; /* for a payload that is on its way, before the ring waits for it */
	struct nbd_rx rx;
	uint32_t skip_bytes; /* payload of a refused write, still to come */
	struct nbd_command
		*current; /* has bytes that no piece has yet; nothing is parsed meanwhile */
	/* Sending. */
	struct nbd_send send;
	struct list tx; /* pieces, in the order of sending */
	struct list ordered; /* pieces of the one ordered command, in the order of the volume */
	/* Pools. */
	uint8_t *own_buf;
	bool own_used;
	uint8_t *scratch; /* SCRATCH_BYTES for each piece */
	struct list free_commands;
	struct list free_pieces;
	unsigned commands_made; /* taken for the first time: what is beyond was never touched */
	unsigned commands_used;
	unsigned commands_begun; /* in this turn */
	unsigned pieces_made;
	unsigned pieces_used;
	struct nbd_command commands[NBD_COMMANDS_MAX];
	struct nbd_piece pieces[NBD_PIECES_MAX];
};

/* Takes over fd, a connected stream socket, if it succeeds. */
int nbd_conn_new(struct nbd_lane *lane, int fd, const struct nbd_export *export,
		 const struct nbd_guest *guest);

void nbd_conn_kick(struct nbd_conn *conn);
void nbd_conn_drain(struct nbd_conn *conn);
void nbd_conn_break(struct nbd_conn *conn, const char *why);
/* The same, by the error of a system call or of nbd_tls. */
void nbd_conn_fail(struct nbd_conn *conn, int error);
/* Every second: drops a peer that takes too long. */
void nbd_conn_tick(struct nbd_conn *conn, uint64_t now_ms);

#endif
