/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ublk_agent - a process that waits for the device in the server's stead
 *
 * To start, stop or claim a device, to write back what is cached of it or to take leave of a mount
 * of it means to wait for I/O that this server does. Were a thread of the server to wait and the
 * server killed meanwhile, it could not die: its threads end together, and the one that waits,
 * waits for those that have ended. It would keep the store locked and the device from the next
 * server.
 *
 * So a process that has neither the store nor a queue does all this. It is made before there are
 * either, has no descriptor but its end of a socket (and the driver and the device, while it needs
 * them), and ends when the other end is closed. If it waits when the server dies, it goes on when
 * the next one has taken the device over, and ends then.
 *
 *   IDLE ----> ASKED ----> IDLE       one request at a time, answered whatever comes of it
 *
 * Errors    0 or a negative errno; ublk_agent_why() has the sentence. EPIPE: it is no more.
 * Threads   the main thread. Signals: it heeds none that can be ignored; the server ends it.
 * Blocking  every request; a signal's handler runs meanwhile, and SIGKILL ends the server at once.
 */
#ifndef SERVER_UBLK_UBLK_AGENT_H
#define SERVER_UBLK_UBLK_AGENT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "server/ublk/driver/ublk_why.h"

struct ublk_agent {
	pid_t pid; /* 0: there is none */
	int fd;
	_Atomic bool *give_up; /* both have it */
	bool unprivileged; /* the device is */
	char why[UBLK_WHY_BYTES];
};

/* Before the store is opened and before there are threads. */
int ublk_agent_start(struct ublk_agent *agent);
/* Does not wait for one that hangs. */
void ublk_agent_end(struct ublk_agent *agent);
const char *ublk_agent_why(const struct ublk_agent *agent);

/* As ublk_control_go_live() does it, for this process. */
int ublk_agent_go_live(struct ublk_agent *agent, uint32_t op, uint32_t id,
		       const _Atomic bool *give_up);
/* Writes back and stops the device. EBUSY: somebody has it open, and nothing has changed. */
int ublk_agent_stop_unused(struct ublk_agent *agent, uint32_t id);
/* Stops it all the same. Where something could not be written back the log says so. */
int ublk_agent_stop_used(struct ublk_agent *agent, uint32_t id);
/* Stops one that did not come up. */
int ublk_agent_stop(struct ublk_agent *agent, uint32_t id);
/* Forgets its mounts in our namespace: see ublk_process.h. wait: only while it is served. */
void ublk_agent_forget_mounts(struct ublk_agent *agent, uint32_t id, bool wait);

#endif
