/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/sim/run.h"

#include <inttypes.h>
#include <stdlib.h>

#include "tests/sim/report.h"

/* Points are thinned out so that a run's images come from all of it: by 1, 4, 16 or 64. */
#define THIN_STEPS 4u

static bool is_chosen(const struct examiner *examiner, uint64_t point)
{
	struct rng rng = rng_for(examiner->world->seed, point * 31 + 7);

	if (examiner->only_point)
		return point == examiner->only_point;
	return examiner->armed && examiner->left > 0 && rng_once_in(&rng, examiner->point_in);
}

static void on_point(struct world *world, bool store_event)
{
	struct examiner *examiner = world->context;

	if (!store_event)
		examiner->stamp++;
	examiner->points++;
	if (!is_chosen(examiner, examiner->points))
		return;
	sim_where.places[0].point = examiner->points;
	examine_point(examiner, &world->sim, 0, UINT32_MAX);
}

static void open_world(struct world *world)
{
	struct damage damage = {""};
	int r = world_open(world, &damage);

	if (r < 0)
		sim_fail("open: %d %s", r, damage.text);
}

/* The oracle is told what the image reads; then the live volume has to read the same. */
static void revive(struct examiner *examiner, const struct survey *survey)
{
	struct world *world = examiner->world;
	struct oracle *oracle = &world->oracle;

	oracle_recovered(oracle);
	examiner->stamp++;
	for (uint32_t i = 0; i < oracle->touched_count; i++)
		oracle_recovered_block(oracle, oracle->touched[i],
				       &survey->ids[(size_t)i * BLOCK_SECTORS],
				       survey->pbns[i] == 0);
	for (uint32_t i = 0; i < oracle->touched_count; i++) {
		client_submit_at(&world->clients[0], OP_READ, oracle->touched[i], 1, 0);
		world_drain(world);
	}
}

/* What is on the store now is what the next life begins with. */
static void begin_life(struct examiner *examiner, uint64_t life)
{
	struct world *world = examiner->world;

	sim_where.life = life;
	if (life == 0) {
		examiner->armed = true;
		open_world(world);
		examiner->armed = world->scenario.fill == FILL_NOTHING;
		world_fill(world);
		examiner->armed = true;
		return;
	}
	sim_where.doing = "judging what the last life left";
	examine_as_is(examiner, &world->sim);
	sim_where.doing = "opening";
	open_world(world);
	revive(examiner, &examiner->levels[0].survey);
}

static void close_life(struct examiner *examiner)
{
	struct world *world = examiner->world;
	int r;

	sim_where.doing = "closing";
	r = world_close(world);
	if (r < 0)
		sim_fail("close: %d", r);
	if (world_undurable(&world->sim) > 0)
		sim_fail("close left %" PRIu32 " writes that are not durable",
			 world_undurable(&world->sim));
	oracle_closed(&world->oracle);
	examiner->stamp++;
	recover_check(examiner, &world->sim, "after close");
}

static void end_life(struct examiner *examiner)
{
	struct world *world = examiner->world;
	uint32_t how = rng_below(&world->rng, 4);

	if (how == 0) {
		close_life(examiner);
		return;
	}
	if (how == 1)
		world_drain(world);
	world_abandon(world);
	sim_where.doing = "crashing";
	examine_crash(examiner, &world->sim, &world->rng);
}

void run_scenario(struct examiner *examiner, const struct scenario *scenario, uint64_t seed)
{
	struct world *world = malloc(sizeof(*world));
	struct rng rng = rng_for(seed, 3);
	uint64_t requests = 0;

	sim_where.scenario = scenario->name;
	sim_where.seed = seed;
	sim_where.depth = 0;
	sim_where.doing = "formatting";
	world_begin(world, scenario, seed);
	world->on_point = on_point;
	world->context = examiner;
	examiner_begin(examiner, world);
	examiner->stamp++;
	examiner->point_in = 1u << (2 * rng_below(&rng, THIN_STEPS));
	for (uint64_t life = 0; life < scenario->lives; life++) {
		begin_life(examiner, life);
		world_run(world, scenario->requests);
		end_life(examiner);
		examiner->counters->lives++;
	}
	sim_where.doing = "judging the end";
	examine_as_is(examiner, &world->sim);
	for (unsigned i = 0; i < OP_KINDS; i++)
		requests += world->answers[i];
	examiner->counters->requests += requests;
	examiner->counters->steps += world->steps;
	examiner->counters->seeds++;
	examiner->armed = false;
	world_abandon(world);
	examiner_end(examiner);
	world_end(world);
	free(world);
}
