/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/core/metadata/space.h"

#include <assert.h>
#include <string.h>

#define LOGICAL_BLOCKS ((uint64_t)SPACE_LAST_REGION * REGION_BLOCKS + SPACE_LAST_REGION_BLOCKS)

static struct cache_home never_written(void *context, page_t page)
{
	(void)context;
	(void)page;
	return (struct cache_home){.absent = true};
}

static const struct cache_ops cache_callbacks = {.home = never_written};

static void plan(struct space *space, uint32_t slabs, uint32_t last_blocks)
{
	struct geometry *geometry = &space->super.geometry;
	uint64_t blocks = (slabs - 1ull) * SLAB_BLOCKS + 2 + last_blocks;
	int r;

	/* Where the slabs begin hardly depends on how many there are. */
	r = geometry_plan(LOGICAL_BLOCKS, blocks + SLAB_BLOCKS, RING_BLOCKS_MIN, geometry);
	assert(r == 0);
	r = geometry_plan(LOGICAL_BLOCKS, geometry->data_start + blocks, RING_BLOCKS_MIN, geometry);
	assert(r == 0 && geometry->slabs == slabs);
	assert(geometry_slab_blocks(geometry, slabs - 1) == last_blocks);
	space->geometry = geometry;
}

void space_init(struct space *space, uint32_t slabs, uint32_t last_blocks)
{
	int r;

	memset(space, 0, sizeof(*space));
	plan(space, slabs, last_blocks);
	store_mem_init(&space->mem, blocks_to_bytes(space->geometry->store_blocks), 2, 0);
	pthread_mutex_init(&space->lock, NULL);
	worker_init(&space->worker, 0);
	r = cache_init(&space->cache, &space->mem.store, &space->super, &space->lock, slabs,
		       &cache_callbacks, space);
	assert(r == 0);
	r = refs_init(&space->refs, space->geometry, &space->cache);
	assert(r == 0);
	for (uint32_t i = 0; i < slabs; i++)
		refs_set_summary(&space->refs, i, &(struct summary_entry){0});
}

void space_done(struct space *space)
{
	refs_done(&space->refs);
	cache_done(&space->cache);
	worker_done(&space->worker);
	pthread_mutex_destroy(&space->lock);
	store_mem_done(&space->mem);
}

static void loaded(struct task *task)
{
	(void)task;
}

void space_load(struct space *space, page_t page)
{
	struct wait wait;

	wait_init(&wait, &space->worker, loaded);
	pthread_mutex_lock(&space->lock);
	cache_load(&space->cache, page, &wait);
	pthread_mutex_unlock(&space->lock);
	worker_run(&space->worker);
	assert(wait.res == 0 && cache_find(&space->cache, page));
}

void space_load_all(struct space *space)
{
	for (uint32_t i = 0; i < space->geometry->slabs; i++)
		space_load(space, page_of_refs(space->geometry, i));
}

pbn_t space_block(const struct space *space, uint32_t slab, uint32_t index)
{
	return geometry_slab_pbn(space->geometry, slab, index);
}

void space_publish(struct space *space, pbn_t pbn, uint32_t blocks)
{
	refs_take(&space->refs, pbn, blocks);
	refs_busy_sub(&space->refs, pbn, blocks);
}
