/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_buffers - no byte of the arena is in two hands, and all of it comes back
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "server/loop/buffers.h"

#define ARENA_BYTES (4u * BUFFERS_CHUNK_BYTES)

static struct buffers buffers;

static void setup(void)
{
	cr_assert_eq(buffers_init(&buffers, ARENA_BYTES), 0);
}

static void teardown(void)
{
	buffers_done(&buffers);
}

TestSuite(buffers, .init = setup, .fini = teardown);

Test(buffers, the_bound_is_kept_and_all_of_it_can_be_used)
{
	void *chunks[4];
	void *pages[ARENA_BYTES / BUFFERS_PAGE_BYTES];

	for (unsigned i = 0; i < 4; i++) {
		chunks[i] = buffers_take(&buffers, BUFFERS_CHUNK_BYTES);
		cr_assert_not_null(chunks[i]);
	}
	cr_assert_null(buffers_take(&buffers, 1));
	for (unsigned i = 0; i < 4; i++)
		buffers_drop(&buffers, chunks[i]);
	for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
		pages[i] = buffers_take(&buffers, 1);
		cr_assert_not_null(pages[i]);
	}
	cr_assert_null(buffers_take(&buffers, 1));
	for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++)
		buffers_drop(&buffers, pages[i]);
	cr_assert_eq(buffers.used_bytes, 0);
	/* The pages have grown together again. */
	chunks[0] = buffers_take(&buffers, BUFFERS_CHUNK_BYTES);
	cr_assert_not_null(chunks[0]);
	buffers_drop(&buffers, chunks[0]);
}

/* Each piece is filled with its own byte; a neighbour that overlaps would be seen. */
Test(buffers, pieces_never_overlap)
{
	struct {
		uint8_t *at;
		size_t bytes;
	} held[64] = {{NULL, 0}};
	unsigned taken = 0;

	srand(7);
	for (unsigned round = 0; round < 20000; round++) {
		unsigned i = (unsigned)rand() % 64;

		if (held[i].at != NULL) {
			for (size_t b = 0; b < held[i].bytes; b += 511)
				cr_assert_eq(held[i].at[b], i + 1);
			cr_assert_eq(held[i].at[held[i].bytes - 1], i + 1);
			buffers_drop(&buffers, held[i].at);
			held[i].at = NULL;
			continue;
		}
		held[i].bytes = 1 + (size_t)rand() % (BUFFERS_PAGE_BYTES << (rand() % 9));
		held[i].at = buffers_take(&buffers, held[i].bytes);
		if (held[i].at == NULL)
			continue;
		cr_assert_eq((uintptr_t)held[i].at % BUFFERS_PAGE_BYTES, 0);
		memset(held[i].at, (int)i + 1, held[i].bytes);
		taken++;
	}
	cr_assert_gt(taken, 1000);
	for (unsigned i = 0; i < 64; i++)
		if (held[i].at != NULL)
			buffers_drop(&buffers, held[i].at);
	cr_assert_eq(buffers.used_bytes, 0);
}

struct waiter {
	struct buffers_waiter waiter;
	unsigned calls;
	unsigned order;
	size_t wants;
};

static unsigned calls_made;

static void ready(struct buffers_waiter *base)
{
	struct waiter *waiter = container_of(base, struct waiter, waiter);

	waiter->calls++;
	waiter->order = ++calls_made;
	if (waiter->wants > 0)
		buffers_wait(&buffers, base);
}

Test(buffers, all_who_wait_are_called_in_order_and_may_wait_again)
{
	struct waiter waiters[3];
	void *chunk = buffers_take(&buffers, BUFFERS_CHUNK_BYTES);

	for (unsigned i = 0; i < 3; i++) {
		waiters[i] = (struct waiter){.waiter = {.ready = ready}, .wants = i == 0};
		list_init(&waiters[i].waiter.node);
		buffers_wait(&buffers, &waiters[i].waiter);
		buffers_wait(&buffers, &waiters[i].waiter);
	}
	cr_assert(buffers_contended(&buffers));
	buffers_drop(&buffers, chunk);
	for (unsigned i = 0; i < 3; i++) {
		cr_assert_eq(waiters[i].calls, 1);
		cr_assert_eq(waiters[i].order, i + 1);
	}
	cr_assert(buffers_contended(&buffers));
	buffers_unwait(&waiters[0].waiter);
	cr_assert_not(buffers_contended(&buffers));
}
