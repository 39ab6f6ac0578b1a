/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * store - where physical blocks live; the interface that every backing implements
 *
 * Units     offsets and lengths are bytes, multiples of sector_bytes for the engine's own I/O.
 *           (A store that needs more alignment of memory than it gets bounces by itself.)
 * Errors    done() gets 0 or a negative errno; a short transfer is finished by the store, so done()
 *           means all or error. After an error of a write the contents of its range are undefined
 *           sector by sector (old or new). After an error of a flush nothing is known about what
 *           it covered, for ever.
 * Ordering  none between requests in flight. A flush covers exactly the writes whose done() was
 *           called before the flush was submitted. A write with fua is durable when done() is
 *           called.
 * Compare   reads both ranges, byte by byte and at different times: bytes that are written
 *           meanwhile count as either. An error says nothing about them.
 * Discard   a hint: afterwards the range reads anything until it is written again.
 * Memory    a store_io belongs to the caller and is in the store's hands from submit to done();
 *           the buffer likewise. submit never fails and never allocates without a bound.
 *           foreign names memory that a store which reaches_foreign can transfer to and from, but
 *           nobody in this process can look at; buf is an offset into it then. Where the store
 *           cannot use it after all, nothing or a part was done and the error is
 *           STORE_NEEDS_BYTES: the caller gets the bytes and begins again.
 * Threads   a lane is one thread with a queue of its own (an io_uring, or a share of the simulated
 *           disk). submit is called on the thread of io->lane; done() is called on that thread, and
 *           never inside submit.
 * Blocking  submit does not block; wait blocks until at least one completion of that lane was
 *           delivered (it is what opening and closing a volume use, before and after the workers
 *           run).
 */
#ifndef CORE_BASE_STORE_H
#define CORE_BASE_STORE_H

#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdbool.h>
#include <stddef.h>

enum store_op {
	STORE_READ,
	STORE_WRITE,
	STORE_FLUSH,
	STORE_DISCARD,
	STORE_COMPARE, /* of a store that can_compare: two ranges, or one with zeros */
	STORE_OPS,
};

#define STORE_ZEROS	  UINT64_MAX
#define STORE_NEEDS_BYTES (-EFAULT)

#define STORE_IO_MAGIC 0x53494f21u

struct store_io {
	uint32_t magic; /* STORE_IO_MAGIC while in the store's hands */
	enum store_op op;
	bool fua;
	unsigned lane;
	uint64_t off_bytes;
	uint64_t len_bytes;
	void *buf; /* for reading and writing */
	uint32_t foreign; /* of those: 0, or whose memory buf is an offset into */
	uint64_t other_off_bytes; /* COMPARE: the other range, or STORE_ZEROS */
	uint64_t equal_bytes; /* COMPARE, set before done(): so many are equal, from the first on */
	bool locked; /* WRITE: submitted under a lock that everybody needs */
	bool urgent; /* COMPARE: somebody waits for it behind a fence */
	void (*done)(struct store_io *io, int res);
	void *context; /* the caller's */

	/* Between submit and done(): the store's own. */
	struct store_io *store_next; /* afterwards the caller's */
	uint64_t store_progress_bytes;
	void *store_private;
};

struct store;
struct ring; /* what a thread waits on: the server's */

struct store_ops {
	void (*submit)(struct store *store, struct store_io *io);
	/* Delivers at least one completion of the lane, if any I/O of it is in flight. */
	void (*wait)(struct store *store, unsigned lane);

	/* What a thread needs that serves a lane beside other things. NULL in a store that is only
	 * waited for. */

	/* The calling thread owns the lane from now on. The ring brings completions of the lane,
	 * and whatever else the thread puts on it. */
	int (*take_lane)(struct store *store, unsigned lane, struct ring **ret_ring);
	/* Calls done() of what was finished inside submit or on another thread; true if there was
	 * any. */
	bool (*deliver)(struct store *store, unsigned lane);
	/* wake is called on any thread when deliver has something to do for the lane. */
	void (*set_wake)(struct store *store, unsigned lane, void (*wake)(void *context),
			 void *context);
	/* I/O of the lane that is not answered yet. Any thread. */
	unsigned (*in_flight)(const struct store *store, unsigned lane);
	/* Waits for no I/O: none may be in flight. */
	void (*close)(struct store *store);
};

struct store {
	const struct store_ops *ops;
	uint64_t size_bytes;
	uint32_t sector_bytes; /* smallest unit a write leaves whole: 512 or 4096 */
	unsigned lane_count;
	bool read_only;
	bool direct; /* not through this machine's page cache: memory has to be aligned */
	bool can_discard;
	bool can_compare; /* without a copy, quicker than reading */
	bool reaches_foreign;
	_Atomic uint64_t copied_bytes; /* for I/O whose memory was not aligned enough */
	/* Of a backing that gives space as it is written to, as the store last saw it: what it can
	 * still give, and has given. */
	_Atomic bool backing_known;
	_Atomic uint64_t backing_free_bytes;
	_Atomic uint64_t backing_allocated_bytes;
};

/* Whether the backing refused a write because it has no space for it, or none for this user or
 * file: nothing is wrong with it, and it may have space later. */
static inline bool store_lacks_space(int res)
{
	return res == -ENOSPC || res == -EDQUOT || res == -EFBIG;
}

/* What a transfer's error means to the caller: the backing is full, the transfer failed, or the
 * caller has to bring the bytes into its own memory and ask again. */
static inline int store_error(const struct store_io *io, int res)
{
	if (res >= 0)
		return 0;
	if (io->foreign != 0 && res == STORE_NEEDS_BYTES)
		return res;
	return io->op == STORE_WRITE && store_lacks_space(res) ? -ENOSPC : -EIO;
}

static inline void store_submit(struct store *store, struct store_io *io)
{
	io->magic = STORE_IO_MAGIC;
	store->ops->submit(store, io);
}

/* NULL is fine. */
static inline void store_close(struct store *store)
{
	if (store != NULL)
		store->ops->close(store);
}

#endif
