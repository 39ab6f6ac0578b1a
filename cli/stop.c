/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * stop - the command `sameblk stop`: asks the server to end, waits until its process has, and tells
 * what its end was
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cli/base/client.h"
#include "cli/base/commands.h"
#include "cli/base/parse.h"
#include "cli/base/say.h"
#include "cli/base/servers.h"

#define WAIT_SECONDS_DEFAULT 60u
#define WAIT_SECONDS_MAX     86400u
#define GOODBYE_SECONDS	     2u

static int wait_for(pid_t pid, uint64_t seconds)
{
	struct pollfd poller = {.events = POLLIN};
	char name[32];
	int ready;

	poller.fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (poller.fd < 0 && errno == ESRCH)
		return EXIT_GOOD;
	snprintf(name, sizeof(name), "(process %d)", (int)pid);
	if (poller.fd < 0) {
		say_error("cannot wait for the server", name, "%s", strerror(errno));
		return EXIT_FAILED;
	}
	ready = poll(&poller, 1, (int)seconds * 1000);
	close(poller.fd);
	if (ready > 0)
		return EXIT_GOOD;
	say_error("the server has not ended", name, "%s",
		  ready < 0 ? strerror(errno) : "it was asked to and is still at it");
	return EXIT_FAILED;
}

/* What the server says last, unless it is killed or gives up before. 0 also where the time is up:
 * then the process is looked at. */
static int hear_end(struct client *client, const char *name, uint64_t seconds)
{
	json_t *notice = NULL;
	int r = client_notice(client, (unsigned)seconds * 1000, &notice);
	bool clean = json_is_true(json_object_get(json_object_get(notice, "params"), "clean"));

	json_decref(notice);
	if (r == -ETIMEDOUT || clean)
		return EXIT_GOOD;
	say_error("the server has not stopped cleanly", name, "%s",
		  r < 0 ? "it ended without a word; recovery will do the rest"
			: "its log says why; recovery will do the rest");
	return EXIT_FAILED;
}

static int run_stop(const struct server_choice *choice, uint64_t seconds)
{
	int end = EXIT_GOOD, waited;
	struct client client;
	json_t *result;
	bool follows;
	char name[32];
	pid_t pid;

	if (servers_open(choice, &client) < 0)
		return EXIT_FAILED;
	result = client_call(&client, "cannot stop the server", "stop", NULL);
	pid = (pid_t)client_number(result, "pid");
	follows = json_is_true(json_object_get(result, "end_follows"));
	snprintf(name, sizeof(name), "(process %d)", (int)pid);
	if (result != NULL && seconds > 0 && follows)
		end = hear_end(&client, name, seconds);
	client_close(&client);
	if (result == NULL)
		return EXIT_FAILED;
	json_decref(result);
	if (seconds == 0 || pid <= 0)
		return end;
	/* It has a moment more: what it said was the last thing but its exit. */
	waited = wait_for(pid, follows ? GOODBYE_SECONDS : seconds);
	return end != EXIT_GOOD ? end : waited;
}

int stop_main(int argc, char **argv)
{
	struct server_choice choice = {NULL, NULL};
	struct parse_size_value wait = {WAIT_SECONDS_DEFAULT, false};
	const struct parse_option options[] = {
		PARSE_SERVER(&choice),
		{"wait", 0, PARSE_SIZE, &wait, "SECONDS",
		 "how long to wait for its end (default 60; 0: not at all)"},
		{NULL, 0, PARSE_FLAG, NULL, NULL, NULL},
	};
	const struct parse_command command = {
		"stop", "", "Stop the server cleanly, as SIGTERM does.", options, 0, 0,
	};
	int count;

	switch (parse_command(&command, argc, argv, &count)) {
	case PARSE_GO:
		break;
	case PARSE_DONE:
		return say_finish(EXIT_GOOD);
	case PARSE_BAD:
		return EXIT_FAILED;
	}
	if (wait.bytes > WAIT_SECONDS_MAX) {
		say_error("--wait", "", "at most %u seconds", WAIT_SECONDS_MAX);
		return EXIT_FAILED;
	}
	return say_finish(run_stop(&choice, wait.bytes));
}
