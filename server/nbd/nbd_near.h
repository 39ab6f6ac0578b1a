/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd_near - on which processor a worker serves a client that waits for each answer
 *
 * A client that has one request in flight and its server never run at the same time: one of them
 * sleeps always. On two processors each waking goes to another one, which has to come out of its
 * idle state first; in a virtual machine that is an interrupt through the hypervisor, and several
 * times what the request itself costs. On one processor it is a switch of context. The scheduler
 * does not see that the two alternate and prefers an idle processor, so the worker moves by itself:
 *
 *     APART ----> TRIAL ----> TOGETHER
 *       ^           |            |
 *       +-----------+------------+
 *
 *   APART -> TRIAL      so many requests came one at a time; the worker binds itself to where the
 *                       client last ran
 *   TRIAL -> TOGETHER   as many again took at least a fifth less time each
 *   any   -> APART      the trial showed no gain, or requests take as long as they did apart, or
 *                       the client has more than one in flight, or another client sends, or the
 *                       worker has work besides (merges): the worker may run where it could before
 *
 * A worker that has not slept since the request before has work besides: on one processor its
 * client would wait for the end of its turn (milliseconds), while another may be idle.
 *
 * After a trial without gain the next one waits, twice as long each time. An administrator who
 * gives the server processors of its own (taskset, CPUAffinity=) has the last word: a processor
 * outside these is never tried, and a mask that changes meanwhile stays as it is.
 *
 * Units     nanoseconds of one clock that only goes forward.
 * Errors    none: what cannot be found out or set leaves the worker where it is.
 * Threads   the worker's own. Blocking: a trial reads a few lines of /proc, seldom.
 */
#ifndef SERVER_NBD_NBD_NEAR_H
#define SERVER_NBD_NBD_NEAR_H

#include <stdbool.h>
#include <stdint.h>

#define NBD_NEAR_WINDOW	      128u /* requests that are timed together */
#define NBD_NEAR_GAP_NS	      10000000ull /* a client that pauses for so long is not timed */
#define NBD_NEAR_PAUSE_MIN_NS 250000000ull
#define NBD_NEAR_PAUSE_MAX_NS 60000000000ull

/* How a worker finds and takes its place; tests have one of their own. */
struct nbd_near_place {
	/* The processor that the client last ran on; negative: not known, or not allowed. */
	int (*find)(void *context, int fd);
	/* Binds the calling thread to it. 0 or a negative errno. */
	int (*bind)(void *context, int cpu);
	/* Takes the binding back. */
	void (*unbind)(void *context);
	void *context;
};

enum nbd_near_state {
	NBD_NEAR_APART,
	NBD_NEAR_TRIAL,
	NBD_NEAR_TOGETHER,
};

struct nbd_near {
	enum nbd_near_state state;
	struct nbd_near_place place;
	const void *client; /* who sent last; only compared */
	uint64_t sleeps; /* of the worker, when it sent last */
	uint64_t last_ns;
	uint64_t window_ns; /* when it began */
	unsigned window_requests;
	uint64_t apart_each_ns; /* from one request to the next, apart */
	uint64_t try_ns; /* not before */
	uint64_t pause_ns;
};

void nbd_near_init(struct nbd_near *near, const struct nbd_near_place *place);

/* What a client has sent. */
struct nbd_near_sent {
	const void *client;
	int fd; /* its socket */
	bool alone; /* it is one request, and no other is in flight */
	uint64_t sleeps; /* how often the worker has had nothing to do but wait, so far */
	uint64_t now_ns;
};

void nbd_near_request(struct nbd_near *near, const struct nbd_near_sent *sent);

/* The client has gone. */
void nbd_near_gone(struct nbd_near *near, const void *client);

#endif
