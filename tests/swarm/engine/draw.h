/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * draw - what a seed makes of a world, and of each of its lives
 *
 * Everything that can differ between two stores or two runs of a server is a field here, and its
 * enum is a row of the table. What is asked of the volume while it runs is drawn in client.c.
 *
 * Swarm     a world has no average taste: of the operations some are left out altogether, of the
 *           places a few are used all the time, so that what is rare meets what is rare.
 */
#ifndef TESTS_SWARM_ENGINE_DRAW_H
#define TESTS_SWARM_ENGINE_DRAW_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/store.h"
#include "tests/lib/rng.h"

enum size_kind {
	SIZE_SMALL, /* up to 16 MiB, any block */
	SIZE_REGION, /* a few regions, a few blocks more or less */
	SIZE_SLAB, /* a slab or three, likewise */
	SIZE_AREA, /* a GiB, likewise */
	SIZE_MEDIUM, /* up to 1 GiB, any block */
	SIZE_LARGE, /* 1 TiB, likewise */
	SIZE_HUGE, /* the largest, 64 TiB, or a little less */
	SIZE_KINDS,
};

enum store_kind {
	STORE_CREATED, /* exactly what `create` chooses */
	STORE_THIN, /* a part of it */
	STORE_SCARCE, /* just the metadata and a slab or so */
	STORE_ROOMY, /* more than that */
	STORE_KINDS,
};

enum shape {
	SHAPE_EMPTY,
	SHAPE_LINEAR, /* each zone written in order */
	SHAPE_LINEAR_CLONED, /* and parts of it cloned */
	SHAPE_FRAGMENTED, /* every few blocks of many regions */
	SHAPE_LONG_LOG, /* the same, and more leaves in the log than a small cache has frames */
	SHAPE_FULL, /* every block, in pieces, until there is no more */
	SHAPE_SATURATED, /* one block with as many owners as there can be */
	SHAPE_KINDS,
};

enum fault_kind {
	FAULT_NONE,
	FAULT_READ,
	FAULT_WRITE,
	FAULT_FLUSH,
	FAULT_DISCARD,
	FAULT_COMPARE,
	FAULT_FULL, /* the backing has no more space: ENOSPC */
	FAULT_QUOTA, /* the same, EDQUOT */
	FAULT_MOVING, /* the backing has none for what is overwritten, either */
	FAULT_KINDS,
};

enum end_kind {
	END_CLEAN,
	END_KILL, /* the process */
	END_CUT, /* the power */
	END_KILL_CLOSING, /* one of them while it closes */
	END_KINDS,
};

enum op_kind {
	OP_READ,
	OP_WRITE, /* whole blocks, contents of their own */
	OP_WRITE_POOL, /* whole blocks, contents that others have too */
	OP_WRITE_SECTORS,
	OP_WRITE_BYTES,
	OP_ZERO,
	OP_ZERO_KEEP,
	OP_ZERO_BYTES,
	OP_DISCARD,
	OP_DISCARD_BYTES,
	OP_FLUSH,
	OP_SAME,
	OP_SAME_ZERO,
	OP_SAME_MANY,
	OP_CLONE,
	OP_CLONE_MANY,
	OP_MAP,
	OP_CHANGES,
	OP_INVALID,
	OP_KINDS,
};

/* How far blocks of a request reach. */
enum length_kind {
	LENGTH_ONE,
	LENGTH_FEW, /* up to 16 blocks */
	LENGTH_PART, /* of a region */
	LENGTH_REGION, /* one, or up to two, give or take a few blocks */
	LENGTH_MANY, /* regions */
	LENGTH_KINDS,
};

#define ZONES_MAX   8u
#define CLIENTS_MAX 16u
#define NESTED_MAX  4u

struct plan {
	uint64_t seed;
	enum size_kind size;
	uint64_t logical_blocks;
	enum store_kind store;
	uint64_t store_blocks;
	uint32_t ring_blocks; /* 0: chosen by the engine */
	uint32_t sector_bytes;
	unsigned lanes;
	bool tracking;
	bool foreign;
	uint8_t junk; /* what the backing reads where nothing was written */
	enum shape shape;
	bool always_discards; /* no life is without */
	bool short_lives; /* many, each of a few requests: most of what is wrong shows in a crash */
	unsigned lives;
	unsigned zones;
	uint64_t starts[ZONES_MAX]; /* of zones, in blocks */
	uint64_t width;
	uint64_t spread; /* regions that a FRAGMENTED volume uses */
	unsigned pool; /* contents that are written again and again */
	unsigned period; /* blocks after which such a content begins again */
};

struct life_plan {
	uint64_t cache_bytes;
	uint32_t hint; /* 0: the default */
	bool discard;
	bool compare;
	bool read_only;
	unsigned workers;
	unsigned lasting_percent;
	unsigned fua_percent;
	unsigned cancel_percent;
	unsigned depth; /* requests in flight */
	unsigned ops;
	unsigned tick_in; /* one step in so many */
	unsigned checkpoint_in; /* 0: never */
	unsigned deliver_percent; /* of the steps: a slow store has many in flight */
	unsigned slow_in; /* of so many I/Os one is passed by others; 0: none */
	unsigned again_percent; /* of requests: where the last one was */
	uint8_t weights[OP_KINDS];
	uint8_t lengths[LENGTH_KINDS];
	enum fault_kind fault;
	bool fault_once; /* or for a while */
	enum end_kind end;
	unsigned nested; /* kills in the recovery before this life */
	bool check; /* the other implementation looks at what is found */
	bool quiet; /* everything is counted at the end */
};

void draw_plan(uint64_t seed, struct plan *ret_plan);
void draw_life(const struct plan *plan, unsigned life, struct life_plan *ret_life);
/* The I/O that fails with the kind, for those that fail by themselves. */
enum store_op draw_fault_op(enum fault_kind kind);

#endif
