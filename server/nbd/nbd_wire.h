/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd_wire - the NBD protocol's numbers, and its structures to and from bytes
 *
 * Pure functions on memory that the caller has measured; no I/O, no allocation. Numbers are
 * big-endian on the wire. A decoder says whether what it looked at is well-formed; what a request
 * means for this volume is the connection's business.
 *
 * Errors    0 or a negative errno (EBADMSG: not this protocol).
 */
#ifndef SERVER_NBD_NBD_WIRE_H
#define SERVER_NBD_NBD_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NBD_INIT_MAGIC		   0x4e42444d41474943ull
#define NBD_OPTION_MAGIC	   0x49484156454f5054ull
#define NBD_OPTION_REPLY_MAGIC	   0x0003e889045565a9ull
#define NBD_REQUEST_MAGIC	   0x25609513u
#define NBD_SIMPLE_REPLY_MAGIC	   0x67446698u
#define NBD_STRUCTURED_REPLY_MAGIC 0x668e33efu
#define NBD_EXTENDED_REQUEST_MAGIC 0x21e41c71u
#define NBD_EXTENDED_REPLY_MAGIC   0x6e8a278cu

enum nbd_handshake_flags {
	NBD_HANDSHAKE_FIXED_NEWSTYLE = 1 << 0,
	NBD_HANDSHAKE_NO_ZEROES = 1 << 1,
};

enum nbd_option {
	NBD_OPT_EXPORT_NAME = 1,
	NBD_OPT_ABORT = 2,
	NBD_OPT_LIST = 3,
	NBD_OPT_STARTTLS = 5,
	NBD_OPT_INFO = 6,
	NBD_OPT_GO = 7,
	NBD_OPT_STRUCTURED_REPLY = 8,
	NBD_OPT_LIST_META_CONTEXT = 9,
	NBD_OPT_SET_META_CONTEXT = 10,
	NBD_OPT_EXTENDED_HEADERS = 11,
};

#define NBD_REP_ERROR(n)	    (0x80000000u | (n))
#define NBD_REP_ACK		    1u
#define NBD_REP_SERVER		    2u
#define NBD_REP_INFO		    3u
#define NBD_REP_META_CONTEXT	    4u
#define NBD_REP_ERR_UNSUP	    NBD_REP_ERROR(1)
#define NBD_REP_ERR_POLICY	    NBD_REP_ERROR(2)
#define NBD_REP_ERR_INVALID	    NBD_REP_ERROR(3)
#define NBD_REP_ERR_TLS_REQD	    NBD_REP_ERROR(5)
#define NBD_REP_ERR_UNKNOWN	    NBD_REP_ERROR(6)
#define NBD_REP_ERR_SHUTDOWN	    NBD_REP_ERROR(7)
#define NBD_REP_ERR_TOO_BIG	    NBD_REP_ERROR(9)
#define NBD_REP_ERR_EXT_HEADER_REQD NBD_REP_ERROR(10)

enum nbd_info {
	NBD_INFO_EXPORT = 0,
	NBD_INFO_NAME = 1,
	NBD_INFO_DESCRIPTION = 2,
	NBD_INFO_BLOCK_SIZE = 3,
};

enum nbd_transmission_flags {
	NBD_FLAG_HAS_FLAGS = 1 << 0,
	NBD_FLAG_READ_ONLY = 1 << 1,
	NBD_FLAG_SEND_FLUSH = 1 << 2,
	NBD_FLAG_SEND_FUA = 1 << 3,
	NBD_FLAG_SEND_TRIM = 1 << 5,
	NBD_FLAG_SEND_WRITE_ZEROES = 1 << 6,
	NBD_FLAG_SEND_DF = 1 << 7,
	NBD_FLAG_CAN_MULTI_CONN = 1 << 8,
	NBD_FLAG_SEND_CACHE = 1 << 10,
	NBD_FLAG_SEND_FAST_ZERO = 1 << 11,
};

enum nbd_cmd {
	NBD_CMD_READ = 0,
	NBD_CMD_WRITE = 1,
	NBD_CMD_DISC = 2,
	NBD_CMD_FLUSH = 3,
	NBD_CMD_TRIM = 4,
	NBD_CMD_CACHE = 5,
	NBD_CMD_WRITE_ZEROES = 6,
	NBD_CMD_BLOCK_STATUS = 7,
};

enum nbd_cmd_flags {
	NBD_CMD_FLAG_FUA = 1 << 0,
	NBD_CMD_FLAG_NO_HOLE = 1 << 1,
	NBD_CMD_FLAG_DF = 1 << 2,
	NBD_CMD_FLAG_REQ_ONE = 1 << 3,
	NBD_CMD_FLAG_FAST_ZERO = 1 << 4,
	NBD_CMD_FLAG_PAYLOAD_LEN = 1 << 5,
};

/* Structured replies. */
#define NBD_REPLY_FLAG_DONE		1u
#define NBD_REPLY_TYPE_NONE		0u
#define NBD_REPLY_TYPE_OFFSET_DATA	1u
#define NBD_REPLY_TYPE_BLOCK_STATUS	5u
#define NBD_REPLY_TYPE_BLOCK_STATUS_EXT 6u
#define NBD_REPLY_TYPE_ERROR		0x8001u

#define NBD_STATE_HOLE 1u
#define NBD_STATE_ZERO 2u

/* Of our own context, sameblk:shared; neither bit: data that nothing else refers to. */
#define NBD_SHARED_HOLE	  1u
#define NBD_SHARED_SHARED 2u

/* Errors on the wire, which are those of one particular system. */
enum nbd_error {
	NBD_OK = 0,
	NBD_EPERM = 1,
	NBD_EIO = 5,
	NBD_ENOMEM = 12,
	NBD_EINVAL = 22,
	NBD_ENOSPC = 28,
	NBD_EOVERFLOW = 75,
	NBD_ENOTSUP = 95,
	NBD_ESHUTDOWN = 108,
};

/* The wire's error for a negative errno. */
uint32_t nbd_error_of(int error);

#define NBD_GREETING_BYTES	   18u
#define NBD_CLIENT_FLAGS_BYTES	   4u
#define NBD_OPTION_HEADER_BYTES	   16u
#define NBD_OPTION_REPLY_BYTES	   20u
#define NBD_REQUEST_BYTES	   28u
#define NBD_SIMPLE_REPLY_BYTES	   16u
#define NBD_CHUNK_BYTES		   20u
#define NBD_OFFSET_BYTES	   8u
#define NBD_CONTEXT_BYTES	   4u
#define NBD_EXTENT_BYTES	   8u
#define NBD_EXTENDED_REQUEST_BYTES 32u
#define NBD_EXTENDED_CHUNK_BYTES   32u
#define NBD_EXTENDED_CONTEXT_BYTES 8u
#define NBD_EXTENDED_EXTENT_BYTES  16u
#define NBD_ERROR_BYTES		   6u
#define NBD_EXPORT_INFO_BYTES	   10u
#define NBD_EXPORT_ZEROES_BYTES	   124u
#define NBD_STRING_MAX		   4096u

struct nbd_option_header {
	uint32_t option;
	uint32_t len_bytes;
};

struct nbd_request {
	uint16_t flags;
	uint16_t command;
	uint64_t cookie;
	uint64_t off_bytes;
	uint64_t len_bytes;
};

/* A string inside a message; not terminated. */
struct nbd_string {
	const char *text;
	uint32_t len_bytes;
};

/* Reads a message of known length from front to back. Once something did not fit, bad is set and
 * everything else reads as zero. */
struct nbd_reader {
	const uint8_t *at;
	size_t left_bytes;
	bool bad;
};

uint16_t nbd_read_u16(struct nbd_reader *reader);
uint32_t nbd_read_u32(struct nbd_reader *reader);
/* A 32-bit length and that many bytes; longer than NBD_STRING_MAX is bad. */
struct nbd_string nbd_read_string(struct nbd_reader *reader);
/* Nothing is bad and nothing is left. */
bool nbd_read_all(const struct nbd_reader *reader);

bool nbd_string_is(struct nbd_string string, const char *text);

/* Client to server: each takes exactly the bytes named. */
int nbd_decode_option(const uint8_t bytes[NBD_OPTION_HEADER_BYTES], struct nbd_option_header *ret);
int nbd_decode_request(const uint8_t bytes[NBD_REQUEST_BYTES], struct nbd_request *ret);
int nbd_decode_extended_request(const uint8_t bytes[NBD_EXTENDED_REQUEST_BYTES],
				struct nbd_request *ret);
uint32_t nbd_decode_client_flags(const uint8_t bytes[NBD_CLIENT_FLAGS_BYTES]);

/* Server to client: each writes exactly the bytes named. */
void nbd_encode_greeting(uint8_t bytes[NBD_GREETING_BYTES], uint16_t handshake_flags);
void nbd_encode_option_reply(uint8_t bytes[NBD_OPTION_REPLY_BYTES], uint32_t option, uint32_t type,
			     uint32_t len_bytes);
void nbd_encode_export(uint8_t bytes[NBD_EXPORT_INFO_BYTES], uint64_t size_bytes, uint16_t flags);
void nbd_encode_simple_reply(uint8_t bytes[NBD_SIMPLE_REPLY_BYTES], uint32_t error,
			     uint64_t cookie);
void nbd_encode_chunk(uint8_t bytes[NBD_CHUNK_BYTES], uint16_t flags, uint16_t type,
		      uint64_t cookie, uint32_t len_bytes);
void nbd_encode_error(uint8_t bytes[NBD_ERROR_BYTES], uint32_t error);
void nbd_encode_extent(uint8_t bytes[NBD_EXTENT_BYTES], uint32_t len_bytes, uint32_t flags);
/* The head of a chunk of a reply, extended or not; returns how many bytes it has. */
uint32_t nbd_encode_head(uint8_t bytes[NBD_EXTENDED_CHUNK_BYTES], bool extended, uint16_t flags,
			 uint16_t type, const struct nbd_request *request, uint32_t len_bytes);
/* off_bytes is the request's, whatever part of it the chunk is about. */
void nbd_encode_extended_chunk(uint8_t bytes[NBD_EXTENDED_CHUNK_BYTES], uint16_t flags,
			       uint16_t type, uint64_t cookie, uint64_t off_bytes,
			       uint64_t len_bytes);
void nbd_encode_extended_context(uint8_t bytes[NBD_EXTENDED_CONTEXT_BYTES], uint32_t id,
				 uint32_t extents);
void nbd_encode_extended_extent(uint8_t bytes[NBD_EXTENDED_EXTENT_BYTES], uint64_t len_bytes,
				uint64_t flags);

void nbd_put_u16(uint8_t *bytes, uint16_t v);
void nbd_put_u32(uint8_t *bytes, uint32_t v);
void nbd_put_u64(uint8_t *bytes, uint64_t v);
uint16_t nbd_get_u16(const uint8_t *bytes);
uint32_t nbd_get_u32(const uint8_t *bytes);
uint64_t nbd_get_u64(const uint8_t *bytes);

#endif
