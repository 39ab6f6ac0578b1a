/* SPDX-License-Identifier: GPL-2.0-or-later */
/* own_memory - see the header */
#include "server/control/own_memory.h"

#include <errno.h>
#include <stdio.h>

int own_memory(struct own_memory *ret_memory)
{
	FILE *file = fopen("/proc/self/status", "re");
	unsigned long long own = 0, mapped = 0, shared = 0;
	char line[256];

	if (file == NULL)
		return -errno;
	while (fgets(line, sizeof(line), file) != NULL) {
		(void)sscanf(line, "RssAnon: %llu kB", &own);
		(void)sscanf(line, "RssFile: %llu kB", &mapped);
		(void)sscanf(line, "RssShmem: %llu kB", &shared);
	}
	fclose(file);
	*ret_memory = (struct own_memory){own * 1024, (mapped + shared) * 1024};
	return 0;
}
