/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * load - many requests in flight on one real server, each answer checked against the history
 *
 * One thread, one poll(): several NBD connections that libnbd drives, and one control connection.
 * An operation is drawn (draw.h), submitted by the file that knows its protocol (over_nbd.h,
 * over_control.h), and ends exactly once: answered, or lost with its connection.
 *
 * Errors    the first wrong answer is kept in load->bad, and the run ends.
 * Time      history_tick(): one at each submission, one at each end.
 */
#ifndef TESTS_SWARM_SERVER_LOAD_H
#define TESTS_SWARM_SERVER_LOAD_H

#include <libnbd.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "tests/lib/rng.h"
#include "tests/swarm/server/history.h"

#define LOAD_CONNECTIONS_MAX 8u
#define LOAD_DSTS_MAX	     4u
#define LOAD_TRACE_OPS	     65536u

enum op_kind {
	OP_WRITE,
	OP_READ,
	OP_ZERO,
	OP_TRIM,
	OP_CACHE,
	OP_FLUSH,
	OP_EXTENTS,
	OP_WRONG, /* what has to be refused */
	OP_ALL, /* trim or zero of the whole volume */
	OP_SAME,
	OP_RANGES,
	OP_CLONE,
	OP_MAP,
	OP_STATS,
	OP_KINDS
};

/* How it came to its end. */
enum op_end {
	OP_DONE,
	OP_FAILED, /* the server said so */
	OP_LOST, /* with its connection: it may have happened, or may still */
};

struct load;

struct op {
	struct op *next; /* in flight, the newest first */
	struct op *prev;
	struct load *load;
	enum op_kind kind;
	unsigned connection;
	uint64_t submitted;
	uint64_t off; /* bytes; of a clone the destination */
	uint64_t len;
	uint64_t src; /* of a clone or merge */
	uint64_t dsts[LOAD_DSTS_MAX]; /* of a merge; of a batch each has a source of its own */
	uint64_t srcs[LOAD_DSTS_MAX];
	unsigned dst_count;
	bool src_zero; /* a merge with the word `zero` */
	bool sync;
	int wrong; /* the errno it has to fail with; 0: it has to succeed */
	uint32_t flags; /* LIBNBD_CMD_FLAG_ */
	uint64_t first; /* sectors that it changes */
	uint64_t count;
	uint64_t partial[2]; /* those of them that it changes in part */
	unsigned partial_count;
	uint8_t *data;
};

struct connection {
	struct nbd_handle *nbd;
	unsigned in_flight;
	bool dead;
};

struct control {
	int fd;
	unsigned in_flight;
	bool dead;
	char *in;
	size_t in_len;
	size_t in_room;
	char *out;
	size_t out_len;
	size_t out_at;
	size_t out_room;
};

/* What a command allows and asks for; `key=value` words fill it. */
struct load_options {
	uint64_t weights[OP_KINDS];
	uint64_t connections;
	uint64_t depth;
	uint64_t control_depth;
	uint64_t milliseconds;
	uint64_t blocks_max; /* of one request */
	uint64_t windows; /* the volume's parts that are used: so many of 4 MiB; 0: all */
	uint64_t pool; /* ids that many blocks share */
	uint64_t read_only;
	uint64_t lasting;
	uint64_t enospc; /* may be answered */
	uint64_t eio; /* may be answered */
	uint64_t aligned; /* requests of whole sectors only */
};

struct load {
	struct history history;
	struct contents contents;
	struct rng random;
	struct load_options options;
	struct connection connections[LOAD_CONNECTIONS_MAX];
	struct control control;
	struct op *in_flight;
	unsigned in_flight_count;
	uint64_t size; /* of the volume, in bytes */
	uint32_t next_id;
	bool stopping; /* nothing new is submitted */
	bool gone; /* see load_gone() */
	char bad[4096]; /* the first wrong answer; "": none */
	uint64_t counts[OP_KINDS];
	uint64_t enospc_count;
	uint64_t eio_count;
	uint64_t torn_count; /* sectors read half new while they were being written */
	uint64_t merged_bytes;
	uint64_t cloned_bytes;
	char (*trace)[160]; /* the last operations */
	uint64_t trace_count;
	const char *trace_file;
	uint32_t *snapshot; /* of `changes`: an id for each sector of the regions known then */
	uint32_t snapshot_count; /* regions */
};

const char *op_name(enum op_kind kind);

__attribute__((format(printf, 2, 3))) void load_bad(struct load *load, const char *format, ...);
/* A connection ended that the load did not close. */
void load_gone(struct load *load, const char *why);
__attribute__((format(printf, 2, 3))) void load_trace(struct load *load, const char *format, ...);

/* Takes its time; its sectors get versions; it is in flight. ids: one for each sector. */
void op_begin(struct op *op, const uint32_t *ids);
/* Ends its versions, checks what it must have done, and frees it. */
void op_finish(struct op *op, enum op_end end, int error);
/* Whether an error is one that may be answered now: to anything, or to this operation. */
bool load_error_allowed(struct load *load, int error);
bool op_error_allowed(struct load *load, const struct op *op, int error);

/* Whether the sectors are part of those which an operation in flight changes in part, or which a
 * clone in flight writes. */
bool load_reserved(const struct load *load, uint64_t first, uint64_t count);
bool load_cloning(const struct load *load, uint64_t first, uint64_t count);
/* May be read in [from, now], also as what a clone in flight has made of it. */
bool load_may_read(struct load *load, uint64_t sector, uint64_t from, uint32_t id);
/* A hole, told by a request submitted at `from`, must be able to read zeros. */
void load_check_hole(struct load *load, const char *who, uint64_t from, uint64_t off, uint64_t len);

#endif
