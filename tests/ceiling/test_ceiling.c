/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_ceiling - what is held up as the ceiling does the whole work of serving a disk
 */
#include <criterion/criterion.h>
#include <endian.h>
#include <errno.h>
#include <libnbd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define SLOT_BYTES	  (1u << 20)
#define SLOTS		  16u
#define DISK_BYTES	  (SLOTS * SLOT_BYTES)
#define CONNECTIONS	  2u
#define REQUESTS_PER_SLOT 4u
#define REQUESTS	  (SLOTS * REQUESTS_PER_SLOT)
#define ROUNDS		  40u

static char folder[] = "/tmp/sameblk-ceiling.XXXXXX";
static char path[sizeof(folder) + 8];
static pid_t server;
static struct nbd_handle *connections[CONNECTIONS];
static uint8_t expected[DISK_BYTES], found[DISK_BYTES];

static void server_exec(int out)
{
	char size[16];

	/* A test that dies does not leave its server behind. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	snprintf(size, sizeof(size), "%u", DISK_BYTES);
	dup2(out, STDOUT_FILENO);
	execl(getenv("CEILING"), "ceiling", path, size, (char *)NULL);
	_exit(127);
}

static void setup(void)
{
	int out[2];
	char ready[6];

	cr_assert_not_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/socket", folder);
	cr_assert_eq(pipe(out), 0);
	server = fork();
	cr_assert_geq(server, 0);
	if (server == 0)
		server_exec(out[1]);
	close(out[1]);
	cr_assert_eq(read(out[0], ready, sizeof(ready)), sizeof(ready));
	for (unsigned i = 0; i < CONNECTIONS; i++) {
		connections[i] = nbd_create();
		cr_assert_not_null(connections[i]);
		/* What the server refuses is to reach it. */
		nbd_set_strict_mode(connections[i], 0);
		cr_assert_eq(nbd_connect_unix(connections[i], path), 0, "%s", nbd_get_error());
	}
}

static void teardown(void)
{
	for (unsigned i = 0; i < CONNECTIONS; i++)
		nbd_close(connections[i]);
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	unlink(path);
	rmdir(folder);
}

TestSuite(ceiling, .init = setup, .fini = teardown, .timeout = 60);

static void all_answered(struct nbd_handle *nbd)
{
	while (nbd_aio_in_flight(nbd) > 0)
		cr_assert_geq(nbd_poll(nbd, 10000), 1, "%s", nbd_get_error());
}

/* One request within a quarter of a slot that no other request of this round touches. */
static int64_t request_start(struct nbd_handle *nbd, uint64_t quarter)
{
	const uint32_t quarter_bytes = SLOT_BYTES / REQUESTS_PER_SLOT;
	uint32_t bytes_max = rand() % 2 == 0 ? 4096 : quarter_bytes;
	uint32_t bytes = 1 + (uint32_t)rand() % bytes_max;
	uint64_t off = quarter * quarter_bytes + (uint32_t)rand() % (quarter_bytes - bytes + 1);

	if (rand() % 2 == 0) {
		/* Or an answer without data would not be seen. */
		for (uint32_t i = 0; i < bytes; i++)
			found[off + i] = (uint8_t)~expected[off + i];
		return nbd_aio_pread(nbd, found + off, bytes, off, NBD_NULL_COMPLETION, 0);
	}
	for (uint32_t i = 0; i < bytes; i++)
		expected[off + i] = (uint8_t)rand();
	memcpy(found + off, expected + off, bytes);
	return nbd_aio_pwrite(nbd, found + off, bytes, off, NBD_NULL_COMPLETION, 0);
}

Test(ceiling, many_requests_of_all_sizes_at_once_keep_their_bytes)
{
	int64_t cookies[REQUESTS];

	srand(11);
	for (unsigned round = 0; round < ROUNDS; round++) {
		for (unsigned i = 0; i < REQUESTS; i++) {
			cookies[i] = request_start(connections[i % CONNECTIONS], i);
			cr_assert_gt(cookies[i], 0, "%s", nbd_get_error());
		}
		for (unsigned i = 0; i < CONNECTIONS; i++)
			all_answered(connections[i]);
		for (unsigned i = 0; i < REQUESTS; i++)
			cr_assert_eq(nbd_aio_command_completed(connections[i % CONNECTIONS],
							       (uint64_t)cookies[i]),
				     1, "%s", nbd_get_error());
		/* What was read was written where it was read, whatever connection wrote it. */
		cr_assert_eq(memcmp(found, expected, DISK_BYTES), 0, "round %u", round);
	}
	memset(found, 0, DISK_BYTES);
	cr_assert_eq(nbd_pread(connections[1], found, DISK_BYTES, 0, 0), 0);
	cr_assert_eq(memcmp(found, expected, DISK_BYTES), 0);
}

Test(ceiling, large_writes_one_after_the_other_keep_their_bytes)
{
	srand(12);
	for (unsigned i = 0; i < DISK_BYTES; i++)
		expected[i] = (uint8_t)rand();
	for (unsigned i = 0; i < SLOTS; i++)
		cr_assert_gt(nbd_aio_pwrite(connections[0], expected + i * SLOT_BYTES, SLOT_BYTES,
					    i * SLOT_BYTES, NBD_NULL_COMPLETION, 0),
			     0);
	all_answered(connections[0]);
	cr_assert_eq(nbd_pread(connections[1], found, DISK_BYTES, 0, 0), 0);
	cr_assert_eq(memcmp(found, expected, DISK_BYTES), 0);
}

/* A connection of bytes, past GO. */
static int raw_connect(void)
{
	const struct {
		uint32_t flags;
		uint64_t magic;
		uint32_t option, bytes;
		uint8_t data[6];
	} __attribute__((packed))
	hello = {htobe32(3), htobe64(0x49484156454f5054ull), htobe32(7), htobe32(6), {0}};
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	uint8_t answer[18 + 20 + 12 + 20];

	strcpy(address.sun_path, path);
	cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	cr_assert_eq(send(fd, &hello, sizeof(hello), 0), sizeof(hello));
	cr_assert_eq(recv(fd, answer, sizeof(answer), MSG_WAITALL), sizeof(answer));
	return fd;
}

Test(ceiling, requests_cut_in_the_middle_are_put_together)
{
	uint8_t requests[3][28], answer[16];
	int fd = raw_connect();

	for (unsigned i = 0; i < 3; i++) {
		const uint32_t magic = htobe32(0x25609513), flush = htobe32(3);

		memset(requests[i], 0, sizeof(requests[i]));
		memcpy(requests[i], &magic, sizeof(magic));
		memcpy(requests[i] + 4, &flush, sizeof(flush));
		requests[i][15] = (uint8_t)(i + 1);
	}
	/* The first answer says that what was sent with its request has been received as well. */
	cr_assert_eq(send(fd, requests, 28 + 11, 0), 28 + 11);
	cr_assert_eq(recv(fd, answer, sizeof(answer), MSG_WAITALL), sizeof(answer));
	cr_assert_eq(send(fd, requests[1] + 11, 2 * 28 - 11, 0), 2 * 28 - 11);
	for (uint8_t cookie = 2; cookie <= 3; cookie++) {
		cr_assert_eq(recv(fd, answer, sizeof(answer), MSG_WAITALL), sizeof(answer));
		cr_assert_eq(answer[15], cookie);
	}
	close(fd);
}

Test(ceiling, what_it_does_not_do_it_refuses)
{
	struct nbd_handle *nbd = connections[0];

	cr_expect_eq(nbd_get_size(nbd), DISK_BYTES);
	cr_expect_eq(nbd_get_structured_replies_negotiated(nbd), 0);
	cr_expect_eq(nbd_can_multi_conn(nbd), 1);
	cr_expect_eq(nbd_flush(nbd, 0), 0);
	cr_expect_eq(nbd_pread(nbd, found, 2, DISK_BYTES - 1, 0), -1);
	cr_expect_eq(nbd_get_errno(), EINVAL);
	cr_expect_eq(nbd_trim(nbd, 4096, 0, 0), -1);
	cr_expect_eq(nbd_get_errno(), EINVAL);
	/* And the connection goes on. */
	cr_expect_eq(nbd_pread(nbd, found, 1, DISK_BYTES - 1, 0), 0);
}
