/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ring - one thread's io_uring: store I/O, sockets, wake-ups and timers all go through it
 *
 * Every submission carries a struct ring_op as its user_data; its completion calls op->done() from
 * ring_turn(), never from ring_sqe(). A full submission queue is submitted and used again, so the
 * caller always gets an entry. Should the kernel refuse submissions for lack of memory, completions
 * are set aside and delivered by the next turn.
 *
 * Some operations end only with the ring, because the kernel cannot cancel them: they are *parked*.
 * The caller counts them, up when it submits one and down when it is delivered. ring_settle() waits
 * for all others and then forgets the parked ones, whose done() is never called.
 *
 * Errors    0 or a negative errno from ring_init() and ring_turn(); ring_sqe() does not fail.
 * Memory    the op belongs to the caller and stays until done(); no op is in flight twice.
 * Threads   everything on the thread that called ring_init(), but ring_done(), which may come from
 *           the next owner once that thread has stopped using the ring.
 * Blocking  ring_turn() with wait; ring_sqe() for moments when the kernel is short of memory.
 */
#ifndef SERVER_BASE_RING_H
#define SERVER_BASE_RING_H

#include <stdbool.h>
#include <stdint.h>
#include <liburing.h>

#define RING_OP_MAGIC 0x524f5021u
#define RING_ENTRIES  512u

struct ring_op {
	uint32_t magic; /* RING_OP_MAGIC while in flight */
	uint32_t flags; /* of a completion set aside */
	int res;
	void (*done)(struct ring_op *op, int res, uint32_t flags);
	struct ring_op *next;
};

struct ring {
	struct io_uring uring;
	unsigned in_flight; /* ops submitted or about to be, not yet delivered */
	unsigned parked; /* those of them that only end with the ring */
	struct ring_op *aside; /* completions set aside, oldest first */
	struct ring_op **aside_last;
	bool fd_registered;
};

/* Probes for the quickest kind of ring that this kernel has. */
int ring_init(struct ring *ring);
/* What is in flight is abandoned: its done() is never called. */
void ring_done(struct ring *ring);

/* Saves a little on every turn; the thread undoes it before another takes the ring over. */
void ring_register(struct ring *ring);
void ring_unregister(struct ring *ring);

/* A table of so many buffers, all empty, for the drivers that fill it. Once for a ring. */
int ring_buffers(struct ring *ring, unsigned count);

/* An entry whose completion calls op->done(). The caller prepares it with an io_uring_prep_
 * function and then calls ring_tag(). */
struct io_uring_sqe *ring_sqe(struct ring *ring);
void ring_tag(struct ring *ring, struct io_uring_sqe *sqe, struct ring_op *op);

/* Submits, waits for a completion if there is none and wait is set (a signal may end that), and
 * delivers all that are there. Returns how many were delivered. */
int ring_turn(struct ring *ring, bool wait);

/* Waits for everything that is in flight but not parked. The ring is to be used no more. */
int ring_settle(struct ring *ring);

/* Asks for op to end early; its done() comes with ECANCELED, or with its result if that was
 * quicker. */
void ring_cancel(struct ring *ring, struct ring_op *op);

#endif
