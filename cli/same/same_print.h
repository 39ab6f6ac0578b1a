/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * same_print - what became of a same_line, on stdout, and the sums of many
 */
#ifndef CLI_SAME_SAME_PRINT_H
#define CLI_SAME_SAME_PRINT_H

#include <stdint.h>

#include "cli/same/same_line.h"

enum same_format {
	SAME_TEXT, /* a line a destination */
	SAME_JSON, /* one document */
	SAME_JSON_LINES, /* a document a line, then the summary */
};

struct same_sums {
	uint64_t requests;
	uint64_t destinations;
	uint64_t same;
	uint64_t differs;
	uint64_t errors; /* destinations that failed, and lines that failed as a whole */
	uint64_t same_bytes;
	uint64_t freed_bytes;
	uint64_t shared_bytes;
};

/* A finished line. A line that failed as a whole goes to stderr, and to stdout as JSON. */
void same_print(const struct same_line *line, enum same_format format);

void same_sums_add(struct same_sums *sums, const struct same_line *line);
void same_sums_print(const struct same_sums *sums, enum same_format format);
int same_sums_status(const struct same_sums *sums);

#endif
