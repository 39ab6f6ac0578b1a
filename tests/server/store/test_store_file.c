/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_store_file - a store in a file does what core/base/store.h asks of a store
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "server/store/store_file.h"
#include "server/store/store_file_internal.h"
#include "server/store/store_open.h"

#define STORE_BYTES (8u * 1024 * 1024)
#define MANY	    1000u

static char folder[] = "/tmp/sameblk-test.XXXXXX";
static char path[128];
static const char *message;

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

TestSuite(store_file, .init = setup, .fini = teardown, .timeout = 60);

static struct store *open_with(struct store_file_options options)
{
	struct store *store = NULL;

	options.create_bytes = options.read_only ? 0 : STORE_BYTES;
	cr_assert_eq(store_file_open(path, &options, &store, &message), 0, "%s", message);
	return store;
}

struct sync_io {
	struct store_io io;
	bool inside_submit;
	bool done;
	int res;
};

static void sync_done(struct store_io *io, int res)
{
	struct sync_io *sync = (struct sync_io *)io;

	cr_assert_not(sync->inside_submit);
	cr_assert_not(sync->done);
	sync->done = true;
	sync->res = res;
}

static void start(struct store *store, struct sync_io *sync, enum store_op op, uint64_t off,
		  void *buf, uint64_t len)
{
	sync->io.op = op;
	sync->io.off_bytes = off;
	sync->io.len_bytes = len;
	sync->io.buf = buf;
	sync->io.done = sync_done;
	sync->inside_submit = true;
	store_submit(store, &sync->io);
	sync->inside_submit = false;
}

static int run_io(struct store *store, bool fua, enum store_op op, uint64_t off, void *buf,
		  uint64_t len)
{
	struct sync_io sync = {.io = {.fua = fua}};

	start(store, &sync, op, off, buf, len);
	while (!sync.done)
		store->ops->wait(store, 0);
	cr_assert_eq(store->ops->in_flight(store, 0), 0);
	return sync.res;
}

static uint8_t *noise(size_t len, unsigned seed)
{
	uint8_t *bytes = aligned_alloc(4096, (len + 4095) / 4096 * 4096);

	srand(seed);
	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)rand();
	return bytes;
}

static void expect_in_file(uint64_t off, const uint8_t *bytes, size_t len)
{
	uint8_t *found = malloc(len);
	int fd = open(path, O_RDONLY);

	cr_assert_eq(pread(fd, found, len, (off_t)off), (ssize_t)len);
	cr_assert_eq(memcmp(found, bytes, len), 0);
	close(fd);
	free(found);
}

Test(store_file, what_is_written_is_in_the_file_and_is_read_back)
{
	struct store *store = open_with((struct store_file_options){.read_only = false});
	uint8_t *bytes = noise(1 << 20, 1), *back = noise(1 << 20, 2);

	cr_assert_eq(store->size_bytes, STORE_BYTES);
	cr_assert_eq(store->sector_bytes, 512);
	cr_assert_eq(run_io(store, false, STORE_WRITE, 12345 * 512, bytes, 1 << 20), 0);
	cr_assert_eq(run_io(store, false, STORE_FLUSH, 0, NULL, 0), 0);
	cr_assert_eq(run_io(store, true, STORE_WRITE, 0, bytes, 4096), 0);
	cr_assert_eq(run_io(store, false, STORE_READ, 12345 * 512, back, 1 << 20), 0);
	cr_assert_eq(memcmp(bytes, back, 1 << 20), 0);
	expect_in_file(12345 * 512, bytes, 1 << 20);
	expect_in_file(0, bytes, 4096);
	store_close(store);
	free(bytes);
	free(back);
}

#define OTHER_BYTES (64u << 20)

struct other_writer {
	pthread_t thread;
	_Atomic bool stop;
};

/* One long write after the other into the same file: who else writes waits for the end of one. */
static void *write_on(void *argument)
{
	struct other_writer *other = argument;
	uint8_t *bytes = calloc(1, OTHER_BYTES);
	int fd = open(path, O_WRONLY);

	while (!atomic_load(&other->stop))
		if (pwrite(fd, bytes, OTHER_BYTES, STORE_BYTES) < 0)
			break;
	close(fd);
	free(bytes);
	return NULL;
}

static int64_t clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Writes until so many took long, or something must be wrong. */
static unsigned count_stalls(struct store *store, uint8_t *bytes, unsigned enough)
{
	int64_t end_ns = clock_ns() + 20 * 1000000000ll;
	unsigned stalls = 0;

	while (stalls < enough && clock_ns() < end_ns) {
		int64_t begin_ns = clock_ns();

		cr_assert_eq(run_io(store, false, STORE_WRITE, 0, bytes, 4096), 0);
		stalls += clock_ns() - begin_ns > 6000000;
	}
	return stalls;
}

/* Goal: the ring would wait for the same, and costs every write a thread's turn. */
Test(store_file, writes_are_left_to_the_ring_after_a_stall_unless_a_discard_is_its_reason)
{
	struct store *store = open_with((struct store_file_options){.lanes = 1});
	struct store_file *file = (struct store_file *)store;
	struct other_writer other = {.stop = false};
	uint8_t *bytes = noise(4096, 7);

	cr_assert_eq(pthread_create(&other.thread, NULL, write_on, &other), 0);
	atomic_store(&file->discarding, 1);
	cr_assert_eq(count_stalls(store, bytes, 3), 3);
	cr_assert_eq(file->lanes[0].write_now_after_ns, 0);
	atomic_store(&file->discarding, 0);
	/* A stall that we see may have been outside of the write, on a busy machine. */
	for (unsigned i = 0; i < 20 && file->lanes[0].write_now_after_ns == 0; i++)
		cr_assert_gt(count_stalls(store, bytes, 1), 0);
	cr_assert_neq(file->lanes[0].write_now_after_ns, 0);
	atomic_store(&other.stop, true);
	pthread_join(other.thread, NULL);
	store_close(store);
	free(bytes);
}

/* Each of them in several pieces, with pauses because of the writes. */
Test(store_file, discards_beside_writes_all_end_and_discard_what_they_name)
{
	struct store *store = open_with((struct store_file_options){.read_only = false});
	uint8_t *bytes = noise(STORE_BYTES, 1), *zeros = calloc(1, 3 << 20);
	struct sync_io discards[2] = {0}, writes[16] = {0};

	cr_assert_eq(run_io(store, false, STORE_WRITE, 0, bytes, STORE_BYTES), 0);
	start(store, &discards[0], STORE_DISCARD, 4096, NULL, 3 << 20);
	start(store, &discards[1], STORE_DISCARD, 4 << 20, NULL, 3 << 20);
	for (unsigned i = 0; i < 16; i++) {
		start(store, &writes[i], STORE_WRITE, (7 << 20) + i * 4096, bytes + i * 4096, 4096);
		store->ops->wait(store, 0);
	}
	while (store->ops->in_flight(store, 0) > 0)
		store->ops->wait(store, 0);
	cr_assert(discards[0].done && discards[0].res == 0);
	cr_assert(discards[1].done && discards[1].res == 0);
	expect_in_file(0, bytes, 4096);
	expect_in_file(4096, zeros, 3 << 20);
	expect_in_file(4096 + (3 << 20), bytes + 4096 + (3 << 20), (1 << 20) - 4096);
	expect_in_file(4 << 20, zeros, 3 << 20);
	expect_in_file(7 << 20, bytes, 16 * 4096);
	store_close(store);
	free(bytes);
	free(zeros);
}

Test(store_file, a_discard_is_not_begun_while_somebody_reads_ahead)
{
	struct store *store = open_with((struct store_file_options){.read_only = false});
	struct store_file *file = (struct store_file *)store;
	uint8_t *bytes = noise(STORE_BYTES, 1), *zeros = calloc(1, 1 << 20);
	struct sync_io discard = {0};

	cr_assert_eq(run_io(store, false, STORE_WRITE, 0, bytes, STORE_BYTES), 0);
	store_gate_enter(&file->gate);
	start(store, &discard, STORE_DISCARD, 0, NULL, 1 << 20);
	for (unsigned i = 0; i < 20; i++) { /* its own tries among them */
		cr_assert_geq(ring_turn(&file->lanes[0].ring, false), 0);
		usleep(1000);
	}
	cr_expect_not(discard.done);
	expect_in_file(0, bytes, 1 << 20);
	store_gate_leave(&file->gate);
	while (!discard.done)
		store->ops->wait(store, 0);
	cr_expect_eq(discard.res, 0);
	expect_in_file(0, zeros, 1 << 20);
	store_close(store);
	free(bytes);
	free(zeros);
}

/* Every system call transfers an odd part of what is wanted, as a short transfer does. */
Test(store_file, short_transfers_are_finished)
{
	struct store *store = open_with((struct store_file_options){.piece_bytes = 1013});
	uint8_t *bytes = noise(300000, 3), *back = noise(300000, 4);

	cr_assert_eq(run_io(store, true, STORE_WRITE, 512, bytes, 300000), 0);
	expect_in_file(512, bytes, 300000);
	cr_assert_eq(run_io(store, false, STORE_READ, 512, back, 300000), 0);
	cr_assert_eq(memcmp(bytes, back, 300000), 0);
	store_close(store);
	free(bytes);
	free(back);
}

/* The kernel writes up to the limit and says so; the rest fails. */
Test(store_file, an_error_behind_a_short_write_is_an_error)
{
	struct store *store = open_with((struct store_file_options){.read_only = false});
	struct rlimit limit = {.rlim_cur = 1 << 20, .rlim_max = RLIM_INFINITY};
	uint8_t *bytes = noise(8192, 5);

	signal(SIGXFSZ, SIG_IGN);
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	cr_assert_eq(run_io(store, false, STORE_WRITE, (1 << 20) - 4096, bytes, 8192), -EFBIG);
	expect_in_file((1 << 20) - 4096, bytes, 4096);
	cr_assert_eq(run_io(store, false, STORE_FLUSH, 0, NULL, 0), 0);
	store_close(store);
	free(bytes);
}

Test(store_file, a_file_that_became_shorter_is_an_error_not_zeros)
{
	struct store *store = open_with((struct store_file_options){.read_only = false});
	uint8_t *bytes = noise(8192, 6);

	cr_assert_eq(truncate(path, 4096), 0);
	cr_assert_eq(run_io(store, false, STORE_READ, 0, bytes, 4096), 0);
	cr_assert_eq(run_io(store, false, STORE_READ, 0, bytes, 8192), -EIO);
	cr_assert_eq(run_io(store, false, STORE_READ, 8192, bytes, 4096), -EIO);
	store_close(store);
	free(bytes);
}

/* More than the kernel gets at a time, and more than a submission queue holds. */
Test(store_file, any_number_of_operations_is_done_once_each)
{
	struct store *store = open_with((struct store_file_options){.read_only = false});
	struct sync_io *ios = calloc(MANY, sizeof(*ios));
	uint8_t *bytes = noise(MANY * 512, 7);
	unsigned left = 1;

	for (unsigned i = 0; i < MANY; i++)
		start(store, &ios[i], STORE_WRITE, (uint64_t)i * 4096, bytes + (size_t)i * 512,
		      512);
	cr_assert_eq(store->ops->in_flight(store, 0), MANY);
	while (left > 0) {
		store->ops->wait(store, 0);
		left = 0;
		for (unsigned i = 0; i < MANY; i++)
			left += !ios[i].done;
	}
	for (unsigned i = 0; i < MANY; i++) {
		cr_assert_eq(ios[i].res, 0);
		expect_in_file((uint64_t)i * 4096, bytes + (size_t)i * 512, 512);
	}
	store_close(store);
	free(ios);
	free(bytes);
}

Test(store_file, a_discarded_range_gives_its_space_back)
{
	struct store *store = open_with((struct store_file_options){.read_only = false});
	uint8_t *bytes = noise(4 << 20, 8);
	struct stat before, after;

	if (!store->can_discard)
		cr_skip_test("this filesystem punches no holes");
	cr_assert_eq(run_io(store, false, STORE_WRITE, 0, bytes, 4 << 20), 0);
	cr_assert_eq(run_io(store, false, STORE_FLUSH, 0, NULL, 0), 0);
	cr_assert_eq(stat(path, &before), 0);
	cr_assert_eq(run_io(store, false, STORE_DISCARD, 1 << 20, NULL, 2 << 20), 0);
	cr_assert_eq(stat(path, &after), 0);
	cr_assert_leq(after.st_blocks, before.st_blocks - 4096);
	cr_assert_eq(after.st_size, before.st_size);
	expect_in_file(0, bytes, 1 << 20);
	expect_in_file(3 << 20, bytes + (3 << 20), 1 << 20);
	store_close(store);
	free(bytes);
}

/* The descriptor becomes a pipe for a moment: flushing one fails, as a flush does after a lost
 * write. The kernel tells once; the store has to remember. */
Test(store_file, once_a_flush_failed_every_later_one_fails)
{
	struct store *store = open_with((struct store_file_options){.read_only = false});
	struct store_file *file = (struct store_file *)store;
	uint8_t *bytes = noise(4096, 9);
	int ends[2], real = dup(file->fd), first;

	cr_assert_eq(run_io(store, false, STORE_FLUSH, 0, NULL, 0), 0);
	cr_assert_eq(pipe(ends), 0);
	cr_assert_eq(dup2(ends[0], file->fd), file->fd);
	first = run_io(store, false, STORE_FLUSH, 0, NULL, 0);
	cr_assert_lt(first, 0);
	cr_assert_eq(dup2(real, file->fd), file->fd);
	cr_assert_eq(run_io(store, false, STORE_FLUSH, 0, NULL, 0), first);
	cr_assert_eq(run_io(store, true, STORE_WRITE, 0, bytes, 4096), first);
	cr_assert_eq(run_io(store, false, STORE_WRITE, 0, bytes, 4096), 0);
	cr_assert_eq(run_io(store, false, STORE_READ, 0, bytes, 4096), 0);
	store_close(store);
	free(bytes);
}

/* --- the lock --- */

/* A process that has the store open until its pipe is closed. */
static pid_t hold(bool read_only, int *ret_release_fd)
{
	int ready[2], release[2];
	char byte;
	pid_t pid;

	cr_assert_eq(pipe(ready), 0);
	cr_assert_eq(pipe(release), 0);
	pid = fork();
	if (pid == 0) {
		struct store_file_options options = {.read_only = read_only};
		struct store *store;

		close(release[1]);
		if (store_file_open(path, &options, &store, &message) < 0 ||
		    write(ready[1], "x", 1) != 1)
			_exit(1);
		_exit(read(release[0], &byte, 1) != 0);
	}
	close(ready[1]);
	close(release[0]);
	cr_assert_eq(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	*ret_release_fd = release[1];
	return pid;
}

static int try_open(bool read_only, unsigned wait_ms)
{
	struct store_file_options options = {.read_only = read_only, .wait_ms = wait_ms};
	struct store *store = NULL;
	int r = store_file_open(path, &options, &store, &message);

	store_close(store);
	return r;
}

Test(store_file, a_store_in_use_is_refused_and_its_user_named)
{
	char number[32];
	int release;
	pid_t pid;

	store_close(open_with((struct store_file_options){.read_only = false}));
	pid = hold(false, &release);
	snprintf(number, sizeof(number), "process %d", (int)pid);
	cr_assert_eq(try_open(false, 50), -EWOULDBLOCK);
	cr_assert_not_null(strstr(message, number), "%s", message);
	cr_assert_not_null(strstr(message, path), "%s", message);
	cr_assert_eq(try_open(true, 0), -EWOULDBLOCK);
	close(release);
	cr_assert_eq(waitpid(pid, NULL, 0), pid);
	cr_assert_eq(try_open(false, 0), 0);
}

Test(store_file, readers_share_and_keep_writers_out)
{
	int release;
	pid_t pid;

	store_close(open_with((struct store_file_options){.read_only = false}));
	pid = hold(true, &release);
	cr_assert_eq(try_open(true, 0), 0);
	cr_assert_eq(try_open(false, 0), -EWOULDBLOCK);
	close(release);
	cr_assert_eq(waitpid(pid, NULL, 0), pid);
}

/* A killed server's last I/O may hold the lock for a moment. */
Test(store_file, the_lock_is_waited_for)
{
	const struct timespec moment = {.tv_nsec = 300000000};
	int release;
	pid_t pid, killer;

	store_close(open_with((struct store_file_options){.read_only = false}));
	pid = hold(false, &release);
	killer = fork();
	if (killer == 0) {
		nanosleep(&moment, NULL);
		_exit(kill(pid, SIGKILL) != 0);
	}
	cr_assert_eq(try_open(false, STORE_WAIT_MS), 0);
	cr_assert_eq(waitpid(killer, NULL, 0), killer);
	cr_assert_eq(waitpid(pid, NULL, 0), pid);
	close(release);
}

/* --- opening --- */

Test(store_file, only_a_missing_or_empty_file_gets_a_size)
{
	struct store_file_options options = {.create_bytes = 1 << 20};
	struct store *store = NULL;
	struct stat st;

	cr_assert_eq(store_file_open(path, &options, &store, &message), 0);
	cr_assert(store_file_created(store));
	cr_assert_eq(store->size_bytes, 1 << 20);
	store_close(store);
	cr_assert_eq(stat(path, &st), 0);
	cr_assert_eq(st.st_size, 1 << 20);
	cr_assert_eq(st.st_blocks, 0);
	cr_assert_eq(st.st_mode & 0777, 0600);
	options.create_bytes = 4 << 20;
	cr_assert_eq(store_file_open(path, &options, &store, &message), 0);
	cr_assert_not(store_file_created(store));
	cr_assert_eq(store->size_bytes, 1 << 20);
	store_close(store);
	cr_assert_eq(truncate(path, 0), 0);
	cr_assert_eq(store_file_open(path, &options, &store, &message), 0);
	cr_assert_eq(store->size_bytes, 4 << 20);
	store_close(store);
}

Test(store_file, what_cannot_be_a_store_is_refused_with_its_name)
{
	struct store_file_options options = {.read_only = true};
	struct store *store = NULL;

	cr_assert_eq(store_file_open(path, &options, &store, &message), -ENOENT);
	cr_assert_not_null(strstr(message, path));
	cr_assert_eq(store_file_open(folder, &options, &store, &message), -EISDIR);
	cr_assert_not_null(strstr(message, folder));
	cr_assert_eq(store_file_open("/dev/null", &options, &store, &message), -EINVAL);
	cr_assert_null(store);
	/* A file that cannot be made long enough is not left behind. */
	options = (struct store_file_options){.create_bytes = 1ull << 62};
	cr_assert_lt(store_file_open(path, &options, &store, &message), 0);
	cr_assert_lt(access(path, F_OK), 0);
}

/* --- lanes and direct I/O --- */

static void *use_lane(void *argument)
{
	struct store *store = argument;
	uint8_t *bytes = noise(4096, 10);

	for (unsigned i = 0; i < 100; i++)
		cr_assert_eq(run_io(store, false, STORE_WRITE, i * 4096, bytes, 4096), 0);
	free(bytes);
	return NULL;
}

Test(store_file, an_idle_lane_goes_from_thread_to_thread)
{
	struct store *store = open_with((struct store_file_options){.lanes = 2});
	pthread_t thread;

	use_lane(store);
	for (unsigned i = 0; i < 3; i++) {
		cr_assert_eq(pthread_create(&thread, NULL, use_lane, store), 0);
		cr_assert_eq(pthread_join(thread, NULL), 0);
	}
	use_lane(store);
	store_close(store);
}

Test(store_file, direct_io_takes_memory_of_any_alignment)
{
	struct store_file_options options = {.direct = true, .create_bytes = STORE_BYTES};
	uint8_t *bytes = noise((3 << 20) + 4096, 11), *back = noise((3 << 20) + 4096, 12);
	uint8_t *more = noise(8192, 13);
	struct store *store;

	if (store_file_open(path, &options, &store, &message) < 0)
		cr_skip_test("no direct I/O here: %s", message);
	for (unsigned shift = 0; shift < 3; shift++) {
		/* Two at once: there is one bounce buffer. */
		struct sync_io ios[2] = {{.res = 0}, {.res = 0}};

		cr_assert_eq(run_io(store, true, STORE_WRITE, 4096, bytes + shift, 3 << 20), 0);
		start(store, &ios[0], STORE_READ, 4096, back + 2 * shift, 3 << 20);
		start(store, &ios[1], STORE_READ, 8192, more + 1, 4096);
		while (!ios[0].done || !ios[1].done)
			store->ops->wait(store, 0);
		cr_assert_eq(ios[0].res, 0);
		cr_assert_eq(ios[1].res, 0);
		cr_assert_eq(memcmp(bytes + shift, back + 2 * shift, 3 << 20), 0);
		cr_assert_eq(memcmp(bytes + shift + 4096, more + 1, 4096), 0);
	}
	store_close(store);
	free(bytes);
	free(back);
	free(more);
}
