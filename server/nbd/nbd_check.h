/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd_check - whether a client's request may be done, before anything of it is
 *
 * Pure: what was agreed in the handshake and what the request says decide. docs/nbd.md has the
 * rules that are this server's own.
 *
 * Errors    0 or a negative errno: EINVAL, ENOSPC (a write past the end), EROFS, EOVERFLOW (DF with
 *           more than one chunk holds), ENOTSUP (FAST_ZERO where zeroing is no faster than
 *           writing).
 */
#ifndef SERVER_NBD_NBD_CHECK_H
#define SERVER_NBD_NBD_CHECK_H

#include <stdbool.h>

#include "server/nbd/nbd_handshake.h"

#define NBD_CHUNK_DATA_BYTES_MAX (1024u * 1024) /* of a read, in one chunk */

int nbd_check_request(const struct nbd_handshake *handshake, const struct nbd_request *request);

/* Whether len_bytes of payload follow the request, also if it is refused. */
bool nbd_has_payload(const struct nbd_handshake *handshake, const struct nbd_request *request);

/* A client that announces such a payload is not waited for: the connection ends. */
bool nbd_payload_is_absurd(const struct nbd_handshake *handshake,
			   const struct nbd_request *request);

#endif
