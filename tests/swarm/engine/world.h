/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * world - a volume on a disk, its clients, and the chance that moves them
 *
 * One thread drives all lanes. In each step one thing happens, as the seed says: a client asks for
 * something, a lane delivers an I/O, a worker runs its mailbox, the timer ticks, a checkpoint
 * begins. Clients tell the model what they ask and what they got.
 *
 *   world_open -> (fill, world_run, quiet) -> world_close, or world_abandon and disk_kill/disk_cut
 *
 * What is asked is made in ask.c, what comes of it is judged in answer.c.
 */
#ifndef TESTS_SWARM_ENGINE_WORLD_H
#define TESTS_SWARM_ENGINE_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "core/request/request.h"
#include "core/request/same_job.h"
#include "core/volume/volume.h"
#include "tests/lib/content.h"
#include "tests/lib/rng.h"
#include "tests/swarm/engine/disk.h"
#include "tests/swarm/engine/draw.h"
#include "tests/swarm/engine/model.h"

#define DSTS_MAX 6u
#define RUNS_MAX 256u

struct world;

/* Blocks that a request may change, as one op of the model. */
struct claim {
	uint32_t op;
	uint64_t first;
	uint64_t end;
};

struct client {
	struct world *world;
	unsigned number;
	bool busy;
	enum op_kind kind;
	bool hopeless; /* asked for when the volume was latched: it has to fail */
	bool alone; /* when it was submitted nothing else was in flight */
	bool exclusive; /* nobody else may change its blocks meanwhile */
	uint32_t op; /* of the model */
	uint64_t full; /* refusals of the backing, before */
	uint32_t claim_count;
	struct claim claims[DSTS_MAX];
	struct request request;
	struct same_job job;
	struct same_dst dsts[DSTS_MAX];
	_Atomic bool cancel;
	uint32_t generation; /* CHANGES: the cut that is asked about */
	uint8_t *data;
	uint64_t data_bytes;
	uint8_t *brought; /* of foreign payload: where the engine sees it */
	uint8_t *scratch;
	struct map_run runs[RUNS_MAX];
};

/* The clone that was asked for last: images are refreshed, cut and cloned again. */
struct image {
	uint64_t src;
	uint64_t dst;
	uint64_t blocks;
};

/* A cut that was answered. */
struct cut {
	uint32_t generation; /* 0: none */
	uint64_t answered; /* event of the model */
};

struct world {
	struct plan plan;
	struct life_plan life;
	unsigned life_number;
	struct rng rng;
	struct disk disk;
	struct model model;
	struct contents contents;
	struct volume *volume;
	struct worker workers[DISK_LANES_MAX];
	struct client clients[CLIENTS_MAX];
	unsigned busy;
	uint32_t next_id;
	uint64_t ops_left; /* of the whole world, for shrinking a failure */
	bool draining;
	struct image image;
	uint64_t last_block; /* that a request began with */
	uint64_t moves; /* since the last request was answered */
	int last_res; /* of the last request that was answered */
	struct cut cut;
	uint64_t freed_bytes; /* what merges said, in this life */
	bool process; /* of the ends since it was last read: none was of the power */
	struct volume_stats empty; /* of the volume as it was made */
	bool leaky; /* a discard failed, or a life gave nothing back: the backing keeps blocks */
	struct damage damage;
};

void world_begin(struct world *world, const struct plan *plan, uint64_t ops_max);
void world_end(struct world *world);

/* As world->life says. 0 or the engine's error; the text is in world->damage. */
int world_open(struct world *world);
int world_close(struct world *world);
void world_abandon(struct world *world);

/* One random step; asks for something new if it may. */
void world_step(struct world *world, bool ask);
/* So many random requests. */
void world_run(struct world *world, unsigned ops);
/* Until every request is answered. */
void world_drain(struct world *world);
/* Until nothing moves any more. */
void world_settle(struct world *world);
/* A client that has nothing to do; drives until there is one. */
struct client *world_client(struct world *world);

static inline bool world_latched(struct world *world)
{
	struct volume_stats stats;

	volume_stats(world->volume, &stats);
	return stats.state == VOLUME_LATCHED;
}

/* Whether every block of the volume has one in the store. */
static inline bool world_provisioned(const struct world *world)
{
	return (world->plan.store == STORE_CREATED || world->plan.store == STORE_ROOMY) &&
	       world->disk.limit_blocks == DISK_NEVER;
}

/* --- ask.c --- */

/* A request of this kind somewhere. False: none could be made up. */
bool ask(struct client *client, enum op_kind kind);
/* One of the caller's choice, in whole blocks; src for SAME and CLONE. */
void ask_at(struct client *client, enum op_kind kind, uint64_t block, uint64_t blocks,
	    uint64_t src);
uint64_t ask_block(struct world *world);
/* A content of the pool for the i-th block of a request. */
uint32_t ask_pool_id(struct world *world, unsigned which, uint64_t i);
extern const char *const op_names[OP_KINDS];

/* --- answer.c --- */

void answer(struct request *request, int res);
void answer_job(struct same_job *job, int res);
/* The ids of the sectors of a block. */
void answer_identify(const struct world *world, const uint8_t *block, uint32_t *ret_ids);

/* --- fill.c --- */

/* What is there before the random part. */
void fill(struct world *world);

/* --- read.c --- */

/* Drives one request of the caller's to its answer. */
int read_request(struct world *world, struct request *request);
/* Reads every block that was ever touched, and tells what it found, region by region. */
void read_touched(struct world *world,
		  void (*found)(struct world *world, void *context, uint64_t block,
				const uint32_t *ids),
		  void *context);

/* --- quiet.c --- */

/* With nothing in flight: everything counted, and read. */
void quiet(struct world *world);
/* All is discarded: nothing may be left. Every free block is used once before. */
void quiet_end(struct world *world);
/* check (cli/check/check.h) on the store as it is. */
void quiet_check(struct world *world, const char *when);

/* --- life.c --- */

void life_run(struct world *world, unsigned number);
/* Everything that was ever touched is read and judged; it is the truth from then on. */
void life_recovered(struct world *world, bool process);
/* Opens once more, and empties. */
void life_last(struct world *world);

#endif
