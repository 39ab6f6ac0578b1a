/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ctl_listen - the control socket as a file, and who is at the other end of a connection
 *
 * Errors    0 or a negative errno; EADDRINUSE: a live server listens there, EEXIST: the path is
 *           something else than a socket (it is left alone).
 * Threads   ctl_listen_open() changes the process's umask for a moment: call it before threads that
 *           make files are started.
 */
#ifndef SERVER_CONTROL_CTL_LISTEN_H
#define SERVER_CONTROL_CTL_LISTEN_H

#include <stdbool.h>
#include <sys/types.h>

struct ctl_listen {
	int fd;
	dev_t dev; /* of the socket's file, to remove no other's */
	ino_t ino;
};

/* Binds and listens, mode 0600, or 0660 for a group. A stale socket is replaced. */
int ctl_listen_open(const char *path, gid_t group, struct ctl_listen *ret_listen);
void ctl_listen_close(struct ctl_listen *listener, const char *path);

/* Accepts a connection, non-blocking. Its fd or a negative errno; EAGAIN: none is there. */
int ctl_listen_accept(int listen_fd);

/* Whether the peer is root, the server's user, or in the group ((gid_t)-1: none). */
bool ctl_listen_peer_trusted(int fd, gid_t group);

#endif
