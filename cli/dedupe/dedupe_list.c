/* SPDX-License-Identifier: GPL-2.0-or-later */
/* dedupe_list - see the header */
#include "cli/dedupe/dedupe_list.h"

#include <errno.h>
#include <stdlib.h>

int dedupe_list_init(struct dedupe_list *list, uint64_t bytes)
{
	/* Half of it is what sorting needs. */
	uint64_t capacity = bytes / 2 / sizeof(struct dedupe_match);

	if (capacity < DEDUPE_LIST_PIECES_MIN)
		capacity = DEDUPE_LIST_PIECES_MIN;
	*list = (struct dedupe_list){.pieces = calloc(capacity, sizeof(struct dedupe_match)),
				     .capacity = capacity};
	return list->pieces == NULL ? -ENOMEM : 0;
}

void dedupe_list_done(struct dedupe_list *list)
{
	free(list->pieces);
	list->pieces = NULL;
}

int dedupe_list_add(struct dedupe_list *list, struct dedupe_match *match)
{
	while (match->blocks > 0) {
		uint64_t blocks = min_u64(match->blocks, DEDUPE_LIST_PIECE_BLOCKS);

		if (list->count == list->capacity)
			return -ENOSPC;
		list->pieces[list->count++] =
			(struct dedupe_match){match->src_block, match->dst_block, blocks};
		if (match->src_block != DEDUPE_ZERO)
			match->src_block += blocks;
		match->dst_block += blocks;
		match->blocks -= blocks;
	}
	return 0;
}

static int compare(uint64_t a, uint64_t b)
{
	return a < b ? -1 : a > b;
}

static int compare_pieces(const void *a, const void *b)
{
	const struct dedupe_match *one = a, *two = b;

	if (one->blocks != two->blocks)
		return compare(two->blocks, one->blocks);
	if (one->src_block != two->src_block)
		return compare(one->src_block, two->src_block);
	return compare(one->dst_block, two->dst_block);
}

void dedupe_list_sort(struct dedupe_list *list)
{
	qsort(list->pieces, list->count, sizeof(*list->pieces), compare_pieces);
	list->taken = 0;
}

uint32_t dedupe_list_take(struct dedupe_list *list, uint32_t most,
			  const struct dedupe_match **ret_pieces)
{
	const struct dedupe_match *first = list->pieces + list->taken;
	uint32_t count = 0;

	while (count < most && list->taken < list->count &&
	       first[count].src_block == first->src_block && first[count].blocks == first->blocks) {
		count++;
		list->taken++;
	}
	if (count == 0)
		list->count = list->taken = 0;
	*ret_pieces = first;
	return count;
}
