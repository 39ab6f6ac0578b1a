/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * store_map - a buffered store's bytes, mapped for reading, and which of them are in memory
 *
 * What is sent to a client straight from the mapping costs neither a read nor a buffer. A page
 * that is not in memory would make the thread wait for the disk, though, so only areas that the
 * kernel has wholly in memory are used that way; all else goes through the ring. What mincore(2)
 * said of an area is believed for some seconds, and only so many areas are asked about in a
 * second: a working set too large for that is read through the ring, for what it costs there.
 *
 * An area that was used keeps its page table (4 KiB for 2 MiB), also when its pages have gone, so
 * the whole mapping is made anew after so many areas.
 *
 * A page that cannot be read (an I/O error, a file that was cut) makes the system call that touches
 * it fail with EFAULT. The mapping is never touched by the server's own code.
 *
 * Errors    store_map_make(): 0 or a negative errno, and then the store is read through the ring.
 * Threads   make and done on the thread that opens the store; the rest on the view's own.
 */
#ifndef SERVER_STORE_MAP_H
#define SERVER_STORE_MAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define STORE_MAP_AREA_BYTES (2ull << 20)
#define STORE_MAP_AREAS	     2048u

struct store_map {
	uint8_t *bytes; /* NULL: none */
	uint64_t size_bytes;
	int fd;
	_Atomic uint32_t areas_used; /* since the mapping was made */
};

struct store_map_area {
	uint64_t number; /* plus 1; 0: none */
	uint64_t until_ms; /* of the caller's clock */
	bool resident;
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

/* Whether the bytes can be used straight from the mapping now. now_ms: any clock that only goes
 * forward, at least once a second. */
bool store_map_resident(struct store_map_view *view, uint64_t off_bytes, uint64_t len_bytes,
			uint64_t now_ms);

#endif
