/* SPDX-License-Identifier: GPL-2.0-or-later */
/* counters - see the header */
#include "core/volume/counters.h"

#include "core/volume/volume.h"

#define COUNTER_LINE(kind_, unit_, name_, help_)                                                   \
	{COUNTER_##kind_, COUNTER_##unit_, #name_, help_, offsetof(struct volume_stats, name_)},

const struct counter counter_table[] = {COUNTERS(COUNTER_LINE)};
const size_t counter_table_count = sizeof(counter_table) / sizeof(counter_table[0]);

uint64_t counter_value(const struct volume_stats *stats, const struct counter *counter)
{
	return *(const uint64_t *)(const void *)((const char *)stats + counter->offset);
}
