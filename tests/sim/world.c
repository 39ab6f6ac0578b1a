/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/sim/world.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/report.h"

#define CACHE_BYTES   (96u * 4096u)
#define YIELDS_MAX    3u
#define STEPS_MAX     2000000u
#define FIRST_UNIQUE  100u /* contents below are the pool's */
#define SUBMIT_WEIGHT 4u

static void trace_store(enum sim_event event, const struct store_io *io)
{
	static const char *const ops[] = {"read", "write", "flush", "discard", "compare"};

	sim_trace("    %s %s%s lane %u block %" PRIu64 "+%" PRIu64 " (+%" PRIu64 ")",
		  event == SIM_EVENT_SUBMIT ? "submit" : "deliver", ops[io->op],
		  io->fua ? " fua" : "", io->lane, io->off_bytes / BLOCK_BYTES,
		  io->len_bytes / BLOCK_BYTES, io->off_bytes % BLOCK_BYTES);
}

static void on_store(void *context, enum sim_event event, const struct store_io *io)
{
	struct world *world = context;

	trace_store(event, io);
	if (world->latched && event == SIM_EVENT_SUBMIT && io->op != STORE_READ &&
	    io->op != STORE_COMPARE)
		sim_fail("op %d is submitted to the store by a latched volume", io->op);
	if (world->on_point)
		world->on_point(world, true);
}

static bool yield(void *context, const char *point)
{
	struct world *world = context;

	if (world->yields >= YIELDS_MAX || !rng_once_in(&world->rng, 3)) {
		world->yields = 0;
		return false;
	}
	world->yields++;
	sim_trace("    yield at \"%s\"", point);
	return true;
}

static void client_init(struct client *client, struct world *world)
{
	client->world = world;
	client->data = aligned_alloc(BLOCK_BYTES, (size_t)CLIENT_BLOCKS_MAX * BLOCK_BYTES);
	client->brought = aligned_alloc(BLOCK_BYTES, (size_t)CLIENT_BLOCKS_MAX * BLOCK_BYTES);
	client->scratch = aligned_alloc(BLOCK_BYTES, SAME_SCRATCH_BYTES);
	assert(client->data && client->scratch);
}

void world_begin(struct world *world, const struct scenario *scenario, uint64_t seed)
{
	struct volume_format_options options = {
		.logical_bytes = blocks_to_bytes(scenario->logical_blocks),
		.ring_blocks = scenario->ring_blocks,
		.tracking = scenario->tracking,
	};
	struct damage damage = {""};
	int r;

	memset(world, 0, sizeof(*world));
	world->scenario = *scenario;
	world->seed = seed;
	world->rng = rng_for(seed, 2);
	world->next_id = FIRST_UNIQUE;
	store_sim_init(&world->sim, blocks_to_bytes(scenario->store_blocks), scenario->workers,
		       seed);
	world->sim.store.can_discard = scenario->discard;
	/* The engine compares by itself with every other seed. */
	world->sim.store.can_compare = seed % 2 == 0;
	oracle_init(&world->oracle, scenario->logical_blocks);
	for (unsigned i = 0; i < scenario->depth; i++)
		client_init(&world->clients[i], world);
	/* Zero copy with every third. */
	world->sim.store.reaches_foreign = seed % 3 == 0;
	for (unsigned i = 0; i < scenario->depth; i++)
		world->sim.foreign[i] = world->clients[i].data;
	for (unsigned i = 0; i < sizeof(options.uuid); i++)
		options.uuid[i] = (uint8_t)(scenario->name[i % strlen(scenario->name)] + (int)i);
	r = volume_format(&world->sim.store, &options, &damage);
	if (r < 0)
		sim_fail("format: %d %s", r, damage.text);
	if (!store_sim_idle(&world->sim) || world->sim.write_count > 0)
		sim_fail("format left %" PRIu32 " writes that are not durable",
			 world->sim.write_count);
	world->sim.hooks.event = on_store;
	world->sim.hooks.context = world;
}

void world_end(struct world *world)
{
	assert(world->volume == NULL);
	for (unsigned i = 0; i < CLIENTS_MAX; i++) {
		free(world->clients[i].data);
		free(world->clients[i].brought);
		free(world->clients[i].scratch);
	}
	store_sim_done(&world->sim);
	oracle_done(&world->oracle);
	contents_clear(&world->contents);
	scans_done(&world->scans);
}

static bool space_comes(void *context)
{
	(void)context;
	return true;
}

int world_open(struct world *world, struct damage *reterr_damage)
{
	struct volume_options options = {
		.cache_bytes = CACHE_BYTES,
		.discard = world->scenario.discard,
		.tracking_rest_ticks = 1,
		.lacking = space_comes,
		.yield = yield,
		.yield_context = world,
		.cow_hint_blocks = 1u << rng_below(&world->rng, 6),
	};

	for (unsigned i = 0; i < world->scenario.workers; i++) {
		worker_init(&world->workers[i], i);
		world->worker_list[i] = &world->workers[i];
	}
	world->sim.order = (enum sim_order)rng_below(&world->rng, 3);
	world->deliver_weight = 1u << rng_below(&world->rng, 5);
	world->run_weight = 1u << rng_below(&world->rng, 5);
	world->latched = false;
	return volume_open(&world->sim.store, &options, world->worker_list, world->scenario.workers,
			   &world->volume, reterr_damage);
}

/* --- steps --- */

enum step {
	STEP_DELIVER,
	STEP_RUN,
	STEP_SUBMIT,
	STEP_KINDS,
};

static enum op_kind random_kind(struct world *world)
{
	uint32_t sum = 0, at;

	for (unsigned i = 0; i < OP_KINDS; i++)
		sum += world->scenario.weights[i];
	at = rng_below(&world->rng, sum);
	for (unsigned i = 0; i < OP_KINDS; i++) {
		if (at < world->scenario.weights[i])
			return (enum op_kind)i;
		at -= world->scenario.weights[i];
	}
	return OP_FLUSH;
}

static struct client *idle_client(struct world *world)
{
	for (unsigned i = 0; i < world->scenario.depth; i++)
		if (!world->clients[i].busy)
			return &world->clients[i];
	return NULL;
}

static uint32_t step_weight(const struct world *world, enum step step, unsigned worker,
			    uint32_t requests)
{
	switch (step) {
	case STEP_DELIVER:
		return store_sim_in_flight(&world->sim, worker) > 0 ? world->deliver_weight : 0;
	case STEP_RUN:
		return world->workers[worker].mailbox_first ? world->run_weight : 0;
	case STEP_SUBMIT:
		return worker == 0 && requests > 0 && !world->solo &&
				       world->busy < world->scenario.depth
			       ? SUBMIT_WEIGHT
			       : 0;
	default:
		return 0;
	}
}

static void act(struct world *world, enum step step, unsigned worker, uint32_t *requests)
{
	if (step == STEP_DELIVER) {
		store_sim_deliver(&world->sim, worker);
	} else if (step == STEP_RUN) {
		worker_run(&world->workers[worker]);
	} else {
		struct client *client = idle_client(world);
		enum op_kind kind = random_kind(world);

		if (kind == OP_WRITE_BYTES && world->busy > 0)
			kind = OP_FLUSH;
		if (client_submit(client, kind))
			(*requests)--;
	}
}

/* What comes from outside, now and then. */
static void disturb(struct world *world)
{
	struct worker *worker = &world->workers[rng_below(&world->rng, world->scenario.workers)];
	uint64_t round;

	if (world->scenario.checkpoint_in != NEVER &&
	    rng_once_in(&world->rng, world->scenario.checkpoint_in))
		volume_checkpoint(world->volume, worker);
	if (world->scenario.trim_in != 0 && rng_once_in(&world->rng, world->scenario.trim_in))
		volume_trim(world->volume, &round);
	if (rng_once_in(&world->rng, world->scenario.tick_in))
		volume_tick(world->volume, worker);
}

/* Whether the volume latched; only faults do that, and asking costs. */
static void watch_latch(struct world *world)
{
	struct volume_stats stats;

	if (!world->faulty || world->latched)
		return;
	volume_stats(world->volume, &stats);
	world->latched = stats.state == VOLUME_LATCHED;
	if (world->latched)
		sim_trace("latched: %s", stats.latched_text);
}

/* What waits for space in the backing moves with time. */
static bool time_goes_by(struct world *world)
{
	struct volume_stats stats;

	if (!world->faulty)
		return false;
	volume_stats(world->volume, &stats);
	if (stats.metadata_waiting)
		volume_tick(world->volume, &world->workers[0]);
	return stats.metadata_waiting;
}

/* False: nothing can move. */
static bool step(struct world *world, uint32_t *requests)
{
	uint32_t sum = 0, at;

	for (unsigned i = 0; i < STEP_KINDS * world->scenario.workers; i++)
		sum += step_weight(world, i % STEP_KINDS, i / STEP_KINDS, *requests);
	if (sum == 0)
		return time_goes_by(world);
	if (++world->steps > STEPS_MAX)
		sim_fail("no end after %u steps", STEPS_MAX);
	sim_where.steps = world->steps;
	at = rng_below(&world->rng, sum);
	for (unsigned i = 0;; i++) {
		uint32_t weight = step_weight(world, i % STEP_KINDS, i / STEP_KINDS, *requests);

		if (at < weight) {
			act(world, i % STEP_KINDS, i / STEP_KINDS, requests);
			break;
		}
		at -= weight;
	}
	watch_latch(world);
	if (world->oracle.tightened != world->tightened) {
		world->tightened = world->oracle.tightened;
		if (world->on_point)
			world->on_point(world, false);
	}
	return true;
}

void world_run(struct world *world, uint32_t requests)
{
	while (requests > 0) {
		disturb(world);
		if (!step(world, &requests))
			sim_fail("%" PRIu32 " requests wait, and nothing moves", world->busy);
	}
}

void world_drain(struct world *world)
{
	uint32_t none = 0;

	while (world->busy > 0)
		if (!step(world, &none))
			sim_fail("%" PRIu32 " requests are never answered", world->busy);
}

void world_settle(struct world *world)
{
	uint32_t none = 0;

	while (step(world, &none))
		;
}

uint32_t world_undurable(const struct store_sim *sim)
{
	uint32_t count = 0;

	list_for_each (pos, &sim->writes)
		count += !container_of(pos, struct sim_write, node)->discard;
	return count;
}

int world_close(struct world *world)
{
	int r;

	world_drain(world);
	world_settle(world);
	r = volume_close(world->volume);
	world->volume = NULL;
	return r;
}

void world_abandon(struct world *world)
{
	if (world->volume)
		volume_abandon(world->volume);
	world->volume = NULL;
	for (unsigned i = 0; i < CLIENTS_MAX; i++) {
		world->clients[i].busy = false;
		world->clients[i].generation = 0;
	}
	world->busy = 0;
	world->solo = false;
}

/* --- fills --- */

static void fill_one(struct world *world, enum op_kind kind, uint64_t block, uint32_t blocks,
		     uint64_t src)
{
	client_submit_at(&world->clients[0], kind, block, blocks, src);
	world_drain(world);
}

static void fill_zone(struct world *world, uint64_t begin)
{
	const struct scenario *s = &world->scenario;
	uint32_t half = s->window / 2;
	enum op_kind kind =
		s->fill == FILL_POOL || s->fill == FILL_MERGED ? OP_WRITE_POOL : OP_WRITE;

	if (s->fill == FILL_LEAF) {
		for (uint32_t i = 1; i < s->window; i += 2)
			fill_one(world, OP_WRITE, begin + i, 1, 0);
		return;
	}
	for (uint32_t i = 0; i < s->window; i += s->blocks_max) {
		uint32_t blocks = min_u32(s->blocks_max, s->window - i);

		fill_one(world, kind, begin + i, blocks, 0);
	}
	if (s->fill == FILL_CLONED)
		fill_one(world, OP_CLONE, begin + half, half, begin);
	/* Pool contents repeat every four blocks, where the variant is the same. */
	for (uint32_t i = 4; s->fill == FILL_MERGED && i + 4 <= s->window; i += 4)
		fill_one(world, OP_SAME, begin + i, 4, begin);
}

void world_fill(struct world *world)
{
	const struct scenario *s = &world->scenario;

	if (s->fill == FILL_ALL) {
		for (uint32_t i = 0; i < s->logical_blocks && world->enospc == 0; i += 8)
			fill_one(world, OP_WRITE, i, 8, 0);
	} else if (s->fill != FILL_NOTHING) {
		for (uint32_t zone = 0; zone < s->zones; zone++)
			fill_zone(world, s->start + (uint64_t)zone * s->zone_gap);
	}
	fill_one(world, OP_FLUSH, 0, 0, 0);
}
