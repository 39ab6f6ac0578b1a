/* SPDX-License-Identifier: GPL-2.0-or-later */
/* store_gate - see the header */
#include "server/store/store_gate.h"

#include <assert.h>

void store_gate_init(struct store_gate *gate)
{
	*gate = (struct store_gate){0};
	pthread_mutex_init(&gate->lock, NULL);
	pthread_cond_init(&gate->open, NULL);
}

void store_gate_done(struct store_gate *gate)
{
	assert(gate->fetching == 0 && gate->punching == 0);
	pthread_cond_destroy(&gate->open);
	pthread_mutex_destroy(&gate->lock);
}

void store_gate_enter(struct store_gate *gate)
{
	pthread_mutex_lock(&gate->lock);
	while (gate->punching > 0 || gate->wanted)
		pthread_cond_wait(&gate->open, &gate->lock);
	gate->fetching++;
	pthread_mutex_unlock(&gate->lock);
}

void store_gate_leave(struct store_gate *gate)
{
	pthread_mutex_lock(&gate->lock);
	assert(gate->fetching > 0);
	gate->fetching--;
	pthread_mutex_unlock(&gate->lock);
}

bool store_gate_try_punch(struct store_gate *gate)
{
	bool begun;

	pthread_mutex_lock(&gate->lock);
	begun = gate->fetching == 0;
	gate->wanted = !begun;
	gate->punching += begun;
	pthread_mutex_unlock(&gate->lock);
	return begun;
}

void store_gate_end_punch(struct store_gate *gate)
{
	pthread_mutex_lock(&gate->lock);
	assert(gate->punching > 0);
	if (--gate->punching == 0 && !gate->wanted)
		pthread_cond_broadcast(&gate->open);
	pthread_mutex_unlock(&gate->lock);
}
