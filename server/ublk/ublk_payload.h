/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ublk_payload - where the bytes of a ublk request lie, and how they get to where they are needed
 *
 * A device is made for one of two ways, for as long as it lives:
 *
 *   copied     the driver copies what a write carries into the tag's buffer before the request
 *              comes, and what a read answers out of it. Every kernel has that.
 *   zero copy  the driver registers the request's own pages as a buffer of the queue's ring
 *              (AUTO_BUF_REG) and touches no payload. A store on that ring transfers straight
 *              between those pages and itself; whoever has to see the bytes reads or writes them
 *              through /dev/ublkcN (USER_COPY), into or from the tag's buffer.
 *
 * With zero copy a request goes
 *
 *   STRAIGHT --> ANSWERED           the pages are foreign memory to the engine (core/base/store.h)
 *   STRAIGHT --> BROUGHT            it needs the bytes after all, and goes on
 *   BROUGHT  --> ANSWERED           a write's bytes are in the buffer; a read's are carried back
 *
 * and begins as BROUGHT if the driver could not register its pages, or if it is shorter than what
 * struct ublk_straight says.
 *
 * Source    the kernel's Documentation/block/ublk.rst: Zero copy, Auto Buffer Registration.
 * Units     bytes. Buffers are numbered in the table of a ring, from 0.
 * Errors    0 or a negative errno.
 * Threads   the thread that serves the queue.
 * Blocking  never: a copy between memory and memory.
 */
#ifndef SERVER_UBLK_UBLK_PAYLOAD_H
#define SERVER_UBLK_UBLK_PAYLOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "core/request/request.h"
#include "server/ublk/driver/ublk_abi.h"

/* What a ring's table of buffers can hold (the kernel's IORING_MAX_REG_BUFFERS). */
#define UBLK_PAYLOAD_TABLE_MAX (1u << 14)

struct ublk_payload {
	int fd; /* /dev/ublkcN; -1: copied by the driver */
	uint64_t off_bytes; /* of the request's bytes in it */
	uint16_t number; /* in the ring's table */
	uint8_t *buffer; /* the tag's own */
};

/* The shortest requests that go straight; UINT32_MAX: none. */
struct ublk_straight {
	uint32_t read_bytes_min;
	uint32_t write_bytes_min;
};

/* For a store in the page cache, where the kernel has others do a write from a registered buffer: a
 * system call that copies a few blocks is quicker. */
extern const struct ublk_straight ublk_straight_cached;
extern const struct ublk_straight ublk_straight_direct;
extern const struct ublk_straight ublk_straight_never;

/* The place of a tag's bytes in /dev/ublkcN. */
uint64_t ublk_payload_off_bytes(uint16_t queue, uint16_t tag);

/* Whether a device with so many tags on one ring can have zero copy. */
static inline bool ublk_payload_fits(unsigned queues, unsigned loops, unsigned depth)
{
	return (uint64_t)(queues + loops - 1) / loops * depth <= UBLK_PAYLOAD_TABLE_MAX;
}

/* Queues are spread over loops in turn, and those of one loop share the table of its ring. */
struct ublk_table {
	unsigned first; /* the buffer of the queue's first tag */
	unsigned buffers; /* that the queue makes the table for; 0: another one makes it */
};

struct ublk_table ublk_payload_table(unsigned queue, unsigned queues, unsigned loops,
				     unsigned depth);

/* What a fetch says about the payload of the request that it will bring: sqe->addr. */
uint64_t ublk_payload_register(const struct ublk_payload *payload);

/* Sets data and foreign of a request that has just been described. op_flags: of the
 * description. An error is the request's answer. */
int ublk_payload_begin(const struct ublk_payload *payload, struct request *request,
		       uint32_t op_flags, const struct ublk_straight *straight);

/* Before the answer: takes res, gives what is answered. */
int ublk_payload_end(const struct ublk_payload *payload, const struct request *request, int res);

/* A request's bring_bytes(). */
int ublk_payload_bring(const struct ublk_payload *payload, struct request *request);

#endif
