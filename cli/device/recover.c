/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * recover - the commands `sameblk recover` and `sameblk cleanup`, for devices whose server has gone
 *
 * recover starts their servers again, with the arguments they had; I/O that waits goes on. cleanup
 * takes away what nobody uses: devices that were never started or are stopped, or that wait for a
 * server while nobody has them open, where the kernel's driver can tell (with --force also others),
 * and records of devices that are no more.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

#include "cli/base/commands.h"
#include "cli/base/parse.h"
#include "cli/base/say.h"
#include "cli/device/background.h"
#include "cli/device/devices.h"

static bool waits(const struct device *device)
{
	return device->ours && device->server == NULL &&
	       (device->info.state == UBLK_STATE_QUIESCED ||
		device->info.state == UBLK_STATE_FAIL_IO);
}

static int recover_one(const struct devices *devices, const char *operand, unsigned seconds)
{
	const struct device *device = devices_find(devices, operand);

	if (device != NULL && waits(device))
		return device_recover(device, seconds) < 0 ? EXIT_FAILED : EXIT_GOOD;
	say_error("cannot recover", operand, "%s",
		  device == NULL  ? "there is no such device, and none of such a store"
		  : !device->ours ? "it is not sameblk's"
				  : "it does not wait for a server (sameblk list)");
	return EXIT_FAILED;
}

static int recover_all(const struct devices *devices, unsigned seconds)
{
	int status = EXIT_GOOD;

	for (size_t i = 0; i < devices->count; i++)
		if (waits(&devices->devices[i]) &&
		    device_recover(&devices->devices[i], seconds) < 0)
			status = EXIT_FAILED;
	return status;
}

int recover_main(int argc, char **argv)
{
	struct parse_size_value wait = {BACKGROUND_SECONDS_DEFAULT, false};
	const struct parse_option options[] = {
		{"wait", 0, PARSE_SIZE, &wait, "SECONDS",
		 "how long each server may take (default 120)"},
		{NULL, 0, PARSE_FLAG, NULL, NULL, NULL},
	};
	const struct parse_command command = {
		"recover",
		"[DEVICE|STORE]",
		"Start the servers of block devices that wait for one.",
		options,
		0,
		1,
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
	if (wait.bytes == 0 || wait.bytes > BACKGROUND_SECONDS_MAX) {
		say_error("--wait", "", "1 to %u seconds", BACKGROUND_SECONDS_MAX);
		return EXIT_FAILED;
	}
	if (devices_load(&devices, false) == 0)
		status = count == 1 ? recover_one(&devices, argv[1], (unsigned)wait.bytes)
				    : recover_all(&devices, (unsigned)wait.bytes);
	devices_done(&devices);
	return say_finish(status);
}

static int clean_device(const struct devices *devices, const struct device *device, bool force)
{
	int r;

	if (!device->ours || device->server != NULL || device->info.state == UBLK_STATE_LIVE)
		return EXIT_GOOD;
	r = device_remove(devices, device, force);
	if (r < 0)
		return r == -EBUSY ? EXIT_SEE : EXIT_FAILED;
	printf("%s is removed\n", device->path);
	return EXIT_GOOD;
}

static void clean_records(const struct devices *devices)
{
	for (size_t i = 0; i < devices->records.count; i++) {
		const struct ublk_record *record = &devices->records.records[i];
		bool used = false;

		for (size_t j = 0; j < devices->count; j++)
			used = used || devices->devices[j].record == record;
		if (!used && unlink(record->path) == 0)
			printf("%s is removed\n", record->path);
	}
}

int cleanup_main(int argc, char **argv)
{
	bool force = false;
	const struct parse_option options[] = {
		{"force", 'f', PARSE_FLAG, &force, NULL,
		 "also devices that are used while they wait for a server: their I/O fails"},
		{NULL, 0, PARSE_FLAG, NULL, NULL, NULL},
	};
	const struct parse_command command = {
		"cleanup", "", "Remove block devices and records that no server needs.",
		options,   0,  0,
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
	if (devices_load(&devices, false) == 0) {
		status = EXIT_GOOD;
		for (size_t i = 0; i < devices.count; i++)
			status = exit_worse(status,
					    clean_device(&devices, &devices.devices[i], force));
		clean_records(&devices);
	}
	devices_done(&devices);
	return say_finish(status);
}
