/* SPDX-License-Identifier: GPL-2.0-or-later */
/* same_conflicts - see the header */
#include "cli/same/same_conflicts.h"

#include <assert.h>

#include "core/base/units.h"

static bool is_large(const struct same_line *line)
{
	return !same_line_is_small(line);
}

static uint32_t slot(uint64_t block)
{
	return (uint32_t)(block * 0x9e3779b97f4a7c15ull >> 48) % SAME_CONFLICTS_SLOTS;
}

static bool any(const uint16_t *table, uint64_t off_bytes, uint64_t len_bytes)
{
	uint64_t end = div_up(off_bytes + len_bytes, BLOCK_BYTES);

	for (uint64_t block = off_bytes / BLOCK_BYTES; block < end; block++)
		if (table[slot(block)] != 0)
			return true;
	return false;
}

static void count(uint16_t *table, uint64_t off_bytes, uint64_t len_bytes, uint16_t by)
{
	uint64_t end = div_up(off_bytes + len_bytes, BLOCK_BYTES);

	for (uint64_t block = off_bytes / BLOCK_BYTES; block < end; block++)
		table[slot(block)] = (uint16_t)(table[slot(block)] + by);
}

bool same_conflicts_maybe(const struct same_conflicts *conflicts, const struct same_line *line)
{
	uint64_t dst = line->outcomes[0].dst_off_bytes;

	if (conflicts->large > 0 || is_large(line))
		return true;
	return any(conflicts->dsts, dst, line->len_bytes) ||
	       any(conflicts->srcs, dst, line->len_bytes) ||
	       (!line->zero && any(conflicts->dsts, line->src_off_bytes, line->len_bytes));
}

static void change(struct same_conflicts *conflicts, const struct same_line *line, uint16_t by)
{
	count(conflicts->dsts, line->outcomes[0].dst_off_bytes, line->len_bytes, by);
	if (!line->zero)
		count(conflicts->srcs, line->src_off_bytes, line->len_bytes, by);
}

void same_conflicts_add(struct same_conflicts *conflicts, const struct same_line *line)
{
	if (is_large(line))
		conflicts->large++;
	else
		change(conflicts, line, 1);
}

void same_conflicts_remove(struct same_conflicts *conflicts, const struct same_line *line)
{
	if (!is_large(line)) {
		change(conflicts, line, UINT16_MAX); /* minus one */
		return;
	}
	assert(conflicts->large > 0);
	conflicts->large--;
}
