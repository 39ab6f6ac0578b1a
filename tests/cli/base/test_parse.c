/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_parse - sizes and options are read as docs say, and what is wrong is refused
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>

#include "server/base/size.h"

#include "cli/base/parse.h"

struct size_case {
	const char *text;
	uint64_t bytes;
};

Test(parse_size, takes_decimal_hexadecimal_and_suffixes)
{
	static const struct size_case cases[] = {
		{"0", 0},
		{"4096", 4096},
		{"007", 7},
		{"0x1000", 4096},
		{"0XfF", 255},
		{"1K", 1024},
		{"3k", 3072},
		{"2M", 2ull << 20},
		{"5G", 5ull << 30},
		{"64T", 64ull << 40},
		{"0x10K", 16384},
		{"9223372036854775807", INT64_MAX},
		{"0x7fffffffffffffff", INT64_MAX},
		{"8388607T", 8388607ull << 40},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t bytes = 1;

		cr_assert_eq(size_parse(cases[i].text, &bytes), 0, "%s", cases[i].text);
		cr_assert_eq(bytes, cases[i].bytes, "%s", cases[i].text);
	}
}

Test(parse_size, refuses_what_is_no_size)
{
	static const char *const bad[] = {"",	"K",   "-1",   "+1", " 1",  "1 ",   "1KB", "1KiB",
					  "0x", "0xG", "1.5G", "4P", "12Q", "0x-1", "1e6", "ten"};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		uint64_t bytes = 77;

		cr_assert_eq(size_parse(bad[i], &bytes), -EINVAL, "%s", bad[i]);
		cr_assert_eq(bytes, 77, "a result is not touched on failure");
	}
}

Test(parse_size, never_wraps)
{
	static const char *const large[] = {"9223372036854775808",	  "18446744073709551616",
					    "99999999999999999999999999", "0x8000000000000000",
					    "0xffffffffffffffffff",	  "8388608T",
					    "9007199254740992K"};

	for (size_t i = 0; i < sizeof(large) / sizeof(large[0]); i++) {
		uint64_t bytes;

		cr_assert_eq(size_parse(large[i], &bytes), -ERANGE, "%s", large[i]);
	}
}

struct parsed {
	bool sync;
	bool json;
	const char *control;
	struct parse_size_value size;
	enum parse_next next;
	int count;
	char *argv[16];
};

static struct parsed run(char *const *words, int count)
{
	struct parsed parsed = {.next = PARSE_BAD};
	const struct parse_option options[] = {
		{"control", 'c', PARSE_TEXT, &parsed.control, "PATH", ""},
		{"sync", 's', PARSE_FLAG, &parsed.sync, NULL, ""},
		PARSE_JSON(&parsed.json),
		{"size", 0, PARSE_SIZE, &parsed.size, "SIZE", ""},
		{NULL, 0, PARSE_FLAG, NULL, NULL, NULL},
	};
	const struct parse_command command = {"test", "A [B [C]]", "", options, 1, 3};

	for (int i = 0; i < count; i++)
		parsed.argv[i] = words[i];
	parsed.next = parse_command(&command, count, parsed.argv, &parsed.count);
	return parsed;
}

#define RUN(...) run((char *[]){__VA_ARGS__}, sizeof((char *[]){__VA_ARGS__}) / sizeof(char *))

Test(parse_command, options_stand_before_between_and_after_operands)
{
	struct parsed p = RUN("test", "--sync", "1", "-c", "path", "2", "--size=4K", "-", "--json");

	cr_assert_eq(p.next, PARSE_GO);
	cr_assert(p.sync && p.json && p.size.given);
	cr_assert_eq(p.size.bytes, 4096);
	cr_assert_str_eq(p.control, "path");
	cr_assert_eq(p.count, 3);
	cr_assert_str_eq(p.argv[1], "1");
	cr_assert_str_eq(p.argv[2], "2");
	cr_assert_str_eq(p.argv[3], "-");
}

Test(parse_command, values_may_be_attached_or_apart)
{
	cr_assert_str_eq(RUN("test", "-cpath", "1").control, "path");
	cr_assert_str_eq(RUN("test", "--control=a=b", "1").control, "a=b");
	cr_assert_str_eq(RUN("test", "1", "--control", "--sync").control, "--sync");
	cr_assert_str_eq(RUN("test", "1", "-sc", "path").control, "path");
	cr_assert_str_eq(RUN("test", "1", "--control=").control, "");
}

Test(parse_command, two_dashes_end_the_options)
{
	struct parsed p = RUN("test", "--", "--sync", "-c");

	cr_assert_eq(p.next, PARSE_GO);
	cr_assert_not(p.sync);
	cr_assert_eq(p.count, 2);
	cr_assert_str_eq(p.argv[1], "--sync");
}

Test(parse_command, help_and_version_need_nothing_else)
{
	cr_assert_eq(RUN("test", "--help").next, PARSE_DONE);
	cr_assert_eq(RUN("test", "1", "-h").next, PARSE_DONE);
	cr_assert_eq(RUN("test", "--version", "1", "2", "3", "4").next, PARSE_DONE);
}

Test(parse_command, what_is_wrong_is_refused)
{
	cr_assert_eq(RUN("test").next, PARSE_BAD);
	cr_assert_eq(RUN("test", "1", "2", "3", "4").next, PARSE_BAD);
	cr_assert_eq(RUN("test", "1", "--nothing").next, PARSE_BAD);
	cr_assert_eq(RUN("test", "1", "--syn").next, PARSE_BAD);
	cr_assert_eq(RUN("test", "1", "-x").next, PARSE_BAD);
	cr_assert_eq(RUN("test", "1", "--sync=yes").next, PARSE_BAD);
	cr_assert_eq(RUN("test", "1", "--size").next, PARSE_BAD);
	cr_assert_eq(RUN("test", "1", "--size", "12Q").next, PARSE_BAD);
	cr_assert_eq(RUN("test", "1", "-c").next, PARSE_BAD);
}
