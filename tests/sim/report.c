/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/sim/report.h"

#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct sim_where sim_where = {.program = "sim", .scenario = "-", .doing = "starting", .extra = ""};

static void print_where(void)
{
	printf("  scenario %s, seed %" PRIu64 ", life %" PRIu64 ", step %" PRIu64 ", %s\n",
	       sim_where.scenario, sim_where.seed, sim_where.life, sim_where.steps,
	       sim_where.doing);
	for (unsigned i = 0; i < sim_where.depth && i < SIM_DEPTH_MAX; i++)
		printf("  %s crash: point %" PRIu64 ", image %" PRIu64 ": %s\n",
		       i == 0 ? "the" : "inside, another", sim_where.places[i].point,
		       sim_where.places[i].image, sim_where.places[i].survived);
	printf("  again: %s --scenario %s --seed %" PRIu64 " --runs 1%s", sim_where.program,
	       sim_where.scenario, sim_where.seed, sim_where.extra);
	if (sim_where.depth > 0)
		printf(" --point %" PRIu64 " --image %" PRIu64, sim_where.places[0].point,
		       sim_where.places[0].image);
	printf("\n");
	fflush(stdout);
}

static void on_signal(int number)
{
	/* Not safe in general; the process is at its end and has one thread. */
	printf("FAILED: %s\n", number == SIGSEGV ? "segmentation fault" : "an assertion");
	print_where();
	_exit(1);
}

void sim_catch_signals(void)
{
	signal(SIGABRT, on_signal);
	signal(SIGSEGV, on_signal);
}

void sim_trace(const char *format, ...)
{
	va_list ap;

	if (!sim_where.trace)
		return;
	va_start(ap, format);
	vprintf(format, ap);
	va_end(ap);
	printf("\n");
}

void sim_fail(const char *format, ...)
{
	va_list ap;

	printf("FAILED: ");
	va_start(ap, format);
	vprintf(format, ap);
	va_end(ap);
	printf("\n");
	print_where();
	_exit(1);
}
