/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd_uri - where clients find a listening socket, as they are told
 *
 * Memory    uri has room for NBD_URI_BYTES; what is longer is cut off.
 */
#ifndef SERVER_NBD_NBD_URI_H
#define SERVER_NBD_NBD_URI_H

#include <stdbool.h>

#define NBD_URI_BYTES 4096u

struct nbd_uri_options {
	const char *export_name; /* NULL: none */
	const char *host; /* of sockets for TCP, as the user calls it; NULL: its number */
	bool tls;
};

void nbd_uri_of_path(char *uri, const char *path, const struct nbd_uri_options *options);
/* False: the socket has no address that could be told. */
bool nbd_uri_of_socket(char *uri, int fd, const struct nbd_uri_options *options);

#endif
