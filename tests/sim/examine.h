/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * examine - tries the crashes that are possible at a point, and recovers what each of them leaves
 *
 * What is undurable at the point is cut into *units*: each block of a metadata write, each data
 * write, each discard. An image is a choice of units, or of sectors of units. enumerate.c makes the
 * choices; recover.c takes each image that was not seen with what is allowed now through recovery
 * and all checks. Inside a recovery the same happens again, one level deeper, for a share of the
 * images.
 *
 * Memory    examiner_begin() makes a store, a patient and a survey for each level.
 */
#ifndef TESTS_SIM_EXAMINE_H
#define TESTS_SIM_EXAMINE_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/lib/rng.h"
#include "tests/lib/store_sim.h"
#include "tests/sim/image_set.h"
#include "tests/sim/patient.h"
#include "tests/sim/report.h"
#include "tests/sim/survey.h"
#include "tests/sim/world.h"

#define UNITS_MAX	 512u
#define ENUMERATE_FULL	 12u /* up to so many units, every subset */
#define ENUMERATE_ALWAYS 7u /* up to so many at every point, above at a share of them */

struct unit {
	const struct sim_write *write;
	uint32_t first; /* sector of the write */
	uint32_t sectors;
	bool metadata;
	bool in_flight;
};

/* One image: which sectors of each unit survive. */
struct choice {
	uint64_t masks[UNITS_MAX]; /* bit i % 64 for sector i of the unit; 0: nothing, ~0: all */
	bool reverse; /* overlapping ones the other way round */
	bool garbage; /* hard mode: some in-flight sectors are garbage */
};

struct counters {
	uint64_t points; /* crash points looked at */
	uint64_t full; /* of these, with every subset of what was pending */
	uint64_t images; /* distinct */
	uint64_t recoveries;
	uint64_t doubles; /* recoveries of crashes inside a recovery */
	uint64_t triples;
	uint64_t checks; /* check_store() runs */
	uint64_t read_only;
	uint64_t refilled;
	uint64_t steps;
	uint64_t requests;
	uint64_t lives;
	uint64_t seeds;
};

struct examiner;

struct level {
	struct examiner *examiner;
	unsigned depth;
	struct store_sim sim;
	struct patient patient;
	struct survey survey;
	struct rng rng;
	uint32_t units_count;
	struct unit units[UNITS_MAX];
	struct choice choice;
	bool garbage; /* the image, or the one that this crash is inside of, has torn sectors */
	uint32_t nested_left; /* images that may still be tried inside this recovery */
};

struct examiner {
	struct world *world;
	struct image_set *set;
	struct counters *counters;
	struct level levels[SIM_DEPTH_MAX];
	uint64_t stamp; /* goes up when less is allowed; never the same in two runs */
	uint64_t left; /* distinct images that this run may still try */
	bool armed;
	bool full; /* every subset up to ENUMERATE_FULL, at every point */
	bool check_all;
	uint32_t point_in; /* one point in so many is looked at */
	uint64_t only_point; /* 0: all */
	uint64_t only_image;
	uint64_t points;
};

void examiner_begin(struct examiner *examiner, struct world *world);
void examiner_end(struct examiner *examiner);

/* --- enumerate.c --- */

/* The images of a store at a point. limit: at most so many; depth 0 is the live store's. */
void examine_point(struct examiner *examiner, const struct store_sim *sim, unsigned depth,
		   uint32_t limit);
/* A random choice of what is undurable, made durable in the store itself: this is what the crash
 * left. */
void examine_crash(struct examiner *examiner, struct store_sim *sim, struct rng *rng);
/* The store as it is, nothing lost: recovered and judged; the survey stays in level 0. */
void examine_as_is(struct examiner *examiner, const struct store_sim *sim);

/* --- recover.c --- */

/* The image in level->sim: recovery, all reads, the oracle, check. */
void recover_image(struct level *level);
/* check_store() on the durable content; fails the simulation if it finds anything. */
void recover_check(struct examiner *examiner, const struct store_sim *sim, const char *when);

#endif
