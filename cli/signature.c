/* SPDX-License-Identifier: GPL-2.0-or-later */
/* signature - see the header */
#include "cli/signature.h"

#include <blkid.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/units.h"
#include "core/format/format.h"

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

/* --- what has no name --- */

static int find_file_data(int fd, char ret_text[SIGNATURE_TEXT_BYTES])
{
	off_t at = lseek(fd, 0, SEEK_DATA);

	if (at < 0 && errno == ENXIO)
		return 0;
	snprintf(ret_text, SIGNATURE_TEXT_BYTES, "data from byte %lld on", at < 0 ? 0ll : at);
	return 1;
}

static int find_device_data(int fd, char ret_text[SIGNATURE_TEXT_BYTES])
{
	off_t size = lseek(fd, 0, SEEK_END);
	uint8_t *sample = malloc(SIGNATURE_SAMPLE_BYTES);
	off_t starts[2] = {0, 0};
	int r = sample == NULL ? -ENOMEM : size < 0 ? -errno : 0;

	if (size > SIGNATURE_SAMPLE_BYTES)
		starts[1] = size - SIGNATURE_SAMPLE_BYTES;
	for (unsigned i = 0; r == 0 && i < 2; i++) {
		ssize_t got = pread(fd, sample, SIGNATURE_SAMPLE_BYTES, starts[i]);

		if (got < 0)
			r = -errno;
		for (ssize_t at = 0; r == 0 && at < got; at++) {
			if (sample[at] == 0)
				continue;
			snprintf(ret_text, SIGNATURE_TEXT_BYTES, "data at byte %lld",
				 (long long)(starts[i] + at));
			r = 1;
		}
	}
	free(sample);
	return r;
}

static int find_data(int fd, char ret_text[SIGNATURE_TEXT_BYTES])
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	return S_ISBLK(st.st_mode) ? find_device_data(fd, ret_text) : find_file_data(fd, ret_text);
}

int signature_find(int fd, char ret_text[SIGNATURE_TEXT_BYTES])
{
	uint8_t head[BLOCK_BYTES];
	ssize_t got = pread(fd, head, sizeof(head), 0);
	int r;

	if (got < 0)
		return -errno;
	if (got == (ssize_t)sizeof(head) && super_is_ours(head)) {
		snprintf(ret_text, SIGNATURE_TEXT_BYTES, "a sameblk volume");
		return 1;
	}
	r = find_foreign(fd, ret_text);
	return r == 0 ? find_data(fd, ret_text) : r;
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
