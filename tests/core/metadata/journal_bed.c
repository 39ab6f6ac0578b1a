/* SPDX-License-Identifier: GPL-2.0-or-later */
/* journal_bed - see the header */
#include "tests/core/metadata/journal_bed.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

struct store_mem mem;
struct worker worker;
struct super super;
struct flusher flusher;
struct journal journal;
pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
struct waiter waiters[WAITERS];
char ops[4096];
int fail_flush, fail_write;
unsigned wakes, shorts, durables, deaths, flush_deaths;
int death;
uint32_t room;
static struct backing backing;

static int note_io(void *context, const struct store_io *io)
{
	size_t used = strlen(ops);

	(void)context;
	cr_assert(used + 1 < sizeof(ops));
	ops[used] = io->op == STORE_FLUSH ? 'F' : io->op == STORE_WRITE ? 'W' : '?';
	return io->op == STORE_FLUSH ? fail_flush : fail_write;
}

static void note_durable(void *context, struct worker *on)
{
	cr_assert(context == &super && on == &worker);
	durables++;
}

static void note_short(void *context, struct worker *on)
{
	cr_assert(context == &super && on == &worker);
	shorts++;
}

static void note_death(void *context, int error)
{
	cr_assert(context == &super);
	deaths++;
	death = error;
}

static void note_flush_death(void *context, int error)
{
	(void)context;
	(void)error;
	flush_deaths++;
}

static void note_backing(void *context, bool data, int error)
{
	cr_assert(context == &super && !data);
	(void)error;
}

static uint32_t tell_room(void *context)
{
	cr_assert(context == &super);
	return room;
}

static void woken(struct task *task)
{
	struct wait *wait = container_of(task, struct wait, task);
	struct waiter *waiter = container_of(wait, struct waiter, wait);

	waiter->woken++;
	waiter->order = ++wakes;
	waiter->res = wait->res;
}

void start_at(uint64_t tail_sequence)
{
	super = (struct super){
		.uuid = "sixteen octets..",
		.checkpoint = 9,
		.epoch = 7,
		.tail_sequence = tail_sequence,
		.tail_lsn = 1000,
		.tail_prev = 0xabcdef,
		.tail_group = 5,
		.mapped_blocks = 11,
		.places = 2,
	};
	cr_assert_eq(geometry_plan(4096, 2048, RING_BLOCKS, &super.geometry), 0);
	store_mem_init(&mem, blocks_to_bytes(super.geometry.store_blocks), 1, 0);
	mem.hook = note_io;
	worker_init(&worker, 0);
	flusher_init(&flusher, &mem.store, &lock, note_flush_death, &super);
	backing_init(&backing, &mem.store, note_backing, &super);
	cr_assert_eq(journal_init(&journal, &backing, &super, &flusher, &lock), 0);
	journal.on_durable = note_durable;
	journal.on_short = note_short;
	journal.failed = note_death;
	journal.pending_room = tell_room;
	journal.context = &super;
	room = 10000;
	for (unsigned i = 0; i < WAITERS; i++)
		wait_init(&waiters[i].wait, &worker, woken);
}

void start(void)
{
	start_at(TAIL);
}

void stop(void)
{
	journal_done(&journal);
	store_mem_done(&mem);
}

void kill_journal(int error)
{
	pthread_mutex_lock(&lock);
	journal_kill(&journal, error);
	pthread_mutex_unlock(&lock);
}

void restart_at(uint64_t tail_sequence)
{
	kill_journal(-EIO);
	while (worker_run(&worker))
		;
	stop();
	memset(waiters, 0, sizeof(waiters));
	memset(ops, 0, sizeof(ops));
	wakes = 0;
	start_at(tail_sequence);
}

/* --- driving --- */

bool step(void)
{
	return worker_run(&worker) || store_mem_deliver(&mem, 0);
}

void settle(void)
{
	while (step())
		;
	cr_assert_eq(store_mem_in_flight(&mem, 0), 0);
}

void deliver(void)
{
	while (worker_run(&worker))
		;
	cr_assert(store_mem_deliver(&mem, 0));
	while (worker_run(&worker))
		;
}

bool reserve(uint32_t records, struct waiter *waiter)
{
	bool reserved;

	pthread_mutex_lock(&lock);
	reserved = journal_reserve(&journal, records, &waiter->wait);
	pthread_mutex_unlock(&lock);
	return reserved;
}

void release(uint32_t unused_records, uint32_t records)
{
	pthread_mutex_lock(&lock);
	journal_release(&journal, unused_records, records);
	pthread_mutex_unlock(&lock);
}

uint64_t append(void)
{
	struct record record = {
		.kind = RECORD_MAP,
		.count = 1,
		.lbn = {journal_next_lsn(&journal)},
		.new = {super.geometry.data_start + 2},
	};
	uint64_t lsn;

	pthread_mutex_lock(&lock);
	lsn = journal_append(&journal, &record);
	pthread_mutex_unlock(&lock);
	return lsn;
}

uint64_t edit(uint32_t records)
{
	uint64_t lsn = 0;

	while (records > 0) {
		uint32_t batch = min_u32(records, JOURNAL_BATCH);

		cr_assert(reserve(batch, &waiters[WAITERS - 1]));
		for (uint32_t i = 0; i < batch; i++)
			lsn = append();
		release(0, batch);
		records -= batch;
	}
	return lsn;
}

void wait_for(uint64_t lsn, struct waiter *waiter)
{
	pthread_mutex_lock(&lock);
	journal_wait(&journal, lsn, &waiter->wait);
	pthread_mutex_unlock(&lock);
}

void kick(void)
{
	pthread_mutex_lock(&lock);
	journal_kick(&journal, &worker);
	pthread_mutex_unlock(&lock);
}

void set_tail(uint64_t tail_sequence, uint64_t checkpoint)
{
	pthread_mutex_lock(&lock);
	journal_set_tail(&journal, tail_sequence, checkpoint);
	pthread_mutex_unlock(&lock);
}

bool flush_follows(uint64_t lsn)
{
	return journal_flush_follows(&journal, lsn);
}

bool is_woken(const struct waiter *waiter, int res)
{
	while (worker_run(&worker))
		;
	return waiter->woken == 1 && waiter->res == res;
}

bool sleeps(const struct waiter *waiter)
{
	while (worker_run(&worker))
		;
	return waiter->woken == 0;
}

struct journal_header header_at(uint64_t sequence, uint8_t *block, uint64_t *ret_checksum)
{
	struct journal_header header;
	struct why why;

	store_mem_peek(
		&mem,
		blocks_to_bytes(super.geometry.ring_start + sequence % super.geometry.ring_blocks),
		block, BLOCK_BYTES);
	cr_assert(journal_verify(block, super.uuid, &header, ret_checksum, &why), "%s, not %s",
		  why.found, why.expected);
	return header;
}

unsigned expect_chain(void)
{
	uint64_t lsn = super.tail_lsn, prev = super.tail_prev, checksum;
	unsigned groups = 0;
	uint8_t block[BLOCK_BYTES];
	struct record record;
	struct why why;

	for (uint64_t s = super.tail_sequence; s < journal.sequence; s++) {
		struct journal_header header = header_at(s, block, &checksum);

		cr_assert_eq(header.epoch, super.epoch);
		cr_assert_eq(header.sequence, s);
		cr_assert_eq(header.first_lsn, lsn);
		cr_assert_eq(header.prev, prev);
		cr_assert_eq(header.group, super.tail_group + groups);
		cr_assert(header.count == JOURNAL_RECORDS || header.last);
		for (uint32_t i = 0; i < header.count; i++) {
			cr_assert(record_get(block, i, &super.geometry, &record, &why));
			cr_assert_eq(record.lbn.v, lsn + i);
		}
		lsn += header.count;
		prev = checksum;
		groups += header.last;
	}
	cr_assert_eq(lsn, journal_durable_lsn(&journal) + 1);
	return groups;
}

/* Commits of one edit until no more fit. Returns how many. */
unsigned fill_ring(struct waiter *waiter)
{
	unsigned commits = 0;

	while (reserve(1, waiter)) {
		append();
		release(0, 1);
		kick();
		settle();
		cr_assert(++commits <= RING_BLOCKS);
	}
	return commits;
}
