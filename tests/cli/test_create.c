/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_create - `sameblk create` makes what it says and overwrites nothing by mistake
 *
 * The program under test is named by the environment variable SAMEBLK.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[64];
static char output[65536];

static void setup(void)
{
	if (getenv("SAMEBLK") == NULL)
		cr_skip_test("SAMEBLK names no program");
	strcpy(folder, "/tmp/sameblk-test.XXXXXX");
	cr_assert_not_null(mkdtemp(folder));
	cr_assert_eq(chdir(folder), 0);
}

static void teardown(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", folder);
	cr_assert_eq(system(command), 0);
}

TestSuite(create, .init = setup, .fini = teardown);

static int run(const char *format, ...) __attribute__((format(printf, 1, 2)));

static int run(const char *format, ...)
{
	char command[1024];
	size_t len = (size_t)snprintf(command, sizeof(command), "\"$SAMEBLK\" ");
	va_list args;
	FILE *stream;
	int status;

	va_start(args, format);
	len += (size_t)vsnprintf(command + len, sizeof(command) - len, format, args);
	va_end(args);
	snprintf(command + len, sizeof(command) - len, " 2>&1");
	stream = popen(command, "r");
	cr_assert_not_null(stream);
	len = fread(output, 1, sizeof(output) - 1, stream);
	output[len] = '\0';
	status = pclose(stream);
	cr_assert(WIFEXITED(status), "%s", command);
	return WEXITSTATUS(status);
}

static off_t length_of(const char *name)
{
	struct stat st;

	return stat(name, &st) < 0 ? -1 : st.st_size;
}

static void make_file(const char *name, off_t len)
{
	int fd = open(name, O_CREAT | O_RDWR | O_TRUNC, 0600);

	cr_assert_geq(fd, 0);
	cr_assert_eq(ftruncate(fd, len), 0);
	close(fd);
}

/* A swap area's header: a signature that is easily made. */
static void put_swap(const char *name)
{
	static const unsigned char version_and_pages[] = {1, 0, 0, 0, 200, 0, 0, 0};
	int fd = open(name, O_RDWR);

	cr_assert_eq(pwrite(fd, version_and_pages, 8, 1024), 8);
	cr_assert_eq(pwrite(fd, "SWAPSPACE2", 10, 4086), 10);
	close(fd);
}

Test(create, a_new_file_is_sparse_and_clean)
{
	struct stat st;

	cr_assert_eq(run("create --size 1G store"), 0, "%s", output);
	cr_assert_eq(stat("store", &st), 0);
	cr_assert_gt(st.st_size, 1 << 30, "every block of the volume has one in the store");
	cr_assert_lt(st.st_blocks * 512, 64 << 20);
	cr_assert_eq(st.st_mode & 07777, 0600);
	cr_assert_eq(run("check store"), 0, "%s", output);
}

Test(create, the_geometry_is_printed)
{
	json_t *root;

	cr_assert_eq(run("create --size 1G store"), 0);
	cr_assert_not_null(strstr(output, "size         1073741824\n"), "%s", output);
	cr_assert_eq(run("create --json --size 0x100000 --store-size 64M thin"), 0);
	root = json_loads(output, 0, NULL);
	cr_assert_not_null(root, "%s", output);
	cr_assert_eq(json_integer_value(json_object_get(root, "size_bytes")), 1 << 20);
	cr_assert_eq(json_integer_value(json_object_get(root, "store_bytes")), 64 << 20);
	json_decref(root);
}

Test(create, sizes_follow_from_one_another)
{
	cr_assert_eq(run("create --store-size 64M store"), 0);
	cr_assert_eq(length_of("store"), 64 << 20);
	make_file("there", 50 << 20);
	cr_assert_eq(run("create there"), 0, "%s", output);
	cr_assert_eq(length_of("there"), 50 << 20);
	make_file("empty", 0);
	cr_assert_eq(run("create --size 10M empty"), 0, "%s", output);
	cr_assert_eq(run("create --size 8T --store-size 256M thin"), 0, "logical exceeds store");
	cr_assert_eq(run("check thin"), 0, "%s", output);
}

Test(create, sizes_out_of_range_are_refused_and_leave_no_file)
{
	static const char *const bad[] = {
		"",
		"--size 4095",
		"--size 1000000",
		"--size 1020K",
		"--size 65T",
		"--size 0",
		"--size -1",
		"--size 1Z",
		"--store-size 1M",
		"--store-size 100",
		"--store-size 64M1",
		"--size 64T --store-size 2M",
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		cr_assert_eq(run("create %s store", bad[i]), 2, "%s: %s", bad[i], output);
		cr_assert_eq(strncmp(output, "sameblk create: ", 16), 0, "%s", output);
		cr_assert_eq(length_of("store"), -1, "%s", bad[i]);
	}
}

Test(create, an_empty_file_stays_empty_where_no_volume_can_be_made)
{
	make_file("empty", 0);
	cr_assert_eq(run("create --size 64T --store-size 2M empty"), 2, "%s", output);
	cr_assert_eq(length_of("empty"), 0);
	cr_assert_eq(run("create --size 10M empty"), 0, "%s", output);
}

Test(create, force_wipes_nothing_for_a_volume_that_cannot_be_made)
{
	make_file("store", 64 << 20);
	put_swap("store");
	cr_assert_eq(run("create --force --size 64T store"), 2);
	cr_assert_not_null(strstr(output, "cannot hold the metadata"), "%s", output);
	cr_assert_eq(run("create store"), 2);
	cr_assert_not_null(strstr(output, "it holds swap; --force"), "%s", output);
}

Test(create, a_volume_is_not_overwritten_without_force)
{
	cr_assert_eq(run("create --size 64M store"), 0);
	cr_assert_eq(run("create --size 64M store"), 2);
	cr_assert_not_null(strstr(output, "sameblk volume; --force"), "%s", output);
	cr_assert_eq(run("check store"), 0);
	cr_assert_eq(run("create --size 32M --force store"), 0, "%s", output);
	cr_assert_eq(run("check store"), 0);
}

Test(create, a_foreign_signature_is_found_and_wiped_by_force_alone)
{
	make_file("store", 64 << 20);
	put_swap("store");
	cr_assert_eq(run("create store"), 2);
	cr_assert_not_null(strstr(output, "it holds swap; --force"), "%s", output);
	cr_assert_eq(run("create --force store"), 0, "%s", output);
	cr_assert_eq(run("check store"), 0);
}

Test(create, a_partition_table_is_found)
{
	unsigned char mbr[512] = {0};
	int fd;

	make_file("store", 64 << 20);
	mbr[446 + 4] = 0x83; /* one Linux partition from sector 2048 on */
	mbr[446 + 9] = 8;
	mbr[446 + 13] = 8;
	mbr[510] = 0x55;
	mbr[511] = 0xaa;
	fd = open("store", O_RDWR);
	cr_assert_eq(pwrite(fd, mbr, sizeof(mbr), 0), sizeof(mbr));
	close(fd);
	cr_assert_eq(run("create store"), 2);
	cr_assert_not_null(strstr(output, "a partition table (dos)"), "%s", output);
}

/* What no list of formats has: the first bytes of some, each 64 MiB long with a hole behind. */
Test(create, a_file_with_any_data_is_not_overwritten_without_force)
{
	static const struct {
		const char *bytes;
		off_t at;
	} kinds[] = {
		{"QFI\xfb", 0}, /* qcow2 */
		{"ustar", 257},	 {"SQLite format 3", 0},
		{"a text\n", 0}, {"something far behind", (32 << 20) + 5},
	};
	char text[32];

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		ssize_t len = (ssize_t)strlen(kinds[i].bytes);
		int fd;

		make_file("store", 64 << 20);
		fd = open("store", O_RDWR);
		cr_assert_eq(pwrite(fd, kinds[i].bytes, (size_t)len, kinds[i].at), len);
		cr_assert_eq(run("create store"), 2, "%s: %s", kinds[i].bytes, output);
		cr_assert_not_null(strstr(output, "it holds data from byte "), "%s", output);
		cr_assert_not_null(strstr(output, "--force"), "%s", output);
		cr_assert_eq(pread(fd, text, (size_t)len, kinds[i].at), len);
		cr_assert_arr_eq(text, kinds[i].bytes, (size_t)len);
		close(fd);
	}
	cr_assert_eq(run("create --force store"), 0, "%s", output);
	cr_assert_eq(run("check store"), 0, "%s", output);
	make_file("store", 64 << 20);
	cr_assert_eq(run("create store"), 0, "all holes: %s", output);
}

Test(create, a_store_in_use_is_refused_also_with_force)
{
	int fd;

	cr_assert_eq(run("create --size 64M store"), 0);
	fd = open("store", O_RDWR);
	cr_assert_eq(flock(fd, LOCK_EX), 0);
	cr_assert_eq(run("create --force --size 64M store"), 2);
	close(fd);
	cr_assert_eq(run("check store"), 0);
}

Test(create, what_cannot_be_a_store_is_refused)
{
	cr_assert_eq(run("create --size 64M ."), 2);
	cr_assert_eq(run("create --size 64M /dev/null"), 2);
	cr_assert_eq(run("create --size 64M no/such/folder"), 2);
	make_file("there", 64 << 20);
	cr_assert_eq(run("create --store-size 128M there"), 2, "it has a size already");
	cr_assert_eq(length_of("there"), 64 << 20);
	cr_assert_eq(run("create"), 2);
	cr_assert_eq(run("create --size 64M a b"), 2);
}

/* --- somebody else at the same moment --- */

static bool names_store(pid_t pid, uint64_t address)
{
	long word = ptrace(PTRACE_PEEKDATA, pid, (void *)(uintptr_t)address, NULL);

	return memcmp(&word, "store", 6) == 0;
}

/* Runs `sameblk create --size 16M store` up to the system call that does something to the store;
 * it has not happened yet. */
static pid_t create_until(uint64_t call)
{
	struct __ptrace_syscall_info info;
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		int fd = open("output", O_CREAT | O_WRONLY | O_TRUNC, 0600);

		dup2(fd, STDOUT_FILENO);
		dup2(fd, STDERR_FILENO);
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
			_exit(99);
		execl(getenv("SAMEBLK"), "sameblk", "create", "--size", "16M", "store", NULL);
		_exit(98);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 99)
		cr_skip_test("processes may not be traced here");
	cr_assert(WIFSTOPPED(status));
	cr_assert_eq(ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)PTRACE_O_TRACESYSGOOD), 0);
	for (;;) {
		cr_assert_eq(ptrace(PTRACE_SYSCALL, pid, NULL, NULL), 0);
		cr_assert_eq(waitpid(pid, &status, 0), pid);
		cr_assert(WIFSTOPPED(status), "it ended before it did that");
		if (ptrace(PTRACE_GET_SYSCALL_INFO, pid, (void *)sizeof(info), &info) <= 0 ||
		    info.op != PTRACE_SYSCALL_INFO_ENTRY || info.entry.nr != call)
			continue;
		if (call != SYS_openat || names_store(pid, info.entry.args[1]))
			return pid;
	}
}

static int create_go_on(pid_t pid)
{
	FILE *file;
	int status;
	size_t len;

	cr_assert_eq(ptrace(PTRACE_DETACH, pid, NULL, NULL), 0);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status));
	file = fopen("output", "r");
	cr_assert_not_null(file);
	len = fread(output, 1, sizeof(output) - 1, file);
	output[len] = '\0';
	fclose(file);
	return WEXITSTATUS(status);
}

Test(create, a_file_that_is_filled_before_it_is_opened_is_not_overwritten, .timeout = 60)
{
	char text[10];
	pid_t pid;
	int fd;

	make_file("store", 0);
	pid = create_until(SYS_openat);
	fd = open("store", O_RDWR);
	cr_assert_eq(ftruncate(fd, 16 << 20), 0);
	put_swap("store");
	cr_assert_eq(create_go_on(pid), 2, "%s", output);
	cr_assert_not_null(strstr(output, "--force"), "%s", output);
	cr_assert_eq(pread(fd, text, 10, 4086), 10);
	cr_assert_arr_eq(text, "SWAPSPACE2", 10);
	close(fd);
}

Test(create, a_file_that_another_process_has_locked_is_not_removed, .timeout = 60)
{
	pid_t pid = create_until(SYS_flock);
	int fd = open("store", O_RDWR);

	cr_assert_geq(fd, 0);
	cr_assert_eq(flock(fd, LOCK_EX), 0);
	cr_assert_eq(create_go_on(pid), 2, "%s", output);
	cr_assert_eq(access("store", F_OK), 0, "it is gone");
	close(fd);
}

Test(create, a_file_that_was_replaced_before_it_was_locked_is_refused, .timeout = 60)
{
	pid_t pid = create_until(SYS_flock);

	make_file("other", 0);
	cr_assert_eq(rename("other", "store"), 0);
	cr_assert_eq(create_go_on(pid), 2, "%s", output);
	cr_assert_eq(length_of("store"), 0, "what is there now is another's");
}

/* JSON is UTF-8, and what is not is told as `status` tells it. */
Test(create, a_name_that_is_no_utf8_is_told_in_json)
{
	static const char *const commands[] = {"create --json --size 64M", "check --json"};

	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		json_t *root;

		cr_assert_eq(run("%s store\xff.img", commands[i]), 0, "%s", output);
		root = json_loads(output, 0, NULL);
		cr_assert_not_null(root, "%s: %s", commands[i], output);
		cr_assert_str_eq(json_string_value(json_object_get(root, "store")), "store?.img");
		json_decref(root);
	}
}
