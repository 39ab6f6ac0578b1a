/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ctl_listen - see the header
 *
 * Two servers that start at the same moment on the same path take turns by a lock on the
 * directory, so that neither takes the other's socket, bound and not yet listening, for a
 * stale one.
 */
#include "server/ctl_listen.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "server/ctl_limits.h"
#include "server/ctl_path.h"

#define GROUPS_MAX 65536u

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

static int bind_private(int fd, const struct sockaddr_un *address, gid_t group)
{
	mode_t old = umask(0177);
	int r = bind(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 ? -errno : 0;

	umask(old);
	if (r < 0 || group == (gid_t)-1)
		return r;
	if (chown(address->sun_path, (uid_t)-1, group) < 0 || chmod(address->sun_path, 0660) < 0)
		return -errno;
	return 0;
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
	r = bind_private(fd, &address, group);
	if (r == 0 && listen(fd, (int)CTL_CONNECTIONS_MAX) < 0)
		r = -errno;
	if (r == 0 && stat(path, &st) < 0)
		r = -errno;
	if (r < 0) {
		close(fd);
		return r;
	}
	*ret_listen = (struct ctl_listen){.fd = fd, .dev = st.st_dev, .ino = st.st_ino};
	return 0;
}

static int lock_dir_of(const char *path)
{
	char dir[CTL_PATH_BYTES];
	const char *slash = strrchr(path, '/');
	int fd;

	if (slash == NULL)
		strcpy(dir, ".");
	else if (slash == path)
		strcpy(dir, "/");
	else
		*(char *)mempcpy(dir, path, (size_t)(slash - path)) = '\0';
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX) < 0) {
		int error = errno;

		close(fd);
		return -error;
	}
	return fd;
}

int ctl_listen_open(const char *path, gid_t group, struct ctl_listen *ret_listen)
{
	struct sockaddr_un address;
	int dir_fd, r;

	if (path[0] == '\0' || strlen(path) >= sizeof(address.sun_path))
		return path[0] == '\0' ? -EINVAL : -ENAMETOOLONG;
	dir_fd = lock_dir_of(path);
	if (dir_fd < 0)
		return dir_fd;
	r = listen_locked(path, group, ret_listen);
	close(dir_fd);
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
