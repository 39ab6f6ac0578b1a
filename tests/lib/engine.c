/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/lib/engine.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- patterns --- */

static uint64_t pattern_word(uint32_t pattern, uint32_t place)
{
	return pattern ? (uint64_t)pattern << 32 | place : 0;
}

void pattern_fill(uint32_t pattern, uint64_t blocks, void *buf)
{
	uint64_t *words = buf;

	for (uint64_t i = 0; i < blocks * BLOCK_BYTES / 8; i++)
		words[i] = pattern_word(pattern, i % (BLOCK_BYTES / 8));
}

bool pattern_is(uint32_t pattern, uint64_t blocks, const void *buf)
{
	const uint64_t *words = buf;

	for (uint64_t i = 0; i < blocks * BLOCK_BYTES / 8; i++)
		if (words[i] != pattern_word(pattern, i % (BLOCK_BYTES / 8)))
			return false;
	return true;
}

/* --- opening and closing --- */

static void keep_log(void *context, const char *text)
{
	struct engine *engine = context;
	size_t used = strlen(engine->log);

	snprintf(engine->log + used, sizeof(engine->log) - used, "%s\n", text);
}

static void format(struct engine *engine)
{
	struct volume_format_options format = {
		.logical_bytes = engine->options.logical_bytes,
		.ring_blocks = engine->options.ring_blocks,
		.tracking = engine->options.tracking,
		.uuid = "sixteen octets..",
	};
	int r = volume_format(&engine->mem.store, &format, &engine->damage);

	assert(r == 0);
}

void engine_init(struct engine *engine, const struct engine_options *options)
{
	struct engine_options o = options ? *options : (struct engine_options){0};

	memset(engine, 0, sizeof(*engine));
	o.logical_bytes = o.logical_bytes ? o.logical_bytes : 8ull << 20;
	o.ring_blocks = o.ring_blocks ? o.ring_blocks : 32;
	o.lane_count = o.lane_count ? o.lane_count : 1;
	o.volume.cache_bytes = o.volume.cache_bytes ? o.volume.cache_bytes : 1;
	if (o.store_bytes == 0)
		o.store_bytes = volume_store_bytes_for(o.logical_bytes, o.ring_blocks);
	engine->options = o;
	engine->worker_count = o.lane_count;
	engine->scratch = aligned_alloc(BLOCK_BYTES, SAME_SCRATCH_BYTES);
	assert(engine->scratch);
	store_mem_init(&engine->mem, o.store_bytes, o.lane_count, o.seed);
	format(engine);
	if (o.cached)
		store_mem_cache(&engine->mem);
	if (engine_open(engine) < 0) {
		fprintf(stderr, "engine: %s\n", engine->damage.text);
		assert(false);
	}
}

int engine_open(struct engine *engine)
{
	struct volume_options options = engine->options.volume;
	struct worker *workers[MEM_LANES_MAX];
	int r;

	assert(engine->volume == NULL);
	if (options.log == NULL) {
		options.log = keep_log;
		options.log_context = engine;
	}
	for (unsigned i = 0; i < engine->worker_count; i++) {
		worker_init(&engine->workers[i], i);
		workers[i] = &engine->workers[i];
	}
	r = volume_open(&engine->mem.store, &options, workers, engine->worker_count,
			&engine->volume, &engine->damage);
	if (r < 0)
		engine->volume = NULL;
	return r;
}

int engine_close(struct engine *engine)
{
	int r;

	engine_settle(engine);
	r = volume_close(engine->volume);
	engine->volume = NULL;
	for (unsigned i = 0; i < engine->worker_count; i++)
		worker_done(&engine->workers[i]);
	return r;
}

void engine_reopen(struct engine *engine)
{
	int r = engine_close(engine);

	assert(r == 0);
	r = engine_open(engine);
	if (r < 0)
		fprintf(stderr, "engine: %s\n", engine->damage.text);
	assert(r == 0);
}

void engine_kill(struct engine *engine)
{
	store_mem_kill(&engine->mem);
	volume_abandon(engine->volume);
	engine->volume = NULL;
}

void engine_cut(struct engine *engine, bool (*survives)(void *context, uint64_t off_bytes),
		void *context)
{
	store_mem_cut(&engine->mem, survives, context);
	volume_abandon(engine->volume);
	engine->volume = NULL;
}

void engine_done(struct engine *engine)
{
	if (engine->volume)
		engine_close(engine);
	store_mem_done(&engine->mem);
	free(engine->scratch);
}

/* --- driving --- */

void engine_run_tasks(struct engine *engine)
{
	bool ran = true;

	while (ran) {
		ran = false;
		for (unsigned i = 0; i < engine->worker_count; i++)
			ran = worker_run(&engine->workers[i]) || ran;
	}
}

bool engine_step(struct engine *engine)
{
	bool moved = false;

	for (unsigned i = 0; i < engine->worker_count; i++)
		moved = worker_run(&engine->workers[i]) || moved;
	for (unsigned i = 0; !moved && i < engine->worker_count; i++)
		moved = store_mem_deliver(&engine->mem, i);
	return moved;
}

void engine_settle(struct engine *engine)
{
	while (engine_step(engine))
		;
}

static void answered(struct request *request, int res)
{
	struct op *op = request->context;

	assert(!op->done);
	op->done = true;
	op->res = res;
}

void op_submit(struct engine *engine, struct op *op, unsigned worker)
{
	bool same = op->request.op == REQUEST_SAME;

	op->engine = engine;
	op->done = false;
	op->request.scratch = aligned_alloc(BLOCK_BYTES, same ? SAME_SCRATCH_BYTES : SCRATCH_BYTES);
	assert(op->request.scratch);
	op->request.volume = engine->volume;
	op->request.worker = &engine->workers[worker];
	op->request.done = answered;
	op->request.context = op;
	request_submit(&op->request);
}

bool op_is_stuck(struct op *op)
{
	while (!op->done && engine_step(op->engine))
		;
	return !op->done;
}

int op_finish(struct op *op)
{
	bool stuck = op_is_stuck(op);

	assert(!stuck); /* nothing moves, and it is not answered */
	free(op->request.scratch);
	op->request.scratch = NULL;
	return op->res;
}

/* --- ops in a few words --- */

void op_write(struct engine *engine, struct op *op, uint64_t off_bytes, uint64_t len_bytes,
	      void *data)
{
	*op = (struct op){.request = {.op = REQUEST_WRITE,
				      .off_bytes = off_bytes,
				      .len_bytes = len_bytes,
				      .data = data}};
	op_submit(engine, op, 0);
}

void op_same(struct engine *engine, struct op *op, uint64_t src_off_bytes, uint64_t len_bytes,
	     uint64_t dst_off_bytes)
{
	*op = (struct op){.request = {.op = REQUEST_SAME,
				      .off_bytes = dst_off_bytes,
				      .len_bytes = len_bytes,
				      .src_off_bytes = src_off_bytes}};
	op_submit(engine, op, 0);
}

static int run(struct engine *engine, struct op *op)
{
	op_submit(engine, op, 0);
	return op_finish(op);
}

int engine_write_bytes(struct engine *engine, uint64_t off_bytes, uint64_t len_bytes,
		       const void *data, bool fua)
{
	uint8_t *copy = malloc(len_bytes);
	struct op op = {.request = {.op = REQUEST_WRITE,
				    .fua = fua,
				    .off_bytes = off_bytes,
				    .len_bytes = len_bytes,
				    .data = copy}};
	int r;

	assert(copy);
	memcpy(copy, data, len_bytes);
	r = run(engine, &op);
	free(copy);
	return r;
}

int engine_write(struct engine *engine, uint64_t block, uint64_t blocks, uint32_t pattern)
{
	uint8_t *buf = malloc(blocks * BLOCK_BYTES);
	int r;

	assert(buf);
	pattern_fill(pattern, blocks, buf);
	r = engine_write_bytes(engine, block * BLOCK_BYTES, blocks * BLOCK_BYTES, buf, false);
	free(buf);
	return r;
}

int engine_read_bytes(struct engine *engine, uint64_t off_bytes, uint64_t len_bytes, void *data)
{
	struct op op = {.request = {.op = REQUEST_READ,
				    .off_bytes = off_bytes,
				    .len_bytes = len_bytes,
				    .data = data}};

	return run(engine, &op);
}

bool engine_holds(struct engine *engine, uint64_t block, uint64_t blocks, uint32_t pattern)
{
	uint8_t *buf = malloc(blocks * BLOCK_BYTES);
	bool holds;
	int r;

	assert(buf);
	memset(buf, 0x77, blocks * BLOCK_BYTES);
	r = engine_read_bytes(engine, block * BLOCK_BYTES, blocks * BLOCK_BYTES, buf);
	holds = r == 0 && pattern_is(pattern, blocks, buf);
	free(buf);
	return holds;
}

static int run_range(struct engine *engine, enum request_op what, uint64_t block, uint64_t blocks,
		     uint64_t src_off_bytes, struct same_result *ret_result)
{
	struct op op = {.request = {.op = what,
				    .off_bytes = block * BLOCK_BYTES,
				    .len_bytes = blocks * BLOCK_BYTES,
				    .src_off_bytes = src_off_bytes}};
	int r = run(engine, &op);

	if (ret_result)
		*ret_result = op.request.same;
	return r;
}

int engine_zero(struct engine *engine, uint64_t block, uint64_t blocks)
{
	return run_range(engine, REQUEST_ZERO, block, blocks, 0, NULL);
}

int engine_discard(struct engine *engine, uint64_t block, uint64_t blocks)
{
	return run_range(engine, REQUEST_DISCARD, block, blocks, 0, NULL);
}

int engine_flush(struct engine *engine)
{
	return run_range(engine, REQUEST_FLUSH, 0, 0, 0, NULL);
}

int engine_clone(struct engine *engine, uint64_t src_block, uint64_t blocks, uint64_t dst_block)
{
	return run_range(engine, REQUEST_CLONE, dst_block, blocks, src_block * BLOCK_BYTES, NULL);
}

int engine_same(struct engine *engine, uint64_t src_block, uint64_t blocks, uint64_t dst_block,
		struct same_result *ret_result)
{
	uint64_t src = src_block == ENGINE_ZERO ? SAME_SRC_ZERO : src_block * BLOCK_BYTES;

	return run_range(engine, REQUEST_SAME, dst_block, blocks, src, ret_result);
}

uint32_t engine_references(struct engine *engine, uint64_t block, pbn_t *ret_pbn)
{
	struct map_run map_run;
	struct op op = {.request = {.op = REQUEST_MAP,
				    .off_bytes = block * BLOCK_BYTES,
				    .len_bytes = BLOCK_BYTES,
				    .runs = &map_run,
				    .runs_max = 1}};
	int r = run(engine, &op);

	assert(r == 0 && op.request.runs_count == 1);
	if (ret_pbn)
		*ret_pbn = map_run.pbn;
	return map_run.references;
}

struct volume_stats engine_stats(struct engine *engine)
{
	struct volume_stats stats;

	volume_stats(engine->volume, &stats);
	return stats;
}

void engine_checkpoint(struct engine *engine)
{
	volume_checkpoint(engine->volume, &engine->workers[0]);
	engine_settle(engine);
}

struct job_end {
	bool done;
	int res;
};

static void job_answered(struct same_job *job, int res)
{
	struct job_end *end = job->context;

	assert(!end->done);
	*end = (struct job_end){true, res};
}

int engine_job(struct engine *engine, struct same_job *job)
{
	struct job_end end = {0};

	job->scratch = engine->scratch;
	job->volume = engine->volume;
	job->worker = &engine->workers[0];
	job->done = job_answered;
	job->context = &end;
	same_job_submit(job);
	while (!end.done && engine_step(engine))
		;
	assert(end.done);
	return end.res;
}
