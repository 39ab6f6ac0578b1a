/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * buffers - the bounded memory that a loop's front ends put payloads in
 *
 * An arena cut in halves and halves again (a buddy allocator): powers of two from 4 KiB to 1 MiB,
 * each aligned to 4 KiB. Who gets none waits in a queue and is called whenever something comes
 * back; a front end that waits reads nothing more, so memory in use never exceeds the arena.
 *
 * Errors    buffers_init(): 0 or a negative errno. A failed take returns NULL and changes nothing.
 * Memory    all of it at init; untouched pages cost nothing.
 * Threads   one. Blocking: never.
 */
#ifndef SERVER_LOOP_BUFFERS_H
#define SERVER_LOOP_BUFFERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/list.h"

#define BUFFERS_PAGE_BYTES  4096u
#define BUFFERS_ORDERS	    9u /* 4 KiB << 8 = 1 MiB */
#define BUFFERS_CHUNK_BYTES (BUFFERS_PAGE_BYTES << (BUFFERS_ORDERS - 1))

struct buffers_page {
	struct list node; /* among the free ones of its order, if it begins one */
	uint8_t order;
	bool is_free; /* begins a free piece */
};

struct buffers_waiter {
	struct list node; /* list_init() it once */
	void (*ready)(struct buffers_waiter *waiter); /* try again; may wait again */
};

struct buffers {
	uint8_t *arena;
	uint64_t bytes;
	uint64_t used_bytes;
	struct buffers_page *pages;
	struct list free[BUFFERS_ORDERS];
	struct list waiters;
};

/* bytes is rounded down to whole chunks, at least one. */
int buffers_init(struct buffers *buffers, uint64_t bytes);
void buffers_done(struct buffers *buffers);

/* len_bytes: 1 to BUFFERS_CHUNK_BYTES; rounded up to a power of two. */
void *buffers_take(struct buffers *buffers, size_t len_bytes);
/* Wakes all who wait; ready() comes from inside. */
void buffers_drop(struct buffers *buffers, void *buffer);

void buffers_wait(struct buffers *buffers, struct buffers_waiter *waiter);
void buffers_unwait(struct buffers_waiter *waiter);

static inline bool buffers_contended(const struct buffers *buffers)
{
	return !list_empty(&buffers->waiters);
}

#endif
