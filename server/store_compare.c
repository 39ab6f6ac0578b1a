/* SPDX-License-Identifier: GPL-2.0-or-later */
/* store_compare - see the header */
#include "server/store_compare.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "core/base/units.h"

/* So much is compared at a time, so that what differs is looked for in a cache. */
#define STEP_BYTES   (64u << 10)
#define SAMPLE_BYTES (128u << 10)
/* What is part of a long range is most likely followed by more of it. */
#define LONG_BYTES  (1u << 20)
#define AHEAD_BYTES (2u << 20)

struct compare_thread {
	struct store_compare *compare;
	pthread_t thread;
};

struct store_compare {
	struct store_map *map;
	store_compare_finished_fn *finished;
	void *context;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct store_io *fresh; /* NEW, oldest first */
	struct store_io **fresh_last;
	struct store_io *ready;
	struct store_io **ready_last;
	unsigned sleeping;
	bool stopping;
	unsigned thread_count;
	struct compare_thread threads[STORE_COMPARE_THREADS_MAX];
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

static void read_ahead(struct store_map *map, uint64_t off_bytes, uint64_t len_bytes)
{
	if (off_bytes == STORE_ZEROS)
		return;
	store_map_touched(map, len_bytes);
	if (looks_resident(map, off_bytes, len_bytes))
		return;
	if (len_bytes >= LONG_BYTES)
		len_bytes = min_u64(len_bytes + AHEAD_BYTES, map->size_bytes - off_bytes);
	/* Advice: without it the comparison itself waits for the disk. */
	(void)posix_fadvise(map->fd, (off_t)off_bytes, (off_t)len_bytes, POSIX_FADV_WILLNEED);
}

static void append(struct store_io ***last, struct store_io *io)
{
	io->store_next = NULL;
	**last = io;
	*last = &io->store_next;
}

static struct store_io *take(struct store_io **first, struct store_io ***last)
{
	struct store_io *io = *first;

	*first = io->store_next;
	if (*first == NULL)
		*last = first;
	return io;
}

/* One thing to do; the lock is held, and let go of meanwhile. */
static void do_one(struct compare_thread *thread)
{
	struct store_compare *compare = thread->compare;
	struct store_io *io;
	int r;

	if (compare->fresh != NULL) {
		io = take(&compare->fresh, &compare->fresh_last);
		pthread_mutex_unlock(&compare->lock);
		read_ahead(compare->map, io->off_bytes, io->len_bytes);
		read_ahead(compare->map, io->other_off_bytes, io->len_bytes);
		pthread_mutex_lock(&compare->lock);
		append(&compare->ready_last, io);
		return;
	}
	io = take(&compare->ready, &compare->ready_last);
	pthread_mutex_unlock(&compare->lock);
	r = store_compare_now(compare->map, io);
	compare->finished(compare->context, io, r);
	pthread_mutex_lock(&compare->lock);
}

static void *thread_main(void *argument)
{
	struct compare_thread *thread = argument;
	struct store_compare *compare = thread->compare;
	char name[16];

	snprintf(name, sizeof(name), "compare-%u", (unsigned)(thread - compare->threads));
	prctl(PR_SET_NAME, name);
	/* Whoever else wakes has the processor at once (sched(7)). */
	(void)pthread_setschedparam(pthread_self(), SCHED_IDLE, &(struct sched_param){0});
	pthread_mutex_lock(&compare->lock);
	for (;;) {
		while (compare->fresh != NULL || compare->ready != NULL)
			do_one(thread);
		if (compare->stopping)
			break;
		compare->sleeping++;
		pthread_cond_wait(&compare->cond, &compare->lock);
		compare->sleeping--;
	}
	pthread_mutex_unlock(&compare->lock);
	return NULL;
}

static int start_threads(struct store_compare *compare, unsigned threads)
{
	sigset_t all, before;
	int r = 0;

	/* Signals are the main thread's, but for the one that a comparison may raise. */
	sigfillset(&all);
	sigdelset(&all, SIGBUS);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	for (unsigned i = 0; i < threads && r == 0; i++) {
		struct compare_thread *thread = &compare->threads[i];

		thread->compare = compare;
		r = -pthread_create(&thread->thread, NULL, thread_main, thread);
		compare->thread_count += r == 0;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r;
}

int store_compare_start(struct store_map *map, unsigned threads,
			store_compare_finished_fn *finished, void *context,
			struct store_compare **ret_compare)
{
	struct store_compare *compare = calloc(1, sizeof(*compare));
	int r;

	assert(threads > 0 && threads <= STORE_COMPARE_THREADS_MAX);
	if (compare == NULL)
		return -ENOMEM;
	compare->map = map;
	compare->finished = finished;
	compare->context = context;
	compare->fresh_last = &compare->fresh;
	compare->ready_last = &compare->ready;
	pthread_mutex_init(&compare->lock, NULL);
	pthread_cond_init(&compare->cond, NULL);
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

void store_compare_stop(struct store_compare *compare)
{
	if (compare == NULL)
		return;
	pthread_mutex_lock(&compare->lock);
	assert(compare->fresh == NULL && compare->ready == NULL);
	compare->stopping = true;
	pthread_cond_broadcast(&compare->cond);
	pthread_mutex_unlock(&compare->lock);
	for (unsigned i = 0; i < compare->thread_count; i++)
		pthread_join(compare->threads[i].thread, NULL);
	pthread_cond_destroy(&compare->cond);
	pthread_mutex_destroy(&compare->lock);
	free(compare);
}

void store_compare_submit(struct store_compare *compare, struct store_io *io)
{
	assert(io->op == STORE_COMPARE);
	pthread_mutex_lock(&compare->lock);
	append(&compare->fresh_last, io);
	if (compare->sleeping > 0)
		pthread_cond_signal(&compare->cond);
	pthread_mutex_unlock(&compare->lock);
}
