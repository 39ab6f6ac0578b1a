/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_threads - four workers on one volume: each block is a register, and every read returns what
 * it may
 *
 *     test_threads [--seconds N] [--seed N] [--tap]
 *
 * Each worker keeps many requests in flight on the same few blocks, which lie on both sides of a
 * region's border and in a third region: writes, zeroes, discards, reads, flushes, merges and
 * clones. Rounds are short. At a round's end everything is read back, and the history of each block
 * is judged (see history.h). Besides, each worker has blocks of its own in the same regions, where
 * it writes any number of bytes anywhere and knows exactly what must be there.
 *
 * An executable without criterion, so that ThreadSanitizer sees threads and nothing else. The
 * output is TAP, with the seed.
 */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/core/volume/history.h"
#include "tests/lib/engine.h"

#define WORKERS	      4u
#define IN_FLIGHT     12u
#define ROUND_OPS     600u /* of each worker */
#define RANGE_MAX     24u
#define OWN_BLOCKS    8u
#define SAME_VALUES   3u /* writes choose from these often, so that merges find equals */
#define BORDER_FIRST  (REGION_BLOCKS - HISTORY_BLOCKS / 4)
#define THIRD_FIRST   (5 * REGION_BLOCKS + 100)
#define OWN_FIRST     (REGION_BLOCKS + 200)
#define STREAM_BLOCKS 16u /* written at a time */
#define STREAM_STEPS  (REGION_BLOCKS / STREAM_BLOCKS)

struct client {
	struct rng rng;
	struct engine *engine;
	unsigned number;
	uint32_t issued;
	uint32_t in_flight;
	struct slot {
		struct client *client;
		struct request request;
		bool busy;
		uint8_t *data;
		uint8_t *scratch;
		struct map_run runs[64];
		uint32_t first; /* in the history */
		uint32_t src;
		uint32_t blocks;
		uint32_t own; /* own block + 1, or 0 */
		bool stream;
		uint32_t values[RANGE_MAX];
		uint64_t began;
	} slots[IN_FLIGHT];
	struct history history;
	uint8_t own[OWN_BLOCKS][BLOCK_BYTES];
	bool own_busy[OWN_BLOCKS];
	/* A region of its own, filled in order and emptied again, so that it is LINEAR. */
	bool stream_busy;
	uint32_t stream_step;
	uint32_t stream_values[STREAM_STEPS];
	uint32_t next_value;
	uint32_t failures;
	uint64_t merged;
};

static struct engine engine;
static struct client clients[WORKERS];
static _Atomic uint64_t now = 1;
static _Atomic unsigned clients_done;

static uint64_t tick(void)
{
	return atomic_fetch_add(&now, 1);
}

/* History blocks: a half around the border of regions 0 and 1, a half in region 5. */
static uint64_t block_of(uint32_t i)
{
	if (i < HISTORY_BLOCKS / 2)
		return BORDER_FIRST + i;
	return THIRD_FIRST + i - HISTORY_BLOCKS / 2;
}

/* A range that stays within one half. */
static uint32_t choose_range(struct client *client, struct slot *slot, uint32_t max)
{
	uint32_t half = rng_below(&client->rng, 2) * (HISTORY_BLOCKS / 2), first;

	slot->blocks = 1 + (rng_once_in(&client->rng, 2) ? rng_below(&client->rng, max) : 0);
	first = rng_below(&client->rng, HISTORY_BLOCKS / 2 - slot->blocks + 1);
	return half + first;
}

static uint32_t choose_value(struct client *client)
{
	if (rng_once_in(&client->rng, 2))
		return 1 + rng_below(&client->rng, SAME_VALUES);
	client->next_value += WORKERS;
	return client->next_value;
}

/* --- the ends of requests --- */

static void fail(struct client *client, const char *what, int res)
{
	client->failures++;
	printf("# worker %u: %s: %s\n", client->number, what, strerror(-res));
}

static void record_reads(struct slot *slot, uint64_t ended)
{
	for (uint32_t i = 0; i < slot->blocks; i++) {
		const uint8_t *at = slot->data + (size_t)i * BLOCK_BYTES;
		uint32_t value = (uint32_t)(((const uint64_t *)at)[0] >> 32);

		if (!pattern_is(value, 1, at))
			value = HISTORY_GARBAGE;
		history_read(&slot->client->history, slot->first + i, value, slot->began, ended);
	}
}

static void check_own(struct slot *slot)
{
	struct client *client = slot->client;
	uint32_t own = slot->own - 1;

	client->own_busy[own] = false;
	if (slot->request.op == REQUEST_READ &&
	    memcmp(slot->data, client->own[own], BLOCK_BYTES) != 0)
		fail(client, "its own block holds what it did not write", -EIO);
}

static void check_stream(struct slot *slot)
{
	struct client *client = slot->client;
	uint32_t step =
		(uint32_t)(slot->request.off_bytes % REGION_BYTES / (STREAM_BLOCKS * BLOCK_BYTES));

	client->stream_busy = false;
	if (slot->request.op == REQUEST_READ &&
	    !pattern_is(client->stream_values[step], 1, slot->data))
		fail(client, "its stream holds what it did not write", -EIO);
}

static void answered(struct request *request, int res)
{
	struct slot *slot = request->context;
	struct client *client = slot->client;
	uint64_t ended = tick();

	if (res < 0)
		fail(client, "a request failed", res);
	else if (slot->stream)
		check_stream(slot);
	else if (slot->own)
		check_own(slot);
	else if (request->op == REQUEST_READ)
		record_reads(slot, ended);
	else if (request->op == REQUEST_CLONE)
		for (uint32_t i = 0; i < slot->blocks; i++)
			history_clone(&client->history, slot->first + i, slot->src + i, slot->began,
				      ended);
	else if (request->op == REQUEST_WRITE || request->op == REQUEST_ZERO ||
		 request->op == REQUEST_DISCARD)
		for (uint32_t i = 0; i < slot->blocks; i++)
			history_write(&client->history, slot->first + i, slot->values[i],
				      slot->began, ended);
	if (request->op == REQUEST_SAME)
		client->merged += request->same.freed_bytes;
	slot->busy = false;
	client->in_flight--;
}

/* --- their beginnings --- */

static void begin_own(struct client *client, struct slot *slot)
{
	uint32_t own = rng_below(&client->rng, OWN_BLOCKS), off, len;
	uint64_t block = OWN_FIRST + (uint64_t)own * WORKERS + client->number;
	struct request *request = &slot->request;

	if (client->own_busy[own]) { /* a flush instead */
		request->op = REQUEST_FLUSH;
		return;
	}
	client->own_busy[own] = true;
	slot->own = own + 1;
	request->data = slot->data;
	request->off_bytes = block * BLOCK_BYTES;
	request->len_bytes = BLOCK_BYTES;
	if (rng_once_in(&client->rng, 3)) {
		request->op = REQUEST_READ;
		return;
	}
	off = rng_below(&client->rng, BLOCK_BYTES);
	len = 1 + rng_below(&client->rng, BLOCK_BYTES - off);
	request->op = rng_once_in(&client->rng, 4) ? REQUEST_ZERO : REQUEST_WRITE;
	memset(slot->data, (int)rng_below(&client->rng, 256), len);
	request->off_bytes += off;
	request->len_bytes = len;
	if (request->op == REQUEST_WRITE) {
		memcpy(client->own[own] + off, slot->data, len);
		return;
	}
	request->data = NULL;
	memset(client->own[own] + off, 0, len);
}

/* Appends, overwrites in place, reads or empties. */
static void begin_stream(struct client *client, struct slot *slot)
{
	static const uint32_t regions[WORKERS] = {2, 3, 4, 6};
	struct request *request = &slot->request;
	uint32_t step = client->stream_step, what = rng_below(&client->rng, 4);

	if (client->stream_busy) {
		request->op = REQUEST_FLUSH;
		return;
	}
	client->stream_busy = true;
	slot->stream = true;
	request->op = REQUEST_WRITE;
	request->fua = rng_once_in(&client->rng, 2);
	if (step == STREAM_STEPS) {
		request->op = REQUEST_DISCARD;
		client->stream_step = 0;
		memset(client->stream_values, 0, sizeof(client->stream_values));
		step = 0;
	} else if (what < 2 || step == 0) {
		client->stream_step++;
	} else {
		step = rng_below(&client->rng, step);
		request->op = what == 2 ? REQUEST_WRITE : REQUEST_READ;
	}
	request->off_bytes = regions[client->number] * REGION_BYTES +
			     (uint64_t)step * STREAM_BLOCKS * BLOCK_BYTES;
	request->len_bytes = STREAM_BLOCKS * BLOCK_BYTES;
	if (request->op == REQUEST_DISCARD) {
		request->len_bytes = REGION_BYTES;
		request->data = NULL;
	} else if (request->op == REQUEST_WRITE) {
		client->stream_values[step] = choose_value(client);
		pattern_fill(client->stream_values[step], STREAM_BLOCKS, slot->data);
	}
}

static void begin_change(struct client *client, struct slot *slot)
{
	struct request *request = &slot->request;
	uint32_t what = rng_below(&client->rng, 8);

	request->op = what < 6 ? REQUEST_WRITE : what == 6 ? REQUEST_DISCARD : REQUEST_ZERO;
	request->fua = rng_once_in(&client->rng, 20);
	request->no_hole = rng_once_in(&client->rng, 3);
	if (request->op != REQUEST_WRITE)
		request->data = NULL;
	for (uint32_t i = 0; i < slot->blocks; i++) {
		slot->values[i] = request->op == REQUEST_WRITE ? choose_value(client) : 0;
		if (request->op == REQUEST_WRITE)
			pattern_fill(slot->values[i], 1, slot->data + (size_t)i * BLOCK_BYTES);
	}
}

/* One of two ranges that do not overlap: the source, in the other half or the same. */
static bool choose_source(struct client *client, struct slot *slot)
{
	uint32_t half = rng_below(&client->rng, 2) * (HISTORY_BLOCKS / 2);

	slot->src = half + rng_below(&client->rng, HISTORY_BLOCKS / 2 - slot->blocks + 1);
	slot->request.src_off_bytes = block_of(slot->src) * BLOCK_BYTES;
	return slot->src + slot->blocks <= slot->first || slot->first + slot->blocks <= slot->src;
}

static void choose_op(struct client *client, struct slot *slot)
{
	struct request *request = &slot->request;
	uint32_t what = rng_below(&client->rng, 100);

	slot->first = choose_range(client, slot, RANGE_MAX);
	request->off_bytes = block_of(slot->first) * BLOCK_BYTES;
	request->len_bytes = (uint64_t)slot->blocks * BLOCK_BYTES;
	request->data = slot->data;
	request->op = REQUEST_READ;
	if (what < 30) {
		begin_change(client, slot);
	} else if (what < 60 && choose_source(client, slot)) {
		request->op = what < 50 ? REQUEST_SAME : REQUEST_CLONE;
	} else if (what < 65) {
		request->op = REQUEST_FLUSH;
	} else if (what < 68) {
		request->op = what < 67 ? REQUEST_MAP : REQUEST_CHANGES;
		request->runs = slot->runs;
		request->runs_max = 64;
	} else if (what < 78) {
		begin_own(client, slot);
	} else if (what < 86) {
		begin_stream(client, slot);
	}
}

static void begin(struct client *client, struct slot *slot)
{
	slot->request = (struct request){
		.scratch = slot->scratch,
		.volume = client->engine->volume,
		.worker = &client->engine->workers[client->number],
		.done = answered,
		.context = slot,
	};
	slot->own = 0;
	slot->stream = false;
	choose_op(client, slot);
	slot->busy = true;
	client->in_flight++;
	client->issued++;
	slot->began = tick();
	request_submit(&slot->request);
}

/* --- a round --- */

static void housekeeping(struct client *client)
{
	struct worker *worker = &client->engine->workers[client->number];
	struct volume_stats stats;

	if (rng_once_in(&client->rng, 80))
		volume_checkpoint(client->engine->volume, worker);
	if (rng_once_in(&client->rng, 100))
		volume_tick(client->engine->volume, worker);
	if (rng_once_in(&client->rng, 200))
		volume_stats(client->engine->volume, &stats);
}

/* Runs the worker until all clients have all their answers and nothing is under way. */
static void *run(void *context)
{
	struct client *client = context;
	bool done = false;

	while (atomic_load(&clients_done) < WORKERS || !volume_is_idle(client->engine->volume)) {
		bool moved = worker_run(&client->engine->workers[client->number]);
		struct slot *slot = &client->slots[rng_below(&client->rng, IN_FLIGHT)];

		if (client->issued < ROUND_OPS && !slot->busy) {
			begin(client, slot);
			moved = true;
			housekeeping(client);
		}
		if (rng_once_in(&client->rng, 2))
			moved = store_mem_deliver(&client->engine->mem, client->number) || moved;
		if (!done && client->issued == ROUND_OPS && client->in_flight == 0) {
			done = true;
			atomic_fetch_add(&clients_done, 1);
		}
		if (!moved)
			sched_yield();
	}
	return NULL;
}

/* Reads every block once, alone. */
static void read_back(struct client *client)
{
	uint8_t *buf = malloc(BLOCK_BYTES);

	assert(buf);
	for (uint32_t i = 0; i < HISTORY_BLOCKS; i++) {
		uint64_t began = tick();
		uint32_t value;
		int r = engine_read_bytes(&engine, block_of(i) * BLOCK_BYTES, BLOCK_BYTES, buf);

		value = (uint32_t)(((uint64_t *)(void *)buf)[0] >> 32);
		if (r < 0 || !pattern_is(value, 1, buf))
			value = HISTORY_GARBAGE;
		history_read(&client->history, i, value, began, tick());
	}
	for (unsigned c = 0; c < WORKERS; c++)
		for (uint32_t own = 0; own < OWN_BLOCKS; own++) {
			uint64_t block = OWN_FIRST + (uint64_t)own * WORKERS + c;
			int r = engine_read_bytes(&engine, block * BLOCK_BYTES, BLOCK_BYTES, buf);

			if (r < 0 || memcmp(buf, clients[c].own[own], BLOCK_BYTES) != 0)
				fail(&clients[c], "its own block, read back", -EIO);
		}
	free(buf);
}

static uint32_t judge(struct history *all)
{
	uint32_t bad = 0;

	for (unsigned i = 0; i < WORKERS; i++)
		history_move(all, &clients[i].history);
	bad = history_judge(all);
	return bad;
}

/* What the store's counters say must fit together. */
static uint32_t recount(void)
{
	struct volume_stats stats = engine_stats(&engine);
	uint64_t mapped = 0, shared = 0;

	for (uint64_t block = 0; block < engine.options.logical_bytes / BLOCK_BYTES; block++) {
		uint32_t references = engine_references(&engine, block, NULL);

		mapped += references > 0 ? BLOCK_BYTES : 0;
		shared += references > 1 ? BLOCK_BYTES : 0;
	}
	if (mapped == stats.mapped_bytes && shared == stats.shared_bytes)
		return 0;
	printf("# mapped %lu, counted %lu; shared %lu, counted %lu\n", stats.mapped_bytes, mapped,
	       stats.shared_bytes, shared);
	return 1;
}

static uint32_t do_round(struct history *all, uint64_t seed)
{
	pthread_t threads[WORKERS];
	uint32_t bad = 0;

	atomic_store(&clients_done, 0);
	for (unsigned i = 0; i < WORKERS; i++) {
		clients[i].rng = rng_for(seed, i + 1);
		clients[i].issued = 0;
		pthread_create(&threads[i], NULL, run, &clients[i]);
	}
	for (unsigned i = 0; i < WORKERS; i++)
		pthread_join(threads[i], NULL);
	read_back(&clients[0]);
	bad = judge(all);
	for (unsigned i = 0; i < WORKERS; i++)
		bad += clients[i].failures;
	return bad + recount();
}

static void prepare(uint64_t seed)
{
	engine_init(&engine, &(struct engine_options){
				     .logical_bytes = 16ull << 20,
				     .store_bytes = 32ull << 20,
				     .ring_blocks = 160,
				     .lane_count = WORKERS,
				     .seed = seed,
				     .tracking = true,
				     .volume = {.discard = true, .tracking_rest_ticks = 1}});
	engine.mem.order = MEM_ORDER_RANDOM;
	for (unsigned i = 0; i < WORKERS; i++) {
		clients[i].engine = &engine;
		clients[i].number = i;
		clients[i].next_value = 100 + i;
		for (unsigned k = 0; k < IN_FLIGHT; k++) {
			struct slot *slot = &clients[i].slots[k];

			slot->client = &clients[i];
			slot->data = aligned_alloc(BLOCK_BYTES, (size_t)RANGE_MAX * BLOCK_BYTES);
			slot->scratch = aligned_alloc(BLOCK_BYTES, SAME_SCRATCH_BYTES);
			assert(slot->data && slot->scratch);
		}
	}
}

static void release(void)
{
	for (unsigned i = 0; i < WORKERS; i++)
		for (unsigned k = 0; k < IN_FLIGHT; k++) {
			free(clients[i].slots[k].data);
			free(clients[i].slots[k].scratch);
		}
	engine_done(&engine);
}

static uint64_t argument(int argc, char **argv, const char *name, uint64_t otherwise)
{
	for (int i = 1; i + 1 < argc; i++)
		if (strcmp(argv[i], name) == 0)
			return strtoull(argv[i + 1], NULL, 0);
	return otherwise;
}

int main(int argc, char **argv)
{
	uint64_t seed = argument(argc, argv, "--seed", 1);
	time_t end = time(NULL) + (time_t)argument(argc, argv, "--seconds", 5);
	static struct history all;
	uint32_t rounds = 0, bad = 0;
	uint64_t merged = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	prepare(seed);
	history_begin(&all);
	do {
		bad = do_round(&all, seed + rounds);
		rounds++;
		if (bad == 0 && rounds % 4 == 0)
			engine_reopen(&engine);
	} while (bad == 0 && time(NULL) < end);
	for (unsigned i = 0; i < WORKERS; i++)
		merged += clients[i].merged;
	printf("# seed %lu, %u rounds, %lu bytes merged\n", seed, rounds, merged);
	printf("1..2\n");
	printf("%s 1 every_read_returns_what_it_may\n", bad ? "not ok" : "ok");
	printf("%s 2 merges_happened\n", merged ? "ok" : "not ok");
	release();
	return bad || merged == 0;
}
