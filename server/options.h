/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * options - sameblkd's command line
 */
#ifndef SERVER_OPTIONS_H
#define SERVER_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define OPTIONS_PORT_DEFAULT		    10809u
#define OPTIONS_DEPTH_DEFAULT		    128u
#define OPTIONS_BUFFER_BYTES_PER_WORKER_MIN (2ull << 20)

struct options {
	const char *store; /* from the root, where it is there */
	const char *unix_path;
	bool has_tcp;
	const char *address; /* NULL: all */
	uint16_t port;
	const char *export_name; /* NULL: any */
	const char *tls_certificates; /* a folder; NULL, or the next one is */
	const char *tls_psk; /* a file */
	bool tls_verify_peer;
	bool tls_required; /* on Unix sockets too */
	bool insecure_tcp;
	const char *control_path;
	gid_t group; /* (gid_t)-1: none */
	bool single;
	bool read_only;
	bool direct;
	bool buffered; /* also where the device may run out of space */
	bool discard;
	bool lasting; /* what a client was answered outlives this process */
	bool verbose;
	bool ublk;
	uint32_t ublk_id; /* UINT32_MAX: any */
	unsigned queues; /* of ublk */
	unsigned depth;
	uint32_t sector_bytes;
	bool zero_copy;
	unsigned workers;
	unsigned connections; /* of NBD */
	uint64_t cache_bytes;
	uint64_t buffer_bytes;
	uint64_t cow_hint_bytes;
};

/* Whether TLS is to be had. */
static inline bool options_tls(const struct options *options)
{
	return options->tls_certificates != NULL || options->tls_psk != NULL;
}

/* 0: go on. 1: --help or --version was answered. -EINVAL: said why on standard error. */
int options_parse(int argc, char **argv, struct options *ret_options);

#endif
