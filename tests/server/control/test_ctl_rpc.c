/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_ctl_rpc - calls are decoded strictly, and answers are JSON-RPC 2.0
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/request/request.h"
#include "server/control/protocol/ctl_limits.h"
#include "server/control/protocol/ctl_ranges.h"
#include "server/control/protocol/ctl_rpc.h"

static enum ctl_code code_of(const char *line)
{
	struct ctl_rpc_call call;
	struct ctl_rpc_fault fault = {.code = 0};
	int r = ctl_rpc_decode(line, strlen(line), &call, &fault);

	ctl_rpc_call_done(&call);
	cr_assert_eq(r, fault.code == 0 ? 0 : -1);
	if (r < 0) {
		cr_assert_neq(fault.error, 0);
		cr_assert_gt(strlen(fault.message), 0);
	}
	return fault.code;
}

Test(ctl_rpc, a_same_call_is_read_whole)
{
	static const char line[] =
		"{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":\"same\",\"params\":"
		"{\"src\":4096,\"length\":8192,\"dsts\":[0,65536],\"sync\":true}}";
	struct ctl_rpc_call call;
	struct ctl_rpc_fault fault;

	cr_assert_eq(ctl_rpc_decode(line, strlen(line), &call, &fault), 0);
	cr_assert_eq(call.method, CTL_METHOD_SAME);
	cr_assert_str_eq(json_string_value(call.id), "x");
	cr_assert_eq(call.src_off_bytes, 4096);
	cr_assert_eq(call.len_bytes, 8192);
	cr_assert_eq(call.dst_count, 2);
	cr_assert_eq(call.dsts[1], 65536);
	cr_assert(call.sync);
	ctl_rpc_call_done(&call);
}

Test(ctl_rpc, ranges_are_read_in_their_order)
{
	static const char line[] =
		"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"same_ranges\",\"params\":"
		"{\"ranges\":[[4096,8192,65536],[\"zero\",4096,0]]}}";
	struct ctl_rpc_call call;
	struct ctl_rpc_fault fault;

	cr_assert_eq(ctl_rpc_decode(line, strlen(line), &call, &fault), 0);
	cr_assert_eq(call.method, CTL_METHOD_SAME_RANGES);
	cr_assert_eq(call.dst_count, 2);
	cr_assert_eq(call.ranges[0].src_off_bytes, 4096);
	cr_assert_eq(call.ranges[0].len_bytes, 8192);
	cr_assert_eq(call.dsts[0], 65536);
	cr_assert_eq(call.ranges[1].src_off_bytes, SAME_SRC_ZERO);
	cr_assert_eq(call.ranges[1].len_bytes, 4096);
	cr_assert_eq(call.dsts[1], 0);
	cr_assert_not(call.sync);
	ctl_rpc_call_done(&call);
}

Test(ctl_rpc, ranges_that_are_none_are_refused)
{
	static const char *const bad[] = {"{}",
					  "{\"ranges\":[]}",
					  "{\"ranges\":1}",
					  "{\"ranges\":[[0,4096]]}",
					  "{\"ranges\":[[0,4096,8192,0]]}",
					  "{\"ranges\":[[0,4096,-1]]}",
					  "{\"ranges\":[[0,\"zero\",8192]]}",
					  "{\"ranges\":[[\"one\",4096,8192]]}",
					  "{\"ranges\":[{\"src\":0}]}",
					  "{\"ranges\":[[0,4096,8192]],\"src\":0}"};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char line[200];

		snprintf(line, sizeof(line),
			 "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"same_ranges\","
			 "\"params\":%s}",
			 bad[i]);
		cr_assert_eq(code_of(line), CTL_CODE_PARAMS, "%s", bad[i]);
	}
}

Test(ctl_rpc, more_ranges_than_one_call_takes_are_refused)
{
	static char line[CTL_RANGES_MAX * 16 + 200];
	char *at = line;

	for (unsigned n = CTL_RANGES_MAX; n <= CTL_RANGES_MAX + 1; n++) {
		at = line + sprintf(line, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":"
					  "\"same_ranges\",\"params\":{\"ranges\":[");
		for (unsigned i = 0; i < n; i++)
			at += sprintf(at, "%s[0,4096,8192]", i > 0 ? "," : "");
		sprintf(at, "]}}");
		cr_assert_eq(code_of(line), n > CTL_RANGES_MAX ? CTL_CODE_FAILED : 0);
	}
}

Test(ctl_rpc, what_is_written_as_text_is_a_call)
{
	struct ctl_text text = {.bytes = NULL};
	struct ctl_rpc_call call;
	struct ctl_rpc_fault fault;
	char *line;

	ctl_rpc_encode_text(&text, UINT64_C(9223372036854775807), "same_ranges",
			    "{\"ranges\":[[0,4096,8192]],\"sync\":true}");
	line = ctl_text_take(&text);
	cr_assert_not_null(line);
	cr_assert_eq(line[strlen(line) - 1], '\n');
	cr_assert_eq(ctl_rpc_decode(line, strlen(line) - 1, &call, &fault), 0);
	cr_assert_eq(json_integer_value(call.id), INT64_MAX);
	cr_assert_eq(call.dsts[0], 8192);
	cr_assert(call.sync);
	ctl_rpc_call_done(&call);
	free(line);
}

Test(ctl_rpc, the_source_may_be_the_word_zero)
{
	static const char line[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"same\",\"params\":"
				   "{\"src\":\"zero\",\"length\":4096,\"dsts\":[0]}}";
	struct ctl_rpc_call call;
	struct ctl_rpc_fault fault;

	cr_assert_eq(ctl_rpc_decode(line, strlen(line), &call, &fault), 0);
	cr_assert_eq(call.src_off_bytes, SAME_SRC_ZERO);
	ctl_rpc_call_done(&call);
}

Test(ctl_rpc, changes_are_asked_since_a_generation)
{
	static const char line[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"changes\","
				   "\"params\":{\"since\":4294967295,\"from\":2097152}}";
	struct ctl_rpc_call call;
	struct ctl_rpc_fault fault;

	cr_assert_eq(ctl_rpc_decode(line, strlen(line), &call, &fault), 0);
	cr_assert_eq(call.method, CTL_METHOD_CHANGES);
	cr_assert_eq(call.since, UINT32_MAX);
	cr_assert_eq(call.off_bytes, 2097152);
	ctl_rpc_call_done(&call);
}

#define CALL(method, params) "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"" method "\"" params "}"

Test(ctl_rpc, good_calls_pass)
{
	cr_assert_eq(code_of(CALL("status", "")), 0);
	cr_assert_eq(code_of(CALL("stats", ",\"params\":{}")), 0);
	cr_assert_eq(code_of(CALL("map", ",\"params\":{\"offset\":4096}")), 0);
	cr_assert_eq(code_of(CALL("clone", ",\"params\":{\"src\":0,\"length\":1,\"dst\":9}")), 0);
	cr_assert_eq(code_of("{\"jsonrpc\":\"2.0\",\"method\":\"stop\"}"), 0);
}

Test(ctl_rpc, garbage_is_a_parse_error)
{
	static const char *const bad[] = {"",	 "{",	 "}",	"hello",    "{\"jsonrpc\":\"2.0\"",
					  "[1,", "\"x",	 "nul", "\xff\xfe", "{\"a\":1,\"a\":2}",
					  "1 2", "{} {}"};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		cr_assert_eq(code_of(bad[i]), CTL_CODE_PARSE, "%s", bad[i]);
}

Test(ctl_rpc, what_is_no_call_is_invalid)
{
	static const char *const bad[] = {
		"1",
		"null",
		"[]",
		"{}",
		"[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"status\"}]",
		"{\"id\":1,\"method\":\"status\"}",
		"{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"status\"}",
		"{\"jsonrpc\":2.0,\"id\":1,\"method\":\"status\"}",
		"{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"status\"}",
		"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":5}",
		"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"status\",\"parms\":{}}",
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		cr_assert_eq(code_of(bad[i]), CTL_CODE_INVALID, "%s", bad[i]);
}

Test(ctl_rpc, an_unknown_method_is_told_as_such)
{
	cr_assert_eq(code_of(CALL("dedupe", "")), CTL_CODE_METHOD);
	cr_assert_eq(code_of(CALL("", "")), CTL_CODE_METHOD);
}

Test(ctl_rpc, wrong_parameters_are_refused)
{
	static const char *const bad[] = {
		CALL("same", ""),
		CALL("same", ",\"params\":[0,4096,4096]"),
		CALL("same", ",\"params\":{\"src\":0,\"length\":0}"),
		CALL("same", ",\"params\":{\"src\":0,\"length\":0,\"dsts\":[]}"),
		CALL("same", ",\"params\":{\"src\":0,\"length\":0,\"dsts\":5}"),
		CALL("same", ",\"params\":{\"src\":0,\"length\":0,\"dsts\":[1,\"2\"]}"),
		CALL("same", ",\"params\":{\"src\":-1,\"length\":0,\"dsts\":[1]}"),
		CALL("same", ",\"params\":{\"src\":1.5,\"length\":0,\"dsts\":[1]}"),
		CALL("same", ",\"params\":{\"src\":\"one\",\"length\":0,\"dsts\":[1]}"),
		CALL("same", ",\"params\":{\"src\":0,\"length\":-5,\"dsts\":[1]}"),
		CALL("same", ",\"params\":{\"src\":0,\"length\":0,\"dsts\":[1],\"sync\":1}"),
		CALL("same", ",\"params\":{\"src\":0,\"length\":0,\"dsts\":[1],\"what\":1}"),
		CALL("clone", ",\"params\":{\"src\":\"zero\",\"length\":0,\"dst\":1}"),
		CALL("clone", ",\"params\":{\"src\":0,\"length\":0,\"dst\":[1]}"),
		CALL("status", ",\"params\":{\"x\":1}"),
		CALL("map", ",\"params\":{\"offset\":null}"),
		CALL("changes", ""),
		CALL("changes", ",\"params\":{\"since\":-1}"),
		CALL("changes", ",\"params\":{\"since\":4294967296}"),
		CALL("changes", ",\"params\":{\"since\":\"0\"}"),
		CALL("changes", ",\"params\":{\"since\":0,\"from\":-1}"),
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		cr_assert_eq(code_of(bad[i]), CTL_CODE_PARAMS, "%s", bad[i]);
}

/* Row 3 of the same-range rules: above the published limit the whole request is refused. */
Test(ctl_rpc, too_many_destinations_are_refused_as_a_whole)
{
	static char line[4 * SAME_DSTS_MAX + 200];

	for (unsigned count = SAME_DSTS_MAX; count <= SAME_DSTS_MAX + 1; count++) {
		struct ctl_rpc_call call;
		struct ctl_rpc_fault fault = {.error = 0};
		char *at = line + sprintf(line, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"same\","
						"\"params\":{\"src\":0,\"length\":0,\"dsts\":[");

		for (unsigned i = 0; i < count; i++)
			at += sprintf(at, "%s0", i > 0 ? "," : "");
		strcpy(at, "]}}");
		ctl_rpc_decode(line, strlen(line), &call, &fault);
		cr_assert_eq(fault.error, count > SAME_DSTS_MAX ? E2BIG : 0);
		cr_assert_eq(call.dst_count, count > SAME_DSTS_MAX ? 0 : count);
		ctl_rpc_call_done(&call);
	}
}

Test(ctl_rpc, the_id_is_known_also_when_the_call_is_wrong)
{
	static const char line[] = CALL("nothing", "");
	struct ctl_rpc_call call;
	struct ctl_rpc_fault fault;
	char *text;

	cr_assert_eq(ctl_rpc_decode(line, strlen(line), &call, &fault), -1);
	text = ctl_rpc_encode_fault(call.id, &fault);
	cr_assert_str_eq(text, "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32601,"
			       "\"message\":\"there is no method nothing\","
			       "\"data\":{\"errno\":\"ENOSYS\"}}}\n");
	free(text);
	ctl_rpc_call_done(&call);
}

/* Goal: bytes of a client that are quoted in a message cannot break the answer. */
Test(ctl_rpc, a_message_quotes_a_client_in_plain_text)
{
	static const char line[] = CALL("\\u00e4\\u00f6\\u00fc\\n\\\\\\\"", "");
	struct ctl_rpc_call call;
	struct ctl_rpc_fault fault;
	char *text;

	cr_assert_eq(ctl_rpc_decode(line, strlen(line), &call, &fault), -1);
	text = ctl_rpc_encode_fault(NULL, &fault);
	cr_assert_not_null(text);
	cr_assert_null(strchr(text, '\n')[1] != '\0' ? text : NULL, "one line");
	cr_assert_not_null(strstr(text, "\"id\":null"));
	free(text);
	ctl_rpc_call_done(&call);
}

Test(ctl_rpc, results_and_calls_are_one_line)
{
	char *text = ctl_rpc_encode_result(json_integer(7), json_pack("{s:i}", "a", 1));

	cr_assert_str_eq(text, "{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{\"a\":1}}\n");
	free(text);
	text = ctl_rpc_encode_call(9, "status", NULL);
	cr_assert_str_eq(text, "{\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"status\"}\n");
	free(text);
	cr_assert_null(ctl_rpc_encode_result(NULL, NULL), "no memory for the result: no line");
}

Test(ctl_rpc, only_looking_needs_no_control)
{
	cr_assert_not(ctl_method_needs_control(CTL_METHOD_STATUS));
	cr_assert_not(ctl_method_needs_control(CTL_METHOD_STATS));
	cr_assert(ctl_method_needs_control(CTL_METHOD_SAME));
	cr_assert(ctl_method_needs_control(CTL_METHOD_SAME_RANGES));
	cr_assert(ctl_method_needs_control(CTL_METHOD_CLONE));
	cr_assert(ctl_method_needs_control(CTL_METHOD_MAP));
	cr_assert(ctl_method_needs_control(CTL_METHOD_CHANGES));
	cr_assert(ctl_method_needs_control(CTL_METHOD_NBD));
	cr_assert(ctl_method_needs_control(CTL_METHOD_STOP));
	cr_assert(ctl_method_needs_control(CTL_METHOD_DETACH));
}

/* The form that is read without a tree, and the same with blanks, which is not. */
Test(ctl_rpc, the_quick_way_and_the_general_one_agree)
{
	static const char *const params[] = {
		"{\"ranges\":[[0,4096,8192]]}",
		"{\"ranges\":[[0,4096,8192],[\"zero\",8192,4096]],\"sync\":true}",
		"{\"ranges\":[[999999999999999999,1,0]]}",
		"{\"ranges\":[[9223372036854775807,1,0]]}",
		"{\"ranges\":[[9223372036854775808,1,0]]}",
		"{\"ranges\":[[00,4096,8192]]}",
		"{\"ranges\":[[0,4096,8192],]}",
		"{\"ranges\":[[0,4096,8192]],\"sync\":1}",
		"{\"ranges\":[[0,4096,8192]],\"sync\":false}",
		"{\"ranges\":[[0,4096,8192]]",
		"{\"ranges\":[[0,4096,-1]]}",
		"{\"ranges\":[[0,4096,8192][0,4096,16384]]}",
	};

	for (size_t i = 0; i < sizeof(params) / sizeof(params[0]); i++) {
		struct ctl_rpc_call quick, general;
		struct ctl_rpc_fault quick_fault, fault;
		char line[200];
		int r, length;

		length = snprintf(line, sizeof(line),
				  "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"same_ranges\","
				  "\"params\":%s}",
				  params[i]);
		r = ctl_rpc_decode(line, (size_t)length, &quick, &quick_fault);
		length = snprintf(line, sizeof(line),
				  " {\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"same_ranges\","
				  "\"params\":%s}",
				  params[i]);
		cr_assert_eq(ctl_rpc_decode(line, (size_t)length, &general, &fault), r, "%s",
			     params[i]);
		cr_assert(r < 0 ||
			  (quick.dst_count == general.dst_count && quick.sync == general.sync));
		for (uint32_t d = 0; r == 0 && d < quick.dst_count; d++) {
			cr_assert_eq(quick.dsts[d], general.dsts[d]);
			cr_assert_eq(quick.ranges[d].src_off_bytes,
				     general.ranges[d].src_off_bytes);
			cr_assert_eq(quick.ranges[d].len_bytes, general.ranges[d].len_bytes);
		}
		ctl_rpc_call_done(&quick);
		ctl_rpc_call_done(&general);
	}
}

Test(ctl_rpc, an_answer_is_read_the_quick_way_if_all_is_the_same_and_whole)
{
	static const char good[] = "{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{\"results\":"
				   "[[4096,4096,0],[4096,0,4096]]}}";
	static const char other[] = "{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{\"results\":"
				    "[[4096,4096,0],{\"dst\":0}]}}";
	struct ctl_range_same *ranges;
	uint64_t id;
	size_t count;

	cr_assert(ctl_ranges_read_answer(good, strlen(good), &id, &ranges, &count));
	cr_assert_eq(id, 7);
	cr_assert_eq(count, 2);
	cr_assert_eq(ranges[0].freed_bytes, 4096);
	cr_assert_eq(ranges[1].shared_bytes, 4096);
	free(ranges);
	for (size_t len = 0; len < strlen(good); len++)
		cr_assert_not(ctl_ranges_read_answer(good, len, &id, &ranges, &count), "%zu", len);
	cr_assert_not(ctl_ranges_read_answer(other, strlen(other), &id, &ranges, &count));
}
