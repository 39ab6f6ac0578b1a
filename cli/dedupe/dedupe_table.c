/* SPDX-License-Identifier: GPL-2.0-or-later */
/* dedupe_table - see the header */
#include "cli/dedupe/dedupe_table.h"

#include <assert.h>
#include <errno.h>
#include <sys/mman.h>

#define BUCKET_SLOTS 8u
#define BUCKET_BYTES (BUCKET_SLOTS * DEDUPE_TABLE_SLOT_BYTES)
#define BLOCK_BITS   40
#define TAG_MASK     0xffffffull

static_assert(DEDUPE_SAMPLE_BITS_MAX <= 24, "the sample is chosen by the tag");

int dedupe_table_init(struct dedupe_table *table, uint64_t bytes)
{
	uint64_t buckets = bytes / BUCKET_BYTES;
	void *slots;

	assert(bytes >= DEDUPE_TABLE_BYTES_MIN);
	/* More could not be named, and holds more blocks than a volume has. */
	if (buckets > UINT32_MAX)
		buckets = UINT32_MAX;
	/* Pages that no entry needs are never touched. */
	slots = mmap(NULL, buckets * BUCKET_BYTES, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (slots == MAP_FAILED)
		return -errno;
	*table = (struct dedupe_table){.slots = slots, .bucket_count = buckets};
	return 0;
}

void dedupe_table_done(struct dedupe_table *table)
{
	if (table->slots != NULL)
		munmap(table->slots, table->bucket_count * BUCKET_BYTES);
	table->slots = NULL;
}

/* --- slots --- */

static uint64_t slot_of(struct dedupe_hash hash, uint64_t block)
{
	assert(block < DEDUPE_BLOCKS_MAX);
	return (hash.low & TAG_MASK) << BLOCK_BITS | (block + 1);
}

static uint64_t slot_tag(uint64_t slot)
{
	return slot >> BLOCK_BITS;
}

static uint64_t slot_block(uint64_t slot)
{
	return (slot & ((1ull << BLOCK_BITS) - 1)) - 1;
}

/* A number below the bucket count, from the upper bits of x. */
static uint64_t scale(uint64_t x, uint64_t bucket_count)
{
	return (x >> 32) * bucket_count >> 32;
}

/* The two buckets depend on bits that the tag does not have. */
static uint64_t *bucket_of(const struct dedupe_table *table, struct dedupe_hash hash, int which)
{
	uint64_t x = which == 0 ? hash.high : hash.high * 0x9e3779b97f4a7c15ull ^ hash.low >> 24;

	return table->slots + BUCKET_SLOTS * scale(x, table->bucket_count);
}

static uint64_t *find_slot(const struct dedupe_table *table, struct dedupe_hash hash)
{
	uint64_t tag = hash.low & TAG_MASK;

	for (int which = 0; which < 2; which++) {
		uint64_t *bucket = bucket_of(table, hash, which);

		for (unsigned i = 0; i < BUCKET_SLOTS && bucket[i] != 0; i++)
			if (slot_tag(bucket[i]) == tag)
				return &bucket[i];
	}
	return NULL;
}

/* Entries of a bucket have no gaps between them. */
static unsigned bucket_used(const uint64_t *bucket)
{
	unsigned used = 0;

	while (used < BUCKET_SLOTS && bucket[used] != 0)
		used++;
	return used;
}

/* --- the sample --- */

static void thin_bucket(struct dedupe_table *table, uint64_t *bucket)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < BUCKET_SLOTS && bucket[i] != 0; i++) {
		uint64_t slot = bucket[i];

		bucket[i] = 0;
		if ((slot_tag(slot) & ((1ull << table->sample_bits) - 1)) == 0)
			bucket[kept++] = slot;
		else
			table->count--;
	}
}

static void thin_out(struct dedupe_table *table)
{
	table->sample_bits++;
	for (uint64_t i = 0; i < table->bucket_count; i++)
		thin_bucket(table, table->slots + i * BUCKET_SLOTS);
}

/* --- entries --- */

bool dedupe_table_find(const struct dedupe_table *table, struct dedupe_hash hash,
		       uint64_t *ret_block)
{
	const uint64_t *slot = find_slot(table, hash);

	if (slot == NULL)
		return false;
	*ret_block = slot_block(*slot);
	return true;
}

void dedupe_table_add(struct dedupe_table *table, struct dedupe_hash hash, uint64_t block)
{
	uint64_t *first = bucket_of(table, hash, 0), *second = bucket_of(table, hash, 1);
	unsigned first_used = bucket_used(first), second_used = bucket_used(second);

	assert(dedupe_table_samples(table, hash));
	if (first_used == BUCKET_SLOTS && second_used == BUCKET_SLOTS) {
		table->left_out++;
		return;
	}
	if (first_used <= second_used)
		first[first_used] = slot_of(hash, block);
	else
		second[second_used] = slot_of(hash, block);
	table->count++;
	if (table->count > table->bucket_count * BUCKET_SLOTS / 8 * 7 &&
	    table->sample_bits < DEDUPE_SAMPLE_BITS_MAX)
		thin_out(table);
}

void dedupe_table_move(struct dedupe_table *table, struct dedupe_hash hash, uint64_t block)
{
	uint64_t *slot = find_slot(table, hash);

	assert(slot != NULL);
	*slot = slot_of(hash, block);
}
