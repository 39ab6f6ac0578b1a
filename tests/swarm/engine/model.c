/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/swarm/engine/model.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX     8u /* clones of clones that are all still running */
#define LOOKS_MAX     500u
#define PRUNE_FROM    4u
#define CANDIDATE_MAX 64u
#define ANYTHING      (CONTENT_GARBAGE - 1) /* a clone of what may have been too many things */

/* --- memory --- */

static void *grow(void *array, uint32_t count, uint32_t *capacity, size_t size)
{
	if (count < *capacity)
		return array;
	*capacity = *capacity * 2 + 2;
	array = realloc(array, *capacity * size);
	assert(array != NULL);
	return array;
}

void model_init(struct model *model)
{
	*model = (struct model){.slot_count = 64};
	model->slots = calloc(model->slot_count, sizeof(model->slots[0]));
	assert(model->slots);
	model_recovered(model);
}

void model_done(struct model *model)
{
	for (uint32_t i = 0; i < model->region_count; i++) {
		for (uint32_t b = 0; b < REGION_BLOCKS; b++)
			free(model->regions[i]->blocks[b].versions);
		free(model->regions[i]);
	}
	free(model->regions);
	free(model->slots);
	free(model->ops);
}

static uint32_t *slot_of(const struct model *model, uint32_t region)
{
	uint32_t at = (region * 2654435761u >> 7) & (model->slot_count - 1);

	while (model->slots[at] != 0 && model->regions[model->slots[at] - 1]->region != region)
		at = (at + 1) & (model->slot_count - 1);
	return &model->slots[at];
}

struct model_region *model_region(const struct model *model, uint32_t region)
{
	uint32_t slot = *slot_of(model, region);

	return slot == 0 ? NULL : model->regions[slot - 1];
}

static struct model_region *touch_region(struct model *model, uint32_t region)
{
	struct model_region *r = model_region(model, region);

	if (r != NULL)
		return r;
	r = calloc(1, sizeof(*r));
	assert(r != NULL);
	r->region = region;
	model->regions = grow(model->regions, model->region_count, &model->region_capacity,
			      sizeof(struct model_region *));
	model->regions[model->region_count++] = r;
	if (model->region_count * 2 > model->slot_count) {
		free(model->slots);
		model->slot_count *= 4;
		model->slots = calloc(model->slot_count, sizeof(model->slots[0]));
		assert(model->slots);
		for (uint32_t i = 0; i + 1 < model->region_count; i++)
			*slot_of(model, model->regions[i]->region) = i + 1;
	}
	*slot_of(model, region) = model->region_count;
	return r;
}

static void version_add(struct history *history, struct version version)
{
	history->versions =
		grow(history->versions, history->count, &history->capacity, sizeof(version));
	history->versions[history->count++] = version;
}

/* What is in a block that was never touched: zeros, since the life began. */
static const struct version untouched = {.mask = MODEL_ALL};

static struct history *touch(struct model *model, uint64_t block)
{
	struct model_region *region = touch_region(model, (uint32_t)(block / REGION_BLOCKS));
	struct history *history = &region->blocks[block % REGION_BLOCKS];

	if (history->count == 0)
		version_add(history, untouched);
	return history;
}

/* For looking at. */
static struct history history_of(const struct model *model, uint64_t block)
{
	const struct model_region *region = model_region(model, (uint32_t)(block / REGION_BLOCKS));
	struct history none = {.versions = (struct version *)(uintptr_t)&untouched, .count = 1};

	if (region == NULL || region->blocks[block % REGION_BLOCKS].count == 0)
		return none;
	return region->blocks[block % REGION_BLOCKS];
}

/* --- order --- */

static const struct model_op *op_of(const struct model *model, const struct version *version)
{
	return &model->ops[version->op];
}

static bool op_good(const struct model_op *op)
{
	return op->ended != MODEL_NEVER && op->end == MODEL_OK;
}

static bool op_durable(const struct model *model, const struct model_op *op, bool process)
{
	return op_good(op) && (op->fua || op->ended < model->horizon || (process && op->lasting));
}

static bool op_refused(const struct model_op *op)
{
	return op->ended != MODEL_NEVER && op->end == MODEL_REFUSED;
}

/* Whether something had replaced these sectors of the version for sure by then: the sectors that
 * are left. */
static uint8_t left_at(const struct model *model, const struct history *history,
		       const struct version *version, uint64_t at)
{
	uint64_t ended = op_of(model, version)->ended;
	uint8_t mask = op_refused(op_of(model, version)) ? 0 : version->mask;

	if (ended == MODEL_NEVER)
		return mask;
	for (uint32_t i = history->count; i-- > 0 && mask != 0;) {
		const struct model_op *other = op_of(model, &history->versions[i]);

		if (other->submitted > ended && op_good(other) && other->ended <= at)
			mask &= (uint8_t)~history->versions[i].mask;
	}
	return mask;
}

/* The sectors of the version that a crash may leave. */
static uint8_t left_by_crash(const struct model *model, const struct history *history,
			     const struct version *version, bool process)
{
	uint64_t ended = op_of(model, version)->ended;
	uint8_t mask = op_refused(op_of(model, version)) ? 0 : version->mask;

	if (ended == MODEL_NEVER)
		return mask;
	for (uint32_t i = history->count; i-- > 0 && mask != 0;) {
		const struct model_op *other = op_of(model, &history->versions[i]);

		if (other->submitted > ended && op_durable(model, other, process))
			mask &= (uint8_t)~history->versions[i].mask;
	}
	return mask;
}

/* The contents that a clone of what is being cloned may have. */
struct candidates {
	unsigned sector;
	uint32_t ids[CANDIDATE_MAX];
	uint32_t count; /* CANDIDATE_MAX: too many, it may be anything */
	uint32_t looked; /* at versions */
	const struct version *path[DEPTH_MAX]; /* clones of clones */
};

static void add_candidate(struct candidates *c, uint32_t id)
{
	for (uint32_t i = 0; i < c->count; i++)
		if (c->count == CANDIDATE_MAX || c->ids[i] == id)
			return;
	if (id == ANYTHING)
		c->count = CANDIDATE_MAX;
	else
		c->ids[c->count++] = id;
}

/* What the sector of the clone's source could be read as while the clone ran. */
static void find_candidates(const struct model *model, const struct version *clone, unsigned depth,
			    struct candidates *c)
{
	const struct model_op *op = op_of(model, clone);
	struct history source = history_of(model, clone->source - 1);

	for (unsigned i = 0; i < depth; i++)
		if (c->path[i] == clone)
			return;
	if (depth == DEPTH_MAX || (c->looked += source.count) > LOOKS_MAX)
		c->count = CANDIDATE_MAX;
	if (c->count == CANDIDATE_MAX)
		return;
	c->path[depth] = clone;
	for (uint32_t i = 0; i < source.count && c->count < CANDIDATE_MAX; i++) {
		const struct version *version = &source.versions[i];

		if (op_of(model, version)->submitted > op->ended ||
		    !(left_at(model, &source, version, op->submitted) & (1u << c->sector)))
			continue;
		if (version->source == 0)
			add_candidate(c, version->id);
		else
			find_candidates(model, version, depth + 1, c);
	}
}

static bool matches(const struct model *model, const struct version *version, unsigned sector,
		    uint32_t id)
{
	struct candidates c = {.sector = sector};

	if (version->source == 0)
		return version->id == id || version->id == ANYTHING;
	find_candidates(model, version, 0, &c);
	for (uint32_t i = 0; i < c.count; i++)
		if (c.count == CANDIDATE_MAX || c.ids[i] == id)
			return true;
	return false;
}

/* --- requests --- */

uint32_t model_begin(struct model *model, const char *what, bool fua, bool lasting)
{
	model->ops = grow(model->ops, model->op_count, &model->op_capacity, sizeof(model->ops[0]));
	model->ops[model->op_count] = (struct model_op){
		.submitted = ++model->now,
		.ended = MODEL_NEVER,
		.fua = fua,
		.lasting = lasting,
		.what = what,
	};
	return model->op_count++;
}

/* Forgets what neither a crash nor a read in flight can bring back. */
static void prune(struct model *model, struct history *history)
{
	uint64_t running;
	uint32_t kept = 0;

	while (model->oldest_running < model->op_count &&
	       model->ops[model->oldest_running].ended != MODEL_NEVER)
		model->oldest_running++;
	running = model->oldest_running < model->op_count
			  ? model->ops[model->oldest_running].submitted
			  : model->now;
	for (uint32_t i = 0; i < history->count; i++) {
		struct version version = history->versions[i];

		if (left_by_crash(model, history, &version, false) != 0 ||
		    left_at(model, history, &version, running) != 0)
			history->versions[kept++] = version;
	}
	history->count = kept;
}

static void add(struct model *model, uint64_t block, struct version version)
{
	struct history *history = touch(model, block);

	if (history->count >= PRUNE_FROM && history->count == history->capacity)
		prune(model, history);
	version_add(history, version);
}

void model_writes(struct model *model, uint32_t op, uint64_t block, uint8_t mask, uint32_t id)
{
	add(model, block, (struct version){.op = op, .id = id, .mask = mask});
}

void model_clones(struct model *model, uint32_t op, uint64_t block, uint64_t source)
{
	add(model, block, (struct version){.op = op, .source = source + 1, .mask = MODEL_ALL});
}

void model_enter(struct model *model, uint64_t block)
{
	touch(model, block)->running++;
}

/* Adds the sector to the version of the op and the content that is there already, among the last
 * `done` ones, or adds a version. Returns how many there are now. */
static uint32_t resolve_to(struct history *history, uint32_t done, struct version version)
{
	for (uint32_t k = 1; k <= done; k++) {
		struct version *other = &history->versions[history->count - k];

		if (other->id == version.id) {
			other->mask |= version.mask;
			return done;
		}
	}
	version_add(history, version);
	return done + 1;
}

/* A clone is what it was of when it is answered. */
static void resolve(struct model *model, struct history *history)
{
	for (uint32_t i = 0, n = history->count; i < n; i++) {
		struct version clone = history->versions[i];
		uint32_t done = 0;

		if (clone.source == 0 || op_of(model, &clone)->ended == MODEL_NEVER)
			continue;
		for (unsigned s = 0; s < BLOCK_SECTORS; s++) {
			struct candidates c = {.sector = s};

			find_candidates(model, &history->versions[i], 0, &c);
			assert(c.count > 0);
			if (c.count == CANDIDATE_MAX) {
				c.ids[0] = ANYTHING;
				c.count = 1;
			}
			for (uint32_t k = 0; k < c.count; k++)
				done = resolve_to(history, done,
						  (struct version){.op = clone.op,
								   .id = c.ids[k],
								   .mask = (uint8_t)(1u << s)});
		}
		/* The last of them takes the clone's place. */
		history->versions[i] = history->versions[--history->count];
	}
}

void model_leave(struct model *model, uint64_t block)
{
	struct history *history = touch(model, block);

	assert(history->running > 0);
	history->running--;
	resolve(model, history);
}

void model_end(struct model *model, uint32_t op, enum model_end end)
{
	assert(model->ops[op].ended == MODEL_NEVER);
	model->ops[op].ended = ++model->now;
	model->ops[op].end = end;
}

void model_flushed(struct model *model, uint32_t op)
{
	if (model->ops[op].submitted > model->horizon)
		model->horizon = model->ops[op].submitted;
}

void model_closed(struct model *model)
{
	model->horizon = ++model->now;
}

/* --- questions --- */

static void describe(const struct model *model, uint64_t block, unsigned sector, uint32_t id,
		     const char *why, char *ret_text)
{
	struct history history = history_of(model, block);
	int at = snprintf(ret_text, MODEL_TEXT,
			  "block %" PRIu64 " sector %u reads %" PRIx32 ": %s; horizon %" PRIu64
			  "; versions",
			  block, sector, id, why, model->horizon);

	for (uint32_t i = 0; i < history.count && at < MODEL_TEXT - 100; i++) {
		const struct version *version = &history.versions[i];
		const struct model_op *op = op_of(model, version);

		if (!(version->mask & (1u << sector)))
			continue;
		at += snprintf(ret_text + at, (size_t)(MODEL_TEXT - at),
			       " %s%" PRIx64 " by %s@%" PRIu64 "-%" PRId64 "%s%s",
			       version->source ? "<-" : "",
			       version->source ? version->source - 1 : version->id, op->what,
			       op->submitted, (int64_t)op->ended,
			       op->ended == MODEL_NEVER || op->end == MODEL_OK ? "" : " failed",
			       op->fua	     ? " fua"
			       : op->lasting ? " lasting"
					     : "");
	}
}

bool model_may_read(const struct model *model, uint32_t op, uint64_t block, uint8_t mask,
		    const uint32_t *ids, char *ret_text)
{
	struct history history = history_of(model, block);
	uint64_t since = model->ops[op].submitted;
	uint8_t found = (uint8_t)~mask;

	for (uint32_t i = history.count; i-- > 0 && found != MODEL_ALL;) {
		uint8_t left = left_at(model, &history, &history.versions[i], since);

		for (unsigned s = 0; s < BLOCK_SECTORS; s++)
			if (left & ~found & (1u << s) &&
			    matches(model, &history.versions[i], s, ids[s]))
				found |= (uint8_t)(1u << s);
	}
	for (unsigned s = 0; s < BLOCK_SECTORS; s++) {
		if (found & (1u << s))
			continue;
		describe(model, block, s, ids[s], "a live read may not return that", ret_text);
		return false;
	}
	return true;
}

bool model_may_leave(const struct model *model, bool process, uint64_t block, const uint32_t *ids,
		     char *ret_text)
{
	struct history history = history_of(model, block);
	uint8_t found = 0;

	for (uint32_t i = history.count; i-- > 0 && found != MODEL_ALL;) {
		uint8_t left = left_by_crash(model, &history, &history.versions[i], process);

		for (unsigned s = 0; s < BLOCK_SECTORS; s++)
			if (left & ~found & (1u << s) &&
			    matches(model, &history.versions[i], s, ids[s]))
				found |= (uint8_t)(1u << s);
	}
	for (unsigned s = 0; s < BLOCK_SECTORS; s++) {
		if (found & (1u << s))
			continue;
		describe(model, block, s, ids[s], "a crash may not leave that", ret_text);
		return false;
	}
	return true;
}

bool model_certain(const struct model *model, uint64_t block, unsigned sector, uint64_t since,
		   uint32_t *ret_id)
{
	struct history history = history_of(model, block);
	bool found = false;

	for (uint32_t i = 0; i < history.count; i++) {
		const struct version *version = &history.versions[i];

		if (!(version->mask & (1u << sector)) ||
		    !(left_at(model, &history, version, since) & (1u << sector)))
			continue;
		if (version->source != 0 || version->id == ANYTHING ||
		    (found && version->id != *ret_id))
			return false;
		*ret_id = version->id;
		found = true;
	}
	return found;
}

bool model_is_still(const struct model *model, uint64_t block)
{
	return history_of(model, block).running == 0;
}

/* --- recovery --- */

void model_recovered(struct model *model)
{
	model->op_count = 0;
	model->oldest_running = 0;
	model_begin(model, "recovery", true, true);
	model_end(model, 0, MODEL_OK);
	model->horizon = ++model->now;
}

void model_recovered_block(struct model *model, uint64_t block, const uint32_t *ids)
{
	struct model_region *region = model_region(model, (uint32_t)(block / REGION_BLOCKS));
	struct history *history = &region->blocks[block % REGION_BLOCKS];
	uint8_t told = 0;

	history->count = 0;
	history->running = 0;
	for (unsigned s = 0; s < BLOCK_SECTORS; s++) {
		struct version version = {.id = ids[s]};

		if (told & (1u << s))
			continue;
		for (unsigned t = s; t < BLOCK_SECTORS; t++)
			if (ids[t] == ids[s])
				version.mask |= (uint8_t)(1u << t);
		told |= version.mask;
		version_add(history, version);
	}
}
