/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ctl - fuzz target: the control protocol from a client's bytes to the answers
 *
 *   input:  line limit, portion, bytes of the stream
 *
 * The bytes come in portions. Oracles:
 *
 *   framing   what comes out of it is what splitting the whole stream at newlines gives
 *   decoding  a call that is accepted, encoded as a client would, is accepted again as the same
 *             call; what is refused has a code, an errno and a printable reason
 *   answers   each is one line of JSON-RPC 2.0 with the call's id, and either a result of the shape
 *             of its method or an error, and not longer than a client must be ready for
 *   volume    calls are carried out on a small one, which afterwards closes without error
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "server/control/ctl_answer.h"
#include "server/control/ctl_call.h"
#include "server/control/protocol/ctl_frame.h"
#include "server/control/protocol/ctl_limits.h"
#include "server/control/protocol/ctl_rpc.h"
#include "tests/fuzz/fuzz.h"
#include "tests/lib/engine.h"

#define CALLS_MAX 32u /* carried out, of one input */

/* A stream seen whole, and how far framing has come in it. */
struct stream {
	const char *bytes;
	size_t len_bytes;
	size_t at;
	size_t limit_bytes;
};

struct world {
	struct engine engine;
	struct ctl_calls calls;
	struct worker *worker;
	bool open;
	unsigned started;
};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	return 0;
}

/* --- answers --- */

static json_t *decode_answer(const char *line)
{
	size_t len_bytes = strlen(line);
	json_error_t error;
	json_t *root;

	FUZZ_CHECK(len_bytes > 0 && line[len_bytes - 1] == '\n', "no newline at the end");
	FUZZ_CHECK(strchr(line, '\n') == line + len_bytes - 1, "a newline inside");
	FUZZ_CHECK(len_bytes <= CTL_ANSWER_BYTES_MAX, "an answer of %zu bytes", len_bytes);
	root = json_loadb(line, len_bytes, JSON_REJECT_DUPLICATES, &error);
	FUZZ_CHECK(json_is_object(root), "no JSON: %s in %s", error.text, line);
	return root;
}

static void look_at_envelope(const json_t *root, const json_t *id)
{
	const char *version = json_string_value(json_object_get(root, "jsonrpc"));
	json_t *null = json_null();

	FUZZ_CHECK(version && strcmp(version, "2.0") == 0, "no version");
	FUZZ_CHECK(json_equal(json_object_get(root, "id"), id ? id : null), "another id");
	FUZZ_CHECK(json_object_size(root) == 3, "%zu members", json_object_size(root));
}

static void look_at_fault(const struct ctl_rpc_fault *fault, json_t *id)
{
	char *line = ctl_rpc_encode_fault(id, fault);
	json_t *root, *error;
	const char *name;

	FUZZ_CHECK(fault->code == CTL_CODE_PARSE || fault->code == CTL_CODE_INVALID ||
			   fault->code == CTL_CODE_METHOD || fault->code == CTL_CODE_PARAMS ||
			   fault->code == CTL_CODE_FAILED,
		   "code %d", fault->code);
	FUZZ_CHECK(fault->error > 0 && memchr(fault->message, 0, sizeof(fault->message)) &&
			   fault->message[0],
		   "errno %d", fault->error);
	FUZZ_CHECK(line, "the fault %s cannot be said", fault->message);
	root = decode_answer(line);
	look_at_envelope(root, id);
	error = json_object_get(root, "error");
	FUZZ_CHECK(json_integer_value(json_object_get(error, "code")) == fault->code, "the code");
	name = json_string_value(json_object_get(json_object_get(error, "data"), "errno"));
	FUZZ_CHECK(name && name[0] == 'E', "the errno's name");
	json_decref(root);
	free(line);
}

static void look_at_results(const struct ctl_call *call, const json_t *result)
{
	json_t *results = json_object_get(result, "results");
	uint64_t length = call->rpc.len_bytes;

	FUZZ_CHECK(json_array_size(results) == call->rpc.dst_count, "%zu results",
		   json_array_size(results));
	for (uint32_t i = 0; i < call->rpc.dst_count; i++) {
		const json_t *one = json_array_get(results, i);
		const char *status = json_string_value(json_object_get(one, "status"));
		json_int_t deduped = json_integer_value(json_object_get(one, "bytes_deduped"));
		json_int_t differs_at = json_integer_value(json_object_get(one, "differs_at"));

		FUZZ_CHECK(json_integer_value(json_object_get(one, "dst")) ==
				   (json_int_t)call->rpc.dsts[i],
			   "destination %u", i);
		FUZZ_CHECK(deduped >= 0 && (uint64_t)deduped <= length, "more than was asked");
		FUZZ_CHECK(status && (strcmp(status, "differs") != 0 ||
				      (differs_at >= 0 && (uint64_t)differs_at < length)),
			   "differs outside the range");
	}
}

/* Runs that join without a gap, from the call's offset to mapped_to. */
static void look_at_map(const struct ctl_call *call, const json_t *result)
{
	json_t *runs = json_object_get(result, "runs");
	json_int_t at = (json_int_t)call->rpc.off_bytes;

	for (size_t i = 0; i < json_array_size(runs); i++) {
		const json_t *run = json_array_get(runs, i);
		json_int_t length = json_integer_value(json_object_get(run, "length"));

		FUZZ_CHECK(json_integer_value(json_object_get(run, "offset")) == at && length > 0,
			   "run %zu", i);
		at += length;
	}
	FUZZ_CHECK(json_integer_value(json_object_get(result, "mapped_to")) == at, "mapped_to");
	FUZZ_CHECK((uint64_t)at <= call->rpc.off_bytes + call->rpc.len_bytes, "past the end");
}

/* Ranges in order, between the call's beginning and listed_to. */
static void look_at_changes(const struct ctl_call *call, const json_t *result)
{
	const json_t *ranges = json_object_get(result, "ranges");
	json_int_t at = (json_int_t)call->rpc.off_bytes;
	json_int_t end = json_integer_value(json_object_get(result, "listed_to"));

	for (size_t i = 0; i < json_array_size(ranges); i++) {
		const json_t *range = json_array_get(ranges, i);
		json_int_t off = json_integer_value(json_array_get(range, 0));
		json_int_t len = json_integer_value(json_array_get(range, 1));

		FUZZ_CHECK(off >= at && len > 0, "range %zu", i);
		at = off + len;
	}
	FUZZ_CHECK(at <= end && (uint64_t)end <= call->size_bytes, "listed_to");
}

static void look_at_result(const struct ctl_call *call)
{
	static const char *const uris[] = {"nbd+unix:///?socket=/tmp/x", NULL};
	const struct ctl_answer_server server = {.store_path = "/tmp/\xff", .uris = uris};
	char *line = ctl_rpc_encode_result(call->rpc.id, ctl_answer(call, &server));
	json_t *root, *result;

	FUZZ_CHECK(line, "no answer");
	root = decode_answer(line);
	look_at_envelope(root, call->rpc.id);
	result = json_object_get(root, "result");
	FUZZ_CHECK(json_is_object(result), "no result");
	if (call->rpc.method == CTL_METHOD_SAME)
		look_at_results(call, result);
	else if (call->rpc.method == CTL_METHOD_MAP)
		look_at_map(call, result);
	else if (call->rpc.method == CTL_METHOD_CHANGES)
		look_at_changes(call, result);
	json_decref(root);
	free(line);
}

/* --- the volume --- */

/* Two equal halves of the first 64 KiB, the rest holes. */
static void open_world(struct world *world)
{
	struct engine_options options = {.logical_bytes = 1 << 20, .tracking = true};
	int r;

	engine_init(&world->engine, &options);
	engine_write(&world->engine, 0, 8, 1);
	engine_write(&world->engine, 8, 8, 1);
	world->worker = &world->engine.workers[0];
	r = ctl_calls_init(&world->calls, world->engine.volume, &world->worker, 1);
	FUZZ_CHECK(r == 0, "calls: %d", r);
	world->open = true;
}

static void answer(struct ctl_call *call)
{
	struct ctl_rpc_fault fault;

	if (call->error == 0) {
		look_at_result(call);
		return;
	}
	FUZZ_CHECK(call->error == EINVAL || call->error == ENOSPC || call->error == E2BIG ||
			   call->error == ECANCELED,
		   "a call failed with %d, %s", call->error, call->message);
	ctl_rpc_fault_set(&fault, CTL_CODE_FAILED, call->error, "%s", call->message);
	look_at_fault(&fault, call->rpc.id);
}

static void reap(struct world *world)
{
	struct ctl_call *call;

	do {
		engine_settle(&world->engine);
		call = ctl_calls_reap(&world->calls);
		if (call)
			answer(call);
		if (call)
			ctl_call_free(call);
	} while (call);
	FUZZ_CHECK(list_empty(&world->calls.all), "a call was not answered");
}

static void close_world(struct world *world)
{
	int r;

	if (!world->open)
		return;
	reap(world);
	ctl_calls_done(&world->calls);
	r = engine_close(&world->engine);
	FUZZ_CHECK(r == 0, "closing: %d, %s", r, world->engine.log);
	engine_done(&world->engine);
}

static void carry_out(struct world *world, struct ctl_rpc_call *rpc)
{
	struct ctl_call *call;

	if (rpc->method == CTL_METHOD_STOP || rpc->method == CTL_METHOD_DETACH ||
	    rpc->method == CTL_METHOD_NBD || world->started == CALLS_MAX)
		return;
	if (!world->open)
		open_world(world);
	FUZZ_CHECK(ctl_call_bytes(rpc) <= CTL_CONN_BYTES_MAX, "a call too large for a connection");
	call = ctl_call_start(&world->calls, rpc, NULL);
	FUZZ_CHECK(call, "no memory");
	/* Every fourth is cancelled, some before they began. */
	if (world->started++ % 4 == 3)
		ctl_call_cancel(call);
}

/* --- calls --- */

static json_t *ranges_of(const struct ctl_rpc_call *call, json_t *params)
{
	json_t *ranges = json_array();

	for (uint32_t i = 0; i < call->dst_count; i++) {
		const struct ctl_range *range = &call->ranges[i];
		json_t *src = range->src_off_bytes == SAME_SRC_ZERO
				      ? json_string("zero")
				      : json_integer((json_int_t)range->src_off_bytes);

		json_array_append_new(ranges,
				      json_pack("[o, I, I]", src, (json_int_t)range->len_bytes,
						(json_int_t)call->dsts[i]));
	}
	json_object_set_new(params, "ranges", ranges);
	json_object_set_new(params, "sync", json_boolean(call->sync));
	return params;
}

static json_t *params_of(const struct ctl_rpc_call *call)
{
	json_t *params = json_object(), *dsts = json_array();
	bool to_many = call->method == CTL_METHOD_SAME, job = to_many || call->dst_count;

	if (call->method == CTL_METHOD_SAME_RANGES) {
		json_decref(dsts);
		return ranges_of(call, params);
	}
	for (uint32_t i = 0; to_many && i < call->dst_count; i++)
		json_array_append_new(dsts, json_integer((json_int_t)call->dsts[i]));
	if (job && call->src_off_bytes == SAME_SRC_ZERO)
		json_object_set_new(params, "src", json_string("zero"));
	else if (job)
		json_object_set_new(params, "src", json_integer((json_int_t)call->src_off_bytes));
	if (to_many)
		json_object_set(params, "dsts", dsts);
	else if (job)
		json_object_set_new(params, "dst", json_integer((json_int_t)call->dsts[0]));
	if (job)
		json_object_set_new(params, "sync", json_boolean(call->sync));
	if (call->has_len)
		json_object_set_new(params, "length", json_integer((json_int_t)call->len_bytes));
	if (call->method == CTL_METHOD_MAP)
		json_object_set_new(params, "offset", json_integer((json_int_t)call->off_bytes));
	if (call->method == CTL_METHOD_CHANGES) {
		json_object_set_new(params, "from", json_integer((json_int_t)call->off_bytes));
		json_object_set_new(params, "since", json_integer(call->since));
	}
	json_decref(dsts);
	return params;
}

static void look_at_round_trip(const struct ctl_rpc_call *call)
{
	static const char *const names[] = {
		[CTL_METHOD_SAME] = "same",
		[CTL_METHOD_CLONE] = "clone",
		[CTL_METHOD_MAP] = "map",
		[CTL_METHOD_CHANGES] = "changes",
		[CTL_METHOD_STATUS] = "status",
		[CTL_METHOD_STATS] = "stats",
		[CTL_METHOD_NBD] = "nbd",
		[CTL_METHOD_TRIM] = "trim",
		[CTL_METHOD_STOP] = "stop",
		[CTL_METHOD_DETACH] = "detach",
		[CTL_METHOD_SAME_RANGES] = "same_ranges",
	};
	char *line = ctl_rpc_encode_call(7, names[call->method], params_of(call));
	struct ctl_rpc_fault fault = {.code = 0};
	struct ctl_rpc_call again;
	int r;

	FUZZ_CHECK(line, "it cannot be encoded");
	r = ctl_rpc_decode(line, strlen(line) - 1, &again, &fault);
	FUZZ_CHECK(r == 0, "decoded, encoded, refused: %s: %s", fault.message, line);
	FUZZ_CHECK(again.method == call->method && again.src_off_bytes == call->src_off_bytes &&
			   again.off_bytes == call->off_bytes && again.since == call->since &&
			   again.len_bytes == call->len_bytes && again.has_len == call->has_len &&
			   again.sync == call->sync && again.dst_count == call->dst_count,
		   "another call: %s", line);
	FUZZ_CHECK(call->dst_count == 0 || memcmp(again.dsts, call->dsts,
						  call->dst_count * sizeof(*call->dsts)) == 0,
		   "other destinations: %s", line);
	FUZZ_CHECK(call->ranges == NULL || memcmp(again.ranges, call->ranges,
						  call->dst_count * sizeof(*call->ranges)) == 0,
		   "other ranges: %s", line);
	FUZZ_CHECK(json_integer_value(again.id) == 7, "another id");
	ctl_rpc_call_done(&again);
	free(line);
}

static void take_line(struct world *world, const char *line, size_t len_bytes)
{
	/* In memory that ends where the line ends. */
	char *copy = malloc(len_bytes ? len_bytes : 1);
	struct ctl_rpc_fault fault = {.code = 0};
	struct ctl_rpc_call call;
	int r;

	memcpy(copy, line, len_bytes);
	r = ctl_rpc_decode(copy, len_bytes, &call, &fault);
	free(copy);
	if (r < 0) {
		look_at_fault(&fault, call.id);
	} else {
		look_at_round_trip(&call);
		carry_out(world, &call);
	}
	ctl_rpc_call_done(&call);
}

/* --- framing --- */

/* The next line of the stream, as framing should have said it. */
static void expect_event(struct stream *stream, enum ctl_frame_event event, const char *line,
			 size_t len_bytes)
{
	const char *from = stream->bytes + stream->at;
	size_t left = stream->len_bytes - stream->at;
	const char *newline = memchr(from, '\n', left);
	size_t length = newline ? (size_t)(newline - from) : left;

	if (event == CTL_FRAME_TOO_LONG) {
		FUZZ_CHECK(length > stream->limit_bytes, "too long: %zu", length);
	} else {
		FUZZ_CHECK(newline && length == len_bytes && memcmp(from, line, length) == 0,
			   "a line of %zu bytes, not %zu", len_bytes, length);
		FUZZ_CHECK(length <= stream->limit_bytes, "a line of %zu bytes passed", length);
	}
	stream->at += newline ? length + 1 : left;
}

static void take_events(struct world *world, struct ctl_frame *frame, struct stream *stream)
{
	enum ctl_frame_event event;
	const char *line = NULL;
	size_t len_bytes = 0;

	do {
		event = ctl_frame_next(frame, &line, &len_bytes);
		if (event == CTL_FRAME_NONE)
			break;
		expect_event(stream, event, line, len_bytes);
		if (event == CTL_FRAME_LINE)
			take_line(world, line, len_bytes);
	} while (true);
}

static void feed(struct world *world, struct stream *stream, size_t portion)
{
	struct ctl_frame frame;

	ctl_frame_init(&frame, stream->limit_bytes);
	for (size_t fed = 0; fed < stream->len_bytes;) {
		size_t room, len_bytes;
		char *to = ctl_frame_room(&frame, &room);

		FUZZ_CHECK(to && room > 0 && frame.capacity <= stream->limit_bytes + 1,
			   "%zu bytes of room, %zu in all", room, frame.capacity);
		len_bytes = stream->len_bytes - fed;
		len_bytes = len_bytes < portion ? len_bytes : portion;
		len_bytes = len_bytes < room ? len_bytes : room;
		memcpy(to, stream->bytes + fed, len_bytes);
		ctl_frame_added(&frame, len_bytes);
		fed += len_bytes;
		take_events(world, &frame, stream);
	}
	FUZZ_CHECK(stream->at == stream->len_bytes || ctl_frame_half(&frame), "a lost half line");
	FUZZ_CHECK(memchr(stream->bytes + stream->at, '\n', stream->len_bytes - stream->at) == NULL,
		   "a lost line");
	ctl_frame_done(&frame);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len_bytes)
{
	static struct world world;
	struct input input = {data, len_bytes};
	/* 255: as the server has it. */
	uint8_t limit = input_u8(&input);
	size_t portion = 1 + input_u8(&input);
	struct stream stream = {
		.bytes = (const char *)input.at,
		.len_bytes = input.left_bytes,
		.limit_bytes = limit == 255 ? CTL_LINE_BYTES_MAX : 1 + 8u * limit,
	};

	memset(&world, 0, sizeof(world));
	if (stream.len_bytes == 0)
		return 0;
	feed(&world, &stream, portion);
	close_world(&world);
	return 0;
}
