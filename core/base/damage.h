/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * damage - what is wrong with a store, for people
 */
#ifndef CORE_BASE_DAMAGE_H
#define CORE_BASE_DAMAGE_H

/* Where a store is bad: what was expected there and what was found. */
struct damage {
	char text[320]; /* one line, for people: where, expected, found */
};

#endif
