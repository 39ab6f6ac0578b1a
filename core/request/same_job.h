/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * same_job - a same-range request with many destinations, and a clone with the same manners
 *
 * Destinations run in the order given; each has a status of its own. An error of the job or of its
 * source fails the whole job: done() gets it and no destination was touched.
 *
 * Units     bytes of the volume, multiples of BLOCK_BYTES.
 * Errors    of the job: EINVAL (unaligned, wraps, past the end), E2BIG (more than SAME_DSTS_MAX),
 *           EROFS. Of a destination: EINVAL (unaligned, past the end, overlaps the source), EIO
 *           (could not be read; never "same"), EMLINK (refcount saturated: go on with it as the
 *           source), ENOSPC, ECANCELED.
 * Length    0 succeeds with 0 bytes; more than SAME_LENGTH_MAX is clamped, and deduped_bytes tells.
 * Memory    the job, its arrays and its scratch are the caller's until done().
 * Threads   submit on the worker's thread; done() comes there.
 */
#ifndef CORE_REQUEST_SAME_JOB_H
#define CORE_REQUEST_SAME_JOB_H

#include <stdbool.h>
#include <stdint.h>

#include "core/request/request.h"

struct same_dst {
	uint64_t off_bytes; /* filled in by the caller */
	int error; /* 0 or a negative errno */
	struct same_result result;
	const char *message; /* for people, static; NULL when error is 0 */
};

struct same_job {
	uint64_t src_off_bytes; /* or SAME_SRC_ZERO */
	uint64_t len_bytes;
	struct same_dst *dsts;
	uint32_t dst_count;
	bool clone; /* no compare: each destination becomes a clone of the source */
	bool sync; /* durable before done() */
	void *scratch; /* SAME_SCRATCH_BYTES, page-aligned; not needed for a clone */
	const _Atomic bool *cancel; /* may be NULL */
	struct volume *volume;
	struct worker *worker;
	void (*done)(struct same_job *job, int res);
	void *context;

	const char *message; /* why the job failed as a whole; static */

	/* The engine's own. */
	struct request request;
	uint32_t next_dst;
	uint64_t asked_bytes;
	bool submitting;
	bool answered;
};

void same_job_submit(struct same_job *job);

#endif
