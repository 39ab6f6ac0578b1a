/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/format/format.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/base/bytes.h"

enum {
	TRACKING_STATE_AT = 64,
	TRACKING_STAMPS_AT = 72,
};

/* Not 0: a page of zeros is none. */
enum {
	STATE_CLOSED = 1,
	STATE_OPEN = 2,
};

_Static_assert(TRACKING_STATE_AT == PAGE_HEADER_BYTES, "the body begins behind the header");
_Static_assert(TRACKING_STAMPS_AT + 4 * AREA_REGIONS <= BLOCK_BYTES, "one page an area");

void tracking_page_encode(const struct tracking_page *page, uint32_t area, const uint8_t *uuid,
			  uint8_t *out)
{
	struct page_header header = {.kind = PAGE_TRACKING, .number = area};

	memset(out, 0, BLOCK_BYTES);
	put_le32(out + TRACKING_STATE_AT, page->open ? STATE_OPEN : STATE_CLOSED);
	for (uint32_t i = 0; !page->open && i < AREA_REGIONS; i++)
		put_le32(out + TRACKING_STAMPS_AT + 4ul * i, page->stamps[i]);
	page_seal(out, &header, uuid);
}

bool tracking_page_decode(const uint8_t *in, uint32_t area, const uint8_t *uuid,
			  struct tracking_page *ret_page, struct why *why)
{
	struct page_header header = {.kind = PAGE_TRACKING, .number = area};
	uint32_t state = get_le32(in + TRACKING_STATE_AT);
	uint64_t lsn;

	if (!page_verify(in, &header, uuid, &lsn, why))
		return false;
	if (state != STATE_CLOSED && state != STATE_OPEN) {
		snprintf(why->expected, sizeof(why->expected), "an area that is open or closed");
		snprintf(why->found, sizeof(why->found), "state %" PRIu32, state);
		return false;
	}
	ret_page->open = state == STATE_OPEN;
	for (uint32_t i = 0; i < AREA_REGIONS; i++)
		ret_page->stamps[i] = get_le32(in + TRACKING_STAMPS_AT + 4ul * i);
	return true;
}
