/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_dedupe_find - matches of made-up volumes, carried out on a model of the remap table
 *
 * A volume is an array of contents (0: a hole, 1: zeros) and of places. Whatever the finder says is
 * carried out from the last match to the first, so that a match that needs another one before it
 * would be seen.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/dedupe/dedupe_find.h"
#include "cli/dedupe/dedupe_list.h"
#include "tests/lib/rng.h"

#define BLOCKS	    8192u
#define MATCHES_MAX BLOCKS
#define MEMORY	    (8u << 20)
#define HOLE	    0u
#define ZEROS	    1u

struct world {
	uint32_t contents[BLOCKS];
	uint64_t places[BLOCKS]; /* physical block; 0: a hole */
	uint32_t references[BLOCKS + 1]; /* of physical blocks */
	bool settled[BLOCKS / DEDUPE_REGION_BLOCKS]; /* regions that are not pending */
	struct dedupe_roles roles[BLOCKS / DEDUPE_REGION_BLOCKS];
	struct dedupe_match matches[MATCHES_MAX];
	uint32_t match_count;
};

static struct dedupe_hash hash_of(uint32_t content)
{
	static const uint8_t zeros[BLOCK_BYTES];
	struct rng rng = rng_for(1, content);
	struct dedupe_hash hash;

	if (content == ZEROS)
		return dedupe_hash_block(zeros);
	hash.low = rng_u64(&rng);
	hash.high = rng_u64(&rng);
	return hash;
}

static int next_region(void *context, uint64_t from, uint64_t *ret_number)
{
	(void)context;
	*ret_number = from;
	return from < BLOCKS / DEDUPE_REGION_BLOCKS ? 0 : -ENOENT;
}

static int load_region(void *context, uint64_t number, struct dedupe_region *ret_region)
{
	const struct world *world = context;

	memset(ret_region, 0, sizeof(*ret_region));
	ret_region->number = number;
	if (number >= BLOCKS / DEDUPE_REGION_BLOCKS)
		return 0;
	ret_region->pending = !world->settled[number];
	ret_region->roles = world->roles[number];
	for (uint32_t i = 0; i < DEDUPE_REGION_BLOCKS; i++) {
		uint64_t block = number * DEDUPE_REGION_BLOCKS + i;

		if (world->places[block] == 0)
			continue;
		ret_region->hashes[i] = hash_of(world->contents[block]);
		ret_region->places[i] =
			dedupe_place(world->places[block], world->references[world->places[block]]);
	}
	return 0;
}

static int keep_roles(void *context, uint64_t number, const struct dedupe_roles *roles)
{
	struct world *world = context;

	world->roles[number] = *roles;
	return 0;
}

static int take_match(void *context, const struct dedupe_match *match)
{
	struct world *world = context;

	cr_assert_lt(world->match_count, MATCHES_MAX);
	world->matches[world->match_count++] = *match;
	return 0;
}

/* Every block at a place of its own. */
static struct world *world_new(void)
{
	struct world *world = calloc(1, sizeof(*world));

	cr_assert_not_null(world);
	return world;
}

static void put(struct world *world, uint32_t block, uint32_t content)
{
	world->contents[block] = content;
	world->places[block] = content == HOLE ? 0 : block + 1;
	world->references[block + 1] = content == HOLE ? 0 : 1;
}

static void share(struct world *world, uint32_t block, uint32_t with)
{
	world->contents[block] = world->contents[with];
	world->places[block] = world->places[with];
	world->references[world->places[with]]++;
}

static void find(struct world *world, uint64_t first, uint64_t end, uint64_t min_run,
		 struct dedupe_find *find)
{
	const struct dedupe_source source = {world, next_region, load_region, keep_roles};
	const struct dedupe_find_options options = {
		.first_block = first,
		.end_block = end,
		.min_run_blocks = min_run,
		.memory_bytes = MEMORY,
		.source = &source,
		.context = world,
		.match = take_match,
	};

	cr_assert_eq(dedupe_find_init(find, &options), 0);
	cr_assert_eq(dedupe_find_learn(find), 0);
	cr_assert_eq(dedupe_find_match(find), 0);
	dedupe_find_done(find);
}

static uint32_t used(const struct world *world)
{
	static bool seen[BLOCKS + 1];
	uint32_t count = 0;

	memset(seen, 0, sizeof(seen));
	for (uint32_t i = 0; i < BLOCKS; i++) {
		count += world->places[i] != 0 && !seen[world->places[i]];
		seen[world->places[i]] = true;
	}
	return count;
}

/* Carries out all matches, the last one first, and returns how many blocks that freed. */
static uint32_t merge_backwards(struct world *world)
{
	uint32_t before = used(world);

	for (uint32_t m = world->match_count; m-- > 0;) {
		const struct dedupe_match *match = &world->matches[m];

		for (uint64_t i = 0; i < match->blocks; i++) {
			uint64_t dst = match->dst_block + i, src = match->src_block + i;

			cr_assert_lt(dst, BLOCKS);
			if (match->src_block == DEDUPE_ZERO) {
				cr_assert_eq(world->contents[dst], ZEROS);
				world->places[dst] = 0;
				continue;
			}
			cr_assert_lt(src, BLOCKS);
			cr_assert_eq(world->contents[dst], world->contents[src]);
			world->places[dst] = world->places[src];
		}
	}
	return before - used(world);
}

static uint32_t distinct(const struct world *world)
{
	static bool seen[UINT16_MAX + 1];
	uint32_t count = 0;

	memset(seen, 0, sizeof(seen));
	for (uint32_t i = 0; i < BLOCKS; i++) {
		uint32_t content = world->contents[i];

		count += content > ZEROS && !seen[content];
		seen[content] = true;
	}
	return count;
}

/* Goal: what is freed is what a plain count of equal blocks gives, in any order of matches. */
Test(dedupe_find, every_copy_is_found_and_the_order_of_merging_does_not_matter)
{
	for (uint64_t seed = 1; seed <= 30; seed++) {
		struct rng rng = rng_for(seed, 2);
		uint32_t kinds = 2 + rng_below(&rng, 1 + rng_below(&rng, 9000));
		struct world *world = world_new();
		struct dedupe_find finder;
		uint32_t freed;

		for (uint32_t i = 0; i < BLOCKS;) {
			/* Runs from elsewhere, and blocks by chance. */
			uint32_t len = 1 + rng_below(&rng, 40), from = rng_below(&rng, BLOCKS);
			bool copy = rng_once_in(&rng, 2), alike = rng_once_in(&rng, 3);

			for (uint32_t j = 0; j < len && i < BLOCKS; j++, i++) {
				if (copy && alike && from + j < i && world->places[from + j] != 0)
					share(world, i, from + j);
				else if (copy && from + j < i)
					put(world, i, world->contents[from + j]);
				else
					put(world, i, rng_below(&rng, kinds));
			}
		}
		find(world, 0, BLOCKS, 1, &finder);
		freed = merge_backwards(world);
		cr_assert_eq(used(world), distinct(world), "seed %lu", (unsigned long)seed);
		cr_assert_leq(freed, finder.duplicate_blocks);
		cr_assert_eq((uint32_t)(finder.freed_blocks + 0.5), freed, "seed %lu: the estimate",
			     (unsigned long)seed);
		free(world);
	}
}

Test(dedupe_find, two_equal_images_are_one_match_wherever_they_begin)
{
	for (uint32_t shift = 0; shift < 5; shift++) {
		struct world *world = world_new();
		struct dedupe_find finder;

		for (uint32_t i = 0; i < 3000; i++) {
			put(world, i, 10 + i);
			put(world, 4000 + shift + i, 10 + i);
		}
		find(world, 0, BLOCKS, 1, &finder);
		cr_assert_eq(world->match_count, 1);
		cr_assert_eq(world->matches[0].src_block, 0);
		cr_assert_eq(world->matches[0].dst_block, 4000 + shift);
		cr_assert_eq(world->matches[0].blocks, 3000);
		free(world);
	}
}

Test(dedupe_find, a_constant_volume_shares_one_block)
{
	struct world *world = world_new();
	struct dedupe_find finder;

	for (uint32_t i = 0; i < BLOCKS; i++)
		put(world, i, 77);
	find(world, 0, BLOCKS, 1, &finder);
	cr_assert_eq(merge_backwards(world), BLOCKS - 1);
	free(world);
}

Test(dedupe_find, zeros_become_holes_and_are_no_source)
{
	struct world *world = world_new();
	struct dedupe_find finder;

	for (uint32_t i = 100; i < 1500; i++)
		put(world, i, ZEROS);
	put(world, 1500, 5);
	put(world, 1501, ZEROS);
	find(world, 0, BLOCKS, 1, &finder);
	cr_assert_eq(world->match_count, 2);
	cr_assert_eq(world->matches[0].src_block, DEDUPE_ZERO);
	cr_assert_eq(world->matches[0].dst_block, 100);
	cr_assert_eq(world->matches[0].blocks, 1400);
	cr_assert_eq(merge_backwards(world), 1401);
	free(world);
}

Test(dedupe_find, runs_shorter_than_the_shortest_wanted_are_left_alone)
{
	struct world *world = world_new();
	struct dedupe_find finder;

	for (uint32_t i = 0; i < 100; i++)
		put(world, i, 10 + i);
	/* A copy of 7 and one of 8 blocks; the second one again inside a longer one. */
	for (uint32_t i = 0; i < 7; i++)
		put(world, 1000 + i, 20 + i);
	for (uint32_t i = 0; i < 8; i++)
		put(world, 2000 + i, 50 + i);
	for (uint32_t i = 0; i < 90; i++)
		put(world, 3000 + i, 15 + i);
	find(world, 0, BLOCKS, 8, &finder);
	cr_assert_eq(world->match_count, 2);
	cr_assert_eq(world->matches[0].dst_block, 2000);
	cr_assert_eq(world->matches[0].blocks, 8);
	cr_assert_eq(world->matches[1].dst_block, 3000);
	cr_assert_eq(world->matches[1].blocks, 90);
	free(world);
}

/* Goal: a single copy inside does not break a long run where only long runs are wanted. */
Test(dedupe_find, with_a_shortest_run_a_long_run_comes_before_single_blocks)
{
	struct world *world = world_new();
	struct dedupe_find finder;

	for (uint32_t i = 0; i < 500; i++) {
		put(world, i, i % 50 == 49 ? 9 : 10 + i);
		put(world, 4000 + i, i % 50 == 49 ? 9 : 10 + i);
	}
	find(world, 0, BLOCKS, 4, &finder);
	cr_assert_eq(world->match_count, 1);
	cr_assert_eq(world->matches[0].blocks, 500);
	free(world);
}

Test(dedupe_find, nothing_outside_the_range_takes_part)
{
	struct world *world = world_new();
	struct dedupe_find finder;

	for (uint32_t i = 0; i < 300; i++) {
		put(world, i, 10 + i);
		put(world, 1000 + i, 10 + i);
		put(world, 2000 + i, 10 + i);
	}
	find(world, 1100, 2200, 1, &finder);
	cr_assert_eq(world->match_count, 1);
	cr_assert_eq(world->matches[0].src_block, 1100);
	cr_assert_eq(world->matches[0].dst_block, 2100);
	cr_assert_eq(world->matches[0].blocks, 100);
	free(world);
}

Test(dedupe_find, the_copy_with_most_references_is_the_source)
{
	struct world *world = world_new();
	struct dedupe_find finder;

	for (uint32_t i = 0; i < 20; i++) {
		put(world, i, 10 + i);
		put(world, 100 + i, 10 + i);
	}
	for (uint32_t i = 0; i < 20; i++) {
		share(world, 200 + i, 100 + i);
		share(world, 300 + i, 100 + i);
	}
	find(world, 0, BLOCKS, 1, &finder);
	cr_assert_eq(world->match_count, 1);
	cr_assert_eq(world->matches[0].src_block, 100);
	cr_assert_eq(world->matches[0].dst_block, 0);
	cr_assert_eq(finder.duplicate_blocks, 20);
	free(world);
}

Test(dedupe_find, what_is_shared_already_is_no_match)
{
	struct world *world = world_new();
	struct dedupe_find finder;

	for (uint32_t i = 0; i < 600; i++)
		put(world, i, 10 + i);
	for (uint32_t i = 0; i < 600; i++)
		share(world, 3000 + i, i);
	find(world, 0, BLOCKS, 1, &finder);
	cr_assert_eq(world->match_count, 0);
	cr_assert_eq(finder.duplicate_blocks, 0);
	free(world);
}

/* Goal: a block that is full is neither a source nor a destination; its other copies go together.
 * */
Test(dedupe_find, a_full_block_takes_no_part)
{
	struct world *world = world_new();
	struct dedupe_find finder;

	for (uint32_t i = 0; i < 4; i++) {
		put(world, 1000 * i + 5, 10);
		put(world, 1000 * i + 6, 11);
	}
	world->references[5 + 1] = DEDUPE_REFERENCES_MAX;
	world->references[2005 + 1] = DEDUPE_REFERENCES_MAX;
	find(world, 0, BLOCKS, 1, &finder);
	merge_backwards(world);
	cr_assert_eq(world->places[5], 5 + 1);
	cr_assert_eq(world->places[2005], 2005 + 1);
	cr_assert_eq(world->places[3005], world->places[1005]);
	cr_assert_eq(finder.duplicate_blocks, 1 + 3);
	free(world);
}

/* Goal: a run that goes on from a hashfile looks at what is new, against all that is known. */
Test(dedupe_find, of_two_regions_that_were_looked_at_before_nothing_is_asked)
{
	struct world *world = world_new();
	struct dedupe_find finder;

	for (uint32_t i = 0; i < 100; i++) {
		put(world, i, 10 + i);
		put(world, 1024 + i, 10 + i);
		put(world, 4096 + i, 10 + i);
	}
	for (uint32_t i = 0; i < BLOCKS / DEDUPE_REGION_BLOCKS; i++)
		world->settled[i] = i != 8;
	find(world, 0, BLOCKS, 1, &finder);
	cr_assert_eq(world->match_count, 1);
	cr_assert_eq(world->matches[0].dst_block, 4096);
	free(world);
}

Test(dedupe_find, the_list_gives_the_longest_first_and_copies_together)
{
	const struct dedupe_match *pieces;
	struct dedupe_match match;
	struct dedupe_list list;

	cr_assert_eq(dedupe_list_init(&list, 1u << 20), 0);
	for (uint64_t i = 0; i < 5; i++) {
		match = (struct dedupe_match){7, 100 - i, 1};
		cr_assert_eq(dedupe_list_add(&list, &match), 0);
	}
	match = (struct dedupe_match){0, 10000, DEDUPE_LIST_PIECE_BLOCKS + 3};
	cr_assert_eq(dedupe_list_add(&list, &match), 0);
	cr_assert_eq(match.blocks, 0);
	dedupe_list_sort(&list);
	cr_assert_eq(dedupe_list_take(&list, 4, &pieces), 1);
	cr_assert_eq(pieces->blocks, DEDUPE_LIST_PIECE_BLOCKS);
	cr_assert_eq(dedupe_list_take(&list, 4, &pieces), 1);
	cr_assert_eq(pieces->src_block, DEDUPE_LIST_PIECE_BLOCKS);
	cr_assert_eq(pieces->blocks, 3);
	cr_assert_eq(dedupe_list_take(&list, 4, &pieces), 4);
	cr_assert_eq(pieces[0].dst_block, 96);
	cr_assert_eq(pieces[3].dst_block, 99);
	cr_assert_eq(dedupe_list_take(&list, 4, &pieces), 1);
	cr_assert_eq(dedupe_list_take(&list, 4, &pieces), 0);
	cr_assert_eq(list.count, 0);
	dedupe_list_done(&list);
}

Test(dedupe_find, a_full_list_says_so_and_keeps_the_rest)
{
	struct dedupe_match match = {0, 1u << 30, 5000 * DEDUPE_LIST_PIECE_BLOCKS};
	struct dedupe_list list;
	uint64_t pieces;

	cr_assert_eq(dedupe_list_init(&list, 0), 0);
	cr_assert_eq(dedupe_list_add(&list, &match), -ENOSPC);
	pieces = list.count;
	cr_assert_eq(match.blocks, (5000 - pieces) * DEDUPE_LIST_PIECE_BLOCKS);
	cr_assert_eq(match.src_block, pieces * DEDUPE_LIST_PIECE_BLOCKS);
	dedupe_list_done(&list);
}

/* Goal: a full table takes a sample, and all copies of a content are in it or none is. */
Test(dedupe_find, a_full_table_keeps_a_sample_by_content)
{
	struct dedupe_table table;
	uint64_t block, kept = 0;

	cr_assert_eq(dedupe_table_init(&table, 64 * 1024), 0);
	for (uint32_t i = 0; i < 200000; i++) {
		struct dedupe_hash hash = hash_of(10 + i);

		if (dedupe_table_samples(&table, hash) && !dedupe_table_find(&table, hash, &block))
			dedupe_table_add(&table, hash, i);
	}
	cr_assert_geq(table.sample_bits, 5);
	for (uint32_t i = 0; i < 200000; i++) {
		struct dedupe_hash hash = hash_of(10 + i);

		if (!dedupe_table_samples(&table, hash) || !dedupe_table_find(&table, hash, &block))
			continue;
		cr_assert_eq(block, i);
		kept++;
	}
	cr_assert_eq(kept, table.count);
	cr_assert_geq(kept + table.left_out, 200000 >> table.sample_bits >> 1);
	dedupe_table_done(&table);
}
