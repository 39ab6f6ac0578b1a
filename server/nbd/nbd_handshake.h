/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd_handshake - what client and server agree on before the first request
 *
 *   FLAGS ----> OPTIONS ----> TRANSMISSION
 *      \          |   \
 *       \         v    +----> SKIPPING, STARTTLS ----> OPTIONS
 *        +----> CLOSE
 *
 *   FLAGS    -> OPTIONS       the client's flags came
 *   FLAGS    -> CLOSE         it wants what we did not offer, or it cannot do TLS and has to
 *   OPTIONS  -> TRANSMISSION  GO or EXPORT_NAME
 *   OPTIONS  -> SKIPPING      an option too long to look at; answered when all of it has passed
 *   OPTIONS  -> STARTTLS      the client may begin TLS; leaves by nbd_handshake_tls_began()
 *   OPTIONS  -> CLOSE         ABORT, EXPORT_NAME of an unknown name or without the TLS that is
 *                             required, no option at all, too many of them
 *
 * STARTTLS  The owner sends the answer, which is the last thing in plain text, and then begins TLS.
 *           A client waits for that answer, so whatever else was received before it is an attack
 *           (somebody's bytes, to be taken for the client's): the owner ends the connection if
 *           there is any. What was agreed in plain text may have been changed on its way, so all
 *           of it is void.
 *
 * A pure machine from bytes to bytes: no I/O, no clock, no allocation. The greeting is sent by
 * whoever owns the socket (nbd_encode_greeting).
 */
#ifndef SERVER_NBD_NBD_HANDSHAKE_H
#define SERVER_NBD_NBD_HANDSHAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/nbd/nbd_wire.h"

#define NBD_OPTION_BYTES_MAX	  (32u * 1024) /* looked at */
#define NBD_OPTION_SKIP_BYTES_MAX (1024u * 1024) /* skipped and refused; longer ones end it */
#define NBD_OPTIONS_MAX		  256u
#define NBD_ANSWER_BYTES	  (NBD_STRING_MAX + 1024u)

#define NBD_BLOCK_BYTES_MIN	  1u
#define NBD_BLOCK_BYTES_PREFERRED 4096u
#define NBD_PAYLOAD_BYTES_MAX	  (64u * 1024 * 1024)

/* Metadata contexts and their numbers on the wire, which are ours to choose. */
#define NBD_CONTEXT_ALLOCATION	    1u
#define NBD_CONTEXT_ALLOCATION_NAME "base:allocation"
#define NBD_CONTEXT_SHARED	    2u
#define NBD_CONTEXT_SHARED_NAME	    "sameblk:shared"
#define NBD_CONTEXTS_MAX	    2u

/* What is served. */
struct nbd_export {
	const char *name; /* NULL: any name will do */
	uint64_t size_bytes;
	bool read_only;
	bool tls_available;
	bool tls_required; /* nothing is told or served without */
};

enum nbd_handshake_state {
	NBD_HANDSHAKE_FLAGS,
	NBD_HANDSHAKE_OPTIONS,
	NBD_HANDSHAKE_SKIPPING,
	NBD_HANDSHAKE_STARTTLS, /* TLS begins after what is in the answer was sent */
	NBD_HANDSHAKE_TRANSMISSION,
	NBD_HANDSHAKE_CLOSE, /* after what is in the answer was sent */
};

struct nbd_answer {
	size_t len_bytes;
	uint8_t bytes[NBD_ANSWER_BYTES];
};

struct nbd_handshake {
	const struct nbd_export *export;
	enum nbd_handshake_state state;
	bool tls; /* it has begun */
	/* Agreed so far. */
	bool fixed; /* the client knows options besides EXPORT_NAME */
	bool no_zeroes;
	bool structured; /* also true if extended is */
	bool extended;
	bool allocation; /* the context, for the export named context_export */
	bool shared; /* likewise */
	char context_export[NBD_STRING_MAX];
	uint32_t context_export_bytes;
	unsigned options;
	uint32_t skipped_option;
	uint32_t skip_bytes;
};

void nbd_handshake_init(struct nbd_handshake *handshake, const struct nbd_export *export);

/* Takes at most one message from the front of in and appends to the answer, which the caller has
 * emptied. Returns how many bytes it took; 0: it needs more of them (never more than
 * NBD_OPTION_HEADER_BYTES + NBD_OPTION_BYTES_MAX). Not to be called in STARTTLS, TRANSMISSION or
 * CLOSE. */
size_t nbd_handshake_step(struct nbd_handshake *handshake, const uint8_t *in, size_t in_bytes,
			  struct nbd_answer *answer);

/* In STARTTLS: from now on all input was encrypted. */
void nbd_handshake_tls_began(struct nbd_handshake *handshake);

uint16_t nbd_handshake_transmission_flags(const struct nbd_handshake *handshake);

#endif
