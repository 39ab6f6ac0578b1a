/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dedupe - the command `sameblk dedupe`: finds equal runs of blocks and has the server merge them
 *
 *   PLAN ----> SCAN ----> LEARN ----> MATCH ----> DONE
 *     +----------------------------------------------^
 *
 *   PLAN  -> SCAN   the server was asked what was written since the hashfile's generation, and
 *                   those regions were forgotten
 *   PLAN  -> DONE   nothing was written, and all was looked at before
 *   SCAN  -> LEARN  the hashfile has every region of the range
 *   LEARN -> MATCH  each content has a block that stands for it
 *   MATCH -> DONE   all matches were carried out (whenever the list was full, and at the end)
 *
 * A signal ends any state. What the hashfile has by then is true, and the next run goes on with it.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/base/client.h"
#include "cli/base/commands.h"
#include "cli/base/dedupe_signal.h"
#include "cli/base/parse.h"
#include "cli/base/priority.h"
#include "cli/base/say.h"
#include "cli/base/servers.h"
#include "cli/dedupe/dedupe_account.h"
#include "cli/dedupe/dedupe_file.h"
#include "cli/dedupe/dedupe_find.h"
#include "cli/dedupe/dedupe_list.h"
#include "cli/dedupe/dedupe_plan.h"
#include "cli/dedupe/dedupe_rate.h"
#include "cli/dedupe/dedupe_scan.h"
#include "cli/dedupe/dedupe_scratch.h"
#include "cli/dedupe/dedupe_submit.h"

#define MEMORY_BYTES	   (256ull << 20)
#define MEMORY_LEAST_BYTES (16ull << 20)
#define READ_MOST_BYTES	   (32ull << 20)

struct dedupe {
	/* What the user wants. */
	const char *hashfile;
	uint64_t off_bytes;
	uint64_t end_bytes;
	uint64_t min_run_blocks;
	uint64_t memory_bytes;
	/* What it works with. */
	struct client client;
	struct dedupe_volume volume;
	struct dedupe_plan plan;
	struct dedupe_file file;
	struct dedupe_scratch scratch;
	struct dedupe_rate rate;
	struct dedupe_progress progress;
	struct dedupe_scan scan;
	struct dedupe_find find;
	struct dedupe_list list;
	struct dedupe_submit submit;
};

/* Shares of the memory: a sixteenth for the pages of the hashfile and of what stands beside it, a
 * quarter for reading; and when reading is over, the rest for finding. */
static uint64_t page_bytes(const struct dedupe *dedupe)
{
	return dedupe->memory_bytes / 32;
}

static uint64_t read_bytes(const struct dedupe *dedupe)
{
	return min_u64(dedupe->memory_bytes / 4, READ_MOST_BYTES);
}

static uint64_t find_bytes(const struct dedupe *dedupe)
{
	return dedupe->memory_bytes / 16 * 15;
}

/* --- scan --- */

static int scan(struct dedupe *dedupe)
{
	struct dedupe_scan *scan = &dedupe->scan;
	int r;

	scan->client = &dedupe->client;
	scan->scratch = &dedupe->scratch;
	scan->rate = &dedupe->rate;
	scan->progress = &dedupe->progress;
	scan->first_region = dedupe->plan.first_region;
	scan->end_region = dedupe->plan.end_region;
	scan->size_bytes = dedupe->volume.size_bytes;
	scan->memory_bytes = read_bytes(dedupe);
	r = dedupe_scan_survey(scan);
	if (r < 0 || dedupe_signal_came())
		return r;
	return dedupe_scan_read(scan);
}

/* --- find and merge --- */

static void count_found(struct dedupe *dedupe)
{
	struct dedupe_account *account = &dedupe->progress.account;

	account->duplicate_bytes = blocks_to_bytes(dedupe->find.duplicate_blocks);
	account->sample_bits = dedupe->find.table.sample_bits;
	if (account->dry_run)
		account->freed_bytes = (uint64_t)(dedupe->find.freed_blocks + 0.5) * BLOCK_BYTES;
}

static int tick(void *context, uint64_t regions_done)
{
	struct dedupe *dedupe = context;

	count_found(dedupe);
	dedupe_progress_at(&dedupe->progress, regions_done * REGION_BYTES);
	return dedupe_signal_came() ? -EINTR : 0;
}

static void begin_finding(struct dedupe *dedupe, const char *phase)
{
	dedupe_progress_phase(&dedupe->progress, phase,
			      (dedupe->plan.end_region - dedupe->plan.first_region) * REGION_BYTES);
}

static int merge(struct dedupe *dedupe)
{
	int r = dedupe_submit_run(&dedupe->submit, &dedupe->list);

	return r == 0 && dedupe_signal_came() ? -EINTR : r;
}

static int take_match(void *context, const struct dedupe_match *match)
{
	struct dedupe *dedupe = context;
	struct dedupe_match rest = *match;
	int r;

	count_found(dedupe);
	if (dedupe->progress.account.dry_run)
		return 0;
	while (dedupe_list_add(&dedupe->list, &rest) == -ENOSPC) {
		r = merge(dedupe);
		if (r < 0)
			return r;
		begin_finding(dedupe, "match");
	}
	return 0;
}

static int take_rejected(void *context, uint64_t dst_block)
{
	struct dedupe *dedupe = context;

	return dedupe_scratch_put_again(&dedupe->scratch, dedupe_region_of(dst_block));
}

static int find_all(struct dedupe *dedupe)
{
	int r;

	begin_finding(dedupe, "learn");
	r = dedupe_find_learn(&dedupe->find);
	if (r < 0)
		return r;
	begin_finding(dedupe, "match");
	r = dedupe_find_match(&dedupe->find);
	count_found(dedupe);
	return r < 0 ? r : merge(dedupe);
}

static int find_and_merge(struct dedupe *dedupe)
{
	const struct dedupe_find_options options = {
		.first_block = dedupe->off_bytes / BLOCK_BYTES,
		.end_block = dedupe->end_bytes / BLOCK_BYTES,
		.min_run_blocks = dedupe->min_run_blocks,
		.memory_bytes = find_bytes(dedupe),
		.source = &dedupe->scratch.source,
		.context = dedupe,
		.match = take_match,
		.tick = tick,
	};
	int r = dedupe_find_init(&dedupe->find, &options);

	if (r == 0) {
		r = dedupe_list_init(&dedupe->list, find_bytes(dedupe) / 8);
		if (r < 0)
			dedupe_find_done(&dedupe->find);
	}
	if (r < 0) {
		say_error("cannot look for duplicates", "", "%s", strerror(-r));
		return r;
	}
	dedupe_submit_init(&dedupe->submit, &dedupe->client, &dedupe->rate, &dedupe->progress);
	dedupe->submit.rejected = take_rejected;
	dedupe->submit.context = dedupe;
	/* Roles that leave memory are written down; nobody needs them when the run is over. */
	r = dedupe_file_begin(&dedupe->file);
	if (r == 0)
		r = find_all(dedupe);
	if (dedupe->file.sql.db != NULL && dedupe_file_commit(&dedupe->file) < 0 && r == 0)
		r = -EIO;
	dedupe_submit_done(&dedupe->submit);
	dedupe_list_done(&dedupe->list);
	dedupe_find_done(&dedupe->find);
	return r == -EINTR ? 0 : r;
}

/* --- the run --- */

static int run_all(struct dedupe *dedupe)
{
	struct dedupe_account *account = &dedupe->progress.account;
	bool anything;
	int r = dedupe_plan_begin(&dedupe->plan, &dedupe->client, &dedupe->file, &anything);

	if (r < 0 || !anything) {
		account->complete = r == 0;
		return r;
	}
	r = dedupe_scratch_open(&dedupe->scratch, &dedupe->file, page_bytes(dedupe));
	if (r == 0)
		r = scan(dedupe);
	if (r == 0 && !dedupe_signal_came())
		r = find_and_merge(dedupe);
	if (r < 0 || dedupe_signal_came())
		return r;
	account->complete = account->errors == 0;
	if (account->dry_run || !account->complete)
		return 0;
	return dedupe_plan_end(&dedupe->plan, &dedupe->scratch, account->sample_bits);
}

static int run(struct dedupe *dedupe)
{
	struct dedupe_account *account = &dedupe->progress.account;
	int r = dedupe_file_open(&dedupe->file, dedupe->hashfile, &dedupe->volume,
				 page_bytes(dedupe));

	if (r < 0)
		return EXIT_FAILED;
	dedupe_signal_catch();
	priority_make_way();
	dedupe_progress_start(&dedupe->progress);
	r = run_all(dedupe);
	dedupe_progress_finish(&dedupe->progress);
	dedupe_scratch_close(&dedupe->scratch);
	dedupe_file_close(&dedupe->file);
	if (r < 0 || account->errors > 0)
		return EXIT_FAILED;
	if (account->complete)
		return EXIT_GOOD;
	say_error("interrupted", "", "%s",
		  dedupe->hashfile != NULL ? "run it again with the same hashfile to go on"
					   : "what was merged stays so");
	return EXIT_SEE;
}

/* --- what the user wants, and what the server has --- */

static int ask_volume(struct dedupe *dedupe)
{
	json_t *status = client_call(&dedupe->client, "cannot deduplicate", "status", NULL);
	const char *state, *reason;
	int r = 0;

	if (status == NULL)
		return -1;
	state = client_text(status, "state");
	reason = client_text(status, "reason");
	snprintf(dedupe->volume.uuid, sizeof(dedupe->volume.uuid), "%s",
		 client_text(status, "uuid") != NULL ? client_text(status, "uuid") : "");
	dedupe->volume.size_bytes = client_number(status, "size_bytes");
	if (state != NULL && strcmp(state, "read-only") == 0 && !dedupe->progress.account.dry_run) {
		say_error("cannot deduplicate", dedupe->client.server,
			  "the volume is read-only: %s",
			  reason != NULL ? reason : "no reason is given");
		r = -1;
	}
	json_decref(status);
	return r;
}

/* OFF:LEN, inside the volume and made of whole blocks. NULL: the whole volume. */
static int read_range(struct dedupe *dedupe, const char *text)
{
	uint64_t size = dedupe->volume.size_bytes, off, len;
	char words[64], *colon;

	dedupe->end_bytes = size;
	if (text == NULL)
		return 0;
	snprintf(words, sizeof(words), "%s", text);
	colon = strchr(words, ':');
	if (colon == NULL) {
		say_error("--range", "", "%s is not OFF:LEN", text);
		return -1;
	}
	*colon = '\0';
	if (parse_size_or_say("--range", words, &off) < 0 ||
	    parse_size_or_say("--range", colon + 1, &len) < 0)
		return -1;
	if (off % BLOCK_BYTES != 0 || len % BLOCK_BYTES != 0 || off > size || len > size - off) {
		say_error("--range", "",
			  "%s: both must be multiples of %u, inside the volume's %" PRIu64 " bytes",
			  text, BLOCK_BYTES, size);
		return -1;
	}
	dedupe->off_bytes = off;
	dedupe->end_bytes = off + len;
	return 0;
}

static void make_plan(struct dedupe *dedupe)
{
	uint64_t end = dedupe->end_bytes;

	dedupe->plan = (struct dedupe_plan){
		.first_region = dedupe->off_bytes / REGION_BYTES,
		.end_region = div_up(end, REGION_BYTES),
		.whole_first_region = div_up(dedupe->off_bytes, REGION_BYTES),
		.whole_end_region = end == dedupe->volume.size_bytes ? div_up(end, REGION_BYTES)
								     : end / REGION_BYTES,
		.min_run_blocks = dedupe->min_run_blocks,
		.memory_bytes = dedupe->memory_bytes,
	};
}

static int connect_and_run(struct dedupe *dedupe, const struct server_choice *choice,
			   const char *range)
{
	int status = EXIT_FAILED;

	if (servers_open(choice, &dedupe->client) < 0)
		return EXIT_FAILED;
	if (ask_volume(dedupe) == 0 && read_range(dedupe, range) == 0) {
		make_plan(dedupe);
		status = run(dedupe);
	}
	client_close(&dedupe->client);
	return say_finish(status);
}

struct wishes {
	struct server_choice choice;
	const char *range;
	const char *hashfile;
	struct parse_size_value min_run, memory, max_rate;
	bool dry_run, no_progress, json_lines;
};

static int take_wishes(struct dedupe *dedupe, const struct wishes *wishes)
{
	dedupe->hashfile = wishes->hashfile;
	dedupe->min_run_blocks = wishes->min_run.given ? wishes->min_run.bytes / BLOCK_BYTES : 1;
	dedupe->memory_bytes = wishes->memory.given ? wishes->memory.bytes : MEMORY_BYTES;
	dedupe->rate.bytes_per_second = wishes->max_rate.bytes;
	dedupe->progress.account.dry_run = wishes->dry_run;
	dedupe->progress.json = wishes->json_lines;
	dedupe->progress.show = wishes->no_progress	      ? DEDUPE_SHOW_NOTHING
				: wishes->json_lines	      ? DEDUPE_SHOW_JSON
				: say_can_draw(STDERR_FILENO) ? DEDUPE_SHOW_BAR
							      : DEDUPE_SHOW_LINES;
	if (wishes->min_run.given &&
	    (dedupe->min_run_blocks == 0 || wishes->min_run.bytes % BLOCK_BYTES != 0)) {
		say_error("--min-run", "", "it must be a multiple of %u", BLOCK_BYTES);
		return -1;
	}
	if (dedupe->memory_bytes < MEMORY_LEAST_BYTES) {
		say_error("--memory", "", "it must be %llu or more", MEMORY_LEAST_BYTES);
		return -1;
	}
	if (wishes->max_rate.given && wishes->max_rate.bytes == 0) {
		say_error("--max-rate", "", "it must be more than 0");
		return -1;
	}
	return 0;
}

int dedupe_main(int argc, char **argv)
{
	struct wishes wishes = {.range = NULL};
	const struct parse_option options[] = {
		PARSE_SERVER(&wishes.choice),
		{"range", 0, PARSE_TEXT, &wishes.range, "OFF:LEN", "only this part of the volume"},
		{"min-run", 0, PARSE_SIZE, &wishes.min_run, "SIZE",
		 "leave shorter runs alone (4K)"},
		{"dry-run", 0, PARSE_FLAG, &wishes.dry_run, NULL,
		 "change nothing, estimate what would be freed"},
		{"hashfile", 0, PARSE_TEXT, &wishes.hashfile, "FILE",
		 "keep what was learnt for the next run"},
		{"memory", 0, PARSE_SIZE, &wishes.memory, "SIZE", "use no more than this (256M)"},
		{"max-rate", 0, PARSE_SIZE, &wishes.max_rate, "RATE",
		 "read and compare so many bytes a second"},
		{"no-progress", 0, PARSE_FLAG, &wishes.no_progress, NULL,
		 "print the account at the end only"},
		{"json-lines", 0, PARSE_FLAG, &wishes.json_lines, NULL,
		 "print progress and account as JSON"},
		{NULL, 0, PARSE_FLAG, NULL, NULL, NULL},
	};
	const struct parse_command command = {
		"dedupe", "", "Find equal runs of blocks, and merge them.", options, 0, 0,
	};
	struct dedupe *dedupe;
	int count, status;

	switch (parse_command(&command, argc, argv, &count)) {
	case PARSE_GO:
		break;
	case PARSE_DONE:
		return say_finish(EXIT_GOOD);
	case PARSE_BAD:
		return EXIT_FAILED;
	}
	dedupe = calloc(1, sizeof(*dedupe));
	if (dedupe == NULL) {
		say_error("cannot deduplicate", "", "%s", strerror(ENOMEM));
		return EXIT_FAILED;
	}
	status = take_wishes(dedupe, &wishes) < 0
			 ? EXIT_FAILED
			 : connect_and_run(dedupe, &wishes.choice, wishes.range);
	free(dedupe);
	return status;
}
