/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_format_tracking - the tracking page, and the superblock's word about it
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/bytes.h"
#include "core/format/format.h"

static const uint8_t uuid[FORMAT_UUID_BYTES] = "sixteen octets..";

static struct tracking_page closed_page(void)
{
	struct tracking_page page = {.open = false};

	for (uint32_t i = 0; i < AREA_REGIONS; i++)
		page.stamps[i] = i * 7 + 1;
	return page;
}

static bool decode(const uint8_t *in, uint32_t area, struct tracking_page *ret_page)
{
	struct why why = {0};
	bool good = tracking_page_decode(in, area, uuid, ret_page, &why);

	cr_assert(good || (why.expected[0] && why.found[0]));
	return good;
}

Test(format_tracking, a_closed_page_keeps_its_stamps_and_an_open_one_has_none)
{
	struct tracking_page page = closed_page(), out;
	uint8_t block[BLOCK_BYTES];

	tracking_page_encode(&page, 5, uuid, block);
	cr_assert(decode(block, 5, &out));
	cr_expect_not(out.open);
	cr_expect_eq(memcmp(out.stamps, page.stamps, sizeof(page.stamps)), 0);
	page.open = true;
	tracking_page_encode(&page, 5, uuid, block);
	cr_assert(decode(block, 5, &out));
	cr_expect(out.open);
	cr_expect_eq(out.stamps[0], 0);
}

Test(format_tracking, a_flipped_bit_anywhere_is_detected)
{
	struct tracking_page page = closed_page(), out;
	uint8_t block[BLOCK_BYTES];

	tracking_page_encode(&page, 5, uuid, block);
	for (uint32_t i = 0; i < BLOCK_BYTES * 8; i++) {
		block[i / 8] ^= (uint8_t)(1u << i % 8);
		cr_assert_not(decode(block, 5, &out), "bit %u", i);
		block[i / 8] ^= (uint8_t)(1u << i % 8);
	}
	cr_assert_not(decode(block, 6, &out), "another area's page");
	memset(block, 0, sizeof(block));
	cr_assert_not(decode(block, 0, &out), "zeros are no page");
}

/* Goal: an old page torn by a new one is neither. */
Test(format_tracking, a_mixture_of_an_open_and_a_closed_page_is_none)
{
	struct tracking_page page = closed_page(), out;
	uint8_t a[BLOCK_BYTES], b[BLOCK_BYTES];

	tracking_page_encode(&page, 0, uuid, a);
	page.open = true;
	tracking_page_encode(&page, 0, uuid, b);
	for (uint32_t sectors = 1; sectors < 5; sectors++) { /* the stamps end in the fifth */
		uint8_t mixed[BLOCK_BYTES];

		memcpy(mixed, a, sizeof(mixed));
		memcpy(mixed, b, sectors * SECTOR_BYTES);
		cr_assert_not(decode(mixed, 0, &out), "%u sectors", sectors);
	}
}

Test(format_tracking, a_state_that_cannot_be_is_refused)
{
	struct page_header header = {.kind = PAGE_TRACKING, .number = 3};
	struct tracking_page out;
	uint8_t block[BLOCK_BYTES] = {0};

	put_le32(block + PAGE_HEADER_BYTES, 3);
	page_seal(block, &header, uuid);
	cr_assert_not(decode(block, 3, &out));
}

/* The example of docs/disk-format.md. */
Test(format_tracking, the_documented_page_is_what_is_written)
{
	static const uint8_t header[] = {0x53, 0x4c, 0x42, 0x70, 5, 0, 1, 0};
	static const uint8_t end[] = {0xdd, 0x92, 0x07, 0x6b, 0xa0, 0xa9, 0xe9, 0xe1, 1, 0,
				      0,    0,	  0,	0,    0,    0,	  9,	0,    0, 0,
				      0,    0,	  0,	0,    4,    0,	  0,	0};
	struct tracking_page page = {.stamps = {9, 0, 4}};
	uint8_t example_uuid[FORMAT_UUID_BYTES], block[BLOCK_BYTES];

	memset(example_uuid, 0x5a, sizeof(example_uuid));
	tracking_page_encode(&page, 0, example_uuid, block);
	cr_expect_eq(memcmp(block, header, sizeof(header)), 0);
	cr_expect_eq(memcmp(block + 56, end, sizeof(end)), 0);
}

/* --- superblock --- */

static struct super tracked(void)
{
	struct super super = {
		.features_ro_compat = FEATURE_TRACKING,
		.checkpoint = 4,
		.epoch = 1,
		.tail_lsn = 1,
		.log_reaches_lsn = 1,
		.tracking_generation = 77,
	};

	memcpy(super.uuid, uuid, sizeof(super.uuid));
	cr_assert_eq(geometry_plan(1300 * REGION_BLOCKS, 8192, 32, &super.geometry), 0);
	cr_assert_eq(geometry_track(&super.geometry), 0);
	return super;
}

static bool decode_super(const uint8_t *in, struct super *ret_super)
{
	uint32_t generations[64];
	struct why why;

	return super_decode(in, 0, ret_super, generations, &why);
}

Test(format_tracking, the_superblock_says_where_the_pages_are)
{
	struct super super = tracked(), out;
	uint32_t generations[64] = {0};
	uint8_t *buf = aligned_alloc(BLOCK_BYTES, super.geometry.super_blocks * BLOCK_BYTES);

	cr_assert(buf);
	cr_expect_eq(geometry_areas(&super.geometry), 3);
	cr_expect_eq(super.geometry.data_start, super.geometry.tracking_start + 3);
	cr_expect_eq(geometry_tracking_block(&super.geometry, 2), super.geometry.data_start - 1);
	super_encode(&super, generations, buf);
	cr_assert(decode_super(buf, &out));
	cr_expect_eq(memcmp(&out, &super, sizeof(out)), 0);
	free(buf);
}

/* Goal: a head that contradicts itself is refused whatever its checksum says. */
Test(format_tracking, feature_pages_and_place_must_agree)
{
	static const uint32_t at[] = {48, 232, 240};
	struct super super = tracked(), out;
	uint32_t generations[64] = {0};
	uint8_t *buf = aligned_alloc(BLOCK_BYTES, super.geometry.super_blocks * BLOCK_BYTES);
	struct why why;

	cr_assert(buf);
	super_encode(&super, generations, buf);
	cr_assert(super_decode_head(buf, &out, &why));
	for (unsigned i = 0; i < 3; i++) {
		buf[at[i]] ^= 1;
		cr_expect_not(super_decode_head(buf, &out, &why), "byte %u", at[i]);
		buf[at[i]] ^= 1;
	}
	free(buf);
}
