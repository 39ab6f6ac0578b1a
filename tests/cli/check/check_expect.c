/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "check_expect.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

struct check_report report;

void expect_run(struct image *image, bool repair)
{
	check_report_done(&report);
	cr_assert_eq(check_store(&image->source, repair, &report), 0);
}

void expect_clean(struct image *image)
{
	expect_run(image, false);
	cr_assert_eq(report.findings_total, 0, "%s: expected %s, found %s",
		     report.findings[0].where, report.findings[0].expected,
		     report.findings[0].found);
}

/* Exactly one finding, about this, with this in what was found. */
void expect_one(struct image *image, const char *where, const char *found)
{
	expect_run(image, false);
	cr_assert_eq(report.findings_total, 1, "%lu findings, the first %s: expected %s, found %s",
		     (unsigned long)report.findings_total,
		     report.findings_total ? report.findings[0].where : "",
		     report.findings_total ? report.findings[0].expected : "",
		     report.findings_total ? report.findings[0].found : "");
	cr_assert(strstr(report.findings[0].where, where), "where: %s", report.findings[0].where);
	cr_assert(strstr(report.findings[0].found, found), "found: %s", report.findings[0].found);
	cr_assert_not(report.findings[0].repaired);
}

void expect_damage(struct image *image)
{
	expect_run(image, false);
	cr_assert_gt(report.findings_total, 0);
}

void expect_mended(struct image *image)
{
	expect_run(image, true);
	cr_assert_gt(report.findings_total, 0);
	cr_assert_eq(report.repaired_total, report.findings_total, "not mended: %s: %s",
		     report.findings[0].where, report.findings[0].found);
	expect_clean(image);
}

void expect_refused(struct image *image)
{
	uint8_t *before = malloc((size_t)IMAGE_STORE_BLOCKS * BLOCK_BYTES);

	cr_assert(before);
	memcpy(before, image->bytes, (size_t)IMAGE_STORE_BLOCKS * BLOCK_BYTES);
	expect_run(image, true);
	cr_assert_gt(report.findings_total, 0);
	cr_assert_eq(report.repaired_total, 0);
	cr_assert_eq(memcmp(before, image->bytes, (size_t)IMAGE_STORE_BLOCKS * BLOCK_BYTES), 0);
	free(before);
}

struct record map_record(const struct image *image, uint64_t lbn, uint32_t count, uint32_t old,
			 uint32_t new)
{
	return (struct record){
		.kind = RECORD_MAP,
		.count = count,
		.lbn = {lbn},
		.old = old ? image_pbn(image, old) : PBN_NONE,
		.new = image_pbn(image, new),
	};
}

struct record unmap_record(const struct image *image, uint64_t lbn, uint32_t count, uint32_t old)
{
	return (struct record){
		.kind = RECORD_UNMAP,
		.count = count,
		.lbn = {lbn},
		.old = image_pbn(image, old),
	};
}

struct record share_record(const struct image *image, uint64_t lbn, uint32_t count, uint32_t new,
			   uint64_t src)
{
	return (struct record){
		.kind = RECORD_SHARE,
		.count = count,
		.lbn = {lbn},
		.new = image_pbn(image, new),
		.src = {src},
	};
}
