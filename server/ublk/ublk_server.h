/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ublk_server - the ublk front end: the volume as /dev/ublkbN
 *
 *   CLOSED ----> OPEN ----> LIVE ----> REMOVED
 *                            |
 *                            +-------> LEFT
 *
 *   CLOSED -> OPEN     ublk_server_open    the driver is there and can do what is needed
 *   OPEN   -> LIVE     ublk_server_start   a device was made, or one that a server before left was
 *                                          taken over; requests are served
 *   LIVE   -> REMOVED  ublk_server_remove  nobody has it open (or force)
 *   LIVE   -> LEFT     ublk_server_leave   the device stays and its I/O waits for the next server
 *   LIVE   -> REMOVED or LEFT   ublk_server_end_lost   somebody else stopped it, or took it away
 *
 * A device is known by its mark (ublk_shape.h), so the next server finds it whatever became of this
 * one. A copy of the store has the same mark: it is refused where a record (ublk_record.h) says
 * that the device is of another store that is still there. What was in flight when a server died is
 * asked for again: every operation may be done twice.
 *
 * The queues are spread over the loops; each is served by one. This file runs on the main thread
 * only. Whatever may wait for the device's own I/O is done by a process that has neither the store
 * nor a queue (ublk_agent.h), so that this one can end at any time.
 *
 * Errors    0 or a negative errno, with a sentence in server->why.
 * Threads   everything on the main thread, but ublk_server_latency(), which any may call between
 *           start and done.
 * Blocking  open, start, remove; each with time limits.
 */
#ifndef SERVER_UBLK_UBLK_SERVER_H
#define SERVER_UBLK_UBLK_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "core/volume/volume.h"
#include "server/loop/latency.h"
#include "server/loop/loop.h"
#include "server/ublk/driver/ublk_control.h"
#include "server/ublk/driver/ublk_find.h"
#include "server/ublk/ublk_agent.h"
#include "server/ublk/ublk_queue.h"

struct ublk_server_options {
	const char *store; /* its path; borrowed */
	uint32_t id; /* UINT32_MAX: any */
	unsigned queues;
	unsigned depth;
	uint32_t sector_bytes;
	uint64_t memory_bytes; /* for payloads */
	unsigned loops;
	bool read_only;
	bool zero_copy; /* where the kernel has it; the store reaches foreign memory */
	bool direct; /* how the store is opened */
};

enum ublk_server_state {
	UBLK_SERVER_CLOSED,
	UBLK_SERVER_OPEN,
	UBLK_SERVER_LIVE,
	UBLK_SERVER_REMOVED,
	UBLK_SERVER_LEFT,
};

struct ublk_server {
	enum ublk_server_state state;
	struct ublk_server_options options;
	struct ublk_control *control; /* for what waits for no I/O */
	struct ublk_agent agent; /* for what may */
	struct ublk_info info; /* as the driver granted it */
	struct ublk_queues shared;
	struct ublk_queue *queues;
	unsigned queue_count;
	bool taken_over;
	bool again; /* it failed, and the device waits: the next one may be luckier */
	char path[UBLK_PATH_BYTES]; /* of the block device */
	char why[UBLK_WHY_BYTES];
};

int ublk_server_open(struct ublk_server *server, const struct ublk_server_options *options);
int ublk_server_start(struct ublk_server *server, struct loop **loops, unsigned loop_count,
		      struct volume *volume);

/* EBUSY: somebody has it open, and nothing has changed. force: removed all the same, and what they
 * have not written back is lost. */
int ublk_server_remove(struct ublk_server *server, bool force);
/* Whether the device was taken away from this server, which shared.wake was called for. */
bool ublk_server_is_lost(const struct ublk_server *server);
/* 0: it is no more. EAGAIN: it stays, and waits for the next server. The sentence is set. */
int ublk_server_end_lost(struct ublk_server *server);

/* Whether the device stays when its server has gone. */
static inline bool ublk_server_outlives(const struct ublk_server *server)
{
	return (server->info.flags & UBLK_F_RECOVERY) != 0;
}

/* Begins nothing more and answers what it has. Queues that are still running then are stuck: their
 * loops do not end. */
void ublk_server_leave(struct ublk_server *server);
/* All threads of the loops have ended. */
void ublk_server_done(struct ublk_server *server);

/* Adds to ret_sums. */
void ublk_server_latency(const struct ublk_server *server, struct latency_sums *sums);

#endif
