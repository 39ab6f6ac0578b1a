/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * check_log - the part of the journal that recovery replays, sorted by page
 *
 *   ring, unrolled:  ... old | tail ------ whole groups ------ | a group cut short | older laps ...
 *                            ^ super.tail_sequence             ^ end_sequence
 *
 * The log begins at the superblock's tail and goes on as long as each block carries the volume's
 * UUID, the superblock's epoch, the next sequence, the checksum of the block before, the next LSN
 * and the group's number. What follows the last block that ends a group was never answered to
 * anybody and is not replayed.
 *
 * Where the log ends is a matter of a crash. But a ring block that could only have been written
 * after a later group, or a newer superblock, was durable proves that those were there and are
 * lost: damage. So does a superblock that says that the log was durable further.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/check/check_state.h"
#include "core/base/bytes.h"

#define RING_CHUNK_BLOCKS  8u
#define RECORD_TOUCHES_MAX 4u

struct ring_slot {
	bool valid; /* a ring block of this volume, intact, whether it belongs here or not */
	struct journal_header header;
	uint64_t checksum;
};

/* Where the walk from the tail ended. */
struct ring_walk {
	uint64_t whole_sequence; /* after the last whole group */
	uint64_t sequence; /* after the last block: those of a group cut short are not replayed */
	uint64_t group; /* the one at which the log broke off: it is not whole */
	uint64_t lsn; /* after the last whole group */
	uint32_t records;
};

static int ring_load(struct check *check, struct ring_slot *ring)
{
	const struct geometry *geometry = &check->super.geometry;
	uint8_t chunk[RING_CHUNK_BLOCKS * BLOCK_BYTES];
	struct why why;
	int r;

	for (uint32_t at = 0; at < geometry->ring_blocks; at += RING_CHUNK_BLOCKS) {
		uint32_t blocks = min_u32(RING_CHUNK_BLOCKS, geometry->ring_blocks - at);

		r = check_read(check, geometry->ring_start + at, blocks, chunk);
		if (r < 0)
			return r;
		for (uint32_t i = 0; i < blocks; i++) {
			const uint8_t *block = chunk + (size_t)i * BLOCK_BYTES;
			struct ring_slot *slot = &ring[at + i];

			/* The zeros of create are common, and not worth a text of why. */
			if (get_le32(block) == 0)
				continue;
			slot->valid = journal_verify(block, check->super.uuid, &slot->header,
						     &slot->checksum, &why);
		}
	}
	return 0;
}

/* What the next block of the log must say. */
struct ring_next {
	uint64_t sequence;
	uint64_t prev;
	uint64_t lsn;
	uint64_t group;
};

static bool walk_continues(const struct super *super, const struct ring_slot *slot,
			   const struct ring_next *next)
{
	return slot->valid && slot->header.epoch == super->epoch && slot->header.count > 0 &&
	       slot->header.sequence == next->sequence && slot->header.prev == next->prev &&
	       slot->header.first_lsn == next->lsn && slot->header.group == next->group;
}

static struct ring_walk ring_walk(const struct super *super, const struct ring_slot *ring)
{
	struct ring_next next = {
		.sequence = super->tail_sequence,
		.prev = super->tail_prev,
		.lsn = super->tail_lsn,
		.group = super->tail_group,
	};
	struct ring_walk walk = {
		.whole_sequence = next.sequence,
		.sequence = next.sequence,
		.group = next.group,
		.lsn = next.lsn,
	};
	uint32_t ring_blocks = super->geometry.ring_blocks;
	uint32_t records = 0;

	for (uint32_t i = 0; i < ring_blocks; i++) {
		const struct ring_slot *slot = &ring[next.sequence % ring_blocks];

		if (!walk_continues(super, slot, &next))
			break;
		walk.sequence = ++next.sequence;
		next.prev = slot->checksum;
		next.lsn += slot->header.count;
		next.group += slot->header.last;
		records += slot->header.count;
		if (slot->header.last) {
			walk.group = next.group;
			walk.whole_sequence = next.sequence;
			walk.lsn = next.lsn;
			walk.records = records;
		}
	}
	return walk;
}

/*
 * A superblock newer than the chosen one was durable when one of these blocks was written. If the
 * log from the chosen tail on holds all of them, the older superblock still leads to the newest
 * state: then the lost copy can be written anew.
 */
static void ring_find_lost_super(struct check *check, const struct ring_slot *ring,
				 const struct ring_walk *walk)
{
	const struct super *super = &check->super;
	const struct ring_slot *proof = NULL;
	enum check_damage damage = check->other_valid ? DAMAGE_FATAL : DAMAGE_MENDS;
	struct check_finding *finding;

	for (uint32_t i = 0; i < super->geometry.ring_blocks; i++) {
		const struct journal_header *header = &ring[i].header;

		if (!ring[i].valid ||
		    (header->checkpoint <= super->checkpoint && header->epoch <= super->epoch))
			continue;
		proof = &ring[i];
		if (header->epoch != super->epoch || header->checkpoint > super->checkpoint + 1 ||
		    header->sequence < super->tail_sequence ||
		    header->sequence >= walk->whole_sequence)
			damage = DAMAGE_FATAL;
	}
	if (!proof)
		return;
	check->other_told = true;
	finding =
		check_find(check, damage, "superblock copy %s", super->checkpoint & 1 ? "A" : "B");
	snprintf(finding->expected, sizeof(finding->expected),
		 "a newer superblock: ring block %" PRIu64 " names checkpoint %" PRIu64
		 " epoch %" PRIu64,
		 proof->header.sequence, proof->header.checkpoint, proof->header.epoch);
	snprintf(finding->found, sizeof(finding->found),
		 "checkpoint %" PRIu64 " epoch %" PRIu64 " is the newest", super->checkpoint,
		 super->epoch);
	if (damage == DAMAGE_FATAL)
		check->incomplete = true;
}

static void ring_find_lost_group(struct check *check, const struct ring_slot *ring,
				 const struct ring_walk *walk)
{
	struct check_finding *finding;

	for (uint32_t i = 0; i < check->super.geometry.ring_blocks; i++) {
		const struct journal_header *header = &ring[i].header;

		if (!ring[i].valid || header->epoch != check->super.epoch ||
		    header->group <= walk->group)
			continue;
		finding = check_find(check, DAMAGE_FATAL, "journal, from sequence %" PRIu64,
				     walk->whole_sequence);
		snprintf(finding->expected, sizeof(finding->expected),
			 "group %" PRIu64 ": ring block %" PRIu64 " is of group %" PRIu64,
			 walk->group, header->sequence, header->group);
		snprintf(finding->found, sizeof(finding->found),
			 "the log breaks off before it is whole");
		check->incomplete = true;
		return;
	}
}

/* Pages may have gone home with what is missing in them. */
static void log_find_lost_end(struct check *check, const struct ring_walk *walk)
{
	const struct super *super = &check->super;
	struct check_finding *finding;

	if (walk->lsn >= super->log_reaches_lsn)
		return;
	finding = check_find(check, DAMAGE_FATAL, "journal, from sequence %" PRIu64,
			     walk->whole_sequence);
	snprintf(finding->expected, sizeof(finding->expected),
		 "records up to LSN %" PRIu64 ": checkpoint %" PRIu64 " proves them",
		 super->log_reaches_lsn - 1, super->checkpoint);
	snprintf(finding->found, sizeof(finding->found), "the last one is %" PRIu64, walk->lsn - 1);
	check->incomplete = true;
}

static void records_add(struct check *check, const struct record *record, uint64_t lsn)
{
	struct check_log *log = &check->log;

	log->records[log->record_count++] = (struct check_record){.lsn = lsn, .record = *record};
	switch (record->kind) {
	case RECORD_PLACE:
		log->places_delta++;
		break;
	case RECORD_UNPLACE:
		log->places_delta--;
		break;
	case RECORD_MAP:
	case RECORD_SHARE:
		if (pbn_is_none(record->old))
			log->mapped_delta += record->count;
		break;
	case RECORD_UNMAP:
		log->mapped_delta -= record->count;
		break;
	case RECORD_EXPLODE:
		log->places_delta += record->flags & RECORD_SPLIT ? 1 : 0;
		break;
	}
}

static int records_load(struct check *check, const struct ring_walk *walk,
			const struct ring_slot *ring)
{
	const struct geometry *geometry = &check->super.geometry;
	struct record record;
	struct why why;
	int r;

	check->log.records =
		calloc(walk->records + 1, sizeof(*check->log.records)); /* 0 is no size */
	if (!check->log.records)
		return -ENOMEM;
	/* Recovery looks at the records of a group cut short, too: they were written like that. */
	for (uint64_t s = check->super.tail_sequence; s < walk->sequence; s++) {
		const struct journal_header *header = &ring[s % geometry->ring_blocks].header;

		r = check_read(check, geometry_ring_block(geometry, s), 1, check->page);
		if (r < 0)
			return r;
		for (uint32_t i = 0; i < header->count; i++) {
			if (record_get(check->page, i, geometry, &record, &why) &&
			    features_suffice(check->super.features_incompat,
					     record_features(&record), &why)) {
				if (s < walk->whole_sequence)
					records_add(check, &record, header->first_lsn + i);
				continue;
			}
			check_find_why(check, DAMAGE_FATAL, &why, "journal record %" PRIu64,
				       header->first_lsn + i);
			check->incomplete = true;
		}
	}
	return 0;
}

static uint64_t touch_key(enum page_kind kind, uint64_t number)
{
	return (uint64_t)kind << 40 | number;
}

static uint64_t touch_key_map(uint32_t region, bool on_root)
{
	return on_root ? touch_key(PAGE_ROOT, region / ROOT_ENTRIES) : touch_key(PAGE_LEAF, region);
}

static uint64_t touch_key_refs(const struct check *check, pbn_t pbn)
{
	return touch_key(PAGE_REFS, geometry_slab(&check->super.geometry, pbn));
}

/* The pages that a record changes, each once. */
static uint32_t record_keys(const struct check *check, const struct record *record, uint64_t *keys)
{
	uint32_t region = lbn_region(record->lbn);
	bool on_root = record->flags & RECORD_ON_ROOT;
	bool counts = record->kind != RECORD_EXPLODE, split = record->flags & RECORD_SPLIT;
	uint64_t all[RECORD_TOUCHES_MAX];
	uint32_t all_count = 0, count = 0;

	if (record->kind == RECORD_PLACE || record->kind == RECORD_UNPLACE ||
	    record->kind == RECORD_EXPLODE)
		on_root = true;
	if (record->kind == RECORD_EXPLODE || record->kind == RECORD_UNPLACE)
		all[all_count++] = touch_key_map(region, false);
	all[all_count++] = touch_key_map(region, on_root);
	if (counts && !pbn_is_none(record->old) && record->kind != RECORD_PLACE)
		all[all_count++] = touch_key_refs(check, record->old);
	if ((counts && record->kind != RECORD_UNPLACE && record->kind != RECORD_UNMAP) ||
	    (!counts && split))
		all[all_count++] = touch_key_refs(check, record->new);
	if (split)
		all[all_count++] = touch_key_refs(check, record_second(record));
	if (record->kind == RECORD_SHARE)
		all[all_count++] =
			touch_key_map(lbn_region(record->src), record->flags & RECORD_SRC_ON_ROOT);
	for (uint32_t i = 0; i < all_count; i++) {
		bool known = false;

		for (uint32_t j = 0; j < count; j++)
			known |= keys[j] == all[i];
		if (!known)
			keys[count++] = all[i];
	}
	return count;
}

static int touch_compare(const void *a, const void *b)
{
	const struct check_touch *x = a, *y = b;

	if (x->key != y->key)
		return x->key < y->key ? -1 : 1;
	return (x->record > y->record) - (x->record < y->record);
}

static int touches_make(struct check *check)
{
	struct check_log *log = &check->log;
	uint64_t keys[RECORD_TOUCHES_MAX];

	log->touches =
		calloc((size_t)log->record_count * RECORD_TOUCHES_MAX, sizeof(*log->touches));
	if (!log->touches)
		return -ENOMEM;
	for (uint32_t i = 0; i < log->record_count; i++) {
		uint32_t count = record_keys(check, &log->records[i].record, keys);

		for (uint32_t k = 0; k < count; k++)
			log->touches[log->touch_count++] = (struct check_touch){keys[k], i};
	}
	qsort(log->touches, log->touch_count, sizeof(*log->touches), touch_compare);
	return 0;
}

/* The first touch whose key is not below. */
static uint32_t touches_lower(const struct check_log *log, uint64_t key)
{
	uint32_t low = 0, high = log->touch_count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (log->touches[middle].key < key)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

struct check_touches check_log_touches(const struct check *check, enum page_kind kind,
				       uint64_t number)
{
	const struct check_log *log = &check->log;
	uint64_t key = touch_key(kind, number);
	struct check_touches touches = {0};
	uint32_t first;

	if (log->touch_count == 0)
		return touches;
	first = touches_lower(log, key);
	touches.first = log->touches + first;
	while (first + touches.count < log->touch_count && touches.first[touches.count].key == key)
		touches.count++;
	return touches;
}

static void log_find_unclean(struct check *check)
{
	struct check_finding *finding;

	if (!check->super.clean || check->log.record_count == 0)
		return;
	finding = check_find(check, DAMAGE_FATAL, "journal, from sequence %" PRIu64,
			     check->super.tail_sequence);
	snprintf(finding->expected, sizeof(finding->expected),
		 "nothing to replay after a clean shutdown");
	snprintf(finding->found, sizeof(finding->found), "%" PRIu32 " records",
		 check->log.record_count);
}

int check_log_load(struct check *check)
{
	struct ring_slot *ring = calloc(check->super.geometry.ring_blocks, sizeof(*ring));
	struct ring_walk walk;
	int r;

	if (!ring)
		return -ENOMEM;
	r = ring_load(check, ring);
	if (r == 0) {
		walk = ring_walk(&check->super, ring);
		check->log.end_sequence = walk.whole_sequence;
		check->log.end_lsn = walk.lsn;
		check->log.end_group = walk.group;
		ring_find_lost_super(check, ring, &walk);
		ring_find_lost_group(check, ring, &walk);
		log_find_lost_end(check, &walk);
		r = records_load(check, &walk, ring);
	}
	free(ring);
	if (r == 0 && check->log.record_count > 0)
		r = touches_make(check);
	if (r == 0)
		log_find_unclean(check);
	return r;
}

/* --- salvage --- */

/* Ring blocks of one epoch, first to end - 1, as far as they are there. */
struct ring_window {
	uint64_t epoch;
	uint64_t first;
	uint64_t end;
	uint32_t records; /* in all of them */
};

static bool window_has(const struct check *check, const struct ring_slot *ring,
		       const struct ring_window *window, uint64_t sequence)
{
	const struct ring_slot *slot = &ring[sequence % check->super.geometry.ring_blocks];

	return slot->valid && slot->header.epoch == window->epoch &&
	       slot->header.sequence == sequence;
}

static bool ring_is_empty(const struct check *check, const struct ring_slot *ring)
{
	for (uint32_t i = 0; i < check->super.geometry.ring_blocks; i++) {
		if (ring[i].valid)
			return false;
	}
	return true;
}

/* Nothing is left that could tell of a newer superblock, and one is missing. */
static bool nothing_tells(const struct check *check, const struct ring_slot *ring)
{
	return check->super.checkpoint == 0 ||
	       (check->salvage->other_lost && !check->super.clean && ring_is_empty(check, ring));
}

static bool super_is_newest(const struct check *check, const struct ring_slot *ring)
{
	const struct super *super = &check->super;

	for (uint32_t i = 0; i < super->geometry.ring_blocks; i++) {
		if (ring[i].valid && (ring[i].header.checkpoint > super->checkpoint ||
				      ring[i].header.epoch > super->epoch))
			return false;
	}
	return !nothing_tells(check, ring);
}

/* A group cut short at the end was never answered to anybody. */
static struct ring_window window_find(const struct check *check, const struct ring_slot *ring)
{
	const struct super *super = &check->super;
	uint32_t ring_blocks = super->geometry.ring_blocks;
	struct ring_window window = {.epoch = super->epoch, .end = super->tail_sequence};

	for (uint32_t i = 0; i < ring_blocks; i++) {
		if (ring[i].valid)
			window.epoch = max_u64(window.epoch, ring[i].header.epoch);
	}
	for (uint32_t i = 0; i < ring_blocks; i++) {
		const struct journal_header *header = &ring[i].header;

		if (ring[i].valid && header->epoch == window.epoch && header->last &&
		    header->sequence % ring_blocks == i)
			window.end = max_u64(window.end, header->sequence + 1);
	}
	/* The tail of a newer superblock was not before that of an older one. */
	window.first = window.end > ring_blocks ? window.end - ring_blocks : 0;
	if (window.epoch == super->epoch)
		window.first = max_u64(window.first, super->tail_sequence);
	for (uint64_t s = window.first; s < window.end; s++) {
		if (window_has(check, ring, &window, s))
			window.records += ring[s % ring_blocks].header.count;
	}
	return window;
}

/* Whether nothing that could matter was before the first block that is there. */
static bool window_begins_at(const struct check *check, const struct ring_slot *ring,
			     const struct ring_window *window, uint64_t sequence)
{
	const struct super *super = &check->super;
	const struct journal_header *header = &ring[sequence % super->geometry.ring_blocks].header;
	const struct ring_slot *before;

	if (window->epoch == super->epoch && sequence == super->tail_sequence)
		return header->prev == super->tail_prev && header->first_lsn == super->tail_lsn;
	if (sequence == 0 || sequence + super->geometry.ring_blocks == window->end)
		return true;
	/* An epoch begins where the one before had come to, all of which is at home. */
	before = &ring[(sequence - 1) % super->geometry.ring_blocks];
	return before->valid && before->header.epoch < window->epoch &&
	       before->checksum == header->prev;
}

void check_log_gap(struct check *check, uint64_t first, uint64_t last)
{
	struct check_salvage *salvage = check->salvage;
	struct check_finding *finding;

	salvage->doubt_lsn = max_u64(salvage->doubt_lsn, last == UINT64_MAX ? last : last + 1);
	if (salvage->gap_count < SALVAGE_GAPS_MAX)
		salvage->gaps[salvage->gap_count++].first = first;
	salvage->gaps[salvage->gap_count - 1].last = last;
	finding = check_find(check, DAMAGE_FATAL, "journal, from LSN %" PRIu64, first);
	if (last == UINT64_MAX)
		snprintf(finding->expected, sizeof(finding->expected), "records, or proof of none");
	else
		snprintf(finding->expected, sizeof(finding->expected), "records up to LSN %" PRIu64,
			 last);
	snprintf(finding->found, sizeof(finding->found), "they are missing");
}

/* Where blocks of the window are missing: what comes behind the last gap is known again. */
static void window_find_gaps(struct check *check, const struct ring_slot *ring,
			     const struct ring_window *window)
{
	const struct ring_slot *before = NULL;
	uint64_t end_lsn = max_u64(check->super.tail_lsn, 1);

	for (uint64_t s = window->first; s < window->end; s++) {
		const struct ring_slot *slot = &ring[s % check->super.geometry.ring_blocks];
		const struct journal_header *header = &slot->header;

		if (!window_has(check, ring, window, s))
			continue;
		if (before ? header->prev != before->checksum
			   : !window_begins_at(check, ring, window, s))
			check_log_gap(check, min_u64(end_lsn, header->first_lsn - 1),
				      header->first_lsn - 1);
		before = slot;
		end_lsn = header->first_lsn + header->count;
	}
	check->log.end_lsn = end_lsn;
	if (nothing_tells(check, ring))
		check_log_gap(check, end_lsn, UINT64_MAX);
	else if (check->salvage->certain && end_lsn < check->super.log_reaches_lsn)
		check_log_gap(check, end_lsn, check->super.log_reaches_lsn - 1);
}

static int window_load(struct check *check, const struct ring_slot *ring,
		       const struct ring_window *window)
{
	const struct geometry *geometry = &check->super.geometry;
	struct record record;
	struct why why;
	int r;

	check->log.records = calloc(window->records + 1, sizeof(*check->log.records));
	if (!check->log.records)
		return -ENOMEM;
	for (uint64_t s = window->first; s < window->end; s++) {
		const struct journal_header *header = &ring[s % geometry->ring_blocks].header;

		if (!window_has(check, ring, window, s))
			continue;
		r = check_read(check, geometry_ring_block(geometry, s), 1, check->page);
		if (r < 0)
			return r;
		for (uint32_t i = 0; i < header->count; i++) {
			if (record_get(check->page, i, geometry, &record, &why)) {
				records_add(check, &record, header->first_lsn + i);
				continue;
			}
			check_find_why(check, DAMAGE_FATAL, &why, "journal record %" PRIu64,
				       header->first_lsn + i);
			check_log_gap(check, header->first_lsn + i, header->first_lsn + i);
		}
	}
	return 0;
}

int check_log_salvage(struct check *check)
{
	struct ring_slot *ring = calloc(check->super.geometry.ring_blocks, sizeof(*ring));
	struct ring_window window;
	int r;

	if (!ring)
		return -ENOMEM;
	r = ring_load(check, ring);
	if (r == 0) {
		check->salvage->certain = super_is_newest(check, ring);
		window = window_find(check, ring);
		window_find_gaps(check, ring, &window);
		r = window_load(check, ring, &window);
	}
	free(ring);
	/* Pages that a newer superblock put in force may have more. */
	if (!check->salvage->certain)
		check->super.log_reaches_lsn = UINT64_MAX;
	return r == 0 && check->log.record_count > 0 ? touches_make(check) : r;
}
