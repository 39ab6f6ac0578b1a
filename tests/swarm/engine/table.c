/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/swarm/engine/table.h"

#include <assert.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>

static const struct {
	const char *name;
	const char *buckets[TABLE_BUCKETS];
} rows[DIM_COUNT] = {
	[DIM_SIZE] = {"size", {"small", "region", "slab", "area", "medium", "1 TiB", "64 TiB"}},
	[DIM_TAIL] = {"last region", {"whole", "1 to 7 blocks", "8 to 63", "64 to 504", "to 511"}},
	[DIM_STORE] = {"store", {"created", "thin", "scarce", "roomy"}},
	[DIM_RING] = {"ring", {"chosen", "smallest", "small", "large"}},
	[DIM_SECTOR] = {"sector", {"512", "4096"}},
	[DIM_LANES] = {"lanes", {"1", "2", "3", "4"}},
	[DIM_WORLD] = {"world",
		       {"tracking", "not", "foreign", "not", "junk", "zeros", "short lives",
			"not"}},
	[DIM_SHAPE] = {"shape",
		       {"empty", "linear", "linear, cloned", "fragmented", "long log", "full",
			"saturated"}},
	[DIM_CACHE] = {"cache", {"least", "small", "middle", "default"}},
	[DIM_HINT] = {"hint", {"default", "1", "2 to 16", "32 to 256", "512"}},
	[DIM_DEPTH] = {"in flight", {"1", "2 to 4", "5 to 8", "9 to 16"}},
	[DIM_LIFE] = {"life",
		      {"discard", "not", "compare", "not", "read-only", "not", "lasting", "mixed",
		       "never", "cancels", "not", "slow I/O", "not"}},
	[DIM_FAULT] = {"fault",
		       {"none", "read", "write", "flush", "discard", "compare", "full", "quota",
			"moving"}},
	[DIM_END] = {"end", {"clean", "kill", "power cut", "while closing"}},
	[DIM_NESTED] = {"kills in recovery", {"0", "1", "2", "3", "4"}},
	[DIM_OP] = {"operation",
		    {"read",	   "write",	"write pool", "write sectors", "write bytes",
		     "zero",	   "zero keep", "zero bytes", "discard",       "discard bytes",
		     "flush",	   "same",	"same zero",  "same many",     "clone",
		     "clone many", "map",	"changes",    "invalid",       "hint"}},
	[DIM_LENGTH] = {"length", {"one", "few", "part", "region", "many regions"}},
	[DIM_ANSWER] = {"answer",
			{"ok", "EIO", "ENOSPC", "EMLINK", "ECANCELED", "EINVAL", "EROFS"}},
	[DIM_LOOK] = {"looked",
		      {"recovered", "replayed by I/O", "checked", "quiet", "filled up", "emptied",
		       "merge probed", "opening failed", "checkpoint in replay",
		       "kept for clones"}},
};

static struct table *table;

void table_init(void)
{
	void *p = mmap(NULL, sizeof(*table), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		       0);

	assert(p != MAP_FAILED);
	table = p;
}

void table_add(enum dimension dimension, unsigned bucket)
{
	assert(bucket < TABLE_BUCKETS && rows[dimension].buckets[bucket] != NULL);
	table->counts[dimension][bucket]++;
}

uint64_t table_sum(enum dimension dimension)
{
	uint64_t sum = 0;

	for (unsigned b = 0; b < TABLE_BUCKETS; b++)
		sum += table->counts[dimension][b];
	return sum;
}

unsigned table_print(void)
{
	unsigned empty = 0;

	for (unsigned d = 0; d < DIM_COUNT; d++) {
		printf("%-18s", rows[d].name);
		for (unsigned b = 0; b < TABLE_BUCKETS && rows[d].buckets[b] != NULL; b++) {
			uint64_t n = table->counts[d][b];

			empty += n == 0;
			printf("%s %s %" PRIu64 "%s", b == 0 ? "" : ",", rows[d].buckets[b], n,
			       n == 0 ? " (never)" : "");
		}
		printf("\n");
	}
	return empty;
}
