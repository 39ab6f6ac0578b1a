/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * farewell - tells those who asked the server to stop how that went
 *
 * A stop is answered at once; what comes of it shows only when the store is closed. So the
 * connection of each stop is kept until then, and the last line on it is a notification, `ended`,
 * that says whether the end was clean. One that ends without that line was not.
 *
 * Threads   added to by the control thread; told by the main thread when that one has ended.
 * Blocking  never: whoever reads too slowly is not told.
 */
#ifndef SERVER_FAREWELL_H
#define SERVER_FAREWELL_H

#include <stdbool.h>

#define FAREWELL_MAX 16u

struct farewell {
	int fds[FAREWELL_MAX];
	unsigned count;
};

/* fd: taken over. False: there are too many, and it is closed. */
bool farewell_add(struct farewell *farewell, int fd);
/* The last thing before the process ends. */
void farewell_say(struct farewell *farewell, bool clean);

#endif
