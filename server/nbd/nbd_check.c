/* SPDX-License-Identifier: GPL-2.0-or-later */
/* nbd_check - see the header */
#include "server/nbd/nbd_check.h"

#include <errno.h>

#include "core/base/mutant.h"
#include "core/base/units.h"

/* FUA is allowed with every command: clients are known to set it where it means nothing. */
static const uint16_t flags_known[] = {
	[NBD_CMD_READ] = NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_DF,
	[NBD_CMD_WRITE] = NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_PAYLOAD_LEN,
	[NBD_CMD_DISC] = NBD_CMD_FLAG_FUA,
	[NBD_CMD_FLUSH] = NBD_CMD_FLAG_FUA,
	[NBD_CMD_TRIM] = NBD_CMD_FLAG_FUA,
	[NBD_CMD_CACHE] = NBD_CMD_FLAG_FUA,
	[NBD_CMD_WRITE_ZEROES] = NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO,
	[NBD_CMD_BLOCK_STATUS] = NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_REQ_ONE,
};

#define COMMANDS (sizeof(flags_known) / sizeof(flags_known[0]))

bool nbd_has_payload(const struct nbd_handshake *handshake, const struct nbd_request *request)
{
	if (handshake->extended)
		return (request->flags & NBD_CMD_FLAG_PAYLOAD_LEN) != 0;
	return request->command == NBD_CMD_WRITE;
}

bool nbd_payload_is_absurd(const struct nbd_handshake *handshake, const struct nbd_request *request)
{
	return handshake->extended && nbd_has_payload(handshake, request) &&
	       request->len_bytes > NBD_PAYLOAD_BYTES_MAX;
}

static bool is_inside(const struct nbd_handshake *handshake, const struct nbd_request *request)
{
	uint64_t size_bytes = handshake->export->size_bytes;

	return request->off_bytes <= size_bytes &&
	       request->len_bytes <= size_bytes - request->off_bytes;
}

static int check_read(const struct nbd_handshake *handshake, const struct nbd_request *request)
{
	bool whole = (request->flags & NBD_CMD_FLAG_DF) != 0;

	if (whole && !handshake->structured)
		return -EINVAL;
	if (whole && request->len_bytes > NBD_CHUNK_DATA_BYTES_MAX)
		return -EOVERFLOW;
	if (request->len_bytes > NBD_PAYLOAD_BYTES_MAX || !is_inside(handshake, request))
		return -EINVAL;
	return 0;
}

static int check_write(const struct nbd_handshake *handshake, const struct nbd_request *request)
{
	if (!nbd_has_payload(handshake, request) || request->len_bytes > NBD_PAYLOAD_BYTES_MAX)
		return -EINVAL;
	return is_inside(handshake, request) ? 0 : -ENOSPC;
}

/* A whole block becomes a hole by an edit of metadata. What is less than a block, and what has to
 * stay allocated, is written as zeros. */
static bool zeroes_fast(const struct nbd_request *request)
{
	uint64_t first_whole = div_up(request->off_bytes, BLOCK_BYTES);
	uint64_t end_whole = (request->off_bytes + request->len_bytes) / BLOCK_BYTES;

	return (request->flags & NBD_CMD_FLAG_NO_HOLE) == 0 && first_whole < end_whole;
}

static int check_zeroes(const struct nbd_handshake *handshake, const struct nbd_request *request)
{
	bool fast = (request->flags & NBD_CMD_FLAG_FAST_ZERO) != 0;

	if (!is_inside(handshake, request))
		return -ENOSPC;
	return fast && request->len_bytes > 0 && !zeroes_fast(request) ? -ENOTSUP : 0;
}

static int check_status(const struct nbd_handshake *handshake, const struct nbd_request *request)
{
	bool any = handshake->allocation || handshake->shared;

	if ((!any && !MUTANT(40)) || request->len_bytes == 0 || !is_inside(handshake, request))
		return -EINVAL;
	return 0;
}

int nbd_check_request(const struct nbd_handshake *handshake, const struct nbd_request *request)
{
	uint16_t command = request->command;
	bool changes = command == NBD_CMD_WRITE || command == NBD_CMD_TRIM ||
		       command == NBD_CMD_WRITE_ZEROES;
	bool extended_flag = (request->flags & NBD_CMD_FLAG_PAYLOAD_LEN) != 0;

	if (command >= COMMANDS || (request->flags & ~flags_known[command]) != 0 ||
	    (extended_flag && !handshake->extended))
		return -EINVAL;
	if (changes && handshake->export->read_only)
		return -EROFS;
	switch (command) {
	case NBD_CMD_READ:
		return check_read(handshake, request);
	case NBD_CMD_WRITE:
		return check_write(handshake, request);
	case NBD_CMD_WRITE_ZEROES:
		return check_zeroes(handshake, request);
	case NBD_CMD_BLOCK_STATUS:
		return check_status(handshake, request);
	case NBD_CMD_TRIM:
	case NBD_CMD_CACHE:
		return is_inside(handshake, request) ? 0 : -EINVAL;
	case NBD_CMD_FLUSH:
		return 0;
	default:
		return -EINVAL;
	}
}
