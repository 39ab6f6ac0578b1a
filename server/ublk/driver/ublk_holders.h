/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ublk_holders - what in the kernel itself has a disk or a partition of it open: filesystems, swap,
 * other devices that are made of it, a target that exports it
 *
 * No process has a file of these. A loop device and an nvmet namespace do not even claim the device
 * exclusively. A filesystem may be mounted in a mount namespace that is not ours.
 *
 * Errors    what cannot be read is passed over.
 * Threads   any. Blocking: it reads /proc and /sys, which asks no device.
 */
#ifndef SERVER_UBLK_DRIVER_UBLK_HOLDERS_H
#define SERVER_UBLK_DRIVER_UBLK_HOLDERS_H

#include <stddef.h>

#include "server/ublk/driver/ublk_view.h"

/* How many times they have it open. reterr_who (may be NULL): what the first one is, untouched if
 * there is none. */
unsigned ublk_holders_count(const struct ublk_view *view, const char *disk, char *reterr_who,
			    size_t who_bytes);

#endif
