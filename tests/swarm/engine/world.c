/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/swarm/engine/world.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tests/swarm/engine/fail.h"

#define STUCK_TICKS 200u
#define MOVES_MAX   1000000u /* without an answer: then nobody gets on */
#define OWN_IDS	    4096u /* contents of one's own begin here, those of the pool before */

static void format(struct world *world)
{
	struct volume_format_options options = {
		.logical_bytes = blocks_to_bytes(world->plan.logical_blocks),
		.ring_blocks = world->plan.ring_blocks,
		.tracking = world->plan.tracking,
		.uuid = "a swarm's volume",
	};
	int r = volume_format(&world->disk.store, &options, &world->damage);

	if (r < 0)
		fail("format", "%d %s", r, world->damage.text);
}

void world_begin(struct world *world, const struct plan *plan, uint64_t ops_max)
{
	*world = (struct world){
		.plan = *plan,
		.rng = rng_for(plan->seed, 2),
		.next_id = OWN_IDS,
		.ops_left = ops_max,
	};
	fail_where(plan->seed, 0);
	trace("%" PRIu64 " blocks on %" PRIu64 ", ring %" PRIu32 ", %u lanes, shape %d, %u lives",
	      plan->logical_blocks, plan->store_blocks, plan->ring_blocks, plan->lanes,
	      (int)plan->shape, plan->lives);
	disk_init(&world->disk, blocks_to_bytes(plan->store_blocks), plan->lanes, plan->seed);
	world->disk.store.sector_bytes = plan->sector_bytes;
	world->disk.store.reaches_foreign = plan->foreign;
	world->disk.junk = plan->junk;
	model_init(&world->model);
	for (unsigned i = 0; i < CLIENTS_MAX; i++) {
		struct client *client = &world->clients[i];

		client->world = world;
		client->number = i;
		client->scratch = aligned_alloc(BLOCK_BYTES, SAME_SCRATCH_BYTES);
		assert(client->scratch);
	}
	format(world);
}

void world_end(struct world *world)
{
	for (unsigned i = 0; i < CLIENTS_MAX; i++) {
		free(world->clients[i].data);
		free(world->clients[i].brought);
		free(world->clients[i].scratch);
	}
	contents_clear(&world->contents);
	model_done(&world->model);
	disk_done(&world->disk);
}

/* --- opening and closing --- */

static void take_log(void *context, const char *text)
{
	(void)context;
	trace("log: %s", text);
}

/* Who opens and closes waits for the backing's space; it is told of none in vain for long. */
static bool go_on(void *context)
{
	(void)context;
	return true;
}

int world_open(struct world *world)
{
	struct worker *workers[DISK_LANES_MAX];
	struct volume_options options = {
		.cache_bytes = world->life.cache_bytes,
		.cow_hint_blocks = world->life.hint,
		.read_only = world->life.read_only,
		.discard = world->life.discard,
		.log = take_log,
		.lacking = go_on,
	};
	int r;

	world->disk.store.can_compare = world->life.compare;
	for (unsigned i = 0; i < world->life.workers; i++) {
		worker_init(&world->workers[i], i);
		workers[i] = &world->workers[i];
	}
	r = volume_open(&world->disk.store, &options, workers, world->life.workers, &world->volume,
			&world->damage);
	if (r < 0)
		world->volume = NULL;
	trace("opened: %d, cache %" PRIu64 " KiB, hint %" PRIu32 ", %u workers%s%s", r,
	      options.cache_bytes >> 10, options.cow_hint_blocks, world->life.workers,
	      options.discard ? ", discards" : "", options.read_only ? ", read-only" : "");
	return r;
}

static void workers_done(struct world *world)
{
	for (unsigned i = 0; i < world->life.workers; i++)
		worker_done(&world->workers[i]);
}

int world_close(struct world *world)
{
	int r = volume_close(world->volume);

	trace("closed: %d", r);
	world->volume = NULL;
	workers_done(world);
	return r;
}

void world_abandon(struct world *world)
{
	disk_stop(&world->disk); /* what is in flight is the volume's memory */
	volume_abandon(world->volume);
	world->volume = NULL;
	/* Workers are left as they are: there may be tasks that nobody will ever run. */
	for (unsigned i = 0; i < CLIENTS_MAX; i++)
		world->clients[i].busy = false;
	world->busy = 0;
}

/* --- moving --- */

static bool run_all(struct world *world)
{
	bool moved = false;

	for (unsigned i = 0; i < world->life.workers; i++)
		moved = worker_run(&world->workers[i]) || moved;
	return moved;
}

static bool deliver_all(struct world *world)
{
	bool moved = false;

	for (unsigned i = 0; i < world->life.workers; i++)
		moved = disk_deliver(&world->disk, i, true) || moved;
	return moved;
}

static void tick(struct world *world)
{
	volume_tick(world->volume, &world->workers[rng_below(&world->rng, world->life.workers)]);
}

void world_settle(struct world *world)
{
	while (run_all(world) || deliver_all(world))
		;
}

static bool ask_something(struct world *world)
{
	uint32_t sum = 0, at;
	unsigned kind = 0;

	for (unsigned i = 0; i < world->life.depth; i++) {
		if (world->clients[i].busy)
			continue;
		for (unsigned k = 0; k < OP_KINDS; k++)
			sum += world->life.weights[k];
		at = rng_below(&world->rng, sum);
		while (at >= world->life.weights[kind])
			at -= world->life.weights[kind++];
		return ask(&world->clients[i], kind);
	}
	return false;
}

void world_step(struct world *world, bool may_ask)
{
	struct rng *rng = &world->rng;
	unsigned worker = rng_below(rng, world->life.workers);

	if (rng_once_in(rng, world->life.tick_in))
		tick(world);
	if (world->life.checkpoint_in && rng_once_in(rng, world->life.checkpoint_in))
		volume_checkpoint(world->volume, &world->workers[worker]);
	if (may_ask && rng_once_in(rng, 3) && world->ops_left > 0 && ask_something(world))
		world->ops_left--;
	worker_run(&world->workers[worker]);
	if (rng_below(rng, 100) < world->life.deliver_percent)
		disk_deliver(&world->disk, rng_below(rng, world->life.workers), false);
}

void world_run(struct world *world, unsigned ops)
{
	uint64_t until = world->ops_left > ops ? world->ops_left - ops : 0;

	/* A slow store and a deep queue take their time; nothing takes this many steps. */
	for (uint64_t steps = 0; world->ops_left > until && steps < 400ull * ops; steps++)
		world_step(world, true);
}

static void move(struct world *world, unsigned *idle)
{
	if (world->moves++ > MOVES_MAX)
		fail("livelock", "%u requests are not answered, and all move", world->busy);
	if (run_all(world) || deliver_all(world)) {
		*idle = 0;
		return;
	}
	if (++*idle > STUCK_TICKS)
		fail("stuck", "%u requests are not answered, and nothing moves", world->busy);
	tick(world);
}

void world_drain(struct world *world)
{
	unsigned idle = 0;

	while (world->busy > 0)
		move(world, &idle);
}

struct client *world_client(struct world *world)
{
	unsigned idle = 0;

	for (;;) {
		for (unsigned i = 0; i < world->life.depth; i++)
			if (!world->clients[i].busy)
				return &world->clients[i];
		move(world, &idle);
	}
}
