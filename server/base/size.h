/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * size - numbers of bytes as people write them: 4096, 0x1000, 64M, 1T
 */
#ifndef SERVER_BASE_SIZE_H
#define SERVER_BASE_SIZE_H

#include <stdint.h>

/* Decimal or 0x..., with K, M, G or T (powers of 1024, either case) behind it. -EINVAL: it is no
 * size; -ERANGE: 8 EiB or more. */
int size_parse(const char *text, uint64_t *ret_bytes);

#endif
