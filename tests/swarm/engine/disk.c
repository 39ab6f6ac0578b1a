/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/swarm/engine/disk.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define ALL_SECTORS   0xffu
#define FOREIGN_NO_IN 16u /* foreign memory is refused once in so many times */
#define SLOW_MAX      600u
#define POOL_BYTES    (2u << 20) /* of contents that are made at once */

static const struct store_ops disk_ops;

/* --- contents --- */

static void pool_new(struct disk *disk)
{
	uint8_t *pool = aligned_alloc(POOL_BYTES, POOL_BYTES);

	assert(pool);
	/* A page at a time these are most of what a large world costs. */
	madvise(pool, POOL_BYTES, MADV_HUGEPAGE);
	*(void **)pool = disk->pools;
	disk->pools = pool;
	for (unsigned i = 0; i < (POOL_BYTES - BLOCK_BYTES) / sizeof(struct disk_content); i++) {
		struct disk_content *content = (struct disk_content *)(pool + sizeof(void *)) + i;

		content->next = disk->spare_contents;
		disk->spare_contents = content;
	}
}

static struct disk_content *content_new(struct disk *disk)
{
	struct disk_content *content;

	if (disk->spare_contents == NULL)
		pool_new(disk);
	content = disk->spare_contents;
	disk->spare_contents = content->next;
	content->names = 1;
	return content;
}

static struct disk_content *content_name(struct disk_content *content)
{
	content->names++;
	return content;
}

static void content_drop(struct disk *disk, struct disk_content **content)
{
	struct disk_content *c = *content;

	*content = NULL;
	if (c == NULL || --c->names > 0)
		return;
	c->next = disk->spare_contents;
	disk->spare_contents = c;
}

/* The sectors of the mask; what was not there reads as junk. */
static void content_put(struct disk *disk, struct disk_content **content,
			struct disk_content *other, uint8_t mask)
{
	struct disk_content *mixed;

	if (mask == 0)
		return;
	if (mask == ALL_SECTORS) {
		content_name(other);
		content_drop(disk, content);
		*content = other;
		return;
	}
	mixed = content_new(disk);
	if (*content == NULL)
		memset(mixed->data, disk->junk, BLOCK_BYTES);
	else
		memcpy(mixed->data, (*content)->data, BLOCK_BYTES);
	for (unsigned s = 0; s < BLOCK_BYTES / SECTOR_BYTES; s++)
		if (mask & (1u << s))
			memcpy(mixed->data + s * SECTOR_BYTES, other->data + s * SECTOR_BYTES,
			       SECTOR_BYTES);
	content_drop(disk, content);
	*content = mixed;
}

void disk_init(struct disk *disk, uint64_t size_bytes, unsigned lanes, uint64_t seed)
{
	assert(lanes > 0 && lanes <= DISK_LANES_MAX);
	*disk = (struct disk){
		.store =
			{
				.ops = &disk_ops,
				.size_bytes = size_bytes,
				.sector_bytes = SECTOR_BYTES,
				.lane_count = lanes,
				.can_discard = true,
			},
		.rng = rng_for(seed, 11),
		.cell_slots = 1024,
		.limit_blocks = DISK_NEVER,
		.full_error = -ENOSPC,
		.die_at = DISK_NEVER,
	};
	disk->cells = calloc(disk->cell_slots, sizeof(disk->cells[0]));
	assert(disk->cells);
	list_init(&disk->changes);
	list_init(&disk->spare);
}

static void free_changes(struct list *changes)
{
	list_for_each (pos, changes) {
		struct disk_change *change = container_of(pos, struct disk_change, node);

		list_del(&change->node);
		free(change);
	}
}

void disk_done(struct disk *disk)
{
	free_changes(&disk->changes);
	free_changes(&disk->spare);
	while (disk->pools != NULL) {
		void *pool = disk->pools;

		disk->pools = *(void **)pool;
		free(pool);
	}
	for (uint64_t i = 0; i < disk->cell_slots; i++)
		free(disk->cells[i]);
	free(disk->cells);
	for (unsigned i = 0; i < DISK_LANES_MAX; i++)
		free(disk->lanes[i].ios);
}

/* --- cells --- */

static uint64_t slot_of(const struct disk *disk, uint64_t block)
{
	uint64_t at = (block * 0x9e3779b97f4a7c15ull >> 20) & (disk->cell_slots - 1);

	while (disk->cells[at] != NULL && disk->cells[at]->block != block)
		at = (at + 1) & (disk->cell_slots - 1);
	return at;
}

static void grow(struct disk *disk)
{
	struct disk_cell **old = disk->cells;
	uint64_t slots = disk->cell_slots;

	disk->cell_slots *= 4;
	disk->cells = calloc(disk->cell_slots, sizeof(disk->cells[0]));
	assert(disk->cells);
	for (uint64_t i = 0; i < slots; i++)
		if (old[i] != NULL)
			disk->cells[slot_of(disk, old[i]->block)] = old[i];
	free(old);
}

static struct disk_cell *cell_get(struct disk *disk, uint64_t block)
{
	uint64_t at = slot_of(disk, block);
	struct disk_cell *cell = disk->cells[at];

	if (cell != NULL)
		return cell;
	cell = calloc(1, sizeof(*cell));
	assert(cell);
	cell->block = block;
	list_init(&cell->changes);
	disk->cells[at] = cell;
	if (++disk->cell_count * 2 > disk->cell_slots)
		grow(disk);
	return cell;
}

static void newest_put(struct disk *disk, struct disk_cell *cell, struct disk_content *content,
		       uint8_t mask)
{
	disk->allocated += cell->newest == NULL && mask != 0;
	content_put(disk, &cell->newest, content, mask);
}

static void newest_drop(struct disk *disk, struct disk_cell *cell)
{
	disk->allocated -= cell->newest != NULL;
	content_drop(disk, &cell->newest);
}

/* --- changes --- */

static struct disk_change *change_new(struct disk *disk, struct disk_cell *cell)
{
	struct disk_change *change;

	if (list_empty(&disk->spare)) {
		change = malloc(sizeof(*change));
		assert(change);
	} else {
		change = container_of(disk->spare.next, struct disk_change, node);
		list_del(&change->node);
	}
	change->cell = cell;
	change->number = ++disk->delivered;
	change->undecided = false;
	change->content = NULL;
	list_add_tail(&disk->changes, &change->node);
	list_add_tail(&cell->changes, &change->of_cell);
	return change;
}

static void change_end(struct disk *disk, struct disk_change *change)
{
	list_del(&change->node);
	list_del(&change->of_cell);
	content_drop(disk, &change->content);
	list_add_tail(&disk->spare, &change->node);
}

/* The mask's sectors of it become durable. */
static void change_harden(struct disk *disk, struct disk_change *change, uint8_t mask)
{
	mask &= change->mask;
	if (change->content != NULL)
		content_put(disk, &change->cell->durable, change->content, mask);
	else if (mask == ALL_SECTORS)
		content_drop(disk, &change->cell->durable);
}

static void flushed(struct disk *disk, uint64_t before, bool good)
{
	list_for_each (pos, &disk->changes) {
		struct disk_change *change = container_of(pos, struct disk_change, node);

		if (change->number > before)
			return;
		if (!good)
			change->undecided = true;
		if (change->undecided)
			continue;
		change_harden(disk, change, ALL_SECTORS);
		change_end(disk, change);
	}
}

/* What is durable now must not be undone when older changes become so. */
static void overrule(struct disk_cell *cell, uint8_t mask)
{
	list_for_each (pos, &cell->changes)
		container_of(pos, struct disk_change, of_cell)->mask &= (uint8_t)~mask;
}

/* Those sectors of a part of a block that are in the mask. */
static void put_block(struct disk *disk, uint64_t block, const uint8_t *data, uint64_t in_bytes,
		      uint64_t len_bytes, uint8_t mask, bool fua)
{
	struct disk_cell *cell = cell_get(disk, block);
	struct disk_content *content;

	if (mask == 0)
		return;
	content = content_new(disk);
	memcpy(content->data + in_bytes, data, len_bytes);
	newest_put(disk, cell, content, mask);
	if (fua) {
		content_put(disk, &cell->durable, content, mask);
		overrule(cell, mask);
		content_drop(disk, &content);
	} else {
		struct disk_change *change = change_new(disk, cell);

		change->mask = mask;
		change->content = content;
	}
}

/* --- what an I/O does --- */

static uint8_t *memory_of(const struct disk *disk, const struct store_io *io)
{
	return io->foreign ? disk->foreign[io->foreign] + (uintptr_t)io->buf : io->buf;
}

static uint8_t random_mask(struct disk *disk)
{
	uint64_t x = rng_u64(&disk->rng);

	return (x & 3) == 0 ? 0 : (x & 3) == 1 ? ALL_SECTORS : (uint8_t)(x >> 8);
}

/* All of a write, or some sectors of it. */
static void write_blocks(struct disk *disk, const struct store_io *io, bool some)
{
	const uint8_t *from = memory_of(disk, io);
	uint64_t at = io->off_bytes, end = at + io->len_bytes;

	while (at < end) {
		uint64_t in = at % BLOCK_BYTES, len = min_u64(end - at, BLOCK_BYTES - in);
		unsigned first = (unsigned)(in / SECTOR_BYTES), n = (unsigned)(len / SECTOR_BYTES);
		uint8_t mask = (uint8_t)(((1u << n) - 1) << first);

		if (some)
			mask &= random_mask(disk);
		put_block(disk, at / BLOCK_BYTES, from, in, len, mask, io->fua && !some);
		from += len;
		at += len;
	}
}

static void discard_blocks(struct disk *disk, const struct store_io *io)
{
	assert(io->off_bytes % BLOCK_BYTES == 0 && io->len_bytes % BLOCK_BYTES == 0);
	for (uint64_t i = 0; i < io->len_bytes / BLOCK_BYTES; i++) {
		uint64_t block = io->off_bytes / BLOCK_BYTES + i;
		struct disk_cell *cell = disk->cells[slot_of(disk, block)];
		struct disk_change *change;

		if (cell == NULL)
			continue;
		newest_drop(disk, cell);
		change = change_new(disk, cell);
		change->mask = ALL_SECTORS;
	}
}

void disk_read(const struct disk *disk, uint64_t off_bytes, void *buf, uint64_t len_bytes)
{
	uint8_t *to = buf;

	while (len_bytes > 0) {
		uint64_t in = off_bytes % BLOCK_BYTES, len = min_u64(len_bytes, BLOCK_BYTES - in);
		const struct disk_cell *cell = disk->cells[slot_of(disk, off_bytes / BLOCK_BYTES)];

		if (cell != NULL && cell->newest != NULL)
			memcpy(to, cell->newest->data + in, len);
		else
			memset(to, disk->junk, len);
		to += len;
		off_bytes += len;
		len_bytes -= len;
	}
}

static void compare(const struct disk *disk, struct store_io *io)
{
	uint8_t one[BLOCK_BYTES], other[BLOCK_BYTES] = {0};
	uint64_t at = 0, i = 0;

	for (; at < io->len_bytes && i == 0; at += BLOCK_BYTES) {
		disk_read(disk, io->off_bytes + at, one, BLOCK_BYTES);
		if (io->other_off_bytes != STORE_ZEROS)
			disk_read(disk, io->other_off_bytes + at, other, BLOCK_BYTES);
		if (memcmp(one, other, BLOCK_BYTES) == 0)
			continue;
		while (one[i] == other[i])
			i++;
		io->equal_bytes = at + i;
		return;
	}
	io->equal_bytes = io->len_bytes;
}

static void perform(struct disk *disk, const struct disk_io *d)
{
	struct store_io *io = d->io;

	if (io->op == STORE_READ)
		disk_read(disk, io->off_bytes, memory_of(disk, io), io->len_bytes);
	else if (io->op == STORE_WRITE && !store_lacks_space(d->error))
		write_blocks(disk, io, d->error != 0);
	else if (io->op == STORE_DISCARD && d->error == 0)
		discard_blocks(disk, io);
	else if (io->op == STORE_COMPARE)
		compare(disk, io);
	else if (io->op == STORE_FLUSH)
		flushed(disk, d->before, d->error == 0);
}

/* --- verdicts --- */

static bool lacks_space(const struct disk *disk, const struct store_io *io)
{
	uint64_t wanted = 0;

	if (io->op != STORE_WRITE || disk->limit_blocks == DISK_NEVER)
		return false;
	for (uint64_t at = io->off_bytes & ~(uint64_t)(BLOCK_BYTES - 1);
	     at < io->off_bytes + io->len_bytes; at += BLOCK_BYTES) {
		const struct disk_cell *cell = disk->cells[slot_of(disk, at / BLOCK_BYTES)];

		wanted += cell == NULL || cell->newest == NULL;
	}
	return wanted > 0 && disk->allocated + wanted > disk->limit_blocks;
}

static int verdict(struct disk *disk, const struct store_io *io)
{
	struct disk_fault *fault = &disk->fault;

	if (disk->dead)
		return -EIO;
	if (io->foreign != 0 && rng_once_in(&disk->rng, FOREIGN_NO_IN))
		return STORE_NEEDS_BYTES;
	if (fault->one_in != 0 && fault->op == io->op && disk->submitted >= fault->from &&
	    disk->submitted < fault->to && rng_once_in(&disk->rng, fault->one_in)) {
		disk->faults += fault->error == -EIO;
		disk->full += fault->error != -EIO;
		fault->one_in = fault->once ? 0 : fault->one_in;
		return fault->error;
	}
	return 0;
}

/* The process is dead: what is in flight was done or not. */
static void die(struct disk *disk)
{
	disk->dead = true;
	for (unsigned l = 0; l < disk->store.lane_count; l++)
		for (uint32_t i = 0; i < disk->lanes[l].count; i++) {
			struct disk_io *d = &disk->lanes[l].ios[i];

			if (d->io->op == STORE_WRITE && d->error == 0)
				write_blocks(disk, d->io, true);
			d->error = -EIO;
		}
}

static void submit(struct store *store, struct store_io *io)
{
	struct disk *disk = container_of(store, struct disk, store);
	struct disk_lane *lane = &disk->lanes[io->lane];

	assert(io->magic == STORE_IO_MAGIC && io->lane < store->lane_count);
	assert(io->foreign == 0 ||
	       (io->foreign < DISK_FOREIGN_MAX && disk->foreign[io->foreign] != NULL));
	assert(io->off_bytes % store->sector_bytes == 0 &&
	       io->len_bytes % store->sector_bytes == 0);
	assert(io->op == STORE_FLUSH || (io->len_bytes > 0 && io->off_bytes < store->size_bytes &&
					 io->len_bytes <= store->size_bytes - io->off_bytes));
	disk->submitted++;
	if (disk->submitted >= disk->die_at && !disk->dead)
		die(disk);
	disk->written += io->op == STORE_WRITE && !disk->dead && disk->must_not_write;
	if (lane->count == lane->capacity) {
		lane->capacity = lane->capacity * 2 + 64;
		lane->ios = realloc(lane->ios, lane->capacity * sizeof(lane->ios[0]));
		assert(lane->ios);
	}
	lane->ios[lane->count++] = (struct disk_io){
		.io = io,
		.error = verdict(disk, io),
		.before = disk->delivered,
	};
	if (disk->slow_in != 0 && rng_once_in(&disk->rng, disk->slow_in))
		lane->ios[lane->count - 1].due = disk->asked + rng_below(&disk->rng, SLOW_MAX);
}

/* One of the lane's that is due, if there is. */
static bool choose(struct disk *disk, const struct disk_lane *lane, bool slow_too, uint32_t *ret_i)
{
	uint32_t i;

	disk->asked++;
	if (lane->count == 0)
		return false;
	*ret_i = i = rng_below(&disk->rng, lane->count);
	do {
		if (lane->ios[i].due <= disk->asked) {
			*ret_i = i;
			return true;
		}
		i = (i + 1) % lane->count;
	} while (i != *ret_i);
	return slow_too;
}

bool disk_deliver(struct disk *disk, unsigned l, bool slow_too)
{
	struct disk_lane *lane = &disk->lanes[l];
	struct disk_io d;
	uint32_t i;

	if (!choose(disk, lane, slow_too, &i))
		return false;
	d = lane->ios[i];
	lane->ios[i] = lane->ios[--lane->count];
	/* At delivery, since what was submitted before may have taken the space. */
	if (d.error == 0 && lacks_space(disk, d.io)) {
		d.error = disk->full_error;
		disk->full++;
	} else if (!disk->dead) {
		disk->undecided |= d.io->op == STORE_FLUSH && d.error != 0;
		perform(disk, &d);
	}
	d.io->magic = 0;
	d.io->done(d.io, d.error);
	return true;
}

bool disk_idle(const struct disk *disk)
{
	for (unsigned l = 0; l < disk->store.lane_count; l++)
		if (disk->lanes[l].count > 0)
			return false;
	return true;
}

static void wait(struct store *store, unsigned lane)
{
	bool any = disk_deliver(container_of(store, struct disk, store), lane, true);

	assert(any); /* nothing is in flight that could ever come */
}

static const struct store_ops disk_ops = {
	.submit = submit,
	.wait = wait,
};

/* --- ends --- */

void disk_die_after(struct disk *disk, uint64_t n)
{
	disk->die_at = n == 0 ? DISK_NEVER : disk->submitted + n;
}

void disk_stop(struct disk *disk)
{
	if (!disk->dead)
		die(disk);
	for (unsigned l = 0; l < disk->store.lane_count; l++)
		disk->lanes[l].count = 0;
}

void disk_kill(struct disk *disk)
{
	disk_stop(disk);
	disk->dead = false;
	disk->die_at = DISK_NEVER;
	disk->fault = (struct disk_fault){0};
}

static uint8_t survivors(struct disk *disk, unsigned mode)
{
	if (mode == 0)
		return 0;
	if (mode == 1)
		return ALL_SECTORS;
	/* Mostly whole blocks are left or lost, as whole pages are; some are torn. */
	if (rng_once_in(&disk->rng, 4))
		return (uint8_t)rng_u64(&disk->rng);
	return rng_below(&disk->rng, 8) < mode ? ALL_SECTORS : 0;
}

void disk_cut(struct disk *disk)
{
	unsigned mode = rng_below(&disk->rng, 8);

	disk_kill(disk);
	list_for_each (pos, &disk->changes) {
		struct disk_change *change = container_of(pos, struct disk_change, node);
		struct disk_cell *cell = change->cell;

		change_harden(disk, change, survivors(disk, mode));
		change_end(disk, change);
		if (!list_empty(&cell->changes))
			continue;
		if (cell->durable == NULL)
			newest_drop(disk, cell);
		else
			newest_put(disk, cell, cell->durable, ALL_SECTORS);
	}
	disk->undecided = false;
}

uint64_t disk_count(const struct disk *disk, bool (*is)(const void *context, uint64_t block),
		    const void *context)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < disk->cell_slots; i++)
		n += disk->cells[i] != NULL && disk->cells[i]->newest != NULL &&
		     is(context, disk->cells[i]->block);
	return n;
}

uint64_t disk_undurable(const struct disk *disk)
{
	uint64_t n = 0;

	list_for_each (pos, &disk->changes)
		n += container_of(pos, struct disk_change, node)->content != NULL;
	return n;
}
