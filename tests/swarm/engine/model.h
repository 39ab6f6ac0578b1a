/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * model - what every sector of the volume may read, live and after a crash, for volumes of any size
 *
 * tests/sim/oracle keeps a list of versions for each sector and an entry for each block of the
 * volume. Here a block that was never touched costs nothing, and one version stands for all the
 * sectors of a block that a request wrote (a *mask*): the swarm clones whole regions.
 *
 * Time is a count of events. A request has an interval, from submission to answer, and its versions
 * took effect somewhere in it.
 *
 *   Live           v is forbidden when some v' of the sector was submitted after v ended, and
 *                  succeeded before the read was submitted.
 *   After a crash  v is forbidden when some v' that is durable was submitted after v ended. v' is
 *                  durable when its request succeeded with FUA, or before a good flush was
 *                  submitted; where the process alone ended, also when it was lasting.
 *   A clone        is whatever its source could have been read as while the clone ran. It is
 *                  resolved when it is answered.
 *   A failed or cancelled request makes versions that may be there and forbid nothing, a refused
 *                  one none.
 *   After recovery what was read first is the only version, and durable.
 *
 * Left to the simulator's oracle: sectors of a block from before and after a remapping mixed
 * (boundaries), sharing that has to survive, garbage in torn sectors.
 *
 * Units     blocks and sectors of the volume; a sector of a block is 0 to 7.
 * Memory    grows with the blocks touched; asserts instead of failing.
 * Threads   one.
 */
#ifndef TESTS_SWARM_ENGINE_MODEL_H
#define TESTS_SWARM_ENGINE_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/units.h"
#include "tests/lib/content.h"

#define MODEL_NEVER UINT64_MAX
#define MODEL_TEXT  600
#define MODEL_ALL   0xffu

enum model_end {
	MODEL_OK,
	MODEL_FAILED, /* or cancelled, or done in part */
	MODEL_REFUSED, /* changed nothing */
};

struct model_op {
	uint64_t submitted;
	uint64_t ended; /* MODEL_NEVER while it runs */
	enum model_end end;
	bool fua;
	bool lasting;
	const char *what; /* static */
};

struct version {
	uint32_t op;
	uint32_t id; /* of content, unless it is a clone that is not resolved */
	uint64_t source; /* then: the source's block + 1 */
	uint8_t mask;
};

struct history {
	struct version *versions;
	uint32_t count;
	uint32_t capacity;
	uint32_t running; /* requests in flight that may change it */
};

struct model_region {
	uint32_t region;
	uint64_t written; /* when a write last changed it, at the earliest */
	struct history blocks[REGION_BLOCKS];
};

struct model {
	struct model_region **regions; /* in order of first touch */
	uint32_t region_count;
	uint32_t region_capacity;
	uint32_t *slots; /* a hash table: index in regions + 1 */
	uint32_t slot_count;
	struct model_op *ops; /* of this life; 0 is what recovery read */
	uint32_t op_count;
	uint32_t op_capacity;
	uint32_t oldest_running; /* no op before this one runs */
	uint64_t now;
	uint64_t horizon; /* what succeeded before is durable */
};

void model_init(struct model *model);
void model_done(struct model *model);

/* The region's record, or NULL: it was never touched. */
struct model_region *model_region(const struct model *model, uint32_t region);

uint32_t model_begin(struct model *model, const char *what, bool fua, bool lasting);
/* The op may write this into the sectors of the block. */
void model_writes(struct model *model, uint32_t op, uint64_t block, uint8_t mask, uint32_t id);
/* It may make the block what source is. */
void model_clones(struct model *model, uint32_t op, uint64_t block, uint64_t source);
/* The op is under way in the block, or left it after model_end(): once each, for every block that
 * it has versions in. */
void model_enter(struct model *model, uint64_t block);
void model_leave(struct model *model, uint64_t block);
void model_end(struct model *model, uint32_t op, enum model_end end);
/* A flush that was this op succeeded. */
void model_flushed(struct model *model, uint32_t op);
/* Everything that succeeded is durable: a clean end. */
void model_closed(struct model *model);

/* Whether a read that was this op may return these eight contents (those of the mask). */
bool model_may_read(const struct model *model, uint32_t op, uint64_t block, uint8_t mask,
		    const uint32_t *ids, char *ret_text);
/* Whether a crash now may leave the block so. */
bool model_may_leave(const struct model *model, bool process, uint64_t block, const uint32_t *ids,
		     char *ret_text);
/* Whether the sector's content has been certain since the event; its id. */
bool model_certain(const struct model *model, uint64_t block, unsigned sector, uint64_t since,
		   uint32_t *ret_id);
/* Nothing that may change the block is in flight. */
bool model_is_still(const struct model *model, uint64_t block);

/* A new life begins; then each block of each touched region is told. */
void model_recovered(struct model *model);
void model_recovered_block(struct model *model, uint64_t block, const uint32_t *ids);

#endif
