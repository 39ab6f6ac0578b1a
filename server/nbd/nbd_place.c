/* SPDX-License-Identifier: GPL-2.0-or-later */
/* nbd_place - see the header */
#include "server/nbd/nbd_place.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "server/nbd/nbd_listen.h"

#define THREADS_MAX 64u /* of a client; more are not looked at */
#define STAT_BYTES  1024u

/* Of /proc/PID/task/TID/stat; the name in it may hold anything, parentheses included. */
static int read_thread(int pid, const char *tid, uint64_t *ret_ticks, int *ret_cpu)
{
	char path[64], text[STAT_BYTES];
	const char *rest;
	uint64_t user, system;
	size_t len;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/task/%.16s/stat", pid, tid);
	file = fopen(path, "re");
	if (file == NULL)
		return -errno;
	len = fread(text, 1, sizeof(text) - 1, file);
	fclose(file);
	text[len] = '\0';
	rest = strrchr(text, ')');
	/* Behind the name: 11 fields, the two times, 23 fields, the processor. */
	if (rest == NULL ||
	    sscanf(rest + 1,
		   " %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %" SCNu64 " %" SCNu64
		   " %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s"
		   " %*s %*s %*s %*s %*s %d",
		   &user, &system, ret_cpu) != 3)
		return -EPROTO;
	*ret_ticks = user + system;
	return 0;
}

static int find_process(int pid)
{
	char path[32];
	unsigned seen = 0;
	uint64_t most_ticks = 0;
	int found = -ENOENT;
	const struct dirent *entry;
	DIR *folder;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	folder = opendir(path);
	if (folder == NULL)
		return -errno;
	while (seen < THREADS_MAX && (entry = readdir(folder)) != NULL) {
		uint64_t ticks = 0;
		int cpu = -1;

		if (entry->d_name[0] == '.' || read_thread(pid, entry->d_name, &ticks, &cpu) < 0)
			continue;
		seen++;
		if (found < 0 || ticks > most_ticks) {
			most_ticks = ticks;
			found = cpu;
		}
	}
	closedir(folder);
	return found;
}

static int find_peer(int fd)
{
	struct ucred peer = {0};
	socklen_t len = sizeof(peer);
	int cpu = -1;

	if (nbd_listen_is_local(fd)) {
		if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
			return -errno;
		/* 0: of another PID namespace. */
		return peer.pid > 0 ? find_process(peer.pid) : -ENOENT;
	}
	len = sizeof(cpu);
	if (getsockopt(fd, SOL_SOCKET, SO_INCOMING_CPU, &cpu, &len) < 0)
		return -errno;
	return cpu >= 0 ? cpu : -ENOENT;
}

int nbd_place_find(int fd)
{
	cpu_set_t allowed;
	int cpu = find_peer(fd);

	if (cpu < 0)
		return cpu;
	if (cpu >= CPU_SETSIZE || sched_getaffinity(0, sizeof(allowed), &allowed) < 0 ||
	    !CPU_ISSET((unsigned)cpu, &allowed) || CPU_COUNT(&allowed) == 1)
		return -EPERM;
	return cpu;
}

int nbd_place_bind(struct nbd_place *place, int cpu)
{
	assert(!place->is_bound && cpu >= 0 && cpu < CPU_SETSIZE);
	CPU_ZERO(&place->bound);
	CPU_SET((unsigned)cpu, &place->bound);
	if (sched_getaffinity(0, sizeof(place->before), &place->before) < 0 ||
	    sched_setaffinity(0, sizeof(place->bound), &place->bound) < 0)
		return -errno;
	place->is_bound = true;
	return 0;
}

void nbd_place_unbind(struct nbd_place *place)
{
	cpu_set_t now;

	assert(place->is_bound);
	place->is_bound = false;
	/* Somebody else has said meanwhile where this thread is to run. */
	if (sched_getaffinity(0, sizeof(now), &now) < 0 || !CPU_EQUAL(&now, &place->bound))
		return;
	/* It fails if none of these processors is there any more; then it may stay. */
	(void)sched_setaffinity(0, sizeof(place->before), &place->before);
}
