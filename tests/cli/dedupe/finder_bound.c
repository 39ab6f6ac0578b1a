/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * finder_bound - feeds the finder more hashes than its memory holds
 *
 *     finder_bound LOG2_BLOCKS MEMORY_KIB
 *
 * The volume's second half is a copy of the first one, in runs of RUN_BLOCKS that come in another
 * order; nothing else is equal. The program prints how much memory the process took more than
 * before, and how many of the copies were found. Exit status 1: more memory than allowed, or less
 * found than a sample that is not broken finds.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/dedupe/dedupe_find.h"
#include "tests/lib/rng.h"

#define RUN_BLOCKS  4096u /* 16 MiB, as files of disk images are */
#define SLACK_KIB   128u /* the process's own */
#define FOUND_LEAST 0.9

struct world {
	uint64_t blocks;
	uint64_t matches;
	int roles_fd; /* of regions that left memory, as in a run's scratch tables */
};

/* Which block of the first half a block of the second one is a copy of. */
static uint64_t origin(const struct world *world, uint64_t block)
{
	uint64_t half = world->blocks / 2, runs = half / RUN_BLOCKS;

	if (block < half)
		return block;
	block -= half;
	/* Odd, so that it is a permutation of a power of two. */
	return block / RUN_BLOCKS * 2654435761ull % runs * RUN_BLOCKS + block % RUN_BLOCKS;
}

static int next_region(void *context, uint64_t from, uint64_t *ret_number)
{
	const struct world *world = context;

	*ret_number = from;
	return from < world->blocks / DEDUPE_REGION_BLOCKS ? 0 : -ENOENT;
}

static int load_region(void *context, uint64_t number, struct dedupe_region *ret_region)
{
	const struct world *world = context;

	memset(&ret_region->roles, 0, sizeof(ret_region->roles));
	if (pread(world->roles_fd, &ret_region->roles, sizeof(ret_region->roles),
		  (off_t)(number * sizeof(ret_region->roles))) < 0)
		return -EIO;
	ret_region->number = number;
	ret_region->pending = true;
	for (uint32_t i = 0; i < DEDUPE_REGION_BLOCKS; i++) {
		uint64_t block = number * DEDUPE_REGION_BLOCKS + i;
		struct rng rng = {origin(world, block) * 2};

		if (block >= world->blocks) {
			ret_region->places[i] = 0;
			continue;
		}
		ret_region->hashes[i].low = rng_u64(&rng);
		ret_region->hashes[i].high = rng_u64(&rng);
		ret_region->places[i] = dedupe_place(block + 1, 1);
	}
	return 0;
}

static int keep_roles(void *context, uint64_t number, const struct dedupe_roles *roles)
{
	const struct world *world = context;
	off_t at = (off_t)(number * sizeof(*roles));

	return pwrite(world->roles_fd, roles, sizeof(*roles), at) == sizeof(*roles) ? 0 : -EIO;
}

static int take_match(void *context, const struct dedupe_match *match)
{
	struct world *world = context;

	for (uint64_t i = 0; i < match->blocks; i++)
		if (origin(world, match->dst_block + i) != origin(world, match->src_block + i)) {
			fprintf(stderr, "a match of unequal blocks\n");
			exit(1);
		}
	world->matches++;
	return 0;
}

static uint64_t most_kib(void)
{
	char line[128];
	uint64_t kib = 0;
	FILE *file = fopen("/proc/self/status", "re");

	while (file != NULL && fgets(line, sizeof(line), file) != NULL)
		if (sscanf(line, "VmHWM: %" SCNu64, &kib) == 1)
			break;
	if (file != NULL)
		fclose(file);
	return kib;
}

static bool run(struct world *world, uint64_t memory_kib)
{
	const struct dedupe_source source = {world, next_region, load_region, keep_roles};
	struct dedupe_find_options options = {
		.end_block = world->blocks,
		.min_run_blocks = 1,
		.memory_bytes = memory_kib * 1024,
		.source = &source,
		.context = world,
		.match = take_match,
	};
	uint64_t before = most_kib(), took;
	struct dedupe_find find;
	double found;

	if (dedupe_find_init(&find, &options) < 0 || dedupe_find_learn(&find) < 0 ||
	    dedupe_find_match(&find) < 0)
		return false;
	took = most_kib() - before;
	found = (double)find.duplicate_blocks / ((double)world->blocks / 2);
	printf("blocks %" PRIu64 " memory %" PRIu64 " KiB, took %" PRIu64
	       " KiB, sample bits %u, found %.1f %% in %" PRIu64 " matches\n",
	       world->blocks, memory_kib, took, find.table.sample_bits, 100 * found,
	       world->matches);
	dedupe_find_done(&find);
	return took <= memory_kib + SLACK_KIB && found >= FOUND_LEAST && found <= 1;
}

int main(int argc, char **argv)
{
	struct world world = {.matches = 0};
	FILE *roles = tmpfile();
	int log2 = argc == 3 ? atoi(argv[1]) : 0;
	long memory_kib = argc == 3 ? atol(argv[2]) : 0;

	if (log2 < 14 || log2 > 36 || memory_kib < 512) {
		fprintf(stderr, "usage: finder_bound LOG2_BLOCKS MEMORY_KIB\n");
		return 2;
	}
	if (roles == NULL) {
		perror("finder_bound");
		return 2;
	}
	world.blocks = 1ull << log2;
	world.roles_fd = fileno(roles);
	return run(&world, (uint64_t)memory_kib) ? 0 : 1;
}
