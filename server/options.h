/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * options - sameblkd's command line
 */
#ifndef SERVER_OPTIONS_H
#define SERVER_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define OPTIONS_BUFFER_BYTES_PER_WORKER_MIN (2ull << 20)

struct options {
	const char *store;
	const char *unix_path;
	const char *export_name; /* NULL: any */
	const char *control_path;
	gid_t group; /* (gid_t)-1: none */
	bool single;
	bool read_only;
	bool direct;
	bool discard;
	bool verbose;
	unsigned workers;
	uint64_t cache_bytes;
	uint64_t buffer_bytes;
	uint64_t cow_hint_bytes;
};

/* 0: go on. 1: --help or --version was answered. -EINVAL: said why on standard error. */
int options_parse(int argc, char **argv, struct options *ret_options);

#endif
