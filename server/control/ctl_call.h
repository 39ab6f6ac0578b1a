/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ctl_call - one call to the volume, from the control thread to the worker and back
 *
 *   WAITING ----> POSTED ----> finished list ----> freed
 *      +------------------------^
 *
 *   started -> finished  STATUS and STATS, which the control thread looks up itself
 *   WAITING -> POSTED    a job slot (with its scratch) came free; SAME and CLONE alone need one
 *   POSTED -> finished   the worker answered; the event descriptor says so
 *   WAITING -> finished  cancelled before it began
 *
 * Errors    in call->error, a positive errno, with call->message; destinations have their own.
 * Memory    slots and their scratch are taken at start; a call's size is ctl_call_bytes().
 * Threads   everything on the control thread but what the worker runs, which is static in
 *           ctl_call.c. The two meet in the worker's mailbox, in the finished list (under its
 *           lock) and in cancel.
 * Blocking  never; STATUS and STATS for half a second at most.
 */
#ifndef SERVER_CONTROL_CTL_CALL_H
#define SERVER_CONTROL_CTL_CALL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/list.h"
#include "core/base/worker.h"
#include "core/request/request.h"
#include "core/request/same_job.h"
#include "core/volume/volume.h"
#include "server/control/protocol/ctl_limits.h"
#include "server/control/protocol/ctl_rpc.h"

#define CTL_CALL_MAGIC 0x43414c4cu
#define CTL_NO_SLOT    UINT32_MAX
#define CTL_UUID_BYTES 16

struct ctl_calls {
	struct volume *volume;
	struct worker *worker; /* of what is no job */
	struct worker *const *workers; /* jobs go to them in turn */
	unsigned worker_count;
	unsigned next_worker;
	bool lasting; /* a clone is answered when it is durable; set it after init */
	int event_fd; /* readable: something is in the finished list */
	uint32_t free_slots; /* a bit each */
	uint8_t *scratch; /* SAME_SCRATCH_BYTES a slot */
	struct volume_stats seen; /* the last */
	struct list waiting;
	struct list all;
	pthread_mutex_t lock; /* of finished */
	struct list finished;
};

struct ctl_call {
	uint32_t magic;
	struct ctl_calls *calls;
	void *owner; /* the connection; NULL: gone, nobody wants the answer */
	struct ctl_rpc_call rpc;
	struct list node; /* waiting or finished */
	struct list all_node;
	uint32_t slot;
	_Atomic bool cancel;
	struct task task;
	int error;
	const char *message; /* static, or in text */
	char text[128];
	struct same_dst *dsts;
	uint32_t next_range; /* SAME_RANGES: the one under way */
	bool range_submitting;
	bool range_answered;
	struct map_run *runs;
	uint64_t size_bytes; /* STATUS, MAP, CHANGES */
	uint8_t uuid[CTL_UUID_BYTES];
	union {
		struct same_job job;
		struct request map; /* CHANGES too */
		struct volume_stats stats;
		uint64_t round; /* TRIM */
	};
};

/* The list of workers must outlive it. */
int ctl_calls_init(struct ctl_calls *calls, struct volume *volume, struct worker *const *workers,
		   unsigned worker_count);
/* No call may be under way. */
void ctl_calls_done(struct ctl_calls *calls);

/* What a call and its answer hold, about. */
size_t ctl_call_bytes(const struct ctl_rpc_call *rpc);

/* Takes over what rpc owns. NULL: no memory, and rpc is as it was. */
struct ctl_call *ctl_call_start(struct ctl_calls *calls, struct ctl_rpc_call *rpc, void *owner);

/* Ends as soon as it can. A call that only waited for a slot is finished at once. */
void ctl_call_cancel(struct ctl_call *call);

/* The next answered call, or NULL; starts those that waited for its slot. */
struct ctl_call *ctl_calls_reap(struct ctl_calls *calls);
void ctl_call_free(struct ctl_call *call);

#endif
