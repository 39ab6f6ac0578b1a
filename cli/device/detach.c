/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * detach - the command `sameblk detach`: removes a block device
 *
 * Its server does it: it refuses if the device is mounted or open, writes back what is cached, and
 * ends when it has nothing else to serve. A device whose server has gone is removed from here.
 */
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cli/base/client.h"
#include "cli/base/commands.h"
#include "cli/base/parse.h"
#include "cli/base/say.h"
#include "cli/device/devices.h"

#define END_SECONDS 60

/* A server that has nothing else to serve ends by itself; its store is free only then. */
static int wait_for_end(const struct server *server, const char *path)
{
	struct pollfd poller = {.events = POLLIN};
	int ready;

	poller.fd = (int)syscall(SYS_pidfd_open, (pid_t)client_number(server->status, "pid"), 0);
	if (poller.fd < 0)
		return EXIT_GOOD;
	ready = poll(&poller, 1, END_SECONDS * 1000);
	close(poller.fd);
	if (ready > 0)
		return EXIT_GOOD;
	say_error("the server has not ended", "", "%s is removed; its store is in use", path);
	return EXIT_FAILED;
}

static int ask_server(const struct server *server, const char *path, bool force)
{
	bool alone = json_array_size(json_object_get(server->status, "exports")) == 1;
	struct client client;
	json_t *result;

	if (client_open(server->control, &client) < 0)
		return EXIT_FAILED;
	result = client_call(&client, "cannot detach", "detach",
			     json_pack("{s:b}", "force", force ? 1 : 0));
	client_close(&client);
	if (result == NULL)
		return EXIT_FAILED;
	json_decref(result);
	return alone ? wait_for_end(server, path) : EXIT_GOOD;
}

static int run_detach(const struct devices *devices, const char *operand, bool force)
{
	const struct device *device = devices_find(devices, operand);
	const struct server *server = devices_find_server(devices, operand);

	if (device == NULL) {
		say_error("cannot detach", operand, "%s",
			  server != NULL ? "its server has no block device"
					 : "there is no such device, and none of such a store "
					   "(sameblk list)");
		return EXIT_FAILED;
	}
	if (!device->ours) {
		say_error("cannot detach", device->path, "it is not sameblk's");
		return EXIT_FAILED;
	}
	if (device->server != NULL)
		return ask_server(device->server, device->path, force);
	if (device->info.state == UBLK_STATE_LIVE) {
		say_error("cannot detach", device->path,
			  "process %d serves it, but answers on no control socket that is known",
			  device->info.pid);
		return EXIT_FAILED;
	}
	return device_remove(devices, device, force) < 0 ? EXIT_FAILED : EXIT_GOOD;
}

int detach_main(int argc, char **argv)
{
	bool force = false;
	const struct parse_option options[] = {
		{"force", 'f', PARSE_FLAG, &force, NULL,
		 "also if it is mounted or open: what is not written yet is lost"},
		{NULL, 0, PARSE_FLAG, NULL, NULL, NULL},
	};
	const struct parse_command command = {
		"detach", "DEVICE|STORE", "Remove a block device.", options, 1, 1,
	};
	struct devices devices;
	int count, status = EXIT_FAILED;

	switch (parse_command(&command, argc, argv, &count)) {
	case PARSE_GO:
		break;
	case PARSE_DONE:
		return say_finish(EXIT_GOOD);
	case PARSE_BAD:
		return EXIT_FAILED;
	}
	if (devices_load(&devices, false) == 0)
		status = run_detach(&devices, argv[1], force);
	devices_done(&devices);
	return say_finish(status);
}
