/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd_status - the answer to BLOCK_STATUS: from the engine's runs to a chunk for each context
 *
 * Neighbouring runs that look the same in a context become one extent of it. Extents begin at the
 * first byte that was asked for and never reach beyond the last; they may end earlier, where the
 * runs do. docs/nbd.md says what the contexts' bits mean.
 *
 * Pure: no I/O, no allocation.
 */
#ifndef SERVER_NBD_NBD_STATUS_H
#define SERVER_NBD_NBD_STATUS_H

#include <stddef.h>
#include <stdint.h>

#include "core/request/request.h"
#include "server/nbd/nbd_handshake.h"

/* For all runs that there is room for: each may be an extent of its own, in every context. */
#define NBD_STATUS_BYTES(runs)                                                                     \
	((size_t)NBD_CONTEXTS_MAX * (NBD_EXTENDED_CHUNK_BYTES + NBD_EXTENDED_CONTEXT_BYTES +       \
				     (size_t)(runs)*NBD_EXTENDED_EXTENT_BYTES))

/* The whole reply, of NBD_STATUS_BYTES(count) at most, at bytes. Returns its length; 0: the runs do
 * not say anything about the first byte. At least one context was agreed upon. */
size_t nbd_encode_status(const struct nbd_handshake *handshake, const struct nbd_request *request,
			 const struct map_run *runs, uint32_t count, uint8_t *bytes);

#endif
