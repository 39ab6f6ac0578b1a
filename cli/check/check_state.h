/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * check_state - what the parts of check hand to each other; nobody else includes it but dump
 *
 *   check_super   chooses the superblock
 *   check_log     finds the valid journal, and which record touches which page
 *   check_replay  one page as recovery would make it: home slot, and the records that touch it
 *   check_spare   the slots that are not in force: whether this is a copy of a store in use
 *   check_map     walks all regions in that state
 *   check_count   recounts from the walk and compares with refs pages, summaries and counters
 *   check_tracking  the pages of change tracking
 *   check_mend    writes what can be mended
 *   salvage       reads what can be read of a store that nothing else opens
 *
 * The engine replays record by record over a cache of pages; check sorts the records by page and
 * makes one page at a time. That needs memory for the journal alone, and it is no copy of the
 * engine's way.
 *
 * Errors    0 or a negative errno means that the store could not be read (or no memory); damage is
 * a
 *           finding and no error.
 */
#ifndef CLI_CHECK_CHECK_STATE_H
#define CLI_CHECK_CHECK_STATE_H

#include "cli/check/check.h"
#include "cli/check/salvage.h"
#include "core/format/format.h"

/* What --repair can do about a finding. */
enum check_damage {
	DAMAGE_FATAL, /* the mapping itself, or what it rests on */
	DAMAGE_MENDS, /* follows from the mapping: it can be written anew */
};

struct check_record {
	uint64_t lsn;
	struct record record;
};

/* Says that a record touches a page. Sorted by key, then by record, which is by LSN. */
struct check_touch {
	uint64_t key;
	uint32_t record;
};

struct check_touches {
	const struct check_touch *first;
	uint32_t count;
};

struct check_log {
	struct check_record *records;
	uint32_t record_count;
	struct check_touch *touches;
	uint32_t touch_count;
	uint64_t end_sequence; /* after the last whole group */
	uint64_t end_lsn; /* of the next record */
	uint64_t end_group;
	int64_t mapped_delta; /* what the records change in the superblock's counters */
	int64_t places_delta;
};

/* A root page, replayed. */
struct check_root {
	uint32_t page;
	uint32_t count; /* of regions in it */
	uint64_t lsn;
	uint64_t home_lsn; /* before the replay */
	struct root_entry entries[ROOT_ENTRIES];
	struct root_entry home[ROOT_ENTRIES]; /* before the replay: says where the leaf lies */
};

/* A leaf, replayed. */
struct check_leaf {
	uint32_t region;
	bool exists;
	uint64_t lsn;
	uint64_t home_lsn; /* before the replay */
	uint64_t words[REGION_BLOCKS];
};

/* A refs page, replayed. */
struct check_refs {
	uint32_t slab;
	uint64_t lsn;
	bool touched; /* by any record: then its summary is recovery's to compute */
	uint16_t counts[SLAB_DATA_BLOCKS];
};

/* The recount of a slab; exists only where something is mapped. */
struct check_slab {
	uint16_t counts[SLAB_DATA_BLOCKS];
	uint64_t place[SLAB_DATA_BLOCKS / 64 + 1]; /* the block belongs to a leaf's place */
	uint64_t unflagged[SLAB_DATA_BLOCKS / 64 + 1]; /* an owner believes to be the only one */
};

#define SALVAGE_GAPS_MAX 64u

/* Records that could not be replayed, by LSN; last UINT64_MAX: nobody knows up to which. */
struct check_gap {
	uint64_t first;
	uint64_t last;
};

/* What salvage knows besides; there is none in a plain check. */
struct check_salvage {
	bool other_lost; /* the other superblock is, and no crash did that */
	bool certain; /* the superblock is the newest that there was: what it names is in force */
	/* Records before it are missing. A page has all of its own if its LSN is this - 1 or more.
	 * 0: none is missing. */
	uint64_t doubt_lsn;
	struct check_gap
		gaps[SALVAGE_GAPS_MAX]; /* ascending; more than these are one with the last */
	uint32_t gap_count;
	uint64_t lsn_max; /* of all pages at home */
	enum salvage_verdict regions[ROOT_ENTRIES]; /* of the root page at hand */
};

struct check {
	const struct check_source *source;
	struct check_salvage *salvage; /* or NULL */
	struct check_report *report;
	uint64_t size_blocks;
	bool quiet; /* a second walk: what it finds is known already */
	bool look_at_spares; /* whether a slot that is not in force is newer than the log */
	bool incomplete; /* a part of the map or journal is missing: the recount is too low */
	uint64_t fatal_total;
	struct check_finding scratch;

	/* The chosen superblock; generations == NULL: there is none. */
	struct super super;
	uint32_t *generations;
	bool other_valid; /* the other copy */
	bool other_told; /* a finding says already that it is lost */
	struct why other_why;

	struct check_log log;
	struct check_slab **slabs; /* one pointer per slab */
	bool has_unflagged; /* a shared block or place has an owner that does not know */
	uint64_t places;
	uint64_t unplaced; /* runs without one */
	uint8_t *
		mend_slabs; /* a bit per slab whose refs page or summary entry is to be rewritten */

	uint8_t page[BLOCK_BYTES]; /* the last one read */
	struct check_root root;
	struct check_leaf leaf;
	struct check_refs refs;
	struct tracking_page tracking;
};

/* check.c */

/* Adds a finding about `where`; the caller fills in expected and found at once. Never NULL. */
struct check_finding *check_find(struct check *check, enum check_damage damage,
				 const char *where_format, ...)
	__attribute__((format(printf, 3, 4)));
/* The same with both texts from a decoder. */
void check_find_why(struct check *check, enum check_damage damage, const struct why *why,
		    const char *where_format, ...) __attribute__((format(printf, 4, 5)));
/* Beyond the end of the store: EIO. With salvage what cannot be read is zeros, and so no page. */
int check_read(struct check *check, uint64_t block, uint32_t blocks, void *buf);
/* All the steps, without mending. */
int check_run(struct check *check);
struct check *check_new(const struct check_source *source, struct check_report *report);
void check_free(struct check *check);

/* check_super.c: sets super and generations if a superblock can be believed. EMEDIUMTYPE: no
 * sameblk store. ENOTSUP: a version or features that this program does not know. */
int check_super_load(struct check *check);
/* After check_log_load(): whether a crash can have left the other copy as it is. */
int check_super_other(struct check *check);
/* The same with less to go by: without a good copy the geometry of a damaged one is believed, with
 * generations that say nothing; and the store may be too short. */
int check_super_salvage(struct check *check);

/* check_log.c */
int check_log_load(struct check *check);
/* All that is there of the newest epoch, over gaps. Sets certain, doubt_lsn and gaps. */
int check_log_salvage(struct check *check);
/* Records from first to last are missing; a finding says so. */
void check_log_gap(struct check *check, uint64_t first, uint64_t last);
struct check_touches check_log_touches(const struct check *check, enum page_kind kind,
				       uint64_t number);

/* check_replay.c: reads a page's home slot, as the parent names it, and replays onto it. ret_good
 * false: the slot is bad (a finding says so), and the result is empty; of a refs page also that the
 * journal cannot be replayed onto it. */
int check_replay_root(struct check *check, uint32_t page, struct check_root *root, bool *ret_good);
/* root: the replayed page that holds the region. ret_good is also false if the region is a LEAF and
 * has none. */
int check_replay_leaf(struct check *check, const struct check_root *root, uint32_t region,
		      struct check_leaf *leaf, bool *ret_good);
int check_replay_refs(struct check *check, uint32_t slab, uint32_t generation,
		      struct check_refs *refs, bool *ret_good);

/* check_spare.c: whether a page in a slot that is not in force proves that the log went on. */
int check_spare(struct check *check, uint64_t block);

/* salvage.c: which generation of the root page is to be read (0: none, all are holes), and what is
 * to be thought of its regions then; ret_good false: they are lost. */
int check_salvage_root(struct check *check, uint32_t page, uint32_t *ret_generation,
		       bool *ret_good);
/* The same of a leaf: changes the entry's generation and written. */
int check_salvage_leaf(struct check *check, uint32_t region, struct root_entry *home,
		       bool *ret_good);
/* With salvage: the region's content is not what it should be. */
void check_salvage_mark(struct check *check, uint32_t region, enum salvage_verdict verdict);

/* check_map.c */
struct map_visitor {
	int (*place)(void *context, uint32_t region, const struct root_entry *entry);
	/* Adjacent logical blocks on adjacent physical ones, all data blocks of one slab. */
	int (*run)(void *context, lbn_t lbn, pbn_t pbn, uint32_t count, bool flagged);
	void *context;
};

int check_map_walk(struct check *check, const struct map_visitor *visitor);
/* The runs of check->leaf. What cannot be is found and left out. */
int check_leaf_walk(struct check *check, const struct map_visitor *visitor);

/* check_count.c */
int check_count(struct check *check);
/* Free blocks and shared references of a slab, from its counts. */
struct summary_entry check_count_summary(const struct check *check, uint32_t slab,
					 const uint16_t *counts);

/* The SUMMARY_ENTRIES entries of a summary page. ret_good false: the page is bad (a finding says
 * so) and nothing is known about its slabs. */
int check_summary_load(struct check *check, uint32_t page, struct summary_entry *entries,
		       bool *ret_good);

/* check_tracking.c; the second one writes and does not flush. */
int check_tracking(struct check *check);
int check_tracking_mend(struct check *check);

/* check_mend.c: only after check_run(), and only if nothing fatal was found. */
int check_mend(struct check *check);

#endif
