/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * read - reads back all that was ever touched, with requests that no client makes
 */
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tests/swarm/engine/fail.h"
#include "tests/swarm/engine/world.h"

#define STUCK_TICKS 200u

struct end {
	bool done;
	int res;
};

static void ended(struct request *request, int res)
{
	struct end *end = request->context;

	*end = (struct end){true, res};
}

int read_request(struct world *world, struct request *request)
{
	struct end end = {0};
	unsigned idle = 0;

	request->volume = world->volume;
	request->worker = &world->workers[rng_below(&world->rng, world->life.workers)];
	request->done = ended;
	request->context = &end;
	request_submit(request);
	while (!end.done) {
		bool moved = false;

		for (unsigned i = 0; i < world->life.workers && !end.done; i++)
			moved = worker_run(&world->workers[i]) || moved;
		for (unsigned i = 0; i < world->life.workers && !end.done && !moved; i++)
			moved = disk_deliver(&world->disk, i, true);
		if (!moved && !end.done && ++idle > STUCK_TICKS)
			fail("stuck",
			     "a request of operation %d at %" PRIu64 "+%" PRIu64
			     " alone is not answered",
			     (int)request->op, request->off_bytes, request->len_bytes);
		if (!moved && !end.done)
			volume_tick(world->volume, request->worker);
	}
	return end.res;
}

void read_touched(struct world *world,
		  void (*found)(struct world *world, void *context, uint64_t block,
				const uint32_t *ids),
		  void *context)
{
	uint8_t *data = aligned_alloc(BLOCK_BYTES, REGION_BYTES);
	uint8_t *scratch = aligned_alloc(BLOCK_BYTES, SCRATCH_BYTES);
	uint32_t ids[BLOCK_SECTORS];

	assert(data && scratch);
	for (uint32_t i = 0; i < world->model.region_count; i++) {
		const struct model_region *region = world->model.regions[i];
		uint64_t first = (uint64_t)region->region * REGION_BLOCKS;

		for (uint32_t b = 0, n; b < REGION_BLOCKS; b += n) {
			struct request request;
			int r;

			n = 1;
			if (region->blocks[b].count == 0)
				continue;
			while (b + n < REGION_BLOCKS && region->blocks[b + n].count > 0)
				n++;
			request = (struct request){
				.op = REQUEST_READ,
				.off_bytes = blocks_to_bytes(first + b),
				.len_bytes = blocks_to_bytes(n),
				.data = data,
				.scratch = scratch,
			};
			memset(data, 0x77, request.len_bytes);
			r = read_request(world, &request);
			if (r < 0)
				fail("read back", "%d at block %" PRIu64 "+%" PRIu32, r, first + b,
				     n);
			for (uint32_t k = 0; k < n; k++) {
				answer_identify(world, data + blocks_to_bytes(k), ids);
				found(world, context, first + b + k, ids);
			}
		}
	}
	free(data);
	free(scratch);
}
