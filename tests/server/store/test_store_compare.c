/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_store_compare - a store in a file compares ranges where they lie, and survives what cannot
 * be read
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "server/store/store_file.h"

#define STORE_BYTES (16u << 20)
#define HALF_BYTES  (STORE_BYTES / 2)
#define BLOCK	    4096u
#define MANY	    400u

static char folder[] = "/tmp/sameblk-compare.XXXXXX";
static char path[128];
static uint8_t *content;
static struct store *store;
static struct store_map map;

struct compare {
	struct store_io io;
	bool done;
	int res;
};

static void write_file(void)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

	content = malloc(HALF_BYTES);
	srand(1);
	for (size_t i = 0; i < HALF_BYTES; i++)
		content[i] = (uint8_t)rand();
	memset(content + BLOCK, 0, 2 * BLOCK);
	cr_assert_eq(pwrite(fd, content, HALF_BYTES, 0), HALF_BYTES);
	cr_assert_eq(pwrite(fd, content, HALF_BYTES, HALF_BYTES), HALF_BYTES);
	cr_assert_eq(fsync(fd), 0);
	close(fd);
}

static void setup(void)
{
	const struct store_file_options options = {.read_only = false};
	const char *message;

	cr_assert_not_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/store", folder);
	write_file();
	cr_assert_eq(store_file_open(path, &options, &store, &message), 0, "%s", message);
	cr_assert_eq(store_map_make(&map, store_file_fd(store), store->size_bytes), 0);
	cr_assert_not(store->can_compare);
	cr_assert_eq(store_file_compare_start(store, &map), 0);
	cr_assert(store->can_compare);
}

static void teardown(void)
{
	store_file_compare_stop(store);
	cr_assert_not(store->can_compare);
	store_map_done(&map);
	store_close(store);
	unlink(path);
	rmdir(folder);
	free(content);
}

TestSuite(store_compare, .init = setup, .fini = teardown, .timeout = 60);

static void compare_done(struct store_io *io, int res)
{
	struct compare *compare = (struct compare *)io;

	cr_assert_not(compare->done);
	compare->done = true;
	compare->res = res;
}

static void start(struct compare *compare, uint64_t off, uint64_t other, uint64_t len)
{
	*compare = (struct compare){.io = {
					    .op = STORE_COMPARE,
					    .off_bytes = off,
					    .other_off_bytes = other,
					    .len_bytes = len,
					    .equal_bytes = UINT64_MAX,
					    .done = compare_done,
				    }};
	store_submit(store, &compare->io);
	cr_assert_not(compare->done, "never inside submit");
}

/* The number of equal bytes, or a negative errno. */
static int64_t compared(uint64_t off, uint64_t other, uint64_t len)
{
	struct compare compare;

	start(&compare, off, other, len);
	while (!compare.done)
		store->ops->wait(store, 0);
	cr_assert_eq(store->ops->in_flight(store, 0), 0);
	return compare.res < 0 ? compare.res : (int64_t)compare.io.equal_bytes;
}

static void poke(uint64_t off, uint8_t byte)
{
	int fd = open(path, O_WRONLY);

	cr_assert_eq(pwrite(fd, &byte, 1, (off_t)off), 1);
	close(fd);
}

static void cut_to(off_t len)
{
	cr_assert_eq(truncate(path, len), 0);
}

Test(store_compare, equal_ranges_are_equal_to_their_last_byte)
{
	cr_assert_eq(compared(0, HALF_BYTES, BLOCK), BLOCK);
	cr_assert_eq(compared(0, HALF_BYTES, HALF_BYTES), HALF_BYTES);
	cr_assert_eq(compared(HALF_BYTES + BLOCK, BLOCK, 1 << 20), 1 << 20);
}

Test(store_compare, the_first_differing_byte_is_told_wherever_it_is)
{
	static const uint64_t places[] = {0,	 1,	BLOCK - 1, 65535,
					  65536, 65537, 1000000,   HALF_BYTES - 1};

	for (size_t i = sizeof(places) / sizeof(places[0]); i-- > 0;) {
		poke(HALF_BYTES + places[i], (uint8_t)~content[places[i]]);
		cr_assert_eq(compared(0, HALF_BYTES, HALF_BYTES), (int64_t)places[i]);
		if (places[i] < BLOCK)
			cr_assert_eq(compared(0, HALF_BYTES, BLOCK), (int64_t)places[i]);
	}
}

Test(store_compare, a_range_is_compared_with_zeros)
{
	cr_assert_eq(compared(BLOCK, STORE_ZEROS, 2 * BLOCK), 2 * BLOCK);
	poke(3 * BLOCK - 1, 7);
	cr_assert_eq(compared(BLOCK, STORE_ZEROS, 2 * BLOCK), 2 * BLOCK - 1);
	poke(BLOCK, 7);
	cr_assert_eq(compared(BLOCK, STORE_ZEROS, 2 * BLOCK), 0);
}

Test(store_compare, many_at_a_time_are_each_answered_once)
{
	static struct compare compares[MANY];

	poke(HALF_BYTES + 100, (uint8_t)~content[100]);
	for (unsigned i = 0; i < MANY; i++)
		start(&compares[i], i % 2 * 8192, HALF_BYTES + i % 2 * 8192, (1 + i % 64) * BLOCK);
	while (store->ops->in_flight(store, 0) > 0)
		store->ops->wait(store, 0);
	for (unsigned i = 0; i < MANY; i++) {
		cr_assert(compares[i].done);
		cr_assert_eq(compares[i].res, 0);
		cr_assert_eq(compares[i].io.equal_bytes, i % 2 ? (1 + i % 64) * BLOCK : 100);
	}
}

Test(store_compare, what_is_cut_off_the_file_is_eio_for_that_comparison_alone)
{
	cut_to(HALF_BYTES + (1 << 20));
	cr_assert_eq(compared(0, HALF_BYTES, 1 << 20), 1 << 20);
	cr_assert_eq(compared(0, HALF_BYTES, 2 << 20), -EIO);
	cr_assert_eq(compared(STORE_BYTES - BLOCK, HALF_BYTES - BLOCK, BLOCK), -EIO);
	cr_assert_eq(compared(STORE_BYTES - BLOCK, STORE_ZEROS, BLOCK), -EIO);
	cr_assert_eq(compared(0, HALF_BYTES, 64 << 10), 64 << 10, "again and again");
	cut_to(STORE_BYTES);
	cr_assert_eq(compared(STORE_BYTES - BLOCK, STORE_ZEROS, BLOCK), BLOCK);
}

/* The kernel said that it is in memory, and then it was cut off: compared at once, on the lane's
 * own thread. */
Test(store_compare, what_is_cut_off_while_it_is_believed_to_be_in_memory_is_eio)
{
	uint64_t last = STORE_BYTES - BLOCK;

	cr_assert_eq(compared(HALF_BYTES - BLOCK, last, BLOCK), BLOCK);
	cut_to((off_t)last);
	for (unsigned i = 0; i < 3; i++)
		cr_assert_eq(compared(HALF_BYTES - BLOCK, last, BLOCK), -EIO);
	cr_assert_eq(compared(0, HALF_BYTES, BLOCK), BLOCK);
}

/* Threads of this process with that name, so many steps nicer than the calling one; none of them
 * may be idle. */
static unsigned threads_named(const char *name, int nicer)
{
	DIR *tasks = opendir("/proc/self/task");
	struct dirent *entry;
	unsigned found = 0;

	cr_assert_not_null(tasks);
	while ((entry = readdir(tasks)) != NULL) {
		pid_t tid = atoi(entry->d_name);
		char comm_path[64], comm[32] = "";
		FILE *file;

		snprintf(comm_path, sizeof(comm_path), "/proc/self/task/%d/comm", tid);
		file = tid == 0 ? NULL : fopen(comm_path, "r");
		if (file == NULL)
			continue;
		if (fgets(comm, sizeof(comm), file) != NULL)
			comm[strcspn(comm, "\n")] = '\0';
		fclose(file);
		if (strcmp(comm, name) != 0)
			continue;
		cr_expect_neq(sched_getscheduler(tid), SCHED_IDLE, "%s is idle", name);
		found += getpriority(PRIO_PROCESS, (id_t)tid) ==
			 getpriority(PRIO_PROCESS, 0) + nicer;
	}
	closedir(tasks);
	return found;
}

/* One that may not run keeps what it holds; see the header. */
Test(store_compare, who_takes_locks_of_the_file_is_as_fast_as_anybody_and_nobody_is_idle)
{
	for (unsigned i = 0; i < 10000; i++) {
		if (threads_named("compare", 10) > 0 && threads_named("fetch", 0) > 0 &&
		    threads_named("urgent", 0) > 0)
			break;
		usleep(1000); /* they are about to set it */
	}
	cr_expect_eq(threads_named("fetch", 0), 1);
	cr_expect_eq(threads_named("urgent", 0), 1);
	cr_expect_geq(threads_named("compare", 10), 1, "who only looks at memory gives way");
}

/* Pages that are in the page table already: looking at them takes no lock of the file. */
Test(store_compare, what_is_compared_was_brought_in_before)
{
	unsigned char pages[4096];
	struct compare compare;

	cr_assert_eq(posix_fadvise(map.fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	start(&compare, 0, HALF_BYTES, HALF_BYTES);
	while (!compare.done)
		store->ops->wait(store, 0);
	cr_assert_eq(compare.io.equal_bytes, HALF_BYTES);
	cr_assert_eq(mincore(map.bytes, STORE_BYTES, pages), 0);
	for (unsigned i = 0; i < STORE_BYTES / BLOCK; i++)
		cr_assert(pages[i] & 1);
	cr_expect_geq(atomic_load(&map.areas_used), 2 * HALF_BYTES / STORE_MAP_AREA_BYTES);
}

Test(store_compare, an_urgent_one_passes_by_what_waits_for_the_disk)
{
	static struct compare compares[MANY];
	struct compare urgent = {.io = {.op = STORE_COMPARE,
					.urgent = true,
					.off_bytes = 0,
					.other_off_bytes = HALF_BYTES,
					.len_bytes = 2 << 20, /* more than is done at once */
					.done = compare_done}};
	unsigned before = 0;

	for (unsigned i = 0; i < MANY; i++)
		start(&compares[i], 0, HALF_BYTES, HALF_BYTES);
	store_submit(store, &urgent.io);
	while (!urgent.done)
		store->ops->wait(store, 0);
	cr_expect_eq(urgent.io.equal_bytes, 2 << 20);
	for (unsigned i = 0; i < MANY; i++)
		before += compares[i].done;
	cr_expect_lt(before, MANY / 2, "it came last and was answered before most: %u", before);
	while (store->ops->in_flight(store, 0) > 0)
		store->ops->wait(store, 0);
}

Test(store_compare, a_sigbus_from_elsewhere_still_kills, .signal = SIGBUS)
{
	cut_to(BLOCK);
	cr_assert_eq(compared(0, HALF_BYTES, BLOCK), -EIO);
	cr_assert_eq(*(volatile uint8_t *)(map.bytes + HALF_BYTES), 0);
}
