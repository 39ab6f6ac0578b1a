/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * latency - how long clients' requests took, as counts in buckets that double
 *
 * Bucket i counts what took less than 2^i microseconds and not less than the bucket before; the
 * last one counts all that took longer. A request's time is from when its header was looked at to
 * when the last byte of its answer was given to the socket.
 *
 * Threads   a struct latency has one thread that notes; any may add it up.
 */
#ifndef SERVER_LOOP_LATENCY_H
#define SERVER_LOOP_LATENCY_H

#include <stdatomic.h>
#include <stdint.h>

#define LATENCY_BUCKETS 25u /* the last but one: under 8.4 s */

enum latency_op {
	LATENCY_READ,
	LATENCY_WRITE,
	LATENCY_FLUSH,
	LATENCY_DISCARD, /* and zeroes */
	LATENCY_OPS,
};

struct latency {
	_Atomic uint64_t counts[LATENCY_OPS][LATENCY_BUCKETS];
	_Atomic uint64_t total_ns[LATENCY_OPS];
};

struct latency_sums {
	uint64_t counts[LATENCY_OPS][LATENCY_BUCKETS];
	uint64_t total_ns[LATENCY_OPS];
};

void latency_note(struct latency *latency, enum latency_op op, uint64_t took_ns);
void latency_add(const struct latency *latency, struct latency_sums *sums);

#endif
