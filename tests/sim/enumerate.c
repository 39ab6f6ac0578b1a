/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * enumerate - which images a crash may leave at a point
 *
 * With k units undurable: k <= 7, every subset; up to 12, every subset at a share of the points (at
 * all with --full), else a sample; above 12 the sample: every prefix, every single loss, every
 * single survivor, 64 random subsets, every pair of metadata units lost or torn. Besides, at every
 * point: each metadata page torn in eight ways and each data write in two, the rest whole or at
 * random; some in-flight sectors garbage; overlapping units in reverse.
 *
 * All chance comes from the seed and the point's number: a point leaves the same images whatever
 * was tried before.
 */
#include "tests/sim/examine.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define RANDOM_SUBSETS 64u
#define TORN_MASKS     8u
#define HARD_IMAGES    8u
#define REVERSED       8u

/* Of a page's eight sectors, which survive. */
static const uint8_t torn[TORN_MASKS] = {0x01, 0x0f, 0x7f, 0xfe, 0xf0, 0x80, 0x55, 0xc3};

static uint64_t torn_mask(unsigned i)
{
	return torn[i] * 0x0101010101010101ull;
}

/* --- units --- */

static bool sector_is_data(const struct sim_write *write, uint32_t i)
{
	const uint8_t *data = write->data + (size_t)i * SECTOR_BYTES;

	return content_is_ours(data) || content_is_zero(data);
}

/* A block without one sector that a client could have written. */
static bool looks_metadata(const struct sim_write *write, uint32_t first, uint32_t sectors)
{
	return !write->discard && sectors == BLOCK_SECTORS && !sector_is_data(write, first);
}

static void unit_add(struct level *level, const struct sim_write *write, uint32_t first,
		     uint32_t sectors, bool metadata)
{
	bool alive = false;

	for (uint32_t i = first; i < first + sectors; i++)
		alive = alive || !write->each[i].dead;
	if (!alive || level->units_count == UNITS_MAX)
		return;
	level->units[level->units_count++] = (struct unit){
		.write = write,
		.first = first,
		.sectors = sectors,
		.metadata = metadata,
		.in_flight = write->state == SIM_IN_FLIGHT,
	};
}

static void cut(struct level *level, const struct sim_write *write)
{
	uint32_t whole = 0;

	for (uint32_t at = 0; at < write->sectors; at += BLOCK_SECTORS) {
		uint32_t sectors = min_u32(BLOCK_SECTORS, write->sectors - at);

		if (!looks_metadata(write, at, sectors))
			continue;
		if (at > whole)
			unit_add(level, write, whole, at - whole, false);
		unit_add(level, write, at, sectors, true);
		whole = at + sectors;
	}
	if (whole < write->sectors)
		unit_add(level, write, whole, write->sectors - whole, false);
}

static void find_units(struct level *level, const struct store_sim *sim)
{
	level->units_count = 0;
	list_for_each (pos, &sim->writes)
		cut(level, container_of(pos, struct sim_write, node));
}

static bool units_overlap(const struct level *level)
{
	for (uint32_t a = 0; a < level->units_count; a++) {
		for (uint32_t b = a + 1; b < level->units_count; b++) {
			const struct unit *x = &level->units[a], *y = &level->units[b];
			uint64_t at_x = x->write->sector + x->first;
			uint64_t at_y = y->write->sector + y->first;

			if (at_x < at_y + y->sectors && at_y < at_x + x->sectors)
				return true;
		}
	}
	return false;
}

/* --- images --- */

static void put_garbage(struct store_sim *sim, uint64_t sector, struct rng *rng)
{
	uint8_t data[SECTOR_BYTES];
	struct sim_hash hash;

	for (unsigned i = 0; i < SECTOR_BYTES; i += 8) {
		uint64_t value = rng_u64(rng);

		memcpy(data + i, &value, 8);
	}
	hash = sim_hash_sector(sector, data);
	store_sim_put(sim, sector, data, &hash);
}

static void put_unit(struct store_sim *sim, const struct unit *unit, uint64_t mask, bool garbage,
		     struct rng *rng)
{
	for (uint32_t i = 0; i < unit->sectors; i++) {
		const struct sim_write *write = unit->write;
		const struct sim_sector *each = &write->each[unit->first + i];
		uint64_t sector = write->sector + unit->first + i;

		if (each->dead)
			continue;
		if (garbage && unit->in_flight && rng_once_in(rng, 4))
			put_garbage(sim, sector, rng);
		else if (mask & (1ull << (i % 64)))
			store_sim_put(sim, sector,
				      write->data + (size_t)(unit->first + i) * SECTOR_BYTES,
				      &each->hash);
	}
}

static void put_choice(const struct level *level, struct store_sim *sim, struct rng *rng)
{
	const struct choice *choice = &level->choice;

	for (uint32_t i = 0; i < level->units_count; i++) {
		uint32_t at = choice->reverse ? level->units_count - 1 - i : i;

		if (choice->masks[at] != 0 || choice->garbage)
			put_unit(sim, &level->units[at], choice->masks[at], choice->garbage, rng);
	}
}

static void describe(const struct level *level, char *out, size_t size)
{
	int at = snprintf(out, size, "%" PRIu32 " undurable, surviving:", level->units_count);

	for (uint32_t i = 0; i < level->units_count && at < (int)size - 40; i++) {
		const struct unit *unit = &level->units[i];
		uint64_t mask = level->choice.masks[i];

		if (mask == 0)
			continue;
		at += snprintf(out + at, size - (size_t)at, " %s%" PRIu64 "+%" PRIu32,
			       unit->write->discard ? "d"
			       : unit->metadata	    ? "m"
						    : "",
			       unit->write->sector + unit->first, unit->sectors);
		if (mask != UINT64_MAX)
			at += snprintf(out + at, size - (size_t)at, "/%02x",
				       (unsigned)(mask & 0xff));
	}
	snprintf(out + at, size - (size_t)at, "%s%s", level->choice.reverse ? " reversed" : "",
		 level->choice.garbage ? " garbage" : "");
}

/* The level's choice, on a fork of the store. */
static void try_choice(struct level *level, const struct store_sim *sim)
{
	struct examiner *examiner = level->examiner;
	struct sim_place *place = &sim_where.places[level->depth];
	struct rng rng = rng_for(examiner->world->seed, place->point * 1000003 + place->image);
	enum image_seen seen;

	place->image++;
	if (level->depth == 0 && examiner->only_image && place->image != examiner->only_image)
		return;
	store_sim_fork(&level->sim, sim, rng_u64(&rng));
	put_choice(level, &level->sim, &rng);
	seen = image_set_add(examiner->set, level->sim.hash, examiner->stamp);
	if (seen == IMAGE_SAME)
		return;
	if (seen == IMAGE_NEW) {
		examiner->counters->images++;
		if (examiner->left > 0)
			examiner->left--;
	}
	describe(level, place->survived, sizeof(place->survived));
	sim_where.depth = level->depth + 1;
	level->rng = rng;
	level->garbage = level->choice.garbage ||
			 (level->depth > 0 && examiner->levels[level->depth - 1].garbage);
	recover_image(level);
	sim_where.depth = level->depth;
}

static bool enough(const struct level *level, uint32_t limit)
{
	return level->examiner->left == 0 || sim_where.places[level->depth].image >= limit;
}

/* --- choices --- */

static void choose_all(struct level *level, uint64_t mask)
{
	for (uint32_t i = 0; i < level->units_count; i++)
		level->choice.masks[i] = mask;
	level->choice.reverse = false;
	level->choice.garbage = false;
}

static void choose_random(struct level *level, struct rng *rng)
{
	uint32_t in = 2 + rng_below(rng, 3);

	choose_all(level, 0);
	for (uint32_t i = 0; i < level->units_count; i++)
		if (rng_once_in(rng, in) != (in > 3))
			level->choice.masks[i] = UINT64_MAX;
}

static void try_subsets(struct level *level, const struct store_sim *sim, uint32_t limit)
{
	for (uint64_t set = 0; set < 1ull << level->units_count && !enough(level, limit); set++) {
		choose_all(level, 0);
		for (uint32_t i = 0; i < level->units_count; i++)
			if (set & (1ull << i))
				level->choice.masks[i] = UINT64_MAX;
		try_choice(level, sim);
	}
}

static void try_pairs(struct level *level, const struct store_sim *sim, struct rng *rng,
		      uint32_t limit)
{
	for (uint32_t a = 0; a < level->units_count; a++) {
		for (uint32_t b = a + 1; b < level->units_count; b++) {
			if (!level->units[a].metadata || !level->units[b].metadata ||
			    enough(level, limit))
				continue;
			choose_all(level, UINT64_MAX);
			level->choice.masks[a] = level->choice.masks[b] = 0;
			try_choice(level, sim);
			level->choice.masks[a] = torn_mask(rng_below(rng, TORN_MASKS));
			level->choice.masks[b] = torn_mask(rng_below(rng, TORN_MASKS));
			try_choice(level, sim);
		}
	}
}

static void try_sample(struct level *level, const struct store_sim *sim, struct rng *rng,
		       uint32_t limit)
{
	uint32_t count = level->units_count;

	for (uint32_t n = 0; n <= count && !enough(level, limit); n++) {
		choose_all(level, 0);
		for (uint32_t i = 0; i < n; i++)
			level->choice.masks[i] = UINT64_MAX;
		try_choice(level, sim);
	}
	for (uint32_t i = 0; i < count && !enough(level, limit); i++) {
		choose_all(level, UINT64_MAX);
		level->choice.masks[i] = 0;
		try_choice(level, sim);
		choose_all(level, 0);
		level->choice.masks[i] = UINT64_MAX;
		try_choice(level, sim);
	}
	for (uint32_t i = 0; i < RANDOM_SUBSETS && !enough(level, limit); i++) {
		choose_random(level, rng);
		try_choice(level, sim);
	}
	try_pairs(level, sim, rng, limit);
}

/* Metadata pages by the eight masks, data by a random one; the rest whole, or at random. */
static void try_torn(struct level *level, const struct store_sim *sim, struct rng *rng,
		     uint32_t limit)
{
	for (uint32_t i = 0; i < level->units_count; i++) {
		unsigned masks = level->units[i].metadata ? TORN_MASKS : 2;

		for (unsigned m = 0; m < masks && !enough(level, limit); m++) {
			uint64_t mask = level->units[i].metadata ? torn_mask(m) : rng_u64(rng);

			choose_all(level, UINT64_MAX);
			level->choice.masks[i] = mask;
			try_choice(level, sim);
			choose_random(level, rng);
			level->choice.masks[i] = mask;
			try_choice(level, sim);
		}
	}
}

static void try_odd(struct level *level, const struct store_sim *sim, struct rng *rng,
		    uint32_t limit)
{
	bool in_flight = false;

	for (uint32_t i = 0; i < level->units_count; i++)
		in_flight =
			in_flight || (level->units[i].in_flight && !level->units[i].write->discard);
	for (uint32_t i = 0; in_flight && i < HARD_IMAGES && !enough(level, limit); i++) {
		choose_random(level, rng);
		level->choice.garbage = true;
		try_choice(level, sim);
	}
	if (!units_overlap(level))
		return;
	for (uint32_t i = 0; i < REVERSED && !enough(level, limit); i++) {
		choose_random(level, rng);
		level->choice.reverse = true;
		try_choice(level, sim);
	}
}

static bool is_full(const struct level *level, struct rng *rng)
{
	if (level->units_count > ENUMERATE_FULL)
		return false;
	if (level->units_count <= ENUMERATE_ALWAYS || level->examiner->full)
		return true;
	return rng_once_in(rng, 1u << (level->units_count - ENUMERATE_ALWAYS));
}

void examine_point(struct examiner *examiner, const struct store_sim *sim, unsigned depth,
		   uint32_t limit)
{
	struct level *level = &examiner->levels[depth];
	struct sim_place *place = &sim_where.places[depth];
	struct rng rng = rng_for(examiner->world->seed, place->point * 7919 + depth);
	bool full;

	level->depth = depth;
	place->image = 0;
	find_units(level, sim);
	full = is_full(level, &rng);
	if (depth == 0) {
		examiner->counters->points++;
		examiner->counters->full += full;
	}
	if (limit == UINT32_MAX && full) {
		try_subsets(level, sim, limit);
	} else if (limit == UINT32_MAX) {
		try_sample(level, sim, &rng, limit);
	} else {
		for (uint32_t i = 0; i < limit / 2 && !enough(level, limit); i++) {
			choose_random(level, &rng);
			try_choice(level, sim);
		}
	}
	try_torn(level, sim, &rng, limit);
	try_odd(level, sim, &rng, limit);
}

void examine_crash(struct examiner *examiner, struct store_sim *sim, struct rng *rng)
{
	struct level *level = &examiner->levels[0];

	find_units(level, sim);
	choose_random(level, rng);
	for (uint32_t i = 0; i < level->units_count; i++)
		if (rng_once_in(rng, 8))
			level->choice.masks[i] = rng_u64(rng);
	put_choice(level, sim, rng);
	store_sim_power_off(sim);
}

void examine_as_is(struct examiner *examiner, const struct store_sim *sim)
{
	struct level *level = &examiner->levels[0];

	level->depth = 0;
	level->rng = rng_for(examiner->world->seed, sim->now);
	store_sim_fork(&level->sim, sim, sim->now);
	level->garbage = false;
	recover_image(level);
}

/* --- life --- */

void examiner_begin(struct examiner *examiner, struct world *world)
{
	const struct scenario *s = &world->scenario;

	examiner->world = world;
	examiner->points = 0;
	for (unsigned i = 0; i < SIM_DEPTH_MAX; i++) {
		struct level *level = &examiner->levels[i];

		level->examiner = examiner;
		level->depth = i;
		store_sim_init(&level->sim, world->sim.store.size_bytes,
			       world->sim.store.lane_count, 1);
		patient_init(&level->patient);
		survey_init(&level->survey, s->logical_blocks, s->store_blocks);
	}
}

void examiner_end(struct examiner *examiner)
{
	for (unsigned i = 0; i < SIM_DEPTH_MAX; i++) {
		patient_done(&examiner->levels[i].patient);
		store_sim_done(&examiner->levels[i].sim);
		survey_done(&examiner->levels[i].survey);
	}
}
