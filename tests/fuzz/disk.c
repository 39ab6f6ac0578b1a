/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/fuzz/disk.h"

#include <string.h>

#include "core/base/bytes.h"
#include "core/base/checksum.h"
#include "core/metadata/recovery.h"

/* docs/disk-format.md */
#define SUPER_CHECKSUM_AT   16u
#define SUPER_FIELDS_AT	    24u
#define SUPER_FIELDS_END    216u
#define PAGE_CHECKSUM_AT    56u
#define JOURNAL_PREV_AT	    64u
#define JOURNAL_CHECKSUM_AT 88u

#define CHANGES_MAX 64u
#define RECORDS_MAX 16u /* appended by one change */

enum change {
	CHANGE_END,
	CHANGE_BYTES,
	CHANGE_ADD,
	CHANGE_COPY,
	CHANGE_SECTOR,
	CHANGE_SUPER,
	CHANGE_ROOT,
	CHANGE_SUMMARY,
	CHANGE_LEAF,
	CHANGE_REFS,
	CHANGE_APPEND,
	CHANGE_KINDS,
};

static uint8_t *block_of(struct disk *disk, uint64_t block)
{
	FUZZ_CHECK(block < DISK_STORE_BLOCKS, "block %lu", (unsigned long)block);
	return disk->engine.mem.data + blocks_to_bytes(block);
}

static bool is_touched(const struct disk *disk, uint64_t block)
{
	return disk->touched[block / 64] >> (block % 64) & 1;
}

static void touch(struct disk *disk, uint64_t off_bytes, uint64_t len_bytes)
{
	uint64_t end = div_up(off_bytes + len_bytes, BLOCK_BYTES);

	for (uint64_t block = off_bytes / BLOCK_BYTES; block < end; block++)
		disk->touched[block / 64] |= 1ull << (block % 64);
}

static int on_io(void *context, const struct store_io *io)
{
	struct disk *disk = context;

	if (io->op != STORE_WRITE && io->op != STORE_DISCARD)
		return 0;
	FUZZ_CHECK(!disk->sealed, "a write to a store opened read-only, at %lu",
		   (unsigned long)io->off_bytes);
	touch(disk, io->off_bytes, io->len_bytes);
	return 0;
}

int disk_read(void *context, uint64_t off_bytes, void *buf, size_t len_bytes)
{
	struct disk *disk = context;
	uint64_t size = disk->engine.mem.store.size_bytes;

	FUZZ_CHECK(off_bytes <= size && len_bytes <= size - off_bytes, "a read past the end");
	memcpy(buf, disk->engine.mem.data + off_bytes, len_bytes);
	return 0;
}

int disk_write(void *context, uint64_t off_bytes, const void *buf, size_t len_bytes)
{
	struct disk *disk = context;
	uint64_t size = disk->engine.mem.store.size_bytes;

	FUZZ_CHECK(off_bytes <= size && len_bytes <= size - off_bytes, "a write past the end");
	touch(disk, off_bytes, len_bytes);
	memcpy(disk->engine.mem.data + off_bytes, buf, len_bytes);
	disk->writes++;
	return 0;
}

int disk_flush(void *context)
{
	(void)context;
	return 0;
}

/* --- making one --- */

static void use(struct engine *engine)
{
	engine_write(engine, 0, 100, 1);
	engine_write(engine, 512, 40, 2);
	engine_write(engine, 600, 10, 7);
	engine_write(engine, 700, 30, 1);
	engine_same(engine, 0, 20, 700, NULL);
	engine_clone(engine, 512, 12, 900);
	engine_discard(engine, 605, 3);
	engine_write(engine, 50, 2, 8);
	engine_reopen(engine);
	/* Each page changes, so that the slot not in force holds an older one. */
	engine_clone(engine, 602, 2, 300);
	engine_write(engine, 640, 3, 3);
	engine_discard(engine, 540, 4);
}

/* Records of every kind, none of them home. */
static void use_more(struct engine *engine)
{
	engine_write(engine, 100, 4, 5);
	engine_flush(engine);
	engine_write(engine, 1024, 8, 6);
	engine_clone(engine, 1024, 4, 1100);
	engine_discard(engine, 98, 6);
	engine_flush(engine);
	engine_write(engine, 705, 2, 9);
	engine_discard(engine, 1024, 276);
	engine_flush(engine);
	engine_clone(engine, 640, 2, 320);
	engine_write(engine, 20, 3, 4);
	engine_write(engine, 300, 3, 4);
	engine_write(engine, 1030, 2, 3);
	engine_flush(engine);
}

static void live(struct disk *disk, enum disk_life life)
{
	struct engine *engine = &disk->engine;

	if (life != DISK_FRESH) {
		use(engine);
		engine_reopen(engine);
	}
	if (life == DISK_KILLED || life == DISK_HALF_CHECKPOINT)
		use_more(engine);
	if (life == DISK_HALF_CHECKPOINT) {
		volume_checkpoint(engine->volume, &engine->workers[0]);
		for (unsigned i = 0; i < 6; i++)
			engine_step(engine);
	}
	if (life == DISK_KILLED || life == DISK_HALF_CHECKPOINT)
		engine_kill(engine);
	else
		engine_close(engine);
}

static void add_place(struct disk *disk, uint64_t block)
{
	FUZZ_CHECK(disk->place_count < DISK_PLACES_MAX, "too many places");
	disk->places[disk->place_count++] = block;
}

/* Where metadata lies, leaves' places as the root page in force has them. */
static void find_places(struct disk *disk, const uint32_t *generations)
{
	const struct geometry *g = &disk->super.geometry;
	const uint8_t *root = block_of(disk, geometry_top_block(g, 0, generations[0]));

	for (uint32_t i = 0; i < g->super_blocks; i++) {
		add_place(disk, i);
		add_place(disk, g->super_b_start + i);
	}
	for (uint32_t i = 0; i < 2 * geometry_tops(g); i++)
		add_place(disk, g->tops_start + i);
	for (uint32_t i = 0; i < 2 * g->slabs; i++)
		add_place(disk, geometry_refs_block(g, i / 2, i % 2));
	for (uint32_t i = 0; generations[0] && i < g->regions; i++) {
		struct root_entry entry = root_entry_decode(root_page_get(root, i));

		for (uint32_t slot = 0; !pbn_is_none(entry.place) && slot < 2; slot++)
			add_place(disk, entry.place.v + slot);
	}
	for (uint32_t i = 0; i < g->ring_blocks; i++)
		add_place(disk, g->ring_start + i);
}

/* What the engine makes of the whole store: super, log, contents. */
static void learn(struct disk *disk)
{
	struct engine *engine = &disk->engine;
	struct recovery_log log;
	struct damage damage;
	uint32_t *generations;
	int r = recovery_read_super(&engine->mem.store, true, &disk->super, &generations, &damage);

	FUZZ_CHECK(r == 0, "%s", damage.text);
	r = recovery_read_log(&engine->mem.store, &disk->super, &log, &damage);
	FUZZ_CHECK(r == 0, "%s", damage.text);
	disk->log_blocks = (uint32_t)log.blocks;
	find_places(disk, generations);
	free(log.ring);
	free(generations);
	r = engine_open(engine);
	FUZZ_CHECK(r == 0, "%s", engine->damage.text);
	r = engine_read_bytes(engine, 0, blocks_to_bytes(DISK_LOGICAL_BLOCKS), disk->content);
	FUZZ_CHECK(r == 0, "reading: %d", r);
	engine_kill(engine);
}

void disk_make(struct disk *disk, enum disk_life life)
{
	struct engine_options options = {
		.logical_bytes = blocks_to_bytes(DISK_LOGICAL_BLOCKS),
		.store_bytes = blocks_to_bytes(DISK_STORE_BLOCKS),
		.ring_blocks = DISK_RING_BLOCKS,
	};

	memset(disk, 0, sizeof(*disk));
	engine_init(&disk->engine, &options);
	live(disk, life);
	disk->whole = malloc(blocks_to_bytes(DISK_STORE_BLOCKS));
	disk->content = malloc(blocks_to_bytes(DISK_LOGICAL_BLOCKS));
	FUZZ_CHECK(disk->whole && disk->content, "no memory");
	memcpy(disk->whole, disk->engine.mem.data, blocks_to_bytes(DISK_STORE_BLOCKS));
	disk->engine.mem.hook = on_io;
	disk->engine.mem.hook_context = disk;
	learn(disk);
	disk_restore(disk);
}

void disk_restore(struct disk *disk)
{
	for (uint64_t block = 0; block < DISK_STORE_BLOCKS; block++)
		if (is_touched(disk, block))
			memcpy(block_of(disk, block), disk->whole + blocks_to_bytes(block),
			       BLOCK_BYTES);
	memset(disk->touched, 0, sizeof(disk->touched));
	disk->engine.log[0] = '\0';
	disk->forged = false;
	disk->ring_changed = false;
	disk->sealed = false;
	disk->writes = 0;
}

/* --- forging --- */

static bool is_ring(const struct disk *disk, uint64_t block)
{
	const struct geometry *g = &disk->super.geometry;

	return block >= g->ring_start && block < g->ring_start + g->ring_blocks;
}

static bool is_super(const struct disk *disk, uint64_t block)
{
	const struct geometry *g = &disk->super.geometry;

	return block < g->super_blocks ||
	       (block >= g->super_b_start && block < g->super_b_start + g->super_blocks);
}

static void seal_super(struct disk *disk, uint64_t first)
{
	uint8_t *at = block_of(disk, first);
	size_t len_bytes = blocks_to_bytes(disk->super.geometry.super_blocks);

	put_le64(at + SUPER_CHECKSUM_AT, checksum_around(at, SUPER_CHECKSUM_AT, len_bytes));
	touch(disk, blocks_to_bytes(first), len_bytes);
}

static void seal_block(struct disk *disk, uint64_t block, size_t checksum_at)
{
	uint8_t *at = block_of(disk, block);

	put_le64(at + checksum_at, checksum_around(at, checksum_at, BLOCK_BYTES));
}

/* Each block of the log names the checksum of the one before. */
static void seal_log(struct disk *disk)
{
	uint64_t prev = disk->super.tail_prev;

	for (uint32_t i = 0; i < disk->log_blocks; i++) {
		uint64_t block =
			geometry_ring_block(&disk->super.geometry, disk->super.tail_sequence + i);
		uint8_t *at = block_of(disk, block);

		put_le64(at + JOURNAL_PREV_AT, prev);
		seal_block(disk, block, JOURNAL_CHECKSUM_AT);
		prev = get_le64(at + JOURNAL_CHECKSUM_AT);
		touch(disk, blocks_to_bytes(block), BLOCK_BYTES);
	}
}

static void forge(struct disk *disk, uint64_t block)
{
	const struct geometry *g = &disk->super.geometry;

	disk->forged = true;
	if (is_super(disk, block)) {
		seal_super(disk, block < g->super_blocks ? 0 : g->super_b_start);
		return;
	}
	if (!is_ring(disk, block)) {
		seal_block(disk, block, PAGE_CHECKSUM_AT);
		return;
	}
	seal_block(disk, block, JOURNAL_CHECKSUM_AT);
	seal_log(disk);
}

/* --- changes --- */

static uint64_t choose(const struct disk *disk, struct input *input)
{
	return disk->places[input_u8(input) % disk->place_count];
}

static void change_bytes(uint8_t *at, struct input *input)
{
	uint32_t off = input_u16(input) % BLOCK_BYTES;
	uint32_t len = min_u32(1 + input_u8(input) % 8, BLOCK_BYTES - off);

	for (uint32_t i = 0; i < len; i++)
		at[off + i] = input_u8(input);
}

static void change_add(uint8_t *at, struct input *input)
{
	uint8_t *word = at + input_u16(input) % BLOCK_BYTES / 8 * 8;

	put_le64(word, get_le64(word) + (uint64_t)(int64_t)(int8_t)input_u8(input));
}

/* A 64-bit field of the head, as it is and a little more, or small. */
static void change_super(uint8_t *at, struct input *input)
{
	uint32_t fields = (SUPER_FIELDS_END - SUPER_FIELDS_AT) / 8;
	uint8_t *field = at + SUPER_FIELDS_AT + input_u8(input) % fields * 8;
	bool add = input_u8(input) & 1;
	uint64_t value = (uint64_t)(int64_t)(int16_t)input_u16(input);

	put_le64(field, add ? get_le64(field) + value : value);
}

/* A physical block by its distance from the first of the data. */
static uint64_t input_pbn(const struct disk *disk, struct input *input)
{
	uint16_t distance = input_u16(input);

	return distance == 0 ? 0 : disk->super.geometry.data_start + distance;
}

static void change_root(struct disk *disk, uint8_t *at, struct input *input)
{
	uint32_t index = input_u8(input) % 8;
	uint8_t flags = input_u8(input);
	struct root_words words = {
		.map = input_pbn(disk, input) | (uint64_t)(input_u16(input) & 0x3ff) << 40 |
		       (uint64_t)(flags & 7) << 50,
		.home = input_pbn(disk, input) | (uint64_t)input_u8(input) << 40 |
			(uint64_t)(flags >> 7) << 63,
	};

	root_page_put(at, index, words);
}

static void change_summary(uint8_t *at, struct input *input)
{
	uint8_t *entry = at + PAGE_HEADER_BYTES + input_u8(input) % 5 * 16;

	put_le32(entry, input_u8(input));
	put_le32(entry + 4, input_u16(input));
	put_le32(entry + 8, input_u16(input));
}

static void change_leaf(struct disk *disk, uint8_t *at, struct input *input)
{
	uint32_t index = input_u16(input) % REGION_BLOCKS;
	bool shared = input_u8(input) & 1;

	leaf_page_put(at, index, leaf_word((pbn_t){input_pbn(disk, input)}, shared));
}

static void change_refs(uint8_t *at, struct input *input)
{
	uint32_t index = input_u16(input) % SLAB_DATA_BLOCKS;

	refs_page_put(at, index, input_u16(input));
}

static struct record input_record(const struct disk *disk, struct input *input)
{
	struct record record = {
		.kind = (enum record_kind)(1 + input_u8(input) % 6),
		.flags = input_u8(input) % 8,
		.count = input_u16(input) % (REGION_BLOCKS + 1),
	};

	record.lbn.v = input_u16(input);
	record.old.v = input_pbn(disk, input);
	record.new.v = input_pbn(disk, input);
	record.src.v = input_u16(input);
	return record;
}

/* A group of one block behind the log's end, as a commit would have written it. */
static void change_append(struct disk *disk, struct input *input)
{
	const struct super *super = &disk->super;
	struct journal_header header = {
		.epoch = super->epoch,
		.sequence = super->tail_sequence + disk->log_blocks,
		.first_lsn = super->tail_lsn,
		.group = super->tail_group,
		.checkpoint = super->checkpoint,
		.prev = super->tail_prev,
		.last = true,
	};
	uint64_t block = geometry_ring_block(&super->geometry, header.sequence);
	struct journal_header before;
	struct why why;

	header.count = 1 + input_u8(input) % RECORDS_MAX;
	if (disk->log_blocks == super->geometry.ring_blocks)
		return;
	if (disk->log_blocks > 0) {
		uint64_t end = geometry_ring_block(&super->geometry, header.sequence - 1);

		if (!journal_verify(block_of(disk, end), super->uuid, &before, &header.prev, &why))
			return;
		header.first_lsn = before.first_lsn + before.count;
		header.group = before.group + 1;
	}
	memset(block_of(disk, block), 0, BLOCK_BYTES);
	for (uint32_t i = 0; i < header.count; i++) {
		struct record record = input_record(disk, input);

		record_put(block_of(disk, block), i, &record);
	}
	journal_seal(block_of(disk, block), &header, super->uuid);
	disk->log_blocks++;
	disk->forged = true;
	disk->ring_changed = true;
	touch(disk, blocks_to_bytes(block), BLOCK_BYTES);
}

static void change_block(struct disk *disk, enum change change, uint64_t block, struct input *input)
{
	uint8_t *at = block_of(disk, block);

	touch(disk, blocks_to_bytes(block), BLOCK_BYTES);
	disk->ring_changed = disk->ring_changed || is_ring(disk, block);
	switch (change) {
	case CHANGE_BYTES:
		change_bytes(at, input);
		break;
	case CHANGE_ADD:
		change_add(at, input);
		break;
	case CHANGE_COPY:
		memmove(at, block_of(disk, choose(disk, input)), BLOCK_BYTES);
		break;
	case CHANGE_SECTOR:
		memset(at + input_u8(input) % 8 * SECTOR_BYTES, 0xee, SECTOR_BYTES);
		break;
	case CHANGE_SUPER:
		change_super(at, input);
		break;
	case CHANGE_ROOT:
		change_root(disk, at, input);
		break;
	case CHANGE_SUMMARY:
		change_summary(at, input);
		break;
	case CHANGE_LEAF:
		change_leaf(disk, at, input);
		break;
	case CHANGE_REFS:
		change_refs(at, input);
		break;
	default:
		FUZZ_CHECK(false, "change %d", change);
	}
}

void disk_damage(struct disk *disk, struct input *input)
{
	uint32_t log_blocks = disk->log_blocks;

	for (unsigned i = 0; i < CHANGES_MAX && input->left_bytes > 0; i++) {
		uint8_t first = input_u8(input);
		enum change change = first % 64 % CHANGE_KINDS;
		uint64_t block;

		if (change == CHANGE_END)
			break;
		if (change == CHANGE_APPEND) {
			change_append(disk, input);
			continue;
		}
		block = choose(disk, input);
		change_block(disk, change, block, input);
		if (first & 0x80)
			forge(disk, block);
	}
	disk->log_blocks = log_blocks;
}
