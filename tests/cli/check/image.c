/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "image.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int image_read(void *context, uint64_t off_bytes, void *buf, size_t len_bytes)
{
	struct image *image = context;

	assert(off_bytes + len_bytes <= image->source.size_bytes);
	memcpy(buf, image->bytes + off_bytes, len_bytes);
	return 0;
}

static int image_store(void *context, uint64_t off_bytes, const void *buf, size_t len_bytes)
{
	struct image *image = context;

	assert(off_bytes + len_bytes <= image->source.size_bytes);
	if (image->writes_left == 0)
		return 0;
	image->writes_left--;
	memcpy(image->bytes + off_bytes, buf, len_bytes);
	return 0;
}

static int image_flush(void *context)
{
	(void)context;
	return 0;
}

struct image *image_new(void)
{
	struct image *image = calloc(1, sizeof(*image));

	assert(image);
	image->bytes = calloc(IMAGE_STORE_BLOCKS, BLOCK_BYTES);
	assert(image->bytes);
	assert(geometry_plan(IMAGE_LOGICAL_BLOCKS, IMAGE_STORE_BLOCKS, IMAGE_RING_BLOCKS,
			     &image->geometry) == 0);
	assert(image->geometry.regions == IMAGE_REGIONS && image->geometry.slabs == IMAGE_SLABS);
	image->super = (struct super){
		.geometry = image->geometry,
		.checkpoint = 8,
		.epoch = 3,
		.tail_sequence = 40, /* not the ring's first block */
		.tail_lsn = 100,
		.tail_prev = 0x1234,
		.tail_group = 7,
		.log_reaches_lsn = 100,
	};
	memset(image->super.uuid, 0x5a, FORMAT_UUID_BYTES);
	image->page_lsn = 99;
	image->header = (struct journal_header){
		.epoch = 3,
		.sequence = 40,
		.first_lsn = 100,
		.group = 7,
		.checkpoint = 8,
		.prev = 0x1234,
	};
	image->source = (struct check_source){
		.context = image,
		.size_bytes = (uint64_t)IMAGE_STORE_BLOCKS * BLOCK_BYTES,
		.read = image_read,
		.write = image_store,
		.flush = image_flush,
	};
	image->writes_left = 1000;
	image_write(image);
	return image;
}

struct image *image_new_filled(void)
{
	struct image *image = image_new();

	image_fill(image);
	return image;
}

void image_free(struct image *image)
{
	free(image->bytes);
	free(image);
}

pbn_t image_pbn(const struct image *image, uint32_t i)
{
	return geometry_slab_pbn(&image->geometry, 0, i);
}

uint8_t *image_block(struct image *image, uint64_t block)
{
	assert(block < IMAGE_STORE_BLOCKS);
	return image->bytes + block * BLOCK_BYTES;
}

void image_fill(struct image *image)
{
	image->entries[0] = (struct root_entry){
		.kind = REGION_LINEAR,
		.length = 100,
		.base = image_pbn(image, 10),
		.place = image_pbn(image, 0),
	};
	image->entries[1] = (struct root_entry){
		.kind = REGION_LEAF,
		.place = image_pbn(image, 2),
		.generation = 5,
		.written = true,
	};
	image->entries[2] = (struct root_entry){.place = image_pbn(image, 4)};
	for (uint32_t i = 0; i < 10; i++)
		image->words[1][i] = leaf_word(image_pbn(image, 200 + i), i == 0);
	image->words[1][20] = leaf_word(image_pbn(image, 200), true);
	image->generations[0] = 4;
	image->generations[1] = 6;
	image_count(image);
	image_write(image);
}

static void count_block(struct image *image, pbn_t pbn)
{
	uint32_t slab = geometry_slab(&image->geometry, pbn);

	image->counts[slab][geometry_slab_index(&image->geometry, pbn)]++;
}

/* Behind the first one, unless the test says where. */
static pbn_t second_slot(const struct root_entry *entry)
{
	return pbn_is_none(entry->second) ? pbn_add(entry->place, 1) : entry->second;
}

static void count_region(struct image *image, uint32_t region)
{
	const struct root_entry *entry = &image->entries[region];

	if (!pbn_is_none(entry->place)) {
		image->super.places++;
		count_block(image, entry->place);
		count_block(image, second_slot(entry));
	}
	for (uint32_t i = 0; entry->kind == REGION_LINEAR && i < entry->length; i++) {
		image->super.mapped_blocks++;
		count_block(image, pbn_add(entry->base, i));
	}
	for (uint32_t i = 0; entry->kind == REGION_LEAF && i < REGION_BLOCKS; i++) {
		if (image->words[region][i] == 0)
			continue;
		image->super.mapped_blocks++;
		count_block(image, leaf_word_pbn(image->words[region][i]));
	}
}

void image_count(struct image *image)
{
	memset(image->counts, 0, sizeof(image->counts));
	memset(image->summaries, 0, sizeof(image->summaries));
	image->super.mapped_blocks = 0;
	image->super.places = 0;
	for (uint32_t region = 0; region < IMAGE_REGIONS; region++)
		count_region(image, region);
	for (uint32_t slab = 0; slab < IMAGE_SLABS; slab++) {
		uint32_t blocks = geometry_slab_blocks(&image->geometry, slab);
		struct summary_entry *summary = &image->summaries[slab];

		for (uint32_t i = 0; i < blocks; i++) {
			summary->free_blocks += image->counts[slab][i] == 0;
			if (image->counts[slab][i] > 1)
				summary->shared_refs += image->counts[slab][i];
		}
		/* A slab in which nothing was ever used has no refs page at home. */
		if (summary->free_blocks == blocks)
			*summary = (struct summary_entry){0};
		else
			summary->generation = 2 + slab;
	}
}

static void seal(struct image *image, uint8_t *page, enum page_kind kind, uint64_t number,
		 uint32_t generation)
{
	struct page_header header = {kind, number, generation, image->page_lsn};

	page_seal(page, &header, image->super.uuid);
}

uint8_t *image_root(struct image *image)
{
	return image_block(image, geometry_top_block(&image->geometry, 0, image->generations[0]));
}

uint8_t *image_summary(struct image *image)
{
	return image_block(image, geometry_top_block(&image->geometry, 1, image->generations[1]));
}

uint8_t *image_leaf(struct image *image, uint32_t region)
{
	const struct root_entry *entry = &image->entries[region];

	return image_block(image, entry->generation & 1 ? second_slot(entry).v : entry->place.v);
}

uint8_t *image_refs(struct image *image, uint32_t slab)
{
	return image_block(image, geometry_refs_block(&image->geometry, slab,
						      image->summaries[slab].generation));
}

static void write_pages(struct image *image)
{
	for (uint32_t i = 0; i < IMAGE_REGIONS; i++) {
		if (!image->entries[i].written)
			continue;
		for (uint32_t j = 0; j < REGION_BLOCKS; j++)
			leaf_page_put(image_leaf(image, i), j, image->words[i][j]);
		seal(image, image_leaf(image, i), PAGE_LEAF, i, image->entries[i].generation);
	}
	for (uint32_t i = 0; i < IMAGE_SLABS; i++) {
		if (image->summaries[i].generation == 0)
			continue;
		for (uint32_t j = 0; j < SLAB_DATA_BLOCKS; j++)
			refs_page_put(image_refs(image, i), j, image->counts[i][j]);
		seal(image, image_refs(image, i), PAGE_REFS, i, image->summaries[i].generation);
	}
	for (uint32_t i = 0; image->generations[0] && i < ROOT_ENTRIES; i++)
		root_page_put(image_root(image), i, root_entry_encode(&image->entries[i]));
	for (uint32_t i = 0; image->generations[1] && i < SUMMARY_ENTRIES; i++)
		summary_page_put(image_summary(image), i, &image->summaries[i]);
	if (image->generations[0])
		seal(image, image_root(image), PAGE_ROOT, 0, image->generations[0]);
	if (image->generations[1])
		seal(image, image_summary(image), PAGE_SUMMARY, 0, image->generations[1]);
}

void image_write(struct image *image)
{
	struct super older = image->super;

	write_pages(image);
	older.checkpoint--;
	older.clean = false;
	super_encode(
		&older, image->generations,
		image_block(image, geometry_super_block(&image->geometry, older.checkpoint & 1)));
	super_encode(&image->super, image->generations,
		     image_block(image, geometry_super_block(&image->geometry,
							     image->super.checkpoint & 1)));
}

void image_record(struct image *image, struct record record)
{
	record_put(image->block, image->header.count++, &record);
}

void image_seal(struct image *image, bool last)
{
	struct journal_header *header = &image->header;

	header->last = last;
	header->prev = journal_seal(image->block, header, image->super.uuid);
	memcpy(image_block(image, geometry_ring_block(&image->geometry, header->sequence)),
	       image->block, BLOCK_BYTES);
	memset(image->block, 0, BLOCK_BYTES);
	header->first_lsn += header->count;
	header->count = 0;
	header->sequence++;
	header->group += last;
}
