/* SPDX-License-Identifier: GPL-2.0-or-later */
/* nbd_listen - see the header */
#include "server/nbd_listen.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define BACKLOG	       128
#define PROBE_MS       1000u
#define PROBE_PAUSE_MS 20u

static char message_text[512];

static int __attribute__((format(printf, 3, 4)))
fail(const char **reterr_message, int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(message_text, sizeof(message_text), format, args);
	va_end(args);
	*reterr_message = message_text;
	return error;
}

/* 0: nobody listens there. */
static int probe_once(const struct sockaddr_un *address)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int r = 0;

	if (fd < 0)
		return -errno;
	/* EAGAIN: its backlog is full, so somebody lives there. */
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 || errno == EAGAIN)
		r = -EADDRINUSE;
	else if (errno != ECONNREFUSED && errno != ENOENT)
		r = -errno;
	close(fd);
	return r;
}

/* A killed server lets go of its store a moment before it lets go of its socket. */
static int probe(const struct sockaddr_un *address)
{
	const struct timespec pause = {.tv_nsec = PROBE_PAUSE_MS * 1000000L};
	int r = probe_once(address);

	for (unsigned ms = 0; r == -EADDRINUSE && ms < PROBE_MS; ms += PROBE_PAUSE_MS) {
		nanosleep(&pause, NULL);
		r = probe_once(address);
	}
	return r;
}

static int clear_path(const struct sockaddr_un *address, const char **reterr_message)
{
	const char *path = address->sun_path;
	struct stat st;
	int r;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0
				       : fail(reterr_message, -errno, "cannot look at %s: %s", path,
					      strerror(errno));
	if (!S_ISSOCK(st.st_mode))
		return fail(reterr_message, -EEXIST, "%s is in the way: it is not a socket", path);
	r = probe(address);
	if (r == -EADDRINUSE)
		return fail(reterr_message, r, "another server listens on %s", path);
	if (r < 0)
		return fail(reterr_message, r, "cannot tell whether %s is in use: %s", path,
			    strerror(-r));
	if (unlink(path) < 0 && errno != ENOENT)
		return fail(reterr_message, -errno, "cannot replace the stale socket %s: %s", path,
			    strerror(errno));
	return 0;
}

static int bind_and_listen(int fd, const struct sockaddr_un *address, struct nbd_listen *ret_listen,
			   const char **reterr_message)
{
	mode_t mask = umask(0177);
	int r = bind(fd, (const struct sockaddr *)address, sizeof(*address));
	struct stat st;

	r = r < 0 ? -errno : 0;
	umask(mask);
	if (r < 0)
		return fail(reterr_message, r, "cannot make the socket %s: %s", address->sun_path,
			    strerror(-r));
	if (listen(fd, BACKLOG) < 0 || lstat(address->sun_path, &st) < 0)
		return fail(reterr_message, -errno, "cannot listen on %s: %s", address->sun_path,
			    strerror(errno));
	ret_listen->device = st.st_dev;
	ret_listen->inode = st.st_ino;
	return 0;
}

int nbd_listen_unix(const char *path, struct nbd_listen *ret_listen, const char **reterr_message)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct nbd_listen result = {.path = path};
	int r;

	if (strlen(path) >= sizeof(address.sun_path) || path[0] == '\0')
		return fail(reterr_message, -ENAMETOOLONG,
			    "%s: the path of a socket has 1 to %zu bytes", path,
			    sizeof(address.sun_path) - 1);
	memcpy(address.sun_path, path, strlen(path) + 1);
	r = clear_path(&address, reterr_message);
	if (r < 0)
		return r;
	result.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (result.fd < 0)
		return fail(reterr_message, -errno, "cannot make a socket: %s", strerror(errno));
	r = bind_and_listen(result.fd, &address, &result, reterr_message);
	if (r < 0) {
		close(result.fd);
		return r;
	}
	*ret_listen = result;
	return 0;
}

void nbd_listen_remove(const struct nbd_listen *listen_socket)
{
	struct stat st;

	if (lstat(listen_socket->path, &st) == 0 && st.st_dev == listen_socket->device &&
	    st.st_ino == listen_socket->inode)
		unlink(listen_socket->path);
}
