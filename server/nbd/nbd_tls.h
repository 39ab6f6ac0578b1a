/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd_tls - one connection's TLS, through GnuTLS
 *
 *   HANDSHAKE ----> OPEN ----> ended
 *       |                        ^
 *       +------------------------+
 *
 *   HANDSHAKE -> OPEN   nbd_tls_handshake   both sides have proved what they have to
 *   any       -> ended  the peer broke TLS, began a second handshake, or went away
 *
 * The socket is used without waiting, whether or not it is set so: what would have to wait says
 * -EAGAIN, and the owner of the socket waits for nbd_tls_events(). What came from the socket may
 * still be here, so the owner asks nbd_tls_has_input() first.
 *
 * A record that the socket did not take whole stays here, encrypted, and its bytes count as sent
 * only when all of it has gone: until then the caller sends the same bytes again, as it would those
 * that a plain socket did not take.
 *
 * Units     bytes of the peer's and our plain text.
 * Errors    0, a length, or a negative errno. -EPROTO: nbd_tls_why() says more.
 * Memory    nbd_tls_new() takes what is ours; GnuTLS takes memory for each record, and the
 *           handshake some more.
 * Threads   one. Blocking: never, but a handshake computes for about a millisecond
 *           (nbd_shaker.h)
 */
#ifndef SERVER_NBD_NBD_TLS_H
#define SERVER_NBD_NBD_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "server/nbd/nbd_tls_keys.h"

struct nbd_tls;

/* fd stays the caller's. */
int nbd_tls_new(struct nbd_tls_keys *keys, int fd, struct nbd_tls **ret_tls);
void nbd_tls_free(struct nbd_tls *tls);

/* 0: done. -EAGAIN: again after nbd_tls_events(). */
int nbd_tls_handshake(struct nbd_tls *tls);
/* What poll() should wait for. */
short nbd_tls_events(const struct nbd_tls *tls);
/* What went wrong, until the next call. */
const char *nbd_tls_why(const struct nbd_tls *tls);

/* As much as there is, like recv(); 0: the peer has ended its side. */
ssize_t nbd_tls_recv(struct nbd_tls *tls, uint8_t *at, uint32_t bytes);
bool nbd_tls_has_input(const struct nbd_tls *tls);

/* As much as the socket takes, like sendmsg(). */
ssize_t nbd_tls_send(struct nbd_tls *tls, const struct iovec *iov, size_t count);

/* Says goodbye, if the socket takes it: nothing is sent after it. */
void nbd_tls_bye(struct nbd_tls *tls);

#endif
