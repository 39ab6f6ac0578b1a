/* SPDX-License-Identifier: GPL-2.0-or-later */
/* dedupe_reader - see the header */
#include "cli/dedupe/dedupe_reader.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cli/base/client_nbd.h"
#include "cli/base/say.h"
#include "core/base/units.h"

#define POLL_MS 200 /* how soon a thread that waits for data sees that it is to stop */

/* --- lists --- */

static void push(struct dedupe_jobs *jobs, struct dedupe_job *job)
{
	job->next = NULL;
	if (jobs->first == NULL)
		jobs->first = job;
	else
		jobs->last->next = job;
	jobs->last = job;
}

static struct dedupe_job *pop(struct dedupe_jobs *jobs)
{
	struct dedupe_job *job = jobs->first;

	if (job != NULL)
		jobs->first = job->next;
	return job;
}

/* --- a thread --- */

static void hash_pieces(struct dedupe_job *job)
{
	for (uint32_t i = 0; i < job->piece_count; i++) {
		const struct dedupe_piece *piece = &job->pieces[i];

		for (uint32_t b = piece->index; b < piece->index + (uint32_t)piece->blocks; b++)
			job->hashes[b] = dedupe_hash_block(job->data + (size_t)b * BLOCK_BYTES);
	}
}

static void finish(struct dedupe_reader *reader, struct dedupe_job *job)
{
	if (job->error == 0)
		hash_pieces(job);
	pthread_mutex_lock(&reader->lock);
	push(&reader->finished, job);
	pthread_cond_signal(&reader->done);
	pthread_mutex_unlock(&reader->lock);
}

static void drop(struct dedupe_reader_thread *thread, struct dedupe_job *job)
{
	for (unsigned i = 0; i < DEDUPE_READER_DEPTH; i++)
		if (thread->under_way[i] == job)
			thread->under_way[i] = NULL;
}

/* From inside nbd_poll() and nbd_aio_pread(). */
static int piece_done(void *context, int *error)
{
	struct dedupe_job *job = context;

	if (*error != 0 && job->error == 0)
		job->error = *error;
	assert(job->pieces_left > 0);
	job->pieces_left--;
	return 1;
}

/* The connection is lost: what it had under way has failed, and nothing more is begun. */
static void break_off(struct dedupe_reader_thread *thread)
{
	struct dedupe_reader *reader = thread->reader;

	/* No callback comes after this. */
	nbd_close(thread->nbd);
	thread->nbd = NULL;
	for (unsigned i = 0; i < DEDUPE_READER_DEPTH; i++) {
		struct dedupe_job *job = thread->under_way[i];

		thread->under_way[i] = NULL;
		if (job == NULL)
			continue;
		job->error = EPIPE;
		finish(reader, job);
	}
}

/* False: the connection is lost. */
static bool ask(struct dedupe_reader_thread *thread, struct dedupe_job *job)
{
	job->pieces_left = job->piece_count;
	for (uint32_t i = 0; i < job->piece_count; i++) {
		const struct dedupe_piece *piece = &job->pieces[i];
		uint64_t off = job->number * REGION_BYTES + (uint64_t)piece->index * BLOCK_BYTES;
		nbd_completion_callback done = {.callback = piece_done, .user_data = job};

		if (nbd_aio_pread(thread->nbd, job->data + (size_t)piece->index * BLOCK_BYTES,
				  (size_t)piece->blocks * BLOCK_BYTES, off, done, 0) < 0)
			return false;
	}
	return true;
}

/* Jobs of which all has come. Returns how many are still under way. */
static unsigned finish_jobs(struct dedupe_reader_thread *thread)
{
	unsigned left = 0;

	for (unsigned i = 0; i < DEDUPE_READER_DEPTH; i++) {
		struct dedupe_job *job = thread->under_way[i];

		if (job == NULL)
			continue;
		if (job->pieces_left > 0) {
			left++;
			continue;
		}
		drop(thread, job);
		finish(thread->reader, job);
	}
	return left;
}

/* The next job, waited for if none is under way. NULL: none now. */
static struct dedupe_job *next_job(struct dedupe_reader_thread *thread, unsigned under_way,
				   bool *ret_stop)
{
	struct dedupe_reader *reader = thread->reader;
	struct dedupe_job *job = NULL;

	pthread_mutex_lock(&reader->lock);
	while (under_way == 0 && reader->waiting.first == NULL && !reader->stopping)
		pthread_cond_wait(&reader->work, &reader->lock);
	if (under_way < DEDUPE_READER_DEPTH)
		job = pop(&reader->waiting);
	*ret_stop = reader->stopping;
	pthread_mutex_unlock(&reader->lock);
	for (unsigned i = 0; job != NULL && i < DEDUPE_READER_DEPTH; i++)
		if (thread->under_way[i] == NULL) {
			thread->under_way[i] = job;
			break;
		}
	return job;
}

static void *run_thread(void *argument)
{
	struct dedupe_reader_thread *thread = argument;
	unsigned under_way = 0;

	for (;;) {
		bool stop, good = true;
		struct dedupe_job *job = next_job(thread, under_way, &stop);

		if (stop)
			return NULL;
		if (job != NULL && thread->nbd == NULL) {
			drop(thread, job);
			job->error = EPIPE;
			finish(thread->reader, job);
			continue;
		}
		if (job != NULL) {
			under_way++;
			good = ask(thread, job);
		} else if (under_way > 0) {
			good = nbd_poll(thread->nbd, POLL_MS) >= 0;
		}
		if (!good)
			break_off(thread);
		under_way = finish_jobs(thread);
	}
}

/* --- the owner --- */

static int connect_thread(struct dedupe_reader_thread *thread, const char *control_path)
{
	int fd = client_nbd_connect(control_path);

	if (fd < 0)
		return -EIO;
	thread->nbd = nbd_create();
	if (thread->nbd == NULL) {
		close(fd);
	} else {
		nbd_set_pread_initialize(thread->nbd, false);
		if (nbd_connect_socket(thread->nbd, fd) == 0)
			return 0;
	}
	say_error("cannot read the volume through", control_path, "%s", nbd_get_error());
	return -EIO;
}

/* Signals are the main thread's. */
static int start_thread(struct dedupe_reader *reader, struct dedupe_reader_thread *thread)
{
	sigset_t all, old;
	int error;

	thread->reader = reader;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	error = pthread_create(&thread->thread, NULL, run_thread, thread);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (error != 0)
		say_error("cannot read the volume", "", "%s", strerror(error));
	return -error;
}

static int make_jobs(struct dedupe_reader *reader, uint64_t memory_bytes, unsigned threads)
{
	uint64_t count = memory_bytes / REGION_BYTES;

	count = min_u64(count, (uint64_t)threads * DEDUPE_READER_DEPTH);
	if (count < threads)
		count = threads;
	reader->job_count = (unsigned)count;
	reader->memory = mmap(NULL, count * REGION_BYTES, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (reader->memory == MAP_FAILED) {
		reader->memory = NULL;
		say_error("cannot read the volume", "", "%s", strerror(ENOMEM));
		return -ENOMEM;
	}
	for (unsigned i = 0; i < count; i++) {
		reader->jobs[i].data = reader->memory + i * REGION_BYTES;
		dedupe_reader_release(reader, &reader->jobs[i]);
	}
	return 0;
}

int dedupe_reader_start(struct dedupe_reader *reader, const char *control_path,
			uint64_t memory_bytes)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned threads = processors < 1 ? 1
			   : processors > (long)DEDUPE_READER_THREADS_MAX
				   ? DEDUPE_READER_THREADS_MAX
				   : (unsigned)processors;
	int r;

	memset(reader, 0, sizeof(*reader));
	pthread_mutex_init(&reader->lock, NULL);
	pthread_cond_init(&reader->work, NULL);
	pthread_cond_init(&reader->done, NULL);
	r = make_jobs(reader, memory_bytes, threads);
	for (unsigned i = 0; r == 0 && i < threads; i++) {
		r = connect_thread(&reader->threads[i], control_path);
		if (r == 0)
			r = start_thread(reader, &reader->threads[i]);
		if (r == 0)
			reader->thread_count++;
		else
			nbd_close(reader->threads[i].nbd);
	}
	if (r < 0)
		dedupe_reader_stop(reader);
	return r;
}

void dedupe_reader_stop(struct dedupe_reader *reader)
{
	pthread_mutex_lock(&reader->lock);
	reader->stopping = true;
	pthread_cond_broadcast(&reader->work);
	pthread_mutex_unlock(&reader->lock);
	for (unsigned i = 0; i < reader->thread_count; i++) {
		pthread_join(reader->threads[i].thread, NULL);
		nbd_close(reader->threads[i].nbd);
	}
	pthread_cond_destroy(&reader->done);
	pthread_cond_destroy(&reader->work);
	pthread_mutex_destroy(&reader->lock);
	if (reader->memory != NULL)
		munmap(reader->memory, reader->job_count * REGION_BYTES);
	reader->memory = NULL;
}

struct dedupe_job *dedupe_reader_job(struct dedupe_reader *reader)
{
	struct dedupe_job *job = reader->free;

	if (job != NULL)
		reader->free = job->next;
	return job;
}

void dedupe_reader_put(struct dedupe_reader *reader, struct dedupe_job *job)
{
	job->error = 0;
	pthread_mutex_lock(&reader->lock);
	push(&reader->waiting, job);
	pthread_cond_signal(&reader->work);
	pthread_mutex_unlock(&reader->lock);
	reader->out++;
}

struct dedupe_job *dedupe_reader_take(struct dedupe_reader *reader)
{
	struct dedupe_job *job;

	if (reader->out == 0)
		return NULL;
	pthread_mutex_lock(&reader->lock);
	while ((job = pop(&reader->finished)) == NULL)
		pthread_cond_wait(&reader->done, &reader->lock);
	pthread_mutex_unlock(&reader->lock);
	reader->out--;
	return job;
}

void dedupe_reader_release(struct dedupe_reader *reader, struct dedupe_job *job)
{
	job->next = reader->free;
	reader->free = job;
}
