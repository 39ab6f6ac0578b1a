/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_commands - what `sameblk` prints and how it exits, against a server over the fake engine
 *
 * The program under test is named by the environment variable SAMEBLK.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/server/control/session.h"

#define PERIOD ((unsigned long long)FAKE_PERIOD * 4096) /* ranges this far apart are equal */
#define MIB    (1ull << 20)

static struct session session;
static char output[1 << 20]; /* stdout and stderr of the last command */

static void setup(void)
{
	if (getenv("SAMEBLK") == NULL)
		cr_skip_test("SAMEBLK names no program");
	session_begin(&session, NULL);
}

static void teardown(void)
{
	if (getenv("SAMEBLK") != NULL)
		session_end(&session);
}

TestSuite(commands, .init = setup, .fini = teardown);

/* How the shell starts sameblk; its path may have spaces. */
static const char *sameblk = "\"$SAMEBLK\"";

/* Runs `sameblk ...` in a shell and returns its exit status. */
static int run(const char *format, ...) __attribute__((format(printf, 1, 2)));

static int run(const char *format, ...)
{
	char command[4096];
	size_t len = (size_t)snprintf(command, sizeof(command), "%s ", sameblk);
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

static void expect(int status, const char *want, int got)
{
	cr_assert_str_eq(output, want);
	cr_assert_eq(got, status, "exit status %d instead of %d: %s", got, status, output);
}

static json_t *output_json(void)
{
	json_t *json = json_loads(output, 0, NULL);

	cr_assert_not_null(json, "not one JSON document: %s", output);
	return json;
}

Test(commands, same_prints_a_line_a_destination)
{
	char want[256];

	snprintf(want, sizeof(want), "%llu same 8192 freed 8192\n%llu same 8192 freed 8192\n",
		 PERIOD + 4096, 2 * PERIOD + 4096);
	expect(0, want, run("same 4096 8K %llu %llu", PERIOD + 4096, 2 * PERIOD + 4096));
	snprintf(want, sizeof(want), "%llu same 8192 freed 0\n", PERIOD + 4096);
	expect(0, want, run("same 4K 0x2000 %llu", PERIOD + 4096));
}

Test(commands, same_tells_where_a_range_differs)
{
	char want[256];

	fake_write(session.volume, 2 * PERIOD + 4096, 99999);
	snprintf(want, sizeof(want),
		 "%llu differs at 4103 same 0 freed 0\n%llu same 8192 freed 4096\n", 2 * PERIOD,
		 PERIOD);
	expect(1, want, run("same 0 8K %llu %llu", 2 * PERIOD, PERIOD));
}

Test(commands, same_goes_on_where_the_server_clamps)
{
	char want[256];

	/* All but the holes, one block in a period. */
	snprintf(want, sizeof(want), "%llu same %llu freed %llu\n", 256 * MIB, 256 * MIB,
		 256 * MIB - 256 * MIB / FAKE_PERIOD);
	expect(0, want, run("same 0 256M 256M"));
	fake_write(session.volume, 200 * MIB, 99999);
	snprintf(want, sizeof(want), "0 differs at %llu same %llu freed 0\n", 200 * MIB + 7,
		 192 * MIB);
	expect(1, want, run("same 256M 256M 0"));
}

Test(commands, same_json_is_one_document)
{
	json_t *root, *result;

	cr_assert_eq(run("same --json 4096 4096 %llu 4097", PERIOD + 4096), 2);
	root = output_json();
	cr_assert_eq(json_integer_value(json_object_get(root, "src")), 4096);
	cr_assert_eq(json_integer_value(json_object_get(root, "length")), 4096);
	result = json_array_get(json_object_get(root, "results"), 0);
	cr_assert_eq(json_integer_value(json_object_get(result, "dst")), PERIOD + 4096);
	cr_assert_str_eq(json_string_value(json_object_get(result, "status")), "same");
	cr_assert_eq(json_integer_value(json_object_get(result, "bytes_deduped")), 4096);
	cr_assert_eq(json_integer_value(json_object_get(result, "bytes_freed")), 4096);
	cr_assert_eq(json_integer_value(json_object_get(result, "bytes_already_shared")), 0);
	cr_assert_null(json_object_get(result, "differs_at"), "what does not apply is absent");
	cr_assert_null(json_object_get(result, "error"));
	result = json_array_get(json_object_get(root, "results"), 1);
	cr_assert_str_eq(json_string_value(json_object_get(result, "status")), "error");
	cr_assert_str_eq(json_string_value(json_object_get(result, "error")), "EINVAL");
	cr_assert_not_null(json_object_get(result, "message"));
	json_decref(root);
}

Test(commands, a_refused_request_says_what_on_what_and_why)
{
	cr_assert_eq(run("same 1 4096 8192"), 2);
	cr_assert_eq(strncmp(output, "sameblk same: cannot merge 1 4096: ", 35), 0, "%s", output);
	cr_assert_not_null(strstr(output, "EINVAL"));
	fake_set_state(session.volume, VOLUME_READ_ONLY);
	cr_assert_eq(run("same 0 4096 8192"), 2);
	cr_assert_not_null(strstr(output, "EROFS"));
}

Test(commands, same_takes_the_word_zero)
{
	fake_write(session.volume, 40960, 0);
	expect(0, "40960 same 4096 freed 4096\n", run("same zero 4096 40960"));
	expect(1, "8192 differs at 7 same 0 freed 0\n", run("same zero 4096 8192"));
}

/* Row 19 of the same-range rules. */
Test(commands, after_emlink_the_rest_is_merged_with_the_next_one)
{
	char want[1024], *at = want;

	fake_set_references_max(session.volume, 3);
	for (unsigned i = 1; i <= 7; i++) {
		unsigned long long dst = i * PERIOD + 4096;

		if (i == 3 || i == 6)
			at += sprintf(
				at,
				"%llu error EMLINK the source's blocks have too many references\n",
				dst);
		else
			at += sprintf(at, "%llu same 4096 freed 4096\n", dst);
	}
	expect(2, want,
	       run("same 4096 4096 %llu %llu %llu %llu %llu %llu %llu", PERIOD + 4096,
		   2 * PERIOD + 4096, 3 * PERIOD + 4096, 4 * PERIOD + 4096, 5 * PERIOD + 4096,
		   6 * PERIOD + 4096, 7 * PERIOD + 4096));
}

static void write_batch(const char *name, const char *text)
{
	char path[128];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", session.folder, name);
	file = fopen(path, "w");
	cr_assert_not_null(file);
	fputs(text, file);
	cr_assert_eq(fclose(file), 0);
}

/* Lets the requests go on when many are there, however long that takes on a busy machine. */
static void *let_many_go(void *arg)
{
	(void)arg;
	while (fake_running(session.volume) < 2)
		usleep(1000);
	fake_hold(session.volume, false, true);
	return NULL;
}

Test(commands, a_batch_keeps_its_order_and_ends_with_a_summary, .timeout = 60)
{
	char text[16384], want[16384], *to = text, *at = want;
	pthread_t helper;

	fake_hold(session.volume, true, true);
	cr_assert_eq(pthread_create(&helper, NULL, let_many_go, NULL), 0);
	to += sprintf(to, "# comment\n\n");
	for (unsigned i = 0; i < 300; i++) {
		unsigned src = 4096 * (1 + i / 100);
		unsigned long long dst = (1 + i % 100) * PERIOD + src;

		to += sprintf(to, " %u\t4K %llu \n", src, dst);
		at += sprintf(at, "%llu same 4096 freed 4096\n", dst);
	}
	sprintf(to, "4096 4096 8192\n"); /* the last line differs */
	at += sprintf(at, "8192 differs at 7 same 0 freed 0\n");
	sprintf(at, "summary: requests 301 destinations 301 same 300 differs 1 errors 0 "
		    "bytes_deduped 1228800 bytes_freed 1228800 bytes_already_shared 0\n");
	write_batch("batch", text);
	expect(1, want, run("same --batch %s/batch", session.folder));
	pthread_join(helper, NULL);
	cr_assert_gt(fake_running_most(session.volume), 1, "many are in flight");
	cr_assert_eq(run("same --batch - < %s/batch", session.folder), 1);
	cr_assert_not_null(strstr(output, " bytes_freed 0 bytes_already_shared 1228800\n"));
}

/* The pipe stays open: what came through it is not held back until more comes. */
Test(commands, a_batch_from_a_slow_pipe_is_answered_line_by_line, .timeout = 60)
{
	char fifo[128], command[512], line[200], want[200];
	FILE *answers, *lines;

	snprintf(fifo, sizeof(fifo), "%s/fifo", session.folder);
	cr_assert_eq(mkfifo(fifo, 0600), 0);
	snprintf(command, sizeof(command), "%s same --batch - < %s", sameblk, fifo);
	answers = popen(command, "r");
	lines = fopen(fifo, "w");
	cr_assert(answers && lines);
	for (unsigned i = 1; i <= 3; i++) {
		fprintf(lines, "4096 4096 %llu\n", i * PERIOD + 4096);
		fflush(lines);
		snprintf(want, sizeof(want), "%llu same 4096 freed 4096\n", i * PERIOD + 4096);
		cr_assert_not_null(fgets(line, sizeof(line), answers));
		cr_assert_str_eq(line, want);
	}
	fputs("4096 4096 8192", lines); /* without its end */
	fclose(lines);
	cr_assert_not_null(fgets(line, sizeof(line), answers));
	cr_assert_str_eq(line, "8192 differs at 7 same 0 freed 0\n");
	cr_assert_not_null(fgets(line, sizeof(line), answers));
	cr_assert_eq(strncmp(line, "summary: requests 4 ", 20), 0);
	cr_assert_eq(WEXITSTATUS(pclose(answers)), 1);
	unlink(fifo);
}

Test(commands, lines_of_a_batch_that_depend_on_one_another_run_in_order)
{
	char text[512], want[1024];

	/* 3 joins 2 only after 2 has joined 1; the other way round 2's old block would stay in
	 * use. */
	fake_hold(session.volume, false, true);
	snprintf(text, sizeof(text), "4096 4096 %llu\n%llu 4096 %llu\n%llu 4096 %llu\n",
		 PERIOD + 4096, PERIOD + 4096, 2 * PERIOD + 4096, 2 * PERIOD + 4096,
		 3 * PERIOD + 4096);
	write_batch("batch", text);
	cr_assert_eq(run("same --batch %s/batch", session.folder), 0);
	snprintf(want, sizeof(want), "4096 4096 data 8192 4\n");
	expect(0, want, run("map 4096 4096"));
}

Test(commands, a_bad_line_of_a_batch_fails_alone)
{
	char text[256];

	snprintf(text, sizeof(text), "4096\n4096 4096 12Q\nx 1 2\n4096 4096 %llu\n4096 4096",
		 PERIOD + 4096);
	write_batch("batch", text);
	cr_assert_eq(run("same --batch %s/batch", session.folder), 2);
	cr_assert_not_null(strstr(output, "line 1: "), "%s", output);
	cr_assert_not_null(strstr(output, "line 2: 12Q: "));
	cr_assert_not_null(strstr(output, "line 3: x: "));
	cr_assert_not_null(strstr(output, "line 5: "));
	cr_assert_not_null(strstr(output, " same 4096 freed 4096\n"));
	cr_assert_not_null(strstr(output, "summary: requests 5 destinations 1 same 1 differs 0 "
					  "errors 4 "));
	cr_assert_eq(run("same --batch %s/none", session.folder), 2);
}

Test(commands, json_lines_end_with_the_summary)
{
	char *last, *line, *save = NULL;
	unsigned lines = 0;

	write_batch("batch", "4096 4096 8192\n4096 4096 4096\n1 1 1\nzero 4096 0\n");
	cr_assert_eq(run("same --json-lines --batch %s/batch 2>/dev/null", session.folder), 2);
	last = NULL;
	for (line = strtok_r(output, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		json_t *json = json_loads(line, 0, NULL);

		cr_assert_not_null(json, "%s", line);
		json_decref(json);
		last = line;
		lines++;
	}
	cr_assert_eq(lines, 5);
	cr_assert_eq(strncmp(last, "{\"summary\":{", 12), 0);
}

Test(commands, clone_and_map)
{
	expect(0, "1048576 cloned 8192 freed 8192\n", run("clone 4096 8192 1M"));
	expect(0, "1048576 8192 data 8192 2\n1056768 4096 data 1060864 1\n", run("map 1M 12K"));
	expect(0, "0 4096 hole\n4096 4096 data 8192 2\n", run("map 0 8K"));
	expect(2, "4096 error EINVAL the destination overlaps the source\n",
	       run("clone 0 8192 4096"));
	cr_assert_eq(run("clone --json 4096 8192 3M"), 0);
	json_decref(output_json());
}

Test(commands, a_long_clone_goes_on_where_the_server_clamps)
{
	char want[128];

	snprintf(want, sizeof(want), "%llu cloned %llu freed %llu\n", 256 * MIB, 200 * MIB,
		 200 * MIB - 200 * MIB / FAKE_PERIOD);
	expect(0, want, run("clone 0 200M 256M"));
}

Test(commands, map_joins_what_the_server_cuts)
{
	size_t i;
	json_t *root, *run_, *runs;
	json_int_t off = 0;

	cr_assert_eq(run("map --json"), 0);
	root = output_json();
	runs = json_object_get(root, "runs");
	cr_assert_eq(json_array_size(runs), 2 * FAKE_BYTES / PERIOD);
	json_array_foreach(runs, i, run_)
	{
		bool hole = i % 2 == 0;

		cr_assert_eq(json_integer_value(json_object_get(run_, "offset")), off);
		cr_assert_str_eq(json_string_value(json_object_get(run_, "kind")),
				 hole ? "hole" : "data");
		cr_assert_eq(json_object_get(run_, "physical") == NULL, hole);
		off += json_integer_value(json_object_get(run_, "length"));
	}
	cr_assert_eq(off, FAKE_BYTES);
	json_decref(root);
	expect(0, "{\"runs\":[]}\n", run("map --json 0 0"));
	cr_assert_eq(run("map 5 4096"), 2);
	cr_assert_eq(run("map 0"), 2);
	cr_assert_eq(run("map 0 513M"), 2);
}

Test(commands, status_exits_with_1_when_read_only)
{
	json_t *root, *root_memory;

	cr_assert_eq(run("status"), 0);
	cr_assert_not_null(strstr(output, "state          ok\n"), "%s", output);
	fake_set_state(session.volume, VOLUME_LOW_ON_SPACE);
	cr_assert_eq(run("status --json"), 0);
	root = output_json();
	cr_assert_str_eq(json_string_value(json_object_get(root, "state")), "low on space");
	root_memory = json_object_get(root, "memory");
	cr_assert_gt(json_integer_value(json_object_get(root_memory, "own_bytes")), 0);
	cr_assert_gt(json_integer_value(json_object_get(root_memory, "mapped_bytes")), 0);
	json_decref(root);
	fake_set_state(session.volume, VOLUME_LATCHED);
	cr_assert_eq(run("status"), 1);
	cr_assert_not_null(strstr(output, "read-only: a flush failed\n"), "%s", output);
}

Test(commands, stats_come_as_text_json_and_prometheus)
{
	json_t *root;

	cr_assert_eq(run("same 0 4096 %llu", PERIOD), 0);
	cr_assert_eq(run("stats"), 0);
	cr_assert_not_null(strstr(output, "same_requests        1\n"), "%s", output);
	cr_assert_eq(run("stats --json"), 0);
	root = output_json();
	cr_assert_eq(json_integer_value(json_object_get(root, "same_requests")), 1);
	json_decref(root);
	cr_assert_eq(run("stats --prometheus"), 0);
	cr_assert_not_null(strstr(output, "# TYPE sameblk_same_requests_total counter\n"
					  "sameblk_same_requests_total{store=\""));
	cr_assert_not_null(strstr(output, "sameblk_state{state=\"ok\",store=\""));
	cr_assert_eq(run("stats --prometheus --json"), 2);
	cr_assert_eq(run("stats --watch --interval 0"), 2);
}

Test(commands, stats_watch_ends_with_a_summary)
{
	unsigned lines = 0;

	/* timeout(1) reports the command's own end by --preserve-status. */
	sameblk = "timeout --preserve-status -s INT 2.5 \"$SAMEBLK\"";
	cr_assert_eq(run("stats --watch --interval 1 --json-lines"), 0);
	for (const char *c = output; *c != '\0'; c++)
		lines += *c == '\n';
	cr_assert_geq(lines, 3);
	cr_assert_not_null(strstr(output, "\n{\"summary\":{\"samples\":"));
}

/* The fake's trims are under way when they are looked at first. */
Test(commands, trim_waits_until_its_round_is_over)
{
	cr_assert_eq(run("trim"), 0);
	cr_assert_str_eq(output, "1048576 bytes given back\n");
	expect(0, "{\"discarded_bytes\":1048576,\"failed_bytes\":0}\n", run("trim --json"));
	fake_set_failed(session.volume, 4096);
	cr_assert_eq(run("trim"), 1);
	cr_assert_not_null(strstr(output, "did not take up to 4096 bytes"), "%s", output);
}

Test(commands, trim_of_a_read_only_volume_is_refused)
{
	fake_set_state(session.volume, VOLUME_READ_ONLY);
	cr_assert_eq(run("trim"), 2);
	cr_assert_not_null(strstr(output, "read-only"), "%s", output);
	/* It became so meanwhile. */
	fake_set_state(session.volume, VOLUME_LATCHED);
	cr_assert_eq(run("trim"), 2);
	cr_assert_not_null(strstr(output, "a flush failed"), "%s", output);
}

Test(commands, stop_asks_once)
{
	cr_assert_eq(run("stop --wait 0"), 0);
	session_wait(atomic_load(&session.stops) == 1);
	cr_assert_eq(run("stop --wait 1"), 2, "the process (this one) does not end");
}

Test(commands, the_only_server_is_found_and_several_are_listed)
{
	struct ctl_server_options options = {.group = (gid_t)-1, .store_path = "/x/second.img"};
	struct ctl_server *second = NULL;
	const char *message;

	/* All of the above went by the record; by name it works too. */
	cr_assert_eq(run("status -c %s", session.path), 0);
	options.volume = session.volume;
	options.worker = fake_worker(session.volume);
	cr_assert_eq(ctl_server_start(&options, &second, &message), 0, "%s", message);
	cr_assert_eq(run("status"), 2);
	cr_assert_not_null(strstr(output, "second.ctl\n"), "%s", output);
	cr_assert_not_null(strstr(output, "disk.ctl\n"));
	cr_assert_eq(run("status -c %s", ctl_server_path(second)), 0);
	ctl_server_stop(second);
	cr_assert_eq(run("status"), 0);
	setenv("SAMEBLK_CONTROL_DIR", "/nonexistent", 1);
	cr_assert_eq(run("status"), 2);
	cr_assert_not_null(strstr(output, "sameblkd"), "it names the command: %s", output);
	cr_assert_eq(run("status -c %s/none", session.folder), 2);
}

/* One that was stopped (SIGSTOP): connections are taken by the kernel, and never answered. */
Test(commands, a_server_that_hangs_keeps_nobody_from_listing_the_others)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s/sameblk/hung.ctl", session.folder);
	cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	cr_assert_eq(listen(fd, 8), 0);
	sameblk = "timeout 30 \"$SAMEBLK\"";
	cr_assert_eq(run("list"), 0, "%s", output);
	cr_assert_not_null(strstr(output, "hung.ctl): the server does not answer"), "%s", output);
	cr_assert_not_null(strstr(output, "/var/lib/images/disk.img"), "%s", output);
	close(fd);
}

Test(commands, every_command_has_help_and_version)
{
	static const char *const commands[] = {"create", "same",   "clone", "discard", "dedupe",
					       "map",	 "status", "stats", "trim",    "stop",
					       "check",	 "dump",   ""};

	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		cr_assert_eq(run("%s --help", commands[i]), 0, "%s", commands[i]);
		cr_assert_not_null(strcasestr(output, "usage: sameblk"), "%s", output);
		cr_assert_eq(run("%s --version", commands[i]), 0, "%s", commands[i]);
		cr_assert_eq(strncmp(output, "sameblk ", 8), 0, "%s", output);
	}
	cr_assert_eq(run("nothing"), 2);
	cr_assert_eq(run("%s", ""), 2);
}

Test(commands, an_output_that_cannot_be_written_is_a_failure)
{
	if (access("/dev/full", W_OK) != 0)
		cr_skip_test("no /dev/full");
	cr_assert_eq(run("status > /dev/full"), 2);
	cr_assert_eq(run("map --json > /dev/full"), 2);
}

/* A pipe whose reader went away, as `head` does. It is handed down as standard input. */
Test(commands, a_reader_that_went_away_is_not_told_of_it)
{
	static const char *const commands[] = {"map",	"map --json",	"stats",
					       "list",	"dump super",	"dump journal",
					       "check", "dedupe --help"};
	int ends[2];

	cr_assert_eq(run("create --size 64M %s/store", session.folder), 0, "%s", output);
	cr_assert_eq(pipe(ends), 0);
	cr_assert_eq(dup2(ends[1], STDIN_FILENO), STDIN_FILENO);
	close(ends[0]);
	close(ends[1]);
	sameblk = "{ \"$SAMEBLK\"";
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		bool offline = strstr(commands[i], "dump") || strstr(commands[i], "check");

		expect(2, "",
		       offline ? run("%s %s/store >&0; }", commands[i], session.folder)
			       : run("%s >&0; }", commands[i]));
	}
}

/* `sameblk COMMAND: what: why`, and nothing is said twice. */
Test(commands, errors_have_one_form)
{
	static const struct {
		const char *words;
		const char *want;
	} table[] = {
		{"creat", "sameblk: cannot run creat: there is no such command (sameblk --help)\n"},
		{"same 0 4096",
		 "sameblk same: cannot run: SRC, LEN and at least one DST are needed\n"},
		{"map --off 1",
		 "sameblk map: --off: there is no such option (sameblk map --help)\n"},
		{"map 1x 4096",
		 "sameblk map: OFF 1x: no size (bytes, 0x..., or with K, M, G or T)\n"},
		{"map 1 4096", "sameblk map: cannot map (server ./sock/c): offset and length must "
			       "be multiples of "
			       "4096 inside the volume's 536870912 bytes (EINVAL)\n"},
		{"dedupe --memory 99X",
		 "sameblk dedupe: --memory 99X: no size (bytes, 0x..., or with K, "
		 "M, G or T)\n"},
		{"dedupe --memory 1K", "sameblk dedupe: --memory: it must be 16777216 or more\n"},
		{"stop --wait 1T", "sameblk stop: --wait: at most 86400 seconds\n"},
		{"create --store-size 0 new",
		 "sameblk create: cannot create new: --store-size 0 holds nothing\n"},
		{"check /dev/null",
		 "sameblk check: cannot read /dev/null: neither a file nor a block device\n"},
		{"dump map none", "sameblk dump: cannot read none: No such file or directory\n"},
		{"status -c ./none",
		 "sameblk status: cannot connect to the server at ./none: No such file "
		 "or directory (no server is running there)\n"},
	};

	cr_assert_eq(chdir(session.folder), 0);
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		bool served = strncmp(table[i].words, "map 1 ", 6) == 0;

		expect(2, table[i].want, run("%s%s", table[i].words, served ? " -c ./sock/c" : ""));
	}
}
