/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ring - see the header */
#include "server/base/ring.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

#define RING_CQ_ENTRIES	  (8u * RING_ENTRIES)
#define RING_SUBMIT_TRIES 10000u
#define RING_PAUSE_NS	  100000

static int ring_setup(struct ring *ring, unsigned flags)
{
	struct io_uring_params params;

	memset(&params, 0, sizeof(params));
	params.flags = flags | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
	params.cq_entries = RING_CQ_ENTRIES;
	return io_uring_queue_init_params(RING_ENTRIES, &ring->uring, &params);
}

int ring_init(struct ring *ring)
{
	/* Kernels 6.1, 5.19 and older. */
	static const unsigned kinds[] = {
		IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_SUBMIT_ALL,
		IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL,
		0,
	};
	int r = -EINVAL;

	memset(ring, 0, sizeof(*ring));
	ring->aside_last = &ring->aside;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]) && r == -EINVAL; i++)
		r = ring_setup(ring, kinds[i]);
	return r < 0 ? r : 0;
}

void ring_done(struct ring *ring)
{
	assert(!ring->fd_registered);
	io_uring_queue_exit(&ring->uring);
}

void ring_register(struct ring *ring)
{
	/* Returns 1 when done; older kernels cannot, and then nothing changes. */
	if (!ring->fd_registered && io_uring_register_ring_fd(&ring->uring) == 1)
		ring->fd_registered = true;
}

void ring_unregister(struct ring *ring)
{
	if (ring->fd_registered)
		io_uring_unregister_ring_fd(&ring->uring);
	ring->fd_registered = false;
}

int ring_buffers(struct ring *ring, unsigned count)
{
	return io_uring_register_buffers_sparse(&ring->uring, count);
}

static struct ring_op *take_completion(struct ring *ring, struct io_uring_cqe *cqe)
{
	struct ring_op *op = io_uring_cqe_get_data(cqe);

	if (op != NULL) {
		assert(op->magic == RING_OP_MAGIC && ring->in_flight > 0);
		op->magic = 0;
		op->res = cqe->res;
		op->flags = cqe->flags;
		op->next = NULL;
		ring->in_flight--;
	}
	io_uring_cqe_seen(&ring->uring, cqe);
	return op;
}

/* Makes room in the completion queue without calling anyone. */
static void set_aside(struct ring *ring)
{
	struct io_uring_cqe *cqe;

	while (io_uring_peek_cqe(&ring->uring, &cqe) == 0) {
		struct ring_op *op = take_completion(ring, cqe);

		if (op == NULL)
			continue;
		*ring->aside_last = op;
		ring->aside_last = &op->next;
	}
}

struct io_uring_sqe *ring_sqe(struct ring *ring)
{
	const struct timespec pause = {.tv_nsec = RING_PAUSE_NS};
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);

	for (unsigned tries = 0; sqe == NULL; tries++) {
		int r = io_uring_submit(&ring->uring);

		assert(tries < RING_SUBMIT_TRIES);
		assert(r >= 0 || r == -EAGAIN || r == -EBUSY || r == -EINTR || r == -ENOMEM);
		if (r < 0) {
			set_aside(ring);
			nanosleep(&pause, NULL);
		}
		sqe = io_uring_get_sqe(&ring->uring);
	}
	return sqe;
}

void ring_tag(struct ring *ring, struct io_uring_sqe *sqe, struct ring_op *op)
{
	assert(op->magic != RING_OP_MAGIC);
	op->magic = RING_OP_MAGIC;
	ring->in_flight++;
	io_uring_sqe_set_data(sqe, op);
}

void ring_cancel(struct ring *ring, struct ring_op *op)
{
	struct io_uring_sqe *sqe = ring_sqe(ring);

	io_uring_prep_cancel(sqe, op, 0);
	io_uring_sqe_set_data(sqe, NULL);
}

static int deliver_aside(struct ring *ring)
{
	struct ring_op *op = ring->aside;
	int count = 0;

	ring->aside = NULL;
	ring->aside_last = &ring->aside;
	while (op != NULL) {
		struct ring_op *next = op->next;

		op->done(op, op->res, op->flags);
		op = next;
		count++;
	}
	return count;
}

/* Only what is there now: a completion that comes while others are delivered waits for the next
 * turn. */
static int deliver(struct ring *ring)
{
	unsigned ready = io_uring_cq_ready(&ring->uring);
	int count = deliver_aside(ring);
	struct io_uring_cqe *cqe;

	for (; ready > 0 && io_uring_peek_cqe(&ring->uring, &cqe) == 0; ready--) {
		struct ring_op *op = take_completion(ring, cqe);

		if (op == NULL)
			continue;
		op->done(op, op->res, op->flags);
		count++;
	}
	return count;
}

int ring_turn(struct ring *ring, bool wait)
{
	const struct timespec pause = {.tv_nsec = RING_PAUSE_NS};
	int r;

	if (ring->aside != NULL)
		wait = false;
	if (wait)
		r = io_uring_submit_and_wait(&ring->uring, 1);
	else
		r = io_uring_submit_and_get_events(&ring->uring);
	if (r == -EAGAIN || r == -EBUSY || r == -ENOMEM)
		nanosleep(&pause, NULL);
	else if (r < 0 && r != -EINTR)
		return r;
	return deliver(ring);
}

int ring_settle(struct ring *ring)
{
	do {
		int r = ring_turn(ring, ring->in_flight > ring->parked);

		if (r < 0)
			return r;
	} while (ring->in_flight > ring->parked || ring->aside != NULL);
	ring->in_flight = 0;
	ring->parked = 0;
	return 0;
}
