/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ublk_holders - see the header */
#include "server/ublk/driver/ublk_holders.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The disk and its partitions; more than these are not told apart when mounts are counted. */
#define PARTS_MAX 64u
#define PART_NAME 32u

struct part {
	char name[PART_NAME];
	char number[PART_NAME]; /* MAJOR:MINOR */
	bool mounted;
};

struct scan {
	const struct ublk_view *view;
	const char *disk;
	char *who;
	size_t who_bytes;
	unsigned count;
	struct part parts[PARTS_MAX];
	unsigned part_count;
};

static void __attribute__((format(printf, 2, 3))) add(struct scan *scan, const char *format, ...)
{
	va_list args;

	if (scan->count++ > 0 || scan->who == NULL)
		return;
	va_start(args, format);
	vsnprintf(scan->who, scan->who_bytes, format, args);
	va_end(args);
}

/* --- what it consists of --- */

static void add_part(struct scan *scan, const char *folder, const char *name)
{
	struct part *part = &scan->parts[scan->part_count];
	char text[UBLK_VIEW_TEXT_BYTES];

	if (scan->part_count == PARTS_MAX || strlen(name) >= sizeof(part->name) ||
	    ublk_view_line(text, "%s/%s/dev", folder, name) < 0 ||
	    strlen(text) >= sizeof(part->number))
		return;
	strcpy(part->name, name);
	strcpy(part->number, text);
	scan->part_count++;
}

static void find_parts(struct scan *scan)
{
	char folder[UBLK_VIEW_PATH_BYTES];
	const char *name;
	DIR *dir;

	snprintf(folder, sizeof(folder), "%s/class/block", scan->view->sys);
	add_part(scan, folder, scan->disk);
	snprintf(folder, sizeof(folder), "%s/class/block/%s", scan->view->sys, scan->disk);
	dir = ublk_view_folder("%s", folder);
	while (dir != NULL && (name = ublk_view_next(dir)) != NULL)
		if (ublk_view_is_of(name, scan->disk))
			add_part(scan, folder, name);
	if (dir != NULL)
		closedir(dir);
}

/* --- other devices --- */

static void say_holder(struct scan *scan, const char *name)
{
	char text[UBLK_VIEW_TEXT_BYTES];

	if (ublk_view_line(text, "%s/class/block/%s/dm/name", scan->view->sys, name) == 0)
		add(scan, "the device-mapper device %.64s (%.32s) is made of it", text, name);
	else
		add(scan, "%.32s is made of it", name);
}

static void find_made_of(struct scan *scan, const char *folder)
{
	DIR *dir = ublk_view_folder("%s/holders", folder);
	const char *name;

	while (dir != NULL && (name = ublk_view_next(dir)) != NULL)
		say_holder(scan, name);
	if (dir != NULL)
		closedir(dir);
}

static void find_all_made_of(struct scan *scan)
{
	char folder[UBLK_VIEW_PATH_BYTES];

	for (unsigned i = 0; i < scan->part_count; i++) {
		snprintf(folder, sizeof(folder), "%s/class/block/%s%s%s", scan->view->sys,
			 i > 0 ? scan->disk : "", i > 0 ? "/" : "", scan->parts[i].name);
		find_made_of(scan, folder);
	}
}

static void find_loops(struct scan *scan)
{
	DIR *dir = ublk_view_folder("%s/class/block", scan->view->sys);
	char text[UBLK_VIEW_TEXT_BYTES];
	const char *name;

	while (dir != NULL && (name = ublk_view_next(dir)) != NULL)
		if (strncmp(name, "loop", 4) == 0 &&
		    ublk_view_line(text, "%s/class/block/%s/loop/backing_file", scan->view->sys,
				   name) == 0 &&
		    ublk_view_is_of(text, scan->disk))
			add(scan, "the loop device %.32s is made of it", name);
	if (dir != NULL)
		closedir(dir);
}

static void find_namespace(struct scan *scan, const char *subsystem)
{
	DIR *dir = ublk_view_folder("%s/kernel/config/nvmet/subsystems/%s/namespaces",
				    scan->view->sys, subsystem);
	char text[UBLK_VIEW_TEXT_BYTES];
	const char *name;
	long long enabled;

	while (dir != NULL && (name = ublk_view_next(dir)) != NULL)
		if (ublk_view_number(&enabled,
				     "%s/kernel/config/nvmet/subsystems/%s/namespaces/%s/enable",
				     scan->view->sys, subsystem, name) == 0 &&
		    enabled == 1 &&
		    ublk_view_line(text,
				   "%s/kernel/config/nvmet/subsystems/%s/namespaces/%s/device_path",
				   scan->view->sys, subsystem, name) == 0 &&
		    ublk_view_is_of(text, scan->disk))
			add(scan, "the NVMe target %.128s exports it", subsystem);
	if (dir != NULL)
		closedir(dir);
}

static void find_namespaces(struct scan *scan)
{
	DIR *dir = ublk_view_folder("%s/kernel/config/nvmet/subsystems", scan->view->sys);
	const char *name;

	while (dir != NULL && (name = ublk_view_next(dir)) != NULL)
		find_namespace(scan, name);
	if (dir != NULL)
		closedir(dir);
}

/* --- swap --- */

static void find_swap(struct scan *scan)
{
	char path[UBLK_VIEW_PATH_BYTES], *line = NULL;
	size_t bytes = 0;
	FILE *file;

	snprintf(path, sizeof(path), "%s/swaps", scan->view->proc);
	file = fopen(path, "re");
	if (file == NULL)
		return;
	while (getline(&line, &bytes, file) >= 0) {
		line[strcspn(line, " \t\n")] = '\0';
		if (ublk_view_is_of(line, scan->disk))
			add(scan, "it is swap space (%.64s)", line);
	}
	free(line);
	fclose(file);
}

/* --- filesystems --- */

/* \040 and the like, as the kernel writes blanks. */
static void unescape(char *text)
{
	char *to = text;

	for (const char *from = text; *from != '\0'; to++) {
		unsigned value;

		if (*from == '\\' && sscanf(from + 1, "%3o", &value) == 1 && value < 256) {
			*to = (char)value;
			from += 4;
		} else {
			*to = *from++;
		}
	}
	*to = '\0';
}

/* A filesystem of several devices has a number of its own, and names one of them. */
static bool is_on(const struct part *part, const char *number, const char *source)
{
	char real[PATH_MAX];

	if (strcmp(number, part->number) == 0)
		return true;
	if (strncmp(number, "0:", 2) != 0 || strncmp(source, "/dev/", 5) != 0)
		return false;
	if (realpath(source, real) != NULL)
		source = real;
	return strcmp(strrchr(source, '/') + 1, part->name) == 0;
}

/* ID PARENT MAJOR:MINOR ROOT PLACE OPTIONS [TAG...] - TYPE SOURCE OPTIONS */
static void find_on_line(struct scan *scan, char *line, pid_t pid)
{
	char *separator = strstr(line, " - "), *rest = NULL, comm[17];
	const char *number, *source;
	char *place;

	if (separator == NULL)
		return;
	*separator = '\0';
	(void)strtok_r(separator + 3, " \n", &rest);
	source = strtok_r(NULL, " \n", &rest);
	(void)strtok_r(line, " ", &rest);
	(void)strtok_r(NULL, " ", &rest);
	number = strtok_r(NULL, " ", &rest);
	(void)strtok_r(NULL, " ", &rest);
	place = strtok_r(NULL, " ", &rest);
	if (source == NULL || number == NULL || place == NULL)
		return;
	for (unsigned i = 0; i < scan->part_count; i++) {
		if (scan->parts[i].mounted || !is_on(&scan->parts[i], number, source))
			continue;
		scan->parts[i].mounted = true;
		unescape(place);
		ublk_view_comm(scan->view, pid, comm);
		if (pid == 0)
			add(scan, "it is mounted on %s", place);
		else
			add(scan, "it is mounted on %.128s for process %d (%s)", place, (int)pid,
			    comm);
	}
}

/* pid 0: our own. */
static void find_mounts_of(struct scan *scan, pid_t pid)
{
	char path[UBLK_VIEW_PATH_BYTES], *line = NULL;
	size_t bytes = 0;
	FILE *file;

	if (pid == 0)
		snprintf(path, sizeof(path), "%s/self/mountinfo", scan->view->proc);
	else
		snprintf(path, sizeof(path), "%s/%d/mountinfo", scan->view->proc, (int)pid);
	file = fopen(path, "re");
	if (file == NULL)
		return;
	while (getline(&line, &bytes, file) >= 0)
		find_on_line(scan, line, pid);
	free(line);
	fclose(file);
}

/* True: the process has a mount namespace that none before had. */
static bool is_new(ino_t **spaces, size_t *count, const struct ublk_view *view, pid_t pid)
{
	char path[UBLK_VIEW_PATH_BYTES];
	struct stat st;
	ino_t *more;

	snprintf(path, sizeof(path), "%s/%d/ns/mnt", view->proc, (int)pid);
	if (stat(path, &st) < 0)
		return false;
	for (size_t i = 0; i < *count; i++)
		if ((*spaces)[i] == st.st_ino)
			return false;
	more = realloc(*spaces, (*count + 1) * sizeof(*more));
	if (more == NULL)
		return true;
	more[(*count)++] = st.st_ino;
	*spaces = more;
	return true;
}

static void find_mounts(struct scan *scan)
{
	DIR *dir = ublk_view_folder("%s", scan->view->proc);
	ino_t *spaces = NULL;
	size_t count = 0;
	pid_t pid;

	find_mounts_of(scan, 0);
	while (dir != NULL && (pid = ublk_view_next_pid(dir)) > 0)
		if (is_new(&spaces, &count, scan->view, pid))
			find_mounts_of(scan, pid);
	free(spaces);
	if (dir != NULL)
		closedir(dir);
}

unsigned ublk_holders_count(const struct ublk_view *view, const char *disk, char *reterr_who,
			    size_t who_bytes)
{
	struct scan scan = {
		.view = view,
		.disk = disk,
		.who = reterr_who,
		.who_bytes = who_bytes,
	};

	find_parts(&scan);
	find_mounts(&scan);
	find_all_made_of(&scan);
	find_loops(&scan);
	find_swap(&scan);
	find_namespaces(&scan);
	return scan.count;
}
