/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * recovery - from what a crash or a clean shutdown left to a volume in memory
 *
 *   1. The newest valid superblock. A newer one that is invalid is a torn write, unless some ring
 *      block was written after it had been durable: that is damage.
 *   2. All tops, exactly in the generations that it names.
 *   3. The ring from the tail on, whole groups only. A group of which a block is bad ends the log,
 *      unless a later group was written, which happens only when the earlier one is durable, or
 *      the superblock says that the log was durable further: that is damage.
 *   4. Replay, record by record, page by page, where the page is older. A record that does not fit
 *      its page (recovery_fit.c) is damage. Pages are read in the generations that their parents
 *      name, never newer ones: the checkpoint leaves those slots alone until new parents are
 *      durable. When many pages are dirty and another is needed, a checkpoint brings all of them
 *      home, and replay stands still until it is over: so it needs no more frames than serving
 *      does, and nothing is under way when it ends, well or not. The tail moves with it to the end
 *      of the last group that is through.
 *   5. A checkpoint with a new epoch, durable before anything is served or appended (I15, I21).
 *      Read-only: a flush instead; nothing is written.
 *
 * Runs on worker 0 alone, before anything is served; blocks on the store.
 */
#ifndef CORE_METADATA_RECOVERY_H
#define CORE_METADATA_RECOVERY_H

#include <stdbool.h>

#include "core/base/damage.h"
#include "core/metadata/edit.h"

/* Finds and decodes the superblock; *ret_generations is malloc'ed, one per top. */
struct super;
int recovery_read_super(struct store *store, bool read_only, struct super *ret_super,
			uint32_t **ret_generations, struct damage *reterr_damage);

/* Reads the tops into the volume's map and refs. */
int recovery_read_tops(struct metadata *metadata, const uint32_t *generations,
		       struct damage *reterr_damage);

/* The log as it was found. ring is malloc'ed. */
struct recovery_log {
	uint8_t *ring;
	uint64_t blocks; /* from the tail to the end of the last whole group */
	uint64_t records;
};

int recovery_read_log(struct store *store, const struct super *super, struct recovery_log *ret_log,
		      struct damage *reterr_damage);
int recovery_replay(struct metadata *metadata, const struct recovery_log *log,
		    struct damage *reterr_damage);

/* Whether the record can be applied to the page, which is older than it and resident. */
bool recovery_fits(struct metadata *metadata, const struct record *record, struct edit_page page,
		   struct why *why);

/* One transfer, waited for, on lane 0. */
int recovery_io(struct store *store, enum store_op op, uint64_t off_bytes, void *buf,
		uint64_t len_bytes);

#endif
