/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * list - the command `sameblk list`: the ublk devices of this machine, also those of other
 * programs, and the servers that have none
 *
 * With --udev it prints what the udev rule gives its names from, and asks the driver only: at that
 * moment the device's server may still be starting.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/base/client.h"
#include "cli/base/commands.h"
#include "cli/base/parse.h"
#include "cli/base/say.h"
#include "cli/device/devices.h"
#include "server/control/protocol/ctl_rpc.h"
#include "server/ublk/driver/ublk_shape.h"

static json_t *encode_device(const struct device *device)
{
	const char *store = device_store(device);
	json_t *object = json_pack(
		"{s:s, s:I, s:b, s:s, s:I, s:I, s:I}", "device", device->path, "id",
		(json_int_t)device->info.id, "ours", device->ours, "state", device_state(device),
		"size_bytes", (json_int_t)device->size_bytes, "queues",
		(json_int_t)device->info.queues, "depth", (json_int_t)device->info.depth);

	if (device->info.state == UBLK_STATE_LIVE)
		json_object_set_new(object, "pid", json_integer(device->info.pid));
	if (device->ours) {
		char text[24];

		snprintf(text, sizeof(text), "%012" PRIx64,
			 ublk_mark_id(device->info.server_flags));
		json_object_set_new(object, "volume_id", json_string(text));
	}
	if (store != NULL)
		json_object_set_new(object, "store", json_string(store));
	if (device->server != NULL)
		json_object_set_new(object, "control", ctl_rpc_text(device->server->control));
	return object;
}

static json_t *encode_server(const struct server *server)
{
	json_t *object =
		json_pack("{s:o, s:I, s:s?, s:s?}", "control", ctl_rpc_text(server->control), "pid",
			  (json_int_t)client_number(server->status, "pid"), "store",
			  client_text(server->status, "store"), "state",
			  client_text(server->status, "state"));

	json_object_set(object, "exports", json_object_get(server->status, "exports"));
	return object;
}

static void print_json(const struct devices *devices)
{
	json_t *list = json_array(), *servers = json_array(), *root;

	for (size_t i = 0; i < devices->count; i++)
		json_array_append_new(list, encode_device(&devices->devices[i]));
	for (size_t i = 0; i < devices->server_count; i++)
		json_array_append_new(servers, encode_server(&devices->servers[i]));
	root = json_pack("{s:o, s:o}", "devices", list, "servers", servers);
	json_dumpf(root, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(root);
}

static void print_line(const char *device, const char *state, int64_t pid, uint64_t size_bytes,
		       const char *store)
{
	char pid_text[24] = "-", size_text[24] = "-";

	if (pid > 0)
		snprintf(pid_text, sizeof(pid_text), "%" PRId64, pid);
	if (size_bytes > 0)
		snprintf(size_text, sizeof(size_text), "%" PRIu64, size_bytes);
	printf("%-14s %-8s %8s %16s ", device, state, pid_text, size_text);
	/* Another user's server may call its store what it likes, and this is a terminal. */
	say_print(store);
	putchar('\n');
}

static void print_text(const struct devices *devices)
{
	printf("%-14s %-8s %8s %16s %s\n", "DEVICE", "STATE", "PID", "SIZE", "STORE");
	for (size_t i = 0; i < devices->count; i++) {
		const struct device *device = &devices->devices[i];
		const char *store = device_store(device);

		print_line(device->path, device_state(device),
			   device->info.state == UBLK_STATE_LIVE ? device->info.pid : 0,
			   device->size_bytes,
			   store != NULL  ? store
			   : device->ours ? "(of sameblk; not known)"
					  : "(of another program)");
	}
	for (size_t i = 0; i < devices->server_count; i++) {
		const json_t *status = devices->servers[i].status;
		const char *store = client_text(status, "store");

		if (server_device(&devices->servers[i]) == NULL || devices->servers[i].foreign)
			print_line("-", "NBD", (int64_t)client_number(status, "pid"),
				   client_number(status, "size_bytes"), store != NULL ? store : "");
	}
}

/* KEY=VALUE lines; none for a device that is not ours. */
static int print_udev(const char *name)
{
	struct ublk_control *control;
	char why[UBLK_WHY_BYTES];
	struct ublk_info info;
	unsigned id;
	int r;

	if (sscanf(name, "ublkb%u", &id) != 1) {
		say_error("cannot read", name, "not the name of a ublk device");
		return EXIT_FAILED;
	}
	r = ublk_control_open(&control, why);
	if (r < 0) {
		say_error("cannot ask for ublk devices", name, "%s", why);
		return EXIT_FAILED;
	}
	r = ublk_control_info(control, id, &info);
	if (r < 0)
		say_error("cannot ask for the device", name, "%s", ublk_control_why(control));
	ublk_control_close(control);
	if (r < 0)
		return EXIT_FAILED;
	/* The names are the machine's, so another user's device has none. */
	if (ublk_mark_counts(&info, geteuid()))
		printf("SAMEBLK_ID=%012" PRIx64 "\n", ublk_mark_id(info.server_flags));
	return EXIT_GOOD;
}

int list_main(int argc, char **argv)
{
	const char *udev = NULL;
	bool json = false;
	const struct parse_option options[] = {
		PARSE_JSON(&json),
		{"udev", 0, PARSE_TEXT, &udev, "NAME", "for udev's rule: the id of the volume"},
		{NULL, 0, PARSE_FLAG, NULL, NULL, NULL},
	};
	const struct parse_command command = {
		"list", "", "List block devices and servers.", options, 0, 0,
	};
	struct devices devices;
	int count, status;

	switch (parse_command(&command, argc, argv, &count)) {
	case PARSE_GO:
		break;
	case PARSE_DONE:
		return say_finish(EXIT_GOOD);
	case PARSE_BAD:
		return EXIT_FAILED;
	}
	if (udev != NULL)
		return say_finish(print_udev(udev));
	status = devices_load(&devices, true) == 0 ? EXIT_GOOD : EXIT_FAILED;
	if (json)
		print_json(&devices);
	else
		print_text(&devices);
	devices_done(&devices);
	return say_finish(status);
}
