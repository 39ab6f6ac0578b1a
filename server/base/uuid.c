/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "server/base/uuid.h"

#include <stdbool.h>
#include <stdio.h>

void uuid_print(const uint8_t uuid[UUID_BYTES], char ret_text[UUID_TEXT_BYTES])
{
	char *at = ret_text;

	for (unsigned i = 0; i < UUID_BYTES; i++) {
		bool joint = i == 4 || i == 6 || i == 8 || i == 10;

		at += snprintf(at, 4, "%s%02x", joint ? "-" : "", uuid[i]);
	}
}
