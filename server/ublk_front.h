/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ublk_front - the ublk front end as sameblkd's main thread goes through it: options in, lines in
 * the log out
 *
 *   ublk_front_init, open, start, serve..., stop, done
 *
 * Errors    0 or a negative errno; the log has said why.
 * Threads   the main thread, but ublk_front_detach(), which the control thread calls and where it
 *           waits for the main thread.
 */
#ifndef SERVER_UBLK_FRONT_H
#define SERVER_UBLK_FRONT_H

#include <stdbool.h>

#include "core/volume/volume.h"
#include "server/options.h"
#include "server/ublk/ublk_detach.h"
#include "server/ublk/ublk_server.h"

struct ublk_front {
	const struct options *options;
	int argc;
	char **argv; /* as main() got them */
	struct volume *volume;
	struct ublk_server server;
	struct ublk_detach detach;
	bool again; /* it failed, and a device of ours waits: a new server should try */
};

/* wake: what makes the main thread call ublk_front_serve(); from any thread. */
void ublk_front_init(struct ublk_front *front, const struct options *options, int argc, char **argv,
		     void (*wake)(void *context));
void ublk_front_done(struct ublk_front *front);

/* Both do nothing unless --ublk was said. */
int ublk_front_open(struct ublk_front *front);
int ublk_front_start(struct ublk_front *front, struct loop **loops, struct volume *volume);

/* Does what was asked for. True: the device was removed, and before() ran just before whoever asked
 * is told. */
bool ublk_front_serve(struct ublk_front *front, void (*before)(void *context), void *context);

/* True: somebody else took the device away. It has been given up, and the log says so. */
bool ublk_front_end_lost(struct ublk_front *front);

/* For the control thread: see ctl_server_options.detach. */
int ublk_front_detach(struct ublk_front *front, bool force, char *ret_text);

/* Removes the device, or leaves it if somebody has it open. False: requests are stuck: the loops
 * will not end. */
bool ublk_front_stop(struct ublk_front *front);

#endif
