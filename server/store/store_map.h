/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * store_map - a buffered store's bytes, mapped for reading, and which of them are in memory
 *
 * What is sent to a client straight from the mapping costs neither a read nor a buffer. A page
 * that is not in memory would make the thread wait for the disk, though, so only what the
 * kernel has in memory is used that way; all else goes through the ring. mincore(2) is asked about
 * areas, and what it says is remembered for their parts (between the data there are holes, which
 * are in no memory). It is believed for some seconds, and only so many areas are asked about in a
 * second: a working set too large for that is read through the ring, for what it costs there.
 *
 * An area that was used keeps its page table (4 KiB for 2 MiB), also when its pages have gone, so
 * the whole mapping is made anew after so many areas.
 *
 * A page that cannot be read (an I/O error, a file that was cut) makes the system call that touches
 * it fail with EFAULT. The server's own code touches the mapping in store_compare.c only, which is
 * prepared for the signal that it gets then.
 *
 * Errors    store_map_make(): 0 or a negative errno, and then the store is read through the ring.
 * Threads   make and done on the thread that opens the store; store_map_touched() and
 *           store_map_is_resident() on any; the rest
 *           on the view's own.
 */
#ifndef SERVER_STORE_STORE_MAP_H
#define SERVER_STORE_STORE_MAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define STORE_MAP_AREA_BYTES (2ull << 20)
#define STORE_MAP_PART_BYTES (STORE_MAP_AREA_BYTES / 64)
#define STORE_MAP_AREAS	     2048u

struct store_map {
	uint8_t *bytes; /* NULL: none */
	uint64_t size_bytes;
	int fd;
	_Atomic uint32_t areas_used; /* since the mapping was made */
	/* Of store_map_rest() alone. */
	uint32_t areas_seen;
	uint64_t seen_ms; /* when they were not as many as before */
	uint64_t rested_to_bytes; /* up to there pages were let go since */
};

struct store_map_area {
	uint64_t number; /* plus 1; 0: none */
	uint64_t asked_ms; /* of the caller's clock */
	uint64_t resident; /* a bit for each part that is wholly in memory */
};

/* A thread's view of a map. */
struct store_map_view {
	struct store_map *map;
	uint64_t second_ms;
	uint32_t asked; /* in that second */
	struct store_map_area areas[STORE_MAP_AREAS];
};

int store_map_make(struct store_map *map, int fd, uint64_t size_bytes);
void store_map_done(struct store_map *map);

/* Once a second, on one thread: pages are let go, a GiB at a time, when the mapping was not used
 * for a minute. They stay in the kernel's cache, but no longer count as this process's. */
void store_map_rest(struct store_map *map, uint64_t now_ms);

/* Bytes that were not resident are about to be touched all the same. */
void store_map_touched(struct store_map *map, uint64_t len_bytes);

/* Asks the kernel, and not what is remembered: for a caller who needs the answer of now. */
bool store_map_is_resident(const struct store_map *map, uint64_t off_bytes, uint64_t len_bytes);

/* Whether the bytes can be used straight from the mapping now. now_ms: any clock that only goes
 * forward, at least once a second. */
bool store_map_resident(struct store_map_view *view, uint64_t off_bytes, uint64_t len_bytes,
			uint64_t now_ms);

#endif
