/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * log - lines for people on standard error: `sameblkd: what failed, on what: why`
 *
 * Threads   any; a line is written whole. Blocking: as standard error does.
 */
#ifndef SERVER_BASE_LOG_H
#define SERVER_BASE_LOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

void log_init(bool verbose);

void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A kind of line that strangers can cause as often as they like. Zeroed at first. */
struct log_pace {
	_Atomic uint64_t next_ms;
	_Atomic unsigned left_out;
};

/* True: it may be said, and so many were not since the last one. Once in ten seconds. */
bool log_paced(struct log_pace *pace, unsigned *ret_left_out);

/* With -v only. */
void log_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
