/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * store_gate - keeps the store's own reading ahead and its punching of holes apart
 *
 *   fetchers  store_gate_enter ... store_gate_leave        any number at a time, each waits
 *   punchers  store_gate_try_punch ... store_gate_end_punch    never wait: they come again
 *
 * Both take the same lock of the file in the kernel (mapping.invalidate_lock: shared to bring pages
 * in, exclusive to punch a hole). Whoever brings pages in may sleep with it, for a place in the
 * disk's queue or for a processor, and a puncher that waits for it holds the file's lock that every
 * write needs. So one that would wait is not begun: it tries again later, and nobody waits for
 * it. Meanwhile no new fetcher goes in, or it would never have its turn.
 *
 * Threads   any. Memory: none. Blocking: enter waits for punchers, which the kernel does in a
 *           moment; the rest does not.
 */
#ifndef SERVER_STORE_STORE_GATE_H
#define SERVER_STORE_STORE_GATE_H

#include <pthread.h>
#include <stdbool.h>

struct store_gate {
	pthread_mutex_t lock;
	pthread_cond_t open;
	unsigned fetching;
	unsigned punching;
	bool wanted; /* by a puncher that was turned away */
};

void store_gate_init(struct store_gate *gate);
void store_gate_done(struct store_gate *gate);

void store_gate_enter(struct store_gate *gate);
void store_gate_leave(struct store_gate *gate);

/* False: somebody fetches; to be tried again, soon, until it is true. */
bool store_gate_try_punch(struct store_gate *gate);
void store_gate_end_punch(struct store_gate *gate);

#endif
