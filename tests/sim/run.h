/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * run - one scenario with one seed: a few lives of a volume, with crashes tried all along
 *
 * A life ends in a crash that is real for the run (what survived is what the next life opens),
 * or in a clean close.
 */
#ifndef TESTS_SIM_RUN_H
#define TESTS_SIM_RUN_H

#include "tests/sim/examine.h"

/* examiner: set, counters and options are filled in; stamp goes on from run to run. */
void run_scenario(struct examiner *examiner, const struct scenario *scenario, uint64_t seed);

#endif
