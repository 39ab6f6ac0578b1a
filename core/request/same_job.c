/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/request/same_job.h"

#include <errno.h>
#include <stddef.h>

#include "core/volume/volume_internal.h"

static void next_dst(struct same_job *job);

static void job_done(struct same_job *job, int res, const char *message)
{
	job->message = message;
	job->done(job, res);
}

static const char *message_for(int error)
{
	switch (error) {
	case 0:
		return NULL;
	case -EIO:
		return "a block could not be read, or the volume is read-only after an error";
	case -EMLINK:
		return "a block of the source has as many references as can be counted";
	case -ENOSPC:
		return "no space for metadata";
	case -ECANCELED:
		return "cancelled";
	default:
		return "the request failed";
	}
}

static bool past_the_end(const struct same_job *job, uint64_t off_bytes)
{
	uint64_t size_bytes = volume_size_bytes(job->volume);

	return off_bytes > size_bytes || job->asked_bytes > size_bytes - off_bytes;
}

/* Why the destination cannot be, or NULL. */
static const char *refused(const struct same_job *job, uint64_t off_bytes)
{
	if (off_bytes % BLOCK_BYTES != 0)
		return "the offset is not a multiple of the block size, 4096";
	if (past_the_end(job, off_bytes))
		return "the range ends past the end of the volume";
	if (job->src_off_bytes != SAME_SRC_ZERO && job->len_bytes > 0 &&
	    off_bytes < job->src_off_bytes + job->asked_bytes &&
	    job->src_off_bytes < off_bytes + job->asked_bytes)
		return "the range overlaps the source";
	return NULL;
}

static void dst_done(struct request *request, int res)
{
	struct same_job *job = request->context;
	struct same_dst *dst = &job->dsts[job->next_dst];

	dst->error = res;
	dst->result = request->same;
	dst->message = message_for(res);
	job->next_dst++;
	if (job->submitting)
		job->answered = true; /* at once: next_dst() goes on in its loop, not deeper */
	else
		next_dst(job);
}

static void sync_done(struct request *request, int res)
{
	struct same_job *job = request->context;

	job_done(job, res, res < 0 ? "the flush failed" : NULL);
}

static void submit(struct same_job *job, enum request_op op, uint64_t off_bytes,
		   void (*done)(struct request *request, int res))
{
	struct request *request = &job->request;

	/* What is the engine's own is left as it is: it is large, and set where it is used. */
	request->op = op;
	request->tally = TALLY_NONE; /* its flush is no client's */
	request->fua = false;
	request->no_hole = false;
	request->off_bytes = off_bytes;
	request->len_bytes = op == REQUEST_FLUSH ? 0 : job->len_bytes;
	request->src_off_bytes = job->src_off_bytes;
	request->data = NULL;
	request->scratch = job->scratch;
	request->runs = NULL;
	request->runs_max = 0;
	request->volume = job->volume;
	request->worker = job->worker;
	request->done = done;
	request->context = job;
	request->cancel = job->cancel;
	request_submit(request);
}

static void next_dst(struct same_job *job)
{
	while (job->next_dst < job->dst_count) {
		struct same_dst *dst = &job->dsts[job->next_dst];

		dst->message = refused(job, dst->off_bytes);
		dst->result = (struct same_result){0};
		dst->error = 0;
		if (dst->message == NULL && job->len_bytes > 0) {
			job->submitting = true;
			job->answered = false;
			submit(job, job->clone ? REQUEST_CLONE : REQUEST_SAME, dst->off_bytes,
			       dst_done);
			job->submitting = false;
			if (!job->answered)
				return;
			continue;
		}
		if (dst->message)
			dst->error = -EINVAL;
		job->next_dst++;
	}
	if (job->sync)
		submit(job, REQUEST_FLUSH, 0, sync_done);
	else
		job_done(job, 0, NULL);
}

void same_job_submit(struct same_job *job)
{
	bool zero = job->src_off_bytes == SAME_SRC_ZERO && !job->clone;

	job->next_dst = 0;
	job->submitting = false;
	job->asked_bytes =
		job->len_bytes; /* the rules are for what was asked for, clamped or not */
	job->message = NULL;
	if (job->dst_count > SAME_DSTS_MAX)
		job_done(job, -E2BIG, "more destinations than one request takes, 4096");
	else if (job->volume->options.read_only)
		job_done(job, -EROFS, "the volume was opened read-only");
	else if (job->len_bytes % BLOCK_BYTES != 0)
		job_done(job, -EINVAL, "the length is not a multiple of the block size, 4096");
	else if (!zero && job->src_off_bytes % BLOCK_BYTES != 0)
		job_done(job, -EINVAL, "the source is not a multiple of the block size, 4096");
	else if (!zero && past_the_end(job, job->src_off_bytes))
		job_done(job, -EINVAL, "the source ends past the end of the volume");
	else {
		if (job->len_bytes > SAME_LENGTH_MAX)
			job->len_bytes = SAME_LENGTH_MAX;
		next_dst(job);
	}
}
