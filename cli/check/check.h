/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * check - verifies a store from the outside: everything is recounted from the map
 *
 * It shares with the engine only the pure decoders, the checksums and the geometry; journal replay
 * and counting are code of its own, so that a bug of the engine is not repeated here.
 *
 * Errors    0: the store could be read (see damaged for the verdict); a negative errno: it could
 *           not.
 * Memory    allocates while it runs: 2 bytes per physical block, 8 per logical block of a region
 *           at a time, and the findings (bounded by CHECK_FINDINGS_MAX; more are counted only).
 * Blocking  reads synchronously through the given function; writes nothing unless repair is set.
 */
#ifndef CLI_CHECK_CHECK_H
#define CLI_CHECK_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CHECK_FINDINGS_MAX 1000

struct check_source {
	void *context;
	uint64_t size_bytes;
	/* 0 or a negative errno; always whole. */
	int (*read)(void *context, uint64_t off_bytes, void *buf, size_t len_bytes);
	/* Only needed for repair; NULL otherwise. */
	int (*write)(void *context, uint64_t off_bytes, const void *buf, size_t len_bytes);
	int (*flush)(void *context);
};

struct check_finding {
	char where[96];
	char expected[96];
	char found[96];
	bool repaired;
};

struct check_report {
	uint64_t findings_total; /* 0: clean */
	uint64_t repaired_total;
	uint32_t finding_count;
	struct check_finding *findings; /* freed by check_report_done() */
	/* What was counted, for the account at the end. */
	uint64_t mapped_blocks;
	uint64_t used_blocks;
	uint64_t shared_blocks; /* logical blocks whose physical block has more than one owner */
	uint64_t free_blocks;
	uint64_t replayed_records;
	bool clean_shutdown;
	bool copied_in_use; /* a finding proves it; false proves nothing */
};

int check_store(const struct check_source *source, bool repair, struct check_report *ret_report);
void check_report_done(struct check_report *report);

#endif
