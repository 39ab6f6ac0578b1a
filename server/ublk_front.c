/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ublk_front - see the header */
#include "server/ublk_front.h"

#include <errno.h>
#include <string.h>

#include "server/base/log.h"
#include "server/ublk/driver/ublk_record.h"
#include "server/ublk/ublk_process.h"

void ublk_front_init(struct ublk_front *front, const struct options *options, int argc, char **argv,
		     void (*wake)(void *context))
{
	*front = (struct ublk_front){.options = options, .argc = argc, .argv = argv};
	front->server.shared.wake = wake;
	ublk_detach_init(&front->detach, wake, NULL);
}

void ublk_front_done(struct ublk_front *front)
{
	ublk_server_done(&front->server);
	ublk_detach_done(&front->detach);
}

int ublk_front_open(struct ublk_front *front)
{
	const struct options *options = front->options;
	const struct ublk_server_options ublk_options = {
		.store = options->store,
		.id = options->ublk_id,
		.queues = options->queues,
		.depth = options->depth,
		.sector_bytes = options->sector_bytes,
		.memory_bytes = options->buffer_bytes / 2,
		.loops = options->workers,
		.zero_copy = options->zero_copy,
		.direct = options->direct,
		.read_only = options->read_only,
	};
	int r;

	if (!options->ublk)
		return 0;
	ublk_process_prepare();
	r = ublk_server_open(&front->server, &ublk_options);
	if (r < 0)
		log_error("cannot make a ublk device: %s", front->server.why);
	return r;
}

static void save_record(struct ublk_front *front)
{
	const struct ublk_record_fields fields = {
		.uuid = volume_uuid(front->volume),
		.id = front->server.info.id,
		.store = front->options->store,
		.argc = front->argc,
		.argv = front->argv,
	};
	int r = ublk_record_save(&fields);

	if (r < 0)
		log_warn("%s: no record for sameblk recover could be made: %s", front->server.path,
			 strerror(-r));
}

int ublk_front_start(struct ublk_front *front, struct loop **loops, struct volume *volume)
{
	int r;

	if (!front->options->ublk)
		return 0;
	front->volume = volume;
	r = ublk_server_start(&front->server, loops, front->options->workers, volume);
	if (r < 0) {
		front->again = front->server.again;
		log_error("cannot make a ublk device: %s", front->server.why);
		return r;
	}
	save_record(front);
	return 0;
}

static int take_away(struct ublk_front *front, bool force)
{
	int r = ublk_server_remove(&front->server, force);

	if (r == 0) {
		ublk_record_remove(volume_uuid(front->volume));
		log_info("%s is removed", front->server.path);
	}
	return r;
}

bool ublk_front_serve(struct ublk_front *front, void (*before)(void *context), void *context)
{
	struct ublk_server *server = &front->server;
	bool force;
	int r;

	if (!ublk_detach_take(&front->detach, &force))
		return false;
	if (server->state != UBLK_SERVER_LIVE) {
		ublk_detach_answer(&front->detach, -ENODEV, "the block device is removed already");
		return false;
	}
	r = take_away(front, force);
	if (r == 0)
		before(context);
	ublk_detach_answer(&front->detach, r, r < 0 ? server->why : server->path);
	return r == 0;
}

bool ublk_front_end_lost(struct ublk_front *front)
{
	struct ublk_server *server = &front->server;

	if (!ublk_server_is_lost(server))
		return false;
	front->again = ublk_server_end_lost(server) < 0;
	log_error("%s%s", server->why, front->again ? "; it stays, and its I/O waits" : "");
	if (!front->again)
		ublk_record_remove(volume_uuid(front->volume));
	return true;
}

int ublk_front_detach(struct ublk_front *front, bool force, char *ret_text)
{
	return ublk_detach_ask(&front->detach, force, ret_text);
}

static void leave(struct ublk_front *front, int error)
{
	struct ublk_server *server = &front->server;

	if (error != -EBUSY)
		log_error("%s; the device stays (sameblk cleanup)", server->why);
	else if (!ublk_server_outlives(server))
		log_warn("%s; without privileges it ends with its server", server->why);
	else
		log_warn("%s; it stays, and its I/O waits until sameblkd --ublk serves %s again "
			 "(sameblk recover)",
			 server->why, front->options->store);
	ublk_server_leave(server);
}

bool ublk_front_stop(struct ublk_front *front)
{
	int r;

	ublk_detach_close(&front->detach);
	if (front->server.state == UBLK_SERVER_LIVE) {
		r = take_away(front, false);
		if (r < 0)
			leave(front, r);
	}
	return atomic_load(&front->server.shared.running) == 0;
}
