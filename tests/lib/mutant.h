/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * mutant - which bug put in on purpose this process has: SAMEBLK_MUTANT in the environment, a
 * number
 *
 * It is read before main(). In a build without mutants there is none.
 */
#ifndef TESTS_LIB_MUTANT_H
#define TESTS_LIB_MUTANT_H

/* The number, or 0. */
int mutant_number(void);

#endif
