/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ublk_why - sentences for people: what is missing for a ublk device, and what to do about it
 *
 * Pure. Texts are written into the caller's buffer and say what, then why.
 */
#ifndef SERVER_UBLK_DRIVER_UBLK_WHY_H
#define SERVER_UBLK_DRIVER_UBLK_WHY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UBLK_WHY_BYTES 320u

/* /dev/ublk-control could not be opened. has_driver: the kernel has the driver all the same. */
void ublk_why_no_control(int error, bool has_driver, char ret_text[UBLK_WHY_BYTES]);

/* No ring for control commands could be made. */
void ublk_why_no_ring(int error, char ret_text[UBLK_WHY_BYTES]);

/* GET_FEATURES failed. */
void ublk_why_no_features(int error, char ret_text[UBLK_WHY_BYTES]);

/* NULL: these features will do. Else the first one that is missing, as a sentence. */
const char *ublk_why_features(uint64_t features);

/* A control command failed with error on the device id (UINT32_MAX: none yet). */
void ublk_why_command(uint32_t op, uint32_t id, int error, char ret_text[UBLK_WHY_BYTES]);

/* Whether the driver has no such command: an older one, or (EINVAL) for one without privileges. */
bool ublk_why_lacks(int error);

#endif
