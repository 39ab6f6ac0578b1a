/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * store_compare - compares two ranges of a mapped store, on threads of its own
 *
 *   submit ----> NEW ----> READY ----> finished()
 *
 *   NEW   -> READY       a thread   whose areas are not known to be in memory: the kernel is told
 *                                   to read them, all that have been submitted before any is waited
 *                                   for, so that a disk has many reads in flight
 *   READY -> finished()  a thread   compared where the bytes lie: nothing is copied
 *
 * A page that cannot be read (an I/O error, a file that was cut) is a signal for who touches it:
 * SIGBUS, which is caught here and makes that one comparison EIO. A SIGBUS from anywhere else kills
 * the process, as it should. The signal must not be blocked where bytes are compared.
 *
 * Bytes may change while they are compared. Then what is found is that they are equal, or that
 * they differ somewhere, and both are true of some mixture of old and new; who compares sees to it
 * that it learns of such changes (the watches of core/op_same.c).
 *
 * Errors    0 or a negative errno.
 * Threads   start and stop on the thread that owns the store, submit on any; finished() comes on a
 *           thread of this module. These run when nobody else wants a processor: clients go first.
 * Memory    nothing is allocated after the start.
 * Blocking  submit never does; stop waits for the threads, and nothing may be in flight then.
 */
#ifndef SERVER_STORE_COMPARE_H
#define SERVER_STORE_COMPARE_H

#include <stdint.h>

#include "core/store.h"
#include "server/store_map.h"

#define STORE_COMPARE_THREADS_MAX 4u

struct store_compare;

typedef void store_compare_finished_fn(void *context, struct store_io *io, int res);

/* The map must outlive it. */
int store_compare_start(struct store_map *map, unsigned threads,
			store_compare_finished_fn *finished, void *context,
			struct store_compare **ret_compare);
void store_compare_stop(struct store_compare *compare);

/* io->op is STORE_COMPARE; it is inside the store. */
void store_compare_submit(struct store_compare *compare, struct store_io *io);

/* On the calling thread: 0 with io->equal_bytes, or -EIO. For little that is in memory. */
int store_compare_now(const struct store_map *map, struct store_io *io);

#endif
