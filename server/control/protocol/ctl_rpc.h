/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ctl_rpc - JSON-RPC 2.0 messages, decoded and encoded by pure functions
 *
 * docs/control-protocol.md is the reference. Decoding takes one line and checks everything
 * that needs no volume: the envelope, the method, the names and types of its parameters, and
 * their number. A parameter that the method does not know is an error.
 *
 * Memory    bounded by the line's length; a decoded call is freed by ctl_rpc_call_done() whatever
 *           decoding said.
 */
#ifndef SERVER_CONTROL_PROTOCOL_CTL_RPC_H
#define SERVER_CONTROL_PROTOCOL_CTL_RPC_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/control/protocol/ctl_text.h"

enum ctl_method {
	CTL_METHOD_SAME,
	CTL_METHOD_CLONE,
	CTL_METHOD_MAP,
	CTL_METHOD_CHANGES,
	CTL_METHOD_STATUS,
	CTL_METHOD_STATS,
	CTL_METHOD_TRIM,
	CTL_METHOD_NBD,
	CTL_METHOD_STOP,
	CTL_METHOD_DETACH,
	CTL_METHOD_SAME_RANGES,
};

/* Codes of JSON-RPC, and the one of ours: see errno_name in its data. */
enum ctl_code {
	CTL_CODE_PARSE = -32700,
	CTL_CODE_INVALID = -32600,
	CTL_CODE_METHOD = -32601,
	CTL_CODE_PARAMS = -32602,
	CTL_CODE_FAILED = -32000,
};

/* A sentence with two paths in it is not cut. */
#define CTL_RPC_MESSAGE_BYTES 320u

struct ctl_rpc_fault {
	enum ctl_code code;
	int error; /* a positive errno */
	char message[CTL_RPC_MESSAGE_BYTES];
};

/* One of the ranges of SAME_RANGES: a source, and the one destination. */
struct ctl_range {
	uint64_t src_off_bytes; /* SAME_SRC_ZERO for the word zero */
	uint64_t len_bytes;
};

struct ctl_rpc_call {
	json_t *id; /* owned; NULL: a notification, or not known */
	enum ctl_method method;
	uint64_t src_off_bytes; /* SAME, CLONE; SAME_SRC_ZERO for the word zero */
	uint64_t off_bytes; /* MAP, CHANGES */
	uint32_t since; /* CHANGES */
	uint64_t len_bytes;
	bool has_len; /* MAP: false means up to the end */
	bool sync;
	bool force; /* DETACH */
	uint64_t *dsts; /* owned */
	uint32_t dst_count;
	struct ctl_range *ranges; /* owned; SAME_RANGES: one for each of dsts */
};

/* A string of a text that need not be UTF-8, as a path on disk: what is not plain is ?. NULL: no
 * memory. */
json_t *ctl_rpc_text(const char *text);

/* 0, or -1 with the fault filled in; ret_call->id is set where it could be read. */
int ctl_rpc_decode(const char *line, size_t len_bytes, struct ctl_rpc_call *ret_call,
		   struct ctl_rpc_fault *reterr_fault);
void ctl_rpc_call_done(struct ctl_rpc_call *call);

/* Whether the method can change or reveal contents; the others only look at the server. */
bool ctl_method_needs_control(enum ctl_method method);

void ctl_rpc_fault_set(struct ctl_rpc_fault *fault, enum ctl_code code, int error,
		       const char *format, ...) __attribute__((format(printf, 4, 5)));

/* A line with its newline, to be freed; NULL: no memory. id NULL stands for null; takes over
 * result. */
char *ctl_rpc_encode_result(json_t *id, json_t *result);
char *ctl_rpc_encode_fault(json_t *id, const struct ctl_rpc_fault *fault);
/* What a client sends; takes over params, which may be NULL. */
char *ctl_rpc_encode_call(uint64_t id, const char *method, json_t *params);
/* The same with params as JSON text, newline and all. */
void ctl_rpc_encode_text(struct ctl_text *text, uint64_t id, const char *method,
			 const char *params);

/* "EINVAL" for EINVAL or -EINVAL. */
const char *ctl_errno_name(int error);

#endif
