/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * draw - chooses the next operation: its kind by the run's weights, its range, its contents
 *
 * Ranges favour what small programs forget: the volume's last block, the edges of regions, parts of
 * sectors. What the history could not judge afterwards is not drawn: a write of part of a sector
 * whose contents are open at this moment, a clone whose source or destination another clone has.
 */
#ifndef TESTS_SWARM_SERVER_DRAW_H
#define TESTS_SWARM_SERVER_DRAW_H

#include "tests/swarm/server/load.h"

/* A new operation that is not in flight yet, for an NBD connection or the control socket, with the
 * ids that its sectors get (*ret_ids, to be freed). NULL: this draw came to nothing. */
struct op *draw(struct load *load, bool control, uint32_t **ret_ids);

#endif
