/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * far_path - what a path leads to, asked for with a time limit
 *
 * A path may lead into a filesystem whose server has gone (NFS, FUSE): whoever asks for it then
 * waits, for ever and in some cases beyond SIGKILL. Paths that somebody else has written down are
 * therefore asked for by a process of its own, which is left behind when it does not come back.
 *
 * Errors    0 or a negative errno; ETIMEDOUT: no answer in time.
 * Threads   any. Blocking: as long as the limit.
 * Memory    none that stays. Processes: one that hangs goes away when its filesystem does; it holds
 *           no descriptor of ours, so no lock either.
 */
#ifndef SERVER_BASE_FAR_PATH_H
#define SERVER_BASE_FAR_PATH_H

#include <limits.h>
#include <sys/types.h>

#define FAR_PATH_MS 2000u

struct far_path {
	char real[PATH_MAX]; /* without links */
	mode_t mode;
	dev_t dev;
	ino_t ino;
	dev_t rdev; /* of a device */
};

int far_path_ask(const char *path, unsigned limit_ms, struct far_path *ret_path);

#endif
