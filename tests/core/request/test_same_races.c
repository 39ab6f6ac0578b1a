/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_same_races - rows 14, 15, 20, 21, 23 and 25 of the same-range rules: merges against writers,
 * faults, the impatient and the power
 *
 * The store's hook holds reads or writes back, so that the test decides what is in flight while
 * what happens. All volumes have a source of pattern 1 at SRC and its equal at DST.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/volume/volume_internal.h"
#include "tests/lib/engine.h"

#define SRC	   0u
#define DST	   600u
#define RANGE	   64u /* blocks */
#define THIRD	   1200u /* unrelated */
#define RACES	   400
#define RACING_MAX 6

static struct engine engine;
static struct {
	bool reads;
	bool counts; /* reads of the first slab's refs page */
	bool writes;
	int read_error;
	uint64_t error_off_bytes; /* of the store */
	uint64_t urgent_bytes; /* compared behind a fence, and said to be */
} holding;

static bool touches(uint64_t off_bytes, uint64_t len_bytes, uint64_t at_bytes)
{
	return off_bytes <= at_bytes && at_bytes - off_bytes < len_bytes;
}

static uint64_t counts_block(void)
{
	return engine.volume->metadata->super.geometry.data_start;
}

static int hook(void *context, const struct store_io *io)
{
	bool reads = io->op == STORE_READ || io->op == STORE_COMPARE;

	(void)context;
	if (io->op == STORE_COMPARE && io->urgent)
		holding.urgent_bytes += io->len_bytes;
	if (reads && holding.read_error &&
	    (touches(io->off_bytes, io->len_bytes, holding.error_off_bytes) ||
	     (io->op == STORE_COMPARE &&
	      touches(io->other_off_bytes, io->len_bytes, holding.error_off_bytes))))
		return holding.read_error;
	if (reads && holding.reads)
		return MEM_HOLD;
	if (reads && holding.counts && io->off_bytes >= blocks_to_bytes(counts_block()) &&
	    io->off_bytes < blocks_to_bytes(counts_block() + 2))
		return MEM_HOLD;
	return io->op == STORE_WRITE && holding.writes ? MEM_HOLD : 0;
}

/* Built twice: for a store that compares and for one that is read from. */
static void init(const struct engine_options *options)
{
	engine_init(&engine, options);
	engine.mem.store.can_compare = STORE_COMPARES;
}

static void start(void)
{
	/* A ring with room for two merges' worst cases. */
	init(&(struct engine_options){.ring_blocks = 128});
	memset(&holding, 0, sizeof(holding));
	engine.mem.hook = hook;
	cr_assert_eq(engine_write(&engine, SRC, RANGE, 1), 0);
	cr_assert_eq(engine_write(&engine, DST, RANGE, 1), 0);
	cr_assert_eq(engine_write(&engine, THIRD, RANGE, 9), 0);
}

static void stop(void)
{
	store_mem_release(&engine.mem, 0);
	engine_done(&engine);
}

TestSuite(same_races, .init = start, .fini = stop);

static uint64_t bytes(uint64_t blocks)
{
	return blocks * BLOCK_BYTES;
}

static void release(void)
{
	memset(&holding, 0, sizeof(holding));
	store_mem_release(&engine.mem, 0);
}

static uint8_t *filled(uint32_t pattern, uint64_t blocks)
{
	uint8_t *buf = malloc(bytes(blocks));

	cr_assert_not_null(buf);
	pattern_fill(pattern, blocks, buf);
	return buf;
}

static void begin_same(struct op *op)
{
	op_same(&engine, op, bytes(SRC), bytes(RANGE), bytes(DST));
}

/* A merge whose compare found the ranges equal before a write that was in flight all the time: it
 * waits for that write's fence. The write is answered only after release(). */
static void merge_against_a_write_in_flight(struct op *same, struct op *write, uint64_t block,
					    uint8_t *data)
{
	holding.writes = true;
	op_write(&engine, write, bytes(block), BLOCK_BYTES, data);
	begin_same(same);
	cr_assert(op_is_stuck(same), "it waits for the write");
	cr_assert(!write->done);
}

Test(same_races, nobody_waits_behind_the_fences_for_a_page_of_counts)
{
	uint8_t *one = filled(1, 1);
	struct op same, write;

	engine_reopen(&engine); /* nothing is in memory now */
	holding.counts = true;
	begin_same(&same);
	cr_assert(op_is_stuck(&same), "it waits for the counts");
	op_write(&engine, &write, bytes(DST + 7), BLOCK_BYTES, one);
	cr_expect_not(op_is_stuck(&write), "a private block, overwritten in place");
	cr_expect(write.done);
	release();
	cr_expect_eq(op_finish(&write), 0);
	cr_expect_eq(op_finish(&same), 0);
	cr_expect_not(same.request.same.differs);
	cr_expect_eq(engine_references(&engine, DST + 7, NULL), 2);
	free(one);
}

Test(same_races, row_14_writes_to_the_ranges_wait_and_are_not_lost_and_reads_go_on)
{
	uint8_t *two = filled(2, 1), *three = filled(3, 1), *four = filled(4, 1);
	struct op same, held, to_src, to_dst;

	merge_against_a_write_in_flight(&same, &held, DST, two);
	op_write(&engine, &to_src, bytes(SRC + 5), BLOCK_BYTES, three);
	op_write(&engine, &to_dst, bytes(DST + 7), BLOCK_BYTES, four);
	/* The range closed for the merge keeps later writes out ... */
	holding.writes = false;
	cr_expect(op_is_stuck(&to_dst));
	/* ... but no reads, and nothing elsewhere. */
	cr_expect(engine_holds(&engine, SRC, RANGE, 1));
	cr_expect(engine_holds(&engine, DST + 1, RANGE - 1, 1));
	cr_expect_eq(engine_write(&engine, THIRD, 1, 5), 0);
	cr_expect_eq(engine_write(&engine, DST + RANGE, 1, 6), 0);
	release();
	cr_expect_eq(op_finish(&held), 0);
	cr_expect_eq(op_finish(&to_src), 0);
	cr_expect_eq(op_finish(&to_dst), 0);
	cr_expect_eq(op_finish(&same), 0);
	cr_expect(engine_holds(&engine, DST, 1, 2));
	cr_expect(engine_holds(&engine, SRC + 5, 1, 3));
	cr_expect(engine_holds(&engine, DST + 7, 1, 4));
	cr_expect(engine_holds(&engine, SRC + 6, RANGE - 6, 1));
	cr_expect(engine_holds(&engine, DST + 8, RANGE - 8, 1));
	free(two);
	free(three);
	free(four);
}

/* Writers that came during the merge find shared blocks when it is over: they must not go in place.
 * */
Test(same_races, row_14_a_write_that_waited_for_the_merge_looks_its_mapping_up_again)
{
	for (int to_source = 0; to_source < 2; to_source++) {
		uint64_t block = (to_source ? SRC : DST) + 9;
		uint8_t *one = filled(1, 1), *two = filled(2, 1);
		struct op same, same_content, write;

		merge_against_a_write_in_flight(&same, &same_content, DST, one);
		holding.writes = false;
		op_write(&engine, &write, bytes(block), BLOCK_BYTES, two);
		cr_assert(!write.done);
		release();
		cr_expect_eq(op_finish(&same_content), 0);
		cr_expect_eq(op_finish(&same), 0);
		cr_expect(!same.request.same.differs);
		cr_expect_eq(op_finish(&write), 0);
		cr_expect(engine_holds(&engine, block, 1, 2));
		cr_expect(engine_holds(&engine, (to_source ? DST : SRC) + 9, 1, 1));
		engine_write(&engine, SRC, RANGE, 1);
		engine_write(&engine, DST, RANGE, 1);
		engine_flush(&engine);
		free(one);
		free(two);
	}
}

Test(same_races, row_15_a_write_in_place_that_lands_before_the_fence_makes_it_differs)
{
	for (int to_source = 0; to_source < 2; to_source++) {
		uint64_t block = (to_source ? SRC : DST) + 3;
		uint8_t *two = filled(2, 1);
		struct op same, write;

		merge_against_a_write_in_flight(&same, &write, block, two);
		release();
		cr_expect_eq(op_finish(&write), 0);
		cr_expect_eq(op_finish(&same), 0, "no error");
		cr_expect(same.request.same.differs);
		cr_expect_eq(same.request.same.deduped_bytes, 0);
		cr_expect_eq(same.request.same.differs_at_bytes, bytes(3) + 4);
		cr_expect(engine_holds(&engine, block, 1, 2));
		cr_expect_eq(engine_references(&engine, SRC, NULL), 1);
		engine_write(&engine, block, 1, 1);
		free(two);
	}
}

static void row_15_by(enum request_op what, uint64_t block)
{
	struct op same, change = {.request = {.op = what,
					      .off_bytes = bytes(block),
					      .len_bytes = BLOCK_BYTES,
					      .src_off_bytes = bytes(THIRD)}};

	/* The compare is under way: it reads what was there before the change. */
	holding.reads = true;
	begin_same(&same);
	cr_assert(op_is_stuck(&same));
	cr_assert(store_mem_in_flight(&engine.mem, 0) > 0);
	op_submit(&engine, &change, 0);
	cr_assert_eq(op_finish(&change), 0, "an unfenced compare keeps nobody waiting");
	release();
	cr_expect_eq(op_finish(&same), 0);
	cr_expect(same.request.same.differs);
	cr_expect_eq(same.request.same.deduped_bytes, 0);
	cr_expect(engine_holds(&engine, block, 1, what == REQUEST_CLONE ? 9 : 0));
	cr_expect_eq(engine_references(&engine, SRC + 1, NULL), 1);
}

Test(same_races, row_15_by_a_discard_of_the_destination)
{
	row_15_by(REQUEST_DISCARD, DST + 5);
}

Test(same_races, row_15_by_a_discard_of_the_source)
{
	row_15_by(REQUEST_DISCARD, SRC + 5);
}

Test(same_races, row_15_by_zeroes)
{
	row_15_by(REQUEST_ZERO, DST);
}

Test(same_races, row_15_by_a_clone_onto_the_destination)
{
	row_15_by(REQUEST_CLONE, DST + RANGE - 1);
}

Test(same_races, row_15_by_a_clone_onto_the_source)
{
	row_15_by(REQUEST_CLONE, SRC + RANGE - 1);
}

/* A copy-on-write or a first write during the compare changes the mapping that was compared. */
Test(same_races, row_15_by_a_copy_on_write_during_the_compare)
{
	for (int to_source = 0; to_source < 2; to_source++) {
		uint64_t block = (to_source ? SRC : DST) + 3;
		struct op same;

		cr_assert_eq(engine_clone(&engine, SRC, RANGE, THIRD + 100), 0);
		cr_assert_eq(engine_clone(&engine, DST, RANGE, THIRD + 200), 0);
		holding.reads = true;
		begin_same(&same);
		cr_assert(op_is_stuck(&same));
		cr_assert_eq(engine_write(&engine, block, 1, 2), 0);
		release();
		cr_expect_eq(op_finish(&same), 0);
		cr_expect(same.request.same.differs);
		cr_expect(engine_holds(&engine, block, 1, 2));
		engine_write(&engine, block, 1, 1);
	}
}

Test(same_races, row_20_a_read_error_while_comparing_is_eio_for_that_destination_alone)
{
	struct same_dst dsts[] = {{.off_bytes = bytes(DST)}, {.off_bytes = bytes(DST + 100)}};
	struct same_job job = {.src_off_bytes = bytes(SRC),
			       .len_bytes = bytes(RANGE),
			       .dsts = dsts,
			       .dst_count = 2};
	pbn_t bad;

	engine_write(&engine, DST + 100, RANGE, 1);
	engine_references(&engine, DST + 11, &bad);
	holding.error_off_bytes = pbn_off_bytes(bad);
	holding.read_error = -EIO;
	cr_assert_eq(engine_job(&engine, &job), 0);
	cr_expect_eq(dsts[0].error, -EIO);
	cr_expect(!dsts[0].result.differs && dsts[0].result.deduped_bytes == 0);
	cr_expect_eq(dsts[1].error, 0);
	cr_expect_eq(dsts[1].result.deduped_bytes, bytes(RANGE));
	cr_expect_eq(engine_references(&engine, DST, NULL), 1);
	cr_expect_eq(engine_stats(&engine).state, VOLUME_OK, "a data block is no metadata");
}

Test(same_races, row_20_a_read_error_of_the_source_is_never_same_either)
{
	uint32_t places[] = {0, 11, RANGE - 1};

	for (unsigned i = 0; i < 3; i++) {
		struct same_result result;
		pbn_t bad;

		engine_references(&engine, SRC + places[i], &bad);
		holding.error_off_bytes = pbn_off_bytes(bad);
		holding.read_error = -EIO;
		cr_expect_eq(engine_same(&engine, SRC, RANGE, DST, &result), -EIO);
		cr_expect_eq(result.deduped_bytes, 0);
		cr_expect_eq(engine_references(&engine, SRC, NULL), 1);
	}
}

/* The compare inside the fence, too. */
Test(same_races, row_20_a_read_error_inside_the_fence)
{
	uint8_t *one = filled(1, 1);
	struct op same, write;
	pbn_t bad;

	engine_references(&engine, SRC + 11, &bad);
	merge_against_a_write_in_flight(&same, &write, DST, one);
	release();
	holding.error_off_bytes = pbn_off_bytes(bad);
	holding.read_error = -EIO;
	cr_expect_eq(op_finish(&write), 0);
	cr_expect_eq(op_finish(&same), -EIO);
	cr_expect_eq(same.request.same.deduped_bytes, 0);
	cr_expect_eq(engine_references(&engine, SRC, NULL), 1);
	/* The fences are gone. */
	cr_expect_eq(engine_write(&engine, SRC, RANGE, 3), 0);
	cr_expect_eq(engine_write(&engine, DST, RANGE, 3), 0);
	free(one);
}

static _Atomic bool cancel;

Test(same_races, row_21_what_was_merged_before_an_interruption_stays_and_the_rest_is_ecanceled)
{
	struct op same = {.request = {.op = REQUEST_SAME,
				      .off_bytes = bytes(1024),
				      .len_bytes = bytes(768),
				      .src_off_bytes = 0,
				      .cancel = &cancel}};

	cr_assert_eq(engine_write(&engine, 0, 768, 1), 0);
	cr_assert_eq(engine_write(&engine, 1024, 768, 1), 0);
	op_submit(&engine, &same, 0);
	while (same.request.same.deduped_bytes == 0 && engine_step(&engine))
		;
	cancel = true;
	cr_expect_eq(op_finish(&same), -ECANCELED);
	cr_expect(same.request.same.deduped_bytes >= bytes(256) &&
		  same.request.same.deduped_bytes < bytes(768));
	for (uint64_t block = 0; block < 768; block += 127)
		cr_expect_eq(engine_references(&engine, 1024 + block, NULL),
			     bytes(block) < same.request.same.deduped_bytes ? 2 : 1);
	cr_expect(engine_holds(&engine, 1024, 768, 1));
	cancel = false;
}

Test(same_races, row_21_destinations_that_were_not_begun_are_ecanceled_too)
{
	struct same_dst dsts[] = {{.off_bytes = bytes(DST)}, {.off_bytes = bytes(DST + 100)}};
	struct same_job job = {.src_off_bytes = bytes(SRC),
			       .len_bytes = bytes(RANGE),
			       .dsts = dsts,
			       .dst_count = 2,
			       .cancel = &cancel};

	cancel = true;
	cr_assert_eq(engine_job(&engine, &job), 0);
	cr_expect(dsts[0].error == -ECANCELED && dsts[1].error == -ECANCELED);
	cr_expect_eq(engine_references(&engine, SRC, NULL), 1);
	cancel = false;
	volume_cancel(engine.volume); /* the server shuts down */
	cr_assert_eq(engine_job(&engine, &job), 0);
	cr_expect(dsts[0].error == -ECANCELED && dsts[1].error == -ECANCELED);
}

Test(same_races, row_23_a_merge_by_itself_asks_for_no_flush)
{
	uint64_t flushes;

	engine_flush(&engine);
	flushes = store_mem_ops(&engine.mem, STORE_FLUSH);
	cr_assert_eq(engine_same(&engine, SRC, RANGE, DST, NULL), 0);
	engine_settle(&engine);
	cr_expect_eq(store_mem_ops(&engine.mem, STORE_FLUSH), flushes);
}

/* Merged with or without sync, flushed before or not: after a power cut the contents stand. */
static void row_23_cut(bool sync, bool flushed)
{
	struct same_dst dst = {.off_bytes = bytes(DST)};
	struct same_job job = {.src_off_bytes = bytes(SRC),
			       .len_bytes = bytes(RANGE),
			       .dsts = &dst,
			       .dst_count = 1,
			       .sync = sync};

	engine_done(&engine);
	init(&(struct engine_options){.cached = true});
	engine_write(&engine, SRC, RANGE, 1);
	engine_write(&engine, DST, RANGE, 1);
	if (flushed)
		engine_flush(&engine);
	cr_assert_eq(engine_job(&engine, &job), 0);
	cr_assert_eq(dst.error, 0);
	engine_cut(&engine, NULL, NULL);
	cr_assert_eq(engine_open(&engine), 0);
	if (sync)
		cr_expect_eq(engine_references(&engine, DST, NULL), 2);
	if (sync || flushed)
		cr_expect(engine_holds(&engine, SRC, RANGE, 1) &&
			  engine_holds(&engine, DST, RANGE, 1));
}

Test(same_races, row_23_with_sync_the_sharing_survives_a_power_cut)
{
	row_23_cut(true, true);
	row_23_cut(true, false);
}

Test(same_races, row_23_without_sync_nothing_is_promised_but_the_contents)
{
	row_23_cut(false, true);
}

static bool is_ring(void *context, uint64_t off_bytes)
{
	const struct geometry *geometry = context;
	uint64_t block = off_bytes / BLOCK_BYTES;

	return block >= geometry->ring_start &&
	       block < geometry->ring_start + geometry->ring_blocks;
}

/* Flushed data merged onto a source that is still in the volatile cache; then a flush that a power
 * cut ends after so many steps, of which the journal alone survives. True: the flush was over. */
static bool cut_a_commit_after(int steps)
{
	struct op flush = {.request = {.op = REQUEST_FLUSH}};
	struct geometry geometry;
	bool over;

	engine_done(&engine);
	init(&(struct engine_options){.cached = true});
	geometry = engine.volume->metadata->super.geometry;
	engine_write(&engine, SRC, RANGE, 7);
	engine_write(&engine, DST, RANGE, 1);
	engine_flush(&engine);
	engine_write(&engine, SRC, RANGE, 1); /* in place, volatile */
	cr_assert_eq(engine_same(&engine, SRC, RANGE, DST, NULL), 0);
	op_submit(&engine, &flush, 0);
	while (steps-- > 0 && !flush.done)
		engine_step(&engine);
	over = flush.done;
	engine_cut(&engine, is_ring, &geometry);
	free(flush.request.scratch);
	cr_assert_eq(engine_open(&engine), 0);
	cr_assert(engine_holds(&engine, DST, RANGE, 1), "flushed data is lost");
	return over;
}

Test(same_races, row_23_no_commit_maps_flushed_data_onto_a_volatile_source)
{
	int steps = 0;

	while (!cut_a_commit_after(steps))
		cr_assert(++steps < 100);
	cr_assert(steps > 4);
}

Test(same_races, row_25_nothing_is_read_under_the_fence_when_nothing_was_written_since)
{
	struct same_result result;

	cr_assert_eq(engine_same(&engine, SRC, RANGE, DST, &result), 0);
	cr_expect_eq(result.deduped_bytes, bytes(RANGE));
	cr_expect_eq(result.fenced_read_bytes, 0);
	cr_expect_eq(engine_stats(&engine).fenced_read_bytes, 0);
	cr_expect_eq(holding.urgent_bytes, 0);
}

Test(same_races, row_25_a_read_or_a_write_elsewhere_does_not_count)
{
	struct op same;

	holding.reads = true;
	begin_same(&same);
	cr_assert(op_is_stuck(&same));
	cr_assert_eq(engine_write(&engine, DST + RANGE, 1, 3), 0);
	cr_assert_eq(engine_write(&engine, DST - 1, 1, 3), 0);
	cr_assert_eq(engine_write(&engine, SRC + RANGE, 1, 3), 0);
	release();
	cr_assert_eq(op_finish(&same), 0);
	cr_expect_eq(same.request.same.deduped_bytes, bytes(RANGE));
	cr_expect_eq(same.request.same.fenced_read_bytes, 0);
}

Test(same_races, row_25_a_write_since_the_watch_is_compared_again_inside_the_fence)
{
	for (int to_source = 0; to_source < 2; to_source++) {
		struct op same;

		holding.reads = true;
		begin_same(&same);
		cr_assert(op_is_stuck(&same));
		/* The same content: it is still equal, but that has to be proven. */
		cr_assert_eq(engine_write(&engine, (to_source ? SRC : DST) + 3, 1, 1), 0);
		release();
		cr_assert_eq(op_finish(&same), 0);
		cr_expect(!same.request.same.differs);
		cr_expect_eq(same.request.same.deduped_bytes, bytes(RANGE));
		cr_expect_eq(same.request.same.fenced_read_bytes, 2 * bytes(RANGE));
		/* A store that compares hears that somebody waits for it. */
		cr_expect_eq(holding.urgent_bytes, STORE_COMPARES ? bytes(RANGE) : 0);
		cr_expect_eq(engine_stats(&engine).fenced_read_bytes,
			     same.request.same.fenced_read_bytes);
		engine_done(&engine);
		start();
	}
}

/* While the large reads of the compare run, writers do not wait. */
Test(same_races, row_25_no_writer_waits_for_the_unfenced_compare)
{
	uint64_t waits = engine_stats(&engine).fence_waits;
	struct op same;

	holding.reads = true;
	begin_same(&same);
	cr_assert(op_is_stuck(&same));
	cr_expect_eq(engine_write(&engine, SRC, RANGE, 4), 0);
	cr_expect_eq(engine_write(&engine, DST, RANGE, 4), 0);
	cr_expect_eq(engine_stats(&engine).fence_waits, waits);
	release();
	cr_expect_eq(op_finish(&same), 0);
	cr_expect(engine_holds(&engine, SRC, RANGE, 4) && engine_holds(&engine, DST, RANGE, 4));
}

/* --- any order --- */

struct race {
	struct rng rng;
	struct op ops[RACING_MAX];
	uint8_t *data[RACING_MAX];
	uint32_t blocks[RACING_MAX];
	uint32_t patterns[RACING_MAX];
	uint32_t count;
};

static void begin_racer(struct race *race)
{
	uint32_t n = race->count++;
	struct op *op = &race->ops[n];
	uint32_t where = rng_below(&race->rng, RANGE);
	bool discard = rng_once_in(&race->rng, 4);

	race->blocks[n] = (rng_once_in(&race->rng, 2) ? SRC : DST) + where;
	race->patterns[n] = discard ? 0 : rng_once_in(&race->rng, 4) ? 1 : 100 + n;
	race->data[n] = filled(race->patterns[n], 1);
	*op = (struct op){.request = {.op = discard ? REQUEST_DISCARD : REQUEST_WRITE,
				      .off_bytes = bytes(race->blocks[n]),
				      .len_bytes = BLOCK_BYTES,
				      .data = race->data[n]}};
	op_submit(&engine, op, 0);
}

/* What a block holds is what somebody wrote there last; racers of one block may come in any order.
 * */
static bool is_possible(const struct race *race, uint64_t block)
{
	bool raced = false;

	for (uint32_t i = 0; i < race->count; i++) {
		if (race->blocks[i] != block)
			continue;
		raced = true;
		if (engine_holds(&engine, block, 1, race->patterns[i]))
			return true;
	}
	return !raced && engine_holds(&engine, block, 1, 1);
}

Test(same_races, row_14_and_15_in_any_order_no_write_is_lost_and_no_other_block_changes)
{
	static struct race race;
	struct op same;

	engine.mem.order = MEM_ORDER_RANDOM;
	for (int n = 0; n < RACES; n++) {
		race = (struct race){.rng = rng_for(25, n)};
		engine_write(&engine, SRC, RANGE, 1);
		engine_write(&engine, DST, RANGE, 1);
		if (rng_once_in(&race.rng, 2))
			engine_flush(&engine);
		begin_racer(&race);
		begin_same(&same);
		while (race.count < RACING_MAX) {
			for (uint32_t i = rng_below(&race.rng, 8); i > 0; i--)
				engine_step(&engine);
			begin_racer(&race);
		}
		cr_assert_eq(op_finish(&same), 0);
		for (uint32_t i = 0; i < race.count; i++) {
			cr_assert_eq(op_finish(&race.ops[i]), 0);
			free(race.data[i]);
		}
		for (uint64_t i = 0; i < RANGE; i++)
			cr_assert(is_possible(&race, SRC + i) && is_possible(&race, DST + i),
				  "race %d, block %lu", n, i);
	}
}
