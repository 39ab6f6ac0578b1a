/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/lib/store_mem.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/base/units.h"

#define DISCARDED      0xdd
#define NEVER_WRITTEN  0xee
#define FILL_BYTES_MAX (64ull << 20)

static const struct store_ops mem_ops;

static uint8_t *reserve(uint64_t size_bytes)
{
	void *p = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	assert(p != MAP_FAILED);
	return p;
}

void store_mem_init(struct store_mem *mem, uint64_t size_bytes, unsigned lane_count, uint64_t seed)
{
	assert(lane_count > 0 && lane_count <= MEM_LANES_MAX);
	*mem = (struct store_mem){
		.store =
			{
				.ops = &mem_ops,
				.size_bytes = size_bytes,
				.sector_bytes = SECTOR_BYTES,
				.lane_count = lane_count,
				.can_discard = true,
			},
		.data = reserve(size_bytes),
	};
	if (size_bytes <= FILL_BYTES_MAX)
		memset(mem->data, NEVER_WRITTEN, size_bytes);
	list_init(&mem->writes);
	for (unsigned i = 0; i < lane_count; i++)
		mem->lanes[i].rng = rng_for(seed, i);
	for (unsigned i = 0; i < MEM_LOCKS; i++)
		pthread_mutex_init(&mem->locks[i], NULL);
}

static void forget_writes(struct store_mem *mem)
{
	list_for_each (pos, &mem->writes) {
		struct mem_write *write = container_of(pos, struct mem_write, node);

		list_del(&write->node);
		free(write);
	}
}

void store_mem_done(struct store_mem *mem)
{
	forget_writes(mem);
	for (unsigned i = 0; i < mem->store.lane_count; i++)
		free(mem->lanes[i].ios);
	for (unsigned i = 0; i < MEM_LOCKS; i++)
		pthread_mutex_destroy(&mem->locks[i]);
	munmap(mem->data, mem->store.size_bytes);
	if (mem->durable)
		munmap(mem->durable, mem->store.size_bytes);
}

void store_mem_cache(struct store_mem *mem)
{
	assert(mem->store.lane_count == 1 && !mem->cached);
	mem->cached = true;
	mem->durable = reserve(mem->store.size_bytes);
	memcpy(mem->durable, mem->data, mem->store.size_bytes);
}

uint32_t store_mem_in_flight(const struct store_mem *mem, unsigned lane)
{
	return mem->lanes[lane].count;
}

const struct store_io *store_mem_get(const struct store_mem *mem, unsigned lane, uint32_t i)
{
	assert(i < mem->lanes[lane].count);
	return mem->lanes[lane].ios[i].io;
}

void store_mem_reach(struct store_mem *mem, void *foreign)
{
	mem->foreign = foreign;
	mem->store.reaches_foreign = true;
}

static void submit(struct store *store, struct store_io *io)
{
	struct store_mem *mem = container_of(store, struct store_mem, store);
	struct mem_lane *lane = &mem->lanes[io->lane];
	int said = mem->hook ? mem->hook(mem->hook_context, io) : 0;

	assert(io->magic == STORE_IO_MAGIC && io->lane < store->lane_count && said <= MEM_HOLD);
	assert(io->foreign == 0 || io->foreign == MEM_FOREIGN);
	assert(io->off_bytes % store->sector_bytes == 0 &&
	       io->len_bytes % store->sector_bytes == 0);
	assert(io->op == STORE_FLUSH || (io->len_bytes > 0 && io->off_bytes < store->size_bytes &&
					 io->len_bytes <= store->size_bytes - io->off_bytes));
	if (lane->count == lane->capacity) {
		lane->capacity = lane->capacity ? 2 * lane->capacity : 64;
		lane->ios = realloc(lane->ios, lane->capacity * sizeof(lane->ios[0]));
		assert(lane->ios);
	}
	lane->ios[lane->count++] = (struct mem_io){
		.io = io,
		.error = said < 0 ? said : 0,
		.held = said == MEM_HOLD,
		.delivered_before = mem->cached ? mem->delivered : 0,
	};
	lane->held += said == MEM_HOLD;
	lane->ops[io->op]++;
	lane->bytes[io->op] += io->len_bytes;
}

/* Block by block, so that two lanes do not race on one. */
static void transfer(struct store_mem *mem, const struct store_io *io)
{
	uint8_t *buf = io->foreign ? mem->foreign + (uintptr_t)io->buf : io->buf;
	uint64_t at = io->off_bytes, left = io->len_bytes;

	while (left > 0) {
		uint64_t len = min_u64(left, BLOCK_BYTES - at % BLOCK_BYTES);
		pthread_mutex_t *lock = &mem->locks[at / BLOCK_BYTES % MEM_LOCKS];

		pthread_mutex_lock(lock);
		if (io->op == STORE_READ)
			memcpy(buf, mem->data + at, len);
		else if (io->op == STORE_WRITE)
			memcpy(mem->data + at, buf, len);
		else
			memset(mem->data + at, DISCARDED, len);
		pthread_mutex_unlock(lock);
		at += len;
		left -= len;
		buf = buf ? buf + len : NULL;
	}
}

/* What is durable now must not be undone when a flush makes older writes durable. */
static void overlay(struct store_mem *mem, const struct store_io *io)
{
	uint64_t begin = io->off_bytes, end = begin + io->len_bytes;

	memcpy(mem->durable + begin, mem->data + begin, io->len_bytes);
	list_for_each (pos, &mem->writes) {
		struct mem_write *write = container_of(pos, struct mem_write, node);
		uint64_t from = begin > write->off_bytes ? begin : write->off_bytes;
		uint64_t to = min_u64(end, write->off_bytes + write->len_bytes);

		if (from < to)
			memcpy(write->data + (from - write->off_bytes), mem->data + from,
			       to - from);
	}
}

static void remember(struct store_mem *mem, const struct store_io *io)
{
	struct mem_write *write = malloc(sizeof(*write) + io->len_bytes);

	assert(write);
	write->number = ++mem->delivered;
	write->off_bytes = io->off_bytes;
	write->len_bytes = io->len_bytes;
	memcpy(write->data, mem->data + io->off_bytes, io->len_bytes);
	list_add_tail(&mem->writes, &write->node);
}

/* Writes up to the number become durable, in order. */
static void harden(struct store_mem *mem, uint64_t number)
{
	list_for_each (pos, &mem->writes) {
		struct mem_write *write = container_of(pos, struct mem_write, node);

		if (write->number > number)
			return;
		memcpy(mem->durable + write->off_bytes, write->data, write->len_bytes);
		list_del(&write->node);
		free(write);
	}
}

/* Byte by byte, each block under its own lock, so that two lanes do not race on one. */
static void compare(struct store_mem *mem, struct store_io *io)
{
	static const uint8_t zeros[BLOCK_BYTES];
	uint8_t one[BLOCK_BYTES], other[BLOCK_BYTES];
	struct store_io read = {.op = STORE_READ, .len_bytes = BLOCK_BYTES};
	bool with_zeros = io->other_off_bytes == STORE_ZEROS;
	uint64_t i = 0;

	for (uint64_t at = 0; at < io->len_bytes; at += BLOCK_BYTES) {
		read.off_bytes = io->off_bytes + at;
		read.buf = one;
		transfer(mem, &read);
		read.off_bytes = with_zeros ? 0 : io->other_off_bytes + at;
		read.buf = other;
		if (!with_zeros)
			transfer(mem, &read);
		while (i < at + BLOCK_BYTES && one[i - at] == (with_zeros ? zeros : other)[i - at])
			i++;
		if (i < at + BLOCK_BYTES)
			break;
	}
	io->equal_bytes = i;
}

static void perform(struct store_mem *mem, const struct mem_io *io)
{
	if (io->io->op == STORE_COMPARE)
		compare(mem, io->io);
	else if (io->io->op != STORE_FLUSH)
		transfer(mem, io->io);
	if (!mem->cached || io->io->op == STORE_READ || io->io->op == STORE_COMPARE)
		return;
	if (io->io->op == STORE_FLUSH) {
		harden(mem, io->delivered_before);
		return;
	}
	if (io->io->fua)
		overlay(mem, io->io);
	else
		remember(mem, io->io);
}

void store_mem_deliver_at(struct store_mem *mem, unsigned lane, uint32_t i, int res)
{
	struct mem_lane *l = &mem->lanes[lane];
	struct mem_io io;

	assert(i < l->count);
	io = l->ios[i];
	memmove(&l->ios[i], &l->ios[i + 1], (l->count - i - 1) * sizeof(io));
	l->count--;
	l->held -= io.held;
	if (res < 0)
		io.error = res;
	if (io.error == 0)
		perform(mem, &io);
	io.io->magic = 0;
	io.io->done(io.io, io.error);
}

bool store_mem_deliver(struct store_mem *mem, unsigned lane)
{
	struct mem_lane *l = &mem->lanes[lane];
	uint32_t which, n = l->count - l->held;

	if (n == 0)
		return false;
	which = mem->order == MEM_ORDER_RANDOM ? rng_below(&l->rng, n) : 0;
	for (uint32_t i = 0; i < l->count; i++) {
		if (l->ios[i].held || which-- > 0)
			continue;
		store_mem_deliver_at(mem, lane, i, 0);
		break;
	}
	return true;
}

void store_mem_release(struct store_mem *mem, unsigned lane)
{
	for (uint32_t i = 0; i < mem->lanes[lane].count; i++)
		mem->lanes[lane].ios[i].held = false;
	mem->lanes[lane].held = 0;
}

static void wait(struct store *store, unsigned lane)
{
	struct store_mem *mem = container_of(store, struct store_mem, store);
	bool any = store_mem_deliver(mem, lane);

	assert(any); /* nothing is in flight that could ever come */
}

static const struct store_ops mem_ops = {
	.submit = submit,
	.wait = wait,
};

void store_mem_kill(struct store_mem *mem)
{
	for (unsigned i = 0; i < mem->store.lane_count; i++) {
		mem->lanes[i].count = 0;
		mem->lanes[i].held = 0;
	}
}

void store_mem_cut(struct store_mem *mem, bool (*survives)(void *context, uint64_t off_bytes),
		   void *context)
{
	struct mem_lane *lane = &mem->lanes[0];

	assert(mem->cached);
	/* What is in flight was perhaps performed. */
	for (uint32_t i = 0; i < lane->count; i++) {
		if (lane->ios[i].io->op != STORE_WRITE)
			continue;
		transfer(mem, lane->ios[i].io);
		remember(mem, lane->ios[i].io);
	}
	store_mem_kill(mem);
	list_for_each (pos, &mem->writes) {
		const struct mem_write *write = container_of(pos, struct mem_write, node);

		for (uint64_t at = 0; at < write->len_bytes; at += SECTOR_BYTES)
			if (survives && survives(context, write->off_bytes + at))
				memcpy(mem->durable + write->off_bytes + at, write->data + at,
				       SECTOR_BYTES);
	}
	forget_writes(mem);
	memcpy(mem->data, mem->durable, mem->store.size_bytes);
}

void store_mem_peek(struct store_mem *mem, uint64_t off_bytes, void *buf, uint64_t len_bytes)
{
	memcpy(buf, mem->data + off_bytes, len_bytes);
}

void store_mem_poke(struct store_mem *mem, uint64_t off_bytes, const void *buf, uint64_t len_bytes)
{
	memcpy(mem->data + off_bytes, buf, len_bytes);
	if (mem->cached)
		memcpy(mem->durable + off_bytes, buf, len_bytes);
}

uint64_t store_mem_ops(const struct store_mem *mem, enum store_op op)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < mem->store.lane_count; i++)
		sum += mem->lanes[i].ops[op];
	return sum;
}
