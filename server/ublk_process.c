/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ublk_process - see the header */
#include "server/ublk_process.h"

#include <ctype.h>
#include <errno.h>
#include <mntent.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>

#include "server/log.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif
#define ROUNDS_MAX  64u
#define MOUNT_BYTES 8192u

static bool own_namespace;

bool ublk_process_follows(const char *line)
{
	char where[512];
	int end = 0;
	const char *separator = strstr(line, " - ");
	const char *tag;

	if (sscanf(line, "%*s %*s %*s %*s %511s %*s%n", where, &end) != 1 || end == 0 ||
	    strcmp(where, "/") != 0 || separator == NULL)
		return false;
	for (tag = line + end; tag != NULL && tag < separator; tag = strchr(tag + 1, ' '))
		if (strncmp(tag, " shared:", 8) == 0 || strncmp(tag, " master:", 8) == 0)
			return true;
	return false;
}

static bool root_follows(void)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	char line[4096];
	bool follows = false;

	if (file == NULL)
		return false;
	while (!follows && fgets(line, sizeof(line), file) != NULL)
		follows = ublk_process_follows(line);
	fclose(file);
	return follows;
}

bool ublk_process_lives(pid_t pid)
{
	char path[64];
	bool lives = false;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
	file = fopen(path, "re");
	if (file != NULL) {
		lives = fgetc(file) != EOF;
		fclose(file);
	}
	return lives;
}

void ublk_process_prepare(void)
{
	if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) < 0)
		log_debug("ublk: not marked as a flusher of I/O: %s", strerror(errno));
	if (!root_follows())
		return;
	if (unshare(CLONE_NEWNS) < 0) {
		log_debug("ublk: no mount namespace of its own: %s", strerror(errno));
		return;
	}
	if (mount("none", "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
		log_warn("ublk: the mount namespace does not follow its parent: %s",
			 strerror(errno));
	else
		own_namespace = true;
}

/* The device or a partition of it. */
static bool is_of(const char *device, const char *block_path)
{
	size_t len = strlen(block_path);

	return strncmp(device, block_path, len) == 0 && !isdigit((unsigned char)device[len]);
}

/* True: one was forgotten, and there may be more. */
static bool forget_one(const char *block_path)
{
	FILE *file = setmntent("/proc/self/mounts", "re");
	struct mntent mount;
	char text[MOUNT_BYTES];
	bool forgot = false;

	if (file == NULL)
		return false;
	while (!forgot && getmntent_r(file, &mount, text, sizeof(text)) != NULL)
		if (is_of(mount.mnt_fsname, block_path))
			forgot = umount2(mount.mnt_dir, MNT_DETACH) == 0;
	endmntent(file);
	return forgot;
}

void ublk_process_forget_mounts(const char *block_path)
{
	for (unsigned i = 0; own_namespace && i < ROUNDS_MAX && forget_one(block_path); i++)
		;
}
