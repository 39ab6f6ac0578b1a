/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_format_journal - ring blocks and records
 */
#include <criterion/criterion.h>
#include <string.h>

#include "core/base/bytes.h"
#include "core/format/format.h"

static const uint8_t uuid[FORMAT_UUID_BYTES] = {9, 8, 7};
static const struct journal_header sealed = {
	.epoch = 0x0122334455667788,
	.sequence = 0x1122334455667788,
	.first_lsn = 0x2122334455667788,
	.group = 0x3122334455667788,
	.checkpoint = 0x4122334455667788,
	.prev = 0x5122334455667788,
	.count = JOURNAL_RECORDS,
	.last = true,
};

static struct geometry small_geometry(void)
{
	struct geometry g;

	cr_assert_eq(geometry_plan(1300, 8192, 32, &g), 0);
	return g;
}

static struct record map_record(const struct geometry *g)
{
	return (struct record){
		.kind = RECORD_MAP,
		.count = 8,
		.lbn = {100},
		.old = geometry_slab_pbn(g, 0, 50),
		.new = geometry_slab_pbn(g, 1, 70),
	};
}

/* A full block of different records. */
static uint64_t fill(uint8_t *block)
{
	struct geometry g = small_geometry();
	struct record record = map_record(&g);

	for (uint32_t i = 0; i < JOURNAL_RECORDS; i++) {
		record.lbn.v = i;
		record_put(block, i, &record);
	}
	return journal_seal(block, &sealed, uuid);
}

Test(format_journal, what_is_sealed_verifies)
{
	uint8_t block[BLOCK_BYTES];
	struct journal_header header;
	struct record record;
	struct geometry g = small_geometry();
	struct why why;
	uint64_t made = fill(block), checksum;

	cr_assert(journal_verify(block, uuid, &header, &checksum, &why));
	cr_assert_eq(checksum, made);
	cr_assert_eq(header.epoch, sealed.epoch);
	cr_assert_eq(header.sequence, sealed.sequence);
	cr_assert_eq(header.first_lsn, sealed.first_lsn);
	cr_assert_eq(header.group, sealed.group);
	cr_assert_eq(header.checkpoint, sealed.checkpoint);
	cr_assert_eq(header.prev, sealed.prev);
	cr_assert_eq(header.count, sealed.count);
	cr_assert(header.last);
	for (uint32_t i = 0; i < JOURNAL_RECORDS; i++) {
		cr_assert(record_get(block, i, &g, &record, &why));
		cr_assert_eq(record.lbn.v, i);
	}
}

Test(format_journal, a_flipped_bit_anywhere_is_detected)
{
	uint8_t block[BLOCK_BYTES];
	struct journal_header header;
	struct why why;
	uint64_t checksum;

	fill(block);
	for (uint32_t i = 0; i < BLOCK_BYTES * 8; i++) {
		block[i / 8] ^= (uint8_t)(1u << i % 8);
		memset(&why, 0, sizeof(why));
		cr_assert_not(journal_verify(block, uuid, &header, &checksum, &why), "bit %u", i);
		cr_assert(why.expected[0] && why.found[0]);
		block[i / 8] ^= (uint8_t)(1u << i % 8);
	}
	cr_assert(journal_verify(block, uuid, &header, &checksum, &why));
}

Test(format_journal, a_block_of_another_volume_is_detected)
{
	uint8_t block[BLOCK_BYTES], other[FORMAT_UUID_BYTES] = {9, 8, 7, 1};
	struct journal_header header;
	struct why why;
	uint64_t checksum;

	fill(block);
	cr_assert_not(journal_verify(block, other, &header, &checksum, &why));
	cr_assert(strstr(why.found, "UUID"));
}

/* Goal: the checksum names the content: the chain over prev breaks when any block differs. */
Test(format_journal, blocks_that_differ_have_different_checksums)
{
	uint8_t block[BLOCK_BYTES];
	struct journal_header header = sealed;
	uint64_t first = fill(block);

	header.last = false;
	cr_assert_neq(journal_seal(block, &header, uuid), first);
	header = sealed;
	header.prev++;
	cr_assert_neq(journal_seal(block, &header, uuid), first);
	cr_assert_eq(journal_seal(block, &sealed, uuid), first);
}

Test(format_journal, a_record_survives_its_bytes)
{
	struct geometry g = small_geometry();
	struct record record = {
		.kind = RECORD_SHARE,
		.flags = RECORD_ON_ROOT | RECORD_SRC_ON_ROOT,
		.count = 276,
		.lbn = {1024},
		.old = geometry_slab_pbn(&g, 0, 3),
		.new = geometry_slab_pbn(&g, 1, 1000),
		.src = {512},
	};
	uint8_t block[BLOCK_BYTES] = {0};
	struct record out;
	struct why why;

	record_put(block, JOURNAL_RECORDS - 1, &record);
	cr_assert(record_get(block, JOURNAL_RECORDS - 1, &g, &out, &why));
	cr_assert_eq(out.kind, record.kind);
	cr_assert_eq(out.flags, record.flags);
	cr_assert_eq(out.count, record.count);
	cr_assert_eq(out.lbn.v, record.lbn.v);
	cr_assert_eq(out.old.v, record.old.v);
	cr_assert_eq(out.new.v, record.new.v);
	cr_assert_eq(out.src.v, record.src.v);
	for (uint32_t i = 0; i < BLOCK_BYTES - JOURNAL_RECORD_BYTES; i++)
		cr_assert_eq(block[i], 0);
}

static bool valid(const struct record *record)
{
	struct geometry g = small_geometry();
	uint8_t block[BLOCK_BYTES] = {0};
	struct record out;
	struct why why = {0};
	bool good;

	record_put(block, 0, record);
	good = record_get(block, 0, &g, &out, &why);
	cr_assert(good || (why.expected[0] && why.found[0]));
	return good;
}

Test(format_journal, a_map_record_out_of_range_is_refused)
{
	struct geometry g = small_geometry();
	const struct record good = map_record(&g);
	struct record bad = good;

	cr_assert(valid(&good));
	bad.count = 0;
	cr_assert_not(valid(&bad));
	bad = good;
	bad.lbn.v = 508; /* over two regions */
	cr_assert_not(valid(&bad));
	bad.lbn.v = 1296; /* over the volume's end */
	cr_assert_not(valid(&bad));
	bad.lbn.v = UINT64_MAX - 4;
	cr_assert_not(valid(&bad));
	bad = good;
	bad.new = PBN_NONE;
	cr_assert_not(valid(&bad));
	bad.new = geometry_slab_pbn(&g, 0, SLAB_DATA_BLOCKS - 4); /* over two slabs */
	cr_assert_not(valid(&bad));
	bad.new.v = UINT64_MAX - 4;
	cr_assert_not(valid(&bad));
	bad = good;
	bad.old.v = g.data_start; /* a refs slot */
	cr_assert_not(valid(&bad));
	bad.old = PBN_NONE;
	cr_assert(valid(&bad));
	bad = good;
	bad.flags = 8;
	cr_assert_not(valid(&bad));
	bad = good;
	bad.kind = (enum record_kind)7;
	cr_assert_not(valid(&bad));
	bad.kind = (enum record_kind)0;
	cr_assert_not(valid(&bad));
}

Test(format_journal, each_kind_of_record_needs_its_blocks)
{
	struct geometry g = small_geometry();
	struct record record = {.kind = RECORD_PLACE, .count = 2, .lbn = {512}};

	cr_assert_not(valid(&record));
	record.new = geometry_slab_pbn(&g, 0, 0);
	cr_assert(valid(&record));
	record.count = 1;
	cr_assert_not(valid(&record));
	record.count = 2;
	record.lbn.v = 513;
	cr_assert_not(valid(&record));

	record = (struct record){.kind = RECORD_UNPLACE, .count = 2, .lbn = {512}};
	cr_assert_not(valid(&record));
	record.old = geometry_slab_pbn(&g, 0, 0);
	cr_assert(valid(&record));

	record = (struct record){.kind = RECORD_EXPLODE, .lbn = {512}};
	cr_assert(valid(&record));
	record.count = 10;
	cr_assert_not(valid(&record));
	record.old = geometry_slab_pbn(&g, 0, 0);
	cr_assert(valid(&record));
	record.count = 0;
	cr_assert_not(valid(&record));

	record = (struct record){.kind = RECORD_UNMAP, .count = 10, .lbn = {520}};
	cr_assert_not(valid(&record));
	record.old = geometry_slab_pbn(&g, 0, 0);
	cr_assert(valid(&record));

	record = (struct record){.kind = RECORD_SHARE, .count = 10, .lbn = {520}, .src = {1290}};
	cr_assert_not(valid(&record));
	record.new = geometry_slab_pbn(&g, 0, 0);
	cr_assert(valid(&record));
	record.src.v++; /* over the volume's end */
	cr_assert_not(valid(&record));
}

/* A place is two blocks of the store; its region may have one of the volume. */
Test(format_journal, a_region_of_one_block_has_a_place_of_two)
{
	struct geometry g;
	uint8_t block[BLOCK_BYTES] = {0};
	struct record record, out;
	struct why why;

	cr_assert_eq(geometry_plan(2 * REGION_BLOCKS + 1, 8192, 32, &g), 0);
	record = (struct record){.kind = RECORD_PLACE,
				 .count = 2,
				 .lbn = {2 * REGION_BLOCKS},
				 .new = geometry_slab_pbn(&g, 0, 0)};
	record_put(block, 0, &record);
	cr_expect(record_get(block, 0, &g, &out, &why));
	record.kind = RECORD_UNPLACE;
	record.old = record.new;
	record.new = PBN_NONE;
	record_put(block, 1, &record);
	cr_expect(record_get(block, 1, &g, &out, &why));
	record.kind = RECORD_UNMAP; /* of its two blocks one is past the end */
	record_put(block, 2, &record);
	cr_expect_not(record_get(block, 2, &g, &out, &why));
}

/* Goal: the pages of a record follow from its blocks; one that its kind has no use for names
 * none. */
Test(format_journal, a_number_that_its_kind_does_not_use_is_refused)
{
	struct geometry g = small_geometry();
	pbn_t block = geometry_slab_pbn(&g, 0, 0), other = geometry_slab_pbn(&g, 1, 8);
	const struct record good[] = {
		{.kind = RECORD_PLACE, .count = 2, .new = block},
		{.kind = RECORD_UNPLACE, .count = 2, .old = block},
		{.kind = RECORD_EXPLODE, .count = 2, .old = block},
		{.kind = RECORD_MAP, .count = 2, .old = block, .new = other},
		{.kind = RECORD_UNMAP, .count = 2, .old = block},
		{.kind = RECORD_SHARE, .count = 2, .old = block, .new = other, .src = {512}},
	};
	const struct {
		bool old, new, src;
	} used[] = {
		[RECORD_PLACE] = {.new = true},
		[RECORD_UNPLACE] = {.old = true},
		[RECORD_EXPLODE] = {.old = true},
		[RECORD_MAP] = {.old = true, .new = true},
		[RECORD_UNMAP] = {.old = true},
		[RECORD_SHARE] = {.old = true, .new = true, .src = true},
	};

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		struct record record = good[i];

		cr_assert(valid(&record));
		record.old = other;
		cr_expect_eq(valid(&record), used[record.kind].old, "old of kind %d", record.kind);
		record = good[i];
		record.new = other;
		cr_expect_eq(valid(&record), used[record.kind].new, "new of kind %d", record.kind);
		record = good[i];
		record.src.v = 600;
		cr_expect_eq(valid(&record), used[record.kind].src, "src of kind %d", record.kind);
	}
}

/* Goal: nothing that a block can hold makes the decoder read outside or assert. */
Test(format_journal, any_bytes_are_a_record_or_refused)
{
	struct geometry g = small_geometry();
	uint8_t block[BLOCK_BYTES];
	uint64_t state = 88172645463325252ull;
	struct record record;
	struct why why;

	for (unsigned round = 0; round < 200; round++) {
		for (uint32_t i = 0; i < BLOCK_BYTES; i += 8) {
			state ^= state << 13;
			state ^= state >> 7;
			state ^= state << 17;
			/* Small numbers, so that some are nearly right. */
			put_le64(block + i, round % 2 ? state : state >> 56);
		}
		for (uint32_t i = 0; i < JOURNAL_RECORDS; i++) {
			if (!record_get(block, i, &g, &record, &why))
				continue;
			cr_assert_leq(record.count, REGION_BLOCKS);
			cr_assert_leq(record.lbn.v + record.count, g.logical_blocks);
		}
	}
}
