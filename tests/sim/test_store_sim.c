/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_store_sim - the crash model of the simulated store: what a flush covers, what a crash may
 * leave.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/store_sim.h"

#define BLOCKS 16u

struct op {
	struct store_io io;
	uint8_t data[BLOCK_BYTES];
	bool done;
	int res;
};

static struct store_sim sim;
static struct sim_verdict verdict;

static void setup(void)
{
	store_sim_init(&sim, BLOCKS * BLOCK_BYTES, 1, 7);
	sim.store.can_discard = true;
	sim.order = SIM_ORDER_FIFO;
}

static void teardown(void)
{
	store_sim_done(&sim);
}

TestSuite(store_sim, .init = setup, .fini = teardown);

static void answer(struct store_io *io, int res)
{
	struct op *op = io->context;

	op->done = true;
	op->res = res;
}

static void start(struct op *op, enum store_op kind, uint64_t block, uint32_t id, bool fua)
{
	memset(op, 0, sizeof(*op));
	for (unsigned i = 0; i < BLOCK_SECTORS; i++)
		content_fill(id, i, op->data + i * SECTOR_BYTES);
	op->io = (struct store_io){
		.op = kind,
		.fua = fua,
		.off_bytes = block * BLOCK_BYTES,
		.len_bytes = kind == STORE_FLUSH ? 0 : BLOCK_BYTES,
		.buf = op->data,
		.done = answer,
		.context = op,
	};
	store_submit(&sim.store, &op->io);
}

static void finish(const struct op *op)
{
	while (!op->done)
		cr_assert(store_sim_deliver(&sim, 0));
}

static void do_op(struct op *op, enum store_op kind, uint64_t block, uint32_t id, bool fua)
{
	start(op, kind, block, id, fua);
	finish(op);
}

static uint32_t durable_id(uint64_t block, unsigned sector)
{
	struct contents none = {0};
	uint8_t data[SECTOR_BYTES];

	store_sim_read_durable(&sim, block * BLOCK_BYTES + sector * SECTOR_BYTES, data,
			       SECTOR_BYTES);
	return contents_identify(&none, data, sector);
}

Test(store_sim, nothing_is_answered_inside_submit)
{
	struct op op;

	start(&op, STORE_WRITE, 1, 5, false);
	cr_assert_not(op.done);
	finish(&op);
	cr_assert_eq(op.res, 0);
}

Test(store_sim, a_write_is_read_at_once_but_not_durable)
{
	struct op op, read;
	struct contents none = {0};

	do_op(&op, STORE_WRITE, 1, 5, false);
	cr_assert_eq(durable_id(1, 0), CONTENT_ZERO);
	do_op(&read, STORE_READ, 1, 0, false);
	cr_assert_eq(contents_identify(&none, read.data, 0), 5);
	store_sim_power_off(&sim);
	do_op(&read, STORE_READ, 1, 9, false);
	cr_assert_eq(contents_identify(&none, read.data, 0), CONTENT_ZERO);
}

Test(store_sim, a_flush_covers_what_was_delivered_before_its_submission)
{
	struct op before, during, flush;

	do_op(&before, STORE_WRITE, 1, 5, false);
	start(&during, STORE_WRITE, 2, 6, false);
	start(&flush, STORE_FLUSH, 0, 0, false);
	finish(&flush);
	cr_assert_eq(durable_id(1, 3), 5);
	cr_assert_eq(durable_id(2, 3), CONTENT_ZERO);
	finish(&during);
	cr_assert_eq(sim.write_count, 1);
	do_op(&flush, STORE_FLUSH, 0, 0, false);
	cr_assert_eq(durable_id(2, 3), 6);
	cr_assert_eq(sim.write_count, 0);
}

Test(store_sim, a_fua_write_is_durable_alone)
{
	struct op other, fua;

	do_op(&other, STORE_WRITE, 1, 5, false);
	do_op(&fua, STORE_WRITE, 2, 6, true);
	cr_assert_eq(durable_id(1, 0), CONTENT_ZERO);
	cr_assert_eq(durable_id(2, 0), 6);
}

static struct sim_verdict choose(void *context, const struct store_io *io)
{
	(void)context;
	return io->op == STORE_READ ? (struct sim_verdict){0} : verdict;
}

Test(store_sim, a_failed_flush_leaves_it_undecided_for_ever)
{
	struct op op, flush;

	do_op(&op, STORE_WRITE, 1, 5, false);
	sim.hooks.fault = choose;
	verdict = (struct sim_verdict){.error = -EIO};
	do_op(&flush, STORE_FLUSH, 0, 0, false);
	cr_assert_eq(flush.res, -EIO);
	sim.hooks.fault = NULL;
	do_op(&flush, STORE_FLUSH, 0, 0, false);
	cr_assert_eq(flush.res, 0);
	cr_assert_eq(durable_id(1, 0), CONTENT_ZERO);
	cr_assert_eq(sim.write_count, 1);
}

Test(store_sim, what_is_overwritten_durably_cannot_come_back)
{
	struct op first, second;

	do_op(&first, STORE_WRITE, 1, 5, false);
	do_op(&second, STORE_WRITE, 1, 6, true);
	list_for_each (pos, &sim.writes) {
		const struct sim_write *write = container_of(pos, struct sim_write, node);

		for (uint32_t i = 0; i < write->sectors; i++)
			cr_assert(write->each[i].dead);
	}
	cr_assert_eq(durable_id(1, 7), 6);
}

Test(store_sim, a_failed_write_leaves_each_sector_old_or_new)
{
	struct contents none = {0};
	struct op op, read;
	unsigned olds = 0, news = 0;

	sim.hooks.fault = choose;
	verdict = (struct sim_verdict){.error = -ENOSPC};
	for (uint64_t block = 0; block < BLOCKS; block++) {
		do_op(&op, STORE_WRITE, block, 5, false);
		cr_assert_eq(op.res, -ENOSPC);
		do_op(&read, STORE_READ, block, 0, false);
		for (unsigned i = 0; i < BLOCK_SECTORS; i++) {
			uint32_t id = contents_identify(&none, read.data + i * SECTOR_BYTES, i);

			cr_assert(id == 5 || id == CONTENT_ZERO);
			olds += id == CONTENT_ZERO;
			news += id == 5;
		}
	}
	cr_assert(olds > 0 && news > 0);
}

Test(store_sim, lost_and_misdirected_writes_are_answered_with_success)
{
	struct op op;

	sim.hooks.fault = choose;
	verdict = (struct sim_verdict){.media = SIM_MEDIA_LOST};
	do_op(&op, STORE_WRITE, 1, 5, true);
	cr_assert_eq(op.res, 0);
	cr_assert_eq(durable_id(1, 0), CONTENT_ZERO);
	verdict = (struct sim_verdict){.media = SIM_MEDIA_MISDIRECTED,
				       .redirect_bytes = 3 * BLOCK_BYTES};
	do_op(&op, STORE_WRITE, 1, 5, true);
	cr_assert_eq(durable_id(1, 0), CONTENT_ZERO);
	cr_assert_eq(durable_id(3, 0), 5);
}

Test(store_sim, a_discarded_sector_reads_old_zero_or_garbage)
{
	struct contents none = {0};
	unsigned olds = 0, zeros = 0, garbage = 0;
	struct op op, read;

	for (uint64_t block = 0; block < BLOCKS; block++) {
		do_op(&op, STORE_WRITE, block, 5, true);
		do_op(&op, STORE_DISCARD, block, 0, false);
		cr_assert_eq(durable_id(block, 0), 5);
		do_op(&read, STORE_READ, block, 0, false);
		for (unsigned i = 0; i < BLOCK_SECTORS; i++) {
			uint32_t id = contents_identify(&none, read.data + i * SECTOR_BYTES, i);

			olds += id == 5;
			zeros += id == CONTENT_ZERO;
			garbage += id == CONTENT_GARBAGE;
		}
	}
	cr_assert(olds > 0 && zeros > 0 && garbage > 0);
	cr_assert_eq(olds + zeros + garbage, BLOCKS * BLOCK_SECTORS);
}

Test(store_sim, the_hash_is_that_of_the_content_however_it_came)
{
	struct store_sim other;
	uint8_t data[BLOCK_BYTES];
	struct op op;

	store_sim_init(&other, BLOCKS * BLOCK_BYTES, 1, 8);
	do_op(&op, STORE_WRITE, 2, 5, true);
	do_op(&op, STORE_WRITE, 1, 6, true);
	do_op(&op, STORE_WRITE, 2, 7, true);
	store_sim_read_durable(&sim, 2 * BLOCK_BYTES, data, BLOCK_BYTES);
	store_sim_write_durable(&other, 2 * BLOCK_BYTES, data, BLOCK_BYTES);
	cr_assert(other.hash.low != sim.hash.low || other.hash.high != sim.hash.high);
	store_sim_read_durable(&sim, BLOCK_BYTES, data, BLOCK_BYTES);
	store_sim_write_durable(&other, BLOCK_BYTES, data, BLOCK_BYTES);
	cr_assert(other.hash.low == sim.hash.low && other.hash.high == sim.hash.high);
	store_sim_flip_bit(&other, BLOCK_BYTES + 100, 3);
	cr_assert(other.hash.low != sim.hash.low);
	store_sim_flip_bit(&other, BLOCK_BYTES + 100, 3);
	cr_assert(other.hash.low == sim.hash.low);
	store_sim_done(&other);
}

Test(store_sim, a_fork_sees_its_parent_and_keeps_its_own)
{
	struct store_sim fork;
	struct contents none = {0};
	uint8_t data[SECTOR_BYTES];
	struct sim_hash hash;
	struct op op;

	store_sim_init(&fork, BLOCKS * BLOCK_BYTES, 1, 8);
	do_op(&op, STORE_WRITE, 2, 5, true);
	do_op(&op, STORE_WRITE, 3, 6, false);
	store_sim_fork(&fork, &sim, 9);
	store_sim_read_durable(&fork, 2 * BLOCK_BYTES, data, SECTOR_BYTES);
	cr_assert_eq(contents_identify(&none, data, 0), 5);
	content_fill(8, 0, data);
	hash = sim_hash_sector(2 * BLOCK_SECTORS, data);
	store_sim_put(&fork, 2 * BLOCK_SECTORS, data, &hash);
	store_sim_read_durable(&fork, 2 * BLOCK_BYTES, data, SECTOR_BYTES);
	cr_assert_eq(contents_identify(&none, data, 0), 8);
	cr_assert_eq(durable_id(2, 0), 5);
	store_sim_read_durable(&fork, 3 * BLOCK_BYTES, data, SECTOR_BYTES);
	cr_assert_eq(contents_identify(&none, data, 0), CONTENT_ZERO);
	store_sim_done(&fork);
}

Test(store_sim, wait_delivers)
{
	struct op op;

	start(&op, STORE_WRITE, 1, 5, false);
	sim.store.ops->wait(&sim.store, 0);
	cr_assert(op.done);
}

Test(store_sim, the_same_seed_gives_the_same_order)
{
	uint64_t orders[2] = {0, 0};

	for (unsigned run = 0; run < 2; run++) {
		struct op ops[8];

		store_sim_reset(&sim, 99);
		for (unsigned i = 0; i < 8; i++)
			start(&ops[i], STORE_WRITE, i, i + 1, false);
		for (unsigned n = 0; n < 8; n++) {
			unsigned last = 0;
			bool before[8];

			for (unsigned i = 0; i < 8; i++)
				before[i] = ops[i].done;
			store_sim_deliver(&sim, 0);
			for (unsigned i = 0; i < 8; i++)
				if (ops[i].done && !before[i])
					last = i;
			orders[run] = orders[run] * 8 + last;
		}
	}
	cr_assert_eq(orders[0], orders[1]);
	cr_assert_neq(orders[0], 001234567);
}
