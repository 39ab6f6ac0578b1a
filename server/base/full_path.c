/* SPDX-License-Identifier: GPL-2.0-or-later */
/* full_path - see the header */
#include "server/base/full_path.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_name(const char *last)
{
	return last[0] != '\0' && strcmp(last, ".") != 0 && strcmp(last, "..") != 0;
}

void full_path(const char *path, char ret_path[FULL_PATH_BYTES])
{
	char folder[PATH_MAX] = ".", real[PATH_MAX];
	const char *slash = strrchr(path, '/');
	const char *last = slash != NULL ? slash + 1 : path;
	int len = -1;

	if (slash != NULL && (size_t)(slash - path) + 1 < sizeof(folder))
		*(char *)mempcpy(folder, path, (size_t)(slash - path) + 1) = '\0';
	if (is_name(last) && strlen(path) < PATH_MAX && realpath(folder, real) != NULL)
		len = snprintf(ret_path, FULL_PATH_BYTES, "%s/%s",
			       strcmp(real, "/") == 0 ? "" : real, last);
	if (len < 0 || (size_t)len >= FULL_PATH_BYTES)
		snprintf(ret_path, FULL_PATH_BYTES, "%s", path);
}
