/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/format/format.h"
#include "core/metadata/recovery.h"
#include "core/volume/volume.h"

#define ZERO_BLOCKS 256u

static int plan(uint64_t logical_bytes, uint64_t store_bytes, uint32_t ring_blocks,
		struct geometry *g)
{
	if (logical_bytes % BLOCK_BYTES != 0)
		return -EINVAL;
	return geometry_plan(logical_bytes / BLOCK_BYTES, store_bytes / BLOCK_BYTES, ring_blocks,
			     g);
}

/* Data blocks that a volume needs at the most: its blocks, a leaf place for each region. */
static uint64_t data_blocks_for(uint64_t logical_blocks)
{
	return logical_blocks + 2 * div_up(logical_blocks, REGION_BLOCKS);
}

uint64_t volume_store_bytes_for(uint64_t logical_bytes, uint32_t ring_blocks)
{
	uint64_t data = data_blocks_for(div_up(logical_bytes, BLOCK_BYTES));
	uint64_t slabs = div_up(data, SLAB_DATA_BLOCKS);
	uint64_t store_blocks = data + 2 * slabs + SLAB_BLOCKS_MIN;
	struct geometry g;

	/* The metadata before the slabs grows with the store, a little: until it fits. */
	for (int i = 0; i < 64; i++) {
		int r = plan(logical_bytes, store_blocks * BLOCK_BYTES, ring_blocks, &g);

		if (r == -EINVAL)
			return 0;
		if (r == 0 && geometry_data_blocks(&g) >= data)
			return store_blocks * BLOCK_BYTES;
		store_blocks +=
			r == 0 ? data - geometry_data_blocks(&g) + 2 : 64 + store_blocks / 64;
	}
	return 0;
}

uint64_t volume_logical_bytes_for(uint64_t store_bytes, uint32_t ring_blocks)
{
	uint64_t low = 0, high = store_bytes / BLOCK_BYTES;

	if (high > VOLUME_LOGICAL_BYTES_MAX / BLOCK_BYTES)
		high = VOLUME_LOGICAL_BYTES_MAX / BLOCK_BYTES;
	while (low < high) {
		uint64_t middle = low + (high - low + 1) / 2;
		struct geometry g;

		/* One too small to be planned sends the search up as well. */
		if (middle < VOLUME_LOGICAL_BYTES_MIN / BLOCK_BYTES ||
		    (plan(middle * BLOCK_BYTES, store_bytes, ring_blocks, &g) == 0 &&
		     geometry_data_blocks(&g) >= data_blocks_for(middle)))
			low = middle;
		else
			high = middle - 1;
	}
	return low * BLOCK_BYTES >= VOLUME_LOGICAL_BYTES_MIN ? low * BLOCK_BYTES : 0;
}

uint64_t volume_tracking_bytes(uint64_t logical_bytes)
{
	return blocks_to_bytes(div_up(logical_bytes, AREA_BYTES));
}

static bool is_stopped(const struct volume_format_options *options)
{
	return options->stop != NULL && options->stop();
}

/* All areas closed, nothing ever changed. */
static int write_tracking(struct store *store, const struct volume_format_options *options,
			  const struct super *super, uint8_t *buf)
{
	const struct tracking_page page = {.open = false};
	uint32_t areas = geometry_areas(&super->geometry), count;
	int r = 0;

	for (uint32_t first = 0; r == 0 && first < areas; first += count) {
		if (is_stopped(options))
			return -EINTR;
		count = min_u32(ZERO_BLOCKS, areas - first);
		for (uint32_t i = 0; i < count; i++)
			tracking_page_encode(&page, first + i, super->uuid,
					     buf + (size_t)i * BLOCK_BYTES);
		r = recovery_io(store, STORE_WRITE,
				blocks_to_bytes(geometry_tracking_block(&super->geometry, first)),
				buf, blocks_to_bytes(count));
	}
	return r;
}

static int zero(struct store *store, const struct volume_format_options *options, uint64_t block,
		uint64_t blocks, uint8_t *zeros)
{
	int r = 0;

	while (r == 0 && blocks > 0) {
		uint64_t n = min_u64(blocks, ZERO_BLOCKS);

		if (is_stopped(options))
			return -EINTR;
		r = recovery_io(store, STORE_WRITE, blocks_to_bytes(block), zeros,
				blocks_to_bytes(n));
		block += n;
		blocks -= n;
	}
	return r;
}

/* Both superblock copies: A is the newer one. */
static int write_supers(struct store *store, struct super *super)
{
	uint64_t len_bytes = blocks_to_bytes(super->geometry.super_blocks);
	uint32_t *generations = calloc(geometry_tops(&super->geometry), sizeof(uint32_t));
	uint8_t *buf = aligned_alloc(BLOCK_BYTES, len_bytes);
	int r = generations && buf ? 0 : -ENOMEM;

	for (super->checkpoint = 1; r == 0 && super->checkpoint <= 2; super->checkpoint++) {
		uint64_t block = geometry_super_block(&super->geometry, super->checkpoint & 1);

		super_encode(super, generations, buf);
		r = recovery_io(store, STORE_WRITE, blocks_to_bytes(block), buf, len_bytes);
		if (r == 0)
			r = recovery_io(store, STORE_FLUSH, 0, NULL, 0);
	}
	free(generations);
	free(buf);
	return r;
}

int volume_format(struct store *store, const struct volume_format_options *options,
		  struct damage *reterr_damage)
{
	struct super super = {
		.features_incompat = FEATURES_INCOMPAT_KNOWN,
		.epoch = 1,
		.clean = true,
		.tail_lsn = 1,
		.tail_group = 1,
		.log_reaches_lsn = 1,
	};
	uint8_t *zeros;
	int r;

	r = plan(options->logical_bytes, store->size_bytes, options->ring_blocks, &super.geometry);
	if (r == 0 && options->tracking) {
		super.features_ro_compat |= FEATURE_TRACKING;
		super.tracking_generation = 1;
		r = geometry_track(&super.geometry);
	}
	if (r < 0) {
		snprintf(reterr_damage->text, sizeof(reterr_damage->text),
			 r == -ENOSPC ? "the store is too small: %" PRIu64
					" bytes for the metadata of %" PRIu64
				      : "sizes out of range: store %" PRIu64 ", volume %" PRIu64,
			 store->size_bytes, options->logical_bytes);
		return r;
	}
	memcpy(super.uuid, options->uuid, sizeof(super.uuid));
	zeros = aligned_alloc(BLOCK_BYTES, ZERO_BLOCKS * BLOCK_BYTES);
	if (zeros == NULL)
		return -ENOMEM;
	memset(zeros, 0, ZERO_BLOCKS * BLOCK_BYTES);
	/* What was there is gone for good before the new superblocks are valid. */
	r = zero(store, options, 0, super.geometry.data_start, zeros);
	if (r == 0 && options->tracking)
		r = write_tracking(store, options, &super, zeros);
	if (r == 0)
		r = recovery_io(store, STORE_FLUSH, 0, NULL, 0);
	free(zeros);
	if (r == 0)
		r = write_supers(store, &super);
	if (r < 0)
		snprintf(reterr_damage->text, sizeof(reterr_damage->text),
			 "writing the metadata: %s", strerror(-r));
	return r;
}
