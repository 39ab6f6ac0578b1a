/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_latency - each time is counted once, in the bucket that the header says
 */
#include <criterion/criterion.h>

#include "server/loop/latency.h"

static struct latency latency;

static struct latency_sums sums_of(const struct latency *of)
{
	struct latency_sums sums = {0};

	latency_add(of, &sums);
	return sums;
}

static unsigned bucket_of(uint64_t took_ns)
{
	struct latency one = {0};
	struct latency_sums sums;

	latency_note(&one, LATENCY_READ, took_ns);
	sums = sums_of(&one);
	cr_assert_eq(sums.total_ns[LATENCY_READ], took_ns);
	for (unsigned i = 0; i < LATENCY_BUCKETS; i++)
		if (sums.counts[LATENCY_READ][i] == 1)
			return i;
	cr_assert_fail("it was not counted");
	return LATENCY_BUCKETS;
}

Test(latency, a_bucket_ends_at_a_power_of_two_microseconds)
{
	cr_expect_eq(bucket_of(0), 0);
	cr_expect_eq(bucket_of(999), 0);
	cr_expect_eq(bucket_of(1000), 1);
	cr_expect_eq(bucket_of(1999), 1);
	cr_expect_eq(bucket_of(2000), 2);
	cr_expect_eq(bucket_of(1023999), 10);
	cr_expect_eq(bucket_of(1024000), 11);
	cr_expect_eq(bucket_of(8388607999), 23);
	cr_expect_eq(bucket_of(8388608000), 24);
	cr_expect_eq(bucket_of(UINT64_MAX), 24);
}

Test(latency, sums_are_over_all_that_noted_and_apart_for_each_operation)
{
	struct latency other = {0};
	struct latency_sums sums = {0};

	latency_note(&latency, LATENCY_WRITE, 1500);
	latency_note(&latency, LATENCY_FLUSH, 1500);
	latency_note(&other, LATENCY_WRITE, 1600);
	latency_add(&latency, &sums);
	latency_add(&other, &sums);
	cr_expect_eq(sums.counts[LATENCY_WRITE][1], 2);
	cr_expect_eq(sums.counts[LATENCY_FLUSH][1], 1);
	cr_expect_eq(sums.counts[LATENCY_READ][1], 0);
	cr_expect_eq(sums.total_ns[LATENCY_WRITE], 3100);
}
