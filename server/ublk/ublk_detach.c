/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ublk_detach - see the header */
#include "server/ublk/ublk_detach.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

void ublk_detach_init(struct ublk_detach *detach, void (*wake)(void *context), void *context)
{
	*detach = (struct ublk_detach){.wake = wake, .context = context};
	pthread_mutex_init(&detach->lock, NULL);
	pthread_cond_init(&detach->answered_cond, NULL);
}

void ublk_detach_done(struct ublk_detach *detach)
{
	pthread_cond_destroy(&detach->answered_cond);
	pthread_mutex_destroy(&detach->lock);
}

int ublk_detach_ask(struct ublk_detach *detach, bool force, char ret_text[UBLK_DETACH_TEXT_BYTES])
{
	int r = -ECANCELED;

	strcpy(ret_text, "the server is stopping");
	pthread_mutex_lock(&detach->lock);
	if (!detach->closed) {
		detach->asked = true;
		detach->answered = false;
		detach->force = force;
		detach->wake(detach->context);
		while (!detach->answered)
			pthread_cond_wait(&detach->answered_cond, &detach->lock);
		r = detach->result;
		strcpy(ret_text, detach->text);
	}
	pthread_mutex_unlock(&detach->lock);
	return r;
}

bool ublk_detach_take(struct ublk_detach *detach, bool *ret_force)
{
	bool asked;

	pthread_mutex_lock(&detach->lock);
	asked = detach->asked;
	*ret_force = detach->force;
	pthread_mutex_unlock(&detach->lock);
	return asked;
}

void ublk_detach_answer(struct ublk_detach *detach, int result, const char *text)
{
	pthread_mutex_lock(&detach->lock);
	detach->asked = false;
	detach->answered = true;
	detach->result = result;
	snprintf(detach->text, sizeof(detach->text), "%s", text);
	pthread_cond_signal(&detach->answered_cond);
	pthread_mutex_unlock(&detach->lock);
}

void ublk_detach_close(struct ublk_detach *detach)
{
	bool force;

	pthread_mutex_lock(&detach->lock);
	detach->closed = true;
	pthread_mutex_unlock(&detach->lock);
	if (ublk_detach_take(detach, &force))
		ublk_detach_answer(detach, -ECANCELED, "the server is stopping");
}
