/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * edit - one change of the metadata, as the journal records it and as pages see it
 *
 * edit_publish() is the live path: the record gets its LSN, and each page it names is changed at
 * once. Replay applies the same record to each page by the same function, edit_apply(), where the
 * page is older (I20). What a record does to a page depends on the record and that page alone.
 *
 * Threads   publishing: the stripes of lbn's and src's regions, then the metadata lock.
 * Errors    none: from the LSN on an edit cannot fail (I19). What it needs was made resident and
 *           reserved before.
 */
#ifndef CORE_METADATA_EDIT_H
#define CORE_METADATA_EDIT_H

#include <stdbool.h>
#include <stdint.h>

#include "core/format/format.h"
#include "core/metadata/cache.h"

struct metadata;

/* A page that an edit changes: a root page, or one in the cache. */
struct edit_page {
	bool root;
	uint32_t number; /* root page number, or page_t */
};

#define EDIT_PAGES_MAX 6u

/* The pages of a record, each once. */
uint32_t edit_pages(const struct metadata *metadata, const struct record *record,
		    struct edit_page *ret_pages);

/* The first page that the record needs and that is absent; PAGE_NONE: all are there. */
page_t edit_missing(struct metadata *metadata, const struct record *record);

/* Applies and journals it; all pages are resident, a journal reservation is held. new of MAP and
 * PLACE was busy for its allocation and is not any more. Returns the LSN; *ret_freed_blocks (may be
 * NULL) grows by the blocks that lost their last reference. */
uint64_t edit_publish(struct metadata *metadata, const struct record *record,
		      uint64_t *ret_freed_blocks);

/* The record's effects on one resident page. Returns the blocks that lost their last reference
 * there. */
uint32_t edit_apply(struct metadata *metadata, const struct record *record, uint64_t lsn,
		    struct edit_page page);

/* What the record adds to the counters that the superblock holds. */
struct journal_counts;
void edit_count(struct journal_counts *counts, const struct record *record);

#endif
