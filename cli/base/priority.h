/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * priority - a long command makes way for whoever waits for the processor
 *
 * A batch of merges, or a search for duplicates, keeps a processor busy on its own, and nobody
 * waits for each of its steps; clients of the volume do. Ten steps of nice(1) give it about a tenth
 * of a processor that others want as well, and all of one that nobody wants. (As an idle thread,
 * sched(7), it would get a three hundredth.) The kernel compares inside one group only, a session
 * or a service: against other groups it has its group's share. It holds no lock that a server or a
 * client waits for.
 *
 * Errors    none: where it is not allowed all stays as it is, which is slower for others alone.
 * Threads   the calling one, and those that it makes later.
 */
#ifndef CLI_BASE_PRIORITY_H
#define CLI_BASE_PRIORITY_H

void priority_make_way(void);

#endif
