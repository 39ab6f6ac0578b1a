/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * over_nbd - the load's NBD connections: submits operations, checks answers
 *
 * libnbd's own checks are off, so that what has to be refused reaches the server. Callbacks end the
 * operation; a connection that dies ends all that it had as lost.
 */
#ifndef TESTS_SWARM_SERVER_OVER_NBD_H
#define TESTS_SWARM_SERVER_OVER_NBD_H

#include <poll.h>

#include "tests/swarm/server/load.h"

/* 0, or a negative value: refused (*ret_why, until the next call), or load->bad. */
int over_nbd_connect(struct load *load, unsigned number, const char *path, const char **ret_why);
/* Ends it at once, whatever is in flight. */
void over_nbd_close(struct load *load, unsigned number);
/* Gives the operation, which has begun, to this connection. */
void over_nbd_submit(struct op *op, unsigned number);

void over_nbd_poll(struct load *load, unsigned number, struct pollfd *ret_poll);
void over_nbd_ready(struct load *load, unsigned number, short events);

enum verify {
	VERIFY_LIVE, /* in a quiet moment: what was answered is there */
	VERIFY_STOPPED, /* after a stop and a start: the same, and it is durable */
	VERIFY_KILLED, /* after a kill: what may be left, and that is durable from then on */
};

/* Reads and compares all there is. */
void over_nbd_verify(struct load *load, enum verify how);
/* Writes all of the volume but its end, in order. */
void over_nbd_fill(struct load *load);

#endif
