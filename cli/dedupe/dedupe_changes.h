/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dedupe_changes - which parts of the volume were written since a generation, as the server tells
 * it
 *
 * The call is a cut: what is written from now on counts as changed after the generation that it
 * answers. So it comes before anything is read.
 *
 * Errors    a negative errno, after a complaint on stderr. Blocking: for the server.
 */
#ifndef CLI_DEDUPE_DEDUPE_CHANGES_H
#define CLI_DEDUPE_DEDUPE_CHANGES_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "cli/base/client.h"

struct dedupe_changes {
	bool tracked; /* false: the server does not track writes, and nothing below is known */
	bool complete; /* false: it does not know since then; everything counts as changed */
	uint64_t generation;
	uint64_t life; /* another one: the store was replaced by a copy of it; 0: not told */
	json_t *ranges;
};

/* since 0: only the generation is of use, and the list may be cut short. */
int dedupe_changes_ask(struct client *client, uint64_t since, uint64_t size_bytes,
		       struct dedupe_changes *ret_changes);
void dedupe_changes_done(struct dedupe_changes *changes);

uint64_t dedupe_changes_count(const struct dedupe_changes *changes);
void dedupe_changes_range(const struct dedupe_changes *changes, uint64_t index,
			  uint64_t *ret_off_bytes, uint64_t *ret_len_bytes);

#endif
