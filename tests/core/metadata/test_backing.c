/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_backing - a backing without space: metadata waits for it, data is refused, nothing latches
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/request/request_internal.h"
#include "core/volume/volume_internal.h"
#include "tests/lib/engine.h"

#define OLD    0u /* written and durable before the backing is full */
#define NEW    600u
#define TICKS  40u
#define LEAVES (CACHE_FRAMES_MIN + 20)

static struct engine engine;
static struct geometry geometry;
static int error; /* of the writes that are refused */
static bool (*refused)(uint64_t block);
static unsigned logged, pauses, pauses_max;

static bool is_data(uint64_t block)
{
	return block >= geometry.data_start && (block - geometry.data_start) % SLAB_BLOCKS >= 2;
}

static bool is_metadata(uint64_t block)
{
	return block < geometry.data_start;
}

static bool is_ring(uint64_t block)
{
	return block >= geometry.ring_start && block < geometry.ring_start + geometry.ring_blocks;
}

static bool is_super_or_top(uint64_t block)
{
	return is_metadata(block) && !is_ring(block);
}

static bool is_tracking(uint64_t block)
{
	return block >= geometry.tracking_start && block < geometry.data_start;
}

static bool is_any(uint64_t block)
{
	(void)block;
	return true;
}

static int hook(void *context, const struct store_io *io)
{
	(void)context;
	return io->op == STORE_WRITE && refused && refused(io->off_bytes / BLOCK_BYTES) ? error : 0;
}

static void keep_line(void *context, const char *text)
{
	(void)context;
	if (strstr(text, "backing"))
		logged++;
}

/* The backing has space again after some pauses. */
static bool pause_a_while(void *context)
{
	(void)context;
	if (++pauses == 3)
		refused = NULL;
	return pauses < pauses_max;
}

static void start(void)
{
	refused = NULL;
	error = -ENOSPC;
	logged = pauses = 0;
	pauses_max = 0;
	engine_init(&engine, &(struct engine_options){
				     .cached = true,
				     .tracking = true,
				     .volume = {.log = keep_line, .lacking = pause_a_while}});
	geometry = engine.volume->metadata->super.geometry;
	engine.mem.hook = hook;
	cr_assert_eq(engine_write(&engine, OLD, 100, 1), 0);
	cr_assert_eq(engine_flush(&engine), 0);
}

static void stop(void)
{
	refused = NULL;
	engine_done(&engine);
}

TestSuite(backing, .init = start, .fini = stop);

static void tick(unsigned times)
{
	for (unsigned i = 0; i < times; i++) {
		volume_tick(engine.volume, &engine.workers[0]);
		engine_settle(&engine);
	}
}

static void flush_begin(struct op *op)
{
	*op = (struct op){.request = {.op = REQUEST_FLUSH}};
	op_submit(&engine, op, 0);
}

/* --- metadata --- */

static void expect_waits(int with)
{
	struct op flush;

	error = with;
	cr_assert_eq(engine_write(&engine, NEW, 1, 2), 0);
	refused = is_metadata;
	flush_begin(&flush);
	cr_expect(op_is_stuck(&flush));
	cr_expect_eq(engine_stats(&engine).state, VOLUME_BACKING_FULL);
	cr_expect(strstr(engine_stats(&engine).backing_text, "metadata"));
	tick(TICKS);
	cr_expect(op_is_stuck(&flush), "a flush is answered before it is durable");
	cr_expect_eq(logged, 1, "%u lines", logged);
	/* New blocks are refused, what needs none goes on. */
	cr_expect_eq(engine_write(&engine, NEW + 1, 1, 3), -ENOSPC);
	cr_expect_eq(engine_clone(&engine, OLD, 10, NEW + 20), -ENOSPC);
	cr_expect_eq(engine_write(&engine, OLD, 10, 4), 0);
	cr_expect(engine_holds(&engine, OLD, 10, 4));
	cr_expect_eq(engine_discard(&engine, OLD + 50, 10), 0);
	cr_expect(engine_holds(&engine, OLD + 50, 10, 0));
	refused = NULL;
	tick(TICKS);
	cr_expect_eq(op_finish(&flush), 0);
	cr_expect_eq(logged, 2, "%u lines", logged);
	cr_expect_eq(engine_stats(&engine).state, VOLUME_OK);
	cr_expect_eq(engine_write(&engine, NEW + 1, 1, 3), 0);
	cr_expect_eq(engine_flush(&engine), 0);
	engine_cut(&engine, NULL, NULL);
	cr_assert_eq(engine_open(&engine), 0, "%s", engine.damage.text);
	cr_expect(engine_holds(&engine, NEW, 1, 2));
	cr_expect(engine_holds(&engine, NEW + 1, 1, 3));
	cr_expect(engine_holds(&engine, OLD, 10, 4));
	cr_expect(engine_holds(&engine, OLD + 50, 10, 0));
}

/* Before: -EIO, and the volume was latched, "a journal write failed: No space left on device". */
Test(backing, a_journal_write_without_space_waits_and_nothing_latches)
{
	expect_waits(-ENOSPC);
}

Test(backing, a_quota_and_a_file_size_limit_are_waited_for_as_well)
{
	expect_waits(-EDQUOT);
	engine_done(&engine);
	start();
	expect_waits(-EFBIG);
}

Test(backing, a_checkpoint_without_space_waits_and_goes_on)
{
	cr_assert_eq(engine_write(&engine, NEW, 10, 2), 0);
	cr_assert_eq(engine_flush(&engine), 0);
	refused = is_super_or_top;
	volume_checkpoint(engine.volume, &engine.workers[0]);
	engine_settle(&engine);
	tick(TICKS);
	cr_expect_eq(engine_stats(&engine).state, VOLUME_BACKING_FULL);
	cr_expect_eq(engine_stats(&engine).checkpoints, 1);
	refused = NULL;
	tick(TICKS);
	cr_expect_eq(engine_stats(&engine).state, VOLUME_OK);
	cr_expect_eq(engine_stats(&engine).checkpoints, 2);
	engine_cut(&engine, NULL, NULL);
	cr_assert_eq(engine_open(&engine), 0, "%s", engine.damage.text);
	cr_expect(engine_holds(&engine, NEW, 10, 2));
}

/* The journal's open group is full: a write in the queue is refused, a discard stays. */
Test(backing, who_waits_for_room_is_refused_unless_it_makes_space)
{
	struct op discard = {
		.request = {.op = REQUEST_DISCARD, .off_bytes = 0, .len_bytes = BLOCK_BYTES}};
	struct op flush, write;
	void *data = calloc(1, BLOCK_BYTES);
	uint32_t capacity = engine.volume->metadata->journal.capacity_records;

	cr_assert_eq(engine_write(&engine, NEW, 1, 2), 0);
	engine.volume->metadata->journal.capacity_records = 0;
	op_write(&engine, &write, (NEW + 1) * BLOCK_BYTES, BLOCK_BYTES, data);
	op_submit(&engine, &discard, 0);
	refused = is_metadata;
	flush_begin(&flush);
	engine_settle(&engine);
	cr_expect_eq(op_finish(&write), -ENOSPC);
	cr_expect(op_is_stuck(&discard));
	engine.volume->metadata->journal.capacity_records = capacity;
	refused = NULL;
	tick(TICKS);
	cr_expect_eq(op_finish(&discard), 0);
	cr_expect_eq(op_finish(&flush), 0);
	free(data);
}

/* The mark of an area at rest is metadata. Before: not answered until there was space. */
Test(backing, who_waits_for_a_mark_is_refused)
{
	struct same_result same;

	cr_assert_eq(engine_clone(&engine, OLD, 20, NEW), 0);
	cr_assert_eq(engine_write(&engine, NEW + 20, 20, 1), 0);
	engine_reopen(&engine);
	refused = is_tracking;
	cr_expect_eq(engine_write(&engine, OLD, 1, 4), -ENOSPC, "the first, which wanted it");
	cr_expect_eq(engine_write(&engine, OLD, 1, 4), -ENOSPC);
	cr_expect_eq(engine_clone(&engine, OLD, 10, NEW + 50), -ENOSPC);
	cr_expect_eq(engine_zero(&engine, OLD, 10), -ENOSPC);
	cr_expect_eq(engine_discard(&engine, OLD, 10), -ENOSPC);
	cr_expect_eq(engine_stats(&engine).state, VOLUME_BACKING_FULL);
	cr_expect(engine_holds(&engine, OLD, 100, 1));
	refused = NULL;
	tick(TICKS);
	cr_expect_eq(engine_stats(&engine).state, VOLUME_OK);
	cr_expect_eq(engine_same(&engine, OLD + 20, 20, NEW + 20, &same), 0);
	cr_expect_eq(engine_write(&engine, OLD, 1, 4), 0);
	cr_expect_eq(engine_discard(&engine, OLD + 10, 10), 0);
	cr_expect(engine_holds(&engine, OLD, 1, 4));
	cr_expect(engine_holds(&engine, OLD + 10, 10, 0));
}

static unsigned woken;

static void count_woken(struct task *task)
{
	(void)task;
	woken++;
}

/* Another thread may have looked at the backing just before it lacked space. */
Test(backing, who_asks_for_a_mark_too_late_is_told_to_look_again)
{
	struct wait wait;

	engine_reopen(&engine);
	refused = is_tracking;
	cr_expect_eq(engine_write(&engine, OLD, 1, 4), -ENOSPC);
	woken = 0;
	wait_init(&wait, &engine.workers[0], count_woken);
	cr_assert(tracking_ask(&engine.volume->tracking, 0, &wait));
	engine_settle(&engine);
	cr_expect_eq(woken, 1);
	refused = NULL;
	tick(TICKS);
}

static int answer; /* of the room that was asked for */

static void room_came(struct request *request)
{
	answer = request->wait.res;
}

/* The same of room in the journal. Before: it waited for the backing to have space. */
Test(backing, who_asks_for_room_too_late_is_refused)
{
	struct op write, flush;
	void *data = calloc(1, BLOCK_BYTES);

	cr_assert_eq(engine_write(&engine, NEW, 1, 2), 0);
	refused = is_metadata;
	flush_begin(&flush);
	cr_expect(op_is_stuck(&flush));
	engine.volume->metadata->journal.capacity_records = 0;
	op_write(&engine, &write, (NEW + 1) * BLOCK_BYTES, BLOCK_BYTES, data);
	cr_expect_eq(op_finish(&write), -ENOSPC, "who looks first asks for none");
	write.request.magic = REQUEST_MAGIC; /* as if it had looked before */
	answer = 0;
	cr_expect_not(request_reserve(&write.request, 1, room_came));
	engine_settle(&engine);
	cr_expect_eq(answer, -ENOSPC);
	engine_kill(&engine);
	refused = NULL;
	free(data);
}

/* A flush that fails meanwhile latches as ever, and nobody waits any more. */
Test(backing, a_volume_that_latches_while_metadata_waits_closes)
{
	struct op flush;

	cr_assert_eq(engine_write(&engine, NEW, 1, 2), 0);
	refused = is_metadata;
	flush_begin(&flush);
	engine_settle(&engine);
	pthread_mutex_lock(&engine.volume->metadata->lock);
	metadata_latch(engine.volume->metadata, -EIO, "a test");
	pthread_mutex_unlock(&engine.volume->metadata->lock);
	cr_expect_eq(op_finish(&flush), -EIO);
	tick(TICKS);
	cr_expect_eq(engine_close(&engine), -EIO);
}

/* --- opening and closing --- */

Test(backing, a_crashed_store_opens_when_there_is_space_again)
{
	engine_kill(&engine);
	engine.options.volume.lacking = pause_a_while;
	pauses_max = 10;
	cr_assert_eq(engine_open(&engine), 0);
	cr_assert_eq(engine_write(&engine, NEW, 1, 2), 0);
	cr_assert_eq(engine_flush(&engine), 0);
	engine_kill(&engine);
	pauses = 0;
	refused = is_any;
	cr_expect_eq(engine_open(&engine), 0, "%s", engine.damage.text);
	cr_expect_eq(pauses, 3, "%u pauses", pauses);
	cr_expect(engine_holds(&engine, NEW, 1, 2));
}

Test(backing, opening_gives_up_with_a_word_when_there_is_none)
{
	engine_kill(&engine);
	refused = is_any;
	pauses_max = 2;
	cr_expect_eq(engine_open(&engine), -ENOSPC);
	cr_expect(strstr(engine.damage.text, "no space for metadata"), "%s", engine.damage.text);
	refused = NULL;
	cr_assert_eq(engine_open(&engine), 0, "%s", engine.damage.text);
	cr_expect(engine_holds(&engine, OLD, 100, 1));
}

/* The pages of change tracking that cannot be read are written anew before anything else is. */
static void tear_tracking_page(void)
{
	uint8_t torn[BLOCK_BYTES];

	engine_kill(&engine);
	memset(torn, 0x5a, sizeof(torn));
	store_mem_poke(&engine.mem, blocks_to_bytes(geometry_tracking_block(&geometry, 0)), torn,
		       sizeof(torn));
	refused = is_tracking;
}

/* Before: "writing a tracking page: No space left on device", at once. */
Test(backing, a_torn_tracking_page_is_replaced_when_there_is_space_again)
{
	tear_tracking_page();
	pauses_max = 10;
	cr_expect_eq(engine_open(&engine), 0, "%s", engine.damage.text);
	cr_expect_eq(pauses, 3, "%u pauses", pauses);
	cr_expect_eq(engine_stats(&engine).state, VOLUME_OK);
	cr_expect(engine_holds(&engine, OLD, 100, 1));
}

Test(backing, a_torn_tracking_page_for_which_there_is_no_space_is_told)
{
	tear_tracking_page();
	pauses_max = 2;
	cr_expect_eq(engine_open(&engine), -ENOSPC);
	cr_expect(strstr(engine.damage.text, "no space for metadata"), "%s", engine.damage.text);
	cr_expect_eq(pauses, 2, "%u pauses", pauses);
	engine.options.volume.read_only = true; /* as the server goes on then */
	cr_assert_eq(engine_open(&engine), 0, "%s", engine.damage.text);
	cr_expect(engine_holds(&engine, OLD, 100, 1));
}

Test(backing, closing_gives_up_and_recovery_does_the_rest)
{
	cr_assert_eq(engine_write(&engine, NEW, 1, 2), 0);
	cr_assert_eq(engine_flush(&engine), 0);
	refused = is_any;
	pauses_max = 2;
	cr_expect_eq(engine_close(&engine), -ENOSPC);
	refused = NULL;
	cr_assert_eq(engine_open(&engine), 0, "%s", engine.damage.text);
	cr_expect(engine_holds(&engine, NEW, 1, 2));
}

/* Before: it waited for a task that was posted to the other worker, for ever. */
Test(backing, closing_goes_on_with_what_another_worker_began)
{
	static bool (*const lacks[])(uint64_t block) = {is_ring, is_super_or_top, is_tracking};
	const struct engine_options options = {
		.tracking = true,
		.lane_count = 2,
		.volume = {.log = keep_line, .lacking = pause_a_while},
	};

	for (unsigned i = 0; i < 3; i++) {
		engine_done(&engine);
		engine_init(&engine, &options);
		engine.mem.hook = hook;
		pauses = 0;
		pauses_max = 10;
		cr_assert_eq(engine_write(&engine, NEW, 10, 2), 0);
		refused = lacks[i];
		volume_checkpoint(engine.volume, &engine.workers[1]);
		engine_settle(&engine);
		cr_expect_eq(engine_close(&engine), 0, "%u", i);
		cr_assert_eq(engine_open(&engine), 0, "%s", engine.damage.text);
		cr_expect(engine_holds(&engine, NEW, 10, 2));
	}
}

/* No space, and more leaves than there are frames, of which discards have made half of the frames
 * dirty. What is left of five regions is due. */
static void fill_half_of_cache(void)
{
	struct volume *volume;

	engine_init(&engine, &(struct engine_options){.logical_bytes = 200 * REGION_BYTES,
						      .store_bytes = 256ull << 20,
						      .ring_blocks = 512,
						      .lane_count = 2,
						      .volume = {.cow_hint_blocks = 1,
								 .discard = true,
								 .lacking = pause_a_while}});
	engine.mem.hook = hook;
	for (uint64_t i = 0; i < 5; i++)
		cr_assert_eq(engine_write(&engine, i * REGION_BLOCKS, REGION_BLOCKS, 1), 0);
	engine.volume->metadata->pending.discard = false; /* all is left */
	cr_assert_eq(engine_discard(&engine, 0, 5 * REGION_BLOCKS), 0);
	engine_checkpoint(&engine);
	for (uint64_t i = 5; i < 5 + LEAVES; i++) {
		cr_assert_eq(engine_write(&engine, i * REGION_BLOCKS + 3, 1, 2), 0);
		cr_assert_eq(engine_write(&engine, i * REGION_BLOCKS + 8, 1, 2), 0);
	}
	engine_reopen(&engine);
	refused = is_any;
	volume = engine.volume;
	for (uint64_t i = 5;
	     volume->metadata->cache.dirty_count <= volume->metadata->cache.frame_count / 2; i++)
		cr_assert_eq(engine_discard(&engine, i * REGION_BLOCKS + 3, 1), 0);
	pthread_mutex_lock(&volume->metadata->lock);
	journal_kick(&volume->metadata->journal, &engine.workers[0]);
	pthread_mutex_unlock(&volume->metadata->lock);
	engine_settle(&engine);
	cr_assert(backing_is_lacking(&volume->metadata->backing));
}

/* Before: discards made all of the cache dirty, and reads waited for space as well. */
Test(backing, reads_go_on_beside_discards_that_are_many)
{
	static struct op discards[LEAVES];
	uint8_t block[BLOCK_BYTES];

	engine_done(&engine);
	fill_half_of_cache();
	for (uint64_t i = 0; i < LEAVES; i++) {
		discards[i] = (struct op){
			.request = {.op = REQUEST_DISCARD,
				    .off_bytes = (5 + i) * REGION_BYTES + 3 * BLOCK_BYTES,
				    .len_bytes = BLOCK_BYTES}};
		op_submit(&engine, &discards[i], 0);
		engine_settle(&engine);
	}
	cr_expect(!discards[LEAVES - 1].done);
	for (uint64_t i = 5; i < 5 + LEAVES; i++) {
		struct op read = {.request = {.op = REQUEST_READ,
					      .off_bytes = i * REGION_BYTES,
					      .len_bytes = BLOCK_BYTES,
					      .data = block}};

		op_submit(&engine, &read, 0);
		cr_assert(!op_is_stuck(&read), "region %lu", i);
		cr_expect_eq(op_finish(&read), 0);
	}
	refused = NULL;
	tick(TICKS);
	for (uint64_t i = 0; i < LEAVES; i++)
		cr_expect_eq(op_finish(&discards[i]), 0);
}

/* Beside the first half: by edits from before there was no space. */
static void fill_cache(void)
{
	struct cache *cache;

	fill_half_of_cache();
	cache = &engine.volume->metadata->cache;
	for (uint64_t i = 4 + LEAVES; cache->dirty_count < cache->frame_count; i--) {
		cr_assert(engine_holds(&engine, i * REGION_BLOCKS + 8, 1, 2));
		cache_dirty(cache, cache_find(cache, page_of_leaf((uint32_t)i)),
			    journal_next_lsn(&engine.volume->metadata->journal) - 1);
	}
}

/* Before: what worker 1 would have gone on with was waited for, for ever. */
Test(backing, closing_goes_on_with_what_another_worker_gives_back)
{
	engine_done(&engine);
	pauses_max = 10;
	fill_cache();
	volume_tick(engine.volume, &engine.workers[1]);
	engine_settle(&engine);
	cr_assert_eq(engine.volume->metadata->sweep.state, SWEEP_LOADING);
	cr_expect_eq(engine_close(&engine), 0);
	cr_assert_eq(engine_open(&engine), 0, "%s", engine.damage.text);
	cr_expect(engine_holds(&engine, 5 * REGION_BLOCKS + 8, 1, 2));
}

/* --- data --- */

/* Before: -EIO for EDQUOT and EFBIG, and not a line in the log. */
Test(backing, data_without_space_is_enospc_and_told_once)
{
	static const int errors[] = {-ENOSPC, -EDQUOT, -EFBIG};

	refused = is_data;
	for (unsigned i = 0; i < 3; i++) {
		error = errors[i];
		cr_expect_eq(engine_write(&engine, NEW + i, 1, 3), -ENOSPC, "errno %d", -error);
	}
	cr_expect_eq(logged, 1, "%u lines", logged);
	cr_expect_eq(engine_stats(&engine).no_space_errors, 3);
	cr_expect_eq(engine_stats(&engine).state, VOLUME_BACKING_FULL);
	error = -EIO;
	cr_expect_eq(engine_write(&engine, NEW, 1, 3), -EIO);
	cr_expect_eq(engine_stats(&engine).write_errors, 1);
	refused = NULL;
	cr_expect_eq(engine_write(&engine, NEW, 1, 3), 0);
	tick(2);
	cr_expect_eq(engine_stats(&engine).state, VOLUME_BACKING_FULL, "forgotten at once");
	tick(TICKS);
	cr_expect_eq(engine_stats(&engine).state, VOLUME_OK);
	cr_expect_eq(logged, 2, "%u lines", logged);
}
