/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dedupe_list - matches that wait to be carried out: the longest first, those of one source
 * together
 *
 * Matches longer than DEDUPE_LIST_PIECE_BLOCKS go in as pieces of that length, so that several are
 * under way where there is one long run, and an interruption is heard.
 *
 * Errors    -ENOSPC: it is full; take all, and begin anew. Memory: what init was given.
 */
#ifndef CLI_DEDUPE_DEDUPE_LIST_H
#define CLI_DEDUPE_DEDUPE_LIST_H

#include <stdbool.h>
#include <stdint.h>

#include "cli/dedupe/dedupe_find.h"

#define DEDUPE_LIST_PIECE_BLOCKS (8ull * 1024 * 1024 / BLOCK_BYTES)
#define DEDUPE_LIST_PIECES_MIN	 1024u

struct dedupe_list {
	struct dedupe_match *pieces;
	uint64_t count;
	uint64_t capacity;
	uint64_t taken;
};

int dedupe_list_init(struct dedupe_list *list, uint64_t bytes);
void dedupe_list_done(struct dedupe_list *list);

/* What did not fit remains in *match, which has no blocks left when all did. */
int dedupe_list_add(struct dedupe_list *list, struct dedupe_match *match);

/* Puts what was added in order; then take() gives it, and after the last the list is empty. */
void dedupe_list_sort(struct dedupe_list *list);
/* The next pieces with one source and length, at most so many. 0: no more. */
uint32_t dedupe_list_take(struct dedupe_list *list, uint32_t most,
			  const struct dedupe_match **ret_pieces);

#endif
