/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * space - the data blocks of a store and their counts, without an engine around them
 *
 * For tests of what hands blocks out and takes them back: refs over a cache whose pages were never
 * written, on a store_mem. Slabs are full but for the last. Blocks of a slab are named by their
 * index.
 *
 * Threads   one. Functions of core/ that want the metadata lock are called with space.lock held.
 */
#ifndef TESTS_CORE_METADATA_SPACE_H
#define TESTS_CORE_METADATA_SPACE_H

#include <pthread.h>

#include "core/metadata/refs.h"
#include "tests/lib/store_mem.h"

/* 201 regions, the last one of 100 blocks. */
#define SPACE_LAST_REGION	 200u
#define SPACE_LAST_REGION_BLOCKS 100u

struct space {
	struct super super;
	const struct geometry *geometry;
	struct store_mem mem;
	pthread_mutex_t lock;
	struct worker worker;
	struct cache cache;
	struct refs refs;
};

/* No refs page is resident yet. last_blocks: 8 or more */
void space_init(struct space *space, uint32_t slabs, uint32_t last_blocks);
void space_done(struct space *space);

/* The refs page becomes resident, all counts 0. */
void space_load(struct space *space, page_t page);
void space_load_all(struct space *space);

pbn_t space_block(const struct space *space, uint32_t slab, uint32_t index);

/* As the edit does that maps what was handed out: a reference, and busy no more. */
void space_publish(struct space *space, pbn_t pbn, uint32_t blocks);

#endif
