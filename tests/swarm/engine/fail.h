/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fail - how a world says what is wrong: the check that saw it, the seed, and the last things done
 *
 * The program is a child of main.c; it prints and ends. An assertion of the engine or a sanitizer
 * ends it as well: then the parent knows the seed.
 */
#ifndef TESTS_SWARM_ENGINE_FAIL_H
#define TESTS_SWARM_ENGINE_FAIL_H

#include <stdbool.h>
#include <stdint.h>

#define FAIL_STATUS	 3
#define FAIL_CHECK_BYTES 32

/* Where the check's name is put for the parent. */
void fail_tell(char *check);

/* Which world and life, for messages. */
void fail_where(uint64_t seed, unsigned life);
void fail_tracing(bool on);
/* Remembered, the last ones; with tracing on printed. */
void trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* check is the name of what was looked at. */
void fail(const char *check, const char *format, ...)
	__attribute__((format(printf, 2, 3), noreturn));

#endif
