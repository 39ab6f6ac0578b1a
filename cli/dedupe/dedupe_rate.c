/* SPDX-License-Identifier: GPL-2.0-or-later */
/* dedupe_rate - see the header */
#include "cli/dedupe/dedupe_rate.h"

#include <time.h>

#include "cli/base/dedupe_signal.h"
#include "core/base/units.h"
#include "server/base/clock.h"

#define SECOND_NS 1000000000ull
#define NAP_NS	  100000000ull /* how soon a signal is seen */

void dedupe_rate_wait(struct dedupe_rate *rate, uint64_t bytes)
{
	uint64_t now_ns;

	if (rate->bytes_per_second == 0)
		return;
	now_ns = clock_ns();
	while (now_ns < rate->free_ns && !dedupe_signal_came()) {
		struct timespec nap = {.tv_nsec = (long)min_u64(NAP_NS, rate->free_ns - now_ns)};

		nanosleep(&nap, NULL);
		now_ns = clock_ns();
	}
	if (rate->free_ns < now_ns)
		rate->free_ns = now_ns;
	rate->free_ns += (uint64_t)((double)bytes * SECOND_NS / (double)rate->bytes_per_second);
}
