/* SPDX-License-Identifier: GPL-2.0-or-later */
/* options - see the header */
#include "server/options.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/units.h"
#include "core/volume/volume.h"
#include "server/base/full_path.h"
#include "server/base/log.h"
#include "server/base/size.h"
#include "server/nbd/nbd_guests.h"
#include "server/nbd/nbd_wire.h"
#include "server/ublk/driver/ublk_abi.h"

#define OPTIONS_QUEUES_MAX 256u
#define OPTIONS_DEPTH_MAX  1024u

enum {
	OPTION_GROUP = 256,
	OPTION_METADATA_CACHE,
	OPTION_BUFFER_MEMORY,
	OPTION_COW_HINT,
	OPTION_DIRECT,
	OPTION_BUFFERED,
	OPTION_DISCARD,
	OPTION_LASTING,
	OPTION_TLS_CERTIFICATES,
	OPTION_TLS_PSK,
	OPTION_TLS_NO_VERIFY_PEER,
	OPTION_TLS_REQUIRED,
	OPTION_INSECURE_TCP,
	OPTION_UBLK,
	OPTION_QUEUES,
	OPTION_DEPTH,
	OPTION_SECTOR_SIZE,
	OPTION_ZERO_COPY,
	OPTION_CONNECTIONS,
	OPTION_HELP,
	OPTION_VERSION,
};

static const struct option long_options[] = {
	{"unix", required_argument, NULL, 'U'},
	{"port", required_argument, NULL, 'p'},
	{"address", required_argument, NULL, 'i'},
	{"export", required_argument, NULL, 'e'},
	{"single", no_argument, NULL, 's'},
	{"tls-certificates", required_argument, NULL, OPTION_TLS_CERTIFICATES},
	{"tls-psk", required_argument, NULL, OPTION_TLS_PSK},
	{"tls-no-verify-peer", no_argument, NULL, OPTION_TLS_NO_VERIFY_PEER},
	{"tls-required", no_argument, NULL, OPTION_TLS_REQUIRED},
	{"insecure-tcp", no_argument, NULL, OPTION_INSECURE_TCP},
	{"ublk", optional_argument, NULL, OPTION_UBLK},
	{"queues", required_argument, NULL, OPTION_QUEUES},
	{"depth", required_argument, NULL, OPTION_DEPTH},
	{"sector-size", required_argument, NULL, OPTION_SECTOR_SIZE},
	{"zero-copy", required_argument, NULL, OPTION_ZERO_COPY},
	{"control", required_argument, NULL, 'c'},
	{"group", required_argument, NULL, OPTION_GROUP},
	{"read-only", no_argument, NULL, 'r'},
	{"workers", required_argument, NULL, 'w'},
	{"connections", required_argument, NULL, OPTION_CONNECTIONS},
	{"metadata-cache", required_argument, NULL, OPTION_METADATA_CACHE},
	{"buffer-memory", required_argument, NULL, OPTION_BUFFER_MEMORY},
	{"cow-hint", required_argument, NULL, OPTION_COW_HINT},
	{"direct", no_argument, NULL, OPTION_DIRECT},
	{"buffered", no_argument, NULL, OPTION_BUFFERED},
	{"discard", required_argument, NULL, OPTION_DISCARD},
	{"lasting", no_argument, NULL, OPTION_LASTING},
	{"verbose", no_argument, NULL, 'v'},
	{"help", no_argument, NULL, OPTION_HELP},
	{"version", no_argument, NULL, OPTION_VERSION},
	{NULL, 0, NULL, 0},
};

static const char help_text[] =
	"usage: sameblkd [options] STORE\n"
	"Serves the volume in STORE (see sameblk create) in the foreground.\n"
	"\n"
	"  -U, --unix PATH          NBD on a Unix socket\n"
	"  -p, --port N             NBD over TCP (default 10809; 0: any free port); needs TLS, or\n"
	"                           --insecure-tcp\n"
	"  -i, --address ADDR       the address to listen on; default: all of this machine\n"
	"  -s, --single             NBD on standard input, a socket, for one client\n"
	"  -e, --export NAME        the export's name; without it any name will do\n"
	"      --tls-certificates DIR  TLS with ca-cert.pem, server-cert.pem, server-key.pem\n"
	"      --tls-psk FILE       TLS with keys in lines USER:HEXKEY\n"
	"      --tls-no-verify-peer clients need no certificate\n"
	"      --tls-required       on Unix sockets too, where it is only offered otherwise\n"
	"      --insecure-tcp       TCP without TLS: for whoever reaches the port\n"
	"      --ublk[=ID]          a block device, /dev/ublkbID; without ID the next one that is\n"
	"                           free, or the one that a server before left\n"
	"      --queues N           of the device (default: one per worker)\n"
	"      --depth N            requests in flight in each queue (default 128)\n"
	"      --sector-size N      512 (default) or 4096\n"
	"      --zero-copy=on|off   where the kernel has it (default on)\n"
	"  -c, --control PATH       the control socket; default: NAME.ctl in\n"
	"                           $XDG_RUNTIME_DIR/sameblk or /run/sameblk\n"
	"      --group NAME         who besides root and this user may control\n"
	"  -r, --read-only          nothing is written, not even by recovery\n"
	"  -w, --workers N          threads (default 1)\n"
	"      --connections N      of NBD clients, at most (default 128)\n"
	"      --metadata-cache SIZE  (default 128M)\n"
	"      --buffer-memory SIZE   for payloads (default 64M)\n"
	"      --cow-hint SIZE      reserved at a time for copy-on-write (default 128K)\n"
	"      --direct             open STORE with O_DIRECT; the default for devices that may\n"
	"                           run out of space (loop, device-mapper, zram)\n"
	"      --buffered           never with O_DIRECT\n"
	"      --discard=on|off     give freed blocks back to STORE (default on)\n"
	"      --lasting            a killed server undoes nothing that it answered: for clients "
	"that\n"
	"                           connect again and go on\n"
	"  -v, --verbose            log more\n"
	"      --help, --version\n"
	"\n"
	"SIZE takes plain bytes, 0x..., and K M G T (powers of 1024). Prints `ready URI` when\n"
	"clients can connect, `ready /dev/ublkbN` when the device can be opened. SIGTERM and "
	"SIGINT\n"
	"stop cleanly.\n";

static int size_option(const char *name, const char *text, uint64_t min_bytes, uint64_t max_bytes,
		       uint64_t *ret_bytes)
{
	uint64_t bytes;

	if (size_parse(text, &bytes) < 0) {
		log_error("--%s %s: not a size (plain bytes, 0x..., or with K M G T)", name, text);
		return -EINVAL;
	}
	if (bytes < min_bytes || bytes > max_bytes) {
		log_error("--%s %s: must be from %llu to %llu bytes", name, text,
			  (unsigned long long)min_bytes, (unsigned long long)max_bytes);
		return -EINVAL;
	}
	*ret_bytes = bytes;
	return 0;
}

static int cow_hint_option(const char *text, uint64_t *ret_bytes)
{
	uint64_t bytes;
	int r = size_option("cow-hint", text, BLOCK_BYTES, REGION_BYTES, &bytes);

	if (r < 0)
		return r;
	if ((bytes & (bytes - 1)) != 0) {
		log_error("--cow-hint %s: must be a power of two", text);
		return -EINVAL;
	}
	*ret_bytes = bytes;
	return 0;
}

static int group_option(const char *name, gid_t *ret_group)
{
	const struct group *group = getgrnam(name);

	if (group == NULL) {
		log_error("--group %s: there is no such group", name);
		return -EINVAL;
	}
	*ret_group = group->gr_gid;
	return 0;
}

static int port_option(const char *text, struct options *options)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (!isdigit((unsigned char)text[0]) || *end != '\0' || value > UINT16_MAX) {
		log_error("--port %s: must be from 0 to %u", text, UINT16_MAX);
		return -EINVAL;
	}
	options->has_tcp = true;
	options->port = (uint16_t)value;
	return 0;
}

static int number_option(const char *name, const char *text, unsigned min, unsigned max,
			 unsigned *ret_number)
{
	char *end;
	unsigned long value;

	errno = 0;
	value = strtoul(text, &end, 10);
	if (!isdigit((unsigned char)text[0]) || *end != '\0' || errno != 0 || value < min ||
	    value > max) {
		log_error("--%s %s: must be from %u to %u", name, text, min, max);
		return -EINVAL;
	}
	*ret_number = (unsigned)value;
	return 0;
}

static int ublk_option(const char *text, struct options *options)
{
	options->ublk = true;
	options->ublk_id = UINT32_MAX;
	if (text == NULL)
		return 0;
	return number_option("ublk", text, 0, UBLK_IDS_MAX - 1, &options->ublk_id);
}

static int sector_size_option(const char *text, uint32_t *ret_bytes)
{
	if (strcmp(text, "512") != 0 && strcmp(text, "4096") != 0) {
		log_error("--sector-size %s: must be 512 or 4096", text);
		return -EINVAL;
	}
	*ret_bytes = (uint32_t)strtoul(text, NULL, 10);
	return 0;
}

static int switch_option(const char *name, const char *text, bool *ret_on)
{
	if (strcmp(text, "on") != 0 && strcmp(text, "off") != 0) {
		log_error("--%s=%s: must be on or off", name, text);
		return -EINVAL;
	}
	*ret_on = strcmp(text, "on") == 0;
	return 0;
}

static int export_option(const char *text, const char **ret_name)
{
	if (strlen(text) > NBD_STRING_MAX) {
		log_error("--export: a name has at most %u bytes", NBD_STRING_MAX);
		return -EINVAL;
	}
	*ret_name = text;
	return 0;
}

static int take_flag(int option, struct options *options)
{
	switch (option) {
	case 's':
		options->single = true;
		return 0;
	case 'r':
		options->read_only = true;
		return 0;
	case 'v':
		options->verbose = true;
		return 0;
	case OPTION_LASTING:
		options->lasting = true;
		return 0;
	case OPTION_DIRECT:
		options->direct = true;
		options->buffered = false;
		return 0;
	case OPTION_BUFFERED:
		options->buffered = true;
		options->direct = false;
		return 0;
	case OPTION_TLS_NO_VERIFY_PEER:
		options->tls_verify_peer = false;
		return 0;
	case OPTION_TLS_REQUIRED:
		options->tls_required = true;
		return 0;
	case OPTION_INSECURE_TCP:
		options->insecure_tcp = true;
		return 0;
	case OPTION_HELP:
		fputs(help_text, stdout);
		return 1;
	case OPTION_VERSION:
		puts("sameblkd " SAMEBLK_VERSION);
		return 1;
	default: /* getopt has said why */
		return -EINVAL;
	}
}

static int take_option(int option, struct options *options)
{
	switch (option) {
	case 'U':
		options->unix_path = optarg;
		return 0;
	case 'p':
		return port_option(optarg, options);
	case 'i':
		options->has_tcp = true;
		options->address = optarg;
		return 0;
	case OPTION_TLS_CERTIFICATES:
		options->tls_certificates = optarg;
		return 0;
	case OPTION_TLS_PSK:
		options->tls_psk = optarg;
		return 0;
	case 'e':
		return export_option(optarg, &options->export_name);
	case 'c':
		options->control_path = optarg;
		return 0;
	case 'w':
		return number_option("workers", optarg, 1, VOLUME_WORKERS_MAX, &options->workers);
	case OPTION_CONNECTIONS:
		return number_option("connections", optarg, 1, NBD_GUESTS_MAX,
				     &options->connections);
	case OPTION_UBLK:
		return ublk_option(optarg, options);
	case OPTION_QUEUES:
		return number_option("queues", optarg, 1, OPTIONS_QUEUES_MAX, &options->queues);
	case OPTION_DEPTH:
		return number_option("depth", optarg, 1, OPTIONS_DEPTH_MAX, &options->depth);
	case OPTION_SECTOR_SIZE:
		return sector_size_option(optarg, &options->sector_bytes);
	case OPTION_GROUP:
		return group_option(optarg, &options->group);
	case OPTION_METADATA_CACHE:
		return size_option("metadata-cache", optarg, 1ull << 20, 1ull << 40,
				   &options->cache_bytes);
	case OPTION_BUFFER_MEMORY:
		return size_option("buffer-memory", optarg, OPTIONS_BUFFER_BYTES_PER_WORKER_MIN,
				   1ull << 40, &options->buffer_bytes);
	case OPTION_COW_HINT:
		return cow_hint_option(optarg, &options->cow_hint_bytes);
	case OPTION_DISCARD:
		return switch_option("discard", optarg, &options->discard);
	case OPTION_ZERO_COPY:
		return switch_option("zero-copy", optarg, &options->zero_copy);
	default:
		return take_flag(option, options);
	}
}

static int check_tls(const struct options *options)
{
	const char *wrong = NULL;

	if (options->tls_certificates != NULL && options->tls_psk != NULL)
		wrong = "--tls-certificates and --tls-psk exclude each other";
	else if (!options->tls_verify_peer && options->tls_certificates == NULL)
		wrong = "--tls-no-verify-peer goes with --tls-certificates only";
	else if (options->tls_required && !options_tls(options))
		wrong = "--tls-required needs --tls-certificates or --tls-psk";
	else if (options->tls_required && options->insecure_tcp)
		wrong = "--tls-required and --insecure-tcp exclude each other";
	else if (options->has_tcp && !options_tls(options) && !options->insecure_tcp)
		wrong = "NBD over TCP needs TLS: say --tls-certificates DIR or --tls-psk FILE; or "
			"--insecure-tcp, for whoever reaches the port";
	if (wrong == NULL)
		return 0;
	log_error("%s", wrong);
	return -EINVAL;
}

static int check(const struct options *options)
{
	if (options->store == NULL) {
		log_error("which STORE? see sameblkd --help");
		return -EINVAL;
	}
	if (options->buffer_bytes < options->workers * OPTIONS_BUFFER_BYTES_PER_WORKER_MIN) {
		log_error("--buffer-memory: %u workers need at least %llu bytes", options->workers,
			  options->workers * OPTIONS_BUFFER_BYTES_PER_WORKER_MIN);
		return -EINVAL;
	}
	if (!options->ublk &&
	    (options->queues != 0 || options->depth != 0 || options->sector_bytes != 0)) {
		log_error("--queues, --depth and --sector-size go with --ublk only");
		return -EINVAL;
	}
	return check_tls(options);
}

/* What was not said, where it depends on something else; and STORE as it is told. */
static void complete(struct options *options)
{
	static char store[FULL_PATH_BYTES];

	full_path(options->store, store);
	options->store = store;
	if (options->queues == 0)
		options->queues = options->workers;
	if (options->depth == 0)
		options->depth = OPTIONS_DEPTH_DEFAULT;
	if (options->sector_bytes == 0)
		options->sector_bytes = UBLK_SECTOR_BYTES;
}

int options_parse(int argc, char **argv, struct options *ret_options)
{
	struct options options = {
		.group = (gid_t)-1,
		.port = OPTIONS_PORT_DEFAULT,
		.tls_verify_peer = true,
		.discard = true,
		.zero_copy = true,
		.workers = 1,
		.connections = NBD_CONNECTIONS_DEFAULT,
		.cache_bytes = 128ull << 20,
		.buffer_bytes = 64ull << 20,
		.cow_hint_bytes = 128ull << 10,
	};
	int option, r;

	while ((option = getopt_long(argc, argv, "U:p:i:e:sc:rw:v", long_options, NULL)) != -1) {
		r = take_option(option, &options);
		if (r != 0)
			return r;
	}
	if (argc - optind > 1) {
		log_error("one STORE only, not %s too", argv[optind + 1]);
		return -EINVAL;
	}
	if (argc > optind)
		options.store = argv[optind];
	r = check(&options);
	if (r < 0)
		return r;
	complete(&options);
	*ret_options = options;
	return 0;
}
