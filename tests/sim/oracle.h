/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * oracle - what every sector of a volume may read, after a crash and while it runs
 *
 * The driver tells it each request before it is submitted and after it was answered. A request that
 * changes content gives each sector it touches a *version*; a version is never forgotten while it
 * could be read. Time is a count of these events. A version has an interval, from its request's
 * submission to its answer, in which it took effect; one whose request is unfinished has not ended
 * yet.
 *
 *   After a crash   v is forbidden when some v' that is durable was submitted after v ended. v' is
 *                   durable when its request succeeded with FUA, or succeeded before the submission
 *                   of a flush that succeeded.
 *   Live            v is forbidden when some v' was submitted after v ended, and succeeded, or was
 *                   seen by a read, before the read in question was submitted. What a read proved
 *                   to be overwritten does not come back.
 *   A boundary      is a request that must have remapped the block as a whole: discard, zero,
 *                   clone, and every write to a block that is certainly a hole or certainly shared,
 *                   unless another request came in between that may have gone first. If any sector
 *                   is of the boundary or newer, no sector is older than what the boundary replaced
 *                   or copied.
 *   A clone         is a version without content of its own: it may be whatever its source could
 *                   have been read as while the clone ran. It is resolved when it is answered.
 *   A failed or cancelled request makes versions that may be there or not, and that forbid nothing.
 *   A refused request (EINVAL) makes none.
 *   After recovery  what was read is the only version, and durable.
 *
 * It is strict in one more way than reliability.md: a failed request ended when it was answered, so
 * that what is durable and was submitted later forbids it too.
 *
 * Units     sectors of a block are 0 to 7; events are numbered from 1.
 * Memory    allocates as blocks are touched; oracle_done() frees.
 * Threads   one.
 */
#ifndef TESTS_SIM_ORACLE_H
#define TESTS_SIM_ORACLE_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/lib/content.h"

#define ORACLE_NEVER UINT64_MAX
#define ORACLE_TEXT  400

enum oracle_result {
	ORACLE_OK,
	ORACLE_FAILED, /* or cancelled, or done in part */
	ORACLE_REFUSED, /* changed nothing */
};

struct oracle_op {
	uint64_t submitted;
	uint64_t ended; /* ORACLE_NEVER while it runs */
	enum oracle_result result;
	bool fua;
	char what[56]; /* for messages */
};

struct version {
	uint32_t op;
	uint32_t id; /* of content; unless unresolved */
	uint32_t source; /* unresolved clone: the source's block + 1 */
	uint64_t seen; /* when a read proved that it took effect */
	uint64_t gone; /* when a read proved that it was overwritten */
};

struct oracle_sector {
	struct version *versions;
	uint32_t count;
	uint32_t capacity;
};

struct boundary {
	uint32_t op;
	uint32_t group; /* remaps because the block shared with this group; or 0 */
	uint8_t written; /* mask of the sectors that it wrote itself */
	bool always; /* it remaps whatever comes in between */
};

struct oracle_block {
	uint32_t index; /* in touched */
	struct oracle_sector sectors[BLOCK_SECTORS];
	struct boundary *boundaries;
	uint32_t boundary_count;
	uint32_t boundary_capacity;
	uint32_t running; /* requests that may change or remap it */
	uint32_t alone; /* the last of these, if no other ran when it was submitted */
	uint64_t stirred; /* when one was last submitted or answered */
	bool hole; /* certainly, now */
	uint32_t group; /* of blocks that certainly share; 0: none */
};

/* Blocks that a merge or clone made one. */
struct share_group {
	uint32_t members;
	bool durable; /* the sharing must survive a crash */
};

struct oracle {
	uint64_t block_count;
	struct oracle_block **blocks;
	uint64_t *touched; /* blocks that were ever written, in order of first touch */
	uint32_t touched_count;
	struct oracle_op *ops;
	uint32_t op_count;
	uint32_t op_capacity;
	struct share_group *groups;
	uint32_t group_count;
	uint32_t group_capacity;
	uint64_t now;
	uint64_t horizon; /* what succeeded before is durable */
	uint64_t tightened; /* counts events after which less is allowed than before */
};

void oracle_init(struct oracle *oracle, uint64_t block_count);
void oracle_done(struct oracle *oracle);

/* --- requests --- */

uint32_t oracle_begin(struct oracle *oracle, bool fua, const char *what);
/* The op writes this content into a sector. */
void oracle_writes(struct oracle *oracle, uint32_t op, uint64_t block, unsigned sector,
		   uint32_t id);
/* It remaps the whole block: to a hole. */
void oracle_punches(struct oracle *oracle, uint32_t op, uint64_t block);
/* It remaps the block to what source reads from. */
void oracle_clones(struct oracle *oracle, uint32_t op, uint64_t block, uint64_t source);
/* The op is under way in the block: once for each, after its versions were told. A merge makes
 * none: it changes no content, and leaves a hole one. */
void oracle_enter(struct oracle *oracle, uint32_t op, uint64_t block, bool merge);
void oracle_end(struct oracle *oracle, uint32_t op, enum oracle_result result);
/* For each block that was entered, after oracle_end(). */
void oracle_leave(struct oracle *oracle, uint64_t block);
/* After an op that succeeded left: the block is a hole / the two blocks, which read no zeros,
 * are one. */
void oracle_is_hole(struct oracle *oracle, uint32_t op, uint64_t block);
void oracle_is_shared(struct oracle *oracle, uint32_t op, uint64_t block, uint64_t source);
/* A flush with this op succeeded. */
void oracle_flushed(struct oracle *oracle, uint32_t op);
/* Everything that succeeded so far is durable (a clean shutdown). */
void oracle_closed(struct oracle *oracle);

/* --- questions --- */

/* Whether a read that was submitted as op, and is answered now, may return the content; learns
 * from it. */
bool oracle_read(struct oracle *oracle, uint32_t op, uint64_t block, unsigned sector, uint32_t id,
		 char *ret_text);
/* Whether a crash now may leave the block so. garbage: torn sectors may be there at all (hard
 * mode). */
bool oracle_crash_block(const struct oracle *oracle, uint64_t block, const uint32_t *ids,
			bool garbage, char *ret_text);
/* Whether the sector's content is certain as of now and was so since the event; its id. */
bool oracle_certain(const struct oracle *oracle, uint64_t block, unsigned sector, uint64_t since,
		    uint32_t *ret_id);
/* The group that must still share its block after a crash, or 0. */
uint32_t oracle_durable_group(const struct oracle *oracle, uint64_t block);
bool oracle_is_touched(const struct oracle *oracle, uint64_t block);

/* --- recovery --- */

/* A new life begins. Then each touched block is told; the rest is a hole. */
void oracle_recovered(struct oracle *oracle);
void oracle_recovered_block(struct oracle *oracle, uint64_t block, const uint32_t *ids, bool hole);

#endif
