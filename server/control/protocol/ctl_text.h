/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ctl_text - JSON that is written as it goes, for messages of very many numbers
 *
 * Errors    without memory it fails, says so at the end, and takes everything before that for
 *           nothing. Memory: grows by doubling; ctl_text_take() gives it away. Threads: one.
 */
#ifndef SERVER_CONTROL_PROTOCOL_CTL_TEXT_H
#define SERVER_CONTROL_PROTOCOL_CTL_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ctl_text {
	char *bytes;
	size_t len_bytes;
	size_t capacity_bytes;
	bool failed;
};

void ctl_text_add(struct ctl_text *text, const char *string);
void ctl_text_add_number(struct ctl_text *text, uint64_t number);

/* The string, to be freed; NULL: no memory. The text is empty then. */
char *ctl_text_take(struct ctl_text *text);
void ctl_text_done(struct ctl_text *text);

#endif
