/* SPDX-License-Identifier: GPL-2.0-or-later */
/* nbd_rx - see the header */
#include "server/nbd/nbd_rx.h"

#include <assert.h>
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE_BYTES 4096u

static_assert(NBD_RX_BYTES % PAGE_BYTES == 0 && (NBD_RX_BYTES & (NBD_RX_BYTES - 1)) == 0,
	      "positions wrap by a mask, and both copies begin on a page");

static int map_twice(struct nbd_rx *rx, int fd)
{
	const int protection = PROT_READ | PROT_WRITE;
	uint8_t *at =
		mmap(NULL, 2 * (size_t)NBD_RX_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		return -ENOMEM;
	for (unsigned copy = 0; copy < 2; copy++) {
		void *got = mmap(at + (size_t)copy * NBD_RX_BYTES, NBD_RX_BYTES, protection,
				 MAP_SHARED | MAP_FIXED, fd, 0);

		if (got == MAP_FAILED) {
			munmap(at, 2 * (size_t)NBD_RX_BYTES);
			return -ENOMEM;
		}
	}
	rx->memory = at;
	return 0;
}

int nbd_rx_init(struct nbd_rx *rx)
{
	int fd = memfd_create("sameblk-rx", MFD_CLOEXEC);
	int r;

	if (fd < 0)
		return -errno;
	r = ftruncate(fd, NBD_RX_BYTES) < 0 ? -errno : map_twice(rx, fd);
	close(fd); /* the mappings keep the memory */
	rx->head = 0;
	rx->tail = 0;
	list_init(&rx->held);
	return r;
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
