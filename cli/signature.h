/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * signature - what a store holds already, so that `create` overwrites nothing by mistake
 *
 * A volume of ours is known by its first block; filesystems, partition tables, RAID and LVM
 * members and the like by libblkid. No list of formats has all of them (an image of a virtual disk,
 * an archive, a database, a text), so what is known by no name counts as well: of a file, any
 * data at all, be they zeros, as a file without any costs nobody anything; where the file system
 * does not tell data from holes, all of it is data. A block device has no holes and is nobody's
 * to read to its end, so its first and last SIGNATURE_SAMPLE_BYTES have to read as zeros.
 *
 * Errors    0 or a negative errno. Blocking.
 */
#ifndef CLI_SIGNATURE_H
#define CLI_SIGNATURE_H

#define SIGNATURE_TEXT_BYTES   96
#define SIGNATURE_SAMPLE_BYTES (1u << 20)

/* 1: something was found, and text says what ("a sameblk volume", "ext4", "data from byte 0
 * on"). 0: nothing. */
int signature_find(int fd, char ret_text[SIGNATURE_TEXT_BYTES]);

/* Takes the foreign ones away, wherever they stand; fd must be writable. */
int signature_wipe(int fd);

#endif
