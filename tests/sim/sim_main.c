/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sim_main - the crash simulator
 *
 *     sim [--states N] [--seconds S] [--scenario NAME] [--seed N] [--runs N] [--jobs N]
 *     [--table] [--full]
 *         [--check-all] [--per-run N] [--dry N] [--point N [--image N]] [--list] [--trace]
 *
 * Runs scenarios with one seed after the other until N distinct surviving images were recovered and
 * judged, each scenario an equal share of them, or the seconds are over. The first finding is
 * printed with the command that reproduces it, and the exit status is 1.
 */
#include <getopt.h>
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/lib/mutant.h"
#include "tests/sim/report.h"
#include "tests/sim/run.h"

#define SCENARIOS_MAX 64u
#define JOBS_MAX      16u

struct options {
	uint64_t states;
	uint64_t seconds;
	uint64_t seed;
	uint64_t runs; /* of each scenario; 0: no limit */
	uint64_t per_run;
	uint64_t dry;
	uint64_t point;
	uint64_t image;
	unsigned jobs;
	int scenario; /* -1: all */
	bool full;
	bool check_all;
};

static double seconds_since(const struct timespec *start)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - start->tv_sec) + (double)(now.tv_nsec - start->tv_nsec) / 1e9;
}

static uint64_t number(const char *text)
{
	char *end;
	uint64_t value = strtoull(text, &end, 0);

	if (*text == '\0' || *end != '\0') {
		fprintf(stderr, "sim: \"%s\" is no number\n", text);
		exit(2);
	}
	return value;
}

static void list_scenarios(void)
{
	for (unsigned i = 0; i < scenario_count; i++) {
		struct scenario s = scenario_at(i);

		printf("%-18s %s\n", s.name, s.what);
	}
	exit(0);
}

enum {
	OPT_STATES = 1,
	OPT_SECONDS,
	OPT_SCENARIO,
	OPT_SEED,
	OPT_RUNS,
	OPT_JOBS,
	OPT_PER_RUN,
	OPT_POINT,
	OPT_IMAGE,
	OPT_TABLE,
	OPT_FULL,
	OPT_CHECK_ALL,
	OPT_LIST,
	OPT_TRACE,
	OPT_DRY,
};

static const struct option long_options[] = {
	{"states", 1, NULL, OPT_STATES},     {"seconds", 1, NULL, OPT_SECONDS},
	{"scenario", 1, NULL, OPT_SCENARIO}, {"seed", 1, NULL, OPT_SEED},
	{"runs", 1, NULL, OPT_RUNS},	     {"jobs", 1, NULL, OPT_JOBS},
	{"per-run", 1, NULL, OPT_PER_RUN},   {"point", 1, NULL, OPT_POINT},
	{"image", 1, NULL, OPT_IMAGE},	     {"table", 0, NULL, OPT_TABLE},
	{"full", 0, NULL, OPT_FULL},	     {"check-all", 0, NULL, OPT_CHECK_ALL},
	{"list", 0, NULL, OPT_LIST},	     {"trace", 0, NULL, OPT_TRACE},
	{"dry", 1, NULL, OPT_DRY},	     {NULL, 0, NULL, 0},
};

static void parse_scenario(struct options *options, const char *name)
{
	unsigned i;

	if (!scenario_find(name, &i)) {
		fprintf(stderr, "sim: no scenario \"%s\"; see --list\n", name);
		exit(2);
	}
	options->scenario = (int)i;
}

static void parse(struct options *options, int argc, char **argv)
{
	int c;

	while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		switch (c) {
		case OPT_STATES:
			options->states = number(optarg);
			break;
		case OPT_SECONDS:
			options->seconds = number(optarg);
			break;
		case OPT_SCENARIO:
			parse_scenario(options, optarg);
			break;
		case OPT_SEED:
			options->seed = number(optarg);
			break;
		case OPT_RUNS:
			options->runs = number(optarg);
			break;
		case OPT_JOBS:
			options->jobs = (unsigned)number(optarg);
			break;
		case OPT_PER_RUN:
			options->per_run = number(optarg);
			break;
		case OPT_DRY:
			options->dry = number(optarg);
			break;
		case OPT_POINT:
			options->point = number(optarg);
			break;
		case OPT_IMAGE:
			options->image = number(optarg);
			break;
		case OPT_TABLE: /* it is printed anyway */
			break;
		case OPT_FULL:
			options->full = true;
			sim_where.extra = " --full";
			break;
		case OPT_CHECK_ALL:
			options->check_all = true;
			break;
		case OPT_TRACE:
			sim_where.trace = true;
			break;
		case OPT_LIST:
			list_scenarios();
			break;
		default:
			exit(2);
		}
	}
	if (optind != argc || options->jobs < 1 || options->jobs > JOBS_MAX) {
		fprintf(stderr, "sim: bad arguments\n");
		exit(2);
	}
}

/* --- the budget --- */

static bool scenario_wanted(const struct options *options, const struct counters *all, unsigned i,
			    unsigned job)
{
	unsigned count = options->scenario >= 0 ? 1 : scenario_count;

	if (options->scenario >= 0 ? (int)i != options->scenario : i % options->jobs != job)
		return false;
	if (options->runs && all[i].seeds >= options->runs)
		return false;
	return options->states == 0 || all[i].images < options->states / count + 1;
}

/* The scenario that is farthest behind, or scenario_count. */
static unsigned choose_scenario(const struct options *options, const struct counters *all,
				unsigned job)
{
	unsigned best = scenario_count;

	for (unsigned i = 0; i < scenario_count; i++)
		if (scenario_wanted(options, all, i, job) &&
		    (best == scenario_count || all[i].images < all[best].images))
			best = i;
	return best;
}

static void work(const struct options *options, struct counters *all, unsigned job,
		 const struct timespec *start)
{
	struct examiner *examiner = calloc(1, sizeof(*examiner));
	struct image_set set;
	unsigned i;

	image_set_init(&set);
	examiner->set = &set;
	examiner->full = options->full;
	examiner->check_all = options->check_all;
	examiner->only_point = options->point;
	examiner->only_image = options->image;
	while ((options->seconds == 0 || seconds_since(start) < (double)options->seconds) &&
	       (i = choose_scenario(options, all, job)) < scenario_count) {
		struct scenario scenario = scenario_at(i);

		examiner->counters = &all[i];
		examiner->left = options->point ? UINT64_MAX : options->per_run;
		/* Most lives are lived without trying other crashes than their own: they cost
		 * little, and bugs that need no crash want many. */
		if (all[i].seeds % (options->dry + 1) != 0)
			examiner->left = 0;
		run_scenario(examiner, &scenario, options->seed + all[i].seeds);
	}
	image_set_done(&set);
	free(examiner);
}

/* Each job has its scenarios; the counters are in memory that all of them share. */
static int start_jobs(const struct options *options, struct counters *all,
		      const struct timespec *start)
{
	unsigned running = 0;
	pid_t pids[JOBS_MAX] = {0};
	int failed = 0;

	if (options->jobs == 1 || options->scenario >= 0) {
		work(options, all, 0, start);
		return 0;
	}
	for (unsigned job = 0; job < options->jobs; job++) {
		pids[job] = fork();
		if (pids[job] < 0) {
			perror("sim: fork");
			failed = 1;
			break;
		}
		if (pids[job] == 0) {
			work(options, all, job, start);
			fflush(stdout);
			_exit(0);
		}
		running++;
	}
	while (running > 0) {
		int status;
		pid_t pid = wait(&status);
		bool good = WIFEXITED(status) && WEXITSTATUS(status) == 0;

		running--;
		for (unsigned job = 0; job < options->jobs; job++) {
			if (pids[job] == pid)
				pids[job] = 0;
			else if (pids[job] > 0 && !good && !failed)
				kill(pids[job], SIGTERM); /* one finding is enough */
		}
		failed = failed || !good;
	}
	return failed;
}

/* --- the end --- */

static void add(struct counters *sum, const struct counters *c)
{
	uint64_t *to = (uint64_t *)sum;
	const uint64_t *from = (const uint64_t *)c;

	for (unsigned i = 0; i < sizeof(*sum) / sizeof(uint64_t); i++)
		to[i] += from[i];
}

static void print_row(const char *name, const struct counters *c)
{
	printf("%-18s %7" PRIu64 " %8" PRIu64 " %9" PRIu64 " %8" PRIu64 " %9" PRIu64 " %10" PRIu64
	       " %8" PRIu64 " %7" PRIu64 " %8" PRIu64 " %7" PRIu64 " %7" PRIu64 "\n",
	       name, c->seeds, c->lives, c->requests, c->points, c->images, c->recoveries,
	       c->doubles, c->triples, c->checks, c->read_only, c->refilled);
}

static int finish(const struct options *options, const struct counters *all, int failed,
		  const struct timespec *start)
{
	struct counters sum = {0};
	uint64_t most = 0;

	printf("%-18s %7s %8s %9s %8s %9s %10s %8s %7s %8s %7s %7s\n", "scenario", "seeds", "lives",
	       "requests", "points", "images", "recovered", "double", "triple", "check", "ro",
	       "refill");
	for (unsigned i = 0; i < scenario_count; i++) {
		struct scenario s = scenario_at(i);

		add(&sum, &all[i]);
		if (all[i].images > most)
			most = all[i].images;
		if (all[i].seeds > 0)
			print_row(s.name, &all[i]);
	}
	print_row("all", &sum);
	printf("%" PRIu64 " distinct images in %.0f s, at most %.1f %% of them in one scenario\n",
	       sum.images, seconds_since(start),
	       sum.images ? 100.0 * (double)most / (double)sum.images : 0.0);
	if (!failed && options->states && options->runs == 0 && sum.images < options->states) {
		printf("FAILED: fewer than the %" PRIu64 " images asked for\n", options->states);
		failed = 1;
	}
	return failed;
}

int main(int argc, char **argv)
{
	struct options options = {.seed = 1, .per_run = 300, .dry = 7, .jobs = 1, .scenario = -1};
	struct counters *all;
	struct timespec start;

	sim_where.program = argv[0];
	parse(&options, argc, argv);
	if (options.states == 0 && options.seconds == 0 && options.runs == 0)
		options.states = 20000;
	/* Volumes come and go by the thousand: keep their memory. */
	mallopt(M_MMAP_THRESHOLD, 6 << 20);
	mallopt(M_TRIM_THRESHOLD, 1 << 30);
	if (mutant_number() != 0)
		printf("mutant %d\n", mutant_number());
	sim_catch_signals();
	clock_gettime(CLOCK_MONOTONIC, &start);
	all = mmap(NULL, SCENARIOS_MAX * sizeof(*all), PROT_READ | PROT_WRITE,
		   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (all == MAP_FAILED || scenario_count > SCENARIOS_MAX) {
		perror("sim: mmap");
		return 2;
	}
	return finish(&options, all, start_jobs(&options, all, &start), &start);
}
