/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ublk_io - see the header */
#include "server/ublk/ublk_io.h"

#include <errno.h>

static int decode_range(const struct ublk_io_desc *desc, const struct ublk_shape *shape,
			struct ublk_io *io)
{
	uint64_t total = shape->size_bytes / UBLK_SECTOR_BYTES;

	if (desc->sectors == 0 || desc->start_sector >= total ||
	    desc->sectors > total - desc->start_sector)
		return -EINVAL;
	io->off_bytes = desc->start_sector * UBLK_SECTOR_BYTES;
	io->len_bytes = (uint64_t)desc->sectors * UBLK_SECTOR_BYTES;
	return 0;
}

static int decode_transfer(const struct ublk_io_desc *desc, const struct ublk_shape *shape,
			   struct ublk_io *io)
{
	int r = decode_range(desc, shape, io);

	if (r < 0)
		return r;
	if (io->len_bytes > shape->io_bytes_max)
		return -EINVAL;
	io->answer_bytes = (uint32_t)io->len_bytes;
	return 0;
}

int ublk_io_decode(const struct ublk_io_desc *desc, const struct ublk_shape *shape,
		   struct ublk_io *ret_io)
{
	uint32_t op = desc->op_flags & UBLK_OP_MASK;
	struct ublk_io *io = ret_io;

	*io = (struct ublk_io){.fua = (desc->op_flags & UBLK_IO_F_FUA) != 0};
	if (shape->read_only && op != UBLK_OP_READ && op != UBLK_OP_FLUSH)
		return -EROFS;
	switch (op) {
	case UBLK_OP_READ:
		io->fua = false;
		io->op = REQUEST_READ;
		io->latency_op = LATENCY_READ;
		return decode_transfer(desc, shape, io);
	case UBLK_OP_WRITE:
		io->op = REQUEST_WRITE;
		io->latency_op = LATENCY_WRITE;
		return decode_transfer(desc, shape, io);
	case UBLK_OP_FLUSH:
		io->fua = false;
		io->op = REQUEST_FLUSH;
		io->latency_op = LATENCY_FLUSH;
		return 0;
	case UBLK_OP_DISCARD:
		io->op = REQUEST_DISCARD;
		io->latency_op = LATENCY_DISCARD;
		return decode_range(desc, shape, io);
	case UBLK_OP_WRITE_ZEROES:
		io->op = REQUEST_ZERO;
		io->latency_op = LATENCY_DISCARD;
		io->no_hole = (desc->op_flags & UBLK_IO_F_NOUNMAP) != 0;
		return decode_range(desc, shape, io);
	default:
		return -EOPNOTSUPP;
	}
}
