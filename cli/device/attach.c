/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * attach - the command `sameblk attach`: starts a server in the background that makes a store's
 * volume a block device, waits until it can be opened, and prints its path
 *
 * A device that a server before left is taken over. What stands behind -- goes to the server as it
 * is.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/base/commands.h"
#include "cli/base/parse.h"
#include "cli/base/say.h"
#include "cli/device/background.h"
#include "cli/device/devices.h"

struct attach {
	const char *id;
	const char *queues;
	const char *depth;
	const char *zero_copy;
	const char *sector_size;
	const char *workers;
	const char *log;
	bool read_only;
	struct parse_size_value wait;
};

#define OWN_ARGUMENTS 14u

/* Name and value stand apart: nothing has to be put together but --ublk=ID. */
static size_t own_arguments(const struct attach *attach, const char *ublk, const char **arguments)
{
	const struct {
		const char *name;
		const char *value;
	} values[] = {
		{"--queues", attach->queues},		{"--depth", attach->depth},
		{"--sector-size", attach->sector_size}, {"--zero-copy", attach->zero_copy},
		{"--workers", attach->workers},
	};
	size_t count = 0;

	arguments[count++] = "sameblkd";
	arguments[count++] = ublk;
	if (attach->read_only)
		arguments[count++] = "--read-only";
	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		if (values[i].value == NULL)
			continue;
		arguments[count++] = values[i].name;
		arguments[count++] = values[i].value;
	}
	return count;
}

static int check_unserved(const char *store)
{
	struct devices devices;
	const struct server *server;
	const char *device;

	/* A driver that is missing is for the server to tell. */
	(void)devices_load(&devices, false);
	server = devices_find_server(&devices, store);
	if (server != NULL) {
		device = server_device(server);
		say_error("cannot attach", store, "a server has it already%s%s",
			  device != NULL ? ": it is " : ", for NBD", device != NULL ? device : "");
	}
	devices_done(&devices);
	return server != NULL ? -1 : 0;
}

static int run_attach(const struct attach *attach, char **operands, int operand_count)
{
	char store[PATH_MAX], ublk[32] = "--ublk", path[BACKGROUND_DEVICE_BYTES];
	const char **arguments = calloc(OWN_ARGUMENTS + (size_t)operand_count, sizeof(*arguments));
	struct background what = {
		.store = store,
		.log_path = attach->log,
		.arguments = arguments,
		.wait_seconds = (unsigned)attach->wait.bytes,
	};
	size_t count;
	int r;

	if (arguments == NULL || realpath(operands[0], store) == NULL) {
		say_error("cannot attach", operands[0], "%s", strerror(errno));
		free(arguments);
		return EXIT_FAILED;
	}
	if (attach->id != NULL)
		snprintf(ublk, sizeof(ublk), "--ublk=%s", attach->id);
	count = own_arguments(attach, ublk, arguments);
	for (int i = 1; i < operand_count; i++)
		arguments[count++] = operands[i];
	arguments[count] = store;
	r = check_unserved(store);
	if (r == 0)
		r = background_start(&what, path);
	free(arguments);
	if (r < 0)
		return EXIT_FAILED;
	puts(path);
	return EXIT_GOOD;
}

int attach_main(int argc, char **argv)
{
	struct attach attach = {.wait = {BACKGROUND_SECONDS_DEFAULT, false}};
	const struct parse_option options[] = {
		{"id", 0, PARSE_TEXT, &attach.id, "N", "make it /dev/ublkbN"},
		{"queues", 0, PARSE_TEXT, &attach.queues, "N",
		 "of the device (default: one per worker)"},
		{"depth", 0, PARSE_TEXT, &attach.depth, "N",
		 "requests in flight in each queue (default 128)"},
		{"sector-size", 0, PARSE_TEXT, &attach.sector_size, "N", "512 (default) or 4096"},
		{"zero-copy", 0, PARSE_TEXT, &attach.zero_copy, "on|off",
		 "where the kernel has it (default on)"},
		{"workers", 'w', PARSE_TEXT, &attach.workers, "N", "the server's threads"},
		{"read-only", 'r', PARSE_FLAG, &attach.read_only, NULL, "nothing is written"},
		{"log", 0, PARSE_TEXT, &attach.log, "FILE",
		 "where the server logs (default: NAME.log beside its control socket)"},
		{"wait", 0, PARSE_SIZE, &attach.wait, "SECONDS",
		 "how long the server may take (default 120)"},
		{NULL, 0, PARSE_FLAG, NULL, NULL, NULL},
	};
	const struct parse_command command = {
		"attach",
		"STORE [-- OPTION...]",
		"Make a store's volume a block device; options behind -- are sameblkd's.",
		options,
		1,
		INT_MAX,
	};
	int count;

	switch (parse_command(&command, argc, argv, &count)) {
	case PARSE_GO:
		break;
	case PARSE_DONE:
		return say_finish(EXIT_GOOD);
	case PARSE_BAD:
		return EXIT_FAILED;
	}
	if (attach.wait.bytes == 0 || attach.wait.bytes > BACKGROUND_SECONDS_MAX) {
		say_error("--wait", "", "1 to %u seconds", BACKGROUND_SECONDS_MAX);
		return EXIT_FAILED;
	}
	return say_finish(run_attach(&attach, argv + 1, count));
}
