/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * store_file - the I/O of it; see the header
 *
 *   submit ----> WAITING ----> IN KERNEL ----> done()
 *      \                        ^   |
 *       +-----------------------+   +--> again: the rest of a short transfer, or EINTR, EAGAIN
 *
 *   submit  -> WAITING    no file_io is free, others wait already, or the bounce buffer is in use
 *   WAITING -> IN KERNEL  finish_io     of another one of the lane
 *   IN KERNEL -> again    step_done     something was transferred, or less than TRIES_MAX tries
 *   IN KERNEL -> done()   finish_io     all was transferred, or an error
 *   submit  -> done()     write_now     the page cache took a whole write in a plain system call;
 *                                       done() is called by deliver()
 *
 * While a file system punches a hole nobody else writes to the file. So there is one discard at a
 * time, in pieces, and where others write (or ranges are compared, on the same processors)
 * meanwhile, each piece is followed by a pause nine times as long: what they wait for is a tenth of
 * the time, and then for one piece.
 *
 *   submit     -> DISCARDING  start_discards  alone on its lane; the others wait in order
 *   DISCARDING -> PAUSE       discarded       somebody wrote or compared since it began
 *   PAUSE      -> DISCARDING  discard_next    the next piece; or done() after the last
 *   (a piece that would wait in the kernel for who reads ahead comes again: store_gate.h)
 *
 * Comparisons go another way: store_file_compare.c.
 *
 * A buffered write is tried that way first, because a ring hands such writes to threads of its own
 * on file systems that cannot promise not to wait (ext4 among them), which costs several times the
 * copy. When the kernel makes writers wait (too many dirty pages), so does that system call; the
 * lane then leaves writes to the ring for ten times as long as it lost, so that reads beside them
 * lose a tenth of their time at most. Not so when what it waited for may have been a piece of a
 * discard, which takes no more than a tenth of the time anyway: on a file system that passes
 * discards on to the disk nearly all writes beside merges went to the ring, and each waited there
 * for a thread's turn on a busy processor. And no write is tried while the file keeps even a write
 * of nothing (store_watch.h): its filesystem is frozen, and the lane has other clients.
 */
#include "server/store/store_file_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/base/units.h"
#include "server/base/clock.h"
#include "server/store/store_watch.h"

#define TRIES_MAX 64u
/* Half a millisecond where the file system waits for the disk to forget them. */
#define DISCARD_BYTES	(1u << 20)
#define DISCARD_FACTOR	9u
#define DISCARD_NS_MAX	50000000ull
#define PIECE_BYTES_MAX (1u << 30)
#define GATE_NS		1000000
/* Longer than another thread's turn on a busy processor usually takes. */
#define STALL_NS     4000000ull
#define STALL_FACTOR 10u
#define STALL_NS_MAX 1000000000ull
#define STUCK_NS     (STORE_WATCH_STUCK_MS * 1000000ull)

static struct store_file *file_of(struct store *store)
{
	struct store_file *file = (struct store_file *)store;

	assert(file->magic == STORE_FILE_MAGIC);
	return file;
}

static struct store_lane *lane_of(struct store *store, unsigned lane)
{
	assert(lane < store->lane_count);
	return &file_of(store)->lanes[lane];
}

static void start_waiting(struct store_lane *lane);
static void start_discards(struct store_lane *lane);

static void finish_io(struct file_io *fio, int res)
{
	struct store_lane *lane = fio->lane;
	struct store_io *io = fio->io;

	assert(io->magic == STORE_IO_MAGIC);
	if (fio->bounced)
		lane->bounce_used = false;
	fio->io = NULL;
	fio->next_free = lane->free;
	lane->free = fio;
	store_lane_finish(lane);
	if (lane->discarding == io)
		lane->discarding = NULL;
	start_discards(lane);
	start_waiting(lane);
	io->magic = 0;
	io->done(io, res);
}

/* The kernel tells once that something written before could not be made durable, and it tells
 * whoever syncs first. A flush that comes later covers that too, so it has to fail as well. */
static int latch_sync_error(struct store_file *file, int res)
{
	int none = 0;

	atomic_compare_exchange_strong(&file->sync_error, &none, res);
	return atomic_load(&file->sync_error);
}

static void start_step(struct file_io *fio);

/* A failed fua write may have failed to write (then nothing but that range is concerned), or to
 * make durable what was written, by anyone. EIO is taken for the worse; out of space is tried again
 * as a plain write, which tells the two apart. */
static bool retry_without_sync(struct file_io *fio, int res)
{
	if ((res != -ENOSPC && res != -EDQUOT) || fio->without_sync)
		return false;
	fio->without_sync = true;
	start_step(fio);
	return true;
}

static void fail_step(struct file_io *fio, int res)
{
	struct store_file *file = fio->lane->file;
	struct store_io *io = fio->io;

	if (io->op == STORE_FLUSH && file->store.read_only && (res == -EINVAL || res == -EROFS)) {
		res = 0; /* a filesystem that is never written to, as squashfs, has no fsync */
	} else if (io->op == STORE_FLUSH) {
		res = latch_sync_error(file, res);
	} else if (io->op == STORE_WRITE && io->fua && !fio->without_sync) {
		if (retry_without_sync(fio, res))
			return;
		res = latch_sync_error(file, res);
	}
	finish_io(fio, res);
}

static void count_copied(struct store_lane *lane, uint32_t bytes)
{
	atomic_fetch_add_explicit(&lane->file->store.copied_bytes, bytes, memory_order_relaxed);
}

/* What a discard is in the way of. */
static void count_work(struct store_lane *lane, const struct store_io *io)
{
	uint64_t work = atomic_load_explicit(&lane->work, memory_order_relaxed);

	if (io->op == STORE_WRITE || io->op == STORE_COMPARE)
		atomic_store_explicit(&lane->work, work + 1, memory_order_relaxed);
}

static uint64_t work_so_far(const struct store_file *file)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < file->store.lane_count; i++)
		sum += atomic_load_explicit(&file->lanes[i].work, memory_order_relaxed);
	return sum;
}

static void discard_next(struct file_io *fio)
{
	if (fio->io->store_progress_bytes < fio->io->len_bytes)
		start_step(fio);
	else
		finish_io(fio, 0);
}

static void paused(struct ring_op *op, int res, uint32_t flags)
{
	(void)res;
	(void)flags;
	discard_next((struct file_io *)op);
}

/* A piece was. */
static void discarded(struct file_io *fio)
{
	struct store_lane *lane = fio->lane;
	uint64_t pause_ns = min_u64((clock_ns() - fio->began_ns) * DISCARD_FACTOR, DISCARD_NS_MAX);
	struct io_uring_sqe *sqe;

	fio->io->store_progress_bytes += fio->piece_bytes;
	fio->tries = 0;
	if (work_so_far(lane->file) == lane->work_before) {
		discard_next(fio);
		return;
	}
	fio->pause = (struct __kernel_timespec){.tv_nsec = (long long)pause_ns};
	fio->op.done = paused;
	sqe = ring_sqe(&lane->ring);
	io_uring_prep_timeout(sqe, &fio->pause, 0, 0);
	ring_tag(&lane->ring, sqe, &fio->op);
}

/* Nothing is wrong with the file, but with the memory: its alignment, or what can be done with
 * it. */
static bool refuses_foreign(int res)
{
	return res == -EINVAL || res == -EFAULT || res == -EOPNOTSUPP;
}

static void step_done(struct ring_op *op, int res, uint32_t flags)
{
	struct file_io *fio = (struct file_io *)op;
	struct store_io *io = fio->io;

	(void)flags;
	if (io->op == STORE_DISCARD) {
		atomic_fetch_sub(&fio->lane->file->discarding, 1);
		store_gate_end_punch(&fio->lane->file->gate);
	}
	if ((res == -EINTR || res == -EAGAIN) && fio->tries < TRIES_MAX) {
		fio->tries++;
		start_step(fio);
		return;
	}
	if (io->foreign != 0 && refuses_foreign(res)) {
		finish_io(fio, STORE_NEEDS_BYTES);
		return;
	}
	if (res < 0) {
		fail_step(fio, res);
		return;
	}
	if (io->op == STORE_FLUSH) {
		finish_io(fio, 0);
		return;
	}
	if (io->op == STORE_DISCARD) {
		discarded(fio);
		return;
	}
	if (res == 0) { /* the file ends here: it is shorter than when it was opened */
		fail_step(fio, -EIO);
		return;
	}
	if (fio->without_sync) { /* written now, but not durable then */
		fio->without_sync = false;
		finish_io(fio, latch_sync_error(fio->lane->file, -EIO));
		return;
	}
	assert((uint32_t)res <= fio->piece_bytes);
	if (io->op == STORE_READ && fio->bounced) {
		memcpy((uint8_t *)io->buf + io->store_progress_bytes, fio->lane->bounce,
		       (size_t)res);
		count_copied(fio->lane, (uint32_t)res);
	}
	io->store_progress_bytes += (uint32_t)res;
	fio->tries = 0;
	if (io->store_progress_bytes < io->len_bytes)
		start_step(fio);
	else
		finish_io(fio, 0);
}

/* Between the file and a buffer of the lane's ring. */
static void prepare_foreign(struct file_io *fio, struct io_uring_sqe *sqe, uint64_t off_bytes)
{
	const struct store_io *io = fio->io;
	uintptr_t at = (uintptr_t)io->buf + io->store_progress_bytes;
	int fd = fio->lane->file->fd, number = (int)io->foreign - 1;

	if (io->op == STORE_READ) {
		io_uring_prep_read_fixed(sqe, fd, (void *)at, fio->piece_bytes, off_bytes, number);
		return;
	}
	io_uring_prep_write_fixed(sqe, fd, (const void *)at, fio->piece_bytes, off_bytes, number);
	if (io->fua && !fio->without_sync)
		sqe->rw_flags = RWF_DSYNC;
}

static void prepare_transfer(struct file_io *fio, struct io_uring_sqe *sqe)
{
	struct store_lane *lane = fio->lane;
	struct store_io *io = fio->io;
	uint8_t *buf = (uint8_t *)io->buf + io->store_progress_bytes;
	uint64_t off = io->off_bytes + io->store_progress_bytes;
	uint64_t rest = io->len_bytes - io->store_progress_bytes;
	uint32_t most = fio->bounced ? STORE_BOUNCE_BYTES : PIECE_BYTES_MAX;

	if (lane->file->piece_bytes != 0 && lane->file->piece_bytes < most)
		most = lane->file->piece_bytes;
	fio->piece_bytes = rest < most ? (uint32_t)rest : most;
	if (fio->bounced) {
		if (io->op == STORE_WRITE) {
			memcpy(lane->bounce, buf, fio->piece_bytes);
			count_copied(lane, fio->piece_bytes);
		}
		buf = lane->bounce;
	}
	if (io->foreign != 0) {
		prepare_foreign(fio, sqe, off);
		return;
	}
	if (io->op == STORE_READ) {
		io_uring_prep_read(sqe, lane->file->fd, buf, fio->piece_bytes, off);
		return;
	}
	io_uring_prep_write(sqe, lane->file->fd, buf, fio->piece_bytes, off);
	if (io->fua && !fio->without_sync)
		sqe->rw_flags = RWF_DSYNC;
}

static void gate_again(struct ring_op *op, int res, uint32_t flags)
{
	(void)res;
	(void)flags;
	start_step((struct file_io *)op);
}

/* False: it would wait for who reads ahead, so it comes again (store_gate.h). */
static bool may_punch(struct file_io *fio, struct io_uring_sqe *sqe)
{
	if (store_gate_try_punch(&fio->lane->file->gate))
		return true;
	fio->pause = (struct __kernel_timespec){.tv_nsec = GATE_NS};
	fio->op.done = gate_again;
	io_uring_prep_timeout(sqe, &fio->pause, 0, 0);
	return false;
}

static void prepare_discard(struct file_io *fio, struct io_uring_sqe *sqe)
{
	const struct store_io *io = fio->io;
	uint64_t off = io->off_bytes + io->store_progress_bytes;

	fio->piece_bytes =
		(uint32_t)min_u64(io->len_bytes - io->store_progress_bytes, DISCARD_BYTES);
	fio->began_ns = clock_ns();
	fio->lane->work_before = work_so_far(fio->lane->file);
	atomic_fetch_add(&fio->lane->file->discards_begun, 1);
	atomic_fetch_add(&fio->lane->file->discarding, 1);
	io_uring_prep_fallocate(sqe, fio->lane->file->fd,
				FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off,
				(off_t)fio->piece_bytes);
}

/* The file keeps a write of nothing (store_watch.h), so it would keep this thread as well. */
static bool is_stuck(const struct store_file *file)
{
	uint64_t probed_ns = atomic_load_explicit(&file->probed_ns, memory_order_relaxed);

	return probed_ns != 0 && clock_ns() > probed_ns + STUCK_NS;
}

/* Submits what is left of the I/O. */
static void start_step(struct file_io *fio)
{
	struct store_lane *lane = fio->lane;
	struct store_io *io = fio->io;
	struct io_uring_sqe *sqe = ring_sqe(&lane->ring);
	int error = atomic_load(&lane->file->sync_error);

	fio->op.done = step_done;
	if (error != 0 && (io->op == STORE_FLUSH || (io->op == STORE_WRITE && io->fua))) {
		/* Fails, but not inside submit: there is no file with this descriptor. */
		io_uring_prep_fsync(sqe, -1, 0);
	} else if (io->op == STORE_FLUSH) {
		io_uring_prep_fsync(sqe, lane->file->fd, IORING_FSYNC_DATASYNC);
	} else if (io->op == STORE_DISCARD) {
		if (may_punch(fio, sqe))
			prepare_discard(fio, sqe);
	} else {
		prepare_transfer(fio, sqe);
		/* Some kernels wait for a frozen filesystem before they hand it over. */
		if (io->op == STORE_WRITE && is_stuck(lane->file))
			sqe->flags |= IOSQE_ASYNC;
	}
	ring_tag(&lane->ring, sqe, &fio->op);
}

static bool needs_bounce(const struct store_lane *lane, const struct store_io *io)
{
	if (!lane->file->store.direct || io->foreign != 0 ||
	    (io->op != STORE_READ && io->op != STORE_WRITE))
		return false;
	return (uintptr_t)io->buf % lane->file->memory_align_bytes != 0;
}

static bool try_start(struct store_lane *lane, struct store_io *io)
{
	bool bounced = needs_bounce(lane, io);
	struct file_io *fio = lane->free;

	if (fio == NULL || (bounced && lane->bounce_used))
		return false;
	lane->free = fio->next_free;
	lane->bounce_used = lane->bounce_used || bounced;
	fio->io = io;
	fio->bounced = bounced;
	fio->without_sync = false;
	fio->tries = 0;
	start_step(fio);
	return true;
}

static void start_waiting(struct store_lane *lane)
{
	while (lane->waiting != NULL) {
		struct store_io *io = lane->waiting;
		struct store_io *next = io->store_next;

		if (!try_start(lane, io))
			return;
		lane->waiting = next;
		if (next == NULL)
			lane->waiting_last = &lane->waiting;
	}
}

/* True: written. False: nothing or a part of it was, and the ring does all of it (again). */
static bool write_now(struct store_lane *lane, struct store_io *io)
{
	struct store_file *file = lane->file;
	uint64_t begin_ns, took_ns, discards;
	bool discarding;
	ssize_t written;

	if (io->op != STORE_WRITE || io->locked || io->fua || io->foreign != 0 ||
	    file->store.direct || file->piece_bytes != 0)
		return false;
	begin_ns = clock_ns();
	if (begin_ns < lane->write_now_after_ns || is_stuck(file))
		return false;
	discards = atomic_load(&file->discards_begun);
	discarding = atomic_load(&file->discarding) > 0;
	written = pwrite(file->fd, io->buf, io->len_bytes, (off_t)io->off_bytes);
	took_ns = clock_ns() - begin_ns;
	discarding = discarding || atomic_load(&file->discards_begun) != discards;
	if (took_ns > STALL_NS && !discarding)
		lane->write_now_after_ns =
			begin_ns + took_ns + min_u64(took_ns * STALL_FACTOR, STALL_NS_MAX);
	return written >= 0 && (uint64_t)written == io->len_bytes;
}

static bool deliver(struct store *store, unsigned index)
{
	struct store_lane *lane = lane_of(store, index);
	struct store_io *io = lane->written;

	lane->written = NULL;
	lane->written_last = &lane->written;
	if (io == NULL)
		return store_file_compared(lane, false);
	while (io != NULL) {
		struct store_io *next = io->store_next;

		store_lane_finish(lane);
		io->magic = 0;
		io->done(io, 0);
		io = next;
	}
	return true;
}

static void start_io(struct store_lane *lane, struct store_io *io)
{
	if (write_now(lane, io)) {
		*lane->written_last = io;
		lane->written_last = &io->store_next;
		return;
	}
	if (lane->waiting == NULL && try_start(lane, io))
		return;
	*lane->waiting_last = io;
	lane->waiting_last = &io->store_next;
}

static void start_discards(struct store_lane *lane)
{
	struct store_io *io = lane->discards;

	if (io == NULL || lane->discarding != NULL)
		return;
	lane->discards = io->store_next;
	if (lane->discards == NULL)
		lane->discards_last = &lane->discards;
	io->store_next = NULL;
	lane->discarding = io;
	start_io(lane, io);
}

/* A number that no other thread ever had: a pthread_t, or a tid, is used again after its thread. */
static uint64_t this_thread(void)
{
	static _Atomic uint64_t last;
	static _Thread_local uint64_t own;

	if (own == 0)
		own = atomic_fetch_add(&last, 1) + 1;
	return own;
}

static int take_lane(struct store *store, unsigned index, struct ring **ret_ring)
{
	struct store_lane *lane = lane_of(store, index);
	int r;

	if (lane->has_ring && lane->owner == this_thread()) {
		*ret_ring = &lane->ring;
		return 0;
	}
	if (lane->has_ring) {
		assert(lane->in_flight == 0 && lane->ring.in_flight == 0);
		ring_done(&lane->ring);
		lane->has_ring = false;
	}
	r = ring_init(&lane->ring);
	if (r < 0)
		return r;
	lane->has_ring = true;
	lane->owner = this_thread();
	*ret_ring = &lane->ring;
	return 0;
}

static void submit(struct store *store, struct store_io *io)
{
	struct store_lane *lane = lane_of(store, io->lane);
	struct ring *ring;

	assert(io->magic == STORE_IO_MAGIC);
	assert(!store->read_only || io->op == STORE_READ || io->op == STORE_FLUSH);
	assert(io->op != STORE_COMPARE || lane->file->compare != NULL);
	assert(io->op == STORE_FLUSH || (io->len_bytes > 0 && io->off_bytes <= store->size_bytes &&
					 io->len_bytes <= store->size_bytes - io->off_bytes));
	io->store_progress_bytes = 0;
	io->store_next = NULL;
	count_work(lane, io);
	if (io->op == STORE_COMPARE) {
		store_file_compare(lane, io);
		return;
	}
	if (take_lane(store, io->lane, &ring) < 0) {
		io->store_next = lane->refused;
		lane->refused = io;
		return;
	}
	store_lane_begin(lane);
	if (io->op == STORE_DISCARD) {
		*lane->discards_last = io;
		lane->discards_last = &io->store_next;
		start_discards(lane);
		return;
	}
	start_io(lane, io);
}

static bool deliver_refused(struct store_lane *lane)
{
	struct store_io *io = lane->refused;

	lane->refused = NULL;
	if (io == NULL)
		return false;
	while (io != NULL) {
		struct store_io *next = io->store_next;

		io->magic = 0;
		io->done(io, -ENOMEM);
		io = next;
	}
	return true;
}

static void wait_lane(struct store *store, unsigned index)
{
	struct store_lane *lane = lane_of(store, index);
	uint64_t before = lane->finished;

	if (deliver_refused(lane) || deliver(store, index))
		return;
	while (lane->in_flight > 0 && lane->finished == before) {
		if (!store_file_compared(lane, true)) {
			int r = ring_turn(&lane->ring, true);

			assert(r >= 0);
		}
	}
}

static int lane_init(struct store_file *file, struct store_lane *lane)
{
	lane->file = file;
	lane->waiting_last = &lane->waiting;
	lane->written_last = &lane->written;
	lane->discards_last = &lane->discards;
	pthread_mutex_init(&lane->compared_lock, NULL);
	pthread_cond_init(&lane->compared_cond, NULL);
	lane->ios = calloc(STORE_FILE_IOS, sizeof(*lane->ios));
	if (lane->ios == NULL)
		return -ENOMEM;
	for (unsigned i = 0; i < STORE_FILE_IOS; i++) {
		lane->ios[i].lane = lane;
		lane->ios[i].next_free = lane->free;
		lane->free = &lane->ios[i];
	}
	if (!file->store.direct)
		return 0;
	lane->bounce = aligned_alloc(STORE_DIRECT_ALIGN_MAX, STORE_BOUNCE_BYTES);
	return lane->bounce != NULL ? 0 : -ENOMEM;
}

int store_file_lanes_init(struct store_file *file, unsigned lanes)
{
	struct ring *ring;

	file->lanes = aligned_alloc(64, lanes * sizeof(*file->lanes));
	if (file->lanes == NULL)
		return -ENOMEM;
	memset(file->lanes, 0, lanes * sizeof(*file->lanes));
	file->store.lane_count = lanes;
	for (unsigned i = 0; i < lanes; i++) {
		int r = lane_init(file, &file->lanes[i]);

		if (r < 0)
			return r;
	}
	return take_lane(&file->store, 0, &ring);
}

void store_file_lanes_done(struct store_file *file)
{
	for (unsigned i = 0; file->lanes != NULL && i < file->store.lane_count; i++) {
		struct store_lane *lane = &file->lanes[i];

		assert(lane->in_flight == 0);
		if (lane->has_ring)
			ring_done(&lane->ring);
		pthread_cond_destroy(&lane->compared_cond);
		pthread_mutex_destroy(&lane->compared_lock);
		free(lane->ios);
		free(lane->bounce);
	}
	free(file->lanes);
}

static unsigned in_flight(const struct store *store, unsigned lane)
{
	const struct store_file *file = (const struct store_file *)store;

	assert(file->magic == STORE_FILE_MAGIC && lane < store->lane_count);
	return file->lanes[lane].in_flight;
}

const struct store_ops store_file_ops = {
	.submit = submit,
	.wait = wait_lane,
	.take_lane = take_lane,
	.deliver = deliver,
	.set_wake = store_file_set_wake,
	.in_flight = in_flight,
	.close = store_file_close,
};
