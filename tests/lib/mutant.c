/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/lib/mutant.h"

#include <stdlib.h>

#include "core/base/mutant.h"

#ifdef SAMEBLK_MUTANTS
int mutant_chosen;

__attribute__((constructor)) static void choose(void)
{
	const char *text = getenv("SAMEBLK_MUTANT");

	mutant_chosen = text ? atoi(text) : 0;
}

int mutant_number(void)
{
	return mutant_chosen;
}
#else
int mutant_number(void)
{
	return 0;
}
#endif
