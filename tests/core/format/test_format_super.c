/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_format_super - what was put in comes out, and no flipped bit passes
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/bytes.h"
#include "core/format/format.h"

#define TOPS_MAX 4096u

struct fixture {
	struct super super;
	uint32_t generations[TOPS_MAX];
	uint8_t *bytes;
	size_t len_bytes;
};

/* More than 1024 tops, so that the generations take two blocks. */
static struct fixture fixture_new(void)
{
	struct fixture f = {0};

	cr_assert_eq(geometry_plan(1ull << 28, 1ull << 20, 0, &f.super.geometry), 0);
	cr_assert_leq(geometry_tops(&f.super.geometry), TOPS_MAX);
	cr_assert_eq(f.super.geometry.super_blocks, 4);
	for (unsigned i = 0; i < FORMAT_UUID_BYTES; i++)
		f.super.uuid[i] = (uint8_t)(0xa0 + i);
	f.super.features_compat = 0xf00f;
	f.super.checkpoint = 0x1122334455667788;
	f.super.epoch = 0x2122334455667788;
	f.super.clean = true;
	f.super.tail_sequence = 0x3122334455667788;
	f.super.tail_lsn = 0x4122334455667788;
	f.super.tail_prev = 0x5122334455667788;
	f.super.tail_group = 0x6122334455667788;
	f.super.mapped_blocks = 0x7122334455667788;
	f.super.places = 0x8122334455667788;
	f.super.log_reaches_lsn = 0x5922334455667788;
	for (uint32_t i = 0; i < geometry_tops(&f.super.geometry); i++)
		f.generations[i] = 0xff000000 + i;
	f.len_bytes = (size_t)f.super.geometry.super_blocks * BLOCK_BYTES;
	f.bytes = malloc(f.len_bytes);
	super_encode(&f.super, f.generations, f.bytes);
	return f;
}

Test(format_super, what_is_encoded_is_decoded)
{
	struct fixture f = fixture_new();
	uint32_t generations[TOPS_MAX] = {0};
	struct super super;
	struct why why;

	cr_assert(super_is_ours(f.bytes));
	cr_assert(super_decode(f.bytes, 0, &super, generations, &why));
	cr_assert_eq(memcmp(&super.geometry, &f.super.geometry, sizeof(super.geometry)), 0);
	cr_assert_eq(memcmp(super.uuid, f.super.uuid, FORMAT_UUID_BYTES), 0);
	cr_assert_eq(super.features_incompat, 0);
	cr_assert_eq(super.features_ro_compat, 0);
	cr_assert_eq(super.features_compat, f.super.features_compat);
	cr_assert_eq(super.checkpoint, f.super.checkpoint);
	cr_assert_eq(super.epoch, f.super.epoch);
	cr_assert(super.clean);
	cr_assert_eq(super.tail_sequence, f.super.tail_sequence);
	cr_assert_eq(super.tail_lsn, f.super.tail_lsn);
	cr_assert_eq(super.tail_prev, f.super.tail_prev);
	cr_assert_eq(super.tail_group, f.super.tail_group);
	cr_assert_eq(super.mapped_blocks, f.super.mapped_blocks);
	cr_assert_eq(super.places, f.super.places);
	cr_assert_eq(super.log_reaches_lsn, f.super.log_reaches_lsn);
	cr_assert_eq(memcmp(generations, f.generations, sizeof(generations)), 0);
	free(f.bytes);
}

/* Goal: unknown feature bits come through, for the caller to judge. */
Test(format_super, unknown_features_are_decoded)
{
	struct fixture f = fixture_new();
	struct super super;
	struct why why;

	f.super.features_incompat = 1ull << 63;
	f.super.features_ro_compat = 2;
	super_encode(&f.super, f.generations, f.bytes);
	cr_assert(super_decode(f.bytes, 0, &super, f.generations, &why));
	cr_assert_eq(super.features_incompat, 1ull << 63);
	cr_assert_eq(super.features_ro_compat, 2);
	free(f.bytes);
}

Test(format_super, a_flipped_bit_anywhere_is_detected)
{
	struct fixture f = fixture_new();
	uint32_t generations[TOPS_MAX];
	struct super super;
	struct why why;

	for (size_t i = 0; i < f.len_bytes; i++) {
		uint8_t bit = (uint8_t)(1u << i % 8);

		f.bytes[i] ^= bit;
		memset(&why, 0, sizeof(why));
		cr_assert_not(super_decode(f.bytes, 0, &super, generations, &why), "byte %zu", i);
		cr_assert(why.expected[0] && why.found[0]);
		f.bytes[i] ^= bit;
	}
	cr_assert(super_decode(f.bytes, 0, &super, generations, &why));
	free(f.bytes);
}

Test(format_super, a_copy_in_the_others_place_is_detected)
{
	struct fixture f = fixture_new();
	struct super super;
	struct why why;

	cr_assert_not(super_decode(f.bytes, 1, &super, f.generations, &why));
	f.super.checkpoint++;
	super_encode(&f.super, f.generations, f.bytes);
	cr_assert_not(super_decode(f.bytes, 0, &super, f.generations, &why));
	cr_assert(super_decode(f.bytes, 1, &super, f.generations, &why));
	free(f.bytes);
}

/* Goal: sectors of two superblocks never pass for one. */
Test(format_super, a_torn_write_is_detected)
{
	struct fixture f = fixture_new();
	uint8_t *torn = malloc(f.len_bytes), *newer = malloc(f.len_bytes);
	size_t sectors = f.len_bytes / SECTOR_BYTES;
	struct super super;
	struct why why;

	f.super.checkpoint += 2;
	for (uint32_t i = 0; i < geometry_tops(&f.super.geometry); i++)
		f.generations[i]++;
	super_encode(&f.super, f.generations, newer);
	for (size_t keep = 1; keep < sectors; keep++) {
		/* What lies after the generations is zeros in both. */
		if (keep * SECTOR_BYTES >= BLOCK_BYTES + 4ul * geometry_tops(&f.super.geometry))
			break;
		memcpy(torn, newer, keep * SECTOR_BYTES);
		memcpy(torn + keep * SECTOR_BYTES, f.bytes + keep * SECTOR_BYTES,
		       f.len_bytes - keep * SECTOR_BYTES);
		cr_assert_not(super_decode(torn, 0, &super, f.generations, &why), "sector %zu",
			      keep);
		memcpy(torn, f.bytes, keep * SECTOR_BYTES);
		memcpy(torn + keep * SECTOR_BYTES, newer + keep * SECTOR_BYTES,
		       f.len_bytes - keep * SECTOR_BYTES);
		cr_assert_not(super_decode(torn, 0, &super, f.generations, &why), "sector %zu",
			      keep);
	}
	free(torn);
	free(newer);
	free(f.bytes);
}

/* Goal: the head alone says how long the whole is, and nothing that it says is taken on trust. */
Test(format_super, a_head_with_an_impossible_geometry_is_refused)
{
	struct fixture f = fixture_new();
	struct super super;
	struct why why;

	cr_assert(super_decode_head(f.bytes, &super, &why));
	cr_assert_eq(super.geometry.super_blocks, f.super.geometry.super_blocks);
	for (uint32_t at = 64; at < 136; at += 4) {
		uint32_t value = get_le32(f.bytes + at);

		put_le32(f.bytes + at, value ^ 0x80000001);
		cr_assert_not(super_decode_head(f.bytes, &super, &why), "byte %u", at);
		put_le32(f.bytes + at, value);
	}
	free(f.bytes);
}

static bool decodes(struct fixture *f, const struct super *super)
{
	uint32_t generations[TOPS_MAX];
	struct super out;
	struct why why = {0};
	bool good;

	super_encode(super, f->generations, f->bytes);
	good = super_decode(f->bytes, super->checkpoint & 1, &out, generations, &why);
	cr_assert(good || (why.expected[0] && why.found[0]));
	return good;
}

/* Goal: what counts on from there does not wrap. */
Test(format_super, a_counter_that_cannot_have_come_so_far_is_refused)
{
	struct fixture f = fixture_new();
	struct super bad = f.super;
	uint64_t *counters[] = {&bad.checkpoint, &bad.epoch, &bad.tail_sequence, &bad.tail_group,
				&bad.log_reaches_lsn};

	for (unsigned i = 0; i < sizeof(counters) / sizeof(counters[0]); i++) {
		bad = f.super;
		*counters[i] = INT64_MAX;
		cr_expect(decodes(&f, &bad), "counter %u", i);
		*counters[i] = 1ull << 63;
		cr_expect_not(decodes(&f, &bad), "counter %u", i);
	}
	free(f.bytes);
}

Test(format_super, the_logs_tail_is_not_behind_its_end)
{
	struct fixture f = fixture_new();
	struct super super = f.super;

	super.log_reaches_lsn = super.tail_lsn;
	cr_expect(decodes(&f, &super));
	super.log_reaches_lsn--;
	cr_expect_not(decodes(&f, &super));
	super.tail_lsn = 1;
	cr_expect(decodes(&f, &super));
	super.tail_lsn = 0;
	cr_expect_not(decodes(&f, &super));
	free(f.bytes);
}

Test(format_super, another_version_is_ours_but_refused)
{
	struct fixture f = fixture_new();
	struct super super;
	struct why why;

	put_le32(f.bytes + 8, FORMAT_VERSION + 1);
	cr_assert(super_is_ours(f.bytes));
	cr_assert_not(super_decode_head(f.bytes, &super, &why));
	cr_assert(strstr(why.found, "version 2"));
	free(f.bytes);
}

Test(format_super, zeros_and_foreign_blocks_are_not_ours)
{
	uint8_t block[BLOCK_BYTES] = {0};
	struct super super;
	struct why why;

	cr_assert_not(super_is_ours(block));
	cr_assert_not(super_decode_head(block, &super, &why));
	memset(block, 0xff, sizeof(block));
	cr_assert_not(super_is_ours(block));
	cr_assert_not(super_decode_head(block, &super, &why));
}
