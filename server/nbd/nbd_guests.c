/* SPDX-License-Identifier: GPL-2.0-or-later */
/* nbd_guests - see the header */
#include "server/nbd/nbd_guests.h"

#include <assert.h>
#include <netinet/in.h>
#include <string.h>

#define IPV6_NETWORK_BYTES 8u

static unsigned at_least_one(unsigned count)
{
	return count > 0 ? count : 1;
}

void nbd_guests_init(struct nbd_guests *guests, unsigned max)
{
	memset(guests, 0, sizeof(*guests));
	pthread_mutex_init(&guests->lock, NULL);
	guests->max = max < NBD_GUESTS_MAX ? max : NBD_GUESTS_MAX;
}

void nbd_guests_done(struct nbd_guests *guests)
{
	assert(guests->count == 0 && guests->strangers == 0 && guests->shaking == 0);
	pthread_mutex_destroy(&guests->lock);
}

/* Families that nobody knows here count as one peer. A socket of both kinds of IP, as systemd makes
 * them, tells an address of IPv4 as one of IPv6. */
static void name_peer(const struct sockaddr_storage *address,
		      uint8_t ret_name[NBD_GUESTS_PEER_BYTES])
{
	const struct sockaddr_in *v4 = (const void *)address;
	const struct in6_addr *v6 =
		&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr;
	bool mapped = address->ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(v6);

	memset(ret_name, 0, NBD_GUESTS_PEER_BYTES);
	ret_name[0] = mapped ? AF_INET : (uint8_t)address->ss_family;
	if (mapped)
		memcpy(ret_name + 1, &v6->s6_addr[12], sizeof(v4->sin_addr));
	else if (address->ss_family == AF_INET)
		memcpy(ret_name + 1, &v4->sin_addr, sizeof(v4->sin_addr));
	else if (address->ss_family == AF_INET6)
		memcpy(ret_name + 1, v6, IPV6_NETWORK_BYTES);
}

/* Its entry, or a free one: there are as many as connections. */
static int find_peer(const struct nbd_guests *guests, const uint8_t *name)
{
	int free_peer = -1;

	for (unsigned i = 0; i < guests->max; i++) {
		const struct nbd_guest_peer *peer = &guests->peers[i];

		if (peer->count > 0 && memcmp(peer->name, name, sizeof(peer->name)) == 0)
			return (int)i;
		if (peer->count == 0 && free_peer < 0)
			free_peer = (int)i;
	}
	return free_peer;
}

static const char *enter_stranger(struct nbd_guests *guests, const struct sockaddr_storage *address,
				  struct nbd_guest *ret_guest)
{
	unsigned max = guests->max;
	uint8_t name[NBD_GUESTS_PEER_BYTES];
	struct nbd_guest_peer *peer;

	if (guests->strangers >= at_least_one(max - (max + 7) / 8))
		return "there are too many; the rest is for clients of this machine";
	name_peer(address, name);
	ret_guest->peer = find_peer(guests, name);
	assert(ret_guest->peer >= 0);
	peer = &guests->peers[ret_guest->peer];
	if (guests->shaking >= at_least_one(peer->shaking == 0 ? max / 2 : max / 4))
		return "too many are in the handshake";
	if (peer->count >= at_least_one(max / 2))
		return "its peer has too many";
	memcpy(peer->name, name, sizeof(name));
	peer->count++;
	peer->shaking++;
	guests->strangers++;
	guests->shaking++;
	ret_guest->shaking = true;
	return NULL;
}

const char *nbd_guests_enter(struct nbd_guests *guests, const struct sockaddr_storage *address,
			     struct nbd_guest *ret_guest)
{
	const char *why = NULL;

	*ret_guest = (struct nbd_guest){.peer = -1};
	pthread_mutex_lock(&guests->lock);
	if (guests->count >= guests->max)
		why = "there are too many (--connections)";
	else if (address != NULL)
		why = enter_stranger(guests, address, ret_guest);
	guests->count += why == NULL;
	pthread_mutex_unlock(&guests->lock);
	return why;
}

void nbd_guests_settle(struct nbd_guests *guests, struct nbd_guest *guest)
{
	if (!guest->shaking)
		return;
	guest->shaking = false;
	pthread_mutex_lock(&guests->lock);
	guests->shaking--;
	guests->peers[guest->peer].shaking--;
	pthread_mutex_unlock(&guests->lock);
}

void nbd_guests_leave(struct nbd_guests *guests, struct nbd_guest *guest)
{
	nbd_guests_settle(guests, guest);
	pthread_mutex_lock(&guests->lock);
	assert(guests->count > 0);
	guests->count--;
	if (guest->peer >= 0) {
		guests->strangers--;
		guests->peers[guest->peer].count--;
	}
	pthread_mutex_unlock(&guests->lock);
}
