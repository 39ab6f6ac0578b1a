/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * over_control - the load's control connection: same, same_ranges, clone, map, stats, changes
 *
 * Many calls are in flight, answers come in any order (docs/control-protocol.md). What is answered
 * is compared with the history where that was not being written meanwhile.
 */
#ifndef TESTS_SWARM_SERVER_OVER_CONTROL_H
#define TESTS_SWARM_SERVER_OVER_CONTROL_H

#include <poll.h>

#include "tests/swarm/server/load.h"

int over_control_connect(struct load *load, const char *path);
void over_control_close(struct load *load);
void over_control_submit(struct op *op);

void over_control_poll(struct load *load, struct pollfd *ret_poll);
void over_control_ready(struct load *load, short events);

/* In a quiet moment: which regions are told as changed since the generation. What is not told must
 * hold what it held when it was called the last time (an id for each sector is kept for that).
 * Returns the generation to ask with the next time; 0: load->bad. */
uint64_t over_control_changes(struct load *load, uint64_t since);

#endif
