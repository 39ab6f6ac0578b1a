/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * client - makes requests up, tells the oracle, checks the answers
 *
 * client_submit() chooses a range, client_submit_at() takes one; both end in send(), which tells
 * the oracle before the engine sees the request. done() is the only way back.
 */
#include "tests/sim/world.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tests/sim/client_check.h"
#include "tests/sim/report.h"

#define POOL_VARIANTS 3u
#define POOL_PERIOD   4u
#define SAME_TRIES    24u

static const char *const names[OP_KINDS] = {
	[OP_READ] = "read",
	[OP_WRITE] = "write",
	[OP_WRITE_POOL] = "write pool",
	[OP_WRITE_SUB] = "write sectors",
	[OP_WRITE_BYTES] = "write bytes",
	[OP_ZERO] = "zero",
	[OP_ZERO_KEEP] = "zero, keep",
	[OP_ZERO_SUB] = "zero sectors",
	[OP_DISCARD] = "discard",
	[OP_DISCARD_SUB] = "discard sectors",
	[OP_FLUSH] = "flush",
	[OP_SAME] = "same",
	[OP_SAME_ZERO] = "same zero",
	[OP_SAME_MANY] = "same job",
	[OP_CLONE] = "clone",
	[OP_MAP] = "map",
	[OP_CHANGES] = "changes",
	[OP_INVALID] = "invalid",
};

static const enum request_op request_ops[OP_KINDS] = {
	[OP_READ] = REQUEST_READ,	  [OP_WRITE] = REQUEST_WRITE,
	[OP_WRITE_POOL] = REQUEST_WRITE,  [OP_WRITE_SUB] = REQUEST_WRITE,
	[OP_WRITE_BYTES] = REQUEST_WRITE, [OP_ZERO] = REQUEST_ZERO,
	[OP_ZERO_KEEP] = REQUEST_ZERO,	  [OP_ZERO_SUB] = REQUEST_ZERO,
	[OP_DISCARD] = REQUEST_DISCARD,	  [OP_DISCARD_SUB] = REQUEST_DISCARD,
	[OP_FLUSH] = REQUEST_FLUSH,	  [OP_SAME] = REQUEST_SAME,
	[OP_SAME_ZERO] = REQUEST_SAME,	  [OP_CLONE] = REQUEST_CLONE,
	[OP_MAP] = REQUEST_MAP,		  [OP_CHANGES] = REQUEST_CHANGES,
};

static uint64_t volume_bytes(const struct world *world)
{
	return blocks_to_bytes(world->scenario.logical_blocks);
}

/* --- telling the oracle --- */

/* Each sector that the range touches at all gets an id: of the block, or of one sector alone. */
static void tell_write(struct client *client, const uint32_t *ids)
{
	struct request *request = &client->request;
	uint64_t first = request->off_bytes / SECTOR_BYTES;
	uint64_t end = div_up(request->off_bytes + request->len_bytes, SECTOR_BYTES);

	for (uint64_t sector = first; sector < end; sector++)
		oracle_writes(&client->world->oracle, client->op, sector / BLOCK_SECTORS,
			      sector % BLOCK_SECTORS, ids[sector - first]);
	client->first = first / BLOCK_SECTORS;
	client->end = div_up(end, BLOCK_SECTORS);
}

/* Whole blocks become holes; for zeroing, the ends are written. */
static void tell_unmap(struct client *client)
{
	struct oracle *oracle = &client->world->oracle;
	struct request *request = &client->request;
	uint64_t begin = request->off_bytes, end = begin + request->len_bytes;
	uint64_t first = div_up(begin, BLOCK_BYTES), last = end / BLOCK_BYTES;

	if (request->op == REQUEST_ZERO) {
		client->first = begin / BLOCK_BYTES;
		client->end = div_up(end, BLOCK_BYTES);
	} else {
		client->first = first;
		client->end = last > first ? last : first;
	}
	for (uint64_t block = client->first; block < client->end; block++) {
		if (block >= first && block < last && !request->no_hole) {
			oracle_punches(oracle, client->op, block);
			continue;
		}
		for (unsigned s = 0; s < BLOCK_SECTORS; s++) {
			uint64_t at = blocks_to_bytes(block) + s * SECTOR_BYTES;

			if (at + SECTOR_BYTES > begin && at < end)
				oracle_writes(oracle, client->op, block, s, CONTENT_ZERO);
		}
	}
}

static void tell_clone(struct oracle *oracle, uint32_t op, uint64_t dst_bytes, uint64_t src_bytes,
		       uint64_t len_bytes)
{
	for (uint64_t at = 0; at < len_bytes; at += BLOCK_BYTES)
		oracle_clones(oracle, op, (dst_bytes + at) / BLOCK_BYTES,
			      (src_bytes + at) / BLOCK_BYTES);
}

static void enter(struct client *client, bool merge)
{
	for (uint64_t block = client->first; block < client->end; block++)
		oracle_enter(&client->world->oracle, client->op, block, merge);
	client->entered = true;
}

/* --- the way back --- */

static enum oracle_result judge(struct client *client, int res)
{
	struct world *world = client->world;

	if (client->kind == OP_INVALID) {
		if (res == -EINVAL || (world->latched && res == -EIO))
			return ORACLE_REFUSED;
		sim_fail("an invalid request (op %d at %" PRIu64 "+%" PRIu64 ", source %" PRIu64
			 ") was answered with %d",
			 client->request.op, client->request.off_bytes, client->request.len_bytes,
			 client->request.src_off_bytes, res);
	}
	if (client->hopeless && res != -EIO)
		sim_fail("%s on a latched volume was answered with %d", names[client->kind], res);
	if (res == 0)
		return ORACLE_OK;
	world->failures++;
	if (res == -ENOSPC && (world->scenario.may_fill || world->faulty)) {
		world->enospc++;
		if (!world->faulty)
			client_check_full(client);
		return ORACLE_FAILED;
	}
	if (res == -EIO && world->faulty)
		return ORACLE_FAILED;
	sim_fail("%s %" PRIu64 "+%" PRIu64 " was answered with %d", names[client->kind],
		 client->request.off_bytes, client->request.len_bytes, res);
}

static void free_client(struct client *client)
{
	struct world *world = client->world;

	if (client->kind == OP_WRITE_BYTES)
		world->solo = false;
	world->answers[client->kind]++;
	world->busy--;
	client->busy = false;
}

/* What the blocks certainly are now. */
static void tell_outcome(struct client *client)
{
	struct oracle *oracle = &client->world->oracle;
	struct request *request = &client->request;
	uint64_t begin = div_up(request->off_bytes, BLOCK_BYTES);
	uint64_t end = (request->off_bytes + request->len_bytes) / BLOCK_BYTES;

	if ((request->op == REQUEST_ZERO && !request->no_hole) || request->op == REQUEST_DISCARD)
		for (uint64_t block = begin; block < end; block++)
			oracle_is_hole(oracle, client->op, block);
	if (request->op == REQUEST_CLONE)
		client_tell_shared(client->world, client->op, request->off_bytes,
				   request->src_off_bytes, request->len_bytes);
	if (request->op != REQUEST_SAME)
		return;
	for (uint64_t at = 0; at < request->same.deduped_bytes; at += BLOCK_BYTES)
		if (request->src_off_bytes == SAME_SRC_ZERO)
			oracle_is_hole(oracle, client->op, (request->off_bytes + at) / BLOCK_BYTES);
	if (request->src_off_bytes != SAME_SRC_ZERO)
		client_tell_shared(client->world, client->op, request->off_bytes,
				   request->src_off_bytes, request->same.deduped_bytes);
}

static uint64_t random_block(struct world *world);

/* After the cut, a part of the volume is read. */
static void scan(struct client *client, uint32_t generation)
{
	struct world *world = client->world;
	uint64_t block = random_block(world);

	block -= (block - world->scenario.start) % world->scenario.zone_gap;
	client->generation = generation;
	client_submit_at(client, OP_READ, block, world->scenario.window, 0);
}

static void keep_scan(struct client *client)
{
	struct request *request = &client->request;
	uint32_t sectors = (uint32_t)(request->len_bytes / SECTOR_BYTES);
	uint32_t *ids = scans_add(&client->world->scans, client->generation,
				  request->off_bytes / BLOCK_BYTES, sectors / BLOCK_SECTORS);

	for (uint32_t i = 0; i < sectors; i++)
		ids[i] = contents_identify(&client->world->contents,
					   client->data + (size_t)i * SECTOR_BYTES,
					   i % BLOCK_SECTORS);
	client->world->oracle.tightened++; /* images seen before have to be looked at again */
}

static int bring(struct request *request)
{
	const struct client *client = request->context;

	if (request->op == REQUEST_WRITE)
		memcpy(client->brought, client->data, request->len_bytes);
	request->data = client->brought;
	return 0;
}

/* The payload is out of the engine's reach, but in the store's. */
static void make_foreign(struct client *client)
{
	struct request *request = &client->request;
	struct world *world = client->world;

	if (!world->sim.store.reaches_foreign || request->data != client->data ||
	    (request->op != REQUEST_READ && request->op != REQUEST_WRITE) ||
	    rng_once_in(&world->rng, 3))
		return;
	request->data = NULL;
	request->foreign = (uint32_t)(client - world->clients) + 1;
	request->bring_bytes = bring;
}

/* As a front end does with what was read. */
static void carry_back(const struct client *client)
{
	const struct request *request = &client->request;

	if (request->op == REQUEST_READ && request->data == client->brought)
		memcpy(client->data, client->brought, request->len_bytes);
}

static void done(struct request *request, int res)
{
	struct client *client = request->context;
	struct oracle *oracle = &client->world->oracle;
	enum oracle_result result;

	if (!client->busy)
		sim_fail("%s was answered twice", names[client->kind]);
	carry_back(client);
	result = judge(client, res);
	oracle_end(oracle, client->op, result);
	sim_trace("@%" PRIu64 " answer %d to %s@%" PRIu64, oracle->now, res,
		  oracle->ops[client->op].what, oracle->ops[client->op].submitted);
	for (uint64_t block = client->first; client->entered && block < client->end; block++)
		oracle_leave(oracle, block);
	if (result == ORACLE_OK) {
		if (request->op == REQUEST_FLUSH)
			oracle_flushed(oracle, client->op);
		if (request->op == REQUEST_READ)
			client_check_read(client);
		if (request->op == REQUEST_READ && client->generation != 0)
			keep_scan(client);
		if (request->op == REQUEST_CHANGES)
			client_check_changes(client);
		if (request->op == REQUEST_MAP)
			client_check_map(client);
		if (request->op == REQUEST_SAME)
			client_check_same(client->world, client->op, request->off_bytes,
					  request->src_off_bytes, request->len_bytes,
					  &request->same);
		tell_outcome(client);
	}
	client->generation = 0;
	free_client(client);
	if (request->op == REQUEST_CHANGES && result == ORACLE_OK && request->generation > 0)
		scan(client, request->generation);
}

static void job_done(struct same_job *job, int res)
{
	struct client *client = job->context;
	struct oracle *oracle = &client->world->oracle;

	if (res < 0 || !client->hopeless)
		judge(client, res);
	for (uint32_t i = 0; i < job->dst_count; i++) {
		struct same_dst *dst = &job->dsts[i];
		uint64_t first = dst->off_bytes / BLOCK_BYTES;
		uint32_t op = client->dst_ops[i];
		enum oracle_result result = res < 0 ? ORACLE_FAILED : judge(client, dst->error);

		oracle_end(oracle, op, result);
		for (uint64_t at = 0; at < job->len_bytes; at += BLOCK_BYTES)
			oracle_leave(oracle, first + at / BLOCK_BYTES);
	}
	for (uint32_t i = 0; i < job->dst_count && res == 0; i++) {
		struct same_dst *dst = &job->dsts[i];

		if (dst->error != 0)
			continue;
		if (!job->clone)
			client_check_same(client->world, client->dst_ops[i], dst->off_bytes,
					  job->src_off_bytes, job->len_bytes, &dst->result);
		client_tell_shared(client->world, client->dst_ops[i], dst->off_bytes,
				   job->src_off_bytes,
				   job->clone ? job->len_bytes : dst->result.deduped_bytes);
	}
	free_client(client);
}

/* --- submitting --- */

static struct client *begin(struct client *client, enum op_kind kind, uint64_t off_bytes,
			    uint64_t len_bytes)
{
	struct world *world = client->world;
	uint32_t worker = rng_below(&world->rng, world->scenario.workers);
	char what[56];

	assert(!client->busy);
	assert(kind == OP_INVALID || off_bytes + len_bytes <= volume_bytes(world));
	client->kind = kind;
	client->entered = false;
	client->hopeless = world->latched && kind != OP_READ && kind != OP_MAP;
	client->request = (struct request){
		.op = request_ops[kind],
		.off_bytes = off_bytes,
		.len_bytes = len_bytes,
		.data = request_ops[kind] == REQUEST_READ || request_ops[kind] == REQUEST_WRITE
				? client->data
				: NULL,
		.scratch = client->scratch,
		.runs = client->runs,
		.runs_max = sizeof(client->runs) / sizeof(client->runs[0]),
		.volume = world->volume,
		.worker = &world->workers[worker],
		.done = done,
		.context = client,
	};
	client->request.fua = kind != OP_READ && kind != OP_FLUSH && kind != OP_MAP &&
			      kind != OP_CHANGES &&
			      rng_below(&world->rng, 100) < world->scenario.fua_percent;
	snprintf(what, sizeof(what), "%s %" PRIu64 "+%" PRIu64 "%s", names[kind],
		 off_bytes / SECTOR_BYTES, len_bytes / SECTOR_BYTES,
		 client->request.fua ? " fua" : "");
	if (kind != OP_SAME_MANY)
		client->op = oracle_begin(&world->oracle, client->request.fua, what);
	return client;
}

static void send(struct client *client)
{
	client->busy = true;
	client->world->busy++;
	sim_where.doing = names[client->kind];
	sim_trace("@%" PRIu64 " submit %s, worker %u, source %" PRIu64,
		  client->world->oracle.ops[client->op].submitted,
		  client->world->oracle.ops[client->op].what, client->request.worker->lane,
		  client->request.src_off_bytes / SECTOR_BYTES);
	make_foreign(client);
	request_submit(&client->request);
}

static void submit_write(struct client *client, const uint32_t *ids)
{
	struct request *request = &client->request;
	uint64_t first = request->off_bytes / SECTOR_BYTES;

	for (uint64_t at = 0; at < request->len_bytes; at += SECTOR_BYTES)
		contents_get(&client->world->contents, ids[at / SECTOR_BYTES],
			     (first + at / SECTOR_BYTES) % BLOCK_SECTORS, client->data + at);
	tell_write(client, ids);
	enter(client, false);
	send(client);
}

/* One id a block, or for writes of sectors one for all of them. */
static void submit_write_ids(struct client *client, enum op_kind kind)
{
	struct world *world = client->world;
	uint64_t first = client->request.off_bytes / SECTOR_BYTES;
	uint64_t count = client->request.len_bytes / SECTOR_BYTES;
	uint32_t variant = rng_below(&world->rng, POOL_VARIANTS);
	uint32_t ids[CLIENT_BLOCKS_MAX * BLOCK_SECTORS];
	uint64_t last = UINT64_MAX;

	for (uint64_t i = 0; i < count; i++) {
		uint64_t block = (first + i) / BLOCK_SECTORS;

		if (kind == OP_WRITE_POOL)
			ids[i] = 1 + variant * POOL_PERIOD + (uint32_t)(block % POOL_PERIOD);
		else if (block != last)
			ids[i] = world->next_id++;
		else
			ids[i] = ids[i - 1];
		last = block;
	}
	submit_write(client, ids);
}

/* Bytes that end inside sectors: what comes out depends on what is there, so nothing else may
 * run. */
static bool submit_bytes(struct client *client)
{
	struct world *world = client->world;
	uint64_t begin_bytes =
		(world->scenario.start + rng_below(&world->rng, world->scenario.window)) *
			(uint64_t)BLOCK_BYTES +
		rng_below(&world->rng, BLOCK_BYTES);
	uint64_t len_bytes = 1 + rng_below(&world->rng, 3000);
	uint64_t first = begin_bytes / SECTOR_BYTES, end;
	uint32_t ids[16];
	uint8_t sector[SECTOR_BYTES];

	len_bytes = min_u64(len_bytes, volume_bytes(world) - begin_bytes);
	end = div_up(begin_bytes + len_bytes, SECTOR_BYTES);
	for (uint64_t i = 0; i < len_bytes; i++)
		client->data[i] = (uint8_t)rng_u64(&world->rng);
	for (uint64_t s = first; s < end; s++) {
		uint64_t from = s * SECTOR_BYTES < begin_bytes ? begin_bytes : s * SECTOR_BYTES;
		uint64_t to = min_u64((s + 1) * SECTOR_BYTES, begin_bytes + len_bytes);

		if (!oracle_certain(&world->oracle, s / BLOCK_SECTORS, s % BLOCK_SECTORS,
				    world->oracle.now, &ids[s - first]))
			return false;
		contents_get(&world->contents, ids[s - first], s % BLOCK_SECTORS, sector);
		memcpy(sector + from % SECTOR_BYTES, client->data + (from - begin_bytes),
		       to - from);
		ids[s - first] = contents_intern(&world->contents, sector, s % BLOCK_SECTORS);
	}
	begin(client, OP_WRITE_BYTES, begin_bytes, len_bytes);
	world->solo = true;
	tell_write(client, ids);
	enter(client, false);
	send(client);
	return true;
}

static void submit_same(struct client *client, uint64_t src_bytes)
{
	struct request *request = &client->request;

	request->src_off_bytes = src_bytes;
	if (request->op == REQUEST_CLONE)
		tell_clone(&client->world->oracle, client->op, request->off_bytes, src_bytes,
			   request->len_bytes);
	client->first = request->off_bytes / BLOCK_BYTES;
	client->end = client->first + request->len_bytes / BLOCK_BYTES;
	enter(client, request->op == REQUEST_SAME);
	send(client);
}

static void submit_unmap(struct client *client)
{
	client->request.no_hole = client->kind == OP_ZERO_KEEP;
	if (client->kind == OP_ZERO_KEEP && rng_once_in(&client->world->rng, 2)) {
		client->request.op = REQUEST_WRITE; /* the other way to write zeros */
		client->request.data = NULL;
	}
	tell_unmap(client);
	enter(client, false);
	send(client);
}

void client_submit_at(struct client *client, enum op_kind kind, uint64_t block, uint32_t blocks,
		      uint64_t src)
{
	begin(client, kind, blocks_to_bytes(block), blocks_to_bytes(blocks));
	if (kind == OP_WRITE || kind == OP_WRITE_POOL)
		submit_write_ids(client, kind);
	else if (kind == OP_ZERO || kind == OP_ZERO_KEEP || kind == OP_DISCARD)
		submit_unmap(client);
	else if (kind == OP_SAME || kind == OP_CLONE)
		submit_same(client, blocks_to_bytes(src));
	else if (kind == OP_SAME_ZERO)
		submit_same(client, SAME_SRC_ZERO);
	else
		send(client);
}

/* --- choosing --- */

static uint64_t random_block(struct world *world)
{
	const struct scenario *s = &world->scenario;
	uint64_t zone = rng_below(&world->rng, s->zones);

	return s->start + zone * s->zone_gap + rng_below(&world->rng, s->window);
}

static uint32_t random_blocks(struct world *world, uint64_t block)
{
	uint32_t blocks = 1 + rng_below(&world->rng, world->scenario.blocks_max);

	/* Short ones are more frequent. */
	if (rng_once_in(&world->rng, 2))
		blocks = 1 + rng_below(&world->rng, blocks);
	return (uint32_t)min_u64(blocks, world->scenario.logical_blocks - block);
}

static bool ranges_overlap(uint64_t a, uint64_t b, uint32_t blocks)
{
	return a < b + blocks && b < a + blocks;
}

static bool looks_equal(struct world *world, uint64_t a, uint64_t b)
{
	uint32_t id_a, id_b;

	for (unsigned s = 0; s < BLOCK_SECTORS; s++)
		if (!oracle_certain(&world->oracle, a, s, world->oracle.now, &id_a) ||
		    !oracle_certain(&world->oracle, b, s, world->oracle.now, &id_b) || id_a != id_b)
			return false;
	return true;
}

/* A destination for this source; for merges, often one that seems equal. False: none was found. */
static bool random_dst(struct world *world, uint64_t src, uint32_t blocks, bool equal,
		       uint64_t *ret_dst)
{
	bool found = false;

	for (unsigned i = 0; i < SAME_TRIES; i++) {
		uint64_t dst = random_block(world);

		if (dst + blocks > world->scenario.logical_blocks ||
		    ranges_overlap(src, dst, blocks))
			continue;
		*ret_dst = dst;
		found = true;
		if (!equal || looks_equal(world, src, dst))
			return true;
	}
	return found;
}

static bool submit_pair(struct client *client, enum op_kind kind)
{
	struct world *world = client->world;
	uint64_t src = random_block(world), dst = 0;
	uint32_t blocks = random_blocks(world, src);

	if (!random_dst(world, src, blocks, kind == OP_SAME && !rng_once_in(&world->rng, 4), &dst))
		return false;
	client_submit_at(client, kind, dst, blocks, src);
	return true;
}

static bool submit_job(struct client *client)
{
	struct world *world = client->world;
	uint64_t src = random_block(world), dst = 0;
	uint32_t blocks = random_blocks(world, src);
	uint32_t count = 1 + rng_below(&world->rng, CLIENT_DSTS_MAX), made = 0;
	bool clone = rng_once_in(&world->rng, 4);

	begin(client, OP_SAME_MANY, blocks_to_bytes(src), blocks_to_bytes(blocks));
	for (uint32_t i = 0; i < count; i++) {
		if (!random_dst(world, src, blocks, !clone, &dst))
			continue;
		client->dsts[made] = (struct same_dst){.off_bytes = blocks_to_bytes(dst)};
		client->dst_ops[made] = oracle_begin(&world->oracle, client->request.fua,
						     clone ? "clone of a job" : "same of a job");
		if (clone)
			tell_clone(&world->oracle, client->dst_ops[made], blocks_to_bytes(dst),
				   blocks_to_bytes(src), blocks_to_bytes(blocks));
		for (uint32_t b = 0; b < blocks; b++)
			oracle_enter(&world->oracle, client->dst_ops[made], dst + b, !clone);
		made++;
	}
	if (made == 0)
		return false;
	client->job = (struct same_job){
		.src_off_bytes = blocks_to_bytes(src),
		.len_bytes = blocks_to_bytes(blocks),
		.dsts = client->dsts,
		.dst_count = made,
		.clone = clone,
		.sync = client->request.fua,
		.scratch = client->scratch,
		.volume = world->volume,
		.worker = client->request.worker,
		.done = job_done,
		.context = client,
	};
	client->busy = true;
	world->busy++;
	sim_where.doing = names[OP_SAME_MANY];
	same_job_submit(&client->job);
	return true;
}

/* A range of sectors, in one block or over an edge. */
static void submit_sectors(struct client *client, enum op_kind kind)
{
	struct world *world = client->world;
	uint64_t block = random_block(world);
	uint64_t sector = block * BLOCK_SECTORS + rng_below(&world->rng, BLOCK_SECTORS);
	uint32_t count = 1 + rng_below(&world->rng, kind == OP_WRITE_SUB ? 10 : 20);
	uint64_t end = min_u64(sector + count, volume_bytes(world) / SECTOR_BYTES);

	begin(client, kind, sector * SECTOR_BYTES, (end - sector) * SECTOR_BYTES);
	if (kind == OP_WRITE_SUB)
		submit_write_ids(client, kind);
	else
		submit_unmap(client);
}

/* Past the end, beyond 2^64; for merges also not aligned, or overlapping. */
static void submit_invalid(struct client *client)
{
	static const enum request_op ops[] = {REQUEST_READ,    REQUEST_WRITE, REQUEST_ZERO,
					      REQUEST_DISCARD, REQUEST_SAME,  REQUEST_CLONE};
	struct world *world = client->world;
	struct request *request = &client->request;
	uint64_t size = volume_bytes(world), block = blocks_to_bytes(random_block(world));
	uint32_t way = rng_below(&world->rng, 8);

	begin(client, OP_INVALID, block, BLOCK_BYTES);
	request->op = ops[way < 3 ? rng_below(&world->rng, 6) : 4 + way % 2];
	request->src_off_bytes = block == 0 ? 4 * BLOCK_BYTES : 0;
	request->data = client->data;
	if (way == 0) {
		request->off_bytes = size - BLOCK_BYTES;
		request->len_bytes = 2 * BLOCK_BYTES;
	} else if (way < 3) {
		request->off_bytes = UINT64_MAX - BLOCK_BYTES + 1;
		request->len_bytes = way * BLOCK_BYTES;
	} else if (way < 5) {
		request->len_bytes = BLOCK_BYTES / 2;
	} else if (way == 5) {
		request->src_off_bytes += SECTOR_BYTES;
	} else if (way == 6) {
		request->src_off_bytes = request->off_bytes;
	} else {
		request->src_off_bytes = size;
	}
	send(client);
}

/* Since a scan, or since the beginning. */
static void submit_changes(struct client *client)
{
	struct world *world = client->world;

	begin(client, OP_CHANGES, 0, volume_bytes(world));
	client->scan = rng_below(&world->rng, SCANS_MAX);
	client->request.since = world->scans.each[client->scan].generation;
	send(client);
}

bool client_submit(struct client *client, enum op_kind kind)
{
	struct world *world = client->world;
	uint64_t block = random_block(world);
	uint32_t blocks = random_blocks(world, block);

	if (world->scenario.sequential && kind == OP_WRITE) {
		block = world->scenario.start + world->cursor;
		world->cursor = (world->cursor + blocks) % world->scenario.window;
	}
	switch (kind) {
	case OP_FLUSH:
		client_submit_at(client, kind, 0, 0, 0);
		return true;
	case OP_SAME:
	case OP_CLONE:
		return submit_pair(client, kind);
	case OP_SAME_MANY:
		return submit_job(client);
	case OP_WRITE_SUB:
	case OP_ZERO_SUB:
	case OP_DISCARD_SUB:
		submit_sectors(client, kind);
		return true;
	case OP_WRITE_BYTES:
		return submit_bytes(client);
	case OP_INVALID:
		submit_invalid(client);
		return true;
	case OP_CHANGES:
		submit_changes(client);
		return true;
	default:
		client_submit_at(client, kind, block, blocks, 0);
		return true;
	}
}
