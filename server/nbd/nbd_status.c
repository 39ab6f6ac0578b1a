/* SPDX-License-Identifier: GPL-2.0-or-later */
/* nbd_status - see the header */
#include "server/nbd/nbd_status.h"

#include <assert.h>

#include "core/base/units.h"

typedef uint32_t flags_of_run(const struct map_run *run);

static uint32_t allocation_flags(const struct map_run *run)
{
	return pbn_is_none(run->pbn) ? NBD_STATE_HOLE | NBD_STATE_ZERO : 0;
}

static uint32_t shared_flags(const struct map_run *run)
{
	if (pbn_is_none(run->pbn))
		return NBD_SHARED_HOLE;
	return run->references > 1 ? NBD_SHARED_SHARED : 0;
}

/* Returns how many bytes the extents take. */
static size_t put_extents(bool extended, const struct nbd_request *request,
			  const struct map_run *runs, uint32_t count, flags_of_run *flags_of,
			  uint8_t *bytes)
{
	uint64_t at = request->off_bytes;
	uint64_t end = at + request->len_bytes;
	size_t used = 0;

	for (uint32_t i = 0; i < count && at < end;) {
		uint32_t flags = flags_of(&runs[i]);
		uint64_t to = at;

		for (; i < count && flags_of(&runs[i]) == flags; i++)
			to = min_u64(runs[i].off_bytes + runs[i].len_bytes, end);
		if (extended)
			nbd_encode_extended_extent(bytes + used, to - at, flags);
		else
			nbd_encode_extent(bytes + used, (uint32_t)(to - at), flags);
		used += extended ? NBD_EXTENDED_EXTENT_BYTES : NBD_EXTENT_BYTES;
		at = to;
		if ((request->flags & NBD_CMD_FLAG_REQ_ONE) != 0)
			end = at;
	}
	return used;
}

static size_t put_chunk(bool extended, const struct nbd_request *request,
			const struct map_run *runs, uint32_t count, flags_of_run *flags_of,
			uint32_t id, uint8_t *bytes)
{
	size_t head = extended ? NBD_EXTENDED_CHUNK_BYTES : NBD_CHUNK_BYTES;
	size_t context = extended ? NBD_EXTENDED_CONTEXT_BYTES : NBD_CONTEXT_BYTES;
	uint16_t type = extended ? NBD_REPLY_TYPE_BLOCK_STATUS_EXT : NBD_REPLY_TYPE_BLOCK_STATUS;
	size_t extents =
		put_extents(extended, request, runs, count, flags_of, bytes + head + context);

	if (extents == 0)
		return 0;
	if (extended)
		nbd_encode_extended_context(bytes + head, id,
					    (uint32_t)(extents / NBD_EXTENDED_EXTENT_BYTES));
	else
		nbd_put_u32(bytes + head, id);
	nbd_encode_head(bytes, extended, 0, type, request, (uint32_t)(context + extents));
	return head + context + extents;
}

size_t nbd_encode_status(const struct nbd_handshake *handshake, const struct nbd_request *request,
			 const struct map_run *runs, uint32_t count, uint8_t *bytes)
{
	bool extended = handshake->extended;
	uint8_t *last = bytes;
	size_t used = 0;

	assert(handshake->allocation || handshake->shared);
	if (handshake->allocation)
		used = put_chunk(extended, request, runs, count, allocation_flags,
				 NBD_CONTEXT_ALLOCATION, bytes);
	if (handshake->shared) {
		last = bytes + used;
		used += put_chunk(extended, request, runs, count, shared_flags, NBD_CONTEXT_SHARED,
				  last);
	}
	if (used > 0)
		nbd_put_u16(last + 4, NBD_REPLY_FLAG_DONE);
	return used;
}
