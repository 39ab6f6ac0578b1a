/* SPDX-License-Identifier: GPL-2.0-or-later */
/* store_compare - see the header */
#include "server/store/store_compare.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/base/mutant.h"
#include "core/base/units.h"

/* So much is compared at a time, so that what differs is looked for in a cache. */
#define STEP_BYTES   (64u << 10)
#define SAMPLE_BYTES (128u << 10)
#define PAGE_BYTES   4096u
/* What is part of a long range is most likely followed by more of it. */
#define LONG_BYTES  (1u << 20)
#define AHEAD_BYTES (2u << 20)
/* A disk has enough to do with so much, and is through with it in a moment. */
#define ADVISED_BYTES_MAX (16u << 20)
#define COMPARE_NICE	  10
#define THREADS_MAX	  (STORE_COMPARE_THREADS_MAX + 2)

struct io_queue {
	struct store_io *first; /* oldest first */
	struct store_io **last;
	pthread_cond_t cond; /* what is done with it has somebody asleep */
	unsigned sleeping;
};

struct compare_thread;

/* What a thread does: true if there was something; the lock is held, and let go of meanwhile. */
typedef bool work_fn(struct store_compare *compare);

struct compare_thread {
	struct store_compare *compare;
	pthread_t thread;
	const char *name;
	int nice;
	work_fn *work;
	struct io_queue *queue; /* where it waits when there is nothing to do */
};

struct store_compare {
	struct store_map *map;
	struct store_gate *gate;
	store_compare_finished_fn *finished;
	void *context;
	pthread_mutex_t lock;
	struct io_queue fresh, advised, ready, urgent;
	uint64_t advised_bytes;
	bool stopping;
	unsigned thread_count;
	struct compare_thread threads[THREADS_MAX];
};

/* --- comparing, with a way out for a page that cannot be read --- */

static _Thread_local sigjmp_buf way_out;
static _Thread_local volatile sig_atomic_t has_way_out;

static void on_sigbus(int number)
{
	if (has_way_out) {
		has_way_out = 0;
		siglongjmp(way_out, 1);
	}
	/* Nobody expected it: the instruction is tried again, and ends the process. */
	signal(number, SIG_DFL);
}

static int catch_sigbus(void)
{
	/* The handler is left by a jump that restores no mask, so the signal is not blocked. */
	struct sigaction action = {.sa_handler = on_sigbus, .sa_flags = SA_NODEFER};

	sigemptyset(&action.sa_mask);
	return sigaction(SIGBUS, &action, NULL) < 0 ? -errno : 0;
}

static bool equal(const uint8_t *a, const uint8_t *b, uint64_t len)
{
	if (b != NULL)
		return memcmp(a, b, len) == 0;
	return a[0] == 0 && memcmp(a, a + 1, len - 1) == 0;
}

/* Bounded: it may have become equal meanwhile, and then the next bytes are as good as these. */
static uint64_t first_difference(const uint8_t *a, const uint8_t *b, uint64_t len)
{
	uint64_t i = 0;

	while (i < len && a[i] == (b != NULL ? b[i] : 0))
		i++;
	return i;
}

static uint64_t equal_bytes(const uint8_t *a, const uint8_t *b, uint64_t len)
{
	for (uint64_t at = 0; at < len; at += STEP_BYTES) {
		const uint8_t *b_at = b != NULL ? b + at : NULL;
		uint64_t step = min_u64(STEP_BYTES, len - at);

		if (!equal(a + at, b_at, step)) {
			uint64_t same = first_difference(a + at, b_at, step);

			if (same < step)
				return at + same;
		}
	}
	return len;
}

int store_compare_now(const struct store_map *map, struct store_io *io)
{
	const uint8_t *other =
		io->other_off_bytes == STORE_ZEROS ? NULL : map->bytes + io->other_off_bytes;

	if (sigsetjmp(way_out, 0) != 0)
		return -EIO;
	has_way_out = 1;
	atomic_signal_fence(memory_order_seq_cst);
	io->equal_bytes = equal_bytes(map->bytes + io->off_bytes, other, io->len_bytes);
	atomic_signal_fence(memory_order_seq_cst);
	has_way_out = 0;
	return 0;
}

/* --- the threads --- */

/* Whether a page here and there is in memory: the others most likely are what these are. */
static bool looks_resident(const struct store_map *map, uint64_t off_bytes, uint64_t len_bytes)
{
	for (uint64_t at = 0; at < len_bytes; at += SAMPLE_BYTES) {
		unsigned char page;

		if (mincore(map->bytes + off_bytes + at, 1, &page) < 0 || (page & 1) == 0)
			return false;
	}
	return true;
}

static void read_ahead(struct store_compare *compare, uint64_t off_bytes, uint64_t len_bytes)
{
	struct store_map *map = compare->map;

	if (off_bytes == STORE_ZEROS)
		return;
	store_map_touched(map, len_bytes);
	if (looks_resident(map, off_bytes, len_bytes))
		return;
	if (len_bytes >= LONG_BYTES)
		len_bytes = min_u64(len_bytes + AHEAD_BYTES, map->size_bytes - off_bytes);
	store_gate_enter(compare->gate);
	/* Advice: without it the comparison itself waits for the disk. */
	(void)posix_fadvise(map->fd, (off_t)off_bytes, (off_t)len_bytes, POSIX_FADV_WILLNEED);
	store_gate_leave(compare->gate);
}

/* Waits until the pages are in memory and in the page table, so that whoever looks at them takes no
 * lock. One that cannot be read is found by who compares. */
static void bring_in(struct store_compare *compare, uint64_t off_bytes, uint64_t len_bytes)
{
	const struct store_map *map = compare->map;
	uint64_t begin = off_bytes / PAGE_BYTES * PAGE_BYTES;

	if (off_bytes == STORE_ZEROS)
		return;
	store_gate_enter(compare->gate);
	(void)madvise(map->bytes + begin, off_bytes + len_bytes - begin, MADV_POPULATE_READ);
	store_gate_leave(compare->gate);
}

static void queue_init(struct io_queue *queue)
{
	queue->first = NULL;
	queue->last = &queue->first;
	queue->sleeping = 0;
	pthread_cond_init(&queue->cond, NULL);
}

static void append(struct io_queue *queue, struct store_io *io)
{
	io->store_next = NULL;
	*queue->last = io;
	queue->last = &io->store_next;
	if (queue->sleeping > 0)
		pthread_cond_signal(&queue->cond);
}

/* NULL: there is none. */
static struct store_io *take(struct io_queue *queue)
{
	struct store_io *io = queue->first;

	if (io == NULL)
		return NULL;
	queue->first = io->store_next;
	if (queue->first == NULL)
		queue->last = &queue->first;
	return io;
}

static bool advise_one(struct store_compare *compare)
{
	struct store_io *io = NULL;

	if (compare->advised.first == NULL || compare->advised_bytes < ADVISED_BYTES_MAX)
		io = take(&compare->fresh);
	if (io == NULL)
		return false;
	compare->advised_bytes += 2 * io->len_bytes;
	pthread_mutex_unlock(&compare->lock);
	read_ahead(compare, io->off_bytes, io->len_bytes);
	read_ahead(compare, io->other_off_bytes, io->len_bytes);
	pthread_mutex_lock(&compare->lock);
	append(&compare->advised, io);
	return true;
}

static bool fetch_one(struct store_compare *compare)
{
	struct store_io *io;

	if (advise_one(compare))
		return true;
	io = take(&compare->advised);
	if (io == NULL)
		return false;
	pthread_mutex_unlock(&compare->lock);
	bring_in(compare, io->off_bytes, io->len_bytes);
	bring_in(compare, io->other_off_bytes, io->len_bytes);
	pthread_mutex_lock(&compare->lock);
	compare->advised_bytes -= 2 * io->len_bytes;
	append(&compare->ready, io);
	return true;
}

static void finish_one(struct store_compare *compare, struct store_io *io)
{
	compare->finished(compare->context, io, store_compare_now(compare->map, io));
	pthread_mutex_lock(&compare->lock);
}

static bool compare_one(struct store_compare *compare)
{
	struct store_io *io = take(&compare->ready);

	if (io == NULL)
		return false;
	pthread_mutex_unlock(&compare->lock);
	finish_one(compare, io);
	return true;
}

static bool hurry_one(struct store_compare *compare)
{
	struct store_io *io = take(&compare->urgent);

	if (io == NULL)
		return false;
	pthread_mutex_unlock(&compare->lock);
	read_ahead(compare, io->off_bytes, io->len_bytes);
	read_ahead(compare, io->other_off_bytes, io->len_bytes);
	bring_in(compare, io->off_bytes, io->len_bytes);
	bring_in(compare, io->other_off_bytes, io->len_bytes);
	finish_one(compare, io);
	return true;
}

static void *thread_main(void *argument)
{
	struct compare_thread *thread = argument;
	struct store_compare *compare = thread->compare;

	prctl(PR_SET_NAME, thread->name);
	if (MUTANT(65) && thread->nice > 0) /* it runs when nobody else wants to, locks or not */
		(void)pthread_setschedparam(pthread_self(), SCHED_IDLE, &(struct sched_param){0});
	/* Of this thread alone, on Linux. Where it is not allowed it is as fast as the others. */
	if (thread->nice > 0)
		(void)setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + thread->nice);
	pthread_mutex_lock(&compare->lock);
	for (;;) {
		while (thread->work(compare))
			;
		if (compare->stopping)
			break;
		thread->queue->sleeping++;
		pthread_cond_wait(&thread->queue->cond, &compare->lock);
		thread->queue->sleeping--;
	}
	pthread_mutex_unlock(&compare->lock);
	return NULL;
}

static int start_thread(struct store_compare *compare, const char *name, int nice, work_fn *work,
			struct io_queue *queue)
{
	struct compare_thread *thread = &compare->threads[compare->thread_count];
	int r;

	assert(compare->thread_count < THREADS_MAX);
	thread->compare = compare;
	thread->nice = nice;
	thread->work = work;
	thread->queue = queue;
	thread->name = name;
	r = -pthread_create(&thread->thread, NULL, thread_main, thread);
	compare->thread_count += r == 0;
	return r;
}

static int start_threads(struct store_compare *compare, unsigned threads)
{
	sigset_t all, before;
	int r;

	/* Signals are the main thread's, but for the one that a comparison may raise. */
	sigfillset(&all);
	sigdelset(&all, SIGBUS);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = start_thread(compare, "fetch", 0, fetch_one, &compare->fresh);
	if (r == 0)
		r = start_thread(compare, "urgent", 0, hurry_one, &compare->urgent);
	for (unsigned i = 0; i < threads && r == 0; i++)
		r = start_thread(compare, "compare", COMPARE_NICE, compare_one, &compare->ready);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r;
}

int store_compare_start(struct store_map *map, struct store_gate *gate, unsigned threads,
			store_compare_finished_fn *finished, void *context,
			struct store_compare **ret_compare)
{
	struct store_compare *compare = calloc(1, sizeof(*compare));
	int r;

	assert(threads > 0 && threads <= STORE_COMPARE_THREADS_MAX);
	if (compare == NULL)
		return -ENOMEM;
	compare->map = map;
	compare->gate = gate;
	compare->finished = finished;
	compare->context = context;
	queue_init(&compare->fresh);
	queue_init(&compare->advised);
	queue_init(&compare->ready);
	queue_init(&compare->urgent);
	pthread_mutex_init(&compare->lock, NULL);
	r = catch_sigbus();
	if (r == 0)
		r = start_threads(compare, threads);
	if (r < 0) {
		store_compare_stop(compare);
		return r;
	}
	*ret_compare = compare;
	return 0;
}

static void queue_done(struct io_queue *queue)
{
	assert(queue->first == NULL);
	pthread_cond_destroy(&queue->cond);
}

void store_compare_stop(struct store_compare *compare)
{
	if (compare == NULL)
		return;
	pthread_mutex_lock(&compare->lock);
	compare->stopping = true;
	pthread_cond_broadcast(&compare->fresh.cond);
	pthread_cond_broadcast(&compare->ready.cond);
	pthread_cond_broadcast(&compare->urgent.cond);
	pthread_mutex_unlock(&compare->lock);
	for (unsigned i = 0; i < compare->thread_count; i++)
		pthread_join(compare->threads[i].thread, NULL);
	queue_done(&compare->fresh);
	queue_done(&compare->advised);
	queue_done(&compare->ready);
	queue_done(&compare->urgent);
	pthread_mutex_destroy(&compare->lock);
	free(compare);
}

void store_compare_submit(struct store_compare *compare, struct store_io *io)
{
	assert(io->op == STORE_COMPARE);
	pthread_mutex_lock(&compare->lock);
	append(io->urgent ? &compare->urgent : &compare->fresh, io);
	pthread_mutex_unlock(&compare->lock);
}
