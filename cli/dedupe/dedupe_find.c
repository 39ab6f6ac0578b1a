/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dedupe_find - see the header
 *
 * A match of n blocks at distance d (source minus destination) never overlaps itself: n <= |d|.
 *
 *   src   r-2  r-1 [ r ] r+1  r+2        a block r stands for b's content
 *   dst   b-2  b-1 [ b ] b+1  b+2        hashes agree from b-1 to b+2: the match has 4 blocks
 *
 * Where a destination stood for its own content (the sample did not show that r+1 is its copy, or
 * the longer run was preferred), its source does so from then on.
 */
#include "cli/dedupe/dedupe_find.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>

#include "core/base/units.h"
#include "core/format/format.h"

static_assert(REFS_MAX == DEDUPE_REFERENCES_MAX, "full is what the server takes for full");

/* Shares of the memory, in eighths; what remains is the list of matches'. */
#define TABLE_EIGHTHS 5
#define CACHE_EIGHTHS 2

int dedupe_find_init(struct dedupe_find *find, const struct dedupe_find_options *options)
{
	static const uint8_t zeros[BLOCK_BYTES];
	uint64_t eighth = options->memory_bytes / 8;
	int r;

	assert(options->memory_bytes >= DEDUPE_FIND_BYTES_MIN && options->min_run_blocks > 0);
	*find = (struct dedupe_find){.options = *options, .zero = dedupe_hash_block(zeros)};
	r = dedupe_table_init(&find->table, TABLE_EIGHTHS * eighth);
	if (r < 0)
		return r;
	r = dedupe_cache_init(&find->cache, options->source, CACHE_EIGHTHS * eighth);
	if (r < 0)
		dedupe_table_done(&find->table);
	return r;
}

void dedupe_find_done(struct dedupe_find *find)
{
	dedupe_table_done(&find->table);
	dedupe_cache_done(&find->cache);
}

/* --- the walk --- */

/* Zeros do however many references they have: they become holes. */
static bool takes_part(const struct dedupe_find *find, const struct dedupe_cursor *cursor)
{
	uint64_t place = dedupe_cursor_place(cursor);

	return place != 0 && (!dedupe_place_is_full(place) ||
			      dedupe_hash_equal(dedupe_cursor_hash(cursor), find->zero));
}

typedef int visit_fn(struct dedupe_find *find, uint64_t block);

static bool in_range(const struct dedupe_find *find, uint64_t block)
{
	return block >= find->options.first_block && block < find->options.end_block;
}

static int visit_region(struct dedupe_find *find, uint64_t number, visit_fn *visit)
{
	uint64_t first = number << DEDUPE_REGION_SHIFT;
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < DEDUPE_REGION_BLOCKS; i++) {
		if (!in_range(find, first + i))
			continue;
		r = dedupe_cursor_seek(&find->cache, &find->at, first + i);
		if (r == 0 && takes_part(find, &find->at))
			r = visit(find, first + i);
	}
	return r;
}

/* Visits every block of which something is known, in order. */
static int walk(struct dedupe_find *find, visit_fn *visit)
{
	const struct dedupe_source *source = find->options.source;
	uint64_t number = dedupe_region_of(find->options.first_block);
	int r;

	for (;; number++) {
		r = source->next(source->context, number, &number);
		if (r == -ENOENT ||
		    (r == 0 && number << DEDUPE_REGION_SHIFT >= find->options.end_block)) {
			r = 0;
			break;
		}
		if (r == 0)
			r = visit_region(find, number, visit);
		if (r == 0 && find->options.tick != NULL)
			r = find->options.tick(find->options.context, ++find->regions_done);
		if (r != 0)
			break;
	}
	dedupe_cursor_leave(&find->at);
	dedupe_cursor_leave(&find->src);
	dedupe_cursor_leave(&find->dst);
	return r;
}

/* --- learn --- */

static int learn_block(struct dedupe_find *find, uint64_t block)
{
	struct dedupe_hash hash = dedupe_cursor_hash(&find->at);
	uint32_t references = dedupe_place_references(dedupe_cursor_place(&find->at));
	uint64_t other;
	int r;

	if (!dedupe_table_samples(&find->table, hash) || dedupe_hash_equal(hash, find->zero))
		return 0;
	if (!dedupe_table_find(&find->table, hash, &other)) {
		dedupe_table_add(&find->table, hash, block);
		return 0;
	}
	if (references <= 1)
		return 0;
	r = dedupe_cursor_seek(&find->cache, &find->src, other);
	if (r < 0)
		return r;
	if (dedupe_hash_equal(dedupe_cursor_hash(&find->src), hash) &&
	    references > dedupe_place_references(dedupe_cursor_place(&find->src)))
		dedupe_table_move(&find->table, hash, block);
	return 0;
}

int dedupe_find_learn(struct dedupe_find *find)
{
	find->regions_done = 0;
	return walk(find, learn_block);
}

/* --- match --- */

static int seek_pair(struct dedupe_find *find, uint64_t dst, uint64_t src)
{
	int r = dedupe_cursor_seek(&find->cache, &find->dst, dst);

	return r < 0 ? r : dedupe_cursor_seek(&find->cache, &find->src, src);
}

/* Whether a third block stands for the content: then that one is to be the source. Where longer
 * runs are wanted, they come first. */
static bool belongs_to_another(const struct dedupe_find *find, struct dedupe_hash hash,
			       uint64_t dst, uint64_t src)
{
	uint64_t other;

	if (find->options.min_run_blocks > 1 || !dedupe_table_samples(&find->table, hash) ||
	    !dedupe_table_find(&find->table, hash, &other))
		return false;
	return other != dst && other != src;
}

/* 1: dst may become src; 0: it may not. */
static int pair_fits(struct dedupe_find *find, uint64_t dst, uint64_t src)
{
	const struct dedupe_roles *dst_roles, *src_roles;
	struct dedupe_hash hash;
	int r;

	if (!in_range(find, dst) || !in_range(find, src))
		return 0;
	r = seek_pair(find, dst, src);
	if (r < 0)
		return r;
	hash = dedupe_cursor_hash(&find->dst);
	if (!takes_part(find, &find->dst) || !takes_part(find, &find->src) ||
	    !dedupe_hash_equal(hash, dedupe_cursor_hash(&find->src)) ||
	    dedupe_hash_equal(hash, find->zero))
		return 0;
	dst_roles = &find->dst.entry->region.roles;
	src_roles = &find->src.entry->region.roles;
	if (dedupe_role_has(dst_roles->sources, find->dst.index) ||
	    dedupe_role_has(dst_roles->destinations, find->dst.index) ||
	    dedupe_role_has(src_roles->destinations, find->src.index))
		return 0;
	return !belongs_to_another(find, hash, dst, src);
}

/* How far the pair goes on, step by step, at most so far. */
static int extend(struct dedupe_find *find, uint64_t dst, uint64_t src, int step, uint64_t most,
		  uint64_t *ret_blocks)
{
	uint64_t blocks = 0;

	while (blocks < most) {
		int r;

		/* Below block 0 there is nothing. */
		if (step < 0 && (dst == 0 || src == 0))
			break;
		dst += (uint64_t)(int64_t)step;
		src += (uint64_t)(int64_t)step;
		r = pair_fits(find, dst, src);
		if (r < 0)
			return r;
		if (r == 0)
			break;
		blocks++;
	}
	*ret_blocks = blocks;
	return 0;
}

static void count_block(struct dedupe_find *find)
{
	uint32_t references = dedupe_place_references(dedupe_cursor_place(&find->dst));

	find->duplicate_blocks++;
	find->freed_blocks += 1.0 / (references > 1 ? references : 1);
}

static void set_destination(struct dedupe_find *find)
{
	dedupe_role_set(find->dst.entry->region.roles.destinations, find->dst.index);
	find->dst.entry->dirty = true;
}

/* Takes the roles of a match. */
static int settle(struct dedupe_find *find, const struct dedupe_match *match)
{
	for (uint64_t i = 0; i < match->blocks; i++) {
		struct dedupe_hash hash;
		uint64_t stands;
		int r = seek_pair(find, match->dst_block + i, match->src_block + i);

		if (r < 0)
			return r;
		hash = dedupe_cursor_hash(&find->dst);
		set_destination(find);
		dedupe_role_set(find->src.entry->region.roles.sources, find->src.index);
		find->src.entry->dirty = true;
		if (dedupe_table_samples(&find->table, hash) &&
		    dedupe_table_find(&find->table, hash, &stands) &&
		    stands == match->dst_block + i)
			dedupe_table_move(&find->table, hash, match->src_block + i);
		if (dedupe_place_block(dedupe_cursor_place(&find->dst)) !=
		    dedupe_place_block(dedupe_cursor_place(&find->src)))
			count_block(find);
	}
	return 0;
}

/* 1: some of its blocks lie elsewhere than their sources; 0: all is shared already. */
static int brings_something(struct dedupe_find *find, const struct dedupe_match *match)
{
	for (uint64_t i = 0; i < match->blocks; i++) {
		int r = seek_pair(find, match->dst_block + i, match->src_block + i);

		if (r < 0)
			return r;
		if (dedupe_place_block(dedupe_cursor_place(&find->dst)) !=
		    dedupe_place_block(dedupe_cursor_place(&find->src)))
			return 1;
	}
	return 0;
}

static int try_match(struct dedupe_find *find, uint64_t dst, uint64_t src)
{
	uint64_t most = (dst < src ? src - dst : dst - src) - 1, before = 0, after = 0;
	struct dedupe_match match;
	int r;

	if (src - dst == find->tried_distance && dst < find->tried_end)
		return 0;
	r = pair_fits(find, dst, src);
	if (r <= 0)
		return r;
	if (!find->dst.entry->region.pending && !find->src.entry->region.pending)
		return 0;
	r = extend(find, dst, src, 1, most, &after);
	if (r == 0)
		r = extend(find, dst, src, -1, most - after, &before);
	if (r < 0)
		return r;
	match = (struct dedupe_match){src - before, dst - before, before + 1 + after};
	r = match.blocks < find->options.min_run_blocks ? 0 : brings_something(find, &match);
	if (r <= 0) {
		find->tried_distance = src - dst;
		find->tried_end = dst + 1 + after;
		return r;
	}
	r = settle(find, &match);
	return r < 0 ? r : find->options.match(find->options.context, &match);
}

static bool is_zero(const struct dedupe_find *find)
{
	return dedupe_cursor_place(&find->dst) != 0 &&
	       dedupe_hash_equal(dedupe_cursor_hash(&find->dst), find->zero);
}

/* A run of zeros from this block on. */
static int try_zeros(struct dedupe_find *find, uint64_t block)
{
	struct dedupe_match match = {DEDUPE_ZERO, block, 0};
	bool pending = false;
	int r = 0;

	for (; r == 0 && in_range(find, block); block++, match.blocks++) {
		r = dedupe_cursor_seek(&find->cache, &find->dst, block);
		if (r < 0 || !is_zero(find))
			break;
		pending = pending || find->dst.entry->region.pending;
		set_destination(find);
	}
	if (r < 0 || !pending || match.blocks < find->options.min_run_blocks)
		return r;
	for (uint64_t i = 0; i < match.blocks; i++) {
		r = dedupe_cursor_seek(&find->cache, &find->dst, match.dst_block + i);
		if (r < 0)
			return r;
		count_block(find);
	}
	return find->options.match(find->options.context, &match);
}

static int match_block(struct dedupe_find *find, uint64_t block)
{
	const struct dedupe_roles *roles = &find->at.entry->region.roles;
	struct dedupe_hash hash = dedupe_cursor_hash(&find->at);
	uint64_t stands;

	if (dedupe_role_has(roles->destinations, find->at.index) ||
	    dedupe_role_has(roles->sources, find->at.index))
		return 0;
	if (dedupe_hash_equal(hash, find->zero))
		return try_zeros(find, block);
	if (!dedupe_table_samples(&find->table, hash) ||
	    !dedupe_table_find(&find->table, hash, &stands) || stands == block)
		return 0;
	return try_match(find, block, stands);
}

int dedupe_find_match(struct dedupe_find *find)
{
	find->regions_done = 0;
	find->tried_end = 0;
	return walk(find, match_block);
}
