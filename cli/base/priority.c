/* SPDX-License-Identifier: GPL-2.0-or-later */
/* priority - see the header */
#include "cli/base/priority.h"

#include <sys/resource.h>

#define STEPS 10

void priority_make_way(void)
{
	(void)setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + STEPS);
}
