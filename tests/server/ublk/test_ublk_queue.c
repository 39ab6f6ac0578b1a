/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_ublk_queue - a queue on a loop, with a kernel that takes none of its commands; and
 * operations that only end with their ring
 *
 * What a real driver does with a queue is tested in a virtual machine (tests/vm).
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "server/loop/loop.h"
#include "server/store/store_file.h"
#include "server/ublk/driver/ublk_abi.h"
#include "server/ublk/ublk_queue.h"

#define STORE_BYTES (1u << 20)
#define DEPTH	    8u

static char path[64];
static struct store *store;

static void setup(void)
{
	struct store_file_options options = {.create_bytes = STORE_BYTES};
	const char *message;

	snprintf(path, sizeof(path), "/tmp/sameblk-test.%d", getpid());
	cr_assert_eq(store_file_open(path, &options, &store, &message), 0);
}

static void teardown(void)
{
	store_close(store);
	unlink(path);
}

TestSuite(ublk_queue, .init = setup, .fini = teardown, .timeout = 30);

static void wait_until_ended(struct ublk_queues *shared)
{
	const struct timespec pause = {.tv_nsec = 1000000};

	while (atomic_load(&shared->running) > 0)
		nanosleep(&pause, NULL);
}

/* A regular file stands for the driver: it can be mapped, and knows no commands. */
Test(ublk_queue, a_queue_whose_commands_are_refused_says_so_and_ends)
{
	struct ublk_queues shared = {
		.fd = store_file_fd(store),
		.shape = {.io_bytes_max = 65536, .size_bytes = STORE_BYTES, .sector_bytes = 512},
	};
	static struct loop loop;
	static struct ublk_queue queue;

	cr_assert_eq(loop_init(&loop, store, 0, 1 << 20), 0);
	cr_assert_eq(ublk_queue_init(&queue, &shared, &loop, 0, DEPTH), 0);
	cr_assert_eq(loop_start(&loop), 0);
	ublk_queue_start(&queue);
	wait_until_ended(&shared);
	cr_assert(atomic_load(&shared.refused));
	loop_stop(&loop);
	loop_join(&loop);
	cr_assert_eq(queue.fetching, 0);
	ublk_queue_done(&queue);
	loop_done(&loop);
}

static int wakes;

static void count_wake(void *context)
{
	(void)context;
	wakes++;
}

/* How a command of a queue ends, where no ring has any. */
static void end_command(struct ublk_queues *shared, bool live, bool stopping, int res)
{
	static struct loop loop;
	static struct ublk_queue queue;
	struct ring ring = {.parked = 1};

	*shared = (struct ublk_queues){
		.fd = store_file_fd(store),
		.shape = {.io_bytes_max = 65536, .size_bytes = STORE_BYTES, .sector_bytes = 512},
		.wake = count_wake,
	};
	cr_assert_eq(loop_init(&loop, store, 0, 1 << 20), 0);
	cr_assert_eq(ublk_queue_init(&queue, shared, &loop, 0, DEPTH), 0);
	loop.ring = &ring;
	queue.fetching = 1;
	wakes = 0;
	atomic_store(&shared->live, live);
	atomic_store(&shared->stopping, stopping);
	queue.tags[0].op.done(&queue.tags[0].op, res, 0);
	ublk_queue_done(&queue);
	loop_done(&loop);
}

/* Or START_DEV, which waits for all fetches, would be waited for until its time is up. */
Test(ublk_queue, a_device_that_goes_before_it_is_live_ends_the_wait_for_it)
{
	struct ublk_queues shared;

	end_command(&shared, true, true, UBLK_RES_GONE);
	cr_assert(!atomic_load(&shared.refused));
	end_command(&shared, false, false, UBLK_RES_GONE);
	cr_assert(atomic_load(&shared.refused));
}

Test(ublk_queue, a_device_that_goes_unasked_is_told_to_the_main_thread)
{
	struct ublk_queues shared;

	end_command(&shared, true, false, UBLK_RES_GONE);
	cr_assert(atomic_load(&shared.lost));
	cr_assert_eq(wakes, 1);
	end_command(&shared, true, true, UBLK_RES_GONE);
	cr_assert(!atomic_load(&shared.lost), "we asked for that");
	cr_assert_eq(wakes, 0);
}

/* The request that it was to answer would hang for ever: the next server is asked for it again. */
Test(ublk_queue, an_answer_that_is_refused_is_told_to_the_main_thread)
{
	struct ublk_queues shared;

	end_command(&shared, true, true, -EINVAL);
	cr_assert(atomic_load(&shared.lost));
	cr_assert(atomic_load(&shared.refused));
	cr_assert_eq(wakes, 1);
}

static _Atomic bool passed;

static void pass(struct task *task)
{
	(void)task;
	atomic_store(&passed, true);
}

/* A take-over that fails early leaves with queues that it has not started. */
Test(ublk_queue, a_queue_that_was_never_started_can_be_left)
{
	const struct timespec pause = {.tv_nsec = 1000000};
	struct ublk_queues shared = {
		.fd = store_file_fd(store),
		.shape = {.io_bytes_max = 65536, .size_bytes = STORE_BYTES, .sector_bytes = 512},
	};
	static struct loop loop;
	static struct ublk_queue queue;
	static struct task task = {.worker = &loop.worker, .run = pass};

	cr_assert_eq(loop_init(&loop, store, 0, 1 << 20), 0);
	cr_assert_eq(ublk_queue_init(&queue, &shared, &loop, 0, DEPTH), 0);
	cr_assert_eq(loop_start(&loop), 0);
	ublk_queue_leave(&queue);
	worker_post(&task);
	while (!atomic_load(&passed))
		nanosleep(&pause, NULL);
	cr_assert_eq(atomic_load(&shared.running), 0);
	loop_stop(&loop);
	loop_join(&loop);
	cr_assert_eq(loop.busy, 0);
	ublk_queue_done(&queue);
	loop_done(&loop);
}

Test(ublk_queue, a_queue_that_cannot_be_mapped_leaves_nothing_behind)
{
	struct ublk_queues shared = {.fd = -1, .shape = {.io_bytes_max = 65536}};
	static struct loop loop;
	static struct ublk_queue queue;

	cr_assert_eq(loop_init(&loop, store, 0, 1 << 20), 0);
	cr_assert_eq(ublk_queue_init(&queue, &shared, &loop, 0, DEPTH), -EBADF);
	cr_assert_null(queue.tags);
	cr_assert_null(queue.buffers);
	loop_done(&loop);
}

static bool is_all_there(uint8_t *memory, size_t bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = (bytes + page - 1) / page;
	unsigned char *there = calloc(pages, 1);
	bool all = there != NULL && mincore(memory, bytes, there) == 0;

	for (size_t i = 0; all && i < pages; i++)
		all = there[i] & 1;
	free(there);
	return all;
}

/* As ublk_process_prepare() locks it: then to ask for memory that is there at once gives none. */
Test(ublk_queue, buffers_are_there_from_the_start_in_a_process_whose_memory_is_locked)
{
	struct ublk_queues shared = {
		.fd = store_file_fd(store),
		.shape = {.io_bytes_max = 8192, .size_bytes = STORE_BYTES, .sector_bytes = 512},
	};
	static struct loop loop;
	static struct ublk_queue queue;

	cr_assert_eq(loop_init(&loop, store, 0, 1 << 20), 0);
	if (mlockall(MCL_FUTURE | MCL_ONFAULT) < 0)
		cr_skip_test("no memory may be locked here");
	cr_assert_eq(ublk_queue_init(&queue, &shared, &loop, 0, 1), 0);
	cr_assert(is_all_there(queue.buffers, queue.buffers_bytes));
	cr_assert_eq(munlockall(), 0);
	ublk_queue_done(&queue);
	loop_done(&loop);
}

static void never(struct ring_op *op, int res, uint32_t flags)
{
	(void)op, (void)res, (void)flags;
	cr_assert_fail("a parked operation has no end");
}

static int done_count;

static void count_done(struct ring_op *op, int res, uint32_t flags)
{
	(void)op, (void)res, (void)flags;
	done_count++;
}

Test(ublk_queue, a_ring_settles_although_parked_operations_never_end)
{
	struct ring_op parked = {.done = never}, other = {.done = count_done};
	struct io_uring_sqe *sqe;
	struct ring ring;
	int ends[2];

	cr_assert_eq(pipe(ends), 0);
	cr_assert_eq(ring_init(&ring), 0);
	sqe = ring_sqe(&ring);
	io_uring_prep_poll_add(sqe, ends[0], POLLIN);
	ring_tag(&ring, sqe, &parked);
	ring.parked++;
	sqe = ring_sqe(&ring);
	io_uring_prep_nop(sqe);
	ring_tag(&ring, sqe, &other);
	cr_assert_eq(ring_settle(&ring), 0);
	cr_assert_eq(done_count, 1);
	cr_assert_eq(ring.in_flight, 0);
	cr_assert_eq(ring.parked, 0);
	ring_done(&ring);
	close(ends[0]);
	close(ends[1]);
}
