/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * linear - many clients on the same few blocks, and whether what they saw can be one order
 *
 *   linear URI CONTROL SAMEBLK SEED SECONDS [CLIENTS]
 *
 * Three areas, each over several regions. What a client writes to a block of the first it then
 * writes to the block's twin in the second, so that merges of twins succeed when nobody is in
 * between; clones go from the first to the third. Merges and clones run all the time on the ranges
 * that are written, zeroed, discarded and read. Then linear_check looks at every sector.
 *
 * Status: 0 good, 1 a contradiction or a request that failed, 2 could not run.
 */
#include <inttypes.h>
#include <libnbd.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/lib/rng.h"
#include "tests/rigs/command.h"
#include "tests/rigs/linear_check.h"
#include "tests/rigs/sectors.h"

#define BLOCK	    BLOCK_BYTES
#define SECTORS	    BLOCK_SECTORS
#define AREA_BLOCKS 48u
#define AREAS	    3u
#define RUN_MAX	    8u
#define CLIENTS_MAX 32u
#define EVENTS_MAX  3000000u /* per client: a bound on memory, not on time */
#define REGS	    (AREAS * AREA_BLOCKS * SECTORS)

/* In blocks. Each lies across the border of two regions, in regions of its own. */
static const uint64_t area_start[AREAS] = {512 - 20, 4 * 512 - 28, 9 * 512 - 13};

enum area { AREA_FIRST, AREA_TWIN, AREA_CLONE };

struct test {
	const char *uri;
	struct command command;
	time_t seconds, end;
	_Atomic uint64_t now;
	_Atomic uint64_t next_value;
	_Atomic uint64_t merges;
	atomic_bool failed;
};

struct client {
	struct test *test;
	struct nbd_handle *nbd;
	struct rng random;
	struct event *events;
	size_t event_count;
	uint64_t requests;
	uint8_t data[RUN_MAX * BLOCK];
};

static bool over(struct test *test)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec >= test->end || atomic_load(&test->failed);
}

static bool full(const struct client *c)
{
	return c->event_count + 4 * RUN_MAX * SECTORS > EVENTS_MAX;
}

static uint64_t tick(struct test *test)
{
	return atomic_fetch_add(&test->now, 1);
}

static uint32_t reg_of(enum area area, uint32_t block, unsigned sector)
{
	return ((uint32_t)area * AREA_BLOCKS + block) * SECTORS + sector;
}

static uint64_t off_of(enum area area, uint32_t block)
{
	return (area_start[area] + block) * BLOCK;
}

static void failed(struct client *c, const char *what)
{
	fprintf(stderr, "linear: %s: %s\n", what, nbd_get_error());
	atomic_store(&c->test->failed, true);
}

static void record(struct client *c, enum event_kind kind, uint32_t reg, uint64_t value,
		   uint64_t begin, uint64_t end)
{
	c->events[c->event_count++] = (struct event){
		.kind = kind, .reg = reg, .value = value, .begin = begin, .end = end};
}

static void pick(struct client *c, uint32_t *ret_block, uint32_t *ret_blocks)
{
	*ret_blocks = 1 + (uint32_t)rng_below(&c->random, RUN_MAX);
	*ret_block = (uint32_t)rng_below(&c->random, AREA_BLOCKS - *ret_blocks + 1);
}

static void write_blocks(struct client *c, enum area area, uint32_t block, uint32_t blocks,
			 const uint64_t *values)
{
	uint64_t begin = tick(c->test), end;

	if (nbd_pwrite(c->nbd, c->data, (size_t)blocks * BLOCK, off_of(area, block), 0) != 0)
		failed(c, "write");
	end = tick(c->test);
	for (uint32_t i = 0; i < blocks * SECTORS; i++)
		record(c, EVENT_WRITE, reg_of(area, block, 0) + i, values[i / SECTORS], begin, end);
}

static void do_write(struct client *c, bool twins)
{
	uint32_t block, blocks;
	uint64_t values[RUN_MAX];

	pick(c, &block, &blocks);
	for (uint32_t i = 0; i < blocks; i++) {
		values[i] = atomic_fetch_add(&c->test->next_value, 1);
		block_fill(c->data + i * BLOCK, values[i]);
	}
	if (!twins) {
		write_blocks(c, AREA_CLONE, block, blocks, values);
		return;
	}
	write_blocks(c, AREA_FIRST, block, blocks, values);
	write_blocks(c, AREA_TWIN, block, blocks, values);
}

/* One sector of one block. */
static void do_write_sector(struct client *c, enum area area)
{
	uint32_t block = (uint32_t)rng_below(&c->random, AREA_BLOCKS);
	unsigned sector = (unsigned)rng_below(&c->random, SECTORS);
	uint64_t value = atomic_fetch_add(&c->test->next_value, 1);
	uint64_t begin = tick(c->test);

	content_fill((uint32_t)value, sector, c->data);
	if (nbd_pwrite(c->nbd, c->data, SECTOR_BYTES,
		       off_of(area, block) + (uint64_t)sector * SECTOR_BYTES, 0) != 0)
		failed(c, "write of a sector");
	record(c, EVENT_WRITE, reg_of(area, block, sector), value, begin, tick(c->test));
}

static void do_zero(struct client *c, enum area area)
{
	uint64_t how = rng_below(&c->random, 3);
	uint32_t block, blocks;
	uint64_t begin, end;
	int r;

	pick(c, &block, &blocks);
	begin = tick(c->test);
	if (how == 0)
		r = nbd_trim(c->nbd, (uint64_t)blocks * BLOCK, off_of(area, block), 0);
	else
		r = nbd_zero(c->nbd, (uint64_t)blocks * BLOCK, off_of(area, block),
			     how == 1 ? LIBNBD_CMD_FLAG_NO_HOLE : 0);
	if (r != 0)
		failed(c, "zero");
	end = tick(c->test);
	for (uint32_t i = 0; i < blocks * SECTORS; i++)
		record(c, EVENT_ZERO, reg_of(area, block, 0) + i, 0, begin, end);
}

static void read_blocks(struct client *c, enum area area, uint32_t block, uint32_t blocks)
{
	uint64_t begin = tick(c->test), end, value;

	if (nbd_pread(c->nbd, c->data, (size_t)blocks * BLOCK, off_of(area, block), 0) != 0) {
		failed(c, "read");
		return;
	}
	end = tick(c->test);
	for (uint32_t i = 0; i < blocks * SECTORS; i++) {
		bool whole = sector_decode(c->data + i * SECTOR_BYTES, i % SECTORS, &value);

		record(c, whole ? EVENT_READ : EVENT_TORN, reg_of(area, block, 0) + i,
		       whole ? value : 0, begin, end);
	}
}

static void do_read(struct client *c, enum area area)
{
	uint32_t block, blocks;

	pick(c, &block, &blocks);
	read_blocks(c, area, block, blocks);
}

static void *client_run(void *argument)
{
	struct client *c = argument;

	while (!over(c->test) && !full(c)) {
		uint64_t dice = rng_below(&c->random, 100);
		enum area area = (enum area)rng_below(&c->random, AREAS);

		if (dice < 35)
			do_write(c, true);
		else if (dice < 42)
			do_write(c, false);
		else if (dice < 50)
			do_write_sector(c, area);
		else if (dice < 58)
			do_zero(c, area);
		else if (dice < 60)
			nbd_flush(c->nbd, 0);
		else
			do_read(c, area);
		c->requests++;
	}
	return NULL;
}

static void *cloner_run(void *argument)
{
	struct client *c = argument;

	while (!over(c->test) && !full(c)) {
		uint32_t block, blocks;
		uint64_t begin, end;

		pick(c, &block, &blocks);
		begin = tick(c->test);
		if (command_run(&c->test->command, "clone", off_of(AREA_FIRST, block),
				(uint64_t)blocks * BLOCK, off_of(AREA_CLONE, block)) != 0)
			failed(c, "clone");
		end = tick(c->test);
		for (uint32_t i = 0; i < blocks * SECTORS; i++)
			record(c, EVENT_CLONE, reg_of(AREA_CLONE, block, 0) + i,
			       reg_of(AREA_FIRST, block, 0) + i, begin, end);
		c->requests++;
	}
	return NULL;
}

/* Merges twins, and copies with their sources, in either direction. A merge is no event at all. */
static void *merger_run(void *argument)
{
	struct client *c = argument;
	FILE *batch = command_batch(&c->test->command);

	while (batch && !over(c->test)) {
		enum area other = rng_below(&c->random, 3) == 0 ? AREA_CLONE : AREA_TWIN;
		bool back = rng_below(&c->random, 2) == 0;
		uint32_t block, blocks;

		pick(c, &block, &blocks);
		nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
		if (fprintf(batch, "%" PRIu64 " %u %" PRIu64 "\n",
			    off_of(back ? other : AREA_FIRST, block), blocks * BLOCK,
			    off_of(back ? AREA_FIRST : other, block)) < 0 ||
		    fflush(batch) != 0) {
			failed(c, "same --batch");
			break;
		}
		atomic_fetch_add(&c->test->merges, 1);
	}
	/* 1: something differed, which is what happens when others write. */
	if (!batch || WEXITSTATUS(pclose(batch)) > 1)
		failed(c, "same --batch");
	return NULL;
}

static bool client_init(struct client *c, struct test *test, uint64_t seed)
{
	c->test = test;
	c->random.state = seed;
	c->events = calloc(EVENTS_MAX, sizeof(*c->events));
	c->nbd = nbd_create();
	if (c->events && c->nbd && nbd_connect_uri(c->nbd, test->uri) == 0)
		return true;
	fprintf(stderr, "linear: %s\n", nbd_get_error());
	return false;
}

static int account(struct test *test, struct client *clients, unsigned count)
{
	struct event *all;
	size_t event_count = 0, bad;

	for (unsigned i = 0; i < count; i++)
		event_count += clients[i].event_count;
	all = calloc(event_count, sizeof(*all));
	if (!all)
		return 2;
	event_count = 0;
	for (unsigned i = 0; i < count; i++) {
		memcpy(all + event_count, clients[i].events, clients[i].event_count * sizeof(*all));
		event_count += clients[i].event_count;
		free(clients[i].events);
		nbd_close(clients[i].nbd);
	}
	bad = linear_check(all, event_count, REGS);
	free(all);
	printf("events %zu merges %" PRIu64 " contradictions %zu\n", event_count,
	       atomic_load(&test->merges), bad);
	return bad || atomic_load(&test->failed);
}

static int run(struct test *test, unsigned count, uint64_t seed)
{
	/* After the clients come the one that clones and the one that merges. */
	struct client *clients = calloc(count + 2, sizeof(*clients));
	pthread_t threads[CLIENTS_MAX + 2];
	struct timespec now;
	int r;

	for (unsigned i = 0; i < count + 2; i++)
		if (!clients || !client_init(&clients[i], test, seed * 1000 + i))
			return 2;
	/* Connecting may take longer than the race, under ThreadSanitizer on a busy machine. */
	clock_gettime(CLOCK_MONOTONIC, &now);
	test->end = now.tv_sec + test->seconds;
	for (unsigned i = 0; i < count + 2; i++)
		pthread_create(&threads[i], NULL,
			       i < count    ? client_run
			       : i == count ? cloner_run
					    : merger_run,
			       &clients[i]);
	for (unsigned i = 0; i < count + 2; i++)
		pthread_join(threads[i], NULL);
	/* What is there in the end must fit as well. */
	for (unsigned area = 0; area < AREAS && !atomic_load(&test->failed); area++)
		for (uint32_t block = 0; block < AREA_BLOCKS; block += RUN_MAX)
			read_blocks(&clients[0], (enum area)area, block, RUN_MAX);
	printf("requests %" PRIu64 " clones %" PRIu64 " ", clients[0].requests * count,
	       clients[count].requests);
	r = account(test, clients, count + 2);
	free(clients);
	return r;
}

int main(int argc, char **argv)
{
	struct test test = {.next_value = 1, .now = 1};
	unsigned count;

	if (argc < 6 || argc > 7) {
		fprintf(stderr, "usage: linear URI CONTROL SAMEBLK SEED SECONDS [CLIENTS]\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	count = argc == 7 ? (unsigned)strtoul(argv[6], NULL, 0) : 8;
	if (count < 1 || count > CLIENTS_MAX)
		return 2;
	test.uri = argv[1];
	test.command.control = argv[2];
	test.command.sameblk = argv[3];
	test.seconds = strtol(argv[5], NULL, 0);
	return run(&test, count, strtoull(argv[4], NULL, 0));
}
