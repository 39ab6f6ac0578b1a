/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_ctl_server - the control socket with clients that behave well, badly, or go away
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/control/protocol/ctl_limits.h"
#include "server/control/protocol/ctl_path.h"
#include "tests/server/control/session.h"

#define STATUS "{\"jsonrpc\":\"2.0\",\"id\":77,\"method\":\"status\"}\n"
#define SAME_CALL(id)                                                                              \
	"{\"jsonrpc\":\"2.0\",\"id\":" #id ",\"method\":\"same\",\"params\":"                      \
	"{\"src\":0,\"length\":4096,\"dsts\":[2097152]}}\n"

static struct session session;
static const struct ctl_times short_times = {300, 300, 600, 300};

/* The server still answers a client that behaves. */
static void expect_alive(void)
{
	int fd = session_connect(&session);

	cr_assert_str_eq(session_fault(session_ask(fd, STATUS)), "");
	close(fd);
}

static json_int_t id_of(const json_t *answer)
{
	return json_integer_value(json_object_get(answer, "id"));
}

Test(ctl_server, status_and_stats_say_what_is_documented)
{
	static const char *const keys[] = {
		"size_bytes",	  "store_bytes",     "mapped_bytes",  "used_bytes",
		"shared_bytes",	  "saved_bytes",     "free_bytes",    "pending_bytes",
		"unbacked_bytes", "metadata_bytes",  "reads",	      "writes",
		"flushes",	  "discards",	     "journal_edits", "journal_commits",
		"metadata_reads", "metadata_writes", "cow_blocks",    "same_requests",
		"same_bytes",	  "differs",	     "fence_waits",
	};
	json_t *answer, *result;
	int fd;

	session_begin(&session, NULL);
	fd = session_connect(&session);
	answer = session_ask(fd, STATUS);
	cr_assert_eq(id_of(answer), 77);
	result = json_object_get(answer, "result");
	cr_assert_str_eq(json_string_value(json_object_get(result, "state")), "ok");
	cr_assert_eq(json_integer_value(json_object_get(result, "clients")), 3);
	cr_assert_str_eq(json_string_value(json_object_get(result, "uuid")),
			 "5a5a5a5a-5a5a-5a5a-5a5a-5a5a5a5a5a5a");
	json_decref(answer);
	answer = session_ask(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"stats\"}\n");
	result = json_object_get(answer, "result");
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		cr_assert(json_is_integer(json_object_get(result, keys[i])), "%s", keys[i]);
	json_decref(answer);
	close(fd);
	session_end(&session);
}

Test(ctl_server, states_are_told_with_their_reason)
{
	json_t *answer, *result;
	int fd;

	session_begin(&session, NULL);
	fd = session_connect(&session);
	fake_set_state(session.volume, VOLUME_LATCHED);
	answer = session_ask(fd, STATUS);
	result = json_object_get(answer, "result");
	cr_assert_str_eq(json_string_value(json_object_get(result, "state")), "read-only");
	cr_assert_str_eq(json_string_value(json_object_get(result, "reason")), "a flush failed");
	cr_assert_str_eq(json_string_value(json_object_get(result, "error")), "EIO");
	json_decref(answer);
	close(fd);
	session_end(&session);
}

Test(ctl_server, garbage_is_answered_and_the_connection_goes_on)
{
	json_t *answer;
	int fd;

	session_begin(&session, NULL);
	fd = session_connect(&session);
	answer = session_ask(fd, "GET / HTTP/1.1\r\n");
	cr_assert(json_is_null(json_object_get(answer, "id")));
	cr_assert_str_eq(session_fault(answer), "EBADMSG");
	cr_assert_str_eq(session_fault(session_ask(fd, "\xff\xfe\x01\n")), "EBADMSG");
	cr_assert_str_eq(session_fault(session_ask(fd, "[]\n")), "EINVAL");
	session_send(fd, "\n \r\n\t\n");
	cr_assert_str_eq(session_fault(session_ask(fd, STATUS)), "", "blank lines are nothing");
	close(fd);
	session_end(&session);
}

Test(ctl_server, half_a_line_is_told_when_it_ends)
{
	int fd, bad = 0, good = 0;

	session_begin(&session, NULL);
	fd = session_connect(&session);
	session_send(fd, STATUS "{\"jsonrpc\":");
	cr_assert_eq(shutdown(fd, SHUT_WR), 0);
	/* Answers may overtake one another. */
	for (int i = 0; i < 2; i++) {
		const char *fault = session_fault(session_answer(fd));

		bad += strcmp(fault, "EBADMSG") == 0;
		good += fault[0] == '\0';
	}
	cr_assert_eq(bad, 1);
	cr_assert_eq(good, 1, "the whole line is answered too");
	cr_assert_null(session_answer(fd));
	close(fd);
	expect_alive();
	session_end(&session);
}

Test(ctl_server, half_a_line_that_stays_half_is_ended)
{
	int fd;

	session_begin(&session, &short_times);
	fd = session_connect(&session);
	session_send(fd, "{\"jsonrpc\":");
	cr_assert_str_eq(session_fault(session_answer(fd)), "EBADMSG");
	cr_assert_null(session_answer(fd));
	close(fd);
	expect_alive();
	session_end(&session);
}

Test(ctl_server, a_connection_that_asks_nothing_is_ended)
{
	int fd;

	session_begin(&session, &short_times);
	fd = session_connect(&session);
	cr_assert_null(session_answer(fd));
	close(fd);
	session_end(&session);
}

/* Goal: 100 MB without a newline cost no memory, are told as soon as that is sure, and harm
 * nobody. */
Test(ctl_server, a_line_of_100_megabytes_is_thrown_away)
{
	char *part = malloc((1 << 20) + 1);
	int fd;

	memset(part, 'x', 1 << 20);
	part[1 << 20] = '\0';
	session_begin(&session, NULL);
	fd = session_connect(&session);
	for (int i = 0; i < 100; i++)
		session_send(fd, part);
	cr_assert_str_eq(session_fault(session_answer(fd)), "EMSGSIZE");
	cr_assert_str_eq(session_fault(session_ask(fd, "\n" STATUS)), "");
	close(fd);
	expect_alive();
	session_end(&session);
	free(part);
}

Test(ctl_server, calls_are_pipelined_and_answered_by_id)
{
	static const char call[] = "{\"jsonrpc\":\"2.0\",\"id\":%d,\"method\":\"same\",\"params\":"
				   "{\"src\":0,\"length\":4096,\"dsts\":[%d]}}\n";
	bool seen[500] = {false};
	char *text = malloc(500 * 150), *at = text;
	int fd;

	for (int i = 0; i < 500; i++)
		at += sprintf(at, call, i, (i + 1) * (int)(FAKE_PERIOD * 4096 / 4));
	session_begin(&session, NULL);
	fake_hold(session.volume, false, true);
	fd = session_connect(&session);
	session_send(fd, text);
	for (int i = 0; i < 500; i++) {
		json_t *answer = session_answer(fd);
		json_int_t id = id_of(answer);

		cr_assert(id >= 0 && id < 500 && !seen[id]);
		seen[id] = true;
		cr_assert_str_eq(session_fault(answer), "");
	}
	cr_assert_leq(fake_running_most(session.volume), CTL_JOBS_MAX);
	close(fd);
	session_end(&session);
	free(text);
}

Test(ctl_server, answers_may_overtake_one_another)
{
	json_t *answer;
	int fd;

	session_begin(&session, NULL);
	fake_hold(session.volume, true, true);
	fd = session_connect(&session);
	session_send(fd, SAME_CALL(1) SAME_CALL(2));
	session_wait(fake_running(session.volume) == 2);
	answer = session_ask(fd, STATUS);
	cr_assert_eq(id_of(answer), 77, "a look does not wait for jobs");
	json_decref(answer);
	fake_hold(session.volume, false, true);
	answer = session_answer(fd);
	cr_assert_eq(id_of(answer), 2);
	json_decref(answer);
	answer = session_answer(fd);
	cr_assert_eq(id_of(answer), 1);
	json_decref(answer);
	close(fd);
	session_end(&session);
}

Test(ctl_server, jobs_beyond_the_limit_wait_and_then_run)
{
	int fd;

	session_begin(&session, NULL);
	fake_hold(session.volume, true, false);
	fd = session_connect(&session);
	for (unsigned i = 0; i < CTL_CALLS_MAX + 20; i++)
		session_send(fd, SAME_CALL(5));
	session_wait(fake_running(session.volume) == CTL_JOBS_MAX);
	expect_alive();
	fake_hold(session.volume, false, false);
	for (unsigned i = 0; i < CTL_CALLS_MAX + 20; i++)
		cr_assert_str_eq(session_fault(session_answer(fd)), "");
	cr_assert_eq(fake_running_most(session.volume), CTL_JOBS_MAX);
	close(fd);
	session_end(&session);
}

/* Row 21 of the same-range rules: the client is gone. */
Test(ctl_server, a_client_that_goes_away_takes_its_jobs_along)
{
	int fd, other;

	session_begin(&session, NULL);
	fake_hold(session.volume, true, false);
	fd = session_connect(&session);
	for (unsigned i = 0; i < 2 * CTL_JOBS_MAX; i++)
		session_send(fd, SAME_CALL(5));
	session_wait(fake_running(session.volume) == CTL_JOBS_MAX);
	other = session_connect(&session);
	session_send(other, SAME_CALL(9));
	close(fd);
	session_wait(fake_cancelled(session.volume) == CTL_JOBS_MAX);
	session_wait(fake_running(session.volume) == 1);
	fake_hold(session.volume, false, false);
	cr_assert_str_eq(session_fault(session_answer(other)), "", "another client's job goes on");
	cr_assert_eq(fake_cancelled(session.volume), CTL_JOBS_MAX, "those that waited never ran");
	close(other);
	session_end(&session);
}

Test(ctl_server, a_client_that_only_stops_sending_gets_its_answers)
{
	int fd;

	session_begin(&session, NULL);
	fake_hold(session.volume, true, false);
	fd = session_connect(&session);
	session_send(fd, SAME_CALL(1) SAME_CALL(2));
	cr_assert_eq(shutdown(fd, SHUT_WR), 0);
	session_wait(fake_running(session.volume) == 2);
	fake_hold(session.volume, false, false);
	cr_assert_str_eq(session_fault(session_answer(fd)), "");
	cr_assert_str_eq(session_fault(session_answer(fd)), "");
	cr_assert_null(session_answer(fd));
	close(fd);
	session_end(&session);
}

Test(ctl_server, a_client_that_reads_no_answers_is_dropped)
{
	char block[64 * sizeof(STATUS)] = "";
	int fd;

	for (int i = 0; i < 60; i++)
		strcat(block, STATUS);
	session_begin(&session, &short_times);
	fd = session_connect(&session);
	for (int i = 0; i < 10000; i++)
		if (send(fd, block, strlen(block), MSG_NOSIGNAL) < 0)
			break;
	cr_assert(errno == EPIPE || errno == ECONNRESET, "%s", strerror(errno));
	close(fd);
	expect_alive();
	session_end(&session);
}

static bool can_ask(void)
{
	int fd = session_connect(&session);
	bool good;

	send(fd, STATUS, strlen(STATUS), MSG_NOSIGNAL);
	good = strcmp(session_fault(session_answer(fd)), "") == 0;
	close(fd);
	return good;
}

Test(ctl_server, connections_are_bounded)
{
	int fds[CTL_CONNECTIONS_MAX], extra;

	session_begin(&session, NULL);
	for (unsigned i = 0; i < CTL_CONNECTIONS_MAX; i++)
		fds[i] = session_connect(&session);
	extra = session_connect(&session);
	cr_assert_str_eq(session_fault(session_answer(extra)), "EBUSY");
	cr_assert_null(session_answer(extra));
	close(extra);
	for (unsigned i = 0; i < CTL_CONNECTIONS_MAX; i++) {
		cr_assert_str_eq(session_fault(session_ask(fds[i], STATUS)), "");
		close(fds[i]);
	}
	/* There is room again, as soon as the server has seen them go. */
	session_wait(can_ask());
	session_end(&session);
}

Test(ctl_server, a_notification_is_done_and_not_answered)
{
	json_t *answer;
	int fd;

	session_begin(&session, NULL);
	fd = session_connect(&session);
	session_send(fd, "{\"jsonrpc\":\"2.0\",\"method\":\"stop\"}\n"
			 "{\"jsonrpc\":\"2.0\",\"method\":\"nothing\"}\n");
	answer = session_ask(fd, STATUS);
	cr_assert_eq(id_of(answer), 77);
	json_decref(answer);
	session_wait(atomic_load(&session.stops) == 1);
	close(fd);
	session_end(&session);
}

Test(ctl_server, stop_is_answered_with_the_process)
{
	json_t *answer;
	int fd;

	session_begin(&session, NULL);
	fd = session_connect(&session);
	answer = session_ask(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"stop\"}\n");
	cr_assert_eq(json_integer_value(json_object_get(json_object_get(answer, "result"), "pid")),
		     getpid());
	json_decref(answer);
	session_wait(atomic_load(&session.stops) == 1);
	close(fd);
	session_end(&session);
}

#define DETACH(params) "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"detach\"" params "}\n"

Test(ctl_server, detach_is_answered_with_the_device_or_who_has_it_open)
{
	json_t *answer, *result;
	int fd;

	session.has_device = true;
	session.detach_result = -EBUSY;
	session_begin(&session, NULL);
	fd = session_connect(&session);
	answer = session_ask(fd, DETACH(""));
	cr_assert_str_eq(
		json_string_value(json_object_get(json_object_get(answer, "error"), "message")),
		"it is mounted on /mnt");
	cr_assert_str_eq(session_fault(answer), "EBUSY");
	cr_assert(!session.detach_force);
	session.detach_result = 0;
	answer = session_ask(fd, DETACH(",\"params\":{\"force\":true}"));
	result = json_object_get(answer, "result");
	cr_assert_str_eq(json_string_value(json_object_get(result, "device")), "/dev/ublkb3");
	cr_assert_eq(json_integer_value(json_object_get(result, "pid")), getpid());
	cr_assert(session.detach_force);
	json_decref(answer);
	close(fd);
	session_end(&session);
}

Test(ctl_server, a_server_without_a_device_has_nothing_to_detach)
{
	int fd;

	session_begin(&session, NULL);
	fd = session_connect(&session);
	cr_assert_str_eq(session_fault(session_ask(fd, DETACH(""))), "ENODEV");
	cr_assert_str_eq(session_fault(session_ask(fd, DETACH(",\"params\":{\"force\":1}"))),
			 "EINVAL");
	expect_alive();
	close(fd);
	session_end(&session);
}

/* Row 21 of the same-range rules: shutdown. */
Test(ctl_server, what_runs_when_the_server_stops_is_cancelled_and_answered)
{
	json_t *answer;
	int fd;

	session_begin(&session, NULL);
	fake_hold(session.volume, true, false);
	fd = session_connect(&session);
	for (unsigned i = 0; i <= CTL_JOBS_MAX; i++)
		session_send(fd, SAME_CALL(5));
	session_wait(fake_running(session.volume) == CTL_JOBS_MAX);
	ctl_server_stop(session.server);
	session.server = NULL;
	cr_assert_str_eq(session_fault(session_answer(fd)), "ECANCELED", "it had not begun");
	for (unsigned i = 0; i < CTL_JOBS_MAX; i++) {
		json_t *results;

		answer = session_answer(fd);
		results = json_object_get(json_object_get(answer, "result"), "results");
		cr_assert_str_eq(
			json_string_value(json_object_get(json_array_get(results, 0), "error")),
			"ECANCELED");
		json_decref(answer);
	}
	cr_assert_null(session_answer(fd));
	close(fd);
	session_end(&session);
}

#define NBD_CALL "{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"nbd\"}\n"

/* Goal: the descriptor comes with its own answer, whatever else is under way, and is connected. */
Test(ctl_server, an_nbd_connection_comes_with_its_answer)
{
	int fd, passed, other;
	json_t *answer;
	char byte = 0;

	session_begin(&session, NULL);
	fd = session_connect(&session);
	session_send(fd, NBD_CALL STATUS);
	answer = session_answer_fd(fd, &passed);
	cr_assert_eq(id_of(answer), 5);
	cr_assert_str_eq(session_fault(answer), "");
	cr_assert_geq(passed, 0);
	answer = session_answer_fd(fd, &other);
	cr_assert_eq(id_of(answer), 77);
	json_decref(answer);
	cr_assert_eq(other, -1);
	close(fd);
	cr_assert_eq(write(atomic_load(&session.nbd_fd), "x", 1), 1);
	cr_assert_eq(read(passed, &byte, 1), 1);
	cr_assert_eq(byte, 'x', "it outlives the control connection");
	close(passed);
	close(atomic_load(&session.nbd_fd));
	session_end(&session);
}

Test(ctl_server, an_nbd_connection_that_cannot_be_had_is_an_error)
{
	int fd;

	session_begin(&session, NULL);
	fd = session_connect(&session);
	atomic_store(&session.nbd_error, -EBUSY);
	cr_assert_str_eq(session_fault(session_ask(fd, NBD_CALL)), "EBUSY");
	atomic_store(&session.nbd_error, -EMFILE);
	cr_assert_str_eq(session_fault(session_ask(fd, NBD_CALL)), "EMFILE");
	/* A notification opens nothing. */
	atomic_store(&session.nbd_error, 0);
	session_send(fd, "{\"jsonrpc\":\"2.0\",\"method\":\"nbd\"}\n");
	cr_assert_str_eq(session_fault(session_ask(fd, STATUS)), "");
	cr_assert_eq(atomic_load(&session.nbd_fd), -1);
	close(fd);
	session_end(&session);
}

Test(ctl_server, a_second_server_on_the_path_is_refused)
{
	struct ctl_server_options options = {.group = (gid_t)-1, .store_path = "other"};
	struct ctl_server *second = NULL;
	const char *message = NULL;

	session_begin(&session, NULL);
	options.volume = session.volume;
	options.worker = fake_worker(session.volume);
	options.path = session.path;
	cr_assert_eq(ctl_server_start(&options, &second, &message), -EADDRINUSE);
	cr_assert_null(second);
	cr_assert_not_null(strstr(message, session.path));
	expect_alive();
	session_end(&session);
}

Test(ctl_server, socket_and_folder_are_private_and_a_record_is_left)
{
	char folder[128], record[128];
	struct stat st;

	session_begin(&session, NULL);
	cr_assert_str_eq(ctl_server_path(session.server), session.path);
	cr_assert_eq(stat(session.path, &st), 0);
	cr_assert_eq(st.st_mode & 07777, 0600);
	snprintf(folder, sizeof(folder), "%s/sock", session.folder);
	cr_assert_eq(stat(folder, &st), 0);
	cr_assert_eq(st.st_mode & 07777, 0700);
	snprintf(record, sizeof(record), "%s/sameblk/disk.ctl", session.folder);
	cr_assert_eq(ctl_path_probe(record), 0);
	session_end(&session);
	cr_assert_neq(access(record, F_OK), 0, "it goes away with the server");
}

/* In a process of its own, as a user who may connect (the socket was opened up) but not control. */
static int run_stranger(void)
{
	int fd = session_connect(&session);

	if (strcmp(session_fault(session_ask(fd, STATUS)), "") != 0)
		return 1;
	if (strcmp(session_fault(session_ask(fd, SAME_CALL(1))), "EPERM") != 0)
		return 2;
	if (strcmp(session_fault(
			   session_ask(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"map\"}\n")),
		   "EPERM") != 0)
		return 3;
	if (strcmp(session_fault(
			   session_ask(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"stop\"}\n")),
		   "EPERM") != 0)
		return 4;
	if (strcmp(session_fault(session_ask(fd, NBD_CALL)), "EPERM") != 0)
		return 5;
	if (strcmp(session_fault(
			   session_ask(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"trim\"}\n")),
		   "EPERM") != 0)
		return 6;
	return 0;
}

Test(ctl_server, a_stranger_may_look_and_nothing_else)
{
	char command[256];
	int status;
	pid_t pid;

	if (geteuid() != 0)
		cr_skip_test("needs root, to become somebody else");
	session_begin(&session, NULL);
	snprintf(command, sizeof(command), "chmod 755 %s %s/sock; chmod 666 %s", session.folder,
		 session.folder, session.path);
	cr_assert_eq(system(command), 0);
	pid = fork();
	if (pid == 0)
		_exit(setgid(65534) < 0 || setuid(65534) < 0 ? 9 : run_stranger());
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status));
	cr_assert_eq(WEXITSTATUS(status), 0);
	cr_assert_eq(atomic_load(&session.stops), 0);
	session_end(&session);
}

Test(ctl_server, map_goes_on_where_it_ended)
{
	json_int_t off = 0;
	size_t runs = 0;
	int fd;

	session_begin(&session, NULL);
	fd = session_connect(&session);
	for (int i = 0; i < 1000; i++)
		fake_write(session.volume, (uint64_t)(3 * i + 1) * 2 * 4096, 1);
	while (off < (json_int_t)FAKE_BYTES) {
		char call[128];
		json_t *answer, *result;

		snprintf(call, sizeof(call),
			 "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"map\",\"params\":"
			 "{\"offset\":%lld}}\n",
			 (long long)off);
		answer = session_ask(fd, call);
		result = json_object_get(answer, "result");
		cr_assert_eq(json_integer_value(json_object_get(result, "offset")), off);
		cr_assert_leq(json_array_size(json_object_get(result, "runs")), CTL_MAP_RUNS_MAX);
		runs += json_array_size(json_object_get(result, "runs"));
		cr_assert_gt(json_integer_value(json_object_get(result, "mapped_to")), off);
		off = json_integer_value(json_object_get(result, "mapped_to"));
		json_decref(answer);
	}
	cr_assert_eq(off, FAKE_BYTES);
	cr_assert_gt(runs, 0);
	cr_assert_str_eq(session_fault(session_ask(
				 fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"map\",\"params\":"
				     "{\"offset\":5}}\n")),
			 "EINVAL");
	close(fd);
	session_end(&session);
}
