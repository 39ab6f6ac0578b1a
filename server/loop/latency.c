/* SPDX-License-Identifier: GPL-2.0-or-later */
/* latency - see the header */
#include "server/loop/latency.h"

/* One thread writes, so nothing has to be locked. */
static void add_to(_Atomic uint64_t *number, uint64_t n)
{
	atomic_store_explicit(number, atomic_load_explicit(number, memory_order_relaxed) + n,
			      memory_order_relaxed);
}

static uint64_t get(const _Atomic uint64_t *number)
{
	return atomic_load_explicit(number, memory_order_relaxed);
}

void latency_note(struct latency *latency, enum latency_op op, uint64_t took_ns)
{
	uint64_t left_us = took_ns / 1000;
	unsigned bucket = 0;

	for (; left_us > 0 && bucket < LATENCY_BUCKETS - 1; left_us /= 2)
		bucket++;
	add_to(&latency->counts[op][bucket], 1);
	add_to(&latency->total_ns[op], took_ns);
}

void latency_add(const struct latency *latency, struct latency_sums *sums)
{
	for (unsigned op = 0; op < LATENCY_OPS; op++) {
		for (unsigned i = 0; i < LATENCY_BUCKETS; i++)
			sums->counts[op][i] += get(&latency->counts[op][i]);
		sums->total_ns[op] += get(&latency->total_ns[op]);
	}
}
