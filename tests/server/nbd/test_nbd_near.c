/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_nbd_near - a worker goes to its client's processor where that is faster, and only there
 */
#include <criterion/criterion.h>
#include <errno.h>

#include "server/nbd/nbd_near.h"

#define CPU	3
#define FD	7
#define SLOW_NS 50000u
#define FAST_NS 20000u
#define WINDOWS 400u

/* A machine: how long requests take apart and together, and where the worker is. */
struct bed {
	struct nbd_near near;
	uint64_t now_ns;
	uint64_t apart_ns, together_ns;
	int cpu, find_res, bind_res;
	unsigned finds, binds, unbinds;
	uint64_t sleeps;
};

static int find(void *context, int fd)
{
	struct bed *bed = context;

	cr_assert_eq(fd, FD);
	bed->finds++;
	return bed->find_res;
}

static int bind(void *context, int cpu)
{
	struct bed *bed = context;

	cr_assert_eq(bed->cpu, -1);
	bed->binds++;
	if (bed->bind_res == 0)
		bed->cpu = cpu;
	return bed->bind_res;
}

static void unbind(void *context)
{
	struct bed *bed = context;

	cr_assert_neq(bed->cpu, -1);
	bed->unbinds++;
	bed->cpu = -1;
}

static struct bed bed;
static int client, other;

static void setup(void)
{
	bed = (struct bed){.apart_ns = SLOW_NS, .together_ns = FAST_NS, .cpu = -1, .find_res = CPU};
	nbd_near_init(&bed.near, &(struct nbd_near_place){find, bind, unbind, &bed});
}

TestSuite(nbd_near, .init = setup);

static void request(const void *who, bool alone)
{
	nbd_near_request(&bed.near,
			 &(struct nbd_near_sent){who, FD, alone, bed.sleeps, bed.now_ns});
}

static void one_by_one(const void *who, unsigned requests)
{
	for (unsigned i = 0; i < requests; i++) {
		bed.now_ns += bed.cpu == -1 ? bed.apart_ns : bed.together_ns;
		bed.sleeps++;
		request(who, true);
	}
}

static void settle(void)
{
	one_by_one(&client, 4 * (NBD_NEAR_WINDOW + 1));
	cr_assert_eq(bed.near.state, NBD_NEAR_TOGETHER);
	cr_assert_eq(bed.cpu, CPU);
}

Test(nbd_near, a_client_that_waits_for_each_answer_is_joined)
{
	settle();
	one_by_one(&client, WINDOWS * NBD_NEAR_WINDOW);
	cr_assert_eq(bed.binds, 1);
	cr_assert_eq(bed.unbinds, 0);
}

Test(nbd_near, where_it_is_no_faster_the_worker_goes_back_and_asks_less_and_less_often)
{
	uint64_t end_ns;

	bed.together_ns = SLOW_NS - SLOW_NS / 10;
	one_by_one(&client, 4 * (NBD_NEAR_WINDOW + 1));
	cr_assert_eq(bed.binds, 1);
	cr_assert_eq(bed.unbinds, 1);
	cr_assert_eq(bed.near.state, NBD_NEAR_APART);
	end_ns = bed.now_ns + 10 * 1000000000ull;
	while (bed.now_ns < end_ns)
		one_by_one(&client, NBD_NEAR_WINDOW);
	/* After 0.25, 0.5, 1, 2, 4 seconds, and no more within ten. */
	cr_assert_geq(bed.binds, 5);
	cr_assert_leq(bed.binds, 7);
	cr_assert_eq(bed.unbinds, bed.binds);
}

Test(nbd_near, two_requests_at_once_part_them)
{
	settle();
	bed.sleeps++;
	request(&client, false);
	cr_assert_eq(bed.cpu, -1);
	cr_assert_eq(bed.near.state, NBD_NEAR_APART);
}

Test(nbd_near, a_second_client_parts_them)
{
	settle();
	bed.sleeps++;
	request(&other, true);
	cr_assert_eq(bed.cpu, -1);
	for (unsigned i = 0; i < WINDOWS * NBD_NEAR_WINDOW; i++)
		one_by_one(i % 2 == 0 ? &client : &other, 1);
	cr_assert_eq(bed.binds, 1);
}

/* Goal: it merges beside, so its client would wait for it on one processor. */
Test(nbd_near, a_worker_that_does_not_sleep_between_requests_leaves_its_client)
{
	settle();
	request(&client, true);
	cr_assert_eq(bed.cpu, -1);
	cr_assert_eq(bed.near.state, NBD_NEAR_APART);
	for (unsigned i = 0; i < WINDOWS * NBD_NEAR_WINDOW; i++) {
		bed.now_ns += bed.apart_ns;
		request(&client, true);
	}
	cr_assert_eq(bed.binds, 1, "and does not come back as long as that lasts");
	settle();
	cr_assert_eq(bed.binds, 2);
}

Test(nbd_near, a_client_that_goes_leaves_the_worker_free)
{
	settle();
	nbd_near_gone(&bed.near, &other);
	cr_assert_eq(bed.cpu, CPU);
	nbd_near_gone(&bed.near, &client);
	cr_assert_eq(bed.cpu, -1);
}

Test(nbd_near, a_processor_that_became_slow_is_left)
{
	settle();
	bed.together_ns = 2 * SLOW_NS;
	one_by_one(&client, 3 * NBD_NEAR_WINDOW);
	cr_assert_eq(bed.cpu, -1);
	cr_assert_eq(bed.unbinds, 1);
}

Test(nbd_near, a_client_that_pauses_is_not_timed)
{
	for (unsigned i = 0; i < WINDOWS * NBD_NEAR_WINDOW; i++) {
		bed.now_ns += NBD_NEAR_GAP_NS + 1;
		bed.sleeps++;
		request(&client, true);
	}
	cr_assert_eq(bed.finds, 0);
}

Test(nbd_near, what_cannot_be_found_or_set_changes_nothing)
{
	bed.find_res = -ENOENT;
	one_by_one(&client, WINDOWS * NBD_NEAR_WINDOW);
	cr_assert_gt(bed.finds, 1);
	cr_assert_eq(bed.binds, 0);
	bed.find_res = CPU;
	bed.bind_res = -EPERM;
	bed.near.try_ns = 0;
	one_by_one(&client, 2 * (NBD_NEAR_WINDOW + 1));
	cr_assert_eq(bed.binds, 1);
	cr_assert_eq(bed.cpu, -1);
	cr_assert_eq(bed.unbinds, 0);
}
