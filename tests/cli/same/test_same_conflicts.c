/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_same_conflicts - the quick look at a batch's lines never misses what same_line_conflicts()
 * would find
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "cli/same/same_conflicts.h"

#define BLOCK 4096u
#define LINES 200u

static struct same_conflicts conflicts;

static struct same_line line_of(uint64_t src, uint64_t len, uint64_t dst)
{
	struct same_line line = {.src_off_bytes = src, .len_bytes = len};
	uint64_t *dsts = malloc(sizeof(*dsts));

	dsts[0] = dst;
	cr_assert_eq(same_line_begin(&line, dsts, 1), 0);
	return line;
}

Test(same_conflicts, lines_apart_do_not_conflict)
{
	struct same_line one = line_of(0, BLOCK, 100 * BLOCK);
	struct same_line other = line_of(BLOCK, BLOCK, 101 * BLOCK);

	cr_assert_not(same_conflicts_maybe(&conflicts, &one));
	same_conflicts_add(&conflicts, &one);
	cr_assert_not(same_conflicts_maybe(&conflicts, &other));
	same_line_done(&one);
	same_line_done(&other);
}

Test(same_conflicts, one_source_for_many_is_no_conflict)
{
	struct same_line one = line_of(0, BLOCK, 100 * BLOCK);
	struct same_line other = line_of(0, BLOCK, 200 * BLOCK);

	same_conflicts_add(&conflicts, &one);
	cr_assert_not(same_conflicts_maybe(&conflicts, &other));
	same_line_done(&one);
	same_line_done(&other);
}

Test(same_conflicts, beside_a_large_line_nothing_is_known)
{
	struct same_line large = line_of(0, 1 << 20, 4 << 20);
	struct same_line other = line_of(100 << 20, BLOCK, 200 << 20);

	cr_assert(same_conflicts_maybe(&conflicts, &large), "of a large one never");
	same_conflicts_add(&conflicts, &large);
	cr_assert_eq(conflicts.large, 1);
	cr_assert(same_conflicts_maybe(&conflicts, &other));
	same_conflicts_remove(&conflicts, &large);
	cr_assert_not(same_conflicts_maybe(&conflicts, &other));
	same_line_done(&large);
	same_line_done(&other);
}

Test(same_conflicts, no_conflict_is_missed_and_what_is_removed_is_gone)
{
	struct same_line lines[LINES];
	unsigned real = 0;

	srand(7);
	for (unsigned i = 0; i < LINES; i++) {
		uint64_t len = (1 + (unsigned)rand() % 16) * BLOCK;
		uint64_t src = (unsigned)rand() % 4000 * BLOCK;
		uint64_t dst = (4000 + (unsigned)rand() % 4000) * BLOCK;
		bool conflict = false;

		/* Some read what others remap. */
		lines[i] = i % 3 ? line_of(src, len, dst) : line_of(dst, len, src);
		for (unsigned j = 0; j < i; j++)
			conflict = conflict || same_line_conflicts(&lines[j], &lines[i]);
		real += conflict;
		cr_assert(!conflict || same_conflicts_maybe(&conflicts, &lines[i]));
		same_conflicts_add(&conflicts, &lines[i]);
	}
	cr_assert(real > 0 && real < LINES, "%u conflicts", real);
	for (unsigned i = 0; i < LINES; i++)
		same_conflicts_remove(&conflicts, &lines[i]);
	for (unsigned i = 0; i < LINES; i++) {
		cr_assert_not(same_conflicts_maybe(&conflicts, &lines[i]));
		same_line_done(&lines[i]);
	}
}
