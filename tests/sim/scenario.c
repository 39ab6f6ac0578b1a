/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/sim/scenario.h"

#include <string.h>

/* What is 0 here takes its usual value in scenario_at(). */
static const struct scenario table[] = {
	{ .name = "write_linear", .what = "first writes in order: LINEAR grows",
	  .sequential = true, .window = 200, .weights = { [OP_WRITE] = 10, [OP_FLUSH] = 3 } },
	{ .name = "write_leaf", .what = "first writes at random: LEAF",
	  .window = 64, .weights = { [OP_WRITE] = 10, [OP_FLUSH] = 3, [OP_READ] = 1 } },
	{ .name = "write_in_place", .what = "overwrites of blocks with one owner",
	  .fill = FILL_LINEAR, .window = 12, .depth = 4,
	  .weights = { [OP_WRITE] = 10, [OP_WRITE_SUB] = 3, [OP_FLUSH] = 4, [OP_READ] = 2 } },
	{ .name = "write_unaligned", .what = "sectors and bytes, read-modify-write",
	  .window = 8, .weights = { [OP_WRITE_SUB] = 8, [OP_WRITE_BYTES] = 6, [OP_DISCARD] = 2,
				    [OP_CLONE] = 2, [OP_FLUSH] = 3, [OP_READ] = 2 } },
	{ .name = "copy_on_write", .what = "overwrites of shared blocks",
	  .fill = FILL_CLONED, .window = 24,
	  .weights = { [OP_WRITE] = 6, [OP_WRITE_SUB] = 6, [OP_CLONE] = 2, [OP_FLUSH] = 3 } },
	{ .name = "zero", .what = "write zeroes, whole and partial, holes and kept",
	  .fill = FILL_LINEAR, .window = 16,
	  .weights = { [OP_ZERO] = 5, [OP_ZERO_KEEP] = 3, [OP_ZERO_SUB] = 5, [OP_WRITE] = 4,
		       [OP_WRITE_SUB] = 2, [OP_FLUSH] = 3, [OP_READ] = 1 } },
	{ .name = "discard_whole", .what = "discard and write again",
	  .fill = FILL_LEAF, .window = 16, .blocks_max = 8,
	  .weights = { [OP_DISCARD] = 8, [OP_WRITE] = 8, [OP_FLUSH] = 3, [OP_READ] = 1 } },
	{ .name = "discard_partial", .what = "discards that end inside a block",
	  .fill = FILL_POOL, .window = 12,
	  .weights = { [OP_DISCARD_SUB] = 8, [OP_WRITE_SUB] = 6, [OP_ZERO_SUB] = 2,
		       [OP_FLUSH] = 3, [OP_READ] = 2 } },
	{ .name = "discard_backing", .what = "freed blocks are discarded in the store",
	  .fill = FILL_LINEAR, .window = 24, .blocks_max = 8, .discard = true,
	  .weights = { [OP_DISCARD] = 6, [OP_WRITE] = 8, [OP_ZERO] = 2, [OP_CLONE] = 2,
		       [OP_FLUSH] = 5, [OP_READ] = 2 } },
	{ .name = "flush", .what = "a flush every other request",
	  .fill = FILL_LEAF, .window = 24, .depth = 4,
	  .weights = { [OP_WRITE] = 6, [OP_WRITE_SUB] = 3, [OP_DISCARD] = 2, [OP_FLUSH] = 10 } },
	{ .name = "fua", .what = "most requests are FUA", .fua_percent = 80,
	  .fill = FILL_POOL, .window = 16, .depth = 3,
	  .weights = { [OP_WRITE] = 8, [OP_WRITE_SUB] = 4, [OP_DISCARD] = 2, [OP_ZERO] = 1,
		       [OP_CLONE] = 2, [OP_SAME] = 2, [OP_FLUSH] = 1 } },
	{ .name = "same", .what = "merges, with writes to both ranges",
	  .fill = FILL_POOL, .window = 24, .blocks_max = 6, .fua_percent = 20,
	  .weights = { [OP_SAME] = 10, [OP_WRITE_POOL] = 8, [OP_WRITE] = 2, [OP_WRITE_SUB] = 2,
		       [OP_FLUSH] = 3, [OP_READ] = 2 } },
	{ .name = "same_zero", .what = "ranges that read zeros become holes",
	  .fill = FILL_POOL, .window = 16, .fua_percent = 20,
	  .weights = { [OP_SAME_ZERO] = 8, [OP_ZERO_KEEP] = 8, [OP_WRITE] = 3, [OP_SAME] = 2,
		       [OP_ZERO] = 1, [OP_FLUSH] = 3, [OP_READ] = 1 } },
	{ .name = "same_many", .what = "jobs with many destinations, some durable",
	  .fill = FILL_POOL, .window = 32, .blocks_max = 4, .fua_percent = 30,
	  .weights = { [OP_SAME_MANY] = 8, [OP_WRITE_POOL] = 8, [OP_WRITE] = 2, [OP_FLUSH] = 2 } },
	{ .name = "overwrite_merged", .what = "merged blocks are written again",
	  .fill = FILL_MERGED, .window = 16, .checkpoint_in = 60,
	  .weights = { [OP_WRITE] = 6, [OP_WRITE_POOL] = 4, [OP_WRITE_SUB] = 4, [OP_SAME] = 6,
		       [OP_FLUSH] = 4, [OP_READ] = 2 } },
	{ .name = "clone", .what = "clones of clones, and writes to all of them",
	  .fill = FILL_LINEAR, .window = 16, .blocks_max = 6,
	  .weights = { [OP_CLONE] = 10, [OP_WRITE] = 5, [OP_WRITE_SUB] = 3, [OP_DISCARD] = 2,
		       [OP_FLUSH] = 3, [OP_READ] = 2 } },
	{ .name = "explode", .what = "a long LINEAR region is broken in many ways",
	  .fill = FILL_LINEAR, .window = 96, .requests = 16, .lives = 3, .checkpoint_in = 40,
	  .weights = { [OP_DISCARD] = 4, [OP_CLONE] = 4, [OP_ZERO] = 2, [OP_WRITE_SUB] = 2,
		       [OP_WRITE] = 2, [OP_FLUSH] = 4 } },
	{ .name = "ring_wrap", .what = "the smallest ring, written round several times",
	  .fill = FILL_LEAF, .window = 48, .requests = 150, .lives = 1, .depth = 4,
	  .checkpoint_in = NEVER,
	  .weights = { [OP_CLONE] = 4, [OP_DISCARD] = 6, [OP_WRITE] = 8, [OP_SAME] = 2,
		       [OP_WRITE_POOL] = 3, [OP_FLUSH] = 8 } },
	{ .name = "checkpoint", .what = "a checkpoint is nearly always under way",
	  .fill = FILL_LEAF, .window = 32, .requests = 40, .checkpoint_in = 8,
	  .weights = { [OP_CLONE] = 4, [OP_DISCARD] = 5, [OP_WRITE] = 8, [OP_SAME] = 2,
		       [OP_WRITE_POOL] = 3, [OP_FLUSH] = 4 } },
	{ .name = "regions", .what = "ranges across the edge of two regions, thin",
	  .logical_blocks = 2048, .store_blocks = 512, .start = 512 - 16, .zones = 3,
	  .zone_gap = 512, .window = 32, .blocks_max = 8, .checkpoint_in = 60,
	  .weights = { [OP_WRITE] = 6, [OP_WRITE_POOL] = 4, [OP_CLONE] = 4, [OP_SAME] = 4,
		       [OP_DISCARD] = 3, [OP_ZERO] = 1, [OP_FLUSH] = 4, [OP_READ] = 2 } },
	{ .name = "region_reuse", .what = "regions that are emptied and filled again",
	  .logical_blocks = 2048, .store_blocks = 512, .zones = 4, .zone_gap = 512, .window = 4,
	  .blocks_max = 4, .checkpoint_in = 20,
	  .weights = { [OP_WRITE] = 8, [OP_DISCARD] = 8, [OP_ZERO] = 2, [OP_CLONE] = 3,
		       [OP_FLUSH] = 4 } },
	{ .name = "small_cache", .what = "more pages than the cache has frames",
	  .logical_blocks = 512 * 160, .store_blocks = 1400, .zones = 150, .zone_gap = 512,
	  .window = 3, .blocks_max = 2, .fill = FILL_LEAF, .requests = 60, .lives = 2,
	  .checkpoint_in = 100, .nested_in = 200,
	  .weights = { [OP_WRITE] = 8, [OP_WRITE_SUB] = 3, [OP_DISCARD] = 3, [OP_CLONE] = 3,
		       [OP_FLUSH] = 3, [OP_READ] = 4, [OP_MAP] = 1 } },
	{ .name = "past_4g", .what = "the same offsets below and above 4 GiB",
	  .logical_blocks = 0x100000 + 1024, .store_blocks = 512, .zones = 2,
	  .zone_gap = 0x100000, .window = 16, .requests = 20, .fill = FILL_POOL,
	  .weights = { [OP_WRITE] = 6, [OP_DISCARD] = 5, [OP_ZERO] = 2, [OP_CLONE] = 3,
		       [OP_SAME] = 3, [OP_WRITE_SUB] = 2, [OP_FLUSH] = 3, [OP_READ] = 2 } },
	{ .name = "full_store", .what = "no space: ENOSPC, and space that comes back",
	  .logical_blocks = 512, .store_blocks = 160, .window = 160, .blocks_max = 16,
	  .fill = FILL_ALL, .may_fill = true, .requests = 40, .depth = 3, .checkpoint_in = 80,
	  .weights = { [OP_WRITE] = 8, [OP_WRITE_POOL] = 6, [OP_DISCARD] = 4, [OP_SAME] = 4,
		       [OP_WRITE_SUB] = 2, [OP_CLONE] = 2, [OP_FLUSH] = 3, [OP_READ] = 1 } },
	{ .name = "double_crash", .what = "many short lives, crashes inside recovery",
	  .fill = FILL_POOL, .window = 24, .requests = 8, .lives = 8, .nested_in = 3,
	  .checkpoint_in = 30,
	  .weights = { [OP_WRITE] = 6, [OP_WRITE_POOL] = 4, [OP_CLONE] = 3, [OP_SAME] = 4,
		       [OP_DISCARD] = 3, [OP_FLUSH] = 3 } },
	{ .name = "two_workers", .what = "two workers on one region, everything",
	  .fill = FILL_POOL, .window = 16, .workers = 2, .depth = 6, .checkpoint_in = 60,
	  .weights = { [OP_READ] = 3, [OP_WRITE] = 6, [OP_WRITE_POOL] = 4, [OP_WRITE_SUB] = 3,
		       [OP_ZERO] = 1, [OP_DISCARD] = 3, [OP_FLUSH] = 4, [OP_SAME] = 4,
		       [OP_CLONE] = 3 } },
	{ .name = "two_workers_same", .what = "two workers: merges against writers",
	  .fill = FILL_POOL, .window = 8, .workers = 2, .depth = 6, .blocks_max = 4,
	  .weights = { [OP_READ] = 4, [OP_WRITE_POOL] = 10, [OP_WRITE_SUB] = 2, [OP_SAME] = 10,
		       [OP_CLONE] = 1, [OP_FLUSH] = 3 } },
	{ .name = "read_race", .what = "reads against everything that moves blocks",
	  .fill = FILL_POOL, .window = 8, .depth = 8, .workers = 2, .discard = true,
	  .weights = { [OP_READ] = 12, [OP_WRITE] = 4, [OP_WRITE_POOL] = 2, [OP_CLONE] = 4,
		       [OP_SAME] = 4, [OP_DISCARD] = 4, [OP_FLUSH] = 3 } },
	{ .name = "mixed", .what = "all requests, deep queue", .fill = FILL_LEAF,
	  .window = 40, .depth = 8, .blocks_max = 12, .requests = 60, .checkpoint_in = 60,
	  .discard = true,
	  .weights = { [OP_READ] = 3, [OP_WRITE] = 6, [OP_WRITE_POOL] = 6, [OP_WRITE_SUB] = 4,
		       [OP_WRITE_BYTES] = 1, [OP_ZERO] = 2, [OP_ZERO_KEEP] = 2, [OP_ZERO_SUB] = 2,
		       [OP_DISCARD] = 3, [OP_DISCARD_SUB] = 2, [OP_FLUSH] = 4, [OP_SAME] = 4,
		       [OP_SAME_ZERO] = 2, [OP_SAME_MANY] = 1, [OP_CLONE] = 4, [OP_MAP] = 2 } },
};

const unsigned scenario_count = sizeof(table) / sizeof(table[0]);

static uint32_t or_usual(uint32_t value, uint32_t usual)
{
	return value ? value : usual;
}

struct scenario scenario_at(unsigned i)
{
	struct scenario s = table[i];

	s.logical_blocks = or_usual(s.logical_blocks, 256);
	s.store_blocks = or_usual(s.store_blocks, 640);
	s.ring_blocks = or_usual(s.ring_blocks, 32);
	s.window = or_usual(s.window, 32);
	s.zones = or_usual(s.zones, 1);
	s.zone_gap = or_usual(s.zone_gap, 128);
	s.blocks_max = or_usual(s.blocks_max, 4);
	s.workers = or_usual(s.workers, 1);
	s.depth = or_usual(s.depth, 3);
	s.requests = or_usual(s.requests, 30);
	s.lives = or_usual(s.lives, 2);
	s.fua_percent = or_usual(s.fua_percent, 10);
	s.checkpoint_in = or_usual(s.checkpoint_in, 200);
	s.nested_in = or_usual(s.nested_in, 24);
	s.weights[OP_INVALID] = 1;
	return s;
}

bool scenario_find(const char *name, unsigned *ret_i)
{
	for (unsigned i = 0; i < scenario_count; i++) {
		if (strcmp(table[i].name, name) != 0)
			continue;
		*ret_i = i;
		return true;
	}
	return false;
}
