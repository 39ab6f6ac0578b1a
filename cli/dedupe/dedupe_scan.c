/* SPDX-License-Identifier: GPL-2.0-or-later */
/* dedupe_scan - see the header */
#include "cli/dedupe/dedupe_scan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/base/dedupe_signal.h"
#include "cli/base/say.h"
#include "cli/dedupe/dedupe_map.h"
#include "server/base/clock.h"

#define COMMIT_REGIONS 256u
#define COMMIT_NS      1000000000ull
#define COMPLAINTS_MAX 10u /* about blocks that cannot be read; the sum comes at the end */
#define NOT_COPIED     UINT16_MAX

/* --- survey --- */

static uint64_t count_blocks(const uint64_t places[DEDUPE_REGION_BLOCKS])
{
	uint64_t blocks = 0;

	for (uint32_t i = 0; i < DEDUPE_REGION_BLOCKS; i++)
		blocks += places[i] != 0;
	return blocks;
}

static int survey_region(struct dedupe_scan *scan, uint64_t number,
			 const uint64_t places[DEDUPE_REGION_BLOCKS])
{
	uint64_t bytes = blocks_to_bytes(count_blocks(places));
	int r = dedupe_scratch_put_places(scan->scratch, number, places);

	scan->mapped_bytes += bytes;
	if (r == 0)
		r = dedupe_file_has(scan->scratch->file, number);
	if (r != 0)
		return r < 0 ? r : 0;
	scan->todo_bytes += bytes;
	scan->todo_regions++;
	return dedupe_scratch_put_todo(scan->scratch, number);
}

int dedupe_scan_survey(struct dedupe_scan *scan)
{
	uint64_t off_bytes = scan->first_region * REGION_BYTES, number;
	uint64_t end_bytes = min_u64(scan->end_region * REGION_BYTES, scan->size_bytes);
	uint64_t places[DEDUPE_REGION_BLOCKS];
	struct dedupe_map map;
	int r = dedupe_file_begin(scan->scratch->file);

	if (r < 0)
		return r;
	dedupe_progress_phase(scan->progress, "map", end_bytes - off_bytes);
	dedupe_map_begin(&map, scan->client, off_bytes, end_bytes);
	while (r == 0 && !dedupe_signal_came()) {
		r = dedupe_map_next(&map, &number, places);
		if (r != 1)
			break;
		r = survey_region(scan, number, places);
		dedupe_progress_at(scan->progress, number * REGION_BYTES - off_bytes);
	}
	dedupe_map_end(&map);
	return r < 0 ? r : dedupe_file_commit(scan->scratch->file);
}

/* --- what of a region is to be read --- */

static bool is_shared(uint64_t place)
{
	return dedupe_place_references(place) > 1;
}

/* How many blocks from here on lie one after the other and are shared. */
static uint32_t shared_run(const struct dedupe_job *job, uint32_t index)
{
	uint64_t physical = dedupe_place_block(job->places[index]);
	uint32_t blocks = 1;

	while (index + blocks < DEDUPE_REGION_BLOCKS && is_shared(job->places[index + blocks]) &&
	       dedupe_place_block(job->places[index + blocks]) == physical + blocks)
		blocks++;
	return blocks;
}

/* The hashes of another place with the same blocks. */
static int copy_hashes(struct dedupe_scan *scan, struct dedupe_job *job, uint32_t index,
		       uint64_t logical_block, uint64_t blocks)
{
	for (uint64_t i = 0; i < blocks; i++) {
		uint64_t number = dedupe_region_of(logical_block + i);

		if (!scan->has_lender || scan->lender.number != number) {
			int r = dedupe_scratch_load(scan->scratch, number, &scan->lender);

			if (r < 0)
				return r;
			scan->has_lender = true;
		}
		job->hashes[index + i] =
			scan->lender.hashes[dedupe_region_index(logical_block + i)];
	}
	return 0;
}

/* Takes the hashes of what was seen elsewhere; the rest is to be read. */
static int borrow(struct dedupe_scan *scan, struct dedupe_job *job,
		  bool ret_wanted[DEDUPE_REGION_BLOCKS])
{
	uint32_t index = 0;

	while (index < DEDUPE_REGION_BLOCKS) {
		uint64_t blocks = 1, logical = 0;
		int r = 0;

		if (job->places[index] != 0 && is_shared(job->places[index]))
			r = dedupe_scratch_seen(scan->scratch,
						dedupe_place_block(job->places[index]),
						shared_run(job, index), &blocks, &logical);
		if (r == 1)
			r = copy_hashes(scan, job, index, logical, blocks);
		else if (r == 0)
			for (uint64_t i = 0; i < blocks; i++)
				ret_wanted[index + i] = job->places[index + i] != 0;
		if (r < 0)
			return r;
		index += (uint32_t)blocks;
	}
	return 0;
}

static int compare_words(const void *a, const void *b)
{
	uint64_t one = *(const uint64_t *)a, two = *(const uint64_t *)b;

	return one < two ? -1 : one > two;
}

/* A block that stands in the region several times is read once. */
static void find_copies(struct dedupe_job *job, bool wanted[DEDUPE_REGION_BLOCKS])
{
	uint64_t words[DEDUPE_REGION_BLOCKS]; /* physical block, then index */
	uint32_t count = 0;

	for (uint32_t i = 0; i < DEDUPE_REGION_BLOCKS; i++) {
		job->copy_of[i] = NOT_COPIED;
		if (wanted[i] && is_shared(job->places[i]))
			words[count++] =
				dedupe_place_block(job->places[i]) << DEDUPE_REGION_SHIFT | i;
	}
	qsort(words, count, sizeof(words[0]), compare_words);
	for (uint32_t i = 1, first = 0; i < count; i++) {
		if (dedupe_region_of(words[i]) != dedupe_region_of(words[first])) {
			first = i;
			continue;
		}
		job->copy_of[dedupe_region_index(words[i])] =
			(uint16_t)dedupe_region_index(words[first]);
		wanted[dedupe_region_index(words[i])] = false;
	}
}

static void make_pieces(struct dedupe_job *job, const bool wanted[DEDUPE_REGION_BLOCKS])
{
	job->piece_count = 0;
	for (uint32_t i = 0; i < DEDUPE_REGION_BLOCKS; i++) {
		if (!wanted[i])
			continue;
		if (i == 0 || !wanted[i - 1])
			job->pieces[job->piece_count++] = (struct dedupe_piece){(uint16_t)i, 0};
		job->pieces[job->piece_count - 1].blocks++;
	}
}

static int plan_job(struct dedupe_scan *scan, struct dedupe_job *job, uint64_t number)
{
	bool wanted[DEDUPE_REGION_BLOCKS] = {false};
	int r;

	job->number = number;
	memset(job->hashes, 0, sizeof(job->hashes));
	r = dedupe_scratch_get_places(scan->scratch, number, job->places);
	if (r == 0)
		r = borrow(scan, job, wanted);
	if (r < 0)
		return r;
	find_copies(job, wanted);
	make_pieces(job, wanted);
	return 0;
}

static uint64_t job_bytes(const struct dedupe_job *job)
{
	uint64_t blocks = 0;

	for (uint32_t i = 0; i < job->piece_count; i++)
		blocks += job->pieces[i].blocks;
	return blocks_to_bytes(blocks);
}

/* --- what was read --- */

/* The shared runs of what was read, for those who come later. */
static int remember_seen(struct dedupe_scan *scan, const struct dedupe_job *job,
			 const struct dedupe_piece *piece)
{
	uint32_t at = piece->index, end = at + piece->blocks;

	while (at < end) {
		uint32_t blocks;
		struct dedupe_seen seen;
		int r;

		if (!is_shared(job->places[at])) {
			at++;
			continue;
		}
		blocks = min_u32(shared_run(job, at), end - at);
		seen = (struct dedupe_seen){dedupe_place_block(job->places[at]), blocks,
					    (job->number << DEDUPE_REGION_SHIFT) + at};
		r = dedupe_scratch_put_seen(scan->scratch, &seen);
		if (r < 0)
			return r;
		at += blocks;
	}
	return 0;
}

static void complain(struct dedupe_scan *scan, const struct dedupe_job *job)
{
	struct dedupe_account *account = &scan->progress->account;
	char where[64];

	account->unreadable_bytes += job_bytes(job);
	if (account->errors++ >= COMPLAINTS_MAX)
		return;
	dedupe_progress_clear(scan->progress);
	snprintf(where, sizeof(where), "the 2 MiB at %" PRIu64, job->number * REGION_BYTES);
	say_error("cannot read the volume", where, "%s; they are left out", strerror(job->error));
}

static int commit_sometimes(struct dedupe_scan *scan)
{
	uint64_t now_ns = clock_ns();
	int r;

	if (++scan->uncommitted < COMMIT_REGIONS && now_ns - scan->committed_ns < COMMIT_NS)
		return 0;
	scan->uncommitted = 0;
	scan->committed_ns = now_ns;
	r = dedupe_file_commit(scan->scratch->file);
	return r < 0 ? r : dedupe_file_begin(scan->scratch->file);
}

/* The region is known now. */
static int take_job(struct dedupe_scan *scan, struct dedupe_job *job)
{
	struct dedupe_account *account = &scan->progress->account;
	int r;

	if (job->error == EPIPE) {
		dedupe_progress_clear(scan->progress);
		say_error("cannot read the volume", scan->client->server,
			  "the server has closed the connection");
		return -EPIPE;
	}
	if (job->error != 0) {
		complain(scan, job);
		return 0;
	}
	for (uint32_t i = 0; i < DEDUPE_REGION_BLOCKS; i++)
		if (job->copy_of[i] != NOT_COPIED)
			job->hashes[i] = job->hashes[job->copy_of[i]];
	r = dedupe_file_put(scan->scratch->file, job->number, job->hashes);
	for (uint32_t i = 0; r == 0 && i < job->piece_count; i++)
		r = remember_seen(scan, job, &job->pieces[i]);
	account->read_bytes += job_bytes(job);
	account->scanned_bytes += blocks_to_bytes(count_blocks(job->places));
	dedupe_progress_at(scan->progress, account->scanned_bytes);
	return r < 0 ? r : commit_sometimes(scan);
}

/* A job that is free, after taking one that has finished if there is none. */
static int get_job(struct dedupe_scan *scan, struct dedupe_job **ret_job)
{
	int r;

	*ret_job = dedupe_reader_job(&scan->reader);
	if (*ret_job != NULL)
		return 0;
	*ret_job = dedupe_reader_take(&scan->reader);
	r = take_job(scan, *ret_job);
	return r;
}

static int read_regions(struct dedupe_scan *scan)
{
	struct dedupe_job *job;
	uint64_t number = 0;
	int r = 0;

	for (;; number++) {
		r = dedupe_scratch_next_todo(scan->scratch, number, &number);
		if (r < 0 || dedupe_signal_came())
			break;
		r = get_job(scan, &job);
		if (r == 0)
			r = plan_job(scan, job, number);
		if (r < 0)
			break;
		if (job->piece_count == 0) {
			job->error = 0;
			r = take_job(scan, job);
			dedupe_reader_release(&scan->reader, job);
			if (r < 0)
				break;
			continue;
		}
		dedupe_rate_wait(scan->rate, job_bytes(job));
		dedupe_reader_put(&scan->reader, job);
	}
	if (r == -ENOENT)
		r = 0;
	while (r == 0 && (job = dedupe_reader_take(&scan->reader)) != NULL)
		r = take_job(scan, job);
	return r;
}

int dedupe_scan_read(struct dedupe_scan *scan)
{
	int r, committed;

	if (scan->todo_regions == 0)
		return 0;
	r = dedupe_reader_start(&scan->reader, scan->client->path, scan->memory_bytes);
	if (r < 0)
		return r;
	dedupe_progress_phase(scan->progress, "read", scan->todo_bytes);
	scan->committed_ns = clock_ns();
	r = dedupe_file_begin(scan->scratch->file);
	if (r == 0) {
		r = read_regions(scan);
		/* What was read before an error is good. */
		committed = dedupe_file_commit(scan->scratch->file);
		r = r < 0 ? r : committed;
	}
	dedupe_reader_stop(&scan->reader);
	return r;
}
