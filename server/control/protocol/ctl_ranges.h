/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ctl_ranges - messages of same_ranges, read without a tree of JSON values
 *
 * What the other side of our own writes (ctl_rpc_encode_text, ctl_answer_ranges) has one form: no
 * blanks, members in one order. That form alone is read here, in a tenth of the time; anything
 * else, be it right or wrong, is left to the general decoders, which also say what is wrong.
 *
 * Errors    false: not this form (or no memory); nothing was allocated.
 * Memory    what is returned is the caller's.
 */
#ifndef SERVER_CONTROL_PROTOCOL_CTL_RANGES_H
#define SERVER_CONTROL_PROTOCOL_CTL_RANGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/control/protocol/ctl_rpc.h"

/* What an answer says of a range that is the same. */
struct ctl_range_same {
	uint64_t deduped_bytes;
	uint64_t freed_bytes;
	uint64_t shared_bytes;
};

bool ctl_ranges_read_call(const char *line, size_t len_bytes, struct ctl_rpc_call *ret_call);

/* An answer whose ranges are all the same. */
bool ctl_ranges_read_answer(const char *line, size_t len_bytes, uint64_t *ret_id,
			    struct ctl_range_same **ret_ranges, size_t *ret_count);

#endif
