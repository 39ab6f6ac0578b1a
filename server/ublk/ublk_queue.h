/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ublk_queue - one queue of a ublk device, served by one loop
 *
 * The kernel has a command of ours for each tag. It completes when a request with that tag has
 * come: its description lies in mapped memory, and what a write carries in the tag's buffer. The
 * answer goes back with the command that asks for the next one, so a request costs no system call
 * of its own: whatever a turn of the loop brings is answered by the one that ends it.
 *
 *   IDLE ----> FETCHING ----> ENGINE ----> FETCHING ...
 *                 |              |
 *                 |              +----> HELD
 *                 +----> HELD
 *                 +----> GONE
 *
 *   IDLE     -> FETCHING  start_task     all tags of a queue from its own thread
 *   FETCHING -> ENGINE    fetch_done     a request has come
 *   ENGINE   -> FETCHING  engine_done    answered, and the next one asked for
 *   FETCHING -> HELD      fetch_done     the queue is leaving: not begun. The kernel asks whoever
 *                                        takes the device over again
 *   FETCHING -> GONE      fetch_done     the device is no more, or refused the command. If nobody
 *                                        here asked for that, the main thread is told
 *
 * A queue has ended when every tag is gone, or, once it is leaving, when the engine has none of
 * them: the kernel then still has commands of ours, which end with the thread. Their buffers are
 * not touched any more from then on, but must stay until the ring has been given back. One that was
 * never started has nothing to end.
 *
 * How the payload gets here and back is ublk_payload's.
 *
 * Memory    all of it at init: a buffer for each tag, never given back to the kernel in between.
 * Errors    0 or a negative errno from init.
 * Threads   init and done on the main thread; the rest on the loop's, through tasks.
 * Blocking  never.
 */
#ifndef SERVER_UBLK_UBLK_QUEUE_H
#define SERVER_UBLK_UBLK_QUEUE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/request/request.h"
#include "core/volume/volume.h"
#include "server/loop/latency.h"
#include "server/loop/loop.h"
#include "server/ublk/driver/ublk_shape.h"
#include "server/ublk/ublk_payload.h"

struct ublk_queue;

struct ublk_tag {
	struct ring_op op;
	struct ublk_queue *queue;
	struct ublk_payload payload;
	uint16_t number;
	uint8_t latency_op;
	uint32_t answer_bytes;
	uint64_t started_ns;
	struct request request;
};

/* What the queues of a device share. */
struct ublk_queues {
	struct volume *volume;
	int fd; /* /dev/ublkcN */
	struct ublk_shape shape;
	bool zero_copy; /* the device was made for it */
	struct ublk_straight straight; /* and what the store takes part in */
	bool outlives; /* the device outlives the server, and so does what was answered */
	_Atomic unsigned running; /* queues that have started and not ended */
	_Atomic bool live; /* the device has come up */
	_Atomic bool refused; /* the kernel did not take a fetch, or ended one before it was live */
	_Atomic bool stopping; /* we have asked for the device to be stopped */
	_Atomic bool lost; /* it was live, and the kernel wants no answers any more, or took none */
	void (*wake)(void *context); /* the main thread, about that; from any loop */
};

struct ublk_queue {
	struct ublk_queues *shared;
	struct loop *loop;
	uint16_t number;
	uint16_t depth;
	unsigned table_buffers; /* of its ring's table, which it makes; 0: another queue does */
	const volatile struct ublk_io_desc *descs; /* the kernel's */
	size_t descs_bytes;
	uint8_t *buffers; /* io_bytes_max for each tag, then SCRATCH_BYTES for each */
	size_t buffers_bytes;
	struct ublk_tag *tags;
	unsigned fetching;
	unsigned in_engine;
	bool started;
	bool leaving;
	bool ended;
	uint64_t now_ns; /* of this turn; 0: not asked yet */
	struct loop_soon soon;
	struct latency latency;
	struct task start_task;
	struct task leave_task;
};

int ublk_queue_init(struct ublk_queue *queue, struct ublk_queues *shared, struct loop *loop,
		    uint16_t number, uint16_t depth);
void ublk_queue_done(struct ublk_queue *queue);

/* With zero copy, before start: where its tags' buffers are in the table of its loop's ring. */
void ublk_queue_set_buffers(struct ublk_queue *queue, const struct ublk_table *table);

/* The next two post a task to the loop. */
void ublk_queue_start(struct ublk_queue *queue);
/* Begins nothing more and ends when what it has begun is answered. */
void ublk_queue_leave(struct ublk_queue *queue);

#endif
