/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ublk_view - where the kernel shows who uses a block device, and how that is looked at
 *
 * Everybody but a test looks at the machine's own: ublk_view_machine.
 *
 * Threads   any. Blocking: what is read is the kernel's own, no filesystem's.
 */
#ifndef SERVER_UBLK_DRIVER_UBLK_VIEW_H
#define SERVER_UBLK_DRIVER_UBLK_VIEW_H

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define UBLK_VIEW_PATH_BYTES 512u
#define UBLK_VIEW_TEXT_BYTES 512u

/* A file that some thread has open. */
struct ublk_view_file {
	pid_t pid;
	pid_t tid;
	int fd;
};

struct ublk_view {
	const char *proc;
	const char *sys; /* configfs below it */
	/* The type and the device number of what a link in /proc/PID/fd leads to. */
	int (*look)(int dir_fd, const char *name, mode_t *ret_mode, dev_t *ret_number);
	/* 1: two descriptors are one open file; 0: they are two. */
	int (*same_file)(const struct ublk_view_file *a, const struct ublk_view_file *b);
	/* 1: two threads have one table of descriptors. */
	int (*same_table)(pid_t a, pid_t b);
};

extern const struct ublk_view ublk_view_machine;

/* Whether a name, or the last part of a path, is the disk's or that of one of its partitions. What
 * the kernel adds for a node that is gone does not count. */
bool ublk_view_is_of(const char *path, const char *disk);

/* The first line of a file, without its newline. -ENODATA: it is empty. */
int ublk_view_line(char ret_text[UBLK_VIEW_TEXT_BYTES], const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* A number that makes up a file. */
int ublk_view_number(long long *ret_number, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* NULL: it is not there, or may not be read. */
DIR *ublk_view_folder(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The next entry but those that begin with a dot; NULL: no more. */
const char *ublk_view_next(DIR *dir);
/* The same of those that are numbers. 0: no more. */
pid_t ublk_view_next_pid(DIR *dir);
/* The name of a process. */
void ublk_view_comm(const struct ublk_view *view, pid_t pid, char ret_comm[17]);

#endif
