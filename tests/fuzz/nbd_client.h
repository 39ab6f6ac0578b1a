/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd_client - a client of the NBD protocol that believes nothing: it checks each reply
 *
 * It keeps what each block of the export should read as (model) and asks so that this is certain: a
 * request that changes what another one in flight touches waits for that one's answer. So every
 * read can be compared, however many are in flight.
 *
 *   each reply     has the magic and a cookie that is in flight, and the shape that its type and
 *                  what was agreed upon call for; data arrive once, inside what was asked
 *   each request   is answered once: well if it is good, with an error if it is bad
 *   the end        comes when it was asked for, after all answers, with nothing behind
 *
 * Memory    one for the process, with a model of the export and room for the longest answer.
 * Blocking  until the server moves; one that never does is a timeout of the fuzzer.
 */
#ifndef TESTS_FUZZ_NBD_CLIENT_H
#define TESTS_FUZZ_NBD_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/nbd/nbd_wire.h"

#define CLIENT_ASKED_MAX 48u
#define CLIENT_RX_BYTES	 (8u << 20)

enum goodness {
	GOOD, /* must succeed */
	BAD, /* must fail */
	EITHER,
};

struct asked {
	bool pending;
	struct nbd_request request;
	enum goodness goodness;
	uint32_t error; /* on the wire; 0: it succeeded */
	uint32_t come_bytes; /* of a read's data */
	uint32_t chunks;
};

struct nbd_client {
	int fd;
	bool structured;
	bool allocation;
	bool ending; /* the server may close, after all answers */
	bool broken; /* the server may close at once */
	uint64_t half_cookie; /* of a write that was cut short: it may be refused; 0: none was */
	bool closed;
	struct asked asked[CLIENT_ASKED_MAX];
	unsigned pending_count;
	size_t rx_bytes;
	uint8_t *rx;
	uint8_t *data; /* what reads in flight brought, at their places */
	uint8_t *model;
};

/* Agrees with the server; a new connection. */
void nbd_client_open(struct nbd_client *client, int fd, bool structured, bool allocation);
/* All of it, also while answers come; waits after the first cut_bytes until they were taken. */
void nbd_client_send(struct nbd_client *client, const uint8_t *bytes, size_t len_bytes,
		     size_t cut_bytes);
/* Room for one more request that touches this; waits for answers if need be. NULL: closed. */
struct asked *nbd_client_ask(struct nbd_client *client, const struct nbd_request *request);
/* All that was asked is answered, or the connection is closed. */
void nbd_client_settle(struct nbd_client *client);
/* Up to the end of the stream. */
void nbd_client_finish(struct nbd_client *client);

#endif
