/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/lib/store_sim.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define EMPTY_WAITS_MAX 1000u
#define LATE_ONE_IN	12u
/* Foreign memory that the store cannot use. */
#define REFUSE_ONE_IN 6u

struct sim_chunk {
	struct sim_chunk *next; /* free list */
	struct sim_hash hash[BLOCK_SECTORS];
	uint8_t data[BLOCK_BYTES];
};

static const struct sim_chunk zero_chunk;
static struct sim_chunk *free_chunks;

static void submit(struct store *store, struct store_io *io);
static void wait(struct store *store, unsigned lane);

static const struct store_ops sim_ops = {.submit = submit, .wait = wait};

static struct store_sim *sim_of(struct store *store)
{
	return container_of(store, struct store_sim, store);
}

struct sim_hash sim_hash_sector(uint64_t sector, const uint8_t *data)
{
	XXH128_hash_t hash;

	if (content_is_zero(data))
		return (struct sim_hash){0, 0};
	hash = XXH3_128bits_withSeed(data, SECTOR_BYTES, sector);
	return (struct sim_hash){hash.low64, hash.high64};
}

/* --- layers --- */

static struct sim_chunk *chunk_new(const struct sim_chunk *from)
{
	struct sim_chunk *chunk = free_chunks;

	if (chunk)
		free_chunks = chunk->next;
	else
		chunk = malloc(sizeof(*chunk));
	assert(chunk != NULL);
	memcpy(chunk, from, sizeof(*chunk));
	return chunk;
}

static void layer_init(struct sim_layer *layer, uint32_t chunk_count)
{
	layer->chunks = calloc(chunk_count, sizeof(layer->chunks[0]));
	layer->touched = calloc(chunk_count, sizeof(layer->touched[0]));
	layer->touched_count = 0;
	assert(layer->chunks && layer->touched);
}

static void layer_reset(struct sim_layer *layer)
{
	for (uint32_t i = 0; i < layer->touched_count; i++) {
		struct sim_chunk *chunk = layer->chunks[layer->touched[i]];

		chunk->next = free_chunks;
		free_chunks = chunk;
		layer->chunks[layer->touched[i]] = NULL;
	}
	layer->touched_count = 0;
}

static void layer_done(struct sim_layer *layer)
{
	layer_reset(layer);
	free(layer->chunks);
	free(layer->touched);
}

static struct sim_chunk *layer_own(struct sim_layer *layer, uint32_t chunk,
				   const struct sim_chunk *from)
{
	if (layer->chunks[chunk] == NULL) {
		layer->chunks[chunk] = chunk_new(from);
		layer->touched[layer->touched_count++] = chunk;
	}
	return layer->chunks[chunk];
}

static const struct sim_chunk *durable_chunk(const struct store_sim *sim, uint32_t chunk)
{
	for (; sim != NULL; sim = sim->parent)
		if (sim->durable.chunks[chunk] != NULL)
			return sim->durable.chunks[chunk];
	return &zero_chunk;
}

static const struct sim_chunk *newest_chunk(const struct store_sim *sim, uint32_t chunk)
{
	return sim->newest.chunks[chunk] ? sim->newest.chunks[chunk] : durable_chunk(sim, chunk);
}

static void newest_put(struct store_sim *sim, uint64_t sector, const uint8_t *data)
{
	uint32_t chunk = (uint32_t)(sector / BLOCK_SECTORS);
	struct sim_chunk *own = layer_own(&sim->newest, chunk, durable_chunk(sim, chunk));

	memcpy(own->data + sector % BLOCK_SECTORS * SECTOR_BYTES, data, SECTOR_BYTES);
}

void store_sim_put(struct store_sim *sim, uint64_t sector, const uint8_t *data,
		   const struct sim_hash *hash)
{
	uint32_t chunk = (uint32_t)(sector / BLOCK_SECTORS), i = sector % BLOCK_SECTORS;
	struct sim_chunk *own = layer_own(&sim->durable, chunk, durable_chunk(sim, chunk));

	assert(chunk < sim->chunk_count);
	memcpy(own->data + i * SECTOR_BYTES, data, SECTOR_BYTES);
	sim->hash.low += hash->low - own->hash[i].low;
	sim->hash.high += hash->high - own->hash[i].high;
	own->hash[i] = *hash;
}

/* --- life --- */

void store_sim_init(struct store_sim *sim, uint64_t size_bytes, unsigned lane_count, uint64_t seed)
{
	assert(size_bytes % BLOCK_BYTES == 0 && lane_count >= 1 && lane_count <= SIM_LANES_MAX);
	memset(sim, 0, sizeof(*sim));
	sim->store = (struct store){
		.ops = &sim_ops,
		.size_bytes = size_bytes,
		.sector_bytes = SECTOR_BYTES,
		.lane_count = lane_count,
	};
	sim->order = SIM_ORDER_RANDOM;
	sim->chunk_count = (uint32_t)(size_bytes / BLOCK_BYTES);
	layer_init(&sim->durable, sim->chunk_count);
	layer_init(&sim->newest, sim->chunk_count);
	list_init(&sim->writes);
	sim->lanes = calloc(lane_count, sizeof(sim->lanes[0]));
	assert(sim->lanes != NULL);
	sim->rng = rng_for(seed, 1);
}

void store_sim_done(struct store_sim *sim)
{
	store_sim_power_off(sim);
	layer_done(&sim->durable);
	layer_done(&sim->newest);
	free(sim->lanes);
}

static void write_free(struct store_sim *sim, struct sim_write *write)
{
	list_del(&write->node);
	sim->write_count--;
	free(write);
}

void store_sim_power_off(struct store_sim *sim)
{
	list_for_each (pos, &sim->writes)
		write_free(sim, container_of(pos, struct sim_write, node));
	/* Who submitted them may be gone already. */
	for (unsigned lane = 0; lane < sim->store.lane_count; lane++) {
		for (uint32_t i = 0; i < sim->lanes[lane].count; i++)
			free(sim->lanes[lane].ios[i].first);
		sim->lanes[lane].count = 0;
	}
	layer_reset(&sim->newest);
	sim->changes++;
}

void store_sim_reset(struct store_sim *sim, uint64_t seed)
{
	store_sim_power_off(sim);
	layer_reset(&sim->durable);
	sim->parent = NULL;
	sim->hash = (struct sim_hash){0, 0};
	sim->hooks = (struct sim_hooks){0};
	sim->order = SIM_ORDER_RANDOM;
	sim->rng = rng_for(seed, 1);
	sim->now = 0;
	sim->empty_waits = 0;
	memset(sim->ops, 0, sizeof(sim->ops));
	sim->store.read_only = false;
}

void store_sim_fork(struct store_sim *sim, const struct store_sim *parent, uint64_t seed)
{
	assert(parent != sim && parent->chunk_count == sim->chunk_count);
	store_sim_reset(sim, seed);
	sim->parent = parent;
	sim->hash = parent->hash;
	sim->store.can_discard = parent->store.can_discard;
	sim->store.can_compare = parent->store.can_compare;
}

/* --- writes --- */

static const uint8_t *write_data(const struct sim_write *write, uint32_t i)
{
	return write->data + (size_t)i * SECTOR_BYTES;
}

static void execute(struct store_sim *sim, struct sim_write *write, uint32_t begin, uint32_t end)
{
	uint64_t at = ++sim->now;

	for (uint32_t i = begin; i < end; i++) {
		if (write->each[i].executed != 0 || write->each[i].dead)
			continue;
		write->each[i].executed = at;
		newest_put(sim, write->sector + i, write_data(write, i));
	}
}

/* What was overwritten before in the newest content cannot come back once its successor is
 * durable. */
static void supersede(struct store_sim *sim, uint64_t sector, uint64_t executed)
{
	list_for_each (pos, &sim->writes) {
		struct sim_write *write = container_of(pos, struct sim_write, node);
		struct sim_sector *each;

		if (sector < write->sector || sector >= write->sector + write->sectors)
			continue;
		each = &write->each[sector - write->sector];
		if (each->executed != 0 && each->executed < executed)
			each->dead = true;
	}
}

static void make_durable(struct store_sim *sim, struct sim_write *write)
{
	for (uint32_t i = 0; i < write->sectors; i++) {
		struct sim_sector *each = &write->each[i];

		if (each->dead)
			continue;
		assert(each->executed != 0);
		store_sim_put(sim, write->sector + i, write_data(write, i), &each->hash);
		supersede(sim, write->sector + i, each->executed);
	}
	sim->changes++;
	write_free(sim, write);
}

/* A discarded sector keeps its content, or reads zeros, or anything. */
static void fill_discard(struct store_sim *sim, struct sim_write *write)
{
	memset(write->data, 0, (size_t)write->sectors * SECTOR_BYTES);
	for (uint32_t i = 0; i < write->sectors; i++) {
		uint32_t choice = rng_below(&sim->rng, 3);

		if (choice == 0)
			write->each[i].dead = true;
		for (uint32_t b = 0; choice == 1 && b < SECTOR_BYTES; b += 8) {
			uint64_t garbage = rng_u64(&sim->rng);

			memcpy(write->data + (size_t)i * SECTOR_BYTES + b, &garbage, 8);
		}
	}
}

static uint8_t *memory_of(const struct store_sim *sim, const struct store_io *io)
{
	if (io->foreign == 0)
		return io->buf;
	assert(io->foreign <= SIM_FOREIGN_MAX);
	return sim->foreign[io->foreign - 1] + (uintptr_t)io->buf;
}

static struct sim_write *write_new(struct store_sim *sim, const struct store_io *io)
{
	uint32_t sectors = (uint32_t)(io->len_bytes / SECTOR_BYTES);
	struct sim_write *write = malloc(sizeof(*write) + sectors * sizeof(write->each[0]) +
					 (size_t)sectors * SECTOR_BYTES);

	assert(write != NULL);
	*write = (struct sim_write){
		.state = SIM_IN_FLIGHT,
		.discard = io->op == STORE_DISCARD,
		.submitted = sim->now,
		.sector = io->off_bytes / SECTOR_BYTES,
		.sectors = sectors,
		.each = (struct sim_sector *)(write + 1),
	};
	write->data = (uint8_t *)(write->each + sectors);
	memset(write->each, 0, sectors * sizeof(write->each[0]));
	if (write->discard)
		fill_discard(sim, write);
	else
		memcpy(write->data, memory_of(sim, io), io->len_bytes);
	for (uint32_t i = 0; i < sectors; i++)
		write->each[i].hash = sim_hash_sector(write->sector + i, write_data(write, i));
	list_add_tail(&sim->writes, &write->node);
	sim->write_count++;
	sim->changes++;
	return write;
}

/* --- I/O --- */

static struct sim_hash buffer_hash(const struct store_sim *sim, const struct store_io *io)
{
	XXH128_hash_t hash = XXH3_128bits(memory_of(sim, io), io->len_bytes);

	return (struct sim_hash){hash.low64, hash.high64};
}

static void check_io(const struct store_sim *sim, const struct store_io *io)
{
	assert(io->magic == STORE_IO_MAGIC && io->done != NULL);
	assert(io->lane < sim->store.lane_count);
	if (io->op == STORE_FLUSH)
		return;
	assert(io->len_bytes > 0 && io->len_bytes % SECTOR_BYTES == 0);
	assert(io->off_bytes % SECTOR_BYTES == 0 && io->off_bytes < sim->store.size_bytes);
	assert(io->len_bytes <= sim->store.size_bytes - io->off_bytes);
	assert(io->op == STORE_DISCARD || io->op == STORE_COMPARE || memory_of(sim, io) != NULL);
	assert(io->foreign == 0 || sim->store.reaches_foreign);
	assert(io->op == STORE_READ || !sim->store.read_only);
	assert(io->op != STORE_COMPARE || sim->store.can_compare);
	assert(io->op != STORE_DISCARD || sim->store.can_discard);
}

static void read_newest(const struct store_sim *sim, uint64_t off_bytes, uint8_t *out,
			uint64_t len_bytes)
{
	for (uint64_t at = 0; at < len_bytes; at += SECTOR_BYTES) {
		uint64_t sector = (off_bytes + at) / SECTOR_BYTES;
		const struct sim_chunk *chunk =
			newest_chunk(sim, (uint32_t)(sector / BLOCK_SECTORS));

		memcpy(out + at, chunk->data + sector % BLOCK_SECTORS * SECTOR_BYTES, SECTOR_BYTES);
	}
}

static void do_read(const struct store_sim *sim, const struct store_io *io)
{
	read_newest(sim, io->off_bytes, memory_of(sim, io), io->len_bytes);
}

static uint8_t *copy_of(const struct store_sim *sim, uint64_t off_bytes, uint64_t len_bytes)
{
	uint8_t *copy = calloc(1, len_bytes);

	assert(copy != NULL);
	if (off_bytes != STORE_ZEROS)
		read_newest(sim, off_bytes, copy, len_bytes);
	return copy;
}

static void finish_compare(const struct store_sim *sim, struct sim_io *entry)
{
	struct store_io *io = entry->io;
	uint8_t *one = entry->first, *other;
	uint64_t i = 0;

	if (entry->verdict.error == 0) {
		other = copy_of(sim, io->other_off_bytes, io->len_bytes);
		if (one == NULL)
			one = copy_of(sim, io->off_bytes, io->len_bytes);
		while (i < io->len_bytes && one[i] == other[i])
			i++;
		io->equal_bytes = i;
		free(other);
	}
	free(one);
}

static void submit_write(struct store_sim *sim, struct sim_io *entry)
{
	struct store_io *io = entry->io;
	struct store_io aimed = *io;
	uint32_t sectors = (uint32_t)(io->len_bytes / SECTOR_BYTES);

	if (io->op == STORE_WRITE)
		entry->buffer = buffer_hash(sim, io);
	if (entry->verdict.media == SIM_MEDIA_LOST)
		return;
	if (entry->verdict.media == SIM_MEDIA_MISDIRECTED)
		aimed.off_bytes = entry->verdict.redirect_bytes;
	entry->write = write_new(sim, &aimed);
	if (entry->verdict.error != 0)
		return;
	switch (rng_below(&sim->rng, 4)) {
	case 0:
		execute(sim, entry->write, 0, sectors);
		break;
	case 1: /* the beginning now, the rest at delivery, as after a short write */
		execute(sim, entry->write, 0, rng_below(&sim->rng, sectors));
		break;
	default:
		break;
	}
}

static void submit(struct store *store, struct store_io *io)
{
	struct store_sim *sim = sim_of(store);
	struct sim_queue *queue = &sim->lanes[io->lane];
	struct sim_io *entry;

	check_io(sim, io);
	assert(queue->count < SIM_QUEUE_MAX);
	sim->ops[io->op]++;
	entry = &queue->ios[queue->count++];
	*entry = (struct sim_io){.io = io, .submitted = ++sim->now};
	entry->late = rng_once_in(&sim->rng, LATE_ONE_IN);
	if (sim->hooks.fault)
		entry->verdict = sim->hooks.fault(sim->hooks.fault_context, io);
	if (io->foreign != 0 && entry->verdict.error == 0 && rng_once_in(&sim->rng, REFUSE_ONE_IN))
		entry->verdict.error = STORE_NEEDS_BYTES;
	if (io->op == STORE_READ && entry->verdict.error == 0) {
		entry->early = rng_once_in(&sim->rng, 2);
		if (entry->early)
			do_read(sim, io);
	} else if (io->op == STORE_COMPARE && entry->verdict.error == 0) {
		if (rng_once_in(&sim->rng, 2))
			entry->first = copy_of(sim, io->off_bytes, io->len_bytes);
	} else if (io->op == STORE_WRITE || io->op == STORE_DISCARD) {
		submit_write(sim, entry);
	}
	if (sim->hooks.event)
		sim->hooks.event(sim->hooks.context, SIM_EVENT_SUBMIT, io);
}

static void finish_flush(struct store_sim *sim, const struct sim_io *entry)
{
	list_for_each (pos, &sim->writes) {
		struct sim_write *write = container_of(pos, struct sim_write, node);

		if (write->state != SIM_VOLATILE || write->delivered > entry->submitted)
			continue;
		if (entry->verdict.error == 0)
			make_durable(sim, write);
		else
			write->state = SIM_UNDECIDED;
	}
}

/* Sector by sector old or new. */
static void fail_write(struct store_sim *sim, struct sim_write *write)
{
	for (uint32_t i = 0; i < write->sectors; i++) {
		if (rng_once_in(&sim->rng, 2))
			execute(sim, write, i, i + 1);
		else
			write->each[i].dead = true;
	}
}

static void finish_write(struct store_sim *sim, struct sim_io *entry)
{
	struct sim_write *write = entry->write;

	if (entry->io->op == STORE_WRITE) {
		struct sim_hash hash = buffer_hash(sim, entry->io);

		assert(hash.low == entry->buffer.low && hash.high == entry->buffer.high);
	}
	if (write == NULL)
		return;
	if (entry->verdict.error != 0)
		fail_write(sim, write);
	else
		execute(sim, write, 0, write->sectors);
	write->state = SIM_VOLATILE;
	write->delivered = ++sim->now;
	if (entry->io->fua && entry->verdict.error == 0)
		make_durable(sim, write);
}

static uint32_t choose(struct store_sim *sim, const struct sim_queue *queue)
{
	uint32_t i = 0;

	if (sim->order == SIM_ORDER_RANDOM)
		i = rng_below(&sim->rng, queue->count);
	else if (sim->order == SIM_ORDER_LIFO)
		i = queue->count - 1;
	for (uint32_t tries = 0; tries < queue->count && queue->ios[i].late; tries++)
		i = (i + 1) % queue->count;
	return i;
}

bool store_sim_deliver(struct store_sim *sim, unsigned lane)
{
	struct sim_queue *queue = &sim->lanes[lane];
	struct sim_io entry;
	uint32_t i;

	if (queue->count == 0)
		return false;
	i = choose(sim, queue);
	entry = queue->ios[i];
	memmove(&queue->ios[i], &queue->ios[i + 1], (queue->count - i - 1) * sizeof(queue->ios[0]));
	queue->count--;
	sim->now++;
	if (entry.io->op == STORE_FLUSH)
		finish_flush(sim, &entry);
	else if (entry.io->op == STORE_READ && entry.verdict.error == 0 && !entry.early)
		do_read(sim, entry.io);
	else if (entry.io->op == STORE_COMPARE)
		finish_compare(sim, &entry);
	else if (entry.io->op != STORE_READ)
		finish_write(sim, &entry);
	if (sim->hooks.event)
		sim->hooks.event(sim->hooks.context, SIM_EVENT_COMPLETE, entry.io);
	assert(entry.io->magic == STORE_IO_MAGIC);
	entry.io->magic = 0;
	entry.io->done(entry.io, entry.verdict.error);
	return true;
}

static void wait(struct store *store, unsigned lane)
{
	struct store_sim *sim = sim_of(store);

	if (store_sim_deliver(sim, lane)) {
		sim->empty_waits = 0;
		return;
	}
	/* The caller waits for what is not on its way: it would wait for ever. */
	assert(++sim->empty_waits < EMPTY_WAITS_MAX);
}

uint32_t store_sim_in_flight(const struct store_sim *sim, unsigned lane)
{
	return sim->lanes[lane].count;
}

bool store_sim_idle(const struct store_sim *sim)
{
	for (unsigned lane = 0; lane < sim->store.lane_count; lane++)
		if (sim->lanes[lane].count > 0)
			return false;
	return true;
}

/* --- offline --- */

void store_sim_read_durable(const struct store_sim *sim, uint64_t off_bytes, void *buf,
			    uint64_t len_bytes)
{
	uint8_t *out = buf;

	assert(off_bytes <= sim->store.size_bytes &&
	       len_bytes <= sim->store.size_bytes - off_bytes);
	while (len_bytes > 0) {
		uint64_t in_chunk = off_bytes % BLOCK_BYTES;
		uint64_t n = min_u64(BLOCK_BYTES - in_chunk, len_bytes);

		memcpy(out,
		       durable_chunk(sim, (uint32_t)(off_bytes / BLOCK_BYTES))->data + in_chunk, n);
		out += n;
		off_bytes += n;
		len_bytes -= n;
	}
}

void store_sim_write_durable(struct store_sim *sim, uint64_t off_bytes, const void *buf,
			     uint64_t len_bytes)
{
	const uint8_t *in = buf;

	while (len_bytes > 0) {
		uint64_t sector = off_bytes / SECTOR_BYTES, in_sector = off_bytes % SECTOR_BYTES;
		uint64_t n = min_u64(SECTOR_BYTES - in_sector, len_bytes);
		uint8_t data[SECTOR_BYTES];
		struct sim_hash hash;

		store_sim_read_durable(sim, sector * SECTOR_BYTES, data, SECTOR_BYTES);
		memcpy(data + in_sector, in, n);
		hash = sim_hash_sector(sector, data);
		store_sim_put(sim, sector, data, &hash);
		if (sim->newest.chunks[sector / BLOCK_SECTORS])
			newest_put(sim, sector, data);
		in += n;
		off_bytes += n;
		len_bytes -= n;
	}
}

void store_sim_flip_bit(struct store_sim *sim, uint64_t off_bytes, unsigned bit)
{
	uint8_t byte;

	assert(bit < 8);
	store_sim_read_durable(sim, off_bytes, &byte, 1);
	byte ^= (uint8_t)(1u << bit);
	store_sim_write_durable(sim, off_bytes, &byte, 1);
}
