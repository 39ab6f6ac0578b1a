/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/metadata/refs.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "core/base/mutant.h"

int refs_init(struct refs *refs, const struct geometry *geometry, struct cache *cache)
{
	int r = 0;

	*refs = (struct refs){.geometry = geometry, .cache = cache};
	refs->slabs = calloc(geometry->slabs, sizeof(struct slab));
	refs->tops = calloc(geometry->summary_pages, sizeof(struct top));
	for (uint32_t i = 0; r == 0 && i < PIECES; i++)
		r = slabset_init(&refs->by_piece[i], geometry->slabs);
	if (r == 0)
		r = slabset_init(&refs->unknown, geometry->slabs);
	if (r == 0)
		r = slabset_init(&refs->barred, geometry->slabs);
	if (r == 0)
		r = slabset_init(&refs->due, geometry->slabs);
	return refs->slabs && refs->tops ? r : -ENOMEM;
}

void refs_done(struct refs *refs)
{
	free(refs->slabs);
	free(refs->tops);
	for (uint32_t i = 0; i < PIECES; i++)
		slabset_done(&refs->by_piece[i]);
	slabset_done(&refs->unknown);
	slabset_done(&refs->barred);
	slabset_done(&refs->due);
}

/* --- what a slab has to offer --- */

static void leave_set(struct refs *refs, uint32_t slab)
{
	slabset_remove(&refs->by_piece[refs->slabs[slab].piece], slab);
}

static void enter_set(struct refs *refs, uint32_t slab)
{
	const struct slab *s = &refs->slabs[slab];

	if (!s->barred && !s->lost)
		slabset_add(&refs->by_piece[s->piece], slab);
}

static void set_piece(struct refs *refs, uint32_t slab, uint32_t piece)
{
	struct slab *s = &refs->slabs[slab];

	/* No more than is left, be it unmeasured. */
	while (piece > 0 && piece_blocks(piece) > refs_slab_available(refs, slab))
		piece--;
	if (piece == s->piece)
		return;
	leave_set(refs, slab);
	s->piece = (uint8_t)piece;
	enter_set(refs, slab);
}

/* Of a page that is absent. */
static void set_home_piece(struct refs *refs, uint32_t slab)
{
	const struct slab *s = &refs->slabs[slab];
	uint32_t blocks = geometry_slab_blocks(refs->geometry, slab);

	if (s->home_piece > 0 && s->generation != 0) {
		slabset_remove(&refs->unknown, slab);
		set_piece(refs, slab, s->home_piece - 1u);
	} else {
		if (s->generation != 0 && s->free_blocks > 1 && !s->lost)
			slabset_add(&refs->unknown, slab);
		set_piece(refs, slab, piece_at_least(blocks, (uint32_t)s->free_blocks));
	}
}

void refs_set_summary(struct refs *refs, uint32_t slab, const struct summary_entry *entry)
{
	uint32_t blocks = geometry_slab_blocks(refs->geometry, slab);
	uint32_t free_blocks = entry->generation == 0 ? blocks : entry->free_blocks;

	refs->slabs[slab] = (struct slab){
		.generation = entry->generation,
		.free_blocks = (int16_t)free_blocks,
		.shared_refs = entry->shared_refs,
		.home_piece = entry->piece <= PIECES ? entry->piece : 0,
	};
	refs->free_blocks += free_blocks;
	refs->owed_free[OWED_NOTHING] += free_blocks;
	refs->shared_refs += entry->shared_refs;
	set_home_piece(refs, slab);
	enter_set(refs, slab);
	/* Of an older store that is not known. */
	if (entry->generation == 0 ? (entry->flags & SUMMARY_WRITTEN) != 0
				   : (entry->flags & SUMMARY_GIVEN) == 0 && free_blocks > 0)
		refs_set_owed(refs, slab, OWED_DUE);
}

static bool is_free(const struct frame *frame, uint32_t i)
{
	return frame->counts[i] == 0 && frame->busy_counts[i] == 0;
}

uint32_t refs_free_piece(const struct refs *refs, const struct frame *frame)
{
	uint32_t blocks =
		geometry_slab_blocks(refs->geometry, frame->page - refs->geometry->regions);
	uint32_t piece = 0;

	for (uint32_t i = 0; i < blocks; i++) {
		uint32_t begin = i;

		while (i < blocks && frame->counts[i] == 0)
			i++;
		if (i > begin)
			piece = max_u32(piece, piece_in(begin, i));
	}
	return piece;
}

void refs_measure(struct refs *refs, uint32_t slab)
{
	uint32_t blocks = geometry_slab_blocks(refs->geometry, slab), piece = 0;
	const struct frame *frame = cache_find(refs->cache, page_of_refs(refs->geometry, slab));

	assert(frame != NULL);
	for (uint32_t i = 0; i < blocks && piece < PIECE_MAX; i++) {
		uint32_t begin = i;

		while (i < blocks && is_free(frame, i))
			i++;
		if (i > begin)
			piece = max_u32(piece, piece_in(begin, i));
	}
	set_piece(refs, slab, piece);
}

/* Blocks from first to end may be allocatable again: the runs that they are in may be longer than
 * any before. */
static void measure_around(struct refs *refs, uint32_t slab, const struct frame *frame,
			   uint32_t first, uint32_t end)
{
	uint32_t blocks = geometry_slab_blocks(refs->geometry, slab);
	uint32_t piece = refs->slabs[slab].piece;

	while (first > 0 && is_free(frame, first - 1))
		first--;
	for (uint32_t i = first; i < end && piece < PIECE_MAX; i++) {
		uint32_t begin = i;

		while (i < blocks && is_free(frame, i))
			i++;
		if (i > begin)
			piece = max_u32(piece, piece_in(begin, i));
	}
	set_piece(refs, slab, piece);
}

void refs_loaded(struct refs *refs, const struct frame *frame)
{
	uint32_t slab = frame->page - refs->geometry->regions;
	struct slab *s = &refs->slabs[slab];
	uint32_t piece = refs_free_piece(refs, frame);

	if (s->lost) {
		s->lost = false;
		refs->lost_free -= (uint64_t)s->free_blocks;
		enter_set(refs, slab);
	}
	slabset_remove(&refs->unknown, slab);
	if (s->generation != 0 && s->home_piece != piece + 1) {
		s->home_piece = (uint8_t)(piece + 1);
		refs->tops[slab / SUMMARY_ENTRIES].dirty = true;
	}
	set_piece(refs, slab, piece);
}

void refs_evicted(struct refs *refs, uint32_t slab)
{
	set_home_piece(refs, slab);
}

void refs_home(struct refs *refs, uint32_t slab, uint32_t generation, uint32_t piece)
{
	refs->slabs[slab].generation = generation;
	refs->slabs[slab].home_piece = (uint8_t)(piece + 1);
	refs->tops[slab / SUMMARY_ENTRIES].dirty = true;
}

void refs_bar(struct refs *refs, uint32_t slab)
{
	leave_set(refs, slab);
	refs->slabs[slab].barred = true;
	slabset_add(&refs->barred, slab);
}

void refs_unbar(struct refs *refs)
{
	uint32_t slab = 0;

	while ((slab = slabset_next(&refs->barred, slab)) != SLABSET_NONE) {
		slabset_remove(&refs->barred, slab);
		refs->slabs[slab].barred = false;
		enter_set(refs, slab);
	}
}

void refs_set_owed(struct refs *refs, uint32_t slab, enum owed owed)
{
	struct slab *s = &refs->slabs[slab];

	if (s->owed == owed)
		return;
	refs->owed_free[s->owed] -= (uint64_t)s->free_blocks;
	refs->owed_free[owed] += (uint64_t)s->free_blocks;
	s->owed = owed;
	if (owed == OWED_DUE)
		slabset_add(&refs->due, slab);
	else
		slabset_remove(&refs->due, slab);
	refs->tops[slab / SUMMARY_ENTRIES].dirty = true;
}

void refs_make_all_due(struct refs *refs)
{
	for (uint32_t slab = 0; slab < refs->geometry->slabs; slab++)
		if (refs->slabs[slab].free_blocks > 0)
			refs_set_owed(refs, slab, OWED_DUE);
}

void refs_hold(struct refs *refs, uint32_t slab)
{
	struct slab *s = &refs->slabs[slab];

	assert(s->generation == 0 && s->busy_free == 0 && !s->lost);
	s->busy_free = s->free_blocks;
	refs->busy_free += (uint64_t)s->free_blocks;
	set_piece(refs, slab, 0);
}

void refs_unhold(struct refs *refs, uint32_t slab)
{
	struct slab *s = &refs->slabs[slab];

	assert(s->busy_free == s->free_blocks);
	s->busy_free = 0;
	refs->busy_free -= (uint64_t)s->free_blocks;
	if (cache_find(refs->cache, page_of_refs(refs->geometry, slab)))
		refs_measure(refs, slab); /* it came in meanwhile */
	else
		set_home_piece(refs, slab);
}

/* How far behind `from` it is, going round. */
static uint32_t next_of(const struct refs *refs, const struct slabset *set, uint32_t from)
{
	uint32_t slab = slabset_next(set, from);

	if (slab != SLABSET_NONE)
		return slab - from;
	slab = slabset_next(set, 0);
	return slab < from ? refs->geometry->slabs - from + slab : SLABSET_NONE;
}

uint32_t refs_find(const struct refs *refs, uint32_t from, uint32_t piece)
{
	uint32_t nearest = SLABSET_NONE;

	for (; piece < PIECES; piece++)
		nearest = min_u32(nearest, next_of(refs, &refs->by_piece[piece], from));
	if (nearest == SLABSET_NONE)
		return SLABSET_NONE;
	return (uint32_t)(((uint64_t)from + nearest) % refs->geometry->slabs);
}

/* --- counts --- */

struct frame *refs_frame(struct refs *refs, pbn_t pbn)
{
	return cache_find(refs->cache,
			  page_of_refs(refs->geometry, geometry_slab(refs->geometry, pbn)));
}

/* The page that must be resident: who calls made sure before. */
static struct frame *page_of(struct refs *refs, pbn_t pbn, uint32_t blocks)
{
	struct frame *frame = refs_frame(refs, pbn);

	assert(frame != NULL && blocks > 0);
	assert(geometry_slab(refs->geometry, pbn) ==
	       geometry_slab(refs->geometry, pbn_add(pbn, blocks - 1)));
	return frame;
}

uint16_t refs_count(struct refs *refs, pbn_t pbn)
{
	return page_of(refs, pbn, 1)->counts[geometry_slab_index(refs->geometry, pbn)];
}

uint16_t refs_busy_count(struct refs *refs, pbn_t pbn)
{
	return page_of(refs, pbn, 1)->busy_counts[geometry_slab_index(refs->geometry, pbn)];
}

void refs_busy_add(struct refs *refs, pbn_t pbn, uint32_t blocks)
{
	struct frame *frame = page_of(refs, pbn, blocks);
	struct slab *slab = &refs->slabs[geometry_slab(refs->geometry, pbn)];
	uint32_t first = geometry_slab_index(refs->geometry, pbn);

	refs->cache->busy_pages += frame->busy == 0;
	for (uint32_t i = first; i < first + blocks; i++) {
		assert(frame->busy_counts[i] < UINT16_MAX);
		if (frame->busy_counts[i]++ > 0)
			continue;
		frame->busy++;
		if (frame->counts[i] == 0) {
			slab->busy_free++;
			refs->busy_free++;
		}
	}
	if (slab->free_blocks == slab->busy_free)
		set_piece(refs, geometry_slab(refs->geometry, pbn), 0);
}

void refs_busy_sub(struct refs *refs, pbn_t pbn, uint32_t blocks)
{
	struct frame *frame = page_of(refs, pbn, blocks);
	struct slab *slab = &refs->slabs[geometry_slab(refs->geometry, pbn)];
	uint32_t first = geometry_slab_index(refs->geometry, pbn);

	for (uint32_t i = first; i < first + blocks; i++) {
		assert(frame->busy_counts[i] > 0);
		if (--frame->busy_counts[i] > 0)
			continue;
		frame->busy--;
		if (frame->counts[i] == 0) {
			slab->busy_free--;
			refs->busy_free--;
		}
	}
	refs->cache->busy_pages -= frame->busy == 0;
	if (slab->piece < PIECE_MAX && slab->busy_free < slab->free_blocks)
		measure_around(refs, geometry_slab(refs->geometry, pbn), frame, first,
			       first + blocks);
}

static void count_changed(struct refs *refs, struct slab *slab, uint32_t before, uint32_t after,
			  bool busy)
{
	int free_delta = (after == 0) - (before == 0);
	int64_t shared_delta =
		(int64_t)(after > 1 ? after : 0) - (int64_t)(before > 1 ? before : 0);

	slab->free_blocks = (int16_t)(slab->free_blocks + free_delta);
	refs->free_blocks += (uint64_t)(int64_t)free_delta;
	refs->owed_free[slab->owed] += (uint64_t)(int64_t)free_delta;
	if (busy) {
		slab->busy_free = (int16_t)(slab->busy_free + free_delta);
		refs->busy_free += (uint64_t)(int64_t)free_delta;
	}
	slab->shared_refs = (uint32_t)(slab->shared_refs + shared_delta);
	refs->shared_refs += (uint64_t)shared_delta;
}

void refs_take(struct refs *refs, pbn_t pbn, uint32_t blocks)
{
	struct frame *frame = page_of(refs, pbn, blocks);
	struct slab *slab = &refs->slabs[geometry_slab(refs->geometry, pbn)];
	uint32_t first = geometry_slab_index(refs->geometry, pbn);

	for (uint32_t i = first; i < first + blocks; i++) {
		uint16_t before = frame->counts[i];

		assert(before < REFS_MAX || MUTANT(41));
		frame->counts[i] = (uint16_t)(before + 1);
		count_changed(refs, slab, before, frame->counts[i], frame->busy_counts[i] > 0);
	}
}

uint32_t refs_drop(struct refs *refs, pbn_t pbn, uint32_t blocks)
{
	struct frame *frame = page_of(refs, pbn, blocks);
	struct slab *slab = &refs->slabs[geometry_slab(refs->geometry, pbn)];
	uint32_t first = geometry_slab_index(refs->geometry, pbn), freed = 0;

	for (uint32_t i = first; i < first + blocks; i++) {
		uint16_t before = frame->counts[i];

		assert(before > 0);
		frame->counts[i] = (uint16_t)(before - 1);
		count_changed(refs, slab, before, before - 1u, frame->busy_counts[i] > 0);
		freed += before == 1;
	}
	return freed;
}

bool refs_lose(struct refs *refs, uint32_t slab)
{
	struct slab *s = &refs->slabs[slab];

	if (s->lost || s->busy_free > 0)
		return false;
	leave_set(refs, slab);
	slabset_remove(&refs->unknown, slab);
	s->lost = true;
	refs->lost_free += (uint64_t)s->free_blocks;
	return true;
}

void refs_recount(struct refs *refs, uint32_t slab)
{
	uint32_t blocks = geometry_slab_blocks(refs->geometry, slab);
	const struct frame *frame = cache_find(refs->cache, page_of_refs(refs->geometry, slab));
	struct slab *s = &refs->slabs[slab];
	int16_t free_blocks = 0;
	uint32_t shared = 0;

	assert(frame != NULL);
	for (uint32_t i = 0; i < blocks; i++) {
		free_blocks = (int16_t)(free_blocks + (frame->counts[i] == 0));
		shared += frame->counts[i] > 1 ? frame->counts[i] : 0u;
	}
	refs->free_blocks += (uint64_t)(int64_t)(free_blocks - s->free_blocks);
	/* During replay it may have gone below 0; a slab's sum has fewer than 31 bits. */
	refs->shared_refs += (uint64_t)(int64_t)(int32_t)(shared - s->shared_refs);
	refs->owed_free[s->owed] += (uint64_t)(int64_t)(free_blocks - s->free_blocks);
	s->free_blocks = free_blocks;
	s->shared_refs = shared;
	refs_measure(refs, slab);
}
