/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * same_conflicts - whether a line of a batch may be in the way of one in flight, in a few lookups
 *
 * Lines of one short destination are counted in a table by the blocks that they name; a new one
 * whose blocks are not there conflicts with none of them. Anything else, and what a table cannot
 * tell apart, is answered with maybe, and the caller compares line by line.
 *
 * Errors    none. Memory: its own size. Threads: the caller's one.
 */
#ifndef CLI_SAME_SAME_CONFLICTS_H
#define CLI_SAME_SAME_CONFLICTS_H

#include <stdbool.h>
#include <stdint.h>

#include "cli/same/same_line.h"

#define SAME_CONFLICTS_SLOTS (1u << 16)

struct same_conflicts {
	uint16_t srcs[SAME_CONFLICTS_SLOTS]; /* lines that read the block */
	uint16_t dsts[SAME_CONFLICTS_SLOTS]; /* lines that remap it */
	unsigned large; /* lines in flight that are in no table */
};

bool same_conflicts_maybe(const struct same_conflicts *conflicts, const struct same_line *line);
void same_conflicts_add(struct same_conflicts *conflicts, const struct same_line *line);
/* Of one that was added. */
void same_conflicts_remove(struct same_conflicts *conflicts, const struct same_line *line);

#endif
