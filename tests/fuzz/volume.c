/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * volume - fuzz target: check and the engine on a store that an input damaged
 *
 *   input:  life, how, change ... END, operation ...
 *
 * The store begins as one of disk.h's lives; how says whether it is opened read-only (bit 0) and
 * whether check may mend it (bit 1). Check and the engine decode and replay with code of their own,
 * so each is the other's oracle:
 *
 *   check finds nothing   the engine opens it, maps every block as check does, carries the
 *                         operations out, closes, and check finds nothing again
 *   the engine refuses    it says where, and check has found something too
 *   check mends           all of it or nothing; afterwards it finds nothing and the above holds
 *   check finds damage    the engine refuses or serves, and each read is right or EIO: right only
 *                         where no checksum was forged and the ring is whole (the last group of a
 *                         log may be lost: that looks like a crash)
 *   read-only             nothing is written
 */
#include <errno.h>
#include <string.h>

#include "cli/check/check_state.h"
#include "tests/fuzz/disk.h"

#define CHUNK_BLOCKS   20u
#define OPERATIONS_MAX 16u
#define RUN_BLOCKS_MAX 64u

enum verdict {
	CLEAN,
	DAMAGED,
	NO_STORE, /* not ours, or of a version or with features that are not known */
};

struct world {
	struct disk *disk;
	enum verdict verdict;
	pbn_t map[DISK_LOGICAL_BLOCKS]; /* as check sees it, if it is clean */
};

static struct disk disks[DISK_LIVES];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	for (unsigned i = 0; i < DISK_LIVES; i++)
		disk_make(&disks[i], i);
	return 0;
}

/* --- check --- */

static struct check_source source_of(struct disk *disk)
{
	return (struct check_source){
		.context = disk,
		.size_bytes = disk->engine.mem.store.size_bytes,
		.read = disk_read,
		.write = disk_write,
		.flush = disk_flush,
	};
}

static void look_at_findings(const struct check_report *report)
{
	FUZZ_CHECK(report->finding_count <= CHECK_FINDINGS_MAX &&
			   report->finding_count <= report->findings_total,
		   "%u findings", report->finding_count);
	for (uint32_t i = 0; i < report->finding_count; i++) {
		const struct check_finding *f = &report->findings[i];

		FUZZ_CHECK(memchr(f->where, 0, sizeof(f->where)) &&
				   memchr(f->expected, 0, sizeof(f->expected)) &&
				   memchr(f->found, 0, sizeof(f->found)),
			   "a finding's text does not end");
		FUZZ_CHECK(f->where[0] && f->found[0], "finding %u says nothing", i);
	}
}

static enum verdict ask_check(struct disk *disk, struct check_finding *ret_first)
{
	struct check_source source = source_of(disk);
	struct check_report report;
	uint32_t writes = disk->writes;
	enum verdict verdict;
	int r = check_store(&source, false, &report);

	FUZZ_CHECK(disk->writes == writes, "check writes");
	FUZZ_CHECK(r == 0 || r == -EMEDIUMTYPE || r == -ENOTSUP, "check: %d", r);
	if (r < 0)
		return NO_STORE;
	look_at_findings(&report);
	verdict = report.findings_total ? DAMAGED : CLEAN;
	if (ret_first && report.finding_count)
		*ret_first = report.findings[0];
	check_report_done(&report);
	return verdict;
}

/* True: there was something and now there is nothing. */
static bool mend(struct disk *disk)
{
	struct check_source source = source_of(disk);
	struct check_report report;
	struct check_finding first = {0};
	bool mended;
	int r = check_store(&source, true, &report);

	FUZZ_CHECK(r == 0 || r == -EMEDIUMTYPE || r == -ENOTSUP, "mending: %d", r);
	if (r < 0)
		return false;
	mended = report.repaired_total > 0;
	FUZZ_CHECK(!mended || report.repaired_total == report.findings_total,
		   "half mended: %lu of %lu", (unsigned long)report.repaired_total,
		   (unsigned long)report.findings_total);
	FUZZ_CHECK(mended || disk->writes == 0, "it wrote and mended nothing");
	check_report_done(&report);
	FUZZ_CHECK(!mended || ask_check(disk, &first) == CLEAN,
		   "mended, and then: %s: expected %s, found %s", first.where, first.expected,
		   first.found);
	return mended;
}

static int on_place(void *context, uint32_t region, const struct root_entry *entry)
{
	(void)context;
	(void)region;
	(void)entry;
	return 0;
}

static int on_run(void *context, lbn_t lbn, pbn_t pbn, uint32_t count, bool flagged)
{
	struct world *world = context;

	(void)flagged;
	FUZZ_CHECK(lbn.v + count <= DISK_LOGICAL_BLOCKS, "a run up to %lu",
		   (unsigned long)(lbn.v + count));
	for (uint32_t i = 0; i < count; i++)
		world->map[lbn.v + i] = pbn_add(pbn, i);
	return 0;
}

static void map_by_check(struct world *world)
{
	struct map_visitor visitor = {.place = on_place, .run = on_run, .context = world};
	struct check_source source = source_of(world->disk);
	struct check_report report = {0};
	struct check *check = check_new(&source, &report);

	FUZZ_CHECK(check && check_run(check) == 0, "check's map");
	if (check->super.geometry.logical_blocks == DISK_LOGICAL_BLOCKS)
		FUZZ_CHECK(check_map_walk(check, &visitor) == 0, "check's map");
	check_free(check);
	check_report_done(&report);
}

/* --- the engine --- */

static bool has_our_size(struct engine *engine)
{
	return volume_size_bytes(engine->volume) == blocks_to_bytes(DISK_LOGICAL_BLOCKS);
}

static void compare_maps(struct world *world)
{
	static struct map_run runs[DISK_LOGICAL_BLOCKS];
	struct engine *engine = &world->disk->engine;
	struct op op = {.request = {.op = REQUEST_MAP,
				    .len_bytes = blocks_to_bytes(DISK_LOGICAL_BLOCKS),
				    .runs = runs,
				    .runs_max = DISK_LOGICAL_BLOCKS}};
	int r;

	op_submit(engine, &op, 0);
	r = op_finish(&op);
	FUZZ_CHECK(r == 0, "the map of a clean store: %d, %s", r, engine->log);
	for (uint32_t i = 0; i < op.request.runs_count; i++) {
		uint64_t lbn = runs[i].off_bytes / BLOCK_BYTES;

		for (uint64_t j = 0; j < runs[i].len_bytes / BLOCK_BYTES; j++) {
			pbn_t ours = pbn_is_none(runs[i].pbn) ? PBN_NONE : pbn_add(runs[i].pbn, j);

			FUZZ_CHECK(world->map[lbn + j].v == ours.v,
				   "block %lu: %lu to check, %lu to the engine",
				   (unsigned long)(lbn + j), (unsigned long)world->map[lbn + j].v,
				   (unsigned long)ours.v);
		}
	}
}

static void read_all(struct world *world)
{
	static uint8_t data[CHUNK_BLOCKS * BLOCK_BYTES];
	struct disk *disk = world->disk;
	bool right = !disk->forged && !disk->ring_changed;

	for (uint64_t block = 0; block < DISK_LOGICAL_BLOCKS; block += CHUNK_BLOCKS) {
		uint64_t off_bytes = blocks_to_bytes(block);
		int r = engine_read_bytes(&disk->engine, off_bytes, sizeof(data), data);

		FUZZ_CHECK(r == 0 || (r == -EIO && world->verdict != CLEAN), "reading: %d", r);
		FUZZ_CHECK(r < 0 || !right ||
				   memcmp(data, disk->content + off_bytes, sizeof(data)) == 0,
			   "wrong content in blocks %lu to %lu", (unsigned long)block,
			   (unsigned long)block + CHUNK_BLOCKS - 1);
	}
}

static int input_run(struct input *input, uint64_t *ret_block, uint64_t *ret_blocks)
{
	*ret_block = input_u16(input) % DISK_LOGICAL_BLOCKS;
	*ret_blocks =
		min_u64(1 + input_u8(input) % RUN_BLOCKS_MAX, DISK_LOGICAL_BLOCKS - *ret_block);
	return input_u8(input) % 8;
}

static void reopen(struct engine *engine, bool kill)
{
	int r;

	if (kill)
		engine_kill(engine);
	else
		FUZZ_CHECK(engine_close(engine) == 0, "closing: %s", engine->log);
	r = engine_open(engine);
	FUZZ_CHECK(r == 0, "opened again: %d, %s", r, engine->damage.text);
}

static int operate_once(struct engine *engine, struct input *input)
{
	uint64_t block, blocks, src = 0;
	int what = input_run(input, &block, &blocks);

	switch (what) {
	case 0:
		return engine_write(engine, block, blocks, 1 + input_u8(input) % 4);
	case 1:
		return engine_discard(engine, block, blocks);
	case 2:
		return engine_zero(engine, block, blocks);
	case 3:
		return engine_flush(engine);
	case 4:
		engine_checkpoint(engine);
		return 0;
	case 5:
		reopen(engine, input_u8(input) & 1);
		return 0;
	default:
		src = input_u16(input) % (DISK_LOGICAL_BLOCKS - blocks + 1);
		if (src < block + blocks && block < src + blocks)
			return 0;
		return what == 6 ? engine_same(engine, src, blocks, block, NULL)
				 : engine_clone(engine, src, blocks, block);
	}
}

static void operate(struct engine *engine, struct input *input)
{
	for (unsigned i = 0; i < OPERATIONS_MAX && input->left_bytes > 0; i++) {
		int r = operate_once(engine, input);

		FUZZ_CHECK(r == 0 || r == -ENOSPC, "operation %u: %d, %s", i, r, engine->log);
	}
}

static void serve(struct world *world, struct input *input)
{
	struct engine *engine = &world->disk->engine;
	bool read_only = engine->options.volume.read_only;
	struct check_finding first = {0};
	int r;

	if (has_our_size(engine)) {
		if (world->verdict == CLEAN)
			compare_maps(world);
		read_all(world);
		if (world->verdict == CLEAN && !read_only)
			operate(engine, input);
	}
	r = engine_close(engine);
	FUZZ_CHECK(r == 0 || (r == -EIO && world->verdict != CLEAN), "closing: %d", r);
	if (world->verdict == CLEAN && !read_only)
		FUZZ_CHECK(ask_check(world->disk, &first) == CLEAN,
			   "clean, used, and then: %s: expected %s, found %s", first.where,
			   first.expected, first.found);
}

static void open_and_serve(struct world *world, struct input *input)
{
	struct engine *engine = &world->disk->engine;
	int r;

	world->disk->sealed = engine->options.volume.read_only;
	r = engine_open(engine);
	if (r == 0) {
		/* Features that check does not know may be such that a volume can be read. */
		FUZZ_CHECK(world->verdict != NO_STORE || engine->options.volume.read_only,
			   "opened, and check knows no such store");
		serve(world, input);
		return;
	}
	FUZZ_CHECK(r == -EUCLEAN || r == -ENOTSUP || r == -EROFS || r == -EIO,
		   "refused with %d, %s", r, engine->damage.text);
	FUZZ_CHECK(engine->damage.text[0] != '\0', "refused with %d and not a word", r);
	FUZZ_CHECK(world->verdict != CLEAN, "refused with %d, %s, and check finds nothing; log: %s",
		   r, engine->damage.text, engine->log);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len_bytes)
{
	static struct world world;
	struct input input = {data, len_bytes};
	struct disk *disk = &disks[input_u8(&input) % DISK_LIVES];
	uint8_t how = input_u8(&input);

	memset(&world, 0, sizeof(world));
	world.disk = disk;
	disk->engine.options.volume.read_only = how & 1;
	disk_damage(disk, &input);
	world.verdict = ask_check(disk, NULL);
	if ((how & 2) && world.verdict == DAMAGED && mend(disk))
		world.verdict = CLEAN;
	if (world.verdict == CLEAN)
		map_by_check(&world);
	open_and_serve(&world, &input);
	disk_restore(disk);
	return 0;
}
