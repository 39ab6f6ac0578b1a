/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_same_line - one line becomes the right requests, whatever the server answers
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/same/same_line.h"
#include "core/request/request.h"

static struct same_line line_of(uint64_t src, uint64_t len, uint32_t count, const uint64_t *dsts)
{
	struct same_line line = {.src_off_bytes = src, .len_bytes = len};
	uint64_t *copy = calloc(count, sizeof(*copy));

	for (uint32_t i = 0; i < count; i++)
		copy[i] = dsts[i];
	cr_assert_eq(same_line_begin(&line, copy, count), 0);
	return line;
}

/* The request as compact JSON without sync, to compare with. */
static void expect_request(const struct same_line *line, const char *want)
{
	json_t *params = same_line_params(line);
	char *text;

	cr_assert_not_null(params);
	json_object_del(params, "sync");
	text = json_dumps(params, JSON_COMPACT);
	cr_assert_str_eq(text, want);
	free(text);
	json_decref(params);
}

static int answer(struct same_line *line, const char *results)
{
	json_t *result = json_pack("{s:o}", "results", json_loads(results, 0, NULL));
	int r = same_line_result(line, result);

	json_decref(result);
	return r;
}

/* What the fake server says of a destination. */
#define SAME(bytes) "{\"status\":\"same\",\"bytes_deduped\":" #bytes ",\"bytes_freed\":" #bytes "}"

#define EMLINK_AT(bytes) "{\"status\":\"error\",\"error\":\"EMLINK\",\"bytes_deduped\":" #bytes "}"

Test(same_line, one_answer_is_enough_when_all_is_the_same)
{
	struct same_line line = line_of(0, 100, 2, (uint64_t[]){1000, 2000});

	expect_request(&line, "{\"src\":0,\"length\":100,\"dsts\":[1000,2000]}");
	cr_assert_eq(answer(&line, "[" SAME(100) "," SAME(100) "]"), 0);
	cr_assert(same_line_finished(&line));
	cr_assert_eq(line.outcomes[1].status, SAME_SAME);
	cr_assert_eq(line.outcomes[1].same_bytes, 100);
	cr_assert_eq(line.outcomes[1].freed_bytes, 100);
	same_line_done(&line);
}

Test(same_line, it_goes_on_after_clamping)
{
	struct same_line line = line_of(0, 100, 3, (uint64_t[]){1000, 2000, 3000});

	cr_assert_eq(answer(&line, "[" SAME(40) ",{\"status\":\"differs\",\"bytes_deduped\":8,"
						"\"differs_at\":11}," SAME(40) "]"),
		     0);
	expect_request(&line, "{\"src\":40,\"length\":60,\"dsts\":[1040,3040]}");
	cr_assert_eq(answer(&line, "[" SAME(60) ",{\"status\":\"differs\",\"bytes_deduped\":20,"
						"\"differs_at\":21}]"),
		     0);
	cr_assert(same_line_finished(&line));
	cr_assert_eq(line.outcomes[0].status, SAME_SAME);
	cr_assert_eq(line.outcomes[0].freed_bytes, 100);
	cr_assert_eq(line.outcomes[1].status, SAME_DIFFERS);
	cr_assert_eq(line.outcomes[1].differs_at_bytes, 11);
	cr_assert_eq(line.outcomes[1].same_bytes, 8);
	cr_assert_eq(line.outcomes[2].differs_at_bytes, 61, "counted from the range's start");
	cr_assert_eq(line.outcomes[2].same_bytes, 60);
	same_line_done(&line);
}

Test(same_line, more_destinations_than_a_request_takes_are_split)
{
	uint32_t count = 2 * SAME_DSTS_MAX + 1;
	uint64_t *dsts = calloc(count, sizeof(*dsts));
	struct same_line line;
	uint32_t seen = 0;

	for (uint32_t i = 0; i < count; i++)
		dsts[i] = 4096 * (uint64_t)(i + 1);
	line = line_of(0, 4096, count, dsts);
	for (int i = 0; i < 3; i++) {
		json_t *results = json_array();
		json_t *result = json_pack("{s:o}", "results", results);

		cr_assert_leq(line.groups->count, SAME_DSTS_MAX);
		cr_assert_eq(line.groups->members[0], seen, "in the order given");
		seen += line.groups->count;
		for (uint32_t j = 0; j < line.groups->count; j++)
			json_array_append_new(results, json_pack("{s:s,s:i}", "status", "same",
								 "bytes_deduped", 4096));
		cr_assert_eq(same_line_result(&line, result), 0);
		json_decref(result);
	}
	cr_assert(same_line_finished(&line));
	cr_assert_eq(seen, count);
	same_line_done(&line);
	free(dsts);
}

/* Row 19 of the same-range rules. */
Test(same_line, after_emlink_that_destination_is_the_new_source)
{
	struct same_line line = line_of(0, 100, 4, (uint64_t[]){1000, 2000, 3000, 4000});

	cr_assert_eq(answer(&line,
			    "[" SAME(60) "," EMLINK_AT(20) "," EMLINK_AT(20) "," EMLINK_AT(20) "]"),
		     0);
	expect_request(&line, "{\"src\":60,\"length\":40,\"dsts\":[1060]}");
	cr_assert_eq(answer(&line, "[" SAME(40) "]"), 0);
	/* The others try the same part again, from its beginning. */
	expect_request(&line, "{\"src\":2000,\"length\":100,\"dsts\":[3000,4000]}");
	cr_assert_eq(answer(&line, "[{\"status\":\"same\",\"bytes_deduped\":100,\"bytes_freed\":80,"
				   "\"bytes_already_shared\":20}," EMLINK_AT(30) "]"),
		     0);
	cr_assert(same_line_finished(&line));
	cr_assert_eq(line.outcomes[0].status, SAME_SAME);
	cr_assert_eq(line.outcomes[1].status, SAME_ERROR);
	cr_assert_str_eq(line.outcomes[1].error, "EMLINK");
	cr_assert_eq(line.outcomes[1].same_bytes, 20);
	cr_assert_eq(line.outcomes[2].status, SAME_SAME);
	cr_assert_eq(line.outcomes[2].same_bytes, 100);
	cr_assert_eq(line.outcomes[2].shared_bytes, 0, "its own merge is not counted as shared");
	cr_assert_str_eq(line.outcomes[3].error, "EMLINK", "nobody is left to merge with it");
	same_line_done(&line);
}

Test(same_line, an_error_of_one_destination_is_its_own)
{
	struct same_line line = line_of(0, 100, 2, (uint64_t[]){1000, 2000});

	cr_assert_eq(answer(&line,
			    "[{\"status\":\"error\",\"error\":\"EIO\",\"message\":\"broken\","
			    "\"bytes_deduped\":0}," SAME(100) "]"),
		     0);
	cr_assert(same_line_finished(&line));
	cr_assert_str_eq(line.outcomes[0].error, "EIO");
	cr_assert_str_eq(line.outcomes[0].message, "broken");
	cr_assert_eq(line.outcomes[1].status, SAME_SAME);
	same_line_done(&line);
}

Test(same_line, overlap_with_the_source_is_refused_for_the_whole_length)
{
	struct same_line line = line_of(1000, 100, 3, (uint64_t[]){1099, 1100, 901});

	expect_request(&line, "{\"src\":1000,\"length\":100,\"dsts\":[1100]}");
	cr_assert_str_eq(line.outcomes[0].error, "EINVAL");
	cr_assert_eq(line.outcomes[1].status, SAME_RUNNING);
	cr_assert_str_eq(line.outcomes[2].error, "EINVAL");
	same_line_done(&line);
}

Test(same_line, no_progress_ends_it)
{
	struct same_line line = line_of(0, 100, 1, (uint64_t[]){1000});

	cr_assert_eq(answer(&line, "[" SAME(0) "]"), 0);
	cr_assert(same_line_finished(&line));
	cr_assert_str_eq(line.outcomes[0].error, "EIO");
	same_line_done(&line);
}

Test(same_line, length_zero_succeeds)
{
	struct same_line line = line_of(0, 0, 1, (uint64_t[]){0});

	cr_assert_eq(answer(&line, "[" SAME(0) "]"), 0);
	cr_assert(same_line_finished(&line));
	cr_assert_eq(line.outcomes[0].status, SAME_SAME);
	same_line_done(&line);
}

Test(same_line, a_refused_request_is_the_lines_error)
{
	struct same_line line = line_of(0, 100, 2, (uint64_t[]){1000, 2000});

	same_line_failed(&line, "EROFS", "read-only");
	cr_assert(same_line_finished(&line));
	cr_assert_str_eq(line.error, "EROFS");
	same_line_done(&line);
}

Test(same_line, refused_later_it_is_the_destinations_error)
{
	struct same_line line = line_of(0, 100, 2, (uint64_t[]){1000, 2000});

	cr_assert_eq(answer(&line, "[{\"status\":\"differs\"}," SAME(50) "]"), 0);
	same_line_failed(&line, "ECANCELED", "stopping");
	cr_assert_str_eq(line.error, "");
	cr_assert_eq(line.outcomes[0].status, SAME_DIFFERS);
	cr_assert_str_eq(line.outcomes[1].error, "ECANCELED");
	cr_assert_eq(line.outcomes[1].same_bytes, 50);
	same_line_done(&line);
}

Test(same_line, an_answer_that_does_not_fit_is_refused)
{
	static const char *const bad[] = {"[]",
					  "[{}]",
					  "[1]",
					  "[" SAME(101) "]",
					  "[{\"status\":\"error\"}]",
					  "[" SAME(1) "," SAME(1) "]",
					  "[{\"status\":\"fine\"}]"};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct same_line line = line_of(0, 100, 1, (uint64_t[]){1000});

		cr_assert_eq(answer(&line, bad[i]), -EBADMSG, "%s", bad[i]);
		same_line_failed(&line, "EBADMSG", "bad");
		same_line_done(&line);
	}
}

Test(same_line, lines_that_touch_the_same_blocks_conflict)
{
	struct same_line a = line_of(0, 100, 1, (uint64_t[]){1000});
	struct same_line chain = line_of(1050, 100, 1, (uint64_t[]){3000});
	struct same_line back = line_of(5000, 100, 1, (uint64_t[]){50});
	struct same_line beside = line_of(0, 100, 1, (uint64_t[]){1100});
	struct same_line source = line_of(0, 100, 1, (uint64_t[]){9000});
	struct same_line twice = line_of(7000, 100, 1, (uint64_t[]){1000});

	cr_assert(same_line_conflicts(&a, &chain));
	cr_assert(same_line_conflicts(&a, &back));
	cr_assert(same_line_conflicts(&a, &twice));
	cr_assert_not(same_line_conflicts(&a, &beside));
	cr_assert_not(same_line_conflicts(&a, &source));
	same_line_done(&a);
	same_line_done(&chain);
	same_line_done(&back);
	same_line_done(&beside);
	same_line_done(&source);
	same_line_done(&twice);
}
