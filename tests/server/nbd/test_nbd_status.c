/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_nbd_status - from runs to the bytes of a block status reply
 */
#include <criterion/criterion.h>
#include <string.h>

#include "server/nbd/nbd_status.h"

#define RUNS_MAX 64u

struct extent_found {
	uint64_t len_bytes;
	uint64_t flags;
};

struct chunk_found {
	uint16_t flags;
	uint32_t id;
	uint32_t count;
	struct extent_found extents[RUNS_MAX];
};

static const struct nbd_export export = {.size_bytes = 1ull << 50};

static struct nbd_handshake handshake_for(bool extended, bool allocation, bool shared)
{
	return (struct nbd_handshake){.export = &export,
				      .structured = true,
				      .extended = extended,
				      .allocation = allocation,
				      .shared = shared};
}

/* Reads one chunk as a client would, and returns what it takes. */
static size_t read_chunk(bool extended, const struct nbd_request *request, const uint8_t *bytes,
			 struct chunk_found *ret)
{
	size_t head = extended ? NBD_EXTENDED_CHUNK_BYTES : NBD_CHUNK_BYTES;
	size_t context = extended ? NBD_EXTENDED_CONTEXT_BYTES : NBD_CONTEXT_BYTES;
	size_t each = extended ? NBD_EXTENDED_EXTENT_BYTES : NBD_EXTENT_BYTES;
	size_t len = extended ? nbd_get_u64(bytes + 24) : nbd_get_u32(bytes + 16);
	const uint8_t *at = bytes + head + context;

	cr_assert_eq(nbd_get_u32(bytes),
		     extended ? NBD_EXTENDED_REPLY_MAGIC : NBD_STRUCTURED_REPLY_MAGIC);
	ret->flags = nbd_get_u16(bytes + 4);
	cr_assert_eq(nbd_get_u16(bytes + 6), extended ? 6 : 5);
	cr_assert_eq(nbd_get_u64(bytes + 8), request->cookie);
	if (extended)
		cr_assert_eq(nbd_get_u64(bytes + 16), request->off_bytes);
	ret->id = nbd_get_u32(bytes + head);
	cr_assert_gt(len, context);
	cr_assert_eq((len - context) % each, 0);
	ret->count = (uint32_t)((len - context) / each);
	if (extended)
		cr_assert_eq(nbd_get_u32(bytes + head + 4), ret->count);
	for (uint32_t i = 0; i < ret->count; i++, at += each) {
		ret->extents[i].len_bytes = extended ? nbd_get_u64(at) : nbd_get_u32(at);
		ret->extents[i].flags = extended ? nbd_get_u64(at + 8) : nbd_get_u32(at + 4);
	}
	return head + len;
}

static struct map_run run(uint64_t off_blocks, uint64_t blocks, uint64_t pbn, uint32_t references)
{
	return (struct map_run){off_blocks * BLOCK_BYTES, blocks * BLOCK_BYTES,
				references > 0 ? (pbn_t){pbn} : PBN_NONE, references};
}

static void expect_extent(const struct chunk_found *chunk, uint32_t i, uint64_t len_bytes,
			  uint64_t flags)
{
	cr_assert_lt(i, chunk->count);
	cr_assert_eq(chunk->extents[i].len_bytes, len_bytes, "extent %u: %lu bytes", i,
		     (unsigned long)chunk->extents[i].len_bytes);
	cr_assert_eq(chunk->extents[i].flags, flags, "extent %u: flags %lu", i,
		     (unsigned long)chunk->extents[i].flags);
}

Test(nbd_status, each_context_joins_what_looks_the_same_in_it)
{
	const struct map_run runs[] = {run(10, 2, 100, 1), run(12, 3, 200, 2), run(15, 1, 300, 7),
				       run(16, 4, 0, 0)};
	const struct nbd_request request = {
		.cookie = 77, .off_bytes = 10 * BLOCK_BYTES, .len_bytes = 10 * BLOCK_BYTES};

	for (int extended = 0; extended < 2; extended++) {
		struct nbd_handshake handshake = handshake_for(extended, true, true);
		uint8_t bytes[NBD_STATUS_BYTES(4)];
		struct chunk_found chunk;
		size_t len = nbd_encode_status(&handshake, &request, runs, 4, bytes), at;

		at = read_chunk(extended, &request, bytes, &chunk);
		cr_assert_eq(chunk.flags, 0, "more follows");
		cr_assert_eq(chunk.id, NBD_CONTEXT_ALLOCATION);
		cr_assert_eq(chunk.count, 2);
		expect_extent(&chunk, 0, 6 * BLOCK_BYTES, 0);
		expect_extent(&chunk, 1, 4 * BLOCK_BYTES, NBD_STATE_HOLE | NBD_STATE_ZERO);
		at += read_chunk(extended, &request, bytes + at, &chunk);
		cr_assert_eq(at, len);
		cr_assert_eq(chunk.flags, NBD_REPLY_FLAG_DONE);
		cr_assert_eq(chunk.id, NBD_CONTEXT_SHARED);
		cr_assert_eq(chunk.count, 3);
		expect_extent(&chunk, 0, 2 * BLOCK_BYTES, 0);
		expect_extent(&chunk, 1, 4 * BLOCK_BYTES, NBD_SHARED_SHARED);
		expect_extent(&chunk, 2, 4 * BLOCK_BYTES, NBD_SHARED_HOLE);
	}
}

Test(nbd_status, one_context_is_one_chunk_and_the_last)
{
	const struct map_run runs[] = {run(0, 4, 0, 0)};
	const struct nbd_request request = {.len_bytes = 4 * BLOCK_BYTES};

	for (int shared = 0; shared < 2; shared++) {
		struct nbd_handshake handshake = handshake_for(false, !shared, shared);
		uint8_t bytes[NBD_STATUS_BYTES(1)];
		struct chunk_found chunk;
		size_t len = nbd_encode_status(&handshake, &request, runs, 1, bytes);

		cr_assert_eq(read_chunk(false, &request, bytes, &chunk), len);
		cr_assert_eq(chunk.flags, NBD_REPLY_FLAG_DONE);
		cr_assert_eq(chunk.id, shared ? NBD_CONTEXT_SHARED : NBD_CONTEXT_ALLOCATION);
	}
}

Test(nbd_status, extents_are_cut_at_both_ends_of_what_was_asked)
{
	const struct map_run runs[] = {run(1, 2, 100, 1), run(3, 2, 0, 0), run(5, 2, 900, 1)};
	struct nbd_request request = {.off_bytes = BLOCK_BYTES + 5, .len_bytes = 5 * BLOCK_BYTES};
	struct nbd_handshake handshake = handshake_for(false, true, false);
	uint8_t bytes[NBD_STATUS_BYTES(3)];
	struct chunk_found chunk;

	nbd_encode_status(&handshake, &request, runs, 3, bytes);
	read_chunk(false, &request, bytes, &chunk);
	cr_assert_eq(chunk.count, 3);
	expect_extent(&chunk, 0, 2 * BLOCK_BYTES - 5, 0);
	expect_extent(&chunk, 1, 2 * BLOCK_BYTES, 3);
	expect_extent(&chunk, 2, BLOCK_BYTES + 5, 0);
	request.flags = NBD_CMD_FLAG_REQ_ONE;
	nbd_encode_status(&handshake, &request, runs, 3, bytes);
	read_chunk(false, &request, bytes, &chunk);
	cr_assert_eq(chunk.count, 1);
	expect_extent(&chunk, 0, 2 * BLOCK_BYTES - 5, 0);
}

Test(nbd_status, lengths_are_whole_at_and_beyond_32_bits)
{
	const uint64_t blocks = 1ull << 38;
	const struct map_run runs[] = {run(0, blocks - 1, 0, 0), run(blocks - 1, 1, 5, 1)};
	struct nbd_request request = {.off_bytes = 3, .len_bytes = UINT32_MAX};
	struct nbd_handshake handshake = handshake_for(false, true, false);
	uint8_t bytes[NBD_STATUS_BYTES(2)];
	struct chunk_found chunk;

	nbd_encode_status(&handshake, &request, runs, 2, bytes);
	read_chunk(false, &request, bytes, &chunk);
	cr_assert_eq(chunk.count, 1);
	expect_extent(&chunk, 0, UINT32_MAX, 3);
	handshake = handshake_for(true, true, false);
	request.len_bytes = blocks * BLOCK_BYTES - 3;
	nbd_encode_status(&handshake, &request, runs, 2, bytes);
	read_chunk(true, &request, bytes, &chunk);
	cr_assert_eq(chunk.count, 2);
	expect_extent(&chunk, 0, (blocks - 1) * BLOCK_BYTES - 3, 3);
	expect_extent(&chunk, 1, BLOCK_BYTES, 0);
}

Test(nbd_status, the_most_extents_fill_the_room_and_no_more)
{
	struct nbd_handshake handshake = handshake_for(true, true, true);
	struct nbd_request request = {.len_bytes = RUNS_MAX * BLOCK_BYTES};
	static uint8_t bytes[NBD_STATUS_BYTES(RUNS_MAX)];
	struct map_run runs[RUNS_MAX];

	for (uint32_t i = 0; i < RUNS_MAX; i++)
		runs[i] = run(i, 1, 1000 + 2 * i, i % 2);
	cr_assert_eq(nbd_encode_status(&handshake, &request, runs, RUNS_MAX, bytes), sizeof(bytes));
	cr_assert_eq(nbd_encode_status(&handshake, &request, runs, 0, bytes), 0);
}
