/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * create - the command `sameblk create`: formats a store
 *
 * The order: sizes that need no look at the store, what kind of thing the store is, its lock
 * (the store is opened), sizes that depend on its size, what it holds, and only then the first
 * write: --force wipes nothing for a volume that then cannot be made. A file that was made here
 * goes away again if anything fails.
 *
 * What is seen before the lock only serves messages and the length that a new file will have:
 * another process may fill the file, or format it, until then. So whether there is anything to lose
 * is decided under the lock, and by the locked file's descriptor, not by its name.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "server/base/uuid.h"

#include "cli/base/commands.h"
#include "cli/base/dedupe_signal.h"
#include "cli/base/parse.h"
#include "cli/base/say.h"
#include "cli/signature.h"
#include "core/format/format.h"
#include "core/format/geometry.h"
#include "core/volume/volume.h"
#include "server/control/protocol/ctl_rpc.h"
#include "server/store/store_file.h"

struct create {
	const char *path;
	struct parse_size_value size;
	struct parse_size_value store_size;
	bool force;
	bool json;
	bool fresh; /* missing or empty: nothing can be lost. A guess until it is locked */
	uint64_t logical_bytes;
	uint64_t create_bytes;
	uint8_t uuid[FORMAT_UUID_BYTES];
};

static bool is_good_size(const struct create *create, const char *name, uint64_t bytes)
{
	if (bytes % BLOCK_BYTES == 0)
		return true;
	say_error("cannot create", create->path, "%s %" PRIu64 " is no multiple of %u", name, bytes,
		  BLOCK_BYTES);
	return false;
}

static bool is_good_logical_size(const struct create *create, uint64_t bytes)
{
	if (!is_good_size(create, "--size", bytes))
		return false;
	if (bytes >= VOLUME_LOGICAL_BYTES_MIN && bytes <= VOLUME_LOGICAL_BYTES_MAX)
		return true;
	say_error("cannot create", create->path, "--size %" PRIu64 " is out of range: 1M to 64T",
		  bytes);
	return false;
}

static bool is_good_store_size(const struct create *create)
{
	if (create->fresh || !create->store_size.given)
		return true;
	say_error("cannot create", create->path,
		  "--store-size is for a new file; this one has a size already");
	return false;
}

static bool look_at_store(struct create *create)
{
	struct stat st;

	if (stat(create->path, &st) < 0) {
		if (errno != ENOENT) {
			say_error("cannot create", create->path, "%s", strerror(errno));
			return false;
		}
		create->fresh = true;
		return true;
	}
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
		say_error("cannot create", create->path, "it is neither a file nor a block device");
		return false;
	}
	create->fresh = S_ISREG(st.st_mode) && st.st_size == 0;
	return is_good_store_size(create);
}

static uint64_t store_bytes_for(uint64_t logical_bytes)
{
	uint64_t bytes = volume_store_bytes_for(logical_bytes, 0);

	return bytes > 0 ? bytes + volume_tracking_bytes(logical_bytes) : 0;
}

/* No volume that a store holds is larger than the store. */
static uint64_t logical_bytes_for(uint64_t store_bytes)
{
	uint64_t tracking_bytes = volume_tracking_bytes(store_bytes);

	return store_bytes > tracking_bytes
		       ? volume_logical_bytes_for(store_bytes - tracking_bytes, 0)
		       : 0;
}

/* The length of a new file. */
static bool plan_file(struct create *create)
{
	if (!create->fresh)
		return true;
	if (!create->size.given && !create->store_size.given) {
		say_error("cannot create", create->path,
			  "a new file needs --size, --store-size or both");
		return false;
	}
	create->create_bytes = create->store_size.given ? create->store_size.bytes
							: store_bytes_for(create->size.bytes);
	if (create->create_bytes > 0)
		return true;
	if (create->store_size.given)
		say_error("cannot create", create->path, "--store-size 0 holds nothing");
	else
		say_error("cannot create", create->path,
			  "no store is large enough for --size %" PRIu64, create->size.bytes);
	return false;
}

/* What the store holds: refused, or wiped with --force. */
static bool clear_store(struct create *create, const struct store *store)
{
	char text[SIGNATURE_TEXT_BYTES];
	int fd = store_file_fd(store), r;

	if (create->fresh)
		return true;
	r = create->force ? signature_wipe(fd) : signature_find(fd, text);
	if (r < 0)
		say_error("cannot create", create->path, "looking for what it holds: %s",
			  strerror(-r));
	else if (r > 0)
		say_error("cannot create", create->path, "it holds %s; --force overwrites that",
			  text);
	return r == 0;
}

static bool plan_volume(struct create *create, const struct store *store,
			struct geometry *ret_geometry)
{
	int r;

	create->logical_bytes =
		create->size.given ? create->size.bytes : logical_bytes_for(store->size_bytes);
	if (create->logical_bytes == 0) {
		say_error("cannot create", create->path,
			  "%" PRIu64 " bytes are too few for a volume of 1M and its metadata",
			  store->size_bytes);
		return false;
	}
	r = geometry_plan(create->logical_bytes / BLOCK_BYTES, store->size_bytes / BLOCK_BYTES, 0,
			  ret_geometry);
	if (r == 0)
		r = geometry_track(ret_geometry);
	if (r < 0)
		say_error("cannot create", create->path,
			  "a store of %" PRIu64 " bytes cannot hold the metadata of %" PRIu64,
			  store->size_bytes, create->logical_bytes);
	return r == 0;
}

static void print_geometry(const struct create *create, const struct geometry *g)
{
	const struct {
		const char *key;
		const char *label;
		uint64_t number;
	} rows[] = {
		{"size_bytes", "size", create->logical_bytes},
		{"store_bytes", "store size", blocks_to_bytes(g->store_blocks)},
		{"block_bytes", "block size", BLOCK_BYTES},
		{"regions", "regions", g->regions},
		{"slabs", "slabs", g->slabs},
		{"journal_bytes", "journal", blocks_to_bytes(g->ring_blocks)},
		{"metadata_bytes", "metadata",
		 blocks_to_bytes(g->store_blocks - geometry_data_blocks(g))},
		{"data_bytes", "data", blocks_to_bytes(geometry_data_blocks(g))},
	};
	char uuid[UUID_TEXT_BYTES];
	json_t *root = json_object();

	uuid_print(create->uuid, uuid);
	json_object_set_new(root, "store", ctl_rpc_text(create->path));
	json_object_set_new(root, "uuid", json_string(uuid));
	if (!create->json)
		printf("%-12s %s\n%-12s %s\n", "store", create->path, "uuid", uuid);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		json_object_set_new(root, rows[i].key, json_integer((json_int_t)rows[i].number));
		if (!create->json)
			printf("%-12s %" PRIu64 "\n", rows[i].label, rows[i].number);
	}
	if (create->json) {
		json_dumpf(root, stdout, JSON_INDENT(2));
		putchar('\n');
	}
	json_decref(root);
}

/* Random, as RFC 4122 marks such ones. */
static bool make_uuid(struct create *create)
{
	if (getrandom(create->uuid, sizeof(create->uuid), 0) != sizeof(create->uuid)) {
		say_error("cannot create", create->path, "no randomness for the UUID: %s",
			  strerror(errno));
		return false;
	}
	create->uuid[6] = (uint8_t)((create->uuid[6] & 0x0f) | 0x40);
	create->uuid[8] = (uint8_t)((create->uuid[8] & 0x3f) | 0x80);
	return true;
}

static bool format_store(struct create *create, struct store *store)
{
	struct volume_format_options options = {.logical_bytes = 0};
	struct damage damage = {.text = ""};
	struct geometry geometry;
	int r;

	if (!plan_volume(create, store, &geometry) || !make_uuid(create) ||
	    !clear_store(create, store))
		return false;
	options.logical_bytes = create->logical_bytes;
	memcpy(options.uuid, create->uuid, sizeof(options.uuid));
	options.tracking = true;
	options.stop = dedupe_signal_came;
	r = volume_format(store, &options, &damage);
	if (r == -EINTR) {
		say_error("cannot create", create->path, "interrupted");
		return false;
	}
	if (r < 0) {
		say_error("cannot create", create->path, "%s",
			  damage.text[0] != '\0' ? damage.text : strerror(-r));
		return false;
	}
	print_geometry(create, &geometry);
	return true;
}

static int run_create(struct create *create)
{
	struct store_file_options options = {.buffered = true};
	const char *message = NULL;
	struct store *store;
	bool good;

	if (create->size.given && !is_good_logical_size(create, create->size.bytes))
		return EXIT_FAILED;
	if (create->store_size.given &&
	    !is_good_size(create, "--store-size", create->store_size.bytes))
		return EXIT_FAILED;
	if (!look_at_store(create) || !plan_file(create))
		return EXIT_FAILED;
	options.create_bytes = create->create_bytes;
	/* A file that is half made does not stay. */
	dedupe_signal_catch();
	if (store_file_open(create->path, &options, &store, &message) < 0) {
		say_error("cannot create", create->path, "%s", message);
		return EXIT_FAILED;
	}
	create->fresh = store_file_fresh(store);
	good = is_good_store_size(create) && format_store(create, store);
	if (!good)
		store_file_unmake(store, create->path);
	store_close(store);
	return good ? EXIT_GOOD : EXIT_FAILED;
}

int create_main(int argc, char **argv)
{
	struct create create = {.force = false};
	const struct parse_option options[] = {
		{"size", 0, PARSE_SIZE, &create.size, "SIZE", "of the volume (default: what fits)"},
		{"store-size", 0, PARSE_SIZE, &create.store_size, "SIZE", "of a new file"},
		{"force", 'f', PARSE_FLAG, &create.force, NULL, "overwrite what the store holds"},
		PARSE_JSON(&create.json),
		{NULL, 0, PARSE_FLAG, NULL, NULL, NULL},
	};
	const struct parse_command command = {
		"create", "STORE", "Make an empty volume in a file or block device.", options, 1, 1,
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
	create.path = argv[1];
	return say_finish(run_create(&create));
}
