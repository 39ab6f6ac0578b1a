/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_format_page - headers, entries of each kind of page, and what is detected
 */
#include <criterion/criterion.h>
#include <string.h>

#include "core/format/format.h"

static const uint8_t uuid[FORMAT_UUID_BYTES] = {1, 2,  3,  4,  5,  6,  7,  8,
						9, 10, 11, 12, 13, 14, 15, 16};
static const struct page_header sealed = {
	.kind = PAGE_LEAF,
	.number = 0x1234567,
	.generation = 0x7654321,
	.lsn = 0x1122334455667788,
};

static void seal(uint8_t *page)
{
	for (uint32_t i = 0; i < BLOCK_BYTES; i++)
		page[i] = (uint8_t)(i * 7);
	page_seal(page, &sealed, uuid);
}

static bool verify(const uint8_t *page, struct page_header expected)
{
	struct why why = {0};
	uint64_t lsn = 0;

	if (page_verify(page, &expected, uuid, &lsn, &why)) {
		cr_assert_eq(lsn, sealed.lsn);
		return true;
	}
	cr_assert(why.expected[0] && why.found[0]);
	return false;
}

Test(format_page, a_sealed_page_verifies)
{
	uint8_t page[BLOCK_BYTES];

	seal(page);
	cr_assert(verify(page, sealed));
	/* The body is not touched. */
	for (uint32_t i = PAGE_HEADER_BYTES; i < BLOCK_BYTES; i++)
		cr_assert_eq(page[i], (uint8_t)(i * 7));
}

Test(format_page, a_flipped_bit_anywhere_is_detected)
{
	uint8_t page[BLOCK_BYTES];

	seal(page);
	for (uint32_t i = 0; i < BLOCK_BYTES * 8; i++) {
		page[i / 8] ^= (uint8_t)(1u << i % 8);
		cr_assert_not(verify(page, sealed), "bit %u", i);
		page[i / 8] ^= (uint8_t)(1u << i % 8);
	}
	cr_assert(verify(page, sealed));
}

Test(format_page, a_misdirected_page_is_detected)
{
	uint8_t page[BLOCK_BYTES];
	struct page_header other = sealed;

	seal(page);
	other.number++;
	cr_assert_not(verify(page, other));
	other = sealed;
	other.kind = PAGE_REFS;
	cr_assert_not(verify(page, other));
}

/* Goal: both slots hold valid pages; only the generation that the parent names is believed. */
Test(format_page, a_stale_or_lost_page_is_detected)
{
	uint8_t page[BLOCK_BYTES];
	struct page_header other = sealed;

	seal(page);
	other.generation += 2;
	cr_assert_not(verify(page, other));
	other.generation = sealed.generation - 2;
	cr_assert_not(verify(page, other));
}

Test(format_page, a_page_of_another_volume_is_detected)
{
	uint8_t page[BLOCK_BYTES], other[FORMAT_UUID_BYTES];
	struct why why;
	uint64_t lsn;

	seal(page);
	memcpy(other, uuid, sizeof(other));
	other[15]++;
	cr_assert_not(page_verify(page, &sealed, other, &lsn, &why));
	cr_assert(strstr(why.found, "UUID"));
}

Test(format_page, zeros_are_no_page)
{
	uint8_t page[BLOCK_BYTES] = {0};
	struct why why;
	uint64_t lsn;

	cr_assert_not(page_verify(page, &sealed, uuid, &lsn, &why));
}

/* Goal: a write of which any sectors are missing is detected. */
Test(format_page, a_torn_page_is_detected)
{
	uint8_t old[BLOCK_BYTES], new[BLOCK_BYTES], torn[BLOCK_BYTES];
	struct page_header newer = sealed;

	seal(old);
	memset(new, 0x33, sizeof(new));
	newer.generation += 2;
	page_seal(new, &newer, uuid);
	for (unsigned mask = 1; mask < 255; mask++) {
		for (unsigned sector = 0; sector < 8; sector++)
			memcpy(torn + sector * SECTOR_BYTES,
			       (mask >> sector & 1 ? new : old) + sector * SECTOR_BYTES,
			       SECTOR_BYTES);
		cr_assert_not(verify(torn, sealed), "mask %02x", mask);
		cr_assert_not(verify(torn, newer), "mask %02x", mask);
	}
}

/* --- root entries --- */

static struct geometry small_geometry(void)
{
	struct geometry g;

	cr_assert_eq(geometry_plan(1300, 8192, 32, &g), 0);
	return g;
}

Test(format_page, a_root_entry_survives_its_words)
{
	struct root_entry entries[] = {
		{0},
		{.kind = REGION_LINEAR,
		 .shared = true,
		 .length = 512,
		 .base = {LEAF_PBN_MASK},
		 .place = {LEAF_PBN_MASK},
		 .generation = ROOT_GENERATION_MASK,
		 .written = true},
		{.kind = REGION_LINEAR, .length = 1, .base = {1}, .place = {1}},
		{.kind = REGION_LEAF, .place = {77}, .generation = 3, .written = true},
	};

	for (unsigned i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
		struct root_entry out = root_entry_decode(root_entry_encode(&entries[i]));

		cr_assert_eq(out.kind, entries[i].kind);
		cr_assert_eq(out.shared, entries[i].shared);
		cr_assert_eq(out.length, entries[i].length);
		cr_assert_eq(out.base.v, entries[i].base.v);
		cr_assert_eq(out.place.v, entries[i].place.v);
		cr_assert_eq(out.generation, entries[i].generation);
		cr_assert_eq(out.written, entries[i].written);
	}
}

/* Goal: a reader of the mapping needs one word, the checkpoint changes the other. */
Test(format_page, the_mapping_and_the_home_are_two_words)
{
	struct root_entry entry = {
		.kind = REGION_LINEAR,
		.length = 9,
		.base = {50},
		.place = {60},
	};
	struct root_words before = root_entry_encode(&entry), after;

	entry.generation = 12;
	entry.written = true;
	entry.place.v++;
	after = root_entry_encode(&entry);
	cr_assert_eq(before.map, after.map);
	cr_assert_neq(before.home, after.home);
}

Test(format_page, zeros_are_a_hole_without_a_place)
{
	struct root_entry entry = root_entry_decode((struct root_words){0});
	struct geometry g = small_geometry();
	struct why why;

	cr_assert_eq(entry.kind, REGION_HOLE);
	cr_assert(pbn_is_none(entry.place));
	cr_assert_not(entry.written);
	cr_assert(root_entry_valid(&entry, &g, 0, &why));
}

static void expect_invalid(const struct root_entry *entry, uint32_t region)
{
	struct geometry g = small_geometry();
	struct why why = {0};

	cr_assert_not(root_entry_valid(entry, &g, region, &why));
	cr_assert(why.expected[0] && why.found[0]);
}

Test(format_page, a_root_entry_that_cannot_be_is_invalid)
{
	struct geometry g = small_geometry();
	const struct root_entry good = {
		.kind = REGION_LINEAR,
		.length = 100,
		.base = geometry_slab_pbn(&g, 1, 0),
		.place = geometry_slab_pbn(&g, 0, 0),
		.second = geometry_slab_pbn(&g, 0, 1),
	};
	struct root_entry bad = good;
	struct why why;

	cr_assert(root_entry_valid(&good, &g, 0, &why));
	bad.kind = (enum region_kind)3;
	expect_invalid(&bad, 0);
	bad = good;
	bad.place = PBN_NONE; /* it needs none yet */
	cr_assert(root_entry_valid(&bad, &g, 0, &why));
	bad = (struct root_entry){.kind = REGION_LEAF};
	expect_invalid(&bad, 0);
	bad = (struct root_entry){.kind = REGION_HOLE, .written = true};
	expect_invalid(&bad, 0);
	bad.place = good.place;
	bad.second = good.second;
	cr_assert(root_entry_valid(&bad, &g, 0, &why));
	bad = good;
	bad.length = 0;
	expect_invalid(&bad, 0);
	bad.length = 513;
	expect_invalid(&bad, 0);
	bad.length = 277; /* the last region has 276 blocks */
	expect_invalid(&bad, 2);
	bad.length = 276;
	cr_assert(root_entry_valid(&bad, &g, 2, &why));
	bad = good;
	bad.base.v--; /* a refs slot */
	expect_invalid(&bad, 0);
	bad = good;
	bad.base = geometry_slab_pbn(&g, 0, SLAB_DATA_BLOCKS - 50); /* over two slabs */
	expect_invalid(&bad, 0);
	bad = good;
	bad.base.v = g.store_blocks - 10;
	expect_invalid(&bad, 0);
	bad = good;
	bad.place =
		geometry_slab_pbn(&g, 0, SLAB_DATA_BLOCKS - 1); /* its second block is no data */
	bad.second = pbn_add(bad.place, 1);
	expect_invalid(&bad, 0);
	bad.place = (pbn_t){1};
	expect_invalid(&bad, 0);
	bad = good;
	bad.kind = REGION_LEAF; /* with a run */
	expect_invalid(&bad, 0);
	bad = (struct root_entry){.kind = REGION_LEAF, .place = good.place, .second = good.place};
	expect_invalid(&bad, 0); /* one block twice */
	bad.second = (pbn_t){1};
	expect_invalid(&bad, 0);
	bad = (struct root_entry){.kind = REGION_HOLE, .shared = true};
	expect_invalid(&bad, 0);
}

/* --- entries of pages --- */

/* Goal: each entry has bytes of its own, all behind the header. */
Test(format_page, entries_of_a_page_do_not_overlap)
{
	static uint8_t page[BLOCK_BYTES + 8];

	memset(page, 0, sizeof(page));
	for (uint32_t i = 0; i < ROOT_ENTRIES; i++)
		root_page_put(page, i, (struct root_words){~0ull - i, i});
	for (uint32_t i = 0; i < ROOT_ENTRIES; i++) {
		cr_assert_eq(root_page_get(page, i).map, ~0ull - i);
		cr_assert_eq(root_page_get(page, i).home, i);
	}
	memset(page, 0, sizeof(page));
	for (uint32_t i = 0; i < SUMMARY_ENTRIES; i++)
		summary_page_put(
			page, i,
			&(struct summary_entry){~0u - i, i, ~0u - 2 * i, (uint8_t)i, i % 4});
	for (uint32_t i = 0; i < SUMMARY_ENTRIES; i++) {
		cr_assert_eq(summary_page_get(page, i).generation, ~0u - i);
		cr_assert_eq(summary_page_get(page, i).free_blocks, i);
		cr_assert_eq(summary_page_get(page, i).shared_refs, ~0u - 2 * i);
		cr_assert_eq(summary_page_get(page, i).piece, (uint8_t)i);
	}
	memset(page, 0, sizeof(page));
	for (uint32_t i = 0; i < REGION_BLOCKS; i++)
		leaf_page_put(page, i, LEAF_KNOWN_BITS - i);
	for (uint32_t i = 0; i < REGION_BLOCKS; i++)
		cr_assert_eq(leaf_page_get(page, i), LEAF_KNOWN_BITS - i);
	memset(page, 0, sizeof(page));
	for (uint32_t i = 0; i < SLAB_DATA_BLOCKS; i++)
		refs_page_put(page, i, (uint16_t)(REFS_MAX - i));
	for (uint32_t i = 0; i < SLAB_DATA_BLOCKS; i++)
		cr_assert_eq(refs_page_get(page, i), REFS_MAX - i);
	for (uint32_t i = 0; i < PAGE_HEADER_BYTES; i++)
		cr_assert_eq(page[i], 0);
	for (uint32_t i = BLOCK_BYTES; i < sizeof(page); i++)
		cr_assert_eq(page[i], 0);
}

Test(format_page, a_leaf_word_keeps_block_and_flag_apart)
{
	uint64_t word = leaf_word((pbn_t){LEAF_PBN_MASK}, true);

	cr_assert_eq(leaf_word_pbn(word).v, LEAF_PBN_MASK);
	cr_assert(word & LEAF_MAYBE_SHARED);
	word = leaf_word((pbn_t){LEAF_PBN_MASK}, false);
	cr_assert_eq(leaf_word_pbn(word).v, LEAF_PBN_MASK);
	cr_assert_not(word & LEAF_MAYBE_SHARED);
	cr_assert(pbn_is_none(leaf_word_pbn(0)));
}

Test(format_page, a_leaf_may_have_its_second_slot_anywhere)
{
	struct geometry g = small_geometry();
	const struct root_entry entry = {
		.kind = REGION_LEAF,
		.place = {44},
		.second = {300},
		.generation = 5,
		.written = true,
	};
	struct root_words words = root_entry_encode(&entry);
	struct root_entry back = root_entry_decode(words);
	struct why why;

	cr_expect_eq(words.map, 0x001000000000012c);
	cr_expect_eq(words.home, 0x800005000000002c);
	cr_expect(back.place.v == 44 && back.second.v == 300 && pbn_is_none(back.base));
	cr_expect(root_entry_is_split(&back) && root_entry_valid(&back, &g, 1, &why));
	cr_expect(root_entry_slot(&back, 4).v == 44 && root_entry_slot(&back, 5).v == 300);
}
