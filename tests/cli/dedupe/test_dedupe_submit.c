/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_dedupe_submit - matches carried out by a control server over the fake engine
 *
 * Block L of the fake volume has the content L % FAKE_PERIOD; see fake_engine.h.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "cli/dedupe/dedupe_submit.h"
#include "tests/server/control/session.h"

static struct session session;
static struct client client;
static struct dedupe_progress progress;
static struct dedupe_list list;
static struct dedupe_submit submit;
static struct dedupe_rate rate;

static void begin(void)
{
	session_begin(&session, NULL);
	cr_assert_eq(client_open(session.path, &client), 0);
	progress = (struct dedupe_progress){.show = DEDUPE_SHOW_NOTHING};
	dedupe_progress_start(&progress);
	cr_assert_eq(dedupe_list_init(&list, 1u << 20), 0);
	dedupe_submit_init(&submit, &client, &rate, &progress);
}

static void end(void)
{
	dedupe_submit_done(&submit);
	dedupe_list_done(&list);
	client_close(&client);
	session_end(&session);
}

static void add(uint64_t src_block, uint64_t dst_block, uint64_t blocks)
{
	struct dedupe_match match = {src_block, dst_block, blocks};

	cr_assert_eq(dedupe_list_add(&list, &match), 0);
}

Test(dedupe_submit, the_account_is_what_the_server_says)
{
	begin();
	for (uint64_t i = 1; i < 100; i++)
		add(1, i * FAKE_PERIOD + 1, 100);
	cr_assert_eq(dedupe_submit_run(&submit, &list), 0);
	cr_assert_eq(progress.account.requests, 1, "copies of one run go out together");
	cr_assert_eq(progress.account.freed_bytes, 99 * 100 * BLOCK_BYTES);
	cr_assert_eq(progress.account.merged_bytes, 99 * 100 * BLOCK_BYTES);
	cr_assert_eq(progress.account.errors, 0);
	/* Once more: nothing is left to free. */
	add(1, FAKE_PERIOD + 1, 100);
	cr_assert_eq(dedupe_submit_run(&submit, &list), 0);
	cr_assert_eq(progress.account.freed_bytes, 99 * 100 * BLOCK_BYTES);
	cr_assert_eq(progress.account.merged_bytes, 99 * 100 * BLOCK_BYTES);
	end();
}

static uint64_t rejected_sum;

static int note_rejected(void *context, uint64_t dst_block)
{
	(void)context;
	rejected_sum += dst_block;
	return 0;
}

/* Goal: one block that was written meanwhile costs that block, and not its run. */
Test(dedupe_submit, a_block_that_changed_is_rejected_and_its_neighbours_are_merged)
{
	begin();
	fake_write(session.volume, (FAKE_PERIOD + 40) * BLOCK_BYTES, 9999);
	fake_write(session.volume, (FAKE_PERIOD + 41) * BLOCK_BYTES, 9999);
	fake_write(session.volume, (FAKE_PERIOD + 100) * BLOCK_BYTES, 9999);
	add(1, FAKE_PERIOD + 1, 100);
	submit.rejected = note_rejected;
	cr_assert_eq(dedupe_submit_run(&submit, &list), 0);
	cr_assert_eq(rejected_sum, 3 * FAKE_PERIOD + 40 + 41 + 100);
	cr_assert_eq(progress.account.rejected_bytes, 3 * BLOCK_BYTES);
	cr_assert_eq(progress.account.freed_bytes, 97 * BLOCK_BYTES);
	cr_assert_eq(progress.account.errors, 0);
	end();
}

Test(dedupe_submit, zeros_become_holes)
{
	begin();
	fake_write(session.volume, 7 * BLOCK_BYTES, 0);
	fake_write(session.volume, 8 * BLOCK_BYTES, 0);
	add(DEDUPE_ZERO, 7, 3);
	cr_assert_eq(dedupe_submit_run(&submit, &list), 0);
	cr_assert_eq(progress.account.freed_bytes, 2 * BLOCK_BYTES);
	cr_assert_eq(progress.account.rejected_bytes, BLOCK_BYTES);
	end();
}

/* Goal: when a block has all the references it can have, the next copy takes its place. */
Test(dedupe_submit, a_full_source_is_replaced_by_the_next_copy)
{
	begin();
	fake_set_references_max(session.volume, 10);
	for (uint64_t i = 1; i <= 95; i++)
		add(5, i * FAKE_PERIOD + 5, 1);
	cr_assert_eq(dedupe_submit_run(&submit, &list), 0);
	/* 96 copies, ten to a block: ten blocks, of which one was there before. */
	cr_assert_eq(progress.account.kept_bytes, 9 * BLOCK_BYTES);
	cr_assert_eq(progress.account.freed_bytes, 86 * BLOCK_BYTES);
	cr_assert_eq(progress.account.errors, 0);
	end();
}

Test(dedupe_submit, a_full_block_inside_a_run_costs_that_block)
{
	begin();
	fake_set_references_max(session.volume, 3);
	add(50, FAKE_PERIOD + 50, 1);
	add(50, 2 * FAKE_PERIOD + 50, 1);
	cr_assert_eq(dedupe_submit_run(&submit, &list), 0);
	cr_assert_eq(progress.account.freed_bytes, 2 * BLOCK_BYTES);
	add(1, 3 * FAKE_PERIOD + 1, 100);
	cr_assert_eq(dedupe_submit_run(&submit, &list), 0);
	cr_assert_eq(progress.account.kept_bytes, BLOCK_BYTES);
	cr_assert_eq(progress.account.freed_bytes, 101 * BLOCK_BYTES);
	cr_assert_eq(progress.account.errors, 0);
	end();
}

Test(dedupe_submit, a_destination_that_fails_is_an_error_and_the_others_go_on)
{
	begin();
	add(1, FAKE_BYTES / BLOCK_BYTES - 1, 2);
	add(3, FAKE_PERIOD + 3, 1);
	cr_assert_eq(dedupe_submit_run(&submit, &list), 0);
	cr_assert_eq(progress.account.errors, 1);
	cr_assert_eq(progress.account.freed_bytes, BLOCK_BYTES);
	end();
}

Test(dedupe_submit, many_requests_are_in_flight)
{
	begin();
	fake_hold(session.volume, false, true);
	for (uint64_t i = 1; i < 200; i++)
		add(i, FAKE_PERIOD + i, 1);
	cr_assert_eq(dedupe_submit_run(&submit, &list), 0);
	cr_assert_gt(fake_running_most(session.volume), 1);
	cr_assert_eq(progress.account.freed_bytes, 199 * BLOCK_BYTES);
	end();
}
