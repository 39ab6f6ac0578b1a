/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/rigs/model.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/rigs/sectors.h"

#define MODEL_MAGIC    0x6d6f64656c303031ull
#define MODEL_POOL_IDS 64u /* ids below are shared by many blocks */

static void *must(void *memory)
{
	if (!memory)
		abort();
	return memory;
}

static void history_grow(struct history *history)
{
	if (history->count < history->room)
		return;
	history->room = history->room ? history->room * 2 : 2;
	history->versions =
		must(realloc(history->versions, history->room * sizeof(*history->versions)));
}

void model_init(struct model *model, uint64_t block_count)
{
	model->block_count = block_count;
	model->blocks = must(calloc(block_count, sizeof(*model->blocks)));
	atomic_init(&model->now, 1);
	atomic_init(&model->flushed, 0);
	atomic_init(&model->next_id, MODEL_POOL_IDS);
	for (uint64_t b = 0; b < block_count; b++) {
		history_grow(&model->blocks[b]);
		model->blocks[b].versions[0] = (struct version){.durable = true};
		model->blocks[b].count = 1;
	}
}

void model_done(struct model *model)
{
	for (uint64_t b = 0; b < model->block_count; b++)
		free(model->blocks[b].versions);
	free(model->blocks);
}

uint64_t model_now(struct model *model)
{
	return atomic_fetch_add(&model->now, 1);
}

void model_flushed(struct model *model, uint64_t submitted)
{
	uint64_t latest = atomic_load(&model->flushed);

	while (latest < submitted &&
	       !atomic_compare_exchange_weak(&model->flushed, &latest, submitted))
		;
}

/* The oldest version that is still allowed after a crash. */
static uint32_t history_floor(const struct history *history, uint64_t flushed)
{
	for (uint32_t i = history->count; i-- > 0;) {
		const struct version *version = &history->versions[i];

		if (version->durable || version->acknowledged < flushed)
			return i;
	}
	assert(!"the first version is durable");
	abort();
}

const struct version *model_current(const struct model *model, uint64_t block)
{
	const struct history *history = &model->blocks[block];

	return &history->versions[history->count - 1];
}

struct version *model_submit(struct model *model, uint64_t block)
{
	struct history *history = &model->blocks[block];
	uint32_t floor = history_floor(history, atomic_load(&model->flushed));

	/* What is forbidden needs no memory; the floor stays, and stays durable. */
	memmove(history->versions, history->versions + floor,
		(history->count - floor) * sizeof(*history->versions));
	history->count -= floor;
	history->versions[0].durable = true;
	history_grow(history);
	history->versions[history->count] = history->versions[history->count - 1];
	history->versions[history->count].acknowledged = MODEL_NEVER;
	history->versions[history->count].durable = false;
	return &history->versions[history->count++];
}

void model_acknowledge(struct model *model, uint64_t block, bool durable)
{
	struct history *history = &model->blocks[block];
	struct version *version = &history->versions[history->count - 1];

	assert(version->acknowledged == MODEL_NEVER);
	version->acknowledged = model_now(model);
	version->durable = durable;
}

static void history_print(const struct history *history, uint64_t block, unsigned sector,
			  uint32_t floor)
{
	fprintf(stderr, "block %" PRIu64 " sector %u: allowed", block, sector);
	for (uint32_t i = floor; i < history->count; i++)
		fprintf(stderr, " %" PRIu64, history->versions[i].ids[sector]);
	fprintf(stderr, "; forbidden");
	for (uint32_t i = 0; i < floor; i++)
		fprintf(stderr, " %" PRIu64, history->versions[i].ids[sector]);
}

bool model_adopt(struct model *model, uint64_t block, const uint8_t *data)
{
	struct history *history = &model->blocks[block];
	uint32_t floor = history_floor(history, atomic_load(&model->flushed));
	struct version seen = {.durable = true};

	for (unsigned s = 0; s < BLOCK_SECTORS; s++) {
		bool allowed = false;

		if (!sector_decode(data + s * SECTOR_BYTES, s, &seen.ids[s])) {
			history_print(history, block, s, floor);
			fprintf(stderr, "; found garbage\n");
			return false;
		}
		for (uint32_t i = floor; i < history->count; i++)
			allowed = allowed || history->versions[i].ids[s] == seen.ids[s];
		if (!allowed) {
			history_print(history, block, s, floor);
			fprintf(stderr, "; found %" PRIu64 "\n", seen.ids[s]);
			return false;
		}
	}
	history->versions[0] = seen;
	history->count = 1;
	return true;
}

int model_save(const struct model *model, const char *path)
{
	uint64_t head[] = {MODEL_MAGIC, model->block_count, atomic_load(&model->now),
			   atomic_load(&model->flushed), atomic_load(&model->next_id)};
	FILE *file = fopen(path, "wb");
	bool good;

	if (!file)
		return -errno;
	good = fwrite(head, sizeof(head), 1, file) == 1;
	for (uint64_t b = 0; b < model->block_count && good; b++) {
		const struct history *history = &model->blocks[b];

		good = fwrite(&history->count, sizeof(history->count), 1, file) == 1 &&
		       fwrite(history->versions, sizeof(*history->versions), history->count,
			      file) == history->count;
	}
	return fclose(file) == 0 && good ? 0 : -EIO;
}

static bool history_read(struct history *history, FILE *file)
{
	uint32_t count;

	if (fread(&count, sizeof(count), 1, file) != 1 || count == 0)
		return false;
	history->count = 0;
	history->room = 0;
	free(history->versions);
	history->versions = must(calloc(count, sizeof(*history->versions)));
	history->room = count;
	history->count = count;
	return fread(history->versions, sizeof(*history->versions), count, file) == count;
}

int model_load(struct model *model, const char *path)
{
	uint64_t head[5];
	FILE *file = fopen(path, "rb");
	bool good;

	if (!file)
		return -errno;
	if (fread(head, sizeof(head), 1, file) != 1 || head[0] != MODEL_MAGIC) {
		fclose(file);
		return -EINVAL;
	}
	model_init(model, head[1]);
	atomic_store(&model->now, head[2]);
	atomic_store(&model->flushed, head[3]);
	atomic_store(&model->next_id, head[4]);
	good = true;
	for (uint64_t b = 0; b < model->block_count && good; b++)
		good = history_read(&model->blocks[b], file);
	fclose(file);
	return good ? 0 : -EINVAL;
}
