/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_nbd_wire - the bytes are the documented ones, and no length leads out of a message
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "server/nbd/nbd_wire.h"

static void expect_bytes(const uint8_t *bytes, const char *expected, size_t len)
{
	cr_assert_eq(memcmp(bytes, expected, len), 0);
}

Test(nbd_wire, structures_to_the_client_have_the_documented_bytes)
{
	uint8_t bytes[32];

	nbd_encode_greeting(bytes, NBD_HANDSHAKE_FIXED_NEWSTYLE | NBD_HANDSHAKE_NO_ZEROES);
	expect_bytes(bytes, "NBDMAGICIHAVEOPT\0\3", 18);
	nbd_encode_option_reply(bytes, NBD_OPT_GO, NBD_REP_ERR_UNKNOWN, 0x01020304);
	expect_bytes(bytes, "\0\3\xe8\x89\x04\x55\x65\xa9\0\0\0\7\x80\0\0\6\1\2\3\4", 20);
	nbd_encode_export(bytes, 0x0102030405060708, 0x0102);
	expect_bytes(bytes, "\1\2\3\4\5\6\7\x8\1\2", 10);
	nbd_encode_simple_reply(bytes, NBD_ENOSPC, 0x1122334455667788);
	expect_bytes(bytes, "\x67\x44\x66\x98\0\0\0\x1c\x11\x22\x33\x44\x55\x66\x77\x88", 16);
	nbd_encode_chunk(bytes, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_ERROR, 0x1122334455667788, 6);
	expect_bytes(bytes, "\x66\x8e\x33\xef\0\1\x80\1\x11\x22\x33\x44\x55\x66\x77\x88\0\0\0\6",
		     20);
	nbd_encode_error(bytes, NBD_EOVERFLOW);
	expect_bytes(bytes, "\0\0\0\x4b\0\0", 6);
	nbd_encode_extent(bytes, 0x00010203, NBD_STATE_HOLE | NBD_STATE_ZERO);
	expect_bytes(bytes, "\0\1\2\3\0\0\0\3", 8);
}

Test(nbd_wire, a_request_is_decoded_whole)
{
	const char bytes[] = "\x25\x60\x95\x13\0\3\0\6\1\2\3\4\5\6\7\x8"
			     "\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff\xff";
	struct nbd_request request;

	cr_assert_eq(nbd_decode_request((const uint8_t *)bytes, &request), 0);
	cr_assert_eq(request.flags, NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE);
	cr_assert_eq(request.command, NBD_CMD_WRITE_ZEROES);
	cr_assert_eq(request.cookie, 0x0102030405060708);
	cr_assert_eq(request.off_bytes, UINT64_MAX - 1);
	cr_assert_eq(request.len_bytes, UINT32_MAX);
}

Test(nbd_wire, extended_structures_have_the_documented_bytes)
{
	const char asked[] = "\x21\xe4\x1c\x71\0\x20\0\1\1\2\3\4\5\6\7\x8"
			     "\xff\xff\xff\xff\xff\xff\xff\xfe\0\0\1\0\0\0\0\2";
	struct nbd_request request;
	uint8_t bytes[32];

	cr_assert_eq(nbd_decode_extended_request((const uint8_t *)asked, &request), 0);
	cr_assert_eq(request.flags, NBD_CMD_FLAG_PAYLOAD_LEN);
	cr_assert_eq(request.command, NBD_CMD_WRITE);
	cr_assert_eq(request.cookie, 0x0102030405060708);
	cr_assert_eq(request.off_bytes, UINT64_MAX - 1);
	cr_assert_eq(request.len_bytes, 0x0000010000000002);
	cr_assert_eq(nbd_decode_request((const uint8_t *)asked, &request), -EBADMSG);
	cr_assert_eq(nbd_encode_head(bytes, true, NBD_REPLY_FLAG_DONE,
				     NBD_REPLY_TYPE_BLOCK_STATUS_EXT, &request, 0x01020304),
		     32);
	expect_bytes(bytes,
		     "\x6e\x8a\x27\x8c\0\1\0\6\1\2\3\4\5\6\7\x8"
		     "\xff\xff\xff\xff\xff\xff\xff\xfe\0\0\0\0\1\2\3\4",
		     32);
	cr_assert_eq(nbd_encode_head(bytes, false, 0, NBD_REPLY_TYPE_NONE, &request, 0), 20);
	expect_bytes(bytes, "\x66\x8e\x33\xef\0\0\0\0\1\2\3\4\5\6\7\x8\0\0\0\0", 20);
	nbd_encode_extended_context(bytes, 0x11223344, 5);
	expect_bytes(bytes, "\x11\x22\x33\x44\0\0\0\5", 8);
	nbd_encode_extended_extent(bytes, 0x0102030405060708, NBD_SHARED_SHARED);
	expect_bytes(bytes, "\1\2\3\4\5\6\7\x8\0\0\0\0\0\0\0\2", 16);
}

Test(nbd_wire, another_magic_is_another_protocol)
{
	uint8_t bytes[NBD_REQUEST_BYTES] = {0x25, 0x60, 0x95, 0x12};
	uint8_t extended[NBD_EXTENDED_REQUEST_BYTES] = {0};
	uint8_t option[NBD_OPTION_HEADER_BYTES] = "IHAVEOPS";
	struct nbd_option_header header;
	struct nbd_request request;

	cr_assert_eq(nbd_decode_request(bytes, &request), -EBADMSG);
	cr_assert_eq(nbd_decode_option(option, &header), -EBADMSG);
	memcpy(extended, "\x25\x60\x95\x13", 4);
	cr_assert_eq(nbd_decode_extended_request(extended, &request), -EBADMSG);
	memcpy(option, "IHAVEOPT\0\0\0\7\0\0\1\0", 16);
	cr_assert_eq(nbd_decode_option(option, &header), 0);
	cr_assert_eq(header.option, NBD_OPT_GO);
	cr_assert_eq(header.len_bytes, 256);
}

/* Mutant 32: a length of 0xffffffff, and lengths that end one byte behind the message. */
Test(nbd_wire, a_string_never_leads_out_of_its_message)
{
	static const uint32_t lengths[] = {
		5, 6, NBD_STRING_MAX, NBD_STRING_MAX + 1, 0x7fffffff, 0xfffffffc, 0xffffffff};

	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		/* On the heap, so that a sanitizer sees a read behind the end. */
		uint8_t *bytes = malloc(8);
		struct nbd_reader reader = {.at = bytes, .left_bytes = 8};
		struct nbd_string string;

		nbd_put_u32(bytes, lengths[i]);
		memcpy(bytes + 4, "abcd", 4);
		string = nbd_read_string(&reader);
		cr_assert(reader.bad);
		cr_assert_eq(string.len_bytes, 0);
		cr_assert_eq(nbd_read_u32(&reader), 0);
		cr_assert_not(nbd_read_all(&reader));
		free(bytes);
	}
}

Test(nbd_wire, a_message_is_read_to_its_last_byte_and_not_beyond)
{
	const uint8_t bytes[] = "\0\0\0\3abc\1\2\0\0\0\7";
	struct nbd_reader reader = {.at = bytes, .left_bytes = 13};
	struct nbd_string string = nbd_read_string(&reader);

	cr_assert(nbd_string_is(string, "abc"));
	cr_assert_not(nbd_string_is(string, "abcd"));
	cr_assert_not(nbd_string_is(string, "ab"));
	cr_assert_eq(nbd_read_u16(&reader), 0x0102);
	cr_assert_not(nbd_read_all(&reader));
	cr_assert_eq(nbd_read_u32(&reader), 7);
	cr_assert(nbd_read_all(&reader));
	cr_assert_eq(nbd_read_u16(&reader), 0);
	cr_assert(reader.bad);
}

Test(nbd_wire, errors_become_those_that_the_protocol_knows)
{
	cr_assert_eq(nbd_error_of(0), NBD_OK);
	cr_assert_eq(nbd_error_of(-ENOSPC), NBD_ENOSPC);
	cr_assert_eq(nbd_error_of(-EROFS), NBD_EPERM);
	cr_assert_eq(nbd_error_of(-ENOTSUP), NBD_ENOTSUP);
	cr_assert_eq(nbd_error_of(-EINVAL), NBD_EINVAL);
	cr_assert_eq(nbd_error_of(-ESHUTDOWN), NBD_ESHUTDOWN);
	cr_assert_eq(nbd_error_of(-EOVERFLOW), NBD_EOVERFLOW);
	cr_assert_eq(nbd_error_of(-ENOMEM), NBD_ENOMEM);
	cr_assert_eq(nbd_error_of(-EUCLEAN), NBD_EIO);
	cr_assert_eq(nbd_error_of(-ECANCELED), NBD_EIO);
}
