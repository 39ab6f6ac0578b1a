/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_far_path - whoever asks for a path gets an answer, also where the filesystem gives none
 *
 * The dead filesystem is a FUSE mount of which nobody ever reads a request.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "server/base/far_path.h"

#define LIMIT_MS 300u

static char folder[64];
static char dead[80];
static int fuse_fd = -1;

static void setup(void)
{
	strcpy(folder, "/tmp/sameblk-test.XXXXXX");
	cr_assert_not_null(mkdtemp(folder));
	snprintf(dead, sizeof(dead), "%s/dead", folder);
	cr_assert_eq(mkdir(dead, 0700), 0);
}

static void teardown(void)
{
	if (fuse_fd >= 0) {
		/* Who hangs there gets an error now. */
		close(fuse_fd);
		umount2(dead, MNT_DETACH);
	}
	rmdir(dead);
	rmdir(folder);
}

TestSuite(far_path, .init = setup, .fini = teardown, .timeout = 20);

static void mount_dead(void)
{
	char options[80];

	fuse_fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0", fuse_fd);
	if (fuse_fd >= 0 && mount("dead", dead, "fuse", MS_NODEV | MS_NOSUID, options) == 0)
		return;
	if (fuse_fd >= 0)
		close(fuse_fd);
	fuse_fd = -1;
	cr_skip_test("a FUSE filesystem cannot be mounted here: %s", strerror(errno));
}

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

Test(far_path, it_says_what_a_path_leads_to)
{
	char file[96], link_path[96];
	struct far_path path;
	struct stat st;
	int fd;

	snprintf(file, sizeof(file), "%s/file", folder);
	snprintf(link_path, sizeof(link_path), "%s/link", folder);
	fd = open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	cr_assert_geq(fd, 0);
	cr_assert_eq(fstat(fd, &st), 0);
	cr_assert_eq(symlink("file", link_path), 0);
	cr_assert_eq(far_path_ask(link_path, FAR_PATH_MS, &path), 0);
	cr_assert_str_eq(path.real, file);
	cr_assert(path.dev == st.st_dev && path.ino == st.st_ino && path.mode == st.st_mode);
	unlink(file);
	cr_assert_eq(far_path_ask(link_path, FAR_PATH_MS, &path), -ENOENT);
	unlink(link_path);
	close(fd);
}

Test(far_path, a_dead_filesystem_is_waited_for_no_longer_than_the_limit)
{
	struct far_path path;
	char file[96];
	uint64_t start;

	mount_dead();
	snprintf(file, sizeof(file), "%s/store", dead);
	start = now_ms();
	cr_assert_eq(far_path_ask(file, LIMIT_MS, &path), -ETIMEDOUT);
	cr_assert_geq(now_ms() - start, LIMIT_MS);
	cr_assert_lt(now_ms() - start, 10 * LIMIT_MS);
}

/* A store's lock must not stay with a process that hangs. */
Test(far_path, who_is_left_behind_holds_no_descriptor)
{
	struct far_path path;
	char file[96];
	int fds[2];
	char byte;

	mount_dead();
	snprintf(file, sizeof(file), "%s/store", dead);
	cr_assert_eq(pipe(fds), 0);
	cr_assert_eq(far_path_ask(file, LIMIT_MS, &path), -ETIMEDOUT);
	close(fds[1]);
	/* The end of the pipe is seen when its last writer has gone. */
	cr_assert_eq(read(fds[0], &byte, 1), 0);
	close(fds[0]);
}
