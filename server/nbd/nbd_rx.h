/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd_rx - what a connection has received: a ring in which every message lies in one piece
 *
 *     oldest          head            tail            oldest + NBD_RX_BYTES
 *       | held slices  | not looked at  | room           |
 *
 * The memory is mapped twice, one copy behind the other, so that no message is ever cut in two by
 * the ring's end and a payload can be written from where it was received. Parsing moves head; a
 * payload that the engine needs is held as a slice, and room comes back when the oldest slice is
 * dropped. When nothing is held or waiting, the ring starts over at its first byte: a client that
 * asks little touches little memory.
 *
 * Units     positions count bytes since the last start; lengths are bytes.
 * Errors    nbd_rx_init(): 0 or a negative errno.
 * Threads   one. Blocking: never.
 */
#ifndef SERVER_NBD_NBD_RX_H
#define SERVER_NBD_NBD_RX_H

#include <stdint.h>

#include "core/base/list.h"

#define NBD_RX_BYTES	   (256u * 1024)
#define NBD_RX_SLICE_BYTES (NBD_RX_BYTES / 2)

struct nbd_rx {
	uint8_t *memory;
	uint64_t head;
	uint64_t tail;
	struct list held; /* slices, in order */
};

struct nbd_rx_slice {
	struct list node; /* list_init() it once */
	uint64_t begin;
};

int nbd_rx_init(struct nbd_rx *rx);
void nbd_rx_done(struct nbd_rx *rx);

/* Received and not yet looked at: bytes, and where they begin. */
uint32_t nbd_rx_have(const struct nbd_rx *rx);
const uint8_t *nbd_rx_bytes(const struct nbd_rx *rx);

/* Where the next bytes go, and how many there is room for. */
uint8_t *nbd_rx_room(struct nbd_rx *rx, uint32_t *ret_bytes);
void nbd_rx_received(struct nbd_rx *rx, uint32_t bytes);

/* The first bytes are done with. */
void nbd_rx_skip(struct nbd_rx *rx, uint32_t bytes);
/* The first bytes stay where they are until the slice is dropped. */
uint8_t *nbd_rx_hold(struct nbd_rx *rx, struct nbd_rx_slice *slice, uint32_t bytes);
void nbd_rx_drop(struct nbd_rx *rx, struct nbd_rx_slice *slice);

/* What comes next goes to a page of its own; nothing may be waiting to be looked at. */
void nbd_rx_align(struct nbd_rx *rx);

#endif
