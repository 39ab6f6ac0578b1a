/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * alloc - hands out physical blocks, near the ones that they will be read with
 *
 * Next-fit over the slabs that have what is asked for (piece.h, refs.h), with reservations: a
 * window of a region (512 blocks for a stream that starts in a hole, else the copy-on-write hint or
 * the size of the write, whichever is more) owns an aligned run of free blocks, and a block of the
 * window gets the block of the run with its own index. Neighbours that are copied one by one end up
 * adjacent, a stream becomes LINEAR. Reservations are memory alone: a crash frees them, and when
 * space is short they are taken back. When no run is left, any free block will do.
 *
 * With homes, a window first tries the place that its blocks would have were the volume laid out in
 * order: a volume that is written at random, a block at a time, then lies in order all the same,
 * however many windows are forgotten meanwhile. It takes what is free there, as long as that is
 * what was asked for. Homes are for volumes whose counts fit into the cache: elsewhere a random
 * first write would have to fetch a page of counts besides its leaf.
 *
 * A slab whose page cannot be loaded, because it is damaged or the backing is full, is passed over:
 * other slabs serve a write as well.
 *
 * What is handed out is busy until it is published (refs_busy_sub by the edit) or put back.
 *
 * Cost      bounded by a constant, whatever the store's size and however its free space lies: one
 *           page of counts for a window besides that of its home, and a few looks at pages that are
 *           at hand.
 * Errors    -EAGAIN: *ret_page has to be loaded first; -ENOSPC: nothing is allocatable now (what is
 *           pending may become so).
 * Threads   the caller holds the metadata lock.
 * Memory    fixed.
 */
#ifndef CORE_METADATA_ALLOC_H
#define CORE_METADATA_ALLOC_H

#include <stdbool.h>
#include <stdint.h>

#include "core/metadata/refs.h"

#define ALLOC_WINDOWS_MAX 128u
#define PLACE_BLOCKS	  2u /* of a leaf */

struct alloc_window {
	uint32_t region;
	uint32_t first; /* index in the region; aligned to blocks */
	uint32_t blocks; /* 0: unused */
	pbn_t pbn; /* of first */
	uint64_t used_at; /* for taking the least recently used */
	uint64_t handed[REGION_BLOCKS / 64]; /* handed out already */
};

struct alloc {
	struct refs *refs;
	const struct geometry *geometry;
	uint32_t cow_hint_blocks;
	uint32_t cursor; /* slab */
	uint32_t at; /* index in that slab, behind the last large run that was taken */
	uint32_t window_count;
	uint32_t reserved_blocks; /* of the windows, not handed out */
	uint64_t now;
	bool homes;
	struct alloc_window windows[ALLOC_WINDOWS_MAX];
};

void alloc_init(struct alloc *alloc, struct refs *refs, const struct geometry *geometry,
		uint32_t cow_hint_blocks, uint32_t window_count);

/* From now on windows go home first, if they can. */
void alloc_use_homes(struct alloc *alloc);

/* Blocks for lbn.. of one region, at least 1, at most blocks. stream: the region is a hole that is
 * being filled from its first block on. */
int alloc_get(struct alloc *alloc, lbn_t lbn, uint32_t blocks, bool stream, pbn_t *ret_pbn,
	      uint32_t *ret_blocks, page_t *ret_page);
/* Two adjacent blocks for a leaf's slots. learns: where none are known, slabs of which nobody knows
 * what they have are read, one at a time. */
int alloc_get_place(struct alloc *alloc, bool learns, pbn_t *ret_place, page_t *ret_page);
/* Where no two neighbours are to be had: two single blocks. */
int alloc_get_split(struct alloc *alloc, pbn_t *ret_place, pbn_t *ret_second, page_t *ret_page);
void alloc_put(struct alloc *alloc, pbn_t pbn, uint32_t blocks);
/* The same of what was not written: the backing is owed nothing for it. */
void alloc_put_unwritten(struct alloc *alloc, pbn_t pbn, uint32_t blocks);

/* A refs page that was asked for could not be loaded, and another slab may do. -ENOSPC: its slab is
 * passed over until alloc_retry(). Damage and read errors: until the page can be loaded after all;
 * *ret_lost says that this is news for the log. False: the error is not about one slab. */
bool alloc_pass_over(struct alloc *alloc, page_t page, int res, bool *ret_lost);
void alloc_retry(struct alloc *alloc);

/* Whether the block is reserved and not handed out. */
bool alloc_keeps(const struct alloc *alloc, pbn_t pbn);
/* Takes reservations in the slab back. */
void alloc_leave(struct alloc *alloc, uint32_t slab);
/* Takes all reservations back. */
void alloc_drop_windows(struct alloc *alloc);

#endif
