/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_store_life - what of a store in a file outlives who opened it: its lock, the kernel's cache
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

#include "server/store/store_file.h"
#include "server/store/store_file_internal.h"

#define STORE_BYTES (1u << 20)

static char folder[] = "/tmp/sameblk-test.XXXXXX";
static char path[128];

static void setup(void)
{
	cr_assert_not_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/store", folder);
}

static void teardown(void)
{
	unlink(path);
	rmdir(folder);
}

TestSuite(store_life, .init = setup, .fini = teardown, .timeout = 60);

static int open_store(struct store **ret_store)
{
	struct store_file_options options = {.create_bytes = STORE_BYTES};
	const char *message;

	return store_file_open(path, &options, ret_store, &message);
}

static bool is_locked(void)
{
	int fd = open(path, O_RDWR);
	bool locked = flock(fd, LOCK_EX | LOCK_NB) < 0;

	close(fd);
	return locked;
}

/* I15. The kernel holds the open file for as long as any I/O on it is under way, also after its
 * process was killed; a descriptor of the same open file stands for that here. The lock belongs to
 * that file and to nothing that is closed earlier. */
Test(store_life, the_lock_is_held_until_the_last_io_has_let_go_of_the_file)
{
	struct store *store, *successor = NULL;
	int last_io;

	cr_assert_eq(open_store(&store), 0);
	last_io = dup(((struct store_file *)store)->fd);
	store_close(store);
	cr_assert_eq(open_store(&successor), -EWOULDBLOCK);
	close(last_io);
	cr_assert_eq(open_store(&successor), 0);
	store_close(successor);
}

static int advised_fd = -1;
static bool advised_under_lock;

/* Instead of libc's. */
int posix_fadvise(int fd, off_t off, off_t len, int advice)
{
	if (off == 0 && len == 0 && advice == POSIX_FADV_DONTNEED) {
		advised_fd = fd;
		advised_under_lock = is_locked();
	}
	return 0;
}

/* I11. After a writeback error the kernel may hold pages as clean that never reached the disk:
 * recovery must not read them. They are dropped when nobody can make new ones any more. */
Test(store_life, the_clean_cache_is_dropped_under_the_lock_before_anything_is_read)
{
	struct store *store;

	cr_assert_eq(open_store(&store), 0);
	cr_expect_eq(advised_fd, ((struct store_file *)store)->fd);
	cr_expect(advised_under_lock);
	store_close(store);
}
