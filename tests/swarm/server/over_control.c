/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/swarm/server/over_control.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CALL_BYTES 2048
#define READ_BYTES 65536u

static void *must(void *memory)
{
	if (!memory)
		abort();
	return memory;
}

int over_control_connect(struct load *load, const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct control *control = &load->control;

	*control = (struct control){.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
	strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
	if (connect(control->fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return 0;
	load_bad(load, "connect: %s: %s", path, strerror(errno));
	close(control->fd);
	control->dead = true;
	return -1;
}

void over_control_close(struct load *load)
{
	struct control *control = &load->control;
	struct op *next;

	if (control->fd > 0)
		close(control->fd);
	free(control->in);
	free(control->out);
	*control = (struct control){.fd = -1, .dead = true};
	for (struct op *op = load->in_flight; op; op = next) {
		next = op->next;
		if (op->kind >= OP_SAME)
			op_finish(op, OP_LOST, ENOTCONN);
	}
}

static void source_text(const struct op *op, unsigned i, char *text, size_t size)
{
	if (op->src_zero)
		snprintf(text, size, "\"zero\"");
	else
		snprintf(text, size, "%" PRIu64, op->srcs[i]);
}

static int params_text(const struct op *op, char *text, size_t size)
{
	int at = 0;
	char src[32];

	switch (op->kind) {
	case OP_SAME:
		source_text(op, 0, src, sizeof(src));
		at += snprintf(text, size, "\"src\":%s,\"length\":%" PRIu64 ",\"dsts\":[", src,
			       op->len);
		for (unsigned i = 0; i < op->dst_count; i++)
			at += snprintf(text + at, size - (size_t)at, "%s%" PRIu64, i ? "," : "",
				       op->dsts[i]);
		return at + snprintf(text + at, size - (size_t)at, "],\"sync\":%s",
				     op->sync ? "true" : "false");
	case OP_RANGES:
		at += snprintf(text, size, "\"ranges\":[");
		for (unsigned i = 0; i < op->dst_count; i++) {
			source_text(op, i, src, sizeof(src));
			at += snprintf(text + at, size - (size_t)at,
				       "%s[%s,%" PRIu64 ",%" PRIu64 "]", i ? "," : "", src, op->len,
				       op->dsts[i]);
		}
		return at + snprintf(text + at, size - (size_t)at, "],\"sync\":%s",
				     op->sync ? "true" : "false");
	case OP_CLONE:
		return snprintf(text, size,
				"\"src\":%" PRIu64 ",\"length\":%" PRIu64 ",\"dst\":%" PRIu64
				",\"sync\":%s",
				op->src, op->len, op->off, op->sync ? "true" : "false");
	case OP_MAP:
		return snprintf(text, size, "\"offset\":%" PRIu64 ",\"length\":%" PRIu64, op->off,
				op->len);
	default:
		text[0] = '\0';
		return 0;
	}
}

static void send_more(struct load *load)
{
	struct control *control = &load->control;

	while (control->out_at < control->out_len) {
		ssize_t n = send(control->fd, control->out + control->out_at,
				 control->out_len - control->out_at, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0) {
			control->dead = true;
			load_gone(load, "sending a control call failed");
			return;
		}
		control->out_at += (size_t)n;
	}
	control->out_at = control->out_len = 0;
}

static const char *method_of(enum op_kind kind)
{
	return kind == OP_SAME	   ? "same"
	       : kind == OP_RANGES ? "same_ranges"
	       : kind == OP_CLONE  ? "clone"
	       : kind == OP_MAP	   ? "map"
				   : "stats";
}

/* The submission is the call's id. */
void over_control_submit(struct op *op)
{
	struct load *load = op->load;
	struct control *control = &load->control;
	char params[CALL_BYTES / 2], call[CALL_BYTES];
	int len;

	params_text(op, params, sizeof(params));
	len = snprintf(call, sizeof(call),
		       "{\"jsonrpc\":\"2.0\",\"id\":%" PRIu64
		       ",\"method\":\"%s\",\"params\":{%s}}\n",
		       op->submitted, method_of(op->kind), params);
	assert(len > 0 && (size_t)len < sizeof(call));
	control->in_flight++;
	if (control->out_len + (size_t)len > control->out_room) {
		control->out_room = control->out_len + (size_t)len + READ_BYTES;
		control->out = must(realloc(control->out, control->out_room));
	}
	memcpy(control->out + control->out_len, call, (size_t)len);
	control->out_len += (size_t)len;
	send_more(load);
}

/* --- answers --- */

/* What a range holds at rest, compared byte by byte: true if both were quiet since `from`. */
static bool compare_quiet(struct load *load, const struct op *op, uint64_t src, uint64_t dst,
			  uint64_t *ret_differs_at)
{
	uint64_t count = op->len / SECTOR_BYTES;

	*ret_differs_at = HISTORY_NEVER;
	for (uint64_t i = 0; i < count; i++) {
		uint64_t a = src / SECTOR_BYTES + i, b = dst / SECTOR_BYTES + i;
		uint32_t a_id = CONTENT_ZERO, b_id;
		uint8_t a_bytes[SECTOR_BYTES], b_bytes[SECTOR_BYTES];

		if ((!op->src_zero &&
		     (!history_known(&load->history, a, &a_id) ||
		      history_busy(&load->history, a, op->submitted, load->history.now) ||
		      load_cloning(load, a, 1))) ||
		    !history_known(&load->history, b, &b_id) ||
		    history_busy(&load->history, b, op->submitted, load->history.now) ||
		    load_cloning(load, b, 1) || load->history.all_count > 0)
			return false;
		if (a_id == b_id || *ret_differs_at != HISTORY_NEVER)
			continue;
		contents_get(&load->contents, a_id, a % BLOCK_SECTORS, a_bytes);
		contents_get(&load->contents, b_id, b % BLOCK_SECTORS, b_bytes);
		for (unsigned j = 0; j < SECTOR_BYTES; j++)
			if (a_bytes[j] != b_bytes[j]) {
				*ret_differs_at = i * SECTOR_BYTES + j;
				break;
			}
	}
	return true;
}

static uint64_t number_of(const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);

	return json_is_integer(value) ? (uint64_t)json_integer_value(value) : HISTORY_NEVER;
}

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

static bool error_name_allowed(struct load *load, const struct op *op, const char *name)
{
	static const struct {
		const char *name;
		int error;
	} names[] = {{"EIO", EIO}, {"ENOSPC", ENOSPC}, {"EROFS", EROFS}, {"EINVAL", EINVAL}};

	/* A block has all the references that it can have, and the server stops. */
	if (strcmp(name, "EMLINK") == 0 || strcmp(name, "ECANCELED") == 0)
		return true;
	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(name, names[i].name) == 0)
			return op_error_allowed(load, op, names[i].error);
	return false;
}

/* Of one destination: an object of `same`, or the numbers of `same_ranges`. */
static void check_merge(struct load *load, const struct op *op, unsigned i, const json_t *result)
{
	uint64_t src = op->kind == OP_SAME ? op->srcs[0] : op->srcs[i], dst = op->dsts[i];
	const char *status = json_is_array(result) ? "same" : text_of(result, "status");
	uint64_t merged = json_is_array(result)
				  ? (uint64_t)json_integer_value(json_array_get(result, 0))
				  : number_of(result, "bytes_deduped");
	uint64_t differs_at;

	if (strcmp(status, "error") == 0) {
		if (!error_name_allowed(load, op, text_of(result, "error")))
			load_bad(load, "%s of %" PRIu64 " to %" PRIu64 ": error %s: %s",
				 op_name(op->kind), src, dst, text_of(result, "error"),
				 text_of(result, "message"));
		return;
	}
	if (strcmp(status, "same") == 0 && merged != op->len)
		load_bad(load, "same with %" PRIu64 " of %" PRIu64 " bytes", merged, op->len);
	load->merged_bytes += strcmp(status, "same") == 0 ? merged : 0;
	if (!compare_quiet(load, op, src, dst, &differs_at))
		return;
	if (differs_at == HISTORY_NEVER && strcmp(status, "same") != 0)
		load_bad(load,
			 "%" PRIu64 " and %" PRIu64 " are the same for %" PRIu64
			 " bytes and were found to be `%s` at %" PRIu64,
			 src, dst, op->len, status, number_of(result, "differs_at"));
	else if (differs_at != HISTORY_NEVER && strcmp(status, "differs") != 0)
		load_bad(load,
			 "%" PRIu64 " and %" PRIu64 " differ at %" PRIu64
			 " and were found to be `%s`",
			 src, dst, differs_at, status);
	else if (differs_at != HISTORY_NEVER && number_of(result, "differs_at") != differs_at)
		load_bad(load,
			 "%" PRIu64 " and %" PRIu64 " differ at %" PRIu64
			 ", the answer says %" PRIu64,
			 src, dst, differs_at, number_of(result, "differs_at"));
}

static void check_merges(struct load *load, const struct op *op, const json_t *result)
{
	const json_t *results = json_object_get(result, "results");

	if (json_array_size(results) != op->dst_count) {
		load_bad(load, "%zu results for %u destinations", json_array_size(results),
			 op->dst_count);
		return;
	}
	for (unsigned i = 0; i < op->dst_count; i++)
		check_merge(load, op, i, json_array_get(results, i));
}

static void check_map(struct load *load, const struct op *op, const json_t *result)
{
	const json_t *runs = json_object_get(result, "runs");
	uint64_t at = op->off;

	for (size_t i = 0; i < json_array_size(runs); i++) {
		const json_t *run = json_array_get(runs, i);
		uint64_t off = number_of(run, "offset"), len = number_of(run, "length");

		if (off != at || len == 0 || len == HISTORY_NEVER) {
			load_bad(load, "run %zu of a map begins at %" PRIu64 ", not %" PRIu64, i,
				 off, at);
			return;
		}
		if (strcmp(text_of(run, "kind"), "hole") == 0)
			load_check_hole(load, "the map", op->submitted, off, len);
		at += len;
	}
	if (at != number_of(result, "mapped_to") || at > op->off + op->len)
		load_bad(load, "a map of %" PRIu64 " ends at %" PRIu64, op->off, at);
}

static void check_stats(struct load *load, const json_t *result)
{
	uint64_t mapped = number_of(result, "mapped_bytes");

	if (number_of(result, "size_bytes") != load->size)
		load_bad(load, "stats: size_bytes is wrong");
	if (mapped > load->size)
		load_bad(load, "stats: %" PRIu64 " bytes are mapped", mapped);
}

/* How a call ended whose answer is a result. */
static enum op_end take_result(struct load *load, const struct op *op, const json_t *result)
{
	switch (op->kind) {
	case OP_SAME:
	case OP_RANGES:
		check_merges(load, op, result);
		return OP_DONE;
	case OP_CLONE:
		if (strcmp(text_of(result, "status"), "cloned") != 0) {
			if (!error_name_allowed(load, op, text_of(result, "error")))
				load_bad(load, "clone: error %s: %s", text_of(result, "error"),
					 text_of(result, "message"));
			return OP_FAILED;
		}
		if (number_of(result, "bytes_cloned") != op->len)
			load_bad(load, "cloned %" PRIu64 " of %" PRIu64 " bytes",
				 number_of(result, "bytes_cloned"), op->len);
		load->cloned_bytes += op->len;
		return OP_DONE;
	case OP_MAP:
		check_map(load, op, result);
		return OP_DONE;
	default:
		check_stats(load, result);
		return OP_DONE;
	}
}

static void take_answer(struct load *load, const char *line, size_t len)
{
	json_t *answer = json_loadb(line, len, 0, NULL);
	uint64_t id = number_of(answer, "id");
	const json_t *error = json_object_get(answer, "error");
	const char *name = text_of(json_object_get(error, "data"), "errno");
	struct op *op = load->in_flight;

	while (op && (op->kind < OP_SAME || op->submitted != id))
		op = op->next;
	if (!op) {
		load_bad(load, "an answer to no call: %.*s", (int)(len < 500 ? len : 500), line);
	} else {
		enum op_end end = OP_FAILED;

		load->control.in_flight--;
		history_tick(&load->history);
		if (!error)
			end = take_result(load, op, json_object_get(answer, "result"));
		else if (!error_name_allowed(load, op, name))
			load_bad(load, "%s: %s: %s", op_name(op->kind), name,
				 text_of(error, "message"));
		/* It is no error of the operation's kind: the name was looked at above. */
		op_finish(op, error && strcmp(name, "ECANCELED") == 0 ? OP_LOST : end, 0);
	}
	json_decref(answer);
}

static void receive(struct load *load)
{
	struct control *control = &load->control;
	ssize_t n;
	char *end;

	if (control->in_len + READ_BYTES > control->in_room) {
		control->in_room = control->in_len + 2 * READ_BYTES;
		control->in = must(realloc(control->in, control->in_room));
	}
	n = recv(control->fd, control->in + control->in_len, READ_BYTES, MSG_DONTWAIT);
	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		control->dead = true;
		load_gone(load, "the control connection ended");
		return;
	}
	control->in_len += (size_t)n;
	while ((end = memchr(control->in, '\n', control->in_len)) != NULL) {
		size_t len = (size_t)(end - control->in);

		take_answer(load, control->in, len);
		control->in_len -= len + 1;
		memmove(control->in, end + 1, control->in_len);
	}
}

void over_control_poll(struct load *load, struct pollfd *ret_poll)
{
	const struct control *control = &load->control;

	*ret_poll = (struct pollfd){.fd = control->dead ? -1 : control->fd, .events = POLLIN};
	if (control->out_at < control->out_len)
		ret_poll->events |= POLLOUT;
}

void over_control_ready(struct load *load, short events)
{
	if (events & POLLOUT)
		send_more(load);
	if (events & (POLLIN | POLLHUP | POLLERR))
		receive(load);
}

/* --- changes --- */

/* One call and its result, to be given back; NULL: load->bad. */
static json_t *call_now(struct load *load, const char *method, const char *params)
{
	struct control *control = &load->control;
	char call[512];
	int len = snprintf(call, sizeof(call),
			   "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"%s\",\"params\":{%s}}\n",
			   method, params);
	json_t *answer = NULL, *result;
	FILE *in;
	char *line = NULL;
	size_t room = 0;

	if (send(control->fd, call, (size_t)len, MSG_NOSIGNAL) != len)
		return NULL;
	in = fdopen(dup(control->fd), "r");
	if (in && getline(&line, &room, in) > 0)
		answer = json_loads(line, 0, NULL);
	result = json_incref(json_object_get(answer, "result"));
	if (!result)
		load_bad(load, "%s {%s}: %.500s", method, params, line ? line : "no answer");
	if (in)
		fclose(in);
	free(line);
	json_decref(answer);
	return result;
}

static bool is_told(const json_t *ranges, uint64_t off)
{
	for (size_t i = 0; i < json_array_size(ranges); i++) {
		const json_t *range = json_array_get(ranges, i);
		uint64_t begin = (uint64_t)json_integer_value(json_array_get(range, 0));
		uint64_t len = (uint64_t)json_integer_value(json_array_get(range, 1));

		if (off >= begin && off - begin < len)
			return true;
	}
	return false;
}

/* What was kept of the region is what it holds, if it is not told; then that is kept. */
static void compare_region(struct load *load, uint32_t index, const json_t *ranges)
{
	uint64_t first = load->history.regions[index]->number * HISTORY_REGION_SECTORS;
	uint32_t *kept = load->snapshot + (uint64_t)index * HISTORY_REGION_SECTORS;
	bool told = is_told(ranges, first * SECTOR_BYTES);

	for (uint32_t i = 0; i < HISTORY_REGION_SECTORS; i++) {
		uint32_t id = CONTENT_ZERO;

		if (first + i >= load->history.sector_count)
			break;
		/* What is left of a lost request may still come. */
		if (!history_known(&load->history, first + i, &id) || load->history.all_count > 0)
			id = CONTENT_GARBAGE;
		if (!told && id != kept[i] && id != CONTENT_GARBAGE && kept[i] != CONTENT_GARBAGE)
			load_bad(load,
				 "sector %" PRIu64 " held %u and holds %u, and its region is not "
				 "told as changed",
				 first + i, kept[i], id);
		kept[i] = id;
	}
}

uint64_t over_control_changes(struct load *load, uint64_t since)
{
	uint64_t generation;
	json_t *result;
	char params[64];

	snprintf(params, sizeof(params), "\"since\":%" PRIu64, since);
	result = call_now(load, "changes", params);
	if (!result)
		return 0;
	generation = number_of(result, "generation");
	if (!json_is_true(json_object_get(result, "complete")))
		load_bad(load, "changes since %" PRIu64 " are not complete", since);
	if (number_of(result, "listed_to") != load->size)
		load_bad(load, "changes are listed to %" PRIu64, number_of(result, "listed_to"));
	load->snapshot = must(realloc(load->snapshot, (uint64_t)(load->history.region_count + 1) *
							      HISTORY_REGION_SECTORS *
							      sizeof(*load->snapshot)));
	memset(load->snapshot + (uint64_t)load->snapshot_count * HISTORY_REGION_SECTORS, 0,
	       (uint64_t)(load->history.region_count - load->snapshot_count) *
		       HISTORY_REGION_SECTORS * sizeof(*load->snapshot));
	load->snapshot_count = load->history.region_count;
	for (uint32_t i = 0; i < load->history.region_count; i++)
		compare_region(load, i, json_object_get(result, "ranges"));
	json_decref(result);
	return load->bad[0] ? 0 : generation;
}
