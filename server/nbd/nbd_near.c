/* SPDX-License-Identifier: GPL-2.0-or-later */
/* nbd_near - see the header */
#include "server/nbd/nbd_near.h"

#include <assert.h>
#include <stddef.h>

#include "core/base/units.h"

void nbd_near_init(struct nbd_near *near, const struct nbd_near_place *place)
{
	*near = (struct nbd_near){.place = *place, .pause_ns = NBD_NEAR_PAUSE_MIN_NS};
}

static void part(struct nbd_near *near)
{
	if (near->state != NBD_NEAR_APART)
		near->place.unbind(near->place.context);
	near->state = NBD_NEAR_APART;
	near->window_requests = 0;
}

/* It brought nothing. */
static void part_for_long(struct nbd_near *near, uint64_t now_ns)
{
	part(near);
	near->try_ns = now_ns + near->pause_ns;
	near->pause_ns = min_u64(2 * near->pause_ns, NBD_NEAR_PAUSE_MAX_NS);
}

static void start_trial(struct nbd_near *near, int fd, uint64_t now_ns)
{
	int cpu = near->place.find(near->place.context, fd);

	if (cpu < 0 || near->place.bind(near->place.context, cpu) < 0) {
		part_for_long(near, now_ns);
		return;
	}
	near->state = NBD_NEAR_TRIAL;
}

static void judge(struct nbd_near *near, int fd, uint64_t each_ns, uint64_t now_ns)
{
	switch (near->state) {
	case NBD_NEAR_APART:
		/* What disturbs one window is not what placing costs. */
		near->apart_each_ns =
			near->apart_each_ns == 0
				? each_ns
				: near->apart_each_ns - near->apart_each_ns / 4 + each_ns / 4;
		if (now_ns >= near->try_ns)
			start_trial(near, fd, now_ns);
		return;
	case NBD_NEAR_TRIAL:
		if (each_ns > near->apart_each_ns - near->apart_each_ns / 5) {
			part_for_long(near, now_ns);
			return;
		}
		near->state = NBD_NEAR_TOGETHER;
		near->pause_ns = NBD_NEAR_PAUSE_MIN_NS;
		return;
	case NBD_NEAR_TOGETHER:
		if (each_ns >= near->apart_each_ns)
			part_for_long(near, now_ns);
		return;
	}
	assert(!"a state that there is not");
}

void nbd_near_request(struct nbd_near *near, const struct nbd_near_sent *sent)
{
	uint64_t gap_ns = sent->now_ns - near->last_ns;
	bool slept = sent->sleeps != near->sleeps;

	near->last_ns = sent->now_ns;
	near->sleeps = sent->sleeps;
	if (sent->client != near->client || !sent->alone || !slept) {
		near->client = sent->client;
		part(near);
		return;
	}
	if (near->window_requests == 0 || gap_ns > NBD_NEAR_GAP_NS) {
		near->window_ns = sent->now_ns;
		near->window_requests = 1;
		return;
	}
	if (near->window_requests++ < NBD_NEAR_WINDOW)
		return;
	near->window_requests = 0;
	judge(near, sent->fd, (sent->now_ns - near->window_ns) / NBD_NEAR_WINDOW, sent->now_ns);
}

void nbd_near_gone(struct nbd_near *near, const void *client)
{
	if (near->client != client)
		return;
	near->client = NULL;
	part(near);
}
