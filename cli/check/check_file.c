/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cli/check/check_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>
#include <linux/fs.h>

#include "cli/base/say.h"
#include "server/store/store_file.h"
#include "server/store/store_open.h"

#define LOCK_PAUSE_MS 20u

/* /proc/locks: "1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF"; a waiter's line has "->" after
 * the number and matches nothing here. */
static pid_t lock_owner(const struct stat *st)
{
	FILE *locks = fopen("/proc/locks", "re");
	char line[256];
	pid_t owner = 0;

	if (!locks)
		return 0;
	while (owner == 0 && fgets(line, sizeof(line), locks)) {
		unsigned major_number, minor_number;
		unsigned long long inode;
		int pid;

		if (sscanf(line, "%*d: %*s %*s %*s %d %x:%x:%llu", &pid, &major_number,
			   &minor_number, &inode) == 4 &&
		    inode == st->st_ino && makedev(major_number, minor_number) == st->st_dev)
			owner = pid > 0 ? pid : 0;
	}
	fclose(locks);
	return owner;
}

static int file_read(void *context, uint64_t off_bytes, void *buf, size_t len_bytes)
{
	const struct check_file *file = context;
	uint8_t *at = buf;

	while (len_bytes > 0) {
		ssize_t n = pread(file->fd, at, len_bytes, (off_t)off_bytes);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		at += n;
		off_bytes += (size_t)n;
		len_bytes -= (size_t)n;
	}
	return 0;
}

static int file_write(void *context, uint64_t off_bytes, const void *buf, size_t len_bytes)
{
	const struct check_file *file = context;
	const uint8_t *at = buf;

	while (len_bytes > 0) {
		ssize_t n = pwrite(file->fd, at, len_bytes, (off_t)off_bytes);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		at += n;
		off_bytes += (size_t)n;
		len_bytes -= (size_t)n;
	}
	return 0;
}

static int file_flush(void *context)
{
	const struct check_file *file = context;

	return fdatasync(file->fd) < 0 ? -errno : 0;
}

static int file_size(int fd, const struct stat *st, uint64_t *ret_size_bytes)
{
	if (S_ISBLK(st->st_mode))
		return ioctl(fd, BLKGETSIZE64, ret_size_bytes) < 0 ? -errno : 0;
	if (!S_ISREG(st->st_mode))
		return -ENOTBLK;
	*ret_size_bytes = (uint64_t)st->st_size;
	return 0;
}

/* As long as a server waits: the last writes of a killed one may still hold the lock. */
static int lock_patiently(int fd, int kind)
{
	const struct timespec pause = {.tv_nsec = LOCK_PAUSE_MS * 1000000L};

	for (unsigned ms = 0; flock(fd, kind | LOCK_NB) < 0; ms += LOCK_PAUSE_MS) {
		if (errno != EINTR && (errno != EWOULDBLOCK || ms >= STORE_WAIT_MS))
			return -errno;
		nanosleep(&pause, NULL);
	}
	return 0;
}

/* The file is open; what fails here is undone by the caller. */
static int file_prepare(struct check_file *file, bool write, pid_t *ret_pid)
{
	struct stat st;
	int r;

	if (fstat(file->fd, &st) < 0)
		return -errno;
	r = file_size(file->fd, &st, &file->source.size_bytes);
	if (r < 0)
		return r;
	r = lock_patiently(file->fd, write ? LOCK_EX : LOCK_SH);
	if (r == -EWOULDBLOCK)
		*ret_pid = lock_owner(&st);
	return r;
}

int check_file_open(const char *path, bool write, struct check_file *ret_file, pid_t *ret_pid)
{
	int r;

	*ret_pid = 0;
	memset(ret_file, 0, sizeof(*ret_file));
	/* A FIFO would make open() wait. */
	ret_file->fd = open(path, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK);
	if (ret_file->fd < 0)
		return -errno;
	r = file_prepare(ret_file, write, ret_pid);
	if (r < 0) {
		check_file_close(ret_file);
		return r;
	}
	ret_file->source.context = ret_file;
	ret_file->source.read = file_read;
	ret_file->source.write = write ? file_write : NULL;
	ret_file->source.flush = write ? file_flush : NULL;
	return 0;
}

void check_file_close(struct check_file *file)
{
	if (file->fd >= 0)
		close(file->fd);
	file->fd = -1;
}

void check_file_say(const char *path, int error, pid_t pid)
{
	if (error == -EWOULDBLOCK && pid > 0)
		say_error("cannot read", path, "in use by process %d", (int)pid);
	else if (error == -EWOULDBLOCK)
		say_error("cannot read", path, "in use by another process");
	else if (error == -EMEDIUMTYPE)
		say_error("cannot read", path, "this is no sameblk store");
	else if (error == -ENOTSUP)
		say_error("cannot read", path,
			  "it has a format version or features that this program does not know");
	else if (error == -ENOTBLK)
		say_error("cannot read", path, "neither a file nor a block device");
	else
		say_error("cannot read", path, "%s", strerror(-error));
}
