/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ctl_answer - see the header
 *
 * Numbers go out as JSON integers. Keys that do not apply are absent.
 */
#include "server/control/ctl_answer.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/base/uuid.h"
#include "server/control/own_memory.h"
#include "server/control/protocol/ctl_text.h"

static int put_number(json_t *object, const char *key, uint64_t number)
{
	return json_object_set_new(object, key, json_integer((json_int_t)number));
}

static int put_text(json_t *object, const char *key, const char *text)
{
	return json_object_set_new(object, key, ctl_rpc_text(text));
}

static json_t *give_unless(int failed, json_t *json)
{
	if (failed == 0)
		return json;
	json_decref(json);
	return NULL;
}

static json_t *answer_src(const struct ctl_call *call)
{
	if (call->rpc.src_off_bytes == SAME_SRC_ZERO)
		return json_string("zero");
	return json_integer((json_int_t)call->rpc.src_off_bytes);
}

static int put_error(json_t *object, const struct same_dst *dst)
{
	int failed = put_text(object, "error", ctl_errno_name(dst->error));

	failed |= put_text(object, "message",
			   dst->message != NULL ? dst->message : strerror(-dst->error));
	return failed;
}

static json_t *answer_dst(const struct same_dst *dst)
{
	const struct same_result *result = &dst->result;
	const char *status = dst->error != 0 ? "error" : result->differs ? "differs" : "same";
	json_t *object = json_object();
	int failed = put_number(object, "dst", dst->off_bytes);

	failed |= put_text(object, "status", status);
	failed |= put_number(object, "bytes_deduped", result->deduped_bytes);
	failed |= put_number(object, "bytes_freed", result->freed_bytes);
	failed |= put_number(object, "bytes_already_shared", result->already_shared_bytes);
	if (dst->error == 0 && result->differs)
		failed |= put_number(object, "differs_at", result->differs_at_bytes);
	if (dst->error != 0)
		failed |= put_error(object, dst);
	return give_unless(failed, object);
}

static json_t *answer_same(const struct ctl_call *call)
{
	json_t *object = json_object();
	json_t *results = json_array();
	int failed = json_object_set_new(object, "src", answer_src(call));

	failed |= put_number(object, "length", call->rpc.len_bytes);
	failed |= json_object_set_new(object, "results", results);
	for (uint32_t i = 0; failed == 0 && i < call->rpc.dst_count; i++)
		failed |= json_array_append_new(results, answer_dst(&call->dsts[i]));
	return give_unless(failed, object);
}

/* What most ranges come to is short: bytes deduped, freed and already shared. */
static void add_range(struct ctl_text *text, const struct same_dst *dst)
{
	const struct same_result *result = &dst->result;
	json_t *object;
	char *long_form;

	if (dst->error == 0 && !result->differs) {
		ctl_text_add(text, "[");
		ctl_text_add_number(text, result->deduped_bytes);
		ctl_text_add(text, ",");
		ctl_text_add_number(text, result->freed_bytes);
		ctl_text_add(text, ",");
		ctl_text_add_number(text, result->already_shared_bytes);
		ctl_text_add(text, "]");
		return;
	}
	object = answer_dst(dst);
	long_form = object == NULL ? NULL : json_dumps(object, JSON_COMPACT);
	json_decref(object);
	text->failed = text->failed || long_form == NULL;
	if (long_form != NULL)
		ctl_text_add(text, long_form);
	free(long_form);
}

char *ctl_answer_ranges(const struct ctl_call *call)
{
	struct ctl_text text = {.bytes = NULL};
	char *id = json_dumps(call->rpc.id, JSON_COMPACT | JSON_ENCODE_ANY);

	assert(call->error == 0 && call->rpc.method == CTL_METHOD_SAME_RANGES);
	text.failed = id == NULL;
	ctl_text_add(&text, "{\"jsonrpc\":\"2.0\",\"id\":");
	ctl_text_add(&text, id != NULL ? id : "");
	ctl_text_add(&text, ",\"result\":{\"results\":[");
	for (uint32_t i = 0; i < call->rpc.dst_count; i++) {
		if (i > 0)
			ctl_text_add(&text, ",");
		add_range(&text, &call->dsts[i]);
	}
	ctl_text_add(&text, "]}}\n");
	free(id);
	return ctl_text_take(&text);
}

static json_t *answer_clone(const struct ctl_call *call)
{
	const struct same_dst *dst = &call->dsts[0];
	json_t *object = json_object();
	int failed = json_object_set_new(object, "src", answer_src(call));

	failed |= put_number(object, "length", call->rpc.len_bytes);
	failed |= put_number(object, "dst", dst->off_bytes);
	failed |= put_text(object, "status", dst->error != 0 ? "error" : "cloned");
	failed |= put_number(object, "bytes_cloned", dst->result.deduped_bytes);
	failed |= put_number(object, "bytes_freed", dst->result.freed_bytes);
	if (dst->error != 0)
		failed |= put_error(object, dst);
	return give_unless(failed, object);
}

static json_t *answer_run(const struct map_run *run)
{
	bool hole = pbn_is_none(run->pbn);
	json_t *object = json_object();
	int failed = put_number(object, "offset", run->off_bytes);

	failed |= put_number(object, "length", run->len_bytes);
	failed |= put_text(object, "kind", hole ? "hole" : "data");
	if (!hole) {
		failed |= put_number(object, "physical", pbn_off_bytes(run->pbn));
		failed |= put_number(object, "references", run->references);
	}
	return give_unless(failed, object);
}

static json_t *answer_map(const struct ctl_call *call)
{
	uint32_t count = call->rpc.len_bytes > 0 ? call->map.runs_count : 0;
	uint64_t mapped_to = call->rpc.off_bytes;
	json_t *object = json_object();
	json_t *runs = json_array();
	int failed;

	if (count > 0)
		mapped_to = call->runs[count - 1].off_bytes + call->runs[count - 1].len_bytes;
	failed = put_number(object, "offset", call->rpc.off_bytes);
	failed |= put_number(object, "length", call->rpc.len_bytes);
	failed |= put_number(object, "mapped_to", mapped_to);
	failed |= json_object_set_new(object, "runs", runs);
	for (uint32_t i = 0; failed == 0 && i < count; i++)
		failed |= json_array_append_new(runs, answer_run(&call->runs[i]));
	return give_unless(failed, object);
}

static json_t *answer_changes(const struct ctl_call *call)
{
	const struct request *request = &call->map;
	json_t *object = json_object();
	json_t *ranges = json_array();
	int failed = put_number(object, "generation", request->generation);

	failed |= json_object_set_new(object, "complete", json_boolean(request->complete));
	failed |= put_number(object, "listed_to", request->off_bytes + request->mapped_to_bytes);
	failed |= json_object_set_new(object, "ranges", ranges);
	for (uint32_t i = 0; failed == 0 && i < request->runs_count; i++)
		failed |= json_array_append_new(
			ranges, json_pack("[I, I]", (json_int_t)call->runs[i].off_bytes,
					  (json_int_t)call->runs[i].len_bytes));
	return give_unless(failed, object);
}

static int put_state(json_t *object, const struct volume_stats *stats)
{
	const char *state = "ok";
	const char *reason = NULL;
	int failed = 0;

	switch (stats->state) {
	case VOLUME_OK:
		break;
	case VOLUME_LOW_ON_SPACE:
		state = "low on space";
		break;
	case VOLUME_BACKING_FULL:
		state = "backing full";
		reason = stats->backing_text;
		break;
	case VOLUME_READ_ONLY:
		state = "read-only";
		reason = "started read-only";
		break;
	case VOLUME_LATCHED:
		state = "read-only";
		reason = stats->latched_text;
		failed = put_text(object, "error", ctl_errno_name(stats->latched_error));
		break;
	}
	failed |= put_text(object, "state", state);
	if (reason != NULL)
		failed |= put_text(object, "reason", reason);
	return failed;
}

static json_t *answer_limits(void)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "length_max",
			 (json_int_t)SAME_LENGTH_MAX, "destinations_max", (json_int_t)SAME_DSTS_MAX,
			 "ranges_max", (json_int_t)CTL_RANGES_MAX, "message_bytes_max",
			 (json_int_t)CTL_LINE_BYTES_MAX, "connections_max",
			 (json_int_t)CTL_CONNECTIONS_MAX, "calls_max", (json_int_t)CTL_CALLS_MAX,
			 "jobs_max", (json_int_t)CTL_JOBS_MAX);
}

static int put_uuid(json_t *object, const uint8_t uuid[CTL_UUID_BYTES])
{
	char text[UUID_TEXT_BYTES];

	uuid_print(uuid, text);
	return put_text(object, "uuid", text);
}

static int put_memory(json_t *object)
{
	struct own_memory memory;

	if (own_memory(&memory) < 0)
		return 0;
	return json_object_set_new(object, "memory",
				   json_pack("{s:I, s:I}", "own_bytes",
					     (json_int_t)memory.own_bytes, "mapped_bytes",
					     (json_int_t)memory.mapped_bytes));
}

static json_t *answer_status(const struct ctl_call *call, const struct ctl_answer_server *server)
{
	json_t *object = json_object();
	json_t *exports = json_array();
	int failed = put_text(object, "version", SAMEBLK_VERSION);

	failed |= put_number(object, "pid", (uint64_t)getpid());
	failed |= put_text(object, "store", server->store_path);
	failed |= put_uuid(object, call->uuid);
	failed |= put_state(object, &call->stats);
	failed |= put_number(object, "size_bytes", call->size_bytes);
	failed |= put_number(object, "store_bytes", call->stats.store_bytes);
	failed |= put_number(object, "block_bytes", BLOCK_BYTES);
	failed |= json_object_set_new(object, "limits", answer_limits());
	failed |= json_object_set_new(object, "exports", exports);
	for (size_t i = 0; server->uris != NULL && server->uris[i] != NULL; i++)
		failed |= json_array_append_new(exports, json_string(server->uris[i]));
	failed |= put_number(object, "clients", server->clients);
	failed |= put_number(object, "uptime_seconds", server->uptime_seconds);
	failed |= put_memory(object);
	if (server->silent_seconds > 0)
		failed |= put_number(object, "silent_seconds", server->silent_seconds);
	return give_unless(failed, object);
}

/* {"read": [...], ...}: see docs/control-protocol.md. */
static json_t *answer_latency(const struct latency_sums *latency)
{
	static const char *const names[LATENCY_OPS] = {"read", "write", "flush", "discard"};
	json_t *object = json_object();
	int failed = 0;

	for (unsigned op = 0; op < LATENCY_OPS; op++) {
		json_t *one = json_object(), *counts = json_array();

		for (unsigned i = 0; i < LATENCY_BUCKETS; i++)
			failed |= json_array_append_new(
				counts, json_integer((json_int_t)latency->counts[op][i]));
		failed |= json_object_set_new(one, "counts", counts);
		failed |= put_number(one, "total_ns", latency->total_ns[op]);
		failed |= json_object_set_new(object, names[op], one);
	}
	return give_unless(failed, object);
}

static json_t *answer_stats(const struct ctl_call *call, const struct ctl_answer_server *server)
{
	const struct volume_stats *stats = &call->stats;
	json_t *object = json_object();
	int failed = put_text(object, "version", SAMEBLK_VERSION);

	failed |= put_text(object, "store", server->store_path);
	failed |= put_uuid(object, call->uuid);
	failed |= put_number(object, "uptime_seconds", server->uptime_seconds);
	failed |= put_state(object, stats);
	for (size_t i = 0; i < counter_table_count; i++)
		failed |= put_number(object, counter_table[i].name,
				     counter_value(stats, &counter_table[i]));
	if (server->latency != NULL)
		failed |= json_object_set_new(object, "latency", answer_latency(server->latency));
	return give_unless(failed, object);
}

json_t *ctl_answer(const struct ctl_call *call, const struct ctl_answer_server *server)
{
	assert(call->error == 0);
	switch (call->rpc.method) {
	case CTL_METHOD_SAME:
		return answer_same(call);
	case CTL_METHOD_CLONE:
		return answer_clone(call);
	case CTL_METHOD_MAP:
		return answer_map(call);
	case CTL_METHOD_CHANGES:
		return answer_changes(call);
	case CTL_METHOD_STATUS:
		return answer_status(call, server);
	case CTL_METHOD_STATS:
		return answer_stats(call, server);
	case CTL_METHOD_TRIM:
		return json_pack("{s:I}", "round", (json_int_t)call->round);
	case CTL_METHOD_NBD:
	case CTL_METHOD_SAME_RANGES:
	case CTL_METHOD_STOP:
	case CTL_METHOD_DETACH:
		break;
	}
	assert(!"this is answered without a call, and ranges by ctl_answer_ranges()");
	return NULL;
}
