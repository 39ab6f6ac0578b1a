/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ublk_find - see the header */
#include "server/ublk_find.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#define CLASS_DIR   "/sys/class/ublk-char"
#define PREFIX	    "ublkc"
#define COMM_MAX    16u
#define MOUNT_BYTES 8192u
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
		    ret_info->server_flags == mark)
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

static void say_process(const char *pid, char *ret_who, size_t who_bytes)
{
	char path[64], comm[COMM_MAX + 1] = "?";
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%.16s/comm", pid);
	file = fopen(path, "re");
	if (file != NULL) {
		if (fgets(comm, sizeof(comm), file) != NULL)
			comm[strcspn(comm, "\n")] = '\0';
		fclose(file);
	}
	snprintf(ret_who, who_bytes, "process %.16s (%s) has it open", pid, comm);
}

/* What kind of file it is, which the kernel knows without asking a server of files, which may be
 * gone: any file of any process is looked at here. */
static bool is_block(int dir_fd, const char *name, dev_t *ret_number)
{
	struct statx st;

	if (statx(dir_fd, name, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_TYPE, &st) < 0 ||
	    !S_ISBLK(st.stx_mode))
		return false;
	*ret_number = makedev(st.stx_rdev_major, st.stx_rdev_minor);
	return true;
}

/* The device itself or a partition of it: a block device is known by its number. */
static bool is_device(int dir_fd, const char *name, dev_t number, const char *disk)
{
	dev_t found;
	char path[64], target[256];
	ssize_t len;

	if (!is_block(dir_fd, name, &found))
		return false;
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u", major(found), minor(found));
	len = readlink(path, target, sizeof(target) - 1);
	/* Of a device that was removed and is still open somewhere the kernel shows nothing. */
	if (len < 0)
		return found == number;
	target[len] = '\0';
	/* .../block/ublkb0 or .../block/ublkb0/ublkb0p1 */
	for (char *at = strstr(target, disk); at != NULL; at = strstr(at + 1, disk)) {
		char end = at[strlen(disk)];

		if (at > target && at[-1] == '/' && (end == '\0' || end == '/'))
			return true;
	}
	return false;
}

static bool process_has_it(int proc_fd, const char *pid, dev_t number, const char *disk)
{
	char path[32];
	struct dirent *entry;
	bool found = false;
	DIR *dir;
	int fd;

	snprintf(path, sizeof(path), "%.16s/fd", pid);
	fd = openat(proc_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return false;
	dir = fdopendir(fd);
	if (dir == NULL) {
		close(fd);
		return false;
	}
	while (!found && (entry = readdir(dir)) != NULL)
		if (entry->d_name[0] != '.')
			found = is_device(fd, entry->d_name, number, disk);
	closedir(dir);
	return found;
}

/* True: a process besides this one has it open. The kernel keeps the count to itself. */
static bool find_process(dev_t number, const char *disk, char *ret_who, size_t who_bytes)
{
	DIR *dir = opendir("/proc");
	struct dirent *entry;
	bool found = false;

	if (dir == NULL)
		return false;
	while (!found && (entry = readdir(dir)) != NULL) {
		if (!isdigit((unsigned char)entry->d_name[0]) ||
		    strtol(entry->d_name, NULL, 10) == getpid())
			continue;
		found = process_has_it(dirfd(dir), entry->d_name, number, disk);
		if (found)
			say_process(entry->d_name, ret_who, who_bytes);
	}
	closedir(dir);
	return found;
}

static void say_mount(const char *disk, char *ret_who, size_t who_bytes)
{
	FILE *file = setmntent("/proc/self/mounts", "re");
	struct mntent mount;
	char text[MOUNT_BYTES];

	snprintf(ret_who, who_bytes, "it is mounted, or another device is made of it");
	if (file == NULL)
		return;
	while (getmntent_r(file, &mount, text, sizeof(text)) != NULL) {
		const char *device = mount.mnt_fsname;

		if (strncmp(device, "/dev/", 5) != 0 ||
		    strncmp(device + 5, disk, strlen(disk)) != 0 ||
		    isdigit((unsigned char)device[5 + strlen(disk)]))
			continue;
		snprintf(ret_who, who_bytes, "it is mounted on %s", mount.mnt_dir);
		break;
	}
	endmntent(file);
}

static int claim_now(uint32_t id, int *ret_fd, char *reterr_who, size_t who_bytes)
{
	char path[UBLK_PATH_BYTES];
	const char *disk = path + strlen("/dev/");
	struct stat st;
	int fd, r;

	ublk_block_path(id, path);
	fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC);
	if (fd < 0) {
		r = -errno;
		if (r == -EBUSY)
			say_mount(disk, reterr_who, who_bytes);
		else
			snprintf(reterr_who, who_bytes, "cannot open %s: %s", path, strerror(-r));
		return r;
	}
	if (fstat(fd, &st) == 0 && find_process(st.st_rdev, disk, reterr_who, who_bytes)) {
		close(fd);
		return -EBUSY;
	}
	*ret_fd = fd;
	return 0;
}

int ublk_claim(uint32_t id, bool write_back, int *ret_fd, char *reterr_who, size_t who_bytes)
{
	const struct timespec pause = {.tv_nsec = CLAIM_PAUSE_MS * 1000000L};
	int r = claim_now(id, ret_fd, reterr_who, who_bytes);

	for (unsigned ms = 0; r == -EBUSY && ms < CLAIM_MS; ms += CLAIM_PAUSE_MS) {
		nanosleep(&pause, NULL);
		r = claim_now(id, ret_fd, reterr_who, who_bytes);
	}
	if (r == 0 && write_back && fsync(*ret_fd) < 0) {
		r = -errno;
		snprintf(reterr_who, who_bytes, "what is cached cannot be written back: %s",
			 strerror(-r));
		close(*ret_fd);
	}
	return r;
}
