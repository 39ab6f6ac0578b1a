/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * life - one opening of the volume, from what the last one left to how it ends
 *
 *   kills inside the recovery, up to four, each with options of its own; the recovery; all that was
 *   ever touched is read and judged, and is the truth from then on; the random load, with its
 *   faults; everything counted, perhaps; the end.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/swarm/engine/fail.h"
#include "tests/swarm/engine/table.h"
#include "tests/swarm/engine/world.h"

/* --- what the last life left --- */

struct found {
	uint64_t block;
	uint32_t ids[BLOCK_SECTORS];
};

struct findings {
	struct found *each;
	uint64_t count;
	uint64_t capacity;
	bool process;
};

static void judge(struct world *world, void *context, uint64_t block, const uint32_t *ids)
{
	struct findings *findings = context;
	char text[MODEL_TEXT];

	if (!model_may_leave(&world->model, findings->process, block, ids, text))
		fail(findings->process ? "after a kill" : "after a cut", "%s", text);
	if (findings->count == findings->capacity) {
		findings->capacity = findings->capacity * 2 + 256;
		findings->each =
			realloc(findings->each, findings->capacity * sizeof(findings->each[0]));
		if (findings->each == NULL)
			abort();
	}
	findings->each[findings->count].block = block;
	memcpy(findings->each[findings->count++].ids, ids, sizeof(findings->each[0].ids));
}

void life_recovered(struct world *world, bool process)
{
	struct findings findings = {.process = process};

	read_touched(world, judge, &findings);
	/* Not before the last was judged: a clone is judged by its source's history. */
	model_recovered(&world->model);
	for (uint64_t i = 0; i < findings.count; i++)
		model_recovered_block(&world->model, findings.each[i].block, findings.each[i].ids);
	free(findings.each);
	table_add(DIM_LOOK, 0);
}

/* --- ends --- */

/* The power fails where a flush failed: what it covered is nobody's to promise. True: the process
 * alone ended. */
static bool end_killed(struct world *world, bool power)
{
	bool cut = power || world->disk.undecided;

	trace("%s", cut ? "power cut" : "killed");
	if (cut)
		disk_cut(&world->disk);
	else
		disk_kill(&world->disk);
	return !cut;
}

/* The I/Os of an opening, told by a child that makes them; 0 if it does not open. */
static uint64_t count_opening(struct world *world)
{
	uint64_t before = world->disk.submitted, count = 0;
	int fds[2], r = pipe(fds);
	pid_t pid;

	assert(r == 0);
	pid = fork();
	assert(pid >= 0);
	if (pid == 0) {
		/* What is wrong is seen again, and told, when it is opened in earnest. */
		if (!freopen("/dev/null", "w", stdout) || !freopen("/dev/null", "w", stderr) ||
		    world_open(world) < 0)
			_exit(1);
		count = world->disk.submitted - before;
		_exit(write(fds[1], &count, sizeof(count)) != sizeof(count));
	}
	close(fds[1]);
	if (read(fds[0], &count, sizeof(count)) != sizeof(count))
		count = 0;
	close(fds[0]);
	waitpid(pid, NULL, 0);
	return count;
}

/* At which I/O. A long log is read for a long time, and at the end most is under way. */
static uint64_t draw_death(struct world *world)
{
	static const uint16_t scales[] = {3, 12, 50, 200, 800};
	struct rng *rng = &world->rng;
	uint32_t count;

	if (world->plan.shape != SHAPE_LONG_LOG)
		return 1 + rng_below(rng, scales[rng_below(rng, 5)]);
	count = (uint32_t)count_opening(world);
	if (count == 0)
		return UINT32_MAX;
	return rng_once_in(rng, 2) ? count - rng_below(rng, count / 3 + 1)
				   : 1 + rng_below(rng, count);
}

/* One opening that does not live to see its end. */
static bool die_opening(struct world *world)
{
	struct rng *rng = &world->rng;
	struct life_plan life = world->life;
	bool process;
	int r;

	if (world->plan.shape == SHAPE_LONG_LOG ? !rng_once_in(rng, 4) : rng_once_in(rng, 4))
		world->life.cache_bytes = 1;
	else if (rng_once_in(rng, 3))
		world->life.cache_bytes = 0;
	world->life.read_only = rng_once_in(rng, 12);
	disk_die_after(&world->disk, draw_death(world));
	r = world_open(world);
	if (r < 0 && !world->disk.dead)
		fail("opening", "%d %s", r, world->damage.text);
	if (r == 0)
		world_abandon(world);
	process = end_killed(world, rng_once_in(rng, 2));
	world->life = life;
	return process;
}

/* One in which the store fails: whatever it says, the next one is as if it had not been. */
static bool fail_opening(struct world *world)
{
	static const enum store_op ops[] = {STORE_READ, STORE_WRITE, STORE_FLUSH};
	struct disk *disk = &world->disk;
	int r;

	disk->fault = (struct disk_fault){
		.op = ops[rng_below(&world->rng, 3)],
		.error = -EIO,
		.one_in = 1 + rng_below(&world->rng, 30),
		.from = disk->submitted,
		.to = DISK_NEVER,
	};
	r = world_open(world);
	if (r < 0 && disk->faults == 0)
		fail("opening", "%d %s", r, world->damage.text);
	if (r == 0)
		world_abandon(world);
	else
		table_add(DIM_LOOK, 7);
	disk->faults = 0;
	return end_killed(world, rng_once_in(&world->rng, 2));
}

static bool end_closing(struct world *world)
{
	int r;

	world_drain(world);
	world_settle(world);
	disk_die_after(&world->disk, 1 + rng_below(&world->rng, 40));
	r = world_close(world);
	if (r == 0 && !world->disk.dead)
		model_closed(&world->model);
	return end_killed(world, rng_once_in(&world->rng, 2));
}

static bool end_clean(struct world *world)
{
	bool latched;
	int r;

	world_drain(world);
	world_settle(world);
	latched = world_latched(world);
	disk_die_after(&world->disk, 0);
	world->disk.fault.one_in = 0;
	r = world_close(world);
	if (r < 0 && !latched)
		fail("closing", "%d", r);
	if (latched)
		return end_killed(world, true);
	if (disk_undurable(&world->disk) > 0 || !disk_idle(&world->disk))
		fail("closing", "%" PRIu64 " blocks are not durable", disk_undurable(&world->disk));
	model_closed(&world->model);
	return true;
}

static void check_latch(struct world *world)
{
	const struct life_plan *life = &world->life;
	struct volume_stats stats;

	volume_stats(world->volume, &stats);
	if (stats.state == VOLUME_LATCHED &&
	    (world->disk.faults == 0 || life->fault == FAULT_READ || life->fault == FAULT_DISCARD ||
	     life->fault == FAULT_COMPARE))
		fail("latch", "%s", stats.latched_text);
	if (stats.state != VOLUME_LATCHED && world->disk.undecided)
		fail("latch", "a flush failed, and the volume goes on");
}

static bool end_life(struct world *world)
{
	switch (world->life.end) {
	case END_CLEAN:
		return end_clean(world);
	case END_KILL_CLOSING:
		return end_closing(world);
	default:
		if (rng_once_in(&world->rng, 3))
			world_drain(world);
		world_abandon(world);
		return end_killed(world, world->life.end == END_CUT);
	}
}

/* --- faults --- */

static void begin_faults(struct world *world)
{
	struct disk *disk = &world->disk;
	const struct life_plan *life = &world->life;
	struct rng *rng = &world->rng;
	uint64_t from = disk->submitted + rng_below(rng, 2 * life->ops);

	if (life->fault == FAULT_FULL || life->fault == FAULT_QUOTA) {
		disk->full_error = life->fault == FAULT_FULL ? -ENOSPC : -EDQUOT;
		disk->limit_blocks = disk->allocated + rng_below(rng, 300);
	} else if (life->fault != FAULT_NONE) {
		disk->fault = (struct disk_fault){
			.op = draw_fault_op(life->fault),
			.error = life->fault != FAULT_MOVING ? -EIO
				 : rng_once_in(rng, 2)	     ? -ENOSPC
							     : -EDQUOT,
			.one_in = 1 + rng_below(rng, life->fault == FAULT_MOVING ? 3 : 20),
			.once = life->fault_once,
			.from = from,
			.to = from + rng_below(rng, 4 * life->ops),
		};
		world->leaky |= life->fault == FAULT_DISCARD;
	}
}

static void end_faults(struct world *world)
{
	world->disk.limit_blocks = DISK_NEVER;
	world->disk.full_error = -ENOSPC;
	world->disk.fault = (struct disk_fault){0};
	world->disk.faults = 0;
	world->disk.full = 0;
	world->disk.written = 0;
	world->disk.slow_in = 0;
}

/* --- the life --- */

static void open_well(struct world *world)
{
	struct volume_stats stats;
	int r = world_open(world);

	if (r < 0)
		fail("opening", "%d %s", r, world->damage.text);
	volume_stats(world->volume, &stats);
	/* More than summaries and roots, which are no pages of the cache. */
	if (stats.metadata_reads > 0)
		table_add(DIM_LOOK, 1);
	if (stats.checkpoints > 1)
		table_add(DIM_LOOK, 8);
	if (world->life_number == 0)
		world->empty = stats;
}

static void live(struct world *world)
{
	if (world->life.read_only) {
		world_run(world, world->life.ops / 8);
		world_drain(world);
		if (world->disk.written > 0)
			fail("read-only", "%" PRIu64 " writes", world->disk.written);
		return;
	}
	begin_faults(world);
	world->disk.slow_in = world->life.slow_in;
	if (world->life_number == 0)
		fill(world);
	world_run(world, world->life.ops);
	check_latch(world);
	if (world->life.quiet && world->life.fault == FAULT_NONE)
		quiet(world);
}

void life_run(struct world *world, unsigned number)
{
	bool process;

	fail_where(world->plan.seed, number);
	world->life_number = number;
	draw_life(&world->plan, number, &world->life);
	world->freed_bytes = 0;
	world->leaky |= !world->life.discard;
	end_faults(world);
	process = world->process;
	for (unsigned i = 0; i < world->life.nested; i++)
		process = die_opening(world) && process;
	if (rng_once_in(&world->rng, 10))
		process = fail_opening(world) && process;
	if (world->life.check)
		quiet_check(world, "before the recovery");
	world->disk.must_not_write = world->life.read_only;
	open_well(world);
	life_recovered(world, process);
	live(world);
	world->process = end_life(world);
	world->disk.must_not_write = false;
	if (world->life.end == END_CLEAN && world->life.check)
		quiet_check(world, "after a clean end");
}

void life_last(struct world *world)
{
	draw_life(&world->plan, world->plan.lives, &world->life);
	fail_where(world->plan.seed, world->plan.lives);
	world->life_number = world->plan.lives;
	world->life.read_only = false;
	world->life.discard = true;
	world->life.fault = FAULT_NONE;
	end_faults(world);
	open_well(world);
	life_recovered(world, world->process);
	quiet(world);
	quiet_end(world);
	world->life.end = END_CLEAN;
	end_clean(world);
	quiet_check(world, "at the end");
}
