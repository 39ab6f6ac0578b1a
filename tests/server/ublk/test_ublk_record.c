/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_ublk_record - what a server leaves behind about its device can be read again, and nothing
 * else is taken for it
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/ublk/driver/ublk_record.h"
#include "server/ublk/driver/ublk_shape.h"

static char folder[64];
static char store[128];
static const uint8_t uuid_a[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
static const uint8_t uuid_b[16] = {0xff, 2, 3};

static void setup(void)
{
	int fd;

	strcpy(folder, "/tmp/sameblk-test.XXXXXX");
	cr_assert_not_null(mkdtemp(folder));
	setenv("SAMEBLK_CONTROL_DIR", folder, 1);
	snprintf(store, sizeof(store), "%s/a store", folder);
	fd = open(store, O_CREAT | O_WRONLY, 0600);
	cr_assert_geq(fd, 0);
	close(fd);
}

static void teardown(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", folder);
	cr_assert_eq(system(command), 0);
}

TestSuite(ublk_record, .init = setup, .fini = teardown);

static int save(const uint8_t *uuid, uint32_t id)
{
	char *argv[] = {"sameblkd", "--ublk", "--queues", "2", store, NULL};
	const struct ublk_record_fields fields = {
		.uuid = uuid, .id = id, .store = store, .argc = 5, .argv = argv};

	return ublk_record_save(&fields);
}

Test(ublk_record, what_was_saved_is_found_by_the_mark_of_its_volume)
{
	struct ublk_records records;
	const struct ublk_record *record;
	char real[4096];

	cr_assert_eq(save(uuid_a, 3), 0);
	cr_assert_eq(save(uuid_b, 7), 0);
	cr_assert_eq(ublk_records_load(&records), 0);
	cr_assert_eq(records.count, 2);
	record = ublk_records_find(&records, ublk_mark(uuid_b));
	cr_assert_not_null(record);
	cr_assert_eq(record->id, 7);
	cr_assert_eq(record->pid, getpid());
	cr_assert_not_null(realpath(store, real));
	cr_assert_str_eq(record->store, real);
	cr_assert_not_null(getcwd(real, sizeof(real)));
	cr_assert_str_eq(record->directory, real);
	cr_assert_eq(json_array_size(record->arguments), 4);
	cr_assert_str_eq(json_string_value(json_array_get(record->arguments, 2)), "2");
	cr_assert_null(ublk_records_find(&records, ublk_mark(uuid_b) + 1));
	ublk_records_done(&records);
}

Test(ublk_record, a_later_one_of_the_same_volume_takes_the_place_of_the_earlier)
{
	struct ublk_records records;

	cr_assert_eq(save(uuid_a, 3), 0);
	cr_assert_eq(save(uuid_a, 4), 0);
	cr_assert_eq(ublk_records_load(&records), 0);
	cr_assert_eq(records.count, 1);
	cr_assert_eq(records.records[0].id, 4);
	ublk_records_done(&records);
	ublk_record_remove(uuid_a);
	cr_assert_eq(ublk_records_load(&records), 0);
	cr_assert_eq(records.count, 0);
	ublk_records_done(&records);
}

static void write_file(const char *name, const char *text)
{
	char path[200];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	file = fopen(path, "w");
	cr_assert_not_null(file);
	fputs(text, file);
	fclose(file);
}

Test(ublk_record, what_is_no_record_is_passed_over)
{
	static const char *const texts[] = {
		"",
		"{",
		"[]",
		"{\"id\": 1, \"uuid\": \"00\", \"store\": \"/s\", \"directory\": \"/\", "
		"\"arguments\": []}",
		"{\"id\": \"1\", \"uuid\": \"000102030405060708090a0b0c0d0e0f\", \"store\": \"/s\","
		" \"directory\": \"/\", \"arguments\": []}",
		"{\"id\": 1, \"uuid\": \"000102030405060708090a0b0c0d0e0f\", \"store\": \"/s\","
		" \"directory\": \"/\", \"arguments\": [1]}",
		"{\"id\": 1, \"uuid\": \"zz0102030405060708090a0b0c0d0e0f\", \"store\": \"/s\","
		" \"directory\": \"/\", \"arguments\": []}",
	};
	struct ublk_records records;
	char name[32];

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		snprintf(name, sizeof(name), "%zu%s", i, UBLK_RECORD_SUFFIX);
		write_file(name, texts[i]);
	}
	cr_assert_eq(save(uuid_a, 3), 0);
	cr_assert_eq(ublk_records_load(&records), 0);
	cr_assert_eq(records.count, 1);
	cr_assert_eq(records.records[0].id, 3);
	ublk_records_done(&records);
}

/* The folder may be one that others may add to. */
Test(ublk_record, what_others_have_put_there_is_neither_waited_for_nor_believed, .timeout = 20)
{
	struct ublk_records records;
	char path[200], command[512];

	snprintf(path, sizeof(path), "%s/fifo%s", folder, UBLK_RECORD_SUFFIX);
	cr_assert_eq(mkfifo(path, 0600), 0);
	snprintf(path, sizeof(path), "%s/loop%s", folder, UBLK_RECORD_SUFFIX);
	cr_assert_eq(symlink(path, path), 0);
	cr_assert_eq(save(uuid_b, 7), 0);
	snprintf(command, sizeof(command),
		 "cd %s && mv ff*%s there && ln -s there link%s && cp there other%s && "
		 "if [ $(id -u) = 0 ]; then chown 12345 other%s; else rm other%s; fi",
		 folder, UBLK_RECORD_SUFFIX, UBLK_RECORD_SUFFIX, UBLK_RECORD_SUFFIX,
		 UBLK_RECORD_SUFFIX, UBLK_RECORD_SUFFIX);
	cr_assert_eq(system(command), 0);
	cr_assert_eq(save(uuid_a, 3), 0);
	cr_assert_eq(ublk_records_load(&records), 0);
	cr_assert_eq(records.count, 1);
	cr_assert_eq(records.records[0].id, 3);
	ublk_records_done(&records);
}

/* A copy has the UUID of its original, and so the mark of its device. */
Test(ublk_record, a_copy_of_a_store_is_told_from_the_store_while_that_is_there)
{
	struct ublk_records records;
	char copy[200], link_path[200];
	int fd;

	snprintf(copy, sizeof(copy), "%s/copy", folder);
	snprintf(link_path, sizeof(link_path), "%s/link", folder);
	fd = open(copy, O_CREAT | O_WRONLY, 0600);
	cr_assert_geq(fd, 0);
	close(fd);
	cr_assert_eq(symlink(store, link_path), 0);
	cr_assert_eq(save(uuid_a, 3), 0);
	cr_assert_eq(ublk_records_load(&records), 0);
	cr_assert_eq(ublk_record_is_of_another(&records.records[0], copy), 1);
	cr_assert_eq(ublk_record_is_of_another(&records.records[0], store), 0);
	cr_assert_eq(ublk_record_is_of_another(&records.records[0], link_path), 0);
	/* Moved: what is left is the store itself. */
	cr_assert_eq(unlink(store), 0);
	cr_assert_eq(ublk_record_is_of_another(&records.records[0], copy), 0);
	ublk_records_done(&records);
}

/* It may be there, and newer than the copy. */
Test(ublk_record, a_store_that_cannot_be_looked_at_is_not_taken_to_be_gone)
{
	struct rlimit limit, few;
	struct ublk_records records, none;
	char copy[200];
	int fds[2];

	snprintf(copy, sizeof(copy), "%s/copy", folder);
	write_file("copy", "");
	cr_assert_eq(save(uuid_a, 3), 0);
	cr_assert_eq(ublk_records_load(&records), 0);
	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	few = limit;
	/* Whatever is free below it is filled up. */
	cr_assert_eq(pipe(fds), 0);
	few.rlim_cur = (rlim_t)fds[1] + 1;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
	cr_assert_eq(ublk_record_is_of_another(&records.records[0], copy), -EMFILE);
	cr_assert_eq(ublk_records_load(&none), -EMFILE);
	ublk_records_done(&none);
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	cr_assert_eq(ublk_record_is_of_another(&records.records[0], copy), 1);
	/* A folder on the way to it has become a file. */
	cr_assert_eq(unlink(store), 0);
	json_object_set_new(records.records[0].root, "store", json_sprintf("%s/x", copy));
	records.records[0].store =
		json_string_value(json_object_get(records.records[0].root, "store"));
	cr_assert_eq(ublk_record_is_of_another(&records.records[0], copy), 0);
	/* And one that leads in a circle. */
	cr_assert_eq(symlink(store, store), 0);
	json_object_set_new(records.records[0].root, "store", json_string(store));
	records.records[0].store =
		json_string_value(json_object_get(records.records[0].root, "store"));
	cr_assert_eq(ublk_record_is_of_another(&records.records[0], copy), -ELOOP);
	ublk_records_done(&records);
}

/* Unlinked below its own server, or the server would take it that no device waits. */
Test(ublk_record, that_ones_own_store_is_gone_is_not_that_there_is_no_device)
{
	struct ublk_records records;
	char gone[200];

	snprintf(gone, sizeof(gone), "%s/gone", folder);
	cr_assert_eq(save(uuid_a, 3), 0);
	cr_assert_eq(ublk_records_load(&records), 0);
	cr_assert_eq(ublk_record_is_of_another(&records.records[0], gone), -ESTALE);
	ublk_records_done(&records);
}

Test(ublk_record, a_store_that_is_not_there_has_none)
{
	cr_assert_eq(unlink(store), 0);
	cr_assert_eq(save(uuid_a, 3), -EINVAL);
}
