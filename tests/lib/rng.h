/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * rng - chance that a seed decides: splitmix64
 *
 * The same seed gives the same numbers on every machine. No global state, no memory, no locks.
 */
#ifndef TESTS_LIB_RNG_H
#define TESTS_LIB_RNG_H

#include <stdbool.h>
#include <stdint.h>

struct rng {
	uint64_t state;
};

static inline uint64_t rng_u64(struct rng *rng)
{
	uint64_t z = (rng->state += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

/* 0 to n-1; n must not be 0. */
static inline uint32_t rng_below(struct rng *rng, uint32_t n)
{
	return (uint32_t)((rng_u64(rng) >> 32) * n >> 32);
}

/* True once in n times. */
static inline bool rng_once_in(struct rng *rng, uint32_t n)
{
	return rng_below(rng, n) == 0;
}

/* A stream of its own for each pair of numbers. */
static inline struct rng rng_for(uint64_t seed, uint64_t stream)
{
	struct rng rng = {seed ^ (stream * 0xd6e8feb86659fd93ull)};

	rng.state = rng_u64(&rng) + stream;
	return rng;
}

#endif
