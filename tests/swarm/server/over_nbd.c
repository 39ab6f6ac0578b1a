/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/swarm/server/over_nbd.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/units.h"

#define VERIFY_BYTES	 (1u << 20)
#define VERIFY_ALL_BYTES (600ull << 20) /* a larger volume is looked at where it was written */
#define STATUS_BYTES	 (1ull << 30)

int over_nbd_connect(struct load *load, unsigned number, const char *path, const char **ret_why)
{
	struct connection *connection = &load->connections[number];
	struct nbd_handle *nbd = nbd_create();

	*connection = (struct connection){.nbd = nbd};
	if (!nbd || nbd_set_strict_mode(nbd, 0) != 0 ||
	    nbd_add_meta_context(nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0 ||
	    nbd_connect_unix(nbd, path) != 0) {
		*ret_why = nbd_get_error();
		nbd_close(nbd);
		*connection = (struct connection){.dead = true};
		return -1;
	}
	if ((uint64_t)nbd_get_size(nbd) == load->size)
		return 0;
	load_bad(load, "the export has %" PRId64 " bytes, the volume %" PRIu64, nbd_get_size(nbd),
		 load->size);
	return -1;
}

static bool is_lost(int error)
{
	return error == ENOTCONN || error == ECONNRESET || error == ECONNABORTED ||
	       error == EPIPE || error == ESHUTDOWN;
}

static int on_end(void *context, int *error)
{
	struct op *op = context;
	struct connection *connection = &op->load->connections[op->connection];

	connection->in_flight--;
	if (*error == 0)
		op_finish(op, OP_DONE, 0);
	else
		op_finish(op, is_lost(*error) ? OP_LOST : OP_FAILED, *error);
	return 1;
}

static int on_extents(void *context, const char *name, uint64_t off, uint32_t *entries,
		      size_t count, int *error)
{
	struct op *op = context;

	if (strcmp(name, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0 || *error != 0)
		return 0;
	if (off != op->off)
		load_bad(op->load, "extents of %" PRIu64 " begin at %" PRIu64, op->off, off);
	for (size_t i = 0; i + 1 < count; i += 2) {
		uint64_t len = entries[i];

		if (len == 0)
			load_bad(op->load, "an extent at %" PRIu64 " has no length", off);
		if (off + len > op->off + op->len)
			len = op->off + op->len - off;
		if (entries[i + 1] & LIBNBD_STATE_HOLE)
			load_check_hole(op->load, "an extent", op->submitted, off, len);
		off += entries[i];
	}
	return 0;
}

static int64_t submit(struct nbd_handle *nbd, struct op *op)
{
	nbd_completion_callback end = {.callback = on_end, .user_data = op};

	switch (op->kind) {
	case OP_WRITE:
		return nbd_aio_pwrite(nbd, op->data, op->len, op->off, end, op->flags);
	case OP_READ:
		return nbd_aio_pread(nbd, op->data, op->len, op->off, end, op->flags);
	case OP_ZERO:
		return nbd_aio_zero(nbd, op->len, op->off, end, op->flags);
	case OP_TRIM:
	case OP_ALL:
		return nbd_aio_trim(nbd, op->len, op->off, end, op->flags);
	case OP_CACHE:
		return nbd_aio_cache(nbd, op->len, op->off, end, op->flags);
	case OP_FLUSH:
		return nbd_aio_flush(nbd, end, op->flags);
	case OP_EXTENTS:
		return nbd_aio_block_status(
			nbd, op->len, op->off,
			(nbd_extent_callback){.callback = on_extents, .user_data = op}, end,
			op->flags);
	case OP_WRONG:
		if (op->flags)
			return nbd_aio_zero(nbd, op->len, op->off + op->len, end, op->flags);
		return nbd_aio_cache(nbd, op->len, op->off + op->len, end, 0);
	default:
		assert(!"an operation over NBD");
		return -1;
	}
}

void over_nbd_submit(struct op *op, unsigned number)
{
	struct connection *connection = &op->load->connections[number];

	op->connection = number;
	connection->in_flight++;
	/* The callback may come before this returns, or not at all where it fails. */
	if (submit(connection->nbd, op) >= 0)
		return;
	connection->in_flight--;
	connection->dead = true;
	load_gone(op->load, nbd_get_error());
	op_finish(op, OP_LOST, ENOTCONN);
}

void over_nbd_close(struct load *load, unsigned number)
{
	struct connection *connection = &load->connections[number];
	struct op *next;

	nbd_close(connection->nbd);
	connection->nbd = NULL;
	connection->dead = true;
	/* Those whose callbacks libnbd has not called. */
	for (struct op *op = load->in_flight; op; op = next) {
		next = op->next;
		if (op->kind < OP_SAME && op->connection == number)
			op_finish(op, OP_LOST, ENOTCONN);
	}
	connection->in_flight = 0;
}

void over_nbd_poll(struct load *load, unsigned number, struct pollfd *ret_poll)
{
	struct connection *connection = &load->connections[number];
	unsigned direction;

	*ret_poll = (struct pollfd){.fd = -1};
	if (connection->dead || !connection->nbd)
		return;
	if (nbd_aio_is_dead(connection->nbd) > 0 || nbd_aio_is_closed(connection->nbd) > 0) {
		connection->dead = true;
		load_gone(load, "an NBD connection ended");
		return;
	}
	direction = nbd_aio_get_direction(connection->nbd);
	ret_poll->fd = nbd_aio_get_fd(connection->nbd);
	if (direction & LIBNBD_AIO_DIRECTION_READ)
		ret_poll->events |= POLLIN;
	if (direction & LIBNBD_AIO_DIRECTION_WRITE)
		ret_poll->events |= POLLOUT;
}

void over_nbd_ready(struct load *load, unsigned number, short events)
{
	struct nbd_handle *nbd = load->connections[number].nbd;
	unsigned direction = nbd_aio_get_direction(nbd);

	if ((events & (POLLIN | POLLHUP)) && (direction & LIBNBD_AIO_DIRECTION_READ))
		nbd_aio_notify_read(nbd);
	else if ((events & POLLOUT) && (direction & LIBNBD_AIO_DIRECTION_WRITE))
		nbd_aio_notify_write(nbd);
	else if (events & (POLLERR | POLLNVAL | POLLHUP)) {
		load->connections[number].dead = true;
		load_gone(load, "an NBD connection was hung up");
	}
}

static void verify_sector(struct load *load, uint64_t sector, const uint8_t *bytes, enum verify how)
{
	uint32_t id = contents_identify(&load->contents, bytes, sector % BLOCK_SECTORS);
	uint64_t now = load->history.now;
	bool good = id != CONTENT_GARBAGE &&
		    (how == VERIFY_KILLED ? history_may_survive(&load->history, sector, id)
					  : history_may_read(&load->history, sector, now, now, id));
	char text[2000];

	if (good) {
		if (how != VERIFY_LIVE)
			history_adopt(&load->history, sector, id);
		return;
	}
	history_print(&load->history, sector, text, sizeof(text));
	load_bad(load, "sector %" PRIu64 " (block %" PRIu64 ") %s: found %" PRId64 ", history%s",
		 sector, sector / BLOCK_SECTORS, how == VERIFY_KILLED ? "after a kill" : "at rest",
		 id == CONTENT_GARBAGE ? -1 : (int64_t)id, text);
}

static void verify_range(struct load *load, struct nbd_handle *nbd, uint64_t off, uint64_t len,
			 enum verify how)
{
	static uint8_t data[VERIFY_BYTES];

	for (uint64_t end = off + len; off < end && load->bad[0] == '\0'; off += VERIFY_BYTES) {
		uint64_t bytes = end - off < VERIFY_BYTES ? end - off : VERIFY_BYTES;

		if (nbd_pread(nbd, data, bytes, off, 0) != 0) {
			load_bad(load, "reading at %" PRIu64 " at rest: %s", off, nbd_get_error());
			return;
		}
		for (uint64_t i = 0; i < bytes && load->bad[0] == '\0'; i += SECTOR_BYTES)
			verify_sector(load, (off + i) / SECTOR_BYTES, data + i, how);
	}
}

struct walk {
	struct load *load;
	uint64_t next;
};

static int on_status(void *context, const char *name, uint64_t off, uint32_t *entries, size_t count,
		     int *error)
{
	struct walk *walk = context;

	if (strcmp(name, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0 || *error != 0)
		return 0;
	for (size_t i = 0; i + 1 < count; i += 2) {
		if (entries[i + 1] & LIBNBD_STATE_HOLE)
			load_check_hole(walk->load, "an extent at rest", walk->load->history.now,
					off, entries[i]);
		off += entries[i];
	}
	walk->next = off;
	return 0;
}

/* Where there are holes the sectors were found to be zeros, and where nothing was written are
 * holes. */
static void verify_extents(struct load *load, struct nbd_handle *nbd)
{
	struct walk walk = {.load = load};

	while (walk.next < load->size && load->bad[0] == '\0') {
		uint64_t before = walk.next, len = load->size - before;

		if (nbd_block_status(
			    nbd, len < STATUS_BYTES ? len : STATUS_BYTES, before,
			    (nbd_extent_callback){.callback = on_status, .user_data = &walk},
			    0) != 0)
			load_bad(load, "extents at %" PRIu64 ": %s", before, nbd_get_error());
		else if (walk.next <= before)
			load_bad(load, "extents at %" PRIu64 " bring nothing", before);
	}
}

void over_nbd_verify(struct load *load, enum verify how)
{
	struct nbd_handle *nbd = load->connections[0].nbd;

	history_tick(&load->history);
	if (load->size <= VERIFY_ALL_BYTES) {
		verify_range(load, nbd, 0, load->size, how);
	} else {
		for (uint32_t i = 0; i < load->history.region_count; i++) {
			uint64_t off = load->history.regions[i]->number * HISTORY_REGION_SECTORS *
				       SECTOR_BYTES;
			uint64_t len = HISTORY_REGION_SECTORS * SECTOR_BYTES;

			verify_range(load, nbd, off,
				     off + len > load->size ? load->size - off : len, how);
		}
	}
	if (how != VERIFY_LIVE)
		history_settle(&load->history);
	history_tick(&load->history);
	verify_extents(load, nbd);
}

/* The last region stays as it is, with what it needs to be written later. */
void over_nbd_fill(struct load *load)
{
	static uint8_t data[VERIFY_BYTES];
	struct nbd_handle *nbd = load->connections[0].nbd;
	uint64_t end = (load->size - 1) / REGION_BYTES * REGION_BYTES;

	for (uint64_t off = 0; off < end && load->bad[0] == '\0'; off += VERIFY_BYTES) {
		uint64_t first = off / SECTOR_BYTES, submitted = history_tick(&load->history);
		bool good;

		for (uint64_t i = 0; i < VERIFY_BYTES / SECTOR_BYTES; i++) {
			if (i % BLOCK_SECTORS == 0)
				load->next_id++;
			content_fill(load->next_id, i % BLOCK_SECTORS, data + i * SECTOR_BYTES);
			history_submit(&load->history, first + i, submitted, load->next_id);
		}
		good = nbd_pwrite(nbd, data, VERIFY_BYTES, off, 0) == 0;
		history_tick(&load->history);
		for (uint64_t i = 0; i < VERIFY_BYTES / SECTOR_BYTES; i++)
			history_end(&load->history, first + i, submitted, good,
				    load->options.lasting);
		if (good)
			continue;
		if (!load_error_allowed(load, nbd_get_errno()))
			load_bad(load, "filling at %" PRIu64 ": %s", off, nbd_get_error());
		return;
	}
	load->next_id++;
}
