/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * slabset - a set of slabs in which the next one is found in a few steps, however many there are
 *
 * Level 0 has a bit for each slab, each further level a bit for each word of the one below that is
 * not 0. The largest store has half a thousand million slabs: five levels.
 *
 * Errors    -ENOMEM when it is made. Threads: the caller's lock. Memory: a bit for each slab and a
 *           64th more; the system gives it when it is first touched.
 */
#ifndef CORE_METADATA_SLABSET_H
#define CORE_METADATA_SLABSET_H

#include <stdbool.h>
#include <stdint.h>

#define SLABSET_LEVELS 5u
#define SLABSET_NONE   UINT32_MAX

struct slabset {
	uint32_t slabs;
	uint32_t levels;
	uint64_t *words[SLABSET_LEVELS];
};

int slabset_init(struct slabset *set, uint32_t slabs);
void slabset_done(struct slabset *set);

void slabset_add(struct slabset *set, uint32_t slab);
void slabset_remove(struct slabset *set, uint32_t slab);
/* The first one that is not below from, or SLABSET_NONE. */
uint32_t slabset_next(const struct slabset *set, uint32_t from);

static inline bool slabset_has(const struct slabset *set, uint32_t slab)
{
	return set->words[0][slab / 64] >> (slab % 64) & 1;
}

#endif
