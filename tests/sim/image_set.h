/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * image_set - which images were seen, by hash
 *
 * Each image remembers the stamp it was last seen with: when less is allowed than then, it has to
 * be looked at again, though it counts once.
 *
 * Memory    24 bytes an image, open addressing, at most 3/4 full.
 */
#ifndef TESTS_SIM_IMAGE_SET_H
#define TESTS_SIM_IMAGE_SET_H

#include <stdint.h>

#include "tests/lib/store_sim.h"

struct image_entry {
	struct sim_hash hash;
	uint64_t stamp; /* 0: empty */
};

struct image_set {
	struct image_entry *entries;
	uint64_t capacity;
	uint64_t count;
};

enum image_seen {
	IMAGE_NEW,
	IMAGE_OLDER, /* seen, with another stamp */
	IMAGE_SAME,
};

void image_set_init(struct image_set *set);
void image_set_done(struct image_set *set);
/* stamp must not be 0. */
enum image_seen image_set_add(struct image_set *set, struct sim_hash hash, uint64_t stamp);

#endif
