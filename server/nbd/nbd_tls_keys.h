/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd_tls_keys - what the server proves itself with, and what it believes of clients
 *
 * One of two kinds, in the files that nbdkit, libnbd and qemu use as well:
 *
 *   X.509   a folder: ca-cert.pem, server-cert.pem, server-key.pem, and ca-crl.pem if it is there.
 *           A client proves itself with a certificate of that authority, unless told otherwise.
 *   PSK     a file with a line `USER:HEXKEY` for each client; USER may be # and hex digits.
 *
 * Read once, when the server starts: later changes of the files mean nothing to it.
 *
 * Errors    0 or a negative errno, with a sentence in *reterr_message, which stays until the next
 *           call.
 * Threads   load and free on one; sessions of any thread use the keys, which do not change.
 */
#ifndef SERVER_NBD_NBD_TLS_KEYS_H
#define SERVER_NBD_NBD_TLS_KEYS_H

#include <stdbool.h>

struct gnutls_session_int;
struct nbd_tls_keys;

struct nbd_tls_sources {
	const char *certificates; /* the folder, or NULL */
	const char *psk; /* the file, or NULL; exactly one of the two is there */
	bool verify_peer; /* with certificates; a PSK proves the client anyway */
};

int nbd_tls_keys_load(const struct nbd_tls_sources *sources, struct nbd_tls_keys **ret_keys,
		      const char **reterr_message);
void nbd_tls_keys_free(struct nbd_tls_keys *keys);

/* Gives them to a session that has not begun. 0, or an error of GnuTLS. */
int nbd_tls_keys_apply(struct nbd_tls_keys *keys, struct gnutls_session_int *session);

#endif
