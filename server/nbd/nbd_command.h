/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd_command - from a client's request to the engine, and from its result to the answer
 *
 * Threads   the loop's own. Blocking: never.
 */
#ifndef SERVER_NBD_NBD_COMMAND_H
#define SERVER_NBD_NBD_COMMAND_H

#include <stdbool.h>

#include "server/nbd/nbd_conn.h"

/* Takes everything from the input that can be taken now. True: input is what it needs; false: it
 * waits for something else (a free command, piece or buffer), or the connection is about to end. */
bool nbd_command_parse(struct nbd_conn *conn);

/* How many bytes are missing of the message, or of the slice of a payload, that comes next. */
uint32_t nbd_command_missing(const struct nbd_conn *conn);

/* The answer, or that part of it, has been sent, or nobody wants it any more. */
void nbd_piece_release(struct nbd_piece *piece);

/* The first piece to be sent cannot be read: it becomes an error, or the end of the connection. */
void nbd_command_fail_first(struct nbd_conn *conn, int error);

/* Forgets a command of which not all payload came, and answers that were not sent. */
void nbd_command_abandon(struct nbd_conn *conn);

#endif
