/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd_listen - a listening Unix socket
 *
 * A socket that nobody listens on any more is replaced, a live one is refused (after a second: its
 * server may just be dying), and whatever else is at the path is left alone. Only its owner may
 * connect (0600).
 *
 * Errors    0 or a negative errno, with a sentence in *reterr_message, which stays until the next
 *           call.
 * Threads   before other threads start: the process's umask is changed for a moment.
 */
#ifndef SERVER_NBD_LISTEN_H
#define SERVER_NBD_LISTEN_H

#include <sys/types.h>

struct nbd_listen {
	int fd;
	const char *path; /* the caller's */
	dev_t device; /* what is at the path, so that nobody else's socket is removed */
	ino_t inode;
};

int nbd_listen_unix(const char *path, struct nbd_listen *ret_listen, const char **reterr_message);
/* Removes the path if it is still this socket. The descriptor is not closed. */
void nbd_listen_remove(const struct nbd_listen *listen_socket);

#endif
