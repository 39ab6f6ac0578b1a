/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dedupe_rate - a limit on bytes a second, kept by waiting
 *
 * What was not used is not saved up: after a pause the rate is the same.
 *
 * Blocking  dedupe_rate_wait(), until the bytes may go or a signal came.
 */
#ifndef CLI_DEDUPE_DEDUPE_RATE_H
#define CLI_DEDUPE_DEDUPE_RATE_H

#include <stdint.h>

struct dedupe_rate {
	uint64_t bytes_per_second; /* 0: no limit */
	uint64_t free_ns; /* when the bytes so far have had their time */
};

void dedupe_rate_wait(struct dedupe_rate *rate, uint64_t bytes);

#endif
