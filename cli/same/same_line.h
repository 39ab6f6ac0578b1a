/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * same_line - one `SRC LEN DST [DST...]`, carried through as many requests as it takes
 *
 * A request is made for a group: destinations that have the same source and have come equally
 * far. At first there is a group for every SAME_DSTS_MAX destinations. An answer settles some
 * members and leaves the others to new groups:
 *
 *   same, the whole rest      settled
 *   same, less (clamped)      goes on from there, with all that came as far
 *   differs, any other error  settled
 *   EMLINK                    the source's blocks have too many owners: the first such member is
 *                             settled and is the source for the others, which try the same part
 *                             again
 *
 * Pure: requests and answers are JSON values, and no I/O is done.
 *
 * Errors    same_line_begin: 0 or -ENOMEM. What the server refuses as a whole before anything
 *           was done is the line's error; later it is an error of the destinations that were
 *           under way.
 */
#ifndef CLI_SAME_SAME_LINE_H
#define CLI_SAME_SAME_LINE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "server/control/protocol/ctl_ranges.h"

enum same_status {
	SAME_RUNNING,
	SAME_SAME,
	SAME_DIFFERS,
	SAME_ERROR,
};

struct same_outcome {
	uint64_t dst_off_bytes;
	enum same_status status;
	uint64_t same_bytes;
	uint64_t freed_bytes;
	uint64_t shared_bytes; /* were shared already */
	uint64_t redo_bytes; /* merged by an attempt that EMLINK ended, and seen again as shared */
	uint64_t differs_at_bytes;
	char error[20];
	char message[200];
};

struct same_group {
	struct same_group *next;
	uint64_t src_off_bytes; /* of the range's beginning */
	uint64_t at_bytes; /* how far its members are */
	uint32_t count;
	uint32_t members[]; /* indexes into outcomes */
};

struct same_line {
	bool zero; /* the source is the word zero */
	bool sync;
	uint64_t number; /* of the batch's line; 0: it is of no batch */
	uint64_t src_off_bytes;
	uint64_t len_bytes;
	uint32_t count;
	struct same_outcome *outcomes;
	struct same_group *groups; /* the first is the one under way */
	bool begun; /* an answer has come */
	char error[20]; /* the line failed as a whole; empty: it did not */
	char message[200];
};

#define SAME_SMALL_BYTES (256u << 10)

/* One short destination, of which many go into one call. True or false for ever. */
static inline bool same_line_is_small(const struct same_line *line)
{
	return line->count == 1 && line->len_bytes <= SAME_SMALL_BYTES;
}

/* Takes over dsts (malloc). */
int same_line_begin(struct same_line *line, uint64_t *dsts, uint32_t count);
void same_line_done(struct same_line *line);

static inline bool same_line_finished(const struct same_line *line)
{
	return line->groups == NULL;
}

/* The parameters of the next request. NULL: no memory. Not on a finished line. */
json_t *same_line_params(const struct same_line *line);

/* The server's result for the request, or how it failed. -EBADMSG: it is no answer to it;
 * -ENOMEM. */
int same_line_result(struct same_line *line, const json_t *result);
/* The same for an entry of same_ranges' results, of a small line whose first request it was. */
int same_line_range_result(struct same_line *line, const json_t *entry);
int same_line_range_same(struct same_line *line, const struct ctl_range_same *same);
void same_line_failed(struct same_line *line, const char *error, const char *message);

/* Whether the two must not run at the same time: one writes mappings of what the other reads or
 * writes. */
bool same_line_conflicts(const struct same_line *a, const struct same_line *b);

#endif
