/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * engine - a volume on a disk in memory, driven by one thread, for tests
 *
 * An engine is a store_mem, workers and an open volume. A test submits ops and drives them: one I/O
 * at a time (engine_step), until one is answered (engine_finish), or to the end (engine_settle).
 * The helpers in a few words (engine_write, engine_same, ...) submit one and drive it to its
 * answer; what else is in flight moves on meanwhile, but for what the test holds back.
 *
 * Blocks are filled with a *pattern*: each 8 bytes hold pattern number and place in the block, so
 * that two blocks of one pattern are equal and two of different ones differ everywhere. Pattern 0
 * is zeros.
 *
 * Errors    whatever an engine cannot do is asserted, so that a test stops there. A helper that
 *           answers for a request returns its result.
 * Threads   one, for all lanes.
 */
#ifndef TESTS_LIB_ENGINE_H
#define TESTS_LIB_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/request/request.h"
#include "core/request/same_job.h"
#include "core/volume/volume.h"
#include "tests/lib/store_mem.h"

#define ENGINE_RUNS_MAX 4096u
#define ENGINE_LOG_MAX	8192u

struct engine_options {
	uint64_t logical_bytes; /* 0: 8 MiB */
	uint64_t store_bytes; /* 0: a block for each of the volume */
	uint32_t ring_blocks; /* 0: 32 */
	unsigned lane_count; /* 0: 1 */
	uint64_t seed;
	bool cached; /* the store has a volatile cache */
	bool tracking; /* changes are tracked */
	struct volume_options volume;
};

struct engine {
	struct store_mem mem;
	struct worker workers[MEM_LANES_MAX];
	unsigned worker_count;
	struct engine_options options;
	struct volume *volume;
	struct damage damage;
	uint8_t *scratch; /* of the helpers */
	char log[ENGINE_LOG_MAX];
};

/* One request and what came of it. */
struct op {
	struct engine *engine;
	struct request request;
	bool done;
	int res;
};

/* A formatted store, opened. */
void engine_init(struct engine *engine, const struct engine_options *options);
/* Closes cleanly, if it is open, and frees. */
void engine_done(struct engine *engine);

int engine_open(struct engine *engine);
int engine_close(struct engine *engine);
/* Clean: closed and opened again. */
void engine_reopen(struct engine *engine);
/* The process is killed: all that the store was given and had not yet performed never happens.
 * Closed afterwards. */
void engine_kill(struct engine *engine);
/* A power cut (cached): what survives() of what was not flushed. Closed afterwards. */
void engine_cut(struct engine *engine, bool (*survives)(void *context, uint64_t off_bytes),
		void *context);

/* Runs tasks, or delivers one I/O. False: there was neither. */
bool engine_step(struct engine *engine);
/* Until nothing moves any more. */
void engine_settle(struct engine *engine);
/* Runs the tasks that are ready; delivers nothing. */
void engine_run_tasks(struct engine *engine);

/* Submits on a worker. op->request's op, offsets, data, fua, no_hole, cancel are set; data has to
 * stay. */
void op_submit(struct engine *engine, struct op *op, unsigned worker);
/* Drives until it is answered; asserts that it can be. Frees what it took. */
int op_finish(struct op *op);
/* Drives as far as it goes. Whether it was answered; if so op_finish() is still to be called. */
bool op_is_stuck(struct op *op);

/* Ready-made ops, submitted on worker 0. */
void op_write(struct engine *engine, struct op *op, uint64_t off_bytes, uint64_t len_bytes,
	      void *data);
void op_same(struct engine *engine, struct op *op, uint64_t src_off_bytes, uint64_t len_bytes,
	     uint64_t dst_off_bytes);

/* Blocks, driven to the answer. */
int engine_write(struct engine *engine, uint64_t block, uint64_t blocks, uint32_t pattern);
int engine_write_bytes(struct engine *engine, uint64_t off_bytes, uint64_t len_bytes,
		       const void *data, bool fua);
int engine_read_bytes(struct engine *engine, uint64_t off_bytes, uint64_t len_bytes, void *data);
/* Whether the blocks read as the pattern. */
bool engine_holds(struct engine *engine, uint64_t block, uint64_t blocks, uint32_t pattern);
int engine_zero(struct engine *engine, uint64_t block, uint64_t blocks);
int engine_discard(struct engine *engine, uint64_t block, uint64_t blocks);
int engine_flush(struct engine *engine);
int engine_clone(struct engine *engine, uint64_t src_block, uint64_t blocks, uint64_t dst_block);
/* src_block: or ENGINE_ZERO. */
#define ENGINE_ZERO UINT64_MAX
int engine_same(struct engine *engine, uint64_t src_block, uint64_t blocks, uint64_t dst_block,
		struct same_result *ret_result);
/* The block's references, and where it is; 0: a hole. */
uint32_t engine_references(struct engine *engine, uint64_t block, pbn_t *ret_pbn);
struct volume_stats engine_stats(struct engine *engine);
/* A checkpoint from beginning to end. */
void engine_checkpoint(struct engine *engine);
/* Drives the job to its answer. src, len and dsts are set; the rest is filled in. */
int engine_job(struct engine *engine, struct same_job *job);

void pattern_fill(uint32_t pattern, uint64_t blocks, void *buf);
bool pattern_is(uint32_t pattern, uint64_t blocks, const void *buf);

#endif
