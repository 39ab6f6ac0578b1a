/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * journal_bed - a journal and a flusher on a disk in memory; the test is the volume
 *
 * Each I/O is noted as it is submitted (F a flush, W a write), and is delivered when the test says
 * so. Record n of the log is a MAP of logical block n, so that what lies in the ring can be
 * recognised.
 */
#ifndef TESTS_CORE_METADATA_JOURNAL_BED_H
#define TESTS_CORE_METADATA_JOURNAL_BED_H

#include <stdbool.h>
#include <stdint.h>

#include "core/metadata/journal.h"
#include "tests/lib/store_mem.h"

#define RING_BLOCKS 32u
#define GROUP_MAX   (RING_BLOCKS / 4 * JOURNAL_RECORDS) /* records */
#define TAIL	    (5ull * RING_BLOCKS) /* sequence at which the ring begins anew */
#define WAITERS	    64u

struct waiter {
	struct wait wait;
	unsigned woken; /* how many times */
	unsigned order; /* the first to be woken has 1 */
	int res;
};

extern struct store_mem mem;
extern struct worker worker;
extern struct super super;
extern struct flusher flusher;
extern struct journal journal;
extern pthread_mutex_t lock;
extern struct waiter waiters[WAITERS];
extern char ops[4096];
extern int fail_flush, fail_write;
extern unsigned wakes, shorts, durables, deaths, flush_deaths;
extern int death;
extern uint32_t room;

void start_at(uint64_t tail_sequence);
void start(void);
void stop(void);
void kill_journal(int error);
/* Another one, as if nothing had been. */
void restart_at(uint64_t tail_sequence);
bool step(void);
void settle(void);
/* Delivers one I/O, and runs what that made ready. */
void deliver(void);
bool reserve(uint32_t records, struct waiter *waiter);
void release(uint32_t unused_records, uint32_t records);
uint64_t append(void);
/* As many edits, in batches as requests make them. Returns the last one's LSN. */
uint64_t edit(uint32_t records);
void wait_for(uint64_t lsn, struct waiter *waiter);
void kick(void);
void set_tail(uint64_t tail_sequence, uint64_t checkpoint);
bool flush_follows(uint64_t lsn);
bool is_woken(const struct waiter *waiter, int res);
bool sleeps(const struct waiter *waiter);
struct journal_header header_at(uint64_t sequence, uint8_t *block, uint64_t *ret_checksum);
/* The log in the ring, from the superblock's tail to where the journal is: a chain without a gap.
 * Returns the groups. */
unsigned expect_chain(void);
/* Commits of one edit until no more fit. Returns how many. */
unsigned fill_ring(struct waiter *waiter);

#endif
