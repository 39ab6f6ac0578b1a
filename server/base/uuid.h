/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * uuid - a volume's name for programs, as text
 */
#ifndef SERVER_BASE_UUID_H
#define SERVER_BASE_UUID_H

#include <stdint.h>

#define UUID_BYTES	16u
#define UUID_TEXT_BYTES 37u

/* 01234567-89ab-cdef-0123-456789abcdef. */
void uuid_print(const uint8_t uuid[UUID_BYTES], char ret_text[UUID_TEXT_BYTES]);

#endif
