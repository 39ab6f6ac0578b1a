/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dedupe_signal - whether somebody wants the command to end (Ctrl-C, SIGTERM, SIGHUP)
 *
 * The first signal is taken note of, and the command (dedupe, same --batch, create,
 * check --salvage) ends where it can go on from, or cleans up. The second one ends it at once. One
 * that whoever started the command ignores (nohup, a shell for its background) stays ignored.
 */
#ifndef CLI_BASE_DEDUPE_SIGNAL_H
#define CLI_BASE_DEDUPE_SIGNAL_H

#include <stdbool.h>

void dedupe_signal_catch(void);
bool dedupe_signal_came(void);

#endif
