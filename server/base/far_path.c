/* SPDX-License-Identifier: GPL-2.0-or-later */
/* far_path - see the header */
#include "server/base/far_path.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/base/clock.h"

struct answer {
	int error;
	struct far_path path;
};

/* --- in the process that may hang --- */

/* Only what is safe after the fork of a process with threads. */
static int look(const char *path, struct far_path *ret_path)
{
	char link[32] = "/proc/self/fd/";
	size_t len = strlen(link);
	struct stat st;
	ssize_t real;
	int fd = open(path, O_PATH | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	/* All others are closed, so it has one digit. */
	link[len] = (char)('0' + fd);
	real = readlink(link, ret_path->real, sizeof(ret_path->real) - 1);
	if (real < 0)
		return -errno;
	ret_path->real[real] = '\0';
	ret_path->mode = st.st_mode;
	ret_path->dev = st.st_dev;
	ret_path->ino = st.st_ino;
	ret_path->rdev = st.st_rdev;
	return 0;
}

static _Noreturn void ask(const char *path, int out_fd)
{
	static struct answer answer;

	if (dup2(out_fd, STDOUT_FILENO) < 0 || close_range(STDERR_FILENO, ~0u, 0) < 0)
		_exit(1);
	close(STDIN_FILENO);
	answer.error = look(path, &answer.path);
	_exit(write(STDOUT_FILENO, &answer, sizeof(answer)) != sizeof(answer));
}

/* --- in ours --- */

static int read_answer(int fd, unsigned limit_ms, struct answer *ret_answer)
{
	uint64_t start = clock_ms(), passed;
	size_t have = 0;

	while (have < sizeof(*ret_answer)) {
		struct pollfd event = {.fd = fd, .events = POLLIN};
		ssize_t len;
		int r;

		passed = clock_ms() - start;
		if (passed >= limit_ms)
			return -ETIMEDOUT;
		r = poll(&event, 1, (int)(limit_ms - passed));
		if (r == 0)
			return -ETIMEDOUT;
		if (r < 0 && errno == EINTR)
			continue;
		len = r < 0 ? -1 : read(fd, (char *)ret_answer + have, sizeof(*ret_answer) - have);
		if (len < 0)
			return -errno;
		if (len == 0)
			return -EIO;
		have += (size_t)len;
	}
	return 0;
}

int far_path_ask(const char *path, unsigned limit_ms, struct far_path *ret_path)
{
	struct answer answer;
	int fds[2], r;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	pid = fork();
	if (pid == 0)
		ask(path, fds[1]);
	r = pid < 0 ? -errno : 0;
	close(fds[1]);
	if (r == 0)
		r = read_answer(fds[0], limit_ms, &answer);
	close(fds[0]);
	if (pid > 0) {
		kill(pid, SIGKILL);
		/* Whoever hangs cannot be waited for. */
		waitpid(pid, NULL, r == -ETIMEDOUT ? WNOHANG : 0);
	}
	if (r < 0)
		return r;
	*ret_path = answer.path;
	return answer.error;
}
