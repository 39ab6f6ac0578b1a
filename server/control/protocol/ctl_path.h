/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ctl_path - where control sockets are, for the server that makes one and the client that
 * looks for one
 *
 * The directories: $XDG_RUNTIME_DIR/sameblk if that variable holds an absolute path, else
 * /run/sameblk. A server makes its socket there as NAME.ctl; NAME is the store's file name
 * without its directory and last suffix; where a server of another store has that socket, a part
 * of the volume's UUID is added. A server whose socket is elsewhere leaves a record
 * there: NAME.ctl is then a symbolic link to it, so a client treats both alike. Clients look
 * into both directories. SAMEBLK_CONTROL_DIR, if set, is the only directory instead.
 *
 * Errors    0 or a negative errno.
 * Memory    paths are written to buffers of CTL_PATH_BYTES; only a list allocates.
 */
#ifndef SERVER_CONTROL_PROTOCOL_CTL_PATH_H
#define SERVER_CONTROL_PROTOCOL_CTL_PATH_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define CTL_PATH_BYTES	  4096u
#define CTL_PATH_NAME_MAX 64u
#define CTL_PATH_LIST_MAX 256u
#define CTL_PATH_SUFFIX	  ".ctl"

/* The NAME of a store. */
void ctl_path_name(const char *store_path, char ret_name[CTL_PATH_NAME_MAX + 1]);

/* The directory a server of this environment uses. */
int ctl_path_dir(char ret_dir[CTL_PATH_BYTES]);
/* uuid NULL: NAME.ctl. Else NAME-UUID8.ctl, with the first 8 of its digits: for a store whose NAME
 * another one has, in another directory. */
int ctl_path_default(const char *store_path, const uint8_t *uuid, char ret_path[CTL_PATH_BYTES]);

/* Makes the directory with mode 0700 if it is missing (not its parents); a group may pass through
 * (0710). One that is there is used as it is. EPERM: it belongs to someone else, or others may
 * replace what is in it. EACCES: the group may not pass. */
int ctl_path_dir_make(const char *dir, gid_t group);

/* Leaves a record of the socket at target, and takes away records of servers that have gone.
 * ret_record: to remove it by; empty if the socket is in the default directory anyway. */
int ctl_path_record(const char *store_path, const char *target, char ret_record[CTL_PATH_BYTES]);

/* Takes away records of servers that have gone. */
void ctl_path_drop_dead(const char *dir);

/* 0: a server listens there. ECONNREFUSED or ENOENT: none does. */
int ctl_path_probe(const char *path);

struct ctl_path_list {
	char **paths; /* each a socket or a record of one, perhaps a dead one */
	size_t count;
};

int ctl_path_list(struct ctl_path_list *ret_list);
/* The same for other files there. */
int ctl_path_list_ending(const char *suffix, struct ctl_path_list *ret_list);
/* The same for what is in folders of all users, which only root can look into; nothing where
 * SAMEBLK_CONTROL_DIR names the only directory. */
#define CTL_PATH_USERS_DIR "/run/user"
int ctl_path_list_users(const char *users_dir, struct ctl_path_list *ret_list);
void ctl_path_list_done(struct ctl_path_list *list);

#endif
