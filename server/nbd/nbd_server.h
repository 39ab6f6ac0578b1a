/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd_server - the NBD front end: listening sockets, and connections spread over the loops
 *
 * Loop 0 accepts; connections go to the loops in turn. All connections of all loops share one
 * volume and so one flush domain, which is why clients may use several at once.
 *
 * Errors    0 or a negative errno.
 * Threads   init, start, stop, cut and done on the main thread; the loops run from before start
 *           until after nbd_server_clients() and nbd_server_listening() are both 0.
 */
#ifndef SERVER_NBD_NBD_SERVER_H
#define SERVER_NBD_NBD_SERVER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/base/list.h"
#include "core/volume/volume.h"
#include "server/base/log.h"
#include "server/loop/latency.h"
#include "server/loop/loop.h"
#include "server/nbd/nbd_guests.h"
#include "server/nbd/nbd_handshake.h"
#include "server/nbd/nbd_near.h"
#include "server/nbd/nbd_place.h"
#include "server/nbd/nbd_shaker.h"
#include "server/nbd/nbd_tls_keys.h"
#include "server/store/store_map.h"

#define NBD_LISTENERS_MAX 16u

struct nbd_server;

/* A loop's share. */
struct nbd_lane {
	struct nbd_server *server;
	struct loop *loop;
	struct list conns;
	struct latency latency;
	struct store_map_view view; /* map is NULL if the store is not mapped */
	struct loop_tick tick;
	struct nbd_near near;
	struct nbd_place place;
	bool draining;
	struct task start_task;
	struct task drain_task;
	struct task cut_task;
};

struct nbd_listener {
	struct nbd_server *server;
	int fd;
	struct ring_op accept_op;
	bool accepting;
	bool retry; /* no descriptor was left: again at the next tick */
};

struct nbd_server {
	struct nbd_export export; /* as clients on this machine see it: see nbd_listen_is_local() */
	struct volume *volume;
	struct nbd_lane *lanes;
	unsigned lane_count;
	_Atomic unsigned next_lane;
	struct nbd_listener listeners[NBD_LISTENERS_MAX];
	unsigned listener_count;
	struct task accept_task;
	struct task close_task;
	bool closed; /* nothing is accepted any more; loop 0's */
	_Atomic unsigned listening; /* listeners that are open */
	_Atomic unsigned clients;
	struct nbd_guests guests;
	struct nbd_shaker shaker;
	struct log_pace refused;
	struct nbd_export remote_export; /* as others do; init makes it equal, set it likewise */
	struct nbd_export handed_export; /* on connections handed out: any name, no TLS */
	struct nbd_tls_keys *tls_keys; /* where TLS is available; set it likewise */
	struct store_map *map; /* of a store that is mapped; set it likewise */
	bool aligns_payloads; /* for a store that needs aligned memory; set it likewise */
	bool lasting; /* what is answered outlives the process; set it likewise */
	void (*idle)(
		void *context); /* the last client has gone, on some loop's thread; may be NULL */
	void *context;
};

int nbd_server_init(struct nbd_server *server, struct loop **loops, unsigned loop_count,
		    struct volume *volume, const struct nbd_export *export, unsigned clients_max);
void nbd_server_done(struct nbd_server *server);

/* Before start. The descriptor is taken over. */
void nbd_server_listen(struct nbd_server *server, int fd);
void nbd_server_start(struct nbd_server *server);
/* A connected socket; taken over. Any thread, between start and the end of the loops. */
void nbd_server_adopt(struct nbd_server *server, int fd);
/* Makes a connection and gives its other end to a peer that was let in already, so no TLS is asked
 * for. Returns that end, -EBUSY if there are too many clients, or another negative errno. Threads
 * as above. */
int nbd_server_hand_out(struct nbd_server *server);

/* Accepts no more, answers what was asked, closes. */
void nbd_server_stop(struct nbd_server *server);
/* Closes connections whatever their state. */
void nbd_server_cut(struct nbd_server *server);

/* Of all loops; any thread. */
void nbd_server_latency(const struct nbd_server *server, struct latency_sums *ret_sums);
unsigned nbd_server_clients(struct nbd_server *server);
unsigned nbd_server_listening(struct nbd_server *server);

/* A connection has gone; on its loop. guest: what it held; NULL: it was not let in. */
void nbd_server_client_gone(struct nbd_server *server, struct nbd_guest *guest);

#endif
