/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * check_spare - tells a copy of a store in use from what a crash leaves, as far as that goes
 *
 * A page goes home when its last edit is durable in the journal, and LSNs only grow. So no page in
 * either of its slots is newer than the log, whenever a crash comes: not one that an unfinished
 * checkpoint wrote, nor one that an earlier life left. One that is was read later than the log was:
 * the file is no single moment of a store.
 *
 * Pages of the map are looked at: --repair writes a page of counts anew that the log cannot
 * explain, and leaves the old one in its slot.
 *
 * Said once, as all of the store is in doubt then. That no page shows it proves nothing: between
 * two checkpoints blocks are freed and get another content, of which no page knows yet.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/check/check_state.h"
#include "core/base/bytes.h"

#define PAGE_MAGIC_BYTES   "SLBp" /* docs/disk-format.md: page header */
#define PAGE_KIND_AT	   4u
#define PAGE_NUMBER_AT	   24u
#define PAGE_GENERATION_AT 32u
#define PAGE_LSN_AT	   40u

static bool is_newer_page(const struct check *check, uint64_t *ret_lsn)
{
	const uint8_t *page = check->page;
	struct page_header header = {
		.kind = page[PAGE_KIND_AT],
		.number = get_le64(page + PAGE_NUMBER_AT),
		.generation = get_le32(page + PAGE_GENERATION_AT),
	};
	struct why why;

	return memcmp(page, PAGE_MAGIC_BYTES, sizeof(PAGE_MAGIC_BYTES) - 1) == 0 &&
	       get_le64(page + PAGE_LSN_AT) >= check->log.end_lsn &&
	       page_verify(page, &header, check->super.uuid, ret_lsn, &why);
}

int check_spare(struct check *check, uint64_t block)
{
	struct check_finding *finding;
	uint64_t lsn;
	int r;

	if (!check->look_at_spares || check->quiet || check->report->copied_in_use)
		return 0;
	r = check_read(check, block, 1, check->page);
	if (r < 0 || !is_newer_page(check, &lsn))
		return r;
	check->report->copied_in_use = true;
	finding = check_find(check, DAMAGE_FATAL, "spare slot in block %" PRIu64, block);
	snprintf(finding->expected, sizeof(finding->expected),
		 "no LSN after %" PRIu64 ", the journal's last", check->log.end_lsn - 1);
	snprintf(finding->found, sizeof(finding->found),
		 "%" PRIu64 ": this was copied while in use, and is no one moment", lsn);
	return 0;
}
