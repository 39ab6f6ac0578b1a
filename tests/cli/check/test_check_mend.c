/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_check_mend - repair beside a journal and through a crash, and when it changes nothing
 *
 * That a finding of a given kind is mended is tested where the finding is.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "check_expect.h"

/* Goal: with a journal to be replayed, a mended page is not changed by it again. */
Test(check, counts_are_mended_beside_a_journal)
{
	struct image *image = image_new_filled();

	image->counts[0][500] = 1;
	image->summaries[0].free_blocks--;
	image_write(image);
	image_record(image, map_record(image, 522, 3, 0, 210));
	image_record(image, map_record(image, 525, 1, 0, 213));
	image_seal(image, true);
	expect_mended(image);
	cr_assert_eq(report.replayed_records, 2);
	cr_assert_eq(report.mapped_blocks, 115);
	image_free(image);
}

/* Goal: a mended page has seen the whole journal, so the journal's end must not go unnoticed after.
 */
Test(check, after_counts_were_mended_the_loss_of_the_journals_end_is_found)
{
	struct image *image = image_new_filled();

	image_record(image, map_record(image, 522, 3, 0, 210));
	image_seal(image, true);
	image_refs(image, 0)[100] ^= 1;
	expect_mended(image);
	image_block(image, geometry_ring_block(&image->geometry, 40))[120] ^= 1;
	expect_run(image, false);
	cr_assert_gt(report.findings_total, 0);
	cr_assert(strstr(report.findings[0].where, "journal, from sequence 40"));
	expect_refused(image);
	image_free(image);
}

/* Goal: a crash in the middle of a repair leaves what was there, or the mended store. */
Test(check, a_repair_cut_short_changes_nothing)
{
	for (unsigned writes = 0; writes < 5; writes++) {
		struct image *image = image_new_filled();

		image_refs(image, 0)[100] ^= 1;
		image->writes_left = writes;
		expect_run(image, true);
		if (writes < 3) /* refs page, summary page, superblock */
			expect_one(image, "refs of slab 0", "");
		else
			expect_clean(image);
		image->writes_left = 1000;
		image_free(image);
	}
}

Test(check, repair_refuses_a_damaged_map_with_all_else)
{
	struct image *image = image_new_filled();

	image_leaf(image, 1)[100] ^= 1;
	image->counts[0][500] = 1;
	expect_refused(image);
	image_free(image);
}

Test(check, repair_of_a_clean_store_writes_nothing)
{
	struct image *image = image_new_filled();
	uint8_t *before = malloc((size_t)IMAGE_STORE_BLOCKS * BLOCK_BYTES);

	memcpy(before, image->bytes, (size_t)IMAGE_STORE_BLOCKS * BLOCK_BYTES);
	expect_run(image, true);
	cr_assert_eq(report.findings_total, 0);
	cr_assert_eq(memcmp(before, image->bytes, (size_t)IMAGE_STORE_BLOCKS * BLOCK_BYTES), 0);
	free(before);
	image_free(image);
}
