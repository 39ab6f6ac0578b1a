/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * salvage - the last resort: what can be read of a store that nothing else opens
 *
 * Reads the volume's content as recovery would leave it, and goes on where recovery and check give
 * up: a bad root page or leaf, a lost superblock, a journal with gaps, a store that is too short.
 * What it cannot vouch for is told, range by range:
 *
 *   lost    no page says what was there; reads as zeros
 *   older   is what an older page says, or one of which changes may be missing. A block that was
 *           freed since may have another one's content
 *
 * Everything else is as sure as after a recovery: the pages in force are whole, and the journal
 * from them on is.
 *
 * How it is known which pages are in force:
 *
 *   superblock is the newest that there was      the generation that it names; if that page is
 *   (no ring block knows a newer one)            bad, the one in the other slot, as older
 *   a newer one is lost, or both are             the newer page of the two slots. Each goes home
 *                                                once a checkpoint, so if both are whole and one
 *                                                comes after the other, none newer is missing;
 *                                                else older
 *
 * and of which page changes are missing: what ring blocks are lost held records up to some LSN
 * (doubt_lsn). Edits come into a page in their order, so one that has seen a later LSN has seen
 * them. Every other page of the map may lack one. What is there of the journal after the gap is
 * replayed nevertheless, and lets the rest be as new as can be.
 *
 * Errors    0 or a negative errno of the target, or EMEDIUMTYPE, ENOTSUP as check_store().
 * Memory    the journal, and a region at a time.
 * Blocking  reads through the source, writes through the target; the store is not written to.
 */
#ifndef CLI_CHECK_SALVAGE_H
#define CLI_CHECK_SALVAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli/check/check.h"

/* The worse the higher. */
enum salvage_verdict {
	SALVAGE_SURE,
	SALVAGE_OLDER_LOG, /* changes that the journal had may be missing */
	SALVAGE_OLDER_PAGE, /* an older page of the map is all that is left */
	SALVAGE_LOST_MAP, /* no page of the map says where it is */
	SALVAGE_LOST_DATA, /* the block cannot be read */
	SALVAGE_VERDICTS,
};

static inline bool salvage_is_lost(enum salvage_verdict verdict)
{
	return verdict >= SALVAGE_LOST_MAP;
}

struct salvage_target {
	void *context;
	/* Each is 0 or a negative errno. The size comes first, and once; what is not written is
	 * zeros. */
	int (*size)(void *context, uint64_t bytes);
	int (*write)(void *context, uint64_t off_bytes, const void *buf, size_t len_bytes);
	/* In ascending order, adjacent ones as one; never SURE. */
	int (*range)(void *context, enum salvage_verdict verdict, uint64_t off_bytes,
		     uint64_t len_bytes);
	/* After all ranges: records of the journal that could not be replayed, by LSN. last
	 * UINT64_MAX: nobody knows up to which. */
	int (*records)(void *context, uint64_t first, uint64_t last);
};

/* Findings in the report say what was damaged; without a superblock's geometry there is nothing but
 * them, and size() was not called. */
int salvage(const struct check_source *source, const struct salvage_target *target,
	    struct check_report *ret_report);

#endif
