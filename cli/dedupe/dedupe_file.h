/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dedupe_file - the hashfile: hashes of a volume's regions, and what of them is done
 *
 * A region has a row when all of it was read, and the row is true as long as nothing was written
 * there. The file knows up to which generation of the volume it was told of writes
 * (dedupe_file_forget). A row is pending from when it is put until matches were looked for and
 * carried out. So a run can end anywhere, and the next one goes on from what is committed.
 *
 * Tables    about(key, value)       which volume, which generation, what was covered by a whole run
 *           region(number, hashes)  DEDUPE_REGION_BLOCKS hashes of 16 bytes
 *           pending(number)
 *
 * Errors    a negative errno, after a complaint on stderr.
 * Threads   one. Blocking: yes, on files.
 */
#ifndef CLI_DEDUPE_DEDUPE_FILE_H
#define CLI_DEDUPE_DEDUPE_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "cli/dedupe/dedupe_region.h"
#include "cli/dedupe/dedupe_sql.h"

#define DEDUPE_UUID_BYTES 37 /* as text */

struct dedupe_volume {
	char uuid[DEDUPE_UUID_BYTES];
	uint64_t size_bytes;
};

/* A number in the file. */
enum dedupe_about {
	DEDUPE_ABOUT_SIZE,
	DEDUPE_ABOUT_GENERATION, /* 0: the volume's writes are not tracked */
	DEDUPE_ABOUT_LIFE, /* see dedupe_changes.h */
	DEDUPE_ABOUT_FINISHED, /* the run that wrote last came to its end */
	DEDUPE_ABOUT_COVERED_FROM, /* regions that finished runs have looked at, as a range */
	DEDUPE_ABOUT_COVERED_TO,
	DEDUPE_ABOUT_MIN_RUN, /* of those runs, in blocks */
	DEDUPE_ABOUT_MEMORY,
	DEDUPE_ABOUT_SAMPLE_BITS,
	DEDUPE_ABOUT_COUNT,
};

struct dedupe_file {
	struct dedupe_sql sql;
	uint64_t about[DEDUPE_ABOUT_COUNT];
	sqlite3_stmt *put, *put_pending, *has, *next;
};

/* path NULL: one for this run only. A file of another volume is refused; a version or a size that
 * is not this one's empties it. */
int dedupe_file_open(struct dedupe_file *file, const char *path, const struct dedupe_volume *volume,
		     uint64_t cache_bytes);
void dedupe_file_close(struct dedupe_file *file);

/* What is written between the two is there wholly or not at all. */
int dedupe_file_begin(struct dedupe_file *file);
int dedupe_file_commit(struct dedupe_file *file);

int dedupe_file_set(struct dedupe_file *file, enum dedupe_about which, uint64_t number);

/* Regions of [first, end) were written to. */
int dedupe_file_forget(struct dedupe_file *file, uint64_t first, uint64_t end);
int dedupe_file_forget_all(struct dedupe_file *file);

int dedupe_file_put(struct dedupe_file *file, uint64_t number,
		    const struct dedupe_hash hashes[DEDUPE_REGION_BLOCKS]);
/* 1 or 0. */
int dedupe_file_has(struct dedupe_file *file, uint64_t number);
/* -ENOENT: there is none from there on; not complained about. */
int dedupe_file_next(struct dedupe_file *file, uint64_t from, uint64_t *ret_number);

/* Marks what is there in [first, end) as pending, or as done. */
int dedupe_file_set_pending(struct dedupe_file *file, uint64_t first, uint64_t end, bool pending);
int dedupe_file_count_pending(struct dedupe_file *file, uint64_t first, uint64_t end,
			      uint64_t *ret_count);

#endif
