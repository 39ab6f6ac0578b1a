/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_background - a server in the background is waited for, whatever it does; a script stands for
 * it
 */
#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli/device/background.h"

static char folder[64];
static char program[128];
static char log_path[128];

static void setup(void)
{
	strcpy(folder, "/tmp/sameblk-test.XXXXXX");
	cr_assert_not_null(mkdtemp(folder));
	setenv("SAMEBLK_CONTROL_DIR", folder, 1);
	snprintf(program, sizeof(program), "%s/server", folder);
	snprintf(log_path, sizeof(log_path), "%s/disk.log", folder);
	setenv("SAMEBLKD", program, 1);
}

static void teardown(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", folder);
	cr_assert_eq(system(command), 0);
}

TestSuite(background, .init = setup, .fini = teardown, .timeout = 60);

static void write_script(const char *text)
{
	FILE *file = fopen(program, "w");

	cr_assert_not_null(file);
	fprintf(file, "#!/bin/sh\n%s", text);
	fclose(file);
	cr_assert_eq(chmod(program, 0700), 0);
}

static int start(const char *script, unsigned seconds, char ret_device[BACKGROUND_DEVICE_BYTES])
{
	static const char *const arguments[] = {"sameblkd", "--ublk", "/x/disk.img", NULL};
	const struct background what = {
		.store = "/x/disk.img",
		.directory = folder,
		.arguments = arguments,
		.wait_seconds = seconds,
	};

	write_script(script);
	return background_start(&what, ret_device);
}

static void read_log(char *ret_text, size_t bytes)
{
	int fd = open(log_path, O_RDONLY);
	ssize_t len;

	cr_assert_geq(fd, 0);
	len = read(fd, ret_text, bytes - 1);
	cr_assert_geq(len, 0);
	ret_text[len] = '\0';
	close(fd);
}

static bool ends_within(pid_t pid, unsigned ms)
{
	const struct timespec pause = {.tv_nsec = 10000000};

	for (; ms > 0; ms -= ms < 10 ? ms : 10) {
		/* It is our child and nobody waits for it; a zombie has ended. */
		char path[64], text[256] = "";
		FILE *file;

		snprintf(path, sizeof(path), "/proc/%d/stat", pid);
		file = fopen(path, "r");
		if (file == NULL)
			return true;
		if (fgets(text, sizeof(text), file) == NULL)
			text[0] = '\0';
		fclose(file);
		if (strstr(text, ") Z") != NULL)
			return true;
		nanosleep(&pause, NULL);
	}
	return false;
}

Test(background, the_device_of_the_ready_line_is_returned_and_the_server_goes_on)
{
	char device[BACKGROUND_DEVICE_BYTES], text[256];
	pid_t pid = 0;
	FILE *file;

	cr_assert_eq(start("echo \"$@\" >&2; pwd >&2; echo $$ >pid\n"
			   "echo ready nbd+unix:///?socket=/s /dev/ublkb12\nsleep 30\n",
			   20, device),
		     0);
	cr_assert_str_eq(device, "/dev/ublkb12");
	read_log(text, sizeof(text));
	cr_assert_not_null(strstr(text, "--ublk /x/disk.img\n"));
	cr_assert_not_null(strstr(text, folder));
	snprintf(text, sizeof(text), "%s/pid", folder);
	file = fopen(text, "r");
	cr_assert_not_null(file);
	cr_assert_eq(fscanf(file, "%d", &pid), 1);
	fclose(file);
	cr_assert(!ends_within(pid, 200));
	cr_assert_eq(getsid(pid), pid, "a session of its own");
	kill(pid, SIGKILL);
}

Test(background, a_server_that_ends_is_told_with_what_it_said)
{
	char device[BACKGROUND_DEVICE_BYTES], text[1024] = "";
	FILE *err;

	cr_redirect_stderr();
	cr_assert_eq(start("echo earlier >&2; exit 2\n", 20, device), -1);
	cr_assert_eq(start("echo sameblkd: no module >&2; exit 2\n", 20, device), -1);
	fflush(stderr);
	err = cr_get_redirected_stderr();
	cr_assert_gt(fread(text, 1, sizeof(text) - 1, err), 0);
	cr_assert_not_null(strstr(text, "sameblkd: no module"));
	/* Each time only what is new; the log keeps all. */
	cr_assert_null(strstr(strstr(text, "earlier") + 1, "earlier"));
	read_log(text, sizeof(text));
	cr_assert_str_eq(text, "earlier\nsameblkd: no module\n");
}

Test(background, a_server_without_a_block_device_is_stopped)
{
	char device[BACKGROUND_DEVICE_BYTES], text[512] = "";

	cr_redirect_stderr();
	cr_assert_eq(start("trap 'echo stopped >&2; exit 0' TERM\n"
			   "echo ready nbd://x\nwhile :; do sleep 0.05; done\n",
			   20, device),
		     -1);
	fflush(stderr);
	cr_assert_gt(fread(text, 1, sizeof(text) - 1, cr_get_redirected_stderr()), 0);
	cr_assert_not_null(strstr(text, "it says ready nbd://x"));
}

Test(background, a_server_that_is_not_ready_in_time_is_stopped)
{
	char device[BACKGROUND_DEVICE_BYTES], text[256] = "";
	const struct timespec pause = {.tv_nsec = 10000000};

	cr_assert_eq(start("trap 'echo stopped >&2; exit 0' TERM\n"
			   "while :; do sleep 0.05; done\n",
			   1, device),
		     -1);
	for (unsigned i = 0; i < 500 && strstr(text, "stopped") == NULL; i++) {
		nanosleep(&pause, NULL);
		read_log(text, sizeof(text));
	}
	cr_assert_not_null(strstr(text, "stopped"));
}

Test(background, a_program_that_is_not_there_is_named)
{
	char device[BACKGROUND_DEVICE_BYTES], text[512];

	setenv("SAMEBLKD", "/nowhere/sameblkd", 1);
	cr_assert_eq(start("", 20, device), -1);
	read_log(text, sizeof(text));
	cr_assert_not_null(strstr(text, "/nowhere/sameblkd"));
}

/* The folder may be one that others may add to. */
Test(background, a_log_that_somebody_else_has_put_there_is_not_written_to)
{
	char device[BACKGROUND_DEVICE_BYTES], other[128];
	struct stat st;
	int fd;

	snprintf(other, sizeof(other), "%s/other", folder);
	fd = open(other, O_CREAT | O_WRONLY, 0600);
	cr_assert_geq(fd, 0);
	close(fd);
	cr_assert_eq(symlink(other, log_path), 0);
	cr_assert_eq(start("echo no >&2; exit 2\n", 20, device), -1);
	cr_assert_eq(unlink(log_path), 0);
	cr_assert_eq(link(other, log_path), 0);
	cr_assert_eq(start("echo no >&2; exit 2\n", 20, device), -1);
	cr_assert_eq(stat(other, &st), 0);
	cr_assert_eq(st.st_size, 0, "%d bytes were written to it", (int)st.st_size);
	cr_assert_eq(unlink(log_path), 0);
	cr_assert_eq(mkfifo(log_path, 0600), 0);
	cr_assert_eq(start("exit 2\n", 20, device), -1);
}
