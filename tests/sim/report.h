/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * report - where a simulation is, and the end of one that found something
 *
 * The place is kept up to date by those who move it; sim_fail(), and a handler of SIGABRT and
 * SIGSEGV for the engine's own assertions, print it with the command that goes there again.
 *
 * Threads   one. Memory: static.
 */
#ifndef TESTS_SIM_REPORT_H
#define TESTS_SIM_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#define SIM_DEPTH_MAX 4u

/* One image: which crash point, and which of the images that it may leave. */
struct sim_place {
	uint64_t point;
	uint64_t image;
	char survived[200]; /* what of the undurable writes is in it */
};

struct sim_where {
	const char *program;
	const char *scenario;
	uint64_t seed;
	uint64_t life;
	uint64_t steps;
	unsigned depth; /* images inside each other: a crash in the recovery from a crash */
	struct sim_place places[SIM_DEPTH_MAX];
	const char *doing;
	const char *extra; /* more options of the command */
	bool trace; /* print what the live run does */
};

extern struct sim_where sim_where;

void sim_catch_signals(void);
/* A line, if tracing. */
__attribute__((format(printf, 1, 2))) void sim_trace(const char *format, ...);
/* Prints what was expected and found, where, and how to get there; ends the process with 1. */
__attribute__((noreturn, format(printf, 1, 2))) void sim_fail(const char *format, ...);

#endif
