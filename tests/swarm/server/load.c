/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/swarm/server/load.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

const char *op_name(enum op_kind kind)
{
	static const char *const names[OP_KINDS] = {"write",  "read",	 "zero",  "trim", "cache",
						    "flush",  "extents", "wrong", "all",  "same",
						    "ranges", "clone",	 "map",	  "stats"};

	return names[kind];
}

void load_bad(struct load *load, const char *format, ...)
{
	va_list arguments;

	if (load->bad[0] != '\0')
		return;
	va_start(arguments, format);
	vsnprintf(load->bad, sizeof(load->bad), format, arguments);
	va_end(arguments);
	load->stopping = true;
}

void load_trace(struct load *load, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(load->trace[load->trace_count++ % LOAD_TRACE_OPS], sizeof(load->trace[0]), format,
		  arguments);
	va_end(arguments);
}

void load_gone(struct load *load, const char *why)
{
	if (!load->gone)
		load_trace(load, "%" PRIu64 " gone: %s", load->history.now, why);
	load->gone = true;
}

static void oldest_update(struct load *load)
{
	uint64_t oldest = HISTORY_NEVER;

	for (const struct op *op = load->in_flight; op; op = op->next)
		if (op->submitted < oldest)
			oldest = op->submitted;
	load->history.oldest = oldest;
}

void op_begin(struct op *op, const uint32_t *ids)
{
	struct load *load = op->load;

	op->submitted = history_tick(&load->history);
	op->next = load->in_flight;
	if (load->in_flight)
		load->in_flight->prev = op;
	load->in_flight = op;
	load->in_flight_count++;
	oldest_update(load);
	load->counts[op->kind]++;
	load_trace(load, "%" PRIu64 " %s %" PRIu64 "+%" PRIu64 " from %" PRIu64 " flags %x on %u",
		   op->submitted, op_name(op->kind), op->off, op->len, op->src, op->flags,
		   op->connection);
	if (op->kind == OP_ALL)
		history_submit_all(&load->history, op->submitted);
	if (op->kind == OP_WRITE || op->kind == OP_ZERO || op->kind == OP_TRIM)
		for (uint64_t i = 0; i < op->count; i++)
			history_submit(&load->history, op->first + i, op->submitted, ids[i]);
}

/* --- what an end means --- */

static void unlink_op(struct op *op)
{
	struct load *load = op->load;

	if (op->prev)
		op->prev->next = op->next;
	else
		load->in_flight = op->next;
	if (op->next)
		op->next->prev = op->prev;
	load->in_flight_count--;
	oldest_update(load);
}

struct clone_target {
	struct history *history;
	uint64_t sector;
	struct version version;
	uint32_t first_ids[8]; /* several versions of the source are often one thing */
	unsigned count;
};

static bool take_clone(void *context, uint32_t id)
{
	struct clone_target *target = context;

	for (unsigned i = 0; i < target->count; i++)
		if (target->first_ids[i] == id)
			return false;
	if (target->count < 8)
		target->first_ids[target->count++] = id;
	target->version.id = id;
	history_add(target->history, target->sector, &target->version);
	return false;
}

/* Its destination held what its source held at some moment of it. */
static void end_clone(struct op *op, enum op_end end, bool durable)
{
	struct history *history = &op->load->history;

	for (uint64_t i = 0; i < op->count; i++) {
		struct clone_target target = {
			.history = history,
			.sector = op->first + i,
			.version = {.submitted = op->submitted,
				    .ended = end == OP_LOST ? HISTORY_NEVER : history->now,
				    .good = end == OP_DONE,
				    .durable = end == OP_DONE && durable}};

		history_live(history, op->src / SECTOR_BYTES + i, op->submitted, history->now,
			     take_clone, &target);
	}
}

static void end_versions(struct op *op, enum op_end end)
{
	struct load *load = op->load;
	bool durable = (op->flags & LIBNBD_CMD_FLAG_FUA) || load->options.lasting || op->sync;

	if (op->kind == OP_CLONE)
		end_clone(op, end, durable);
	if (end == OP_LOST)
		return;
	if (op->kind == OP_ALL)
		history_end_all(&load->history, op->submitted, end == OP_DONE, durable);
	if (op->kind == OP_WRITE || op->kind == OP_ZERO || op->kind == OP_TRIM)
		for (uint64_t i = 0; i < op->count; i++)
			history_end(&load->history, op->first + i, op->submitted, end == OP_DONE,
				    durable);
	if (op->kind == OP_FLUSH && end == OP_DONE)
		history_flushed(&load->history, op->submitted);
}

/* Bytes of a sector that a read has of it are compared; a part of a sector only with what is known
 * of it. */
static void check_read_sector(struct op *op, uint64_t sector)
{
	struct load *load = op->load;
	uint64_t begin = sector * SECTOR_BYTES;
	uint64_t from = op->off > begin ? op->off : begin;
	uint64_t to =
		op->off + op->len < begin + SECTOR_BYTES ? op->off + op->len : begin + SECTOR_BYTES;
	uint8_t expected[SECTOR_BYTES];
	uint32_t id;
	char text[2000];

	if (to - from < SECTOR_BYTES) {
		if (!history_known(&load->history, sector, &id) ||
		    history_busy(&load->history, sector, op->submitted, load->history.now) ||
		    load_cloning(load, sector, 1) || load->history.all_count > 0)
			return;
		contents_get(&load->contents, id, sector % BLOCK_SECTORS, expected);
		if (memcmp(expected + (from - begin), op->data + (from - op->off), to - from) == 0)
			return;
	} else {
		id = contents_identify(&load->contents, op->data + (begin - op->off),
				       sector % BLOCK_SECTORS);
		if (id != CONTENT_GARBAGE && load_may_read(load, sector, op->submitted, id))
			return;
		/* A read beside a write of the same sector may see half of it: docs/nbd.md. */
		if (id == CONTENT_GARBAGE &&
		    history_busy(&load->history, sector, op->submitted, load->history.now)) {
			load->torn_count++;
			return;
		}
	}
	history_print(&load->history, sector, text, sizeof(text));
	load_bad(load,
		 "sector %" PRIu64 " (block %" PRIu64 ") live in %" PRIu64 "-%" PRIu64
		 ": found %" PRId64 ", history%s",
		 sector, sector / BLOCK_SECTORS, op->submitted, load->history.now,
		 id == CONTENT_GARBAGE ? -1 : (int64_t)id, text);
}

static void check_read(struct op *op)
{
	uint64_t end = (op->off + op->len + SECTOR_BYTES - 1) / SECTOR_BYTES;

	for (uint64_t s = op->off / SECTOR_BYTES; s < end && op->load->bad[0] == '\0'; s++)
		check_read_sector(op, s);
}

bool load_error_allowed(struct load *load, int error)
{
	load->enospc_count += error == ENOSPC;
	load->eio_count += error == EIO;
	return (error == ENOSPC && load->options.enospc) || (error == EIO && load->options.eio);
}

bool op_error_allowed(struct load *load, const struct op *op, int error)
{
	if (load->options.read_only && (error == EROFS || error == EPERM))
		return true;
	if (error == EOPNOTSUPP && (op->flags & LIBNBD_CMD_FLAG_FAST_ZERO))
		return true;
	return load_error_allowed(load, error);
}

void op_finish(struct op *op, enum op_end end, int error)
{
	struct load *load = op->load;

	/* The control connection has ticked, and looked at what its answer says. */
	if (op->kind < OP_SAME)
		history_tick(&load->history);
	load_trace(load, "%" PRIu64 " end of %" PRIu64 ": %s", load->history.now, op->submitted,
		   end == OP_DONE   ? "good"
		   : end == OP_LOST ? "lost"
				    : strerror(error));
	if (end == OP_DONE && op->kind == OP_READ)
		check_read(op);
	if (end == OP_DONE && op->wrong != 0)
		load_bad(load, "%s that must be refused succeeded", op_name(op->kind));
	if (end == OP_FAILED && op->kind < OP_SAME && error != op->wrong &&
	    !op_error_allowed(load, op, error))
		load_bad(load, "%s of %" PRIu64 "+%" PRIu64 ": %s", op_name(op->kind), op->off,
			 op->len, strerror(error));
	/* Before its versions: a clone's are none of those in flight any more. */
	unlink_op(op);
	end_versions(op, end);
	free(op->data);
	free(op);
}

/* --- what is in flight --- */

static bool meets(uint64_t first, uint64_t count, uint64_t sector)
{
	return sector >= first && sector - first < count;
}

bool load_reserved(const struct load *load, uint64_t first, uint64_t count)
{
	for (const struct op *op = load->in_flight; op; op = op->next)
		for (unsigned i = 0; i < op->partial_count; i++)
			if (meets(first, count, op->partial[i]))
				return true;
	return false;
}

bool load_cloning(const struct load *load, uint64_t first, uint64_t count)
{
	for (const struct op *op = load->in_flight; op; op = op->next)
		if (op->kind == OP_CLONE && op->first < first + count &&
		    first < op->first + op->count)
			return true;
	return false;
}

bool load_may_read(struct load *load, uint64_t sector, uint64_t from, uint32_t id)
{
	if (history_may_read(&load->history, sector, from, load->history.now, id))
		return true;
	for (const struct op *op = load->in_flight; op; op = op->next)
		if (op->kind == OP_CLONE && meets(op->first, op->count, sector) &&
		    history_may_read(&load->history, op->src / SECTOR_BYTES + (sector - op->first),
				     op->submitted, load->history.now, id))
			return true;
	return false;
}

static void check_hole_sectors(struct load *load, const char *who, uint64_t from, uint64_t first,
			       uint64_t end)
{
	char text[2000];

	for (uint64_t s = first; s < end && load->bad[0] == '\0'; s++) {
		if (load_may_read(load, s, from, CONTENT_ZERO))
			continue;
		history_print(&load->history, s, text, sizeof(text));
		load_bad(load,
			 "%s in %" PRIu64 "-%" PRIu64 " says that sector %" PRIu64
			 " is a hole; history%s",
			 who, from, load->history.now, s, text);
	}
}

void load_check_hole(struct load *load, const char *who, uint64_t from, uint64_t off, uint64_t len)
{
	uint64_t first = off / SECTOR_BYTES, end = (off + len) / SECTOR_BYTES;

	/* Sectors that were never written are zeros. */
	for (uint32_t i = 0; i < load->history.region_count; i++) {
		uint64_t begin = load->history.regions[i]->number * HISTORY_REGION_SECTORS;
		uint64_t stop = begin + HISTORY_REGION_SECTORS;

		if (begin < end && stop > first)
			check_hole_sectors(load, who, from, begin > first ? begin : first,
					   stop < end ? stop : end);
	}
}
