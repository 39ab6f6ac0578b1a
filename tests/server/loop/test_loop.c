/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_loop - what goes on by itself takes turns with all else
 */
#include <criterion/criterion.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "server/loop/loop.h"
#include "server/store/store_file.h"

#define CHAIN_MOST 10000u
#define TURNS_MOST 8u

static struct loop loop;
static struct store *store;

/* A chain of store I/O, each begun when the one before is done, as merges are. */
static struct chain {
	struct task task;
	struct task letter;
	struct loop_soon soon;
	struct store_io io;
	uint8_t bytes[4096];
	unsigned count;
	unsigned soon_at; /* how long the chain was when each had its turn */
	unsigned letter_at;
	_Atomic bool ended;
} chain;

static void next(void)
{
	chain.io.op = STORE_WRITE;
	chain.io.buf = chain.bytes;
	chain.io.len_bytes = sizeof(chain.bytes);
	store_submit(store, &chain.io);
}

static void io_done(struct store_io *io, int res)
{
	(void)io;
	cr_assert_eq(res, 0);
	chain.count++;
	if (chain.count < CHAIN_MOST && (chain.soon_at == 0 || chain.letter_at == 0))
		next();
	else
		atomic_store(&chain.ended, true);
}

static void run_soon(struct loop_soon *soon)
{
	(void)soon;
	chain.soon_at = chain.count + 1;
}

static void run_letter(struct task *task)
{
	(void)task;
	chain.letter_at = chain.count + 1;
}

static void begin(struct task *task)
{
	(void)task;
	chain.io.done = io_done;
	next();
	loop_run_soon(&loop, &chain.soon);
	worker_post(&chain.letter);
}

/* Goal: a client's socket and the mailbox do not wait for the end of a batch of merges. */
Test(loop, sockets_and_mailbox_have_their_turn_while_the_store_always_has_something, .timeout = 60)
{
	char path[] = "/tmp/sameblk-loop.XXXXXX";
	const struct store_file_options options = {.create_bytes = 1u << 20};
	const char *message;
	int fd = mkstemp(path);

	cr_assert_geq(fd, 0);
	close(fd);
	unlink(path);
	cr_assert_eq(store_file_open(path, &options, &store, &message), 0, "%s", message);
	cr_assert_eq(loop_init(&loop, store, 0, 1u << 20), 0);
	list_init(&chain.soon.node);
	chain.soon.run = run_soon;
	chain.letter = (struct task){.worker = &loop.worker, .run = run_letter};
	chain.task = (struct task){.worker = &loop.worker, .run = begin};
	cr_assert_eq(loop_start(&loop), 0);
	worker_post(&chain.task);
	while (!atomic_load(&chain.ended))
		usleep(1000);
	loop_stop(&loop);
	loop_join(&loop);
	cr_assert_gt(chain.soon_at, 0);
	cr_assert_gt(chain.letter_at, 0);
	cr_assert_leq(chain.soon_at, TURNS_MOST);
	cr_assert_leq(chain.letter_at, TURNS_MOST);
	loop_done(&loop);
	store_close(store);
	unlink(path);
}
