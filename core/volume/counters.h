/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * counters - every number that a volume tells about itself: name, kind, unit and meaning
 *
 * The one table. struct volume_stats has a field of that name for each line, JSON and text have it
 * as it is, Prometheus as sameblk_NAME, of counters with _total. The manual page and the control
 * protocol's document say the same words (tests/tidy holds them against each other).
 *
 *   GAUGE    goes up and down
 *   COUNTER  only grows, from the opening of the volume on
 *   BYTES    the name ends in _bytes
 *   COUNT    anything else: the words say of what
 *
 * At any moment used_bytes + free_bytes + unbacked_bytes + pending_bytes + metadata_bytes +
 * lost_bytes are store_bytes.
 */
#ifndef CORE_VOLUME_COUNTERS_H
#define CORE_VOLUME_COUNTERS_H

#include <stddef.h>
#include <stdint.h>

enum counter_kind {
	COUNTER_GAUGE,
	COUNTER_COUNTER,
};

enum counter_unit {
	COUNTER_BYTES,
	COUNTER_COUNT,
};

#define COUNTERS(C)                                                                                \
	C(GAUGE, BYTES, size_bytes, "logical size of the volume")                                  \
	C(GAUGE, BYTES, store_bytes, "size of the store")                                          \
	C(GAUGE, BYTES, mapped_bytes, "logical bytes that are no holes")                           \
	C(GAUGE, BYTES, used_bytes, "data blocks with at least one reference")                     \
	C(GAUGE, BYTES, shared_bytes, "logical bytes whose block has more than one reference")     \
	C(GAUGE, BYTES, saved_bytes, "mapped less used")                                           \
	C(GAUGE, BYTES, free_bytes, "what can be allocated now")                                   \
	C(GAUGE, BYTES, unbacked_bytes, "free, but the backing has no space for so much")          \
	C(GAUGE, BYTES, pending_bytes,                                                             \
	  "freed and not yet committed or given back, or taken by a write under way")              \
	C(GAUGE, BYTES, metadata_bytes,                                                            \
	  "what of the store never holds data, and places of leaves, taken or kept")               \
	C(GAUGE, BYTES, lost_bytes, "free, but their counts are damaged: they are left out")       \
	C(GAUGE, BYTES, giveback_due_bytes,                                                        \
	  "free, and perhaps not given back yet: at the most, and less in the background")         \
	C(GAUGE, BYTES, giveback_failed_bytes,                                                     \
	  "free, and the backing did not take it: at the most")                                    \
	C(COUNTER, COUNT, reads, "read requests of clients")                                       \
	C(COUNTER, COUNT, writes, "write requests of clients")                                     \
	C(COUNTER, COUNT, zeroes, "requests of clients to write zeros")                            \
	C(COUNTER, COUNT, discards, "discard requests of clients")                                 \
	C(COUNTER, COUNT, flushes, "flush requests of clients")                                    \
	C(COUNTER, BYTES, read_bytes, "bytes of read requests")                                    \
	C(COUNTER, BYTES, written_bytes, "bytes of write requests")                                \
	C(COUNTER, COUNT, journal_edits, "edits recorded in the journal")                          \
	C(COUNTER, COUNT, journal_commits, "group commits that wrote them")                        \
	C(COUNTER, COUNT, checkpoints, "checkpoints finished")                                     \
	C(COUNTER, COUNT, metadata_reads,                                                          \
	  "metadata pages read because they were not in the cache")                                \
	C(COUNTER, COUNT, metadata_writes,                                                         \
	  "metadata blocks written: journal, pages, superblocks and change tracking")              \
	C(COUNTER, COUNT, cow_blocks, "blocks written anew because they were shared")              \
	C(COUNTER, COUNT, same_requests, "destinations compared by same-range requests")           \
	C(COUNTER, BYTES, same_bytes, "bytes of them that share now, or did before")               \
	C(COUNTER, COUNT, differs, "destinations that differed")                                   \
	C(COUNTER, COUNT, clone_requests, "clone requests")                                        \
	C(COUNTER, BYTES, cloned_bytes, "bytes of them that were cloned")                          \
	C(COUNTER, BYTES, fenced_read_bytes, "bytes compared while writers had to wait")           \
	C(COUNTER, BYTES, copied_bytes,                                                            \
	  "bytes of payloads copied by the server itself: what is not aligned to sectors")         \
	C(COUNTER, BYTES, zero_copy_bytes,                                                         \
	  "bytes of payloads that went between a ublk client's memory and the store uncopied")     \
	C(COUNTER, COUNT, fence_waits, "times a request waited for a fence")                       \
	C(COUNTER, BYTES, discarded_bytes, "bytes given back to the backing file or device")       \
	C(COUNTER, COUNT, giveback_rounds, "rounds through all slabs that had something due")      \
	C(COUNTER, COUNT, read_errors, "requests whose data the store could not read")             \
	C(COUNTER, COUNT, write_errors, "requests whose data the store could not write")           \
	C(COUNTER, COUNT, no_space_errors, "writes of data that the backing had no space for")     \
	C(COUNTER, COUNT, metadata_waits,                                                          \
	  "times a metadata write found no space in the backing and waited")

#define COUNTER_FIELD(kind, unit, name, help) uint64_t name;

struct counter {
	enum counter_kind kind;
	enum counter_unit unit;
	const char *name;
	const char *help;
	size_t offset; /* in struct volume_stats */
};

extern const struct counter counter_table[];
extern const size_t counter_table_count;

struct volume_stats;

uint64_t counter_value(const struct volume_stats *stats, const struct counter *counter);

#endif
