/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd_listen - listening sockets: Unix and TCP
 *
 * A Unix socket that nobody listens on any more is replaced, a live one is refused (after a second:
 * its server may just be dying), and whatever else is at the path is left alone. Only its owner may
 * connect (0600).
 *
 * A TCP name may stand for several addresses (localhost does, and so does no name at all, for all
 * that this machine has); each gets a socket, all with the same port. Connections inherit what a
 * listening socket is set to: answers are sent at once, and a peer whose machine is gone is noticed
 * after about two minutes.
 *
 * Errors    0 or a negative errno, with a sentence in *reterr_message, which stays until the next
 *           call.
 * Threads   before other threads start: the process's umask is changed for a moment.
 */
#ifndef SERVER_NBD_NBD_LISTEN_H
#define SERVER_NBD_NBD_LISTEN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define NBD_LISTEN_TCP_MAX 4u

struct nbd_listen {
	int fd;
	const char *path; /* the caller's */
	dev_t device; /* what is at the path, so that nobody else's socket is removed */
	ino_t inode;
};

int nbd_listen_unix(const char *path, struct nbd_listen *ret_listen, const char **reterr_message);
/* Removes the path if it is still this socket. The descriptor is not closed. */
void nbd_listen_remove(const struct nbd_listen *listen_socket);

struct nbd_listen_tcp {
	int fds[NBD_LISTEN_TCP_MAX];
	unsigned count;
};

/* address: a name or number, NULL for all; port: 0 for one that is free. */
int nbd_listen_tcp(const char *address, uint16_t port, struct nbd_listen_tcp *ret_listen,
		   const char **reterr_message);

/* Whether who connects to it, or is connected by it, is on this machine: it is a Unix socket. */
bool nbd_listen_is_local(int fd);
/* What nbd_listen_tcp() does for its sockets, for one that came from elsewhere. */
void nbd_listen_tune(int fd);

#endif
