/* SPDX-License-Identifier: GPL-2.0-or-later */
/* nbd_uri - see the header */
#include "server/nbd/nbd_uri.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

union address {
	struct sockaddr any;
	struct sockaddr_un local;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
	struct sockaddr_storage storage;
};

static void append(char *uri, const char *text)
{
	strncat(uri, text, NBD_URI_BYTES - strlen(uri) - 1);
}

/* Percent-encodes what has a meaning in a URI. */
static void append_encoded(char *uri, const char *text)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
				    "-._~/";
	size_t at = strlen(uri);

	for (; *text != '\0' && at + 4 < NBD_URI_BYTES; text++) {
		if (strchr(plain, *text) != NULL)
			at += (size_t)snprintf(uri + at, NBD_URI_BYTES - at, "%c", *text);
		else
			at += (size_t)snprintf(uri + at, NBD_URI_BYTES - at, "%%%02X",
					       (unsigned)(unsigned char)*text);
	}
}

static void append_export(char *uri, const struct nbd_uri_options *options)
{
	append(uri, "/");
	append_encoded(uri, options->export_name != NULL ? options->export_name : "");
}

void nbd_uri_of_path(char *uri, const char *path, const struct nbd_uri_options *options)
{
	strcpy(uri, options->tls ? "nbds+unix://" : "nbd+unix://");
	append_export(uri, options);
	append(uri, "?socket=");
	append_encoded(uri, path);
}

static bool is_wildcard(const union address *address)
{
	if (address->any.sa_family == AF_INET)
		return address->v4.sin_addr.s_addr == htonl(INADDR_ANY);
	return IN6_IS_ADDR_UNSPECIFIED(&address->v6.sin6_addr);
}

static void append_host(char *uri, const char *host)
{
	bool v6 = strchr(host, ':') != NULL;
	char part[NI_MAXHOST];

	append(uri, v6 ? "[" : "");
	/* The colons of an IPv6 address stay as they are. */
	for (size_t len = strcspn(host, ":");; len = strcspn(host, ":")) {
		snprintf(part, sizeof(part), "%.*s", (int)len, host);
		append_encoded(uri, part);
		if (host[len] == '\0')
			break;
		append(uri, ":");
		host += len + 1;
	}
	append(uri, v6 ? "]" : "");
}

static bool of_tcp(char *uri, const union address *address, socklen_t len,
		   const struct nbd_uri_options *options)
{
	char host[NI_MAXHOST], port[NI_MAXSERV];

	if (getnameinfo(&address->any, len, host, sizeof(host), port, sizeof(port),
			NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		return false;
	strcpy(uri, options->tls ? "nbds://" : "nbd://");
	if (is_wildcard(address))
		append(uri, "localhost");
	else
		append_host(uri, options->host != NULL ? options->host : host);
	append(uri, ":");
	append(uri, port);
	append_export(uri, options);
	return true;
}

bool nbd_uri_of_socket(char *uri, int fd, const struct nbd_uri_options *options)
{
	union address address = {.storage.ss_family = AF_UNSPEC};
	socklen_t len = sizeof(address) - 1;

	if (getsockname(fd, &address.any, &len) < 0)
		return false;
	if (address.any.sa_family == AF_INET || address.any.sa_family == AF_INET6)
		return of_tcp(uri, &address, len, options);
	if (address.any.sa_family != AF_UNIX || address.local.sun_path[0] != '/')
		return false;
	/* The last byte stays zero, so the path is terminated. */
	nbd_uri_of_path(uri, address.local.sun_path, options);
	return true;
}
