/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/format/format.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/base/bytes.h"
#include "core/base/checksum.h"
#include "core/base/mutant.h"

enum {
	JOURNAL_MAGIC_AT = 0,
	JOURNAL_VERSION_AT = 4,
	JOURNAL_COUNT_AT = 6,
	JOURNAL_UUID_AT = 8,
	JOURNAL_EPOCH_AT = 24,
	JOURNAL_SEQUENCE_AT = 32,
	JOURNAL_LSN_AT = 40,
	JOURNAL_GROUP_AT = 48,
	JOURNAL_CHECKPOINT_AT = 56,
	JOURNAL_PREV_AT = 64,
	JOURNAL_FLAGS_AT = 72,
	JOURNAL_CHECKSUM_AT = 88,
};

enum {
	RECORD_KIND_AT = 0,
	RECORD_FLAGS_AT = 1,
	RECORD_COUNT_AT = 2,
	RECORD_LBN_AT = 8,
	RECORD_OLD_AT = 16,
	RECORD_NEW_AT = 24,
	RECORD_SRC_AT = 32,
};

#define JOURNAL_MAGIC	  0x6a424c53u /* "SLBj" */
#define JOURNAL_FLAG_LAST 1u

_Static_assert(JOURNAL_HEADER_BYTES + JOURNAL_RECORDS * JOURNAL_RECORD_BYTES == BLOCK_BYTES,
	       "a ring block holds whole records");

void record_put(uint8_t *block, uint32_t index, const struct record *record)
{
	uint8_t *at = block + JOURNAL_HEADER_BYTES + index * JOURNAL_RECORD_BYTES;

	assert(index < JOURNAL_RECORDS && record->count <= REGION_BLOCKS);
	memset(at, 0, JOURNAL_RECORD_BYTES);
	at[RECORD_KIND_AT] = (uint8_t)record->kind;
	at[RECORD_FLAGS_AT] = (uint8_t)record->flags;
	put_le16(at + RECORD_COUNT_AT, (uint16_t)record->count);
	put_le64(at + RECORD_LBN_AT, record->lbn.v);
	put_le64(at + RECORD_OLD_AT, record->old.v);
	put_le64(at + RECORD_NEW_AT, record->new.v);
	put_le64(at + RECORD_SRC_AT, record->src.v);
}

static bool logical_run(const struct geometry *geometry, lbn_t lbn, uint32_t count)
{
	return count <= REGION_BLOCKS && lbn.v < geometry->logical_blocks &&
	       count <= geometry->logical_blocks - lbn.v && lbn_index(lbn) + count <= REGION_BLOCKS;
}

static bool physical_run(const struct geometry *geometry, pbn_t pbn, uint32_t count)
{
	if (count == 0 || !geometry_is_data(geometry, pbn) || count > SLAB_DATA_BLOCKS)
		return false;
	return geometry_is_data(geometry, pbn_add(pbn, count - 1)) &&
	       geometry_slab(geometry, pbn) == geometry_slab(geometry, pbn_add(pbn, count - 1));
}

/* What its kind does not use is 0: so the pages of a record follow from its numbers alone. */
static bool unused_are_zero(const struct record *r)
{
	bool has_old = r->kind != RECORD_PLACE;
	bool split = r->flags & RECORD_SPLIT;
	bool has_new = r->kind == RECORD_PLACE || r->kind == RECORD_MAP ||
		       r->kind == RECORD_SHARE || (r->kind == RECORD_EXPLODE && split);

	return (has_old || pbn_is_none(r->old)) && (has_new || pbn_is_none(r->new)) &&
	       (r->kind == RECORD_SHARE || split || r->src.v == 0);
}

/* The blocks of the volume that the record is about. A place is two blocks of the store, for a
 * region that may have one of its own: of that, its first block alone tells where it is. */
static uint32_t logical_count(const struct record *r)
{
	bool place = r->kind == RECORD_PLACE || r->kind == RECORD_UNPLACE;

	return place && !MUTANT(59) ? 1 : r->count;
}

/* Two single blocks, the first of which is given. */
static bool split_valid(const struct record *r, const struct geometry *g, pbn_t first)
{
	return (r->kind == RECORD_EXPLODE || r->kind == RECORD_UNPLACE) &&
	       physical_run(g, first, 1) && physical_run(g, record_second(r), 1) &&
	       first.v != record_second(r).v;
}

static bool record_valid(const struct record *r, const struct geometry *g)
{
	bool split = r->flags & RECORD_SPLIT;
	bool old_ok = pbn_is_none(r->old) || physical_run(g, r->old, r->count);

	if ((r->flags & ~RECORD_FLAGS_KNOWN) || !logical_run(g, r->lbn, logical_count(r)) ||
	    !unused_are_zero(r))
		return false;
	if (split && !split_valid(r, g, r->kind == RECORD_EXPLODE ? r->new : r->old))
		return false;
	switch (r->kind) {
	case RECORD_PLACE:
		return lbn_index(r->lbn) == 0 && r->count == 2 && physical_run(g, r->new, 2);
	case RECORD_UNPLACE:
		return lbn_index(r->lbn) == 0 && r->count == (split ? 1 : 2) &&
		       physical_run(g, r->old, r->count);
	case RECORD_EXPLODE:
		return lbn_index(r->lbn) == 0 && old_ok && (r->count == 0) == pbn_is_none(r->old);
	case RECORD_MAP:
		return r->count > 0 && old_ok && physical_run(g, r->new, r->count);
	case RECORD_UNMAP:
		return r->count > 0 && physical_run(g, r->old, r->count);
	case RECORD_SHARE:
		return r->count > 0 && old_ok && physical_run(g, r->new, r->count) &&
		       logical_run(g, r->src, r->count);
	}
	return false;
}

bool record_get(const uint8_t *block, uint32_t index, const struct geometry *geometry,
		struct record *ret_record, struct why *why)
{
	const uint8_t *at = block + JOURNAL_HEADER_BYTES + index * JOURNAL_RECORD_BYTES;
	struct record r = {
		.kind = (enum record_kind)at[RECORD_KIND_AT],
		.flags = at[RECORD_FLAGS_AT],
		.count = get_le16(at + RECORD_COUNT_AT),
		.lbn = {get_le64(at + RECORD_LBN_AT)},
		.old = {get_le64(at + RECORD_OLD_AT)},
		.new = {get_le64(at + RECORD_NEW_AT)},
		.src = {get_le64(at + RECORD_SRC_AT)},
	};

	assert(index < JOURNAL_RECORDS);
	if (!record_valid(&r, geometry)) {
		snprintf(why->expected, sizeof(why->expected), "a valid journal record");
		snprintf(why->found, sizeof(why->found),
			 "kind %u flags %" PRIx32 " count %" PRIu32 " lbn %" PRIu64 " old %" PRIu64
			 " new %" PRIu64 " src %" PRIu64,
			 r.kind, r.flags, r.count, r.lbn.v, r.old.v, r.new.v, r.src.v);
		return false;
	}
	*ret_record = r;
	return true;
}

uint64_t journal_seal(uint8_t *block, const struct journal_header *header, const uint8_t *uuid)
{
	uint64_t checksum;

	assert(header->count <= JOURNAL_RECORDS);
	memset(block, 0, JOURNAL_HEADER_BYTES);
	put_le32(block + JOURNAL_MAGIC_AT, JOURNAL_MAGIC);
	put_le16(block + JOURNAL_VERSION_AT, FORMAT_VERSION);
	put_le16(block + JOURNAL_COUNT_AT, (uint16_t)header->count);
	memcpy(block + JOURNAL_UUID_AT, uuid, FORMAT_UUID_BYTES);
	put_le64(block + JOURNAL_EPOCH_AT, header->epoch);
	put_le64(block + JOURNAL_SEQUENCE_AT, header->sequence);
	put_le64(block + JOURNAL_LSN_AT, header->first_lsn);
	put_le64(block + JOURNAL_GROUP_AT, header->group);
	put_le64(block + JOURNAL_CHECKPOINT_AT, header->checkpoint);
	put_le64(block + JOURNAL_PREV_AT, header->prev);
	put_le32(block + JOURNAL_FLAGS_AT, header->last ? JOURNAL_FLAG_LAST : 0);
	checksum = checksum_around(block, JOURNAL_CHECKSUM_AT, BLOCK_BYTES);
	put_le64(block + JOURNAL_CHECKSUM_AT, checksum);
	return checksum;
}

bool journal_verify(const uint8_t *block, const uint8_t *uuid, struct journal_header *ret_header,
		    uint64_t *ret_checksum, struct why *why)
{
	uint64_t checksum = get_le64(block + JOURNAL_CHECKSUM_AT);

	if (get_le32(block + JOURNAL_MAGIC_AT) != JOURNAL_MAGIC ||
	    get_le16(block + JOURNAL_VERSION_AT) != FORMAT_VERSION ||
	    get_le16(block + JOURNAL_COUNT_AT) > JOURNAL_RECORDS) {
		snprintf(why->expected, sizeof(why->expected), "a journal block");
		snprintf(why->found, sizeof(why->found), "magic %08" PRIx32,
			 get_le32(block + JOURNAL_MAGIC_AT));
		return false;
	}
	if (memcmp(block + JOURNAL_UUID_AT, uuid, FORMAT_UUID_BYTES) != 0) {
		snprintf(why->expected, sizeof(why->expected), "a journal block of this volume");
		snprintf(why->found, sizeof(why->found), "another volume's UUID");
		return false;
	}
	if (checksum != checksum_around(block, JOURNAL_CHECKSUM_AT, BLOCK_BYTES)) {
		snprintf(why->expected, sizeof(why->expected), "checksum %016" PRIx64,
			 checksum_around(block, JOURNAL_CHECKSUM_AT, BLOCK_BYTES));
		snprintf(why->found, sizeof(why->found), "%016" PRIx64, checksum);
		return false;
	}
	*ret_header = (struct journal_header){
		.epoch = get_le64(block + JOURNAL_EPOCH_AT),
		.sequence = get_le64(block + JOURNAL_SEQUENCE_AT),
		.first_lsn = get_le64(block + JOURNAL_LSN_AT),
		.group = get_le64(block + JOURNAL_GROUP_AT),
		.checkpoint = get_le64(block + JOURNAL_CHECKPOINT_AT),
		.prev = get_le64(block + JOURNAL_PREV_AT),
		.count = get_le16(block + JOURNAL_COUNT_AT),
		.last = get_le32(block + JOURNAL_FLAGS_AT) & JOURNAL_FLAG_LAST,
	};
	*ret_checksum = checksum;
	return true;
}
