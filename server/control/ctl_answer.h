/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ctl_answer - results of calls as JSON, in the shape of docs/control-protocol.md
 *
 * Pure functions of a finished call. NULL: no memory.
 */
#ifndef SERVER_CONTROL_CTL_ANSWER_H
#define SERVER_CONTROL_CTL_ANSWER_H

#include <jansson.h>

#include "server/control/ctl_call.h"
#include "server/loop/latency.h"

/* What the control thread knows and the volume does not. */
struct ctl_answer_server {
	const char *store_path;
	const char *const *uris; /* NULL-terminated; may be NULL */
	unsigned clients;
	uint64_t uptime_seconds;
	uint64_t silent_seconds; /* that the store has answered nothing for; 0: it answers */
	const struct latency_sums *latency; /* NULL: nobody measures */
};

json_t *ctl_answer(const struct ctl_call *call, const struct ctl_answer_server *server);

/* The whole line that answers SAME_RANGES, to be freed; NULL: no memory. */
char *ctl_answer_ranges(const struct ctl_call *call);

#endif
