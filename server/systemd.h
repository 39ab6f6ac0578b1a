/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * systemd - what a service manager tells us and wants to be told; without one, nothing happens
 */
#ifndef SERVER_SYSTEMD_H
#define SERVER_SYSTEMD_H

#define SYSTEMD_NBD_MAX 8u

struct systemd_sockets {
	int nbd[SYSTEMD_NBD_MAX];
	unsigned nbd_count;
	int control; /* 0: none */
};

/* Sockets handed over by LISTEN_FDS: `control` by its name in LISTEN_FDNAMES, all others are NBD.
 * 0, or EINVAL: what came is no listening stream socket, or too many of them. */
int systemd_sockets(struct systemd_sockets *ret_sockets);

/* "READY=1", "STOPPING=1", ... */
void systemd_notify(const char *state);

#endif
