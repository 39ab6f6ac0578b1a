/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_dedupe_plan - what a hashfile is still worth, by what the server says of changes
 *
 * The server's answer lies ready in a socket before it is asked for.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli/base/client.h"
#include "cli/dedupe/dedupe_plan.h"
#include "server/control/protocol/ctl_limits.h"

static const struct dedupe_volume volume = {"5a5a5a5a-0000-0000-0000-000000000001", 1ull << 30};
static const struct dedupe_hash hashes[DEDUPE_REGION_BLOCKS];
static struct dedupe_file file;
static struct dedupe_scratch scratch;
static const struct dedupe_plan whole = {0, 512, 0, 512, 1, 256u << 20};

static void open_file(void)
{
	cr_assert_eq(dedupe_file_open(&file, NULL, &volume, 256 * 1024), 0);
	cr_assert_eq(dedupe_scratch_open(&scratch, &file, 256 * 1024), 0);
}

static void close_file(void)
{
	dedupe_scratch_close(&scratch);
	dedupe_file_close(&file);
}

TestSuite(dedupe_plan, .init = open_file, .fini = close_file);

#define UNTRACKED "\"error\":{\"code\":-32601,\"message\":\"no\",\"data\":{\"errno\":\"ENOSYS\"}}"

/* Whether there is anything to do. ret_asked: what the server was asked. */
static bool begin(const struct dedupe_plan *plan, const char *answer, char ret_asked[256])
{
	struct client client = {.next_id = 1};
	char text[512];
	bool anything;
	ssize_t got;
	int ends[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	client.fd = ends[0];
	ctl_frame_init(&client.frame, CTL_ANSWER_BYTES_MAX);
	snprintf(text, sizeof(text), "{\"jsonrpc\":\"2.0\",\"id\":1,%s}\n", answer);
	cr_assert_eq(write(ends[1], text, strlen(text)), (ssize_t)strlen(text));
	cr_assert_eq(dedupe_plan_begin(plan, &client, &file, &anything), 0);
	got = read(ends[1], text, sizeof(text) - 1);
	cr_assert_gt(got, 0);
	text[got] = '\0';
	if (ret_asked != NULL)
		snprintf(ret_asked, 256, "%.255s", text);
	client_close(&client);
	close(ends[1]);
	return anything;
}

static bool begin_at(uint64_t generation, const char *complete, const char *ranges)
{
	char answer[256];

	snprintf(answer, sizeof(answer),
		 "\"result\":{\"generation\":%llu,\"complete\":%s,\"ranges\":[%s]}",
		 (unsigned long long)generation, complete, ranges);
	return begin(&whole, answer, NULL);
}

static void put(uint64_t number)
{
	cr_assert_eq(dedupe_file_put(&file, number, hashes), 0);
}

static uint64_t rows(void)
{
	int64_t count;

	cr_assert_eq(dedupe_sql_number(&file.sql, "SELECT count(*) FROM region", &count), 0);
	return (uint64_t)count;
}

/* A run from its beginning to its end. */
static void run_whole(uint64_t generation)
{
	cr_assert(begin_at(generation, "true", ""));
	for (uint64_t i = 0; i < 10; i++)
		put(i);
	cr_assert_eq(dedupe_plan_end(&whole, &scratch, 0), 0);
}

Test(dedupe_plan, a_second_run_with_nothing_written_has_nothing_to_do)
{
	char asked[256];

	run_whole(5);
	cr_assert_not(begin(&whole, "\"result\":{\"generation\":6,\"complete\":true,\"ranges\":[]}",
			    asked));
	cr_assert_not_null(strstr(asked, "\"since\":5"));
	cr_assert_eq(rows(), 10);
}

static int64_t file_changes(void)
{
	int64_t count;

	cr_assert_eq(dedupe_sql_number(&file.sql, "SELECT total_changes()", &count), 0);
	return count;
}

/* Goal: such a run waits for no sync, and yet no later one misses anything. */
Test(dedupe_plan, a_run_with_nothing_to_do_writes_nothing_and_the_next_asks_since_the_same)
{
	char asked[256];
	int64_t before;

	run_whole(5);
	before = file_changes();
	cr_assert_not(begin_at(6, "true", ""));
	cr_assert_eq(file_changes(), before);
	cr_assert(begin(&whole,
			"\"result\":{\"generation\":7,\"complete\":true,\"ranges\":[[0,4096]]}",
			asked));
	cr_assert_not_null(strstr(asked, "\"since\":5"));
	cr_assert_eq(rows(), 9);
	cr_assert_eq(file.about[DEDUPE_ABOUT_GENERATION], 7);
}

Test(dedupe_plan, regions_that_were_written_are_forgotten_and_no_others)
{
	run_whole(5);
	cr_assert(begin_at(6, "true", "[4096,4096],[10485760,2097153]"));
	cr_assert_eq(rows(), 7);
	cr_assert_eq(dedupe_file_has(&file, 0), 0);
	cr_assert_eq(dedupe_file_has(&file, 4), 1);
	cr_assert_eq(dedupe_file_has(&file, 5), 0);
	cr_assert_eq(dedupe_file_has(&file, 6), 0);
	/* Killed now, and begun again: what was forgotten has still to be read. */
	cr_assert(begin_at(7, "true", ""));
	cr_assert_eq(rows(), 7);
}

/* Goal: a list in several answers is taken whole, and its generation is that of the first one. */
Test(dedupe_plan, a_long_list_is_asked_for_to_its_end)
{
	char asked[256];

	run_whole(5);
	cr_assert(begin(&whole,
			"\"result\":{\"generation\":6,\"complete\":true,\"listed_to\":4194304,"
			"\"ranges\":[[0,2097152]]}}\n{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{"
			"\"generation\":8,\"complete\":true,\"listed_to\":1073741824,"
			"\"ranges\":[[8388608,2097152]]}",
			asked));
	cr_assert_eq(rows(), 8);
	cr_assert_eq(dedupe_file_has(&file, 4), 0);
	cr_assert_eq(file.about[DEDUPE_ABOUT_GENERATION], 6);
	cr_assert_not_null(strstr(asked, "\"from\":4194304"));
}

Test(dedupe_plan, a_store_made_without_tracking_is_read_whole_each_time)
{
	const char *none = "\"result\":{\"generation\":0,\"complete\":false,\"ranges\":[]}";

	cr_assert(begin(&whole, none, NULL));
	put(1);
	cr_assert(begin(&whole, none, NULL));
	cr_assert_eq(rows(), 1, "an interrupted run goes on");
	cr_assert_eq(dedupe_plan_end(&whole, &scratch, 0), 0);
	cr_assert(begin(&whole, none, NULL));
	cr_assert_eq(rows(), 0);
}

Test(dedupe_plan, an_interrupted_run_goes_on_with_what_it_had)
{
	cr_assert(begin_at(5, "true", ""));
	put(1);
	put(2);
	cr_assert(begin_at(6, "true", "[4194304,1]"));
	cr_assert_eq(rows(), 1);
	cr_assert_eq(dedupe_file_has(&file, 1), 1);
}

Test(dedupe_plan, a_server_that_does_not_know_since_then_empties_it)
{
	run_whole(5);
	cr_assert(begin_at(9, "false", ""));
	cr_assert_eq(rows(), 0);
	cr_assert_eq(file.about[DEDUPE_ABOUT_GENERATION], 9);
}

Test(dedupe_plan, an_older_life_of_the_volume_empties_it)
{
	run_whole(5);
	cr_assert(begin_at(4, "true", ""));
	cr_assert_eq(rows(), 0);
	run_whole(6);
	cr_assert(begin(&whole,
			"\"result\":{\"generation\":7,\"complete\":true,\"life\":3,\"ranges\":[]}",
			NULL));
	cr_assert_eq(rows(), 0);
}

Test(dedupe_plan, without_tracking_a_finished_run_is_worth_nothing_and_an_interrupted_one_goes_on)
{
	cr_assert(begin(&whole, UNTRACKED, NULL));
	put(1);
	cr_assert(begin(&whole, UNTRACKED, NULL));
	cr_assert_eq(rows(), 1);
	cr_assert_eq(dedupe_plan_end(&whole, &scratch, 0), 0);
	cr_assert(begin(&whole, UNTRACKED, NULL));
	cr_assert_eq(rows(), 0);
}

Test(dedupe_plan, a_server_that_no_longer_tracks_empties_it)
{
	run_whole(5);
	cr_assert(begin(&whole, UNTRACKED, NULL));
	cr_assert_eq(rows(), 0);
	put(1);
	cr_assert_eq(dedupe_plan_end(&whole, &scratch, 0), 0);
	cr_assert(begin_at(6, "true", ""), "and one that tracks again knows nothing of before");
	cr_assert_eq(rows(), 0);
}

static uint64_t pending(void);

/* Goal: what was refused because its source was written is looked at again, though it was not. */
Test(dedupe_plan, a_region_with_something_rejected_stays_pending)
{
	cr_assert(begin_at(5, "true", ""));
	put(1);
	put(2);
	cr_assert_eq(dedupe_scratch_put_again(&scratch, 2), 0);
	cr_assert_eq(dedupe_scratch_put_again(&scratch, 300), 0);
	cr_assert_eq(dedupe_plan_end(&whole, &scratch, 0), 0);
	cr_assert_eq(pending(), 1);
	cr_assert(begin_at(6, "true", ""), "there is something to do");
	cr_assert_eq(rows(), 2, "and nothing to read");
}

static uint64_t pending(void)
{
	uint64_t count;

	cr_assert_eq(dedupe_file_count_pending(&file, 0, 512, &count), 0);
	return count;
}

Test(dedupe_plan, a_shorter_run_or_more_memory_looks_at_all_again)
{
	struct dedupe_plan plan = whole;
	const char *quiet = "\"result\":{\"generation\":6,\"complete\":true,\"ranges\":[]}";

	plan.min_run_blocks = 16;
	cr_assert(begin(&plan, quiet, NULL));
	put(1);
	cr_assert_eq(dedupe_plan_end(&plan, &scratch, 2), 0);
	plan.min_run_blocks = 32;
	cr_assert_not(begin(&plan, quiet, NULL), "longer ones were among them");
	plan.min_run_blocks = 8;
	cr_assert(begin(&plan, quiet, NULL));
	cr_assert_eq(pending(), 1);
	cr_assert_eq(rows(), 1, "nothing has to be read for it");
	cr_assert_eq(dedupe_plan_end(&plan, &scratch, 2), 0);
	cr_assert_not(begin(&plan, quiet, NULL));
	plan.memory_bytes *= 2;
	cr_assert(begin(&plan, quiet, NULL), "there was a sample, and it can be larger now");
	cr_assert_eq(dedupe_plan_end(&plan, &scratch, 0), 0);
	plan.memory_bytes *= 2;
	cr_assert_not(begin(&plan, quiet, NULL), "there was none");
}

/* Goal: a run over a part says nothing of the rest, nor of regions that it has only touched. */
Test(dedupe_plan, a_part_of_the_volume_is_no_more_than_that)
{
	const struct dedupe_plan part = {2, 5, 3, 4, 1, 256u << 20};
	const char *quiet = "\"result\":{\"generation\":6,\"complete\":true,\"ranges\":[]}";

	cr_assert(begin(&part, quiet, NULL));
	for (uint64_t i = 2; i < 5; i++)
		put(i);
	cr_assert_eq(dedupe_plan_end(&part, &scratch, 0), 0);
	cr_assert_eq(pending(), 2);
	cr_assert(begin(&whole, quiet, NULL));
	cr_assert_eq(dedupe_plan_end(&whole, &scratch, 0), 0);
	cr_assert_eq(pending(), 0);
	cr_assert_not(begin(&part, quiet, NULL));
}
