/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/core/metadata/pages.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

struct pages pages;

/* --- what the cache calls back --- */

static struct cache_home tell_home(void *context, page_t page)
{
	assert(context == &pages && page < PAGES_REGIONS + PAGES_SLABS);
	return pages.homes[page];
}

static bool try_lock_region(void *context, uint32_t region)
{
	(void)context;
	if (pages.held[region % PAGES_STRIPES] > 0)
		return false;
	pages.held[region % PAGES_STRIPES]++;
	return true;
}

static bool one_lock(void *context, uint32_t region_a, uint32_t region_b)
{
	(void)context;
	return region_a % PAGES_STRIPES == region_b % PAGES_STRIPES;
}

static void lock_region(void *context, uint32_t region)
{
	bool locked = try_lock_region(context, region);

	assert(locked); /* this would wait for ever */
}

static void unlock_region(void *context, uint32_t region)
{
	(void)context;
	assert(pages.held[region % PAGES_STRIPES] == 1);
	pages.held[region % PAGES_STRIPES]--;
}

static bool note_short(void *context, struct worker *on)
{
	assert(context == &pages && on == &pages.worker);
	pages.shorts++;
	return pages.checkpoint_comes;
}

static void note_damage(void *context, const char *text)
{
	(void)context;
	pages.damages++;
	strncpy(pages.damage, text, sizeof(pages.damage) - 1);
}

static uint64_t tell_limit(void *context)
{
	(void)context;
	return pages.lsn_limit;
}

static void lacks_space(void *context, int error)
{
	(void)context;
	assert(store_lacks_space(error));
}

static const struct cache_ops callbacks = {
	.lacks_space = lacks_space,
	.home = tell_home,
	.try_lock_region = try_lock_region,
	.one_lock = one_lock,
	.lock_region = lock_region,
	.unlock_region = unlock_region,
	.on_short = note_short,
	.damage = note_damage,
	.lsn_limit = tell_limit,
};

static int decide(void *context, const struct store_io *io)
{
	(void)context;
	return io->op == STORE_READ ? pages.fail_reads : pages.fail_writes;
}

/* --- beginning and end --- */

static void woken(struct task *task)
{
	struct wait *wait = container_of(task, struct wait, task);
	struct pages_waiter *waiter = container_of(wait, struct pages_waiter, wait);

	waiter->woken++;
	waiter->res = wait->res;
}

static void plan(void)
{
	uint64_t blocks = (PAGES_REGIONS - 1) * REGION_BLOCKS + PAGES_LAST_BLOCKS;
	uint64_t data = PAGES_SLABS * SLAB_BLOCKS;
	struct geometry *geometry = &pages.super.geometry;
	int r;

	/* Where the slabs begin hardly depends on how many there are. */
	r = geometry_plan(blocks, data + SLAB_BLOCKS, 0, geometry);
	assert(r == 0);
	r = geometry_plan(blocks, geometry->data_start + data, 0, geometry);
	assert(r == 0 && geometry->regions == PAGES_REGIONS && geometry->slabs == PAGES_SLABS);
	pages.geometry = geometry;
}

void pages_start(void)
{
	pages = (struct pages){.super = {.uuid = "sixteen octets.."}, .lsn_limit = 1000};
	plan();
	store_mem_init(&pages.mem, blocks_to_bytes(pages.geometry->store_blocks), 1, 0);
	pages.mem.hook = decide;
	worker_init(&pages.worker, 0);
	pthread_mutex_init(&pages.lock, NULL);
	for (page_t page = 0; page < PAGES_REGIONS + PAGES_SLABS; page++)
		pages.homes[page] = (struct cache_home){.absent = true};
	for (unsigned i = 0; i < PAGES_WAITERS; i++)
		wait_init(&pages.waiters[i].wait, &pages.worker, woken);
}

void pages_make(uint32_t frames)
{
	int r = cache_init(&pages.cache, &pages.mem.store, &pages.super, &pages.lock, frames,
			   &callbacks, &pages);

	assert(r == 0);
	pages.cache.zero_new_refs = true;
}

void pages_stop(void)
{
	for (unsigned i = 0; i < PAGES_STRIPES; i++)
		assert(pages.held[i] == 0); /* a lock was forgotten */
	cache_done(&pages.cache);
	worker_done(&pages.worker);
	store_mem_done(&pages.mem);
	pthread_mutex_destroy(&pages.lock);
}

/* --- what lies on the disk --- */

/* Data blocks at the end of the last slab. */
uint64_t pages_place(uint32_t region)
{
	return geometry_slab_pbn(pages.geometry, PAGES_SLABS - 1, 1000 + 2 * region).v;
}

uint64_t pages_leaf_entry(uint32_t region, uint32_t index)
{
	return leaf_word(geometry_slab_pbn(pages.geometry, 0, region + index), index % 3 == 0);
}

static void put_page(uint8_t *page, page_t id, uint64_t block, const struct page_header *header)
{
	page_seal(page, header, pages.super.uuid);
	store_mem_poke(&pages.mem, blocks_to_bytes(block), page, BLOCK_BYTES);
	pages.homes[id] = (struct cache_home){{block}, header->generation, false};
}

void pages_put_leaf(uint32_t region, uint32_t generation, uint64_t lsn, uint32_t mapped)
{
	struct page_header header = {PAGE_LEAF, region, generation, lsn};
	uint8_t page[BLOCK_BYTES] = {0};

	for (uint32_t i = 0; i < mapped; i++)
		leaf_page_put(page, i, pages_leaf_entry(region, i));
	put_page(page, page_of_leaf(region), pages_place(region) + (generation & 1), &header);
}

void pages_put_refs(uint32_t slab, uint32_t generation, uint64_t lsn)
{
	struct page_header header = {PAGE_REFS, slab, generation, lsn};
	uint8_t page[BLOCK_BYTES] = {0};

	for (uint32_t i = 0; i < SLAB_DATA_BLOCKS; i++)
		refs_page_put(page, i, pages_count(slab, i));
	put_page(page, page_of_refs(pages.geometry, slab),
		 geometry_refs_block(pages.geometry, slab, generation), &header);
}

void pages_put_leaves(uint32_t count)
{
	for (uint32_t region = 0; region < count; region++)
		pages_put_leaf(region, 1, 10, 1);
}

/* --- driving --- */

static void run_tasks(void)
{
	while (worker_run(&pages.worker))
		;
}

void pages_settle(void)
{
	run_tasks();
	while (store_mem_deliver(&pages.mem, 0))
		run_tasks();
}

void pages_ask(page_t page, struct pages_waiter *waiter)
{
	waiter->woken = 0;
	pthread_mutex_lock(&pages.lock);
	cache_load(&pages.cache, page, &waiter->wait);
	pthread_mutex_unlock(&pages.lock);
}

int pages_answer(const struct pages_waiter *waiter)
{
	run_tasks();
	assert(waiter->woken <= 1);
	return waiter->woken ? waiter->res : -EAGAIN;
}

int pages_load(page_t page)
{
	struct pages_waiter *waiter = &pages.waiters[PAGES_WAITERS - 1];

	pages_ask(page, waiter);
	pages_settle();
	return pages_answer(waiter);
}

bool pages_resident(page_t page)
{
	return pages.cache.frame_of[page] != 0;
}

uint32_t pages_residents(void)
{
	uint32_t count = 0;

	for (page_t page = 0; page < PAGES_REGIONS + PAGES_SLABS; page++)
		count += pages_resident(page);
	return count;
}

struct frame *pages_frame(page_t page)
{
	struct frame *frame = cache_find(&pages.cache, page);

	assert(frame != NULL);
	return frame;
}

void pages_dirty(page_t page, uint64_t lsn)
{
	pthread_mutex_lock(&pages.lock);
	cache_dirty(&pages.cache, pages_frame(page), lsn);
	pthread_mutex_unlock(&pages.lock);
}

void pages_wake(void)
{
	pthread_mutex_lock(&pages.lock);
	cache_wake(&pages.cache);
	pthread_mutex_unlock(&pages.lock);
}

void pages_bring_home(page_t page)
{
	struct frame *frame = pages_frame(page);

	cache_copied(&pages.cache, frame);
	cache_home_written(&pages.cache, frame);
	atomic_store(&frame->referenced, false);
	pages_wake();
}
