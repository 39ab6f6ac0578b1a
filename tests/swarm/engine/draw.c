/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/swarm/engine/draw.h"

#include <string.h>

#include "core/format/format.h"
#include "core/format/geometry.h"
#include "core/volume/volume.h"
#include "tests/swarm/engine/table.h"

#define LIVES_MAX	6u
#define SHORT_LIVES_MAX 24u
#define LARGE_IN	40u /* a world in so many is of 1 TiB, one in twice as many of 64 TiB */

/* An index, as often as its weight says. */
static unsigned weighted(struct rng *rng, const uint8_t *weights, unsigned count)
{
	uint32_t sum = 0, at;
	unsigned i = 0;

	for (unsigned n = 0; n < count; n++)
		sum += weights[n];
	at = rng_below(rng, sum);
	while (at >= weights[i])
		at -= weights[i++];
	return i;
}

static bool percent(struct rng *rng, unsigned n)
{
	return rng_below(rng, 100) < n;
}

/* --- the store --- */

static uint64_t about(struct rng *rng, uint64_t blocks)
{
	return rng_once_in(rng, 2) ? blocks + rng_below(rng, 3) - 1
				   : blocks + rng_below(rng, 17) - 8;
}

static uint64_t draw_size(struct rng *rng, enum size_kind kind)
{
	const uint64_t tib = (1ull << 40) / BLOCK_BYTES;
	const uint64_t least = VOLUME_LOGICAL_BYTES_MIN / BLOCK_BYTES;
	uint64_t most = VOLUME_LOGICAL_BYTES_MAX / BLOCK_BYTES, n;

	switch (kind) {
	case SIZE_SMALL:
		n = least + rng_below(rng, 4096 - (uint32_t)least);
		/* A last region of a block is as likely as all others together. */
		if (!rng_once_in(rng, 2))
			n = n / REGION_BLOCKS * REGION_BLOCKS + 1;
		break;
	case SIZE_REGION:
		n = about(rng, (uint64_t)REGION_BLOCKS * (1 + rng_below(rng, 12)));
		break;
	case SIZE_SLAB:
		n = about(rng, (uint64_t)SLAB_DATA_BLOCKS * (1 + rng_below(rng, 3)));
		break;
	case SIZE_AREA:
		n = about(rng, (uint64_t)AREA_REGIONS * REGION_BLOCKS * (1 + rng_below(rng, 2)));
		break;
	case SIZE_MEDIUM:
		n = 4096 + rng_below(rng, 258048);
		break;
	case SIZE_LARGE:
		n = about(rng, tib);
		break;
	default:
		n = most - rng_below(rng, 9);
		break;
	}
	return n < least ? least : n;
}

/* What `create` makes a store of without --store-size. */
static uint64_t created_blocks(uint64_t logical_blocks, uint32_t ring_blocks, bool tracking)
{
	uint64_t bytes = blocks_to_bytes(logical_blocks);

	return (volume_store_bytes_for(bytes, ring_blocks) +
		(tracking ? volume_tracking_bytes(bytes) : 0)) /
	       BLOCK_BYTES;
}

/* The least that volume_format() takes, nearly: all but slabs, and one of these. */
static uint64_t scarce_blocks(const struct plan *plan, uint64_t most)
{
	uint64_t low = 0, high = most;
	struct geometry g;

	while (low + 1 < high) {
		uint64_t middle = (low + high) / 2;
		int r = geometry_plan(plan->logical_blocks, middle, plan->ring_blocks, &g);

		if (r == 0 && plan->tracking)
			r = geometry_track(&g);
		if (r == 0)
			high = middle;
		else
			low = middle;
	}
	return high;
}

static void draw_store(struct rng *rng, struct plan *plan)
{
	static const uint8_t kinds[STORE_KINDS] = {8, 3, 5, 2};
	uint64_t created = created_blocks(plan->logical_blocks, plan->ring_blocks, plan->tracking);
	uint64_t scarce = scarce_blocks(plan, created);

	plan->store = weighted(rng, kinds, STORE_KINDS);
	if (plan->shape == SHAPE_LONG_LOG)
		plan->store = STORE_CREATED;
	/* Not as large as this: a store of that size would be all metadata. */
	if (plan->size >= SIZE_LARGE && plan->store != STORE_SCARCE)
		plan->store = STORE_THIN;
	if (plan->store == STORE_CREATED)
		plan->store_blocks = created;
	else if (plan->store == STORE_ROOMY)
		plan->store_blocks = created + rng_below(rng, 4096);
	else if (plan->store == STORE_SCARCE)
		plan->store_blocks = scarce + rng_below(rng, 1500);
	else
		plan->store_blocks = scarce + 1500 + rng_below(rng, 6000);
	table_add(DIM_STORE, plan->store);
}

static void draw_ring(struct rng *rng, struct plan *plan)
{
	/* All of it is read at each opening, and what is chosen for a large volume is large. */
	static const uint8_t small[] = {4, 4, 4, 2}, large[] = {1, 5, 5, 1};
	unsigned kind = plan->shape == SHAPE_LONG_LOG
				? 3
				: weighted(rng, plan->size < SIZE_AREA ? small : large, 4);

	plan->ring_blocks = kind == 0	? 0
			    : kind == 1 ? RING_BLOCKS_MIN
			    : kind == 2 ? RING_BLOCKS_MIN + 1 + rng_below(rng, 223)
					: 256 + rng_below(rng, 1025);
	table_add(DIM_RING, kind);
}

/* --- the world --- */

/* Places where something begins or ends, and some that are like any other. */
static void draw_zones(struct rng *rng, struct plan *plan)
{
	static const uint8_t kinds[] = {3, 4, 4, 2, 2, 3};
	uint64_t blocks = plan->logical_blocks;
	static const uint16_t widths[] = {8, 24, 64, 200, 600, 1500};

	plan->width = widths[rng_below(rng, 6)];
	plan->zones = 1 + rng_below(rng, ZONES_MAX);
	for (unsigned i = 0; i < plan->zones; i++) {
		uint64_t at = rng_u64(rng) % blocks, back = rng_below(rng, (uint32_t)plan->width);

		back *= rng_below(rng, 2);
		switch (weighted(rng, kinds, sizeof(kinds))) {
		case 0:
			at = 0;
			break;
		case 1: /* the last region */
			at = (blocks - 1) / REGION_BLOCKS * REGION_BLOCKS;
			at -= min_u64(at, back);
			break;
		case 2:
			at = at / REGION_BLOCKS * REGION_BLOCKS;
			at -= min_u64(at, back);
			break;
		case 3:
			at = at / ((uint64_t)AREA_REGIONS * REGION_BLOCKS) * AREA_REGIONS *
			     REGION_BLOCKS;
			at -= min_u64(at, back);
			break;
		case 4:
			at = blocks - 1 - min_u64(blocks - 1, back);
			break;
		default:
			break;
		}
		/* What is in order begins where a region does. */
		if ((plan->shape == SHAPE_LINEAR || plan->shape == SHAPE_LINEAR_CLONED) &&
		    rng_once_in(rng, 2))
			at = at / REGION_BLOCKS * REGION_BLOCKS;
		plan->starts[i] = at;
	}
}

static unsigned tail_bucket(uint64_t logical_blocks)
{
	uint64_t tail = logical_blocks % REGION_BLOCKS;

	return tail == 0 ? 0 : tail < 8 ? 1 : tail < 64 ? 2 : tail <= 504 ? 3 : 4;
}

void draw_plan(uint64_t seed, struct plan *ret_plan)
{
	static const uint8_t sizes[SIZE_KINDS] = {60, 60, 40, 24, 30, 0, 0};
	/* Dealt out: a run of two minutes has them all. */
	static const enum shape shapes[] = {
		SHAPE_LINEAR_CLONED, SHAPE_FRAGMENTED, SHAPE_SATURATED,	    SHAPE_LONG_LOG,
		SHAPE_EMPTY,	     SHAPE_FULL,       SHAPE_LINEAR_CLONED, SHAPE_LINEAR,
		SHAPE_FRAGMENTED,    SHAPE_LONG_LOG,   SHAPE_LINEAR_CLONED, SHAPE_FULL,
	};
	struct rng rng = rng_for(seed, 1);
	struct plan *plan = ret_plan;

	*plan = (struct plan){.seed = seed};
	plan->shape = shapes[seed % (sizeof(shapes) / sizeof(shapes[0]))];
	plan->size = weighted(&rng, sizes, SIZE_KINDS);
	/* So many owners need as many blocks. */
	if (plan->shape == SHAPE_SATURATED)
		plan->size = SIZE_MEDIUM;
	/* Dear, so they are dealt out: a run of two minutes has one, and not three. */
	if (seed % LARGE_IN == LARGE_IN / 2) {
		plan->size = seed / LARGE_IN % 2 ? SIZE_LARGE : SIZE_HUGE;
		plan->shape = rng_below(&rng, SHAPE_LONG_LOG);
	}
	if (plan->shape == SHAPE_FULL && plan->size > SIZE_SLAB)
		plan->size = SIZE_REGION + rng_below(&rng, 2);
	/* So that there are as many regions. */
	if (plan->size < SIZE_AREA && (plan->shape == SHAPE_LONG_LOG ||
				       (plan->shape == SHAPE_FRAGMENTED && rng_once_in(&rng, 2))))
		plan->size = SIZE_AREA + rng_below(&rng, 2);
	plan->logical_blocks = draw_size(&rng, plan->size);
	if (plan->shape == SHAPE_SATURATED)
		plan->logical_blocks = (REFS_MAX + 1) / REGION_BLOCKS * REGION_BLOCKS +
				       rng_below(&rng, 30 * REGION_BLOCKS);
	plan->tracking = !rng_once_in(&rng, 3);
	draw_ring(&rng, plan);
	draw_store(&rng, plan);
	plan->sector_bytes = rng_once_in(&rng, 3) ? BLOCK_BYTES : SECTOR_BYTES;
	plan->lanes = 1 + rng_below(&rng, 4);
	plan->foreign = rng_once_in(&rng, 3);
	plan->junk = rng_once_in(&rng, 2) ? 0 : 0xee;
	plan->always_discards = !rng_once_in(&rng, 3);
	plan->lives = 1 + rng_below(&rng, LIVES_MAX);
	plan->short_lives = plan->size < SIZE_AREA && !rng_once_in(&rng, 3);
	if (plan->short_lives)
		plan->lives = 4 + rng_below(&rng, SHORT_LIVES_MAX - 3);
	if (plan->shape == SHAPE_SATURATED)
		plan->lives = 1 + rng_below(&rng, 2);
	/* Its root alone is half a gigabyte, read at each opening. */
	if (plan->size == SIZE_HUGE)
		plan->lives = 1;
	plan->spread = min_u64(div_up(plan->logical_blocks, REGION_BLOCKS),
			       plan->shape == SHAPE_LONG_LOG || rng_once_in(&rng, 2) ? 300 : 20);
	plan->period = rng_once_in(&rng, 2) ? 1 : 8;
	plan->pool = 1 + rng_below(&rng, 6);
	draw_zones(&rng, plan);
	table_add(DIM_SIZE, plan->size);
	table_add(DIM_TAIL, tail_bucket(plan->logical_blocks));
	table_add(DIM_SHAPE, plan->shape);
	table_add(DIM_SECTOR, plan->sector_bytes == BLOCK_BYTES);
	table_add(DIM_LANES, plan->lanes - 1);
	table_add(DIM_WORLD, plan->tracking ? 0 : 1);
	table_add(DIM_WORLD, plan->foreign ? 2 : 3);
	table_add(DIM_WORLD, plan->junk ? 4 : 5);
	table_add(DIM_WORLD, plan->short_lives ? 6 : 7);
}

/* --- a life --- */

static uint64_t draw_cache(struct rng *rng)
{
	unsigned kind = rng_below(rng, 4);

	table_add(DIM_CACHE, kind);
	return kind == 0   ? 1
	       : kind == 1 ? (512u + rng_below(rng, 512)) << 10
	       : kind == 2 ? (1u + rng_below(rng, 8)) << 20
			   : 0;
}

static uint32_t draw_hint(struct rng *rng)
{
	uint32_t hint = rng_once_in(rng, 3) ? 0 : 1u << rng_below(rng, 10);

	table_add(DIM_HINT, hint == 0 ? 0 : hint == 1 ? 1 : hint <= 16 ? 2 : hint < 512 ? 3 : 4);
	return hint;
}

static void draw_taste(struct rng *rng, struct life_plan *life)
{
	/* What there always is: nothing works without writes and flushes. */
	static const uint8_t least[OP_KINDS] = {
		[OP_READ] = 2, [OP_WRITE] = 2, [OP_WRITE_POOL] = 1, [OP_FLUSH] = 1};
	static const uint8_t most[OP_KINDS] = {
		[OP_READ] = 8,	   [OP_WRITE] = 16,	   [OP_WRITE_POOL] = 16,
		[OP_ZERO] = 8,	   [OP_WRITE_SECTORS] = 8, [OP_WRITE_BYTES] = 6,
		[OP_FLUSH] = 6,	   [OP_ZERO_KEEP] = 6,	   [OP_ZERO_BYTES] = 5,
		[OP_DISCARD] = 12, [OP_DISCARD_BYTES] = 5, [OP_SAME] = 12,
		[OP_CLONE] = 12,   [OP_SAME_ZERO] = 4,	   [OP_SAME_MANY] = 8,
		[OP_MAP] = 3,	   [OP_CLONE_MANY] = 8,	   [OP_CHANGES] = 6,
		[OP_INVALID] = 1,
	};
	static const uint8_t lengths[LENGTH_KINDS] = {80, 80, 16, 5, 2};

	for (unsigned i = 0; i < OP_KINDS; i++) {
		life->weights[i] = least[i];
		if (!rng_once_in(rng, 3))
			life->weights[i] += (uint8_t)rng_below(rng, most[i] + 1u);
	}
	for (unsigned i = 0; i < LENGTH_KINDS; i++)
		life->lengths[i] = (uint8_t)(1 + rng_below(rng, lengths[i]));
}

static void draw_fault(struct rng *rng, struct life_plan *life)
{
	static const uint8_t kinds[FAULT_KINDS] = {54, 3, 4, 3, 2, 2, 8, 4, 5};

	life->fault = weighted(rng, kinds, FAULT_KINDS);
	life->fault_once = rng_once_in(rng, 2);
	table_add(DIM_FAULT, life->fault);
}

static void tell_life(const struct life_plan *life)
{
	unsigned depth = life->depth;

	table_add(DIM_DEPTH, depth == 1 ? 0 : depth <= 4 ? 1 : depth <= 8 ? 2 : 3);
	table_add(DIM_LIFE, life->discard ? 0 : 1);
	table_add(DIM_LIFE, life->compare ? 2 : 3);
	table_add(DIM_LIFE, life->read_only ? 4 : 5);
	table_add(DIM_LIFE, life->lasting_percent == 100 ? 6 : life->lasting_percent ? 7 : 8);
	table_add(DIM_LIFE, life->cancel_percent ? 9 : 10);
	table_add(DIM_LIFE, life->slow_in ? 11 : 12);
	table_add(DIM_END, life->end);
	table_add(DIM_NESTED, life->nested);
}

/* The log grows, in small groups, until a kill; then recovery has little room. */
static void draw_long_log(struct rng *rng, struct life_plan *life)
{
	life->cache_bytes = 0;
	life->checkpoint_in = 0;
	life->nested = 1 + rng_below(rng, NESTED_MAX);
	life->end = rng_once_in(rng, 2) ? END_KILL : END_CUT;
	life->read_only = false;
	life->depth = 1 + rng_below(rng, 4);
	life->ops = 150 + rng_below(rng, 500);
	for (unsigned i = 0; i < OP_KINDS; i++)
		life->weights[i] /= 8;
	life->weights[OP_WRITE] = 40;
	life->weights[OP_FLUSH] = 10;
	life->lengths[LENGTH_ONE] = 120;
	life->lengths[LENGTH_PART] = 0;
	life->lengths[LENGTH_REGION] = 0;
	life->lengths[LENGTH_MANY] = 0;
}

void draw_life(const struct plan *plan, unsigned number, struct life_plan *ret_life)
{
	static const uint8_t ends[END_KINDS] = {4, 7, 7, 2};
	static const uint8_t nested[NESTED_MAX + 1] = {8, 3, 2, 1, 1};
	struct rng rng = rng_for(plan->seed, 100 + number);
	struct life_plan *life = ret_life;

	/* One after the other: the order of initialisers is the compiler's choice. */
	*life = (struct life_plan){0};
	life->cache_bytes = draw_cache(&rng);
	life->hint = draw_hint(&rng);
	life->discard = plan->always_discards || rng_once_in(&rng, 2);
	life->compare = rng_once_in(&rng, 2);
	life->read_only = number > 0 && rng_once_in(&rng, 10);
	life->workers = 1 + rng_below(&rng, plan->lanes);
	life->depth = rng_once_in(&rng, 2) ? 4 : CLIENTS_MAX;
	life->depth = 1 + rng_below(&rng, life->depth);
	life->ops = rng_once_in(&rng, 4) ? 1500 : 300;
	life->ops = 20 + rng_below(&rng, life->ops);
	life->tick_in = 20u << (2 * rng_below(&rng, 4));
	life->checkpoint_in = rng_once_in(&rng, 3) ? 0 : 50u << (2 * rng_below(&rng, 4));
	life->deliver_percent = 30 + rng_below(&rng, 66);
	life->slow_in = rng_once_in(&rng, 2) ? 0 : 3 + rng_below(&rng, 40);
	life->again_percent = (unsigned[]){0, 20, 50}[rng_below(&rng, 3)];
	life->check = percent(&rng, plan->short_lives ? 10 : 30);
	life->quiet = percent(&rng, plan->short_lives ? 10 : 40);
	life->lasting_percent = (unsigned[]){0, 30, 100}[rng_below(&rng, 3)];
	life->fua_percent = (unsigned[]){0, 5, 30}[rng_below(&rng, 3)];
	life->cancel_percent = (unsigned[]){0, 0, 10}[rng_below(&rng, 3)];
	life->end = weighted(&rng, ends, END_KINDS);
	if (number > 0 && plan->size != SIZE_HUGE)
		life->nested = weighted(&rng, nested, NESTED_MAX + 1);
	draw_taste(&rng, life);
	draw_fault(&rng, life);
	if (plan->short_lives)
		life->ops = 3 + rng_below(&rng, 60);
	if (plan->shape == SHAPE_LONG_LOG && number % 3 != 2)
		draw_long_log(&rng, life);
	tell_life(life);
}

enum store_op draw_fault_op(enum fault_kind kind)
{
	static const enum store_op ops[FAULT_KINDS] = {
		[FAULT_READ] = STORE_READ,	 [FAULT_WRITE] = STORE_WRITE,
		[FAULT_FLUSH] = STORE_FLUSH,	 [FAULT_DISCARD] = STORE_DISCARD,
		[FAULT_COMPARE] = STORE_COMPARE, [FAULT_MOVING] = STORE_WRITE,
	};

	return ops[kind];
}
