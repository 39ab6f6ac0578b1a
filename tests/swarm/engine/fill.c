/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fill - what a volume holds before the random part of its first life
 *
 * Whatever the shape, the requests are ordinary ones, several in flight, judged like all others.
 */
#include "core/format/format.h"
#include "tests/swarm/engine/world.h"

#define FILL_PIECE 128u

static void go(struct world *world, enum op_kind kind, uint64_t block, uint64_t blocks,
	       uint64_t src)
{
	uint64_t end = world->plan.logical_blocks;

	if (block >= end || src >= end || world->ops_left == 0)
		return;
	blocks = min_u64(blocks, min_u64(end - block, end - src));
	if (blocks == 0)
		return;
	world->ops_left--;
	ask_at(world_client(world), kind, block, blocks, src);
}

static void write_zones(struct world *world)
{
	for (unsigned z = 0; z < world->plan.zones; z++)
		for (uint64_t at = 0; at < world->plan.width; at += FILL_PIECE)
			go(world, OP_WRITE, world->plan.starts[z] + at,
			   min_u64(FILL_PIECE, world->plan.width - at), 0);
	world_drain(world);
}

/* Where a clone of it goes: over what is there, or into a region where nothing is, which is in
 * order then, too, if the source is from the beginning of one. */
static uint64_t clone_target(struct world *world, uint64_t src)
{
	struct rng *rng = &world->rng;
	uint64_t dst = world->plan.starts[rng_below(rng, world->plan.zones)];
	uint64_t regions = world->plan.logical_blocks / REGION_BLOCKS + 1;

	if (rng_once_in(rng, 4))
		return dst + rng_below(rng, REGION_BLOCKS);
	if (!rng_once_in(rng, 3))
		dst = (dst / REGION_BLOCKS + rng_below(rng, 12)) % regions * REGION_BLOCKS;
	return dst / REGION_BLOCKS * REGION_BLOCKS + src % REGION_BLOCKS;
}

/* The source has a hole now, or other content; then the clone is made anew, from somewhere on, and
 * longer than it was: what refreshing an image does. */
static void refresh(struct world *world, uint64_t src, uint64_t dst, uint64_t blocks)
{
	struct rng *rng = &world->rng;
	uint64_t at = rng_below(rng, (uint32_t)blocks), changed = 1 + rng_below(rng, 8), skip;

	/* Often what ends where the clone did: it is cut there, and what follows does not go on
	 * where it ended any more. */
	if (!rng_once_in(rng, 3)) {
		changed = min_u64(changed, blocks);
		at = blocks - changed;
	}
	skip = rng_once_in(rng, 2) ? at : rng_below(rng, (uint32_t)at + 1);
	go(world, rng_once_in(rng, 3) ? OP_WRITE : OP_DISCARD, src + at, changed, 0);
	world_drain(world);
	blocks += rng_below(rng, 16);
	if (src >= dst + blocks || dst >= src + blocks)
		go(world, OP_CLONE, dst + skip, blocks - skip, src + skip);
	world_drain(world);
}

/* Parts of regions that are in order, and so are their clones: what a merge of images makes. */
static void clone_parts(struct world *world)
{
	struct rng *rng = &world->rng;

	for (unsigned i = 0; i < 2 + 2 * world->plan.zones; i++) {
		uint64_t src = world->plan.starts[rng_below(rng, world->plan.zones)], dst;
		uint64_t blocks = 1 + rng_below(rng, (uint32_t)world->plan.width);

		if (rng_once_in(rng, 2))
			src = src / REGION_BLOCKS * REGION_BLOCKS;
		else if (rng_once_in(rng, 2))
			src += rng_below(rng, (uint32_t)world->plan.width);
		dst = clone_target(world, src);
		if (src < dst + blocks && dst < src + blocks)
			dst = src + blocks;
		go(world, OP_CLONE, dst, blocks, src);
		world_drain(world);
		if (rng_once_in(rng, 2))
			refresh(world, src, dst, blocks);
	}
}

static void fragment(struct world *world)
{
	struct rng *rng = &world->rng;
	unsigned each = 1 + rng_below(rng, 3);

	for (uint64_t r = 0; r < world->plan.spread; r++)
		for (unsigned i = 0; i < each; i++)
			go(world, OP_WRITE,
			   r * REGION_BLOCKS + rng_below(rng, REGION_BLOCKS / 4) * 4,
			   1 + rng_below(rng, 2), 0);
	world_drain(world);
	if (world->plan.shape == SHAPE_LONG_LOG || rng_once_in(rng, 2))
		volume_checkpoint(world->volume, &world->workers[0]);
}

/* In pieces, in one order or another, and with blocks left out for later. */
static void fill_all(struct world *world)
{
	struct rng *rng = &world->rng;
	uint64_t blocks = world->plan.logical_blocks, piece = 1 + rng_below(rng, FILL_PIECE);
	unsigned out = rng_below(rng, 4);
	bool backwards = rng_once_in(rng, 2);
	uint64_t pieces = div_up(blocks, piece);

	for (uint64_t i = 0; i < pieces; i++) {
		uint64_t at = (backwards ? pieces - 1 - i : i) * piece;

		if (out == 0 || !rng_once_in(rng, out + 1))
			go(world, rng_once_in(rng, 8) ? OP_WRITE_POOL : OP_WRITE, at, piece, 0);
	}
	world_drain(world);
}

/* Doubling: as many owners as there can be, and some more that are refused. */
static void saturate(struct world *world)
{
	struct rng *rng = &world->rng;
	uint64_t first = rng_below(rng, 2) * (REGION_BLOCKS + 7), owners = 1;

	go(world, OP_WRITE, first, 1, 0);
	world_drain(world);
	while (owners < REFS_MAX && world->ops_left > 0) {
		uint64_t n = min_u64(min_u64(owners, 16384), REFS_MAX - owners);

		go(world, OP_CLONE, first + owners, n, first);
		world_drain(world);
		owners += n;
	}
	for (unsigned i = 0; i < 8; i++)
		go(world, OP_CLONE, first + owners + (uint64_t)i * REGION_BLOCKS,
		   1 + rng_below(rng, 3), first + rng_below(rng, (uint32_t)owners - 4));
	world_drain(world);
}

void fill(struct world *world)
{
	switch (world->plan.shape) {
	case SHAPE_EMPTY:
		break;
	case SHAPE_LINEAR:
		write_zones(world);
		break;
	case SHAPE_LINEAR_CLONED:
		write_zones(world);
		clone_parts(world);
		break;
	case SHAPE_FRAGMENTED:
	case SHAPE_LONG_LOG:
		fragment(world);
		break;
	case SHAPE_FULL:
		fill_all(world);
		break;
	default:
		saturate(world);
		break;
	}
}
