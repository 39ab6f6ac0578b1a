/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ublk_find - see the header */
#include "server/ublk/driver/ublk_find.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "server/ublk/driver/ublk_holders.h"
#include "server/ublk/driver/ublk_openers.h"
#include "server/ublk/driver/ublk_shape.h"

#define CLASS_DIR "/sys/class/ublk-char"
#define PREFIX	  "ublkc"
/* udev looks into a device whenever somebody has written to it. */
#define CLAIM_MS       1000u
#define CLAIM_PAUSE_MS 50u

void ublk_block_path(uint32_t id, char ret_path[UBLK_PATH_BYTES])
{
	snprintf(ret_path, UBLK_PATH_BYTES, "/dev/ublkb%u", id);
}

void ublk_char_path(uint32_t id, char ret_path[UBLK_PATH_BYTES])
{
	snprintf(ret_path, UBLK_PATH_BYTES, "/dev/ublkc%u", id);
}

static int compare_ids(const void *a, const void *b)
{
	uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;

	return left < right ? -1 : left > right;
}

static int add_id(uint32_t **ids, size_t *count, const char *name)
{
	uint32_t *more;

	if (strncmp(name, PREFIX, strlen(PREFIX)) != 0 ||
	    !isdigit((unsigned char)name[strlen(PREFIX)]))
		return 0;
	more = realloc(*ids, (*count + 1) * sizeof(*more));
	if (more == NULL)
		return -ENOMEM;
	*ids = more;
	more[(*count)++] = (uint32_t)strtoul(name + strlen(PREFIX), NULL, 10);
	return 0;
}

int ublk_find_ids(uint32_t **ret_ids, size_t *ret_count)
{
	DIR *dir = opendir(CLASS_DIR);
	struct dirent *entry;
	uint32_t *ids = NULL;
	size_t count = 0;
	int r = 0;

	*ret_ids = NULL;
	*ret_count = 0;
	/* The class is there only while there is a device, or only while the driver is. */
	if (dir == NULL)
		return errno == ENOENT ? 0 : -errno;
	while (r == 0 && (entry = readdir(dir)) != NULL)
		r = add_id(&ids, &count, entry->d_name);
	closedir(dir);
	if (r < 0) {
		free(ids);
		return r;
	}
	if (count > 0)
		qsort(ids, count, sizeof(*ids), compare_ids);
	*ret_ids = ids;
	*ret_count = count;
	return 0;
}

int ublk_find_mark(struct ublk_control *control, uint64_t mark, struct ublk_info *ret_info)
{
	uint32_t *ids;
	size_t count;
	int r = ublk_find_ids(&ids, &count);

	if (r < 0)
		return r;
	r = -ENOENT;
	for (size_t i = 0; i < count && r == -ENOENT; i++) {
		/* One that goes away meanwhile, or is somebody else's, is not ours. */
		if (ublk_control_info(control, ids[i], ret_info) == 0 &&
		    ret_info->server_flags == mark && ublk_mark_counts(ret_info, geteuid()))
			r = 0;
	}
	free(ids);
	return r;
}

int ublk_hold(uint32_t id, int *ret_fd)
{
	char path[UBLK_PATH_BYTES];

	ublk_char_path(id, path);
	*ret_fd = open(path, O_RDWR | O_CLOEXEC);
	return *ret_fd < 0 ? -errno : 0;
}

/* --- who has it open --- */

/* Whoever is not shown is found by counting, unless the driver does that when it stops it. */
static int check_openers(const char *disk, bool driver_counts, char *reterr_who, size_t who_bytes)
{
	struct ublk_openers openers;
	int r = ublk_openers_find(&ublk_view_machine, disk, &openers, reterr_who, who_bytes);

	if (r == -EAGAIN && !openers.shown)
		snprintf(reterr_who, who_bytes, "it is just being opened or closed");
	if (openers.shown || r == -EAGAIN)
		return -EBUSY;
	if (r < 0) {
		snprintf(reterr_who, who_bytes, "who has it open cannot be told: %s", strerror(-r));
		return r;
	}
	if (driver_counts || openers.unseen == 0)
		return 0;
	(void)ublk_openers_find_unseen(&ublk_view_machine, disk, reterr_who, who_bytes);
	return -EBUSY;
}

static int claim_now(uint32_t id, bool driver_counts, int *ret_fd, char *reterr_who,
		     size_t who_bytes)
{
	char path[UBLK_PATH_BYTES];
	const char *disk = path + strlen("/dev/");
	int fd, r;

	ublk_block_path(id, path);
	if (ublk_holders_count(&ublk_view_machine, disk, reterr_who, who_bytes) > 0)
		return -EBUSY;
	fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC);
	if (fd < 0) {
		r = -errno;
		if (r == -EBUSY)
			snprintf(reterr_who, who_bytes, "a filesystem or another device claims it");
		else
			snprintf(reterr_who, who_bytes, "cannot open %s: %s", path, strerror(-r));
		return r;
	}
	r = check_openers(disk, driver_counts, reterr_who, who_bytes);
	if (r < 0) {
		close(fd);
		return r;
	}
	*ret_fd = fd;
	return 0;
}

int ublk_claim(uint32_t id, const struct ublk_claim_how *how, int *ret_fd, char *reterr_who,
	       size_t who_bytes)
{
	const struct timespec pause = {.tv_nsec = CLAIM_PAUSE_MS * 1000000L};
	int r = claim_now(id, how->driver_counts, ret_fd, reterr_who, who_bytes);

	for (unsigned ms = 0; r == -EBUSY && ms < CLAIM_MS; ms += CLAIM_PAUSE_MS) {
		nanosleep(&pause, NULL);
		r = claim_now(id, how->driver_counts, ret_fd, reterr_who, who_bytes);
	}
	if (r == 0 && how->write_back && fsync(*ret_fd) < 0) {
		r = -errno;
		snprintf(reterr_who, who_bytes, "what is cached cannot be written back: %s",
			 strerror(-r));
		close(*ret_fd);
	}
	return r;
}

void ublk_say_user(uint32_t id, char *ret_who, size_t who_bytes)
{
	char path[UBLK_PATH_BYTES];
	const char *disk = path + strlen("/dev/");

	ublk_block_path(id, path);
	if (ublk_holders_count(&ublk_view_machine, disk, ret_who, who_bytes) == 0 &&
	    check_openers(disk, true, ret_who, who_bytes) == 0)
		(void)ublk_openers_find_unseen(&ublk_view_machine, disk, ret_who, who_bytes);
}
