/* SPDX-License-Identifier: GPL-2.0-or-later */
/* nbd_server - see the header */
#include "server/nbd/nbd_server.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/base/log.h"
#include "server/nbd/nbd_conn.h"
#include "server/nbd/nbd_listen.h"

/* A new connection on its way to its loop. */
struct handover {
	struct task task;
	struct nbd_lane *lane;
	const struct nbd_export *export;
	struct nbd_guest guest;
	int fd;
};

static void client_lost(struct nbd_server *server, int fd, struct nbd_guest *guest, const char *why)
{
	unsigned left_out;

	if (!log_paced(&server->refused, &left_out))
		log_debug("nbd: a connection is refused: %s", why);
	else if (left_out > 0)
		log_warn("nbd: a connection is refused: %s (%u more since the last such line)", why,
			 left_out);
	else
		log_warn("nbd: a connection is refused: %s", why);
	close(fd);
	nbd_server_client_gone(server, guest);
}

static void hand_over(struct task *task)
{
	struct handover *handover = container_of(task, struct handover, task);
	struct nbd_lane *lane = handover->lane;
	const struct nbd_export *export = handover->export;
	struct nbd_guest guest = handover->guest;
	int fd = handover->fd;
	int r;

	free(handover);
	if (lane->draining) {
		close(fd);
		nbd_server_client_gone(lane->server, &guest);
		return;
	}
	r = nbd_conn_new(lane, fd, export, &guest);
	if (r < 0)
		client_lost(lane->server, fd, &guest, strerror(-r));
}

/* Every connection has a slice of its own besides what all share: see main.c for the sum. */
static void adopt(struct nbd_server *server, int fd, const struct nbd_export *export)
{
	struct nbd_lane *lane =
		&server->lanes[atomic_fetch_add(&server->next_lane, 1) % server->lane_count];
	struct sockaddr_storage address;
	socklen_t len = sizeof(address);
	struct handover *handover;
	struct nbd_guest guest;
	bool local = nbd_listen_is_local(fd);
	const char *why = NULL;

	atomic_fetch_add(&server->clients, 1);
	if (!local && getpeername(fd, (struct sockaddr *)&address, &len) < 0)
		why = strerror(errno); /* it has gone already */
	if (why == NULL)
		why = nbd_guests_enter(&server->guests, local ? NULL : &address, &guest);
	if (why != NULL) {
		client_lost(server, fd, NULL, why);
		return;
	}
	handover = malloc(sizeof(*handover));
	if (handover == NULL) {
		client_lost(server, fd, &guest, strerror(ENOMEM));
		return;
	}
	handover->guest = guest;
	handover->task.worker = &lane->loop->worker;
	handover->task.run = hand_over;
	handover->lane = lane;
	handover->export = export;
	handover->fd = fd;
	worker_post(&handover->task);
}

void nbd_server_adopt(struct nbd_server *server, int fd)
{
	adopt(server, fd, nbd_listen_is_local(fd) ? &server->export : &server->remote_export);
}

int nbd_server_hand_out(struct nbd_server *server)
{
	int ends[2];

	/* Others may come at the same moment: then adopting closes its end, and the peer sees
	 * that. */
	if (nbd_server_clients(server) >= server->guests.max)
		return -EBUSY;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		return -errno;
	adopt(server, ends[0], &server->handed_export);
	return ends[1];
}

void nbd_server_client_gone(struct nbd_server *server, struct nbd_guest *guest)
{
	unsigned clients;

	if (guest != NULL)
		nbd_guests_leave(&server->guests, guest);
	clients = atomic_fetch_sub(&server->clients, 1);

	assert(clients > 0);
	if (clients == 1 && server->idle != NULL)
		server->idle(server->context);
}

/* --- listening, on loop 0 --- */

static void start_accept(struct nbd_listener *listener)
{
	struct ring *ring = listener->server->lanes[0].loop->ring;
	struct io_uring_sqe *sqe = ring_sqe(ring);

	io_uring_prep_accept(sqe, listener->fd, NULL, NULL, SOCK_CLOEXEC);
	ring_tag(ring, sqe, &listener->accept_op);
	listener->accepting = true;
}

static void close_listener(struct nbd_listener *listener)
{
	struct nbd_server *server = listener->server;

	close(listener->fd);
	listener->fd = -1;
	server->lanes[0].loop->busy--;
	atomic_fetch_sub(&server->listening, 1);
}

static void accept_done(struct ring_op *op, int res, uint32_t flags)
{
	struct nbd_listener *listener = container_of(op, struct nbd_listener, accept_op);
	struct nbd_server *server = listener->server;

	(void)flags;
	listener->accepting = false;
	if (res >= 0 && server->closed)
		close(res);
	else if (res >= 0)
		nbd_server_adopt(server, res);
	if (server->closed) {
		close_listener(listener);
		return;
	}
	if (res == -EMFILE || res == -ENFILE || res == -ENOBUFS || res == -ENOMEM) {
		log_warn("nbd: cannot accept a connection: %s; trying again", strerror(-res));
		listener->retry = true;
		return;
	}
	start_accept(listener);
}

static void accept_task(struct task *task)
{
	struct nbd_server *server = container_of(task, struct nbd_server, accept_task);

	for (unsigned i = 0; i < server->listener_count; i++) {
		server->lanes[0].loop->busy++;
		start_accept(&server->listeners[i]);
	}
}

static void close_task(struct task *task)
{
	struct nbd_server *server = container_of(task, struct nbd_server, close_task);

	server->closed = true;
	for (unsigned i = 0; i < server->listener_count; i++) {
		struct nbd_listener *listener = &server->listeners[i];

		if (listener->accepting)
			ring_cancel(server->lanes[0].loop->ring, &listener->accept_op);
		else
			close_listener(listener);
	}
}

/* --- lanes --- */

static void lane_tick(struct loop_tick *tick, uint64_t now_ms)
{
	struct nbd_lane *lane = container_of(tick, struct nbd_lane, tick);
	struct nbd_server *server = lane->server;

	list_for_each (pos, &lane->conns)
		nbd_conn_tick(container_of(pos, struct nbd_conn, node), now_ms);
	if (lane != &server->lanes[0] || server->closed)
		return;
	for (unsigned i = 0; i < server->listener_count; i++) {
		if (!server->listeners[i].retry)
			continue;
		server->listeners[i].retry = false;
		start_accept(&server->listeners[i]);
	}
}

static void start_task(struct task *task)
{
	struct nbd_lane *lane = container_of(task, struct nbd_lane, start_task);

	loop_add_tick(lane->loop, &lane->tick);
}

static void drain_task(struct task *task)
{
	struct nbd_lane *lane = container_of(task, struct nbd_lane, drain_task);

	lane->draining = true;
	list_for_each (pos, &lane->conns)
		nbd_conn_drain(container_of(pos, struct nbd_conn, node));
}

static void cut_task(struct task *task)
{
	struct nbd_lane *lane = container_of(task, struct nbd_lane, cut_task);

	lane->draining = true;
	list_for_each (pos, &lane->conns)
		nbd_conn_break(container_of(pos, struct nbd_conn, node), "the server stops");
}

static int find_client(void *context, int fd)
{
	(void)context;
	return nbd_place_find(fd);
}

static int bind_lane(void *context, int cpu)
{
	struct nbd_lane *lane = context;

	log_debug("worker %u: goes to its client on processor %d", lane->loop->worker.lane, cpu);
	return nbd_place_bind(&lane->place, cpu);
}

static void unbind_lane(void *context)
{
	struct nbd_lane *lane = context;

	log_debug("worker %u: may run anywhere again", lane->loop->worker.lane);
	nbd_place_unbind(&lane->place);
}

static void lane_init(struct nbd_lane *lane, struct nbd_server *server, struct loop *loop)
{
	struct worker *worker = &loop->worker;

	lane->server = server;
	lane->loop = loop;
	list_init(&lane->conns);
	list_init(&lane->tick.node);
	lane->tick.run = lane_tick;
	nbd_near_init(&lane->near, &(struct nbd_near_place){
					   .find = find_client,
					   .bind = bind_lane,
					   .unbind = unbind_lane,
					   .context = lane,
				   });
	lane->start_task = (struct task){.worker = worker, .run = start_task};
	lane->drain_task = (struct task){.worker = worker, .run = drain_task};
	lane->cut_task = (struct task){.worker = worker, .run = cut_task};
}

/* --- on the main thread --- */

int nbd_server_init(struct nbd_server *server, struct loop **loops, unsigned loop_count,
		    struct volume *volume, const struct nbd_export *export, unsigned clients_max)
{
	memset(server, 0, sizeof(*server));
	server->export = *export;
	server->remote_export = *export;
	server->handed_export = *export;
	server->handed_export.name = NULL;
	server->handed_export.tls_required = false;
	server->volume = volume;
	server->lane_count = loop_count;
	server->lanes = calloc(loop_count, sizeof(*server->lanes));
	if (server->lanes == NULL)
		return -ENOMEM;
	nbd_guests_init(&server->guests, clients_max);
	nbd_shaker_init(&server->shaker);
	for (unsigned i = 0; i < loop_count; i++)
		lane_init(&server->lanes[i], server, loops[i]);
	server->accept_task = (struct task){.worker = &loops[0]->worker, .run = accept_task};
	server->close_task = (struct task){.worker = &loops[0]->worker, .run = close_task};
	return 0;
}

void nbd_server_done(struct nbd_server *server)
{
	assert(nbd_server_clients(server) == 0 && nbd_server_listening(server) == 0);
	nbd_shaker_done(&server->shaker);
	nbd_guests_done(&server->guests);
	free(server->lanes);
}

void nbd_server_listen(struct nbd_server *server, int fd)
{
	struct nbd_listener *listener = &server->listeners[server->listener_count++];

	assert(server->listener_count <= NBD_LISTENERS_MAX);
	listener->server = server;
	listener->fd = fd;
	listener->accept_op.done = accept_done;
	atomic_fetch_add(&server->listening, 1);
}

void nbd_server_start(struct nbd_server *server)
{
	for (unsigned i = 0; i < server->lane_count; i++) {
		server->lanes[i].view.map = server->map;
		worker_post(&server->lanes[i].start_task);
	}
	worker_post(&server->accept_task);
}

void nbd_server_stop(struct nbd_server *server)
{
	worker_post(&server->close_task);
	for (unsigned i = 0; i < server->lane_count; i++)
		worker_post(&server->lanes[i].drain_task);
}

void nbd_server_cut(struct nbd_server *server)
{
	for (unsigned i = 0; i < server->lane_count; i++)
		worker_post(&server->lanes[i].cut_task);
}

void nbd_server_latency(const struct nbd_server *server, struct latency_sums *ret_sums)
{
	*ret_sums = (struct latency_sums){0};
	for (unsigned i = 0; i < server->lane_count; i++)
		latency_add(&server->lanes[i].latency, ret_sums);
}

unsigned nbd_server_clients(struct nbd_server *server)
{
	return atomic_load(&server->clients);
}

unsigned nbd_server_listening(struct nbd_server *server)
{
	return atomic_load(&server->listening);
}
