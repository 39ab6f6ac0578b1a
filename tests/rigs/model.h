/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * model - what each sector of a volume may hold after a crash
 *
 * Every block has its versions in the order they were submitted; one thread owns a block and
 * submits one version at a time. A version is *forbidden* after a crash when a later one was
 * acknowledged before the submission of a flush that succeeded, or with FUA: the last such version
 * is the floor, and the floor and all later ones are allowed, sector by sector. What was read after
 * a recovery is from then on the only version. A merge is no version; a clone is one, of its
 * source's content.
 *
 * Time      a counter that every submission and acknowledgement draws from.
 * Threads   a block's versions belong to its owner while the load runs; model_flushed() is for all.
 * Memory    aborts when there is none: this is a test.
 */
#ifndef TESTS_RIGS_MODEL_H
#define TESTS_RIGS_MODEL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "tests/lib/content.h"

#define MODEL_NEVER UINT64_MAX

struct version {
	uint64_t ids[BLOCK_SECTORS];
	uint64_t acknowledged; /* when; MODEL_NEVER: not */
	bool durable; /* with FUA, or read after a recovery */
};

struct history {
	struct version *versions;
	uint32_t count;
	uint32_t room;
};

struct model {
	uint64_t block_count;
	struct history *blocks;
	_Atomic uint64_t now;
	_Atomic uint64_t flushed; /* submission of the latest flush that succeeded */
	_Atomic uint64_t next_id; /* ids that no two blocks share unless merged or cloned */
};

/* All blocks hold zeros. */
void model_init(struct model *model, uint64_t block_count);
void model_done(struct model *model);

/* 0 or a negative errno; ENOENT: no such file. */
int model_load(struct model *model, const char *path);
int model_save(const struct model *model, const char *path);

uint64_t model_now(struct model *model);
void model_flushed(struct model *model, uint64_t submitted);

/* The newest version: what a read by the owner finds while nothing is in flight. */
const struct version *model_current(const struct model *model, uint64_t block);
/* A new version, a copy of the newest, not yet acknowledged; the caller changes its ids. */
struct version *model_submit(struct model *model, uint64_t block);
void model_acknowledge(struct model *model, uint64_t block, bool durable);

/* After a recovery: whether data is what the block may hold; then it becomes the only version. */
bool model_adopt(struct model *model, uint64_t block, const uint8_t *data);

#endif
