/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * volume_internal - the inside of a volume, for its parts and for requests
 *
 * Lock order (I14): stripes by address, then the metadata's lock, then mailboxes. "The owner of the
 * metadata" is whoever holds that lock: it serialises everything that is not a lookup or a data
 * transfer, in-place writes and reads of resident mappings never take it.
 */
#ifndef CORE_VOLUME_VOLUME_INTERNAL_H
#define CORE_VOLUME_VOLUME_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/metadata/metadata.h"
#include "core/volume/fence.h"
#include "core/volume/tracking.h"
#include "core/volume/volume.h"

#define ZEROS_BYTES (1024u * 1024u)

struct volume {
	struct metadata *metadata; /* of the store that it lies on */
	struct volume_options options;
	struct fence fence;
	struct tracking tracking;
	_Atomic bool cancelled;
	uint8_t *zeros; /* ZEROS_BYTES, never written */

	struct {
		_Atomic uint64_t reads, writes, zeroes, flushes, discards, read_bytes,
			written_bytes, cow_blocks, same_requests, same_bytes, differs,
			clone_requests, cloned_bytes, fenced_read_bytes, copied_bytes,
			zero_copy_bytes, read_errors, write_errors, no_space_errors;
	} counters;
};

static inline void count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

void volume_log(struct volume *volume, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static inline int volume_latched(struct volume *volume)
{
	return metadata_latched(volume->metadata);
}

/* A data write, or what it needs, found no space in the backing. No lock is needed. */
void volume_data_lacks(struct volume *volume, int error);

/* Whether the simulator delays the step named point. */
static inline bool volume_yield(struct volume *volume, const char *point)
{
#ifdef SAMEBLK_YIELD
	return volume->options.yield && volume->options.yield(volume->options.yield_context, point);
#else
	(void)volume;
	(void)point;
	return false;
#endif
}

#endif
