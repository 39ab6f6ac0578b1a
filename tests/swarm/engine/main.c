/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * main - worlds by seed, in children, until one fails or time is over
 *
 *     swarm_engine [--seconds S] [--worlds N] [--jobs J] [--first SEED] [--keep-going]
 *                  [--no-shrink]
 *     swarm_engine --seed N [--ops N] [--trace]
 *
 * A world is a child's, so that an assertion or a sanitizer's finding has a seed too. After a
 * failure the world is made again with fewer requests, halving their number as long as it fails;
 * --ops is that number. The table of what was drawn comes last; after 96 worlds an empty bucket
 * is a failure. Exit status 1 if anything failed.
 */
#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/swarm/engine/fail.h"
#include "tests/swarm/engine/table.h"
#include "tests/swarm/engine/world.h"

#define JOBS_MAX       64u
#define WORLD_SECONDS  300u /* one that takes longer hangs */
#define COMPLETE_FROM  96u /* worlds, of a run of two minutes: then all has to have been drawn */
#define SHRINK_SECONDS 20
#define KINDS_MAX      64u
#define NO_LIMIT       UINT64_MAX

/* What the children tell the parent. */
struct shared {
	_Atomic uint64_t next;
	_Atomic uint64_t worlds;
	_Atomic uint64_t ops;
	struct {
		uint64_t seed;
		uint64_t ops;
		char check[FAIL_CHECK_BYTES];
	} jobs[JOBS_MAX];
};

static struct {
	unsigned seconds;
	uint64_t worlds;
	unsigned jobs;
	uint64_t first;
	uint64_t seed;
	uint64_t ops;
	bool one;
	bool trace;
	bool keep_going;
	bool no_shrink;
} options = {.jobs = 1, .first = 1, .ops = NO_LIMIT};

static struct shared *shared;
static struct timespec began;

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - began.tv_sec) + (double)(now.tv_nsec - began.tv_nsec) / 1e9;
}

/* Of the processor, by children that have ended. */
static double processor_seconds(void)
{
	struct rusage usage;

	getrusage(RUSAGE_CHILDREN, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* Returns the number of requests. */
static uint64_t run_world(uint64_t seed, uint64_t ops_max)
{
	struct world *world = malloc(sizeof(*world));
	struct plan plan;
	uint64_t ops;

	assert(world);
	draw_plan(seed, &plan);
	world_begin(world, &plan, ops_max);
	world->process = true;
	for (unsigned life = 0; life < plan.lives; life++)
		life_run(world, life);
	life_last(world);
	ops = ops_max - world->ops_left;
	world_end(world);
	free(world);
	return ops;
}

static bool over(uint64_t seed)
{
	return (options.seconds && seconds() > options.seconds) ||
	       (options.worlds && seed >= options.first + options.worlds);
}

static void child(unsigned job)
{
	fail_tell(shared->jobs[job].check);
	for (;;) {
		uint64_t seed = atomic_fetch_add(&shared->next, 1);

		if (over(seed))
			_exit(0);
		shared->jobs[job].seed = seed;
		alarm(WORLD_SECONDS);
		atomic_fetch_add(&shared->ops, run_world(seed, NO_LIMIT));
		atomic_fetch_add(&shared->worlds, 1);
	}
}

/* --- shrinking --- */

/* Whether the world fails with so many requests, without a word. */
static bool fails_with(uint64_t seed, uint64_t ops)
{
	pid_t pid;
	int status;

	fflush(stdout);
	pid = fork();
	assert(pid >= 0);
	if (pid == 0) {
		if (!freopen("/dev/null", "w", stdout) || !freopen("/dev/null", "w", stderr))
			_exit(0);
		alarm(WORLD_SECONDS);
		run_world(seed, ops);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

static void shrink(uint64_t seed)
{
	double until = seconds() + SHRINK_SECONDS;
	uint64_t low = 0, high = 1;

	if (options.no_shrink)
		return;
	while (!fails_with(seed, high) && high < 1u << 20 && seconds() < until)
		high *= 2;
	while (low + 1 < high && seconds() < until) {
		uint64_t middle = (low + high) / 2;

		if (fails_with(seed, middle))
			high = middle;
		else
			low = middle;
	}
	printf("  again: swarm_engine --seed %" PRIu64 " --ops %" PRIu64 " --trace\n", seed, high);
}

/* --- many --- */

struct kind {
	char check[FAIL_CHECK_BYTES];
	uint64_t count;
	uint64_t seed;
	double at;
};

static struct kind kinds[KINDS_MAX];
static unsigned kind_count;

static void remember(const char *check, uint64_t seed)
{
	unsigned i = 0;

	while (i < kind_count && strcmp(kinds[i].check, check) != 0)
		i++;
	if (i == KINDS_MAX)
		return;
	if (i == kind_count) {
		kinds[i].seed = seed;
		kinds[i].at = processor_seconds();
		snprintf(kinds[i].check, sizeof(kinds[i].check), "%s", check);
		kind_count++;
		shrink(seed);
	}
	kinds[i].count++;
}

static void failed(unsigned job, int status)
{
	uint64_t seed = shared->jobs[job].seed;
	char check[FAIL_CHECK_BYTES];

	if (WIFSIGNALED(status)) {
		snprintf(check, sizeof(check), "%s",
			 WTERMSIG(status) == SIGABRT   ? "assertion"
			 : WTERMSIG(status) == SIGALRM ? "hangs"
						       : strsignal(WTERMSIG(status)));
		printf("seed %" PRIu64 ": %s\n", seed, check);
	} else {
		snprintf(check, sizeof(check), "%s", shared->jobs[job].check);
		if (WEXITSTATUS(status) != FAIL_STATUS)
			snprintf(check, sizeof(check), "status %d", WEXITSTATUS(status));
	}
	remember(check, seed);
}

static pid_t start(unsigned job)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	assert(pid >= 0);
	if (pid == 0)
		child(job);
	return pid;
}

static void run_many(void)
{
	pid_t pids[JOBS_MAX];
	unsigned running = options.jobs;
	bool stop = false;

	atomic_store(&shared->next, options.first);
	for (unsigned job = 0; job < options.jobs; job++)
		pids[job] = start(job);
	while (running > 0) {
		int status;
		pid_t pid = wait(&status);
		unsigned job = 0;

		while (job < options.jobs && pids[job] != pid)
			job++;
		if (job == options.jobs)
			continue;
		running--;
		if (stop || (WIFEXITED(status) && WEXITSTATUS(status) == 0))
			continue;
		for (unsigned i = 0; !options.keep_going && i < options.jobs; i++)
			if (i != job)
				kill(pids[i], SIGKILL);
		stop = !options.keep_going;
		failed(job, status);
		if (options.keep_going) {
			pids[job] = start(job);
			running++;
		}
	}
}

static int report(void)
{
	unsigned empty;
	uint64_t worlds = shared->worlds;

	printf("\n");
	empty = table_print();
	printf("\n%" PRIu64 " worlds, %" PRIu64 " requests, %" PRIu64
	       " lives in %.0f s, %.0f of a processor\n",
	       worlds, (uint64_t)shared->ops, table_sum(DIM_END), seconds(), processor_seconds());
	for (unsigned i = 0; i < kind_count; i++)
		printf("failed: %s: %" PRIu64 " worlds, first seed %" PRIu64
		       " after %.1f s of a processor\n",
		       kinds[i].check, kinds[i].count, kinds[i].seed, kinds[i].at);
	empty = worlds < COMPLETE_FROM ? 0 : empty;
	if (empty > 0)
		printf("failed: %u of the table's buckets are empty\n", empty);
	if (kind_count > 0 || empty > 0) {
		printf("not ok swarm.engine\n");
		return 1;
	}
	printf("ok swarm.engine\n");
	return 0;
}

static void parse(int argc, char **argv)
{
	static const struct option names[] = {
		{"seconds", required_argument, NULL, 's'}, {"worlds", required_argument, NULL, 'w'},
		{"jobs", required_argument, NULL, 'j'},	   {"first", required_argument, NULL, 'f'},
		{"seed", required_argument, NULL, 'n'},	   {"ops", required_argument, NULL, 'o'},
		{"trace", no_argument, NULL, 't'},	   {"keep-going", no_argument, NULL, 'k'},
		{"no-shrink", no_argument, NULL, 'q'},	   {NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
		uint64_t n = optarg ? strtoull(optarg, NULL, 10) : 0;

		switch (c) {
		case 's':
			options.seconds = (unsigned)n;
			break;
		case 'w':
			options.worlds = n;
			break;
		case 'j':
			options.jobs = (unsigned)n;
			break;
		case 'f':
			options.first = n;
			break;
		case 'n':
			options.seed = n, options.one = true;
			break;
		case 'o':
			options.ops = n;
			break;
		case 't':
			options.trace = true;
			break;
		case 'k':
			options.keep_going = true;
			break;
		case 'q':
			options.no_shrink = true;
			break;
		default:
			exit(2);
		}
	}
	if (options.jobs == 0 || options.jobs > JOBS_MAX || optind < argc) {
		fprintf(stderr, "swarm_engine: see the beginning of tests/swarm/engine/main.c\n");
		exit(2);
	}
	if (!options.seconds && !options.worlds)
		options.seconds = 10;
}

int main(int argc, char **argv)
{
	parse(argc, argv);
	/* Rings and roots come and go with each life; what is given back is faulted in again. */
	mallopt(M_MMAP_THRESHOLD, 1 << 30);
	mallopt(M_TRIM_THRESHOLD, 1 << 30);
	clock_gettime(CLOCK_MONOTONIC, &began);
	setvbuf(stdout, NULL, _IOLBF, 0);
	table_init();
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	assert(shared != MAP_FAILED);
	if (options.one) {
		fail_tracing(options.trace);
		run_world(options.seed, options.ops);
		printf("ok seed %" PRIu64 "\n", options.seed);
		return 0;
	}
	run_many();
	return report();
}
