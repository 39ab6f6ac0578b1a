/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ublk_record - see the header */
#include "server/ublk/driver/ublk_record.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/base/far_path.h"
#include "server/control/protocol/ctl_path.h"
#include "server/ublk/driver/ublk_shape.h"

#define UUID_BYTES     16u
#define UUID_HEX_BYTES (2 * UUID_BYTES + 1)

static void print_uuid(const uint8_t *uuid, char ret_text[UUID_HEX_BYTES])
{
	for (unsigned i = 0; i < UUID_BYTES; i++)
		snprintf(ret_text + 2 * i, 3, "%02x", uuid[i]);
}

static int record_path(const uint8_t *uuid, const char *ending, char ret_path[CTL_PATH_BYTES])
{
	char dir[CTL_PATH_BYTES], text[UUID_HEX_BYTES];
	int len, r = ctl_path_dir(dir);

	if (r < 0)
		return r;
	print_uuid(uuid, text);
	r = ctl_path_dir_make(dir, (gid_t)-1);
	if (r < 0)
		return r;
	len = snprintf(ret_path, CTL_PATH_BYTES, "%s/%s%s%s", dir, text, UBLK_RECORD_SUFFIX,
		       ending);
	return len < 0 || (size_t)len >= CTL_PATH_BYTES ? -ENAMETOOLONG : 0;
}

static json_t *encode(const struct ublk_record_fields *fields)
{
	char store[PATH_MAX], directory[PATH_MAX], uuid[UUID_HEX_BYTES];
	json_t *arguments = json_array();

	if (realpath(fields->store, store) == NULL ||
	    getcwd(directory, sizeof(directory)) == NULL) {
		json_decref(arguments);
		return NULL;
	}
	for (int i = 1; i < fields->argc; i++)
		json_array_append_new(arguments, json_string(fields->argv[i]));
	print_uuid(fields->uuid, uuid);
	return json_pack("{s:I, s:I, s:o, s:s, s:s, s:s}", "id", (json_int_t)fields->id, "pid",
			 (json_int_t)getpid(), "arguments", arguments, "store", store, "directory",
			 directory, "uuid", uuid);
}

int ublk_record_save(const struct ublk_record_fields *fields)
{
	char path[CTL_PATH_BYTES], new_path[CTL_PATH_BYTES];
	int r = record_path(fields->uuid, "", path);
	json_t *root;

	if (r == 0)
		r = record_path(fields->uuid, ".new", new_path);
	if (r < 0)
		return r;
	/* A path that is no UTF-8 cannot be written down. */
	root = encode(fields);
	if (root == NULL)
		return -EINVAL;
	r = json_dump_file(root, new_path, JSON_INDENT(2)) < 0 ? -EIO : 0;
	json_decref(root);
	if (r == 0 && rename(new_path, path) < 0)
		r = -errno;
	if (r < 0)
		unlink(new_path);
	return r;
}

void ublk_record_remove(const uint8_t uuid[16])
{
	char path[CTL_PATH_BYTES];

	if (record_path(uuid, "", path) == 0)
		unlink(path);
}

static int decode_uuid(const char *text, uint8_t ret_uuid[UUID_BYTES])
{
	if (text == NULL || strlen(text) != 2 * UUID_BYTES)
		return -EINVAL;
	for (unsigned i = 0; i < UUID_BYTES; i++) {
		unsigned byte;

		if (sscanf(text + 2 * i, "%2x", &byte) != 1)
			return -EINVAL;
		ret_uuid[i] = (uint8_t)byte;
	}
	return 0;
}

static bool are_strings(const json_t *array)
{
	const json_t *value;
	size_t i;

	if (!json_is_array(array))
		return false;
	json_array_foreach(array, i, value) if (!json_is_string(value)) return false;
	return true;
}

/* Others may be allowed to add to the folder: they are to keep nobody waiting, and programs are
 * started with the words of a record. */
static bool is_ours(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
	       (st.st_uid == geteuid() || st.st_uid == 0);
}

/* -EINVAL: it is no record, or not ours to read. */
static int read_json(const char *path, json_t **ret_root)
{
	int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return errno == ENOENT || errno == EACCES || errno == ELOOP ? -EINVAL : -errno;
	if (is_ours(fd))
		*ret_root = json_loadfd(fd, 0, NULL);
	close(fd);
	return *ret_root == NULL ? -EINVAL : 0;
}

static int load(const char *path, struct ublk_record *ret_record)
{
	json_t *root = NULL;
	int r = read_json(path, &root);
	const json_t *id = json_object_get(root, "id");
	uint8_t uuid[UUID_BYTES];
	struct ublk_record record = {
		.root = root,
		.store = json_string_value(json_object_get(root, "store")),
		.directory = json_string_value(json_object_get(root, "directory")),
		.arguments = json_object_get(root, "arguments"),
		.pid = (pid_t)json_integer_value(json_object_get(root, "pid")),
		.id = (uint32_t)json_integer_value(id),
	};

	if (r < 0)
		return r;
	if (record.store == NULL || record.directory == NULL || !are_strings(record.arguments) ||
	    !json_is_integer(id) ||
	    decode_uuid(json_string_value(json_object_get(root, "uuid")), uuid) < 0) {
		json_decref(root);
		return -EINVAL;
	}
	record.mark = ublk_mark(uuid);
	record.path = strdup(path);
	if (record.path == NULL) {
		json_decref(root);
		return -ENOMEM;
	}
	*ret_record = record;
	return 0;
}

int ublk_records_load(struct ublk_records *ret_records)
{
	struct ublk_records records = {NULL, 0};
	struct ctl_path_list list;
	int r = ctl_path_list_ending(UBLK_RECORD_SUFFIX, &list);

	*ret_records = records;
	if (r < 0)
		return r;
	if (list.count > 0)
		records.records = calloc(list.count, sizeof(*records.records));
	r = list.count > 0 && records.records == NULL ? -ENOMEM : 0;
	for (size_t i = 0; r == 0 && i < list.count; i++) {
		r = load(list.paths[i], &records.records[records.count]);
		if (r == 0)
			records.count++;
		else if (r == -EINVAL)
			r = 0;
	}
	ctl_path_list_done(&list);
	*ret_records = records;
	return r;
}

void ublk_records_done(struct ublk_records *records)
{
	for (size_t i = 0; i < records->count; i++) {
		json_decref(records->records[i].root);
		free(records->records[i].path);
	}
	free(records->records);
	*records = (struct ublk_records){NULL, 0};
}

const struct ublk_record *ublk_records_find(const struct ublk_records *records, uint64_t mark)
{
	for (size_t i = 0; i < records->count; i++)
		if (records->records[i].mark == mark)
			return &records->records[i];
	return NULL;
}

int ublk_record_is_of_another(const struct ublk_record *record, const char *store)
{
	struct far_path theirs;
	struct stat ours;
	int r = far_path_ask(record->store, FAR_PATH_MS, &theirs);

	/* Only these say that it is not there. Whatever else went wrong, it may be, and newer. */
	if (r == -ENOENT || r == -ENOTDIR)
		return 0;
	if (r < 0)
		return r;
	/* And ENOENT means that there is no device. */
	if (stat(store, &ours) < 0)
		return errno == ENOENT ? -ESTALE : -errno;
	/* A device may have several nodes. */
	if (S_ISBLK(theirs.mode) && S_ISBLK(ours.st_mode))
		return theirs.rdev != ours.st_rdev;
	return theirs.dev != ours.st_dev || theirs.ino != ours.st_ino;
}
