/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ublk_shape - what a ublk device looks like to the kernel: sizes, limits, and the mark that tells
 * whose it is
 *
 * Pure: structures in, structures out.
 *
 * A request's payload has a buffer of its own for each tag. How large is chosen so that all of
 * them fit into the memory that is given for payloads: 256 KiB if they do, less for many queues or
 * deep ones. The kernel cuts what is longer.
 *
 * The mark: 64 bits that the driver keeps with a device and gives back as they were. The upper 16
 * say that the device is sameblk's, the others are of the volume's UUID. So a server finds its own
 * device again without any file.
 *
 * Errors    0 or a negative errno.
 */
#ifndef SERVER_UBLK_DRIVER_UBLK_SHAPE_H
#define SERVER_UBLK_DRIVER_UBLK_SHAPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/ublk/driver/ublk_abi.h"

#define UBLK_IO_BYTES_MAX      (256u << 10)
#define UBLK_IO_BYTES_MIN      (64u << 10)
#define UBLK_DISCARD_BYTES_MAX (1ull << 30)
/* Zeroes may have to be written; a discard is bookkeeping. */
#define UBLK_ZEROES_BYTES_MAX (64ull << 20)

struct ublk_shape {
	uint64_t size_bytes;
	uint32_t sector_bytes; /* 512 or 4096 */
	uint32_t io_bytes_max;
	bool read_only;
};

/* The most a request may carry. ENOMEM: memory_bytes is too little even for the smallest. */
int ublk_shape_io_bytes(uint64_t memory_bytes, unsigned queues, unsigned depth,
			uint32_t *ret_io_bytes);

void ublk_shape_params(const struct ublk_shape *shape, struct ublk_params *ret_params);

/* Whether a device that was made with these parameters can go on as this shape, whose sector_bytes
 * and io_bytes_max become the device's. ESTALE: its size or its being read-only differs. */
int ublk_shape_adopt(struct ublk_shape *shape, const struct ublk_params *params);

uint64_t ublk_mark(const uint8_t uuid[16]);
bool ublk_mark_is_ours(uint64_t mark);
/* Whether this user may believe the mark: where the driver allows devices without privileges,
 * anybody can make one with the mark of anybody's volume. */
bool ublk_mark_counts(const struct ublk_info *info, uint32_t user);
/* The first six bytes of the UUID, as a number that prints like them. */
uint64_t ublk_mark_id(uint64_t mark);

/* Bytes to map for a queue's descriptions, and where in /dev/ublkcN they begin. */
size_t ublk_descs_bytes(unsigned depth, size_t page_bytes);
uint64_t ublk_descs_offset(unsigned queue, size_t page_bytes);

#endif
