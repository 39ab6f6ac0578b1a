/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/sim/oracle.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CLONE_DEPTH_MAX 6u
#define PRUNE_FROM	6u
#define IDS_MAX		64u
#define NOBODY		UINT32_MAX

/* --- memory --- */

void oracle_init(struct oracle *oracle, uint64_t block_count)
{
	memset(oracle, 0, sizeof(*oracle));
	oracle->block_count = block_count;
	oracle->blocks = calloc(block_count, sizeof(oracle->blocks[0]));
	oracle->touched = calloc(block_count, sizeof(oracle->touched[0]));
	assert(oracle->blocks && oracle->touched);
	oracle_recovered(oracle);
}

void oracle_done(struct oracle *oracle)
{
	for (uint32_t i = 0; i < oracle->touched_count; i++) {
		struct oracle_block *block = oracle->blocks[oracle->touched[i]];

		for (unsigned s = 0; s < BLOCK_SECTORS; s++)
			free(block->sectors[s].versions);
		free(block->boundaries);
		free(block);
	}
	free(oracle->blocks);
	free(oracle->touched);
	free(oracle->ops);
	free(oracle->groups);
}

/* Room for one more; capacities double. */
static void *grow(void *array, uint32_t count, uint32_t *capacity, size_t size)
{
	if (count < *capacity)
		return array;
	*capacity = *capacity * 2 + 4;
	array = realloc(array, *capacity * size);
	assert(array != NULL);
	return array;
}

static uint32_t op_new(struct oracle *oracle, bool fua, const char *what)
{
	struct oracle_op *op;

	oracle->ops =
		grow(oracle->ops, oracle->op_count, &oracle->op_capacity, sizeof(oracle->ops[0]));
	op = &oracle->ops[oracle->op_count];
	*op = (struct oracle_op){.submitted = ++oracle->now, .ended = ORACLE_NEVER, .fua = fua};
	snprintf(op->what, sizeof(op->what), "%s", what);
	return oracle->op_count++;
}

static struct version *version_add(struct oracle_sector *sector, uint32_t op, uint32_t id)
{
	sector->versions = grow(sector->versions, sector->count, &sector->capacity,
				sizeof(sector->versions[0]));
	sector->versions[sector->count] = (struct version){
		.op = op,
		.id = id,
		.seen = ORACLE_NEVER,
		.gone = ORACLE_NEVER,
	};
	return &sector->versions[sector->count++];
}

/* The block's record; a block that was never touched is a hole since the life began (op 0). */
static struct oracle_block *touch(struct oracle *oracle, uint64_t number)
{
	struct oracle_block *block = oracle->blocks[number];

	assert(number < oracle->block_count);
	if (block != NULL)
		return block;
	block = calloc(1, sizeof(*block));
	assert(block != NULL);
	block->hole = true;
	for (unsigned s = 0; s < BLOCK_SECTORS; s++)
		version_add(&block->sectors[s], 0, CONTENT_ZERO);
	oracle->blocks[number] = block;
	block->index = oracle->touched_count;
	oracle->touched[oracle->touched_count++] = number;
	return block;
}

/* --- order --- */

static const struct oracle_op *op_of(const struct oracle *oracle, const struct version *version)
{
	return &oracle->ops[version->op];
}

static bool op_good(const struct oracle_op *op)
{
	return op->ended != ORACLE_NEVER && op->result == ORACLE_OK;
}

static bool op_durable(const struct oracle *oracle, const struct oracle_op *op)
{
	return op_good(op) && (op->fua || op->ended < oracle->horizon);
}

static bool op_refused(const struct oracle_op *op)
{
	return op->ended != ORACLE_NEVER && op->result == ORACLE_REFUSED;
}

/* When it had taken effect for sure. */
static uint64_t effective(const struct oracle *oracle, const struct version *version)
{
	const struct oracle_op *op = op_of(oracle, version);

	return op_good(op) && op->ended < version->seen ? op->ended : version->seen;
}

/* The latest submission of any version of the sector that is durable. */
static uint64_t durable_since(const struct oracle *oracle, const struct oracle_sector *sector)
{
	uint64_t since = 0;

	for (uint32_t i = 0; i < sector->count; i++) {
		const struct oracle_op *op = op_of(oracle, &sector->versions[i]);

		if (op_durable(oracle, op) && op->submitted > since)
			since = op->submitted;
	}
	return since;
}

/* Whether something had replaced the version for sure at this time. */
static bool overwritten(const struct oracle *oracle, const struct oracle_sector *sector,
			const struct version *version, uint64_t at)
{
	uint64_t ended = op_of(oracle, version)->ended;

	if (ended == ORACLE_NEVER)
		return false;
	for (uint32_t i = 0; i < sector->count; i++) {
		const struct version *other = &sector->versions[i];

		if (op_of(oracle, other)->submitted > ended && effective(oracle, other) <= at)
			return true;
	}
	return false;
}

static bool version_matches(const struct oracle *oracle, const struct version *version,
			    unsigned index, uint32_t id, unsigned depth);

/* Whether the source could be read as id at any time while the clone ran. */
static bool clone_matches(const struct oracle *oracle, const struct version *clone, unsigned index,
			  uint32_t id, unsigned depth)
{
	const struct oracle_block *block = oracle->blocks[clone->source - 1];
	const struct oracle_sector *sector = &block->sectors[index];
	const struct oracle_op *op = op_of(oracle, clone);

	if (depth >= CLONE_DEPTH_MAX)
		return true;
	for (uint32_t i = 0; i < sector->count; i++) {
		const struct version *version = &sector->versions[i];
		const struct oracle_op *by = op_of(oracle, version);

		if (op_refused(by) || by->submitted > op->ended || version == clone ||
		    version->gone <= op->submitted ||
		    overwritten(oracle, sector, version, op->submitted))
			continue;
		if (version_matches(oracle, version, index, id, depth + 1))
			return true;
	}
	return false;
}

static bool version_matches(const struct oracle *oracle, const struct version *version,
			    unsigned index, uint32_t id, unsigned depth)
{
	if (version->source == 0)
		return version->id == id;
	return clone_matches(oracle, version, index, id, depth);
}

/* --- requests --- */

uint32_t oracle_begin(struct oracle *oracle, bool fua, const char *what)
{
	return op_new(oracle, fua, what);
}

/* When the oldest request that runs was submitted: what was overwritten before then, no read can
 * return. */
static uint64_t oldest_running(const struct oracle *oracle)
{
	for (uint32_t i = 0; i < oracle->op_count; i++)
		if (oracle->ops[i].ended == ORACLE_NEVER)
			return oracle->ops[i].submitted;
	return oracle->now;
}

/* Forgets versions that neither a crash nor a read can bring back. */
static void prune(const struct oracle *oracle, struct oracle_sector *sector)
{
	uint64_t running = oldest_running(oracle), since = 0;
	uint32_t kept = 0;

	for (uint32_t i = 0; i < sector->count; i++) {
		const struct oracle_op *op = op_of(oracle, &sector->versions[i]);

		if (op_durable(oracle, op) && op->ended < running && op->submitted > since)
			since = op->submitted;
	}
	for (uint32_t i = 0; i < sector->count; i++)
		if (op_of(oracle, &sector->versions[i])->ended >= since)
			sector->versions[kept++] = sector->versions[i];
	sector->count = kept;
}

static bool certainly_shared(const struct oracle *oracle, const struct oracle_block *block)
{
	return block->group != 0 && oracle->groups[block->group].members > 1;
}

static void add_boundary(struct oracle *oracle, struct oracle_block *block,
			 struct boundary boundary)
{
	uint32_t kept = 0;

	/* What is older than a durable boundary is forbidden by itself. */
	for (uint32_t i = 0; i < block->boundary_count; i++)
		if (!op_durable(oracle, &oracle->ops[block->boundaries[i].op]))
			block->boundaries[kept++] = block->boundaries[i];
	block->boundary_count = kept;
	block->boundaries = grow(block->boundaries, block->boundary_count,
				 &block->boundary_capacity, sizeof(block->boundaries[0]));
	block->boundaries[block->boundary_count++] = boundary;
}

/* Requests that run may have been overtaken: their writes may find the block private. */
static void doubt_boundaries(const struct oracle *oracle, struct oracle_block *block,
			     uint32_t group)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < block->boundary_count; i++) {
		const struct boundary *boundary = &block->boundaries[i];

		if (boundary->always || oracle->ops[boundary->op].ended != ORACLE_NEVER ||
		    (group != 0 && boundary->group != group))
			block->boundaries[kept++] = *boundary;
	}
	block->boundary_count = kept;
}

/* Those that shared with the block have one owner less to count on. */
static void leave_group(struct oracle *oracle, struct oracle_block *block)
{
	uint32_t group = block->group;

	if (group == 0)
		return;
	block->group = 0;
	oracle->groups[group].members--;
	for (uint32_t i = 0; i < oracle->touched_count; i++) {
		struct oracle_block *other = oracle->blocks[oracle->touched[i]];

		if (other != block && other->boundary_count > 0)
			doubt_boundaries(oracle, other, group);
	}
}

static bool is_newest_boundary(const struct oracle_block *block, uint32_t op)
{
	return block->boundary_count > 0 && block->boundaries[block->boundary_count - 1].op == op;
}

void oracle_writes(struct oracle *oracle, uint32_t op, uint64_t number, unsigned index, uint32_t id)
{
	struct oracle_block *block = touch(oracle, number);
	struct oracle_sector *sector = &block->sectors[index];

	if (is_newest_boundary(block, op)) {
		block->boundaries[block->boundary_count - 1].written |= (uint8_t)(1u << index);
	} else if (block->running == 0 && (block->hole || certainly_shared(oracle, block))) {
		add_boundary(oracle, block,
			     (struct boundary){op, block->group, (uint8_t)(1u << index), false});
	}
	if (sector->count >= PRUNE_FROM)
		prune(oracle, sector);
	version_add(sector, op, id);
}

void oracle_enter(struct oracle *oracle, uint32_t op, uint64_t number, bool merge)
{
	struct oracle_block *block = touch(oracle, number);

	leave_group(oracle, block);
	if (block->running > 0)
		doubt_boundaries(oracle, block, 0);
	block->alone = block->running == 0 ? op : NOBODY;
	block->running++;
	block->stirred = ++oracle->now;
	if (!merge)
		block->hole = false;
}

void oracle_punches(struct oracle *oracle, uint32_t op, uint64_t number)
{
	struct oracle_block *block = touch(oracle, number);

	add_boundary(oracle, block, (struct boundary){op, 0, 0xff, true});
	for (unsigned s = 0; s < BLOCK_SECTORS; s++)
		oracle_writes(oracle, op, number, s, CONTENT_ZERO);
}

void oracle_clones(struct oracle *oracle, uint32_t op, uint64_t number, uint64_t source)
{
	struct oracle_block *block = touch(oracle, number);

	touch(oracle, source);
	add_boundary(oracle, block, (struct boundary){op, 0, 0xff, true});
	for (unsigned s = 0; s < BLOCK_SECTORS; s++) {
		oracle_writes(oracle, op, number, s, CONTENT_ZERO);
		block->sectors[s].versions[block->sectors[s].count - 1].source =
			(uint32_t)source + 1;
	}
}

void oracle_end(struct oracle *oracle, uint32_t op, enum oracle_result result)
{
	assert(oracle->ops[op].ended == ORACLE_NEVER);
	oracle->ops[op].ended = ++oracle->now;
	oracle->ops[op].result = result;
	if (result == ORACLE_OK && oracle->ops[op].fua)
		oracle->tightened++;
}

/* All contents that an unresolved clone may have, while its source's history is still there. */
static uint32_t candidates(const struct oracle *oracle, const struct version *version,
			   unsigned index, uint32_t *ids, uint32_t count, unsigned depth)
{
	const struct oracle_op *op = op_of(oracle, version);
	const struct oracle_sector *sector;

	if (version->source == 0) {
		for (uint32_t i = 0; i < count; i++)
			if (ids[i] == version->id)
				return count;
		assert(count < IDS_MAX);
		ids[count] = version->id;
		return count + 1;
	}
	sector = &oracle->blocks[version->source - 1]->sectors[index];
	for (uint32_t i = 0; i < sector->count && depth < CLONE_DEPTH_MAX; i++) {
		const struct version *other = &sector->versions[i];

		if (!op_refused(op_of(oracle, other)) && other != version &&
		    other->gone > op->submitted &&
		    !overwritten(oracle, sector, other, op->submitted))
			count = candidates(oracle, other, index, ids, count, depth + 1);
	}
	return count;
}

static void resolve(struct oracle *oracle, struct oracle_block *block, unsigned index)
{
	struct oracle_sector *sector = &block->sectors[index];

	for (uint32_t i = 0; i < sector->count; i++) {
		struct version *version = &sector->versions[i];
		uint32_t ids[IDS_MAX], count, op = version->op;

		if (version->source == 0 || op_of(oracle, version)->ended == ORACLE_NEVER)
			continue;
		count = candidates(oracle, version, index, ids, 0, 0);
		assert(count > 0);
		version->source = 0;
		version->id = ids[0];
		for (uint32_t n = 1; n < count; n++)
			version_add(sector, op, ids[n]);
	}
}

void oracle_leave(struct oracle *oracle, uint64_t number)
{
	struct oracle_block *block = oracle->blocks[number];

	assert(block->running > 0);
	block->running--;
	block->stirred = oracle->now;
	for (unsigned s = 0; s < BLOCK_SECTORS; s++)
		resolve(oracle, block, s);
}

/* Whether the op had the block to itself while it ran. */
static bool was_alone(const struct oracle_block *block, uint32_t op)
{
	return block->running == 0 && block->alone == op;
}

void oracle_is_hole(struct oracle *oracle, uint32_t op, uint64_t number)
{
	struct oracle_block *block = oracle->blocks[number];

	if (was_alone(block, op))
		block->hole = true;
}

void oracle_is_shared(struct oracle *oracle, uint32_t op, uint64_t number, uint64_t source)
{
	struct oracle_block *block = oracle->blocks[number], *from = oracle->blocks[source];
	bool durable = oracle->ops[op].fua;

	if (!was_alone(block, op) || from->running > 0 || from->stirred > oracle->ops[op].submitted)
		return;
	if (from->group == 0 || (durable && !oracle->groups[from->group].durable)) {
		/* A sync merge makes a group of just these two: the others may not be durable. */
		leave_group(oracle, from);
		oracle->groups = grow(oracle->groups, oracle->group_count + 1,
				      &oracle->group_capacity, sizeof(oracle->groups[0]));
		from->group = ++oracle->group_count;
		oracle->groups[from->group] = (struct share_group){1, durable};
	}
	if (oracle->groups[from->group].durable && !durable)
		return;
	block->group = from->group;
	oracle->groups[from->group].members++;
	if (durable)
		oracle->tightened++;
}

void oracle_flushed(struct oracle *oracle, uint32_t op)
{
	if (oracle->ops[op].submitted > oracle->horizon) {
		oracle->horizon = oracle->ops[op].submitted;
		oracle->tightened++;
	}
}

void oracle_closed(struct oracle *oracle)
{
	oracle->horizon = ++oracle->now;
	oracle->tightened++;
}

/* --- questions --- */

static void describe(const struct oracle *oracle, uint64_t number, unsigned index, uint32_t id,
		     const char *why, char *ret_text)
{
	const struct oracle_sector *sector = &oracle->blocks[number]->sectors[index];
	int at = snprintf(ret_text, ORACLE_TEXT,
			  "block %" PRIu64 " sector %u reads %" PRId32 ": %s; horizon %" PRIu64
			  "; versions",
			  number, index, (int32_t)id, why, oracle->horizon);

	for (uint32_t i = 0; i < sector->count && at < ORACLE_TEXT - 96; i++) {
		const struct version *version = &sector->versions[i];
		const struct oracle_op *op = op_of(oracle, version);

		at += snprintf(ret_text + at, (size_t)(ORACLE_TEXT - at),
			       " %s%" PRIu32 "@%" PRIu64 "-%" PRId64 "%s",
			       version->source ? "<-" : "",
			       version->source ? version->source - 1 : version->id, op->submitted,
			       (int64_t)op->ended,
			       op->ended == ORACLE_NEVER ? ""
			       : op->result == ORACLE_OK ? (op->fua ? "F" : "")
							 : "x");
	}
}

static bool live_allowed(const struct oracle *oracle, const struct oracle_sector *sector,
			 const struct version *version, uint64_t since)
{
	return !op_refused(op_of(oracle, version)) && version->gone > since &&
	       !overwritten(oracle, sector, version, since);
}

bool oracle_read(struct oracle *oracle, uint32_t op, uint64_t number, unsigned index, uint32_t id,
		 char *ret_text)
{
	uint64_t since = oracle->ops[op].submitted;
	struct oracle_block *block = touch(oracle, number);
	struct oracle_sector *sector = &block->sectors[index];
	struct version *match = NULL;
	uint32_t matches = 0;

	for (uint32_t i = 0; i < sector->count; i++) {
		struct version *version = &sector->versions[i];

		if (!live_allowed(oracle, sector, version, since) ||
		    !version_matches(oracle, version, index, id, 0))
			continue;
		match = version;
		matches++;
	}
	if (matches == 0) {
		describe(oracle, number, index, id, "a live read may not return that", ret_text);
		return false;
	}
	if (matches == 1 && match->source == 0 && oracle->now < match->seen)
		match->seen = oracle->now;
	for (uint32_t i = 0; i < sector->count; i++) {
		struct version *version = &sector->versions[i];

		if (op_of(oracle, version)->ended <= since && oracle->now < version->gone &&
		    !version_matches(oracle, version, index, id, 0))
			version->gone = oracle->now;
	}
	return true;
}

static bool crash_allowed(const struct oracle *oracle, const struct version *version,
			  uint64_t durable)
{
	const struct oracle_op *op = op_of(oracle, version);

	return !op_refused(op) && !(op->ended < durable);
}

/* Rule 1: some version that a crash may leave has this content. */
static bool sector_allowed(const struct oracle *oracle, const struct oracle_sector *sector,
			   unsigned index, uint32_t id)
{
	uint64_t durable = durable_since(oracle, sector);

	for (uint32_t i = 0; i < sector->count; i++)
		if (crash_allowed(oracle, &sector->versions[i], durable) &&
		    version_matches(oracle, &sector->versions[i], index, id, 0))
			return true;
	return false;
}

static bool has_boundary(const struct oracle_block *block, uint32_t op)
{
	for (uint32_t i = 0; i < block->boundary_count; i++)
		if (block->boundaries[i].op == op)
			return true;
	return false;
}

/* An unfinished write that may have gone in place. */
static bool garbage_allowed(const struct oracle *oracle, const struct oracle_block *block,
			    unsigned index)
{
	const struct oracle_sector *sector = &block->sectors[index];

	for (uint32_t i = 0; i < sector->count; i++)
		if (op_of(oracle, &sector->versions[i])->ended == ORACLE_NEVER &&
		    !has_boundary(block, sector->versions[i].op))
			return true;
	return false;
}

/* Whether the version is of the boundary, or of a request that came after it. A boundary that
 * failed may not have happened: only what it wrote itself proves that it did. */
static bool is_after(const struct oracle *oracle, const struct version *version, uint32_t boundary)
{
	const struct oracle_op *op = &oracle->ops[boundary];

	return version->op == boundary ||
	       (op_good(op) && op_of(oracle, version)->submitted > op->ended);
}

/* Whether the boundary certainly replaced it, or copied something newer. */
static bool is_before(const struct oracle *oracle, const struct oracle_sector *sector,
		      const struct version *version, const struct boundary *boundary,
		      unsigned index)
{
	uint64_t at = oracle->ops[boundary->op].submitted;

	if (version->op == boundary->op)
		return false;
	if (boundary->written & (1u << index))
		return op_of(oracle, version)->ended < at;
	return overwritten(oracle, sector, version, at);
}

/* Rule 2, for one boundary: which of the two sides of it the sector's content can be on. */
static void sides(const struct oracle *oracle, const struct oracle_block *block,
		  const struct boundary *boundary, unsigned index, uint32_t id, bool *ret_all_after,
		  bool *ret_all_before)
{
	const struct oracle_sector *sector = &block->sectors[index];
	uint64_t durable = durable_since(oracle, sector);

	*ret_all_after = true;
	*ret_all_before = true;
	for (uint32_t i = 0; i < sector->count; i++) {
		const struct version *version = &sector->versions[i];

		if (!crash_allowed(oracle, version, durable) ||
		    !version_matches(oracle, version, index, id, 0))
			continue;
		if (!is_after(oracle, version, boundary->op))
			*ret_all_after = false;
		if (!is_before(oracle, sector, version, boundary, index))
			*ret_all_before = false;
	}
}

static bool boundary_kept(const struct oracle *oracle, uint64_t number,
			  const struct boundary *boundary, const uint32_t *ids, char *ret_text)
{
	const struct oracle_block *block = oracle->blocks[number];
	unsigned after = BLOCK_SECTORS, before = BLOCK_SECTORS;
	char why[160];

	for (unsigned s = 0; s < BLOCK_SECTORS; s++) {
		bool all_after, all_before;

		if (ids[s] == CONTENT_GARBAGE)
			continue;
		sides(oracle, block, boundary, s, ids[s], &all_after, &all_before);
		if (all_after)
			after = s;
		if (all_before)
			before = s;
	}
	if (after == BLOCK_SECTORS || before == BLOCK_SECTORS)
		return true;
	snprintf(why, sizeof(why),
		 "older than \"%s\"@%" PRIu64 ", but sector %u (%" PRIu32 ") is not",
		 oracle->ops[boundary->op].what, oracle->ops[boundary->op].submitted, after,
		 ids[after]);
	describe(oracle, number, before, ids[before], why, ret_text);
	return false;
}

bool oracle_crash_block(const struct oracle *oracle, uint64_t number, const uint32_t *ids,
			bool garbage, char *ret_text)
{
	const struct oracle_block *block = oracle->blocks[number];

	for (unsigned s = 0; s < BLOCK_SECTORS; s++) {
		if (ids[s] == CONTENT_GARBAGE) {
			if (garbage && garbage_allowed(oracle, block, s))
				continue;
			describe(oracle, number, s, ids[s], "garbage", ret_text);
			return false;
		}
		if (!sector_allowed(oracle, &block->sectors[s], s, ids[s])) {
			describe(oracle, number, s, ids[s], "a crash may not leave that", ret_text);
			return false;
		}
	}
	for (uint32_t i = 0; i < block->boundary_count; i++)
		if (!boundary_kept(oracle, number, &block->boundaries[i], ids, ret_text))
			return false;
	return true;
}

bool oracle_certain(const struct oracle *oracle, uint64_t number, unsigned index, uint64_t since,
		    uint32_t *ret_id)
{
	const struct oracle_block *block = oracle->blocks[number];
	const struct oracle_sector *sector;
	bool found = false;

	if (block == NULL) {
		*ret_id = CONTENT_ZERO;
		return true;
	}
	sector = &block->sectors[index];
	for (uint32_t i = 0; i < sector->count; i++) {
		const struct version *version = &sector->versions[i];

		if (op_refused(op_of(oracle, version)) || version->gone <= since ||
		    overwritten(oracle, sector, version, since))
			continue;
		if (version->source != 0 || (found && version->id != *ret_id))
			return false;
		/* Still running, or failed, or begun later: another one may be the newest. */
		*ret_id = version->id;
		found = true;
	}
	return found;
}

uint32_t oracle_durable_group(const struct oracle *oracle, uint64_t number)
{
	uint32_t group = oracle->blocks[number] ? oracle->blocks[number]->group : 0;

	return group != 0 && oracle->groups[group].durable ? group : 0;
}

bool oracle_is_touched(const struct oracle *oracle, uint64_t number)
{
	return oracle->blocks[number] != NULL;
}

/* --- recovery --- */

void oracle_recovered(struct oracle *oracle)
{
	oracle->op_count = 0;
	oracle->group_count = 0;
	op_new(oracle, true, "what was read after recovery");
	oracle->ops[0].ended = ++oracle->now;
	oracle->ops[0].result = ORACLE_OK;
	oracle->horizon = oracle->now;
	oracle->tightened++;
}

void oracle_recovered_block(struct oracle *oracle, uint64_t number, const uint32_t *ids, bool hole)
{
	struct oracle_block *block = touch(oracle, number);

	for (unsigned s = 0; s < BLOCK_SECTORS; s++) {
		block->sectors[s].count = 0;
		version_add(&block->sectors[s], 0, ids[s]);
	}
	block->boundary_count = 0;
	block->running = 0;
	block->alone = NOBODY;
	block->stirred = oracle->now;
	block->group = 0;
	block->hole = hole;
}
