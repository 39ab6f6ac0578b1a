/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ctl_call - see the header */
#include "server/control/ctl_call.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define ANSWER_BYTES_PER_DST	160u
#define ANSWER_BYTES_PER_RUN	100u
#define ANSWER_BYTES_PER_CHANGE 60u
#define LOOK_PAUSE_NS		5000000
#define LOOK_TRIES		100u
#define RANGES_A_RUN		16u /* some 20 us; then others have their turn */

static_assert(CTL_JOBS_MAX < 32, "slots are bits of a uint32_t");

int ctl_calls_init(struct ctl_calls *calls, struct volume *volume, struct worker *const *workers,
		   unsigned worker_count)
{
	void *scratch = mmap(NULL, (size_t)CTL_JOBS_MAX * SAME_SCRATCH_BYTES,
			     PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	if (scratch == MAP_FAILED || event_fd < 0) {
		int error = errno;

		if (scratch != MAP_FAILED)
			munmap(scratch, (size_t)CTL_JOBS_MAX * SAME_SCRATCH_BYTES);
		if (event_fd >= 0)
			close(event_fd);
		return -error;
	}
	*calls = (struct ctl_calls){.volume = volume,
				    .worker = workers[0],
				    .workers = workers,
				    .worker_count = worker_count,
				    .event_fd = event_fd,
				    .free_slots = (1u << CTL_JOBS_MAX) - 1,
				    .scratch = scratch};
	list_init(&calls->waiting);
	list_init(&calls->all);
	list_init(&calls->finished);
	pthread_mutex_init(&calls->lock, NULL);
	volume_stats(volume, &calls->seen);
	return 0;
}

void ctl_calls_done(struct ctl_calls *calls)
{
	assert(list_empty(&calls->all));
	pthread_mutex_destroy(&calls->lock);
	close(calls->event_fd);
	munmap(calls->scratch, (size_t)CTL_JOBS_MAX * SAME_SCRATCH_BYTES);
}

size_t ctl_call_bytes(const struct ctl_rpc_call *rpc)
{
	size_t bytes = sizeof(struct ctl_call);

	bytes += rpc->dst_count *
		 (sizeof(uint64_t) + (rpc->ranges != NULL ? sizeof(struct ctl_range) : 0) +
		  sizeof(struct same_dst) + ANSWER_BYTES_PER_DST);
	if (rpc->method == CTL_METHOD_MAP)
		bytes += CTL_MAP_RUNS_MAX * (sizeof(struct map_run) + ANSWER_BYTES_PER_RUN);
	if (rpc->method == CTL_METHOD_CHANGES)
		bytes += CTL_CHANGES_MAX * (sizeof(struct map_run) + ANSWER_BYTES_PER_CHANGE);
	return bytes;
}

/* From the worker, and from the control thread for calls that never got there. The lock is held
 * while the event is raised: once the call is reaped, all of calls may go away. */
static void finish_call(struct ctl_call *call)
{
	struct ctl_calls *calls = call->calls;
	uint64_t one = 1;
	ssize_t written;
	bool was_empty;

	pthread_mutex_lock(&calls->lock);
	/* It is up as long as the list is not empty: see ctl_calls_reap(). */
	was_empty = list_empty(&calls->finished);
	list_add_tail(&calls->finished, &call->node);
	if (was_empty) {
		written = write(calls->event_fd, &one, sizeof(one));
		assert(written == sizeof(one) || errno == EAGAIN);
	}
	pthread_mutex_unlock(&calls->lock);
}

static void fail_call(struct ctl_call *call, int error, const char *message)
{
	call->error = error;
	call->message = message;
	finish_call(call);
}

/* --- on the worker's thread --- */

static void job_done(struct same_job *job, int res)
{
	struct ctl_call *call = job->context;

	assert(call->magic == CTL_CALL_MAGIC);
	if (res < 0)
		fail_call(call, -res, job->message != NULL ? job->message : strerror(-res));
	else
		finish_call(call);
}

static void start_job(struct ctl_call *call)
{
	struct ctl_calls *calls = call->calls;

	call->job = (struct same_job){
		.src_off_bytes = call->rpc.src_off_bytes,
		.len_bytes = call->rpc.len_bytes,
		.dsts = call->dsts,
		.dst_count = call->rpc.dst_count,
		.clone = call->rpc.method == CTL_METHOD_CLONE,
		.sync = call->rpc.sync || (calls->lasting && call->rpc.method == CTL_METHOD_CLONE),
		.scratch = calls->scratch + (size_t)call->slot * SAME_SCRATCH_BYTES,
		.cancel = &call->cancel,
		.volume = calls->volume,
		.worker = call->task.worker,
		.done = job_done,
		.context = call,
	};
	same_job_submit(&call->job);
}

static void run_ranges(struct ctl_call *call);

/* What would fail the whole request is this range's answer: the others stand for themselves. */
static void range_done(struct same_job *job, int res)
{
	struct ctl_call *call = job->context;

	assert(call->magic == CTL_CALL_MAGIC);
	if (res < 0) {
		job->dsts->error = res;
		job->dsts->message = job->message;
	}
	call->next_range++;
	if (call->range_submitting)
		call->range_answered = true; /* at once: run_ranges() goes on in its loop */
	else
		run_ranges(call);
}

static void submit_range(struct ctl_call *call)
{
	const struct ctl_range *range = &call->rpc.ranges[call->next_range];

	call->job.src_off_bytes = range->src_off_bytes;
	call->job.len_bytes = range->len_bytes;
	call->job.dsts = &call->dsts[call->next_range];
	call->job.dst_count = 1;
	same_job_submit(&call->job);
}

static void run_ranges_again(struct task *task)
{
	run_ranges(container_of(task, struct ctl_call, task));
}

static void start_ranges(struct ctl_call *call)
{
	call->job.scratch = call->calls->scratch + (size_t)call->slot * SAME_SCRATCH_BYTES;
	call->job.cancel = &call->cancel;
	call->job.volume = call->calls->volume;
	call->job.worker = call->task.worker;
	call->job.done = range_done;
	call->job.context = call;
	run_ranges(call);
}

/* A job without destinations, of which only the flush is left. */
static void submit_flush(struct ctl_call *call)
{
	call->job.len_bytes = 0;
	call->job.dst_count = 0;
	call->job.sync = true;
	call->job.done = job_done;
	same_job_submit(&call->job);
}

/* All the ranges that need no waiting, some at a time, and up to the first that does. */
static void run_ranges(struct ctl_call *call)
{
	for (unsigned run = 0; call->next_range < call->rpc.dst_count; run++) {
		if (run == RANGES_A_RUN) {
			call->task.run = run_ranges_again;
			worker_post(&call->task);
			return;
		}
		call->range_submitting = true;
		call->range_answered = false;
		submit_range(call);
		call->range_submitting = false;
		if (!call->range_answered)
			return;
	}
	if (call->rpc.sync)
		submit_flush(call);
	else
		finish_call(call);
}

static void map_done(struct request *request, int res)
{
	struct ctl_call *call = request->context;

	assert(call->magic == CTL_CALL_MAGIC);
	if (res < 0)
		fail_call(call, -res, strerror(-res));
	else
		finish_call(call);
}

static void start_map(struct ctl_call *call)
{
	uint64_t off = call->rpc.off_bytes;
	uint64_t size = call->size_bytes;
	uint64_t len = call->rpc.has_len ? call->rpc.len_bytes : off < size ? size - off : 0;

	if (off % BLOCK_BYTES != 0 || len % BLOCK_BYTES != 0 || off > size || len > size - off) {
		snprintf(call->text, sizeof(call->text),
			 "offset and length must be multiples of %u inside the volume's %llu bytes",
			 BLOCK_BYTES, (unsigned long long)size);
		fail_call(call, EINVAL, call->text);
		return;
	}
	call->rpc.len_bytes = len;
	if (len == 0) {
		finish_call(call);
		return;
	}
	call->map = (struct request){
		.op = REQUEST_MAP,
		.off_bytes = off,
		.len_bytes = min_u64(len, CTL_MAP_BYTES_MAX),
		.runs = call->runs,
		.runs_max = CTL_MAP_RUNS_MAX,
		.volume = call->calls->volume,
		.worker = call->task.worker,
		.done = map_done,
		.context = call,
	};
	request_submit(&call->map);
}

static void start_changes(struct ctl_call *call)
{
	uint64_t from = call->rpc.off_bytes;

	if (from > call->size_bytes) {
		snprintf(call->text, sizeof(call->text),
			 "from must be inside the volume's %llu bytes",
			 (unsigned long long)call->size_bytes);
		fail_call(call, EINVAL, call->text);
		return;
	}
	call->map = (struct request){
		.op = REQUEST_CHANGES,
		.off_bytes = from,
		.len_bytes = call->size_bytes - from,
		.since = call->rpc.since,
		.runs = call->runs,
		.runs_max = CTL_CHANGES_MAX,
		.volume = call->calls->volume,
		.worker = call->calls->worker,
		.done = map_done,
		.context = call,
	};
	request_submit(&call->map);
}

static void start_trim(struct ctl_call *call)
{
	int r = volume_trim(call->calls->volume, &call->round);

	if (r == -EOPNOTSUPP)
		fail_call(call, -r,
			  "nothing is given back to this store: --discard=off, or it cannot be");
	else if (r < 0)
		fail_call(call, -r, r == -EROFS ? "the volume is read-only" : strerror(-r));
	else
		finish_call(call);
}

static void run_call(struct task *task)
{
	struct ctl_call *call = container_of(task, struct ctl_call, task);

	assert(call->magic == CTL_CALL_MAGIC);
	call->size_bytes = volume_size_bytes(call->calls->volume);
	switch (call->rpc.method) {
	case CTL_METHOD_SAME:
	case CTL_METHOD_CLONE:
		start_job(call);
		return;
	case CTL_METHOD_SAME_RANGES:
		start_ranges(call);
		return;
	case CTL_METHOD_MAP:
		start_map(call);
		return;
	case CTL_METHOD_CHANGES:
		start_changes(call);
		return;
	case CTL_METHOD_TRIM:
		start_trim(call);
		return;
	case CTL_METHOD_STATUS:
	case CTL_METHOD_STATS:
	case CTL_METHOD_NBD:
	case CTL_METHOD_STOP:
	case CTL_METHOD_DETACH:
		break;
	}
	assert(!"a call that is no business of the volume");
}

/* --- on the control thread --- */

static bool needs_slot(const struct ctl_call *call)
{
	return call->rpc.method == CTL_METHOD_SAME || call->rpc.method == CTL_METHOD_SAME_RANGES ||
	       call->rpc.method == CTL_METHOD_CLONE;
}

static bool needs_worker(const struct ctl_call *call)
{
	return call->rpc.method != CTL_METHOD_STATUS && call->rpc.method != CTL_METHOD_STATS;
}

/* At once, whatever the store does to the workers. Should one of them keep the metadata lock, what
 * was seen last has to do. */
static void look(struct ctl_call *call)
{
	const struct timespec pause = {.tv_nsec = LOOK_PAUSE_NS};
	struct ctl_calls *calls = call->calls;
	unsigned tries = 1;

	while (!volume_try_stats(calls->volume, &call->stats) && tries++ < LOOK_TRIES)
		nanosleep(&pause, NULL);
	if (tries > LOOK_TRIES)
		call->stats = calls->seen;
	else
		calls->seen = call->stats;
	call->size_bytes = volume_size_bytes(calls->volume);
	memcpy(call->uuid, volume_uuid(calls->volume), CTL_UUID_BYTES);
	finish_call(call);
}

static void post_call(struct ctl_call *call)
{
	if (!needs_worker(call)) {
		look(call);
		return;
	}
	if (needs_slot(call)) {
		call->slot = (uint32_t)__builtin_ctz(call->calls->free_slots);
		call->calls->free_slots &= ~(1u << call->slot);
		call->task.worker = call->calls->workers[call->calls->next_worker];
		call->calls->next_worker =
			(call->calls->next_worker + 1) % call->calls->worker_count;
	}
	worker_post(&call->task);
}

static bool allocate_arrays(struct ctl_call *call)
{
	const struct ctl_rpc_call *rpc = &call->rpc;

	if (rpc->method == CTL_METHOD_MAP || rpc->method == CTL_METHOD_CHANGES) {
		call->runs =
			calloc(rpc->method == CTL_METHOD_MAP ? CTL_MAP_RUNS_MAX : CTL_CHANGES_MAX,
			       sizeof(*call->runs));
		return call->runs != NULL;
	}
	if (rpc->dst_count == 0)
		return true;
	call->dsts = calloc(rpc->dst_count, sizeof(*call->dsts));
	if (call->dsts == NULL)
		return false;
	for (uint32_t i = 0; i < rpc->dst_count; i++)
		call->dsts[i].off_bytes = rpc->dsts[i];
	return true;
}

struct ctl_call *ctl_call_start(struct ctl_calls *calls, struct ctl_rpc_call *rpc, void *owner)
{
	struct ctl_call *call = calloc(1, sizeof(*call));

	if (call == NULL)
		return NULL;
	call->magic = CTL_CALL_MAGIC;
	call->calls = calls;
	call->owner = owner;
	call->rpc = *rpc;
	call->slot = CTL_NO_SLOT;
	call->task.worker = calls->worker;
	call->task.run = run_call;
	list_init(&call->node);
	list_init(&call->all_node);
	if (!allocate_arrays(call)) {
		call->rpc = (struct ctl_rpc_call){.id = NULL};
		ctl_call_free(call);
		return NULL;
	}
	*rpc = (struct ctl_rpc_call){.id = NULL};
	list_add_tail(&calls->all, &call->all_node);
	if (needs_slot(call) && (calls->free_slots == 0 || !list_empty(&calls->waiting)))
		list_add_tail(&calls->waiting, &call->node);
	else
		post_call(call);
	return call;
}

void ctl_call_cancel(struct ctl_call *call)
{
	assert(call->magic == CTL_CALL_MAGIC);
	atomic_store(&call->cancel, true);
	/* In the waiting list means: has no slot and was not posted. Finished calls have been
	 * posted. */
	if (needs_slot(call) && call->slot == CTL_NO_SLOT && call->error == 0) {
		list_del(&call->node);
		fail_call(call, ECANCELED, "cancelled before it began");
	}
}

static struct ctl_call *pop(struct list *list)
{
	struct ctl_call *call = NULL;

	if (!list_empty(list)) {
		call = container_of(list->next, struct ctl_call, node);
		list_del(&call->node);
	}
	return call;
}

struct ctl_call *ctl_calls_reap(struct ctl_calls *calls)
{
	struct ctl_call *call;
	uint64_t count;

	pthread_mutex_lock(&calls->lock);
	call = pop(&calls->finished);
	/* The count does not matter: the list is empty now, and what comes raises the event
	 * anew. */
	if (call == NULL && read(calls->event_fd, &count, sizeof(count)) < 0)
		assert(errno == EAGAIN);
	pthread_mutex_unlock(&calls->lock);
	if (call == NULL)
		return NULL;
	if (call->slot != CTL_NO_SLOT) {
		calls->free_slots |= 1u << call->slot;
		call->slot = CTL_NO_SLOT;
		if (!list_empty(&calls->waiting))
			post_call(pop(&calls->waiting));
	}
	return call;
}

void ctl_call_free(struct ctl_call *call)
{
	assert(call->magic == CTL_CALL_MAGIC && call->slot == CTL_NO_SLOT);
	list_del(&call->all_node);
	ctl_rpc_call_done(&call->rpc);
	free(call->dsts);
	free(call->runs);
	call->magic = 0;
	free(call);
}
