/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * signature - what a store holds already, so that `create` overwrites nothing by mistake
 *
 * A volume of ours is known by its first block; filesystems, partition tables, RAID and LVM
 * members and the like by libblkid.
 *
 * Errors    0 or a negative errno. Blocking.
 */
#ifndef CLI_SIGNATURE_H
#define CLI_SIGNATURE_H

#define SIGNATURE_TEXT_BYTES 96

/* 1: something was found, and text says what ("a sameblk volume", "ext4"). 0: nothing. */
int signature_find(int fd, char ret_text[SIGNATURE_TEXT_BYTES]);

/* Takes the foreign ones away, wherever they stand; fd must be writable. */
int signature_wipe(int fd);

#endif
