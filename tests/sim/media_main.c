/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * media_main - metadata that was flipped, lost, misdirected or is stale must never be believed
 * (I16)
 *
 *     media [--scenario NAME] [--seed N] [--seeds N] [--nth N] [--way flip|lost|misdirected]
 *     [--trace]
 *
 * flip         a volume is written and closed; then, for each metadata block outside of the
 * ring, one bit of it
 *              is flipped.
 * lost         the n-th write of a metadata page is answered with success and never written:
 * what stays
 *              there is an older, valid page, or nothing. For every n.
 * misdirected  it lands on another metadata page's slot instead.
 *
 * Then the store is opened and every block read. Each answer has to be an error or true: content
 * that the oracle allows. If it is an error, check has to find damage too. The ring and the
 * superblocks are left out of the last two: that the end of a journal was never written cannot be
 * told from one that was not yet.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/check/check.h"
#include "core/format/geometry.h"
#include "tests/lib/mutant.h"
#include "tests/sim/report.h"
#include "tests/sim/run.h"

#define NTH_MAX 10000u

enum way {
	WAY_FLIP,
	WAY_LOST,
	WAY_MISDIRECTED,
	WAYS,
};

static const char *const way_names[WAYS] = {"flip", "lost", "misdirected"};
static const char *const chosen[] = {"write_leaf", "copy_on_write", "checkpoint",
				     "regions",	   "region_reuse",  "small_cache"};

#define CHOSEN_COUNT (sizeof(chosen) / sizeof(chosen[0]))

struct options {
	const char *scenario;
	uint64_t seed;
	uint64_t seeds;
	uint64_t nth;
	int way;
};

struct trial {
	struct world *world;
	struct examiner *examiner;
	struct geometry geometry;
	enum way way;
	uint64_t nth;
	bool met;
	uint64_t block; /* that was hit */
};

struct totals {
	uint64_t trials;
	uint64_t unopened;
	uint64_t unreadable; /* blocks */
	uint64_t harmless; /* trials */
};

/* --- which writes --- */

/* A page of the map, the counts or their roots; not the ring, not a superblock. */
static bool is_page(const struct geometry *geometry, uint64_t off_bytes, const uint8_t *data)
{
	if (off_bytes / BLOCK_BYTES < geometry->tops_start ||
	    (off_bytes / BLOCK_BYTES >= geometry->super_b_start &&
	     off_bytes / BLOCK_BYTES < geometry->data_start))
		return false;
	return !content_is_ours(data) && !content_is_zero(data);
}

static struct sim_verdict lose(void *context, const struct store_io *io)
{
	struct trial *trial = context;
	struct sim_verdict verdict = {0};

	if (io->op != STORE_WRITE || trial->met || io->len_bytes != BLOCK_BYTES ||
	    !is_page(&trial->geometry, io->off_bytes, io->buf) || --trial->nth > 0)
		return verdict;
	trial->met = true;
	trial->block = io->off_bytes / BLOCK_BYTES;
	verdict.media = SIM_MEDIA_LOST;
	if (trial->way == WAY_MISDIRECTED) {
		verdict.media = SIM_MEDIA_MISDIRECTED;
		/* The slot of a top that is not this one. */
		verdict.redirect_bytes = blocks_to_bytes(trial->geometry.tops_start +
							 (trial->block % 2 == 0 ? 1 : 2));
	}
	sim_trace("%s: write of block %" PRIu64, way_names[trial->way], trial->block);
	return verdict;
}

/* --- what is there now --- */

static int check_read(void *context, uint64_t off_bytes, void *buf, size_t len_bytes)
{
	store_sim_read_durable(context, off_bytes, buf, len_bytes);
	return 0;
}

static uint64_t findings(const struct store_sim *sim)
{
	struct check_source source = {
		.context = (void *)(uintptr_t)sim,
		.size_bytes = sim->store.size_bytes,
		.read = check_read,
	};
	struct check_report report;
	uint64_t total;
	int r = check_store(&source, false, &report);

	if (r < 0)
		return 1; /* so bad that it does not begin */
	total = report.findings_total;
	check_report_done(&report);
	return total;
}

/* True: it read an allowed content. Anything else must have been an error. */
static bool read_block(struct trial *trial, struct patient *patient, uint64_t block)
{
	struct world *world = trial->world;
	uint8_t *data = trial->examiner->levels[0].survey.data;
	uint32_t ids[BLOCK_SECTORS];
	char text[ORACLE_TEXT];
	int r = patient_read(patient, blocks_to_bytes(block), BLOCK_BYTES, data);

	if (r < 0)
		return false;
	for (unsigned s = 0; s < BLOCK_SECTORS; s++)
		ids[s] = contents_identify(&world->contents, data + s * SECTOR_BYTES, s);
	if (!oracle_crash_block(&world->oracle, block, ids, false, text))
		sim_fail("%s of block %" PRIu64 " is believed: %s", way_names[trial->way],
			 trial->block, text);
	return true;
}

static void look(struct trial *trial, struct store_sim *sim, struct totals *totals)
{
	const struct oracle *oracle = &trial->world->oracle;
	struct patient *patient = &trial->examiner->levels[0].patient;
	uint64_t unreadable = 0, found = findings(sim);
	int r = patient_open(patient, sim, true, false);

	totals->trials++;
	if (r < 0) {
		totals->unopened++;
		if (patient->damage.text[0] == '\0')
			sim_fail("opening failed with %d and no word", r);
	} else {
		for (uint32_t i = 0; i < oracle->touched_count; i++)
			unreadable += !read_block(trial, patient, oracle->touched[i]);
		patient_abandon(patient);
	}
	totals->unreadable += unreadable;
	if ((r < 0 || unreadable > 0) && found == 0)
		sim_fail("%s of block %" PRIu64 ": the engine finds damage (open %d, %" PRIu64
			 " blocks unreadable), check none",
			 way_names[trial->way], trial->block, r, unreadable);
	totals->harmless += r == 0 && unreadable == 0 && found == 0;
}

/* --- a life --- */

/* False: it ended early, by the damage itself. */
static bool live(struct trial *trial)
{
	struct world *world = trial->world;
	struct damage damage = {""};

	if (world_open(world, &damage) < 0)
		return false;
	world_fill(world);
	world_run(world, world->scenario.requests);
	world_drain(world);
	world_settle(world);
	if (world_close(world) < 0)
		return false;
	oracle_closed(&world->oracle);
	return true;
}

static void flip_all(struct trial *trial, struct totals *totals)
{
	struct store_sim *fork = &trial->examiner->levels[0].sim;
	const struct store_sim *sim = &trial->world->sim;
	uint8_t data[BLOCK_BYTES];
	uint64_t blocks = sim->store.size_bytes / BLOCK_BYTES;
	struct rng rng = rng_for(trial->world->seed, 11);

	for (uint64_t block = 0; block < blocks; block++) {
		store_sim_read_durable(sim, block * BLOCK_BYTES, data, BLOCK_BYTES);
		if (block != 0 && block != trial->geometry.super_b_start &&
		    !is_page(&trial->geometry, block * BLOCK_BYTES, data))
			continue;
		trial->block = block;
		store_sim_fork(fork, sim, block);
		store_sim_flip_bit(fork, block * BLOCK_BYTES + rng_below(&rng, BLOCK_BYTES),
				   rng_below(&rng, 8));
		look(trial, fork, totals);
	}
}

/* False: the life had no n-th write of the kind. */
static bool run_trial(struct examiner *examiner, const struct scenario *scenario, uint64_t seed,
		      enum way way, uint64_t nth, struct totals *totals)
{
	struct world *world = malloc(sizeof(*world));
	struct trial trial = {.world = world, .examiner = examiner, .way = way, .nth = nth};
	static char extra[64];

	snprintf(extra, sizeof(extra), " --way %s --nth %" PRIu64, way_names[way], nth);
	sim_where = (struct sim_where){.program = sim_where.program,
				       .scenario = scenario->name,
				       .seed = seed,
				       .extra = extra,
				       .trace = sim_where.trace,
				       .doing = "living"};
	if (geometry_plan(scenario->logical_blocks, scenario->store_blocks, scenario->ring_blocks,
			  &trial.geometry) < 0)
		sim_fail("geometry");
	world_begin(world, scenario, seed);
	world->faulty = true;
	if (way != WAY_FLIP) {
		world->sim.hooks.fault = lose;
		world->sim.hooks.fault_context = &trial;
	}
	examiner_begin(examiner, world);
	if (live(&trial)) {
		world->sim.hooks = (struct sim_hooks){0};
		sim_where.doing = "reading what is left";
		if (way == WAY_FLIP) {
			flip_all(&trial, totals);
		} else {
			store_sim_fork(&examiner->levels[0].sim, &world->sim, nth);
			look(&trial, &examiner->levels[0].sim, totals);
		}
	}
	world_abandon(world);
	examiner_end(examiner);
	world_end(world);
	free(world);
	return trial.met;
}

static void run_scenario_ways(struct examiner *examiner, const struct options *options,
			      const struct scenario *scenario)
{
	for (unsigned way = 0; way < WAYS; way++) {
		struct totals totals = {0};

		if (options->way >= 0 && (int)way != options->way)
			continue;
		for (uint64_t seed = options->seed; seed < options->seed + options->seeds; seed++) {
			uint64_t nth = options->nth ? options->nth : 1;

			while (run_trial(examiner, scenario, seed, (enum way)way, nth, &totals) &&
			       !options->nth && nth < NTH_MAX)
				nth++;
		}
		printf("%-14s %-12s %7" PRIu64 " trials: %6" PRIu64 " did not open, %8" PRIu64
		       " blocks unreadable, %6" PRIu64 " harmless\n",
		       scenario->name, way_names[way], totals.trials, totals.unopened,
		       totals.unreadable, totals.harmless);
		fflush(stdout);
	}
}

static uint64_t number(const char *text)
{
	char *end;
	uint64_t value = strtoull(text, &end, 0);

	if (*text == '\0' || *end != '\0') {
		fprintf(stderr, "media: \"%s\" is no number\n", text);
		exit(2);
	}
	return value;
}

static void parse(struct options *options, int argc, char **argv)
{
	static const struct option long_options[] = {
		{"scenario", 1, NULL, 's'}, {"seed", 1, NULL, 'n'}, {"seeds", 1, NULL, 'c'},
		{"runs", 1, NULL, 'c'},	    {"way", 1, NULL, 'w'},  {"nth", 1, NULL, 't'},
		{"trace", 0, NULL, 'v'},    {NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		if (c == 's')
			options->scenario = optarg;
		else if (c == 'n')
			options->seed = number(optarg);
		else if (c == 'c')
			options->seeds = number(optarg);
		else if (c == 't')
			options->nth = number(optarg);
		else if (c == 'v')
			sim_where.trace = true;
		else if (c != 'w')
			exit(2);
		for (unsigned i = 0; c == 'w' && i < WAYS; i++)
			if (strcmp(optarg, way_names[i]) == 0)
				options->way = (int)i;
	}
}

int main(int argc, char **argv)
{
	struct options options = {.seed = 1, .seeds = 1, .way = -1};
	struct examiner *examiner = calloc(1, sizeof(*examiner));
	struct counters counters = {0};
	struct image_set set;
	unsigned at;

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
	for (unsigned i = 0; i < CHOSEN_COUNT; i++) {
		struct scenario scenario;

		if (options.scenario && strcmp(options.scenario, chosen[i]) != 0)
			continue;
		if (!scenario_find(chosen[i], &at))
			sim_fail("no scenario %s", chosen[i]);
		scenario = scenario_at(at);
		run_scenario_ways(examiner, &options, &scenario);
	}
	image_set_done(&set);
	free(examiner);
	return 0;
}
