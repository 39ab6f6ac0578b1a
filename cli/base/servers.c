/* SPDX-License-Identifier: GPL-2.0-or-later */
/* servers - see the header */
#include "cli/base/servers.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/base/say.h"
#include "server/base/far_path.h"
#include "server/control/protocol/ctl_path.h"

/* A server that was stopped (SIGSTOP), or hangs, keeps nobody from the others. */
#define ANSWER_MS 2000u
/* Of another user: whoever wants to keep root waiting can have hundreds. */
#define SILENT_MAX 2u

/* --- loading --- */

static bool ask(struct server *server, const char *path)
{
	struct client client;

	if (client_open_within(path, ANSWER_MS, &client) < 0)
		return false;
	server->status = client_call(&client, "cannot ask a server", "status", NULL);
	client_close(&client);
	server->control = strdup(path);
	if (server->status != NULL && server->control != NULL)
		return true;
	json_decref(server->status);
	free(server->control);
	return false;
}

static bool is_known(const struct server *servers, size_t count, const char *path)
{
	for (size_t i = 0; i < count; i++)
		if (client_same_socket(servers[i].control, path))
			return true;
	return false;
}

static bool same_folder(const char *a, const char *b)
{
	size_t len = (size_t)(strrchr(a, '/') - a) + 1;

	return strncmp(a, b, len) == 0 && strchr(b + len, '/') == NULL;
}

/* The list is sorted, so those of a folder stand together. */
static void add_all(struct server **servers, size_t *count, struct ctl_path_list *list,
		    bool foreign)
{
	size_t live = client_keep_live(list);
	struct server *more = realloc(*servers, (*count + live + 1) * sizeof(*more));
	unsigned silent = 0;

	if (more == NULL)
		return;
	*servers = more;
	for (size_t i = 0; i < live; i++) {
		const char *path = list->paths[i];

		if (i > 0 && !same_folder(list->paths[i - 1], path))
			silent = 0;
		if (is_known(more, *count, path) || (foreign && silent >= SILENT_MAX))
			continue;
		more[*count] = (struct server){.foreign = foreign};
		if (ask(&more[*count], path))
			(*count)++;
		else if (++silent == SILENT_MAX && foreign)
			say_error("no more are asked of those beside", path, "%u have not answered",
				  silent);
	}
}

void servers_load(bool foreign, struct server **ret_servers, size_t *ret_count)
{
	struct ctl_path_list list;

	*ret_servers = NULL;
	*ret_count = 0;
	if (ctl_path_list(&list) == 0) {
		add_all(ret_servers, ret_count, &list, false);
		ctl_path_list_done(&list);
	}
	if (foreign && geteuid() == 0 && ctl_path_list_users(CTL_PATH_USERS_DIR, &list) == 0) {
		add_all(ret_servers, ret_count, &list, true);
		ctl_path_list_done(&list);
	}
}

void servers_done(struct server *servers, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		json_decref(servers[i].status);
		free(servers[i].control);
	}
	free(servers);
}

/* --- finding --- */

/* The store of somebody's server may lie where nobody answers any more: then it is not the one that
 * was asked for, unless it is by name. */
bool servers_same_store(const char *a, const char *b)
{
	struct far_path real_a, real_b;

	if (a == NULL || b == NULL)
		return false;
	return strcmp(a, b) == 0 || (far_path_ask(a, FAR_PATH_MS, &real_a) == 0 &&
				     far_path_ask(b, FAR_PATH_MS, &real_b) == 0 &&
				     strcmp(real_a.real, real_b.real) == 0);
}

const struct server *servers_find(const struct server *servers, size_t count, const char *store)
{
	for (size_t i = 0; i < count; i++)
		if (!servers[i].foreign &&
		    servers_same_store(store, client_text(servers[i].status, "store")))
			return &servers[i];
	return NULL;
}

static int open_of_store(const char *store, struct client *ret_client)
{
	const struct server *server;
	struct server *servers;
	size_t count;
	int r = -1;

	servers_load(false, &servers, &count);
	server = servers_find(servers, count, store);
	if (server != NULL)
		r = client_open(server->control, ret_client);
	else
		say_error(
			"cannot find the server of", store,
			"none is running for this user (sameblk list); start one with `sameblkd -U "
			"SOCKET STORE`");
	servers_done(servers, count);
	return r;
}

int servers_open(const struct server_choice *choice, struct client *ret_client)
{
	if (choice->store == NULL)
		return client_open(choice->control, ret_client);
	if (choice->control == NULL)
		return open_of_store(choice->store, ret_client);
	say_error("cannot choose a server", choice->store,
		  "--control and --store exclude each other");
	return -1;
}
