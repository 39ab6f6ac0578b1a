/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * world - a live volume on a simulated store, its clients, and the chance that moves them
 *
 * One thread. Each step one thing happens, chosen by the seed: a client submits a request, a lane
 * of the store delivers a completion, a worker runs its mailbox, the timer ticks, a checkpoint is
 * asked for. Clients tell the oracle what they submit and what they got, and check every answer.
 *
 *   world_begin -> (world_open -> world_fill -> world_run -> (world_close | crash,
 *   world_revive))...
 *
 * Requests  are made in client.c: what is asked, what the oracle is told, what the answer has to
 * be.
 * Points    on_point is called at every submission and completion of the store, and after each
 * answer that
 *           lessens what a crash may leave: that is where crashes are tried.
 * Memory    allocates at world_begin().
 */
#ifndef TESTS_SIM_WORLD_H
#define TESTS_SIM_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "core/request/request.h"
#include "core/request/same_job.h"
#include "core/volume/volume.h"
#include "tests/lib/content.h"
#include "tests/lib/rng.h"
#include "tests/lib/store_sim.h"
#include "tests/sim/oracle.h"
#include "tests/sim/scans.h"
#include "tests/sim/scenario.h"

#define CLIENTS_MAX	  8u
#define WORKERS_MAX	  2u
#define CLIENT_BLOCKS_MAX 512u
#define CLIENT_DSTS_MAX	  6u

struct world;

struct client {
	struct world *world;
	bool busy;
	bool hopeless; /* submitted when the volume was latched: it has to fail */
	enum op_kind kind;
	uint32_t op; /* of the oracle */
	bool entered; /* the blocks of the range were entered */
	uint64_t first; /* blocks that were entered, half-open */
	uint64_t end;
	unsigned scan; /* CHANGES: of the scan that is asked about */
	uint32_t generation; /* READ: a scan after this one's cut; or 0 */
	struct request request;
	struct same_job job;
	struct same_dst dsts[CLIENT_DSTS_MAX];
	uint32_t dst_ops[CLIENT_DSTS_MAX];
	uint8_t *data;
	uint8_t *brought; /* of foreign payload: where the engine sees it */
	uint8_t *scratch;
	struct map_run runs[64];
};

struct world {
	struct scenario scenario;
	uint64_t seed;
	struct rng rng; /* of the live run only: what crashes are tried changes nothing in it */
	struct store_sim sim;
	struct oracle oracle;
	struct contents contents;
	struct scans scans;
	struct volume *volume;
	struct worker workers[WORKERS_MAX];
	struct worker *worker_list[WORKERS_MAX];
	struct client clients[CLIENTS_MAX];
	uint32_t busy;
	bool solo; /* a request that must run alone is under way */
	uint32_t next_id; /* contents that exist nowhere else */
	uint64_t cursor; /* sequential writes go on here */
	uint32_t deliver_weight;
	uint32_t run_weight;
	uint32_t yields; /* in a row */
	uint64_t tightened; /* as on_point last saw it */
	uint64_t steps;
	bool faulty; /* errors are injected: EIO and ENOSPC are answers */
	bool latched; /* seen between two steps: from then on only reads go to the store */
	uint64_t answers[OP_KINDS];
	uint64_t failures;
	uint64_t enospc;
	void (*on_point)(struct world *world, bool store_event);
	void *context;
};

void world_begin(struct world *world, const struct scenario *scenario, uint64_t seed);
void world_end(struct world *world);

/* Opens what is on the store; 0 or the engine's error. */
int world_open(struct world *world, struct damage *reterr_damage);
/* What the scenario wants to be there first, then a flush. */
void world_fill(struct world *world);
/* So many random requests; they may be unanswered at the end. */
void world_run(struct world *world, uint32_t requests);
/* Until every request is answered. */
void world_drain(struct world *world);
/* Until nothing moves any more: no I/O in flight, no task. */
void world_settle(struct world *world);
int world_close(struct world *world);
/* Writes that a crash could lose; discards are hints. */
uint32_t world_undurable(const struct store_sim *sim);
/* Forgets everything in memory; the store is as it is, with what is undurable still undecided. */
void world_abandon(struct world *world);

/* --- client.c --- */

/* Submits a request of this kind somewhere. False: it could not be made up. */
bool client_submit(struct client *client, enum op_kind kind);
/* One block-aligned request at a place of the caller's choice, for fills. src is for SAME and
 * CLONE. */
void client_submit_at(struct client *client, enum op_kind kind, uint64_t block, uint32_t blocks,
		      uint64_t src);

#endif
