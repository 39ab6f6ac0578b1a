/* SPDX-License-Identifier: GPL-2.0-or-later */
/* background - see the header */
#include "cli/device/background.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/base/say.h"
#include "server/base/clock.h"
#include "server/base/process.h"
#include "server/control/protocol/ctl_path.h"

#define PROGRAM	   "sameblkd"
#define LINE_BYTES 4096u
#define LOG_TAIL   4096

static bool is_program(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

static void find_program(char ret_path[PATH_MAX])
{
	static const char *const folders[] = {"", "../sbin/", "../server/"};
	const char *named = getenv("SAMEBLKD");
	char own[PATH_MAX];
	ssize_t len = readlink("/proc/self/exe", own, sizeof(own) - 1);
	char *slash;

	own[len > 0 ? len : 0] = '\0';
	slash = strrchr(own, '/');
	if (slash != NULL)
		slash[1] = '\0';
	if (named != NULL && named[0] != '\0') {
		snprintf(ret_path, PATH_MAX, "%s", named);
		return;
	}
	for (size_t i = 0; slash != NULL && i < sizeof(folders) / sizeof(folders[0]); i++) {
		int bytes = snprintf(ret_path, PATH_MAX, "%s%s" PROGRAM, own, folders[i]);

		if (bytes < PATH_MAX && is_program(ret_path))
			return;
	}
	strcpy(ret_path, PROGRAM);
}

/* --- the log --- */

static int default_log(const char *store, char ret_path[CTL_PATH_BYTES])
{
	char name[CTL_PATH_NAME_MAX + 1], dir[CTL_PATH_BYTES];
	int len, r = ctl_path_dir(dir);

	if (r == 0)
		r = ctl_path_dir_make(dir, (gid_t)-1);
	if (r < 0)
		return r;
	ctl_path_name(store, name);
	len = snprintf(ret_path, CTL_PATH_BYTES, "%s/%s.log", dir, name);
	return len < 0 || (size_t)len >= CTL_PATH_BYTES ? -ENAMETOOLONG : 0;
}

/* Others may be allowed to add to the folder, and have put something in its place. */
static int open_own_log(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC,
		      0600);
	struct stat st;

	if (fd < 0 || (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() &&
		       st.st_nlink == 1))
		return fd;
	close(fd);
	errno = EPERM;
	return -1;
}

static int open_log(const struct background *what, char ret_path[CTL_PATH_BYTES])
{
	int fd, r = 0;

	if (what->log_path != NULL)
		snprintf(ret_path, CTL_PATH_BYTES, "%s", what->log_path);
	else
		r = default_log(what->store, ret_path);
	if (r < 0) {
		say_error("cannot make a log of the server of", what->store, "%s", strerror(-r));
		return -1;
	}
	fd = what->log_path != NULL
		     ? open(ret_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)
		     : open_own_log(ret_path);
	if (fd < 0)
		say_error("cannot open the log", ret_path, "%s", strerror(errno));
	return fd;
}

/* What was written since, or the end of it. */
static void print_log(const char *path, off_t since)
{
	char text[LOG_TAIL];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	off_t end = fd >= 0 ? lseek(fd, 0, SEEK_END) : -1;
	ssize_t len;

	if (end - since > LOG_TAIL)
		since = end - LOG_TAIL;
	len = end > since ? pread(fd, text, (size_t)(end - since), since) : 0;
	if (len > 0)
		fwrite(text, 1, (size_t)len, stderr);
	if (fd >= 0)
		close(fd);
}

/* --- the server --- */

static void become_server(const struct background *what, int log_fd, int ready_fd)
{
	char program[PATH_MAX];
	int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	find_program(program);
	setsid();
	process_undo_signals();
	if (null_fd < 0 || process_hand_down(null_fd, ready_fd, log_fd) < 0)
		_exit(EXIT_FAILED);
	if (what->directory != NULL && chdir(what->directory) < 0) {
		dprintf(STDERR_FILENO, "sameblk: cannot change to %s: %s\n", what->directory,
			strerror(errno));
		_exit(EXIT_FAILED);
	}
	execvp(program, (char *const *)(uintptr_t)what->arguments);
	dprintf(STDERR_FILENO, "sameblk: cannot run %s: %s\n", program, strerror(errno));
	_exit(EXIT_FAILED);
}

/* The first line, without its newline. 0; -EPIPE: it ended before; -ETIMEDOUT. */
static int read_line(int fd, unsigned seconds, char ret_line[LINE_BYTES])
{
	int64_t end_ms = (int64_t)clock_ms() + (int64_t)seconds * 1000;
	size_t len = 0;

	while (len < LINE_BYTES - 1) {
		struct pollfd event = {.fd = fd, .events = POLLIN};
		int64_t left_ms = end_ms - (int64_t)clock_ms();
		int ready = poll(&event, 1, left_ms > 0 ? (int)left_ms : 0);
		ssize_t got;

		if (ready < 0 && errno == EINTR)
			continue;
		if (ready <= 0)
			return -ETIMEDOUT;
		got = read(fd, ret_line + len, 1);
		if (got <= 0)
			return -EPIPE;
		if (ret_line[len] == '\n')
			break;
		len++;
	}
	ret_line[len] = '\0';
	return 0;
}

/* `ready WORD [WORD...]`: the word that is a block device. */
static int find_device(const char *line, char ret_device[BACKGROUND_DEVICE_BYTES])
{
	char words[LINE_BYTES], *rest = NULL;

	strcpy(words, line);
	for (char *word = strtok_r(words, " ", &rest); word != NULL;
	     word = strtok_r(NULL, " ", &rest)) {
		if (strncmp(word, "/dev/", 5) != 0 || strlen(word) >= BACKGROUND_DEVICE_BYTES)
			continue;
		strcpy(ret_device, word);
		return 0;
	}
	return -1;
}

static int wait_ready(const struct background *what, pid_t pid, int fd, const char *log_path,
		      off_t log_begin, char ret_device[BACKGROUND_DEVICE_BYTES])
{
	char line[LINE_BYTES];
	int status, r = read_line(fd, what->wait_seconds, line);

	if (r == 0 && find_device(line, ret_device) == 0)
		return 0;
	if (r != -EPIPE)
		kill(pid, SIGTERM);
	if (r == 0)
		say_error("cannot use the server of", what->store,
			  "it has no block device; it says %s", line);
	else if (r == -ETIMEDOUT)
		say_error("cannot start the server of", what->store,
			  "it is not ready within %u seconds; it was told to stop. Its log is %s",
			  what->wait_seconds, log_path);
	else if (waitpid(pid, &status, 0) == pid && WIFSIGNALED(status))
		say_error("cannot start the server of", what->store,
			  "ended by signal %d. Its log is %s", WTERMSIG(status), log_path);
	else
		say_error("cannot start the server of", what->store,
			  "its log is %s, and says:", log_path);
	print_log(log_path, log_begin);
	return -1;
}

int background_start(const struct background *what, char ret_device[BACKGROUND_DEVICE_BYTES])
{
	char log_path[CTL_PATH_BYTES];
	int ready[2], log_fd = open_log(what, log_path), r;
	off_t log_begin;
	pid_t pid;

	if (log_fd < 0)
		return -1;
	if (pipe2(ready, O_CLOEXEC) < 0) {
		say_error("cannot start the server of", what->store, "%s", strerror(errno));
		close(log_fd);
		return -1;
	}
	log_begin = lseek(log_fd, 0, SEEK_END);
	pid = fork();
	if (pid == 0)
		become_server(what, log_fd, ready[1]);
	close(log_fd);
	close(ready[1]);
	if (pid < 0) {
		say_error("cannot start the server of", what->store, "%s", strerror(errno));
		r = -1;
	} else {
		r = wait_ready(what, pid, ready[0], log_path, log_begin, ret_device);
	}
	close(ready[0]);
	return r;
}
