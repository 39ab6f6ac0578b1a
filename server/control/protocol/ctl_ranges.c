/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ctl_ranges - see the header */
#include "server/control/protocol/ctl_ranges.h"

#include <stdlib.h>
#include <string.h>

#include "core/request/request.h"
#include "server/control/protocol/ctl_limits.h"

#define DIGITS_MAX 18u /* of a number that fits for certain */

struct cursor {
	const char *at;
	const char *end;
};

static bool take_text(struct cursor *cursor, const char *text)
{
	size_t len = strlen(text);

	if ((size_t)(cursor->end - cursor->at) < len || memcmp(cursor->at, text, len) != 0)
		return false;
	cursor->at += len;
	return true;
}

static bool take_char(struct cursor *cursor, char c)
{
	if (cursor->at == cursor->end || *cursor->at != c)
		return false;
	cursor->at++;
	return true;
}

/* As JSON writes it: no zero before other digits. */
static bool take_number(struct cursor *cursor, uint64_t *ret_number)
{
	const char *begin = cursor->at;
	uint64_t number = 0;

	while (cursor->at < cursor->end && *cursor->at >= '0' && *cursor->at <= '9')
		number = number * 10 + (uint64_t)(*cursor->at++ - '0');
	*ret_number = number;
	return cursor->at > begin && cursor->at - begin <= (ptrdiff_t)DIGITS_MAX &&
	       (*begin != '0' || cursor->at - begin == 1);
}

static bool take_three(struct cursor *cursor, uint64_t *ret_a, uint64_t *ret_b, uint64_t *ret_c)
{
	return take_number(cursor, ret_a) && take_char(cursor, ',') && take_number(cursor, ret_b) &&
	       take_char(cursor, ',') && take_number(cursor, ret_c) && take_char(cursor, ']');
}

/* How many arrays the rest has at the most. */
static size_t count_arrays(const struct cursor *cursor)
{
	size_t count = 0;

	for (const char *at = cursor->at; at < cursor->end; at++)
		count += *at == '[';
	return count;
}

static bool take_range(struct cursor *cursor, struct ctl_range *range, uint64_t *dst)
{
	if (!take_char(cursor, '['))
		return false;
	if (!take_text(cursor, "\"zero\","))
		return take_three(cursor, &range->src_off_bytes, &range->len_bytes, dst);
	range->src_off_bytes = SAME_SRC_ZERO;
	return take_number(cursor, &range->len_bytes) && take_char(cursor, ',') &&
	       take_number(cursor, dst) && take_char(cursor, ']');
}

static bool take_ranges(struct cursor *cursor, struct ctl_rpc_call *call)
{
	do {
		uint32_t i = call->dst_count++;

		if (!take_range(cursor, &call->ranges[i], &call->dsts[i]))
			return false;
	} while (take_char(cursor, ','));
	if (!take_char(cursor, ']'))
		return false;
	call->sync = take_text(cursor, ",\"sync\":true");
	return take_text(cursor, "}}") && cursor->at == cursor->end;
}

bool ctl_ranges_read_call(const char *line, size_t len_bytes, struct ctl_rpc_call *ret_call)
{
	struct cursor cursor = {line, line + len_bytes};
	struct ctl_rpc_call call = {.method = CTL_METHOD_SAME_RANGES};
	uint64_t id;
	size_t count;

	if (!take_text(&cursor, "{\"jsonrpc\":\"2.0\",\"id\":") || !take_number(&cursor, &id) ||
	    !take_text(&cursor, ",\"method\":\"same_ranges\",\"params\":{\"ranges\":["))
		return false;
	count = count_arrays(&cursor);
	if (count == 0 || count > CTL_RANGES_MAX)
		return false;
	call.dsts = calloc(count, sizeof(*call.dsts));
	call.ranges = calloc(count, sizeof(*call.ranges));
	call.id = json_integer((json_int_t)id);
	if (call.dsts == NULL || call.ranges == NULL || call.id == NULL ||
	    !take_ranges(&cursor, &call)) {
		ctl_rpc_call_done(&call);
		return false;
	}
	*ret_call = call;
	return true;
}

bool ctl_ranges_read_answer(const char *line, size_t len_bytes, uint64_t *ret_id,
			    struct ctl_range_same **ret_ranges, size_t *ret_count)
{
	struct cursor cursor = {line, line + len_bytes};
	struct ctl_range_same *ranges;
	size_t n = 0;
	bool good;

	if (!take_text(&cursor, "{\"jsonrpc\":\"2.0\",\"id\":") || !take_number(&cursor, ret_id) ||
	    !take_text(&cursor, ",\"result\":{\"results\":["))
		return false;
	ranges = calloc(count_arrays(&cursor) + 1, sizeof(*ranges));
	if (ranges == NULL)
		return false;
	do {
		good = take_char(&cursor, '[') &&
		       take_three(&cursor, &ranges[n].deduped_bytes, &ranges[n].freed_bytes,
				  &ranges[n].shared_bytes);
		n++;
	} while (good && take_char(&cursor, ','));
	if (!good || !take_text(&cursor, "]}}") || cursor.at != cursor.end) {
		free(ranges);
		return false;
	}
	*ret_ranges = ranges;
	*ret_count = n;
	return true;
}
