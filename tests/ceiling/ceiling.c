/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ceiling - an NBD server that does nothing but the protocol, over memory
 *
 *     ceiling SOCKET SIZE_BYTES
 *
 * What it reaches is what the client, the socket and the copies allow: the ceiling that tools/bench
 * holds a server of files against. It prints `ready` on stdout once clients can connect and runs
 * until it is killed.
 *
 * Protocol  fixed newstyle with GO and ABORT; every other option is refused as unsupported, so
 *           replies are simple ones. READ, WRITE, FLUSH (nothing to do) and DISC; other commands,
 *           and reads beyond the end, get EINVAL; a client that breaks the protocol is hung up on.
 * Threads   one a connection, and nothing shared but the memory that is served.
 * Batches   one recv() takes all requests that have come, one sendmsg() answers them, the data
 *           straight from memory. What of a write's payload has not come with its header is
 *           received to where it belongs; after a large one only a little is received ahead, or
 *           the next one's payload would be copied twice.
 */
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#define GREETING_MAGIC	  0x4e42444d41474943ull /* NBDMAGIC */
#define OPTION_MAGIC	  0x49484156454f5054ull /* IHAVEOPT */
#define OPTION_REPLY	  0x0003e889045565a9ull
#define OPTION_ABORT	  2u
#define OPTION_GO	  7u
#define OPTION_BYTES_MAX  8192u
#define REPLY_ACK	  1u
#define REPLY_INFO	  3u
#define REPLY_UNSUPPORTED ((1u << 31) + 1)

#define REQUEST_MAGIC	 0x25609513u
#define SIMPLE_MAGIC	 0x67446698u
#define HANDSHAKE_FLAGS	 3u /* fixed newstyle, no zeroes */
#define EXPORT_FLAGS	 (1u << 0 | 1u << 2 | 1u << 8) /* has flags, flush, multi-conn */
#define BUFFER_BYTES	 (256u << 10)
#define LARGE_BYTES	 (32u << 10)
#define SMALL_TAKE_BYTES 4096u
#define ANSWERS_MAX	 256u
#define SEND_BYTES	 (1 << 20)

enum command { READ, WRITE, DISC, FLUSH };

struct request {
	uint32_t magic;
	uint16_t flags;
	uint16_t command;
	uint64_t cookie;
	uint64_t off;
	uint32_t length_bytes;
} __attribute__((packed));

struct answer {
	uint32_t magic;
	uint32_t error;
	uint64_t cookie;
} __attribute__((packed));

struct connection {
	int fd;
	uint8_t *buffer;
	size_t head, tail, take_bytes;
	struct answer answers[ANSWERS_MAX];
	unsigned answers_count;
	struct iovec out[2 * ANSWERS_MAX];
	unsigned out_count;
};

static struct {
	uint8_t *memory;
	uint64_t bytes;
} served;

static bool receive_all(int fd, void *data, size_t bytes)
{
	return bytes == 0 || recv(fd, data, bytes, MSG_WAITALL) == (ssize_t)bytes;
}

static bool send_all(int fd, const void *data, size_t bytes)
{
	return send(fd, data, bytes, MSG_NOSIGNAL) == (ssize_t)bytes;
}

static bool option_reply(int fd, uint32_t option, uint32_t kind, const void *data, uint32_t bytes)
{
	struct {
		uint64_t magic;
		uint32_t option, kind, bytes;
		uint8_t data[12];
	} __attribute__((packed)) reply = {
		.magic = htobe64(OPTION_REPLY),
		.option = htobe32(option),
		.kind = htobe32(kind),
		.bytes = htobe32(bytes),
	};

	assert(bytes <= sizeof(reply.data));
	if (bytes > 0)
		memcpy(reply.data, data, bytes);
	return send_all(fd, &reply, sizeof(reply) - sizeof(reply.data) + bytes);
}

static bool option_go(int fd)
{
	struct {
		uint16_t kind;
		uint64_t bytes;
		uint16_t flags;
	} __attribute__((packed)) info = {0, htobe64(served.bytes), htobe16(EXPORT_FLAGS)};

	return option_reply(fd, OPTION_GO, REPLY_INFO, &info, sizeof(info)) &&
	       option_reply(fd, OPTION_GO, REPLY_ACK, NULL, 0);
}

/* Whether the client got as far as GO. */
static bool handshake(int fd)
{
	struct {
		uint64_t greeting, option;
		uint16_t flags;
	} __attribute__((packed))
	hello = {htobe64(GREETING_MAGIC), htobe64(OPTION_MAGIC), htobe16(HANDSHAKE_FLAGS)};
	struct {
		uint64_t magic;
		uint32_t option, bytes;
	} __attribute__((packed)) asked;
	uint8_t data[OPTION_BYTES_MAX];
	uint32_t client_flags;

	if (!send_all(fd, &hello, sizeof(hello)) ||
	    !receive_all(fd, &client_flags, sizeof(client_flags)))
		return false;
	for (;;) {
		if (!receive_all(fd, &asked, sizeof(asked)) ||
		    be64toh(asked.magic) != OPTION_MAGIC || be32toh(asked.bytes) > sizeof(data) ||
		    !receive_all(fd, data, be32toh(asked.bytes)))
			return false;
		switch (be32toh(asked.option)) {
		case OPTION_GO:
			return option_go(fd);
		case OPTION_ABORT:
			(void)option_reply(fd, OPTION_ABORT, REPLY_ACK, NULL, 0);
			return false;
		default:
			if (!option_reply(fd, be32toh(asked.option), REPLY_UNSUPPORTED, NULL, 0))
				return false;
		}
	}
}

/* Sends what is answered so far; on a blocking socket, all of it or this is the end. */
static bool answers_send(struct connection *c)
{
	struct msghdr message = {.msg_iov = c->out, .msg_iovlen = c->out_count};
	bool sent = c->out_count == 0 || sendmsg(c->fd, &message, MSG_NOSIGNAL) > 0;

	c->answers_count = 0;
	c->out_count = 0;
	return sent;
}

static bool answer_add(struct connection *c, uint64_t cookie, uint32_t error, void *data,
		       size_t bytes)
{
	struct answer *answer = &c->answers[c->answers_count++];

	*answer = (struct answer){htobe32(SIMPLE_MAGIC), htobe32(error), cookie};
	c->out[c->out_count++] = (struct iovec){answer, sizeof(*answer)};
	if (bytes > 0)
		c->out[c->out_count++] = (struct iovec){data, bytes};
	return c->answers_count < ANSWERS_MAX || answers_send(c);
}

/* Receives the rest of a payload to where it belongs, and behind it whatever has come too. */
static bool payload_receive(struct connection *c, uint8_t *to, size_t missing_bytes)
{
	c->head = 0;
	c->tail = 0;
	if (!answers_send(c))
		return false;
	while (missing_bytes > 0) {
		struct iovec in[] = {{to, missing_bytes}, {c->buffer, c->take_bytes}};
		ssize_t got = readv(c->fd, in, 2);

		if (got <= 0)
			return false;
		if ((size_t)got > missing_bytes) {
			c->tail = (size_t)got - missing_bytes;
			return true;
		}
		to += got;
		missing_bytes -= (size_t)got;
	}
	return true;
}

static bool write_take(struct connection *c, uint64_t cookie, uint64_t off, size_t bytes)
{
	size_t here_bytes = c->tail - c->head < bytes ? c->tail - c->head : bytes;

	if (off > served.bytes || bytes > served.bytes - off)
		return false;
	c->take_bytes = bytes >= LARGE_BYTES ? SMALL_TAKE_BYTES : BUFFER_BYTES;
	memcpy(served.memory + off, c->buffer + c->head, here_bytes);
	c->head += here_bytes;
	if (here_bytes < bytes &&
	    !payload_receive(c, served.memory + off + here_bytes, bytes - here_bytes))
		return false;
	return answer_add(c, cookie, 0, NULL, 0);
}

/* Carries out one request. False: this connection is at its end. */
static bool request_take(struct connection *c)
{
	struct request request;
	uint64_t off;
	size_t bytes;

	memcpy(&request, c->buffer + c->head, sizeof(request));
	c->head += sizeof(request);
	off = be64toh(request.off);
	bytes = be32toh(request.length_bytes);
	if (be32toh(request.magic) != REQUEST_MAGIC)
		return false;
	switch (be16toh(request.command)) {
	case READ:
		c->take_bytes = BUFFER_BYTES;
		if (off > served.bytes || bytes > served.bytes - off)
			return answer_add(c, request.cookie, EINVAL, NULL, 0);
		return answer_add(c, request.cookie, 0, served.memory + off, bytes);
	case WRITE:
		return write_take(c, request.cookie, off, bytes);
	case DISC:
		return false;
	case FLUSH:
		return answer_add(c, request.cookie, 0, NULL, 0);
	default:
		return answer_add(c, request.cookie, EINVAL, NULL, 0);
	}
}

static void requests_serve(struct connection *c)
{
	c->take_bytes = BUFFER_BYTES;
	for (;;) {
		size_t left_bytes, take_bytes;
		ssize_t got;

		while (c->tail - c->head >= sizeof(struct request))
			if (!request_take(c))
				return;
		if (!answers_send(c))
			return;
		left_bytes = c->tail - c->head;
		memmove(c->buffer, c->buffer + c->head, left_bytes);
		c->head = 0;
		take_bytes = c->take_bytes - left_bytes;
		got = recv(c->fd, c->buffer + left_bytes, take_bytes, 0);
		if (got <= 0)
			return;
		c->tail = left_bytes + (size_t)got;
	}
}

static void *connection_serve(void *argument)
{
	struct connection *c = argument;

	if (handshake(c->fd))
		requests_serve(c);
	close(c->fd);
	free(c->buffer);
	free(c);
	return NULL;
}

static void connection_start(int fd)
{
	struct connection *c = calloc(1, sizeof(*c));
	const int send_bytes = SEND_BYTES;
	pthread_t thread;

	assert(c != NULL);
	c->fd = fd;
	/* More than the usual 208 KiB makes large reads a fifth faster, where it is allowed. */
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &send_bytes, sizeof(send_bytes)) < 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send_bytes, sizeof(send_bytes));
	c->buffer = malloc(BUFFER_BYTES);
	assert(c->buffer != NULL);
	if (pthread_create(&thread, NULL, connection_serve, c) != 0) {
		perror("ceiling: pthread_create");
		exit(1);
	}
	pthread_detach(thread);
}

static int listen_at(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(address.sun_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(address.sun_path, path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(fd, 64) < 0)
		return -1;
	return fd;
}

int main(int argc, char **argv)
{
	int listener;

	if (argc != 3 || (served.bytes = strtoull(argv[2], NULL, 10)) == 0) {
		fprintf(stderr, "usage: ceiling SOCKET SIZE_BYTES\n");
		return 2;
	}
	served.memory = mmap(NULL, served.bytes, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	listener = listen_at(argv[1]);
	if (served.memory == MAP_FAILED || listener < 0) {
		perror("ceiling");
		return 1;
	}
	/* Only faster, and without page faults later; where refused, it works as well. */
	(void)madvise(served.memory, served.bytes, MADV_HUGEPAGE);
	(void)madvise(served.memory, served.bytes, MADV_POPULATE_WRITE);
	printf("ready\n");
	fflush(stdout);
	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (fd >= 0)
			connection_start(fd);
	}
}
