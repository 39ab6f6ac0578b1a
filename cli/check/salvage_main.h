/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * salvage_main - `sameblk check --salvage OUT STORE`: a raw image of what can be read, and a list
 * of what cannot
 *
 * OUT is made, sparse, and must not be there before but with force; it is never the store. It goes
 * away again if anything fails. Returns the exit status: 0 all of it is sure, 1 something is lost
 * or older, 2 failed.
 */
#ifndef CLI_CHECK_SALVAGE_MAIN_H
#define CLI_CHECK_SALVAGE_MAIN_H

#include <stdbool.h>

int salvage_main(const char *out, bool force, const char *store, bool json);

#endif
