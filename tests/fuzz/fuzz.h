/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fuzz - what the fuzz targets share: an input read from front to back, and a check that stays on
 *
 * An input that ends too early reads as zeros, so that every input means something and a shorter
 * one means the same with less.
 *
 * Errors    FUZZ_CHECK() says what does not hold and aborts, which is how libFuzzer is told.
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define FUZZ_CHECK(holds, ...)                                                                     \
	do {                                                                                       \
		if (!(holds)) {                                                                    \
			fprintf(stderr, "%s:%d: %s does not hold: ", __FILE__, __LINE__, #holds);  \
			fprintf(stderr, __VA_ARGS__);                                              \
			fprintf(stderr, "\n");                                                     \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

/* libFuzzer's interface. */
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len_bytes);

struct input {
	const uint8_t *at;
	size_t left_bytes;
};

static inline uint8_t input_u8(struct input *input)
{
	if (input->left_bytes == 0)
		return 0;
	input->left_bytes--;
	return *input->at++;
}

static inline uint16_t input_u16(struct input *input)
{
	uint16_t low = input_u8(input);

	return (uint16_t)(low | input_u8(input) << 8);
}

#endif
