/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/metadata/slabset.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

static uint32_t words_for(uint32_t bits)
{
	return bits / 64 + (bits % 64 > 0);
}

int slabset_init(struct slabset *set, uint32_t slabs)
{
	uint32_t words = slabs;

	*set = (struct slabset){.slabs = slabs};
	do {
		words = words_for(words);
		assert(set->levels < SLABSET_LEVELS);
		set->words[set->levels] = calloc(words, sizeof(uint64_t));
		if (set->words[set->levels++] == NULL)
			return -ENOMEM;
	} while (words > 1);
	return 0;
}

void slabset_done(struct slabset *set)
{
	for (uint32_t i = 0; i < set->levels; i++)
		free(set->words[i]);
}

void slabset_add(struct slabset *set, uint32_t slab)
{
	assert(slab < set->slabs);
	for (uint32_t i = 0; i < set->levels; i++, slab /= 64) {
		uint64_t *word = &set->words[i][slab / 64], before = *word;

		*word |= 1ull << (slab % 64);
		if (before != 0)
			break;
	}
}

void slabset_remove(struct slabset *set, uint32_t slab)
{
	assert(slab < set->slabs);
	for (uint32_t i = 0; i < set->levels; i++, slab /= 64) {
		uint64_t *word = &set->words[i][slab / 64];

		*word &= ~(1ull << (slab % 64));
		if (*word != 0)
			break;
	}
}

uint32_t slabset_next(const struct slabset *set, uint32_t from)
{
	uint32_t bits = set->slabs;

	for (uint32_t i = 0; i < set->levels && from < bits; i++) {
		uint64_t word = set->words[i][from / 64] >> (from % 64);

		if (word == 0) { /* behind this word, if the level above knows of any */
			from = from / 64 + 1;
			bits = words_for(bits);
			continue;
		}
		from += (uint32_t)__builtin_ctzll(word);
		while (i-- > 0)
			from = from * 64 + (uint32_t)__builtin_ctzll(set->words[i][from]);
		return from;
	}
	return SLABSET_NONE;
}
