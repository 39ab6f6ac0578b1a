/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * store_watch - what can be seen of a store from beside it: whether it answers, and what its
 * backing can still give
 *
 * A thread of its own asks the file what may wait for long: some times a second it writes nothing
 * to it, which changes nothing, but does not come back from a filesystem that is frozen, or that
 * holds up its writers; and each second it asks how much the filesystem has left. So whoever is
 * about to write knows beforehand: while that thread waits, writes are left to threads of the
 * kernel's, and a worker goes on with its other clients (store_file.c).
 *
 *   answering -> silent     store_watch_silent_ms  a lane has had I/O for a while and none of it
 *                                                  ended, or the thread waits
 *   silent    -> answering  the same               some I/O of each such lane ended
 *
 * The lanes only count what they finish and read no clock; store_watch_silent_ms() compares the
 * counts with those of the call before, and sees nothing of what happened between two calls.
 *
 * Errors    0 or a negative errno.
 * Threads   start and stop on one thread, around the I/O of all lanes; the rest on any.
 * Blocking  stop does as long as the thread waits for the file, as closing it would; so does the
 *           end of a process that is killed.
 */
#ifndef SERVER_STORE_STORE_WATCH_H
#define SERVER_STORE_STORE_WATCH_H

#include <stdint.h>

#include "core/base/store.h"

#define STORE_WATCH_MS	      200u
#define STORE_WATCH_STUCK_MS  100u /* longer than a busy machine lets a thread wait */
#define STORE_WATCH_SPACE_MS  1000u
#define STORE_WATCH_SILENT_MS 2000u /* less is how slow disks are */
#define STORE_WATCH_TELL_MS   10000u

struct store_watch;

int store_watch_start(struct store *store, struct store_watch **ret_watch);
/* NULL is fine. */
void store_watch_stop(struct store_watch *watch);

/* How long the store has answered nothing although it was asked; 0: it answers. */
uint64_t store_watch_silent_ms(struct store_watch *watch);
/* Every second: says so in the log, once, when it has lasted, and when it is over. */
void store_watch_tell(struct store_watch *watch, const char *name);

#endif
