/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ublk_process - see the header */
#include "server/ublk/ublk_process.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <mntent.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "server/base/log.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif
#define OOM_SCORE   "-900"
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

/* Without it what is locked has a limit, beyond which memory is refused altogether. */
static bool may_lock(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

	return syscall(SYS_capget, &header, data) == 0 &&
	       (data[CAP_TO_INDEX(CAP_IPC_LOCK)].effective & CAP_TO_MASK(CAP_IPC_LOCK)) != 0;
}

/* What is there (the program, its libraries) at once; what comes, as soon as it is touched. */
static void lock_memory(void)
{
	if (!may_lock())
		log_debug("ublk: may not lock its memory: no swap on its own device");
	else if (mlockall(MCL_CURRENT) < 0 || mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) < 0)
		log_warn("ublk: its memory is not locked: %s", strerror(errno));
}

/* As the unit has it, unless somebody has said something else. */
static void be_spared(void)
{
	int fd = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
	char text[8] = "";

	if (fd < 0)
		return;
	if (read(fd, text, sizeof(text) - 1) > 0 && strcmp(text, "0\n") == 0 &&
	    pwrite(fd, OOM_SCORE, strlen(OOM_SCORE), 0) < 0)
		log_debug("ublk: not spared when memory is short: %s", strerror(errno));
	close(fd);
}

void ublk_process_prepare(void)
{
	lock_memory();
	be_spared();
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
