/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * answer - judges what came of a request, and tells the model
 *
 * An error has to have a reason: a fault that was injected, a backing or a store without space, a
 * count that is saturated, a cancellation that was asked for. What was said about content has to be
 * what the model knows to be so, as far as it is certain.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "core/format/geometry.h"
#include "tests/swarm/engine/fail.h"
#include "tests/swarm/engine/table.h"
#include "tests/swarm/engine/world.h"

void answer_identify(const struct world *world, const uint8_t *block, uint32_t *ret_ids)
{
	for (unsigned s = 0; s < BLOCK_SECTORS; s++)
		ret_ids[s] = contents_identify(&world->contents, block + s * SECTOR_BYTES, s);
}

/* --- errors --- */

static void tally(int res)
{
	static const int errors[] = {0, EIO, ENOSPC, EMLINK, ECANCELED, EINVAL, EROFS};

	for (unsigned i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
		if (res == -errors[i])
			table_add(DIM_ANSWER, i);
}

/* ENOSPC although nothing else was in flight and there is space: it may have needed a block for
 * each of its own, or only places for leaves. */
static void check_full(const struct client *client)
{
	struct world *world = client->world;
	const struct request *request = &client->request;
	uint64_t regions = request->len_bytes / REGION_BYTES + 2;
	struct volume_stats stats;
	bool data = request->op == REQUEST_WRITE || request->op == REQUEST_ZERO;
	uint64_t needs = regions * 3 * BLOCK_BYTES + (data ? request->len_bytes : 0);

	/* While metadata waits for space, nobody is given any. */
	if (world->disk.full != client->full || world->disk.limit_blocks != DISK_NEVER ||
	    world->life.fault == FAULT_MOVING)
		return;
	volume_stats(world->volume, &stats);
	if (world_provisioned(world) && stats.lost_bytes == 0)
		fail("promised space",
		     "%s %" PRIu64 "+%" PRIu64 ": ENOSPC on a store of %" PRIu64
		     " blocks that was made for %" PRIu64,
		     op_names[client->kind], request->off_bytes, request->len_bytes,
		     world->plan.store_blocks, world->plan.logical_blocks);
	/* Of several destinations a later one may have freed what an earlier one lacked. */
	if (client->kind == OP_CLONE_MANY || client->kind == OP_SAME_MANY)
		return;
	if (client->alone && world->busy == 1 && stats.free_bytes > needs)
		fail("free space",
		     "%s %" PRIu64 "+%" PRIu64 ": ENOSPC with %" PRIu64 " bytes free, %" PRIu64
		     " pending",
		     op_names[client->kind], request->off_bytes, request->len_bytes,
		     stats.free_bytes, stats.pending_bytes);
}

static bool is_excused(const struct client *client, int res)
{
	struct world *world = client->world;
	bool faulty = world->disk.faults > 0;

	switch (-res) {
	case EIO:
		return faulty || world->disk.undecided;
	case ENOSPC:
		check_full(client);
		return true;
	case EMLINK:
		return client->request.op == REQUEST_CLONE || client->request.op == REQUEST_SAME;
	case ECANCELED:
		return client->request.cancel != NULL || client->job.cancel != NULL;
	case EROFS:
		return world->life.read_only;
	default:
		return false;
	}
}

/* A hint that is answered with 0 was taken, but where the backing lacks space. */
static bool may_have_left(const struct client *client)
{
	const struct world *world = client->world;
	const enum fault_kind fault = world->life.fault;

	return client->request.hint &&
	       (client->full || world->disk.full || world->disk.limit_blocks != DISK_NEVER ||
		world->disk.faults > 0 || fault == FAULT_FULL || fault == FAULT_QUOTA ||
		fault == FAULT_MOVING);
}

static enum model_end judge(struct client *client, int res)
{
	const struct request *request = &client->request;

	tally(res);
	if (client->kind == OP_INVALID) {
		if (res == -EINVAL || res == -EIO || res == -EROFS)
			return MODEL_REFUSED;
		fail("refusal",
		     "an invalid request (%d at %" PRIu64 "+%" PRIu64 " from %" PRIu64
		     ") was answered with %d",
		     (int)request->op, request->off_bytes, request->len_bytes,
		     request->src_off_bytes, res);
	}
	if (client->hopeless && res != -EIO && request->op != REQUEST_READ &&
	    request->op != REQUEST_MAP)
		fail("latch", "%s on a latched volume was answered with %d", op_names[client->kind],
		     res);
	if (res == 0)
		return may_have_left(client) ? MODEL_FAILED : MODEL_OK;
	if (!is_excused(client, res))
		fail("error", "%s %" PRIu64 "+%" PRIu64 " was answered with %d (%s)",
		     op_names[client->kind], request->off_bytes, request->len_bytes, res,
		     strerror(-res));
	return res == -EROFS || client->hopeless ? MODEL_REFUSED : MODEL_FAILED;
}

/* --- content --- */

static void check_read(struct client *client)
{
	struct world *world = client->world;
	const struct request *request = &client->request;
	uint32_t ids[BLOCK_SECTORS];
	char text[MODEL_TEXT];

	for (uint64_t at = 0; at < request->len_bytes; at += BLOCK_BYTES) {
		answer_identify(world, client->data + at, ids);
		if (!model_may_read(&world->model, client->op,
				    (request->off_bytes + at) / BLOCK_BYTES, MODEL_ALL, ids, text))
			fail("read", "%s", text);
	}
}

/* All sectors are certain since the event. */
static bool certain(const struct world *world, uint64_t block, uint64_t since, uint32_t *ids)
{
	for (unsigned s = 0; s < BLOCK_SECTORS; s++)
		if (!model_certain(&world->model, block, s, since, &ids[s]))
			return false;
	return true;
}

/* 1: equal, 0: different, -1: not certain. */
static int compare(const struct world *world, uint64_t dst, uint64_t src_bytes, uint64_t at,
		   uint64_t since)
{
	uint32_t a[BLOCK_SECTORS], b[BLOCK_SECTORS] = {0};

	if (!certain(world, dst, since, a))
		return -1;
	if (src_bytes != SAME_SRC_ZERO && !certain(world, (src_bytes + at) / BLOCK_BYTES, since, b))
		return -1;
	return memcmp(a, b, sizeof(a)) == 0;
}

static void check_same(struct world *world, uint32_t op, uint64_t dst_bytes, uint64_t src_bytes,
		       uint64_t len_bytes, const struct same_result *result)
{
	uint64_t since = world->model.ops[op].submitted, at;

	if (result->differs ? result->differs_at_bytes >= len_bytes ||
				      result->deduped_bytes > result->differs_at_bytes
			    : result->deduped_bytes != len_bytes)
		fail("same", "%" PRIu64 " of %" PRIu64 " bytes merged, differs %d at %" PRIu64,
		     result->deduped_bytes, len_bytes, result->differs, result->differs_at_bytes);
	for (at = 0; at < result->deduped_bytes; at += BLOCK_BYTES)
		if (compare(world, (dst_bytes + at) / BLOCK_BYTES, src_bytes, at, since) == 0)
			fail("same", "block %" PRIu64 " was merged, but differs",
			     (dst_bytes + at) / BLOCK_BYTES);
	at = result->differs_at_bytes / BLOCK_BYTES * BLOCK_BYTES;
	if (result->differs &&
	    compare(world, (dst_bytes + at) / BLOCK_BYTES, src_bytes, at, since) == 1)
		fail("same", "block %" PRIu64 " is said to differ, but is equal",
		     (dst_bytes + at) / BLOCK_BYTES);
}

static bool all_zero(const uint32_t *ids)
{
	for (unsigned s = 0; s < BLOCK_SECTORS; s++)
		if (ids[s] != CONTENT_ZERO)
			return false;
	return true;
}

static void check_map(const struct client *client)
{
	struct world *world = client->world;
	const struct request *request = &client->request;
	uint64_t at = request->off_bytes, since = world->model.ops[client->op].submitted;
	uint32_t ids[BLOCK_SECTORS];

	for (uint32_t i = 0; i < request->runs_count; i++) {
		const struct map_run *run = &request->runs[i];
		bool hole = pbn_is_none(run->pbn);

		if (run->off_bytes != at || run->len_bytes == 0 || hole != (run->references == 0))
			fail("map",
			     "a run at %" PRIu64 "+%" PRIu64 " with %" PRIu32
			     " references, expected at %" PRIu64,
			     run->off_bytes, run->len_bytes, run->references, at);
		at += run->len_bytes;
		for (uint64_t b = run->off_bytes; hole && b < at; b += BLOCK_BYTES)
			if (certain(world, b / BLOCK_BYTES, since, ids) && !all_zero(ids))
				fail("map", "block %" PRIu64 " is a hole, but has content",
				     b / BLOCK_BYTES);
	}
	if (at != request->off_bytes + request->mapped_to_bytes ||
	    (at < request->off_bytes + request->len_bytes &&
	     request->runs_count < request->runs_max))
		fail("map", "runs end at %" PRIu64 ", said was %" PRIu64 "+%" PRIu64, at,
		     request->off_bytes, request->mapped_to_bytes);
}

/* A write that changed something after the cut was answered, and before this was asked, is among
 * the changes. */
static void check_changes(struct client *client)
{
	struct world *world = client->world;
	const struct request *request = &client->request;
	uint64_t asked = world->model.ops[client->op].submitted;
	uint32_t r = 0;

	if (!world->plan.tracking)
		return;
	if (client->generation != 0 && client->generation == world->cut.generation) {
		if (!request->complete)
			fail("changes", "what changed since generation %" PRIu32 " is not known",
			     client->generation);
		for (uint32_t i = 0; i < world->model.region_count; i++) {
			const struct model_region *region = world->model.regions[i];
			uint64_t at = (uint64_t)region->region * REGION_BYTES;

			if (region->written <= world->cut.answered || region->written >= asked ||
			    at >= request->mapped_to_bytes)
				continue;
			for (r = 0; r < request->runs_count; r++)
				if (at >= request->runs[r].off_bytes &&
				    at < request->runs[r].off_bytes + request->runs[r].len_bytes)
					break;
			if (r == request->runs_count)
				fail("changes",
				     "region %" PRIu32 " changed since generation %" PRIu32
				     ", and is not told",
				     region->region, client->generation);
		}
	}
	/* Seldom a new one, so that there is something since. */
	if (world->cut.generation == 0 || rng_once_in(&world->rng, 3))
		world->cut = (struct cut){request->generation, world->model.now};
}

/* --- the way back --- */

/* When it changed what reads, at the earliest: just before it was answered, unless it went on
 * afterwards, with other parts or waiting to be durable. */
static uint64_t changed_at(const struct client *client, const struct claim *claim)
{
	const struct model_op *op = &client->world->model.ops[claim->op];
	bool one_part = claim->first / REGION_BLOCKS == (claim->end - 1) / REGION_BLOCKS &&
			client->request.len_bytes <= BLOCK_BYTES;

	return one_part && !client->request.fua && !client->request.lasting ? op->ended
									    : op->submitted;
}

/* A write that succeeded is a change of its regions. */
static void note_written(struct client *client, const struct claim *claim)
{
	struct model *model = &client->world->model;

	if (client->kind != OP_WRITE && client->kind != OP_WRITE_POOL)
		return;
	for (uint64_t r = claim->first / REGION_BLOCKS; r * REGION_BLOCKS < claim->end; r++) {
		struct model_region *region = model_region(model, (uint32_t)r);

		if (changed_at(client, claim) > region->written)
			region->written = changed_at(client, claim);
	}
}

static void leave(struct client *client, const struct claim *claim)
{
	for (uint64_t block = claim->first; block < claim->end; block++)
		model_leave(&client->world->model, block);
	if (client->world->model.ops[claim->op].end == MODEL_OK)
		note_written(client, claim);
}

static void set_free(struct client *client)
{
	client->world->moves = 0;
	client->busy = false;
	client->world->busy--;
}

static void check(struct client *client)
{
	struct world *world = client->world;
	struct request *request = &client->request;

	switch (request->op) {
	case REQUEST_READ:
		check_read(client);
		break;
	case REQUEST_SAME:
		check_same(world, client->op, request->off_bytes, request->src_off_bytes,
			   request->len_bytes, &request->same);
		break;
	case REQUEST_MAP:
		check_map(client);
		break;
	case REQUEST_CHANGES:
		check_changes(client);
		break;
	case REQUEST_FLUSH:
		model_flushed(&world->model, client->op);
		break;
	default:
		break;
	}
}

void answer(struct request *request, int res)
{
	struct client *client = request->context;
	struct world *world = client->world;
	enum model_end end;

	if (!client->busy)
		fail("answer", "%s was answered twice", op_names[client->kind]);
	if (request->op == REQUEST_READ && request->data == client->brought)
		memcpy(client->data, client->brought, request->len_bytes);
	end = judge(client, res);
	world->last_res = res;
	model_end(&world->model, client->op, end);
	trace("@%" PRIu64 " %d to %s@%" PRIu64, world->model.now, res, op_names[client->kind],
	      world->model.ops[client->op].submitted);
	for (uint32_t i = 0; i < client->claim_count; i++)
		leave(client, &client->claims[i]);
	world->freed_bytes += request->same.freed_bytes;
	if (end == MODEL_OK)
		check(client);
	set_free(client);
}

void answer_job(struct same_job *job, int res)
{
	struct client *client = job->context;
	struct world *world = client->world;

	trace("@%" PRIu64 " %d to %s@%" PRIu64, world->model.now, res, op_names[client->kind],
	      world->model.ops[client->op].submitted);
	judge(client, res);
	model_end(&world->model, client->op, MODEL_OK);
	for (uint32_t i = 0; i < client->claim_count; i++) {
		const struct same_dst *dst = &client->dsts[i];
		const struct claim *claim = &client->claims[i];
		/* sync is a flush at the end: what failed there was not made durable. */
		enum model_end end = judge(client, dst->error);

		model_end(&world->model, claim->op,
			  end == MODEL_OK && res < 0 ? MODEL_FAILED : end);
		leave(client, claim);
		world->freed_bytes += dst->result.freed_bytes;
		if (end == MODEL_OK && res == 0 && !job->clone)
			check_same(world, claim->op, dst->off_bytes, job->src_off_bytes,
				   job->len_bytes, &dst->result);
	}
	set_free(client);
}
