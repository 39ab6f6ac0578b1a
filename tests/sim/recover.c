/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * recover - what is done with an image: it is opened, surveyed and judged, and a share is looked
 * at closer
 *
 *   check_store() on the crashed store; a read-only open that writes nothing; crashes inside the
 *   recovery, and inside that; read, crashed with nothing written, recovered, the same; closed,
 *   checked, opened, the same; flushed and filled until nothing is free.
 */
#include "tests/sim/examine.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli/check/check.h"

/* Of the images, one in so many gets the dearer looks. */
#define CHECK_IN      6u
#define READ_ONLY_IN  24u
#define AGAIN_IN      12u
#define CLOSE_IN      16u
#define REFILL_IN     96u
#define HOLES_IN      16u
#define NESTED_POINTS 4u /* inside a recovery, one event in so many is a crash point */
#define NESTED_IMAGES 6u
#define NESTED_MAX    24u

/* --- check --- */

static int check_read(void *context, uint64_t off_bytes, void *buf, size_t len_bytes)
{
	store_sim_read_durable(context, off_bytes, buf, len_bytes);
	return 0;
}

void recover_check(struct examiner *examiner, const struct store_sim *sim, const char *when)
{
	struct check_source source = {
		.context = (void *)(uintptr_t)sim,
		.size_bytes = sim->store.size_bytes,
		.read = check_read,
	};
	struct check_report report;
	int r = check_store(&source, false, &report);

	examiner->counters->checks++;
	if (r < 0)
		sim_fail("check %s: %d", when, r);
	if (report.findings_total > 0)
		sim_fail("check %s: %" PRIu64 " findings, the first at %s: expected %s, found %s",
			 when, report.findings_total, report.findings[0].where,
			 report.findings[0].expected, report.findings[0].found);
	check_report_done(&report);
}

/* --- crashes inside the recovery --- */

static void nested_point(void *context, enum sim_event event, const struct store_io *io)
{
	struct level *level = context;
	struct examiner *examiner = level->examiner;
	unsigned depth = level->depth + 1;
	uint64_t before = sim_where.places[depth].point++;

	(void)event;
	(void)io;
	if (level->nested_left == 0 || !rng_once_in(&level->rng, NESTED_POINTS))
		return;
	level->nested_left--;
	examine_point(examiner, &level->sim, depth, NESTED_IMAGES);
	sim_where.places[depth].point = before + 1;
	sim_where.depth = depth;
}

static void count(const struct level *level)
{
	struct counters *counters = level->examiner->counters;

	counters->recoveries++;
	counters->doubles += level->depth == 1;
	counters->triples += level->depth > 1;
}

static void open_image(struct level *level, bool nest)
{
	struct examiner *examiner = level->examiner;
	const struct scenario *s = &examiner->world->scenario;
	int r;

	if (nest && level->depth + 2 < SIM_DEPTH_MAX) {
		level->nested_left = NESTED_MAX;
		sim_where.places[level->depth + 1].point = 0;
		level->sim.hooks.event = nested_point;
		level->sim.hooks.context = level;
	}
	count(level);
	r = patient_open(&level->patient, &level->sim, false, s->discard);
	level->sim.hooks.event = NULL;
	if (r < 0)
		sim_fail("recovery: %d %s", r, level->patient.damage.text);
}

static void take(struct level *level, bool holes)
{
	const struct world *world = level->examiner->world;

	survey_take(&level->survey, &level->patient, &world->oracle, &world->contents, holes);
}

/* --- the dearer looks --- */

/* A crashed store that is opened read-only shows the same, and nothing is written. */
static void look_read_only(struct level *level)
{
	struct world *world = level->examiner->world;
	struct level *other = &level->examiner->levels[level->depth + 1];
	int r;

	store_sim_fork(&other->sim, &level->sim, 1);
	r = patient_open(&other->patient, &other->sim, true, false);
	if (r < 0)
		sim_fail("opening read-only: %d %s", r, other->patient.damage.text);
	survey_take(&other->survey, &other->patient, &world->oracle, &world->contents, true);
	patient_abandon(&other->patient);
	survey_judge(&other->survey, &world->oracle, false);
	level->examiner->counters->read_only++;
}

/* What was read once stays, though nothing was written and the power fails again. */
static void look_again(struct level *level)
{
	struct world *world = level->examiner->world;
	struct level *next = &level->examiner->levels[level->depth + 1];
	struct rng rng = level->rng;

	store_sim_fork(&next->sim, &level->sim, 2);
	list_for_each (pos, &level->sim.writes) {
		const struct sim_write *write = container_of(pos, struct sim_write, node);

		for (uint32_t i = 0; i < write->sectors; i++)
			if (!write->each[i].dead && rng_once_in(&rng, 2))
				store_sim_put(&next->sim, write->sector + i,
					      write->data + (size_t)i * SECTOR_BYTES,
					      &write->each[i].hash);
	}
	next->depth = level->depth + 1;
	open_image(next, false);
	take(next, false);
	patient_abandon(&next->patient);
	survey_compare(&next->survey, &level->survey, &world->oracle,
		       "read, crashed with nothing written, recovered");
}

/* What is said to be unchanged since a scan of an earlier life reads as it did then. */
static void look_at_changes(struct level *level)
{
	const struct world *world = level->examiner->world;
	struct patient *patient = &level->patient;
	uint32_t nothing[BLOCK_SECTORS] = {0}, *ids;

	for (unsigned i = 0; i < SCANS_MAX; i++) {
		const struct scan *scan = &world->scans.each[i];

		if (scan->generation == 0)
			continue;
		patient->request = (struct request){
			.op = REQUEST_CHANGES,
			.len_bytes = blocks_to_bytes(world->scenario.logical_blocks),
			.since = scan->generation,
			.runs = level->survey.runs,
			.runs_max = SURVEY_RUNS,
		};
		if (patient_ask(patient) < 0 || !patient->request.complete)
			sim_fail("changes since generation %" PRIu32
				 " are not known after recovery",
				 scan->generation);
		for (uint64_t b = scan->first; b < scan->first + scan->blocks; b++) {
			ids = nothing;
			if (oracle_is_touched(&world->oracle, b))
				ids = &level->survey
					       .ids[world->oracle.blocks[b]->index * BLOCK_SECTORS];
			if (scans_unchanged(&patient->request, b))
				scans_compare(scan, b, ids);
		}
	}
}

/* Closed and opened again: the same, and check agrees. */
static void look_closed(struct level *level)
{
	struct world *world = level->examiner->world;
	struct level *next = &level->examiner->levels[level->depth + 1];
	int r = patient_close(&level->patient);

	if (r < 0)
		sim_fail("closing after recovery: %d", r);
	if (world_undurable(&level->sim) > 0 || !store_sim_idle(&level->sim))
		sim_fail("closing left %" PRIu32 " writes that are not durable",
			 world_undurable(&level->sim));
	recover_check(level->examiner, &level->sim, "after recovery and close");
	store_sim_fork(&next->sim, &level->sim, 3);
	next->depth = level->depth + 1;
	open_image(next, false);
	take(next, true);
	look_at_changes(next);
	patient_abandon(&next->patient);
	survey_compare(&next->survey, &level->survey, &world->oracle, "closed and opened again");
}

/* After one flush every free block can be allocated. */
static void look_refill(struct level *level)
{
	struct world *world = level->examiner->world;
	struct patient *patient = &level->patient;
	struct volume_stats stats;
	uint64_t written = 0;
	int r = patient_flush(patient);

	if (r < 0)
		sim_fail("flush after recovery: %d", r);
	memset(level->survey.data, 0x5a, BLOCK_BYTES);
	for (uint32_t i = 0; i < world->oracle.touched_count; i++) {
		uint64_t block = world->oracle.touched[i];

		if (level->survey.pbns[i] != 0)
			continue;
		r = patient_write(patient, blocks_to_bytes(block), BLOCK_BYTES, level->survey.data);
		if (r < 0)
			break;
		written++;
	}
	volume_stats(patient->volume, &stats);
	/* A region's first block needs two adjacent ones for its leaf besides. */
	if (r < 0 &&
	    (r != -ENOSPC || stats.free_bytes > 2 * BLOCK_BYTES || stats.pending_bytes > 0))
		sim_fail("after %" PRIu64 " blocks: %d, with %" PRIu64 " bytes free, %" PRIu64
			 " pending",
			 written, r, stats.free_bytes, stats.pending_bytes);
	level->examiner->counters->refilled++;
}

void recover_image(struct level *level)
{
	struct examiner *examiner = level->examiner;
	const struct world *world = examiner->world;
	struct rng rng = rng_for(level->rng.state, 5);
	bool last = level->depth + 1 >= SIM_DEPTH_MAX;
	uint32_t nested_in = world->scenario.nested_in << (2 * level->depth);
	bool closed = rng_once_in(&rng, CLOSE_IN);

	if (examiner->check_all || rng_once_in(&rng, CHECK_IN))
		recover_check(examiner, &level->sim, "of the crashed store");
	if (!last && !level->garbage && rng_once_in(&rng, READ_ONLY_IN))
		look_read_only(level);
	open_image(level, rng_once_in(&rng, nested_in));
	take(level, rng_once_in(&rng, HOLES_IN));
	survey_judge(&level->survey, &world->oracle, level->garbage);
	if (!last && rng_once_in(&rng, AGAIN_IN))
		look_again(level);
	look_at_changes(level);
	if (!last && closed)
		look_closed(level);
	else if (rng_once_in(&rng, REFILL_IN))
		look_refill(level);
	patient_abandon(&level->patient);
}
