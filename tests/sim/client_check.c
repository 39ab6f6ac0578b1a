/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/sim/client_check.h"

#include <inttypes.h>
#include <string.h>

#include "tests/sim/report.h"

void client_check_read(struct client *client)
{
	struct world *world = client->world;
	const struct request *request = &client->request;
	char text[ORACLE_TEXT];

	for (uint64_t at = 0; at < request->len_bytes; at += SECTOR_BYTES) {
		uint64_t sector = (request->off_bytes + at) / SECTOR_BYTES;
		uint32_t id = contents_identify(&world->contents, client->data + at,
						sector % BLOCK_SECTORS);

		if (!oracle_read(&world->oracle, client->op, sector / BLOCK_SECTORS,
				 sector % BLOCK_SECTORS, id, text))
			sim_fail("%s", text);
	}
}

/* Every sector is certain since the event: the ids. */
static bool block_certain(const struct world *world, uint64_t block, uint64_t since, uint32_t *ids)
{
	for (unsigned s = 0; s < BLOCK_SECTORS; s++)
		if (!oracle_certain(&world->oracle, block, s, since, &ids[s]))
			return false;
	return true;
}

static bool ids_zero(const uint32_t *ids)
{
	for (unsigned s = 0; s < BLOCK_SECTORS; s++)
		if (ids[s] != CONTENT_ZERO)
			return false;
	return true;
}

void client_check_map(struct client *client)
{
	struct world *world = client->world;
	const struct request *request = &client->request;
	uint64_t at = request->off_bytes, since = world->oracle.ops[client->op].submitted;
	uint32_t ids[BLOCK_SECTORS];

	for (uint32_t i = 0; i < request->runs_count; i++) {
		const struct map_run *run = &request->runs[i];
		bool hole = pbn_is_none(run->pbn);

		if (run->off_bytes != at || run->len_bytes == 0)
			sim_fail("map: a run at %" PRIu64 ", expected at %" PRIu64, run->off_bytes,
				 at);
		if (hole != (run->references == 0))
			sim_fail("map: a %s with %" PRIu32 " references", hole ? "hole" : "block",
				 run->references);
		at += run->len_bytes;
		for (uint64_t b = run->off_bytes; hole && b < at; b += BLOCK_BYTES)
			if (block_certain(world, b / BLOCK_BYTES, since, ids) && !ids_zero(ids))
				sim_fail("map: block %" PRIu64 " is a hole but has content",
					 b / BLOCK_BYTES);
	}
	if (at != request->off_bytes + request->mapped_to_bytes ||
	    (at < request->off_bytes + request->len_bytes &&
	     request->runs_count < request->runs_max))
		sim_fail("map: runs end at %" PRIu64 ", said %" PRIu64 " of %" PRIu64, at,
			 request->off_bytes + request->mapped_to_bytes,
			 request->off_bytes + request->len_bytes);
}

void client_check_changes(struct client *client)
{
	struct world *world = client->world;
	const struct scan *scan = &world->scans.each[client->scan];
	uint64_t since = world->oracle.ops[client->op].submitted;
	uint32_t ids[BLOCK_SECTORS];

	/* Another scan may have taken its place meanwhile. */
	if (scan->generation == 0 || scan->generation != client->request.since)
		return;
	if (!client->request.complete)
		sim_fail("changes since generation %" PRIu32 " are not known at %" PRIu32,
			 client->request.since, client->request.generation);
	for (uint64_t block = scan->first; block < scan->first + scan->blocks; block++)
		if (scans_unchanged(&client->request, block) &&
		    block_certain(world, block, since, ids))
			scans_compare(scan, block, ids);
}

/* 1: certainly equal, 0: certainly not, -1: not certain. */
static int certainly_equal(const struct world *world, uint64_t dst, uint64_t src_bytes, uint64_t at,
			   uint64_t since)
{
	uint32_t dst_ids[BLOCK_SECTORS], src_ids[BLOCK_SECTORS] = {0};

	if (!block_certain(world, dst, since, dst_ids))
		return -1;
	if (src_bytes != SAME_SRC_ZERO &&
	    !block_certain(world, (src_bytes + at) / BLOCK_BYTES, since, src_ids))
		return -1;
	return memcmp(dst_ids, src_ids, sizeof(dst_ids)) == 0;
}

void client_check_same(struct world *world, uint32_t op, uint64_t dst_bytes, uint64_t src_bytes,
		       uint64_t len_bytes, const struct same_result *result)
{
	uint64_t since = world->oracle.ops[op].submitted;

	if (!result->differs && result->deduped_bytes != len_bytes)
		sim_fail("same: %" PRIu64 " of %" PRIu64 " bytes", result->deduped_bytes,
			 len_bytes);
	if (result->differs && (result->differs_at_bytes >= len_bytes ||
				result->deduped_bytes > result->differs_at_bytes))
		sim_fail("same: differs at %" PRIu64 " of %" PRIu64 " after %" PRIu64,
			 result->differs_at_bytes, len_bytes, result->deduped_bytes);
	for (uint64_t at = 0; at < result->deduped_bytes; at += BLOCK_BYTES)
		if (certainly_equal(world, (dst_bytes + at) / BLOCK_BYTES, src_bytes, at, since) ==
		    0)
			sim_fail("same: merged block %" PRIu64 ", which differs",
				 (dst_bytes + at) / BLOCK_BYTES);
	if (result->differs) {
		uint64_t at = result->differs_at_bytes / BLOCK_BYTES * BLOCK_BYTES;

		if (certainly_equal(world, (dst_bytes + at) / BLOCK_BYTES, src_bytes, at, since) ==
		    1)
			sim_fail("same: block %" PRIu64 " is said to differ but is equal",
				 (dst_bytes + at) / BLOCK_BYTES);
	}
}

void client_check_full(struct client *client)
{
	struct volume_stats stats;

	if (client->world->busy > 1)
		return;
	volume_stats(client->world->volume, &stats);
	/* It may have needed a block for each of its own, cut ones too, and a place for a leaf. */
	if (stats.free_bytes + stats.pending_bytes > client->request.len_bytes + 3 * BLOCK_BYTES)
		sim_fail("ENOSPC with %" PRIu64 " bytes free and %" PRIu64 " pending",
			 stats.free_bytes, stats.pending_bytes);
}

void client_tell_shared(struct world *world, uint32_t op, uint64_t dst_bytes, uint64_t src_bytes,
			uint64_t len_bytes)
{
	uint64_t since = world->oracle.ops[op].submitted;
	uint32_t ids[BLOCK_SECTORS];

	for (uint64_t at = 0; at < len_bytes; at += BLOCK_BYTES) {
		uint64_t dst = (dst_bytes + at) / BLOCK_BYTES;

		/* Zeros may be a hole on either side. */
		if (block_certain(world, dst, since, ids) && !ids_zero(ids))
			oracle_is_shared(&world->oracle, op, dst, (src_bytes + at) / BLOCK_BYTES);
	}
}
