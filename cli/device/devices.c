/* SPDX-License-Identifier: GPL-2.0-or-later */
/* devices - see the header */
#include "cli/device/devices.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/base/client.h"
#include "cli/base/say.h"
#include "cli/device/background.h"
#include "server/ublk/driver/ublk_find.h"
#include "server/ublk/driver/ublk_shape.h"

/* --- loading --- */

static uint64_t block_size_bytes(uint32_t id)
{
	uint64_t sectors = 0;
	char path[64];
	FILE *file;

	snprintf(path, sizeof(path), "/sys/block/ublkb%" PRIu32 "/size", id);
	file = fopen(path, "re");
	if (file == NULL)
		return 0;
	if (fscanf(file, "%" SCNu64, &sectors) != 1)
		sectors = 0;
	fclose(file);
	return sectors * UBLK_SECTOR_BYTES;
}

const char *server_device(const struct server *server)
{
	const json_t *uri;
	size_t i;

	json_array_foreach(json_object_get(server->status, "exports"), i, uri)
	{
		const char *text = json_string_value(uri);

		if (text != NULL && strncmp(text, "/dev/", 5) == 0)
			return text;
	}
	return NULL;
}

static void fill(struct devices *devices, struct device *device, const struct ublk_info *info)
{
	*device = (struct device){.info = *info};
	ublk_block_path(info->id, device->path);
	device->size_bytes = block_size_bytes(info->id);
	device->ours = ublk_mark_is_ours(info->server_flags);
	if (ublk_mark_counts(info, geteuid()))
		device->record = ublk_records_find(&devices->records, info->server_flags);
	for (size_t i = 0; i < devices->server_count; i++) {
		const char *path = server_device(&devices->servers[i]);

		if (path != NULL && !devices->servers[i].foreign && strcmp(path, device->path) == 0)
			device->server = &devices->servers[i];
	}
}

static int load_devices(struct devices *devices)
{
	uint32_t *ids;
	size_t count;
	int r = ublk_find_ids(&ids, &count);

	if (r == 0 && count > 0) {
		devices->devices = calloc(count, sizeof(*devices->devices));
		r = devices->devices != NULL ? 0 : -ENOMEM;
	}
	if (r < 0) {
		say_error("cannot list devices", "", "%s", strerror(-r));
		return -1;
	}
	for (size_t i = 0; i < count; i++) {
		struct ublk_info info;

		/* One that has just gone is none. */
		if (ublk_control_info(devices->control, ids[i], &info) == 0)
			fill(devices, &devices->devices[devices->count++], &info);
	}
	free(ids);
	return 0;
}

static bool has_devices(void)
{
	uint32_t *ids;
	size_t count;

	if (ublk_find_ids(&ids, &count) < 0)
		return true;
	free(ids);
	return count > 0;
}

int devices_load(struct devices *ret_devices, bool foreign)
{
	char why[UBLK_WHY_BYTES];
	struct devices *devices = ret_devices;
	int r;

	*devices = (struct devices){.control = NULL};
	servers_load(foreign, &devices->servers, &devices->server_count);
	(void)ublk_records_load(&devices->records);
	r = ublk_control_open(&devices->control, why);
	if (r == 0)
		return load_devices(devices);
	/* Without a driver there are no devices, and none need not be asked about. */
	if (r == -ENOENT || r == -ENODEV || r == -ENXIO || !has_devices())
		return 0;
	say_error("cannot ask for ublk devices", "", "%s", why);
	return -1;
}

void devices_done(struct devices *devices)
{
	servers_done(devices->servers, devices->server_count);
	free(devices->devices);
	ublk_records_done(&devices->records);
	ublk_control_close(devices->control);
	*devices = (struct devices){.control = NULL};
}

/* --- looking --- */

const char *device_state(const struct device *device)
{
	switch (device->info.state) {
	case UBLK_STATE_DEAD:
		return "dead";
	case UBLK_STATE_LIVE:
		return "live";
	case UBLK_STATE_QUIESCED:
		return "waiting";
	default:
		return "failing";
	}
}

const char *device_store(const struct device *device)
{
	if (device->server != NULL)
		return client_text(device->server->status, "store");
	return device->record != NULL ? device->record->store : NULL;
}

static bool is_number(const char *text)
{
	for (const char *c = text; *c != '\0'; c++)
		if (!isdigit((unsigned char)*c))
			return false;
	return *text != '\0';
}

static bool names(const char *operand, uint32_t id)
{
	char number[16];

	if (strncmp(operand, "/dev/", 5) == 0)
		operand += 5;
	if (strncmp(operand, "ublkb", 5) != 0 && strncmp(operand, "ublkc", 5) != 0)
		return false;
	snprintf(number, sizeof(number), "%" PRIu32, id);
	return is_number(operand + 5) && strcmp(operand + 5, number) == 0;
}

const struct device *devices_find(const struct devices *devices, const char *operand)
{
	/* Whoever names a device needs nobody's store. */
	for (size_t i = 0; i < devices->count; i++)
		if (names(operand, devices->devices[i].info.id))
			return &devices->devices[i];
	for (size_t i = 0; i < devices->count; i++)
		if (servers_same_store(operand, device_store(&devices->devices[i])))
			return &devices->devices[i];
	return NULL;
}

const struct server *devices_find_server(const struct devices *devices, const char *store)
{
	return servers_find(devices->servers, devices->server_count, store);
}

/* --- doing --- */

/* Requests that wait in the kernel for a server. */
static bool has_waiting_io(uint32_t id)
{
	unsigned reads = 0, writes = 0;
	char path[64];
	FILE *file;

	snprintf(path, sizeof(path), "/sys/block/ublkb%" PRIu32 "/inflight", id);
	file = fopen(path, "re");
	if (file == NULL)
		return false;
	if (fscanf(file, "%u %u", &reads, &writes) != 2)
		reads = writes = 0;
	fclose(file);
	return reads + writes > 0;
}

/* Nobody serves it, so nothing must be read or written here. A process that was killed while it
 * closed the device waits for its I/O and is seen nowhere; only the driver knows of it. */
static int check_unused(const struct device *device, bool can_try)
{
	const struct ublk_claim_how how = {.driver_counts = can_try};
	char who[256];
	int fd, r;

	if (device->info.state == UBLK_STATE_DEAD)
		return 0;
	if (!can_try && device->info.state == UBLK_STATE_QUIESCED) {
		say_error("cannot remove", device->path,
			  "this kernel cannot tell whether I/O waits for its server: sameblk "
			  "recover, then sameblk detach; --force fails what waits");
		return -EBUSY;
	}
	if (has_waiting_io(device->info.id)) {
		say_error("cannot remove", device->path,
			  "requests wait for its server (sameblk recover); --force fails them");
		return -EBUSY;
	}
	r = ublk_claim(device->info.id, &how, &fd, who, sizeof(who));
	if (r < 0) {
		say_error("cannot remove", device->path, "%s", who);
		return r;
	}
	close(fd);
	return 0;
}

/* What was decided about it before it was held need not be so any more. */
static bool has_changed(const struct devices *devices, const struct device *device)
{
	struct ublk_info now;

	return ublk_control_info(devices->control, device->info.id, &now) < 0 ||
	       now.state != device->info.state || now.server_flags != device->info.server_flags;
}

/* Held, so that no server comes in between; then nobody's. */
static int stop_held(const struct devices *devices, const struct device *device, bool force)
{
	bool can_try = (ublk_control_features(devices->control) & UBLK_F_TRY_STOP) != 0;
	uint32_t op = can_try && !force ? UBLK_CTL_TRY_STOP : UBLK_CTL_STOP;
	int fd, r = ublk_hold(device->info.id, &fd);

	if (r == -EBUSY) {
		say_error("cannot remove", device->path,
			  "a server has it, or is just starting or ending: try again");
		return r;
	}
	if (has_changed(devices, device)) {
		say_error("cannot remove", device->path, "it has just changed: try again");
		if (fd >= 0)
			close(fd);
		return -EBUSY;
	}
	/* Without a node there is no server here either. */
	r = force ? 0 : check_unused(device, can_try);
	if (r == 0 && device->info.state != UBLK_STATE_DEAD) {
		r = ublk_control_plain(devices->control, op, device->info.id);
		if (r < 0)
			say_error("cannot remove", device->path, "%s",
				  ublk_control_why(devices->control));
	}
	if (fd >= 0)
		close(fd);
	return r;
}

static int stop_and_delete(const struct devices *devices, const struct device *device, bool force)
{
	struct ublk_control *control = devices->control;
	int r;

	r = stop_held(devices, device, force);
	if (r < 0)
		return r;
	r = ublk_control_delete(control, device->info.id, force);
	if (r < 0)
		say_error("cannot remove", device->path, "%s", ublk_control_why(control));
	return r;
}

int device_remove(const struct devices *devices, const struct device *device, bool force)
{
	struct ublk_control *control = devices->control;
	int r;

	ublk_control_set_unprivileged(control, (device->info.flags & UBLK_F_UNPRIVILEGED) != 0);
	r = ublk_control_hold(control, true);
	if (r == -ETIMEDOUT) {
		say_error("cannot remove", device->path,
			  "a server is just making a device, perhaps this one: try again");
		return -EBUSY;
	}
	r = stop_and_delete(devices, device, force);
	ublk_control_let_go(control);
	if (r < 0)
		return r;
	if (device->record != NULL)
		unlink(device->record->path);
	return 0;
}

int device_recover(const struct device *device, unsigned wait_seconds)
{
	const struct ublk_record *record = device->record;
	struct background what = {.store = device_store(device), .wait_seconds = wait_seconds};
	char path[BACKGROUND_DEVICE_BYTES];
	size_t count;
	const char **arguments;
	int r;

	if (record == NULL) {
		say_error("cannot recover", device->path,
			  "nothing says which store it is of: run sameblkd --ublk STORE");
		return -1;
	}
	count = json_array_size(record->arguments);
	arguments = calloc(count + 2, sizeof(*arguments));
	if (arguments == NULL) {
		say_error("cannot recover", device->path, "%s", strerror(ENOMEM));
		return -1;
	}
	arguments[0] = "sameblkd";
	for (size_t i = 0; i < count; i++)
		arguments[i + 1] = json_string_value(json_array_get(record->arguments, i));
	what.directory = record->directory;
	what.arguments = arguments;
	r = background_start(&what, path);
	free(arguments);
	if (r == 0)
		puts(path);
	return r;
}
