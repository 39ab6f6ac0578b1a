/* SPDX-License-Identifier: GPL-2.0-or-later */
/* dedupe_sql - see the header */
#include "cli/dedupe/dedupe_sql.h"

#include <errno.h>
#include <stdio.h>

#include "cli/base/say.h"

static int complain(struct dedupe_sql *sql)
{
	int code = sqlite3_errcode(sql->db) & 0xff;

	switch (code) {
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		say_error("cannot use the hashfile", sql->name, "another process has it open");
		return -EBUSY;
	case SQLITE_NOTADB:
	case SQLITE_CORRUPT:
		say_error("cannot use the hashfile", sql->name,
			  "it is no hashfile, or damaged; remove it or name another one");
		return -EBADMSG;
	default:
		say_error("cannot use the hashfile", sql->name, "%s", sqlite3_errmsg(sql->db));
		return code == SQLITE_FULL ? -ENOSPC : code == SQLITE_NOMEM ? -ENOMEM : -EIO;
	}
}

int dedupe_sql_open(struct dedupe_sql *sql, const char *path, uint64_t cache_bytes)
{
	char text[64];
	int r;

	*sql = (struct dedupe_sql){.name = path != NULL ? path : "a temporary file"};
	if (sqlite3_open_v2(path != NULL ? path : "", &sql->db,
			    SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
			    NULL) != SQLITE_OK) {
		r = sql->db == NULL ? -ENOMEM : complain(sql);
		dedupe_sql_close(sql);
		return r;
	}
	/* A negative number counts KiB. */
	snprintf(text, sizeof(text), "PRAGMA main.cache_size=-%llu",
		 (unsigned long long)(cache_bytes / 1024));
	r = dedupe_sql_run(sql, text);
	if (r == 0)
		r = dedupe_sql_run(sql, "PRAGMA temp_store=FILE");
	if (r < 0)
		dedupe_sql_close(sql);
	return r;
}

void dedupe_sql_close(struct dedupe_sql *sql)
{
	sqlite3_close(sql->db);
	sql->db = NULL;
}

int dedupe_sql_run(struct dedupe_sql *sql, const char *text)
{
	if (sqlite3_exec(sql->db, text, NULL, NULL, NULL) != SQLITE_OK)
		return complain(sql);
	return 0;
}

int dedupe_sql_prepare(struct dedupe_sql *sql, const char *text, sqlite3_stmt **ret_statement)
{
	if (sqlite3_prepare_v3(sql->db, text, -1, SQLITE_PREPARE_PERSISTENT, ret_statement, NULL) !=
	    SQLITE_OK)
		return complain(sql);
	return 0;
}

int dedupe_sql_step(struct dedupe_sql *sql, sqlite3_stmt *statement)
{
	int code = sqlite3_step(statement), r;

	if (code == SQLITE_ROW)
		return 1;
	r = code == SQLITE_DONE ? 0 : complain(sql);
	sqlite3_reset(statement);
	return r;
}

int dedupe_sql_number(struct dedupe_sql *sql, const char *text, int64_t *ret_number)
{
	sqlite3_stmt *statement;
	int r = dedupe_sql_prepare(sql, text, &statement);

	if (r < 0)
		return r;
	r = dedupe_sql_step(sql, statement);
	if (r == 1)
		*ret_number = sqlite3_column_int64(statement, 0);
	sqlite3_finalize(statement);
	return r == 0 ? -ENOENT : r < 0 ? r : 0;
}

int dedupe_sql_do(struct dedupe_sql *sql, sqlite3_stmt *statement, uint64_t one, uint64_t two)
{
	int count = sqlite3_bind_parameter_count(statement);

	if (count > 0)
		sqlite3_bind_int64(statement, 1, (sqlite3_int64)one);
	if (count > 1)
		sqlite3_bind_int64(statement, 2, (sqlite3_int64)two);
	return dedupe_sql_step(sql, statement);
}

int dedupe_sql_put(struct dedupe_sql *sql, sqlite3_stmt *statement, uint64_t one, const void *bytes,
		   size_t len_bytes)
{
	int r;

	sqlite3_bind_int64(statement, 1, (sqlite3_int64)one);
	sqlite3_bind_blob(statement, 2, bytes, (int)len_bytes, SQLITE_STATIC);
	r = dedupe_sql_step(sql, statement);
	sqlite3_clear_bindings(statement);
	return r;
}
