/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_ublk_detach - a wish from one thread is answered by another, also when it is too late
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "server/ublk/ublk_detach.h"

static struct ublk_detach detach;
static _Atomic int wakes;

static void wake(void *context)
{
	(void)context;
	atomic_fetch_add(&wakes, 1);
}

struct asker {
	bool force;
	int result;
	char text[UBLK_DETACH_TEXT_BYTES];
};

static void *ask(void *argument)
{
	struct asker *asker = argument;

	asker->result = ublk_detach_ask(&detach, asker->force, asker->text);
	return NULL;
}

static void wait_for_wish(bool *ret_force)
{
	while (!ublk_detach_take(&detach, ret_force))
		sched_yield();
}

TestSuite(ublk_detach, .timeout = 20);

Test(ublk_detach, who_asks_gets_the_answer_of_the_main_thread)
{
	static const int results[] = {-EBUSY, 0};

	ublk_detach_init(&detach, wake, NULL);
	for (size_t i = 0; i < 2; i++) {
		struct asker asker = {.force = i == 1};
		pthread_t thread;
		bool force = i == 0;

		cr_assert_eq(pthread_create(&thread, NULL, ask, &asker), 0);
		wait_for_wish(&force);
		cr_assert_eq(force, i == 1);
		ublk_detach_answer(&detach, results[i], "the text");
		pthread_join(thread, NULL);
		cr_assert_eq(asker.result, results[i]);
		cr_assert_str_eq(asker.text, "the text");
		cr_assert(!ublk_detach_take(&detach, &force));
	}
	cr_assert_eq(atomic_load(&wakes), 2);
	ublk_detach_done(&detach);
}

Test(ublk_detach, a_server_that_stops_keeps_nobody_waiting)
{
	struct asker early = {.force = false};
	char text[UBLK_DETACH_TEXT_BYTES];
	pthread_t thread;
	bool force;

	ublk_detach_init(&detach, wake, NULL);
	cr_assert_eq(pthread_create(&thread, NULL, ask, &early), 0);
	wait_for_wish(&force);
	ublk_detach_close(&detach);
	pthread_join(thread, NULL);
	cr_assert_eq(early.result, -ECANCELED);
	cr_assert_eq(ublk_detach_ask(&detach, true, text), -ECANCELED);
	cr_assert_not_null(strstr(text, "stopping"));
	ublk_detach_done(&detach);
}

Test(ublk_detach, whatever_the_server_has_to_say_is_told_in_full)
{
	struct asker asker = {.force = false};
	char text[UBLK_WHY_BYTES];
	pthread_t thread;
	bool force;

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	ublk_detach_init(&detach, wake, NULL);
	cr_assert_eq(pthread_create(&thread, NULL, ask, &asker), 0);
	wait_for_wish(&force);
	ublk_detach_answer(&detach, -EBUSY, text);
	pthread_join(thread, NULL);
	cr_assert_str_eq(asker.text, text);
	ublk_detach_done(&detach);
}

Test(ublk_detach, a_long_text_is_cut)
{
	struct asker asker = {.force = false};
	char text[2 * UBLK_DETACH_TEXT_BYTES];
	pthread_t thread;
	bool force;

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	ublk_detach_init(&detach, wake, NULL);
	cr_assert_eq(pthread_create(&thread, NULL, ask, &asker), 0);
	wait_for_wish(&force);
	ublk_detach_answer(&detach, -EIO, text);
	pthread_join(thread, NULL);
	cr_assert_eq(strlen(asker.text), UBLK_DETACH_TEXT_BYTES - 1);
	ublk_detach_done(&detach);
}
