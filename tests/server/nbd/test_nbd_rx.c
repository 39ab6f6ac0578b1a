/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_nbd_rx - no message is cut in two, and no slice moves while it is held
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "server/nbd/nbd_rx.h"

static struct nbd_rx rx;

static void init(void)
{
	cr_assert_eq(nbd_rx_init(&rx), 0);
}

static void done(void)
{
	nbd_rx_done(&rx);
}

TestSuite(nbd_rx, .init = init, .fini = done);

static uint32_t room(void)
{
	uint32_t bytes;

	nbd_rx_room(&rx, &bytes);
	return bytes;
}

static void put(uint8_t value, uint32_t bytes)
{
	uint32_t most;
	uint8_t *at = nbd_rx_room(&rx, &most);

	cr_assert_leq(bytes, most);
	memset(at, value, bytes);
	nbd_rx_received(&rx, bytes);
}

/* Before: every connection was refused with "File too large". */
Test(nbd_rx, a_file_size_limit_does_not_bound_it)
{
	const struct rlimit limit = {NBD_RX_BYTES / 2, RLIM_INFINITY};

	nbd_rx_done(&rx);
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	cr_assert_eq(nbd_rx_init(&rx), 0);
	put(7, room());
}

Test(nbd_rx, starts_over_when_nothing_is_waiting)
{
	uint8_t *first = nbd_rx_room(&rx, &(uint32_t){0});

	put(1, 1000);
	cr_assert_eq(nbd_rx_have(&rx), 1000);
	nbd_rx_skip(&rx, 1000);
	cr_assert_eq(nbd_rx_room(&rx, &(uint32_t){0}), first);
	cr_assert_eq(room(), NBD_RX_BYTES);
}

Test(nbd_rx, a_message_across_the_end_lies_in_one_piece)
{
	put(1, NBD_RX_BYTES - 10);
	nbd_rx_skip(&rx, NBD_RX_BYTES - 11); /* one byte stays, so it goes on where it is */
	put(2, 100);
	nbd_rx_skip(&rx, 1);
	for (unsigned i = 0; i < 100; i++)
		cr_assert_eq(nbd_rx_bytes(&rx)[i], 2);
	nbd_rx_skip(&rx, 100);
}

Test(nbd_rx, room_comes_back_with_the_oldest_slice)
{
	struct nbd_rx_slice a, b;

	list_init(&a.node);
	list_init(&b.node);
	put(1, 100);
	nbd_rx_hold(&rx, &a, 60);
	nbd_rx_hold(&rx, &b, 40);
	cr_assert_eq(room(), NBD_RX_BYTES - 100);
	nbd_rx_drop(&rx, &b);
	cr_assert_eq(room(), NBD_RX_BYTES - 100, "a, which is older, is still held");
	nbd_rx_drop(&rx, &a);
	cr_assert_eq(room(), NBD_RX_BYTES);
}

Test(nbd_rx, align_begins_a_page)
{
	struct nbd_rx_slice a;
	uint8_t *at;

	list_init(&a.node);
	put(1, 28);
	nbd_rx_hold(&rx, &a, 28); /* something to keep it from starting over */
	nbd_rx_align(&rx);
	at = nbd_rx_room(&rx, &(uint32_t){0});
	cr_assert_eq((uintptr_t)at % 4096, 0);
	cr_assert_eq(room(), NBD_RX_BYTES - 4096);
	nbd_rx_drop(&rx, &a);
}

/* Against a plain copy of the stream: slices dropped in any order, messages of any length. */
Test(nbd_rx, held_slices_keep_their_bytes)
{
	enum { SLICES = 16 };
	struct nbd_rx_slice slices[SLICES];
	struct {
		uint8_t *bytes;
		uint32_t len_bytes;
		uint8_t value;
	} held[SLICES] = {0};

	srand(1);
	for (unsigned i = 0; i < SLICES; i++)
		list_init(&slices[i].node);
	for (unsigned turn = 0; turn < 3000; turn++) {
		unsigned i = (unsigned)rand() % SLICES;
		uint32_t len_bytes = 1 + (uint32_t)rand() % (NBD_RX_BYTES / SLICES);

		if (held[i].bytes != NULL) {
			for (uint32_t k = 0; k < held[i].len_bytes; k++)
				cr_assert_eq(held[i].bytes[k], held[i].value);
			nbd_rx_drop(&rx, &slices[i]);
			held[i].bytes = NULL;
			continue;
		}
		if (room() < len_bytes)
			continue;
		held[i].value = (uint8_t)turn;
		held[i].len_bytes = len_bytes;
		put(held[i].value, len_bytes);
		held[i].bytes = nbd_rx_hold(&rx, &slices[i], len_bytes);
	}
	for (unsigned i = 0; i < SLICES; i++)
		if (held[i].bytes != NULL)
			nbd_rx_drop(&rx, &slices[i]);
	cr_assert_eq(room(), NBD_RX_BYTES);
}
