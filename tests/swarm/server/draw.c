/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/swarm/server/draw.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/units.h"

#define WINDOW_BYTES	  (4ull << 20)
#define REQUEST_BYTES_MAX (1ull << 31) /* libnbd 1.14 has no extended headers */
#define MERGE_BLOCKS	  256u
#define MERGE_TRIES	  64
#define SOURCE_ZERO_IN	  12

static uint64_t below(struct load *load, uint64_t n)
{
	assert(n != 0);
	return rng_u64(&load->random) % n;
}

/* 1 to max, short ones as likely as long ones. */
static uint64_t draw_length(struct load *load, uint64_t max)
{
	uint64_t limit = 1ull << below(load, 64 - (uint64_t)__builtin_clzll(max) + 1);

	limit = limit > max ? max : limit;
	return 1 + below(load, limit);
}

/* Where a range of so many units of this size may begin, in bytes. */
static uint64_t draw_place(struct load *load, uint64_t unit, uint64_t units)
{
	uint64_t bytes = unit * units;
	uint64_t room = (load->size - bytes) / unit + 1;
	uint64_t off = below(load, room) * unit;

	if (load->options.windows != 0 && load->size > 2 * WINDOW_BYTES) {
		uint64_t window = below(load, load->options.windows);
		uint64_t windows = load->size / WINDOW_BYTES;

		/* The first, the last, and some between them. */
		off = window * (windows - 1) /
			      (load->options.windows > 1 ? load->options.windows - 1 : 1) *
			      WINDOW_BYTES +
		      below(load, WINDOW_BYTES / unit) * unit;
	}
	switch (below(load, 8)) {
	case 0: /* up to the volume's end */
		return load->size - bytes;
	case 1: { /* about the edge of a region */
		uint64_t edge = off / REGION_BYTES * REGION_BYTES;
		uint64_t before = below(load, units + 1) * unit;

		off = edge > before ? edge - before : 0;
		break;
	}
	default:
		break;
	}
	return off + bytes > load->size ? load->size - bytes : off;
}

static void draw_range(struct load *load, struct op *op)
{
	uint64_t size_blocks = load->size / BLOCK_BYTES;
	uint64_t max =
		load->options.blocks_max < size_blocks ? load->options.blocks_max : size_blocks;
	uint64_t unit = BLOCK_BYTES;

	switch (below(load, 8)) {
	case 0:
		unit = load->options.aligned ? SECTOR_BYTES : 1;
		max = 3 * BLOCK_BYTES / unit;
		break;
	case 1:
		unit = SECTOR_BYTES;
		max = 5 * BLOCK_SECTORS;
		break;
	default:
		break;
	}
	op->len = draw_length(load, max);
	op->off = draw_place(load, unit, op->len);
	op->len *= unit;
}

static void sectors_of(struct op *op)
{
	op->first = op->off / SECTOR_BYTES;
	op->count = (op->off + op->len + SECTOR_BYTES - 1) / SECTOR_BYTES - op->first;
}

/* The ends of the range that are no whole sectors; false if what they hold now is open. */
static bool draw_partial(struct load *load, struct op *op)
{
	uint64_t ends[2] = {op->off, op->off + op->len};

	for (unsigned i = 0; i < 2; i++) {
		uint64_t sector = ends[i] / SECTOR_BYTES;
		uint32_t id;

		if (ends[i] % SECTOR_BYTES == 0 ||
		    (op->partial_count == 1 && op->partial[0] == sector))
			continue;
		if (!history_known(&load->history, sector, &id) || load_cloning(load, sector, 1))
			return false;
		op->partial[op->partial_count++] = sector;
	}
	return true;
}

/* What a sector that is changed in part will hold; data: the op's bytes, or NULL for zeros. */
static uint32_t overlay(struct load *load, const struct op *op, uint64_t sector)
{
	uint8_t bytes[SECTOR_BYTES];
	uint64_t begin = sector * SECTOR_BYTES;
	uint64_t from = op->off > begin ? op->off : begin;
	uint64_t to =
		op->off + op->len < begin + SECTOR_BYTES ? op->off + op->len : begin + SECTOR_BYTES;
	uint32_t id;

	if (!history_known(&load->history, sector, &id))
		assert(!"draw_partial() has looked");
	contents_get(&load->contents, id, sector % BLOCK_SECTORS, bytes);
	if (op->data)
		memcpy(bytes + (from - begin), op->data + (from - op->off), to - from);
	else
		memset(bytes + (from - begin), 0, to - from);
	return contents_intern(&load->contents, bytes, sector % BLOCK_SECTORS);
}

static bool is_partial(const struct op *op, uint64_t sector)
{
	for (unsigned i = 0; i < op->partial_count; i++)
		if (op->partial[i] == sector)
			return true;
	return false;
}

static void *must(void *memory)
{
	if (!memory)
		abort();
	return memory;
}

/* Blocks of the pool follow their address, so that equal runs are longer than one. */
static uint32_t draw_id(struct load *load, uint64_t block, bool pool, uint32_t shift)
{
	if (pool && load->options.pool > 0)
		return 1 + (uint32_t)((block + shift) % load->options.pool);
	return load->next_id++;
}

static void fill(struct load *load, struct op *op, uint32_t *ids)
{
	bool pool = below(load, 2) == 0;
	uint32_t shift = below(load, 4) == 0 ? (uint32_t)below(load, 3) : 0;
	uint32_t id = 0;

	op->data = must(malloc(op->len));
	for (uint64_t i = 0; i < op->count; i++) {
		uint8_t bytes[SECTOR_BYTES];
		uint64_t sector = op->first + i;
		uint64_t begin = sector * SECTOR_BYTES;
		uint64_t from = op->off > begin ? op->off : begin;
		uint64_t to = op->off + op->len < begin + SECTOR_BYTES ? op->off + op->len
								       : begin + SECTOR_BYTES;

		if (i == 0 || sector % BLOCK_SECTORS == 0)
			id = draw_id(load, sector / BLOCK_SECTORS, pool, shift);
		content_fill(id, sector % BLOCK_SECTORS, bytes);
		memcpy(op->data + (from - op->off), bytes + (from - begin), to - from);
		ids[i] = id;
	}
}

static uint32_t *draw_ids(struct load *load, struct op *op)
{
	uint32_t *ids = must(calloc(op->count, sizeof(*ids)));

	if (op->kind == OP_WRITE)
		fill(load, op, ids);
	for (uint64_t i = 0; i < op->count; i++)
		if (is_partial(op, op->first + i))
			ids[i] = overlay(load, op, op->first + i);
	return ids;
}

/* A write, zero or trim; false: not now. */
static bool draw_change(struct load *load, struct op *op, uint32_t **ret_ids)
{
	draw_range(load, op);
	if (below(load, 10) == 0)
		op->flags |= LIBNBD_CMD_FLAG_FUA;
	if (op->kind == OP_TRIM) {
		uint64_t begin = (op->off + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_SECTORS;
		uint64_t end = (op->off + op->len) / BLOCK_BYTES * BLOCK_SECTORS;

		op->first = begin;
		op->count = end > begin ? end - begin : 0;
	} else {
		sectors_of(op);
		if (!draw_partial(load, op))
			return false;
	}
	if (op->kind == OP_ZERO && below(load, 3) == 0)
		op->flags |= LIBNBD_CMD_FLAG_NO_HOLE;
	else if (op->kind == OP_ZERO && below(load, 6) == 0)
		op->flags |= LIBNBD_CMD_FLAG_FAST_ZERO;
	if (load_reserved(load, op->first, op->count))
		return false;
	*ret_ids = draw_ids(load, op);
	return true;
}

static bool draw_all(struct load *load, struct op *op)
{
	op->len = load->size;
	return load->size <= REQUEST_BYTES_MAX && load->history.all_count < HISTORY_ALL_MAX &&
	       !load_reserved(load, 0, load->size / SECTOR_BYTES);
}

static uint64_t merge_blocks(struct load *load)
{
	uint64_t half = load->size / BLOCK_BYTES / 2;

	return draw_length(load, half < MERGE_BLOCKS ? half : MERGE_BLOCKS);
}

static bool ranges_meet(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
	return a < b + b_len && b < a + a_len;
}

static bool overlap(uint64_t a, uint64_t b, uint64_t len)
{
	return ranges_meet(a, len, b, len);
}

/* A place that looks equal to the source's first block, or any. */
static uint64_t draw_destination(struct load *load, uint64_t src, uint64_t len)
{
	uint64_t blocks = load->size / BLOCK_BYTES, pool = load->options.pool;
	uint32_t id = 0;

	history_known(&load->history, src / SECTOR_BYTES, &id);
	for (int i = 0; i < MERGE_TRIES && pool > 0; i++) {
		uint64_t dst = (src / BLOCK_BYTES + pool * (1 + below(load, blocks))) % blocks;
		uint32_t found = 0;

		history_known(&load->history, dst * BLOCK_SECTORS, &found);
		if (found == id && (dst * BLOCK_BYTES + len) <= load->size &&
		    !overlap(src, dst * BLOCK_BYTES, len))
			return dst * BLOCK_BYTES;
	}
	return draw_place(load, BLOCK_BYTES, len / BLOCK_BYTES);
}

static bool draw_merge(struct load *load, struct op *op)
{
	op->len = merge_blocks(load) * BLOCK_BYTES;
	op->src = draw_place(load, BLOCK_BYTES, op->len / BLOCK_BYTES);
	op->src_zero = below(load, SOURCE_ZERO_IN) == 0;
	op->sync = below(load, 8) == 0;
	op->dst_count = 1 + (unsigned)below(load, LOAD_DSTS_MAX);
	for (unsigned i = 0; i < op->dst_count; i++) {
		op->srcs[i] = op->kind == OP_SAME || i == 0
				      ? op->src
				      : draw_place(load, BLOCK_BYTES, op->len / BLOCK_BYTES);
		op->dsts[i] = draw_destination(load, op->srcs[i], op->len);
		if (!op->src_zero && overlap(op->srcs[i], op->dsts[i], op->len))
			return false;
	}
	return true;
}

/* Neither end of a clone is an end of another one in flight, so that its source is no riddle. */
static bool draw_clone(struct load *load, struct op *op)
{
	uint64_t sectors;

	op->len = merge_blocks(load) * BLOCK_BYTES;
	if (below(load, 4) == 0 && load->size >= 4 * REGION_BYTES)
		op->len = REGION_BYTES * (1 + below(load, 2));
	sectors = op->len / SECTOR_BYTES;
	op->src = draw_place(load, BLOCK_BYTES, op->len / BLOCK_BYTES);
	op->off = draw_place(load, BLOCK_BYTES, op->len / BLOCK_BYTES);
	op->sync = below(load, 8) == 0;
	op->first = op->off / SECTOR_BYTES;
	op->count = sectors;
	if (overlap(op->src, op->off, op->len) || load_reserved(load, op->first, sectors))
		return false;
	for (const struct op *other = load->in_flight; other; other = other->next)
		if (other->kind == OP_CLONE &&
		    (ranges_meet(op->src, op->len, other->off, other->len) ||
		     ranges_meet(op->off, op->len, other->src, other->len) ||
		     ranges_meet(op->off, op->len, other->off, other->len)))
			return false;
	return true;
}

/* What has to be refused, with the errno that docs/nbd.md promises. */
static void draw_wrong(struct load *load, struct op *op)
{
	op->len = 1 + below(load, 100000);
	op->off = load->size - below(load, op->len);
	op->flags = 0;
	op->wrong = EINVAL;
	if (below(load, 2) == 0) {
		op->flags = LIBNBD_CMD_FLAG_NO_HOLE; /* a zero past the end */
		op->wrong = load->options.read_only ? EPERM : ENOSPC;
	}
}

static bool draw_kind(struct load *load, bool control, enum op_kind *ret_kind)
{
	uint64_t sum = 0, dice;
	unsigned from = control ? OP_SAME : 0, to = control ? OP_KINDS : OP_SAME;

	for (unsigned kind = from; kind < to; kind++)
		sum += load->options.weights[kind];
	if (sum == 0)
		return false;
	dice = below(load, sum);
	for (unsigned kind = from; kind < to; kind++) {
		if (dice < load->options.weights[kind]) {
			*ret_kind = kind;
			return true;
		}
		dice -= load->options.weights[kind];
	}
	return false;
}

static bool draw_rest(struct load *load, struct op *op, uint32_t **ret_ids)
{
	switch (op->kind) {
	case OP_WRITE:
	case OP_ZERO:
	case OP_TRIM:
		return draw_change(load, op, ret_ids);
	case OP_READ:
		draw_range(load, op);
		op->data = must(malloc(op->len));
		return true;
	case OP_CACHE:
	case OP_EXTENTS:
		draw_range(load, op);
		return true;
	case OP_MAP:
		op->len = draw_length(load, load->size / BLOCK_BYTES) * BLOCK_BYTES;
		op->off = draw_place(load, BLOCK_BYTES, op->len / BLOCK_BYTES);
		return true;
	case OP_ALL:
		return draw_all(load, op);
	case OP_SAME:
	case OP_RANGES:
		return draw_merge(load, op);
	case OP_CLONE:
		return draw_clone(load, op);
	case OP_WRONG:
		draw_wrong(load, op);
		return true;
	default:
		return true;
	}
}

struct op *draw(struct load *load, bool control, uint32_t **ret_ids)
{
	struct op *op = must(calloc(1, sizeof(*op)));

	*ret_ids = NULL;
	op->load = load;
	if (draw_kind(load, control, &op->kind) && draw_rest(load, op, ret_ids))
		return op;
	free(op->data);
	free(op);
	return NULL;
}
