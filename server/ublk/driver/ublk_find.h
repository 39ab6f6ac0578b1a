/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ublk_find - the ublk devices of this machine, and who has one of them open
 *
 * Errors    0 or a negative errno.
 * Threads   any. Blocking: who has it open is read from /proc and /sys; opening a device may make
 *           the kernel read its partition table, so never on a thread that serves one.
 */
#ifndef SERVER_UBLK_DRIVER_UBLK_FIND_H
#define SERVER_UBLK_DRIVER_UBLK_FIND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "server/ublk/driver/ublk_control.h"

#define UBLK_PATH_BYTES 32u

void ublk_block_path(uint32_t id, char ret_path[UBLK_PATH_BYTES]);
void ublk_char_path(uint32_t id, char ret_path[UBLK_PATH_BYTES]);

/* The numbers of all devices, in order; to be freed. */
int ublk_find_ids(uint32_t **ret_ids, size_t *ret_count);

/* The device with this mark. ENOENT: there is none. */
int ublk_find_mark(struct ublk_control *control, uint64_t mark, struct ublk_info *ret_info);

/* Opens /dev/ublkcN, which only one can: EBUSY says that a server has it, or just gets it up or
 * takes it over. Close it before the device is deleted. */
int ublk_hold(uint32_t id, int *ret_fd);

struct ublk_claim_how {
	bool write_back; /* also what the kernel has cached of it, for which it must be served */
	bool driver_counts; /* the driver refuses to stop it if anybody else has it open */
};

/* Claims the device, so that nobody mounts it from now on. EBUSY: it is mounted, claimed or open;
 * reterr_who then says by whom, as far as that can be seen. *ret_fd: close it when the device has
 * been stopped. */
int ublk_claim(uint32_t id, const struct ublk_claim_how *how, int *ret_fd, char *reterr_who,
	       size_t who_bytes);

/* Who has it open, of whom the driver said that there is somebody. */
void ublk_say_user(uint32_t id, char *ret_who, size_t who_bytes);

#endif
