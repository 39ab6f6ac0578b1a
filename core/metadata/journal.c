/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/metadata/journal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mutant.h"

#define GROUP_BLOCKS_MAX 128u

static void advance(struct task *task);

int journal_init(struct journal *journal, struct backing *backing, const struct super *super,
		 struct flusher *flusher, pthread_mutex_t *lock)
{
	uint32_t blocks = min_u32(super->geometry.ring_blocks / 4, GROUP_BLOCKS_MAX);

	memset(journal, 0, sizeof(*journal));
	journal->backing = backing;
	journal->geometry = &super->geometry;
	journal->uuid = super->uuid;
	journal->flusher = flusher;
	journal->lock = lock;
	journal->epoch = super->epoch;
	journal->sequence = super->tail_sequence;
	journal->tail_sequence = super->tail_sequence;
	journal->prev = super->tail_prev;
	journal->group = super->tail_group;
	journal->checkpoint = super->checkpoint;
	journal->counts = (struct journal_counts){super->mapped_blocks, super->places};
	atomic_init(&journal->next_lsn, super->tail_lsn);
	atomic_init(&journal->durable_lsn, super->tail_lsn - 1);
	journal->durable =
		(struct journal_boundary){super->tail_lsn, super->tail_sequence, super->tail_prev,
					  super->tail_group, journal->counts};
	journal->capacity_records = blocks * JOURNAL_RECORDS;
	list_init(&journal->commit_waits);
	list_init(&journal->space_waits);
	journal->open.blocks = aligned_alloc(BLOCK_BYTES, (size_t)blocks * BLOCK_BYTES);
	journal->frozen.blocks = aligned_alloc(BLOCK_BYTES, (size_t)blocks * BLOCK_BYTES);
	if (!journal->open.blocks || !journal->frozen.blocks)
		return -ENOMEM;
	memset(journal->open.blocks, 0, (size_t)blocks * BLOCK_BYTES);
	memset(journal->frozen.blocks, 0, (size_t)blocks * BLOCK_BYTES);
	return 0;
}

void journal_done(struct journal *journal)
{
	free(journal->open.blocks);
	free(journal->frozen.blocks);
}

static uint32_t blocks_for(uint32_t records)
{
	return (uint32_t)div_up(records, JOURNAL_RECORDS);
}

/* The worst case: every batch of the request ends up in a group of its own. */
static uint32_t charge_blocks(uint32_t records)
{
	return (uint32_t)div_up(records, JOURNAL_BATCH) + blocks_for(records);
}

uint32_t journal_used_blocks(const struct journal *journal)
{
	return (uint32_t)(journal->sequence - journal->tail_sequence);
}

static bool fits(const struct journal *journal, uint32_t records)
{
	uint32_t committed =
		blocks_for(journal->frozen.records) + blocks_for(journal->open.records) + 1;
	uint32_t needed = journal_used_blocks(journal) + committed + journal->reserved_blocks +
			  charge_blocks(records);

	return needed <= journal->geometry->ring_blocks &&
	       journal->open.records + journal->reserved_records + records <=
		       journal->capacity_records &&
	       journal->reserved_records + records <= journal->pending_room(journal->context);
}

static void take_space(struct journal *journal, uint32_t records)
{
	journal->reserved_records += records;
	journal->reserved_blocks += charge_blocks(records);
}

bool journal_reserve(struct journal *journal, uint32_t records, struct wait *wait)
{
	if (journal->state == JOURNAL_DEAD) {
		wait_wake(wait, journal->error);
		return false;
	}
	if (list_empty(&journal->space_waits) && fits(journal, records)) {
		take_space(journal, records);
		return true;
	}
	wait->value = records;
	list_add_tail(&journal->space_waits, &wait->node);
	journal_kick(journal, wait->task.worker);
	journal->on_short(journal->context, wait->task.worker);
	return false;
}

void journal_grant(struct journal *journal)
{
	if (journal->state == JOURNAL_DEAD)
		return;
	while (!list_empty(&journal->space_waits)) {
		struct wait *wait = container_of(journal->space_waits.next, struct wait, node);

		if (!fits(journal, (uint32_t)wait->value))
			return;
		take_space(journal, (uint32_t)wait->value);
		wait_wake(wait, 0);
	}
}

void journal_release(struct journal *journal, uint32_t unused_records, uint32_t records)
{
	assert(journal->reserved_records >= unused_records);
	assert(journal->reserved_blocks >= charge_blocks(records));
	journal->reserved_records -= unused_records;
	journal->reserved_blocks -= charge_blocks(records);
	journal_grant(journal);
}

uint64_t journal_append(struct journal *journal, const struct record *record)
{
	struct journal_group *open = &journal->open;
	uint64_t lsn = journal_next_lsn(journal);

	assert(journal->reserved_records > 0 && open->records < journal->capacity_records);
	journal->reserved_records--;
	if (open->records == 0)
		open->first_lsn = lsn;
	record_put(open->blocks + (size_t)(open->records / JOURNAL_RECORDS) * BLOCK_BYTES,
		   open->records % JOURNAL_RECORDS, record);
	open->records++;
	journal->edits++;
	atomic_store(&journal->next_lsn, lsn + 1);
	return lsn;
}

static void freeze(struct journal *journal)
{
	struct journal_group free_group = journal->frozen;

	assert(journal->frozen.records == 0);
	journal->frozen = journal->open;
	journal->frozen.counts = journal->counts;
	journal->open = free_group;
	journal->open.records = 0;
}

static void ask_flush(struct journal *journal, enum journal_state state)
{
	journal->state = state;
	list_init(&journal->step.node);
	flusher_join(journal->flusher, &journal->step);
}

static void start(struct journal *journal, struct worker *worker)
{
	assert(journal->state == JOURNAL_IDLE && journal->open.records > 0);
	wait_init(&journal->step, worker, advance);
	if (!MUTANT(52))
		freeze(journal);
	if (MUTANT(1) || (MUTANT(10) && /* merges wait for nobody's data */
			  journal->frozen.blocks[JOURNAL_HEADER_BYTES] == RECORD_SHARE)) {
		journal->state = JOURNAL_DATA_FLUSH;
		wait_wake(&journal->step, 0);
		return;
	}
	ask_flush(journal, JOURNAL_DATA_FLUSH);
}

void journal_wait(struct journal *journal, uint64_t lsn, struct wait *wait)
{
	if (journal->state == JOURNAL_DEAD || lsn <= journal_durable_lsn(journal)) {
		wait_wake(wait, journal->state == JOURNAL_DEAD ? journal->error : 0);
		return;
	}
	assert(lsn < journal_next_lsn(journal));
	wait->value = lsn;
	list_add_tail(&journal->commit_waits, &wait->node);
	if (lsn > journal->wanted_lsn)
		journal->wanted_lsn = lsn;
	if (journal->state == JOURNAL_IDLE)
		start(journal, wait->task.worker);
}

bool journal_flush_follows(const struct journal *journal, uint64_t lsn)
{
	if (journal->state == JOURNAL_DEAD || lsn <= journal_durable_lsn(journal))
		return false;
	/* FLUSH: for what was written the flush is out; a later group has one of its own. */
	return journal->state != JOURNAL_FLUSH || lsn > journal->flushing_lsn;
}

void journal_kick(struct journal *journal, struct worker *worker)
{
	if (journal->open.records == 0)
		return;
	journal->wanted_lsn = journal_next_lsn(journal) - 1;
	if (journal->state == JOURNAL_IDLE)
		start(journal, worker);
}

static void die(struct journal *journal, int error)
{
	bool first = journal->state != JOURNAL_DEAD;

	journal_kill(journal, error);
	if (first)
		journal->failed(journal->context, error);
}

static void write_done(struct store_io *io, int res);

static void submit_blocks(struct journal *journal, unsigned i, uint64_t sequence, uint32_t blocks,
			  uint8_t *buf)
{
	struct store_io *io = &journal->ios[i];

	io->op = STORE_WRITE;
	io->fua = false;
	io->lane = journal->step.task.worker->lane;
	io->off_bytes = blocks_to_bytes(geometry_ring_block(journal->geometry, sequence));
	io->len_bytes = blocks_to_bytes(blocks);
	io->buf = buf;
	io->done = write_done;
	io->context = journal;
	journal->ios_pending++;
	backing_write(journal->backing, io);
}

/* Seals the frozen group's blocks and writes them, in two pieces where the ring ends. */
static void write_group(struct journal *journal)
{
	struct journal_group *group = &journal->frozen;
	uint32_t blocks = blocks_for(group->records), left, first;
	uint64_t sequence = journal->sequence;

	assert(blocks > 0 &&
	       journal_used_blocks(journal) + blocks <= journal->geometry->ring_blocks);
	for (uint32_t i = 0; i < blocks; i++) {
		struct journal_header header = {
			.epoch = journal->epoch,
			.sequence = sequence + i,
			.first_lsn = group->first_lsn + (uint64_t)i * JOURNAL_RECORDS,
			.group = journal->group,
			.checkpoint = journal->checkpoint,
			.prev = journal->prev,
			.count = min_u32(group->records - i * JOURNAL_RECORDS, JOURNAL_RECORDS),
			.last = i == blocks - 1,
		};

		journal->prev = journal_seal(group->blocks + (size_t)i * BLOCK_BYTES, &header,
					     journal->uuid);
	}
	journal->state = JOURNAL_WRITE;
	journal->sequence += blocks;
	journal->group++;
	journal->blocks_written += blocks;
	journal->flushing_lsn = group->first_lsn + group->records - 1;
	journal->flushing = (struct journal_boundary){journal->flushing_lsn + 1, journal->sequence,
						      journal->prev, journal->group, group->counts};
	journal->ios_res = 0;
	journal->ios_pending = 0;
	left = journal->geometry->ring_blocks -
	       (uint32_t)(sequence % journal->geometry->ring_blocks);
	first = min_u32(blocks, left);
	submit_blocks(journal, 0, sequence, first, group->blocks);
	if (first < blocks)
		submit_blocks(journal, 1, sequence + first, blocks - first,
			      group->blocks + (size_t)first * BLOCK_BYTES);
}

static void write_done(struct store_io *io, int res)
{
	struct journal *journal = io->context;

	pthread_mutex_lock(journal->lock);
	if (!backing_holds(journal->backing, io, res)) {
		if (res < 0)
			journal->ios_res = res;
		assert(journal->ios_pending > 0);
		if (--journal->ios_pending == 0)
			wait_wake(&journal->step, journal->ios_res);
	}
	pthread_mutex_unlock(journal->lock);
}

static void written(struct journal *journal)
{
	journal->frozen.records = 0;
	if (journal->wanted_lsn > journal->flushing_lsn && journal->open.records > 0)
		freeze(journal);
	ask_flush(journal, JOURNAL_FLUSH);
}

static void flushed(struct journal *journal)
{
	struct worker *worker = journal->step.task.worker;

	atomic_store(&journal->durable_lsn, journal->flushing_lsn);
	journal->durable = journal->flushing;
	journal->commits++;
	list_for_each (pos, &journal->commit_waits) {
		struct wait *wait = container_of(pos, struct wait, node);

		if (wait->value <= journal->flushing_lsn)
			wait_wake(wait, 0);
	}
	/* Whoever asks for a commit from inside these finds the journal at work, and is served
	 * below. */
	journal->on_durable(journal->context, worker);
	journal_grant(journal);
	if (!list_empty(&journal->space_waits))
		journal->on_short(journal->context, worker);
	if (journal->frozen.records > 0) {
		write_group(journal);
		return;
	}
	journal->state = JOURNAL_IDLE;
	if (journal->wanted_lsn > journal->flushing_lsn && journal->open.records > 0)
		start(journal, worker);
}

/* What the journal waited for has come: the flush it asked for, or the write it submitted. */
static void advance(struct task *task)
{
	struct wait *step = container_of(task, struct wait, task);
	struct journal *journal = container_of(step, struct journal, step);

	pthread_mutex_lock(journal->lock);
	if (journal->state != JOURNAL_DEAD) {
		if (step->res < 0) {
			die(journal, step->res);
		} else if (journal->state == JOURNAL_DATA_FLUSH) {
			if (journal->frozen.records == 0)
				freeze(journal); /* mutant 52 only */
			write_group(journal);
		} else if (journal->state == JOURNAL_WRITE) {
			written(journal);
		} else {
			assert(journal->state == JOURNAL_FLUSH);
			flushed(journal);
		}
	}
	pthread_mutex_unlock(journal->lock);
}

void journal_set_tail(struct journal *journal, uint64_t tail_sequence, uint64_t checkpoint)
{
	assert(tail_sequence >= journal->tail_sequence && tail_sequence <= journal->sequence);
	journal->tail_sequence = tail_sequence;
	journal->checkpoint = checkpoint;
	journal_grant(journal);
}

void journal_restart(struct journal *journal, uint64_t epoch)
{
	assert(journal->state == JOURNAL_IDLE && journal->open.records == 0);
	journal->epoch = epoch;
}

void journal_kill(struct journal *journal, int error)
{
	assert(error < 0);
	if (journal->state == JOURNAL_DEAD)
		return;
	journal->state = JOURNAL_DEAD;
	journal->error = error;
	wait_wake_all(&journal->commit_waits, error);
	wait_wake_all(&journal->space_waits, error);
}

void journal_refuse(struct journal *journal, int error)
{
	assert(error < 0);
	wait_wake_all(&journal->space_waits, error);
}
