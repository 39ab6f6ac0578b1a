/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/metadata/alloc.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core/base/mutant.h"

#define LOOKS_MAX 8u /* slabs, for a run of a size that need not be had */

void alloc_init(struct alloc *alloc, struct refs *refs, const struct geometry *geometry,
		uint32_t cow_hint_blocks, uint32_t window_count)
{
	assert(cow_hint_blocks > 0 && (cow_hint_blocks & (cow_hint_blocks - 1)) == 0);
	assert(window_count > 0 && window_count <= ALLOC_WINDOWS_MAX);
	*alloc = (struct alloc){
		.refs = refs,
		.geometry = geometry,
		.cow_hint_blocks = cow_hint_blocks,
		.window_count = window_count,
	};
}

void alloc_use_homes(struct alloc *alloc)
{
	uint64_t last = alloc->geometry->logical_blocks;

	alloc->homes = true;
	/* What has no home is looked for behind them. */
	alloc->cursor = (uint32_t)(last / SLAB_DATA_BLOCKS % alloc->geometry->slabs);
}

static bool handed(const struct alloc_window *window, uint32_t i)
{
	return window->handed[i / 64] >> (i % 64) & 1;
}

static void drop_window(struct alloc *alloc, struct alloc_window *window)
{
	for (uint32_t i = 0; i < window->blocks; i++) {
		uint32_t begin = i;

		while (i < window->blocks && !handed(window, i))
			i++;
		if (i > begin)
			refs_busy_sub(alloc->refs, pbn_add(window->pbn, begin), i - begin);
		alloc->reserved_blocks -= i - begin;
	}
	window->blocks = 0;
}

void alloc_drop_windows(struct alloc *alloc)
{
	for (uint32_t i = 0; i < alloc->window_count; i++)
		drop_window(alloc, &alloc->windows[i]);
}

void alloc_leave(struct alloc *alloc, uint32_t slab)
{
	for (uint32_t i = 0; i < alloc->window_count; i++)
		if (alloc->windows[i].blocks > 0 &&
		    geometry_slab(alloc->geometry, alloc->windows[i].pbn) == slab)
			drop_window(alloc, &alloc->windows[i]);
}

static struct alloc_window *find_window(struct alloc *alloc, uint32_t region, uint32_t index)
{
	for (uint32_t i = 0; i < alloc->window_count; i++) {
		struct alloc_window *window = &alloc->windows[i];

		if (window->blocks > 0 && window->region == region && index >= window->first &&
		    index - window->first < window->blocks)
			return window;
	}
	return NULL;
}

/* The blocks of the window from index on that were not handed out yet; 0 if the first one was. */
static uint32_t take_from_window(struct alloc *alloc, struct alloc_window *window, uint32_t index,
				 uint32_t blocks, pbn_t *ret_pbn)
{
	uint32_t first = index - window->first, count = 0;

	while (count < blocks && first + count < window->blocks && !handed(window, first + count)) {
		window->handed[(first + count) / 64] |= 1ull << ((first + count) % 64);
		count++;
	}
	alloc->reserved_blocks -= count;
	window->used_at = ++alloc->now;
	*ret_pbn = pbn_add(window->pbn, first);
	return count;
}

static bool allocatable(const struct frame *frame, uint32_t index)
{
	if (MUTANT(21)) /* the count alone is believed */
		return frame->counts[index] == 0;
	return frame->counts[index] == 0 && frame->busy_counts[index] == 0;
}

static bool find_run_between(const struct frame *frame, uint32_t begin, uint32_t end,
			     uint32_t blocks, uint32_t step, uint32_t *ret_index)
{
	for (uint32_t i = begin; i + blocks <= end; i += step) {
		uint32_t n = 0;

		while (n < blocks && allocatable(frame, i + n))
			n++;
		if (n == blocks) {
			*ret_index = i;
			return true;
		}
	}
	return false;
}

/* A run of `blocks` allocatable blocks of a slab, which is resident. */
static bool find_run(const struct alloc *alloc, const struct frame *frame, uint32_t slab,
		     uint32_t blocks, uint32_t *ret_index)
{
	uint32_t limit = geometry_slab_blocks(alloc->geometry, slab);
	/* Small runs anywhere; larger ones aligned, so that windows do not eat into each other. */
	uint32_t step = piece_step(piece_for(blocks));
	uint32_t from = step == 1 || slab != alloc->cursor ? 0 : alloc->at / step * step;

	return find_run_between(frame, from, limit, blocks, step, ret_index) ||
	       find_run_between(frame, 0, min_u32(from + blocks - 1, limit), blocks, step,
				ret_index);
}

static void take_run(struct alloc *alloc, uint32_t slab, uint32_t index, uint32_t blocks,
		     pbn_t *ret_pbn)
{
	*ret_pbn = geometry_slab_pbn(alloc->geometry, slab, index);
	refs_busy_add(alloc->refs, *ret_pbn, blocks);
	if (slab != alloc->cursor)
		alloc->at = 0;
	alloc->cursor = slab;
	if (blocks >= PIECE_ALIGN_MIN)
		alloc->at = index + blocks;
}

/* A run anywhere; it becomes busy. A slab that has not got what its summary says is at hand and
 * costs a look; of large runs so many looks are had, then a smaller one does as well. */
static int get_run(struct alloc *alloc, uint32_t blocks, pbn_t *ret_pbn, page_t *ret_page)
{
	uint32_t piece = piece_for(blocks), looks = blocks <= PLACE_BLOCKS ? UINT32_MAX : LOOKS_MAX;

	while (looks-- > 0) {
		uint32_t slab = refs_find(alloc->refs, alloc->cursor, piece), index;
		struct frame *frame;

		if (slab == SLABSET_NONE)
			return -ENOSPC;
		*ret_page = page_of_refs(alloc->geometry, slab);
		frame = cache_find(alloc->refs->cache, *ret_page);
		if (frame == NULL)
			return -EAGAIN;
		if (find_run(alloc, frame, slab, blocks, &index)) {
			take_run(alloc, slab, index, blocks, ret_pbn);
			return 0;
		}
		refs_measure(alloc->refs, slab);
	}
	return -ENOSPC;
}

static uint32_t window_blocks(const struct alloc *alloc, uint32_t region, uint32_t blocks,
			      bool stream)
{
	uint32_t size = alloc->cow_hint_blocks;

	if (stream)
		return geometry_region_blocks(alloc->geometry, region);
	while (size < blocks)
		size *= 2;
	return size;
}

static struct alloc_window *oldest_window(struct alloc *alloc)
{
	struct alloc_window *oldest = &alloc->windows[0];

	for (uint32_t i = 0; i < alloc->window_count; i++) {
		struct alloc_window *window = &alloc->windows[i];

		if (window->blocks == 0)
			return window;
		if (window->used_at < oldest->used_at)
			oldest = window;
	}
	return oldest;
}

/* The slab that is the home of lbn, and the index in it. */
static uint32_t home_of(const struct alloc *alloc, lbn_t lbn, uint32_t *ret_index)
{
	uint64_t at = lbn.v % geometry_data_blocks(alloc->geometry);

	*ret_index = (uint32_t)(at % SLAB_DATA_BLOCKS);
	return (uint32_t)(at / SLAB_DATA_BLOCKS);
}

/* A window on the home of lbn, all of it in one slab. -ENOSPC: not all of the needed blocks from
 * lbn on are free there. */
static int open_home(struct alloc *alloc, lbn_t lbn, uint32_t size, uint32_t needed,
		     page_t *ret_page)
{
	uint32_t index, slab = home_of(alloc, lbn, &index), before = lbn_index(lbn) % size;
	page_t page = page_of_refs(alloc->geometry, slab);
	struct frame *frame = cache_find(alloc->refs->cache, page);
	struct alloc_window *window;

	while (before > index ||
	       index - before + size > geometry_slab_blocks(alloc->geometry, slab)) {
		size /= 2;
		before = lbn_index(lbn) % size;
	}
	if (before + needed > size || alloc->refs->slabs[slab].piece == 0 ||
	    alloc->refs->slabs[slab].barred || alloc->refs->slabs[slab].lost)
		return -ENOSPC;
	if (frame == NULL) {
		*ret_page = page;
		return -EAGAIN;
	}
	for (uint32_t i = 0; i < needed; i++)
		if (!allocatable(frame, index + i))
			return -ENOSPC;
	window = oldest_window(alloc);
	drop_window(alloc, window);
	*window = (struct alloc_window){
		.region = lbn_region(lbn),
		.first = lbn_index(lbn) - before,
		.blocks = size,
		.pbn = geometry_slab_pbn(alloc->geometry, slab, index - before),
	};
	for (uint32_t i = 0; i < size; i++) {
		if (!allocatable(frame, index - before + i)) { /* somebody else's */
			window->handed[i / 64] |= 1ull << (i % 64);
			continue;
		}
		refs_busy_add(alloc->refs, pbn_add(window->pbn, i), 1);
		alloc->reserved_blocks++;
	}
	return 0;
}

/* A window of its own for lbn, as large as can be had. */
static int open_window(struct alloc *alloc, lbn_t lbn, uint32_t size, page_t *ret_page)
{
	uint32_t index = lbn_index(lbn);
	struct alloc_window *window;
	pbn_t pbn;
	int r = -ENOSPC;

	for (; size > 0; size /= 2) {
		r = get_run(alloc, size, &pbn, ret_page);
		if (r != -ENOSPC)
			break;
	}
	if (r < 0)
		return r;
	window = oldest_window(alloc);
	drop_window(alloc, window);
	*window = (struct alloc_window){
		.region = lbn_region(lbn),
		.first = index - index % size,
		.blocks = size,
		.pbn = pbn,
	};
	alloc->reserved_blocks += size;
	return 0;
}

int alloc_get(struct alloc *alloc, lbn_t lbn, uint32_t blocks, bool stream, pbn_t *ret_pbn,
	      uint32_t *ret_blocks, page_t *ret_page)
{
	uint32_t region = lbn_region(lbn), index = lbn_index(lbn), got = 0;
	struct alloc_window *window = find_window(alloc, region, index);
	int r;

	assert(blocks > 0 && index + blocks <= REGION_BLOCKS);
	if (window)
		got = take_from_window(alloc, window, index, blocks, ret_pbn);
	if (window && got == 0)
		drop_window(alloc,
			    window); /* the block was copied before; a fresh window follows */
	if (got == 0) {
		uint32_t size = window_blocks(alloc, region, blocks, stream);

		r = -ENOSPC;
		if (alloc->homes)
			r = open_home(alloc, lbn, size, stream ? size : blocks, ret_page);
		if (r == -ENOSPC)
			r = open_window(alloc, lbn, size, ret_page);
		if (r == -ENOSPC) {
			alloc_drop_windows(alloc);
			r = open_window(alloc, lbn, 1, ret_page);
		}
		if (r < 0)
			return r;
		window = find_window(alloc, region, index);
		got = take_from_window(alloc, window, index, blocks, ret_pbn);
	}
	assert(got > 0);
	*ret_blocks = got;
	return 0;
}

/* Where no two neighbours are known, a slab may have some that nobody measured yet, of a store that
 * was written without: each is read once in the store's life. */
static int get_place(struct alloc *alloc, bool learns, pbn_t *ret_place, page_t *ret_page)
{
	int r = get_run(alloc, PLACE_BLOCKS, ret_place, ret_page);
	uint32_t slab = slabset_next(&alloc->refs->unknown, 0);

	if (r != -ENOSPC || slab == SLABSET_NONE || !learns)
		return r;
	*ret_page = page_of_refs(alloc->geometry, slab);
	return -EAGAIN;
}

int alloc_get_place(struct alloc *alloc, bool learns, pbn_t *ret_place, page_t *ret_page)
{
	int r = get_place(alloc, learns, ret_place, ret_page);

	if (r != -ENOSPC)
		return r;
	alloc_drop_windows(alloc);
	return get_place(alloc, learns, ret_place, ret_page);
}

/* Where the search begins stays as it is: a write that is given it back for a page that its data
 * needs finds the same two again, and not the next ones for ever. */
int alloc_get_split(struct alloc *alloc, pbn_t *ret_place, pbn_t *ret_second, page_t *ret_page)
{
	uint32_t cursor = alloc->cursor, at = alloc->at;
	int r = get_run(alloc, 1, ret_place, ret_page);

	if (r < 0)
		return r;
	r = get_run(alloc, 1, ret_second, ret_page);
	if (r < 0)
		refs_busy_sub(alloc->refs, *ret_place, 1);
	alloc->cursor = cursor;
	alloc->at = at;
	return r;
}

/* The window that the block was handed out of, if it is still there. */
static struct alloc_window *window_of(struct alloc *alloc, pbn_t pbn)
{
	for (uint32_t i = 0; i < alloc->window_count; i++) {
		struct alloc_window *window = &alloc->windows[i];

		if (window->blocks > 0 && pbn.v >= window->pbn.v &&
		    pbn.v - window->pbn.v < window->blocks &&
		    handed(window, (uint32_t)(pbn.v - window->pbn.v)))
			return window;
	}
	return NULL;
}

bool alloc_keeps(const struct alloc *alloc, pbn_t pbn)
{
	for (uint32_t i = 0; i < alloc->window_count; i++) {
		const struct alloc_window *window = &alloc->windows[i];
		uint64_t at = pbn.v - window->pbn.v;

		if (pbn.v >= window->pbn.v && at < window->blocks && !handed(window, (uint32_t)at))
			return true;
	}
	return false;
}

void alloc_put(struct alloc *alloc, pbn_t pbn, uint32_t blocks)
{
	refs_set_owed(alloc->refs, geometry_slab(alloc->geometry, pbn), OWED_DUE);
	alloc_put_unwritten(alloc, pbn, blocks);
}

void alloc_put_unwritten(struct alloc *alloc, pbn_t pbn, uint32_t blocks)
{
	for (uint32_t i = 0; i < blocks; i++) {
		pbn_t block = pbn_add(pbn, i);
		struct alloc_window *window = window_of(alloc, block);

		if (window) { /* it stays reserved */
			uint32_t at = (uint32_t)(block.v - window->pbn.v);

			window->handed[at / 64] &= ~(1ull << (at % 64));
			alloc->reserved_blocks++;
		} else {
			refs_busy_sub(alloc->refs, block, 1);
		}
	}
}

bool alloc_pass_over(struct alloc *alloc, page_t page, int res, bool *ret_lost)
{
	uint32_t slab = page - alloc->geometry->regions;

	*ret_lost = false;
	if (res == -ENOSPC) {
		refs_bar(alloc->refs, slab);
		return true;
	}
	if (res != -EUCLEAN && res != -EIO)
		return false;
	/* Another waiter may have had it loaded meanwhile. */
	if (cache_find(alloc->refs->cache, page) == NULL)
		*ret_lost = refs_lose(alloc->refs, slab);
	return true;
}

void alloc_retry(struct alloc *alloc)
{
	refs_unbar(alloc->refs);
}
