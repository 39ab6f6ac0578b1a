/* SPDX-License-Identifier: GPL-2.0-or-later */
/* dedupe_file - see the header */
#include "cli/dedupe/dedupe_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/base/say.h"

#define APPLICATION_ID 0x53424c6b /* "SBLk" */
#define FORMAT_VERSION 1

static const char *const about_keys[DEDUPE_ABOUT_COUNT] = {
	[DEDUPE_ABOUT_SIZE] = "size_bytes",
	[DEDUPE_ABOUT_GENERATION] = "generation",
	[DEDUPE_ABOUT_LIFE] = "life",
	[DEDUPE_ABOUT_FINISHED] = "finished",
	[DEDUPE_ABOUT_COVERED_FROM] = "covered_from",
	[DEDUPE_ABOUT_COVERED_TO] = "covered_to",
	[DEDUPE_ABOUT_MIN_RUN] = "min_run",
	[DEDUPE_ABOUT_MEMORY] = "memory_bytes",
	[DEDUPE_ABOUT_SAMPLE_BITS] = "sample_bits",
};

/* --- about --- */

int dedupe_file_set(struct dedupe_file *file, enum dedupe_about which, uint64_t number)
{
	char text[128];
	int r;

	snprintf(text, sizeof(text), "INSERT OR REPLACE INTO about VALUES('%s',%" PRId64 ")",
		 about_keys[which], (int64_t)number);
	r = dedupe_sql_run(&file->sql, text);
	if (r == 0)
		file->about[which] = number;
	return r;
}

/* Those that are not there are 0. */
static int read_about(struct dedupe_file *file)
{
	for (int i = 0; i < DEDUPE_ABOUT_COUNT; i++) {
		char text[96];
		int64_t number = 0;
		int r;

		snprintf(text, sizeof(text), "SELECT value FROM about WHERE key='%s'",
			 about_keys[i]);
		r = dedupe_sql_number(&file->sql, text, &number);
		if (r < 0 && r != -ENOENT)
			return r;
		file->about[i] = (uint64_t)number;
	}
	return 0;
}

static int read_uuid(struct dedupe_file *file, char ret_uuid[DEDUPE_UUID_BYTES])
{
	sqlite3_stmt *statement;
	int r = dedupe_sql_prepare(&file->sql, "SELECT value FROM about WHERE key='uuid'",
				   &statement);

	if (r < 0)
		return r;
	ret_uuid[0] = '\0';
	r = dedupe_sql_step(&file->sql, statement);
	if (r == 1)
		snprintf(ret_uuid, DEDUPE_UUID_BYTES, "%s",
			 (const char *)sqlite3_column_text(statement, 0));
	sqlite3_finalize(statement);
	return r < 0 ? r : 0;
}

/* --- opening --- */

static int make_tables(struct dedupe_file *file, const struct dedupe_volume *volume)
{
	char text[512];
	int r = dedupe_file_begin(file);

	snprintf(text, sizeof(text),
		 "DROP TABLE IF EXISTS about; DROP TABLE IF EXISTS region;"
		 "DROP TABLE IF EXISTS pending;"
		 "CREATE TABLE about(key TEXT PRIMARY KEY, value) WITHOUT ROWID;"
		 "CREATE TABLE region(number INTEGER PRIMARY KEY, hashes BLOB NOT NULL);"
		 "CREATE TABLE pending(number INTEGER PRIMARY KEY);"
		 "PRAGMA application_id=%d; PRAGMA user_version=%d;"
		 "INSERT INTO about VALUES('uuid','%s')",
		 APPLICATION_ID, FORMAT_VERSION, volume->uuid);
	memset(file->about, 0, sizeof(file->about));
	if (r == 0)
		r = dedupe_sql_run(&file->sql, text);
	if (r == 0)
		r = dedupe_file_set(file, DEDUPE_ABOUT_SIZE, volume->size_bytes);
	return r < 0 ? r : dedupe_file_commit(file);
}

static int begin_anew(struct dedupe_file *file, const struct dedupe_volume *volume, const char *why)
{
	say_error("the hashfile", file->sql.name, "begins anew: %s", why);
	return make_tables(file, volume);
}

/* Makes sure that it is a hashfile of this volume. */
static int check_file(struct dedupe_file *file, const struct dedupe_volume *volume)
{
	char uuid[DEDUPE_UUID_BYTES];
	int64_t application, version, tables;
	int r = dedupe_sql_number(&file->sql, "PRAGMA application_id", &application);

	if (r == 0)
		r = dedupe_sql_number(&file->sql, "PRAGMA user_version", &version);
	if (r == 0)
		r = dedupe_sql_number(&file->sql, "SELECT count(*) FROM sqlite_schema", &tables);
	if (r < 0)
		return r;
	if (application == 0 && tables == 0)
		return make_tables(file, volume);
	if (application != APPLICATION_ID) {
		say_error("cannot use the hashfile", file->sql.name,
			  "it is a database of something else; name another file");
		return -EBADMSG;
	}
	if (version != FORMAT_VERSION)
		return begin_anew(file, volume, "another version of sameblk made it");
	r = read_uuid(file, uuid);
	if (r == 0)
		r = read_about(file);
	if (r < 0)
		return r;
	if (strcmp(uuid, volume->uuid) != 0) {
		say_error("cannot use the hashfile", file->sql.name,
			  "it belongs to the volume %s and this one is %s; name another file", uuid,
			  volume->uuid);
		return -EXDEV;
	}
	if (file->about[DEDUPE_ABOUT_SIZE] != volume->size_bytes)
		return begin_anew(file, volume, "the volume has another size now");
	return 0;
}

static int prepare_all(struct dedupe_file *file)
{
	const struct {
		sqlite3_stmt **statement;
		const char *text;
	} statements[] = {
		{&file->put, "INSERT OR REPLACE INTO region VALUES(?1,?2)"},
		{&file->put_pending, "INSERT OR IGNORE INTO pending VALUES(?1)"},
		{&file->has, "SELECT 1 FROM region WHERE number=?1"},
		{&file->next, "SELECT number FROM region WHERE number>=?1 ORDER BY number LIMIT 1"},
	};

	for (size_t i = 0; i < sizeof(statements) / sizeof(statements[0]); i++) {
		int r = dedupe_sql_prepare(&file->sql, statements[i].text, statements[i].statement);

		if (r < 0)
			return r;
	}
	return 0;
}

/* Hashes tell what a volume holds. What cannot be made is complained about when it is opened. */
static void make_private(const char *path)
{
	int fd = path != NULL ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;

	if (fd >= 0)
		close(fd);
}

int dedupe_file_open(struct dedupe_file *file, const char *path, const struct dedupe_volume *volume,
		     uint64_t cache_bytes)
{
	int r;

	*file = (struct dedupe_file){.put = NULL};
	make_private(path);
	r = dedupe_sql_open(&file->sql, path, cache_bytes);
	if (r < 0)
		return r;
	/* Nobody else writes it meanwhile; a cut of power loses no more than what came last. One
	 * that has no name needs no log. */
	r = dedupe_sql_run(&file->sql, path != NULL ? "PRAGMA locking_mode=EXCLUSIVE;"
						      "PRAGMA synchronous=NORMAL;"
						      "BEGIN EXCLUSIVE; COMMIT;"
						    : "PRAGMA journal_mode=OFF;"
						      "PRAGMA synchronous=OFF");
	if (r == 0)
		r = check_file(file, volume);
	/* Not before it is known to be ours. */
	if (r == 0 && path != NULL)
		r = dedupe_sql_run(&file->sql, "PRAGMA journal_mode=WAL");
	if (r == 0)
		r = prepare_all(file);
	if (r < 0)
		dedupe_file_close(file);
	return r;
}

void dedupe_file_close(struct dedupe_file *file)
{
	sqlite3_stmt *const statements[] = {file->put, file->put_pending, file->has, file->next};

	for (size_t i = 0; i < sizeof(statements) / sizeof(statements[0]); i++)
		sqlite3_finalize(statements[i]);
	dedupe_sql_close(&file->sql);
	*file = (struct dedupe_file){.put = NULL};
}

int dedupe_file_begin(struct dedupe_file *file)
{
	return dedupe_sql_run(&file->sql, "BEGIN");
}

int dedupe_file_commit(struct dedupe_file *file)
{
	/* A full disk has ended it, and that was told. */
	if (sqlite3_get_autocommit(file->sql.db) != 0)
		return -EIO;
	return dedupe_sql_run(&file->sql, "COMMIT");
}

/* --- regions --- */

static int run_on_range(struct dedupe_file *file, const char *format, uint64_t first, uint64_t end)
{
	sqlite3_stmt *statement;
	int r = dedupe_sql_prepare(&file->sql, format, &statement);

	if (r < 0)
		return r;
	r = dedupe_sql_do(&file->sql, statement, first, end);
	sqlite3_finalize(statement);
	return r;
}

static int uncover(struct dedupe_file *file)
{
	int r = dedupe_file_set(file, DEDUPE_ABOUT_COVERED_FROM, 0);

	return r < 0 ? r : dedupe_file_set(file, DEDUPE_ABOUT_COVERED_TO, 0);
}

int dedupe_file_forget(struct dedupe_file *file, uint64_t first, uint64_t end)
{
	int r = run_on_range(file, "DELETE FROM region WHERE number>=?1 AND number<?2", first, end);

	if (r == 0)
		r = run_on_range(file, "DELETE FROM pending WHERE number>=?1 AND number<?2", first,
				 end);
	if (r == 0 && first < file->about[DEDUPE_ABOUT_COVERED_TO] &&
	    end > file->about[DEDUPE_ABOUT_COVERED_FROM])
		r = uncover(file);
	return r;
}

int dedupe_file_forget_all(struct dedupe_file *file)
{
	int r = dedupe_sql_run(&file->sql, "DELETE FROM region; DELETE FROM pending");

	return r < 0 ? r : uncover(file);
}

int dedupe_file_put(struct dedupe_file *file, uint64_t number,
		    const struct dedupe_hash hashes[DEDUPE_REGION_BLOCKS])
{
	int r = dedupe_sql_put(&file->sql, file->put, number, hashes,
			       DEDUPE_REGION_BLOCKS * sizeof(hashes[0]));

	return r < 0 ? r : dedupe_sql_do(&file->sql, file->put_pending, number, 0);
}

int dedupe_file_has(struct dedupe_file *file, uint64_t number)
{
	int r;

	sqlite3_bind_int64(file->has, 1, (sqlite3_int64)number);
	r = dedupe_sql_step(&file->sql, file->has);
	sqlite3_reset(file->has);
	return r;
}

int dedupe_file_next(struct dedupe_file *file, uint64_t from, uint64_t *ret_number)
{
	int r;

	sqlite3_bind_int64(file->next, 1, (sqlite3_int64)from);
	r = dedupe_sql_step(&file->sql, file->next);
	if (r == 1)
		*ret_number = (uint64_t)sqlite3_column_int64(file->next, 0);
	sqlite3_reset(file->next);
	return r == 0 ? -ENOENT : r < 0 ? r : 0;
}

int dedupe_file_set_pending(struct dedupe_file *file, uint64_t first, uint64_t end, bool pending)
{
	return run_on_range(file,
			    pending ? "INSERT OR IGNORE INTO pending SELECT number FROM region"
				      " WHERE number>=?1 AND number<?2"
				    : "DELETE FROM pending WHERE number>=?1 AND number<?2",
			    first, end);
}

int dedupe_file_count_pending(struct dedupe_file *file, uint64_t first, uint64_t end,
			      uint64_t *ret_count)
{
	char text[128];
	int64_t count = 0;
	int r;

	snprintf(text, sizeof(text),
		 "SELECT count(*) FROM pending WHERE number>=%" PRIu64 " AND number<%" PRIu64,
		 first, end);
	r = dedupe_sql_number(&file->sql, text, &count);
	*ret_count = (uint64_t)count;
	return r;
}
