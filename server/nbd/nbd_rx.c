/* SPDX-License-Identifier: GPL-2.0-or-later */
/* nbd_rx - see the header */
#include "server/nbd/nbd_rx.h"

#include <assert.h>
#include <errno.h>
#include <sys/mman.h>

#define PAGE_BYTES 4096u

static_assert(NBD_RX_BYTES % PAGE_BYTES == 0 && (NBD_RX_BYTES & (NBD_RX_BYTES - 1)) == 0,
	      "positions wrap by a mask, and both copies begin on a page");

/* The memory is shared and has no name, rather than a memfd, whose length a file size limit of the
 * process bounds. mremap() of nothing maps it once more. */
int nbd_rx_init(struct nbd_rx *rx)
{
	const size_t len = NBD_RX_BYTES;
	uint8_t *at = mmap(NULL, 2 * len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		return -ENOMEM;
	if (mmap(at, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
		    MAP_FAILED ||
	    mremap(at, 0, len, MREMAP_MAYMOVE | MREMAP_FIXED, at + len) == MAP_FAILED) {
		munmap(at, 2 * len);
		return -ENOMEM;
	}
	rx->memory = at;
	rx->head = 0;
	rx->tail = 0;
	list_init(&rx->held);
	return 0;
}

void nbd_rx_done(struct nbd_rx *rx)
{
	assert(list_empty(&rx->held));
	munmap(rx->memory, 2 * (size_t)NBD_RX_BYTES);
}

static uint8_t *at(const struct nbd_rx *rx, uint64_t position)
{
	return rx->memory + (position & (NBD_RX_BYTES - 1));
}

static void start_over(struct nbd_rx *rx)
{
	if (rx->head == rx->tail && list_empty(&rx->held))
		rx->head = rx->tail = 0;
}

uint32_t nbd_rx_have(const struct nbd_rx *rx)
{
	return (uint32_t)(rx->tail - rx->head);
}

const uint8_t *nbd_rx_bytes(const struct nbd_rx *rx)
{
	return at(rx, rx->head);
}

uint8_t *nbd_rx_room(struct nbd_rx *rx, uint32_t *ret_bytes)
{
	uint64_t oldest;

	start_over(rx);
	oldest = rx->head;
	if (!list_empty(&rx->held))
		oldest = container_of(rx->held.next, struct nbd_rx_slice, node)->begin;
	assert(rx->tail - oldest <= NBD_RX_BYTES);
	*ret_bytes = (uint32_t)(NBD_RX_BYTES - (rx->tail - oldest));
	return at(rx, rx->tail);
}

void nbd_rx_received(struct nbd_rx *rx, uint32_t bytes)
{
	rx->tail += bytes;
}

void nbd_rx_skip(struct nbd_rx *rx, uint32_t bytes)
{
	assert(bytes <= nbd_rx_have(rx));
	rx->head += bytes;
}

uint8_t *nbd_rx_hold(struct nbd_rx *rx, struct nbd_rx_slice *slice, uint32_t bytes)
{
	uint8_t *held = at(rx, rx->head);

	assert(bytes > 0 && bytes <= nbd_rx_have(rx) && list_empty(&slice->node));
	slice->begin = rx->head;
	list_add_tail(&rx->held, &slice->node);
	rx->head += bytes;
	return held;
}

void nbd_rx_drop(struct nbd_rx *rx, struct nbd_rx_slice *slice)
{
	assert(!list_empty(&slice->node) && !list_empty(&rx->held));
	list_del(&slice->node);
}

void nbd_rx_align(struct nbd_rx *rx)
{
	uint64_t aligned;
	uint32_t room;

	assert(rx->head == rx->tail);
	(void)nbd_rx_room(rx, &room);
	aligned = (rx->tail + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
	if (aligned - rx->tail <= room)
		rx->head = rx->tail = aligned;
}
