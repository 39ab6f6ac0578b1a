/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_nbd_check - which requests are refused, and with which error
 */
#include <criterion/criterion.h>
#include <errno.h>

#include "server/nbd/nbd_check.h"

#define SIZE_BYTES (100ull << 30)

static struct nbd_export export = {.size_bytes = SIZE_BYTES};
static struct nbd_handshake plain = {.export = &export};
static struct nbd_handshake structured = {.export = &export, .structured = true};
static struct nbd_handshake extended = {
	.export = &export, .structured = true, .extended = true, .shared = true};

static int check(const struct nbd_handshake *handshake, uint16_t command, uint64_t off_bytes,
		 uint64_t len_bytes, uint16_t flags)
{
	const struct nbd_request request = {
		.command = command, .flags = flags, .off_bytes = off_bytes, .len_bytes = len_bytes};

	return nbd_check_request(handshake, &request);
}

Test(nbd_check, nothing_reaches_past_the_end_and_no_sum_wraps)
{
	static const struct {
		uint16_t command;
		uint16_t flags;
		int error;
	} commands[] = {
		{NBD_CMD_READ, 0, -EINVAL},
		{NBD_CMD_WRITE, NBD_CMD_FLAG_PAYLOAD_LEN, -ENOSPC},
		{NBD_CMD_TRIM, 0, -EINVAL},
		{NBD_CMD_CACHE, 0, -EINVAL},
		{NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_FAST_ZERO, -ENOSPC},
		{NBD_CMD_BLOCK_STATUS, 0, -EINVAL},
	};

	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		uint16_t command = commands[i].command, flags = commands[i].flags;
		int error = commands[i].error;

		cr_assert_eq(check(&extended, command, SIZE_BYTES - 8192, 8192, flags), 0);
		cr_assert_eq(check(&extended, command, SIZE_BYTES - 8192, 8193, flags), error);
		cr_assert_eq(check(&extended, command, SIZE_BYTES, 1, flags), error);
		cr_assert_eq(check(&extended, command, UINT64_MAX, 1, flags), error);
		cr_assert_eq(check(&extended, command, UINT64_MAX - 4095, 8192, flags), error);
	}
	cr_assert_eq(check(&extended, NBD_CMD_TRIM, 1, UINT64_MAX, 0), -EINVAL);
	cr_assert_eq(check(&extended, NBD_CMD_TRIM, 0, SIZE_BYTES, 0), 0);
}

Test(nbd_check, payloads_have_a_limit_and_effects_have_none)
{
	const uint64_t max = NBD_PAYLOAD_BYTES_MAX;

	cr_assert_eq(check(&plain, NBD_CMD_READ, 0, max, 0), 0);
	cr_assert_eq(check(&plain, NBD_CMD_READ, 0, max + 1, 0), -EINVAL);
	cr_assert_eq(check(&plain, NBD_CMD_WRITE, 0, max, 0), 0);
	cr_assert_eq(check(&plain, NBD_CMD_WRITE, 0, max + 1, 0), -EINVAL);
	cr_assert_eq(check(&extended, NBD_CMD_READ, 0, (1ull << 32) + 1, 0), -EINVAL);
	cr_assert_eq(check(&extended, NBD_CMD_CACHE, 0, SIZE_BYTES, 0), 0);
	cr_assert_eq(check(&extended, NBD_CMD_BLOCK_STATUS, 0, SIZE_BYTES, 0), 0);
	cr_assert_eq(check(&extended, NBD_CMD_WRITE_ZEROES, 0, SIZE_BYTES, 0), 0);
}

Test(nbd_check, a_fast_zero_is_one_that_makes_a_hole)
{
	const uint16_t fast = NBD_CMD_FLAG_FAST_ZERO;
	const uint16_t zeroes = NBD_CMD_WRITE_ZEROES;

	cr_assert_eq(check(&plain, zeroes, 0, 4096, fast), 0);
	cr_assert_eq(check(&plain, zeroes, 4095, 4097, fast), 0);
	cr_assert_eq(check(&plain, zeroes, 4095, 4096, fast), -ENOTSUP);
	cr_assert_eq(check(&plain, zeroes, 1, 8190, fast), -ENOTSUP);
	cr_assert_eq(check(&plain, zeroes, 1, 8191, fast), 0);
	cr_assert_eq(check(&plain, zeroes, 0, 1 << 20, fast | NBD_CMD_FLAG_NO_HOLE), -ENOTSUP);
	cr_assert_eq(check(&plain, zeroes, 0, 1 << 20, NBD_CMD_FLAG_NO_HOLE), 0);
	cr_assert_eq(check(&plain, zeroes, 1, 8190, 0), 0);
	cr_assert_eq(check(&plain, zeroes, 1, 0, fast), 0);
}

Test(nbd_check, flags_go_with_their_commands_only)
{
	static const uint16_t known[] = {0x01 | 0x04, 0x01 | 0x20,	  0x01,	      0x01, 0x01,
					 0x01,	      0x01 | 0x02 | 0x10, 0x01 | 0x08};

	for (uint16_t command = 0; command < 12; command++) {
		for (unsigned bit = 0; bit < 16; bit++) {
			uint16_t flag = (uint16_t)(1u << bit);
			bool good = command < 8 && command != NBD_CMD_DISC &&
				    (known[command] & flag) != 0;
			int error;

			/* Without its flag, a write is refused for another reason. */
			if (command == NBD_CMD_WRITE)
				flag |= NBD_CMD_FLAG_PAYLOAD_LEN;
			error = check(&extended, command, 0, 65536, flag);
			cr_assert_eq(error == 0, good, "command %u flags %#x: %d", command, flag,
				     error);
		}
	}
	cr_assert_eq(check(&structured, NBD_CMD_WRITE, 0, 1, NBD_CMD_FLAG_PAYLOAD_LEN), -EINVAL);
	cr_assert_eq(check(&plain, NBD_CMD_READ, 0, 1, NBD_CMD_FLAG_DF), -EINVAL);
	cr_assert_eq(check(&structured, NBD_CMD_READ, 0, 2 << 20, NBD_CMD_FLAG_DF), -EOVERFLOW);
}

Test(nbd_check, a_payload_is_where_the_header_says_so)
{
	struct nbd_request request = {.command = NBD_CMD_WRITE, .len_bytes = 1ull << 26};

	cr_assert(nbd_has_payload(&plain, &request));
	cr_assert_not(nbd_has_payload(&extended, &request));
	cr_assert_eq(nbd_check_request(&extended, &request), -EINVAL);
	request.flags = NBD_CMD_FLAG_PAYLOAD_LEN;
	cr_assert(nbd_has_payload(&extended, &request));
	cr_assert_not(nbd_payload_is_absurd(&extended, &request));
	request.len_bytes++;
	cr_assert(nbd_payload_is_absurd(&extended, &request));
	cr_assert_not(nbd_payload_is_absurd(&plain, &request), "it is passed over");
	request.command = NBD_CMD_READ;
	cr_assert(nbd_has_payload(&extended, &request));
	cr_assert_not(nbd_has_payload(&structured, &request));
}

/* Mutant 40: a command that the handshake did not prepare. */
Test(nbd_check, block_status_needs_a_context)
{
	struct nbd_handshake handshake = structured;

	cr_assert_eq(check(&handshake, NBD_CMD_BLOCK_STATUS, 0, 1, 0), -EINVAL);
	handshake.allocation = true;
	cr_assert_eq(check(&handshake, NBD_CMD_BLOCK_STATUS, 0, 1, 0), 0);
	cr_assert_eq(check(&handshake, NBD_CMD_BLOCK_STATUS, 0, 0, 0), -EINVAL);
}

Test(nbd_check, a_read_only_export_changes_for_nobody)
{
	struct nbd_export still = {.size_bytes = SIZE_BYTES, .read_only = true};
	struct nbd_handshake handshake = {.export = &still, .structured = true, .allocation = true};

	cr_assert_eq(check(&handshake, NBD_CMD_WRITE, 0, 1, 0), -EROFS);
	cr_assert_eq(check(&handshake, NBD_CMD_TRIM, 0, 1, 0), -EROFS);
	cr_assert_eq(check(&handshake, NBD_CMD_WRITE_ZEROES, 0, 1, NBD_CMD_FLAG_FAST_ZERO), -EROFS);
	cr_assert_eq(check(&handshake, NBD_CMD_READ, 0, 1, 0), 0);
	cr_assert_eq(check(&handshake, NBD_CMD_FLUSH, 0, 0, 0), 0);
	cr_assert_eq(check(&handshake, NBD_CMD_BLOCK_STATUS, 0, 1, 0), 0);
}
