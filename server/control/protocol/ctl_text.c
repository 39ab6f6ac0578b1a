/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ctl_text - see the header */
#include "server/control/protocol/ctl_text.h"

#include <stdlib.h>
#include <string.h>

#define TEXT_BYTES_MIN 4096u
#define DIGITS_MAX     20u

/* Room for so many bytes and the zero after them. */
static bool has_room(struct ctl_text *text, size_t bytes)
{
	size_t capacity = text->capacity_bytes != 0 ? text->capacity_bytes : TEXT_BYTES_MIN;
	char *grown;

	if (text->failed)
		return false;
	while (capacity - text->len_bytes <= bytes)
		capacity *= 2;
	if (capacity == text->capacity_bytes)
		return true;
	grown = realloc(text->bytes, capacity);
	text->failed = grown == NULL;
	if (text->failed)
		return false;
	text->bytes = grown;
	text->capacity_bytes = capacity;
	return true;
}

static void add(struct ctl_text *text, const char *bytes, size_t len)
{
	if (!has_room(text, len))
		return;
	memcpy(text->bytes + text->len_bytes, bytes, len);
	text->len_bytes += len;
	text->bytes[text->len_bytes] = '\0';
}

void ctl_text_add(struct ctl_text *text, const char *string)
{
	add(text, string, strlen(string));
}

void ctl_text_add_number(struct ctl_text *text, uint64_t number)
{
	char digits[DIGITS_MAX];
	size_t at = DIGITS_MAX;

	do {
		digits[--at] = (char)('0' + number % 10);
		number /= 10;
	} while (number != 0);
	add(text, digits + at, DIGITS_MAX - at);
}

char *ctl_text_take(struct ctl_text *text)
{
	char *bytes = text->failed ? NULL : text->bytes;

	if (text->failed)
		free(text->bytes);
	*text = (struct ctl_text){.bytes = NULL};
	return bytes;
}

void ctl_text_done(struct ctl_text *text)
{
	free(text->bytes);
	*text = (struct ctl_text){.bytes = NULL};
}
