/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * store_file_open - opening a store_file: the lock, the limits of the backing, the stale page cache
 *
 * Order: open, lock (only then does what is in the file stand still), look at it, drop its clean
 * cached pages (a page that failed to be written back is clean in the cache and older on the disk).
 */
#include "server/store/store_file_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#define LOCK_PAUSE_NS 20000000L
#define NEW_FILE_MODE 0600

static char message_text[512];

static int __attribute__((format(printf, 3, 4)))
fail(const char **reterr_message, int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(message_text, sizeof(message_text), format, args);
	va_end(args);
	*reterr_message = message_text;
	return error;
}

/* The process that has a lock on this inode, or 0 if the system does not tell. */
static pid_t lock_holder(int fd)
{
	FILE *locks = fopen("/proc/locks", "re");
	char line[256];
	struct stat st;
	pid_t found = 0;

	if (locks == NULL)
		return 0;
	if (fstat(fd, &st) < 0)
		st.st_ino = 0;
	while (found == 0 && fgets(line, sizeof(line), locks) != NULL) {
		unsigned major_number, minor_number;
		unsigned long long inode;
		int pid;

		if (strstr(line, "FLOCK") == NULL || strstr(line, "->") != NULL ||
		    sscanf(line, "%*s FLOCK %*s %*s %d %x:%x:%llu", &pid, &major_number,
			   &minor_number, &inode) != 4)
			continue;
		if (inode == st.st_ino && major_number == major(st.st_dev) &&
		    minor_number == minor(st.st_dev) && pid > 0 && pid != getpid())
			found = pid;
	}
	fclose(locks);
	return found;
}

static int lock_store(int fd, const char *path, const struct store_file_options *options,
		      const char **reterr_message)
{
	const struct timespec pause = {.tv_nsec = LOCK_PAUSE_NS};
	int kind = options->read_only ? LOCK_SH : LOCK_EX;
	unsigned tries = options->wait_ms / (LOCK_PAUSE_NS / 1000000L) + 1;
	pid_t pid;

	while (flock(fd, kind | LOCK_NB) < 0) {
		if (errno == EINTR)
			continue;
		if (errno != EWOULDBLOCK)
			return fail(reterr_message, -errno, "cannot lock %s: %s", path,
				    strerror(errno));
		if (--tries == 0) {
			pid = lock_holder(fd);
			if (pid > 0)
				return fail(reterr_message, -EWOULDBLOCK,
					    "%s is in use by process %d", path, (int)pid);
			return fail(reterr_message, -EWOULDBLOCK, "%s is in use by another process",
				    path);
		}
		nanosleep(&pause, NULL);
	}
	return 0;
}

/* EINTR and a device that someone (udev, a killed server) is just letting go of are worth waiting
 * for. */
static int open_patiently(const char *path, int flags, unsigned wait_ms)
{
	const struct timespec pause = {.tv_nsec = LOCK_PAUSE_NS};
	unsigned tries = wait_ms / (LOCK_PAUSE_NS / 1000000L) + 1;
	int fd;

	for (;;) {
		fd = open(path, flags, NEW_FILE_MODE);
		if (fd >= 0)
			return fd;
		if (errno != EINTR && (errno != EBUSY || --tries == 0))
			return -errno;
		nanosleep(&pause, NULL);
	}
}

static int open_store(struct store_file *file, const char *path,
		      const struct store_file_options *options, const char **reterr_message)
{
	int flags = O_CLOEXEC | (options->read_only ? O_RDONLY : O_RDWR) |
		    (options->direct ? O_DIRECT : 0);
	struct stat st;
	bool device = stat(path, &st) == 0 && S_ISBLK(st.st_mode);
	int fd = -EEXIST;

	if (options->create_bytes != 0 && !device) {
		fd = open_patiently(path, flags | O_CREAT | O_EXCL, 0);
		file->created = fd >= 0;
	}
	if (fd == -EEXIST)
		fd = open_patiently(path, flags | (device && !options->read_only ? O_EXCL : 0),
				    options->wait_ms);
	if (fd == -EINVAL && options->direct)
		return fail(reterr_message, fd,
			    "cannot open %s with O_DIRECT: its filesystem has "
			    "no direct I/O",
			    path);
	if (fd == -EBUSY)
		return fail(reterr_message, fd,
			    "%s is in use (mounted, or claimed by another "
			    "program)",
			    path);
	if (fd < 0)
		return fail(reterr_message, fd, "cannot open %s: %s", path, strerror(-fd));
	file->fd = fd;
	return 0;
}

static bool device_can_discard(dev_t device)
{
	static const char *const limits[] = {"queue/write_zeroes_max_bytes",
					     "../queue/write_zeroes_max_bytes"};
	char path[128];

	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
		unsigned long long bytes = 0;
		FILE *limit;

		snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s", major(device),
			 minor(device), limits[i]);
		limit = fopen(path, "re");
		if (limit == NULL)
			continue;
		if (fscanf(limit, "%llu", &bytes) != 1)
			bytes = 0;
		fclose(limit);
		return bytes > 0;
	}
	return false;
}

/* Whether it promises more than it may have; of a partition: whether its disk does. */
static bool device_may_run_out(dev_t device)
{
	static const char *const signs[] = {
		"loop/backing_file", "../loop/backing_file", "dm", "../dm", "mm_stat",
		"../mm_stat"};
	char path[128];

	for (size_t i = 0; i < sizeof(signs) / sizeof(signs[0]); i++) {
		snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s", major(device),
			 minor(device), signs[i]);
		if (access(path, F_OK) == 0)
			return true;
	}
	return false;
}

/* From now on the descriptor's I/O passes the page cache by. One that cannot stays as it is. */
static void go_direct(struct store_file *file)
{
	int flags = fcntl(file->fd, F_GETFL);

	if (flags >= 0 && fcntl(file->fd, F_SETFL, flags | O_DIRECT) == 0)
		file->store.direct = true;
}

static int look_at_device(struct store_file *file, const char *path, const struct stat *st,
			  const struct store_file_options *options, const char **reterr_message)
{
	uint64_t bytes;
	int sector;

	if (!options->direct && !options->buffered && device_may_run_out(st->st_rdev))
		go_direct(file);

	if (ioctl(file->fd, BLKGETSIZE64, &bytes) < 0 || ioctl(file->fd, BLKSSZGET, &sector) < 0)
		return fail(reterr_message, -errno, "cannot get the size of %s: %s", path,
			    strerror(errno));
	if (sector != 512 && sector != 4096)
		return fail(reterr_message, -ENOTSUP, "%s has sectors of %d bytes, not 512 or 4096",
			    path, sector);
	file->store.size_bytes = bytes;
	file->store.sector_bytes = (uint32_t)sector;
	file->memory_align_bytes = (uint32_t)sector;
	file->store.can_discard = !file->store.read_only && device_can_discard(st->st_rdev);
	return 0;
}

/* What O_DIRECT asks for on a regular file. */
static int look_at_alignment(struct store_file *file, const char *path, const char **reterr_message)
{
	uint32_t memory = STORE_DIRECT_ALIGN_MAX;
	uint32_t offset = STORE_DIRECT_ALIGN_MAX;
#ifdef STATX_DIOALIGN
	struct statx stx;

	if (statx(file->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 &&
	    (stx.stx_mask & STATX_DIOALIGN) != 0) {
		memory = stx.stx_dio_mem_align;
		offset = stx.stx_dio_offset_align;
	}
#endif
	if (memory == 0 || memory > STORE_DIRECT_ALIGN_MAX || offset == 0 ||
	    offset > STORE_DIRECT_ALIGN_MAX)
		return fail(reterr_message, -EINVAL, "cannot use %s with O_DIRECT: %s", path,
			    offset == 0 ? "it has no direct I/O" : "its blocks are too large");
	file->memory_align_bytes = memory;
	file->store.sector_bytes = offset <= 512 ? 512 : 4096;
	return 0;
}

/* On btrfs and its like: what is overwritten stays where it is, so that metadata needs no space
 * that it has not got yet. It can be said of an empty file only; elsewhere it means nothing. */
static void overwrite_in_place(int fd)
{
	int flags = 0;

	if (ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0)
		return;
	flags |= FS_NOCOW_FL;
	(void)ioctl(fd, FS_IOC_SETFLAGS, &flags);
}

static int look_at_file(struct store_file *file, const char *path, const struct stat *st,
			const struct store_file_options *options, const char **reterr_message)
{
	uint64_t bytes = (uint64_t)st->st_size;

	if (options->create_bytes != 0 && bytes == 0) {
		file->fresh = true;
		bytes = options->create_bytes;
		overwrite_in_place(file->fd);
		if (ftruncate(file->fd, (off_t)bytes) < 0)
			return fail(reterr_message, -errno, "cannot make %s %llu bytes long: %s",
				    path, (unsigned long long)bytes, strerror(errno));
	}
	file->store.size_bytes = bytes;
	file->store.sector_bytes = 512;
	/* A hole behind the end changes nothing, but tells whether holes can be punched. */
	file->store.can_discard = !options->read_only &&
				  fallocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					    (off_t)((bytes + 4095) & ~4095ull), 4096) == 0;
	return options->direct ? look_at_alignment(file, path, reterr_message) : 0;
}

static int look_at_store(struct store_file *file, const char *path,
			 const struct store_file_options *options, const char **reterr_message)
{
	struct stat st;

	if (fstat(file->fd, &st) < 0)
		return fail(reterr_message, -errno, "cannot stat %s: %s", path, strerror(errno));
	file->store.ops = &store_file_ops;
	file->store.read_only = options->read_only;
	file->store.reaches_foreign = true;
	file->store.direct = options->direct;
	file->piece_bytes = options->piece_bytes;
	if (S_ISBLK(st.st_mode))
		return look_at_device(file, path, &st, options, reterr_message);
	if (S_ISREG(st.st_mode))
		return look_at_file(file, path, &st, options, reterr_message);
	return fail(reterr_message, S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL,
		    "%s is neither a regular file nor a block device", path);
}

static bool is_named(int fd, const char *path)
{
	struct stat held, named;

	return fstat(fd, &held) == 0 && stat(path, &named) == 0 && held.st_dev == named.st_dev &&
	       held.st_ino == named.st_ino;
}

/* Between the opening and the lock somebody may have removed or replaced it: what would be written
 * then could not be found. */
static int check_path(int fd, const char *path, const char **reterr_message)
{
	return is_named(fd, path)
		       ? 0
		       : fail(reterr_message, -ESTALE, "%s was replaced meanwhile", path);
}

/* Where the kernel counts the memory of a ring as locked, the limit is one for all processes of the
 * user. */
static int ring_failed(int r, const char *path, const char **reterr_message)
{
	struct rlimit limit;

	if (r == -ENOMEM && getrlimit(RLIMIT_MEMLOCK, &limit) == 0 &&
	    limit.rlim_cur != RLIM_INFINITY)
		return fail(reterr_message, r,
			    "cannot make an io_uring for %s: %s (locked memory of this user's "
			    "processes together is limited to %llu KiB: raise that with ulimit "
			    "-l, LimitMEMLOCK= of a unit, or /etc/security/limits.conf)",
			    path, strerror(-r), (unsigned long long)limit.rlim_cur / 1024);
	if (r == -EPERM || r == -EACCES || r == -ENOSYS)
		return fail(reterr_message, r,
			    "cannot make an io_uring for %s: %s (it is switched off: by the "
			    "kernel, see the sysctl kernel.io_uring_disabled, by a container's "
			    "seccomp profile, or by a security module)",
			    path, strerror(-r));
	return fail(reterr_message, r, "cannot make an io_uring for %s: %s", path, strerror(-r));
}

static int open_steps(struct store_file *file, const char *path,
		      const struct store_file_options *options, const char **reterr_message)
{
	int r = open_store(file, path, options, reterr_message);

	if (r == 0)
		r = lock_store(file->fd, path, options, reterr_message);
	file->locked = r == 0;
	if (r == 0)
		r = check_path(file->fd, path, reterr_message);
	if (r == 0)
		r = look_at_store(file, path, options, reterr_message);
	if (r < 0)
		return r;
	/* Advice; where it is not taken (a ramdisk), there is nothing behind the cache either. */
	(void)posix_fadvise(file->fd, 0, 0, POSIX_FADV_DONTNEED);
	r = store_file_lanes_init(file, options->lanes != 0 ? options->lanes : 1);
	return r < 0 ? ring_failed(r, path, reterr_message) : 0;
}

int store_file_open(const char *path, const struct store_file_options *options,
		    struct store **ret_store, const char **reterr_message)
{
	struct store_file *file = calloc(1, sizeof(*file));
	int r;

	if (file == NULL)
		return fail(reterr_message, -ENOMEM, "out of memory");
	file->magic = STORE_FILE_MAGIC;
	file->fd = -1;
	store_gate_init(&file->gate);
	r = open_steps(file, path, options, reterr_message);
	if (r < 0) {
		store_file_unmake(&file->store, path);
		store_file_close(&file->store);
		return r;
	}
	*ret_store = &file->store;
	return 0;
}

void store_file_close(struct store *store)
{
	struct store_file *file = (struct store_file *)store;

	if (file == NULL)
		return;
	store_file_lanes_done(file);
	store_gate_done(&file->gate);
	if (file->fd >= 0)
		close(file->fd);
	file->magic = 0;
	free(file);
}

bool store_file_created(const struct store *store)
{
	return ((const struct store_file *)store)->created;
}

static void make_empty(int fd)
{
	int r = ftruncate(fd, 0);

	/* What failed before has been told. */
	(void)r;
}

void store_file_unmake(const struct store *store, const char *path)
{
	const struct store_file *file = (const struct store_file *)store;

	/* One that another process has locked is that one's by now. */
	if (file->created && file->locked && is_named(file->fd, path))
		unlink(path);
	else if (file->fresh)
		make_empty(file->fd);
}

bool store_file_fresh(const struct store *store)
{
	return ((const struct store_file *)store)->fresh;
}

int store_file_fd(const struct store *store)
{
	return ((const struct store_file *)store)->fd;
}
