/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * oracle - a mixed load on a real server, and what it may hold after that was killed
 *
 *   oracle run STATE URI CONTROL SAMEBLK SEED SECONDS [lasting]
 *       writes, flushes, zeroes, discards, reads, clones and merges until the time is over or the
 *       server is gone; then leaves in STATE what each block may hold. Says `running` once all
 *       its clients are connected. lasting: nothing that was answered may be undone, whether it
 *       was flushed or not.
 *   oracle verify STATE URI
 *       reads everything once; what it finds is from then on what must be there.
 *
 * Each writer owns a slice of the volume and has one request in flight, so that it knows what its
 * blocks hold; merges are asked for across all slices while it writes. Status: 0 good, 1 a block
 * holds what it must not, 2 could not run.
 */
#include <errno.h>
#include <inttypes.h>
#include <libnbd.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/lib/rng.h"
#include "tests/rigs/command.h"
#include "tests/rigs/model.h"
#include "tests/rigs/sectors.h"

#define WRITERS	       6
#define BLOCK	       BLOCK_BYTES
#define RUN_BLOCKS_MAX 32u
#define POOL_IDS       24u
#define VERIFY_BYTES   (1u << 20)
#define MERGE_PAUSE_NS 2000000
#define MERGE_TRIES    64

struct load {
	struct model model;
	const char *uri;
	struct command command;
	bool lasting;
	struct timespec end;
	_Atomic uint64_t
		*hints; /* first sector's id of each block, for whoever looks for equal ones */
	atomic_bool gone; /* the server, or the time */
	atomic_bool bad;
	_Atomic uint64_t operations;
	_Atomic uint64_t clones;
	_Atomic uint64_t merges;
};

struct writer {
	struct load *load;
	struct nbd_handle *nbd;
	struct rng random;
	uint64_t begin; /* its slice, in blocks */
	uint64_t end;
	uint8_t data[RUN_BLOCKS_MAX * BLOCK];
};

static bool over(struct load *load)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return atomic_load(&load->gone) || now.tv_sec > load->end.tv_sec ||
	       (now.tv_sec == load->end.tv_sec && now.tv_nsec >= load->end.tv_nsec);
}

/* A range of the slice. */
static uint64_t pick(struct writer *w, uint64_t blocks)
{
	return w->begin + rng_below(&w->random, w->end - w->begin - blocks + 1);
}

/* Of a range that was answered, or not: what is not acknowledged stays a possibility. */
static bool answered(struct writer *w, uint64_t first, uint64_t blocks, bool good, bool durable)
{
	if (!good) {
		atomic_store(&w->load->gone, true);
		return false;
	}
	for (uint64_t b = first; b < first + blocks; b++) {
		model_acknowledge(&w->load->model, b, durable || w->load->lasting);
		atomic_store(&w->load->hints[b], model_current(&w->load->model, b)->ids[0]);
	}
	return true;
}

static void set_all(struct version *version, uint64_t id)
{
	for (unsigned s = 0; s < BLOCK_SECTORS; s++)
		version->ids[s] = id;
}

static bool do_write(struct writer *w)
{
	uint64_t blocks = 1 + rng_below(&w->random, RUN_BLOCKS_MAX);
	uint64_t first = pick(w, blocks);
	bool fua = rng_below(&w->random, 10) == 0;
	bool pool = rng_below(&w->random, 2) == 0;

	for (uint64_t i = 0; i < blocks; i++) {
		/* Runs of the pool go up together, so that equal runs are longer than a block. */
		uint64_t id = pool ? 1 + (first + i) % POOL_IDS
				   : atomic_fetch_add(&w->load->model.next_id, 1);

		block_fill(w->data + i * BLOCK, id);
		set_all(model_submit(&w->load->model, first + i), id);
	}
	return answered(w, first, blocks,
			nbd_pwrite(w->nbd, w->data, blocks * BLOCK, first * BLOCK,
				   fua ? LIBNBD_CMD_FLAG_FUA : 0) == 0,
			fua);
}

/* Some sectors of one block. */
static bool do_write_sectors(struct writer *w)
{
	uint64_t block = pick(w, 1);
	unsigned from = rng_below(&w->random, BLOCK_SECTORS);
	unsigned count = 1 + rng_below(&w->random, BLOCK_SECTORS - from);
	uint64_t id = atomic_fetch_add(&w->load->model.next_id, 1);
	struct version *version = model_submit(&w->load->model, block);

	for (unsigned s = from; s < from + count; s++) {
		version->ids[s] = id;
		content_fill((uint32_t)id, s, w->data + (s - from) * SECTOR_BYTES);
	}
	return answered(w, block, 1,
			nbd_pwrite(w->nbd, w->data, (size_t)count * SECTOR_BYTES,
				   block * BLOCK + (uint64_t)from * SECTOR_BYTES, 0) == 0,
			false);
}

static bool do_zero(struct writer *w)
{
	uint64_t blocks = 1 + rng_below(&w->random, RUN_BLOCKS_MAX);
	uint64_t first = pick(w, blocks);
	uint64_t how = rng_below(&w->random, 3);
	int r;

	for (uint64_t i = 0; i < blocks; i++)
		set_all(model_submit(&w->load->model, first + i), 0);
	if (how == 0)
		r = nbd_trim(w->nbd, blocks * BLOCK, first * BLOCK, 0);
	else
		r = nbd_zero(w->nbd, blocks * BLOCK, first * BLOCK,
			     how == 1 ? LIBNBD_CMD_FLAG_NO_HOLE : 0);
	return answered(w, first, blocks, r == 0, false);
}

static bool do_flush(struct writer *w)
{
	uint64_t submitted = model_now(&w->load->model);

	if (nbd_flush(w->nbd, 0) != 0)
		return answered(w, 0, 0, false, false);
	model_flushed(&w->load->model, submitted);
	return true;
}

static bool do_read(struct writer *w)
{
	uint64_t blocks = 1 + rng_below(&w->random, RUN_BLOCKS_MAX);
	uint64_t first = pick(w, blocks);

	if (nbd_pread(w->nbd, w->data, blocks * BLOCK, first * BLOCK, 0) != 0)
		return answered(w, 0, 0, false, false);
	for (uint64_t i = 0; i < blocks * BLOCK_SECTORS; i++) {
		uint64_t block = first + i / BLOCK_SECTORS;
		unsigned s = i % BLOCK_SECTORS;
		uint64_t expected = model_current(&w->load->model, block)->ids[s];
		uint64_t found = UINT64_MAX;

		if (sector_decode(w->data + i * SECTOR_BYTES, s, &found) && found == expected)
			continue;
		fprintf(stderr,
			"block %" PRIu64 " sector %u, live: expected %" PRIu64 ", found %" PRId64
			"\n",
			block, s, expected, (int64_t)found);
		atomic_store(&w->load->bad, true);
		return answered(w, 0, 0, false, false);
	}
	return true;
}

static bool do_clone(struct writer *w)
{
	uint64_t blocks = 1 + rng_below(&w->random, RUN_BLOCKS_MAX);
	uint64_t src = pick(w, blocks);
	uint64_t dst = pick(w, blocks);

	if (src < dst + blocks && dst < src + blocks)
		return true;
	for (uint64_t i = 0; i < blocks; i++) {
		struct version *version = model_submit(&w->load->model, dst + i);

		memcpy(version->ids, model_current(&w->load->model, src + i)->ids,
		       sizeof(version->ids));
	}
	if (!answered(w, dst, blocks,
		      command_run(&w->load->command, "clone", src * BLOCK, blocks * BLOCK,
				  dst * BLOCK) == 0,
		      false))
		return false;
	atomic_fetch_add(&w->load->clones, 1);
	return true;
}

static bool step(struct writer *w)
{
	uint64_t dice = rng_below(&w->random, 1000);

	if (dice < 450)
		return do_write(w);
	if (dice < 550)
		return do_write_sectors(w);
	if (dice < 700)
		return do_zero(w);
	if (dice < 780)
		return do_flush(w);
	if (dice < 980)
		return do_read(w);
	return do_clone(w);
}

static void *writer_run(void *argument)
{
	struct writer *w = argument;

	while (!over(w->load) && step(w))
		atomic_fetch_add(&w->load->operations, 1);
	return NULL;
}

/* Two ranges that look equal: the first block of one was drawn, the other searched for. */
static bool find_equal(struct load *load, struct rng *random, uint64_t *ret_src, uint64_t *ret_dst,
		       uint64_t *ret_blocks)
{
	uint64_t count = load->model.block_count;
	uint64_t src = rng_below(random, count);
	uint64_t id = atomic_load(&load->hints[src]);

	for (int i = 0; i < MERGE_TRIES; i++) {
		/* Pool ids follow the address, modulo their number. */
		uint64_t dst = (src + POOL_IDS * (1 + rng_below(random, count / POOL_IDS))) % count;
		uint64_t blocks = 1;

		if (dst == src || atomic_load(&load->hints[dst]) != id)
			continue;
		while (blocks < RUN_BLOCKS_MAX && src + blocks < count && dst + blocks < count &&
		       atomic_load(&load->hints[src + blocks]) ==
			       atomic_load(&load->hints[dst + blocks]))
			blocks++;
		*ret_src = src;
		*ret_dst = dst;
		*ret_blocks = blocks;
		return src + blocks <= dst || dst + blocks <= src;
	}
	return false;
}

/* Feeds one `sameblk same --batch -` for as long as the load runs. */
static void *merger_run(void *argument)
{
	struct load *load = argument;
	struct rng random = {.state = (uint64_t)getpid()};
	FILE *batch = command_batch(&load->command);

	if (!batch)
		return NULL;
	while (!over(load)) {
		uint64_t src, dst, blocks;

		nanosleep(&(struct timespec){.tv_nsec = MERGE_PAUSE_NS}, NULL);
		if (!find_equal(load, &random, &src, &dst, &blocks))
			continue;
		if (fprintf(batch, "%" PRIu64 " %" PRIu64 " %" PRIu64 "\n", src * BLOCK,
			    blocks * BLOCK, dst * BLOCK) < 0 ||
		    fflush(batch) != 0)
			break;
		atomic_fetch_add(&load->merges, 1);
	}
	pclose(batch);
	return NULL;
}

static struct nbd_handle *connect_to(const char *uri)
{
	struct nbd_handle *nbd = nbd_create();

	if (nbd && nbd_connect_uri(nbd, uri) == 0)
		return nbd;
	fprintf(stderr, "oracle: %s: %s\n", uri, nbd_get_error());
	nbd_close(nbd);
	return NULL;
}

static bool writers_start(struct load *load, struct writer *writers, uint64_t seed)
{
	uint64_t slice = load->model.block_count / WRITERS;

	for (unsigned i = 0; i < WRITERS; i++) {
		struct writer *w = &writers[i];

		w->load = load;
		w->random.state = seed * 1000003 + i;
		w->begin = i * slice;
		/* The volume's last block is somebody's. */
		w->end = i + 1 < WRITERS ? (i + 1) * slice : load->model.block_count;
		w->nbd = connect_to(load->uri);
		if (!w->nbd)
			return false;
	}
	return true;
}

static void load_run(struct load *load, struct writer *writers)
{
	pthread_t threads[WRITERS + 1];

	pthread_create(&threads[WRITERS], NULL, merger_run, load);
	for (unsigned i = 0; i < WRITERS; i++)
		pthread_create(&threads[i], NULL, writer_run, &writers[i]);
	for (unsigned i = 0; i < WRITERS; i++)
		pthread_join(threads[i], NULL);
	atomic_store(&load->gone, true);
	pthread_join(threads[WRITERS], NULL);
	for (unsigned i = 0; i < WRITERS; i++)
		nbd_close(writers[i].nbd);
}

static int run(const char *state, struct load *load, uint64_t seed, double seconds)
{
	struct writer *writers = calloc(WRITERS, sizeof(*writers));
	struct nbd_handle *nbd = connect_to(load->uri);
	int r;

	if (!writers || !nbd)
		return 2;
	r = model_load(&load->model, state);
	if (r == -ENOENT)
		model_init(&load->model, (uint64_t)nbd_get_size(nbd) / BLOCK);
	else if (r < 0)
		return 2;
	nbd_close(nbd);
	load->hints = calloc(load->model.block_count, sizeof(*load->hints));
	if (!load->hints || !writers_start(load, writers, seed))
		return 2;
	for (uint64_t b = 0; b < load->model.block_count; b++)
		load->hints[b] = model_current(&load->model, b)->ids[0];
	puts("running");
	fflush(stdout);
	clock_gettime(CLOCK_MONOTONIC, &load->end);
	load->end.tv_sec += (time_t)seconds;
	load_run(load, writers);
	printf("operations %" PRIu64 " clones %" PRIu64 " merges %" PRIu64 "\n",
	       atomic_load(&load->operations), atomic_load(&load->clones),
	       atomic_load(&load->merges));
	r = model_save(&load->model, state) < 0 ? 2 : atomic_load(&load->bad);
	model_done(&load->model);
	free(load->hints);
	free(writers);
	return r;
}

static int verify(const char *state, const char *uri)
{
	static uint8_t data[VERIFY_BYTES];
	struct nbd_handle *nbd = connect_to(uri);
	struct model model;
	uint64_t size;
	int bad = 0;

	if (!nbd || model_load(&model, state) < 0)
		return 2;
	size = model.block_count * BLOCK;
	for (uint64_t off = 0; off < size; off += VERIFY_BYTES) {
		uint64_t len = size - off < VERIFY_BYTES ? size - off : VERIFY_BYTES;

		if (nbd_pread(nbd, data, len, off, 0) != 0) {
			fprintf(stderr, "oracle: reading at %" PRIu64 ": %s\n", off,
				nbd_get_error());
			return 2;
		}
		for (uint64_t i = 0; i < len; i += BLOCK)
			bad += !model_adopt(&model, (off + i) / BLOCK, data + i);
	}
	nbd_close(nbd);
	if (bad == 0 && model_save(&model, state) < 0)
		return 2;
	model_done(&model);
	return bad != 0;
}

int main(int argc, char **argv)
{
	struct load load = {0};

	signal(SIGPIPE, SIG_IGN);
	load.lasting = argc == 9 && strcmp(argv[8], "lasting") == 0;
	if ((argc == 8 || load.lasting) && strcmp(argv[1], "run") == 0) {
		load.uri = argv[3];
		load.command.control = argv[4];
		load.command.sameblk = argv[5];
		return run(argv[2], &load, strtoull(argv[6], NULL, 0), strtod(argv[7], NULL));
	}
	if (argc == 4 && strcmp(argv[1], "verify") == 0)
		return verify(argv[2], argv[3]);
	fprintf(stderr, "usage: oracle run STATE URI CONTROL SAMEBLK SEED SECONDS [lasting] | "
			"oracle verify STATE URI\n");
	return 2;
}
