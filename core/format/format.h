/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * format - every byte of the store that is not data, encoded and decoded by pure functions
 *
 * docs/disk-format.md holds the byte tables and says why each field is there. Everything is
 * little-endian; every block carries a magic, the format version, the volume's UUID, its own number
 * and a checksum over all its other bytes (core/base/checksum.h). No I/O, no memory, no locks.
 *
 * Errors    decoding checks everything it can without other blocks; on failure it returns false and
 *           says in `why` what was expected and what was found. Encoding a value out of range
 *           asserts.
 */
#ifndef CORE_FORMAT_FORMAT_H
#define CORE_FORMAT_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/units.h"
#include "core/format/geometry.h"

#define FORMAT_VERSION	  1u
#define FORMAT_UUID_BYTES 16

/* Feature flags. */
/* Incompatible features: an unknown bit: refuse. */
#define FEATURE_SPLIT_PLACES	 1ull /* a leaf's slots need not be adjacent */
#define FEATURE_LATE_PLACES	 2ull /* a LINEAR region need not have a place */
#define FEATURES_INCOMPAT_KNOWN	 (FEATURE_SPLIT_PLACES | FEATURE_LATE_PLACES)
#define FEATURE_TRACKING	 1ull /* read-only compatible: there are tracking pages */
#define FEATURES_RO_COMPAT_KNOWN FEATURE_TRACKING /* an unknown bit: read-only */
/* Compatible features: an unknown bit is kept and ignored. */

struct why {
	char expected[96];
	char found[96];
};

/* Whether the store has the incompatible features that an entry or a record needs. */
bool features_suffice(uint64_t features_incompat, uint64_t needed, struct why *why);

/* --- superblock --- */

struct super {
	uint64_t features_incompat;
	uint64_t features_ro_compat;
	uint64_t features_compat;
	uint8_t uuid[FORMAT_UUID_BYTES];
	struct geometry geometry;
	uint64_t checkpoint; /* counts superblock writes; its parity is the copy's number */
	uint64_t epoch; /* of the journal: an older life's blocks are never replayed */
	bool clean; /* nothing to replay, by a clean shutdown */
	/* Where replay begins. */
	uint64_t tail_sequence;
	uint64_t tail_lsn; /* of the first record that is replayed */
	uint64_t tail_prev; /* checksum of the ring block before the tail */
	uint64_t tail_group; /* number of the first group that is replayed */
	/* Records before it were durable when this was written, and pages in force have no others:
	 * a log that ends before has lost its end. */
	uint64_t log_reaches_lsn;
	/* Counters as of tail_lsn; replay carries them on. */
	uint64_t mapped_blocks; /* logical blocks that are no holes */
	uint64_t places; /* leaf places, two blocks each */
	uint32_t tracking_generation; /* the one in which changes are stamped; 0: not tracked */
};

/* out has geometry.super_blocks blocks; generations one number per top. */
void super_encode(const struct super *super, const uint32_t *generations, uint8_t *out);

/* First the head alone, to learn how long the whole is: magic, version and geometry are checked but
 * no checksum. head is one block. */
bool super_decode_head(const uint8_t *head, struct super *ret_super, struct why *why);
/* The whole: copy says where it was read. generations takes geometry_tops() numbers. */
bool super_decode(const uint8_t *in, unsigned copy, struct super *ret_super,
		  uint32_t *ret_generations, struct why *why);
/* Whether the block looks like one of ours at all (of any version). */
bool super_is_ours(const uint8_t *head);

/* What can be said of a copy of a version that we do not know. */
struct super_unknown {
	uint32_t super_blocks; /* 1 to SUPER_BLOCKS_MAX */
	uint64_t super_b_start; /* anything */
};

/* False: the head is not one of ours, or of our version, or cannot be. */
bool super_is_unknown(const uint8_t *head, struct super_unknown *ret_unknown);
/* Whether the checksum of such a copy is right: then it is no damage that it is not understood. */
bool super_unknown_whole(const uint8_t *in);

/* --- metadata pages --- */

enum page_kind {
	PAGE_ROOT = 1,
	PAGE_SUMMARY = 2,
	PAGE_LEAF = 3,
	PAGE_REFS = 4,
	PAGE_TRACKING = 5,
};

#define PAGE_HEADER_BYTES 64u

struct page_header {
	enum page_kind kind;
	uint64_t number; /* root page, summary page, region, slab, area */
	uint32_t generation;
	uint64_t lsn; /* of the last edit in it */
};

/* Puts the header in and the checksum over all; the body is there already. */
void page_seal(uint8_t *page, const struct page_header *header, const uint8_t *uuid);
/* expected: kind, number and generation are compared; the LSN is returned. */
bool page_verify(const uint8_t *page, const struct page_header *expected, const uint8_t *uuid,
		 uint64_t *ret_lsn, struct why *why);

/* What the header says, unverified. */
uint32_t page_generation(const uint8_t *page);

/* Root entry: one region. */
enum region_kind {
	REGION_HOLE = 0,
	REGION_LINEAR = 1,
	REGION_LEAF = 2,
};

#define ROOT_GENERATION_MASK 0x7fffffu

struct root_entry {
	enum region_kind kind;
	bool shared; /* LINEAR: some of its blocks may have other owners */
	uint32_t length; /* LINEAR: blocks from base on that are mapped; 1 to 512 */
	pbn_t base; /* LINEAR */
	pbn_t place; /* the leaf's first slot; never PBN_NONE for a LEAF */
	pbn_t second; /* the leaf's second slot; of a HOLE or a run it is place + 1 */
	uint32_t generation; /* of the leaf's last home write, ROOT_GENERATION_MASK wide */
	bool written; /* a leaf went home to this place: slot generation & 1 holds it */
};

/* Where a leaf of that generation lies. */
static inline pbn_t root_entry_slot(const struct root_entry *entry, uint32_t generation)
{
	return generation & 1 ? entry->second : entry->place;
}

static inline bool root_entry_is_split(const struct root_entry *entry)
{
	return !pbn_is_none(entry->place) && entry->second.v != entry->place.v + 1;
}

/* A run without a place for the leaf that it may need. */
static inline bool root_entry_is_unplaced(const struct root_entry *entry)
{
	return entry->kind == REGION_LINEAR && pbn_is_none(entry->place);
}

/* The incompatible features without which a store has no such entry. */
static inline uint64_t root_entry_features(const struct root_entry *entry)
{
	return (root_entry_is_split(entry) ? FEATURE_SPLIT_PLACES : 0) |
	       (root_entry_is_unplaced(entry) ? FEATURE_LATE_PLACES : 0);
}

/* The two 64-bit words of an entry, as they are in memory and on disk. */
struct root_words {
	uint64_t map; /* kind, shared, length, base */
	uint64_t home; /* place, generation, written */
};

struct root_words root_entry_encode(const struct root_entry *entry);
struct root_entry root_entry_decode(struct root_words words);
/* Whether the entry is one that can be: ranges, data blocks, a place where one is needed. */
bool root_entry_valid(const struct root_entry *entry, const struct geometry *geometry,
		      uint32_t region, struct why *why);
void root_page_put(uint8_t *page, uint32_t index, struct root_words words);
struct root_words root_page_get(const uint8_t *page, uint32_t index);

/* Summary entry: one slab. */
#define SUMMARY_GIVEN	1u /* all that is free of the slab was given back to the backing */
#define SUMMARY_WRITTEN 2u /* generation 0, and yet it is not known to be: blocks may be written */

struct summary_entry {
	uint32_t generation; /* of its refs page; 0: never went home, all counts are 0 */
	uint32_t free_blocks; /* data blocks without a reference */
	uint32_t shared_refs; /* sum of the counts that are greater than 1 */
	uint8_t piece; /* the largest that the refs page has (piece.h), + 1; 0: not known */
	uint8_t flags; /* SUMMARY_* */
};

void summary_page_put(uint8_t *page, uint32_t index, const struct summary_entry *entry);
struct summary_entry summary_page_get(const uint8_t *page, uint32_t index);

/* Leaf entry: in memory a 64-bit word, on disk its low 6 bytes. */
#define LEAF_PBN_MASK	  ((1ull << 40) - 1)
#define LEAF_MAYBE_SHARED (1ull << 40)
#define LEAF_KNOWN_BITS	  (LEAF_PBN_MASK | LEAF_MAYBE_SHARED)

static inline pbn_t leaf_word_pbn(uint64_t word)
{
	return (pbn_t){word & LEAF_PBN_MASK};
}

static inline uint64_t leaf_word(pbn_t pbn, bool maybe_shared)
{
	return pbn.v | (maybe_shared ? LEAF_MAYBE_SHARED : 0);
}

void leaf_page_put(uint8_t *page, uint32_t index, uint64_t word);
uint64_t leaf_page_get(const uint8_t *page, uint32_t index);

/* Refs page: 16 bits per data block of the slab. */
#define REFS_MAX 65535u

void refs_page_put(uint8_t *page, uint32_t index, uint16_t count);
uint16_t refs_page_get(const uint8_t *page, uint32_t index);

/* Tracking page: one area of AREA_REGIONS regions. It is written in place: one that cannot be
 * decoded says the same as an open one, that every region of the area may have changed. */
struct tracking_page {
	bool open; /* the area may be written to: its stamps say nothing */
	uint32_t stamps[AREA_REGIONS]; /* generation in which each region last changed; 0: never */
};

/* The page with its header. Of an open one the stamps are left out. */
void tracking_page_encode(const struct tracking_page *page, uint32_t area, const uint8_t *uuid,
			  uint8_t *out);
bool tracking_page_decode(const uint8_t *in, uint32_t area, const uint8_t *uuid,
			  struct tracking_page *ret_page, struct why *why);

/* --- journal --- */

#define JOURNAL_HEADER_BYTES 96u
#define JOURNAL_RECORD_BYTES 40u
#define JOURNAL_RECORDS	     100u /* per ring block */

/*
 * One record is one edit. Every page it changes follows from its numbers and flags: the leaf (or
 * the root page, with ON_ROOT) of lbn's region, the leaf (or root page) of src's region, the refs
 * pages of old and new.
 *
 *   PLACE     region of lbn, no LEAF, gets the place new: two blocks, counts 0 -> 1
 *   UNPLACE   region of lbn, a HOLE, gives the place old back: counts 1 -> 0. SPLIT: the single
 *   blocks old and second
 *   EXPLODE   region of lbn becomes a LEAF; its first count blocks lie in order from old (count may
 *   be 0). SPLIT: it gets the place of the single blocks new and second as well: counts 0 -> 1
 *   MAP       lbn.. read from new.. (counts 0 -> 1) instead of old.. (counts - 1; none if holes)
 *   UNMAP     lbn.. become holes; old.. lose a reference each
 *   SHARE     lbn.. read from new.. (counts + 1), as src.. do; old.. lose a reference each (none if
 *   holes)
 */
enum record_kind {
	RECORD_PLACE = 1,
	RECORD_UNPLACE = 2,
	RECORD_EXPLODE = 3,
	RECORD_MAP = 4,
	RECORD_UNMAP = 5,
	RECORD_SHARE = 6,
};

#define RECORD_ON_ROOT	   1u /* lbn's region is not a LEAF: the root page is changed */
#define RECORD_SRC_ON_ROOT 2u /* SHARE: the same for src's region */
#define RECORD_SHARED	   4u /* EXPLODE: every entry is maybe_shared */
#define RECORD_SPLIT	   8u /* EXPLODE, UNPLACE: src is no logical block, but the second slot */
#define RECORD_FLAGS_KNOWN 15u

struct record {
	enum record_kind kind;
	uint32_t flags;
	uint32_t count; /* blocks */
	lbn_t lbn;
	pbn_t old;
	pbn_t new;
	lbn_t src;
};

/* The second of two single blocks, or none. */
static inline pbn_t record_second(const struct record *record)
{
	return record->flags & RECORD_SPLIT ? (pbn_t){record->src.v} : PBN_NONE;
}

/* The incompatible features without which a store has no such record. */
static inline uint64_t record_features(const struct record *record)
{
	return record->flags & RECORD_SPLIT ? FEATURE_SPLIT_PLACES : 0;
}

/* How many blocks new and old are of whose counts change. */
static inline uint32_t record_counted(const struct record *record)
{
	return record->kind == RECORD_EXPLODE ? 1 : record->count;
}

struct journal_header {
	uint64_t epoch;
	uint64_t sequence; /* counts ring blocks; its place is sequence % ring_blocks */
	uint64_t first_lsn; /* of its first record; the others follow without a gap */
	uint64_t group; /* commit number */
	uint64_t checkpoint; /* the durable superblock when the group was written */
	uint64_t prev; /* checksum of the ring block before */
	uint32_t count; /* records */
	bool last; /* of its group: the group is whole */
};

void record_put(uint8_t *block, uint32_t index, const struct record *record);
/* False if it is none that can be (kind, flags, ranges). */
bool record_get(const uint8_t *block, uint32_t index, const struct geometry *geometry,
		struct record *ret_record, struct why *why);

/* Returns the checksum, which the next block names as its prev. */
uint64_t journal_seal(uint8_t *block, const struct journal_header *header, const uint8_t *uuid);
/* Magic, version, UUID, count and checksum; whether it belongs where it was found is the caller's.
 * */
bool journal_verify(const uint8_t *block, const uint8_t *uuid, struct journal_header *ret_header,
		    uint64_t *ret_checksum, struct why *why);

#endif
