/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * session - a control server over the fake engine, and raw connections to it, for tests
 *
 * The socket is in a temporary folder; so is SAMEBLK_CONTROL_DIR. Anything unexpected
 * fails the test.
 */
#ifndef TESTS_SERVER_CONTROL_SESSION_H
#define TESTS_SERVER_CONTROL_SESSION_H

#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "server/control/ctl_server.h"
#include "tests/server/control/fake_engine.h"

struct session {
	char folder[64];
	char path[96];
	struct volume *volume;
	struct ctl_server *server;
	_Atomic unsigned stops; /* how often the server asked to be stopped */
	bool has_device; /* set it before session_begin() */
	int detach_result;
	bool detach_force; /* as the last one was asked for */
	_Atomic int nbd_error; /* what handing out an NBD connection fails with; 0: it does not */
	_Atomic int nbd_fd; /* our end of the last one that was handed out */
};

/* times NULL: the defaults. */
void session_begin(struct session *session, const struct ctl_times *times);
void session_end(struct session *session);

int session_connect(const struct session *session);
void session_send(int fd, const char *text);
/* The next line as JSON; NULL: the server has closed the connection. Waits 10 seconds at most. */
json_t *session_answer(int fd);
/* The same, with the descriptor that came with it; -1: none. */
json_t *session_answer_fd(int fd, int *ret_passed);
/* send and answer */
json_t *session_ask(int fd, const char *text);
/* "EINVAL" of an error answer; "" of a result; "closed" if there is no answer. Releases it. */
const char *session_fault(json_t *answer);

/* Waits until the condition holds, for 10 seconds at most, and then fails the test. */
#define session_wait(condition)                                                                    \
	do {                                                                                       \
		for (int tries_ = 0; !(condition) && tries_ < 10000; tries_++)                     \
			usleep(1000);                                                              \
		cr_assert(condition);                                                              \
	} while (0)

#endif
