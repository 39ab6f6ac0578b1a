/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dedupe_sql - a database and its prepared statements, with complaints made in one place
 *
 * Errors    functions return a negative errno (EIO for what has no better one) and have said on
 *           stderr what failed, on which file, and why.
 * Threads   one. Blocking: yes, on files.
 */
#ifndef CLI_DEDUPE_DEDUPE_SQL_H
#define CLI_DEDUPE_DEDUPE_SQL_H

#include <sqlite3.h>
#include <stddef.h>
#include <stdint.h>

struct dedupe_sql {
	sqlite3 *db;
	const char *name; /* for people */
};

/* path NULL: a file without a name, gone when it is closed. cache_bytes: of pages in memory. */
int dedupe_sql_open(struct dedupe_sql *sql, const char *path, uint64_t cache_bytes);
void dedupe_sql_close(struct dedupe_sql *sql);

/* One or more statements without results. */
int dedupe_sql_run(struct dedupe_sql *sql, const char *text);
/* The number in the first column of the first row. */
int dedupe_sql_number(struct dedupe_sql *sql, const char *text, int64_t *ret_number);
int dedupe_sql_prepare(struct dedupe_sql *sql, const char *text, sqlite3_stmt **ret_statement);

/* 1: a row; 0: no more, and the statement is ready to be used again. */
int dedupe_sql_step(struct dedupe_sql *sql, sqlite3_stmt *statement);
/* Binds up to two numbers first; statements without results. */
int dedupe_sql_do(struct dedupe_sql *sql, sqlite3_stmt *statement, uint64_t one, uint64_t two);
/* Number one is bound to the first parameter, the bytes to the second. */
int dedupe_sql_put(struct dedupe_sql *sql, sqlite3_stmt *statement, uint64_t one, const void *bytes,
		   size_t len_bytes);

#endif
