/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ublk_view - see the header */
#include "server/ublk/driver/ublk_view.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* What kind of file it is, which the kernel knows without asking a server of files, which may be
 * gone: any file of any process is looked at here. */
static int look(int dir_fd, const char *name, mode_t *ret_mode, dev_t *ret_number)
{
	struct statx st;

	if (statx(dir_fd, name, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_TYPE, &st) < 0)
		return -errno;
	*ret_mode = st.stx_mode;
	*ret_number = makedev(st.stx_rdev_major, st.stx_rdev_minor);
	return 0;
}

static int compare(pid_t a, pid_t b, int type, unsigned long index_a, unsigned long index_b)
{
	long r = syscall(SYS_kcmp, a, b, type, index_a, index_b);

	return r < 0 ? -errno : r == 0;
}

static int same_file(const struct ublk_view_file *a, const struct ublk_view_file *b)
{
	return compare(a->tid, b->tid, KCMP_FILE, (unsigned long)a->fd, (unsigned long)b->fd);
}

static int same_table(pid_t a, pid_t b)
{
	return compare(a, b, KCMP_FILES, 0, 0);
}

const struct ublk_view ublk_view_machine = {
	.proc = "/proc",
	.sys = "/sys",
	.look = look,
	.same_file = same_file,
	.same_table = same_table,
};

static bool is_number(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (!isdigit((unsigned char)text[i]))
			return false;
	return len > 0;
}

bool ublk_view_is_of(const char *path, const char *disk)
{
	static const char *const gone[] = {" (deleted)", "\\040(deleted)"};
	const char *slash = strrchr(path, '/');
	const char *name = slash != NULL ? slash + 1 : path;
	size_t len = strlen(name), disk_len = strlen(disk);

	for (size_t i = 0; i < sizeof(gone) / sizeof(gone[0]); i++) {
		size_t gone_len = strlen(gone[i]);

		if (len > gone_len && strcmp(name + len - gone_len, gone[i]) == 0)
			len -= gone_len;
	}
	if (len < disk_len || strncmp(name, disk, disk_len) != 0)
		return false;
	return len == disk_len ||
	       (name[disk_len] == 'p' && is_number(name + disk_len + 1, len - disk_len - 1));
}

static int format_path(char path[UBLK_VIEW_PATH_BYTES], const char *format, va_list args)
{
	int len = vsnprintf(path, UBLK_VIEW_PATH_BYTES, format, args);

	return len < 0 || (size_t)len >= UBLK_VIEW_PATH_BYTES ? -ENAMETOOLONG : 0;
}

static int read_line(const char *path, char ret_text[UBLK_VIEW_TEXT_BYTES])
{
	FILE *file = fopen(path, "re");
	int r = 0;

	if (file == NULL)
		return -errno;
	if (fgets(ret_text, UBLK_VIEW_TEXT_BYTES, file) == NULL)
		r = ferror(file) ? -EIO : -ENODATA;
	else
		ret_text[strcspn(ret_text, "\n")] = '\0';
	fclose(file);
	return r;
}

int ublk_view_line(char ret_text[UBLK_VIEW_TEXT_BYTES], const char *format, ...)
{
	char path[UBLK_VIEW_PATH_BYTES];
	va_list args;
	int r;

	va_start(args, format);
	r = format_path(path, format, args);
	va_end(args);
	return r < 0 ? r : read_line(path, ret_text);
}

int ublk_view_number(long long *ret_number, const char *format, ...)
{
	char path[UBLK_VIEW_PATH_BYTES], text[UBLK_VIEW_TEXT_BYTES], *end;
	va_list args;
	int r;

	va_start(args, format);
	r = format_path(path, format, args);
	va_end(args);
	if (r == 0)
		r = read_line(path, text);
	if (r < 0)
		return r;
	*ret_number = strtoll(text, &end, 10);
	return end == text || *end != '\0' ? -EINVAL : 0;
}

DIR *ublk_view_folder(const char *format, ...)
{
	char path[UBLK_VIEW_PATH_BYTES];
	va_list args;
	int r;

	va_start(args, format);
	r = format_path(path, format, args);
	va_end(args);
	return r < 0 ? NULL : opendir(path);
}

const char *ublk_view_next(DIR *dir)
{
	struct dirent *entry;

	while ((entry = readdir(dir)) != NULL)
		if (entry->d_name[0] != '.')
			return entry->d_name;
	return NULL;
}

pid_t ublk_view_next_pid(DIR *dir)
{
	const char *name;

	while ((name = ublk_view_next(dir)) != NULL)
		if (is_number(name, strlen(name)))
			return (pid_t)strtol(name, NULL, 10);
	return 0;
}

void ublk_view_comm(const struct ublk_view *view, pid_t pid, char ret_comm[17])
{
	char text[UBLK_VIEW_TEXT_BYTES];

	strcpy(ret_comm, "?");
	if (ublk_view_line(text, "%s/%d/comm", view->proc, (int)pid) == 0)
		snprintf(ret_comm, 17, "%.16s", text);
}
