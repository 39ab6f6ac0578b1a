/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_oracle - the oracle forbids what it has to, and nothing else
 *
 * Each test is a short history and what may be read.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "tests/sim/oracle.h"

static struct oracle oracle;
static char text[ORACLE_TEXT];

static void setup(void)
{
	oracle_init(&oracle, 8);
}

static void teardown(void)
{
	oracle_done(&oracle);
}

TestSuite(oracle, .init = setup, .fini = teardown);

/* A write of these sectors of block 0. */
static uint32_t begin_write(unsigned first, unsigned end, uint32_t id, bool fua)
{
	uint32_t op = oracle_begin(&oracle, fua, "write");

	for (unsigned s = first; s < end; s++)
		oracle_writes(&oracle, op, 0, s, id);
	oracle_enter(&oracle, op, 0, false);
	return op;
}

static void end(uint32_t op, enum oracle_result result)
{
	oracle_end(&oracle, op, result);
	oracle_leave(&oracle, 0);
}

static uint32_t write_all(uint32_t id, bool fua)
{
	uint32_t op = begin_write(0, 8, id, fua);

	end(op, ORACLE_OK);
	return op;
}

static void flush(void)
{
	uint32_t op = oracle_begin(&oracle, false, "flush");

	oracle_end(&oracle, op, ORACLE_OK);
	oracle_flushed(&oracle, op);
}

static void discard(void)
{
	uint32_t op = oracle_begin(&oracle, false, "discard");

	oracle_punches(&oracle, op, 0);
	oracle_enter(&oracle, op, 0, false);
	end(op, ORACLE_OK);
	oracle_is_hole(&oracle, op, 0);
}

static bool crash(const uint32_t *ids)
{
	return oracle_crash_block(&oracle, 0, ids, false, text);
}

static bool crash_all(uint32_t id)
{
	uint32_t ids[BLOCK_SECTORS];

	for (unsigned s = 0; s < BLOCK_SECTORS; s++)
		ids[s] = id;
	return crash(ids);
}

static bool crash_mixed(uint32_t first, uint32_t others)
{
	uint32_t ids[BLOCK_SECTORS] = {first,  others, others, others,
				       others, others, others, others};

	return crash(ids);
}

static bool live(uint32_t id)
{
	uint32_t op = oracle_begin(&oracle, false, "read");
	bool allowed = oracle_read(&oracle, op, 0, 0, id, text);

	oracle_end(&oracle, op, ORACLE_OK);
	return allowed;
}

Test(oracle, before_a_flush_old_and_new_may_be_left)
{
	write_all(1, true);
	write_all(2, false);
	cr_assert(crash_all(1));
	cr_assert(crash_all(2));
	cr_assert_not(crash_all(3));
	cr_assert_not(crash_all(CONTENT_ZERO));
}

Test(oracle, sectors_of_a_write_in_place_are_torn_freely)
{
	write_all(1, true);
	write_all(2, false);
	cr_assert(crash_mixed(2, 1));
}

Test(oracle, after_a_flush_only_the_new_one)
{
	write_all(1, false);
	write_all(2, false);
	flush();
	cr_assert(crash_all(2));
	cr_assert_not(crash_all(1));
}

Test(oracle, a_flush_does_not_cover_what_was_answered_after_its_submission)
{
	uint32_t op, flushing;

	write_all(1, true);
	op = begin_write(0, 8, 2, false);
	flushing = oracle_begin(&oracle, false, "flush");
	end(op, ORACLE_OK);
	oracle_end(&oracle, flushing, ORACLE_OK);
	oracle_flushed(&oracle, flushing);
	cr_assert(crash_all(1));
	cr_assert(crash_all(2));
}

Test(oracle, of_two_at_once_either_is_durable)
{
	uint32_t a, b;

	write_all(9, true);
	a = begin_write(0, 8, 1, false);
	b = begin_write(0, 8, 2, false);
	end(a, ORACLE_OK);
	end(b, ORACLE_OK);
	flush();
	cr_assert(crash_all(1));
	cr_assert(crash_all(2));
	cr_assert_not(crash_all(9));
}

Test(oracle, a_failed_write_may_be_there_but_makes_nothing_durable)
{
	write_all(1, true);
	end(begin_write(0, 8, 2, true), ORACLE_FAILED);
	flush();
	cr_assert(crash_all(1));
	cr_assert(crash_all(2));
	write_all(3, true);
	cr_assert_not(crash_all(1));
	cr_assert_not(crash_all(2));
}

Test(oracle, a_refused_write_is_nowhere)
{
	write_all(1, true);
	end(begin_write(0, 8, 2, false), ORACLE_REFUSED);
	cr_assert_not(crash_all(2));
	cr_assert_not(live(2));
}

Test(oracle, a_first_write_is_whole)
{
	uint32_t op = begin_write(0, 2, 5, false);
	const uint32_t whole[] = {5, 5, 0, 0, 0, 0, 0, 0}, half[] = {5, 0, 0, 0, 0, 0, 0, 0};

	end(op, ORACLE_OK);
	cr_assert(crash(whole));
	cr_assert(crash_all(CONTENT_ZERO));
	cr_assert_not(crash(half));
}

Test(oracle, nothing_older_than_a_discard_is_mixed_with_what_came_after)
{
	const uint32_t mixed[] = {5, 1, 1, 1, 1, 1, 1, 1}, good[] = {5, 0, 0, 0, 0, 0, 0, 0};

	write_all(1, true);
	discard();
	end(begin_write(0, 1, 5, false), ORACLE_OK);
	cr_assert(crash_all(1));
	cr_assert(crash_all(CONTENT_ZERO));
	cr_assert(crash(good));
	cr_assert_not(crash(mixed));
}

Test(oracle, a_write_to_a_shared_block_is_whole)
{
	const uint32_t mixed[] = {5, 1, 2, 2, 2, 2, 2, 2}, good[] = {5, 2, 2, 2, 2, 2, 2, 2};
	uint32_t clone;

	write_all(1, true);
	write_all(2, false); /* in place */
	clone = oracle_begin(&oracle, false, "clone");
	oracle_clones(&oracle, clone, 1, 0);
	oracle_enter(&oracle, clone, 1, false);
	oracle_end(&oracle, clone, ORACLE_OK);
	oracle_leave(&oracle, 1);
	oracle_is_shared(&oracle, clone, 1, 0);
	end(begin_write(0, 1, 5, false), ORACLE_OK);
	cr_assert(crash_mixed(2, 1));
	cr_assert(crash(good));
	cr_assert_not(crash(mixed));
}

Test(oracle, a_boundary_that_may_have_been_overtaken_proves_nothing)
{
	const uint32_t torn[] = {5, 0, 0, 0, 0, 0, 0, 0};
	uint32_t slow = begin_write(0, 2, 5, false);

	/* This one may have been the first write, and the slow one in place. */
	end(begin_write(4, 5, 6, false), ORACLE_OK);
	end(slow, ORACLE_OK);
	cr_assert(crash(torn));
}

Test(oracle, a_clone_is_what_its_source_could_be_read_as)
{
	const uint32_t ones[] = {1, 1, 1, 1, 1, 1, 1, 1}, twos[] = {2, 2, 2, 2, 2, 2, 2, 2};
	const uint32_t nines[] = {9, 9, 9, 9, 9, 9, 9, 9};
	uint32_t clone, write;

	write_all(9, true);
	write_all(1, false);
	clone = oracle_begin(&oracle, true, "clone");
	oracle_clones(&oracle, clone, 1, 0);
	oracle_enter(&oracle, clone, 1, false);
	write = begin_write(0, 8, 2, false);
	cr_assert(oracle_crash_block(&oracle, 1, ones, false, text));
	cr_assert(oracle_crash_block(&oracle, 1, twos, false, text));
	cr_assert_not(oracle_crash_block(&oracle, 1, nines, false, text));
	oracle_end(&oracle, clone, ORACLE_OK);
	oracle_leave(&oracle, 1);
	end(write, ORACLE_OK);
	cr_assert(oracle_crash_block(&oracle, 1, ones, false, text));
	cr_assert(oracle_crash_block(&oracle, 1, twos, false, text));
	cr_assert_not(
		oracle_crash_block(&oracle, 1, (const uint32_t[BLOCK_SECTORS]){0}, false, text));
}

Test(oracle, garbage_is_left_by_an_unfinished_write_in_place_only)
{
	uint32_t ids[BLOCK_SECTORS] = {CONTENT_GARBAGE, 1, 1, 1, 1, 1, 1, 1};
	uint32_t op;

	write_all(1, true);
	cr_assert_not(oracle_crash_block(&oracle, 0, ids, true, text));
	op = begin_write(0, 1, 2, false);
	cr_assert(oracle_crash_block(&oracle, 0, ids, true, text));
	cr_assert_not(oracle_crash_block(&oracle, 0, ids, false, text));
	end(op, ORACLE_OK);
	cr_assert_not(oracle_crash_block(&oracle, 0, ids, true, text));
}

Test(oracle, a_first_write_leaves_no_garbage)
{
	uint32_t ids[BLOCK_SECTORS] = {CONTENT_GARBAGE};

	begin_write(0, 8, 2, false);
	cr_assert_not(oracle_crash_block(&oracle, 0, ids, true, text));
}

Test(oracle, a_live_read_returns_the_last_answered_write)
{
	write_all(1, false);
	write_all(2, false);
	cr_assert(live(2));
	cr_assert_not(live(1));
}

Test(oracle, what_was_read_once_does_not_go_back)
{
	uint32_t op;

	write_all(1, false);
	op = begin_write(0, 8, 2, false);
	cr_assert(live(1));
	cr_assert(live(2));
	cr_assert_not(live(1));
	end(op, ORACLE_OK);
}

Test(oracle, recovery_makes_what_was_read_durable)
{
	const uint32_t ids[BLOCK_SECTORS] = {1, 1, 1, 1, 1, 1, 1, 1};

	write_all(1, true);
	write_all(2, false);
	oracle_recovered(&oracle);
	oracle_recovered_block(&oracle, 0, ids, false);
	cr_assert(crash_all(1));
	cr_assert_not(crash_all(2));
}
