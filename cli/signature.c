/* SPDX-License-Identifier: GPL-2.0-or-later */
/* signature - see the header */
#include "cli/signature.h"

#include <blkid.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include "core/base/units.h"
#include "core/format.h"

#define WIPES_MAX 64 /* signatures on one store */

static blkid_probe open_probe(int fd)
{
	blkid_probe probe = blkid_new_probe();

	if (probe == NULL)
		return NULL;
	if (blkid_probe_set_device(probe, fd, 0, 0) != 0) {
		blkid_free_probe(probe);
		return NULL;
	}
	blkid_probe_enable_superblocks(probe, 1);
	blkid_probe_set_superblocks_flags(probe, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_MAGIC |
							 BLKID_SUBLKS_BADCSUM);
	blkid_probe_enable_partitions(probe, 1);
	blkid_probe_set_partitions_flags(probe, BLKID_PARTS_MAGIC | BLKID_PARTS_FORCE_GPT);
	return probe;
}

static int find_foreign(int fd, char ret_text[SIGNATURE_TEXT_BYTES])
{
	blkid_probe probe = open_probe(fd);
	const char *name = NULL;
	int r;

	if (probe == NULL)
		return -ENOMEM;
	r = blkid_do_probe(probe);
	if (r < 0) {
		blkid_free_probe(probe);
		return -EIO;
	}
	if (r == 0) {
		if (blkid_probe_lookup_value(probe, "TYPE", &name, NULL) == 0)
			snprintf(ret_text, SIGNATURE_TEXT_BYTES, "%s", name);
		else if (blkid_probe_lookup_value(probe, "PTTYPE", &name, NULL) == 0)
			snprintf(ret_text, SIGNATURE_TEXT_BYTES, "a partition table (%s)", name);
		else
			snprintf(ret_text, SIGNATURE_TEXT_BYTES, "something of another program");
	}
	blkid_free_probe(probe);
	return r == 0;
}

int signature_find(int fd, char ret_text[SIGNATURE_TEXT_BYTES])
{
	uint8_t head[BLOCK_BYTES];
	ssize_t got = pread(fd, head, sizeof(head), 0);

	if (got < 0)
		return -errno;
	if (got == (ssize_t)sizeof(head) && super_is_ours(head)) {
		snprintf(ret_text, SIGNATURE_TEXT_BYTES, "a sameblk volume");
		return 1;
	}
	return find_foreign(fd, ret_text);
}

int signature_wipe(int fd)
{
	blkid_probe probe = open_probe(fd);
	int r = 0;

	if (probe == NULL)
		return -ENOMEM;
	for (int i = 0; r == 0 && i < WIPES_MAX; i++) {
		r = blkid_do_probe(probe);
		if (r == 0 && blkid_do_wipe(probe, 0) != 0)
			r = -EIO;
	}
	blkid_free_probe(probe);
	if (r == 1)
		return fsync(fd) < 0 ? -errno : 0;
	return r < 0 ? -EIO : -ELOOP;
}
