/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_ublk_payload - where a request's bytes lie, with a file that stands for /dev/ublkcN
 *
 * What the driver itself does is tested in a virtual machine (tests/vm).
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/units.h"
#include "server/ublk/ublk_payload.h"

#define BYTES	   (64u << 10)
#define FEW_BYTES  4096u
#define QUEUE	   3u
#define TAG	   17u
#define NUMBER	   40u
#define REGISTERED 0u

static char path[] = "/tmp/sameblk-test.XXXXXX";
static uint8_t buffer[BYTES], driver[BYTES];
static struct ublk_payload payload;

static void setup(void)
{
	int fd = mkstemp(path);

	cr_assert(fd >= 0);
	payload = (struct ublk_payload){
		.fd = fd,
		.off_bytes = ublk_payload_off_bytes(QUEUE, TAG),
		.number = NUMBER,
		.buffer = buffer,
	};
	memset(driver, 0xdd, sizeof(driver));
	memset(buffer, 0xbb, sizeof(buffer));
	cr_assert_eq(pwrite(fd, driver, BYTES, (off_t)payload.off_bytes), (ssize_t)BYTES);
}

static void teardown(void)
{
	close(payload.fd);
	unlink(path);
}

TestSuite(ublk_payload, .init = setup, .fini = teardown);

static struct request described(enum request_op op, uint64_t len_bytes)
{
	return (struct request){.op = op, .len_bytes = len_bytes};
}

static bool driver_has(uint8_t byte, uint64_t len_bytes)
{
	cr_assert_eq(pread(payload.fd, driver, BYTES, (off_t)payload.off_bytes), (ssize_t)BYTES);
	for (uint64_t i = 0; i < len_bytes; i++)
		if (driver[i] != byte)
			return false;
	return true;
}

/* As the kernel's ublk_cmd.h counts: 25 bits of bytes, 16 of tags, 12 of queues, from 2 GiB on. */
Test(ublk_payload, each_tag_has_a_place_of_its_own_in_the_device)
{
	cr_assert_eq(ublk_payload_off_bytes(0, 0), 0x80000000ull);
	cr_assert_eq(ublk_payload_off_bytes(0, 1), 0x80000000ull + (1ull << 25));
	cr_assert_eq(ublk_payload_off_bytes(1, 0), 0x80000000ull + (1ull << 41));
}

Test(ublk_payload, a_fetch_names_the_buffer_and_wants_the_request_in_any_case)
{
	cr_assert_eq(ublk_payload_register(&payload), NUMBER | 1u << 16);
}

Test(ublk_payload, no_more_tags_than_a_ring_has_buffers)
{
	cr_assert(ublk_payload_fits(4, 1, 4096));
	cr_assert_not(ublk_payload_fits(5, 1, 4096));
	cr_assert(ublk_payload_fits(5, 2, 4096));
}

/* Of queues and loops of any number: each tag has a buffer, no two of one loop the same, and the
 * loop's first queue makes a table that holds them all. */
Test(ublk_payload, queues_of_one_loop_share_one_table)
{
	const unsigned depth = 3;

	for (unsigned queues = 1; queues <= 7; queues++) {
		for (unsigned loops = 1; loops <= 8; loops++) {
			unsigned made[8] = {0}, used[8] = {0};

			for (unsigned i = 0; i < queues; i++) {
				struct ublk_table table =
					ublk_payload_table(i, queues, loops, depth);

				cr_assert_eq(table.buffers > 0, i < loops);
				made[i % loops] += table.buffers;
				cr_assert_eq(table.first, used[i % loops]);
				used[i % loops] += depth;
			}
			for (unsigned i = 0; i < loops; i++)
				cr_assert_eq(made[i], used[i], "%u queues, %u loops", queues,
					     loops);
		}
	}
}

Test(ublk_payload, a_long_request_goes_straight)
{
	enum request_op ops[] = {REQUEST_READ, REQUEST_WRITE};

	for (unsigned i = 0; i < 2; i++) {
		struct request request = described(ops[i], BYTES);

		cr_assert_eq(
			ublk_payload_begin(&payload, &request, REGISTERED, &ublk_straight_cached),
			0);
		cr_assert_eq(request.foreign, NUMBER + 1);
		cr_assert_null(request.data);
		cr_assert_eq(ublk_payload_end(&payload, &request, 0), 0);
	}
	cr_assert(driver_has(0xdd, BYTES), "nothing was carried anywhere");
	cr_assert_eq(buffer[0], 0xbb);
}

Test(ublk_payload, a_short_read_goes_straight_and_past_the_page_cache_a_short_write_too)
{
	struct request read = described(REQUEST_READ, FEW_BYTES);
	struct request write = described(REQUEST_WRITE, FEW_BYTES);

	cr_assert_eq(ublk_payload_begin(&payload, &read, REGISTERED, &ublk_straight_cached), 0);
	cr_assert_eq(read.foreign, NUMBER + 1);
	cr_assert_eq(ublk_payload_begin(&payload, &write, REGISTERED, &ublk_straight_direct), 0);
	cr_assert_eq(write.foreign, NUMBER + 1);
	cr_assert_eq(ublk_payload_begin(&payload, &read, REGISTERED, &ublk_straight_never), 0);
	cr_assert_eq(read.foreign, 0);
}

Test(ublk_payload, the_bytes_of_other_writes_are_brought_first)
{
	const struct {
		uint64_t len_bytes;
		uint32_t flags;
		const struct ublk_straight *straight;
	} others[] = {
		{FEW_BYTES, REGISTERED, &ublk_straight_cached},
		{BYTES, UBLK_IO_F_NOT_REGISTERED, &ublk_straight_direct},
		{BYTES, REGISTERED, &ublk_straight_never},
	};

	for (unsigned i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		struct request request = described(REQUEST_WRITE, others[i].len_bytes);

		memset(buffer, 0xbb, sizeof(buffer));
		cr_assert_eq(
			ublk_payload_begin(&payload, &request, others[i].flags, others[i].straight),
			0);
		cr_assert_eq(request.foreign, 0);
		cr_assert_eq(request.data, buffer);
		cr_assert_eq(buffer[others[i].len_bytes - 1], 0xdd);
	}
}

Test(ublk_payload, what_was_read_into_the_buffer_is_carried_back)
{
	struct request request = described(REQUEST_READ, BYTES);

	cr_assert_eq(ublk_payload_begin(&payload, &request, REGISTERED, &ublk_straight_cached), 0);
	/* A hole: the engine asks for memory of this process. */
	cr_assert_eq(ublk_payload_bring(&payload, &request), 0);
	request.foreign = 0;
	cr_assert_eq(request.data, buffer);
	memset(buffer, 0x55, BYTES);
	cr_assert_eq(ublk_payload_end(&payload, &request, -EIO), -EIO);
	cr_assert(driver_has(0xdd, BYTES), "not of a read that failed");
	cr_assert_eq(ublk_payload_end(&payload, &request, 0), 0);
	cr_assert(driver_has(0x55, BYTES));
}

Test(ublk_payload, bytes_that_the_driver_does_not_give_or_take_are_an_error)
{
	struct request write = described(REQUEST_WRITE, FEW_BYTES);
	struct request read = described(REQUEST_READ, FEW_BYTES);
	int fd = payload.fd;

	cr_assert_eq(ftruncate(fd, (off_t)payload.off_bytes + 512), 0);
	cr_assert_eq(ublk_payload_begin(&payload, &write, REGISTERED, &ublk_straight_cached), -EIO,
		     "half of them");
	payload.fd = 9999;
	cr_assert_eq(ublk_payload_begin(&payload, &write, REGISTERED, &ublk_straight_cached),
		     -EBADF);
	cr_assert_eq(ublk_payload_begin(&payload, &read, REGISTERED, &ublk_straight_never), 0);
	cr_assert_eq(ublk_payload_end(&payload, &read, 0), -EBADF);
	payload.fd = fd;
}

Test(ublk_payload, a_device_that_the_driver_copies_for_is_left_to_it)
{
	struct request request = described(REQUEST_READ, BYTES);
	struct ublk_payload copied = payload;

	copied.fd = -1;
	cr_assert_eq(ublk_payload_begin(&copied, &request, REGISTERED, &ublk_straight_never), 0);
	cr_assert_eq(request.data, buffer);
	cr_assert_eq(ublk_payload_end(&copied, &request, 0), 0);
	cr_assert(driver_has(0xdd, BYTES));
}

Test(ublk_payload, what_has_no_payload_is_left_alone)
{
	struct request request = described(REQUEST_DISCARD, 1u << 30);

	cr_assert_eq(ublk_payload_begin(&payload, &request, REGISTERED, &ublk_straight_cached), 0);
	cr_assert_eq(request.foreign, 0);
	cr_assert_eq(ublk_payload_end(&payload, &request, 0), 0);
}
