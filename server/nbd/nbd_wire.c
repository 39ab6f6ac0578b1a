/* SPDX-License-Identifier: GPL-2.0-or-later */
/* nbd_wire - see the header */
#include "server/nbd/nbd_wire.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "core/base/mutant.h"

void nbd_put_u16(uint8_t *bytes, uint16_t v)
{
	v = htobe16(v);
	memcpy(bytes, &v, sizeof(v));
}

void nbd_put_u32(uint8_t *bytes, uint32_t v)
{
	v = htobe32(v);
	memcpy(bytes, &v, sizeof(v));
}

void nbd_put_u64(uint8_t *bytes, uint64_t v)
{
	v = htobe64(v);
	memcpy(bytes, &v, sizeof(v));
}

uint16_t nbd_get_u16(const uint8_t *bytes)
{
	uint16_t v;

	memcpy(&v, bytes, sizeof(v));
	return be16toh(v);
}

uint32_t nbd_get_u32(const uint8_t *bytes)
{
	uint32_t v;

	memcpy(&v, bytes, sizeof(v));
	return be32toh(v);
}

uint64_t nbd_get_u64(const uint8_t *bytes)
{
	uint64_t v;

	memcpy(&v, bytes, sizeof(v));
	return be64toh(v);
}

uint32_t nbd_error_of(int error)
{
	switch (-error) {
	case 0:
		return NBD_OK;
	case EPERM:
	case EACCES:
	case EROFS:
		return NBD_EPERM;
	case ENOMEM:
		return NBD_ENOMEM;
	case EINVAL:
		return NBD_EINVAL;
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return NBD_ENOSPC;
	case EOVERFLOW:
		return NBD_EOVERFLOW;
	case EOPNOTSUPP:
		return NBD_ENOTSUP;
	case ESHUTDOWN:
		return NBD_ESHUTDOWN;
	default:
		return NBD_EIO;
	}
}

static const uint8_t *take(struct nbd_reader *reader, size_t len_bytes)
{
	const uint8_t *bytes = reader->at;

	if (reader->bad || (len_bytes > reader->left_bytes && !MUTANT(32))) {
		reader->bad = true;
		return NULL;
	}
	reader->at += len_bytes;
	reader->left_bytes -= len_bytes;
	return bytes;
}

uint16_t nbd_read_u16(struct nbd_reader *reader)
{
	const uint8_t *bytes = take(reader, 2);

	return bytes != NULL ? nbd_get_u16(bytes) : 0;
}

uint32_t nbd_read_u32(struct nbd_reader *reader)
{
	const uint8_t *bytes = take(reader, 4);

	return bytes != NULL ? nbd_get_u32(bytes) : 0;
}

struct nbd_string nbd_read_string(struct nbd_reader *reader)
{
	uint32_t len_bytes = nbd_read_u32(reader);
	const uint8_t *bytes;

	if (len_bytes > NBD_STRING_MAX && !MUTANT(32))
		reader->bad = true;
	bytes = take(reader, len_bytes);
	if (bytes == NULL)
		return (struct nbd_string){.text = ""};
	return (struct nbd_string){.text = (const char *)bytes, .len_bytes = len_bytes};
}

bool nbd_read_all(const struct nbd_reader *reader)
{
	return !reader->bad && reader->left_bytes == 0;
}

bool nbd_string_is(struct nbd_string string, const char *text)
{
	return strlen(text) == string.len_bytes && memcmp(text, string.text, string.len_bytes) == 0;
}

int nbd_decode_option(const uint8_t bytes[NBD_OPTION_HEADER_BYTES], struct nbd_option_header *ret)
{
	if (nbd_get_u64(bytes) != NBD_OPTION_MAGIC)
		return -EBADMSG;
	ret->option = nbd_get_u32(bytes + 8);
	ret->len_bytes = nbd_get_u32(bytes + 12);
	return 0;
}

/* What both kinds of request begin with. */
static int decode_request(const uint8_t *bytes, uint32_t magic, struct nbd_request *ret)
{
	if (nbd_get_u32(bytes) != magic)
		return -EBADMSG;
	ret->flags = nbd_get_u16(bytes + 4);
	ret->command = nbd_get_u16(bytes + 6);
	ret->cookie = nbd_get_u64(bytes + 8);
	ret->off_bytes = nbd_get_u64(bytes + 16);
	return 0;
}

int nbd_decode_request(const uint8_t bytes[NBD_REQUEST_BYTES], struct nbd_request *ret)
{
	int r = decode_request(bytes, NBD_REQUEST_MAGIC, ret);

	if (r == 0)
		ret->len_bytes = nbd_get_u32(bytes + 24);
	return r;
}

int nbd_decode_extended_request(const uint8_t bytes[NBD_EXTENDED_REQUEST_BYTES],
				struct nbd_request *ret)
{
	int r = decode_request(bytes, NBD_EXTENDED_REQUEST_MAGIC, ret);

	if (r == 0)
		ret->len_bytes = nbd_get_u64(bytes + 24);
	return r;
}

uint32_t nbd_decode_client_flags(const uint8_t bytes[NBD_CLIENT_FLAGS_BYTES])
{
	return nbd_get_u32(bytes);
}

void nbd_encode_greeting(uint8_t bytes[NBD_GREETING_BYTES], uint16_t handshake_flags)
{
	nbd_put_u64(bytes, NBD_INIT_MAGIC);
	nbd_put_u64(bytes + 8, NBD_OPTION_MAGIC);
	nbd_put_u16(bytes + 16, handshake_flags);
}

void nbd_encode_option_reply(uint8_t bytes[NBD_OPTION_REPLY_BYTES], uint32_t option, uint32_t type,
			     uint32_t len_bytes)
{
	nbd_put_u64(bytes, NBD_OPTION_REPLY_MAGIC);
	nbd_put_u32(bytes + 8, option);
	nbd_put_u32(bytes + 12, type);
	nbd_put_u32(bytes + 16, len_bytes);
}

void nbd_encode_export(uint8_t bytes[NBD_EXPORT_INFO_BYTES], uint64_t size_bytes, uint16_t flags)
{
	nbd_put_u64(bytes, size_bytes);
	nbd_put_u16(bytes + 8, flags);
}

void nbd_encode_simple_reply(uint8_t bytes[NBD_SIMPLE_REPLY_BYTES], uint32_t error, uint64_t cookie)
{
	nbd_put_u32(bytes, NBD_SIMPLE_REPLY_MAGIC);
	nbd_put_u32(bytes + 4, error);
	nbd_put_u64(bytes + 8, cookie);
}

void nbd_encode_chunk(uint8_t bytes[NBD_CHUNK_BYTES], uint16_t flags, uint16_t type,
		      uint64_t cookie, uint32_t len_bytes)
{
	nbd_put_u32(bytes, NBD_STRUCTURED_REPLY_MAGIC);
	nbd_put_u16(bytes + 4, flags);
	nbd_put_u16(bytes + 6, type);
	nbd_put_u64(bytes + 8, cookie);
	nbd_put_u32(bytes + 16, len_bytes);
}

void nbd_encode_error(uint8_t bytes[NBD_ERROR_BYTES], uint32_t error)
{
	nbd_put_u32(bytes, error);
	nbd_put_u16(bytes + 4, 0);
}

void nbd_encode_extent(uint8_t bytes[NBD_EXTENT_BYTES], uint32_t len_bytes, uint32_t flags)
{
	nbd_put_u32(bytes, len_bytes);
	nbd_put_u32(bytes + 4, flags);
}

void nbd_encode_extended_chunk(uint8_t bytes[NBD_EXTENDED_CHUNK_BYTES], uint16_t flags,
			       uint16_t type, uint64_t cookie, uint64_t off_bytes,
			       uint64_t len_bytes)
{
	nbd_put_u32(bytes, NBD_EXTENDED_REPLY_MAGIC);
	nbd_put_u16(bytes + 4, flags);
	nbd_put_u16(bytes + 6, type);
	nbd_put_u64(bytes + 8, cookie);
	nbd_put_u64(bytes + 16, off_bytes);
	nbd_put_u64(bytes + 24, len_bytes);
}

void nbd_encode_extended_context(uint8_t bytes[NBD_EXTENDED_CONTEXT_BYTES], uint32_t id,
				 uint32_t extents)
{
	nbd_put_u32(bytes, id);
	nbd_put_u32(bytes + 4, extents);
}

void nbd_encode_extended_extent(uint8_t bytes[NBD_EXTENDED_EXTENT_BYTES], uint64_t len_bytes,
				uint64_t flags)
{
	nbd_put_u64(bytes, len_bytes);
	nbd_put_u64(bytes + 8, flags);
}

uint32_t nbd_encode_head(uint8_t bytes[NBD_EXTENDED_CHUNK_BYTES], bool extended, uint16_t flags,
			 uint16_t type, const struct nbd_request *request, uint32_t len_bytes)
{
	if (!extended) {
		nbd_encode_chunk(bytes, flags, type, request->cookie, len_bytes);
		return NBD_CHUNK_BYTES;
	}
	nbd_encode_extended_chunk(bytes, flags, type, request->cookie, request->off_bytes,
				  len_bytes);
	return NBD_EXTENDED_CHUNK_BYTES;
}
