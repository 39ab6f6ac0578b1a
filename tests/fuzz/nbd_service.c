/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/fuzz/nbd_service.h"

#include <semaphore.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/volume/volume.h"
#include "server/loop/loop.h"
#include "server/nbd/nbd_server.h"
#include "server/store/store_file.h"
#include "tests/fuzz/fuzz.h"

#define BUFFER_BYTES (4u << 20)

struct service {
	struct store *store;
	struct volume *volume;
	struct loop loop;
	struct nbd_server nbd;
	sem_t idle;
};

static struct service service;

static void open_store(uint64_t store_bytes)
{
	struct store_file_options options = {.lanes = 1};
	const char *message = "";
	char path[64];
	int fd = memfd_create("store", 0), r;

	FUZZ_CHECK(fd >= 0 && ftruncate(fd, (off_t)store_bytes) == 0, "no file in memory");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	r = store_file_open(path, &options, &service.store, &message);
	FUZZ_CHECK(r == 0, "the store: %d, %s", r, message);
}

static void gone(void *context)
{
	(void)context;
	sem_post(&service.idle);
}

void nbd_service_start(void)
{
	struct volume_format_options format = {
		.logical_bytes = SERVICE_VOLUME_BYTES,
		.uuid = "sixteen octets..",
	};
	struct volume_options options = {.cache_bytes = 1 << 20};
	struct nbd_export export = {.name = "disk", .size_bytes = SERVICE_VOLUME_BYTES};
	struct loop *loop = &service.loop;
	struct worker *worker = &loop->worker;
	struct damage damage = {.text = ""};
	int r;

	/* Twice its size: nothing fails for lack of space. */
	open_store(2 * volume_store_bytes_for(SERVICE_VOLUME_BYTES, 0));
	r = volume_format(service.store, &format, &damage);
	FUZZ_CHECK(r == 0, "formatting: %d, %s", r, damage.text);
	r = loop_init(loop, service.store, 0, BUFFER_BYTES);
	FUZZ_CHECK(r == 0, "a loop: %d", r);
	r = volume_open(service.store, &options, &worker, 1, &service.volume, &damage);
	FUZZ_CHECK(r == 0, "opening: %d, %s", r, damage.text);
	r = loop_start(loop);
	FUZZ_CHECK(r == 0, "starting: %d", r);
	r = nbd_server_init(&service.nbd, &loop, 1, service.volume, &export,
			    NBD_CONNECTIONS_DEFAULT);
	FUZZ_CHECK(r == 0, "a server: %d", r);
	sem_init(&service.idle, 0, 0);
	service.nbd.idle = gone;
	nbd_server_start(&service.nbd);
}

int nbd_service_connect(void)
{
	int ends[2];

	FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0, "no sockets");
	nbd_server_adopt(&service.nbd, ends[0]);
	return ends[1];
}

void nbd_service_wait(void)
{
	while (sem_wait(&service.idle) < 0)
		;
}
