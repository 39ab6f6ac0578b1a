/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ask - makes requests up, and tells the model before they are submitted
 *
 * Where: in a few zones, so that requests meet; in a FRAGMENTED volume also all over it. How much:
 * from one block to many regions. What: contents of one's own, or of a pool that others write too.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tests/swarm/engine/fail.h"
#include "tests/swarm/engine/table.h"
#include "tests/swarm/engine/world.h"

#define PAYLOAD_BLOCKS_MAX 1200u /* of reads and writes: over two regions and a bit */
#define BLOCKS_MAX	   16384u /* of everything else: SAME_LENGTH_MAX */
#define TRIES		   8u
#define POOL_STRIDE	   64u

const char *const op_names[OP_KINDS] = {
	[OP_READ] = "read",
	[OP_WRITE] = "write",
	[OP_WRITE_POOL] = "write pool",
	[OP_WRITE_SECTORS] = "write sectors",
	[OP_WRITE_BYTES] = "write bytes",
	[OP_ZERO] = "zero",
	[OP_ZERO_KEEP] = "zero keep",
	[OP_ZERO_BYTES] = "zero bytes",
	[OP_DISCARD] = "discard",
	[OP_DISCARD_BYTES] = "discard bytes",
	[OP_FLUSH] = "flush",
	[OP_SAME] = "same",
	[OP_SAME_ZERO] = "same zero",
	[OP_SAME_MANY] = "same many",
	[OP_CLONE] = "clone",
	[OP_CLONE_MANY] = "clone many",
	[OP_MAP] = "map",
	[OP_CHANGES] = "changes",
	[OP_INVALID] = "invalid",
};

static const enum request_op request_ops[OP_KINDS] = {
	[OP_READ] = REQUEST_READ,	  [OP_WRITE] = REQUEST_WRITE,
	[OP_WRITE_POOL] = REQUEST_WRITE,  [OP_WRITE_SECTORS] = REQUEST_WRITE,
	[OP_WRITE_BYTES] = REQUEST_WRITE, [OP_ZERO] = REQUEST_ZERO,
	[OP_ZERO_KEEP] = REQUEST_ZERO,	  [OP_ZERO_BYTES] = REQUEST_ZERO,
	[OP_DISCARD] = REQUEST_DISCARD,	  [OP_DISCARD_BYTES] = REQUEST_DISCARD,
	[OP_FLUSH] = REQUEST_FLUSH,	  [OP_SAME] = REQUEST_SAME,
	[OP_SAME_ZERO] = REQUEST_SAME,	  [OP_SAME_MANY] = REQUEST_SAME,
	[OP_CLONE] = REQUEST_CLONE,	  [OP_CLONE_MANY] = REQUEST_CLONE,
	[OP_MAP] = REQUEST_MAP,		  [OP_CHANGES] = REQUEST_CHANGES,
};

/* --- memory --- */

/* Room for a payload, in the client's and in foreign reach. */
static void make_room(struct client *client, uint64_t bytes)
{
	if (bytes <= client->data_bytes)
		return;
	free(client->data);
	free(client->brought);
	client->data_bytes = div_up(bytes, 65536) * 65536;
	client->data = aligned_alloc(BLOCK_BYTES, client->data_bytes);
	client->brought = aligned_alloc(BLOCK_BYTES, client->data_bytes);
	assert(client->data && client->brought);
	client->world->disk.foreign[client->number + 1] = client->data;
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

	if (!client->world->plan.foreign || request->data == NULL ||
	    rng_once_in(&client->world->rng, 3))
		return;
	request->data = NULL;
	request->foreign = client->number + 1;
	request->bring_bytes = bring;
}

/* --- the way out --- */

static bool chance(struct world *world, unsigned percent)
{
	return rng_below(&world->rng, 100) < percent;
}

static void begin(struct client *client, enum op_kind kind, uint64_t off_bytes, uint64_t len_bytes)
{
	struct world *world = client->world;
	bool payload = request_ops[kind] == REQUEST_READ || request_ops[kind] == REQUEST_WRITE;

	assert(!client->busy);
	if (payload)
		make_room(client, len_bytes);
	client->kind = kind;
	client->claim_count = 0;
	client->exclusive = kind == OP_WRITE_BYTES;
	client->cancel = false;
	client->job.cancel = NULL;
	client->request = (struct request){
		.op = request_ops[kind],
		.fua = chance(world, world->life.fua_percent),
		.lasting = chance(world, world->life.lasting_percent),
		.no_hole = kind == OP_ZERO_KEEP,
		.off_bytes = off_bytes,
		.len_bytes = len_bytes,
		.data = payload ? client->data : NULL,
		.scratch = client->scratch,
		.runs = client->runs,
		.runs_max = RUNS_MAX,
		.volume = world->volume,
		.worker = &world->workers[rng_below(&world->rng, world->life.workers)],
		.done = answer,
		.context = client,
	};
	client->op = model_begin(&world->model, op_names[kind], client->request.fua,
				 client->request.lasting);
}

/* The op may change the blocks; its versions were told. */
static void claim(struct client *client, uint32_t op, uint64_t first, uint64_t end)
{
	client->claims[client->claim_count++] = (struct claim){op, first, end};
	for (uint64_t block = first; block < end; block++)
		model_enter(&client->world->model, block);
}

static void leave_home(struct client *client)
{
	struct world *world = client->world;
	const struct request *request = &client->request;

	client->busy = true;
	client->alone = world->busy++ == 0;
	/* A job fails destination by destination. */
	client->hopeless = client->kind != OP_SAME_MANY && client->kind != OP_CLONE_MANY &&
			   world_latched(world);
	client->full = world->disk.full;
	table_add(DIM_OP, client->kind);
	trace("@%" PRIu64 " %s %" PRIu64 "+%" PRIu64 " from %" PRIu64 "%s%s",
	      world->model.ops[client->op].submitted, op_names[client->kind], request->off_bytes,
	      request->len_bytes, request->src_off_bytes, request->fua ? " fua" : "",
	      request->lasting ? " lasting" : "");
}

static void go(struct client *client)
{
	struct request *request = &client->request;

	if ((request->op == REQUEST_SAME || request->op == REQUEST_CLONE) &&
	    chance(client->world, client->world->life.cancel_percent))
		request->cancel = &client->cancel;
	if (request->op == REQUEST_DISCARD)
		request->hint = rng_once_in(&client->world->rng, 4);
	if (request->hint)
		table_add(DIM_OP, OP_KINDS);
	make_foreign(client);
	leave_home(client);
	request_submit(request);
	/* Sooner or later, or before it is looked at for the first time. */
	if (client->busy && request->cancel)
		client->cancel = rng_once_in(&client->world->rng, 2);
}

/* --- what the model is told --- */

static void tell_write(struct client *client, const uint32_t *ids)
{
	struct world *world = client->world;
	uint64_t first = client->request.off_bytes / SECTOR_BYTES;
	uint64_t end = div_up(client->request.off_bytes + client->request.len_bytes, SECTOR_BYTES);

	for (uint64_t s = first; s < end;) {
		uint64_t block = s / BLOCK_SECTORS, same = s;
		uint8_t mask = 0;

		while (same < end && same / BLOCK_SECTORS == block &&
		       ids[same - first] == ids[s - first])
			mask |= (uint8_t)(1u << (same++ % BLOCK_SECTORS));
		model_writes(&world->model, client->op, block, mask, ids[s - first]);
		s = same;
	}
	claim(client, client->op, first / BLOCK_SECTORS, div_up(end, BLOCK_SECTORS));
}

/* Whole blocks become zeros; of a ZERO the sectors at both ends, too. */
static void tell_unmap(struct client *client)
{
	struct world *world = client->world;
	uint64_t from = client->request.off_bytes, to = from + client->request.len_bytes;
	bool exact = client->request.op != REQUEST_DISCARD;
	uint64_t first = exact ? from / BLOCK_BYTES : div_up(from, BLOCK_BYTES);
	uint64_t end = exact ? div_up(to, BLOCK_BYTES) : to / BLOCK_BYTES;

	if (first >= end)
		return;
	for (uint64_t block = first; block < end; block++) {
		uint8_t mask = 0;

		for (unsigned s = 0; s < BLOCK_SECTORS; s++) {
			uint64_t at = block * BLOCK_BYTES + s * SECTOR_BYTES;

			if (at >= from && at + SECTOR_BYTES <= to)
				mask |= (uint8_t)(1u << s);
		}
		model_writes(&world->model, client->op, block, mask, CONTENT_ZERO);
	}
	claim(client, client->op, first, end);
}

static void tell_clone(struct client *client, uint32_t op, uint64_t dst, uint64_t src,
		       uint64_t blocks)
{
	for (uint64_t i = 0; i < blocks; i++)
		model_clones(&client->world->model, op, dst + i, src + i);
	claim(client, op, dst, dst + blocks);
}

/* Nobody may change these blocks now. */
static bool is_closed(const struct world *world, uint64_t first, uint64_t end)
{
	for (unsigned i = 0; i < CLIENTS_MAX; i++) {
		const struct client *client = &world->clients[i];

		for (uint32_t c = 0; client->busy && client->exclusive && c < client->claim_count;
		     c++)
			if (client->claims[c].first < end && first < client->claims[c].end)
				return true;
	}
	return false;
}

static bool is_still(const struct world *world, uint64_t first, uint64_t end)
{
	for (uint64_t block = first; block < end; block++)
		if (!model_is_still(&world->model, block))
			return false;
	return true;
}

/* --- writes --- */

uint32_t ask_pool_id(struct world *world, unsigned which, uint64_t i)
{
	return 1 + which * POOL_STRIDE + (uint32_t)(i % world->plan.period);
}

static void submit_write(struct client *client)
{
	struct world *world = client->world;
	struct request *request = &client->request;
	uint64_t first = request->off_bytes / SECTOR_BYTES;
	uint64_t count = request->len_bytes / SECTOR_BYTES;
	uint32_t *ids = malloc(count * sizeof(ids[0]));
	unsigned which = rng_below(&world->rng, world->plan.pool);
	uint64_t block = UINT64_MAX;
	uint32_t id = 0;

	assert(ids);
	for (uint64_t i = 0; i < count; i++) {
		uint64_t b = (first + i) / BLOCK_SECTORS;

		if (b != block)
			id = client->kind == OP_WRITE_POOL
				     ? ask_pool_id(world, which, b - first / BLOCK_SECTORS)
				     : world->next_id++;
		block = b;
		ids[i] = id;
		content_fill(id, (first + i) % BLOCK_SECTORS, client->data + i * SECTOR_BYTES);
	}
	tell_write(client, ids);
	free(ids);
	go(client);
}

/* Ends inside sectors: what comes out depends on what is there, so that has to be certain, and
 * nobody else may change it meanwhile. */
static bool submit_bytes(struct client *client, uint64_t off_bytes, uint64_t len_bytes)
{
	struct world *world = client->world;
	uint64_t first = off_bytes / SECTOR_BYTES,
		 end = div_up(off_bytes + len_bytes, SECTOR_BYTES);
	uint32_t ids[32];
	uint8_t sector[SECTOR_BYTES];

	if (!is_still(world, first / BLOCK_SECTORS, div_up(end, BLOCK_SECTORS)))
		return false;
	make_room(client, len_bytes);
	for (uint64_t i = 0; i < len_bytes; i++)
		client->data[i] = (uint8_t)rng_u64(&world->rng);
	for (uint64_t s = first; s < end; s++) {
		uint64_t from = s * SECTOR_BYTES < off_bytes ? off_bytes : s * SECTOR_BYTES;
		uint64_t to = min_u64((s + 1) * SECTOR_BYTES, off_bytes + len_bytes);
		unsigned index = s % BLOCK_SECTORS;

		if (!model_certain(&world->model, s / BLOCK_SECTORS, index, world->model.now,
				   &ids[s - first]))
			return false;
		contents_get(&world->contents, ids[s - first], index, sector);
		memcpy(sector + from % SECTOR_BYTES, client->data + (from - off_bytes), to - from);
		ids[s - first] = contents_intern(&world->contents, sector, index);
	}
	begin(client, OP_WRITE_BYTES, off_bytes, len_bytes);
	tell_write(client, ids);
	go(client);
	return true;
}

/* --- jobs --- */

static void submit_job(struct client *client, uint64_t src, uint64_t blocks)
{
	struct request *request = &client->request;
	struct world *world = client->world;

	client->job = (struct same_job){
		.src_off_bytes = blocks_to_bytes(src),
		.len_bytes = blocks_to_bytes(blocks),
		.dsts = client->dsts,
		.dst_count = client->claim_count,
		.clone = client->kind == OP_CLONE_MANY,
		.sync = request->fua,
		.scratch = client->scratch,
		.cancel = chance(world, world->life.cancel_percent) ? &client->cancel : NULL,
		.volume = world->volume,
		.worker = request->worker,
		.done = answer_job,
		.context = client,
	};
	leave_home(client);
	same_job_submit(&client->job);
	if (client->busy && client->job.cancel)
		client->cancel = rng_once_in(&world->rng, 2);
}

/* --- choosing --- */

uint64_t ask_block(struct world *world)
{
	struct rng *rng = &world->rng;
	const struct plan *plan = &world->plan;
	uint64_t block;

	if (chance(world, world->life.again_percent))
		return world->last_block;
	if (rng_once_in(rng, 10)) /* where a region in order begins, and its clones do */
		return plan->starts[rng_below(rng, plan->zones)] / REGION_BLOCKS * REGION_BLOCKS;
	if ((plan->shape == SHAPE_FRAGMENTED || plan->shape == SHAPE_LONG_LOG) &&
	    !rng_once_in(rng, 4))
		block = rng_below(rng, (uint32_t)plan->spread) * (uint64_t)REGION_BLOCKS +
			rng_below(rng, rng_once_in(rng, 2) ? 16 : REGION_BLOCKS);
	else
		block = plan->starts[rng_below(rng, plan->zones)] +
			rng_below(rng, (uint32_t)plan->width);
	/* The last block is as likely to be hit as any edge is. */
	world->last_block = min_u64(block, plan->logical_blocks - 1);
	return world->last_block;
}

static uint64_t random_blocks(struct world *world, enum op_kind kind, uint64_t block)
{
	struct rng *rng = &world->rng;
	uint32_t sum = 0, at;
	unsigned length = 0;
	uint64_t n = 1, most = world->plan.logical_blocks - block;
	bool payload = request_ops[kind] == REQUEST_READ || request_ops[kind] == REQUEST_WRITE;

	for (unsigned i = 0; i < LENGTH_KINDS; i++)
		sum += world->life.lengths[i];
	at = rng_below(rng, sum);
	while (at >= world->life.lengths[length])
		at -= world->life.lengths[length++];
	if (length == LENGTH_FEW)
		n = 2 + rng_below(rng, 15);
	else if (length == LENGTH_PART)
		n = 17 + rng_below(rng, 240);
	else if (length == LENGTH_REGION)
		n = REGION_BLOCKS * (1 + rng_below(rng, 2)) + rng_below(rng, 17) - 8;
	else if (length == LENGTH_MANY)
		n = REGION_BLOCKS * (2 + rng_below(rng, rng_once_in(rng, 4) ? 36 : 6));
	most = min_u64(most, payload ? PAYLOAD_BLOCKS_MAX : BLOCKS_MAX);
	table_add(DIM_LENGTH, length);
	return min_u64(n, most);
}

static bool certain_equal(const struct world *world, uint64_t a, uint64_t b)
{
	uint32_t id_a, id_b;

	return model_certain(&world->model, a, 0, world->model.now, &id_a) &&
	       model_certain(&world->model, b, 0, world->model.now, &id_b) && id_a == id_b;
}

/* A destination for the source; for merges one that looks equal, if there is. */
static bool random_dst(struct world *world, uint64_t src, uint64_t blocks, bool equal, bool changes,
		       uint64_t *ret_dst)
{
	bool found = false;

	for (unsigned i = 0; i < TRIES; i++) {
		uint64_t dst = ask_block(world);

		/* Often it has the source's place in its region, as a clone of an image has. */
		if (rng_once_in(&world->rng, 2))
			dst = dst / REGION_BLOCKS * REGION_BLOCKS + src % REGION_BLOCKS;
		if (dst + blocks > world->plan.logical_blocks ||
		    (src < dst + blocks && dst < src + blocks) ||
		    (changes && is_closed(world, dst, dst + blocks)))
			continue;
		*ret_dst = dst;
		found = true;
		if (!equal || certain_equal(world, src, dst))
			return true;
	}
	return found;
}

/* Part of the last clone again, somewhat shifted or longer. */
static bool clone_again(struct client *client)
{
	struct world *world = client->world;
	struct image *image = &world->image;
	uint64_t end = world->plan.logical_blocks, skip, blocks;

	if (image->blocks == 0)
		return false;
	skip = rng_below(&world->rng, (uint32_t)image->blocks);
	blocks = image->blocks - skip + rng_below(&world->rng, 10);
	if (image->dst + skip + blocks > end || image->src + skip + blocks > end ||
	    (image->src < image->dst + blocks && image->dst < image->src + blocks) ||
	    is_closed(world, image->dst + skip, image->dst + skip + blocks))
		return false;
	ask_at(client, OP_CLONE, image->dst + skip, blocks, image->src + skip);
	return true;
}

static void submit_pair(struct client *client, uint64_t src_bytes)
{
	struct request *request = &client->request;

	request->src_off_bytes = src_bytes;
	if (request->op == REQUEST_CLONE)
		tell_clone(client, client->op, request->off_bytes / BLOCK_BYTES,
			   src_bytes / BLOCK_BYTES, request->len_bytes / BLOCK_BYTES);
	go(client);
}

static bool ask_job(struct client *client, enum op_kind kind, uint64_t src, uint64_t blocks)
{
	struct world *world = client->world;
	uint32_t count = 1 + rng_below(&world->rng, DSTS_MAX), made = 0;
	bool clone = kind == OP_CLONE_MANY;
	uint64_t dsts[DSTS_MAX];

	blocks = min_u64(blocks, 2 * REGION_BLOCKS);
	for (uint32_t i = 0; i < count; i++)
		made += random_dst(world, src, blocks, !clone && !rng_once_in(&world->rng, 4),
				   clone, &dsts[made]);
	if (made == 0)
		return false;
	begin(client, kind, blocks_to_bytes(src), blocks_to_bytes(blocks));
	for (uint32_t i = 0; i < made; i++) {
		uint32_t op =
			model_begin(&world->model, op_names[kind], client->request.fua, false);

		client->dsts[i] = (struct same_dst){.off_bytes = blocks_to_bytes(dsts[i])};
		if (clone)
			tell_clone(client, op, dsts[i], src, blocks);
		else
			claim(client, op, dsts[i], dsts[i]);
	}
	submit_job(client, src, blocks);
	return true;
}

static void ask_invalid(struct client *client)
{
	static const enum request_op ops[] = {REQUEST_READ,    REQUEST_WRITE, REQUEST_ZERO,
					      REQUEST_DISCARD, REQUEST_SAME,  REQUEST_CLONE};
	struct world *world = client->world;
	struct request *request = &client->request;
	uint64_t size = blocks_to_bytes(world->plan.logical_blocks);
	uint32_t way = rng_below(&world->rng, 6);

	begin(client, OP_INVALID, blocks_to_bytes(ask_block(world)), BLOCK_BYTES);
	make_room(client, 2 * BLOCK_BYTES);
	request->op = ops[way < 3 ? rng_below(&world->rng, 6) : 4 + way % 2];
	request->src_off_bytes = request->off_bytes == 0 ? 4 * BLOCK_BYTES : 0;
	request->data = client->data;
	if (way == 0) {
		request->off_bytes = size - BLOCK_BYTES;
		request->len_bytes = 2 * BLOCK_BYTES;
	} else if (way < 3) {
		request->off_bytes = UINT64_MAX - BLOCK_BYTES + 1;
		request->len_bytes = way * BLOCK_BYTES;
	} else if (way == 3) {
		request->len_bytes = BLOCK_BYTES / 2;
	} else if (way == 4) {
		request->src_off_bytes += SECTOR_BYTES;
	} else {
		request->src_off_bytes = size;
	}
	leave_home(client);
	request_submit(request);
}

void ask_at(struct client *client, enum op_kind kind, uint64_t block, uint64_t blocks, uint64_t src)
{
	begin(client, kind, blocks_to_bytes(block), blocks_to_bytes(blocks));
	if (kind == OP_WRITE || kind == OP_WRITE_POOL) {
		submit_write(client);
	} else if (kind == OP_ZERO || kind == OP_ZERO_KEEP || kind == OP_DISCARD) {
		tell_unmap(client);
		go(client);
	} else if (kind == OP_SAME || kind == OP_CLONE || kind == OP_SAME_ZERO) {
		if (kind == OP_CLONE)
			client->world->image = (struct image){src, block, blocks};
		submit_pair(client, kind == OP_SAME_ZERO ? SAME_SRC_ZERO : blocks_to_bytes(src));
	} else {
		go(client);
	}
}

static bool ask_sectors(struct client *client, enum op_kind kind, uint64_t block)
{
	struct world *world = client->world;
	struct rng *rng = &world->rng;
	uint64_t size = blocks_to_bytes(world->plan.logical_blocks);
	uint64_t unit = kind == OP_DISCARD_BYTES || kind == OP_WRITE_BYTES ? 1 : SECTOR_BYTES;
	uint64_t at = blocks_to_bytes(block) + rng_below(rng, BLOCK_BYTES) / unit * unit;
	uint64_t len = (1 + rng_below(rng, 12000)) / unit * unit + (unit == 1 ? 0 : unit);

	len = min_u64(len, size - at);
	if (is_closed(world, at / BLOCK_BYTES, div_up(at + len, BLOCK_BYTES)))
		return false;
	if (kind == OP_WRITE_BYTES)
		return submit_bytes(client, at, len);
	begin(client, kind, at, len);
	if (kind == OP_WRITE_SECTORS) {
		submit_write(client);
		return true;
	}
	tell_unmap(client);
	go(client);
	return true;
}

bool ask(struct client *client, enum op_kind kind)
{
	struct world *world = client->world;
	uint64_t block = ask_block(world), dst = 0;
	uint64_t blocks = random_blocks(world, kind, block);
	bool changes = kind != OP_READ && kind != OP_MAP && kind != OP_SAME_ZERO;

	/* A hole in what was cloned. */
	if (kind == OP_DISCARD && world->image.blocks > 1 && rng_once_in(&world->rng, 4)) {
		block = world->image.src + rng_below(&world->rng, (uint32_t)world->image.blocks);
		blocks = 1 + rng_below(&world->rng, 8);
		blocks = min_u64(blocks, world->plan.logical_blocks - block);
	}
	switch (kind) {
	case OP_WRITE_SECTORS:
	case OP_WRITE_BYTES:
	case OP_ZERO_BYTES:
	case OP_DISCARD_BYTES:
		return ask_sectors(client, kind, block);
	case OP_SAME:
	case OP_CLONE:
		if (kind == OP_CLONE && rng_once_in(&world->rng, 3) && clone_again(client))
			return true;
		if (!random_dst(world, block, blocks,
				kind == OP_SAME && !rng_once_in(&world->rng, 4), kind == OP_CLONE,
				&dst))
			return false;
		ask_at(client, kind, dst, blocks, block);
		return true;
	case OP_SAME_MANY:
	case OP_CLONE_MANY:
		return ask_job(client, kind, block, blocks);
	case OP_INVALID:
		ask_invalid(client);
		return true;
	case OP_FLUSH:
		ask_at(client, kind, 0, 0, 0);
		return true;
	case OP_CHANGES:
		begin(client, kind, 0, blocks_to_bytes(world->plan.logical_blocks));
		client->generation = world->cut.generation;
		client->request.since = world->cut.generation;
		go(client);
		return true;
	default:
		if (changes && is_closed(world, block, block + blocks))
			return false;
		ask_at(client, kind, block, blocks, 0);
		return true;
	}
}
