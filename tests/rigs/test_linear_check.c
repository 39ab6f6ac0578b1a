/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_linear_check - histories that can be one order, and histories that cannot
 */
#include <criterion/criterion.h>

#include "tests/rigs/linear_check.h"

#define COUNT(events) (sizeof(events) / sizeof((events)[0]))

static struct event event(enum event_kind kind, uint32_t reg, uint64_t value, uint64_t begin,
			  uint64_t end)
{
	return (struct event){.kind = kind, .reg = reg, .value = value, .begin = begin, .end = end};
}

Test(linear_check, a_read_sees_the_write_before_it)
{
	struct event events[] = {event(EVENT_READ, 0, 0, 1, 2), event(EVENT_WRITE, 0, 7, 3, 4),
				 event(EVENT_READ, 0, 7, 5, 6)};

	cr_expect(linear_check(events, COUNT(events), 1) == 0);
}

Test(linear_check, a_write_under_way_may_be_seen_or_not)
{
	struct event events[] = {event(EVENT_WRITE, 0, 7, 1, 10), event(EVENT_READ, 0, 0, 2, 3),
				 event(EVENT_READ, 0, 7, 4, 5)};

	cr_expect(linear_check(events, COUNT(events), 1) == 0);
}

Test(linear_check, once_seen_a_write_under_way_stays)
{
	struct event events[] = {event(EVENT_WRITE, 0, 7, 1, 10), event(EVENT_READ, 0, 7, 2, 3),
				 event(EVENT_READ, 0, 0, 4, 5)};

	cr_expect(linear_check(events, COUNT(events), 1) > 0);
}

Test(linear_check, an_overwritten_value_does_not_come_back)
{
	struct event events[] = {event(EVENT_WRITE, 0, 7, 1, 2), event(EVENT_WRITE, 0, 8, 3, 4),
				 event(EVENT_READ, 0, 7, 5, 6)};

	cr_expect(linear_check(events, COUNT(events), 1) > 0);
}

Test(linear_check, two_readers_agree_on_the_order_of_two_writes)
{
	struct event events[] = {event(EVENT_WRITE, 0, 7, 1, 20), event(EVENT_WRITE, 0, 8, 2, 20),
				 event(EVENT_READ, 0, 7, 3, 4), event(EVENT_READ, 0, 8, 5, 6),
				 event(EVENT_READ, 0, 7, 7, 8)};

	cr_expect(linear_check(events, COUNT(events), 1) > 0);
}

Test(linear_check, a_value_is_not_there_before_it_is_written)
{
	struct event events[] = {event(EVENT_READ, 0, 7, 1, 2), event(EVENT_WRITE, 0, 7, 3, 4)};

	cr_expect(linear_check(events, COUNT(events), 1) > 0);
}

Test(linear_check, a_value_of_another_register_is_foreign)
{
	struct event events[] = {event(EVENT_WRITE, 0, 7, 1, 2), event(EVENT_READ, 1, 7, 3, 4)};

	cr_expect(linear_check(events, COUNT(events), 2) > 0);
}

Test(linear_check, a_discard_is_not_lost)
{
	struct event events[] = {event(EVENT_WRITE, 0, 7, 1, 2), event(EVENT_ZERO, 0, 0, 3, 4),
				 event(EVENT_READ, 0, 7, 5, 6)};

	cr_expect(linear_check(events, COUNT(events), 1) > 0);
}

Test(linear_check, zeros_need_a_discard)
{
	struct event events[] = {event(EVENT_WRITE, 0, 7, 1, 2), event(EVENT_READ, 0, 0, 3, 4)};

	cr_expect(linear_check(events, COUNT(events), 1) > 0);
}

Test(linear_check, a_lost_write_shows_between_two_reads)
{
	struct event events[] = {event(EVENT_WRITE, 0, 7, 1, 2), event(EVENT_READ, 0, 7, 3, 4),
				 event(EVENT_WRITE, 0, 8, 5, 6), event(EVENT_READ, 0, 7, 7, 8)};

	cr_expect(linear_check(events, COUNT(events), 1) > 0);
}

Test(linear_check, a_clone_brings_what_its_source_held)
{
	struct event events[] = {event(EVENT_WRITE, 0, 7, 1, 2), event(EVENT_CLONE, 1, 0, 3, 4),
				 event(EVENT_WRITE, 0, 8, 5, 6), event(EVENT_READ, 1, 7, 7, 8)};

	cr_expect(linear_check(events, COUNT(events), 2) == 0);
}

Test(linear_check, a_clone_does_not_follow_its_source)
{
	struct event events[] = {event(EVENT_WRITE, 0, 7, 1, 2), event(EVENT_CLONE, 1, 0, 3, 4),
				 event(EVENT_WRITE, 0, 8, 5, 6), event(EVENT_READ, 1, 8, 7, 8)};

	cr_expect(linear_check(events, COUNT(events), 2) > 0);
}

Test(linear_check, a_clone_does_not_bring_what_was_overwritten_before)
{
	struct event events[] = {event(EVENT_WRITE, 0, 7, 1, 2), event(EVENT_WRITE, 0, 8, 3, 4),
				 event(EVENT_CLONE, 1, 0, 5, 6), event(EVENT_READ, 1, 7, 7, 8)};

	cr_expect(linear_check(events, COUNT(events), 2) > 0);
}

Test(linear_check, a_sector_is_torn_only_while_somebody_writes)
{
	struct event good[] = {event(EVENT_WRITE, 0, 7, 1, 5), event(EVENT_TORN, 0, 0, 2, 3)};
	struct event bad[] = {event(EVENT_WRITE, 0, 7, 1, 2), event(EVENT_TORN, 0, 0, 3, 4)};

	cr_expect(linear_check(good, COUNT(good), 1) == 0);
	cr_expect(linear_check(bad, COUNT(bad), 1) > 0);
}
