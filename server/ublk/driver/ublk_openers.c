/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ublk_openers - see the header */
#include "server/ublk/driver/ublk_openers.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "server/ublk/driver/ublk_holders.h"

#define DISK_PREFIX    "ublkb"
#define CHAR_PREFIX    "ublkc"
#define CONTROL	       "ublk-control"
#define NAME_BYTES     32u
#define INITIAL_PID_NS "pid:[4026531836]"
#define RING_LINK      "anon_inode:[io_uring]"
#define RING_FILES     "UserFiles:"
#define DISKS_MAX      4096u

struct walk {
	const struct ublk_view *view;
	const char *disk;
	struct ublk_view_file *files; /* open files of the driver, each once */
	size_t count;
	bool blind; /* somebody's descriptors could not be read */
	bool merged; /* whether two are one could not be told */
	bool shown;
	char *who;
	size_t who_bytes;
};

/* --- what a descriptor leads to --- */

static ssize_t read_link(int dir_fd, const char *name, char ret_text[UBLK_VIEW_TEXT_BYTES])
{
	ssize_t len = readlinkat(dir_fd, name, ret_text, UBLK_VIEW_TEXT_BYTES - 1);

	ret_text[len > 0 ? len : 0] = '\0';
	return len;
}

/* In the path of a device in sysfs: the part that begins with this. */
static bool has_part(const char *path, const char *prefix, char ret_name[NAME_BYTES])
{
	for (const char *at = strstr(path, prefix); at != NULL; at = strstr(at + 1, prefix)) {
		size_t len = strcspn(at, "/");

		if (at == path || at[-1] != '/' || len >= NAME_BYTES)
			continue;
		memcpy(ret_name, at, len);
		ret_name[len] = '\0';
		return true;
	}
	return false;
}

/* A file of the driver. ret_name: the disk's, also of a partition; or the node's. */
static bool is_driver(const struct ublk_view *view, int dir_fd, const char *name,
		      char ret_name[NAME_BYTES])
{
	char path[UBLK_VIEW_PATH_BYTES], target[UBLK_VIEW_TEXT_BYTES];
	mode_t mode;
	dev_t number;

	if (view->look(dir_fd, name, &mode, &number) < 0 || (!S_ISBLK(mode) && !S_ISCHR(mode)))
		return false;
	snprintf(path, sizeof(path), "%s/dev/%s/%u:%u", view->sys, S_ISBLK(mode) ? "block" : "char",
		 major(number), minor(number));
	/* Of a device that was removed and is still open the kernel shows only its node. */
	if (read_link(AT_FDCWD, path, target) < 0 && read_link(dir_fd, name, target) < 0)
		return false;
	if (S_ISBLK(mode))
		return has_part(target, DISK_PREFIX, ret_name);
	return has_part(target, CHAR_PREFIX, ret_name) || has_part(target, CONTROL, ret_name);
}

/* --- descriptors --- */

static bool is_known(struct walk *walk, const struct ublk_view_file *file)
{
	for (size_t i = 0; i < walk->count; i++) {
		int r = walk->view->same_file(&walk->files[i], file);

		/* One that is closed meanwhile changes the module's count, which is seen there. */
		if (r < 0 && r != -ESRCH && r != -EBADF)
			walk->merged = true;
		if (r == 1)
			return true;
	}
	return false;
}

static int add_file(struct walk *walk, const struct ublk_view_file *file)
{
	struct ublk_view_file *more;

	if (is_known(walk, file))
		return 0;
	more = realloc(walk->files, (walk->count + 1) * sizeof(*more));
	if (more == NULL)
		return -ENOMEM;
	more[walk->count++] = *file;
	walk->files = more;
	return 0;
}

static int look_at(struct walk *walk, int dir_fd, const struct ublk_view_file *file)
{
	char number[16], name[NAME_BYTES], comm[17];

	snprintf(number, sizeof(number), "%d", file->fd);
	if (!is_driver(walk->view, dir_fd, number, name))
		return 0;
	if (!walk->shown && file->pid != getpid() && ublk_view_is_of(name, walk->disk)) {
		walk->shown = true;
		ublk_view_comm(walk->view, file->pid, comm);
		snprintf(walk->who, walk->who_bytes, "process %d (%s) has it open", (int)file->pid,
			 comm);
	}
	return add_file(walk, file);
}

static int look_at_thread(struct walk *walk, pid_t pid, pid_t tid)
{
	struct ublk_view_file file = {.pid = pid, .tid = tid};
	DIR *dir = ublk_view_folder("%s/%d/task/%d/fd", walk->view->proc, (int)pid, (int)tid);
	const char *name;
	int r = 0;

	if (dir == NULL) {
		walk->blind = walk->blind || errno == EACCES || errno == EPERM;
		return 0;
	}
	while (r == 0 && (name = ublk_view_next(dir)) != NULL) {
		file.fd = (int)strtol(name, NULL, 10);
		r = look_at(walk, dirfd(dir), &file);
	}
	closedir(dir);
	return r;
}

/* Nearly all threads share the table of the first, which may have ended. */
static int look_at_process(struct walk *walk, pid_t pid)
{
	DIR *dir = ublk_view_folder("%s/%d/task", walk->view->proc, (int)pid);
	pid_t tid;
	int r = 0;

	while (dir != NULL && r == 0 && (tid = ublk_view_next_pid(dir)) > 0)
		if (tid == pid || walk->view->same_table(pid, tid) != 1)
			r = look_at_thread(walk, pid, tid);
	if (dir != NULL)
		closedir(dir);
	return r;
}

static int look_at_all(struct walk *walk)
{
	DIR *dir = ublk_view_folder("%s", walk->view->proc);
	pid_t pid;
	int r = 0;

	if (dir == NULL)
		return -errno;
	while (r == 0 && (pid = ublk_view_next_pid(dir)) > 0)
		r = look_at_process(walk, pid);
	closedir(dir);
	return r;
}

/* --- counting --- */

static bool is_disk(const char *name)
{
	size_t at = strlen(DISK_PREFIX);

	if (strncmp(name, DISK_PREFIX, at) != 0)
		return false;
	for (; isdigit((unsigned char)name[at]); at++)
		;
	return name[at] == '\0';
}

/* Of all disks of the driver: how many there are, and how often the kernel itself has them open. */
static unsigned count_held(const struct ublk_view *view, unsigned *ret_disks)
{
	DIR *dir = ublk_view_folder("%s/class/block", view->sys);
	unsigned held = 0;
	const char *name;

	*ret_disks = 0;
	while (dir != NULL && *ret_disks < DISKS_MAX && (name = ublk_view_next(dir)) != NULL) {
		if (!is_disk(name))
			continue;
		held += ublk_holders_count(view, name, NULL, 0);
		(*ret_disks)++;
	}
	if (dir != NULL)
		closedir(dir);
	return held;
}

/* Those of another container are not shown, nor a part of those of other users. */
static bool sees_all(const struct walk *walk)
{
	char path[UBLK_VIEW_PATH_BYTES], text[UBLK_VIEW_TEXT_BYTES];

	snprintf(path, sizeof(path), "%s/self/ns/pid", walk->view->proc);
	return !walk->blind && read_link(AT_FDCWD, path, text) > 0 &&
	       strcmp(text, INITIAL_PID_NS) == 0;
}

static int read_count(const struct ublk_view *view, long long *ret_count)
{
	return ublk_view_number(ret_count, "%s/module/ublk_drv/refcnt", view->sys);
}

/* What nothing shows may be of another device, too, if there is one that we cannot see all of. */
static void count_unseen(const struct walk *walk, long long count, struct ublk_openers *openers)
{
	unsigned disks, held = count_held(walk->view, &disks);
	long long known = (long long)walk->count + held;

	openers->counted = !walk->merged && (disks == 1 || sees_all(walk));
	if (openers->counted && count > known)
		openers->unseen = (unsigned)(count - known);
}

int ublk_openers_find(const struct ublk_view *view, const char *disk,
		      struct ublk_openers *ret_openers, char *reterr_who, size_t who_bytes)
{
	struct walk walk = {
		.view = view,
		.disk = disk,
		.who = reterr_who,
		.who_bytes = who_bytes,
	};
	struct ublk_openers openers = {.shown = false};
	long long before = 0, after = 0;
	int counts = read_count(view, &before), r;

	r = look_at_all(&walk);
	openers.shown = walk.shown;
	if (r == 0 && counts == 0)
		count_unseen(&walk, before, &openers);
	if (r == 0 && counts == 0 && read_count(view, &after) == 0 && after != before)
		r = -EAGAIN;
	free(walk.files);
	*ret_openers = openers;
	return r;
}

/* --- what shows elsewhere --- */

/* A line of /proc/PID/maps, which ends with a path, or of a list of registered files, which may
 * have only names: `0: ublkb0`. */
static bool names_disk(char *line, const char *disk)
{
	const char *at;

	line[strcspn(line, "\n")] = '\0';
	at = strrchr(line, '/');
	if (at == NULL) {
		at = strstr(line, ": ");
		at = at != NULL ? at + 1 + strspn(at + 1, " ") : NULL;
	}
	return at != NULL && ublk_view_is_of(at, disk);
}

static bool is_in(const char *path, const char *after, const char *disk)
{
	FILE *file = fopen(path, "re");
	char *line = NULL;
	size_t bytes = 0;
	bool found = false, begun = after == NULL;

	if (file == NULL)
		return false;
	while (!found && getline(&line, &bytes, file) >= 0) {
		found = begun && names_disk(line, disk);
		begun = begun || strncmp(line, after, strlen(after)) == 0;
	}
	free(line);
	fclose(file);
	return found;
}

static bool has_mapped(const struct ublk_view *view, pid_t pid, const char *disk)
{
	char path[UBLK_VIEW_PATH_BYTES];

	snprintf(path, sizeof(path), "%s/%d/maps", view->proc, (int)pid);
	return is_in(path, NULL, disk);
}

static bool has_registered(const struct ublk_view *view, pid_t pid, const char *disk)
{
	DIR *dir = ublk_view_folder("%s/%d/fd", view->proc, (int)pid);
	char path[UBLK_VIEW_PATH_BYTES], link[UBLK_VIEW_TEXT_BYTES];
	const char *name;
	bool found = false;

	while (dir != NULL && !found && (name = ublk_view_next(dir)) != NULL) {
		if (read_link(dirfd(dir), name, link) < 0 || strcmp(link, RING_LINK) != 0)
			continue;
		snprintf(path, sizeof(path), "%s/%d/fdinfo/%.16s", view->proc, (int)pid, name);
		found = is_in(path, RING_FILES, disk);
	}
	if (dir != NULL)
		closedir(dir);
	return found;
}

bool ublk_openers_find_unseen(const struct ublk_view *view, const char *disk, char *reterr_who,
			      size_t who_bytes)
{
	DIR *dir = ublk_view_folder("%s", view->proc);
	const char *how = NULL;
	char comm[17];
	pid_t pid;

	while (dir != NULL && how == NULL && (pid = ublk_view_next_pid(dir)) > 0) {
		if (has_mapped(view, pid, disk))
			how = "has it mapped";
		else if (has_registered(view, pid, disk))
			how = "has it open in an io_uring";
		if (how == NULL)
			continue;
		ublk_view_comm(view, pid, comm);
		snprintf(reterr_who, who_bytes, "process %d (%s) %s", (int)pid, comm, how);
	}
	if (dir != NULL)
		closedir(dir);
	if (how == NULL)
		snprintf(reterr_who, who_bytes,
			 "somebody has it open, or another ublk device, whom nothing shows: a "
			 "descriptor on its way through a socket, another container");
	return how != NULL;
}
