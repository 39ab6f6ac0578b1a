/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "server/base/size.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

static int digit_of(char c, unsigned base)
{
	int digit = -1;

	if (c >= '0' && c <= '9')
		digit = c - '0';
	else if (isxdigit((unsigned char)c))
		digit = tolower((unsigned char)c) - 'a' + 10;
	return digit < (int)base ? digit : -1;
}

static int suffix_shift(const char *text)
{
	static const char letters[] = "KMGT";
	const char *at;

	if (text[0] == '\0')
		return 0;
	at = strchr(letters, toupper((unsigned char)text[0]));
	if (at == NULL || text[1] != '\0')
		return -1;
	return 10 * (int)(at - letters + 1);
}

int size_parse(const char *text, uint64_t *ret_bytes)
{
	unsigned base = 10;
	uint64_t number = 0;
	bool any = false;
	int digit, shift;

	if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) {
		base = 16;
		text += 2;
	}
	for (; (digit = digit_of(*text, base)) >= 0; text++) {
		any = true;
		if (number > ((uint64_t)INT64_MAX - (uint64_t)digit) / base)
			return -ERANGE;
		number = number * base + (uint64_t)digit;
	}
	shift = suffix_shift(text);
	if (!any || shift < 0)
		return -EINVAL;
	if (number > (uint64_t)INT64_MAX >> shift)
		return -ERANGE;
	*ret_bytes = number << shift;
	return 0;
}
