/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * quiet - with nothing in flight: everything is counted from the whole map, and has to be what the
 * volume says
 *
 * Owners counted = references; no place without blocks; mapped, used, shared and saved are exact;
 * used, free, pending and metadata make up the store; a merge frees what it says; what the model
 * knows is what is read.
 * At the end of a world every free block is used once, and when all is discarded nothing is left.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli/check/check.h"
#include "core/volume/volume_internal.h"
#include "tests/swarm/engine/fail.h"
#include "tests/swarm/engine/table.h"
#include "tests/swarm/engine/world.h"

#define FILL_STORE_MAX 16384u /* blocks; larger stores are not filled up */
#define FILL_PIECE     96u
#define TICKS	       4u

/* --- check --- */

static int check_read(void *context, uint64_t off_bytes, void *buf, size_t len_bytes)
{
	disk_read(context, off_bytes, buf, len_bytes);
	return 0;
}

void quiet_check(struct world *world, const char *when)
{
	struct check_source source = {
		.context = &world->disk,
		.size_bytes = world->disk.store.size_bytes,
		.read = check_read,
	};
	struct check_report report;
	int r;

	/* It walks all regions, one by one. */
	if (world->plan.size >= SIZE_LARGE)
		return;
	r = check_store(&source, false, &report);
	if (r < 0)
		fail("check", "%s: %d", when, r);
	if (report.findings_total > 0)
		fail("check", "%s: %" PRIu64 " findings, the first at %s: expected %s, found %s",
		     when, report.findings_total, report.findings[0].where,
		     report.findings[0].expected, report.findings[0].found);
	check_report_done(&report);
	table_add(DIM_LOOK, 2);
}

/* --- coming to rest --- */

static void flush(struct world *world)
{
	struct request request = {.op = REQUEST_FLUSH};
	int r = read_request(world, &request);

	if (r < 0)
		fail("quiet", "a flush: %d", r);
}

/* Everything is durable, settled and given back. */
static void rest(struct world *world)
{
	struct volume *volume = world->volume;

	world_drain(world);
	flush(world);
	for (unsigned i = 0; i < TICKS; i++) {
		volume_tick(volume, &world->workers[0]);
		world_settle(world);
		volume_checkpoint(volume, &world->workers[0]);
		world_settle(world);
	}
}

/* --- counting --- */

struct tally {
	uint16_t *owners; /* by block of the store */
	uint16_t *references;
	uint64_t mapped;
	uint64_t used;
	uint64_t shared;
};

static void tally_run(struct world *world, struct tally *tally, const struct map_run *run)
{
	uint64_t blocks = run->len_bytes / BLOCK_BYTES, lbn = run->off_bytes / BLOCK_BYTES;

	if (pbn_is_none(run->pbn))
		return;
	for (uint64_t i = 0; i < blocks; i++) {
		uint64_t pbn = run->pbn.v + i;
		const struct model_region *region =
			model_region(&world->model, (uint32_t)((lbn + i) / REGION_BLOCKS));

		if (region->blocks[(lbn + i) % REGION_BLOCKS].count == 0)
			fail("map", "block %" PRIu64 " is mapped, and was never written", lbn + i);
		if (pbn >= world->plan.store_blocks)
			fail("map", "block %" PRIu64 " lies at %" PRIu64, lbn + i, pbn);
		tally->owners[pbn]++;
		tally->references[pbn] = (uint16_t)run->references;
	}
	tally->mapped += blocks;
}

/* A place is of no use to a region without blocks. */
static void check_place(struct world *world, uint32_t region)
{
	struct volume *volume = world->volume;
	pbn_t place;

	pthread_mutex_lock(&volume->metadata->lock);
	place = map_entry(&volume->metadata->map, region).place;
	pthread_mutex_unlock(&volume->metadata->lock);
	if (!pbn_is_none(place))
		fail("idle place", "region %" PRIu32 " has no block, and a place at %" PRIu64,
		     region, place.v);
}

/* What is kept for runs without a place is all there. */
static void check_kept(struct world *world)
{
	struct volume *volume = world->volume;
	uint64_t unplaced = 0, said, free, taken;

	pthread_mutex_lock(&volume->metadata->lock);
	for (uint32_t i = 0; i < world->model.region_count; i++)
		unplaced +=
			map_is_unplaced(&volume->metadata->map, world->model.regions[i]->region);
	said = volume->metadata->map.unplaced;
	free = metadata_free_blocks(volume->metadata);
	taken = volume->metadata->kept_taken;
	pthread_mutex_unlock(&volume->metadata->lock);
	if (said != unplaced || taken != 0 || free < PLACE_BLOCKS * unplaced)
		fail("kept space",
		     "%" PRIu64 " runs have no place, %" PRIu64 " are counted; %" PRIu64
		     " blocks are free, %" PRIu64 " of the kept ones taken",
		     unplaced, said, free, taken);
	if (unplaced > 0)
		table_add(DIM_LOOK, 9);
}

static void tally_region(struct world *world, struct tally *tally, uint32_t region)
{
	uint64_t at = (uint64_t)region * REGION_BYTES, mapped = tally->mapped;
	uint64_t end = min_u64(at + REGION_BYTES, blocks_to_bytes(world->plan.logical_blocks));
	struct map_run runs[RUNS_MAX];

	while (at < end) {
		struct request request = {
			.op = REQUEST_MAP,
			.off_bytes = at,
			.len_bytes = end - at,
			.runs = runs,
			.runs_max = RUNS_MAX,
		};
		int r = read_request(world, &request);

		if (r < 0 || request.runs_count == 0)
			fail("map", "%d, %" PRIu32 " runs of region %" PRIu32, r,
			     request.runs_count, region);
		for (uint32_t i = 0; i < request.runs_count; i++)
			tally_run(world, tally, &runs[i]);
		at += request.mapped_to_bytes;
	}
	if (tally->mapped == mapped)
		check_place(world, region);
}

static void expect(const char *what, uint64_t expected, uint64_t found)
{
	if (expected != found)
		fail("counted", "%s: counted %" PRIu64 " bytes, said %" PRIu64, what, expected,
		     found);
}

static void count_owners(struct world *world)
{
	struct tally tally = {
		.owners = calloc(world->plan.store_blocks, sizeof(uint16_t)),
		.references = calloc(world->plan.store_blocks, sizeof(uint16_t)),
	};
	struct volume_stats stats;

	assert(tally.owners && tally.references);
	for (uint32_t i = 0; i < world->model.region_count; i++)
		tally_region(world, &tally, world->model.regions[i]->region);
	for (uint64_t pbn = 0; pbn < world->plan.store_blocks; pbn++) {
		if (tally.owners[pbn] != tally.references[pbn])
			fail("references",
			     "block %" PRIu64 " of the store has %" PRIu16 " owners, and %" PRIu16
			     " references",
			     pbn, tally.owners[pbn], tally.references[pbn]);
		tally.used += tally.owners[pbn] > 0;
		tally.shared += tally.owners[pbn] > 1 ? tally.owners[pbn] : 0;
	}
	free(tally.owners);
	free(tally.references);
	check_kept(world);
	volume_stats(world->volume, &stats);
	expect("mapped", blocks_to_bytes(tally.mapped), stats.mapped_bytes);
	expect("used", blocks_to_bytes(tally.used), stats.used_bytes);
	expect("shared", blocks_to_bytes(tally.shared), stats.shared_bytes);
	expect("saved", blocks_to_bytes(tally.mapped - tally.used), stats.saved_bytes);
	expect("pending", 0, stats.pending_bytes);
	expect("all together",
	       stats.used_bytes + stats.free_bytes + stats.pending_bytes + stats.metadata_bytes +
		       stats.lost_bytes,
	       stats.store_bytes);
}

/* --- content --- */

static void check_block(struct world *world, void *context, uint64_t block, const uint32_t *ids)
{
	char text[MODEL_TEXT];

	if (!model_may_read(&world->model, *(const uint32_t *)context, block, MODEL_ALL, ids, text))
		fail("read", "at rest: %s", text);
}

static void check_content(struct world *world)
{
	uint32_t op = model_begin(&world->model, "read at rest", false, false);

	read_touched(world, check_block, &op);
	model_end(&world->model, op, MODEL_OK);
}

/* --- what a merge frees --- */

static void probe_merge(struct world *world)
{
	uint64_t src = ask_block(world), dst = ask_block(world);
	struct volume_stats before, after;
	struct request request = {
		.op = REQUEST_SAME,
		.scratch = world->clients[0].scratch,
		.len_bytes = BLOCK_BYTES * (1 + rng_below(&world->rng, 3)),
		.off_bytes = blocks_to_bytes(dst),
		.src_off_bytes = blocks_to_bytes(src),
	};
	uint64_t end = blocks_to_bytes(world->plan.logical_blocks);
	int r;

	if (request.off_bytes + request.len_bytes > end ||
	    request.src_off_bytes + request.len_bytes > end || (src < dst + 3 && dst < src + 3))
		return;
	volume_stats(world->volume, &before);
	r = read_request(world, &request);
	if (r < 0 && r != -ENOSPC && r != -EMLINK)
		fail("merge", "%d", r);
	volume_stats(world->volume, &after);
	if (before.used_bytes - after.used_bytes != request.same.freed_bytes)
		fail("merge", "%" PRIu64 " bytes are said to be freed, used fell by %" PRId64,
		     request.same.freed_bytes, (int64_t)(before.used_bytes - after.used_bytes));
	table_add(DIM_LOOK, 6);
}

void quiet(struct world *world)
{
	world_drain(world);
	if (world_latched(world))
		return;
	rest(world);
	check_content(world);
	count_owners(world);
	for (unsigned i = 0; i < 8; i++)
		probe_merge(world);
	rest(world);
	count_owners(world);
	table_add(DIM_LOOK, 3);
}

/* --- the end --- */

/* Every block of the volume is written, until the store is full: that there is no space has to be
 * so (answer.c). */
static void fill_up(struct world *world)
{
	uint64_t blocks = world->plan.logical_blocks;

	if (world->plan.store_blocks > FILL_STORE_MAX)
		return;
	for (uint64_t at = 0; at < blocks && at < 2 * FILL_STORE_MAX; at += FILL_PIECE) {
		struct client *client = world_client(world);
		uint64_t n = min_u64(FILL_PIECE, blocks - at);
		int full;

		ask_at(client, OP_WRITE, at, n, 0);
		world_drain(world);
		full = world->last_res;
		if (full == 0)
			continue;
		for (uint64_t i = 0; i < n && world->last_res == 0; i++) {
			ask_at(client, OP_WRITE, at + i, 1, 0);
			world_drain(world);
		}
	}
	table_add(DIM_LOOK, 4);
}

static void discard(struct world *world, uint64_t off_bytes, uint64_t len_bytes)
{
	struct request request = {
		.op = REQUEST_DISCARD,
		.off_bytes = off_bytes,
		.len_bytes = len_bytes,
	};
	int r = read_request(world, &request);

	if (r < 0)
		fail("emptying", "a discard at %" PRIu64 "+%" PRIu64 ": %d", off_bytes, len_bytes,
		     r);
}

static void discard_all(struct world *world)
{
	uint64_t end = blocks_to_bytes(world->plan.logical_blocks);

	if (world->plan.size < SIZE_LARGE && rng_once_in(&world->rng, 2)) {
		discard(world, 0, end);
		return;
	}
	for (uint32_t i = 0; i < world->model.region_count; i++) {
		uint64_t at = (uint64_t)world->model.regions[i]->region * REGION_BYTES;

		discard(world, at, min_u64(REGION_BYTES, end - at));
	}
}

static bool is_data(const void *context, uint64_t block)
{
	return geometry_is_data(context, (pbn_t){block});
}

void quiet_end(struct world *world)
{
	const struct volume_stats *empty = &world->empty;
	struct volume_stats stats;
	uint64_t kept;

	fill_up(world);
	rest(world);
	discard_all(world);
	rest(world);
	volume_stats(world->volume, &stats);
	if (stats.mapped_bytes || stats.used_bytes || stats.shared_bytes || stats.pending_bytes)
		fail("leak",
		     "all was discarded: mapped %" PRIu64 ", used %" PRIu64 ", shared %" PRIu64
		     ", pending %" PRIu64,
		     stats.mapped_bytes, stats.used_bytes, stats.shared_bytes, stats.pending_bytes);
	if (stats.metadata_bytes != empty->metadata_bytes)
		fail("leak of places",
		     "all was discarded: metadata %" PRIu64 ", of an empty volume %" PRIu64,
		     stats.metadata_bytes, empty->metadata_bytes);
	if (stats.free_bytes != empty->free_bytes)
		fail("leak", "all was discarded: free %" PRIu64 ", of an empty volume %" PRIu64,
		     stats.free_bytes, empty->free_bytes);
	kept = disk_count(&world->disk, is_data, &world->volume->metadata->super.geometry);
	if (kept > 0 && !world->leaky)
		fail("leak of the backing",
		     "all was discarded: %" PRIu64 " data blocks are still allocated", kept);
	table_add(DIM_LOOK, 5);
}
