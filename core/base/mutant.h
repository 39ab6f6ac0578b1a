/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * mutant - bugs put in on purpose, to prove that the tests see them
 *
 * In a build with -Dmutants=true, MUTANT(n) is true when the environment's SAMEBLK_MUTANT is n; in
 * every other build it is the constant false and the compiler drops the branch. The numbers are
 * those of docs/mutants.md, which names for each the test that kills it.
 */
#ifndef CORE_BASE_MUTANT_H
#define CORE_BASE_MUTANT_H

#include <stdbool.h>

#ifdef SAMEBLK_MUTANTS
/* Set by the program's start (tests/lib/mutant.c reads the environment; core reads none). */
extern int mutant_chosen;
#define MUTANT(n) (mutant_chosen == (n))
#else
#define MUTANT(n) false
#endif

#endif
