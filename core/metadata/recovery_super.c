/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mutant.h"
#include "core/metadata/recovery.h"
#include "core/metadata/metadata.h"

#define SCAN_BLOCKS 256u

struct sync_io {
	struct store_io io;
	bool done;
	int res;
};

static void sync_done(struct store_io *io, int res)
{
	struct sync_io *sync = io->context;

	sync->res = res;
	sync->done = true;
}

int recovery_io(struct store *store, enum store_op op, uint64_t off_bytes, void *buf,
		uint64_t len_bytes)
{
	struct sync_io sync = {
		.io =
			{
				.op = op,
				.off_bytes = off_bytes,
				.len_bytes = len_bytes,
				.buf = buf,
				.done = sync_done,
				.context = &sync,
			},
	};

	store_submit(store, &sync.io);
	while (!sync.done)
		store->ops->wait(store, 0);
	return sync.res;
}

static void describe(struct damage *damage, const char *where, const struct why *why)
{
	snprintf(damage->text, sizeof(damage->text), "%s: expected %s, found %s", where,
		 why->expected, why->found);
}

/* What a head is that cannot be decoded. -ENOTSUP: that of a whole copy of a version we do not
 * know. Where that, whole or not, says that copy B is goes into ret_super. */
static int refuse_head(struct store *store, uint64_t block, const uint8_t *head,
		       struct super *ret_super)
{
	uint64_t store_blocks = store->size_bytes / BLOCK_BYTES, len_bytes;
	struct super_unknown unknown;
	uint8_t *whole;
	int r;

	if (!super_is_unknown(head, &unknown) || unknown.super_blocks > store_blocks - block)
		return -EUCLEAN;
	if (unknown.super_b_start < store_blocks)
		ret_super->geometry.super_b_start = unknown.super_b_start;
	len_bytes = blocks_to_bytes(unknown.super_blocks);
	whole = aligned_alloc(BLOCK_BYTES, len_bytes);
	if (whole == NULL)
		return -ENOMEM;
	r = recovery_io(store, STORE_READ, blocks_to_bytes(block), whole, len_bytes);
	if (r == 0)
		r = super_unknown_whole(whole) ? -ENOTSUP : -EUCLEAN;
	free(whole);
	return r;
}

/* A whole superblock copy at a block; its length is in its head. 0, -EIO..., or -EUCLEAN or
 * -ENOTSUP with why. */
static int read_copy(struct store *store, uint64_t block, unsigned copy, struct super *ret_super,
		     uint32_t **ret_generations, struct why *why)
{
	uint8_t *head = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES), *whole = NULL;
	uint32_t *generations = NULL;
	uint64_t len_bytes;
	int r;

	if (head == NULL)
		return -ENOMEM;
	r = recovery_io(store, STORE_READ, blocks_to_bytes(block), head, BLOCK_BYTES);
	if (r == 0 && !super_decode_head(head, ret_super, why))
		r = refuse_head(store, block, head, ret_super);
	free(head);
	if (r < 0)
		return r;
	len_bytes = blocks_to_bytes(ret_super->geometry.super_blocks);
	if (blocks_to_bytes(block) + len_bytes > store->size_bytes) {
		snprintf(why->expected, sizeof(why->expected), "a superblock of %" PRIu64 " bytes",
			 len_bytes);
		snprintf(why->found, sizeof(why->found), "a store that ends before");
		return -EUCLEAN;
	}
	whole = aligned_alloc(BLOCK_BYTES, len_bytes);
	generations = calloc(geometry_tops(&ret_super->geometry), sizeof(uint32_t));
	r = whole && generations ? 0 : -ENOMEM;
	if (r == 0)
		r = recovery_io(store, STORE_READ, blocks_to_bytes(block), whole, len_bytes);
	if (r == 0 && !super_decode(whole, copy, ret_super, generations, why))
		r = -EUCLEAN;
	free(whole);
	if (r < 0) {
		free(generations);
		return r;
	}
	*ret_generations = generations;
	return 0;
}

/* Where copy B can be at the most, when nothing else is known. */
static uint64_t super_b_limit(const struct store *store)
{
	uint64_t roots = div_up(VOLUME_LOGICAL_BYTES_MAX / REGION_BYTES, ROOT_ENTRIES);
	uint64_t summaries =
		div_up(store->size_bytes / BLOCK_BYTES / SLAB_BLOCKS + 1, SUMMARY_ENTRIES);
	uint64_t limit =
		2 * (roots + summaries) + RING_BLOCKS_MAX + 2 * div_up(roots + summaries, 1024) + 2;

	return min_u64(limit, store->size_bytes / BLOCK_BYTES);
}

/* Copy A's head does not tell where copy B is: look for it. 0 if there is none. */
static uint64_t find_copy_b(struct store *store)
{
	uint64_t limit = super_b_limit(store), found = 0;
	uint8_t *buf = aligned_alloc(BLOCK_BYTES, SCAN_BLOCKS * BLOCK_BYTES);

	for (uint64_t block = 1; buf && found == 0 && block < limit; block += SCAN_BLOCKS) {
		uint32_t blocks = (uint32_t)min_u64(SCAN_BLOCKS, limit - block);
		struct super super;
		struct why why;

		if (recovery_io(store, STORE_READ, blocks_to_bytes(block), buf,
				blocks_to_bytes(blocks)) < 0)
			continue;
		for (uint32_t i = 0; i < blocks && found == 0; i++)
			if (super_decode_head(buf + (size_t)i * BLOCK_BYTES, &super, &why) &&
			    super.geometry.super_b_start == block + i)
				found = block + i;
	}
	free(buf);
	return found;
}

/* block 0: nobody knows where. */
static int read_copy_b(struct store *store, uint64_t block, struct super *ret_super,
		       uint32_t **ret_generations, struct why *why)
{
	if (block == 0 || block >= store->size_bytes / BLOCK_BYTES)
		return -EUCLEAN;
	return read_copy(store, block, 1, ret_super, ret_generations, why);
}

static bool is_version_or_feature(const struct super *super, bool read_only, struct damage *damage)
{
	uint64_t incompat = super->features_incompat & ~FEATURES_INCOMPAT_KNOWN;
	uint64_t ro_compat = super->features_ro_compat & ~FEATURES_RO_COMPAT_KNOWN;

	if (incompat) {
		snprintf(damage->text, sizeof(damage->text),
			 "the store uses incompatible features %#" PRIx64
			 " that this version does not know",
			 incompat);
		return true;
	}
	if (ro_compat && !read_only) {
		snprintf(damage->text, sizeof(damage->text),
			 "the store uses features %#" PRIx64
			 " that this version can only read: open it "
			 "with --read-only",
			 ro_compat);
		return true;
	}
	return false;
}

/* The newer of the valid copies. One of a version that we do not know may be newer than a valid
 * one: then neither is. */
static int choose(struct super super[2], uint32_t *generations[2], const int r[2],
		  const struct why why[2], struct super *ret_super, uint32_t **ret_generations,
		  struct damage *reterr_damage)
{
	int best = -1;

	for (int i = 0; i < 2; i++) {
		if (r[i] != -ENOTSUP)
			continue;
		describe(reterr_damage, i == 0 ? "superblock copy A" : "superblock copy B",
			 &why[i]);
		free(generations[1 - i]);
		return -ENOTSUP;
	}
	for (int i = 0; i < 2; i++)
		if (r[i] == 0 && (best < 0 || super[i].checkpoint > super[best].checkpoint))
			best = i;
	if (best < 0) {
		describe(reterr_damage, "superblock at block 0", &why[0]);
		return r[0] == -EUCLEAN ? -EUCLEAN : r[0];
	}
	free(generations[1 - best]);
	*ret_super = super[best];
	*ret_generations = generations[best];
	return 0;
}

int recovery_read_super(struct store *store, bool read_only, struct super *ret_super,
			uint32_t **ret_generations, struct damage *reterr_damage)
{
	uint32_t *generations[2] = {NULL, NULL};
	struct super super[2] = {0};
	struct why why[2] = {0};
	int r[2], res;

	if (store->size_bytes < BLOCK_BYTES) {
		snprintf(reterr_damage->text, sizeof(reterr_damage->text),
			 "the store has %" PRIu64 " bytes and holds no volume", store->size_bytes);
		return -EUCLEAN;
	}
	r[0] = read_copy(store, 0, 0, &super[0], &generations[0], &why[0]);
	r[1] = read_copy_b(store, super[0].geometry.super_b_start, &super[1], &generations[1],
			   &why[1]);
	if (r[1] == -EUCLEAN && (r[0] == -EUCLEAN || r[0] == -EIO))
		r[1] = read_copy_b(store, find_copy_b(store), &super[1], &generations[1], &why[1]);
	res = choose(super, generations, r, why, ret_super, ret_generations, reterr_damage);
	if (res < 0)
		return res;
	if (is_version_or_feature(ret_super, read_only, reterr_damage)) {
		free(*ret_generations);
		return ret_super->features_incompat & ~FEATURES_INCOMPAT_KNOWN ? -ENOTSUP : -EROFS;
	}
	if (blocks_to_bytes(ret_super->geometry.store_blocks) > store->size_bytes) {
		snprintf(reterr_damage->text, sizeof(reterr_damage->text),
			 "size of the store: expected at least %" PRIu64 " bytes, found %" PRIu64
			 " (truncated?)",
			 blocks_to_bytes(ret_super->geometry.store_blocks), store->size_bytes);
		free(*ret_generations);
		return -EUCLEAN;
	}
	return 0;
}

static int read_root(struct metadata *metadata, uint32_t number, const uint8_t *page, uint64_t lsn,
		     struct damage *damage)
{
	uint32_t first = number * ROOT_ENTRIES;
	struct why why;

	metadata->map.tops[number].lsn = lsn;
	for (uint32_t i = 0; i < ROOT_ENTRIES && first + i < metadata->super.geometry.regions;
	     i++) {
		struct root_words words = root_page_get(page, i);
		struct root_entry entry = root_entry_decode(words);
		char where[64];

		if ((words.map | words.home) ==
		    0) /* a hole that never was anything else: most, where it counts */
			continue;
		if (!root_entry_valid(&entry, &metadata->super.geometry, first + i, &why) ||
		    !features_suffice(metadata->super.features_incompat,
				      root_entry_features(&entry), &why)) {
			snprintf(where, sizeof(where), "root entry of region %" PRIu32, first + i);
			describe(damage, where, &why);
			return -EUCLEAN;
		}
		map_set_words(&metadata->map, first + i, words);
		metadata->map.unplaced -= MUTANT(95) && root_entry_is_unplaced(&entry);
	}
	return 0;
}

static int read_summary(struct metadata *metadata, uint32_t number, const uint8_t *page,
			struct damage *damage)
{
	uint32_t first = number * SUMMARY_ENTRIES;

	for (uint32_t i = 0; i < SUMMARY_ENTRIES && first + i < metadata->super.geometry.slabs;
	     i++) {
		struct summary_entry entry = {0};

		if (page)
			entry = summary_page_get(page, i);
		if (entry.free_blocks >
		    geometry_slab_blocks(&metadata->super.geometry, first + i)) {
			snprintf(damage->text, sizeof(damage->text),
				 "summary of slab %" PRIu32 ": expected at most %" PRIu32
				 " free blocks, found %" PRIu32,
				 first + i,
				 geometry_slab_blocks(&metadata->super.geometry, first + i),
				 entry.free_blocks);
			return -EUCLEAN;
		}
		refs_set_summary(&metadata->refs, first + i, &entry);
	}
	return 0;
}

static int read_top(struct metadata *metadata, uint32_t top, uint32_t generation, uint8_t *page,
		    struct damage *damage)
{
	const struct geometry *geometry = &metadata->super.geometry;
	bool root = top < geometry->root_pages;
	uint32_t number = root ? top : top - geometry->root_pages;
	struct page_header expected = {root ? PAGE_ROOT : PAGE_SUMMARY, number, generation, 0};
	uint64_t block = geometry_top_block(geometry, top, generation), lsn = 0;
	struct why why;
	char where[64];
	int r;

	if (generation == 0) /* never written */
		return root ? 0 : read_summary(metadata, number, NULL, damage);
	r = recovery_io(metadata->store, STORE_READ, blocks_to_bytes(block), page, BLOCK_BYTES);
	snprintf(where, sizeof(where), "%s page %" PRIu32 " at block %" PRIu64,
		 root ? "root" : "summary", number, block);
	if (r < 0) {
		snprintf(damage->text, sizeof(damage->text), "%s: cannot be read: %s", where,
			 strerror(-r));
		return r;
	}
	if (!page_verify(page, &expected, metadata->super.uuid, &lsn, &why)) {
		describe(damage, where, &why);
		return -EUCLEAN;
	}
	if (root && lsn >= metadata->super.log_reaches_lsn) {
		snprintf(damage->text, sizeof(damage->text),
			 "%s: expected an LSN below %" PRIu64 ", found %" PRIu64, where,
			 metadata->super.log_reaches_lsn, lsn);
		return -EUCLEAN;
	}
	(root ? &metadata->map.tops[number] : &metadata->refs.tops[number])->generation =
		generation;
	return root ? read_root(metadata, number, page, lsn, damage)
		    : read_summary(metadata, number, page, damage);
}

int recovery_read_tops(struct metadata *metadata, const uint32_t *generations,
		       struct damage *reterr_damage)
{
	uint8_t *page = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);
	int r = page ? 0 : -ENOMEM;

	for (uint32_t i = 0; r == 0 && i < geometry_tops(&metadata->super.geometry); i++)
		r = read_top(metadata, i, generations[i], page, reterr_damage);
	free(page);
	return r;
}
