/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * own_memory - how much memory this process takes, by kinds
 *
 * What top shows as resident has both: what the process has for itself, and pages of files that it
 * has mapped, which are the kernel's cache of the store and go when memory is wanted.
 */
#ifndef SERVER_CONTROL_OWN_MEMORY_H
#define SERVER_CONTROL_OWN_MEMORY_H

#include <stdint.h>

struct own_memory {
	uint64_t own_bytes;
	uint64_t mapped_bytes;
};

/* 0 or a negative errno: /proc is not there. */
int own_memory(struct own_memory *ret_memory);

#endif
