/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ublk_shape - see the header */
#include "server/ublk/driver/ublk_shape.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core/base/units.h"

#define MARK_OURS  0x5342u /* "SB" */
#define MARK_SHIFT 48
#define MARK_BYTES 6u

int ublk_shape_io_bytes(uint64_t memory_bytes, unsigned queues, unsigned depth,
			uint32_t *ret_io_bytes)
{
	uint32_t bytes = UBLK_IO_BYTES_MAX;

	assert(queues > 0 && depth > 0);
	while (bytes >= UBLK_IO_BYTES_MIN && memory_bytes / queues / depth < bytes)
		bytes /= 2;
	if (bytes < UBLK_IO_BYTES_MIN)
		return -ENOMEM;
	*ret_io_bytes = bytes;
	return 0;
}

static uint8_t shift_of(uint32_t bytes)
{
	assert(bytes != 0 && (bytes & (bytes - 1)) == 0);
	return (uint8_t)__builtin_ctz(bytes);
}

static uint32_t sectors(uint64_t bytes)
{
	return (uint32_t)(bytes / UBLK_SECTOR_BYTES);
}

/* The cache is volatile: a device that does not say so never gets a FLUSH. */
void ublk_shape_params(const struct ublk_shape *shape, struct ublk_params *ret_params)
{
	struct ublk_params params = {
		.len_bytes = offsetof(struct ublk_params, pad),
		.types = UBLK_PARAM_BASIC,
		.basic =
			{
				.attrs = UBLK_ATTR_VOLATILE_CACHE | UBLK_ATTR_FUA,
				.logical_shift = shift_of(shape->sector_bytes),
				.physical_shift = shift_of(BLOCK_BYTES),
				.optimal_shift = shift_of(shape->io_bytes_max),
				.minimum_shift = shift_of(BLOCK_BYTES),
				.sectors_max = sectors(shape->io_bytes_max),
				.device_sectors = shape->size_bytes / UBLK_SECTOR_BYTES,
			},
	};

	if (shape->read_only) {
		params.basic.attrs |= UBLK_ATTR_READ_ONLY;
	} else {
		params.types |= UBLK_PARAM_DISCARD;
		params.discard = (struct ublk_param_discard){
			.granularity = BLOCK_BYTES,
			.discard_sectors_max = sectors(UBLK_DISCARD_BYTES_MAX),
			.zeroes_sectors_max = sectors(UBLK_ZEROES_BYTES_MAX),
			.segments_max = 1,
		};
	}
	*ret_params = params;
}

int ublk_shape_adopt(struct ublk_shape *shape, const struct ublk_params *params)
{
	const struct ublk_param_basic *basic = &params->basic;
	bool read_only = (basic->attrs & UBLK_ATTR_READ_ONLY) != 0;

	if ((params->types & UBLK_PARAM_BASIC) == 0 ||
	    basic->device_sectors != shape->size_bytes / UBLK_SECTOR_BYTES ||
	    read_only != shape->read_only || basic->logical_shift > 12 || basic->sectors_max == 0)
		return -ESTALE;
	shape->sector_bytes = 1u << basic->logical_shift;
	shape->io_bytes_max = basic->sectors_max * UBLK_SECTOR_BYTES;
	return 0;
}

uint64_t ublk_mark(const uint8_t uuid[16])
{
	uint64_t mark = MARK_OURS;

	/* The first bytes are random in every kind of UUID that is made here. */
	for (unsigned i = 0; i < MARK_BYTES; i++)
		mark = mark << 8 | uuid[i];
	return mark;
}

bool ublk_mark_is_ours(uint64_t mark)
{
	return mark >> MARK_SHIFT == MARK_OURS;
}

bool ublk_mark_counts(const struct ublk_info *info, uint32_t user)
{
	return ublk_mark_is_ours(info->server_flags) &&
	       ((info->flags & UBLK_F_UNPRIVILEGED) == 0 || info->owner_uid == user);
}

uint64_t ublk_mark_id(uint64_t mark)
{
	return mark & ((1ull << MARK_SHIFT) - 1);
}

size_t ublk_descs_bytes(unsigned depth, size_t page_bytes)
{
	return div_up(depth * sizeof(struct ublk_io_desc), page_bytes) * page_bytes;
}

/* The driver leaves room for the deepest queue there can be. */
uint64_t ublk_descs_offset(unsigned queue, size_t page_bytes)
{
	return (uint64_t)queue * ublk_descs_bytes(UBLK_DEPTH_MAX, page_bytes);
}
