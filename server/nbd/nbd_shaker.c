/* SPDX-License-Identifier: GPL-2.0-or-later */
/* nbd_shaker - see the header */
#include "server/nbd/nbd_shaker.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>

#include "core/base/list.h"

static void wake(struct worker *mailbox)
{
	sem_post(mailbox->wake_context);
}

void nbd_shaker_init(struct nbd_shaker *shaker)
{
	*shaker = (struct nbd_shaker){.has_thread = false};
	sem_init(&shaker->posted, 0, 0);
	pthread_mutex_init(&shaker->lock, NULL);
	worker_init(&shaker->mailbox, 0);
	shaker->mailbox.wake = wake;
	shaker->mailbox.wake_context = &shaker->posted;
}

void nbd_shaker_done(struct nbd_shaker *shaker)
{
	atomic_store(&shaker->stopping, true);
	sem_post(&shaker->posted);
	if (shaker->has_thread)
		pthread_join(shaker->thread, NULL);
	worker_done(&shaker->mailbox);
	pthread_mutex_destroy(&shaker->lock);
	sem_destroy(&shaker->posted);
}

static void *thread_main(void *argument)
{
	struct nbd_shaker *shaker = argument;

	prctl(PR_SET_NAME, "tls-handshakes");
	while (!atomic_load(&shaker->stopping)) {
		if (sem_wait(&shaker->posted) < 0)
			assert(errno == EINTR);
		while (worker_run(&shaker->mailbox))
			continue;
	}
	return NULL;
}

/* Begun by the first who needs it: most servers have no TLS. */
static bool has_thread(struct nbd_shaker *shaker)
{
	sigset_t all, before;
	bool has;

	pthread_mutex_lock(&shaker->lock);
	if (!shaker->has_thread) {
		sigfillset(&all);
		pthread_sigmask(SIG_SETMASK, &all, &before);
		shaker->has_thread =
			pthread_create(&shaker->thread, NULL, thread_main, shaker) == 0;
		pthread_sigmask(SIG_SETMASK, &before, NULL);
	}
	has = shaker->has_thread;
	pthread_mutex_unlock(&shaker->lock);
	return has;
}

static void back(struct task *task)
{
	struct nbd_shake *shake = container_of(task, struct nbd_shake, task);

	shake->done(shake);
}

static void step(struct task *task)
{
	struct nbd_shake *shake = container_of(task, struct nbd_shake, task);

	shake->res = shake->tls != NULL ? 0 : nbd_tls_new(shake->keys, shake->fd, &shake->tls);
	if (shake->res == 0)
		shake->res = nbd_tls_handshake(shake->tls);
	shake->task.worker = shake->owner;
	shake->task.run = back;
	worker_post(&shake->task);
}

void nbd_shaker_step(struct nbd_shaker *shaker, struct nbd_shake *shake)
{
	shake->task.run = step;
	shake->task.worker = &shaker->mailbox;
	if (has_thread(shaker))
		worker_post(&shake->task);
	else
		step(&shake->task);
}
