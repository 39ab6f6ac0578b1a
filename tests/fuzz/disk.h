/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * disk - a small valid store that an input damages, and that is whole again for the next input
 *
 * The stores that inputs begin with are made by the engine itself, each as some life of a volume
 * left it. What an input may change is metadata alone: superblocks, ring, root, summary and refs
 * pages and leaves, in both slots. A change is of bytes, of a field of the format, a block copied
 * over another, a sector lost, or records appended to the journal.
 *
 *   input:  change ... change END
 *
 * A change is *honest* or *forged*. After a forged one all checksums of the block, and for a ring
 * block of the chain that follows it, are made right again, so that what reads it believes it: that
 * is what a bug leaves. An honest one is what a disk does.
 *
 * Memory    two copies of each store, for ever. Only blocks that were touched are put back.
 * Threads   one.
 */
#ifndef TESTS_FUZZ_DISK_H
#define TESTS_FUZZ_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include "core/format/format.h"
#include "tests/fuzz/fuzz.h"
#include "tests/lib/engine.h"

#define DISK_LOGICAL_BLOCKS 1300u
#define DISK_STORE_BLOCKS   4096u
#define DISK_RING_BLOCKS    32u
#define DISK_PLACES_MAX	    80u

enum disk_life {
	DISK_FRESH, /* formatted, opened, stopped */
	DISK_STOPPED, /* used, stopped */
	DISK_KILLED, /* used, killed with a journal */
	DISK_HALF_CHECKPOINT, /* killed in a checkpoint */
	DISK_LIVES,
};

struct disk {
	struct engine engine;
	uint8_t *whole; /* as it was made */
	uint8_t *content; /* what its blocks read as */
	struct super super; /* the one in force */
	uint32_t log_blocks; /* ring blocks of the log, from the tail on */
	uint64_t places[DISK_PLACES_MAX]; /* blocks that an input may change */
	uint32_t place_count;
	uint64_t touched[DISK_STORE_BLOCKS / 64];
	/* By the input. */
	bool forged;
	bool ring_changed;
	bool sealed; /* nothing may write */
	uint32_t writes;
};

void disk_make(struct disk *disk, enum disk_life life);
/* Carries out the changes, up to END or the input's end. */
void disk_damage(struct disk *disk, struct input *input);
/* As it was made. The engine must be closed. */
void disk_restore(struct disk *disk);

/* For check: reads and writes the store's bytes. */
int disk_read(void *context, uint64_t off_bytes, void *buf, size_t len_bytes);
int disk_write(void *context, uint64_t off_bytes, const void *buf, size_t len_bytes);
int disk_flush(void *context);

#endif
