/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_store_gate - who reads ahead and who punches are never at it together, and none waits long
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "server/store/store_gate.h"

static struct store_gate gate;
static atomic_bool inside;

static void setup(void)
{
	store_gate_init(&gate);
	atomic_store(&inside, false);
}

static void teardown(void)
{
	store_gate_done(&gate);
}

TestSuite(store_gate, .init = setup, .fini = teardown, .timeout = 30);

static void *fetch(void *arg)
{
	(void)arg;
	store_gate_enter(&gate);
	atomic_store(&inside, true);
	store_gate_leave(&gate);
	return NULL;
}

static pthread_t begin_fetch(void)
{
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, fetch, NULL), 0);
	return thread;
}

Test(store_gate, a_puncher_is_turned_away_as_long_as_somebody_fetches)
{
	store_gate_enter(&gate);
	store_gate_enter(&gate);
	cr_expect_not(store_gate_try_punch(&gate));
	store_gate_leave(&gate);
	cr_expect_not(store_gate_try_punch(&gate));
	store_gate_leave(&gate);
	cr_expect(store_gate_try_punch(&gate));
	cr_expect(store_gate_try_punch(&gate), "another lane's");
	store_gate_end_punch(&gate);
	store_gate_end_punch(&gate);
}

Test(store_gate, a_fetcher_waits_for_the_last_puncher)
{
	pthread_t thread;

	cr_assert(store_gate_try_punch(&gate));
	cr_assert(store_gate_try_punch(&gate));
	thread = begin_fetch();
	store_gate_end_punch(&gate);
	usleep(20000);
	cr_expect_not(atomic_load(&inside));
	store_gate_end_punch(&gate);
	pthread_join(thread, NULL);
	cr_expect(atomic_load(&inside));
}

Test(store_gate, a_puncher_that_was_turned_away_is_next)
{
	pthread_t thread;

	store_gate_enter(&gate);
	cr_assert_not(store_gate_try_punch(&gate));
	thread = begin_fetch();
	usleep(20000);
	cr_expect_not(atomic_load(&inside), "a stream of fetchers would keep it out for ever");
	store_gate_leave(&gate);
	cr_expect(store_gate_try_punch(&gate));
	store_gate_end_punch(&gate);
	pthread_join(thread, NULL);
}
