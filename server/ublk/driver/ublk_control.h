/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ublk_control - commands to the ublk driver, one at a time, each with a time limit
 *
 * The driver takes commands as io_uring operations of 128 bytes on /dev/ublk-control; the kernel
 * carries them out on a thread of its own, so the caller can stop waiting. A command that has not
 * ended by its limit is cancelled. One that does not even heed that keeps what it was given: the
 * control then answers ETIMEDOUT to everything, and its memory is left to the kernel.
 *
 * Errors    0 or a negative errno; ublk_control_why() has the sentence.
 * Memory    one page for what commands carry.
 * Threads   one, which must not be one that serves a queue: START waits for requests to be served.
 * Blocking  every command, up to its limit.
 */
#ifndef SERVER_UBLK_DRIVER_UBLK_CONTROL_H
#define SERVER_UBLK_DRIVER_UBLK_CONTROL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "server/ublk/driver/ublk_abi.h"
#include "server/ublk/driver/ublk_why.h"

struct ublk_control;

/* Opens the driver and asks what it can do. On failure *ret_control is NULL and reterr_why says
 * what is missing. */
int ublk_control_open(struct ublk_control **ret_control, char reterr_why[UBLK_WHY_BYTES]);
/* NULL is fine. */
void ublk_control_close(struct ublk_control *control);

/* While a device is made, between ADD and its server's having it open, it looks like one that
 * nobody needs. Whoever makes one holds the driver (with others), and whoever removes one (alone),
 * by a lock on its node. ETIMEDOUT: others kept it for too long. Closing gives it up. */
int ublk_control_hold(struct ublk_control *control, bool alone);
void ublk_control_let_go(struct ublk_control *control);

uint64_t ublk_control_features(const struct ublk_control *control);
/* Why the last command failed. */
const char *ublk_control_why(const struct ublk_control *control);

/* The next commands are about a device that was made without privileges. */
void ublk_control_set_unprivileged(struct ublk_control *control, bool unprivileged);

/* info: as asked for, then as granted. EPERM: try it with UBLK_F_UNPRIVILEGED. */
int ublk_control_add(struct ublk_control *control, struct ublk_info *info);
int ublk_control_info(struct ublk_control *control, uint32_t id, struct ublk_info *ret_info);
int ublk_control_set_params(struct ublk_control *control, uint32_t id,
			    const struct ublk_params *params);
int ublk_control_get_params(struct ublk_control *control, uint32_t id,
			    struct ublk_params *ret_params);

/* op: UBLK_CTL_START or UBLK_CTL_END_RECOVERY, which wait until all fetches are there. Ends early,
 * with ECANCELED, once give_up is set. server: the process that has /dev/ublkcN open. */
int ublk_control_go_live(struct ublk_control *control, uint32_t op, uint32_t id, pid_t server,
			 const _Atomic bool *give_up);

/* op: UBLK_CTL_STOP, TRY_STOP, START_RECOVERY. */
int ublk_control_plain(struct ublk_control *control, uint32_t op, uint32_t id);

/* Deletes a device that is stopped. used: it may still be open, and then its number stays taken
 * until the last one has closed it, which is not waited for; else it is free at return. */
int ublk_control_delete(struct ublk_control *control, uint32_t id, bool used);

#endif
