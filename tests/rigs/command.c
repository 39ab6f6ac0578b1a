/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/rigs/command.h"

#include <inttypes.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

int command_run(const struct command *command, const char *name, uint64_t src_bytes,
		uint64_t len_bytes, uint64_t dst_bytes)
{
	char src[24], len[24], dst[24];
	char *const args[] = {(char *)command->sameblk,
			      (char *)name,
			      (char *)"-c",
			      (char *)command->control,
			      src,
			      len,
			      dst,
			      NULL};
	posix_spawn_file_actions_t quiet;
	int status = -1;
	pid_t pid;
	int r;

	snprintf(src, sizeof(src), "%" PRIu64, src_bytes);
	snprintf(len, sizeof(len), "%" PRIu64, len_bytes);
	snprintf(dst, sizeof(dst), "%" PRIu64, dst_bytes);
	posix_spawn_file_actions_init(&quiet);
	posix_spawn_file_actions_addopen(&quiet, STDOUT_FILENO, "/dev/null", 1, 0);
	posix_spawn_file_actions_addopen(&quiet, STDERR_FILENO, "/dev/null", 1, 0);
	r = posix_spawn(&pid, command->sameblk, &quiet, NULL, args, environ);
	posix_spawn_file_actions_destroy(&quiet);
	if (r != 0 || waitpid(pid, &status, 0) != pid)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

FILE *command_batch(const struct command *command)
{
	char line[4096];

	snprintf(line, sizeof(line), "exec '%s' same -c '%s' --batch - >/dev/null 2>&1",
		 command->sameblk, command->control);
	return popen(line, "we");
}
