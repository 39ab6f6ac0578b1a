/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd_send - a connection's answers on their way out
 *
 * All pieces that are ready go out with one gathered system call that does not wait; when the
 * socket takes no more, the ring waits until it does. A piece's data is in a buffer, or it is
 * looked up and sent straight from the mapped store (core/request/look.h,
 * server/store/store_map.h). A looked-up piece holds nothing while it waits in the queue: it is
 * looked up anew each time that it is sent from, and the look ends with the system call.
 *
 *   queued ----> gathered ----> sent
 *     ^   \         |
 *     |    v        v
 *     |   REST    (a part of it) ----> queued
 *     +----+
 *
 *   queued -> REST    start_rest      the first piece cannot be looked up any more (its leaf has
 *                                     left the cache): the engine reads the next part of it
 *   REST   -> queued  rest_done       into a buffer that is kept for this
 *
 * When the socket takes a part of a block, the other part goes into that buffer at once, so that a
 * write that comes later does not show in it. A write at the same moment may: the kernel copies out
 * of the page cache what another thread copies into it, and a sector that both want can be sent
 * half old and half new. Clients order what they overlap; --direct has no such reads.
 *
 * Should a page of the store not be readable (EFAULT), the pieces are sent one by one; the one that
 * fails is answered with an error if nothing of it has gone out, else the connection ends.
 */
#ifndef SERVER_NBD_NBD_SEND_H
#define SERVER_NBD_NBD_SEND_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "core/request/request.h"
#include "server/base/ring.h"

#define NBD_SEND_IOVS	    256u
#define NBD_SEND_PIECES_MAX 64u
#define NBD_REST_BYTES	    (64u * 1024)

struct nbd_conn;
struct nbd_piece;

struct nbd_send {
	struct ring_op writable_op;
	bool waiting; /* until the socket takes more */
	bool one_by_one; /* a page could not be read */
	struct iovec iov[NBD_SEND_IOVS];
	struct msghdr msg;
	/* The part of the first piece that the engine has read, or is reading. */
	struct request rest;
	bool resting;
	const struct nbd_piece *rest_piece;
	uint64_t rest_begin_bytes; /* of the volume */
	uint64_t rest_end_bytes;
	uint8_t *rest_buf; /* NBD_REST_BYTES, then SCRATCH_BYTES */
};

/* Whether a part of the volume could be sent straight from the mapped store now. */
bool nbd_send_can_look(struct nbd_conn *conn, uint64_t off_bytes, uint32_t len_bytes);

void nbd_send_init(struct nbd_conn *conn, uint8_t *rest_buf);
/* Sends what the socket takes now. */
void nbd_send_now(struct nbd_conn *conn);

#endif
