/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/sim/survey.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/report.h"

#define READ_BLOCKS 64u
#define HOLE_BLOCKS 4096u

void survey_init(struct survey *survey, uint64_t logical_blocks, uint64_t store_blocks)
{
	survey->logical_blocks = logical_blocks;
	survey->store_blocks = store_blocks;
	survey->ids = calloc(logical_blocks * BLOCK_SECTORS, sizeof(survey->ids[0]));
	survey->pbns = calloc(logical_blocks, sizeof(survey->pbns[0]));
	survey->counts = calloc(store_blocks, sizeof(survey->counts[0]));
	survey->data = aligned_alloc(BLOCK_BYTES, (size_t)READ_BLOCKS * BLOCK_BYTES);
	assert(survey->ids && survey->pbns && survey->counts && survey->data);
}

void survey_done(struct survey *survey)
{
	free(survey->ids);
	free(survey->pbns);
	free(survey->counts);
	free(survey->data);
}

static void read_run(struct survey *survey, struct patient *patient, const struct oracle *oracle,
		     const struct contents *contents, uint64_t block, uint64_t blocks)
{
	for (uint64_t at = 0; at < blocks; at += READ_BLOCKS) {
		uint64_t n = min_u64(READ_BLOCKS, blocks - at);
		int r = patient_read(patient, blocks_to_bytes(block + at), blocks_to_bytes(n),
				     survey->data);

		if (r < 0)
			sim_fail("reading block %" PRIu64 "+%" PRIu64 ": %d", block + at, n, r);
		for (uint64_t i = 0; i < n * BLOCK_SECTORS; i++) {
			uint64_t number = block + at + i / BLOCK_SECTORS;
			unsigned sector = i % BLOCK_SECTORS;
			uint32_t id = contents_identify(contents, survey->data + i * SECTOR_BYTES,
							sector);

			if (oracle_is_touched(oracle, number))
				survey->ids[oracle->blocks[number]->index * BLOCK_SECTORS +
					    sector] = id;
			else if (id != CONTENT_ZERO)
				sim_fail("block %" PRIu64 " reads %" PRId32 ", was never written",
					 number, (int32_t)id);
		}
	}
}

/* Of a very long hole, only what was ever written, and its ends. */
static void read_hole(struct survey *survey, struct patient *patient, const struct oracle *oracle,
		      const struct contents *contents, uint64_t block, uint64_t blocks)
{
	if (blocks <= HOLE_BLOCKS) {
		read_run(survey, patient, oracle, contents, block, blocks);
		return;
	}
	read_run(survey, patient, oracle, contents, block, READ_BLOCKS);
	read_run(survey, patient, oracle, contents, block + blocks - READ_BLOCKS, READ_BLOCKS);
	for (uint32_t i = 0; i < oracle->touched_count; i++)
		if (oracle->touched[i] >= block && oracle->touched[i] < block + blocks)
			read_run(survey, patient, oracle, contents, oracle->touched[i], 1);
}

static void note_run(struct survey *survey, const struct oracle *oracle, const struct map_run *run)
{
	uint64_t block = run->off_bytes / BLOCK_BYTES, blocks = run->len_bytes / BLOCK_BYTES;

	for (uint64_t i = 0; i < blocks; i++) {
		if (!oracle_is_touched(oracle, block + i))
			sim_fail("block %" PRIu64 " is mapped to %" PRIu64 ", was never written",
				 block + i, run->pbn.v + i);
		survey->pbns[oracle->blocks[block + i]->index] = run->pbn.v + i;
		survey->counts[run->pbn.v + i]++;
	}
}

/* One MAP request at a time; returns the byte it got to. */
static uint64_t ask_map(struct survey *survey, struct patient *patient, uint64_t off_bytes)
{
	uint64_t end = blocks_to_bytes(survey->logical_blocks);
	int r;

	patient->request = (struct request){
		.op = REQUEST_MAP,
		.off_bytes = off_bytes,
		.len_bytes = end - off_bytes,
		.runs = survey->runs,
		.runs_max = SURVEY_RUNS,
	};
	r = patient_ask(patient);
	if (r < 0 || patient->request.mapped_to_bytes == 0)
		sim_fail("map from %" PRIu64 ": %d, for %" PRIu64, off_bytes, r,
			 patient->request.mapped_to_bytes);
	return off_bytes + patient->request.mapped_to_bytes;
}

static void recount(struct survey *survey, struct patient *patient)
{
	uint64_t end = blocks_to_bytes(survey->logical_blocks), at = 0;

	while (at < end) {
		at = ask_map(survey, patient, at);
		for (uint32_t i = 0; i < patient->request.runs_count; i++) {
			const struct map_run *run = &survey->runs[i];

			for (uint64_t b = 0; run->pbn.v != 0 && b < run->len_bytes / BLOCK_BYTES;
			     b++)
				if (survey->counts[run->pbn.v + b] != run->references)
					sim_fail("physical block %" PRIu64 " has %" PRIu32
						 " references, recounted %u",
						 run->pbn.v + b, run->references,
						 survey->counts[run->pbn.v + b]);
		}
	}
}

/* What the stats say against what was counted. Nothing was written since the volume was opened. */
static void check_stats(const struct survey *survey, const struct patient *patient)
{
	struct volume_stats stats;
	uint64_t used = 0, shared = 0, mapped = 0, sum;

	for (uint64_t i = 0; i < survey->store_blocks; i++) {
		used += survey->counts[i] > 0;
		mapped += survey->counts[i];
		shared += survey->counts[i] > 1 ? survey->counts[i] : 0;
	}
	volume_stats(patient->volume, &stats);
	if (stats.mapped_bytes != blocks_to_bytes(mapped) ||
	    stats.used_bytes != blocks_to_bytes(used) ||
	    stats.shared_bytes != blocks_to_bytes(shared) ||
	    stats.saved_bytes != blocks_to_bytes(mapped - used))
		sim_fail("stats: mapped %" PRIu64 " used %" PRIu64 " shared %" PRIu64
			 " saved %" PRIu64 "; counted %" PRIu64 " %" PRIu64 " %" PRIu64 " blocks",
			 stats.mapped_bytes, stats.used_bytes, stats.shared_bytes,
			 stats.saved_bytes, mapped, used, shared);
	sum = stats.free_bytes + stats.pending_bytes + stats.used_bytes + stats.metadata_bytes;
	if (sum != stats.store_bytes)
		sim_fail("stats: free %" PRIu64 " + pending %" PRIu64 " + used %" PRIu64
			 " + metadata %" PRIu64 " is %" PRIu64 ", not the store's %" PRIu64,
			 stats.free_bytes, stats.pending_bytes, stats.used_bytes,
			 stats.metadata_bytes, sum, stats.store_bytes);
}

void survey_take(struct survey *survey, struct patient *patient, const struct oracle *oracle,
		 const struct contents *contents, bool holes)
{
	uint64_t end = blocks_to_bytes(survey->logical_blocks), at = 0;

	memset(survey->ids, 0, oracle->touched_count * BLOCK_SECTORS * sizeof(survey->ids[0]));
	memset(survey->pbns, 0, oracle->touched_count * sizeof(survey->pbns[0]));
	memset(survey->counts, 0, survey->store_blocks * sizeof(survey->counts[0]));
	while (at < end) {
		uint64_t next = ask_map(survey, patient, at);
		uint32_t runs = patient->request.runs_count;

		for (uint32_t i = 0; i < runs; i++) {
			const struct map_run *run = &survey->runs[i];

			uint64_t block = run->off_bytes / BLOCK_BYTES;
			uint64_t blocks = run->len_bytes / BLOCK_BYTES;

			if (!pbn_is_none(run->pbn)) {
				note_run(survey, oracle, run);
				read_run(survey, patient, oracle, contents, block, blocks);
			} else if (holes) {
				read_hole(survey, patient, oracle, contents, block, blocks);
			}
		}
		at = next;
	}
	recount(survey, patient);
	check_stats(survey, patient);
}

/* Blocks whose sharing must have survived are one block still. */
static void judge_groups(const struct survey *survey, const struct oracle *oracle)
{
	uint64_t *pbns;

	if (oracle->group_count == 0)
		return;
	pbns = calloc(oracle->group_count + 1, sizeof(pbns[0]));
	assert(pbns != NULL);
	for (uint32_t i = 0; i < oracle->touched_count; i++) {
		uint32_t group = oracle_durable_group(oracle, oracle->touched[i]);

		if (group == 0)
			continue;
		if (pbns[group] == 0)
			pbns[group] = survey->pbns[i] + 1;
		if (pbns[group] != survey->pbns[i] + 1)
			sim_fail("block %" PRIu64 " was merged durably: maps to %" PRIu64
				 ", its group to %" PRIu64,
				 oracle->touched[i], survey->pbns[i], pbns[group] - 1);
	}
	free(pbns);
}

void survey_judge(const struct survey *survey, const struct oracle *oracle, bool garbage)
{
	char text[ORACLE_TEXT];

	for (uint32_t i = 0; i < oracle->touched_count; i++)
		if (!oracle_crash_block(oracle, oracle->touched[i],
					&survey->ids[(size_t)i * BLOCK_SECTORS], garbage, text))
			sim_fail("after recovery, %s", text);
	judge_groups(survey, oracle);
}

void survey_compare(const struct survey *survey, const struct survey *other,
		    const struct oracle *oracle, const char *what)
{
	for (uint64_t i = 0; i < (uint64_t)oracle->touched_count * BLOCK_SECTORS; i++)
		if (survey->ids[i] != other->ids[i])
			sim_fail("%s: block %" PRIu64 " sector %u reads %" PRId32
				 ", before %" PRId32,
				 what, oracle->touched[i / BLOCK_SECTORS],
				 (unsigned)(i % BLOCK_SECTORS), (int32_t)survey->ids[i],
				 (int32_t)other->ids[i]);
}
