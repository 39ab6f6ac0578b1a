/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ctl_path - see the header */
#include "server/control/protocol/ctl_path.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define SYSTEM_DIR   "/run/sameblk"
#define RECORD_TRIES 8

void ctl_path_name(const char *store_path, char ret_name[CTL_PATH_NAME_MAX + 1])
{
	const char *base = store_path + strlen(store_path);
	size_t len, i;

	while (base > store_path && base[-1] == '/')
		base--;
	len = (size_t)(base - store_path);
	while (base > store_path && base[-1] != '/')
		base--;
	len -= (size_t)(base - store_path);
	for (i = len; i > 1; i--) {
		if (base[i - 1] != '.')
			continue;
		len = i - 1;
		break;
	}
	if (len > CTL_PATH_NAME_MAX)
		len = CTL_PATH_NAME_MAX;
	for (i = 0; i < len; i++) {
		bool plain = (base[i] >= '0' && base[i] <= '9') ||
			     (base[i] >= 'a' && base[i] <= 'z') ||
			     (base[i] >= 'A' && base[i] <= 'Z') || strchr("-_.", base[i]) != NULL;

		ret_name[i] = '_';
		if (plain && !(i == 0 && base[i] == '.'))
			ret_name[i] = base[i];
	}
	ret_name[len] = '\0';
	if (len == 0)
		strcpy(ret_name, "store");
}

static int print_path(char ret_path[CTL_PATH_BYTES], const char *dir, const char *rest)
{
	int len = snprintf(ret_path, CTL_PATH_BYTES, "%s/%s", dir, rest);

	return len < 0 || (size_t)len >= CTL_PATH_BYTES ? -ENAMETOOLONG : 0;
}

static const char *absolute_env(const char *name)
{
	const char *dir = getenv(name);

	return dir != NULL && dir[0] == '/' ? dir : NULL;
}

int ctl_path_dir(char ret_dir[CTL_PATH_BYTES])
{
	const char *only = absolute_env("SAMEBLK_CONTROL_DIR");
	const char *user = absolute_env("XDG_RUNTIME_DIR");

	if (only != NULL && strlen(only) >= CTL_PATH_BYTES)
		return -ENAMETOOLONG;
	if (only != NULL) {
		strcpy(ret_dir, only);
		return 0;
	}
	if (user != NULL)
		return print_path(ret_dir, user, "sameblk");
	strcpy(ret_dir, SYSTEM_DIR);
	return 0;
}

int ctl_path_default(const char *store_path, const uint8_t *uuid, char ret_path[CTL_PATH_BYTES])
{
	char name[CTL_PATH_NAME_MAX + 1];
	char file[CTL_PATH_NAME_MAX + sizeof("-01234567" CTL_PATH_SUFFIX)];
	char dir[CTL_PATH_BYTES], part[sizeof("-01234567")] = "";
	int r;

	r = ctl_path_dir(dir);
	if (r < 0)
		return r;
	ctl_path_name(store_path, name);
	if (uuid != NULL)
		snprintf(part, sizeof(part), "-%02x%02x%02x%02x", uuid[0], uuid[1], uuid[2],
			 uuid[3]);
	snprintf(file, sizeof(file), "%s%s%s", name, part, CTL_PATH_SUFFIX);
	return print_path(ret_path, dir, file);
}

/* What was just made and nobody else knows. */
static int set_up_dir(const char *dir, gid_t group)
{
	int fd, r = 0;

	if (group == (gid_t)-1)
		return 0;
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fchown(fd, (uid_t)-1, group) < 0 || fchmod(fd, 0710) < 0)
		r = -errno;
	close(fd);
	return r;
}

/* What somebody made. Where the sticky bit is, others may add to it and change nothing. */
static int check_dir(const char *dir, gid_t group)
{
	struct stat st;

	if (stat(dir, &st) < 0)
		return -errno;
	if (!S_ISDIR(st.st_mode))
		return -ENOTDIR;
	if (st.st_uid != geteuid() || ((st.st_mode & 0022) != 0 && (st.st_mode & S_ISVTX) == 0))
		return -EPERM;
	if (group != (gid_t)-1 && (st.st_mode & (st.st_gid == group ? 0010 : 0001)) == 0)
		return -EACCES;
	return 0;
}

int ctl_path_dir_make(const char *dir, gid_t group)
{
	if (mkdir(dir, 0700) == 0)
		return set_up_dir(dir, group);
	return errno == EEXIST ? check_dir(dir, group) : -errno;
}

int ctl_path_probe(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd, r = 0;

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	/* EAGAIN: its queue of waiting connections is full, so somebody listens. */
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 && errno != EAGAIN)
		r = -errno;
	close(fd);
	return r;
}

static int list_add(struct ctl_path_list *list, const char *dir, const char *name)
{
	char path[CTL_PATH_BYTES];
	char **paths;

	if (list->count == CTL_PATH_LIST_MAX || print_path(path, dir, name) < 0)
		return 0;
	paths = realloc(list->paths, (list->count + 1) * sizeof(*paths));
	if (paths == NULL)
		return -ENOMEM;
	list->paths = paths;
	paths[list->count] = strdup(path);
	if (paths[list->count] == NULL)
		return -ENOMEM;
	list->count++;
	return 0;
}

/* A directory that is missing or not ours to read holds nothing for us. */
static int list_dir(struct ctl_path_list *list, const char *dir, const char *suffix)
{
	DIR *stream = opendir(dir);
	struct dirent *entry;
	int r = 0;

	if (stream == NULL)
		return errno == ENOENT || errno == ENOTDIR || errno == EACCES ? 0 : -errno;
	while (r == 0 && (entry = readdir(stream)) != NULL) {
		size_t len = strlen(entry->d_name), suffix_len = strlen(suffix);

		if (len > suffix_len && strcmp(entry->d_name + len - suffix_len, suffix) == 0)
			r = list_add(list, dir, entry->d_name);
	}
	closedir(stream);
	return r;
}

static bool is_dead_record(const char *path)
{
	struct stat st;
	int r;

	if (lstat(path, &st) < 0 || !S_ISLNK(st.st_mode))
		return false;
	r = ctl_path_probe(path);
	return r == -ECONNREFUSED || r == -ENOENT;
}

void ctl_path_drop_dead(const char *dir)
{
	struct ctl_path_list list = {NULL, 0};

	list_dir(&list, dir, CTL_PATH_SUFFIX);
	for (size_t i = 0; i < list.count; i++)
		if (is_dead_record(list.paths[i]))
			unlink(list.paths[i]);
	ctl_path_list_done(&list);
}

static bool leads_to(const char *record, const char *target)
{
	char found[PATH_MAX];
	ssize_t len = readlink(record, found, sizeof(found));

	return len > 0 && (size_t)len == strlen(target) && memcmp(found, target, (size_t)len) == 0;
}

/* Puts the link there unless something that lives, or is no link, has the name. One that a killed
 * server left of the same socket is the new one's. */
static int link_record(const char *target, const char *record)
{
	struct stat st;
	int r;

	for (int i = 0; i < RECORD_TRIES; i++) {
		if (symlink(target, record) == 0)
			return 0;
		if (errno != EEXIST)
			return -errno;
		if (leads_to(record, target))
			return 0;
		r = ctl_path_probe(record);
		if (r != -ECONNREFUSED && r != -ENOENT)
			return -EEXIST;
		if (lstat(record, &st) == 0 && !S_ISLNK(st.st_mode) && !S_ISSOCK(st.st_mode))
			return -EEXIST;
		if (unlink(record) < 0 && errno != ENOENT)
			return -errno;
	}
	return -EEXIST;
}

static bool in_dir(const char *path, const char *dir)
{
	char real_path[PATH_MAX], real_dir[PATH_MAX];
	char *slash;

	if (realpath(path, real_path) == NULL || realpath(dir, real_dir) == NULL)
		return false;
	slash = strrchr(real_path, '/');
	*slash = '\0';
	return strcmp(real_path, real_dir) == 0;
}

int ctl_path_record(const char *store_path, const char *target, char ret_record[CTL_PATH_BYTES])
{
	char dir[CTL_PATH_BYTES], real[PATH_MAX], record[CTL_PATH_BYTES];
	char name[CTL_PATH_NAME_MAX + 1], file[2 * CTL_PATH_NAME_MAX];
	size_t len = strlen(target);
	int r;

	ret_record[0] = '\0';
	r = ctl_path_dir(dir);
	if (r == 0)
		r = ctl_path_dir_make(dir, (gid_t)-1);
	if (r < 0)
		return r;
	if (realpath(target, real) == NULL)
		return -errno;
	ctl_path_drop_dead(dir);
	/* Only *.ctl is looked for. */
	if (in_dir(target, dir) && len > 4 && strcmp(target + len - 4, CTL_PATH_SUFFIX) == 0)
		return 0;
	ctl_path_name(store_path, name);
	snprintf(file, sizeof(file), "%s%s", name, CTL_PATH_SUFFIX);
	r = print_path(record, dir, file);
	if (r == 0)
		r = link_record(real, record);
	if (r == -EEXIST) {
		snprintf(file, sizeof(file), "%s.%d%s", name, (int)getpid(), CTL_PATH_SUFFIX);
		r = print_path(record, dir, file);
		if (r == 0)
			r = link_record(real, record);
	}
	if (r == 0)
		strcpy(ret_record, record);
	return r;
}

static int compare_paths(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int list_give(struct ctl_path_list *list, int r, struct ctl_path_list *ret_list)
{
	if (r < 0) {
		ctl_path_list_done(list);
		return r;
	}
	if (list->count > 0)
		qsort(list->paths, list->count, sizeof(*list->paths), compare_paths);
	*ret_list = *list;
	return 0;
}

int ctl_path_list(struct ctl_path_list *ret_list)
{
	return ctl_path_list_ending(CTL_PATH_SUFFIX, ret_list);
}

int ctl_path_list_ending(const char *suffix, struct ctl_path_list *ret_list)
{
	struct ctl_path_list list = {NULL, 0};
	char dir[CTL_PATH_BYTES];
	int r;

	r = ctl_path_dir(dir);
	if (r == 0)
		r = list_dir(&list, dir, suffix);
	if (r == 0 && absolute_env("SAMEBLK_CONTROL_DIR") == NULL && strcmp(dir, SYSTEM_DIR) != 0)
		r = list_dir(&list, SYSTEM_DIR, suffix);
	return list_give(&list, r, ret_list);
}

static int list_users(struct ctl_path_list *list, DIR *users, const char *users_dir)
{
	char name[NAME_MAX + sizeof("/sameblk")], dir[CTL_PATH_BYTES];
	struct dirent *entry;
	int r = 0;

	while (r == 0 && (entry = readdir(users)) != NULL) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), "%s/sameblk", entry->d_name);
		r = print_path(dir, users_dir, name);
		if (r == 0)
			r = list_dir(list, dir, CTL_PATH_SUFFIX);
	}
	return r;
}

int ctl_path_list_users(const char *users_dir, struct ctl_path_list *ret_list)
{
	bool only = absolute_env("SAMEBLK_CONTROL_DIR") != NULL;
	DIR *users = only ? NULL : opendir(users_dir);
	struct ctl_path_list list = {NULL, 0};
	int r = 0;

	if (users != NULL) {
		r = list_users(&list, users, users_dir);
		closedir(users);
	}
	return list_give(&list, r, ret_list);
}

void ctl_path_list_done(struct ctl_path_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->paths[i]);
	free(list->paths);
	*list = (struct ctl_path_list){NULL, 0};
}
