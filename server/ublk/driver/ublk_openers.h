/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ublk_openers - which processes have a ublk block device open, and whether somebody has it whom
 * nothing shows
 *
 * Descriptors are looked at thread by thread: a thread may have a table of its own, and that of a
 * process whose first thread has ended is seen at another. A mapping whose descriptor is closed and
 * a file that an io_uring has registered show elsewhere, and a descriptor that is on its way
 * through a socket nowhere. But the driver's module counts every open of its nodes:
 *
 *     count of the module = opens of /dev/ublk-control and /dev/ublkcN and of all block devices, by
 *                           processes (each open file once, whoever shares it)
 *                         + opens from inside the kernel (ublk_holders.h)
 *                         + what nothing shows
 *
 * Older drivers do not tell how often a device is open; that rest is how it is found out.
 *
 * Errors    0 or a negative errno.
 * Threads   any. Blocking: it reads /proc and /sys.
 */
#ifndef SERVER_UBLK_DRIVER_UBLK_OPENERS_H
#define SERVER_UBLK_DRIVER_UBLK_OPENERS_H

#include <stdbool.h>
#include <stddef.h>

#include "server/ublk/driver/ublk_view.h"

struct ublk_openers {
	bool shown; /* a process that is not us has a descriptor of it */
	bool counted; /* what comes next could be told */
	unsigned unseen; /* opens of it, or of another ublk device, that nothing shows */
};

/* reterr_who: who is shown. EAGAIN: opens came or went meanwhile. */
int ublk_openers_find(const struct ublk_view *view, const char *disk,
		      struct ublk_openers *ret_openers, char *reterr_who, size_t who_bytes);

/* Who of those that descriptors do not show has it: true, or a sentence that it is not to be
 * found. Reads more than the other does. */
bool ublk_openers_find_unseen(const struct ublk_view *view, const char *disk, char *reterr_who,
			      size_t who_bytes);

#endif
