/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * client_check - whether an answer is true
 *
 * Each fails the simulation if it is not.
 */
#ifndef TESTS_SIM_CLIENT_CHECK_H
#define TESTS_SIM_CLIENT_CHECK_H

#include "tests/sim/world.h"

/* Every sector that was read is what the oracle allows. */
void client_check_read(struct client *client);
/* The runs cover the range without a gap, and holes are certain holes or nothing that certainly
 * has content. */
void client_check_map(struct client *client);
/* No block that certainly changed since the scan is said not to have. */
void client_check_changes(struct client *client);
/* A merge said "same" of what could be equal, "differs" of what could differ. */
void client_check_same(struct world *world, uint32_t op, uint64_t dst_bytes, uint64_t src_bytes,
		       uint64_t len_bytes, const struct same_result *result);
/* ENOSPC was answered, and nothing else runs: then nothing is free, or about to be. */
void client_check_full(struct client *client);
/* A merge or clone of these blocks succeeded: those that hold data share it now. */
void client_tell_shared(struct world *world, uint32_t op, uint64_t dst_bytes, uint64_t src_bytes,
			uint64_t len_bytes);

#endif
