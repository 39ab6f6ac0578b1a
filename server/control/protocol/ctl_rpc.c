/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ctl_rpc - see the header
 *
 * A method is a row of the table below: its name and the parameters it takes. A parameter is a
 * name, a reader and whether it must be there.
 */
#include "server/control/protocol/ctl_rpc.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/request/request.h"
#include "server/control/protocol/ctl_limits.h"
#include "server/control/protocol/ctl_ranges.h"

#define PARAMS_MAX 4

typedef int param_read_fn(const json_t *value, struct ctl_rpc_call *call,
			  struct ctl_rpc_fault *fault);

struct param {
	const char *name;
	param_read_fn *read;
	bool required;
};

struct method {
	const char *name;
	enum ctl_method method;
	bool needs_control;
	struct param params[PARAMS_MAX];
};

static param_read_fn read_src, read_src_or_zero, read_length, read_dsts, read_dst, read_sync,
	read_offset, read_from, read_since, read_force, read_ranges;

static const struct method methods[] = {
	{"same",
	 CTL_METHOD_SAME,
	 true,
	 {{"src", read_src_or_zero, true},
	  {"length", read_length, true},
	  {"dsts", read_dsts, true},
	  {"sync", read_sync, false}}},
	{"same_ranges",
	 CTL_METHOD_SAME_RANGES,
	 true,
	 {{"ranges", read_ranges, true}, {"sync", read_sync, false}}},
	{"clone",
	 CTL_METHOD_CLONE,
	 true,
	 {{"src", read_src, true},
	  {"length", read_length, true},
	  {"dst", read_dst, true},
	  {"sync", read_sync, false}}},
	{"map",
	 CTL_METHOD_MAP,
	 true,
	 {{"offset", read_offset, false}, {"length", read_length, false}}},
	{"changes",
	 CTL_METHOD_CHANGES,
	 true,
	 {{"since", read_since, true}, {"from", read_from, false}}},
	{"status", CTL_METHOD_STATUS, false, {{NULL, NULL, false}}},
	{"stats", CTL_METHOD_STATS, false, {{NULL, NULL, false}}},
	{"trim", CTL_METHOD_TRIM, true, {{NULL, NULL, false}}},
	{"nbd", CTL_METHOD_NBD, true, {{NULL, NULL, false}}},
	{"stop", CTL_METHOD_STOP, true, {{NULL, NULL, false}}},
	{"detach", CTL_METHOD_DETACH, true, {{"force", read_force, false}}},
};

#define METHOD_COUNT (sizeof(methods) / sizeof(methods[0]))

/* JSON is UTF-8. */
static void make_plain(char *text)
{
	for (char *c = text; *c != '\0'; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
}

json_t *ctl_rpc_text(const char *text)
{
	json_t *string = json_string(text);
	char *plain = string == NULL ? strdup(text) : NULL;

	if (plain == NULL)
		return string;
	make_plain(plain);
	string = json_string(plain);
	free(plain);
	return string;
}

void ctl_rpc_fault_set(struct ctl_rpc_fault *fault, enum ctl_code code, int error,
		       const char *format, ...)
{
	va_list args;

	fault->code = code;
	fault->error = error;
	va_start(args, format);
	vsnprintf(fault->message, sizeof(fault->message), format, args);
	va_end(args);
	/* It may quote a client's bytes, cut inside a character: that would be no UTF-8. */
	make_plain(fault->message);
}

bool ctl_method_needs_control(enum ctl_method method)
{
	for (size_t i = 0; i < METHOD_COUNT; i++)
		if (methods[i].method == method)
			return methods[i].needs_control;
	return true;
}

static int read_number(const char *name, const json_t *value, uint64_t *ret_number,
		       struct ctl_rpc_fault *fault)
{
	if (!json_is_integer(value) || json_integer_value(value) < 0) {
		ctl_rpc_fault_set(fault, CTL_CODE_PARAMS, EINVAL,
				  "%s must be a number of bytes, 0 or more", name);
		return -1;
	}
	*ret_number = (uint64_t)json_integer_value(value);
	return 0;
}

static int read_src(const json_t *value, struct ctl_rpc_call *call, struct ctl_rpc_fault *fault)
{
	return read_number("src", value, &call->src_off_bytes, fault);
}

static int read_number_or_zero(const json_t *value, uint64_t *ret_off_bytes,
			       struct ctl_rpc_fault *fault)
{
	if (!json_is_string(value))
		return read_number("src", value, ret_off_bytes, fault);
	if (strcmp(json_string_value(value), "zero") != 0) {
		ctl_rpc_fault_set(fault, CTL_CODE_PARAMS, EINVAL,
				  "src must be a number of bytes or the word zero");
		return -1;
	}
	*ret_off_bytes = SAME_SRC_ZERO;
	return 0;
}

static int read_src_or_zero(const json_t *value, struct ctl_rpc_call *call,
			    struct ctl_rpc_fault *fault)
{
	return read_number_or_zero(value, &call->src_off_bytes, fault);
}

static int read_offset(const json_t *value, struct ctl_rpc_call *call, struct ctl_rpc_fault *fault)
{
	return read_number("offset", value, &call->off_bytes, fault);
}

static int read_from(const json_t *value, struct ctl_rpc_call *call, struct ctl_rpc_fault *fault)
{
	return read_number("from", value, &call->off_bytes, fault);
}

static int read_since(const json_t *value, struct ctl_rpc_call *call, struct ctl_rpc_fault *fault)
{
	if (!json_is_integer(value) || json_integer_value(value) < 0 ||
	    json_integer_value(value) > UINT32_MAX) {
		ctl_rpc_fault_set(fault, CTL_CODE_PARAMS, EINVAL,
				  "since must be 0 or a generation that was answered before");
		return -1;
	}
	call->since = (uint32_t)json_integer_value(value);
	return 0;
}

static int read_length(const json_t *value, struct ctl_rpc_call *call, struct ctl_rpc_fault *fault)
{
	call->has_len = true;
	return read_number("length", value, &call->len_bytes, fault);
}

static int read_dst(const json_t *value, struct ctl_rpc_call *call, struct ctl_rpc_fault *fault)
{
	call->dsts = malloc(sizeof(*call->dsts));
	if (call->dsts == NULL) {
		ctl_rpc_fault_set(fault, CTL_CODE_FAILED, ENOMEM, "out of memory");
		return -1;
	}
	call->dst_count = 1;
	return read_number("dst", value, &call->dsts[0], fault);
}

static int read_dsts(const json_t *value, struct ctl_rpc_call *call, struct ctl_rpc_fault *fault)
{
	size_t count = json_array_size(value);

	if (!json_is_array(value) || count == 0) {
		ctl_rpc_fault_set(fault, CTL_CODE_PARAMS, EINVAL,
				  "dsts must be an array with at least one number");
		return -1;
	}
	if (count > SAME_DSTS_MAX) {
		ctl_rpc_fault_set(fault, CTL_CODE_FAILED, E2BIG,
				  "%zu destinations: at most %u in one request", count,
				  SAME_DSTS_MAX);
		return -1;
	}
	call->dsts = calloc(count, sizeof(*call->dsts));
	if (call->dsts == NULL) {
		ctl_rpc_fault_set(fault, CTL_CODE_FAILED, ENOMEM, "out of memory");
		return -1;
	}
	call->dst_count = (uint32_t)count;
	for (size_t i = 0; i < count; i++)
		if (read_number("dsts", json_array_get(value, i), &call->dsts[i], fault) < 0)
			return -1;
	return 0;
}

static int read_range(const json_t *value, struct ctl_range *range, uint64_t *dst,
		      struct ctl_rpc_fault *fault)
{
	if (json_array_size(value) != 3) {
		ctl_rpc_fault_set(fault, CTL_CODE_PARAMS, EINVAL,
				  "each of ranges must be [src, length, dst]");
		return -1;
	}
	if (read_number_or_zero(json_array_get(value, 0), &range->src_off_bytes, fault) < 0 ||
	    read_number("length", json_array_get(value, 1), &range->len_bytes, fault) < 0)
		return -1;
	return read_number("dst", json_array_get(value, 2), dst, fault);
}

static int read_ranges(const json_t *value, struct ctl_rpc_call *call, struct ctl_rpc_fault *fault)
{
	size_t count = json_array_size(value);

	if (!json_is_array(value) || count == 0) {
		ctl_rpc_fault_set(fault, CTL_CODE_PARAMS, EINVAL,
				  "ranges must be an array with at least one range");
		return -1;
	}
	if (count > CTL_RANGES_MAX) {
		ctl_rpc_fault_set(fault, CTL_CODE_FAILED, E2BIG,
				  "%zu ranges: at most %u in one request", count, CTL_RANGES_MAX);
		return -1;
	}
	call->dsts = calloc(count, sizeof(*call->dsts));
	call->ranges = calloc(count, sizeof(*call->ranges));
	if (call->dsts == NULL || call->ranges == NULL) {
		ctl_rpc_fault_set(fault, CTL_CODE_FAILED, ENOMEM, "out of memory");
		return -1;
	}
	call->dst_count = (uint32_t)count;
	for (size_t i = 0; i < count; i++)
		if (read_range(json_array_get(value, i), &call->ranges[i], &call->dsts[i], fault) <
		    0)
			return -1;
	return 0;
}

static int read_sync(const json_t *value, struct ctl_rpc_call *call, struct ctl_rpc_fault *fault)
{
	if (!json_is_boolean(value)) {
		ctl_rpc_fault_set(fault, CTL_CODE_PARAMS, EINVAL, "sync must be true or false");
		return -1;
	}
	call->sync = json_is_true(value);
	return 0;
}

static int read_force(const json_t *value, struct ctl_rpc_call *call, struct ctl_rpc_fault *fault)
{
	if (!json_is_boolean(value)) {
		ctl_rpc_fault_set(fault, CTL_CODE_PARAMS, EINVAL, "force must be true or false");
		return -1;
	}
	call->force = json_is_true(value);
	return 0;
}

static const struct param *find_param(const struct method *method, const char *name)
{
	for (size_t i = 0; i < PARAMS_MAX && method->params[i].name != NULL; i++)
		if (strcmp(method->params[i].name, name) == 0)
			return &method->params[i];
	return NULL;
}

static int read_params(const struct method *method, json_t *params, struct ctl_rpc_call *call,
		       struct ctl_rpc_fault *fault)
{
	const char *name;
	json_t *value;

	if (params != NULL && !json_is_object(params)) {
		ctl_rpc_fault_set(fault, CTL_CODE_PARAMS, EINVAL,
				  "params must be an object: parameters go by name");
		return -1;
	}
	for (size_t i = 0; i < PARAMS_MAX && method->params[i].name != NULL; i++) {
		const struct param *param = &method->params[i];

		value = json_object_get(params, param->name);
		if (param->required && value == NULL) {
			ctl_rpc_fault_set(fault, CTL_CODE_PARAMS, EINVAL, "%s needs %s",
					  method->name, param->name);
			return -1;
		}
	}
	json_object_foreach(params, name, value)
	{
		const struct param *param = find_param(method, name);

		if (param == NULL) {
			ctl_rpc_fault_set(fault, CTL_CODE_PARAMS, EINVAL,
					  "%s has no parameter %.60s", method->name, name);
			return -1;
		}
		if (param->read(value, call, fault) < 0)
			return -1;
	}
	return 0;
}

/* The id is taken first, so that an answer to anything wrong after it can carry it. */
static int read_envelope(json_t *root, struct ctl_rpc_call *call, struct ctl_rpc_fault *fault)
{
	static const char *const names[] = {"jsonrpc", "id", "method", "params"};
	const char *version = json_string_value(json_object_get(root, "jsonrpc"));
	json_t *id = json_object_get(root, "id");
	const char *name;
	json_t *value;

	if (id != NULL && !json_is_string(id) && !json_is_number(id) && !json_is_null(id)) {
		ctl_rpc_fault_set(fault, CTL_CODE_INVALID, EINVAL,
				  "id must be a number, a string or null");
		return -1;
	}
	call->id = json_incref(id);
	if (version == NULL || strcmp(version, "2.0") != 0) {
		ctl_rpc_fault_set(fault, CTL_CODE_INVALID, EINVAL, "jsonrpc must be \"2.0\"");
		return -1;
	}
	json_object_foreach(root, name, value)
	{
		bool known = false;

		for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
			known = known || strcmp(names[i], name) == 0;
		if (!known) {
			ctl_rpc_fault_set(fault, CTL_CODE_INVALID, EINVAL,
					  "a call has no member %.60s", name);
			return -1;
		}
	}
	return 0;
}

static int read_call(json_t *root, struct ctl_rpc_call *call, struct ctl_rpc_fault *fault)
{
	const char *name;

	if (!json_is_object(root)) {
		ctl_rpc_fault_set(fault, CTL_CODE_INVALID, EINVAL,
				  "a call must be an object; send one a line instead of an array");
		return -1;
	}
	if (read_envelope(root, call, fault) < 0)
		return -1;
	name = json_string_value(json_object_get(root, "method"));
	if (name == NULL) {
		ctl_rpc_fault_set(fault, CTL_CODE_INVALID, EINVAL, "method must be a string");
		return -1;
	}
	for (size_t i = 0; i < METHOD_COUNT; i++) {
		if (strcmp(methods[i].name, name) != 0)
			continue;
		call->method = methods[i].method;
		return read_params(&methods[i], json_object_get(root, "params"), call, fault);
	}
	ctl_rpc_fault_set(fault, CTL_CODE_METHOD, ENOSYS, "there is no method %.60s", name);
	return -1;
}

int ctl_rpc_decode(const char *line, size_t len_bytes, struct ctl_rpc_call *ret_call,
		   struct ctl_rpc_fault *reterr_fault)
{
	json_error_t error;
	json_t *root;
	int r;

	if (ctl_ranges_read_call(line, len_bytes, ret_call))
		return 0;
	*ret_call = (struct ctl_rpc_call){.id = NULL};
	root = json_loadb(line, len_bytes, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
	if (root == NULL) {
		ctl_rpc_fault_set(reterr_fault, CTL_CODE_PARSE, EBADMSG,
				  "not a JSON document, at byte %d: %.100s", error.position,
				  error.text);
		return -1;
	}
	r = read_call(root, ret_call, reterr_fault);
	json_decref(root);
	return r;
}

void ctl_rpc_call_done(struct ctl_rpc_call *call)
{
	json_decref(call->id);
	free(call->dsts);
	free(call->ranges);
	call->id = NULL;
	call->dsts = NULL;
	call->ranges = NULL;
}

const char *ctl_errno_name(int error)
{
	const char *name = strerrorname_np(error < 0 ? -error : error);

	return name != NULL ? name : "EIO";
}

/* Takes over root. The newline is part of the allocation, so that an answer is sent in one
 * piece. */
static char *encode(json_t *root)
{
	char *text = root == NULL ? NULL : json_dumps(root, JSON_COMPACT);
	char *line = NULL;

	if (text != NULL && asprintf(&line, "%s\n", text) < 0)
		line = NULL;
	free(text);
	json_decref(root);
	return line;
}

char *ctl_rpc_encode_result(json_t *id, json_t *result)
{
	if (result == NULL)
		return NULL;
	return encode(json_pack("{s:s, s:O, s:o}", "jsonrpc", "2.0", "id",
				id != NULL ? id : json_null(), "result", result));
}

char *ctl_rpc_encode_fault(json_t *id, const struct ctl_rpc_fault *fault)
{
	json_t *error = json_pack("{s:i, s:s, s:{s:s}}", "code", (int)fault->code, "message",
				  fault->message, "data", "errno", ctl_errno_name(fault->error));

	return encode(json_pack("{s:s, s:O, s:o}", "jsonrpc", "2.0", "id",
				id != NULL ? id : json_null(), "error", error));
}

char *ctl_rpc_encode_call(uint64_t id, const char *method, json_t *params)
{
	json_t *root = json_pack("{s:s, s:I, s:s, s:o*}", "jsonrpc", "2.0", "id", (json_int_t)id,
				 "method", method, "params", params);

	return encode(root);
}

void ctl_rpc_encode_text(struct ctl_text *text, uint64_t id, const char *method, const char *params)
{
	ctl_text_add(text, "{\"jsonrpc\":\"2.0\",\"id\":");
	ctl_text_add_number(text, id);
	ctl_text_add(text, ",\"method\":\"");
	ctl_text_add(text, method);
	ctl_text_add(text, "\",\"params\":");
	ctl_text_add(text, params);
	ctl_text_add(text, "}\n");
}
