/* SPDX-License-Identifier: GPL-2.0-or-later */
/* dedupe_scratch - see the header */
#include "cli/dedupe/dedupe_scratch.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int next_region(void *context, uint64_t from, uint64_t *ret_number)
{
	struct dedupe_scratch *scratch = context;

	return dedupe_file_next(scratch->file, from, ret_number);
}

static int load_region(void *context, uint64_t number, struct dedupe_region *ret_region)
{
	return dedupe_scratch_load(context, number, ret_region);
}

static int keep_roles(void *context, uint64_t number, const struct dedupe_roles *roles)
{
	struct dedupe_scratch *scratch = context;

	return dedupe_sql_put(&scratch->file->sql, scratch->put_roles, number, roles,
			      sizeof(*roles));
}

static int prepare_all(struct dedupe_scratch *scratch)
{
	const struct {
		sqlite3_stmt **statement;
		const char *text;
	} statements[] = {
		{&scratch->put_place, "INSERT OR REPLACE INTO place VALUES(?1,?2)"},
		{&scratch->put_todo, "INSERT OR IGNORE INTO todo VALUES(?1)"},
		{&scratch->next_todo,
		 "SELECT number FROM todo WHERE number>=?1 ORDER BY number LIMIT 1"},
		{&scratch->put_roles, "INSERT OR REPLACE INTO roles VALUES(?1,?2)"},
		{&scratch->put_seen, "INSERT OR IGNORE INTO seen VALUES(?1,?2,?3)"},
		{&scratch->seen_from, "SELECT physical,blocks,logical FROM seen WHERE physical<=?1"
				      " ORDER BY physical DESC LIMIT 1"},
		{&scratch->seen_after, "SELECT physical FROM seen WHERE physical>?1"
				       " ORDER BY physical LIMIT 1"},
		{&scratch->put_again, "INSERT OR IGNORE INTO again VALUES(?1)"},
		{&scratch->get_places, "SELECT places FROM place WHERE number=?1"},
		{&scratch->load, "SELECT (SELECT hashes FROM region WHERE number=?1),"
				 " (SELECT places FROM place WHERE number=?1),"
				 " (SELECT roles FROM roles WHERE number=?1),"
				 " EXISTS(SELECT 1 FROM pending WHERE number=?1)"},
	};

	for (size_t i = 0; i < sizeof(statements) / sizeof(statements[0]); i++) {
		int r = dedupe_sql_prepare(&scratch->file->sql, statements[i].text,
					   statements[i].statement);

		if (r < 0)
			return r;
	}
	return 0;
}

int dedupe_scratch_open(struct dedupe_scratch *scratch, struct dedupe_file *file,
			uint64_t cache_bytes)
{
	char text[512];
	int r;

	*scratch = (struct dedupe_scratch){
		.file = file,
		.source = {scratch, next_region, load_region, keep_roles},
	};
	snprintf(text, sizeof(text),
		 "CREATE TEMP TABLE place(number INTEGER PRIMARY KEY, places BLOB NOT NULL);"
		 "CREATE TEMP TABLE todo(number INTEGER PRIMARY KEY);"
		 "CREATE TEMP TABLE roles(number INTEGER PRIMARY KEY, roles BLOB NOT NULL);"
		 "CREATE TEMP TABLE seen(physical INTEGER PRIMARY KEY, blocks INTEGER,"
		 " logical INTEGER);"
		 "CREATE TEMP TABLE again(number INTEGER PRIMARY KEY);"
		 "PRAGMA temp.cache_size=-%llu; PRAGMA temp.journal_mode=OFF",
		 (unsigned long long)(cache_bytes / 1024));
	r = dedupe_sql_run(&file->sql, text);
	if (r == 0)
		r = prepare_all(scratch);
	if (r < 0)
		dedupe_scratch_close(scratch);
	return r;
}

void dedupe_scratch_close(struct dedupe_scratch *scratch)
{
	sqlite3_stmt *const statements[] = {
		scratch->put_place,  scratch->put_todo,	 scratch->next_todo,  scratch->put_roles,
		scratch->put_seen,   scratch->seen_from, scratch->seen_after, scratch->load,
		scratch->get_places, scratch->put_again,
	};

	for (size_t i = 0; i < sizeof(statements) / sizeof(statements[0]); i++)
		sqlite3_finalize(statements[i]);
	*scratch = (struct dedupe_scratch){.file = NULL};
}

int dedupe_scratch_put_places(struct dedupe_scratch *scratch, uint64_t number,
			      const uint64_t places[DEDUPE_REGION_BLOCKS])
{
	return dedupe_sql_put(&scratch->file->sql, scratch->put_place, number, places,
			      DEDUPE_REGION_BLOCKS * sizeof(places[0]));
}

/* A blob of another size is none of ours. */
static bool copy_blob(sqlite3_stmt *statement, int column, void *to, size_t len_bytes)
{
	const void *blob = sqlite3_column_blob(statement, column);

	if (blob == NULL || (size_t)sqlite3_column_bytes(statement, column) != len_bytes)
		return false;
	memcpy(to, blob, len_bytes);
	return true;
}

int dedupe_scratch_get_places(struct dedupe_scratch *scratch, uint64_t number,
			      uint64_t ret_places[DEDUPE_REGION_BLOCKS])
{
	int r = dedupe_sql_do(&scratch->file->sql, scratch->get_places, number, 0);

	memset(ret_places, 0, DEDUPE_REGION_BLOCKS * sizeof(ret_places[0]));
	if (r == 1)
		copy_blob(scratch->get_places, 0, ret_places,
			  DEDUPE_REGION_BLOCKS * sizeof(ret_places[0]));
	sqlite3_reset(scratch->get_places);
	return r < 0 ? r : 0;
}

int dedupe_scratch_put_todo(struct dedupe_scratch *scratch, uint64_t number)
{
	return dedupe_sql_do(&scratch->file->sql, scratch->put_todo, number, 0);
}

int dedupe_scratch_next_todo(struct dedupe_scratch *scratch, uint64_t from, uint64_t *ret_number)
{
	int r = dedupe_sql_do(&scratch->file->sql, scratch->next_todo, from, 0);

	if (r == 1)
		*ret_number = (uint64_t)sqlite3_column_int64(scratch->next_todo, 0);
	sqlite3_reset(scratch->next_todo);
	return r == 0 ? -ENOENT : r < 0 ? r : 0;
}

/* --- seen --- */

int dedupe_scratch_put_seen(struct dedupe_scratch *scratch, const struct dedupe_seen *seen)
{
	sqlite3_bind_int64(scratch->put_seen, 3, (sqlite3_int64)seen->logical_block);
	return dedupe_sql_do(&scratch->file->sql, scratch->put_seen, seen->physical_block,
			     seen->blocks);
}

int dedupe_scratch_seen(struct dedupe_scratch *scratch, uint64_t physical_block, uint64_t most,
			uint64_t *ret_blocks, uint64_t *ret_logical_block)
{
	struct dedupe_sql *sql = &scratch->file->sql;
	int r = dedupe_sql_do(sql, scratch->seen_from, physical_block, 0);

	if (r == 1) {
		uint64_t first = (uint64_t)sqlite3_column_int64(scratch->seen_from, 0);
		uint64_t blocks = (uint64_t)sqlite3_column_int64(scratch->seen_from, 1);
		uint64_t before = physical_block - first;

		if (before < blocks) {
			*ret_blocks = min_u64(most, blocks - before);
			*ret_logical_block =
				(uint64_t)sqlite3_column_int64(scratch->seen_from, 2) + before;
			sqlite3_reset(scratch->seen_from);
			return 1;
		}
	}
	sqlite3_reset(scratch->seen_from);
	if (r < 0)
		return r;
	*ret_blocks = most;
	r = dedupe_sql_do(sql, scratch->seen_after, physical_block, 0);
	if (r == 1)
		*ret_blocks = min_u64(most, (uint64_t)sqlite3_column_int64(scratch->seen_after, 0) -
						    physical_block);
	sqlite3_reset(scratch->seen_after);
	return r < 0 ? r : 0;
}

/* --- again --- */

int dedupe_scratch_put_again(struct dedupe_scratch *scratch, uint64_t number)
{
	return dedupe_sql_do(&scratch->file->sql, scratch->put_again, number, 0);
}

int dedupe_scratch_keep_pending(struct dedupe_scratch *scratch)
{
	return dedupe_sql_run(&scratch->file->sql, "INSERT OR IGNORE INTO pending"
						   " SELECT number FROM again WHERE number IN"
						   " (SELECT number FROM region)");
}

/* --- a region --- */

int dedupe_scratch_load(struct dedupe_scratch *scratch, uint64_t number,
			struct dedupe_region *ret_region)
{
	int r;

	memset(ret_region, 0, sizeof(*ret_region));
	ret_region->number = number;
	r = dedupe_sql_do(&scratch->file->sql, scratch->load, number, 0);
	/* Blocks without hashes are as unknown as those without places. */
	if (r == 1 && copy_blob(scratch->load, 0, ret_region->hashes, sizeof(ret_region->hashes))) {
		copy_blob(scratch->load, 1, ret_region->places, sizeof(ret_region->places));
		copy_blob(scratch->load, 2, &ret_region->roles, sizeof(ret_region->roles));
		ret_region->pending = sqlite3_column_int(scratch->load, 3) != 0;
	}
	sqlite3_reset(scratch->load);
	return r < 0 ? r : 0;
}
