/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd_guests - who may have a connection
 *
 * There are so many slots (--connections, and no more than there is memory for). Whoever reaches a
 * TCP port can ask for all of them without a word of TLS, so strangers (every client that is not on
 * a Unix socket) have limits of their own:
 *
 *   of all slots        an eighth is kept for clients of this machine
 *   of one peer         half: an address, of IPv6 the network that a peer can choose addresses in
 *   in the handshake    a quarter: a client that says who it is gets through in milliseconds. Half
 *                       for the first of a peer, or one peer that says nothing kept all others out
 *
 * Threads   any; a connection comes and goes on different ones. Blocking: for an instant.
 */
#ifndef SERVER_NBD_NBD_GUESTS_H
#define SERVER_NBD_NBD_GUESTS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#define NBD_CONNECTIONS_DEFAULT 128u
#define NBD_GUESTS_MAX		1024u
#define NBD_GUESTS_PEER_BYTES	16u

struct nbd_guest_peer {
	uint8_t name[NBD_GUESTS_PEER_BYTES];
	unsigned count; /* 0: free */
	unsigned shaking; /* of these, in the handshake */
};

struct nbd_guests {
	pthread_mutex_t lock;
	unsigned max;
	unsigned count;
	unsigned strangers;
	unsigned shaking; /* strangers in the handshake */
	struct nbd_guest_peer peers[NBD_GUESTS_MAX];
};

/* What a connection holds. */
struct nbd_guest {
	int peer; /* -1: of this machine */
	bool shaking;
};

void nbd_guests_init(struct nbd_guests *guests, unsigned max);
void nbd_guests_done(struct nbd_guests *guests);

/* address: NULL for a client of this machine. NULL: it may stay; else why not. */
const char *nbd_guests_enter(struct nbd_guests *guests, const struct sockaddr_storage *address,
			     struct nbd_guest *ret_guest);
/* It is through the handshake. */
void nbd_guests_settle(struct nbd_guests *guests, struct nbd_guest *guest);
void nbd_guests_leave(struct nbd_guests *guests, struct nbd_guest *guest);

#endif
