/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ublk_io - a request as the ublk driver describes it, made one for the engine
 *
 * Pure. The kernel is trusted no more than any client: a range that is not of the volume, or an
 * operation nobody announced, is refused here.
 */
#ifndef SERVER_UBLK_UBLK_IO_H
#define SERVER_UBLK_UBLK_IO_H

#include <stdbool.h>
#include <stdint.h>

#include "core/request/request.h"
#include "server/loop/latency.h"
#include "server/ublk/driver/ublk_shape.h"

struct ublk_io {
	enum request_op op;
	enum latency_op latency_op;
	bool fua;
	bool no_hole;
	uint64_t off_bytes;
	uint64_t len_bytes;
	uint32_t answer_bytes; /* what a success is answered with */
};

/* 0, EINVAL (range), EROFS, EOPNOTSUPP. */
int ublk_io_decode(const struct ublk_io_desc *desc, const struct ublk_shape *shape,
		   struct ublk_io *ret_io);

#endif
