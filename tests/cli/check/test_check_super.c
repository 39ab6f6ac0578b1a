/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_check_super - which superblock check believes, and what a store must be to be checked at all
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "check_expect.h"
#include "core/base/bytes.h"
#include "core/base/checksum.h"

static uint8_t *super_copy(struct image *image, unsigned copy)
{
	return image_block(image, geometry_super_block(&image->geometry, copy));
}

/* What all superblocks of a volume have in common: magic and version, UUID, geometry, zeros. */
static bool is_common(uint32_t i)
{
	return i < 8 || (i >= 24 && i < 40) || (i >= 64 && i < 136) || (i >= 216 && i < 244) ||
	       (i >= 248 && i < SECTOR_BYTES);
}

/* Goal: a superblock write that a crash cut short leaves the one before it in force. What such a
 * write never changes is not cut short but lost. */
Test(check, a_torn_newer_superblock_is_clean)
{
	struct image *image = image_new_filled();

	image_record(image, map_record(image, 522, 3, 0, 210));
	image_seal(image, true);
	for (uint32_t i = 0; i < image->geometry.super_blocks * BLOCK_BYTES; i += 61) {
		super_copy(image, 1)[i] ^= 1;
		if (is_common(i) && i != 0)
			expect_one(image, "superblock copy B", "redundancy");
		else
			expect_clean(image);
		super_copy(image, 1)[i] ^= 1;
	}
	image_free(image);
}

/* Goal: that one superblock is all that is left is said, also where it is enough. */
Test(check, a_superblock_that_no_crash_leaves_so_is_found)
{
	for (unsigned copy = 0; copy < 2; copy++) {
		struct image *image = image_new_filled();
		size_t len = blocks_to_bytes(image->geometry.super_blocks);
		uint8_t *at = super_copy(image, copy), *whole = malloc(len);

		image->super.clean = true;
		image_write(image);
		memcpy(whole, at, len);
		for (unsigned fill = 0; fill <= 0xff; fill += 0x55) {
			memset(at, (int)fill, len);
			expect_one(image, copy == 0 ? "superblock copy A" : "superblock copy B",
				   "redundancy is lost");
			cr_expect_eq(report.clean_shutdown, copy == 1);
		}
		memcpy(at, whole, len);
		for (unsigned i = 446; i < 446 + 64; i++)
			at[i] ^= 0x11; /* a partition table was written over it */
		expect_one(image, "superblock copy", "redundancy is lost");
		memcpy(at, whole, len);
		memset(at, 0x11, SECTOR_BYTES - 1); /* as a disk may leave a sector */
		expect_clean(image);
		memset(at, 0, len);
		expect_mended(image);
		free(whole);
		image_free(image);
	}
}

Test(check, the_older_superblock_leads_to_the_same_state)
{
	struct image *image = image_new_filled();

	super_copy(image, 0)[200] ^= 1;
	expect_clean(image);
	expect_mended(image);
	image_free(image);
}

Test(check, copy_b_is_found_without_copy_a)
{
	struct image *image = image_new_filled();

	memset(super_copy(image, 0), 0, BLOCK_BYTES);
	expect_one(image, "superblock copy A", "redundancy is lost");
	cr_assert_eq(report.mapped_blocks, 111);
	expect_mended(image);
	image_free(image);
}

Test(check, two_bad_superblocks_are_found)
{
	struct image *image = image_new_filled();

	super_copy(image, 0)[300] ^= 1;
	super_copy(image, 1)[300] ^= 1;
	expect_run(image, true);
	cr_assert_eq(report.findings_total, 2);
	cr_assert_eq(report.repaired_total, 0);
	image_free(image);
}

Test(check, a_superblock_write_that_was_lost_is_found)
{
	struct image *image = image_new_filled();
	struct super old = image->super;

	old.checkpoint -= 3;
	super_encode(&old, image->generations, super_copy(image, 1));
	expect_one(image, "superblock copy B", "5");
	expect_mended(image);
	image_free(image);
}

Test(check, copies_of_two_volumes_are_found)
{
	struct image *image = image_new_filled();
	struct super other = image->super;

	other.checkpoint--;
	other.uuid[3] ^= 1;
	super_encode(&other, image->generations, super_copy(image, 1));
	expect_one(image, "superblock copy B", "another volume");
	image_free(image);
}

/* Goal: what the journal proves to have been durable is missed. The older superblock still leads to
 * the newest state if it replays every group that proves it. */
Test(check, a_superblock_damaged_after_it_was_durable_is_found)
{
	struct image *image = image_new_filled();

	image->header.checkpoint = 9;
	image_record(image, map_record(image, 522, 3, 0, 210));
	image_seal(image, true);
	super_copy(image, 1)[100] ^= 1;
	expect_one(image, "superblock copy B", "checkpoint 8");
	expect_mended(image);
	image_free(image);
}

Test(check, a_superblock_that_began_a_new_epoch_and_is_lost_is_found)
{
	struct image *image = image_new_filled();

	image->header.epoch = 4;
	image_record(image, map_record(image, 522, 3, 0, 210));
	image_seal(image, true);
	super_copy(image, 1)[100] ^= 1;
	expect_one(image, "superblock copy B", "epoch 3");
	expect_refused(image);
	image_free(image);
}

Test(check, a_truncated_store_is_found)
{
	struct image *image = image_new_filled();

	image->source.size_bytes -= BLOCK_BYTES;
	expect_one(image, "size", "4095");
	image->source.size_bytes = 20 * BLOCK_BYTES;
	expect_one(image, "size", "20");
	image->source.size_bytes = BLOCK_BYTES;
	expect_damage(image);
	image_free(image);
}

Test(check, a_foreign_store_is_refused)
{
	struct image *image = image_new();

	memset(image->bytes, 0x77, (size_t)IMAGE_STORE_BLOCKS * BLOCK_BYTES);
	cr_assert_eq(check_store(&image->source, false, &report), -EMEDIUMTYPE);
	memset(image->bytes, 0, (size_t)IMAGE_STORE_BLOCKS * BLOCK_BYTES);
	cr_assert_eq(check_store(&image->source, true, &report), -EMEDIUMTYPE);
	image->source.size_bytes = 100;
	cr_assert_eq(check_store(&image->source, false, &report), -EMEDIUMTYPE);
	image_free(image);
}

Test(check, unknown_features_are_refused)
{
	struct image *image = image_new();

	image->super.features_compat = 1;
	image_write(image);
	expect_clean(image);
	image->super.features_incompat = FEATURES_INCOMPAT_KNOWN + 1;
	image_write(image);
	cr_assert_eq(check_store(&image->source, true, &report), -ENOTSUP);
	image->super.features_incompat = 0;
	image->super.features_ro_compat = 1ull << 63;
	image_write(image);
	cr_assert_eq(check_store(&image->source, true, &report), -ENOTSUP);
	image_free(image);
}

static void put_version(struct image *image, unsigned copy, uint32_t version, bool sealed)
{
	uint8_t *at = super_copy(image, copy);

	put_le32(at + 8, version);
	if (sealed)
		put_le64(at + 16,
			 checksum_around(at, 16, blocks_to_bytes(image->geometry.super_blocks)));
}

/* Goal: a newer program's store is not called damaged, and not mended. */
Test(check, an_unknown_version_is_refused_and_a_bad_copy_is_not_one)
{
	for (unsigned copy = 0; copy < 2; copy++) {
		struct image *image = image_new_filled();

		put_version(image, copy, FORMAT_VERSION + 1, true);
		cr_assert_eq(check_store(&image->source, true, &report), -ENOTSUP);
		put_version(image, copy, FORMAT_VERSION + 1, false);
		super_copy(image, copy)[300] ^= 1;
		expect_clean(image); /* a superblock write that a crash cut short */
		put_version(image, 1 - copy, FORMAT_VERSION + 1, false);
		super_copy(image, 1 - copy)[300] ^= 1;
		expect_run(image, true);
		cr_assert_gt(report.findings_total, 0);
		cr_assert_eq(report.repaired_total, 0);
		cr_assert(strstr(report.findings[0].found, "version 2"));
		check_report_done(&report);
		image_free(image);
	}
}

static int read_fails(void *context, uint64_t off_bytes, void *buf, size_t len_bytes)
{
	struct image *image = context;

	memcpy(buf, image->bytes + off_bytes, len_bytes);
	return image->writes_left-- == 0 ? -EIO : 0;
}

/* Goal: a read error is never taken for a verdict. */
Test(check, a_read_error_at_any_read_is_an_error)
{
	struct image *image = image_new_filled();
	unsigned n = 0;
	int r;

	image->source.read = read_fails;
	do {
		image->writes_left = n++;
		r = check_store(&image->source, false, &report);
		cr_assert(r == -EIO || (r == 0 && report.findings_total == 0));
	} while (r < 0);
	cr_assert_gt(n, 8);
	image_free(image);
}
