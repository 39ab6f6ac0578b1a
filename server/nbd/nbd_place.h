/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd_place - finds the processor of a socket's peer, and binds a thread to a processor
 *
 * Of a peer on a Unix socket the kernel tells the process (SO_PEERCRED, unix(7)), and /proc says
 * where each of its threads last ran (proc(5), stat, field 39); the thread that has used the most
 * processor time is taken for the one that waits. Of TCP the kernel tells where the last packet
 * was handled (SO_INCOMING_CPU, socket(7)): over loopback that is where the peer ran, from
 * elsewhere it is where the network card's interrupt goes.
 *
 * Errors    a negative errno, or ENOENT where nothing is known.
 * Threads   bind and unbind act on the calling thread; one struct a thread.
 */
#ifndef SERVER_NBD_NBD_PLACE_H
#define SERVER_NBD_NBD_PLACE_H

#include <sched.h>
#include <stdbool.h>

struct nbd_place {
	cpu_set_t before; /* the mask that unbind puts back */
	cpu_set_t bound; /* the mask that bind set */
	bool is_bound;
};

/* A processor that the calling thread may run on and need not, or a negative errno. */
int nbd_place_find(int fd);
int nbd_place_bind(struct nbd_place *place, int cpu);
void nbd_place_unbind(struct nbd_place *place);

#endif
