/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * store_sim - a disk with a volatile cache, in memory: struct store for simulation
 *
 * Sectors of 512 bytes. There are two contents: the *durable* one, which survives a crash, and the
 * *newest*, which reads return. What a write changed in the newest but not yet in the durable is in
 * the list of *writes*, each with its own copy of the data:
 *
 *   IN_FLIGHT ----> VOLATILE ----> (gone: durable)
 *                      |
 *                      v
 *                  UNDECIDED
 *
 *   submit    -> IN_FLIGHT  nothing is promised; its sectors may survive a crash, one by one
 *   IN_FLIGHT -> VOLATILE   deliver   done() is called; its sectors may still survive or not
 *   IN_FLIGHT -> durable    deliver   of a FUA write
 *   VOLATILE  -> durable    deliver   of a good flush that was submitted after this write was
 *             delivered
 *   VOLATILE  -> UNDECIDED  deliver   of a failed flush: no later flush covers it, a crash decides
 *
 * I/O is delivered only when the driver asks for it, per lane, in an order that the seed chooses.
 * When a read or a write takes effect is chosen too: at submission, at delivery, or (writes) half
 * and half; a comparison reads its first range at either, the other one at delivery. A write's
 * buffer must not change in between, which is asserted.
 *
 * A *fork* is a store whose durable content is its parent's, read through, plus what was put into
 * it: that is what a crash leaves. The parent must not change while a fork of it is used.
 *
 * Every content has a hash, the sum of the XXH3-128 of its sectors, each seeded with its number.
 *
 * Where the store reaches foreign memory it refuses it now and then, which to the disk is a write
 * that failed.
 *
 * Faults    hooks.fault chooses for each I/O: an error, a lost write, a misdirected write.
 * Memory    allocates as content is written; init asserts instead of failing.
 * Threads   one.
 */
#ifndef TESTS_LIB_STORE_SIM_H
#define TESTS_LIB_STORE_SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/list.h"
#include "core/base/store.h"
#include "tests/lib/content.h"
#include "tests/lib/rng.h"

#define SIM_LANES_MAX 4u
#define SIM_QUEUE_MAX 4096u

struct store_sim;

struct sim_hash {
	uint64_t low;
	uint64_t high;
};

enum sim_write_state {
	SIM_IN_FLIGHT,
	SIM_VOLATILE,
	SIM_UNDECIDED,
};

struct sim_sector {
	struct sim_hash hash;
	uint64_t executed; /* when it became the newest content; 0: not yet */
	bool dead; /* something durable is newer, or it never took effect */
};

/* A write or a discard that is not durable. */
struct sim_write {
	struct list node; /* by submission */
	enum sim_write_state state;
	bool discard;
	uint64_t submitted; /* event number */
	uint64_t delivered;
	uint64_t sector;
	uint32_t sectors;
	uint8_t *data;
	struct sim_sector *each; /* one per sector */
};

enum sim_event {
	SIM_EVENT_SUBMIT, /* it is in flight */
	SIM_EVENT_COMPLETE, /* it took effect; done() was not called yet */
};

enum sim_media {
	SIM_MEDIA_GOOD,
	SIM_MEDIA_LOST, /* answered with success, never written */
	SIM_MEDIA_MISDIRECTED, /* lands elsewhere */
};

struct sim_verdict {
	int error; /* 0 or a negative errno */
	enum sim_media media;
	uint64_t redirect_bytes; /* MISDIRECTED: the offset it goes to */
};

struct sim_hooks {
	void *context;
	void (*event)(void *context, enum sim_event event, const struct store_io *io);
	void *fault_context;
	struct sim_verdict (*fault)(void *context, const struct store_io *io);
};

/* How completions are ordered. */
enum sim_order {
	SIM_ORDER_FIFO,
	SIM_ORDER_RANDOM,
	SIM_ORDER_LIFO,
};

struct sim_io {
	struct store_io *io;
	struct sim_write *write;
	struct sim_hash buffer; /* of a write's buffer when submitted */
	struct sim_verdict verdict;
	uint64_t submitted;
	bool early; /* took effect at submission */
	uint8_t *first; /* of a comparison: one range as it was at submission; NULL: as it is */
	bool late; /* held back while anything else is in flight */
};

struct sim_queue {
	uint32_t count;
	struct sim_io ios[SIM_QUEUE_MAX];
};

struct sim_chunk;

/* Chunks of 4 KiB that differ from the layer below; touched names them, for a quick reset. */
struct sim_layer {
	struct sim_chunk **chunks;
	uint32_t *touched;
	uint32_t touched_count;
};

#define SIM_FOREIGN_MAX 8u

struct store_sim {
	struct store store; /* first: the engine knows only this */
	uint8_t *foreign[SIM_FOREIGN_MAX]; /* what io->foreign names, from 1 on */
	struct sim_hooks hooks;
	enum sim_order order;
	const struct store_sim *parent;
	struct rng rng;
	uint32_t chunk_count;
	struct sim_layer durable;
	struct sim_layer newest;
	struct sim_hash hash; /* of the durable content, all of it */
	struct list writes;
	uint32_t write_count;
	uint64_t now; /* event number */
	uint64_t changes; /* counts what may change the set of images that a crash leaves */
	uint64_t empty_waits;
	struct sim_queue *lanes;
	uint64_t ops[STORE_OPS]; /* submitted, by enum store_op */
};

void store_sim_init(struct store_sim *sim, uint64_t size_bytes, unsigned lane_count, uint64_t seed);
void store_sim_done(struct store_sim *sim);

/* Zeros everywhere, nothing pending. */
void store_sim_reset(struct store_sim *sim, uint64_t seed);
/* The parent's durable content, nothing pending. Same size and lanes; hooks are cleared. */
void store_sim_fork(struct store_sim *sim, const struct store_sim *parent, uint64_t seed);
/* Makes a sector durable, as a crash does for what survives. Nothing may be in flight. */
void store_sim_put(struct store_sim *sim, uint64_t sector, const uint8_t *data,
		   const struct sim_hash *hash);
/* Power off: what is in flight or volatile is gone, as if its done() were never called. */
void store_sim_power_off(struct store_sim *sim);

/* Delivers one completion of the lane. False: nothing is in flight there. */
bool store_sim_deliver(struct store_sim *sim, unsigned lane);
uint32_t store_sim_in_flight(const struct store_sim *sim, unsigned lane);
/* The I/O that the next delivery may choose from, for drivers that look. */
bool store_sim_idle(const struct store_sim *sim);

/* Offline, in bytes: any range. */
void store_sim_read_durable(const struct store_sim *sim, uint64_t off_bytes, void *buf,
			    uint64_t len_bytes);
void store_sim_write_durable(struct store_sim *sim, uint64_t off_bytes, const void *buf,
			     uint64_t len_bytes);
void store_sim_flip_bit(struct store_sim *sim, uint64_t off_bytes, unsigned bit);

struct sim_hash sim_hash_sector(uint64_t sector, const uint8_t *data);

#endif
