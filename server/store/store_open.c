/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "server/store/store_open.h"

#include "server/store/store_file.h"

int store_open(const char *name, const struct store_options *options, struct store **ret_store,
	       const char **reterr_message)
{
	const struct store_file_options file = {
		.read_only = options->read_only,
		.direct = options->direct,
		.buffered = options->buffered,
		.wait_ms = options->wait_ms,
		.lanes = options->lanes,
	};

	return store_file_open(name, &file, ret_store, reterr_message);
}

int store_open_map(struct store *store, struct store_map *map)
{
	return store_file_map(store, map);
}

void store_close_map(struct store *store, struct store_map *map)
{
	store_file_unmap(store, map);
}
