/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * log - lines for people on standard error: `sameblkd: what failed, on what: why`
 *
 * Threads   any; a line is written whole. Blocking: as standard error does.
 */
#ifndef SERVER_LOG_H
#define SERVER_LOG_H

#include <stdbool.h>

void log_init(bool verbose);

void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* With -v only. */
void log_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
