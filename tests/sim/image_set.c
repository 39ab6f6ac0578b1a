/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/sim/image_set.h"

#include <assert.h>
#include <stdlib.h>

#define CAPACITY_MIN 65536u

void image_set_init(struct image_set *set)
{
	set->capacity = CAPACITY_MIN;
	set->count = 0;
	set->entries = calloc(set->capacity, sizeof(set->entries[0]));
	assert(set->entries != NULL);
}

void image_set_done(struct image_set *set)
{
	free(set->entries);
}

static struct image_entry *find(const struct image_set *set, struct sim_hash hash)
{
	uint64_t i = hash.low & (set->capacity - 1);

	while (set->entries[i].stamp != 0 &&
	       (set->entries[i].hash.low != hash.low || set->entries[i].hash.high != hash.high))
		i = (i + 1) & (set->capacity - 1);
	return &set->entries[i];
}

static void grow(struct image_set *set)
{
	struct image_set old = *set;

	set->capacity *= 2;
	set->entries = calloc(set->capacity, sizeof(set->entries[0]));
	assert(set->entries != NULL);
	for (uint64_t i = 0; i < old.capacity; i++)
		if (old.entries[i].stamp != 0)
			*find(set, old.entries[i].hash) = old.entries[i];
	free(old.entries);
}

enum image_seen image_set_add(struct image_set *set, struct sim_hash hash, uint64_t stamp)
{
	struct image_entry *entry;
	bool same;

	assert(stamp != 0);
	if (set->count >= set->capacity / 4 * 3)
		grow(set);
	entry = find(set, hash);
	if (entry->stamp == 0) {
		*entry = (struct image_entry){hash, stamp};
		set->count++;
		return IMAGE_NEW;
	}
	same = entry->stamp == stamp;
	entry->stamp = stamp;
	return same ? IMAGE_SAME : IMAGE_OLDER;
}
