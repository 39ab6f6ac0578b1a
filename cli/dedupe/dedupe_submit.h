/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dedupe_submit - matches become same-range requests, many in flight
 *
 * Pieces with one source and length go out as one request with many destinations. Sources are never
 * destinations (dedupe_region.h), so requests need not wait for each other. What comes back:
 *
 *   same      merged
 *   differs   one block changed since it was hashed: it is rejected, and what lies before and
 *             behind it is asked for again
 *   EMLINK    the source has all the references that a block can have. Of several destinations the
 *             first is the new source (same_line.h), also for what comes later; a single one is
 *             halved until it is a block, which then stays what it is and is the new source
 *   other     an error; the rest goes on
 *
 * Errors    0 or a negative errno of the connection, complained about. A signal ends it early with
 *           0: what is in flight is waited for.
 * Memory    the requests in flight, and the pieces of them that have to be asked for again.
 */
#ifndef CLI_DEDUPE_DEDUPE_SUBMIT_H
#define CLI_DEDUPE_DEDUPE_SUBMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "cli/dedupe/dedupe_account.h"
#include "cli/dedupe/dedupe_list.h"
#include "cli/dedupe/dedupe_rate.h"
#include "cli/same/same_flight.h"

#define DEDUPE_FULL_SOURCES 64u

/* A source without room for references, and who takes its place. */
struct dedupe_full {
	uint64_t src_block;
	uint64_t blocks; /* 0: an empty entry */
	uint64_t instead_block;
};

struct dedupe_submit {
	struct same_flight flight;
	struct dedupe_progress *progress;
	struct dedupe_rate *rate;
	struct dedupe_match *again; /* pieces to be asked for anew; the last one first */
	uint64_t again_count;
	uint64_t again_capacity;
	struct dedupe_full full[DEDUPE_FULL_SOURCES];
	unsigned next_full;
	uint64_t done_bytes; /* of the list */
	unsigned large; /* lines in flight that are not small */
	/* Told of each destination that differed; may be NULL, set it after init. 0 or a negative
	 * errno. */
	int (*rejected)(void *context, uint64_t dst_block);
	void *context;
};

void dedupe_submit_init(struct dedupe_submit *submit, struct client *client,
			struct dedupe_rate *rate, struct dedupe_progress *progress);
void dedupe_submit_done(struct dedupe_submit *submit);

/* Carries out all of a list, which is empty then, unless a signal came. */
int dedupe_submit_run(struct dedupe_submit *submit, struct dedupe_list *list);

#endif
