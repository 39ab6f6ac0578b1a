/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * full_path - a path as others can use it, wherever they are
 *
 * What is reported to people and programs (ready line, status, log) names files from the root. The
 * last name stays as it was given, also if it is a link: a device keeps the name that its user
 * knows. What leads nowhere, and what has no last name (".."), stays as it is.
 *
 * Memory    ret_path has FULL_PATH_BYTES; longer ones stay as they are, cut.
 */
#ifndef SERVER_BASE_FULL_PATH_H
#define SERVER_BASE_FULL_PATH_H

#include <limits.h>

#define FULL_PATH_BYTES PATH_MAX

void full_path(const char *path, char ret_path[FULL_PATH_BYTES]);

#endif
