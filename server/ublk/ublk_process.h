/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ublk_process - what a process has to do so that it cannot wait for a device that it serves itself
 *
 * Memory: the kernel frees memory for whoever asks by writing dirty pages out, perhaps to our own
 * device. A thread marked IO_FLUSHER never waits for that. Swap may lie on our own device: what we
 * need to serve it must never be there, so all memory of the process is locked (but not the mapped
 * store, which is a cache), and what I/O goes through is there before any comes. And it is not the
 * first one to be killed when memory is short: that would free none.
 *
 * Mounts: the last process of a mount namespace unmounts what is mounted there when it exits, after
 * its files are closed. Were that a file system on our own device, it would wait for a server that
 * is just ending. So the server has a namespace of its own that follows the one it came from, and
 * forgets mounts of its device: when it has gone live, those that were copied with the namespace,
 * which would stay if the one they were copied from were private; and before it ends, those that
 * came since. Where mounts are private (no systemd) it could not follow, and would keep
 * everything busy that is unmounted elsewhere: there it has none.
 *
 * Threads   prepare on the main thread before there are others: they inherit both.
 */
#ifndef SERVER_UBLK_UBLK_PROCESS_H
#define SERVER_UBLK_UBLK_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Whether this process runs: not one that was killed and whose memory is gone already. */
bool ublk_process_lives(pid_t pid);

/* What may not be done is left, with a line in the log. */
void ublk_process_prepare(void);
/* Of a line of mountinfo: it is the root, and a namespace copied from here sees what is unmounted
 * elsewhere: it is shared with others, or follows them (a service with a namespace of its own). */
bool ublk_process_follows(const char *line);
/* Forgets mounts of the device in our namespace only. */
void ublk_process_forget_mounts(const char *block_path);

#endif
