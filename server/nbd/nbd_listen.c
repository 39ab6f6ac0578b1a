/* SPDX-License-Identifier: GPL-2.0-or-later */
/* nbd_listen - see the header */
#include "server/nbd/nbd_listen.h"

#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
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
/* The first question after a minute of silence, the end after six without an answer. */
#define KEEP_IDLE_S  60
#define KEEP_PAUSE_S 10
#define KEEP_COUNT   6
/* As long for one that takes nothing: keep-alive asks only where nothing is on its way. */
#define UNTAKEN_MS 120000

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

static void pause_probing(void)
{
	const struct timespec pause = {.tv_nsec = PROBE_PAUSE_MS * 1000000L};

	nanosleep(&pause, NULL);
}

/* A killed server lets go of its store a moment before it lets go of its socket. */
static int probe(const struct sockaddr_un *address)
{
	int r = probe_once(address);

	for (unsigned ms = 0; r == -EADDRINUSE && ms < PROBE_MS; ms += PROBE_PAUSE_MS) {
		pause_probing();
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

/* --- TCP --- */

bool nbd_listen_is_local(int fd)
{
	int domain = AF_UNSPEC;
	socklen_t len = sizeof(domain);

	return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 && domain == AF_UNIX;
}

static void set(int fd, int level, int option, int value)
{
	/* A socket without it works, only not as well. */
	(void)setsockopt(fd, level, option, &value, sizeof(value));
}

void nbd_listen_tune(int fd)
{
	if (nbd_listen_is_local(fd))
		return;
	set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	set(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEP_IDLE_S);
	set(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEP_PAUSE_S);
	set(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEP_COUNT);
	set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, UNTAKEN_MS);
}

/* A listening socket, or a negative errno. */
static int listen_at(const struct sockaddr *address, socklen_t len)
{
	int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int error;

	if (fd < 0)
		return -errno;
	/* Connections of the server before this one may still be closing. */
	set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	/* Each family has a socket of its own. */
	if (address->sa_family == AF_INET6)
		set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	nbd_listen_tune(fd);
	if (bind(fd, address, len) == 0 && listen(fd, BACKLOG) == 0)
		return fd;
	error = errno;
	close(fd);
	return -error;
}

static int listen_patiently(const struct sockaddr *address, socklen_t len)
{
	int fd = listen_at(address, len);

	for (unsigned ms = 0; fd == -EADDRINUSE && ms < PROBE_MS; ms += PROBE_PAUSE_MS) {
		pause_probing();
		fd = listen_at(address, len);
	}
	return fd;
}

static in_port_t *port_of(struct sockaddr_storage *address)
{
	assert(address->ss_family == AF_INET || address->ss_family == AF_INET6);
	return address->ss_family == AF_INET ? &((struct sockaddr_in *)address)->sin_port
					     : &((struct sockaddr_in6 *)address)->sin6_port;
}

/* The port that the first socket got, in the network's order; 0: there is none yet. */
static in_port_t first_port(const struct nbd_listen_tcp *listen_tcp)
{
	struct sockaddr_storage address;
	socklen_t len = sizeof(address);

	if (listen_tcp->count == 0 ||
	    getsockname(listen_tcp->fds[0], (struct sockaddr *)&address, &len) < 0)
		return 0;
	return *port_of(&address);
}

/* The last error, of addresses that this machine does not have as well; 0: a socket listens. */
static int listen_at_all(const struct addrinfo *info, struct nbd_listen_tcp *ret_listen)
{
	int error = -EADDRNOTAVAIL;

	for (; info != NULL && ret_listen->count < NBD_LISTEN_TCP_MAX; info = info->ai_next) {
		struct sockaddr_storage address;
		int fd;

		memcpy(&address, info->ai_addr, info->ai_addrlen);
		if (ret_listen->count > 0)
			*port_of(&address) = first_port(ret_listen);
		fd = listen_patiently((struct sockaddr *)&address, info->ai_addrlen);
		if (fd >= 0)
			ret_listen->fds[ret_listen->count++] = fd;
		else
			error = fd;
		/* Only a part would be a surprise, unless a family is off here. */
		if (fd < 0 && fd != -EAFNOSUPPORT && fd != -EADDRNOTAVAIL)
			return fd;
	}
	return ret_listen->count > 0 ? 0 : error;
}

int nbd_listen_tcp(const char *address, uint16_t port, struct nbd_listen_tcp *ret_listen,
		   const char **reterr_message)
{
	const struct addrinfo hints = {
		.ai_flags = AI_PASSIVE | AI_NUMERICSERV,
		.ai_family = AF_UNSPEC,
		.ai_socktype = SOCK_STREAM,
	};
	struct nbd_listen_tcp result = {.count = 0};
	const char *shown = address != NULL ? address : "any address";
	struct addrinfo *info;
	char service[8];
	int r;

	snprintf(service, sizeof(service), "%u", (unsigned)port);
	r = getaddrinfo(address, service, &hints, &info);
	if (r != 0)
		return fail(reterr_message, -EINVAL, "there is no address %s: %s", shown,
			    r == EAI_SYSTEM ? strerror(errno) : gai_strerror(r));
	r = listen_at_all(info, &result);
	freeaddrinfo(info);
	if (r < 0) {
		for (unsigned i = 0; i < result.count; i++)
			close(result.fds[i]);
		return fail(reterr_message, r, "cannot listen on %s, port %u: %s", shown,
			    (unsigned)port, strerror(-r));
	}
	*ret_listen = result;
	return 0;
}
