/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * discard - the command `sameblk discard`: a range reads zeros from then on, and what only it used
 * is free
 *
 * It is NBD's TRIM, over a connection that the server hands out, so it works where no NBD client
 * can connect. Whole blocks only: of others a server would keep the edges without a word. Where the
 * backing has no space for what a part of it needs, the others go on.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <libnbd.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "cli/base/client.h"
#include "cli/base/client_nbd.h"
#include "cli/base/commands.h"
#include "cli/base/parse.h"
#include "cli/base/say.h"
#include "cli/base/servers.h"
#include "core/base/units.h"

/* Older servers and libraries count the length in 32 bits. */
#define PIECE_BYTES (1ull << 30)

struct discard {
	uint64_t off_bytes;
	uint64_t len_bytes;
	bool sync;
	bool json;
};

static int say_nbd(void)
{
	say_error("cannot discard", "", "%s", nbd_get_error());
	return EXIT_FAILED;
}

static int check_range(struct nbd_handle *nbd, const struct discard *discard)
{
	int64_t size = nbd_get_size(nbd);
	uint64_t size_bytes = size > 0 ? (uint64_t)size : 0;

	if (size < 0)
		return say_nbd();
	if (nbd_is_read_only(nbd) == 1) {
		say_error("cannot discard", "", "the volume is read-only");
		return EXIT_FAILED;
	}
	if (discard->off_bytes % BLOCK_BYTES == 0 && discard->len_bytes % BLOCK_BYTES == 0 &&
	    discard->off_bytes <= size_bytes &&
	    discard->len_bytes <= size_bytes - discard->off_bytes)
		return EXIT_GOOD;
	say_error("cannot discard", "",
		  "offset and length must be multiples of %u inside the volume's %" PRIu64 " bytes",
		  BLOCK_BYTES, size_bytes);
	return EXIT_FAILED;
}

static int trim_all(struct nbd_handle *nbd, const struct discard *discard)
{
	uint64_t bytes;
	bool lacks_space = false;

	for (uint64_t done = 0; done < discard->len_bytes; done += bytes) {
		uint64_t at = discard->off_bytes + done;

		/* It ends where a region does: the server needs space to cut some of them. */
		bytes = min_u64(discard->len_bytes - done, PIECE_BYTES - at % PIECE_BYTES);
		if (nbd_trim(nbd, bytes, at, 0) == 0)
			continue;
		if (nbd_get_errno() != ENOSPC)
			return say_nbd();
		lacks_space = true; /* for some of it; the others bring space */
	}
	if (lacks_space) {
		say_error("cannot discard all of it", "", "%s", strerror(ENOSPC));
		return EXIT_FAILED;
	}
	return discard->sync && nbd_flush(nbd, 0) < 0 ? say_nbd() : EXIT_GOOD;
}

static void print_discard(const struct discard *discard)
{
	if (discard->json)
		printf("{\"offset\":%" PRIu64 ",\"bytes_discarded\":%" PRIu64 "}\n",
		       discard->off_bytes, discard->len_bytes);
	else
		printf("%" PRIu64 " discarded %" PRIu64 "\n", discard->off_bytes,
		       discard->len_bytes);
}

/* The call has a control connection of its own. */
static int connect_nbd(const struct server_choice *choice)
{
	struct client client;
	int fd;

	if (servers_open(choice, &client) < 0)
		return -1;
	fd = client_nbd_connect(client.path);
	client_close(&client);
	return fd;
}

static int run_discard(const struct server_choice *choice, const struct discard *discard)
{
	struct nbd_handle *nbd = nbd_create();
	int fd, status;

	if (nbd == NULL)
		return say_nbd();
	fd = connect_nbd(choice);
	if (fd < 0)
		status = EXIT_FAILED;
	else if (nbd_connect_socket(nbd, fd) < 0)
		status = say_nbd();
	else
		status = check_range(nbd, discard);
	if (status == EXIT_GOOD)
		status = trim_all(nbd, discard);
	if (fd >= 0)
		nbd_shutdown(nbd, 0);
	nbd_close(nbd);
	if (status == EXIT_GOOD)
		print_discard(discard);
	return status;
}

int discard_main(int argc, char **argv)
{
	struct discard discard = {.sync = false};
	struct server_choice choice = {NULL, NULL};
	const struct parse_option options[] = {
		PARSE_SERVER(&choice),
		{"sync", 0, PARSE_FLAG, &discard.sync, NULL, "end when it is durable"},
		PARSE_JSON(&discard.json),
		{NULL, 0, PARSE_FLAG, NULL, NULL, NULL},
	};
	const struct parse_command command = {
		"discard", "OFF LEN", "Make a range read zeros, and free what only it used.",
		options,   2,	      2,
	};
	int count;

	switch (parse_command(&command, argc, argv, &count)) {
	case PARSE_GO:
		break;
	case PARSE_DONE:
		return say_finish(EXIT_GOOD);
	case PARSE_BAD:
		return EXIT_FAILED;
	}
	if (parse_size_or_say("OFF", argv[1], &discard.off_bytes) < 0 ||
	    parse_size_or_say("LEN", argv[2], &discard.len_bytes) < 0)
		return EXIT_FAILED;
	return say_finish(run_discard(&choice, &discard));
}
