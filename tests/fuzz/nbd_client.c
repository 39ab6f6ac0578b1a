/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/fuzz/nbd_client.h"

#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/nbd/nbd_handshake.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/nbd_service.h"

#define TAKEN_SPINS_MAX 2000u
#define ERROR_OFFSET	0x8002u

/* --- bytes --- */

/* Whether anything came, or the end. */
static bool receive(struct nbd_client *client, bool wait)
{
	ssize_t n;

	if (client->closed)
		return false;
	FUZZ_CHECK(client->rx_bytes < CLIENT_RX_BYTES, "an answer of %zu bytes", client->rx_bytes);
	n = recv(client->fd, client->rx + client->rx_bytes, CLIENT_RX_BYTES - client->rx_bytes,
		 wait ? 0 : MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	client->closed = n <= 0;
	client->rx_bytes += n > 0 ? (size_t)n : 0;
	return true;
}

static void drop(struct nbd_client *client, size_t len_bytes)
{
	client->rx_bytes -= len_bytes;
	memmove(client->rx, client->rx + len_bytes, client->rx_bytes);
}

/* --- replies --- */

static struct asked *find_asked(struct nbd_client *client, uint64_t cookie)
{
	for (unsigned i = 0; i < CLIENT_ASKED_MAX; i++)
		if (client->asked[i].pending && client->asked[i].request.cookie == cookie)
			return &client->asked[i];
	FUZZ_CHECK(false, "an answer to %#lx, which is not in flight", (unsigned long)cookie);
}

static bool is_error(uint32_t error)
{
	return error == NBD_EPERM || error == NBD_EIO || error == NBD_ENOMEM ||
	       error == NBD_EINVAL || error == NBD_ENOSPC || error == NBD_EOVERFLOW ||
	       error == NBD_ENOTSUP || error == NBD_ESHUTDOWN;
}

static void answered(struct nbd_client *client, struct asked *asked)
{
	const struct nbd_request *r = &asked->request;
	bool read = r->command == NBD_CMD_READ && asked->error == 0;

	FUZZ_CHECK(asked->error == 0 || is_error(asked->error), "error %u", asked->error);
	FUZZ_CHECK(asked->goodness != GOOD || asked->error == 0,
		   "error %u for a good request: command %u, flags %#x, %lu bytes at %lu",
		   asked->error, r->command, r->flags, (unsigned long)r->len_bytes,
		   (unsigned long)r->off_bytes);
	FUZZ_CHECK(asked->goodness != BAD || asked->error != 0,
		   "no error for a bad request: command %u, flags %#x, %lu bytes at %lu",
		   r->command, r->flags, (unsigned long)r->len_bytes, (unsigned long)r->off_bytes);
	FUZZ_CHECK(!read || asked->come_bytes == r->len_bytes, "%u bytes of %lu", asked->come_bytes,
		   (unsigned long)r->len_bytes);
	FUZZ_CHECK(!read || memcmp(client->data + r->off_bytes, client->model + r->off_bytes,
				   r->len_bytes) == 0,
		   "wrong content in %lu bytes at %lu", (unsigned long)r->len_bytes,
		   (unsigned long)r->off_bytes);
	asked->pending = false;
	client->pending_count--;
}

/* Bytes that it takes, or 0: more must come. */
static size_t take_simple(struct nbd_client *client)
{
	uint32_t error = nbd_get_u32(client->rx + 4), len_bytes = 0;
	uint64_t cookie = nbd_get_u64(client->rx + 8);
	struct asked *asked;
	bool read;

	if (client->half_cookie && cookie == client->half_cookie) {
		FUZZ_CHECK(is_error(error), "half a request: error %u", error);
		return NBD_SIMPLE_REPLY_BYTES;
	}
	asked = find_asked(client, cookie);
	read = asked->request.command == NBD_CMD_READ;
	FUZZ_CHECK(!client->structured || !read, "a simple reply to a read");
	FUZZ_CHECK(error || asked->request.command != NBD_CMD_BLOCK_STATUS,
		   "a simple reply to block status");
	if (read && error == 0)
		len_bytes = (uint32_t)asked->request.len_bytes;
	if (client->rx_bytes < NBD_SIMPLE_REPLY_BYTES + len_bytes)
		return 0;
	if (len_bytes)
		memcpy(client->data + asked->request.off_bytes, client->rx + NBD_SIMPLE_REPLY_BYTES,
		       len_bytes);
	asked->come_bytes = len_bytes;
	asked->error = error;
	answered(client, asked);
	return NBD_SIMPLE_REPLY_BYTES + len_bytes;
}

static void take_data(struct nbd_client *client, struct asked *asked, const uint8_t *payload,
		      uint32_t len_bytes)
{
	const struct nbd_request *r = &asked->request;
	uint64_t off_bytes;

	FUZZ_CHECK(r->command == NBD_CMD_READ && len_bytes > NBD_OFFSET_BYTES,
		   "data of %u bytes for command %u", len_bytes, r->command);
	off_bytes = nbd_get_u64(payload);
	len_bytes -= NBD_OFFSET_BYTES;
	FUZZ_CHECK(off_bytes >= r->off_bytes && off_bytes - r->off_bytes <= r->len_bytes &&
			   len_bytes <= r->len_bytes - (off_bytes - r->off_bytes),
		   "data outside of what was asked");
	FUZZ_CHECK(!(r->flags & NBD_CMD_FLAG_DF) || asked->chunks == 1, "in pieces, though DF");
	memcpy(client->data + off_bytes, payload + NBD_OFFSET_BYTES, len_bytes);
	asked->come_bytes += len_bytes;
}

static void take_extents(const struct asked *asked, const uint8_t *payload, uint32_t len_bytes)
{
	const struct nbd_request *r = &asked->request;
	uint32_t count = (len_bytes - NBD_CONTEXT_BYTES) / NBD_EXTENT_BYTES;
	uint64_t sum = 0;

	FUZZ_CHECK(r->command == NBD_CMD_BLOCK_STATUS &&
			   len_bytes >= NBD_CONTEXT_BYTES + NBD_EXTENT_BYTES &&
			   (len_bytes - NBD_CONTEXT_BYTES) % NBD_EXTENT_BYTES == 0,
		   "extents in %u bytes", len_bytes);
	FUZZ_CHECK(nbd_get_u32(payload) == NBD_CONTEXT_ALLOCATION, "another context");
	FUZZ_CHECK(!(r->flags & NBD_CMD_FLAG_REQ_ONE) || count == 1, "%u extents, not one", count);
	for (uint32_t i = 0; i < count; i++) {
		const uint8_t *at = payload + NBD_CONTEXT_BYTES + (size_t)i * NBD_EXTENT_BYTES;

		FUZZ_CHECK(nbd_get_u32(at) > 0 && sum < r->len_bytes, "extent %u", i);
		sum += nbd_get_u32(at);
	}
	FUZZ_CHECK(r->off_bytes + sum <= SERVICE_VOLUME_BYTES, "past the end");
}

static void take_error(struct asked *asked, uint16_t type, const uint8_t *payload,
		       uint32_t len_bytes)
{
	uint32_t extra = type == ERROR_OFFSET ? NBD_OFFSET_BYTES : 0;

	FUZZ_CHECK(type == NBD_REPLY_TYPE_ERROR || type == ERROR_OFFSET, "chunk type %#x", type);
	FUZZ_CHECK(len_bytes >= NBD_ERROR_BYTES + extra &&
			   nbd_get_u16(payload + 4) == len_bytes - NBD_ERROR_BYTES - extra,
		   "an error of %u bytes", len_bytes);
	asked->error = nbd_get_u32(payload);
	FUZZ_CHECK(asked->error != 0, "an error that is none");
}

static size_t take_chunk(struct nbd_client *client)
{
	uint16_t flags = nbd_get_u16(client->rx + 4), type = nbd_get_u16(client->rx + 6);
	struct asked *asked = find_asked(client, nbd_get_u64(client->rx + 8));
	uint32_t len_bytes = nbd_get_u32(client->rx + 16);
	const uint8_t *payload = client->rx + NBD_CHUNK_BYTES;

	FUZZ_CHECK(client->structured, "a structured reply, not agreed upon");
	FUZZ_CHECK((flags & ~NBD_REPLY_FLAG_DONE) == 0 && len_bytes <= CLIENT_RX_BYTES / 2,
		   "flags %#x, %u bytes", flags, len_bytes);
	if (client->rx_bytes < NBD_CHUNK_BYTES + len_bytes)
		return 0;
	asked->chunks++;
	if (type == NBD_REPLY_TYPE_NONE)
		FUZZ_CHECK(len_bytes == 0 && (flags & NBD_REPLY_FLAG_DONE), "nothing, not done");
	else if (type == NBD_REPLY_TYPE_OFFSET_DATA)
		take_data(client, asked, payload, len_bytes);
	else if (type == NBD_REPLY_TYPE_BLOCK_STATUS)
		take_extents(asked, payload, len_bytes);
	else
		take_error(asked, type, payload, len_bytes);
	if (flags & NBD_REPLY_FLAG_DONE)
		answered(client, asked);
	return NBD_CHUNK_BYTES + len_bytes;
}

static void take_replies(struct nbd_client *client)
{
	size_t taken = 1;

	while (taken > 0 && client->rx_bytes >= NBD_CHUNK_BYTES - 4) {
		uint32_t magic = nbd_get_u32(client->rx);

		taken = 0;
		if (magic == NBD_SIMPLE_REPLY_MAGIC)
			taken = take_simple(client);
		else if (magic != NBD_STRUCTURED_REPLY_MAGIC)
			FUZZ_CHECK(false, "magic %#x", magic);
		else if (client->rx_bytes >= NBD_CHUNK_BYTES)
			taken = take_chunk(client);
		drop(client, taken);
	}
	if (!client->closed || client->broken)
		return;
	FUZZ_CHECK(client->ending, "the server closes");
	FUZZ_CHECK(client->pending_count == 0, "closed with %u unanswered", client->pending_count);
	FUZZ_CHECK(client->rx_bytes == 0, "closed in a reply, after %zu bytes", client->rx_bytes);
}

static void take_some(struct nbd_client *client, bool wait)
{
	if (receive(client, wait))
		take_replies(client);
}

void nbd_client_settle(struct nbd_client *client)
{
	while (client->pending_count > 0 && !client->closed)
		take_some(client, true);
}

void nbd_client_finish(struct nbd_client *client)
{
	while (!client->closed)
		take_some(client, true);
	close(client->fd);
}

/* --- requests --- */

static void send_part(struct nbd_client *client, const uint8_t *bytes, size_t len_bytes)
{
	while (len_bytes > 0 && !client->closed) {
		struct pollfd poll_fd = {.fd = client->fd, .events = POLLIN | POLLOUT};
		ssize_t n = send(client->fd, bytes, len_bytes, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n > 0) {
			bytes += n;
			len_bytes -= (size_t)n;
			continue;
		}
		if (n < 0 && errno != EAGAIN && errno != EINTR) { /* it closed; that is read */
			len_bytes = 0;
			continue;
		}
		poll(&poll_fd, 1, -1);
		take_some(client, false);
	}
}

/* Until the server has the bytes, so that what follows comes by itself; or until it seems to want
 * something else first. */
static void wait_taken(struct nbd_client *client)
{
	int unsent = 1;

	for (unsigned i = 0; i < TAKEN_SPINS_MAX && unsent > 0; i++) {
		if (ioctl(client->fd, SIOCOUTQ, &unsent) < 0)
			break;
		sched_yield();
	}
}

void nbd_client_send(struct nbd_client *client, const uint8_t *bytes, size_t len_bytes,
		     size_t cut_bytes)
{
	if (cut_bytes > 0 && cut_bytes < len_bytes) {
		send_part(client, bytes, cut_bytes);
		wait_taken(client);
		bytes += cut_bytes;
		len_bytes -= cut_bytes;
	}
	send_part(client, bytes, len_bytes);
	take_some(client, false);
}

static bool changes(const struct nbd_request *r)
{
	return r->command == NBD_CMD_WRITE || r->command == NBD_CMD_TRIM ||
	       r->command == NBD_CMD_WRITE_ZEROES;
}

/* Whether both may be in flight: neither changes what the other touches. */
static bool may_meet(const struct nbd_request *a, const struct nbd_request *b)
{
	bool apart = a->off_bytes + a->len_bytes <= b->off_bytes ||
		     b->off_bytes + b->len_bytes <= a->off_bytes;

	return a->cookie != b->cookie && (apart || (!changes(a) && !changes(b)));
}

struct asked *nbd_client_ask(struct nbd_client *client, const struct nbd_request *request)
{
	bool wait = client->pending_count == CLIENT_ASKED_MAX;

	for (unsigned i = 0; i < CLIENT_ASKED_MAX; i++)
		wait = wait ||
		       (client->asked[i].pending && !may_meet(&client->asked[i].request, request));
	if (wait)
		nbd_client_settle(client);
	if (client->closed)
		return NULL;
	for (unsigned i = 0; i < CLIENT_ASKED_MAX; i++) {
		if (client->asked[i].pending)
			continue;
		client->asked[i] = (struct asked){.pending = true, .request = *request};
		client->pending_count++;
		return &client->asked[i];
	}
	FUZZ_CHECK(false, "no room");
}

/* --- agreeing --- */

static void send_option(struct nbd_client *client, uint32_t option, const void *data,
			uint32_t len_bytes)
{
	uint8_t header[NBD_OPTION_HEADER_BYTES];

	nbd_put_u64(header, NBD_OPTION_MAGIC);
	nbd_put_u32(header + 8, option);
	nbd_put_u32(header + 12, len_bytes);
	send_part(client, header, sizeof(header));
	send_part(client, data, len_bytes);
}

static void need(struct nbd_client *client, size_t len_bytes)
{
	while (client->rx_bytes < len_bytes) {
		receive(client, true);
		FUZZ_CHECK(!client->closed, "closed in the handshake");
	}
}

/* What follows the ACK of an option is left in the buffer. */
static void take_ack(struct nbd_client *client, uint32_t option)
{
	uint32_t type, len_bytes;

	do {
		need(client, NBD_OPTION_REPLY_BYTES);
		type = nbd_get_u32(client->rx + 12);
		len_bytes = nbd_get_u32(client->rx + 16);
		FUZZ_CHECK(nbd_get_u32(client->rx + 8) == option && !(type & NBD_REP_ERROR(0)),
			   "option %u: reply %#x", option, type);
		need(client, NBD_OPTION_REPLY_BYTES + len_bytes);
		drop(client, NBD_OPTION_REPLY_BYTES + len_bytes);
	} while (type != NBD_REP_ACK);
}

static void allocate(struct nbd_client *client)
{
	if (client->rx)
		return;
	client->rx = malloc(CLIENT_RX_BYTES);
	client->data = malloc(SERVICE_VOLUME_BYTES);
	client->model = malloc(SERVICE_VOLUME_BYTES);
	FUZZ_CHECK(client->rx && client->data && client->model, "no memory");
}

void nbd_client_open(struct nbd_client *client, int fd, bool structured, bool allocation)
{
	static const uint8_t flags[] = {0, 0, 0, 3};
	static const char context[] = "\0\0\0\4disk\0\0\0\1\0\0\0\x0f"
				      "base:allocation";
	static const char go[] = "\0\0\0\4disk\0";

	allocate(client);
	*client = (struct nbd_client){
		.fd = fd,
		.structured = structured,
		.allocation = structured && allocation,
		.rx = client->rx,
		.data = client->data,
		.model = client->model,
	};
	need(client, NBD_GREETING_BYTES);
	drop(client, NBD_GREETING_BYTES);
	send_part(client, flags, sizeof(flags));
	if (client->structured) {
		send_option(client, NBD_OPT_STRUCTURED_REPLY, "", 0);
		take_ack(client, NBD_OPT_STRUCTURED_REPLY);
	}
	if (client->allocation) {
		send_option(client, NBD_OPT_SET_META_CONTEXT, context, sizeof(context) - 1);
		take_ack(client, NBD_OPT_SET_META_CONTEXT);
	}
	send_option(client, NBD_OPT_GO, go, sizeof(go));
	take_ack(client, NBD_OPT_GO);
}
