/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_nbd_guests - strangers cannot take all connections
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <stdio.h>

#include "server/nbd/nbd_guests.h"

#define MAX 128u

static struct nbd_guests guests;
static struct nbd_guest held[MAX];

static void setup(void)
{
	nbd_guests_init(&guests, MAX);
}

TestSuite(nbd_guests, .init = setup, .timeout = 60);

static struct sockaddr_storage address_of(const char *text)
{
	struct sockaddr_storage address = {.ss_family = AF_INET};

	if (inet_pton(AF_INET, text, &((struct sockaddr_in *)&address)->sin_addr) == 1)
		return address;
	address.ss_family = AF_INET6;
	cr_assert_eq(inet_pton(AF_INET6, text, &((struct sockaddr_in6 *)&address)->sin6_addr), 1);
	return address;
}

/* So many get in, at most MAX, and stay; format has a %u for those that have each its own. */
static unsigned enter(const char *format, unsigned first, bool settle)
{
	unsigned count = 0;

	for (; first + count < MAX; count++) {
		char text[64];
		struct sockaddr_storage address;

		snprintf(text, sizeof(text), format, count);
		address = address_of(text);
		if (nbd_guests_enter(&guests, &address, &held[first + count]) != NULL)
			break;
		if (settle)
			nbd_guests_settle(&guests, &held[first + count]);
	}
	return count;
}

static unsigned enter_local(unsigned first)
{
	unsigned count = 0;

	while (first + count < MAX && nbd_guests_enter(&guests, NULL, &held[first + count]) == NULL)
		count++;
	return count;
}

static void leave_all(unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		nbd_guests_leave(&guests, &held[i]);
	nbd_guests_done(&guests); /* asserts that nothing is left */
}

Test(nbd_guests, clients_of_this_machine_may_have_all)
{
	struct nbd_guest more;

	cr_assert_eq(enter_local(0), MAX);
	cr_assert_not_null(nbd_guests_enter(&guests, NULL, &more));
	leave_all(MAX);
}

Test(nbd_guests, strangers_leave_an_eighth)
{
	unsigned count = enter("10.0.0.%u", 0, true);

	cr_assert_eq(count, MAX - MAX / 8);
	cr_assert_eq(enter_local(count), MAX / 8);
	leave_all(MAX);
}

Test(nbd_guests, one_peer_gets_half)
{
	unsigned count = enter("10.0.0.1", 0, true);

	cr_assert_eq(count, MAX / 2);
	cr_assert_gt(enter("10.0.1.%u", count, true), 0, "others get in");
	leave_all(guests.count);
}

Test(nbd_guests, a_network_of_ipv6_is_one_peer)
{
	cr_assert_eq(enter("2001:db8::%x", 0, true), MAX / 2);
	leave_all(guests.count);
}

Test(nbd_guests, an_address_of_ipv4_is_one_peer_also_on_a_socket_of_both_kinds)
{
	cr_assert_eq(enter("::ffff:10.0.0.1", 0, true), MAX / 2);
	cr_assert_gt(enter("::ffff:10.0.1.%u", MAX / 2, true), 0, "others get in");
	cr_assert_eq(enter("10.0.0.1", guests.count, true), 0, "it is the same peer");
	leave_all(guests.count);
}

Test(nbd_guests, one_peer_cannot_keep_others_out_of_the_handshake)
{
	unsigned shaking = enter("10.0.0.1", 0, false);

	cr_assert_eq(shaking, MAX / 4);
	cr_assert_eq(enter("10.0.1.%u", shaking, false), MAX / 4,
		     "one of each other peer, to half");
	leave_all(guests.count);
}

Test(nbd_guests, who_does_not_get_through_the_handshake_leaves_room_for_others)
{
	unsigned shaking = enter("10.0.0.%u", 0, false);

	cr_assert_eq(shaking, MAX / 2, "one of each peer");
	for (unsigned i = 0; i < shaking; i++)
		nbd_guests_settle(&guests, &held[i]);
	cr_assert_eq(enter("10.0.1.1", shaking, false), MAX / 4, "who is through does not count");
	leave_all(guests.count);
}

Test(nbd_guests, with_one_slot_it_goes_to_whoever_comes)
{
	nbd_guests_init(&guests, 1);
	cr_assert_eq(enter("10.0.0.%u", 0, false), 1);
	leave_all(1);
}
