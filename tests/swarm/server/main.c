/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * main - the load's commands: run.py says them one a line, and gets a line back for each
 *
 *   load SEED SIZE_BYTES TRACE_FILE
 *
 *     connect NBD CONTROL [KEY=N...]  Unix sockets; the options of struct load_options hold from
 *                                     here on: connections, lasting, read_only, enospc, eio...
 *     run [KEY=N...]                  random operations for so many milliseconds, until all are
 *                                     answered
 *     close                           ends all connections, whatever is in flight
 *     rest clean|killed               the server has stopped: what was answered is durable, or is
 *                                     not
 *     verify live|stopped|killed      reads everything in a quiet moment, or after a start
 *     fill                            writes nearly all of the volume
 *     share                           makes all of the volume owners of one block, if it can
 *     abandon                         runs for a moment, and closes with all in flight
 *     changes GENERATION              answers `ok generation=N`
 *     trim                            gives everything back, and flushes
 *     zeros                           somebody else trims everything, and may be cut off
 *     trace                           writes the last operations to TRACE_FILE
 *
 * Answers: `ok KEY=N...`; `gone ...`: the server ended a connection; `bad WHAT`: a wrong answer,
 * and the last operations are in TRACE_FILE. The load lives as long as its world, so that it
 * remembers.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base/units.h"
#include "tests/swarm/server/draw.h"
#include "tests/swarm/server/load.h"
#include "tests/swarm/server/over_control.h"
#include "tests/swarm/server/over_nbd.h"

#define FIRST_ID	  64u /* those below are the pool's */
#define TICK_MS		  20
#define ABANDON_MS	  30
#define CONNECT_MS	  10000u
#define STUCK_MS	  60000u
#define DRAWS_PER_TURN	  32u
#define BYTES_IN_FLIGHT	  (64u << 20)
#define SHARE_BYTES_MAX	  (16ull << 20)
#define TRIM_BYTES_MAX	  ((4ull << 30) - BLOCK_BYTES)
#define TRIM_PIECES_BYTES (1ull << 30)

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* --- options --- */

static uint64_t *option_of(struct load_options *options, const char *key, size_t len)
{
	const struct {
		const char *key;
		uint64_t *value;
	} all[] = {
		{"connections", &options->connections},
		{"depth", &options->depth},
		{"control_depth", &options->control_depth},
		{"milliseconds", &options->milliseconds},
		{"blocks_max", &options->blocks_max},
		{"windows", &options->windows},
		{"pool", &options->pool},
		{"read_only", &options->read_only},
		{"lasting", &options->lasting},
		{"enospc", &options->enospc},
		{"eio", &options->eio},
		{"aligned", &options->aligned},
	};

	for (unsigned kind = 0; kind < OP_KINDS; kind++)
		if (strlen(op_name(kind)) == len && strncmp(op_name(kind), key, len) == 0)
			return &options->weights[kind];
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (strlen(all[i].key) == len && strncmp(all[i].key, key, len) == 0)
			return all[i].value;
	return NULL;
}

static void take_options(struct load *load, char *words)
{
	for (char *word = strtok(words, " "); word; word = strtok(NULL, " ")) {
		char *equals = strchr(word, '=');
		uint64_t *value =
			equals ? option_of(&load->options, word, (size_t)(equals - word)) : NULL;

		if (value)
			*value = strtoull(equals + 1, NULL, 0);
		else
			load_bad(load, "there is no option %s", word);
	}
}

/* --- running --- */

static void submit_nbd(struct load *load, unsigned number)
{
	uint32_t *ids = NULL;
	struct op *op = draw(load, false, &ids);

	if (!op)
		return;
	op->connection = number;
	op_begin(op, ids);
	free(ids);
	over_nbd_submit(op, number);
}

static void submit_control(struct load *load)
{
	uint32_t *ids = NULL;
	struct op *op = draw(load, true, &ids);

	if (!op)
		return;
	op_begin(op, ids);
	over_control_submit(op);
}

static uint64_t bytes_in_flight(const struct load *load)
{
	uint64_t sum = 0;

	for (const struct op *op = load->in_flight; op; op = op->next)
		sum += op->data ? op->len : 0;
	return sum;
}

static void submit_some(struct load *load)
{
	for (unsigned i = 0; i < DRAWS_PER_TURN && !load->stopping && !load->gone; i++) {
		unsigned number = rng_below(&load->random, (uint32_t)load->options.connections);
		struct connection *connection = &load->connections[number];

		if (!connection->dead && connection->in_flight < load->options.depth &&
		    bytes_in_flight(load) < BYTES_IN_FLIGHT)
			submit_nbd(load, number);
	}
	if (!load->stopping && !load->gone && !load->control.dead &&
	    load->control.in_flight < load->options.control_depth)
		submit_control(load);
}

/* Looks at all connections once. */
static void turn(struct load *load, int wait_ms)
{
	struct pollfd polls[LOAD_CONNECTIONS_MAX + 1];
	unsigned count = (unsigned)load->options.connections;

	for (unsigned i = 0; i < count; i++)
		over_nbd_poll(load, i, &polls[i]);
	over_control_poll(load, &polls[count]);
	if (load->gone || poll(polls, count + 1, wait_ms) < 0)
		return;
	for (unsigned i = 0; i < count; i++)
		if (polls[i].fd >= 0 && polls[i].revents)
			over_nbd_ready(load, i, polls[i].revents);
	if (polls[count].fd >= 0 && polls[count].revents)
		over_control_ready(load, polls[count].revents);
}

static void submit_until(struct load *load, uint64_t end_ms)
{
	load->stopping = false;
	while (!load->gone && load->bad[0] == '\0' && now_ms() < end_ms) {
		submit_some(load);
		turn(load, load->in_flight ? TICK_MS : 1);
	}
	load->stopping = true;
}

static void finish_all(struct load *load)
{
	uint64_t stuck = now_ms() + STUCK_MS;

	while (!load->gone && load->bad[0] == '\0' && load->in_flight) {
		turn(load, TICK_MS);
		if (now_ms() > stuck)
			load_bad(load,
				 "stuck: %u operations are not answered, the oldest is %s %" PRIu64,
				 load->in_flight_count, op_name(load->in_flight->kind),
				 load->history.oldest);
	}
}

static void run(struct load *load)
{
	submit_until(load, now_ms() + load->options.milliseconds);
	finish_all(load);
}

static void run_one(struct load *load, struct op *op, const uint32_t *ids)
{
	op->load = load;
	op_begin(op, ids);
	if (op->kind < OP_SAME)
		over_nbd_submit(op, 0);
	else
		over_control_submit(op);
	finish_all(load);
}

/* A block is written, and clones double the part that is like it. */
static void share(struct load *load)
{
	struct op *op = calloc(1, sizeof(*op));
	uint32_t ids[BLOCK_SECTORS];
	uint64_t done = BLOCK_BYTES;

	if (!op)
		abort();
	*op = (struct op){.kind = OP_WRITE, .len = done, .count = BLOCK_SECTORS};
	op->data = malloc(done);
	for (unsigned i = 0; i < BLOCK_SECTORS; i++) {
		ids[i] = load->next_id;
		content_fill(ids[i], i, op->data + (size_t)i * SECTOR_BYTES);
	}
	load->next_id++;
	run_one(load, op, ids);
	while (done < load->size && load->bad[0] == '\0' && !load->gone) {
		uint64_t len = done < SHARE_BYTES_MAX ? done : SHARE_BYTES_MAX;

		len = len < load->size - done ? len : load->size - done;
		op = calloc(1, sizeof(*op));
		if (!op)
			abort();
		*op = (struct op){.kind = OP_CLONE,
				  .off = done,
				  .len = len,
				  .first = done / SECTOR_BYTES,
				  .count = len / SECTOR_BYTES};
		run_one(load, op, NULL);
		done += len;
	}
}

static void close_all(struct load *load)
{
	for (unsigned i = 0; i < LOAD_CONNECTIONS_MAX; i++)
		if (load->connections[i].nbd)
			over_nbd_close(load, i);
	over_control_close(load);
	load->gone = false;
}

static void connect_all(struct load *load, const char *nbd, const char *control)
{
	uint64_t end = now_ms() + CONNECT_MS;
	const char *why = "";

	close_all(load);
	for (unsigned i = 0; i < load->options.connections && load->bad[0] == '\0'; i++)
		/* Those that were closed just now may hold the last places. */
		while (over_nbd_connect(load, i, nbd, &why) < 0 && load->bad[0] == '\0') {
			if (now_ms() > end)
				load_bad(load, "connect: %s", why);
			poll(NULL, 0, TICK_MS);
		}
	if (load->bad[0] == '\0')
		over_control_connect(load, control);
}

/* At once or piece by piece. */
static bool trim_pieces(struct load *load)
{
	struct nbd_handle *nbd = load->connections[0].nbd;
	uint64_t piece = load->size;

	if (load->size <= TRIM_PIECES_BYTES && rng_below(&load->random, 2) == 0)
		piece = (1 + rng_below(&load->random, 3 * REGION_BLOCKS)) * BLOCK_BYTES;
	piece = piece > TRIM_BYTES_MAX ? TRIM_BYTES_MAX : piece;
	for (uint64_t off = 0; off < load->size; off += piece) {
		uint64_t len = load->size - off < piece ? load->size - off : piece;

		if (nbd_trim(nbd, len, off, 0) != 0)
			return false;
	}
	return nbd_flush(nbd, 0) == 0;
}

static void trim(struct load *load)
{
	uint64_t submitted = history_tick(&load->history);

	history_submit_all(&load->history, submitted);
	if (!trim_pieces(load)) {
		load_bad(load, "trim of everything: %s", nbd_get_error());
		return;
	}
	history_tick(&load->history);
	history_end_all(&load->history, submitted, true, true);
}

/* --- commands --- */

static void write_trace(const struct load *load)
{
	uint64_t from = load->trace_count > LOAD_TRACE_OPS ? load->trace_count - LOAD_TRACE_OPS : 0;
	FILE *out = fopen(load->trace_file, "w");

	for (uint64_t i = from; out && i < load->trace_count; i++)
		fprintf(out, "%s\n", load->trace[i % LOAD_TRACE_OPS]);
	if (out)
		fclose(out);
}

static void command(struct load *load, char *line, uint64_t *ret_generation)
{
	char *word = strtok(line, " \n"), *rest;

	if (strcmp(word, "connect") == 0) {
		char *nbd = strtok(NULL, " \n"), *control = strtok(NULL, " \n");

		rest = strtok(NULL, "\n");
		if (rest)
			take_options(load, rest);
		connect_all(load, nbd, control);
	} else if (strcmp(word, "run") == 0) {
		rest = strtok(NULL, "\n");
		if (rest)
			take_options(load, rest);
		run(load);
	} else if (strcmp(word, "close") == 0) {
		close_all(load);
	} else if (strcmp(word, "rest") == 0) {
		if (strcmp(strtok(NULL, " \n"), "clean") == 0)
			history_flushed(&load->history, history_tick(&load->history));
	} else if (strcmp(word, "verify") == 0) {
		rest = strtok(NULL, " \n");
		over_nbd_verify(load, strcmp(rest, "live") == 0	    ? VERIFY_LIVE
				      : strcmp(rest, "killed") == 0 ? VERIFY_KILLED
								    : VERIFY_STOPPED);
	} else if (strcmp(word, "fill") == 0) {
		over_nbd_fill(load);
	} else if (strcmp(word, "share") == 0) {
		share(load);
	} else if (strcmp(word, "abandon") == 0) {
		submit_until(load, now_ms() + ABANDON_MS);
		close_all(load);
	} else if (strcmp(word, "changes") == 0) {
		*ret_generation =
			over_control_changes(load, strtoull(strtok(NULL, " \n"), NULL, 0));
	} else if (strcmp(word, "trim") == 0) {
		trim(load);
	} else if (strcmp(word, "zeros") == 0) {
		history_submit_all(&load->history, history_tick(&load->history));
	} else if (strcmp(word, "trace") == 0) {
		write_trace(load);
	} else {
		load_bad(load, "there is no command %s", word);
	}
}

static void answer(struct load *load, uint64_t generation)
{
	if (load->bad[0] != '\0') {
		printf("bad %s\n", load->bad);
		return;
	}
	printf("%s generation=%" PRIu64 " ENOSPC=%" PRIu64 " EIO=%" PRIu64 " torn=%" PRIu64
	       " merged=%" PRIu64 " cloned=%" PRIu64,
	       load->gone ? "gone" : "ok", generation, load->enospc_count, load->eio_count,
	       load->torn_count, load->merged_bytes, load->cloned_bytes);
	for (unsigned kind = 0; kind < OP_KINDS; kind++)
		printf(" %s=%" PRIu64, op_name(kind), load->counts[kind]);
	printf("\n");
}

int main(int argc, char **argv)
{
	struct load load = {.control.fd = -1, .next_id = FIRST_ID};
	uint64_t generation = 0;
	char line[4096];

	if (argc != 4) {
		fprintf(stderr, "usage: load SEED SIZE_BYTES TRACE_FILE\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	load.trace_file = argv[3];
	load.size = strtoull(argv[2], NULL, 0);
	load.random = rng_for(strtoull(argv[1], NULL, 0), 0);
	load.trace = calloc(LOAD_TRACE_OPS, sizeof(load.trace[0]));
	history_init(&load.history, load.size / SECTOR_BYTES);
	if (!load.trace)
		return 2;
	while (fgets(line, sizeof(line), stdin)) {
		if (line[0] != '\n')
			command(&load, line, &generation);
		answer(&load, generation);
		fflush(stdout);
		if (load.bad[0] != '\0')
			write_trace(&load);
	}
	close_all(&load);
	history_done(&load.history);
	contents_clear(&load.contents);
	free(load.trace);
	free(load.snapshot);
	return load.bad[0] != '\0';
}
