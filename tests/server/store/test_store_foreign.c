/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_store_foreign - a store transfers between its file and the buffers of its ring
 *
 * A driver fills the ring's table with pages of its clients; memory of this process stands for
 * them here, which the ring knows by address instead of by offset.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/store/store_file.h"
#include "server/store/store_file_internal.h"

#define STORE_BYTES (1u << 20)
#define BYTES	    (64u << 10)
#define BUFFERS	    8u
#define NUMBER	    5u
#define AT_BYTES    (128u << 10)

static char path[] = "/tmp/sameblk-test.XXXXXX";
static struct store *store;
static uint8_t *memory;
static int result;

static void setup(void)
{
	struct store_file_options options = {0};
	struct iovec iov;
	const char *message;
	struct ring *ring;
	int fd = mkstemp(path);

	cr_assert(fd >= 0 && ftruncate(fd, STORE_BYTES) == 0);
	close(fd);
	cr_assert_eq(store_file_open(path, &options, &store, &message), 0);
	cr_assert(store->reaches_foreign);
	cr_assert_eq(store->ops->take_lane(store, 0, &ring), 0);
	cr_assert_eq(ring_buffers(ring, BUFFERS), 0);
	memory = aligned_alloc(4096, BYTES);
	iov = (struct iovec){.iov_base = memory, .iov_len = BYTES};
	cr_assert_eq(io_uring_register_buffers_update_tag(&ring->uring, NUMBER, &iov, NULL, 1), 1);
}

static void teardown(void)
{
	store_close(store);
	free(memory);
	unlink(path);
}

TestSuite(store_foreign, .init = setup, .fini = teardown, .timeout = 60);

static void done(struct store_io *io, int res)
{
	(void)io;
	result = res;
}

static int transfer(enum store_op op, uint32_t foreign, uint64_t len_bytes, bool fua)
{
	struct store_io io = {
		.op = op,
		.fua = fua,
		.off_bytes = AT_BYTES,
		.len_bytes = len_bytes,
		.buf = memory,
		.foreign = foreign,
		.done = done,
	};

	result = 1;
	store_submit(store, &io);
	while (result == 1)
		store->ops->wait(store, 0);
	return result;
}

Test(store_foreign, a_buffer_of_the_ring_is_written_and_read)
{
	for (unsigned fua = 0; fua < 2; fua++) {
		memset(memory, 0x51 + (int)fua, BYTES);
		cr_assert_eq(transfer(STORE_WRITE, NUMBER + 1, BYTES, fua), 0);
		memset(memory, 0, BYTES);
		cr_assert_eq(transfer(STORE_READ, NUMBER + 1, BYTES, false), 0);
		for (unsigned i = 0; i < BYTES; i++)
			cr_assert_eq(memory[i], 0x51 + fua);
	}
}

/* And a flush that comes later is none the worse for it. */
Test(store_foreign, memory_that_the_ring_refuses_is_asked_for_as_bytes)
{
	cr_assert_eq(transfer(STORE_WRITE, NUMBER, BYTES, true), STORE_NEEDS_BYTES, "not there");
	cr_assert_eq(transfer(STORE_READ, NUMBER + 1, 2 * BYTES, false), STORE_NEEDS_BYTES,
		     "longer than the buffer");
	cr_assert_eq(transfer(STORE_FLUSH, 0, 0, false), 0);
	cr_assert_eq(transfer(STORE_WRITE, 0, BYTES, true), 0);
}
