/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * op_same - merges one destination with its source, piece by piece; clone is the same without the
 * compare
 *
 *   PIECE --> RESERVE --> WATCH --> COMPARE --> LOAD --> FENCE --> [COMPARE] --> PUBLISH
 *   --> PIECE ... DONE
 *
 *   PIECE    at most 1 MiB, within one region of the source and one of the destination
 *   RESERVE  journal room for the worst case, with nothing else held
 *   WATCH    from here on every hold that may change either range leaves a trace
 *   COMPARE  what does not share blocks already is read and compared, byte for byte, without a
 *   fence
 *   LOAD     the pages that publishing needs, as far as can be told, so that nobody waits behind
 *            the fences for a disk that has much to read
 *   FENCE    both ranges are closed and drained, the lower one first (I14); touched since WATCH:
 *            COMPARE again, inside (rule 25 of same-range requests)
 *   PUBLISH  a run at a time: the destination reads from the source's blocks, its own lose a
 *   reference
 *
 * Nothing is allocated by a merge: a hole that reads like mapped zeros stays a hole, mapped zeros
 * that equal a hole become one. What is cloned as a run, from a region's start on, needs no leaf
 * and takes no place for one; two blocks are kept for it (metadata_spare_blocks()).
 *
 *   before   src -> A (1)     dst -> B (1)           merge            src -> A (2) <- dst    B (0,
 *                                                    pending)
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core/base/mutant.h"
#include "core/request/request_internal.h"

#define PIECE_BLOCKS (SAME_PIECE_BYTES / BLOCK_BYTES)
/* Besides a record for each block, in the worst case: a place, an explode, an unplace. */
#define MORE_RECORDS (2u + UNPLACE_RECORDS)
#define BATCH_RUNS   (JOURNAL_BATCH - 3) /* published at a time */
#define LOADS_MAX    (4 * BATCH_RUNS)
#define READ_RUNS    (REQUEST_EXTENTS_MAX / 2) /* two reads each */

_Static_assert(PIECE_BLOCKS *BLOCK_BYTES <= ZEROS_BYTES, "a hole is compared with zeros");
_Static_assert(BATCH_RUNS >= READ_RUNS && BATCH_RUNS <= REQUEST_EXTENTS_MAX,
	       "runs looked up at a time");

static void next_piece(struct request *request);
static void compare(struct request *request);
static void load_pages(struct request *request);
static void take_fences(struct request *request);
static void publish(struct request *request);

/* A run in which source and destination are contiguous, each in its own way. */
struct pair {
	uint32_t first; /* block in the piece */
	uint32_t blocks;
	pbn_t src; /* PBN_NONE: hole, or the word zero */
	pbn_t dst;
	bool src_flagged;
};

static bool from_zero(const struct request *request)
{
	return request->src_off_bytes == SAME_SRC_ZERO;
}

static bool is_clone(const struct request *request)
{
	return request->op == REQUEST_CLONE;
}

static uint32_t src_region(const struct request *request)
{
	return lbn_region(from_zero(request) ? request->part_lbn : request->piece_src);
}

static uint32_t dst_region(const struct request *request)
{
	return lbn_region(request->part_lbn);
}

/* --- the end of a piece, of a request --- */

static void unwatch(struct request *request)
{
	if (!request->watch[0].placed && !request->watch[1].placed)
		return;
	fence_lock2(&request->volume->fence, src_region(request), dst_region(request));
	for (unsigned i = 0; i < 2; i++)
		if (request->watch[i].placed)
			fence_unwatch(&request->watch[i]);
	fence_unlock2(&request->volume->fence, src_region(request), dst_region(request));
}

static void end(struct request *request, int res)
{
	struct volume *volume = request->volume;

	unwatch(request);
	request_put_place(request);
	count(is_clone(request) ? &volume->counters.cloned_bytes : &volume->counters.same_bytes,
	      request->same.deduped_bytes);
	request_finish(request, res);
}

static void differs_at(struct request *request, uint32_t piece_off_bytes)
{
	request->same.differs = true;
	request->same.differs_at_bytes = request->progress_bytes + piece_off_bytes;
	request->same.deduped_bytes = request->progress_bytes;
	count(&request->volume->counters.differs, 1);
	end(request, 0);
}

static void piece_done(struct request *request)
{
	unwatch(request);
	request_put_place(request);
	request_unfence(request);
	request_release(request);
	request->progress_bytes += request->part_bytes;
	request->same.deduped_bytes = request->progress_bytes;
	if (request->progress_bytes == request->len_bytes)
		end(request, 0);
	else
		request_again(request, next_piece);
}

static bool cancelled(const struct request *request)
{
	return atomic_load(&request->volume->cancelled) || request_cancelled(request);
}

/* --- lookups --- */

static uint32_t side(struct request *request, lbn_t lbn, uint32_t first, struct extent *extents)
{
	return map_lookup(&request->volume->metadata->map, lbn_add(lbn, first),
			  request->part_blocks - first, extents, BATCH_RUNS);
}

/* Both mappings from `first` on, cut where either is. Stripes held. 0: part_page has to be loaded.
 * */
static uint32_t look_up(struct request *request, uint32_t first, struct pair *pairs, uint32_t max)
{
	struct extent src[BATCH_RUNS], dst[BATCH_RUNS];
	uint32_t src_count = 1, dst_count, s = 0, d = 0, n = 0;

	src[0] = (struct extent){PBN_NONE, request->part_blocks - first, false};
	if (!from_zero(request))
		src_count = side(request, request->piece_src, first, src);
	request->part_page = page_of_leaf(src_region(request));
	if (src_count == 0)
		return 0;
	dst_count = side(request, request->part_lbn, first, dst);
	request->part_page = page_of_leaf(dst_region(request));
	if (dst_count == 0)
		return 0;
	while (s < src_count && d < dst_count && n < max) {
		uint32_t blocks = min_u32(src[s].blocks, dst[d].blocks);

		pairs[n++] =
			(struct pair){first, blocks, src[s].pbn, dst[d].pbn, src[s].maybe_shared};
		first += blocks;
		src[s].blocks -= blocks;
		dst[d].blocks -= blocks;
		if (!pbn_is_none(src[s].pbn))
			src[s].pbn = pbn_add(src[s].pbn, blocks);
		if (!pbn_is_none(dst[d].pbn))
			dst[d].pbn = pbn_add(dst[d].pbn, blocks);
		s += src[s].blocks == 0;
		d += dst[d].blocks == 0;
	}
	return n;
}

static bool is_shared_already(const struct pair *pair)
{
	return pair->src.v == pair->dst.v; /* the same blocks, or both holes */
}

/* --- compare --- */

static uint8_t *scratch_at(const struct request *request, bool dst, uint32_t first)
{
	return (uint8_t *)request->scratch + (dst ? SAME_PIECE_BYTES : 0) +
	       (size_t)first * BLOCK_BYTES;
}

static void add_read(struct request *request, pbn_t pbn, bool dst, const struct pair *pair)
{
	if (!pbn_is_none(pbn))
		request_io_add(request, STORE_READ, pbn_off_bytes(pbn),
			       scratch_at(request, dst, pair->first), blocks_to_bytes(pair->blocks),
			       false);
}

/* The pair does not share blocks, so one of the two at least is no hole. */
static void add_compare(struct request *request, const struct pair *pair)
{
	bool src_is_hole = pbn_is_none(pair->src);
	pbn_t one = src_is_hole ? pair->dst : pair->src;
	bool with_zeros = src_is_hole || pbn_is_none(pair->dst);

	request_io_add_compare(request, pbn_off_bytes(one),
			       with_zeros ? STORE_ZEROS : pbn_off_bytes(pair->dst),
			       blocks_to_bytes(pair->blocks));
}

static void count_fenced(struct request *request, const struct pair *pair)
{
	unsigned sides = !pbn_is_none(pair->src) + !pbn_is_none(pair->dst);
	uint64_t bytes = sides * blocks_to_bytes(pair->blocks);

	if (!request->piece_fenced)
		return;
	request->same.fenced_read_bytes += bytes;
	count(&request->volume->counters.fenced_read_bytes, bytes);
}

static const uint8_t *compared(const struct request *request, pbn_t pbn, bool dst, uint32_t first)
{
	return pbn_is_none(pbn) ? request->volume->zeros : scratch_at(request, dst, first);
}

/* The first differing byte of a target's run, which is kept as {old = dst, new = src}; len if none.
 * */
static uint32_t first_difference(const uint8_t *a, const uint8_t *b, uint32_t len)
{
	uint32_t i = 0;

	if (memcmp(a, b, len) == 0)
		return len;
	while (a[i] == b[i])
		i++;
	return i;
}

/* How many bytes of the i-th run are equal, from its first on. */
static uint32_t equal_in_run(const struct request *request, uint32_t i)
{
	const struct target *run = &request->targets[i];

	if (request->volume->metadata->store->can_compare)
		return (uint32_t)request->ios[i].equal_bytes;
	return first_difference(compared(request, run->new, false, run->index),
				compared(request, run->old, true, run->index),
				run->blocks * BLOCK_BYTES);
}

static void read_for_compare(struct request *request)
{
	request_leave(request);
	if (request->ios_res < 0 && !MUTANT(16)) {
		end(request, -EIO); /* never "same" (I10) */
		return;
	}
	for (uint32_t i = 0; i < request->target_count; i++) {
		const struct target *run = &request->targets[i];
		uint32_t len = run->blocks * BLOCK_BYTES;
		uint32_t at = equal_in_run(request, i);

		if (at < len && !(MUTANT(16) && request->ios_res < 0)) {
			differs_at(request, run->index * BLOCK_BYTES + at);
			return;
		}
	}
	compare(request);
}

static void loaded_for_compare(struct request *request)
{
	if (request->wait.res < 0)
		end(request, -EIO);
	else
		compare(request);
}

/* The next pairs that do not share blocks: the store compares them, or they are read. */
static void add_ios(struct request *request, const struct pair *pairs, uint32_t n)
{
	request_io_begin(request);
	request->target_count = 0;
	for (uint32_t i = 0; i < n; i++) {
		request->piece_done += pairs[i].blocks;
		if (is_shared_already(&pairs[i]))
			continue;
		request->targets[request->target_count++] = (struct target){
			pairs[i].first, pairs[i].blocks, pairs[i].dst, pairs[i].src, false};
		count_fenced(request, &pairs[i]);
		if (request->volume->metadata->store->can_compare) {
			add_compare(request, &pairs[i]);
			continue;
		}
		add_read(request, pairs[i].src, false, &pairs[i]);
		add_read(request, pairs[i].dst, true, &pairs[i]);
	}
}

/* When the piece is through, the fences. */
static void compare(struct request *request)
{
	struct fence *fence = &request->volume->fence;
	bool can_compare = request->volume->metadata->store->can_compare;
	struct pair pairs[BATCH_RUNS];
	uint32_t n;

	if (request->piece_done == request->part_blocks) {
		request->piece_done = 0;
		if (request->piece_fenced)
			publish(request);
		else
			load_pages(request);
		return;
	}
	fence_lock2(fence, src_region(request), dst_region(request));
	if (!request->piece_fenced)
		request_enter(request);
	n = look_up(request, request->piece_done, pairs, can_compare ? BATCH_RUNS : READ_RUNS);
	fence_unlock2(fence, src_region(request), dst_region(request));
	if (n == 0) {
		request_leave(request);
		request_load_page(request, request->part_page, loaded_for_compare);
		return;
	}
	add_ios(request, pairs, n);
	request_io_submit(request, read_for_compare);
}

static void watch(struct request *request)
{
	struct fence *fence = &request->volume->fence;

	fence_lock2(fence, src_region(request), dst_region(request));
	request->watch[1].begin = request->part_lbn.v;
	request->watch[1].end = request->part_lbn.v + request->part_blocks;
	fence_watch(fence_stripe(fence, dst_region(request)), &request->watch[1]);
	if (!from_zero(request)) {
		request->watch[0].begin = request->piece_src.v;
		request->watch[0].end = request->piece_src.v + request->part_blocks;
		fence_watch(fence_stripe(fence, src_region(request)), &request->watch[0]);
	}
	fence_unlock2(fence, src_region(request), dst_region(request));
}

static void begin_piece(struct request *request)
{
	request->piece_done = 0;
	request->piece_loads = 0;
	request->piece_fenced = false;
	if (is_clone(request)) {
		load_pages(request);
		return;
	}
	watch(request);
	compare(request);
}

static void reserved(struct request *request)
{
	if (request->wait.res < 0) {
		request->reserved_records = 0;
		end(request, request->wait.res == -ENOSPC ? -ENOSPC : -EIO);
	} else {
		begin_piece(request);
	}
}

static void next_piece(struct request *request)
{
	uint32_t blocks = PIECE_BLOCKS;

	if (volume_latched(request->volume) || cancelled(request)) {
		end(request, cancelled(request) ? -ECANCELED : -EIO);
		return;
	}
	if (!from_zero(request)) {
		request->piece_src = lbn_of_bytes(request->src_off_bytes + request->progress_bytes);
		blocks = min_u32(blocks, REGION_BLOCKS - lbn_index(request->piece_src));
	}
	request_next_part(request, blocks);
	if (backing_is_lacking(&request->volume->metadata->backing))
		end(request, -ENOSPC);
	else if (request_reserve(request, request->part_blocks + MORE_RECORDS, reserved))
		begin_piece(request);
}

/* --- fences --- */

static bool take_one(struct request *request, unsigned which, lbn_t lbn, bool changes)
{
	struct fence_ask ask = {lbn, request->part_blocks, FENCE_EXCLUSIVE, changes};

	if (MUTANT(12) && !changes && which == 0)
		ask.mode = FENCE_SHARED; /* the source closed only against other merges */
	return request_fence(request, which, &ask, take_fences);
}

/* hold[0] is the source's, hold[1] the destination's; the lower range first. Stripes held. */
static bool take_both(struct request *request)
{
	bool src_first = !from_zero(request) && request->piece_src.v < request->part_lbn.v;

	if (MUTANT(18))
		src_first = true;
	if (src_first && !take_one(request, 0, request->piece_src, false))
		return false;
	if (!take_one(request, 1, request->part_lbn, is_clone(request)))
		return false;
	return from_zero(request) || src_first || take_one(request, 0, request->piece_src, false);
}

static void take_fences(struct request *request)
{
	struct fence *fence = &request->volume->fence;
	bool held, touched;

	if (is_clone(request) && request_lacks_mark(request, request->part_lbn)) {
		end(request, -ENOSPC);
		return;
	}
	fence_lock2(fence, src_region(request), dst_region(request));
	held = take_both(request);
	touched = request->watch[0].touched || request->watch[1].touched;
	fence_unlock2(fence, src_region(request), dst_region(request));
	if (!held)
		return;
	request->piece_fenced = true;
	request->piece_done = 0;
	if (touched && !is_clone(request))
		compare(request);
	else
		publish(request);
}

/* What piece_done() would do, while the locks are held anyway. */
static void give_up_fences(struct request *request)
{
	for (unsigned i = 0; i < 2; i++) {
		if (request->watch[i].placed)
			fence_unwatch(&request->watch[i]);
		request_unfence_one(request, i);
	}
}

/* --- publishing --- */

static void loaded_for_publish(struct request *request)
{
	if (request->wait.res < 0 && !request_keep_place(request, dst_region(request)))
		end(request, request->wait.res == -ENOSPC ? -ENOSPC : -EIO);
	else
		publish(request);
}

/* A clone into a region that has no home for a leaf. */
static void place_came(struct request *request)
{
	if (request->place_res < 0)
		end(request, request->place_res);
	else
		publish(request);
}

/* How many blocks of a run can take one more reference, from its first on. Its refs page is
 * resident. */
static uint32_t unsaturated(struct volume *volume, pbn_t pbn, uint32_t blocks)
{
	uint32_t n = 0;

	while (n < blocks &&
	       (refs_count(&volume->metadata->refs, pbn_add(pbn, n)) < REFS_MAX || MUTANT(41)))
		n++;
	return n;
}

static struct record pair_record(struct request *request, const struct pair *pair)
{
	struct map *map = &request->volume->metadata->map;
	struct record record = {
		.kind = pbn_is_none(pair->src) ? RECORD_UNMAP : RECORD_SHARE,
		.count = pair->blocks,
		.lbn = lbn_add(request->part_lbn, pair->first),
		.old = pair->dst,
		.new = pair->src,
	};

	if (map_kind(map, lbn_region(record.lbn)) != REGION_LEAF)
		record.flags |= RECORD_ON_ROOT;
	if (record.kind == RECORD_SHARE) {
		record.src = lbn_add(request->piece_src, pair->first);
		if (map_kind(map, lbn_region(record.src)) != REGION_LEAF)
			record.flags |= RECORD_SRC_ON_ROOT;
	}
	return record;
}

static bool fits(const struct map *map, const struct record *record)
{
	if (record->kind == RECORD_UNMAP)
		return map_fits_unmap(map, record->lbn, record->count);
	/* Replacing what is mapped takes a leaf, as does sharing out of the region's own run. */
	return map_kind(map, lbn_region(record->lbn)) == REGION_LEAF ||
	       (pbn_is_none(record->old) && map_fits(map, record->lbn, record->count, record->new));
}

static bool is_nothing_to_do(const struct request *request, const struct pair *pair)
{
	/* A merge leaves a hole a hole; the source reads zeros there. */
	return is_shared_already(pair) || (!is_clone(request) && pbn_is_none(pair->dst));
}

/* The first absent page that a run's edits need, an explode among them; PAGE_NONE: all are
 * resident. Only the first edit of a batch finds the map as it is now: where a run's end is given
 * up, what would have continued it does not fit any more. So the leaf is there for the others. */
static page_t missing_page(struct request *request, const struct pair *pair, bool first)
{
	struct volume *volume = request->volume;
	struct record record = pair_record(request, pair);
	page_t leaf = page_of_leaf(lbn_region(record.lbn));
	bool as_it_is = (first || MUTANT(61)) && fits(&volume->metadata->map, &record);

	if (!as_it_is && cache_find(&volume->metadata->cache, leaf) == NULL)
		return leaf;
	return edit_missing(volume->metadata, &record);
}

/* One run, all of whose pages are resident. False: the source is saturated from the first block on,
 * and nothing was changed. */
static bool publish_pair(struct request *request, struct pair *pair)
{
	struct volume *volume = request->volume;
	struct record record = pair_record(request, pair);
	uint32_t room = pair->blocks;

	if (record.kind == RECORD_SHARE)
		room = unsaturated(volume, pair->src, pair->blocks);
	if (MUTANT(63)) /* the place is taken for what is refused afterwards */
		request_publish_place(request, dst_region(request));
	if (room == 0)
		return false;
	pair->blocks = room;
	request_publish_place(request, dst_region(request));
	record = pair_record(request, pair); /* the place may have made a LEAF of the region */
	if (!fits(&volume->metadata->map, &record)) {
		bool exploded = request_publish_explode(request, lbn_region(record.lbn),
							&request->part_page);

		assert(exploded); /* missing_page() looked */
		record = pair_record(request,
				     pair); /* source and destination may be in one region */
	}
	request_publish(request, &record);
	return true;
}

/* Whether the run is cloned, or cut off, without a place: the region stays a run, or becomes one
 * for which two blocks can be kept. */
static bool goes_without_place(struct request *request, const struct pair *pair)
{
	struct volume *volume = request->volume;
	struct record record = pair_record(request, pair);

	return fits(&volume->metadata->map, &record) &&
	       (map_is_unplaced(&volume->metadata->map, dst_region(request)) ||
		metadata_spare_blocks(volume->metadata) >= PLACE_BLOCKS);
}

enum published {
	PUBLISHED_ALL,
	PUBLISHED_SOME,
	NEEDS_PAGE,
	NEEDS_PLACE,
	SATURATED,
};

/* Whether the batch can be published whole: nothing is lacking. */
static enum published prepare(struct request *request, const struct pair *pairs, uint32_t n)
{
	bool lacks_place = request_lacks_place(request, dst_region(request)), first = true;
	uint32_t unmapped = 0, shared = 0;

	for (uint32_t i = 0; i < n; i++) {
		if (is_nothing_to_do(request, &pairs[i]))
			continue;
		unmapped += pbn_is_none(pairs[i].src) ? pairs[i].blocks : 0;
		shared += !pbn_is_none(pairs[i].src);
		if (lacks_place && (!first || !goes_without_place(request, &pairs[i])))
			return NEEDS_PLACE;
		request->part_page = page_of_leaf(dst_region(request));
		if (request_place_is_split(request) &&
		    cache_find(&request->volume->metadata->cache, request->part_page) == NULL)
			return NEEDS_PAGE;
		request->part_page = missing_page(request, &pairs[i], first);
		first = false;
		if (request->part_page != PAGE_NONE)
			return NEEDS_PAGE;
	}
	if (shared > 0)
		return PUBLISHED_ALL;
	request->part_page = request_unplace_missing(request, dst_region(request), unmapped);
	return request->part_page == PAGE_NONE ? PUBLISHED_ALL : NEEDS_PAGE;
}

/* It ends here; what came before may have emptied the region. */
static enum published saturated_at(struct request *request)
{
	if (!MUTANT(63))
		request_publish_unplace(request, dst_region(request));
	return SATURATED;
}

/* Stripes and meta are held: a batch of runs from piece_done on. */
static enum published publish_batch(struct request *request)
{
	struct pair pairs[BATCH_RUNS];
	uint32_t n = look_up(request, request->piece_done, pairs, BATCH_RUNS);
	enum published what = n == 0 ? NEEDS_PAGE : prepare(request, pairs, n);

	if (what != PUBLISHED_ALL)
		return what;
	for (uint32_t i = 0; i < n; i++) {
		uint32_t blocks = pairs[i].blocks;

		if (is_shared_already(&pairs[i]) && !pbn_is_none(pairs[i].src))
			request->same.already_shared_bytes += blocks_to_bytes(blocks);
		if (!is_nothing_to_do(request, &pairs[i]) && !publish_pair(request, &pairs[i]))
			return saturated_at(request);
		request->piece_done += pairs[i].blocks;
		if (pairs[i].blocks < blocks)
			return saturated_at(request);
	}
	request_depend_on_map(request, dst_region(request));
	if (request->piece_done < request->part_blocks)
		return PUBLISHED_SOME;
	request_publish_unplace(request, dst_region(request));
	return PUBLISHED_ALL;
}

/* The next page that the first batch would lack; PAGE_NONE: none, as the map is just now. */
static page_t lacking(struct request *request)
{
	struct fence *fence = &request->volume->fence;
	struct pair pairs[BATCH_RUNS];
	enum published what = NEEDS_PAGE;
	uint32_t n;

	fence_lock2(fence, src_region(request), dst_region(request));
	pthread_mutex_lock(&request->volume->metadata->lock);
	n = look_up(request, 0, pairs, BATCH_RUNS);
	if (n > 0)
		what = prepare(request, pairs, n);
	pthread_mutex_unlock(&request->volume->metadata->lock);
	fence_unlock2(fence, src_region(request), dst_region(request));
	return what == NEEDS_PAGE ? request->part_page : PAGE_NONE;
}

static void loaded_early(struct request *request)
{
	/* An error is found again, and told, by who needs the page. */
	if (request->wait.res < 0)
		take_fences(request);
	else
		load_pages(request);
}

/* Only a help: publish() looks again, and loads what a small cache has dropped by then. */
static void load_pages(struct request *request)
{
	page_t page = PAGE_NONE;

	if (request->piece_loads++ < LOADS_MAX)
		page = lacking(request);
	if (page == PAGE_NONE)
		take_fences(request);
	else
		request_load_page(request, page, loaded_early);
}

static void saturated(struct request *request)
{
	request->same.deduped_bytes =
		request->progress_bytes + blocks_to_bytes(request->piece_done);
	end(request, -EMLINK);
}

static void publish(struct request *request)
{
	struct volume *volume = request->volume;
	enum published what = PUBLISHED_SOME;

	if (volume_yield(volume, "before share")) {
		request_again(request, publish);
		return;
	}
	while (what == PUBLISHED_SOME) {
		if (volume_latched(volume)) {
			end(request, -EIO);
			return;
		}
		fence_lock2(&volume->fence, src_region(request), dst_region(request));
		pthread_mutex_lock(&volume->metadata->lock);
		what = publish_batch(request);
		if (pbn_is_none(request->part_place))
			request_drop_space(request);
		if (what == PUBLISHED_ALL)
			request_release_held(request);
		pthread_mutex_unlock(&volume->metadata->lock);
		if (what == PUBLISHED_ALL)
			give_up_fences(request);
		fence_unlock2(&volume->fence, src_region(request), dst_region(request));
	}
	if (what == PUBLISHED_ALL)
		piece_done(request);
	else if (what == NEEDS_PLACE)
		request_get_place(request, place_came);
	else if (what == SATURATED)
		saturated(request);
	else
		request_load_page(request, request->part_page, loaded_for_publish);
}

/* --- the whole --- */

static bool block_aligned(const struct request *request)
{
	uint64_t all = request->off_bytes | request->len_bytes;

	if (!from_zero(request))
		all |= request->src_off_bytes;
	return all % BLOCK_BYTES == 0;
}

static bool src_in_range(const struct request *request)
{
	uint64_t size_bytes = volume_size_bytes(request->volume);

	return from_zero(request) || (request->src_off_bytes <= size_bytes &&
				      request->len_bytes <= size_bytes - request->src_off_bytes);
}

static bool ranges_overlap(const struct request *request)
{
	return !from_zero(request) && request->len_bytes > 0 &&
	       request->src_off_bytes < request->off_bytes + request->len_bytes &&
	       request->off_bytes < request->src_off_bytes + request->len_bytes;
}

void same_start(struct request *request)
{
	struct volume *volume = request->volume;

	count(is_clone(request) ? &volume->counters.clone_requests
				: &volume->counters.same_requests,
	      1);
	if ((!block_aligned(request) && !MUTANT(15)) || !src_in_range(request) ||
	    (ranges_overlap(request) && !MUTANT(19)) || (is_clone(request) && from_zero(request)))
		request_finish(request, -EINVAL);
	else if (request->len_bytes == 0)
		request_finish(request, 0);
	else
		next_piece(request);
}
