/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ctl_listen - see the header
 *
 * Two servers that start at the same moment on the same path take turns by a lock file, so that
 * neither takes the other's socket, bound and not yet listening, for a stale one. It is a file that
 * only its owner can open: whoever holds a lock on the directory, which others may open, is not
 * waited for.
 *
 * The directory may belong to somebody else, who can put anything in the socket's place. So the
 * socket is made with its group and its mode, and where that cannot be, it is changed through a
 * descriptor of what was found to be a socket of ours, never through its name.
 */
#include "server/control/ctl_listen.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/fsuid.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "server/control/protocol/ctl_limits.h"
#include "server/control/protocol/ctl_path.h"

#define GROUPS_MAX    65536u
#define LOCK_SUFFIX   ".lock"
#define LOCK_WAIT_MS  2000u
#define LOCK_PAUSE_MS 10u

static int remove_stale(const char *path)
{
	struct stat st;
	int r;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	r = ctl_path_probe(path);
	if (r == 0)
		return -EADDRINUSE;
	if (r != -ECONNREFUSED && r != -ENOENT)
		return r;
	return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

/* A socket of ours that nobody else has a name for, whatever its name leads to by now. */
static int open_own(const char *path)
{
	int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode) && st.st_uid == geteuid() &&
	    st.st_nlink == 1)
		return fd;
	close(fd);
	return -EPERM;
}

static int give_to_group(int fd, gid_t group)
{
	char name[32];
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_gid != group && fchownat(fd, "", (uid_t)-1, group, AT_EMPTY_PATH) < 0)
		return -errno;
	/* A descriptor without access takes no fchmod(). */
	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	return (st.st_mode & 07777) != 0660 && chmod(name, 0660) < 0 ? -errno : 0;
}

/* Made with the group where this process may do that; a directory whose group is inherited, or a
 * group that is not its first one, come after. */
static int bind_private(int fd, const struct sockaddr_un *address, gid_t group,
			struct stat *ret_stat)
{
	bool shared = group != (gid_t)-1;
	mode_t mask = umask(shared ? 0117 : 0177);
	/* Of this thread alone: setfsgid() does not tell other threads. */
	int old_group = shared ? setfsgid(group) : -1;
	int r = bind(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 ? -errno : 0;
	int own;

	if (shared)
		setfsgid((gid_t)old_group);
	umask(mask);
	if (r < 0)
		return r;
	own = open_own(address->sun_path);
	if (own < 0)
		return own;
	if (shared)
		r = give_to_group(own, group);
	if (r == 0 && fstat(own, ret_stat) < 0)
		r = -errno;
	close(own);
	return r;
}

static int listen_locked(const char *path, gid_t group, struct ctl_listen *ret_listen)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct stat st;
	int fd, r;

	r = remove_stale(path);
	if (r < 0)
		return r;
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	r = bind_private(fd, &address, group, &st);
	if (r == 0 && listen(fd, (int)CTL_CONNECTIONS_MAX) < 0)
		r = -errno;
	if (r < 0) {
		close(fd);
		return r;
	}
	*ret_listen = (struct ctl_listen){.fd = fd, .dev = st.st_dev, .ino = st.st_ino};
	return 0;
}

/* Whether the name still leads to the file that is locked: who had it before took it away. */
static bool is_current(int fd, const char *name)
{
	struct stat held, named;

	return fstat(fd, &held) == 0 && lstat(name, &named) == 0 && held.st_dev == named.st_dev &&
	       held.st_ino == named.st_ino;
}

/* The locked file, or a negative errno. */
static int lock_once(const char *name)
{
	int fd = open(name, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
	struct stat st;
	int r = -EAGAIN;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid())
		r = -EPERM;
	else if (flock(fd, LOCK_EX | LOCK_NB) == 0 && is_current(fd, name))
		return fd;
	close(fd);
	return r;
}

static int lock_patiently(const char *name)
{
	const struct timespec pause = {.tv_nsec = LOCK_PAUSE_MS * 1000000L};
	int fd = lock_once(name);

	for (unsigned ms = 0; fd == -EAGAIN && ms < LOCK_WAIT_MS; ms += LOCK_PAUSE_MS) {
		nanosleep(&pause, NULL);
		fd = lock_once(name);
	}
	return fd == -EAGAIN ? -EBUSY : fd;
}

int ctl_listen_open(const char *path, gid_t group, struct ctl_listen *ret_listen)
{
	struct sockaddr_un address;
	char lock[sizeof(address.sun_path) + sizeof(LOCK_SUFFIX)];
	int lock_fd, r;

	if (path[0] == '\0' || strlen(path) >= sizeof(address.sun_path))
		return path[0] == '\0' ? -EINVAL : -ENAMETOOLONG;
	snprintf(lock, sizeof(lock), "%s" LOCK_SUFFIX, path);
	lock_fd = lock_patiently(lock);
	if (lock_fd < 0)
		return lock_fd;
	r = listen_locked(path, group, ret_listen);
	unlink(lock);
	close(lock_fd);
	return r;
}

void ctl_listen_close(struct ctl_listen *listener, const char *path)
{
	struct stat st;

	if (lstat(path, &st) == 0 && st.st_dev == listener->dev && st.st_ino == listener->ino)
		unlink(path);
	close(listener->fd);
	listener->fd = -1;
}

int ctl_listen_accept(int listen_fd)
{
	int fd;

	do {
		fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	} while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
	return fd < 0 ? -errno : fd;
}

/* The groups that the peer had besides its first when it connected. */
static bool peer_has_group(int fd, gid_t group)
{
	gid_t *groups = NULL;
	socklen_t len = 0;
	bool found = false;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &len) == 0 || errno != ERANGE)
		return false;
	if (len > GROUPS_MAX * sizeof(gid_t))
		return false;
	groups = malloc(len);
	if (groups == NULL)
		return false;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) == 0)
		for (size_t i = 0; i < len / sizeof(gid_t); i++)
			found = found || groups[i] == group;
	free(groups);
	return found;
}

bool ctl_listen_peer_trusted(int fd, gid_t group)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
		return false;
	if (peer.uid == 0 || peer.uid == geteuid())
		return true;
	if (group == (gid_t)-1)
		return false;
	return peer.gid == group || peer_has_group(fd, group);
}
