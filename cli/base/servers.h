/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * servers - the servers that run, and the one that a command is for
 *
 * A user's servers are those that left a name in the user's folder or the system's. Root sees those
 * in other users' folders too: they are listed, but believed nothing, since anybody can say there
 * that a store is his, and not asked where they are not listed.
 *
 * Errors    servers_open() complains on stderr itself. servers_load() leaves out whom it could not
 *           ask, and says so.
 * Blocking  on each server for two seconds; one that has not answered by then is left out, and of
 *           another user all are once that was two.
 */
#ifndef CLI_BASE_SERVERS_H
#define CLI_BASE_SERVERS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "cli/base/client.h"
#include "cli/base/parse.h"

struct server {
	char *control; /* its socket */
	json_t *status;
	bool foreign; /* found in another user's folder */
};

/* What the user said of the server that is meant; at most one of the two. */
struct server_choice {
	const char *control; /* -c */
	const char *store; /* -S */
};

#define PARSE_SERVER(choice)                                                                       \
	{"control", 'c', PARSE_TEXT, &(choice)->control, "PATH", "the server's control socket"},   \
	{                                                                                          \
		"store", 'S', PARSE_TEXT, &(choice)->store, "STORE", "the store of the server"     \
	}

/* To be freed by servers_done(). foreign: other users' as well, if we are root. */
void servers_load(bool foreign, struct server **ret_servers, size_t *ret_count);
void servers_done(struct server *servers, size_t count);

/* The server of a store, not a foreign one; NULL: none. */
const struct server *servers_find(const struct server *servers, size_t count, const char *store);
/* Whether both names are of one store. NULL is none. */
bool servers_same_store(const char *a, const char *b);

/* Connects to the chosen one; without a choice to the only one there is. 0 or -1. */
int servers_open(const struct server_choice *choice, struct client *ret_client);

#endif
