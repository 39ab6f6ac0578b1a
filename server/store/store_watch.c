/* SPDX-License-Identifier: GPL-2.0-or-later */
/* store_watch - see the header */
#include "server/store/store_watch.h"

#include <assert.h>
#include <errno.h>
#include <linux/magic.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "core/base/units.h"
#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/store/store_file_internal.h"

#define STAT_BLOCK_BYTES 512u

/* What was seen of a lane. */
struct watched_lane {
	uint64_t finished;
	uint64_t since_ns; /* it finished something, or had nothing to do */
};

struct store_watch {
	struct store_file *file;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool stopping;
	bool told; /* the log says that it is silent; of the thread that tells */
	struct watched_lane lanes[];
};

/* Ext keeps something back for root. What others have free and not available is no space for data:
 * btrfs counts what its metadata could have. A thin device tells nothing. */
static void look_at_space(struct store_file *file)
{
	struct statfs fs;
	struct stat st;
	uint64_t blocks;

	if (fstat(file->fd, &st) < 0 || !S_ISREG(st.st_mode) || fstatfs(file->fd, &fs) < 0)
		return;
	blocks = fs.f_type == EXT4_SUPER_MAGIC && geteuid() == 0 ? fs.f_bfree : fs.f_bavail;
	atomic_store(&file->store.backing_free_bytes, blocks * (uint64_t)fs.f_bsize);
	atomic_store(&file->store.backing_allocated_bytes,
		     (uint64_t)st.st_blocks * STAT_BLOCK_BYTES);
	atomic_store(&file->store.backing_known, true);
}

static void probe(struct store_file *file)
{
	ssize_t written;

	atomic_store(&file->probed_ns, clock_ns());
	written = pwrite(file->fd, file, 0, 0);
	/* What it says does not matter: real writes have errors of their own. */
	(void)written;
	atomic_store(&file->probed_ns, 0);
}

/* True: it is time to end. */
static bool rest(struct store_watch *watch)
{
	struct timespec until;
	bool stopping;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += STORE_WATCH_MS * 1000000L;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&watch->lock);
	while (!watch->stopping && pthread_cond_timedwait(&watch->cond, &watch->lock, &until) == 0)
		continue;
	stopping = watch->stopping;
	pthread_mutex_unlock(&watch->lock);
	return stopping;
}

static void *thread_main(void *argument)
{
	struct store_watch *watch = argument;
	unsigned rests = 0;

	prctl(PR_SET_NAME, "store-watch");
	do {
		if (rests++ % (STORE_WATCH_SPACE_MS / STORE_WATCH_MS) == 0)
			look_at_space(watch->file);
		probe(watch->file);
	} while (!rest(watch));
	return NULL;
}

static int start_thread(struct store_watch *watch)
{
	sigset_t all, before;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&watch->thread, NULL, thread_main, watch);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -r;
}

int store_watch_start(struct store *store, struct store_watch **ret_watch)
{
	struct store_watch *watch =
		calloc(1, sizeof(*watch) + store->lane_count * sizeof(struct watched_lane));
	pthread_condattr_t attributes;
	int r = 0;

	if (watch == NULL)
		return -ENOMEM;
	watch->file = (struct store_file *)store;
	assert(watch->file->magic == STORE_FILE_MAGIC);
	for (unsigned i = 0; i < store->lane_count; i++)
		watch->lanes[i].since_ns = clock_ns();
	pthread_mutex_init(&watch->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&watch->cond, &attributes);
	pthread_condattr_destroy(&attributes);
	/* Nothing is written to one that is read-only, and no space is wanted. */
	if (!store->read_only)
		r = start_thread(watch);
	if (r < 0) {
		free(watch);
		return r;
	}
	*ret_watch = watch;
	return 0;
}

void store_watch_stop(struct store_watch *watch)
{
	if (watch == NULL)
		return;
	pthread_mutex_lock(&watch->lock);
	watch->stopping = true;
	pthread_cond_signal(&watch->cond);
	pthread_mutex_unlock(&watch->lock);
	if (!watch->file->store.read_only)
		pthread_join(watch->thread, NULL);
	pthread_cond_destroy(&watch->cond);
	pthread_mutex_destroy(&watch->lock);
	free(watch);
}

static uint64_t look_at_lane(struct watched_lane *watched, const struct store_lane *lane,
			     uint64_t now_ns)
{
	uint64_t finished = atomic_load_explicit(&lane->finished, memory_order_relaxed);

	if (finished != watched->finished ||
	    atomic_load_explicit(&lane->in_flight, memory_order_relaxed) == 0)
		watched->since_ns = now_ns;
	watched->finished = finished;
	return watched->since_ns;
}

uint64_t store_watch_silent_ms(struct store_watch *watch)
{
	struct store_file *file = watch->file;
	uint64_t probed_ns = atomic_load(&file->probed_ns);
	uint64_t now_ns = clock_ns(), since_ns = probed_ns != 0 ? probed_ns : now_ns, ms;

	pthread_mutex_lock(&watch->lock);
	for (unsigned i = 0; i < file->store.lane_count; i++)
		since_ns =
			min_u64(since_ns, look_at_lane(&watch->lanes[i], &file->lanes[i], now_ns));
	pthread_mutex_unlock(&watch->lock);
	ms = (now_ns - min_u64(since_ns, now_ns)) / 1000000;
	return ms >= STORE_WATCH_SILENT_MS ? ms : 0;
}

void store_watch_tell(struct store_watch *watch, const char *name)
{
	uint64_t silent_ms = store_watch_silent_ms(watch);

	if (!watch->told && silent_ms >= STORE_WATCH_TELL_MS) {
		watch->told = true;
		log_warn("%s has answered nothing for %u s", name, (unsigned)(silent_ms / 1000));
	} else if (watch->told && silent_ms == 0) {
		watch->told = false;
		log_warn("%s answers again", name);
	}
}
