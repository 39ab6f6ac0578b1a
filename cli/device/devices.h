/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * devices - the ublk devices of this machine, each with its record and its server, as far as there
 * are any; and the servers
 *
 * Errors    devices_load() says on stderr what it could not do, and loads what it can: -1 if the
 *           driver is there and may not be asked.
 * Memory    everything is freed by devices_done().
 * Blocking  on every server that runs: each is asked for its status, for two seconds; one that is
 *           silent for so long is said to be, and left out.
 */
#ifndef CLI_DEVICE_DEVICES_H
#define CLI_DEVICE_DEVICES_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli/base/servers.h"
#include "server/ublk/driver/ublk_control.h"
#include "server/ublk/driver/ublk_record.h"

struct device {
	struct ublk_info info;
	char path[32];
	uint64_t size_bytes; /* 0: it has no block device */
	bool ours; /* made by a sameblkd */
	const struct ublk_record *record; /* NULL: none */
	const struct server *server; /* that says it serves it; NULL: none */
};

struct devices {
	struct ublk_control *control; /* NULL: no driver */
	struct device *devices;
	size_t count;
	struct server *servers;
	size_t server_count;
	struct ublk_records records;
};

/* foreign: also the servers of other users. */
int devices_load(struct devices *ret_devices, bool foreign);
void devices_done(struct devices *devices);

/* "dead", "live", "waiting" (for a server), "failing". */
const char *device_state(const struct device *device);
/* The store, where it is known; NULL. */
const char *device_store(const struct device *device);
/* The block device that the server serves; NULL: none. */
const char *server_device(const struct server *server);

/* operand: /dev/ublkbN, /dev/ublkcN, ublkbN, or a store. NULL: there is none. */
const struct device *devices_find(const struct devices *devices, const char *operand);
/* The server of a store; NULL: none. */
const struct server *devices_find_server(const struct devices *devices, const char *store);

/* Stops and deletes a device that has no server; unless force, only if nobody uses it. 0 or a
 * negative errno, and says why; EBUSY: it is used. */
int device_remove(const struct devices *devices, const struct device *device, bool force);

/* Starts the server of a device again, with the arguments of the one before. 0 or -1. */
int device_recover(const struct device *device, unsigned wait_seconds);

#endif
