/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/lib/content.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "core/base/bytes.h"

#define MAGIC	0x214d495353414d45ull
#define SUM_AT	(SECTOR_BYTES - 8)
#define FILL_AT 24

static const uint8_t zero_sector[SECTOR_BYTES];

void content_fill(uint32_t id, unsigned index, uint8_t *sector)
{
	uint64_t x = ((uint64_t)id << 8 | index) * 0x9e3779b97f4a7c15ull;

	if (id == CONTENT_ZERO) {
		memset(sector, 0, SECTOR_BYTES);
		return;
	}
	assert(id < CONTENT_INTERNED);
	put_le64(sector, MAGIC);
	put_le64(sector + 8, id);
	put_le64(sector + 16, index);
	for (unsigned i = FILL_AT; i < SUM_AT; i += 8) {
		x = (x ^ (x >> 29)) * 0xbf58476d1ce4e5b9ull;
		put_le64(sector + i, x);
	}
	put_le64(sector + SUM_AT, XXH3_64bits(sector, SUM_AT));
}

bool content_is_ours(const uint8_t *sector)
{
	return get_le64(sector) == MAGIC;
}

bool content_is_zero(const uint8_t *sector)
{
	return get_le64(sector) == 0 && memcmp(sector, zero_sector, SECTOR_BYTES) == 0;
}

void contents_clear(struct contents *contents)
{
	free(contents->sectors);
	*contents = (struct contents){0};
}

static uint32_t find(const struct contents *contents, const uint8_t *sector)
{
	for (uint32_t i = 0; i < contents->count; i++)
		if (memcmp(contents->sectors + (size_t)i * SECTOR_BYTES, sector, SECTOR_BYTES) == 0)
			return i;
	return UINT32_MAX;
}

uint32_t contents_intern(struct contents *contents, const uint8_t *sector, unsigned index)
{
	uint32_t id = contents_identify(contents, sector, index);

	if (id != CONTENT_GARBAGE)
		return id;
	if (contents->count == contents->capacity) {
		contents->capacity = contents->capacity * 2 + 64;
		contents->sectors =
			realloc(contents->sectors, (size_t)contents->capacity * SECTOR_BYTES);
		assert(contents->sectors != NULL);
	}
	memcpy(contents->sectors + (size_t)contents->count * SECTOR_BYTES, sector, SECTOR_BYTES);
	return CONTENT_INTERNED + contents->count++;
}

void contents_get(const struct contents *contents, uint32_t id, unsigned index, uint8_t *sector)
{
	if (id < CONTENT_INTERNED) {
		content_fill(id, index, sector);
		return;
	}
	assert(id - CONTENT_INTERNED < contents->count);
	memcpy(sector, contents->sectors + (size_t)(id - CONTENT_INTERNED) * SECTOR_BYTES,
	       SECTOR_BYTES);
}

uint32_t contents_identify(const struct contents *contents, const uint8_t *sector, unsigned index)
{
	uint64_t id = get_le64(sector + 8);
	uint32_t at;

	if (content_is_zero(sector))
		return CONTENT_ZERO;
	if (content_is_ours(sector) && get_le64(sector + 16) == index && id < CONTENT_INTERNED &&
	    get_le64(sector + SUM_AT) == XXH3_64bits(sector, SUM_AT))
		return (uint32_t)id;
	at = find(contents, sector);
	return at == UINT32_MAX ? CONTENT_GARBAGE : CONTENT_INTERNED + at;
}
