/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * image - a small store made by hand, for tests of check
 *
 * A test builds a state in plain arrays, breaks one thing, and writes it all with the encoders of
 * core/format/format.h; or writes first and then breaks bytes. The engine has no part in it.
 *
 *   16 MiB store, 1300 logical blocks: regions 0, 1 and a short 2; slabs 0, 1 and a short 2; a ring
 *   of 32 blocks; one root page, one summary page
 *
 * image_new() is an empty volume. image_fill() puts this on it:
 *
 *   region 0  LINEAR, 100 blocks from data block 10 of slab 0; place at data blocks 0 and 1
 *   region 1  LEAF at place 2, 3: its blocks 0 to 9 read from data blocks 200 to 209, block 20
 *             shares data block 200
 *   region 2  HOLE that has a place, at data blocks 4 and 5
 */
#ifndef TESTS_CLI_CHECK_IMAGE_H
#define TESTS_CLI_CHECK_IMAGE_H

#include "cli/check/check.h"
#include "core/format/format.h"

#define IMAGE_LOGICAL_BLOCKS 1300u
#define IMAGE_STORE_BLOCKS   4096u
#define IMAGE_RING_BLOCKS    32u
#define IMAGE_REGIONS	     3u
#define IMAGE_SLABS	     3u

struct image {
	struct geometry geometry;
	uint8_t *bytes;
	struct super super; /* the newer copy; image_write() puts the older one beside it */
	uint32_t generations[2]; /* of the root page and the summary page */
	uint64_t page_lsn; /* what image_write() puts in every page */
	struct root_entry entries[ROOT_ENTRIES];
	uint64_t words[IMAGE_REGIONS][REGION_BLOCKS];
	struct summary_entry summaries[SUMMARY_ENTRIES];
	uint16_t counts[IMAGE_SLABS][SLAB_DATA_BLOCKS];

	/* The journal's end. */
	struct journal_header header;
	uint8_t block[BLOCK_BYTES];

	/* What check_store() may do. */
	struct check_source source;
	unsigned writes_left; /* then writes are lost, as by a crash */
};

struct image *image_new(void);
struct image *image_new_filled(void);
void image_free(struct image *image);
void image_fill(struct image *image);
/* Counts and summaries as the map has it. */
void image_count(struct image *image);
/* Everything but the ring: from the arrays to the bytes. */
void image_write(struct image *image);

/* Data block i of slab 0. */
pbn_t image_pbn(const struct image *image, uint32_t i);
uint8_t *image_block(struct image *image, uint64_t block);
/* Where each page in force lies. */
uint8_t *image_root(struct image *image);
uint8_t *image_summary(struct image *image);
uint8_t *image_leaf(struct image *image, uint32_t region);
uint8_t *image_refs(struct image *image, uint32_t slab);

/* Appends to the journal: records gather in a ring block that image_seal() writes. */
void image_record(struct image *image, struct record record);
void image_seal(struct image *image, bool last);

#endif
