/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd_shaker - a thread that computes TLS handshakes
 *
 * A handshake takes a millisecond or more of a processor, and whoever reaches the port can ask for
 * one after the other without being anybody. On a worker that would be the time of clients who are
 * somebody; here strangers wait for each other, and take one thread's share at most.
 *
 *   with its owner -> HERE           nbd_shaker_step
 *   HERE           -> with its owner done, on the owner's worker: res is what nbd_tls_handshake()
 *                                    said
 *
 * While it is here, session and socket are the thread's; the owner may only shut the socket down.
 *
 * Errors    where no thread can be made, the step is done at once, by the caller.
 * Threads   step on any; init and done on one, around all else.
 * Blocking  done does, until the thread has ended; no session may be here.
 */
#ifndef SERVER_NBD_NBD_SHAKER_H
#define SERVER_NBD_NBD_SHAKER_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "core/base/worker.h"
#include "server/nbd/nbd_tls.h"

struct nbd_shaker {
	struct worker mailbox;
	sem_t posted;
	pthread_mutex_t lock; /* of the thread's beginning */
	pthread_t thread;
	bool has_thread;
	_Atomic bool stopping;
};

struct nbd_shake {
	struct task task;
	struct worker *owner;
	struct nbd_tls_keys *keys;
	int fd;
	struct nbd_tls *tls; /* made by the first step; the owner's to free */
	int res;
	void (*done)(struct nbd_shake *shake);
};

void nbd_shaker_init(struct nbd_shaker *shaker);
void nbd_shaker_done(struct nbd_shaker *shaker);

/* Goes on with the handshake as far as the socket lets it. */
void nbd_shaker_step(struct nbd_shaker *shaker, struct nbd_shake *shake);

#endif
