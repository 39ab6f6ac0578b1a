/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * linear_check - whether what many clients saw of each sector can be one order of their requests
 *
 * Every sector is a register. Each value is written to a register at most once, so a read says
 * which write it saw; discards write zeros, which are not unique, and a clone writes what its
 * source register held at some moment of the clone.
 *
 * For each unique value, the *zone* reaches from the first answer of its write and its reads to the
 * last submission of any of them. If that is forward in time the register held the value
 * throughout: two such zones must not overlap, and nothing else may begin and end inside one.
 * Besides, no read may see what was certainly overwritten before it began, or what began after it
 * ended. For unique values this is exact; for zeros and clones it is what can be decided locally.
 *
 * Time      any counter that all clients share: drawn before submitting, drawn after the answer.
 * Memory    aborts when there is none: this is a test.
 */
#ifndef TESTS_RIGS_LINEAR_CHECK_H
#define TESTS_RIGS_LINEAR_CHECK_H

#include <stddef.h>
#include <stdint.h>

enum event_kind {
	EVENT_READ,
	EVENT_TORN, /* a read that found parts of several values in one sector */
	EVENT_WRITE, /* of a value that no other write to this register has */
	EVENT_ZERO,
	EVENT_CLONE, /* value is the source's register */
};

struct event {
	uint64_t value; /* 0: zeros */
	uint64_t begin;
	uint64_t end;
	uint32_t reg;
	enum event_kind kind;
};

/* All registers hold zeros at first. Sorts the events. Returns how many contradictions there are,
 * each of the first few on stderr. */
size_t linear_check(struct event *events, size_t count, uint32_t reg_count);

#endif
