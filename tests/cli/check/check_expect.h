/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * check_expect - what a test expects check to say about an image; the last report stays in `report`
 */
#ifndef TESTS_CLI_CHECK_CHECK_EXPECT_H
#define TESTS_CLI_CHECK_CHECK_EXPECT_H

#include "image.h"

extern struct check_report report;

/* Runs check; that it runs is asserted, its verdict not. */
void expect_run(struct image *image, bool repair);
void expect_clean(struct image *image);
/* Exactly one finding, about this, with this in what was found. */
void expect_one(struct image *image, const char *where, const char *found);
void expect_damage(struct image *image);
/* Everything found is mended, and afterwards the store is clean. */
void expect_mended(struct image *image);
/* Something is found, nothing is mended, and no byte changes. */
void expect_refused(struct image *image);

/* Records; old and new are data blocks of slab 0. old 0: holes were there. */
struct record map_record(const struct image *image, uint64_t lbn, uint32_t count, uint32_t old,
			 uint32_t new);
struct record unmap_record(const struct image *image, uint64_t lbn, uint32_t count, uint32_t old);
struct record share_record(const struct image *image, uint64_t lbn, uint32_t count, uint32_t new,
			   uint64_t src);

#endif
