/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * store_file - a store in a regular file or a block device, through io_uring
 *
 * Guarantees what core/base/store.h asks: short transfers are finished here, a flush is
 * fdatasync(), a write with fua is durable when done() is called (RWF_DSYNC). Once the kernel has
 * reported that written data could not be made durable, every later flush and fua write fails: it
 * reports that once only, and to whoever asks first.
 *
 * Lock      flock() on the description that does the I/O, so it lives as long as the last I/O of a
 *           killed process: exclusive, or shared for read_only. Block devices are claimed with
 *           O_EXCL too.
 * Lanes     a lane's ring is made by the first thread that uses the lane, and made anew when
 *           another thread takes an idle lane over.
 * Direct    O_DIRECT, when it is asked for, and for devices that may run out of space (loop,
 *           device mapper, zram). The page cache takes writes that such a device has no room for,
 *           and tells with the next flush that some of them are lost: then nothing can be believed
 *           any more. Written straight, one that lacks space fails by itself. Memory that is not
 *           aligned enough goes through one bounce buffer per lane.
 * Memory    STORE_FILE_IOS operations per lane are in flight at most; more wait in order, for
 *           nothing.
 * Errors    0 or a negative errno, with a sentence for people in *reterr_message, which stays until
 *           the next store_file_open(). EWOULDBLOCK: locked by another process.
 */
#ifndef SERVER_STORE_STORE_FILE_H
#define SERVER_STORE_STORE_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/store.h"
#include "server/store/store_map.h"

#define STORE_FILE_IOS 256u

struct store_file_options {
	bool read_only;
	bool direct;
	bool buffered; /* else a device that may run out of space is used with O_DIRECT as well */
	uint64_t
		create_bytes; /* not 0: a file that is missing or empty is made this long, sparse */
	unsigned wait_ms; /* for the lock; STORE_WAIT_MS is what a server does */
	unsigned lanes; /* 0: one */
	uint32_t piece_bytes; /* the most a system call is asked for; 0: no limit. For tests */
};

int store_file_open(const char *path, const struct store_file_options *options,
		    struct store **ret_store, const char **reterr_message);

/* A store in the page cache: maps its file, and unless it is read-only the store compares from now
 * on. -ENOTSUP: with direct. Without threads that compare it is only slower. */
int store_file_map(struct store *store, struct store_map *map);
/* Of what was mapped, or was not; store may be NULL. */
void store_file_unmap(struct store *store, struct store_map *map);

/* From now on the store compares, with threads of its own and in the map of its file, which is the
 * caller's until stop. Nothing may be in flight. Not with direct. */
int store_file_compare_start(struct store *store, struct store_map *map);
void store_file_compare_stop(struct store *store);

/* Whether store_file_open() made the file. */
bool store_file_created(const struct store *store);
/* Before it is closed: removes a file that was made, if the name still leads to it; one that was
 * empty is so again. */
void store_file_unmake(const struct store *store, const char *path);
/* It was empty when it was locked, and has been given its length (create_bytes). */
bool store_file_fresh(const struct store *store);
/* The store's own descriptor, to look at its content: so it is the file that is locked. */
int store_file_fd(const struct store *store);

#endif
