/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * same_batch - many lines `SRC LEN DST [DST...]`, SAME_FLIGHT_LINES of them in flight, but of those
 * that are not small SAME_FLIGHT_LARGE
 *
 * Lines run side by side, except that a line waits for those before it that remap what it
 * names. Results are printed in the order of the lines. Blank lines and those that begin with
 * # are skipped; a line that cannot be read is an error and the others go on.
 */
#ifndef CLI_SAME_SAME_BATCH_H
#define CLI_SAME_SAME_BATCH_H

#include <stdbool.h>

#include "cli/base/client.h"
#include "cli/same/same_print.h"

/* path "-": standard input. Returns the exit status. */
int same_batch(struct client *client, const char *path, bool sync, enum same_format format);

#endif
