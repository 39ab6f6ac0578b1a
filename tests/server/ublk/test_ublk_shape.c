/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_ublk_shape - parameters, limits and marks of ublk devices
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "core/base/units.h"
#include "server/ublk/driver/ublk_shape.h"

#define SIZE_BYTES (1ull << 30)

static struct ublk_shape shape_of(uint32_t sector_bytes, bool read_only)
{
	return (struct ublk_shape){
		.size_bytes = SIZE_BYTES,
		.sector_bytes = sector_bytes,
		.io_bytes_max = UBLK_IO_BYTES_MAX,
		.read_only = read_only,
	};
}

/* Without it the disk counts as write-through, and no flush would ever come. */
Test(ublk_shape, a_volatile_cache_is_always_announced)
{
	for (int read_only = 0; read_only <= 1; read_only++) {
		struct ublk_shape shape = shape_of(512, read_only == 1);
		struct ublk_params params;

		ublk_shape_params(&shape, &params);
		cr_assert(params.basic.attrs & UBLK_ATTR_VOLATILE_CACHE);
		cr_assert(params.basic.attrs & UBLK_ATTR_FUA);
		cr_assert_eq((params.basic.attrs & UBLK_ATTR_READ_ONLY) != 0, read_only == 1);
	}
}

Test(ublk_shape, sizes_are_in_sectors_of_512_and_shifts)
{
	struct ublk_shape shape = shape_of(4096, false);
	struct ublk_params params;

	ublk_shape_params(&shape, &params);
	cr_assert_eq(params.len_bytes, 60);
	cr_assert_eq(params.types, UBLK_PARAM_BASIC | UBLK_PARAM_DISCARD);
	cr_assert_eq(params.basic.device_sectors, SIZE_BYTES / 512);
	cr_assert_eq(params.basic.logical_shift, 12);
	cr_assert_eq(params.basic.physical_shift, 12);
	cr_assert_eq(params.basic.sectors_max, UBLK_IO_BYTES_MAX / 512);
	cr_assert_eq(params.basic.chunk_sectors, 0);
	shape.sector_bytes = 512;
	ublk_shape_params(&shape, &params);
	cr_assert_eq(params.basic.logical_shift, 9);
}

/* The driver refuses any other number of segments, and a granularity of 0. */
Test(ublk_shape, discards_and_zeroes_have_limits_unless_nothing_can_be_written)
{
	struct ublk_shape shape = shape_of(512, false);
	struct ublk_params params;

	ublk_shape_params(&shape, &params);
	cr_assert_eq(params.discard.granularity, BLOCK_BYTES);
	cr_assert_eq(params.discard.segments_max, 1);
	cr_assert_eq(params.discard.discard_sectors_max, UBLK_DISCARD_BYTES_MAX / 512);
	cr_assert_eq(params.discard.zeroes_sectors_max, UBLK_ZEROES_BYTES_MAX / 512);
	shape.read_only = true;
	ublk_shape_params(&shape, &params);
	cr_assert_eq(params.types, UBLK_PARAM_BASIC);
	cr_assert_eq(params.discard.discard_sectors_max, 0);
}

Test(ublk_shape, buffers_fit_into_the_memory_that_is_given)
{
	uint32_t bytes = 0;

	cr_assert_eq(ublk_shape_io_bytes(32ull << 20, 1, 128, &bytes), 0);
	cr_assert_eq(bytes, 256u << 10);
	cr_assert_eq(ublk_shape_io_bytes(32ull << 20, 2, 128, &bytes), 0);
	cr_assert_eq(bytes, 128u << 10);
	cr_assert_eq(ublk_shape_io_bytes(32ull << 20, 4, 128, &bytes), 0);
	cr_assert_eq(bytes, 64u << 10);
	cr_assert_eq(ublk_shape_io_bytes((32ull << 20) - 1, 4, 128, &bytes), -ENOMEM);
	cr_assert_eq(ublk_shape_io_bytes(1ull << 40, 256, 1024, &bytes), 0);
	cr_assert_eq(bytes, 256u << 10);
}

Test(ublk_shape, a_device_goes_on_with_the_parameters_it_was_made_with)
{
	struct ublk_shape made = shape_of(4096, false), next = shape_of(512, false);
	struct ublk_params params;

	made.io_bytes_max = 64u << 10;
	ublk_shape_params(&made, &params);
	cr_assert_eq(ublk_shape_adopt(&next, &params), 0);
	cr_assert_eq(next.sector_bytes, 4096);
	cr_assert_eq(next.io_bytes_max, 64u << 10);
}

Test(ublk_shape, a_device_of_another_size_or_kind_is_not_taken_over)
{
	struct ublk_shape made = shape_of(512, false), next;
	struct ublk_params params;

	ublk_shape_params(&made, &params);
	next = made;
	next.size_bytes += BLOCK_BYTES;
	cr_assert_eq(ublk_shape_adopt(&next, &params), -ESTALE);
	next = made;
	next.read_only = true;
	cr_assert_eq(ublk_shape_adopt(&next, &params), -ESTALE);
	next = made;
	params.types = 0;
	cr_assert_eq(ublk_shape_adopt(&next, &params), -ESTALE);
}

Test(ublk_shape, a_mark_is_of_one_volume_and_tells_that_it_is_ours)
{
	uint8_t a[16], b[16];

	memset(a, 0xff, sizeof(a));
	memset(b, 0xff, sizeof(b));
	b[5] = 0xfe;
	cr_assert_eq(ublk_mark(a), 0x5342ffffffffffffull);
	cr_assert_neq(ublk_mark(a), ublk_mark(b));
	cr_assert_eq(ublk_mark_id(ublk_mark(b)), 0xfffffffffffeull);
	cr_assert(ublk_mark_is_ours(ublk_mark(a)));
	cr_assert(ublk_mark_is_ours(ublk_mark(b)));
	cr_assert(!ublk_mark_is_ours(0));
	cr_assert(!ublk_mark_is_ours(UINT64_MAX));
}

Test(ublk_shape, a_mark_on_the_device_of_another_user_without_privileges_does_not_count)
{
	uint8_t uuid[16] = {1};
	struct ublk_info info = {.server_flags = ublk_mark(uuid), .owner_uid = 1000};

	cr_assert(ublk_mark_counts(&info, 0), "who made it had to have privileges");
	info.flags = UBLK_F_UNPRIVILEGED;
	cr_assert(!ublk_mark_counts(&info, 0));
	cr_assert(!ublk_mark_counts(&info, 1001));
	cr_assert(ublk_mark_counts(&info, 1000));
	info.server_flags = 1;
	cr_assert(!ublk_mark_counts(&info, 1000));
}

/* 24 bytes each, whole pages, and room for 4096 between two queues. */
Test(ublk_shape, descriptions_lie_where_the_driver_puts_them)
{
	cr_assert_eq(ublk_descs_bytes(1, 4096), 4096);
	cr_assert_eq(ublk_descs_bytes(128, 4096), 4096);
	cr_assert_eq(ublk_descs_bytes(171, 4096), 8192);
	cr_assert_eq(ublk_descs_bytes(128, 65536), 65536);
	cr_assert_eq(ublk_descs_offset(0, 4096), 0);
	cr_assert_eq(ublk_descs_offset(1, 4096), 98304);
	cr_assert_eq(ublk_descs_offset(3, 4096), 294912);
	cr_assert_eq(ublk_descs_offset(1, 65536), 131072);
}
