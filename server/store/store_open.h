/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * store_open - from a name to a store: the one place that knows which kinds there are
 *
 * Today a name is the path of a file or of a block device (store_file.h).
 *
 * Errors    0 or a negative errno, with a sentence for people in *reterr_message, which stays until
 *           the next store_open(). EWOULDBLOCK: locked by another process.
 * Blocking  up to wait_ms for the lock, and for the disk.
 */
#ifndef SERVER_STORE_STORE_OPEN_H
#define SERVER_STORE_STORE_OPEN_H

#include <stdbool.h>

#include "core/base/store.h"
#include "server/store/store_map.h"

#define STORE_WAIT_MS 5000u

struct store_options {
	bool read_only;
	bool direct;
	bool buffered; /* also where the device may run out of space */
	unsigned wait_ms;
	unsigned lanes;
};

/* Closed with store_close(). */
int store_open(const char *name, const struct store_options *options, struct store **ret_store,
	       const char **reterr_message);

/* Maps a store that is in the page cache, so that it can be read from without a copy, and compares
 * by itself from then on, unless it is read-only. -ENOTSUP: with direct. */
int store_open_map(struct store *store, struct store_map *map);
/* Undoes it, also if it was not mapped. store may be NULL. */
void store_close_map(struct store *store, struct store_map *map);

#endif
