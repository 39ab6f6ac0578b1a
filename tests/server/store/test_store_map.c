/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_store_map - a mapping that nobody uses gives its pages up, and only then
 */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/control/own_memory.h"
#include "server/store/store_map.h"

#define SIZE_BYTES (64ull << 20)

static struct store_map map;

static void setup(void)
{
	char name[] = "/tmp/sameblk-test.XXXXXX", block[4096];
	int fd = mkstemp(name);

	cr_assert_geq(fd, 0);
	unlink(name);
	memset(block, 'x', sizeof(block));
	for (uint64_t off = 0; off < SIZE_BYTES; off += sizeof(block))
		cr_assert_eq(pwrite(fd, block, sizeof(block), (off_t)off), (ssize_t)sizeof(block));
	cr_assert_eq(store_map_make(&map, fd, SIZE_BYTES), 0);
}

static void teardown(void)
{
	close(map.fd);
	store_map_done(&map);
}

TestSuite(store_map, .init = setup, .fini = teardown);

/* As merges do. */
static void use_all(void)
{
	unsigned sum = 0;

	store_map_touched(&map, SIZE_BYTES);
	for (uint64_t off = 0; off < SIZE_BYTES; off += 4096)
		sum += map.bytes[off];
	cr_assert_eq(sum, SIZE_BYTES / 4096 * 'x');
}

static uint64_t mapped_bytes(void)
{
	struct own_memory memory;

	cr_assert_eq(own_memory(&memory), 0);
	cr_assert_gt(memory.own_bytes, 0);
	return memory.mapped_bytes;
}

Test(store_map, what_nobody_uses_for_a_minute_is_let_go)
{
	uint64_t before = mapped_bytes(), ms = 1000000;

	use_all();
	cr_assert_geq(mapped_bytes(), before + SIZE_BYTES, "it counts as mapped");
	for (unsigned second = 0; second < 59; second++, ms += 1000)
		store_map_rest(&map, ms);
	cr_assert_geq(mapped_bytes(), before + SIZE_BYTES, "it is kept");
	store_map_touched(&map, 4096);
	for (unsigned second = 0; second < 59; second++, ms += 1000)
		store_map_rest(&map, ms);
	cr_assert_geq(mapped_bytes(), before + SIZE_BYTES, "it is used again meanwhile");
	for (unsigned second = 0; second < 10; second++, ms += 1000)
		store_map_rest(&map, ms);
	cr_assert_lt(mapped_bytes(), before + SIZE_BYTES / 4, "it is let go");
	use_all();
	cr_assert_geq(mapped_bytes(), before + SIZE_BYTES, "and can be used as before");
}
