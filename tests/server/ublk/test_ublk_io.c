/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_ublk_io - what the driver describes becomes a request of the engine, or is refused
 */
#include <criterion/criterion.h>
#include <errno.h>

#include "server/ublk/ublk_io.h"

#define SIZE_BYTES (1ull << 30)
#define SECTORS	   (SIZE_BYTES / UBLK_SECTOR_BYTES)

static const struct ublk_shape writable = {
	.size_bytes = SIZE_BYTES, .sector_bytes = 512, .io_bytes_max = 256u << 10};
static const struct ublk_shape read_only = {.size_bytes = SIZE_BYTES,
					    .sector_bytes = 512,
					    .io_bytes_max = 256u << 10,
					    .read_only = true};

static int decode(const struct ublk_shape *shape, uint32_t op_flags, uint64_t start_sector,
		  uint32_t sectors, struct ublk_io *ret_io)
{
	const struct ublk_io_desc desc = {
		.op_flags = op_flags, .start_sector = start_sector, .sectors = sectors};

	return ublk_io_decode(&desc, shape, ret_io);
}

Test(ublk_io, each_operation_has_its_request)
{
	static const struct {
		uint32_t op;
		enum request_op request;
		enum latency_op latency;
		uint32_t answer_bytes;
	} rows[] = {
		{UBLK_OP_READ, REQUEST_READ, LATENCY_READ, 4096},
		{UBLK_OP_WRITE, REQUEST_WRITE, LATENCY_WRITE, 4096},
		{UBLK_OP_DISCARD, REQUEST_DISCARD, LATENCY_DISCARD, 0},
		{UBLK_OP_WRITE_ZEROES, REQUEST_ZERO, LATENCY_DISCARD, 0},
	};
	struct ublk_io io;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		cr_assert_eq(decode(&writable, rows[i].op, 16, 8, &io), 0);
		cr_assert_eq(io.op, rows[i].request);
		cr_assert_eq(io.latency_op, rows[i].latency);
		cr_assert_eq(io.off_bytes, 8192);
		cr_assert_eq(io.len_bytes, 4096);
		cr_assert_eq(io.answer_bytes, rows[i].answer_bytes);
		cr_assert(!io.fua && !io.no_hole);
	}
	cr_assert_eq(decode(&writable, UBLK_OP_FLUSH, 0, 0, &io), 0);
	cr_assert_eq(io.op, REQUEST_FLUSH);
	cr_assert_eq(io.len_bytes, 0);
	cr_assert_eq(io.answer_bytes, 0);
}

Test(ublk_io, fua_makes_what_changes_something_durable_and_nothing_else)
{
	struct ublk_io io;

	cr_assert_eq(decode(&writable, UBLK_OP_WRITE | UBLK_IO_F_FUA, 0, 1, &io), 0);
	cr_assert(io.fua);
	cr_assert_eq(decode(&writable, UBLK_OP_WRITE_ZEROES | UBLK_IO_F_FUA, 0, 1, &io), 0);
	cr_assert(io.fua);
	cr_assert_eq(decode(&writable, UBLK_OP_READ | UBLK_IO_F_FUA, 0, 1, &io), 0);
	cr_assert(!io.fua);
	cr_assert_eq(decode(&writable, UBLK_OP_FLUSH | UBLK_IO_F_FUA, 0, 0, &io), 0);
	cr_assert(!io.fua);
}

Test(ublk_io, zeroes_that_must_not_unmap_keep_their_blocks)
{
	struct ublk_io io;

	cr_assert_eq(decode(&writable, UBLK_OP_WRITE_ZEROES | UBLK_IO_F_NOUNMAP, 0, 8, &io), 0);
	cr_assert(io.no_hole);
	cr_assert_eq(decode(&writable, UBLK_OP_DISCARD | UBLK_IO_F_NOUNMAP, 0, 8, &io), 0);
	cr_assert(!io.no_hole);
}

Test(ublk_io, flags_nobody_knows_do_not_change_the_operation)
{
	struct ublk_io io;

	cr_assert_eq(decode(&writable, UBLK_OP_WRITE | 0xffffff00u, 0, 1, &io), 0);
	cr_assert_eq(io.op, REQUEST_WRITE);
}

Test(ublk_io, nothing_reaches_past_the_end_and_no_sum_wraps)
{
	static const uint32_t ops[] = {UBLK_OP_READ, UBLK_OP_WRITE, UBLK_OP_DISCARD,
				       UBLK_OP_WRITE_ZEROES};
	struct ublk_io io;

	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
		cr_assert_eq(decode(&writable, ops[i], SECTORS - 1, 1, &io), 0);
		cr_assert_eq(decode(&writable, ops[i], SECTORS - 1, 2, &io), -EINVAL);
		cr_assert_eq(decode(&writable, ops[i], SECTORS, 1, &io), -EINVAL);
		cr_assert_eq(decode(&writable, ops[i], UINT64_MAX, 1, &io), -EINVAL);
		cr_assert_eq(decode(&writable, ops[i], UINT64_MAX - 1, UINT32_MAX, &io), -EINVAL);
		cr_assert_eq(decode(&writable, ops[i], 0, 0, &io), -EINVAL);
	}
}

Test(ublk_io, no_payload_is_longer_than_its_buffer)
{
	struct ublk_io io;
	uint32_t most = writable.io_bytes_max / UBLK_SECTOR_BYTES;

	cr_assert_eq(decode(&writable, UBLK_OP_WRITE, 0, most, &io), 0);
	cr_assert_eq(decode(&writable, UBLK_OP_WRITE, 0, most + 1, &io), -EINVAL);
	cr_assert_eq(decode(&writable, UBLK_OP_READ, 0, most + 1, &io), -EINVAL);
	cr_assert_eq(decode(&writable, UBLK_OP_DISCARD, 0, most + 1, &io), 0);
}

Test(ublk_io, a_read_only_volume_is_not_changed)
{
	struct ublk_io io;

	cr_assert_eq(decode(&read_only, UBLK_OP_READ, 0, 1, &io), 0);
	cr_assert_eq(decode(&read_only, UBLK_OP_FLUSH, 0, 0, &io), 0);
	cr_assert_eq(decode(&read_only, UBLK_OP_WRITE, 0, 1, &io), -EROFS);
	cr_assert_eq(decode(&read_only, UBLK_OP_DISCARD, 0, 1, &io), -EROFS);
	cr_assert_eq(decode(&read_only, UBLK_OP_WRITE_ZEROES, 0, 1, &io), -EROFS);
}

Test(ublk_io, an_operation_that_was_not_announced_is_refused)
{
	struct ublk_io io;

	for (uint32_t op = 0; op <= UBLK_OP_MASK; op++) {
		if (op <= UBLK_OP_DISCARD || op == UBLK_OP_WRITE_ZEROES)
			continue;
		cr_assert_eq(decode(&writable, op, 0, 1, &io), -EOPNOTSUPP);
	}
}
