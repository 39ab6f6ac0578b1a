/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fake_engine - see the header; one lock covers everything but the worker's mailbox */
#include "tests/server/control/fake_engine.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/request/request.h"
#include "core/request/same_job.h"

#define BLOCKS	    (FAKE_BYTES / BLOCK_BYTES)
#define RUNNING_MAX 64
#define NAP_NS	    500000
#define MIB	    (1ull << 20)

struct volume {
	struct worker worker;
	pthread_t thread;
	pthread_mutex_t lock;
	bool ending;
	bool hold;
	bool last_first;
	uint32_t references_max;
	enum volume_state state;
	unsigned running;
	unsigned running_most;
	unsigned cancelled;
	struct same_job *jobs[RUNNING_MAX];
	uint64_t same_requests;
	uint64_t rounds; /* of trims that are over */
	bool trimming;
	uint64_t failed_bytes;
	uint8_t uuid[16];
	/* A physical block per logical one at first; physical 0 is the hole. */
	uint32_t place[BLOCKS];
	uint32_t content[BLOCKS + 1];
	uint32_t references[BLOCKS + 1];
};

static uint32_t content_at(const struct volume *volume, uint64_t block)
{
	return volume->content[volume->place[block]];
}

/* The blocks that are equal from the start of both ranges. */
static uint64_t equal_blocks(const struct volume *volume, const struct same_job *job, uint64_t dst,
			     uint64_t blocks)
{
	for (uint64_t i = 0; i < blocks; i++) {
		uint32_t want = job->src_off_bytes == SAME_SRC_ZERO
					? 0
					: content_at(volume, job->src_off_bytes / BLOCK_BYTES + i);

		if (!job->clone && content_at(volume, dst + i) != want)
			return i;
	}
	return blocks;
}

static void share_block(struct volume *volume, uint64_t dst, uint32_t place,
			struct same_result *result)
{
	uint32_t old = volume->place[dst];

	result->deduped_bytes += BLOCK_BYTES;
	if (old == place) {
		result->already_shared_bytes += BLOCK_BYTES;
		return;
	}
	if (place != 0)
		volume->references[place]++;
	if (old != 0 && --volume->references[old] == 0)
		result->freed_bytes += BLOCK_BYTES;
	volume->place[dst] = place;
}

static void run_dst(struct volume *volume, const struct same_job *job, struct same_dst *entry)
{
	uint64_t len = min_u64(job->len_bytes, SAME_LENGTH_MAX);
	uint64_t dst = entry->off_bytes / BLOCK_BYTES;
	uint64_t equal;

	if (entry->off_bytes % BLOCK_BYTES != 0 || entry->off_bytes > FAKE_BYTES ||
	    len > FAKE_BYTES - entry->off_bytes) {
		entry->error = -EINVAL;
		entry->message = "the destination is not aligned, or ends past the volume";
		return;
	}
	equal = equal_blocks(volume, job, dst, len / BLOCK_BYTES);
	if (equal < len / BLOCK_BYTES) {
		entry->result.differs = true;
		entry->result.differs_at_bytes = equal * BLOCK_BYTES + 7;
		return;
	}
	for (uint64_t i = 0; i < equal; i++) {
		uint32_t place = job->src_off_bytes == SAME_SRC_ZERO
					 ? 0
					 : volume->place[job->src_off_bytes / BLOCK_BYTES + i];

		if (place != 0 && place != volume->place[dst + i] &&
		    volume->references[place] >= volume->references_max) {
			entry->error = -EMLINK;
			entry->message = "the source's blocks have too many references";
			return;
		}
		share_block(volume, dst + i, place, &entry->result);
	}
}

static int run_job(struct volume *volume, struct same_job *job)
{
	uint64_t src = job->src_off_bytes;

	if (volume->state == VOLUME_READ_ONLY) {
		job->message = "the server was started read-only";
		return -EROFS;
	}
	if (job->len_bytes % BLOCK_BYTES != 0 ||
	    (src != SAME_SRC_ZERO &&
	     (src % BLOCK_BYTES != 0 || src > FAKE_BYTES || job->len_bytes > FAKE_BYTES - src))) {
		job->message = "the source is not aligned to 4096, or ends past the volume";
		return -EINVAL;
	}
	/* The scratch must be the job's alone; the engine reads into all of it. */
	if (!job->clone)
		memset(job->scratch, 0xa5, SAME_SCRATCH_BYTES);
	for (uint32_t i = 0; i < job->dst_count; i++)
		run_dst(volume, job, &job->dsts[i]);
	volume->same_requests += job->dst_count;
	return 0;
}

static void cancel_job(struct volume *volume, struct same_job *job)
{
	for (uint32_t i = 0; i < job->dst_count; i++) {
		job->dsts[i].error = -ECANCELED;
		job->dsts[i].message = "cancelled";
	}
	volume->cancelled++;
}

/* The next job that may end. NULL: none. */
static struct same_job *take_job(struct volume *volume, int *ret_res)
{
	for (unsigned i = 0; i < volume->running; i++) {
		unsigned index = volume->last_first ? volume->running - 1 - i : i;
		struct same_job *job = volume->jobs[index];
		bool cancelled = job->cancel != NULL && atomic_load(job->cancel);

		if (volume->hold && !cancelled)
			continue;
		*ret_res = 0;
		if (cancelled)
			cancel_job(volume, job);
		else
			*ret_res = run_job(volume, job);
		volume->running--;
		memmove(&volume->jobs[index], &volume->jobs[index + 1],
			(volume->running - index) * sizeof(volume->jobs[0]));
		return job;
	}
	return NULL;
}

static void *run_worker(void *argument)
{
	struct volume *volume = argument;
	struct timespec nap = {.tv_nsec = NAP_NS};
	bool ending = false;

	while (!ending) {
		struct same_job *job;
		int res = 0;

		while (worker_run(&volume->worker)) {
		}
		pthread_mutex_lock(&volume->lock);
		job = take_job(volume, &res);
		ending = volume->ending;
		pthread_mutex_unlock(&volume->lock);
		if (job != NULL)
			job->done(job, res);
		else
			nanosleep(&nap, NULL);
	}
	return NULL;
}

struct volume *fake_new(void)
{
	struct volume *volume = calloc(1, sizeof(*volume));

	assert(volume != NULL);
	pthread_mutex_init(&volume->lock, NULL);
	worker_init(&volume->worker, 0);
	volume->references_max = UINT32_MAX;
	memset(volume->uuid, 0x5a, sizeof(volume->uuid));
	for (uint32_t i = 0; i < BLOCKS; i++) {
		volume->place[i] = i % FAKE_PERIOD == 0 ? 0 : i + 1;
		volume->content[i + 1] = i % FAKE_PERIOD;
		volume->references[i + 1] = i % FAKE_PERIOD != 0;
	}
	pthread_create(&volume->thread, NULL, run_worker, volume);
	return volume;
}

void fake_free(struct volume *volume)
{
	pthread_mutex_lock(&volume->lock);
	volume->ending = true;
	assert(volume->running == 0);
	pthread_mutex_unlock(&volume->lock);
	pthread_join(volume->thread, NULL);
	worker_done(&volume->worker);
	free(volume);
}

struct worker *fake_worker(struct volume *volume)
{
	return &volume->worker;
}

void fake_hold(struct volume *volume, bool hold, bool last_first)
{
	pthread_mutex_lock(&volume->lock);
	volume->hold = hold;
	volume->last_first = last_first;
	pthread_mutex_unlock(&volume->lock);
}

void fake_set_references_max(struct volume *volume, uint32_t references)
{
	pthread_mutex_lock(&volume->lock);
	volume->references_max = references;
	pthread_mutex_unlock(&volume->lock);
}

void fake_set_state(struct volume *volume, enum volume_state state)
{
	pthread_mutex_lock(&volume->lock);
	volume->state = state;
	pthread_mutex_unlock(&volume->lock);
}

void fake_set_failed(struct volume *volume, uint64_t bytes)
{
	pthread_mutex_lock(&volume->lock);
	volume->failed_bytes = bytes;
	pthread_mutex_unlock(&volume->lock);
}

void fake_write(struct volume *volume, uint64_t off_bytes, uint32_t content)
{
	uint32_t block = (uint32_t)(off_bytes / BLOCK_BYTES);

	pthread_mutex_lock(&volume->lock);
	volume->place[block] = block + 1;
	volume->content[block + 1] = content;
	volume->references[block + 1] = 1;
	pthread_mutex_unlock(&volume->lock);
}

static unsigned locked(struct volume *volume, const unsigned *number)
{
	unsigned copy;

	pthread_mutex_lock(&volume->lock);
	copy = *number;
	pthread_mutex_unlock(&volume->lock);
	return copy;
}

unsigned fake_running(struct volume *volume)
{
	return locked(volume, &volume->running);
}

unsigned fake_running_most(struct volume *volume)
{
	return locked(volume, &volume->running_most);
}

unsigned fake_cancelled(struct volume *volume)
{
	return locked(volume, &volume->cancelled);
}

/* --- what the control side calls, on the worker's thread --- */

void same_job_submit(struct same_job *job)
{
	struct volume *volume = job->volume;

	pthread_mutex_lock(&volume->lock);
	assert(volume->running < RUNNING_MAX);
	volume->jobs[volume->running++] = job;
	if (volume->running > volume->running_most)
		volume->running_most = volume->running;
	pthread_mutex_unlock(&volume->lock);
}

static bool joins(const struct volume *volume, const struct map_run *run, uint64_t block)
{
	uint32_t place = volume->place[block];

	if (pbn_is_none(run->pbn) || place == 0)
		return pbn_is_none(run->pbn) && place == 0;
	return place == run->pbn.v + run->len_bytes / BLOCK_BYTES &&
	       volume->references[place] == run->references;
}

/* MAP alone; answered from inside, as the real one may. */
void request_submit(struct request *request)
{
	struct volume *volume = request->volume;
	struct map_run *run = NULL;
	uint64_t block = request->off_bytes / BLOCK_BYTES;
	uint64_t end = block + request->len_bytes / BLOCK_BYTES;

	assert(request->op == REQUEST_MAP);
	pthread_mutex_lock(&volume->lock);
	for (; block < end; block++) {
		if (run != NULL && joins(volume, run, block)) {
			run->len_bytes += BLOCK_BYTES;
			continue;
		}
		if (request->runs_count == request->runs_max)
			break;
		run = &request->runs[request->runs_count++];
		*run = (struct map_run){.off_bytes = block * BLOCK_BYTES,
					.len_bytes = BLOCK_BYTES,
					.pbn = {volume->place[block]},
					.references = volume->references[volume->place[block]]};
	}
	request->mapped_to_bytes = block * BLOCK_BYTES;
	pthread_mutex_unlock(&volume->lock);
	request->done(request, 0);
}

int volume_trim(struct volume *volume, uint64_t *ret_round)
{
	int r = 0;

	pthread_mutex_lock(&volume->lock);
	if (volume->state == VOLUME_READ_ONLY)
		r = -EROFS;
	volume->trimming = r == 0;
	*ret_round = volume->rounds + 1;
	pthread_mutex_unlock(&volume->lock);
	return r;
}

/* A trim is over when it was looked at once. */
void volume_stats(struct volume *volume, struct volume_stats *ret_stats)
{
	pthread_mutex_lock(&volume->lock);
	*ret_stats = (struct volume_stats){.state = volume->state,
					   .latched_error = EIO,
					   .latched_text = "a flush failed",
					   .size_bytes = FAKE_BYTES,
					   .store_bytes = 2 * FAKE_BYTES,
					   .same_requests = volume->same_requests,
					   .giveback_due_bytes = volume->trimming ? FAKE_BYTES : 0,
					   .giveback_failed_bytes = volume->failed_bytes,
					   .giveback_rounds = volume->rounds,
					   .discarded_bytes = volume->rounds * MIB};
	if (volume->trimming)
		volume->rounds++;
	volume->trimming = false;
	pthread_mutex_unlock(&volume->lock);
}

bool volume_try_stats(struct volume *volume, struct volume_stats *ret_stats)
{
	volume_stats(volume, ret_stats);
	return true;
}

const uint8_t *volume_uuid(const struct volume *volume)
{
	return volume->uuid;
}

uint64_t volume_size_bytes(const struct volume *volume)
{
	(void)volume;
	return FAKE_BYTES;
}
