/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/metadata/checkpoint.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mutant.h"
#include "core/metadata/metadata.h"

#define REST_TICKS 5u

static void advance(struct task *task);
static void slot_done(struct store_io *io, int res);

int checkpoint_init(struct checkpoint *checkpoint, struct metadata *metadata)
{
	const struct geometry *geometry = &metadata->super.geometry;

	memset(checkpoint, 0, sizeof(*checkpoint));
	checkpoint->metadata = metadata;
	list_init(&checkpoint->waits);
	list_init(&checkpoint->next_waits);
	checkpoint->slot_memory =
		aligned_alloc(BLOCK_BYTES, (size_t)CHECKPOINT_BATCH * BLOCK_BYTES);
	checkpoint->super_buf =
		aligned_alloc(BLOCK_BYTES, (size_t)geometry->super_blocks * BLOCK_BYTES);
	checkpoint->generations = calloc(geometry_tops(geometry), sizeof(uint32_t));
	if (!checkpoint->slot_memory || !checkpoint->super_buf || !checkpoint->generations)
		return -ENOMEM;
	for (uint32_t i = 0; i < CHECKPOINT_BATCH; i++) {
		checkpoint->slots[i].checkpoint = checkpoint;
		checkpoint->slots[i].buf = checkpoint->slot_memory + (size_t)i * BLOCK_BYTES;
	}
	return 0;
}

void checkpoint_done(struct checkpoint *checkpoint)
{
	free(checkpoint->slot_memory);
	free(checkpoint->super_buf);
	free(checkpoint->generations);
}

static void begin(struct checkpoint *checkpoint, struct worker *worker)
{
	struct journal *journal = &checkpoint->metadata->journal;

	wait_init(&checkpoint->step, worker, advance);
	checkpoint->state = CHECKPOINT_BOUNDARY;
	journal_wait(journal, journal_next_lsn(journal) - 1, &checkpoint->step);
}

void checkpoint_start(struct checkpoint *checkpoint, struct worker *worker, struct wait *wait)
{
	if (checkpoint->state == CHECKPOINT_DEAD) {
		if (wait)
			wait_wake(wait, checkpoint->error);
		return;
	}
	if (checkpoint->state != CHECKPOINT_IDLE) {
		checkpoint->again = true;
		if (wait)
			list_add_tail(&checkpoint->next_waits, &wait->node);
		return;
	}
	if (wait)
		list_add_tail(&checkpoint->waits, &wait->node);
	begin(checkpoint, worker);
}

/* Once for each rest: what that does not free waits for something else. */
void checkpoint_tick(struct checkpoint *checkpoint, struct worker *worker)
{
	struct metadata *metadata = checkpoint->metadata;
	uint64_t lsn = journal_next_lsn(&metadata->journal);

	if (lsn != checkpoint->rest_lsn || metadata->pending.quarantine.count == 0) {
		checkpoint->rest_lsn = lsn;
		checkpoint->rest_ticks = 0;
	} else if (checkpoint->rest_ticks < REST_TICKS && ++checkpoint->rest_ticks == REST_TICKS) {
		checkpoint_start(checkpoint, worker, NULL);
	}
}

void checkpoint_kill(struct checkpoint *checkpoint, int error)
{
	if (checkpoint->state == CHECKPOINT_DEAD)
		return;
	checkpoint->state = CHECKPOINT_DEAD;
	checkpoint->error = error;
	wait_wake_all(&checkpoint->waits, error);
	wait_wake_all(&checkpoint->next_waits, error);
}

static void ask_flush(struct checkpoint *checkpoint, enum checkpoint_state state)
{
	checkpoint->state = state;
	flusher_join(&checkpoint->metadata->flusher, &checkpoint->step);
}

static void submit_slot(struct checkpoint_slot *slot)
{
	struct checkpoint *checkpoint = slot->checkpoint;

	slot->io = (struct store_io){
		.op = STORE_WRITE,
		.lane = checkpoint->step.task.worker->lane,
		.off_bytes = blocks_to_bytes(slot->block),
		.len_bytes = BLOCK_BYTES,
		.buf = slot->buf,
		.done = slot_done,
		.context = slot,
	};
	checkpoint->ios_pending++;
	checkpoint->pages_written++;
	backing_write(&checkpoint->metadata->backing, &slot->io);
}

static void slot_done(struct store_io *io, int res)
{
	struct checkpoint_slot *slot = io->context;
	struct checkpoint *checkpoint = slot->checkpoint;
	struct metadata *metadata = checkpoint->metadata;

	pthread_mutex_lock(&metadata->lock);
	if (!backing_holds(&metadata->backing, io, res)) {
		if (res < 0)
			checkpoint->ios_res = res;
		if (--checkpoint->ios_pending == 0)
			wait_wake(&checkpoint->step, checkpoint->ios_res);
	}
	pthread_mutex_unlock(&metadata->lock);
}

/* Whether the page has a home: a leaf whose region gave its place up while replay was on has none.
 * */
static bool has_home(const struct metadata *metadata, page_t page)
{
	return !page_is_leaf(&metadata->super.geometry, page) ||
	       !pbn_is_none(map_entry(&metadata->map, page).place);
}

/* The generation after this one: the other parity, that is, the other slot, and of this life's
 * class (its second and third bit). A page that a crashed life left in the spare slot is of another
 * class: should this life's write there be lost, it is not believed. 0 means never written. */
static uint32_t next_generation(const struct metadata *metadata, uint32_t generation, uint32_t mask)
{
	uint32_t next = (generation + 1) & mask;

	while ((next >> 1) % 4 != metadata->life % 4 || next == 0)
		next = (next + 2) & mask;
	return next;
}

static uint32_t page_generation_next(const struct metadata *metadata, page_t page)
{
	const struct geometry *geometry = &metadata->super.geometry;
	uint32_t slab = page - geometry->regions;

	if (page_is_leaf(geometry, page))
		return next_generation(metadata, map_entry(&metadata->map, page).generation,
				       ROOT_GENERATION_MASK);
	return next_generation(metadata, metadata->refs.slabs[slab].generation, UINT32_MAX);
}

/* Where a page of that generation lives now. */
static uint64_t page_block(const struct metadata *metadata, page_t page, uint32_t generation)
{
	const struct geometry *geometry = &metadata->super.geometry;

	if (MUTANT(45)) /* the slot that the durable parent names is overwritten */
		generation++;
	if (page_is_leaf(geometry, page)) {
		struct root_entry entry = map_entry(&metadata->map, page);

		return root_entry_slot(&entry, generation).v;
	}
	return geometry_refs_block(geometry, page - geometry->regions, generation);
}

/* Copies the next dirty pages with edits before the boundary into slots. In replay all of them: it
 * stands still meanwhile, so none is dirtied again and goes home twice. */
static void copy_pages(struct checkpoint *checkpoint)
{
	struct metadata *metadata = checkpoint->metadata;
	uint64_t limit = metadata->opening ? UINT64_MAX : checkpoint->boundary.lsn;
	struct frame *frame;

	checkpoint->slot_count = 0;
	checkpoint->batch_lsn = 0;
	while (checkpoint->slot_count < CHECKPOINT_BATCH &&
	       (frame = cache_oldest_dirty(&metadata->cache)) != NULL && frame->first_lsn < limit) {
		struct checkpoint_slot *slot = &checkpoint->slots[checkpoint->slot_count];

		cache_copied(&metadata->cache, frame);
		if (!has_home(metadata, frame->page)) {
			cache_home_written(&metadata->cache, frame);
			continue;
		}
		slot->frame = frame;
		slot->page = frame->page;
		slot->generation = page_generation_next(metadata, frame->page);
		/* Now: before the batch is written its region may give the place up, or get
		 * another. The old one stays in quarantine until a later checkpoint, so writing
		 * there harms nobody. */
		slot->block = page_block(metadata, frame->page, slot->generation);
		if (!page_is_leaf(&metadata->super.geometry, frame->page))
			slot->piece = refs_free_piece(&metadata->refs, frame);
		cache_encode(&metadata->cache, frame, slot->generation, slot->buf);
		if (frame->lsn > checkpoint->batch_lsn)
			checkpoint->batch_lsn = frame->lsn;
		checkpoint->slot_count++;
	}
}

static void page_is_home(struct metadata *metadata, struct checkpoint_slot *slot)
{
	const struct geometry *geometry = &metadata->super.geometry;

	cache_home_written(&metadata->cache, slot->frame);
	if (slot->frame->page != slot->page)
		return; /* its region became a hole meanwhile */
	if (page_is_leaf(geometry, slot->page)) {
		map_leaf_home(&metadata->map, slot->page, slot->generation);
	} else {
		refs_home(&metadata->refs, slot->page - geometry->regions, slot->generation,
			  slot->piece);
	}
}

static void encode_root(const struct metadata *metadata, uint32_t number, uint32_t generation,
			uint8_t *out)
{
	struct page_header header = {PAGE_ROOT, number, generation, metadata->map.tops[number].lsn};
	uint32_t first = number * ROOT_ENTRIES;

	memset(out, 0, BLOCK_BYTES);
	for (uint32_t i = 0; i < ROOT_ENTRIES && first + i < metadata->super.geometry.regions; i++)
		root_page_put(out, i, map_home_words(&metadata->map, first + i));
	page_seal(out, &header, metadata->super.uuid);
}

/* Whether nothing of the slab is left to be given back, or on its way. */
static bool is_given(const struct metadata *metadata, uint32_t slab)
{
	const struct slab *s = &metadata->refs.slabs[slab];

	if (MUTANT(91))
		return true;
	return s->owed == OWED_NOTHING && s->busy_free == 0 && !sweep_is_at(&metadata->sweep, slab);
}

static void encode_summary(const struct metadata *metadata, uint32_t number, uint32_t generation,
			   uint8_t *out)
{
	struct page_header header = {PAGE_SUMMARY, number, generation, 0};
	uint32_t first = number * SUMMARY_ENTRIES;

	memset(out, 0, BLOCK_BYTES);
	for (uint32_t i = 0; i < SUMMARY_ENTRIES && first + i < metadata->super.geometry.slabs;
	     i++) {
		const struct slab *slab = &metadata->refs.slabs[first + i];
		bool given = is_given(metadata, first + i);
		struct summary_entry entry = {slab->generation, (uint32_t)slab->free_blocks,
					      slab->shared_refs, slab->home_piece,
					      given ? SUMMARY_GIVEN : 0};

		if (slab->generation == 0)
			entry = (struct summary_entry){.flags = given ? 0 : SUMMARY_WRITTEN};
		summary_page_put(out, i, &entry);
	}
	page_seal(out, &header, metadata->super.uuid);
}

static struct top *top_of(struct metadata *metadata, uint32_t number)
{
	uint32_t roots = metadata->super.geometry.root_pages;

	return number < roots ? &metadata->map.tops[number] : &metadata->refs.tops[number - roots];
}

static void copy_tops(struct checkpoint *checkpoint)
{
	struct metadata *metadata = checkpoint->metadata;
	uint32_t roots = metadata->super.geometry.root_pages;
	uint32_t tops = geometry_tops(&metadata->super.geometry);

	checkpoint->slot_count = 0;
	checkpoint->batch_lsn = 0;
	for (; checkpoint->next_top < tops && checkpoint->slot_count < CHECKPOINT_BATCH;
	     checkpoint->next_top++) {
		struct checkpoint_slot *slot = &checkpoint->slots[checkpoint->slot_count];
		struct top *top = top_of(metadata, checkpoint->next_top);
		uint64_t lsn;

		if (!top->dirty)
			continue;
		top->dirty = false;
		slot->top = checkpoint->next_top;
		slot->generation = next_generation(metadata, top->generation, UINT32_MAX);
		slot->block =
			geometry_top_block(&metadata->super.geometry, slot->top, slot->generation);
		if (slot->top < roots)
			encode_root(metadata, slot->top, slot->generation, slot->buf);
		else
			encode_summary(metadata, slot->top - roots, slot->generation, slot->buf);
		/* A summary holds sums of all that was published until now. */
		lsn = slot->top < roots ? top->lsn : journal_next_lsn(&metadata->journal) - 1;
		if (lsn > checkpoint->batch_lsn)
			checkpoint->batch_lsn = lsn;
		checkpoint->slot_count++;
	}
}

/* The batch was copied; once its newest edit is durable it is written. */
static void write_batch(struct checkpoint *checkpoint)
{
	checkpoint->batch_written = true;
	checkpoint->ios_res = 0;
	for (uint32_t i = 0; i < checkpoint->slot_count; i++)
		submit_slot(&checkpoint->slots[i]);
}

static void commit_batch(struct checkpoint *checkpoint)
{
	struct journal *journal = &checkpoint->metadata->journal;

	checkpoint->batch_written = false;
	if (checkpoint->batch_lsn > journal_durable_lsn(journal) && !MUTANT(43))
		journal_wait(journal, checkpoint->batch_lsn, &checkpoint->step);
	else
		write_batch(checkpoint);
}

static void pages(struct checkpoint *checkpoint)
{
	struct metadata *metadata = checkpoint->metadata;

	if (checkpoint->batch_written) {
		for (uint32_t i = 0; i < checkpoint->slot_count; i++)
			page_is_home(metadata, &checkpoint->slots[i]);
		cache_wake(&metadata->cache);
	} else if (checkpoint->slot_count > 0) {
		write_batch(checkpoint);
		return;
	}
	copy_pages(checkpoint);
	if (checkpoint->slot_count > 0)
		commit_batch(checkpoint);
	else
		ask_flush(checkpoint, CHECKPOINT_PAGES_FLUSH);
}

static void tops(struct checkpoint *checkpoint)
{
	struct metadata *metadata = checkpoint->metadata;

	if (checkpoint->batch_written) {
		for (uint32_t i = 0; i < checkpoint->slot_count; i++)
			top_of(metadata, checkpoint->slots[i].top)->generation =
				checkpoint->slots[i].generation;
	} else if (checkpoint->slot_count > 0) {
		write_batch(checkpoint);
		return;
	}
	copy_tops(checkpoint);
	if (checkpoint->slot_count > 0)
		commit_batch(checkpoint);
	else
		ask_flush(checkpoint, CHECKPOINT_TOPS_FLUSH);
}

static void super_done(struct store_io *io, int res)
{
	struct checkpoint *checkpoint = io->context;

	pthread_mutex_lock(&checkpoint->metadata->lock);
	if (!backing_holds(&checkpoint->metadata->backing, io, res)) {
		checkpoint->ios_pending--;
		wait_wake(&checkpoint->step, res);
	}
	pthread_mutex_unlock(&checkpoint->metadata->lock);
}

/* Nothing that the new superblock would leave to replay, and nothing dirty. */
static bool is_clean(const struct checkpoint *checkpoint)
{
	const struct metadata *metadata = checkpoint->metadata;

	return checkpoint->clean && metadata->cache.dirty_count == 0 &&
	       checkpoint->boundary.lsn == journal_next_lsn(&metadata->journal);
}

static void write_super(struct checkpoint *checkpoint)
{
	struct metadata *metadata = checkpoint->metadata;
	struct super *super = &metadata->super;

	super->checkpoint++;
	super->epoch = metadata->journal.epoch;
	super->clean = is_clean(checkpoint);
	super->tail_sequence = checkpoint->boundary.sequence;
	super->tail_lsn = checkpoint->boundary.lsn;
	super->tail_prev = checkpoint->boundary.prev;
	super->tail_group = checkpoint->boundary.group;
	super->log_reaches_lsn = journal_durable_lsn(&metadata->journal) + 1;
	super->mapped_blocks = checkpoint->boundary.counts.mapped_blocks;
	super->places = checkpoint->boundary.counts.places;
	super->tracking_generation = metadata->ops->generation(metadata->owner);
	for (uint32_t i = 0; i < geometry_tops(&super->geometry); i++)
		checkpoint->generations[i] = top_of(metadata, i)->generation;
	super_encode(super, checkpoint->generations, checkpoint->super_buf);
	checkpoint->super_io = (struct store_io){
		.op = STORE_WRITE,
		.lane = checkpoint->step.task.worker->lane,
		.off_bytes = blocks_to_bytes(
			geometry_super_block(&super->geometry, super->checkpoint & 1)),
		.len_bytes = blocks_to_bytes(super->geometry.super_blocks),
		.buf = checkpoint->super_buf,
		.done = super_done,
		.context = checkpoint,
	};
	checkpoint->state = CHECKPOINT_SUPER;
	checkpoint->ios_pending++;
	backing_write(&metadata->backing, &checkpoint->super_io);
}

static void finish(struct checkpoint *checkpoint)
{
	struct metadata *metadata = checkpoint->metadata;
	struct worker *worker = checkpoint->step.task.worker;

	checkpoint->checkpoints++;
	checkpoint->state = CHECKPOINT_IDLE;
	metadata->ops->superblock_is_durable(metadata->owner, metadata->super.tracking_generation);
	journal_set_tail(&metadata->journal, checkpoint->boundary.sequence,
			 metadata->super.checkpoint);
	pending_release_places(&metadata->pending, checkpoint->boundary.lsn, worker->lane);
	wait_wake_all(&checkpoint->waits, 0);
	cache_wake(&metadata->cache);
	if (checkpoint->again) {
		checkpoint->again = false;
		list_splice_tail(&checkpoint->waits, &checkpoint->next_waits);
		begin(checkpoint, worker);
	}
}

static void boundary(struct checkpoint *checkpoint)
{
	checkpoint->boundary = checkpoint->metadata->journal.durable;
	checkpoint->state = CHECKPOINT_PAGES;
	checkpoint->slot_count = 0;
	checkpoint->batch_written = false;
	checkpoint->next_top = 0;
	pages(checkpoint);
}

static void step(struct checkpoint *checkpoint)
{
	switch (checkpoint->state) {
	case CHECKPOINT_BOUNDARY:
		boundary(checkpoint);
		break;
	case CHECKPOINT_PAGES:
		pages(checkpoint);
		break;
	case CHECKPOINT_PAGES_FLUSH:
		checkpoint->state = CHECKPOINT_TOPS;
		checkpoint->slot_count = 0;
		checkpoint->batch_written = false;
		tops(checkpoint);
		break;
	case CHECKPOINT_TOPS:
		tops(checkpoint);
		break;
	case CHECKPOINT_TOPS_FLUSH:
		write_super(checkpoint);
		break;
	case CHECKPOINT_SUPER:
		ask_flush(checkpoint, CHECKPOINT_SUPER_FLUSH);
		break;
	case CHECKPOINT_SUPER_FLUSH:
		finish(checkpoint);
		break;
	case CHECKPOINT_IDLE:
	case CHECKPOINT_DEAD:
		assert(false);
	}
}

/* What the checkpoint waited for has come: a commit, a flush, or its writes. */
static void advance(struct task *task)
{
	struct wait *wait = container_of(task, struct wait, task);
	struct checkpoint *checkpoint = container_of(wait, struct checkpoint, step);
	struct metadata *metadata = checkpoint->metadata;

	if (metadata_yield(metadata, "checkpoint step")) {
		worker_post(task);
		return;
	}
	pthread_mutex_lock(&metadata->lock);
	if (checkpoint->state != CHECKPOINT_DEAD) {
		if (wait->res < 0 && !MUTANT(4)) /* else the superblock follows a failed write */
			metadata_latch(metadata, wait->res, "a checkpoint's write");
		else
			step(checkpoint);
	}
	pthread_mutex_unlock(&metadata->lock);
}
