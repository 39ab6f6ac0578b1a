/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ctl_server - the control socket: JSON-RPC 2.0, one document a line, on a thread of its own
 *
 * docs/control-protocol.md says what goes over the socket. The thread parses and prints;
 * whatever touches the volume is posted to options.worker and runs there.
 *
 * Errors    0 or a negative errno with a message for people: EADDRINUSE (a live server has
 *           this socket), EEXIST (the path is no socket), ENAMETOOLONG, EACCES, ...
 * Memory    bounded: connections, calls in flight and bytes held have maxima; see ctl_limits.h.
 * Threads   start and stop on one thread, which is not the worker's. The worker's loop must
 *           run from start until stop has returned: stop waits for the answers of what it
 *           cancels. options.stop, clients and nbd are called on the control thread and
 *           must not call back.
 * Blocking  start and stop do; nothing ever blocks the worker.
 */
#ifndef SERVER_CONTROL_CTL_SERVER_H
#define SERVER_CONTROL_CTL_SERVER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "server/control/protocol/ctl_rpc.h"
#include "server/loop/latency.h"

#define CTL_DETACH_TEXT_BYTES CTL_RPC_MESSAGE_BYTES

/* Time limits; what they are for is written at their defaults in ctl_limits.h. */
struct ctl_times {
	uint32_t half_line_ms;
	uint32_t unsent_ms;
	uint32_t idle_ms;
	uint32_t goodbye_ms;
};

struct ctl_server;
struct volume;
struct worker;

struct ctl_server_options {
	struct volume *volume;
	/* Of the volume: merges and clones run on all of them, the rest on the first. */
	struct worker *const *workers;
	unsigned worker_count;
	struct worker *worker; /* the only one, where workers is NULL */
	const char *path; /* NULL: the default for store_path, see ctl_path.h */
	bool lasting; /* a clone that was answered outlives the process */
	gid_t group; /* who else may control; (gid_t)-1: none */
	const char *store_path; /* for status, and for the default path */
	const char *const *uris; /* what the ready line says; NULL-terminated; NULL: none */
	void (*stop)(void *context); /* as SIGTERM; returns at once */
	/* A descriptor of the connection of a stop, to tell the end on; taken over. False: it is
	 * not told. May be NULL. */
	bool (*farewell)(void *context, int fd);
	unsigned (*clients)(void *context); /* connected front-end clients; may be NULL */
	/* Removes the block device and waits for that; NULL: there is none. 0 or a negative errno,
	 * with the device's path, or why not, in at least CTL_DETACH_TEXT_BYTES. */
	int (*detach)(void *context, bool force, char *ret_text);
	/* A new NBD connection: the peer's end, or a negative errno. NULL: NBD is not spoken. */
	int (*nbd)(void *context);
	/* For how long the store has answered nothing; 0: it answers. May be NULL. */
	uint64_t (*silent_ms)(void *context);
	/* How long their requests took; may be NULL. */
	void (*latency)(void *context, struct latency_sums *ret_sums);
	void *context;
	int listen_fd; /* a listening socket handed over by systemd; 0: bind path */
	const struct ctl_times *times; /* NULL: the defaults; tests have shorter ones */
};

/* Everything that options points to must live until stop. The message is valid until the next
 * start. */
int ctl_server_start(const struct ctl_server_options *options, struct ctl_server **ret_server,
		     const char **reterr_message);

/* Cancels what is under way, answers it, closes every connection and removes the socket. NULL
 * is fine. */
void ctl_server_stop(struct ctl_server *server);

/* Where the socket is: what `sameblk -c` takes. Empty with listen_fd. */
const char *ctl_server_path(const struct ctl_server *server);

#endif
