/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * faults_main - the n-th operation on the store fails, for every n
 *
 *     faults [--scenario NAME] [--seed N] [--seeds N] [--op read|write|flush|discard|compare]
 *            [--error E] [--nth N] [--trace]
 *
 * For each scenario, each kind of operation and each errno: a life in which the first operation of
 * that kind fails, one in which the second does, and so on until the life ends without meeting it.
 * Each life has to end (no crash, no hang), answer with the right errors, and be read-only at its
 * end if, and only if, what failed was a metadata write or a flush. Then the power is cut, the
 * store works again, and what is recovered is judged by the oracle and by check.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/format/geometry.h"
#include "tests/lib/mutant.h"
#include "tests/sim/report.h"
#include "tests/sim/run.h"

#define NTH_MAX	       100000u
#define AFTER_REQUESTS 6u
#define OPS	       ((unsigned)STORE_OPS)

static const int errors[] = {EIO, ENOSPC, EAGAIN, ECANCELED, EINTR};
static const char *const op_names[OPS] = {"read", "write", "flush", "discard", "compare"};
static const char *const chosen[] = {
	"write_linear",	 "write_in_place", "write_unaligned",
	"copy_on_write", "zero",	   "discard_backing",
	"fua",		 "same",	   "tracking",
	"same_zero",	 "same_many",	   "clone",
	"explode",	 "checkpoint",	   "regions",
	"region_reuse",	 "full_store",	   "two_workers_same",
	"read_race",	 "mixed",
};

#define CHOSEN_COUNT (sizeof(chosen) / sizeof(chosen[0]))

struct options {
	const char *scenario;
	uint64_t seed;
	uint64_t seeds;
	int op;
	int error;
	uint64_t nth;
};

/* The one fault of a life. */
struct fault {
	struct world *world;
	struct geometry geometry;
	enum store_op op;
	int error;
	uint64_t nth; /* counted down */
	bool met;
	bool latches; /* a metadata write or a flush */
	bool is_data;
};

struct totals {
	uint64_t lives;
	uint64_t latched;
	uint64_t answered; /* requests that failed */
	uint64_t unopened;
};

static bool all_zero(const uint8_t *buf, uint64_t len_bytes)
{
	for (uint64_t at = 0; at < len_bytes; at += SECTOR_BYTES)
		if (!content_is_zero(buf + at))
			return false;
	return true;
}

static bool any_content(const struct world *world, const uint8_t *buf, uint64_t len_bytes,
			uint64_t off_bytes)
{
	for (uint64_t at = 0; at < len_bytes; at += SECTOR_BYTES) {
		unsigned index = (off_bytes + at) / SECTOR_BYTES % BLOCK_SECTORS;
		uint32_t id = contents_identify(&world->contents, buf + at, index);

		if (id != CONTENT_ZERO && id != CONTENT_GARBAGE)
			return true;
	}
	return false;
}

/* What a failed write means. Zeros in a refs page's slots open a slab: failing, it stays shut,
 * no more. */
static void judge_write(struct fault *fault, const struct store_io *io)
{
	pbn_t pbn = {io->off_bytes / BLOCK_BYTES};
	bool in_data = geometry_is_data(&fault->geometry, pbn);
	bool zeros = all_zero(io->buf, io->len_bytes);

	fault->is_data = in_data && (zeros || any_content(fault->world, io->buf, io->len_bytes,
							  io->off_bytes));
	/* Metadata waits for space, and finds it the next time. */
	fault->latches = !fault->is_data && fault->error != ENOSPC &&
			 !(zeros && pbn.v >= fault->geometry.data_start);
}

static struct sim_verdict choose_fault(void *context, const struct store_io *io)
{
	struct fault *fault = context;

	if (io->op != fault->op || fault->met || --fault->nth > 0)
		return (struct sim_verdict){0};
	fault->met = true;
	fault->latches = io->op == STORE_FLUSH;
	if (io->op == STORE_WRITE)
		judge_write(fault, io);
	sim_trace("FAULT: %s of block %" PRIu64 "+%" PRIu64 " will fail: %s%s%s", op_names[io->op],
		  io->off_bytes / BLOCK_BYTES, io->len_bytes / BLOCK_BYTES, strerror(fault->error),
		  fault->is_data ? ", data" : "", fault->latches ? ", latches" : "");
	return (struct sim_verdict){.error = -fault->error};
}

/* --- one life --- */

static void check_state(const struct fault *fault)
{
	struct world *world = fault->world;
	struct volume_stats stats;
	bool latched;

	volume_stats(world->volume, &stats);
	latched = stats.state == VOLUME_LATCHED;
	if (latched != (fault->met && fault->latches))
		sim_fail("the volume is %slatched (%s)", latched ? "" : "not ",
			 latched ? stats.latched_text : "");
	if (latched)
		return;
	if (fault->is_data && world->failures - world->enospc > 1)
		sim_fail("one data write failed, %" PRIu64 " requests did", world->failures);
	if (fault->is_data && world->failures == 0)
		sim_fail("a data write failed, no request did");
	if (fault->op == STORE_DISCARD && world->failures > 0 && !world->scenario.may_fill)
		sim_fail("a discard failed, and %" PRIu64 " requests did", world->failures);
	if (fault->is_data && fault->error != ENOSPC && world->enospc > 0 &&
	    !world->scenario.may_fill)
		sim_fail("error %d was answered with ENOSPC", fault->error);
}

static void live(struct fault *fault, struct totals *totals)
{
	struct world *world = fault->world;
	struct damage damage = {""};
	int r = world_open(world, &damage);

	if (r < 0) {
		if (!fault->met || fault->op == STORE_DISCARD)
			sim_fail("open: %d %s", r, damage.text);
		totals->unopened++;
		return;
	}
	if (fault->met && fault->latches)
		sim_fail("opened, though a metadata write or a flush failed");
	world_fill(world);
	world_run(world, world->scenario.requests);
	world_drain(world);
	world_settle(world);
	check_state(fault);
	totals->latched += world->latched;
	world_run(world, AFTER_REQUESTS);
	world_drain(world);
	if (rng_once_in(&world->rng, 2))
		return;
	sim_where.doing = "closing";
	world_settle(world);
	world->latched = false; /* on_store() cannot tell when close notices */
	r = world_close(world);
	if ((r < 0) != (fault->met && fault->latches))
		sim_fail("close: %d", r);
	if (r == 0)
		oracle_closed(&world->oracle);
}

/* False: the life never met the fault. */
static bool run_fault(struct examiner *examiner, const struct scenario *scenario, uint64_t seed,
		      enum store_op op, int error, uint64_t nth, struct totals *totals)
{
	struct world *world = malloc(sizeof(*world));
	struct fault fault = {.world = world, .op = op, .error = error, .nth = nth};
	static char extra[64];
	int r;

	snprintf(extra, sizeof(extra), " --op %s --error %d --nth %" PRIu64, op_names[op], error,
		 nth);
	sim_where = (struct sim_where){.program = sim_where.program,
				       .scenario = scenario->name,
				       .seed = seed,
				       .extra = extra,
				       .trace = sim_where.trace,
				       .doing = "opening"};
	r = geometry_plan(scenario->logical_blocks, scenario->store_blocks, scenario->ring_blocks,
			  &fault.geometry);
	if (r == 0 && scenario->tracking)
		r = geometry_track(&fault.geometry);
	if (r < 0)
		sim_fail("geometry: %d", r);
	world_begin(world, scenario, seed);
	world->faulty = true;
	/* What a merge reads by itself has to fail too, and be told. */
	world->sim.store.can_compare = op != STORE_READ;
	world->sim.hooks.fault = choose_fault;
	world->sim.hooks.fault_context = &fault;
	live(&fault, totals);
	totals->lives++;
	totals->answered += world->failures;
	world_abandon(world);
	world->sim.hooks = (struct sim_hooks){0};
	examiner_begin(examiner, world);
	sim_where.doing = "judging what is left";
	examine_crash(examiner, &world->sim, &world->rng);
	examine_as_is(examiner, &world->sim);
	examiner_end(examiner);
	world_end(world);
	free(world);
	return fault.met;
}

/* --- the loops --- */

static void run_op(struct examiner *examiner, const struct options *options,
		   const struct scenario *scenario, uint64_t seed, enum store_op op,
		   struct totals *totals)
{
	for (unsigned e = 0; e < sizeof(errors) / sizeof(errors[0]); e++) {
		int error = options->error ? options->error : errors[e];
		uint64_t nth = options->nth ? options->nth : 1;

		while (run_fault(examiner, scenario, seed, op, error, nth, totals) &&
		       !options->nth && nth < NTH_MAX)
			nth++;
		if (options->error)
			return;
	}
}

static void run_all(const struct options *options, struct examiner *examiner)
{
	for (unsigned i = 0; i < CHOSEN_COUNT; i++) {
		struct totals totals = {0};
		struct scenario scenario;
		unsigned at;

		if (options->scenario && strcmp(options->scenario, chosen[i]) != 0)
			continue;
		if (!scenario_find(chosen[i], &at))
			sim_fail("no scenario %s", chosen[i]);
		scenario = scenario_at(at);
		for (uint64_t seed = options->seed; seed < options->seed + options->seeds; seed++)
			for (unsigned op = 0; op < OPS; op++)
				if (options->op < 0 || (int)op == options->op)
					run_op(examiner, options, &scenario, seed,
					       (enum store_op)op, &totals);
		printf("%-18s %8" PRIu64 " lives, %7" PRIu64 " latched, %5" PRIu64
		       " did not open, %8" PRIu64 " requests failed\n",
		       chosen[i], totals.lives, totals.latched, totals.unopened, totals.answered);
		fflush(stdout);
	}
}

static uint64_t number(const char *text)
{
	char *end;
	uint64_t value = strtoull(text, &end, 0);

	if (*text == '\0' || *end != '\0') {
		fprintf(stderr, "faults: \"%s\" is no number\n", text);
		exit(2);
	}
	return value;
}

static int op_number(const char *name)
{
	for (unsigned i = 0; i < OPS; i++)
		if (strcmp(op_names[i], name) == 0)
			return (int)i;
	fprintf(stderr, "faults: no operation \"%s\"\n", name);
	exit(2);
}

static void parse(struct options *options, int argc, char **argv)
{
	static const struct option long_options[] = {
		{"scenario", 1, NULL, 's'}, {"seed", 1, NULL, 'n'},  {"seeds", 1, NULL, 'c'},
		{"op", 1, NULL, 'o'},	    {"error", 1, NULL, 'e'}, {"nth", 1, NULL, 't'},
		{"runs", 1, NULL, 'r'},	    {"trace", 0, NULL, 'v'}, {NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		switch (c) {
		case 's':
			options->scenario = optarg;
			break;
		case 'n':
			options->seed = number(optarg);
			break;
		case 'r': /* as sim's, so that one command line serves */
		case 'c':
			options->seeds = number(optarg);
			break;
		case 'o':
			options->op = op_number(optarg);
			break;
		case 'e':
			options->error = (int)number(optarg);
			break;
		case 't':
			options->nth = number(optarg);
			break;
		case 'v':
			sim_where.trace = true;
			break;
		default:
			exit(2);
		}
	}
}

int main(int argc, char **argv)
{
	struct options options = {.seed = 1, .seeds = 1, .op = -1};
	struct examiner *examiner = calloc(1, sizeof(*examiner));
	struct counters counters = {0};
	struct image_set set;

	sim_where.program = argv[0];
	parse(&options, argc, argv);
	if (mutant_number() != 0)
		printf("mutant %d\n", mutant_number());
	mallopt(M_MMAP_THRESHOLD, 6 << 20);
	mallopt(M_TRIM_THRESHOLD, 1 << 30);
	sim_catch_signals();
	image_set_init(&set);
	examiner->set = &set;
	examiner->counters = &counters;
	examiner->check_all = true;
	run_all(&options, examiner);
	image_set_done(&set);
	free(examiner);
	return 0;
}
