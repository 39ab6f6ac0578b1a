/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/format/format.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/base/bytes.h"
#include "core/base/checksum.h"

/* Offsets in the head block; docs/disk-format.md explains each. */
enum {
	SUPER_MAGIC = 0,
	SUPER_VERSION = 8,
	SUPER_COPY = 12,
	SUPER_CHECKSUM = 16,
	SUPER_UUID = 24,
	SUPER_INCOMPAT = 40,
	SUPER_RO_COMPAT = 48,
	SUPER_COMPAT = 56,
	SUPER_LOGICAL = 64,
	SUPER_STORE = 72,
	SUPER_REGIONS = 80,
	SUPER_SLABS = 84,
	SUPER_ROOT_PAGES = 88,
	SUPER_SUMMARY_PAGES = 92,
	SUPER_BLOCKS = 96,
	SUPER_RING_BLOCKS = 100,
	SUPER_RING_START = 104,
	SUPER_TOPS_START = 112,
	SUPER_B_START = 120,
	SUPER_DATA_START = 128,
	SUPER_CHECKPOINT = 136,
	SUPER_EPOCH = 144,
	SUPER_TAIL_SEQUENCE = 152,
	SUPER_TAIL_LSN = 160,
	SUPER_TAIL_PREV = 168,
	SUPER_TAIL_GROUP = 176,
	SUPER_MAPPED = 184,
	SUPER_PLACES = 192,
	SUPER_CLEAN = 200,
	SUPER_ROOTS = 204,
	SUPER_LOG_REACHES = 208,
	SUPER_TRACKING_START = 232,
	SUPER_TRACKING_PAGES = 240,
	SUPER_TRACKING_GENERATION = 244,
};

static const uint8_t super_magic[8] = {'s', 'a', 'm', 'e', 'b', 'l', 'k', '\n'};

static void geometry_put(uint8_t *out, const struct geometry *g)
{
	put_le64(out + SUPER_LOGICAL, g->logical_blocks);
	put_le64(out + SUPER_STORE, g->store_blocks);
	put_le32(out + SUPER_REGIONS, g->regions);
	put_le32(out + SUPER_SLABS, g->slabs);
	put_le32(out + SUPER_ROOT_PAGES, g->root_pages);
	put_le32(out + SUPER_SUMMARY_PAGES, g->summary_pages);
	put_le32(out + SUPER_BLOCKS, g->super_blocks);
	put_le32(out + SUPER_RING_BLOCKS, g->ring_blocks);
	put_le64(out + SUPER_RING_START, g->ring_start);
	put_le64(out + SUPER_TOPS_START, g->tops_start);
	put_le64(out + SUPER_B_START, g->super_b_start);
	put_le64(out + SUPER_DATA_START, g->data_start);
	put_le64(out + SUPER_TRACKING_START, g->tracking_start);
	put_le32(out + SUPER_TRACKING_PAGES, g->tracking_start != 0 ? geometry_areas(g) : 0);
}

static void geometry_get(const uint8_t *in, struct geometry *g)
{
	g->logical_blocks = get_le64(in + SUPER_LOGICAL);
	g->store_blocks = get_le64(in + SUPER_STORE);
	g->regions = get_le32(in + SUPER_REGIONS);
	g->slabs = get_le32(in + SUPER_SLABS);
	g->root_pages = get_le32(in + SUPER_ROOT_PAGES);
	g->summary_pages = get_le32(in + SUPER_SUMMARY_PAGES);
	g->super_blocks = get_le32(in + SUPER_BLOCKS);
	g->ring_blocks = get_le32(in + SUPER_RING_BLOCKS);
	g->ring_start = get_le64(in + SUPER_RING_START);
	g->tops_start = get_le64(in + SUPER_TOPS_START);
	g->super_b_start = get_le64(in + SUPER_B_START);
	g->data_start = get_le64(in + SUPER_DATA_START);
	g->tracking_start = get_le64(in + SUPER_TRACKING_START);
}

static bool is_tracked(const struct geometry *g)
{
	return g->tracking_start != 0;
}

/* Whether the feature, the pages and the place where they begin say the same. */
static bool tracking_valid(const uint8_t *head, const struct geometry *g)
{
	bool feature = (get_le64(head + SUPER_RO_COMPAT) & FEATURE_TRACKING) != 0;
	uint32_t pages = is_tracked(g) ? geometry_areas(g) : 0;

	return feature == is_tracked(g) && get_le32(head + SUPER_TRACKING_PAGES) == pages;
}

void super_encode(const struct super *super, const uint32_t *generations, uint8_t *out)
{
	size_t len_bytes = (size_t)super->geometry.super_blocks * BLOCK_BYTES;
	uint32_t tops = geometry_tops(&super->geometry);

	assert(geometry_valid(&super->geometry));
	assert(is_tracked(&super->geometry) ==
	       ((super->features_ro_compat & FEATURE_TRACKING) != 0));
	memset(out, 0, len_bytes);
	memcpy(out + SUPER_MAGIC, super_magic, sizeof(super_magic));
	put_le32(out + SUPER_VERSION, FORMAT_VERSION);
	put_le32(out + SUPER_COPY, super->checkpoint & 1);
	memcpy(out + SUPER_UUID, super->uuid, FORMAT_UUID_BYTES);
	put_le64(out + SUPER_INCOMPAT, super->features_incompat);
	put_le64(out + SUPER_RO_COMPAT, super->features_ro_compat);
	put_le64(out + SUPER_COMPAT, super->features_compat);
	geometry_put(out, &super->geometry);
	put_le64(out + SUPER_CHECKPOINT, super->checkpoint);
	put_le64(out + SUPER_EPOCH, super->epoch);
	put_le64(out + SUPER_TAIL_SEQUENCE, super->tail_sequence);
	put_le64(out + SUPER_TAIL_LSN, super->tail_lsn);
	put_le64(out + SUPER_TAIL_PREV, super->tail_prev);
	put_le64(out + SUPER_TAIL_GROUP, super->tail_group);
	put_le64(out + SUPER_MAPPED, super->mapped_blocks);
	put_le64(out + SUPER_PLACES, super->places);
	put_le32(out + SUPER_CLEAN, super->clean);
	put_le32(out + SUPER_ROOTS, 1);
	put_le64(out + SUPER_LOG_REACHES, super->log_reaches_lsn);
	put_le32(out + SUPER_TRACKING_GENERATION, super->tracking_generation);
	for (uint32_t i = 0; i < tops; i++)
		put_le32(out + BLOCK_BYTES + 4ul * i, generations[i]);
	put_le64(out + SUPER_CHECKSUM, checksum_around(out, SUPER_CHECKSUM, len_bytes));
}

bool super_is_ours(const uint8_t *head)
{
	return memcmp(head + SUPER_MAGIC, super_magic, sizeof(super_magic)) == 0;
}

/* Every version has magic, version, checksum, length and copy B's place where this one has them. */
bool super_is_unknown(const uint8_t *head, struct super_unknown *ret_unknown)
{
	ret_unknown->super_blocks = get_le32(head + SUPER_BLOCKS);
	ret_unknown->super_b_start = get_le64(head + SUPER_B_START);
	return super_is_ours(head) && get_le32(head + SUPER_VERSION) != FORMAT_VERSION &&
	       ret_unknown->super_blocks > 0 && ret_unknown->super_blocks <= SUPER_BLOCKS_MAX;
}

bool super_unknown_whole(const uint8_t *in)
{
	struct super_unknown unknown;

	return super_is_unknown(in, &unknown) &&
	       get_le64(in + SUPER_CHECKSUM) ==
		       checksum_around(in, SUPER_CHECKSUM,
				       (size_t)unknown.super_blocks * BLOCK_BYTES);
}

bool super_decode_head(const uint8_t *head, struct super *ret_super, struct why *why)
{
	struct geometry g;

	if (!super_is_ours(head)) {
		snprintf(why->expected, sizeof(why->expected), "the magic of a sameblk store");
		snprintf(why->found, sizeof(why->found), "%02x %02x %02x %02x %02x %02x %02x %02x",
			 head[0], head[1], head[2], head[3], head[4], head[5], head[6], head[7]);
		return false;
	}
	if (get_le32(head + SUPER_VERSION) != FORMAT_VERSION) {
		snprintf(why->expected, sizeof(why->expected), "format version %u", FORMAT_VERSION);
		snprintf(why->found, sizeof(why->found), "version %" PRIu32,
			 get_le32(head + SUPER_VERSION));
		return false;
	}
	geometry_get(head, &g);
	if (!geometry_valid(&g) || !tracking_valid(head, &g)) {
		snprintf(why->expected, sizeof(why->expected), "a consistent geometry");
		snprintf(why->found, sizeof(why->found),
			 "%" PRIu64 " logical and %" PRIu64 " store blocks, ring of %" PRIu32,
			 g.logical_blocks, g.store_blocks, g.ring_blocks);
		return false;
	}
	memset(ret_super, 0, sizeof(*ret_super));
	ret_super->geometry = g;
	memcpy(ret_super->uuid, head + SUPER_UUID, FORMAT_UUID_BYTES);
	ret_super->features_incompat = get_le64(head + SUPER_INCOMPAT);
	ret_super->features_ro_compat = get_le64(head + SUPER_RO_COMPAT);
	ret_super->features_compat = get_le64(head + SUPER_COMPAT);
	ret_super->checkpoint = get_le64(head + SUPER_CHECKPOINT);
	ret_super->epoch = get_le64(head + SUPER_EPOCH);
	ret_super->tail_sequence = get_le64(head + SUPER_TAIL_SEQUENCE);
	ret_super->tail_lsn = get_le64(head + SUPER_TAIL_LSN);
	ret_super->tail_prev = get_le64(head + SUPER_TAIL_PREV);
	ret_super->tail_group = get_le64(head + SUPER_TAIL_GROUP);
	ret_super->mapped_blocks = get_le64(head + SUPER_MAPPED);
	ret_super->places = get_le64(head + SUPER_PLACES);
	ret_super->clean = get_le32(head + SUPER_CLEAN) != 0;
	ret_super->log_reaches_lsn = get_le64(head + SUPER_LOG_REACHES);
	ret_super->tracking_generation = get_le32(head + SUPER_TRACKING_GENERATION);
	return true;
}

/* Numbers that only ever grow, by one at a time. None can be near its end, so what adds to one need
 * not look. */
static bool counters_valid(const struct super *super, struct why *why)
{
	const uint64_t counters[] = {super->checkpoint, super->epoch, super->tail_sequence,
				     super->tail_group, super->log_reaches_lsn};

	for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++) {
		if (counters[i] <= INT64_MAX)
			continue;
		snprintf(why->expected, sizeof(why->expected), "counters below 2^63");
		snprintf(why->found, sizeof(why->found), "%" PRIu64, counters[i]);
		return false;
	}
	if (super->tail_lsn > 0 && super->tail_lsn <= super->log_reaches_lsn)
		return true;
	snprintf(why->expected, sizeof(why->expected), "a tail LSN of 1 to %" PRIu64,
		 super->log_reaches_lsn);
	snprintf(why->found, sizeof(why->found), "%" PRIu64, super->tail_lsn);
	return false;
}

bool super_decode(const uint8_t *in, unsigned copy, struct super *ret_super,
		  uint32_t *ret_generations, struct why *why)
{
	uint64_t stored, computed;
	size_t len_bytes;

	if (!super_decode_head(in, ret_super, why))
		return false;
	len_bytes = (size_t)ret_super->geometry.super_blocks * BLOCK_BYTES;
	stored = get_le64(in + SUPER_CHECKSUM);
	computed = checksum_around(in, SUPER_CHECKSUM, len_bytes);
	if (stored != computed) {
		snprintf(why->expected, sizeof(why->expected), "checksum %016" PRIx64, computed);
		snprintf(why->found, sizeof(why->found), "%016" PRIx64, stored);
		return false;
	}
	if (get_le32(in + SUPER_COPY) != copy || (ret_super->checkpoint & 1) != copy) {
		snprintf(why->expected, sizeof(why->expected), "superblock copy %u", copy);
		snprintf(why->found, sizeof(why->found), "copy %" PRIu32 ", checkpoint %" PRIu64,
			 get_le32(in + SUPER_COPY), ret_super->checkpoint);
		return false;
	}
	if (!counters_valid(ret_super, why))
		return false;
	for (uint32_t i = 0; i < geometry_tops(&ret_super->geometry); i++)
		ret_generations[i] = get_le32(in + BLOCK_BYTES + 4ul * i);
	return true;
}
