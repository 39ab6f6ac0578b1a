/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * request - what a front end asks of a volume; one struct for all operations
 *
 * The front end fills in the first part, calls request_submit() on the worker's thread, and gets
 * done() on the same thread, never inside request_submit() ... except that a request which needs
 * no waiting at all may be answered from inside; front ends must stand both.
 *
 * Units     offsets and lengths are bytes of the volume. READ, WRITE, ZERO and DISCARD take any
 *           byte range; SAME, CLONE and MAP take whole blocks.
 * Errors    done() gets 0 or a negative errno: EINVAL (range), EROFS, EIO, ENOSPC, ECANCELED.
 *           After a failed write each sector of its range is old or new.
 * Ordering  none between requests in flight, as on any disk. FLUSH covers what was answered before
 *           it was submitted. fua makes one request durable. lasting makes it outlive this
 *           process: the edits that it depends on are durable before the answer; data in place
 *           has been given to the store, and may still be in the store's cache.
 * Memory    the request, its data and its scratch belong to the front end until done(). A request
 *           may be used again from inside done().
 *           Payload may be foreign (store.h): data is an offset then, and bring_bytes() is called
 *           where the engine or the store needs the bytes themselves (a part of a block, a hole
 *           that is read, memory that the store cannot use). It makes data memory of this process,
 *           for a WRITE with the whole payload in it; a WRITE goes on, a READ begins again. If
 *           foreign is 0 in done() of a READ, the front end copies data to where it belongs.
 * Blocking  never; a request waits inside as long as it has to (fences, space, a commit).
 *
 * WRITE with data == NULL writes zeros. DISCARD makes whole blocks holes and leaves a partial head
 * and tail alone; ZERO makes whole blocks holes (or, with no_hole, writes zeros into them) and
 * zeroes the partial head and tail exactly.
 */
#ifndef CORE_REQUEST_REQUEST_H
#define CORE_REQUEST_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/store.h"
#include "core/base/units.h"
#include "core/base/wait.h"
#include "core/base/worker.h"
#include "core/metadata/extent.h"
#include "core/volume/fence.h"

enum request_op {
	REQUEST_READ,
	REQUEST_WRITE,
	REQUEST_ZERO,
	REQUEST_DISCARD,
	REQUEST_FLUSH,
	REQUEST_SAME, /* one destination; see struct same_job for many */
	REQUEST_CLONE, /* off_bytes is the destination, src_off_bytes the source */
	REQUEST_MAP,
	REQUEST_CHANGES, /* ranges that changed since a generation; ends one (tracking.h) */
};

#define REQUEST_MAGIC	    0x52455121u
#define REQUEST_EXTENTS_MAX 16
#define REQUEST_IOS_MAX	    (REQUEST_EXTENTS_MAX + 2) /* and the two slots of a place */
#define SCRATCH_BYTES	    BLOCK_BYTES /* for what is not aligned to blocks */
#define SAME_PIECE_BYTES    (1024u * 1024u) /* fenced and compared at a time */
#define SAME_SCRATCH_BYTES  (2 * SAME_PIECE_BYTES)
#define SAME_LENGTH_MAX	    (64ull * 1024 * 1024) /* longer ones are clamped */
#define SAME_DSTS_MAX	    4096u

/* SAME from the word `zero`: a destination that reads zeros becomes a hole. */
#define SAME_SRC_ZERO UINT64_MAX

struct map_run {
	uint64_t off_bytes; /* logical */
	uint64_t len_bytes;
	pbn_t pbn; /* PBN_NONE: a hole */
	uint32_t references; /* 0 for a hole; all blocks of a run have the same */
};

/* What SAME says besides its result. DIFFERS is no error: res is 0, differs is true. */
struct same_result {
	bool differs;
	uint64_t differs_at_bytes; /* from the start of the range; valid if differs */
	uint64_t deduped_bytes; /* merged or already shared, from the start of the range */
	uint64_t freed_bytes; /* blocks that lost their last reference */
	uint64_t already_shared_bytes;
	uint64_t fenced_read_bytes; /* read for comparing while the fence was closed */
};

struct volume;

/* One run of blocks of a write: where it goes, and what it replaces. */
struct target {
	uint32_t index; /* in its region */
	uint32_t blocks;
	pbn_t old;
	pbn_t new;
	bool fresh; /* new was allocated for this write and has to be published */
};

/* Of READ, WRITE and FLUSH: what of it is counted (counters.h). */
enum request_tally {
	TALLY_ALL,
	TALLY_BYTES, /* a client's request was cut into several, and this is not the first */
	TALLY_NONE, /* nothing a client asked for, or it is counted already */
};

struct request {
	/* Filled in by the front end. */
	enum request_op op;
	enum request_tally tally;
	bool fua; /* WRITE, ZERO, DISCARD, CLONE, SAME: durable before the answer */
	bool lasting; /* of those: the end of the process does not undo it after the answer */
	bool no_hole; /* ZERO: keep the blocks allocated */
	bool hint; /* DISCARD: what lacks space is left as it is without a word */
	uint64_t off_bytes;
	uint64_t len_bytes;
	uint64_t src_off_bytes; /* SAME, CLONE; SAME_SRC_ZERO for zeros */
	void *data; /* READ, WRITE */
	uint32_t foreign; /* 0, or whose memory data is an offset into */
	/* Set where payload is foreign. 0 or a negative errno, which becomes the request's. */
	int (*bring_bytes)(struct request *request);
	/* Page-aligned: SCRATCH_BYTES (READ, WRITE, ZERO) or SAME_SCRATCH_BYTES (SAME). */
	void *scratch;
	uint32_t since; /* CHANGES: a generation that was answered before, or 0 */
	struct map_run *runs; /* MAP, CHANGES: room for runs_max */
	uint32_t runs_max;
	struct volume *volume;
	struct worker *worker;
	void (*done)(struct request *request, int res);
	void *context; /* the front end's */
	/* Looked at between the pieces of SAME, CLONE, ZERO, DISCARD and MAP; may be NULL. */
	const _Atomic bool *cancel;

	/* Results besides res. */
	struct same_result same;
	uint32_t runs_count;
	uint64_t mapped_to_bytes; /* MAP, CHANGES: the runs reach up to here, from off_bytes */
	uint32_t generation; /* CHANGES: what changes from now on has a later one */
	bool complete; /* CHANGES: what is not among the ranges did not change */

	/* The engine's own from here on. */
	uint32_t magic;
	uint64_t progress_bytes; /* answered for, from off_bytes */
	void (*step)(struct request *request); /* where to go on when what it waits for has come */
	void (*after_io)(struct request *request);
	struct wait wait;
	struct inflight inflight; /* reads alone: what changes something holds a fence */
	struct fence_hold hold[2];
	struct fence_watch watch[2];
	uint64_t lsn; /* of the last edit that it depends on; 0: none */
	uint32_t reserved_records; /* of the journal: as asked for, and what is left of it */
	uint32_t unused_records;
	/* The part under way: within one region. */
	lbn_t part_lbn;
	uint32_t part_blocks;
	uint32_t part_off_bytes; /* in its first block, if it is a part of one block */
	uint32_t part_bytes;
	uint32_t part_edit; /* the next target to publish */
	uint32_t part_page; /* that has to be loaded to go on */
	bool part_page_any; /* it is the allocator's choice: another slab may do */
	void (*part_next)(struct request *request);
	void (*place_next)(struct request *request);
	int place_res;
	pbn_t part_place; /* fresh leaf place to publish, or none */
	pbn_t part_second; /* its other slot */
	bool part_place_written; /* with its zeros, or on the way */
	bool part_place_kept; /* taken of what is kept for a run without a place */
	bool part_left; /* DISCARD: some part was left as it is, for lack of space */
	unsigned place_looks; /* pages read in search of it */
	bool holds_space; /* blocks that are neither published nor put back yet */
	bool part_keeps_place; /* its counts cannot be had: it is not given back */
	uint32_t extent_count;
	struct extent extents[REQUEST_EXTENTS_MAX];
	uint32_t target_count;
	struct target targets[REQUEST_EXTENTS_MAX];
	_Atomic uint32_t ios_pending;
	int ios_res;
	uint32_t io_count;
	struct store_io ios[REQUEST_IOS_MAX];
	/* SAME and CLONE: within the piece, which is the part of the destination. */
	lbn_t piece_src;
	uint32_t piece_done; /* blocks compared, then blocks published */
	bool piece_fenced;
	uint32_t piece_loads; /* pages asked for before the fences */
	uint32_t yielded;
};

void request_submit(struct request *request);

#endif
