/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ublk_agent - see the header */
#include "server/ublk/ublk_agent.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "server/base/log.h"
#include "server/ublk/driver/ublk_control.h"
#include "server/ublk/driver/ublk_find.h"
#include "server/ublk/ublk_process.h"

#define NAME	 "sameblkd-agent"
#define SLICE_MS 50
#define END_MS	 1000u
#define OWN_FD	 3

enum what {
	GO_LIVE,
	STOP_UNUSED,
	STOP_USED,
	STOP,
	FORGET_MOUNTS,
};

struct question {
	enum what what;
	uint32_t op;
	uint32_t id;
	pid_t server;
	bool unprivileged;
	bool unanswered;
};

struct answer {
	int result;
	char text[UBLK_WHY_BYTES]; /* why not; or what went wrong all the same */
};

/* --- in the process that may wait --- */

static void fail_command(const struct ublk_control *control, int r, struct answer *answer)
{
	answer->result = r;
	if (r < 0)
		snprintf(answer->text, sizeof(answer->text), "%s", ublk_control_why(control));
}

/* Its next server has the device then, or will: it is not ours to stop any more. */
static bool is_alone(void)
{
	struct pollfd event = {.fd = OWN_FD};

	return poll(&event, 1, 0) > 0 && (event.revents & POLLHUP) != 0;
}

/* Claimed, so that nobody can mount it in between; where the driver itself refuses to stop a device
 * that is open, the claim must be given up for that. */
static void stop_unused(struct ublk_control *control, uint32_t id, struct answer *answer)
{
	bool can_try = (ublk_control_features(control) & UBLK_F_TRY_STOP) != 0;
	const struct ublk_claim_how how = {.write_back = true, .driver_counts = can_try};
	char path[UBLK_PATH_BYTES], who[UBLK_WHY_BYTES - UBLK_PATH_BYTES - 8];
	int fd, r = ublk_claim(id, &how, &fd, who, sizeof(who));

	ublk_block_path(id, path);
	if (is_alone())
		_exit(0);
	if (r == 0) {
		if (can_try)
			close(fd);
		r = ublk_control_plain(control, can_try ? UBLK_CTL_TRY_STOP : UBLK_CTL_STOP, id);
		if (!can_try)
			close(fd);
		if (r != -EBUSY) {
			fail_command(control, r, answer);
			return;
		}
		ublk_say_user(id, who, sizeof(who));
	}
	answer->result = r;
	snprintf(answer->text, sizeof(answer->text), "%s: %s", path, who);
}

/* Of what is cached, at least that is not lost. */
static void write_back(uint32_t id, struct answer *answer)
{
	char path[UBLK_PATH_BYTES];
	int fd;

	ublk_block_path(id, path);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0)
		snprintf(answer->text, sizeof(answer->text),
			 "%s: what is cached could not be written back: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
}

static void forget_mounts(uint32_t id)
{
	char path[UBLK_PATH_BYTES];

	ublk_block_path(id, path);
	ublk_process_forget_mounts(path);
}

static void act(struct ublk_control *control, const struct question *question,
		const _Atomic bool *give_up, struct answer *answer)
{
	uint32_t id = question->id;

	ublk_control_set_unprivileged(control, question->unprivileged);
	switch (question->what) {
	case GO_LIVE:
		fail_command(
			control,
			ublk_control_go_live(control, question->op, id, question->server, give_up),
			answer);
		break;
	case STOP_UNUSED:
		stop_unused(control, id, answer);
		break;
	case STOP_USED:
		write_back(id, answer);
		if (is_alone())
			_exit(0);
		fail_command(control, ublk_control_plain(control, UBLK_CTL_STOP, id), answer);
		break;
	case STOP:
		fail_command(control, ublk_control_plain(control, UBLK_CTL_STOP, id), answer);
		break;
	case FORGET_MOUNTS:
		forget_mounts(id);
		break;
	}
}

/* The server ends it, by closing the socket: whoever stops a service stops all its processes. */
static void ignore_signals(void)
{
	static const int numbers[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGPIPE};
	struct sigaction ignore = {.sa_handler = SIG_IGN};
	sigset_t none;

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		sigaction(numbers[i], &ignore, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Nothing of what the server was started with stays open here. */
static bool leave_descriptors(int fd)
{
	int null_fd = open("/dev/null", O_RDWR);

	/* Each may have the number of another. */
	fd = fcntl(fd, F_DUPFD, OWN_FD + 1);
	null_fd = fcntl(null_fd, F_DUPFD, OWN_FD + 1);
	for (int i = STDIN_FILENO; i <= STDERR_FILENO; i++)
		if (dup2(null_fd, i) < 0)
			return false;
	return dup2(fd, OWN_FD) == OWN_FD && close_range(OWN_FD + 1, ~0u, 0) == 0;
}

static _Noreturn void be_agent(int fd, const _Atomic bool *give_up)
{
	struct ublk_control *control = NULL;
	char why[UBLK_WHY_BYTES];
	struct question question;

	prctl(PR_SET_NAME, NAME);
	ignore_signals();
	if (!leave_descriptors(fd))
		_exit(1);
	while (recv(OWN_FD, &question, sizeof(question), 0) == sizeof(question)) {
		struct answer answer = {.result = 0};

		if (control == NULL)
			answer.result = ublk_control_open(&control, why);
		if (control != NULL)
			act(control, &question, give_up, &answer);
		else
			snprintf(answer.text, sizeof(answer.text), "%s", why);
		/* Or every claim, and its own open node, would count as one more user. */
		ublk_control_close(control);
		control = NULL;
		if (question.unanswered)
			continue;
		if (send(OWN_FD, &answer, sizeof(answer), MSG_NOSIGNAL) != sizeof(answer))
			break;
	}
	_exit(0);
}

/* --- in the server --- */

static int fail(struct ublk_agent *agent, int r)
{
	snprintf(agent->why, sizeof(agent->why),
		 r == -EPIPE ? "the process that waits for the device (" NAME ") is no more"
			     : "the process that waits for the device (" NAME "): %s",
		 strerror(-r));
	return r;
}

int ublk_agent_start(struct ublk_agent *agent)
{
	int fds[2], r;
	void *shared;

	assert(agent->pid == 0);
	shared = mmap(NULL, sizeof(*agent->give_up), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return fail(agent, -errno);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0) {
		r = -errno;
		munmap(shared, sizeof(*agent->give_up));
		return fail(agent, r);
	}
	agent->give_up = shared;
	agent->pid = fork();
	if (agent->pid == 0) {
		close(fds[0]);
		be_agent(fds[1], agent->give_up);
	}
	r = agent->pid < 0 ? -errno : 0;
	close(fds[1]);
	agent->fd = fds[0];
	if (r == 0)
		return 0;
	close(fds[0]);
	munmap(shared, sizeof(*agent->give_up));
	agent->pid = 0;
	return fail(agent, r);
}

void ublk_agent_end(struct ublk_agent *agent)
{
	const struct timespec pause = {.tv_nsec = 1000000L};

	if (agent->pid == 0)
		return;
	close(agent->fd);
	for (unsigned ms = 0; ms < END_MS && waitpid(agent->pid, NULL, WNOHANG) == 0; ms++)
		nanosleep(&pause, NULL);
	munmap((void *)(uintptr_t)agent->give_up, sizeof(*agent->give_up));
	agent->pid = 0;
}

const char *ublk_agent_why(const struct ublk_agent *agent)
{
	return agent->why;
}

/* give_up may be NULL. */
static int receive(struct ublk_agent *agent, const _Atomic bool *give_up, struct answer *answer)
{
	struct pollfd event = {.fd = agent->fd, .events = POLLIN};
	ssize_t len;
	int ready;

	for (;;) {
		ready = poll(&event, 1, give_up != NULL ? SLICE_MS : -1);
		if (give_up != NULL && atomic_load(give_up))
			atomic_store(agent->give_up, true);
		if (ready > 0)
			break;
		if (ready < 0 && errno != EINTR)
			return -errno;
	}
	len = recv(agent->fd, answer, sizeof(*answer), 0);
	return len == sizeof(*answer) ? 0 : len < 0 ? -errno : -EPIPE;
}

static int ask(struct ublk_agent *agent, struct question question, const _Atomic bool *give_up)
{
	struct answer answer;
	int r = 0;

	if (agent->pid == 0)
		return fail(agent, -EPIPE);
	question.server = getpid();
	question.unprivileged = agent->unprivileged;
	atomic_store(agent->give_up, false);
	if (send(agent->fd, &question, sizeof(question), MSG_NOSIGNAL) != sizeof(question))
		r = -errno;
	if (r == 0 && question.unanswered)
		return 0;
	if (r == 0)
		r = receive(agent, give_up, &answer);
	if (r < 0)
		return fail(agent, r == -ECONNRESET ? -EPIPE : r);
	if (answer.result == 0 && answer.text[0] != '\0')
		log_warn("%s", answer.text);
	snprintf(agent->why, sizeof(agent->why), "%s", answer.text);
	return answer.result;
}

int ublk_agent_go_live(struct ublk_agent *agent, uint32_t op, uint32_t id,
		       const _Atomic bool *give_up)
{
	const struct question question = {.what = GO_LIVE, .op = op, .id = id};

	return ask(agent, question, give_up);
}

int ublk_agent_stop_unused(struct ublk_agent *agent, uint32_t id)
{
	return ask(agent, (struct question){.what = STOP_UNUSED, .id = id}, NULL);
}

int ublk_agent_stop_used(struct ublk_agent *agent, uint32_t id)
{
	return ask(agent, (struct question){.what = STOP_USED, .id = id}, NULL);
}

int ublk_agent_stop(struct ublk_agent *agent, uint32_t id)
{
	return ask(agent, (struct question){.what = STOP, .id = id}, NULL);
}

void ublk_agent_forget_mounts(struct ublk_agent *agent, uint32_t id, bool wait)
{
	const struct question question = {
		.what = FORGET_MOUNTS,
		.id = id,
		.unanswered = !wait,
	};

	(void)ask(agent, question, NULL);
}
