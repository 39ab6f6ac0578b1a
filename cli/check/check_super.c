/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * check_super - which superblock counts
 *
 * The newest valid copy. A copy that is invalid is a superblock write that a crash cut short, as
 * long as it looks like one, and nothing in the journal proves that it was durable once; check_log
 * looks for that proof. A copy that is whole and of another version may be the newest: then the
 * store is not understood.
 *
 * Copy A is at block 0. Copy B is where A's head says, or, when that leads nowhere, it is searched:
 * a block that says of itself that it is copy B and stands where its own geometry puts copy B.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/check/check_state.h"

#define SEARCH_CHUNK_BLOCKS 256u
#define SUPER_HEAD_BYTES    248u /* docs/disk-format.md: superblock */
#define LOGICAL_BLOCKS_MOST ((64ull << 40) / BLOCK_BYTES)

struct copy {
	bool valid;
	bool ours; /* it carries our magic */
	bool unknown; /* whole, of a version that this program does not know */
	uint64_t b_block; /* where it says that copy B is; 0: it says nothing */
	struct super super;
	uint32_t *generations;
	struct why why;
};

static const char *copy_name(unsigned copy)
{
	return copy == 0 ? "superblock copy A" : "superblock copy B";
}

/* Decodes the copy whose head is known to be good and to say how long it is. */
static int copy_load_whole(struct check *check, unsigned number, struct copy *copy)
{
	const struct geometry *geometry = &copy->super.geometry;
	uint64_t block = geometry_super_block(geometry, number);
	uint8_t *buf;
	int r;

	if (block + geometry->super_blocks > check->size_blocks) {
		snprintf(copy->why.expected, sizeof(copy->why.expected),
			 "a store of %" PRIu64 " blocks", geometry->store_blocks);
		snprintf(copy->why.found, sizeof(copy->why.found), "%" PRIu64, check->size_blocks);
		return 0;
	}
	buf = malloc((size_t)geometry->super_blocks * BLOCK_BYTES);
	copy->generations = calloc(geometry_tops(geometry), sizeof(*copy->generations));
	if (!buf || !copy->generations) {
		free(buf);
		return -ENOMEM;
	}
	r = check_read(check, block, geometry->super_blocks, buf);
	if (r == 0)
		copy->valid =
			super_decode(buf, number, &copy->super, copy->generations, &copy->why);
	free(buf);
	return r;
}

/* The head is in check->page and cannot be decoded. */
static int copy_load_unknown(struct check *check, uint64_t block, struct copy *copy)
{
	struct super_unknown unknown;
	uint8_t *buf;
	int r;

	if (!super_is_unknown(check->page, &unknown) ||
	    unknown.super_blocks > check->size_blocks - block)
		return 0;
	copy->b_block = unknown.super_b_start;
	buf = malloc((size_t)unknown.super_blocks * BLOCK_BYTES);
	if (!buf)
		return -ENOMEM;
	r = check_read(check, block, unknown.super_blocks, buf);
	copy->unknown = r == 0 && super_unknown_whole(buf);
	free(buf);
	return r;
}

static int copy_load(struct check *check, unsigned number, uint64_t block, struct copy *copy)
{
	int r;

	free(copy->generations);
	memset(copy, 0, sizeof(*copy));
	if (block >= check->size_blocks) {
		snprintf(copy->why.expected, sizeof(copy->why.expected),
			 "a superblock at block %" PRIu64, block);
		snprintf(copy->why.found, sizeof(copy->why.found), "a store of %" PRIu64 " blocks",
			 check->size_blocks);
		return 0;
	}
	r = check_read(check, block, 1, check->page);
	if (r < 0)
		return r;
	copy->ours = super_is_ours(check->page);
	if (!super_decode_head(check->page, &copy->super, &copy->why))
		return copy_load_unknown(check, block, copy);
	copy->b_block = copy->super.geometry.super_b_start;
	if (geometry_super_block(&copy->super.geometry, number) != block) {
		snprintf(copy->why.expected, sizeof(copy->why.expected),
			 "a geometry with this copy at block %" PRIu64, block);
		snprintf(copy->why.found, sizeof(copy->why.found), "block %" PRIu64,
			 geometry_super_block(&copy->super.geometry, number));
		return 0;
	}
	return copy_load_whole(check, number, copy);
}

/* No copy B can stand later than in the largest volume on a store of this size. */
static uint64_t search_end(const struct check *check)
{
	struct geometry g;

	if (check->size_blocks > STORE_BLOCKS_MAX ||
	    geometry_plan(LOGICAL_BLOCKS_MOST, check->size_blocks, RING_BLOCKS_MAX, &g) < 0)
		return check->size_blocks;
	return g.data_start;
}

static int copy_search(struct check *check, struct copy *b)
{
	uint64_t end = search_end(check);
	uint8_t *chunk = malloc(SEARCH_CHUNK_BLOCKS * BLOCK_BYTES);
	struct super super;
	struct why why;
	int r = chunk ? 0 : -ENOMEM;

	for (uint64_t block = 1; r == 0 && block < end && !b->valid; block += SEARCH_CHUNK_BLOCKS) {
		uint32_t blocks = (uint32_t)min_u64(SEARCH_CHUNK_BLOCKS, end - block);

		r = check_read(check, block, blocks, chunk);
		for (uint32_t i = 0; r == 0 && i < blocks && !b->valid; i++) {
			if (super_decode_head(chunk + (size_t)i * BLOCK_BYTES, &super, &why) &&
			    super.geometry.super_b_start == block + i)
				r = copy_load(check, 1, block + i, b);
		}
	}
	free(chunk);
	return r;
}

static int copies_load(struct check *check, struct copy *a, struct copy *b)
{
	bool found_b = false;
	int r;

	r = copy_load(check, 0, 0, a);
	if (r < 0)
		return r;
	if (a->b_block != 0) {
		r = copy_load(check, 1, a->b_block, b);
		found_b = b->valid || b->unknown;
	}
	/* With a good copy A there is nothing to search: where it says is where B belongs. */
	if (r < 0 || a->valid || found_b)
		return r;
	return copy_search(check, b);
}

/* Both are valid: they must be of one volume and come one after the other. */
static void copies_compare(struct check *check, const struct copy *newer, const struct copy *older)
{
	struct check_finding *finding;
	unsigned number = older->super.checkpoint & 1;

	if (memcmp(newer->super.uuid, older->super.uuid, FORMAT_UUID_BYTES) != 0 ||
	    memcmp(&newer->super.geometry, &older->super.geometry, sizeof(newer->super.geometry)) !=
		    0) {
		finding = check_find(check, DAMAGE_MENDS, "%s", copy_name(number));
		snprintf(finding->expected, sizeof(finding->expected),
			 "the UUID and geometry of the newer copy");
		snprintf(finding->found, sizeof(finding->found), "another volume's");
		return;
	}
	if (newer->super.checkpoint - older->super.checkpoint == 1)
		return;
	finding = check_find(check, DAMAGE_MENDS, "%s", copy_name(number));
	snprintf(finding->expected, sizeof(finding->expected), "checkpoint %" PRIu64,
		 newer->super.checkpoint - 1);
	snprintf(finding->found, sizeof(finding->found), "%" PRIu64 ": an older write",
		 older->super.checkpoint);
}

static int copy_choose(struct check *check, struct copy *copy, const struct copy *other)
{
	const struct geometry *geometry = &copy->super.geometry;
	struct check_finding *finding;

	if ((copy->super.features_incompat & ~FEATURES_INCOMPAT_KNOWN) ||
	    (copy->super.features_ro_compat & ~FEATURES_RO_COMPAT_KNOWN))
		return -ENOTSUP;
	if (geometry->store_blocks > check->size_blocks) {
		finding = check_find(check, DAMAGE_FATAL, "the store's size");
		snprintf(finding->expected, sizeof(finding->expected), "%" PRIu64 " blocks",
			 geometry->store_blocks);
		snprintf(finding->found, sizeof(finding->found), "%" PRIu64, check->size_blocks);
		if (!check->salvage)
			return 0;
	}
	check->super = copy->super;
	check->generations = copy->generations;
	copy->generations = NULL;
	check->other_valid = other->valid;
	check->other_why = other->why;
	if (other->valid)
		copies_compare(check, copy, other);
	return 0;
}

/* No copy is whole: the geometry of one, and which volume it is, from its head. */
static int copy_choose_head(struct check *check, const struct copy *copy)
{
	const struct super *super = &copy->super;

	check->generations = calloc(geometry_tops(&super->geometry), sizeof(*check->generations));
	if (!check->generations)
		return -ENOMEM;
	check->super.geometry = super->geometry;
	memcpy(check->super.uuid, super->uuid, FORMAT_UUID_BYTES);
	return 0;
}

static bool copy_has_head(const struct copy *copy)
{
	return copy->super.geometry.store_blocks > 0;
}

int check_super_salvage(struct check *check)
{
	struct copy a = {0}, b = {0};
	int r = check_super_load(check);

	if (r < 0 || check->generations)
		return r;
	r = copies_load(check, &a, &b);
	if (r == 0 && copy_has_head(&a))
		r = copy_choose_head(check, &a);
	else if (r == 0 && copy_has_head(&b))
		r = copy_choose_head(check, &b);
	free(a.generations);
	free(b.generations);
	return r;
}

int check_super_load(struct check *check)
{
	struct copy a = {0}, b = {0};
	int r;

	if (check->size_blocks == 0)
		return -EMEDIUMTYPE;
	r = copies_load(check, &a, &b);
	if (r == 0 && (a.unknown || b.unknown)) {
		r = -ENOTSUP;
	} else if (r == 0 && !a.valid && !b.valid) {
		if (!a.ours && !b.ours)
			r = -EMEDIUMTYPE;
		if (a.ours)
			check_find_why(check, DAMAGE_FATAL, &a.why, "%s", copy_name(0));
		if (b.ours)
			check_find_why(check, DAMAGE_FATAL, &b.why, "%s", copy_name(1));
	} else if (r == 0) {
		if (a.valid && (!b.valid || a.super.checkpoint > b.super.checkpoint))
			r = copy_choose(check, &a, &b);
		else
			r = copy_choose(check, &b, &a);
	}
	free(a.generations);
	free(b.generations);
	return r;
}

/* --- the other copy --- */

static bool is_filled(const uint8_t *bytes, size_t len)
{
	return memcmp(bytes, bytes + 1, len - 1) == 0;
}

static bool is_zeros(const uint8_t *bytes, size_t len)
{
	return bytes[0] == 0 && is_filled(bytes, len);
}

/* It begins with our magic. Its first sector has all the fields: those of the superblock that was
 * being written, or of the one before. */
static bool head_may_be_cut(const struct check *check, const uint8_t *head)
{
	const struct super *newest = &check->super;
	struct super_unknown unknown;
	struct super super;
	struct why why;

	if (super_is_unknown(head, &unknown))
		return true;
	if (!super_decode_head(head, &super, &why))
		return false;
	return memcmp(super.uuid, newest->uuid, FORMAT_UUID_BYTES) == 0 &&
	       memcmp(&super.geometry, &newest->geometry, sizeof(super.geometry)) == 0 &&
	       (super.checkpoint == newest->checkpoint + 1 ||
		super.checkpoint + 1 == newest->checkpoint) &&
	       (newest->features_compat != 0 ||
		is_zeros(head + SUPER_HEAD_BYTES, SECTOR_BYTES - SUPER_HEAD_BYTES));
}

/* The first sector may be anything where a disk does not write sectors as a whole; but not all
 * that is zeros in every superblock becomes something else, and a fill is no half of a write. */
static bool head_may_be_spoilt(const uint8_t *head)
{
	if (is_filled(head, SECTOR_BYTES))
		return false;
	for (size_t at = SECTOR_BYTES; at < BLOCK_BYTES; at += SECTOR_BYTES) {
		if (is_zeros(head + at, SECTOR_BYTES))
			return true;
	}
	return false;
}

int check_super_other(struct check *check)
{
	unsigned number = ~check->super.checkpoint & 1;
	struct check_finding *finding;
	int r;

	if (check->other_valid || check->other_told)
		return 0;
	r = check_read(check, geometry_super_block(&check->super.geometry, number), 1, check->page);
	if (r < 0 || (super_is_ours(check->page) ? head_may_be_cut(check, check->page)
						 : head_may_be_spoilt(check->page)))
		return r;
	finding = check_find(check, DAMAGE_MENDS, "%s", copy_name(number));
	snprintf(finding->expected, sizeof(finding->expected),
		 "a second superblock, whole or cut short by a crash");
	snprintf(finding->found, sizeof(finding->found), "%.60s: redundancy is lost",
		 check->other_why.found);
	return 0;
}
