/* SPDX-License-Identifier: GPL-2.0-or-later */
/* systemd - see the header */
#include "server/systemd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifdef SAMEBLK_SYSTEMD
#include <systemd/sd-daemon.h>
#endif

#define FIRST_FD 3

static int is_listening(int fd)
{
	int value = 0;
	socklen_t len = sizeof(value);

	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &len) < 0 || value == 0)
		return 0;
	len = sizeof(value);
	return getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &len) == 0 && value == SOCK_STREAM;
}

static unsigned long number_from(const char *variable)
{
	const char *text = getenv(variable);
	char *end;
	unsigned long value;

	if (text == NULL || *text == '\0')
		return 0;
	value = strtoul(text, &end, 10);
	return *end == '\0' ? value : 0;
}

static int add_socket(struct systemd_sockets *sockets, int fd, const char *name, size_t name_bytes)
{
	static const char control[] = "control";

	if (!is_listening(fd) || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return -EINVAL;
	if (name_bytes == sizeof(control) - 1 && memcmp(name, control, name_bytes) == 0) {
		if (sockets->control != 0)
			return -EINVAL;
		sockets->control = fd;
		return 0;
	}
	if (sockets->nbd_count == SYSTEMD_NBD_MAX)
		return -EINVAL;
	sockets->nbd[sockets->nbd_count++] = fd;
	return 0;
}

int systemd_sockets(struct systemd_sockets *ret_sockets)
{
	const char *names = getenv("LISTEN_FDNAMES");
	unsigned long count = number_from("LISTEN_FDS");

	memset(ret_sockets, 0, sizeof(*ret_sockets));
	if (number_from("LISTEN_PID") != (unsigned long)getpid())
		count = 0;
	for (unsigned long i = 0; i < count; i++) {
		size_t name_bytes = names != NULL ? strcspn(names, ":") : 0;
		int r = add_socket(ret_sockets, FIRST_FD + (int)i, names, name_bytes);

		if (r < 0)
			return r;
		if (names != NULL)
			names += name_bytes + (names[name_bytes] == ':');
	}
	/* Not for our children. */
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	return 0;
}

void systemd_notify(const char *state)
{
#ifdef SAMEBLK_SYSTEMD
	/* Nobody is there, or nobody listens: neither is our problem. */
	(void)sd_notify(0, state);
#else
	(void)state;
#endif
}
