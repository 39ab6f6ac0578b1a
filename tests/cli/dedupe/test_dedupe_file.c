/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_dedupe_file - the hashfile, and what a run writes beside it
 */
#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/dedupe/dedupe_file.h"
#include "cli/dedupe/dedupe_scratch.h"

#define CACHE_BYTES (256u * 1024u)

static char folder[64];
static char path[96];
static const struct dedupe_volume volume = {"5a5a5a5a-0000-0000-0000-000000000001", 1ull << 30};
static struct dedupe_file file;
static struct dedupe_hash hashes[DEDUPE_REGION_BLOCKS];

static void make_folder(void)
{
	strcpy(folder, "/tmp/sameblk-test.XXXXXX");
	cr_assert_not_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/hashes", folder);
	for (uint32_t i = 0; i < DEDUPE_REGION_BLOCKS; i++)
		hashes[i] = (struct dedupe_hash){i, ~(uint64_t)i};
}

static void remove_folder(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", folder);
	cr_assert_eq(system(command), 0);
}

TestSuite(dedupe_file, .init = make_folder, .fini = remove_folder);

static void open_it(void)
{
	cr_assert_eq(dedupe_file_open(&file, path, &volume, CACHE_BYTES), 0);
}

static uint64_t pending(uint64_t first, uint64_t end)
{
	uint64_t count;

	cr_assert_eq(dedupe_file_count_pending(&file, first, end, &count), 0);
	return count;
}

static void put(uint64_t number)
{
	cr_assert_eq(dedupe_file_put(&file, number, hashes), 0);
}

Test(dedupe_file, what_was_committed_is_there_again)
{
	struct dedupe_scratch scratch;
	struct dedupe_region region;
	uint64_t number;

	open_it();
	cr_assert_eq(dedupe_file_begin(&file), 0);
	put(3);
	put(7);
	cr_assert_eq(dedupe_file_set(&file, DEDUPE_ABOUT_GENERATION, 1ull << 62), 0);
	cr_assert_eq(dedupe_file_commit(&file), 0);
	dedupe_file_close(&file);
	open_it();
	cr_assert_eq(file.about[DEDUPE_ABOUT_GENERATION], 1ull << 62);
	cr_assert_eq(file.about[DEDUPE_ABOUT_FINISHED], 0);
	cr_assert_eq(dedupe_file_has(&file, 3), 1);
	cr_assert_eq(dedupe_file_has(&file, 4), 0);
	cr_assert_eq(dedupe_file_next(&file, 4, &number), 0);
	cr_assert_eq(number, 7);
	cr_assert_eq(dedupe_file_next(&file, 8, &number), -ENOENT);
	cr_assert_eq(pending(0, 100), 2);
	cr_assert_eq(dedupe_scratch_open(&scratch, &file, CACHE_BYTES), 0);
	cr_assert_eq(dedupe_scratch_load(&scratch, 7, &region), 0);
	cr_assert(region.pending);
	cr_assert_eq(memcmp(region.hashes, hashes, sizeof(hashes)), 0);
	dedupe_scratch_close(&scratch);
	dedupe_file_close(&file);
}

Test(dedupe_file, a_process_that_was_killed_leaves_what_it_had_committed)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		open_it();
		dedupe_file_begin(&file);
		put(1);
		dedupe_file_commit(&file);
		dedupe_file_begin(&file);
		put(2);
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0);
	open_it();
	cr_assert_eq(dedupe_file_has(&file, 1), 1);
	cr_assert_eq(dedupe_file_has(&file, 2), 0);
	cr_assert_eq(pending(0, 100), 1);
	dedupe_file_close(&file);
}

Test(dedupe_file, a_full_disk_is_told_once)
{
	char text[1024] = "";
	int r = 0;

	open_it();
	cr_redirect_stderr();
	/* As many as it has, and a few more. */
	cr_assert_eq(dedupe_sql_run(&file.sql, "PRAGMA max_page_count=16"), 0);
	cr_assert_eq(dedupe_file_begin(&file), 0);
	for (uint64_t i = 0; r == 0 && i < 100; i++)
		r = dedupe_file_put(&file, i, hashes);
	cr_assert_eq(r, -ENOSPC);
	dedupe_file_commit(&file);
	dedupe_file_close(&file);
	fflush(stderr);
	cr_assert_gt(fread(text, 1, sizeof(text) - 1, cr_get_redirected_stderr()), 0);
	cr_assert_not_null(strstr(text, "full"), "%s", text);
	cr_assert_eq(strchr(text, '\n'), strrchr(text, '\n'), "more than a line: %s", text);
}

Test(dedupe_file, only_its_owner_can_read_it)
{
	struct stat st;

	open_it();
	put(1);
	dedupe_file_close(&file);
	cr_assert_eq(stat(path, &st), 0);
	cr_assert_eq(st.st_mode & 07777, 0600);
}

Test(dedupe_file, the_file_of_another_volume_is_refused_and_stays)
{
	struct dedupe_volume other = volume;

	open_it();
	put(1);
	dedupe_file_close(&file);
	other.uuid[0] = 'b';
	cr_assert_eq(dedupe_file_open(&file, path, &other, CACHE_BYTES), -EXDEV);
	open_it();
	cr_assert_eq(dedupe_file_has(&file, 1), 1);
	dedupe_file_close(&file);
}

Test(dedupe_file, a_volume_of_another_size_empties_it)
{
	struct dedupe_volume larger = volume;

	open_it();
	put(1);
	cr_assert_eq(dedupe_file_set(&file, DEDUPE_ABOUT_FINISHED, 1), 0);
	dedupe_file_close(&file);
	larger.size_bytes *= 2;
	cr_assert_eq(dedupe_file_open(&file, path, &larger, CACHE_BYTES), 0);
	cr_assert_eq(dedupe_file_has(&file, 1), 0);
	cr_assert_eq(file.about[DEDUPE_ABOUT_FINISHED], 0);
	dedupe_file_close(&file);
}

static void write_text(const char *text)
{
	FILE *to = fopen(path, "we");

	cr_assert_not_null(to);
	for (int i = 0; i < 1000; i++)
		fputs(text, to);
	fclose(to);
}

Test(dedupe_file, a_file_of_something_else_is_refused_and_stays)
{
	char command[256];
	struct stat st;

	write_text("letters to grandmother\n");
	cr_assert_eq(dedupe_file_open(&file, path, &volume, CACHE_BYTES), -EBADMSG);
	cr_assert_eq(stat(path, &st), 0);
	cr_assert_eq(st.st_size, 23000);
	/* A database, but not ours. */
	unlink(path);
	open_it();
	put(1);
	cr_assert_eq(dedupe_sql_run(&file.sql, "PRAGMA application_id=7"), 0);
	dedupe_file_close(&file);
	cr_assert_eq(dedupe_file_open(&file, path, &volume, CACHE_BYTES), -EBADMSG);
	snprintf(command, sizeof(command), "test -s %s", path);
	cr_assert_eq(system(command), 0);
}

Test(dedupe_file, one_process_at_a_time_has_it)
{
	struct dedupe_file second;

	open_it();
	cr_assert_eq(dedupe_file_open(&second, path, &volume, CACHE_BYTES), -EBUSY);
	dedupe_file_close(&file);
	cr_assert_eq(dedupe_file_open(&second, path, &volume, CACHE_BYTES), 0);
	dedupe_file_close(&second);
}

/* Goal: what was written to is read again, and a finished run that covered it is none any more. */
Test(dedupe_file, what_is_forgotten_is_not_covered)
{
	open_it();
	for (uint64_t i = 0; i < 10; i++)
		put(i);
	dedupe_file_set(&file, DEDUPE_ABOUT_COVERED_FROM, 2);
	dedupe_file_set(&file, DEDUPE_ABOUT_COVERED_TO, 8);
	cr_assert_eq(dedupe_file_forget(&file, 0, 2), 0);
	cr_assert_eq(dedupe_file_forget(&file, 8, 9), 0);
	cr_assert_eq(file.about[DEDUPE_ABOUT_COVERED_TO], 8);
	cr_assert_eq(dedupe_file_forget(&file, 5, 6), 0);
	cr_assert_eq(file.about[DEDUPE_ABOUT_COVERED_TO], 0);
	cr_assert_eq(dedupe_file_has(&file, 1), 0);
	cr_assert_eq(dedupe_file_has(&file, 4), 1);
	cr_assert_eq(dedupe_file_has(&file, 5), 0);
	cr_assert_eq(dedupe_file_has(&file, 9), 1);
	cr_assert_eq(pending(0, 10), 6);
	cr_assert_eq(dedupe_file_set_pending(&file, 0, 5, false), 0);
	cr_assert_eq(pending(0, 10), 3);
	cr_assert_eq(dedupe_file_set_pending(&file, 0, 5, true), 0);
	cr_assert_eq(pending(0, 10), 6);
	dedupe_file_close(&file);
}

Test(dedupe_file, without_a_name_it_leaves_nothing)
{
	cr_assert_eq(dedupe_file_open(&file, NULL, &volume, CACHE_BYTES), 0);
	cr_assert_eq(dedupe_file_begin(&file), 0);
	put(1);
	cr_assert_eq(dedupe_file_commit(&file), 0);
	cr_assert_eq(dedupe_file_has(&file, 1), 1);
	dedupe_file_close(&file);
}

Test(dedupe_file, a_shared_run_is_seen_from_anywhere_inside)
{
	const struct dedupe_seen first = {100, 50, 7000}, second = {200, 10, 9000};
	struct dedupe_scratch scratch;
	uint64_t blocks, logical;

	open_it();
	cr_assert_eq(dedupe_scratch_open(&scratch, &file, CACHE_BYTES), 0);
	cr_assert_eq(dedupe_scratch_seen(&scratch, 5, 64, &blocks, &logical), 0);
	cr_assert_eq(blocks, 64, "nothing was seen yet");
	cr_assert_eq(dedupe_scratch_put_seen(&scratch, &first), 0);
	cr_assert_eq(dedupe_scratch_put_seen(&scratch, &second), 0);
	cr_assert_eq(dedupe_scratch_seen(&scratch, 120, 512, &blocks, &logical), 1);
	cr_assert_eq(blocks, 30);
	cr_assert_eq(logical, 7020);
	cr_assert_eq(dedupe_scratch_seen(&scratch, 120, 4, &blocks, &logical), 1);
	cr_assert_eq(blocks, 4);
	cr_assert_eq(dedupe_scratch_seen(&scratch, 150, 512, &blocks, &logical), 0);
	cr_assert_eq(blocks, 50, "up to what was seen next");
	cr_assert_eq(dedupe_scratch_seen(&scratch, 210, 512, &blocks, &logical), 0);
	cr_assert_eq(blocks, 512);
	dedupe_scratch_close(&scratch);
	dedupe_file_close(&file);
}

Test(dedupe_file, places_and_roles_belong_to_the_run)
{
	static uint64_t places[DEDUPE_REGION_BLOCKS], got[DEDUPE_REGION_BLOCKS];
	struct dedupe_roles roles = {.sources = {5}};
	struct dedupe_scratch scratch;
	struct dedupe_region region;
	uint64_t number;

	open_it();
	put(4);
	cr_assert_eq(dedupe_scratch_open(&scratch, &file, CACHE_BYTES), 0);
	places[9] = dedupe_place(77, 3);
	cr_assert_eq(dedupe_scratch_put_places(&scratch, 4, places), 0);
	cr_assert_eq(dedupe_scratch_put_places(&scratch, 5, places), 0);
	cr_assert_eq(dedupe_scratch_put_todo(&scratch, 5), 0);
	cr_assert_eq(dedupe_scratch_next_todo(&scratch, 0, &number), 0);
	cr_assert_eq(number, 5);
	cr_assert_eq(dedupe_scratch_next_todo(&scratch, 6, &number), -ENOENT);
	cr_assert_eq(scratch.source.keep_roles(scratch.source.context, 4, &roles), 0);
	cr_assert_eq(dedupe_scratch_load(&scratch, 4, &region), 0);
	cr_assert_eq(dedupe_place_block(region.places[9]), 77);
	cr_assert_eq(dedupe_place_references(region.places[9]), 3);
	cr_assert_eq(region.roles.sources[0], 5);
	/* Its places are known, its hashes are not: nothing can be said of it. */
	cr_assert_eq(dedupe_scratch_load(&scratch, 5, &region), 0);
	cr_assert_eq(region.places[9], 0);
	cr_assert_eq(dedupe_scratch_get_places(&scratch, 5, got), 0);
	cr_assert_eq(memcmp(got, places, sizeof(places)), 0);
	dedupe_scratch_close(&scratch);
	dedupe_file_close(&file);
	open_it();
	cr_assert_eq(dedupe_scratch_open(&scratch, &file, CACHE_BYTES), 0);
	cr_assert_eq(dedupe_scratch_load(&scratch, 4, &region), 0);
	cr_assert_eq(region.places[9], 0);
	cr_assert_eq(region.roles.sources[0], 0);
	dedupe_scratch_close(&scratch);
	dedupe_file_close(&file);
}
