/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mutant.h"
#include "core/metadata/recovery.h"
#include "core/metadata/metadata.h"

/* The reader's place in the log: what the next block must say. */
struct position {
	uint64_t sequence;
	uint64_t lsn;
	uint64_t prev;
	uint64_t group;
};

static uint8_t *ring_block(const struct super *super, const struct recovery_log *log,
			   uint64_t sequence)
{
	return log->ring + (size_t)(sequence % super->geometry.ring_blocks) * BLOCK_BYTES;
}

static bool next_block(const struct super *super, const struct recovery_log *log,
		       struct position *at, struct journal_header *ret_header)
{
	uint64_t checksum;
	struct why why;

	if (!journal_verify(ring_block(super, log, at->sequence), super->uuid, ret_header,
			    &checksum, &why))
		return false;
	if (MUTANT(47)) { /* an older life's block is believed */
		if (ret_header->count == 0)
			return false;
	} else if (ret_header->epoch != super->epoch || ret_header->sequence != at->sequence ||
		   ret_header->first_lsn != at->lsn || ret_header->prev != at->prev ||
		   ret_header->group != at->group || ret_header->count == 0) {
		return false;
	}
	at->sequence++;
	at->lsn += ret_header->count;
	at->prev = checksum;
	at->group += ret_header->last;
	return true;
}

/* Whether the superblock or the ring holds a proof that more was durable than what was found. */
static bool proves_loss(const struct super *super, const struct recovery_log *log,
			const struct position *end, struct damage *damage)
{
	for (uint32_t i = 0; i < super->geometry.ring_blocks; i++) {
		struct journal_header header;
		uint64_t checksum;
		struct why why;

		if (!journal_verify(log->ring + (size_t)i * BLOCK_BYTES, super->uuid, &header,
				    &checksum, &why))
			continue;
		if (header.epoch > super->epoch ||
		    (header.epoch == super->epoch && header.checkpoint > super->checkpoint)) {
			snprintf(damage->text, sizeof(damage->text),
				 "superblock: expected checkpoint %" PRIu64
				 " or newer (ring block %" PRIu32 " names it), found %" PRIu64,
				 header.checkpoint, i, super->checkpoint);
			return true;
		}
		if (header.epoch == super->epoch && header.sequence >= end->sequence &&
		    header.group > end->group) {
			snprintf(damage->text, sizeof(damage->text),
				 "journal block %" PRIu64 ": expected group %" PRIu64
				 " (group %" PRIu64 " follows it), found none",
				 end->sequence, end->group, header.group);
			return true;
		}
	}
	if (end->lsn >= super->log_reaches_lsn)
		return false;
	snprintf(damage->text, sizeof(damage->text),
		 "journal: expected records up to LSN %" PRIu64 " (checkpoint %" PRIu64
		 " proves them), found the last one to be %" PRIu64,
		 super->log_reaches_lsn - 1, super->checkpoint, end->lsn - 1);
	return true;
}

/* Every record of the block is one that can be. */
static int check_records(const struct super *super, const uint8_t *block,
			 const struct journal_header *header, struct damage *damage)
{
	struct record record;
	struct why why;

	for (uint32_t i = 0; i < header->count; i++) {
		if (record_get(block, i, &super->geometry, &record, &why) &&
		    features_suffice(super->features_incompat, record_features(&record), &why))
			continue;
		snprintf(damage->text, sizeof(damage->text),
			 "journal block %" PRIu64 " record %" PRIu32 ": expected %s, found %s",
			 header->sequence, i, why.expected, why.found);
		return -EUCLEAN;
	}
	return 0;
}

static int scan(const struct super *super, struct recovery_log *log, struct damage *damage)
{
	struct position at = {super->tail_sequence, super->tail_lsn, super->tail_prev,
			      super->tail_group};
	struct position end = at;
	struct journal_header header;

	while (at.sequence - super->tail_sequence < super->geometry.ring_blocks) {
		const uint8_t *block = ring_block(super, log, at.sequence);
		int r;

		if (!next_block(super, log, &at, &header))
			break;
		r = check_records(super, block, &header, damage);
		if (r < 0)
			return r;
		if (header.last)
			end = at;
	}
	log->blocks = end.sequence - super->tail_sequence;
	log->records = end.lsn - super->tail_lsn;
	return proves_loss(super, log, &end, damage) ? -EUCLEAN : 0;
}

int recovery_read_log(struct store *store, const struct super *super, struct recovery_log *ret_log,
		      struct damage *reterr_damage)
{
	uint64_t len_bytes = blocks_to_bytes(super->geometry.ring_blocks);
	int r;

	*ret_log = (struct recovery_log){.ring = aligned_alloc(BLOCK_BYTES, len_bytes)};
	if (ret_log->ring == NULL)
		return -ENOMEM;
	r = recovery_io(store, STORE_READ, blocks_to_bytes(super->geometry.ring_start),
			ret_log->ring, len_bytes);
	if (r < 0)
		snprintf(reterr_damage->text, sizeof(reterr_damage->text),
			 "journal: cannot be read: %s", strerror(-r));
	else
		r = scan(super, ret_log, reterr_damage);
	if (r < 0) {
		free(ret_log->ring);
		ret_log->ring = NULL;
	}
	return r;
}

static int checkpoint_now(struct metadata *metadata)
{
	struct metadata_call load;

	metadata_call_prepare(metadata, &load);
	pthread_mutex_lock(&metadata->lock);
	checkpoint_start(&metadata->checkpoint, metadata->workers[0], &load.wait);
	pthread_mutex_unlock(&metadata->lock);
	return metadata_call_wait(metadata, &load);
}

/* Before a page is loaded: frames that can change hands, by a checkpoint that is over when this
 * returns. Whatever is dirty goes home, also what the group under way changed: that is durable, and
 * the tail stays before it. */
static int clean_frames(struct metadata *metadata)
{
	if (metadata->options.read_only ||
	    metadata->cache.dirty_count <= metadata->cache.frame_count / 2)
		return 0;
	if (MUTANT(60)) { /* a checkpoint that nobody waits for */
		metadata_checkpoint(metadata, metadata->workers[0]);
		return 0;
	}
	return checkpoint_now(metadata);
}

/* Makes the page resident. 1: it does not exist, and the record does not make it. */
static int make_resident(struct metadata *metadata, page_t page, const struct record *record)
{
	struct metadata_call load;
	int r;

	if (cache_find(&metadata->cache, page))
		return 0;
	if (page_is_leaf(&metadata->super.geometry, page) &&
	    !map_entry(&metadata->map, page).written && record->kind != RECORD_EXPLODE)
		return 1;
	r = clean_frames(metadata);
	if (r < 0)
		return r;
	metadata_call_prepare(metadata, &load);
	pthread_mutex_lock(&metadata->lock);
	cache_load(&metadata->cache, page, &load.wait);
	pthread_mutex_unlock(&metadata->lock);
	return metadata_call_wait(metadata, &load);
}

static uint64_t page_lsn(struct metadata *metadata, struct edit_page page)
{
	if (page.root)
		return metadata->map.tops[page.number].lsn;
	return cache_find(&metadata->cache, page.number)->lsn;
}

static int replay_record(struct metadata *metadata, const struct record *record, uint64_t lsn,
			 struct why *why)
{
	const struct geometry *geometry = &metadata->super.geometry;
	struct edit_page pages[EDIT_PAGES_MAX];
	uint32_t n = edit_pages(metadata, record, pages);

	for (uint32_t i = 0; i < n; i++) {
		struct edit_page page = pages[i];

		if (!page.root) {
			int r = make_resident(metadata, page.number, record);

			if (r < 0)
				return r;
			if (r > 0)
				continue;
		}
		if (page_lsn(metadata, page) >= lsn && !MUTANT(6))
			continue;
		if (!recovery_fits(metadata, record, page, why))
			return -EUCLEAN;
		edit_apply(metadata, record, lsn, page);
		if (!page.root && !page_is_leaf(geometry, page.number))
			refs_recount(&metadata->refs, page.number - geometry->regions);
	}
	edit_count(&metadata->journal.counts, record);
	return 0;
}

/* The whole log is durable: a page may be newer than what replay has come to, and still go home. */
static void set_end(struct metadata *metadata, uint64_t next_lsn)
{
	atomic_store(&metadata->journal.next_lsn, next_lsn);
	atomic_store(&metadata->journal.durable_lsn, next_lsn - 1);
}

/* Replay has come so far: here the tail of a checkpoint would be. */
static void set_position(struct metadata *metadata, const struct position *at)
{
	struct journal *journal = &metadata->journal;

	journal->sequence = at->sequence;
	journal->prev = at->prev;
	journal->group = at->group;
	journal->durable = (struct journal_boundary){at->lsn, at->sequence, at->prev, at->group,
						     journal->counts};
}

static int replay_block(struct metadata *metadata, const uint8_t *block,
			const struct journal_header *header, struct damage *damage)
{
	const struct geometry *geometry = &metadata->super.geometry;
	struct record record;

	for (uint32_t i = 0; i < header->count; i++) {
		struct why why = {0};
		bool valid = record_get(block, i, geometry, &record, &why);
		int r;

		assert(valid); /* scan() looked at each */
		r = replay_record(metadata, &record, header->first_lsn + i, &why);
		if (r == 0)
			continue;
		if (why.expected[0])
			snprintf(damage->text, sizeof(damage->text),
				 "journal record %" PRIu64 " (ring block %" PRIu64
				 "): expected %s, found %s",
				 header->first_lsn + i, header->sequence % geometry->ring_blocks,
				 why.expected, why.found);
		return r;
	}
	return 0;
}

int recovery_replay(struct metadata *metadata, const struct recovery_log *log,
		    struct damage *reterr_damage)
{
	struct super tail =
		metadata->super; /* the superblock moves on with each checkpoint in between */
	struct position at = {tail.tail_sequence, tail.tail_lsn, tail.tail_prev, tail.tail_group};
	int r = 0;

	set_end(metadata, tail.tail_lsn + log->records);
	set_position(metadata, &at);
	for (uint64_t i = 0; r == 0 && i < log->blocks; i++) {
		const uint8_t *block = ring_block(&tail, log, at.sequence);
		struct journal_header header;
		bool valid = next_block(&tail, log, &at, &header);

		assert(valid);
		r = replay_block(metadata, block, &header, reterr_damage);
		if (r == 0 && header.last)
			set_position(metadata, &at);
	}
	if (r == 0 && metadata->options.read_only)
		r = recovery_io(metadata->store, STORE_FLUSH, 0, NULL, 0);
	if (r == 0 && !metadata->options.read_only) {
		/* One that was begun under the old epoch would put the new one into a superblock
		 * that leads to records of the old. */
		assert(metadata->checkpoint.state == CHECKPOINT_IDLE || MUTANT(60));
		journal_restart(&metadata->journal, metadata->journal.epoch + 1);
		/* Durable before anything is served. */
		metadata->super.features_incompat |= FEATURES_INCOMPAT_KNOWN;
		if (!MUTANT(5)) /* the log is not cleared after recovery */
			r = checkpoint_now(metadata);
	}
	if (r < 0 && reterr_damage->text[0] == '\0')
		snprintf(reterr_damage->text, sizeof(reterr_damage->text),
			 "replay of the journal: %s", strerror(-r));
	return r;
}
