/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * client_nbd - an NBD connection handed out over a server's control socket
 *
 * Errors    complains on stderr itself. Blocking: yes.
 */
#ifndef CLI_BASE_CLIENT_NBD_H
#define CLI_BASE_CLIENT_NBD_H

/* path: of the control socket. The connected descriptor, or -1. */
int client_nbd_connect(const char *path);

#endif
