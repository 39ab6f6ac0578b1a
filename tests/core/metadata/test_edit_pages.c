/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_edit_pages - which pages a record changes, each of them once
 *
 * They follow from the record and the geometry alone: 300 regions, so that there are two root
 * pages, and some slabs.
 */
#include <criterion/criterion.h>

#include "core/metadata/metadata.h"

#define ROOT	  RECORD_ON_ROOT
#define SRC_ROOT  RECORD_SRC_ON_ROOT
#define BOTH_ROOT (RECORD_ON_ROOT | RECORD_SRC_ON_ROOT)

/* Only its geometry is there. */
static struct metadata wide;

/* Root page n: a number of its own, so that all pages are one kind of number here. */
#define ROOT_PAGE(n) (0x80000000u + (n))

static void expect_pages(const struct record *record, const uint32_t *wanted, uint32_t count)
{
	struct edit_page pages[EDIT_PAGES_MAX];
	uint32_t n = edit_pages(&wide, record, pages);

	cr_assert_eq(n, count, "%u pages, not %u", n, count);
	for (uint32_t i = 0; i < count; i++) {
		uint32_t found = 0;

		for (uint32_t j = 0; j < n; j++)
			found += (pages[j].root ? ROOT_PAGE(pages[j].number) : pages[j].number) ==
				 wanted[i];
		cr_expect_eq(found, 1, "page %x: %u times", wanted[i], found);
	}
}

#define EXPECT_PAGES(record, ...)                                                                  \
	do {                                                                                       \
		const uint32_t wanted[] = {__VA_ARGS__};                                           \
                                                                                                   \
		expect_pages(&(record), wanted, sizeof(wanted) / sizeof(wanted[0]));               \
	} while (0)

static uint32_t refs_of(uint32_t slab)
{
	return page_of_refs(&wide.super.geometry, slab);
}

static pbn_t in_slab(uint32_t slab)
{
	return geometry_slab_pbn(&wide.super.geometry, slab, 50);
}

static struct record in_region_7(enum record_kind kind, uint32_t flags, pbn_t old, pbn_t new)
{
	return (struct record){
		.kind = kind,
		.flags = flags,
		.count = 1,
		.lbn = region_lbn(7),
		.old = old,
		.new = new,
	};
}

static void plan_wide(void)
{
	cr_assert_eq(
		geometry_plan(300ull * REGION_BLOCKS, 5ull * SLAB_BLOCKS, 32, &wide.super.geometry),
		0);
	cr_assert(wide.super.geometry.root_pages == 2 && wide.super.geometry.slabs >= 4);
}

TestSuite(edit_pages, .init = plan_wide);

Test(edit_pages, of_a_place_are_the_root_and_the_refs_page)
{
	struct record record = {.kind = RECORD_PLACE, .count = 2, .new = in_slab(1)};

	EXPECT_PAGES(record, ROOT_PAGE(0), refs_of(1));
	record.lbn = region_lbn(ROOT_ENTRIES);
	EXPECT_PAGES(record, ROOT_PAGE(1), refs_of(1));
	record.lbn = region_lbn(ROOT_ENTRIES - 1);
	EXPECT_PAGES(record, ROOT_PAGE(0), refs_of(1));
	record = (struct record){
		.kind = RECORD_UNPLACE, .count = 2, .lbn = region_lbn(260), .old = in_slab(2)};
	EXPECT_PAGES(record, ROOT_PAGE(1), 260, refs_of(2));
}

/* The counts stay as they are. */
Test(edit_pages, of_an_explosion_are_the_root_and_the_leaf)
{
	struct record record = in_region_7(RECORD_EXPLODE, 0, in_slab(1), PBN_NONE);

	EXPECT_PAGES(record, ROOT_PAGE(0), 7);
}

Test(edit_pages, of_a_map_are_its_mapping_and_both_counts_each_once)
{
	struct record record = in_region_7(RECORD_MAP, 0, in_slab(1), in_slab(2));

	EXPECT_PAGES(record, 7, refs_of(1), refs_of(2));
	record = in_region_7(RECORD_MAP, 0, in_slab(2), in_slab(2));
	EXPECT_PAGES(record, 7, refs_of(2));
	record = in_region_7(RECORD_MAP, 0, PBN_NONE, in_slab(0));
	EXPECT_PAGES(record, 7, refs_of(0));
	record = in_region_7(RECORD_MAP, ROOT, PBN_NONE, in_slab(3));
	record.lbn = region_lbn(270);
	EXPECT_PAGES(record, ROOT_PAGE(1), refs_of(3));
	record = in_region_7(RECORD_UNMAP, 0, in_slab(1), PBN_NONE);
	EXPECT_PAGES(record, 7, refs_of(1));
	record = in_region_7(RECORD_UNMAP, ROOT, in_slab(1), PBN_NONE);
	EXPECT_PAGES(record, ROOT_PAGE(0), refs_of(1));
}

Test(edit_pages, of_a_share_are_both_mappings_and_both_counts)
{
	struct record record = in_region_7(RECORD_SHARE, 0, in_slab(1), in_slab(2));

	record.src = lbn_add(region_lbn(260), 9);
	EXPECT_PAGES(record, 7, 260, refs_of(1), refs_of(2));
	record.flags = ROOT;
	EXPECT_PAGES(record, ROOT_PAGE(0), 260, refs_of(1), refs_of(2));
	record.flags = SRC_ROOT;
	EXPECT_PAGES(record, 7, ROOT_PAGE(1), refs_of(1), refs_of(2));
	record.flags = BOTH_ROOT;
	EXPECT_PAGES(record, ROOT_PAGE(0), ROOT_PAGE(1), refs_of(1), refs_of(2));
	record.src = lbn_add(region_lbn(9), 9);
	EXPECT_PAGES(record, ROOT_PAGE(0), refs_of(1), refs_of(2));
	record = in_region_7(RECORD_SHARE, 0, PBN_NONE, in_slab(2));
	record.src = lbn_add(region_lbn(7), 100);
	EXPECT_PAGES(record, 7, refs_of(2));
}
