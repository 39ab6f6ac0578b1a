/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/metadata/cache.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mutant.h"

#define LOAD_BYTES (2u * BLOCK_BYTES)

static void load_done(struct store_io *io, int res);

int cache_init(struct cache *cache, struct store *store, const struct super *super,
	       pthread_mutex_t *lock, uint32_t frame_count, const struct cache_ops *ops,
	       void *context)
{
	uint64_t pages = (uint64_t)super->geometry.regions + super->geometry.slabs;

	memset(cache, 0, sizeof(*cache));
	cache->store = store;
	cache->geometry = &super->geometry;
	cache->uuid = super->uuid;
	cache->lock = lock;
	cache->ops = ops;
	cache->context = context;
	cache->loading = PAGE_NONE;
	cache->frame_count = frame_count;
	list_init(&cache->dirty);
	list_init(&cache->free_waits);
	/* Large and zeroed: the system gives the memory when a frame or an entry is first touched.
	 * */
	cache->frames = calloc(frame_count, sizeof(struct frame));
	cache->frame_of = calloc(pages, sizeof(uint32_t));
	cache->busy_tables = calloc(frame_count, sizeof(uint16_t *));
	cache->load_memory = aligned_alloc(BLOCK_BYTES, (size_t)CACHE_LOADS * LOAD_BYTES);
	if (!cache->frames || !cache->frame_of || !cache->load_memory || !cache->busy_tables)
		return -ENOMEM;
	for (uint32_t i = 0; i < CACHE_LOADS; i++) {
		cache->loads[i].cache = cache;
		cache->loads[i].page = PAGE_NONE;
		cache->loads[i].buf = cache->load_memory + (size_t)i * LOAD_BYTES;
		list_init(&cache->loads[i].waits);
	}
	return 0;
}

void cache_populate(struct cache *cache, uint32_t frames)
{
	volatile uint8_t *memory = (volatile uint8_t *)cache->frames;
	size_t bytes = (size_t)frames * sizeof(struct frame);

	assert(frames <= cache->frame_count);
	for (size_t at = 0; at < bytes; at += BLOCK_BYTES)
		memory[at] = 0;
	memset(cache->load_memory, 0, (size_t)CACHE_LOADS * LOAD_BYTES);
}

void cache_done(struct cache *cache)
{
	for (uint32_t i = 0; cache->frames && i < cache->frames_used; i++)
		free(cache->frames[i].busy_counts);
	for (uint32_t i = 0; i < cache->busy_table_count; i++)
		free(cache->busy_tables[i]);
	free(cache->busy_tables);
	free(cache->frames);
	free(cache->frame_of);
	free(cache->load_memory);
}

static void return_busy_table(struct cache *cache, struct frame *frame)
{
	if (frame->busy_counts)
		cache->busy_tables[cache->busy_table_count++] = frame->busy_counts;
	frame->busy_counts = NULL;
}

static void remove_page(struct cache *cache, struct frame *frame)
{
	assert(frame->page != PAGE_NONE && !frame->dirty && !frame->copying && frame->busy == 0);
	if (!page_is_leaf(cache->geometry, frame->page) && cache->ops->refs_evicted)
		cache->ops->refs_evicted(cache->context, frame);
	cache->frame_of[frame->page] = 0;
	frame->page = PAGE_NONE;
	return_busy_table(cache, frame);
}

/* Takes the page out of the frame, if nothing needs it there. */
static bool evict(struct cache *cache, struct frame *frame)
{
	bool leaf;
	page_t page = frame->page;

	if (page == PAGE_NONE)
		return !frame->copying;
	if (frame->dirty || frame->copying || frame->busy > 0)
		return false;
	if (atomic_load_explicit(&frame->referenced, memory_order_relaxed)) {
		atomic_store_explicit(&frame->referenced, false, memory_order_relaxed);
		return false;
	}
	leaf = page_is_leaf(cache->geometry, page) &&
	       !(cache->loading != PAGE_NONE &&
		 cache->ops->one_lock(cache->context, page, cache->loading));
	if (leaf && !cache->ops->try_lock_region(cache->context, page))
		return false;
	remove_page(cache, frame);
	if (leaf)
		cache->ops->unlock_region(cache->context, page);
	return true;
}

/* A frame with no page in it, or NULL. */
static struct frame *free_frame(struct cache *cache)
{
	if (cache->frames_used < cache->frame_count) {
		struct frame *frame = &cache->frames[cache->frames_used++];

		frame->page = PAGE_NONE;
		list_init(&frame->dirty_node);
		return frame;
	}
	/* Twice round: the first time may only clear the reference bits. */
	for (uint32_t i = 0; i < 2 * cache->frame_count; i++) {
		struct frame *frame = &cache->frames[cache->hand];

		cache->hand = (cache->hand + 1) % cache->frame_count;
		if (evict(cache, frame))
			return frame;
	}
	return NULL;
}

/* A refs page needs a busy table beside it: all zeros, as nothing of an absent page is busy. */
static uint16_t *take_busy_table(struct cache *cache)
{
	if (cache->busy_table_count > 0)
		return cache->busy_tables[--cache->busy_table_count];
	return calloc(SLAB_DATA_BLOCKS, sizeof(uint16_t));
}

/* The page moves into a free frame, empty. 0, -EAGAIN (no frame can be had now) or -ENOMEM. */
static int install(struct cache *cache, page_t page, uint64_t lsn, struct frame **ret_frame)
{
	struct frame *frame = free_frame(cache);
	uint16_t *busy = NULL;

	if (frame == NULL)
		return -EAGAIN;
	if (!page_is_leaf(cache->geometry, page)) {
		busy = take_busy_table(cache);
		if (busy == NULL)
			return -ENOMEM;
	}
	frame->page = page;
	frame->lsn = lsn;
	frame->busy = 0;
	frame->mapped = 0;
	frame->busy_counts = busy;
	memset((void *)frame->words, 0, sizeof(frame->words));
	atomic_store_explicit(&frame->referenced, true, memory_order_relaxed);
	cache->frame_of[page] = (uint32_t)(frame - cache->frames) + 1;
	*ret_frame = frame;
	return 0;
}

static struct cache_load *find_load(struct cache *cache, page_t page)
{
	for (uint32_t i = 0; i < CACHE_LOADS; i++)
		if (cache->loads[i].page == page)
			return &cache->loads[i];
	return NULL;
}

static void submit_load(struct cache_load *load, enum store_op op, uint64_t block, uint32_t blocks,
			unsigned lane)
{
	load->zeroing = op == STORE_WRITE;
	load->io.op = op;
	load->io.fua = false;
	load->io.locked = true;
	load->io.lane = lane;
	load->io.off_bytes = blocks_to_bytes(block);
	load->io.len_bytes = blocks_to_bytes(blocks);
	load->io.buf = load->buf;
	load->io.done = load_done;
	load->io.context = load;
	store_submit(load->cache->store, &load->io);
}

static void wait_for_frame(struct cache *cache, struct wait *wait)
{
	if (cache->dead) { /* no page is cleaned any more */
		wait_wake(wait, -EIO);
		return;
	}
	list_add_tail(&cache->free_waits, &wait->node);
	cache->ops->on_short(cache->context, wait->task.worker);
}

/* A page that was never written: empty, without reading. */
static void make_absent(struct cache *cache, page_t page, struct wait *wait)
{
	struct cache_load *load;
	struct frame *frame;
	int r;

	if (!page_is_leaf(cache->geometry, page) && cache->dead) {
		wait_wake(wait, -EIO);
		return;
	}
	if (!page_is_leaf(cache->geometry, page) && cache->zero_new_refs) {
		load = find_load(cache, PAGE_NONE);
		if (load == NULL) {
			list_add_tail(&cache->free_waits, &wait->node);
			return;
		}
		load->page = page;
		load->generation = 0;
		list_add_tail(&load->waits, &wait->node);
		memset(load->buf, 0, LOAD_BYTES);
		submit_load(
			load, STORE_WRITE,
			geometry_refs_block(cache->geometry, page - cache->geometry->regions, 0), 2,
			wait->task.worker->lane);
		return;
	}
	/* The leaf of a region that is no LEAF yet: nobody reads its words, so its stripe is not
	 * needed. */
	r = install(cache, page, 0, &frame);
	if (r == -EAGAIN)
		wait_for_frame(cache, wait);
	else
		wait_wake(wait, r);
}

/* Few frames that can change hands are as bad as none: pages that are needed together would push
 * each other out for ever. */
static bool is_short(const struct cache *cache)
{
	return cache->dirty_count + cache->busy_pages > cache->frame_count / 2;
}

static bool is_nearly_dirty(const struct cache *cache)
{
	uint32_t spare = min_u32(CACHE_FRAMES_SPARE, cache->frame_count / 4);

	return cache->dirty_count + cache->copying_count > cache->frame_count - spare;
}

void cache_load(struct cache *cache, page_t page, struct wait *wait)
{
	struct cache_load *load = find_load(cache, page);
	struct cache_home home;

	assert(cache->frame_of[page] == 0);
	if (load) {
		list_add_tail(&load->waits, &wait->node);
		return;
	}
	if (is_short(cache) && cache->ops->on_short(cache->context, wait->task.worker) &&
	    is_nearly_dirty(cache)) {
		list_add_tail(&cache->free_waits, &wait->node);
		return;
	}
	home = cache->ops->home(cache->context, page);
	if (home.absent) {
		make_absent(cache, page, wait);
		return;
	}
	load = find_load(cache, PAGE_NONE);
	if (load == NULL) {
		list_add_tail(&cache->free_waits, &wait->node);
		return;
	}
	load->page = page;
	load->generation = home.generation;
	list_add_tail(&load->waits, &wait->node);
	cache->reads++;
	submit_load(load, STORE_READ, home.block.v, 1, wait->task.worker->lane);
}

static void decode_leaf(struct frame *frame, const uint8_t *buf)
{
	for (uint32_t i = 0; i < REGION_BLOCKS; i++) {
		uint64_t word = leaf_page_get(buf, i);

		atomic_store_explicit(&frame->words[i], word, memory_order_relaxed);
		frame->mapped += !pbn_is_none(leaf_word_pbn(word));
	}
}

static void decode_refs(struct frame *frame, const uint8_t *buf)
{
	for (uint32_t i = 0; i < SLAB_DATA_BLOCKS; i++)
		frame->counts[i] = refs_page_get(buf, i);
}

static bool is_old_enough(const struct cache *cache, uint64_t lsn, struct why *why)
{
	uint64_t limit = cache->ops->lsn_limit(cache->context);

	if (lsn < limit)
		return true;
	snprintf(why->expected, sizeof(why->expected), "an LSN below %" PRIu64, limit);
	snprintf(why->found, sizeof(why->found), "%" PRIu64, lsn);
	return false;
}

/* Every entry of a leaf names a data block or nothing, and nothing past the volume's end. */
static bool leaf_plausible(const struct cache *cache, const struct cache_load *load,
			   struct why *why)
{
	uint32_t blocks = geometry_region_blocks(cache->geometry, load->page);

	for (uint32_t i = 0; i < REGION_BLOCKS; i++) {
		uint64_t word = leaf_page_get(load->buf, i);
		pbn_t pbn = leaf_word_pbn(word);

		if (word == 0)
			continue;
		if ((word & ~LEAF_KNOWN_BITS) || i >= blocks ||
		    !geometry_is_data(cache->geometry, pbn)) {
			snprintf(why->expected, sizeof(why->expected),
				 "a data block in entry %" PRIu32, i);
			snprintf(why->found, sizeof(why->found), "%012" PRIx64, word);
			return false;
		}
	}
	return true;
}

static bool was_told(struct cache *cache, const char *text)
{
	uint64_t sum = 14695981039346656037u; /* FNV-1a */

	for (const char *at = text; *at; at++)
		sum = (sum ^ (uint8_t)*at) * 1099511628211u;
	for (uint32_t i = 0; i < CACHE_TOLD; i++)
		if (cache->told[i] == sum)
			return true;
	cache->told[cache->told_at++ % CACHE_TOLD] = sum;
	return false;
}

static int verify(struct cache *cache, const struct cache_load *load, uint64_t *ret_lsn)
{
	bool leaf = page_is_leaf(cache->geometry, load->page);
	struct page_header expected = {
		.kind = leaf ? PAGE_LEAF : PAGE_REFS,
		.number = leaf ? load->page : load->page - cache->geometry->regions,
		.generation = load->generation,
	};
	struct why why;
	char text[320];

	if (MUTANT(46)) /* a stale slot is believed */
		expected.generation = page_generation(load->buf);
	if (page_verify(load->buf, &expected, cache->uuid, ret_lsn, &why) &&
	    is_old_enough(cache, *ret_lsn, &why) && (!leaf || leaf_plausible(cache, load, &why)))
		return 0;
	snprintf(text, sizeof(text), "%s %" PRIu64 " at block %" PRIu64 ": expected %s, found %s",
		 leaf ? "leaf of region" : "refs page of slab", expected.number,
		 load->io.off_bytes >> BLOCK_SHIFT, why.expected, why.found);
	if (!was_told(cache, text))
		cache->ops->damage(cache->context, text);
	return -EUCLEAN;
}

/* With the locks held: the page becomes resident, or its waiters hear why not. */
static int finish_load(struct cache *cache, struct cache_load *load, int res)
{
	struct frame *frame;
	uint64_t lsn = 0;

	if (res == 0 && !load->zeroing)
		res = verify(cache, load, &lsn);
	if (res < 0)
		return res;
	res = install(cache, load->page, lsn, &frame);
	if (res < 0)
		return res;
	if (page_is_leaf(cache->geometry, load->page))
		decode_leaf(frame, load->buf);
	else if (!load->zeroing)
		decode_refs(frame, load->buf);
	if (!page_is_leaf(cache->geometry, load->page) && cache->ops->refs_loaded)
		cache->ops->refs_loaded(cache->context, frame);
	return 0;
}

static void load_done(struct store_io *io, int res)
{
	struct cache_load *load = io->context;
	struct cache *cache = load->cache;
	bool leaf = page_is_leaf(cache->geometry, load->page);
	page_t page = load->page;

	if (store_lacks_space(res))
		cache->ops->lacks_space(cache->context, res);
	if (leaf)
		cache->ops->lock_region(cache->context, page);
	pthread_mutex_lock(cache->lock);
	cache->loading = leaf ? page : PAGE_NONE;
	res = finish_load(cache, load, store_error(io, res));
	cache->loading = PAGE_NONE;
	load->page = PAGE_NONE;
	if (res == -EAGAIN && cache->dead)
		res = -EIO;
	if (res == -EAGAIN) { /* no frame: they try again once there is one */
		struct wait *wait = container_of(load->waits.next, struct wait, node);

		list_splice_tail(&cache->free_waits, &load->waits);
		cache->ops->on_short(cache->context, wait->task.worker);
	} else {
		wait_wake_all(&load->waits, res);
		cache_wake(cache); /* a load slot is free */
	}
	pthread_mutex_unlock(cache->lock);
	if (leaf)
		cache->ops->unlock_region(cache->context, page);
}

void cache_dirty(struct cache *cache, struct frame *frame, uint64_t lsn)
{
	assert(lsn > frame->lsn);
	frame->lsn = lsn;
	if (frame->dirty)
		return;
	frame->dirty = true;
	frame->first_lsn = lsn;
	list_add_tail(&cache->dirty, &frame->dirty_node);
	cache->dirty_count++;
}

struct frame *cache_oldest_dirty(struct cache *cache)
{
	if (list_empty(&cache->dirty))
		return NULL;
	return container_of(cache->dirty.next, struct frame, dirty_node);
}

static void clean(struct cache *cache, struct frame *frame)
{
	assert(frame->dirty);
	frame->dirty = false;
	list_del(&frame->dirty_node);
	cache->dirty_count--;
}

void cache_copied(struct cache *cache, struct frame *frame)
{
	assert(!frame->copying);
	clean(cache, frame);
	frame->copying = true;
	cache->copying_count++;
}

void cache_home_written(struct cache *cache, struct frame *frame)
{
	assert(frame->copying);
	frame->copying = false;
	cache->copying_count--;
}

void cache_forget(struct cache *cache, page_t page)
{
	struct frame *frame = cache_find(cache, page);

	if (frame == NULL)
		return;
	if (frame->dirty)
		clean(cache, frame);
	/* A copy that is still going home lands in a place that stays in quarantine until the
	 * checkpoint is over; the frame stays empty and unused until then. */
	cache->frame_of[page] = 0;
	frame->page = PAGE_NONE;
}

bool cache_is_loading(const struct cache *cache)
{
	for (uint32_t i = 0; i < CACHE_LOADS; i++)
		if (cache->loads[i].page != PAGE_NONE)
			return true;
	return false;
}

bool cache_is_loading_page(struct cache *cache, page_t page)
{
	return find_load(cache, page) != NULL;
}

void cache_wake(struct cache *cache)
{
	wait_wake_all(&cache->free_waits, 0);
}

void cache_encode(const struct cache *cache, const struct frame *frame, uint32_t generation,
		  uint8_t *out)
{
	bool leaf = page_is_leaf(cache->geometry, frame->page);
	struct page_header header = {
		.kind = leaf ? PAGE_LEAF : PAGE_REFS,
		.number = leaf ? frame->page : frame->page - cache->geometry->regions,
		.generation = generation,
		.lsn = frame->lsn,
	};

	memset(out, 0, BLOCK_BYTES);
	for (uint32_t i = 0; leaf && i < REGION_BLOCKS; i++)
		leaf_page_put(out, i, atomic_load_explicit(&frame->words[i], memory_order_relaxed));
	for (uint32_t i = 0; !leaf && i < SLAB_DATA_BLOCKS; i++)
		refs_page_put(out, i, frame->counts[i]);
	page_seal(out, &header, cache->uuid);
}

void cache_kill(struct cache *cache, int error)
{
	cache->dead = true;
	wait_wake_all(&cache->free_waits, error);
}
