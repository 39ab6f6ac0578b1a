/* SPDX-License-Identifier: GPL-2.0-or-later */
/* store_map - see the header */
#include "server/store/store_map.h"

#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/units.h"

#define PAGE_BYTES     4096u
#define AREA_PAGES     (STORE_MAP_AREA_BYTES / PAGE_BYTES)
#define PART_PAGES     (STORE_MAP_PART_BYTES / PAGE_BYTES)
#define ASKED_MAX      512u /* in a second; each takes some microseconds */
#define RESIDENT_MS    10000u
#define ABSENT_MS      2000u
#define IDLE_MS	       60000u
#define REST_BYTES     (1ull << 30)
#define AREAS_USED_MAX 16384u /* 64 MiB of page tables */

/* mincore() tells the truth about a file's pages to those who own it or may write it; to others it
 * says that all of them are there. */
static bool is_told_the_truth(int fd)
{
	struct stat status;
	char path[32];

	if (fstat(fd, &status) < 0)
		return false;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return status.st_uid == geteuid() || access(path, W_OK) == 0;
}

/* A process that has all of its memory locked would lock the page cache of the store. */
static void leave_to_kernel(const struct store_map *map)
{
	(void)munlock(map->bytes, map->size_bytes);
}

int store_map_make(struct store_map *map, int fd, uint64_t size_bytes)
{
	void *bytes;

	*map = (struct store_map){
		.fd = fd, .size_bytes = size_bytes, .rested_to_bytes = size_bytes};
	if (sysconf(_SC_PAGESIZE) != PAGE_BYTES || size_bytes == 0 || !is_told_the_truth(fd))
		return -ENOTSUP;
	bytes = mmap(NULL, size_bytes, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (bytes == MAP_FAILED)
		return -errno;
	map->bytes = bytes;
	leave_to_kernel(map);
	return 0;
}

void store_map_done(struct store_map *map)
{
	if (map->bytes != NULL)
		munmap(map->bytes, map->size_bytes);
	map->bytes = NULL;
}

/* In place: who uses it at this moment faults its pages in again. */
static void make_anew(struct store_map *map)
{
	/* The old one stays when that fails. */
	(void)mmap(map->bytes, map->size_bytes, PROT_READ, MAP_SHARED | MAP_NORESERVE | MAP_FIXED,
		   map->fd, 0);
	leave_to_kernel(map);
	atomic_store_explicit(&map->areas_used, 0, memory_order_relaxed);
}

void store_map_touched(struct store_map *map, uint64_t len_bytes)
{
	uint32_t areas = (uint32_t)div_up(len_bytes, STORE_MAP_AREA_BYTES);
	uint32_t before = atomic_fetch_add_explicit(&map->areas_used, areas, memory_order_relaxed);

	/* Only who crosses the line; others meanwhile add to what is set back anyway. */
	if (before < AREAS_USED_MAX && before + areas >= AREAS_USED_MAX)
		make_anew(map);
}

void store_map_rest(struct store_map *map, uint64_t now_ms)
{
	uint32_t used = atomic_load_explicit(&map->areas_used, memory_order_relaxed);

	if (used != map->areas_seen) {
		map->areas_seen = used;
		map->seen_ms = now_ms;
		map->rested_to_bytes = 0;
		return;
	}
	if (map->bytes == NULL || map->rested_to_bytes >= map->size_bytes ||
	    now_ms - map->seen_ms < IDLE_MS)
		return;
	/* Advice: who uses it at this moment faults its pages in again. */
	(void)madvise(map->bytes + map->rested_to_bytes,
		      min_u64(REST_BYTES, map->size_bytes - map->rested_to_bytes), MADV_DONTNEED);
	map->rested_to_bytes += REST_BYTES;
}

static uint64_t ask(struct store_map *map, uint64_t number)
{
	uint64_t begin = number * STORE_MAP_AREA_BYTES;
	uint64_t len = min_u64(STORE_MAP_AREA_BYTES, map->size_bytes - begin);
	unsigned char pages[AREA_PAGES];
	uint64_t parts = UINT64_MAX;

	if (mincore(map->bytes + begin, len, pages) < 0)
		return 0;
	for (uint64_t i = 0; i < div_up(len, PAGE_BYTES); i++)
		if ((pages[i] & 1) == 0)
			parts &= ~(1ull << (i / PART_PAGES));
	if (parts != 0)
		store_map_touched(map, STORE_MAP_AREA_BYTES);
	return parts;
}

bool store_map_is_resident(const struct store_map *map, uint64_t off_bytes, uint64_t len_bytes)
{
	uint64_t begin = off_bytes / PAGE_BYTES * PAGE_BYTES, end = off_bytes + len_bytes;
	unsigned char pages[AREA_PAGES];

	for (; begin < end; begin += STORE_MAP_AREA_BYTES) {
		uint64_t len = min_u64(end - begin, STORE_MAP_AREA_BYTES);

		if (mincore(map->bytes + begin, len, pages) < 0)
			return false;
		for (uint64_t i = 0; i < div_up(len, PAGE_BYTES); i++)
			if ((pages[i] & 1) == 0)
				return false;
	}
	return true;
}

/* Whether the parts of the area that are named by bits are resident. */
static bool area_resident(struct store_map_view *view, uint64_t number, uint64_t parts,
			  uint64_t now_ms)
{
	struct store_map_area *area = &view->areas[number % STORE_MAP_AREAS];

	if (area->number == number + 1) {
		bool resident = (area->resident & parts) == parts;

		if (now_ms - area->asked_ms < (resident ? RESIDENT_MS : ABSENT_MS))
			return resident;
	}
	if (now_ms - view->second_ms >= 1000) {
		view->second_ms = now_ms;
		view->asked = 0;
	}
	if (view->asked == ASKED_MAX)
		return false;
	view->asked++;
	area->number = number + 1;
	area->resident = ask(view->map, number);
	area->asked_ms = now_ms;
	return (area->resident & parts) == parts;
}

/* The bits of an area's parts from first to last. */
static uint64_t parts_of(uint64_t first, uint64_t last)
{
	return (UINT64_MAX << first) & (UINT64_MAX >> (63 - last));
}

bool store_map_resident(struct store_map_view *view, uint64_t off_bytes, uint64_t len_bytes,
			uint64_t now_ms)
{
	uint64_t end = off_bytes + len_bytes;

	if (view->map == NULL || view->map->bytes == NULL)
		return false;
	while (off_bytes < end) {
		uint64_t number = off_bytes / STORE_MAP_AREA_BYTES;
		uint64_t begin = number * STORE_MAP_AREA_BYTES;
		uint64_t here = min_u64(end, begin + STORE_MAP_AREA_BYTES);

		if (!area_resident(view, number,
				   parts_of((off_bytes - begin) / STORE_MAP_PART_BYTES,
					    (here - 1 - begin) / STORE_MAP_PART_BYTES),
				   now_ms))
			return false;
		off_bytes = here;
	}
	return true;
}
