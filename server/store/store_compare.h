/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * store_compare - compares two ranges of a mapped store, on threads of its own
 *
 *   submit --+--> FRESH ----> ADVISED ----> READY ----> finished()
 *             `--> URGENT --------------------------------^
 *
 *   FRESH   -> ADVISED     "fetch"    the kernel is told to read what is not in memory, for as many
 *                                     as ADVISED_BYTES_MAX allows, so that a disk has much to read
 *                                     but nobody else's read waits behind seconds of it
 *   ADVISED -> READY       "fetch"    waits for the disk, and enters the pages in the page table
 *   READY   -> finished()  "compare"  compared where the bytes lie: nothing is copied
 *   URGENT  -> finished()  "urgent"   all of that at once: somebody waits for it behind a fence
 *
 * Threads that compare give way to clients (nice 10). So they must not hold what anybody else
 * waits for: a thread that is not allowed to run keeps its locks. Whatever takes a lock of the
 * file, which is reading ahead and entering pages, is therefore done by "fetch" before, as fast
 * as anybody, and apart from punching (store_gate.h); they only look at memory then. (They
 * never run at the priority of an idle thread, sched(7): on a busy machine that is a three
 * hundredth of a processor, and a merge would not go on.)
 *
 * A page that cannot be read (an I/O error, a file that was cut) is a signal for who touches it:
 * SIGBUS, which is caught here and makes that one comparison EIO. A SIGBUS from anywhere else kills
 * the process, as it should. The signal must not be blocked where bytes are compared.
 *
 * Bytes may change while they are compared. Then what is found is that they are equal, or that
 * they differ somewhere, and both are true of some mixture of old and new; who compares sees to it
 * that it learns of such changes (the watches of core/request/op_same.c).
 *
 * Errors    0 or a negative errno.
 * Threads   start and stop on the thread that owns the store, submit on any; finished() comes on a
 *           thread of this module.
 * Memory    nothing is allocated after the start.
 * Blocking  submit never does; stop waits for the threads, and nothing may be in flight then.
 */
#ifndef SERVER_STORE_STORE_COMPARE_H
#define SERVER_STORE_STORE_COMPARE_H

#include <stdint.h>

#include "core/base/store.h"
#include "server/store/store_gate.h"
#include "server/store/store_map.h"

#define STORE_COMPARE_THREADS_MAX 4u

struct store_compare;

typedef void store_compare_finished_fn(void *context, struct store_io *io, int res);

/* The map and the gate must outlive it. threads: how many compare, besides the two others. */
int store_compare_start(struct store_map *map, struct store_gate *gate, unsigned threads,
			store_compare_finished_fn *finished, void *context,
			struct store_compare **ret_compare);
void store_compare_stop(struct store_compare *compare);

/* io->op is STORE_COMPARE; it is inside the store. An urgent one never waits for a thread of lower
 * priority. */
void store_compare_submit(struct store_compare *compare, struct store_io *io);

/* On the calling thread: 0 with io->equal_bytes, or -EIO. For little that is in memory. */
int store_compare_now(const struct store_map *map, struct store_io *io);

#endif
