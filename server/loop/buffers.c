/* SPDX-License-Identifier: GPL-2.0-or-later */
/* buffers - see the header */
#include "server/loop/buffers.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define TOP_ORDER (BUFFERS_ORDERS - 1)

static size_t index_of(const struct buffers *buffers, const struct buffers_page *page)
{
	return (size_t)(page - buffers->pages);
}

static void put_free(struct buffers *buffers, struct buffers_page *page, unsigned order)
{
	assert(!page->is_free);
	page->order = (uint8_t)order;
	page->is_free = true;
	/* At the front: what was used last is still in the processor's cache. */
	list_add_before(buffers->free[order].next, &page->node);
}

static void take_free(struct buffers_page *page)
{
	assert(page->is_free);
	page->is_free = false;
	list_del(&page->node);
}

int buffers_init(struct buffers *buffers, uint64_t bytes)
{
	uint64_t chunks = bytes / BUFFERS_CHUNK_BYTES;
	size_t pages;

	chunks = chunks > 0 ? chunks : 1;
	*buffers = (struct buffers){.bytes = chunks * BUFFERS_CHUNK_BYTES};
	pages = buffers->bytes / BUFFERS_PAGE_BYTES;
	buffers->pages = calloc(pages, sizeof(*buffers->pages));
	if (buffers->pages == NULL)
		return -ENOMEM;
	buffers->arena = mmap(NULL, buffers->bytes, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (buffers->arena == MAP_FAILED) {
		free(buffers->pages);
		return -ENOMEM;
	}
	list_init(&buffers->waiters);
	for (unsigned order = 0; order < BUFFERS_ORDERS; order++)
		list_init(&buffers->free[order]);
	for (size_t page = 0; page < pages; page++)
		list_init(&buffers->pages[page].node);
	for (size_t page = 0; page < pages; page += 1u << TOP_ORDER)
		put_free(buffers, &buffers->pages[page], TOP_ORDER);
	return 0;
}

void buffers_done(struct buffers *buffers)
{
	assert(buffers->used_bytes == 0 && list_empty(&buffers->waiters));
	munmap(buffers->arena, buffers->bytes);
	free(buffers->pages);
}

static unsigned order_for(size_t len_bytes)
{
	unsigned order = 0;

	while (((size_t)BUFFERS_PAGE_BYTES << order) < len_bytes)
		order++;
	return order;
}

void *buffers_take(struct buffers *buffers, size_t len_bytes)
{
	unsigned wanted = order_for(len_bytes);
	unsigned order = wanted;
	struct buffers_page *page;

	assert(len_bytes > 0 && len_bytes <= BUFFERS_CHUNK_BYTES);
	while (order < BUFFERS_ORDERS && list_empty(&buffers->free[order]))
		order++;
	if (order == BUFFERS_ORDERS)
		return NULL;
	page = container_of(buffers->free[order].next, struct buffers_page, node);
	take_free(page);
	while (order > wanted) {
		order--;
		put_free(buffers, page + ((size_t)1 << order), order);
	}
	page->order = (uint8_t)wanted;
	buffers->used_bytes += (uint64_t)BUFFERS_PAGE_BYTES << wanted;
	return buffers->arena + index_of(buffers, page) * BUFFERS_PAGE_BYTES;
}

/* All of them: the first may need more than came back, and then the next must have its try. */
static void wake_waiters(struct buffers *buffers)
{
	struct list waiters;

	list_init(&waiters);
	list_splice_tail(&waiters, &buffers->waiters);
	while (!list_empty(&waiters)) {
		struct buffers_waiter *waiter =
			container_of(waiters.next, struct buffers_waiter, node);

		list_del(&waiter->node);
		waiter->ready(waiter);
	}
}

void buffers_drop(struct buffers *buffers, void *buffer)
{
	size_t at = (size_t)((uint8_t *)buffer - buffers->arena) / BUFFERS_PAGE_BYTES;
	struct buffers_page *page = &buffers->pages[at];
	unsigned order = page->order;

	assert((uint8_t *)buffer >= buffers->arena && at < buffers->bytes / BUFFERS_PAGE_BYTES);
	assert(!page->is_free);
	buffers->used_bytes -= (uint64_t)BUFFERS_PAGE_BYTES << order;
	while (order < TOP_ORDER) {
		struct buffers_page *buddy = &buffers->pages[at ^ ((size_t)1 << order)];

		if (!buddy->is_free || buddy->order != order)
			break;
		take_free(buddy);
		at &= ~((size_t)1 << order);
		order++;
	}
	put_free(buffers, &buffers->pages[at], order);
	wake_waiters(buffers);
}

void buffers_wait(struct buffers *buffers, struct buffers_waiter *waiter)
{
	if (list_empty(&waiter->node))
		list_add_tail(&buffers->waiters, &waiter->node);
}

void buffers_unwait(struct buffers_waiter *waiter)
{
	list_del(&waiter->node);
}
