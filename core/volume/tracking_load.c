/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mutant.h"
#include "core/metadata/recovery.h"
#include "core/volume/volume_internal.h"

#define CHUNK_PAGES 256u

static uint64_t page_off_bytes(const struct volume *volume, uint32_t area)
{
	return blocks_to_bytes(geometry_tracking_block(&volume->metadata->super.geometry, area));
}

/* A page that cannot be read comes out as zeros, which are no page. */
static void read_pages(struct volume *volume, uint32_t first, uint32_t count, uint8_t *buf)
{
	if (recovery_io(volume->metadata->store, STORE_READ, page_off_bytes(volume, first), buf,
			blocks_to_bytes(count)) == 0)
		return;
	for (uint32_t i = 0; i < count; i++) {
		uint8_t *page = buf + (size_t)i * BLOCK_BYTES;

		if (recovery_io(volume->metadata->store, STORE_READ,
				page_off_bytes(volume, first + i), page, BLOCK_BYTES) < 0)
			memset(page, 0, BLOCK_BYTES);
	}
}

struct replacement {
	struct store_io io;
	struct volume *volume;
	bool done;
	int res;
};

static void replaced(struct store_io *io, int res)
{
	struct replacement *replacement = io->context;
	struct volume *volume = replacement->volume;

	pthread_mutex_lock(&volume->metadata->lock);
	if (!backing_holds(&volume->metadata->backing, io, res)) {
		replacement->res = res;
		replacement->done = true;
	}
	pthread_mutex_unlock(&volume->metadata->lock);
}

/* Written anew at once: what was unreadable now may be readable, and closed, the next time. The
 * checkpoint that ends recovery makes it durable. Like all metadata it may have to wait for space;
 * a volume that was latched meanwhile has let go of it. */
static int replace_page(struct volume *volume, uint32_t area, uint8_t *buf)
{
	const struct tracking_page page = {.open = true};
	struct replacement replacement = {
		.io =
			{
				.op = STORE_WRITE,
				.off_bytes = page_off_bytes(volume, area),
				.len_bytes = BLOCK_BYTES,
				.buf = buf,
				.done = replaced,
				.context = &replacement,
			},
		.volume = volume,
	};

	tracking_page_encode(&page, area, volume->metadata->super.uuid, buf);
	pthread_mutex_lock(&volume->metadata->lock);
	backing_write(&volume->metadata->backing, &replacement.io);
	pthread_mutex_unlock(&volume->metadata->lock);
	while (!replacement.done && !volume_latched(volume))
		metadata_wait_for_store(volume->metadata);
	return replacement.done ? replacement.res : -EIO;
}

static void set_open(struct tracking *tracking, uint32_t area)
{
	atomic_store(&tracking->states[area], AREA_OPEN);
	tracking->open_areas++;
}

/* What one page says goes into the stamps; *newest becomes the highest of them. */
static int take_page(struct volume *volume, uint32_t area, uint8_t *buf, uint32_t *newest)
{
	struct tracking *tracking = &volume->tracking;
	uint32_t first = area * AREA_REGIONS;
	uint32_t count = min_u32(AREA_REGIONS, tracking->regions - first);
	struct tracking_page page;
	struct why why;

	if (!tracking_page_decode(buf, area, volume->metadata->super.uuid, &page, &why)) {
		/* After a crash this is a write that was cut short. */
		if (volume->metadata->super.clean)
			volume_log(volume,
				   "damage: tracking page of area %" PRIu32
				   ": expected %s, found %s; all of the area counts as changed",
				   area, why.expected, why.found);
		set_open(tracking, area);
		return volume->options.read_only ? 0 : replace_page(volume, area, buf);
	}
	if (page.open) {
		set_open(tracking, area);
		return 0;
	}
	for (uint32_t i = 0; i < count; i++) {
		atomic_store(&tracking->stamps[first + i], page.stamps[i]);
		if (page.stamps[i] > *newest)
			*newest = page.stamps[i];
	}
	return 0;
}

static void stamp_area(struct tracking *tracking, uint32_t area)
{
	uint32_t first = area * AREA_REGIONS;
	uint32_t end = min_u32(first + AREA_REGIONS, tracking->regions);

	if (MUTANT(58)) /* what an unclean stop left open is taken for unchanged */
		return;
	for (uint32_t r = first; r < end; r++)
		atomic_store(&tracking->stamps[r], atomic_load(&tracking->generation));
	atomic_store(&tracking->stamped, true);
}

/* A generation beyond all that was answered or stamped. What was open when the volume was last
 * stopped changed in it. */
static void begin_generation(struct volume *volume, uint32_t newest)
{
	struct tracking *tracking = &volume->tracking;

	if (volume->metadata->super.tracking_generation > newest)
		newest = volume->metadata->super.tracking_generation;
	atomic_store(&tracking->generation, newest < TRACKING_LAST ? newest + 1 : TRACKING_LAST);
	tracking->round_generation = atomic_load(&tracking->generation);
	for (uint32_t area = 0; area < tracking->areas; area++)
		if (atomic_load(&tracking->states[area]) == AREA_OPEN)
			stamp_area(tracking, area);
}

int tracking_load(struct volume *volume, struct damage *reterr_damage)
{
	struct tracking *tracking = &volume->tracking;
	uint32_t newest = 0;
	uint8_t *buf;
	int r = 0;

	if (tracking->areas == 0)
		return 0;
	buf = aligned_alloc(BLOCK_BYTES, (size_t)CHUNK_PAGES * BLOCK_BYTES);
	if (buf == NULL)
		return -ENOMEM;
	for (uint32_t first = 0; r == 0 && first < tracking->areas; first += CHUNK_PAGES) {
		uint32_t count = min_u32(CHUNK_PAGES, tracking->areas - first);

		read_pages(volume, first, count, buf);
		for (uint32_t i = 0; r == 0 && i < count; i++)
			r = take_page(volume, first + i, buf + (size_t)i * BLOCK_BYTES, &newest);
	}
	free(buf);
	if (r < 0)
		snprintf(reterr_damage->text, sizeof(reterr_damage->text),
			 "writing a tracking page: %s", strerror(-r));
	else
		begin_generation(volume, newest);
	return r;
}
