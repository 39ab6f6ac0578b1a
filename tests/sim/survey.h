/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * survey - all that an open volume shows: which block maps where, and what each sector reads
 *
 * Taken through the engine (MAP and READ requests, stats). While it is taken, the references that
 * the engine tells are compared with a recount of the map (rule 5 of the oracle), and the sums of
 * the stats with each other. It is judged by the oracle afterwards.
 *
 * Memory    survey_init() allocates by the sizes of volume and store.
 */
#ifndef TESTS_SIM_SURVEY_H
#define TESTS_SIM_SURVEY_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/lib/content.h"
#include "tests/sim/oracle.h"
#include "tests/sim/patient.h"

#define SURVEY_RUNS 512u

struct survey {
	uint64_t logical_blocks;
	uint64_t store_blocks;
	uint32_t *ids; /* 8 for each touched block, in the oracle's order */
	uint64_t *pbns; /* one for each touched block; 0: a hole */
	uint16_t *counts; /* by physical block */
	uint8_t *data;
	struct map_run runs[SURVEY_RUNS];
};

void survey_init(struct survey *survey, uint64_t logical_blocks, uint64_t store_blocks);
void survey_done(struct survey *survey);

/* holes: also read what MAP says is a hole. */
void survey_take(struct survey *survey, struct patient *patient, const struct oracle *oracle,
		 const struct contents *contents, bool holes);
/* Fails the simulation if the oracle forbids what is there. */
void survey_judge(const struct survey *survey, const struct oracle *oracle, bool garbage);
/* Fails it if two surveys of one oracle differ in content. */
void survey_compare(const struct survey *survey, const struct survey *other,
		    const struct oracle *oracle, const char *what);

#endif
