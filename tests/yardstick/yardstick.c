/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * yardstick - what tools/bench same holds the server against: the kernel's dedupe, and memcmp
 *
 *     yardstick dedupe FILE SRC DST LEN REQUEST
 *     yardstick memcmp FILE SRC DST LEN
 *
 * dedupe   FIDEDUPERANGE of LEN bytes at DST with those at SRC of one file, in requests of REQUEST
 *          bytes, one after the other; a request that the kernel cuts short goes on from there, as
 *          callers of it have to. Every byte must come back as deduped, or it fails.
 * memcmp   the two ranges are mapped and compared by one thread, twice: the first time the kernel
 *          makes the page tables, the second time they are there.
 *
 * Prints one JSON object: seconds (of each pass for memcmp), requests and deduped bytes.
 *
 * Units     bytes. Exit status: 0, or 1 with a sentence on stderr.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define STEP_BYTES (1u << 20)

static double clock_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int fail(const char *what, const char *why)
{
	fprintf(stderr, "yardstick: %s: %s\n", what, why);
	return 1;
}

/* One request; the bytes that were deduped, or -1 and a sentence. */
static int64_t dedupe_once(int fd, uint64_t src, uint64_t dst, uint64_t len)
{
	union {
		struct file_dedupe_range range;
		uint8_t bytes[sizeof(struct file_dedupe_range) +
			      sizeof(struct file_dedupe_range_info)];
	} ask;

	memset(&ask, 0, sizeof(ask));
	ask.range.src_offset = src;
	ask.range.src_length = len;
	ask.range.dest_count = 1;
	ask.range.info[0].dest_fd = fd;
	ask.range.info[0].dest_offset = dst;
	if (ioctl(fd, FIDEDUPERANGE, &ask.range) < 0) {
		fail("FIDEDUPERANGE", strerror(errno));
		return -1;
	}
	if (ask.range.info[0].status != FILE_DEDUPE_RANGE_SAME) {
		fail("FIDEDUPERANGE", ask.range.info[0].status < 0
					      ? strerror(-ask.range.info[0].status)
					      : "the ranges differ");
		return -1;
	}
	return (int64_t)ask.range.info[0].bytes_deduped;
}

static int dedupe(int fd, uint64_t src, uint64_t dst, uint64_t len, uint64_t request)
{
	uint64_t requests = 0, done = 0;
	double begin_s = clock_s();

	while (done < len) {
		uint64_t rest = len - done;
		int64_t got =
			dedupe_once(fd, src + done, dst + done, rest < request ? rest : request);

		if (got <= 0)
			return got < 0 ? 1 : fail("FIDEDUPERANGE", "no progress");
		done += (uint64_t)got;
		requests++;
	}
	printf("{\"seconds\": %.6f, \"requests\": %" PRIu64 ", \"bytes\": %" PRIu64 "}\n",
	       clock_s() - begin_s, requests, done);
	return 0;
}

/* The seconds of one pass; negative: they differ. */
static double compare_once(const uint8_t *a, const uint8_t *b, uint64_t len)
{
	double begin_s = clock_s();

	for (uint64_t at = 0; at < len; at += STEP_BYTES) {
		uint64_t step = len - at < STEP_BYTES ? len - at : STEP_BYTES;

		if (memcmp(a + at, b + at, step) != 0)
			return -1;
	}
	return clock_s() - begin_s;
}

static int compare(int fd, uint64_t src, uint64_t dst, uint64_t len)
{
	const uint8_t *a = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, (off_t)src);
	const uint8_t *b = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, (off_t)dst);
	double first_s, second_s;

	if (a == MAP_FAILED || b == MAP_FAILED)
		return fail("mmap", strerror(errno));
	first_s = compare_once(a, b, len);
	second_s = compare_once(a, b, len);
	if (first_s < 0 || second_s < 0)
		return fail("memcmp", "the ranges differ");
	printf("{\"first_seconds\": %.6f, \"seconds\": %.6f, \"bytes\": %" PRIu64 "}\n", first_s,
	       second_s, len);
	return 0;
}

int main(int argc, char **argv)
{
	bool dedupes = argc == 7 && strcmp(argv[1], "dedupe") == 0;
	uint64_t numbers[4] = {0};
	int fd;

	if (!dedupes && !(argc == 6 && strcmp(argv[1], "memcmp") == 0))
		return fail("usage", "yardstick dedupe FILE SRC DST LEN REQUEST | "
				     "yardstick memcmp FILE SRC DST LEN");
	for (int i = 3; i < argc; i++) {
		char *end;

		numbers[i - 3] = strtoull(argv[i], &end, 10);
		if (*end != '\0' || (i > 4 && numbers[i - 3] == 0))
			return fail(argv[i], "no number of bytes");
	}
	fd = open(argv[2], (dedupes ? O_RDWR : O_RDONLY) | O_CLOEXEC);
	if (fd < 0)
		return fail(argv[2], strerror(errno));
	return dedupes ? dedupe(fd, numbers[0], numbers[1], numbers[2], numbers[3])
		       : compare(fd, numbers[0], numbers[1], numbers[2]);
}
