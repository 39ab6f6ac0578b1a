/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * request_internal - what the operations share: waiting, store I/O, fences, journal room, the end
 *
 * Each operation is a chain of steps. A step runs on the request's worker; it either goes on, or
 * arranges to be called again (request_wait_*, request_io_*) and returns. Nothing is held while
 * waiting but the fences of the part under way, its unpublished blocks, and journal room.
 */
#ifndef CORE_REQUEST_REQUEST_INTERNAL_H
#define CORE_REQUEST_REQUEST_INTERNAL_H

#include "core/request/request.h"
#include "core/volume/volume_internal.h"

/* The operations' first steps. */
void read_start(struct request *request);
void write_start(struct request *request);
/* From where they are, without counting them again. */
void read_go_on(struct request *request);
void write_go_on(struct request *request);
void unmap_start(struct request *request);
void flush_start(struct request *request);
void map_start(struct request *request);
void same_start(struct request *request);
void changes_start(struct request *request);

/* The next part of a request by bytes: whole blocks of one region, at most max_blocks, or a part of
 * one block. */
void request_next_part(struct request *request, uint32_t max_blocks);

static inline bool request_cancelled(const struct request *request)
{
	return request->cancel != NULL && atomic_load(request->cancel);
}

static inline bool part_is_whole(const struct request *request)
{
	return request->part_bytes % BLOCK_BYTES == 0 && request->part_off_bytes == 0;
}

/* A write of zeros where a zero or discard request has to write (op_write.c); goes on at next. */
void write_part_then(struct request *request, void (*next)(struct request *request));

/* step is called when the page is there, or to find out why not (request->wait.res). */
void request_load_page(struct request *request, page_t page, void (*step)(struct request *request));
/* The allocator's choice, part_page, could not be loaded: true if it is passed over from now on,
 * and to ask again is worth it. */
bool request_pass_over(struct request *request);
/* Meta is held; it is dropped. step runs when edits up to request->lsn are durable. */
void request_wait_commit(struct request *request, void (*step)(struct request *request));
/* After a failed allocation, meta still held: true if something pending may become space; step runs
 * when some of it has. */
bool request_wait_space(struct request *request, void (*step)(struct request *request));
/* Meta is held. Blocks in others' hands keep so many pages of counts in the cache that more of them
 * would leave no frames to publish with: it waits as if there were no space. */
bool request_is_crowded(const struct request *request);
/* Meta is held. It has blocks that are neither published nor put back, and then no more: others may
 * wait for what becomes of them. Whoever waits for space holds none itself. */
void request_hold_space(struct request *request);
void request_drop_space(struct request *request);
/* Its area has no mark that it may have changed, and the backing no space to write one. */
bool request_lacks_mark(const struct request *request, lbn_t lbn);
/* True: it has room for that many records. False: step will be called when it has (or wait.res <
 * 0). */
bool request_reserve(struct request *request, uint32_t records,
		     void (*step)(struct request *request));
/* Gives journal room back; with meta held already. */
void request_release(struct request *request);
void request_release_held(struct request *request);
/* Runs step again soon, after others had their turn. */
void request_again(struct request *request, void (*step)(struct request *request));

struct fence_ask {
	lbn_t lbn;
	uint32_t blocks;
	enum fence_mode mode;
	bool changes; /* content may change: not a merge's */
};

/* Takes a fence; the stripe is held. Content is changed only in an open area (tracking.h). False:
 * step will be called to ask again; the fence may be held by then, or not. */
bool request_fence(struct request *request, unsigned which, const struct fence_ask *ask,
		   void (*step)(struct request *request));
/* Gives up whatever fences it has, and stamps what may have been changed under them. No stripe is
 * held. */
void request_unfence(struct request *request);
/* The same for one fence. Its stripe is held. */
void request_unfence_one(struct request *request, unsigned which);

/* Store I/O: begin, add up to REQUEST_IOS_MAX, then submit; step runs when all are done,
 * with the first
 * error in request->ios_res. Without any I/O step runs at once. */
void request_io_begin(struct request *request);
void request_io_add(struct request *request, enum store_op op, uint64_t off_bytes, void *buf,
		    uint64_t len_bytes, bool fua);
/* The same with the request's own payload, from data_off_bytes on; or with zeros, if it writes
 * those. */
void request_io_add_data(struct request *request, enum store_op op, uint64_t off_bytes,
			 uint64_t data_off_bytes, uint64_t len_bytes, bool fua);
/* Of a store that can_compare. The answer is in request->ios[].equal_bytes, in the order added. */
void request_io_add_compare(struct request *request, uint64_t off_bytes, uint64_t other_off_bytes,
			    uint64_t len_bytes);
void request_io_submit(struct request *request, void (*step)(struct request *request));

/* Before a lookup whose blocks are read without a fence; after the reading. */
void request_enter(struct request *request);
void request_leave(struct request *request);

/* A durable answer waits for the edits that made the region's map what it is (I1), also when the
 * request itself found nothing to change. Stripe held, leaf resident. */
void request_depend_on_map(struct request *request, uint32_t region);

/* The end: fences and room are given back, then done(). A durable answer waits for its commit
 * first. With STORE_NEEDS_BYTES and foreign payload it is no end: the bytes are brought, and a
 * write goes on with the part that needed them, a read begins again. */
void request_finish(struct request *request, int res);

/* A READ or WRITE, as its tally says. */
static inline void request_count(const struct request *request, _Atomic uint64_t *requests,
				 _Atomic uint64_t *bytes)
{
	if (request->tally == TALLY_ALL)
		count(requests, 1);
	if (request->tally != TALLY_NONE)
		count(bytes, request->len_bytes);
}

/* A place for a region's leaf, zeroed (request_place.c): step finds it in part_place, or an error
 * in place_res. */
void request_get_place(struct request *request, void (*step)(struct request *request));
/* A place for the part's region at once, with meta held: 0, -EAGAIN (part_page) or -ENOSPC. */
int request_take_place(struct request *request);
/* Whether it has to get one before it publishes what needs one. What was kept for a run without a
 * place is put back if the region is none any more: it is another's to take. Meta is held. */
bool request_lacks_place(struct request *request, uint32_t region);
/* Meta is held; what it took is put back, if it has one. */
void request_put_place_held(struct request *request);
/* Whether its place is two single blocks: then the region becomes a LEAF with it. */
static inline bool request_place_is_split(const struct request *request)
{
	return !pbn_is_none(request->part_place) &&
	       request->part_second.v != request->part_place.v + 1;
}
/* The zeroing alone, among a request's other I/O, of a place that it has. */
void request_add_place_io(struct request *request);
/* The place becomes the region's, or is put back if the region got one meanwhile. */
void request_publish_place(struct request *request, uint32_t region);

/* Publishes an edit of a part; the record's pages are resident; stripes and meta are held. */
void request_publish(struct request *request, const struct record *record);

/* The place that was not needed after all goes back. Meta is not held. */
void request_put_place(struct request *request);

/* Room for an UNPLACE: one of two single blocks is two runs that become pending. */
#define UNPLACE_RECORDS 2u
/* Publishes what empties a region's home: an UNPLACE, if nothing of it is mapped any more. */
void request_publish_unplace(struct request *request, uint32_t region);
/* The absent page that an UNPLACE would need after so many of the region's blocks are unmapped (it
 * has the place's counts). PAGE_NONE: none, or the region will not be empty. */
page_t request_unplace_missing(struct request *request, uint32_t region, uint32_t unmapped_blocks);
/* After part_page could not be loaded: whether it may have been wanted for that alone. Then the
 * part goes on without. */
bool request_keep_place(struct request *request, uint32_t region);
/* Whether the region has a place and no mapping. Its stripe is held. */
bool request_has_idle_place(struct request *request, uint32_t region);

/* Makes the region able to take an edit that it does not fit into; false: *ret_page has to be
 * loaded first. */
bool request_publish_explode(struct request *request, uint32_t region, page_t *ret_page);

#endif
