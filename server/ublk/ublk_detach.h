/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ublk_detach - the wish that the device be removed, from the control thread to the main thread and
 * its answer back
 *
 *   IDLE ----> ASKED ----> ANSWERED ----> IDLE
 *
 *   IDLE     -> ASKED     ublk_detach_ask     and the main thread is woken
 *   ASKED    -> ANSWERED  ublk_detach_answer  by the main thread, whatever came of it
 *   ANSWERED -> IDLE      ublk_detach_ask     returns
 *
 * Once closed, what is asked is answered with ECANCELED.
 *
 * Threads   ask on any one thread but the main thread; take, answer and close on the main thread.
 * Blocking  ask does, until the answer.
 */
#ifndef SERVER_UBLK_UBLK_DETACH_H
#define SERVER_UBLK_UBLK_DETACH_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "server/ublk/driver/ublk_why.h"

#define UBLK_DETACH_TEXT_BYTES UBLK_WHY_BYTES

struct ublk_detach {
	pthread_mutex_t lock;
	pthread_cond_t answered_cond;
	void (*wake)(void *context); /* the main thread */
	void *context;
	bool asked;
	bool answered;
	bool closed;
	bool force;
	int result; /* 0 or a negative errno */
	char text[UBLK_DETACH_TEXT_BYTES]; /* the device's path, or why not */
};

void ublk_detach_init(struct ublk_detach *detach, void (*wake)(void *context), void *context);
void ublk_detach_done(struct ublk_detach *detach);

int ublk_detach_ask(struct ublk_detach *detach, bool force, char ret_text[UBLK_DETACH_TEXT_BYTES]);
/* True: asked, so answer. */
bool ublk_detach_take(struct ublk_detach *detach, bool *ret_force);
void ublk_detach_answer(struct ublk_detach *detach, int result, const char *text);
void ublk_detach_close(struct ublk_detach *detach);

#endif
