/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd - fuzz target: NBD requests of all kinds to the real server, over a socket
 *
 *   input:  agreement, action ...
 *
 * An action is a request, whose header or payload may be cut so that its second part comes by
 * itself, a wait for all answers, or one of the ends: a goodbye, a half request, garbage. The
 * server runs in this process and knows nothing of the fuzzer (nbd_service); the oracle is the
 * client (nbd_client). The volume lives on from input to input, and each begins by discarding all
 * of it.
 */
#include <string.h>
#include <sys/socket.h>

#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/nbd_client.h"
#include "tests/fuzz/nbd_service.h"
#include "tests/lib/rng.h"

#define BLOCK_BYTES	  4096u
#define ACTIONS_MAX	  64u
#define LENGTH_MAX	  (5u << 19) /* 2.5 MiB: three pieces of the server's */
#define PAYLOAD_BYTES_MAX (12u << 20) /* of one input */
#define COMMANDS	  10u /* two of them are none */

enum action {
	ACTION_REQUEST,
	ACTION_SETTLE = 12, /* all before it are requests too */
	ACTION_GOODBYE,
	ACTION_HALF,
	ACTION_GARBAGE,
	ACTIONS,
};

struct session {
	struct nbd_client client;
	struct rng rng;
	uint64_t next_cookie;
	uint64_t payload_bytes;
	uint8_t out[NBD_REQUEST_BYTES + LENGTH_MAX];
};

static struct session session;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	nbd_service_start();
	return 0;
}

/* --- what a request should do --- */

static uint16_t flags_of(const struct nbd_client *client, uint16_t command)
{
	switch (command) {
	case NBD_CMD_READ:
		return client->structured ? NBD_CMD_FLAG_DF : 0;
	case NBD_CMD_WRITE_ZEROES:
		return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE;
	case NBD_CMD_WRITE:
	case NBD_CMD_TRIM:
		return NBD_CMD_FLAG_FUA;
	case NBD_CMD_BLOCK_STATUS:
		return NBD_CMD_FLAG_REQ_ONE;
	default:
		return 0;
	}
}

static enum goodness goodness_of(const struct nbd_client *client, const struct nbd_request *r)
{
	bool inside = r->off_bytes <= SERVICE_VOLUME_BYTES &&
		      r->len_bytes <= SERVICE_VOLUME_BYTES - r->off_bytes;
	bool usual = (r->flags & ~flags_of(client, r->command)) == 0;

	if (r->command == NBD_CMD_FLUSH)
		return usual && r->off_bytes == 0 && r->len_bytes == 0 ? GOOD : EITHER;
	if (r->command > NBD_CMD_BLOCK_STATUS || (r->len_bytes > 0 && !inside))
		return BAD;
	if (r->command == NBD_CMD_BLOCK_STATUS && !client->allocation)
		return BAD;
	/* In one chunk, if there is memory for that. */
	if (r->command == NBD_CMD_READ && (r->flags & NBD_CMD_FLAG_DF) && r->len_bytes > 1 << 16)
		return EITHER;
	return usual && inside && r->len_bytes > 0 ? GOOD : EITHER;
}

static void apply(struct nbd_client *client, const struct nbd_request *r, const uint8_t *payload)
{
	uint64_t off = r->off_bytes, end = off + r->len_bytes;

	switch (r->command) {
	case NBD_CMD_WRITE:
		memcpy(client->model + off, payload, r->len_bytes);
		break;
	case NBD_CMD_WRITE_ZEROES:
		memset(client->model + off, 0, r->len_bytes);
		break;
	case NBD_CMD_TRIM: /* whole blocks; the rest is left alone */
		off = (off + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
		end = end / BLOCK_BYTES * BLOCK_BYTES;
		if (off < end)
			memset(client->model + off, 0, end - off);
		break;
	default:
		break;
	}
}

/* --- actions --- */

static size_t encode(struct session *s, const struct nbd_request *r)
{
	size_t payload_bytes = r->command == NBD_CMD_WRITE ? r->len_bytes : 0;

	nbd_put_u32(s->out, NBD_REQUEST_MAGIC);
	nbd_put_u16(s->out + 4, r->flags);
	nbd_put_u16(s->out + 6, r->command);
	nbd_put_u64(s->out + 8, r->cookie);
	nbd_put_u64(s->out + 16, r->off_bytes);
	nbd_put_u32(s->out + 24, (uint32_t)r->len_bytes);
	for (size_t i = 0; i < payload_bytes; i += BLOCK_BYTES)
		memset(s->out + NBD_REQUEST_BYTES + i, (int)(rng_u64(&s->rng) & 0xff),
		       payload_bytes - i < BLOCK_BYTES ? payload_bytes - i : BLOCK_BYTES);
	return NBD_REQUEST_BYTES + payload_bytes;
}

/* Mostly inside the volume, in units from a byte to 64 KiB. */
static struct nbd_request input_request(struct session *s, struct input *input)
{
	static const uint32_t units[] = {1, 512, BLOCK_BYTES, 1 << 16};
	uint8_t shape = input_u8(input);
	uint32_t unit = units[shape % 4];
	uint8_t command = input_u8(input);
	struct nbd_request r = {
		.command = command < 240 ? command % COMMANDS : command,
		.flags = input_u8(input),
		.cookie = ++s->next_cookie,
	};

	/* Flags that a command has not are rare. */
	if (!(shape & 0x80))
		r.flags &= flags_of(&s->client, r.command);
	r.off_bytes = (uint64_t)input_u16(input) * unit;
	r.len_bytes = (uint32_t)(1 + input_u16(input)) * unit % LENGTH_MAX;
	if (!(shape & 0x40)) {
		r.off_bytes %= SERVICE_VOLUME_BYTES;
		if (r.len_bytes > SERVICE_VOLUME_BYTES - r.off_bytes)
			r.len_bytes = (uint32_t)(SERVICE_VOLUME_BYTES - r.off_bytes);
	}
	if ((shape & 0x60) == 0x60)
		r.off_bytes = UINT64_MAX - r.off_bytes;
	if (r.command == NBD_CMD_FLUSH && !(shape & 0x40))
		r.off_bytes = r.len_bytes = 0;
	if (r.command == NBD_CMD_DISC)
		r.command = NBD_CMD_READ;
	return r;
}

static void request(struct session *s, struct input *input)
{
	struct nbd_request r = input_request(s, input);
	size_t cut = input_u8(input), len_bytes;
	enum goodness goodness = goodness_of(&s->client, &r);
	struct asked *asked;

	if (r.command == NBD_CMD_WRITE)
		s->payload_bytes += r.len_bytes;
	if (s->payload_bytes > PAYLOAD_BYTES_MAX)
		return;
	if (goodness == EITHER)
		nbd_client_settle(&s->client);
	asked = nbd_client_ask(&s->client, &r);
	if (!asked)
		return;
	asked->goodness = goodness;
	len_bytes = encode(s, &r);
	/* What is good is done: nothing that is in flight touches it. */
	if (goodness == GOOD)
		apply(&s->client, &r, s->out + NBD_REQUEST_BYTES);
	/* In the header, or anywhere in the payload. */
	cut = cut < 2 * NBD_REQUEST_BYTES ? cut / 2 : len_bytes * cut / 256;
	nbd_client_send(&s->client, s->out, len_bytes, cut);
	if (goodness != EITHER)
		return;
	nbd_client_settle(&s->client);
	if (!s->client.closed && asked->error == 0 && r.len_bytes > 0)
		apply(&s->client, &r, s->out + NBD_REQUEST_BYTES);
}

static void discard_all(struct session *s)
{
	struct nbd_request r = {
		.command = NBD_CMD_TRIM,
		.cookie = ++s->next_cookie,
		.len_bytes = SERVICE_VOLUME_BYTES,
	};

	nbd_client_ask(&s->client, &r)->goodness = GOOD;
	memset(s->client.model, 0, SERVICE_VOLUME_BYTES);
	nbd_client_send(&s->client, s->out, encode(s, &r), 0);
	nbd_client_settle(&s->client);
}

static void say_goodbye(struct session *s)
{
	struct nbd_request r = {.command = NBD_CMD_DISC, .cookie = ++s->next_cookie};

	s->client.ending = true;
	nbd_client_send(&s->client, s->out, encode(s, &r), 0);
}

static void leave_in_the_middle(struct session *s, struct input *input)
{
	struct nbd_request r = input_request(s, input);
	size_t len_bytes = encode(s, &r) * input_u8(input) / 256;

	s->client.ending = true;
	/* A write may be refused before all of its payload has come. */
	s->client.half_cookie = r.cookie;
	nbd_client_send(&s->client, s->out, len_bytes, 0);
	shutdown(s->client.fd, SHUT_WR);
}

static void send_garbage(struct session *s, struct input *input)
{
	uint8_t bytes[NBD_REQUEST_BYTES];

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = input_u8(input);
	if (nbd_get_u32(bytes) == NBD_REQUEST_MAGIC)
		bytes[0]++;
	s->client.broken = true;
	nbd_client_send(&s->client, bytes, sizeof(bytes), 0);
}

/* False: nothing more is to be sent. */
static bool act(struct session *s, struct input *input)
{
	switch (input_u8(input) % ACTIONS) {
	case ACTION_SETTLE:
		nbd_client_settle(&s->client);
		return true;
	case ACTION_GOODBYE:
		say_goodbye(s);
		return false;
	case ACTION_HALF:
		leave_in_the_middle(s, input);
		return false;
	case ACTION_GARBAGE:
		send_garbage(s, input);
		return false;
	default:
		request(s, input);
		return !s->client.closed;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len_bytes)
{
	struct session *s = &session;
	struct input input = {data, len_bytes};
	uint8_t agreement = input_u8(&input);
	bool more = true;

	nbd_client_open(&s->client, nbd_service_connect(), agreement & 1, agreement & 2);
	s->rng = rng_for(1, agreement);
	s->next_cookie = (uint64_t)agreement << 56;
	s->payload_bytes = 0;
	discard_all(s);
	for (unsigned i = 0; more && i < ACTIONS_MAX && input.left_bytes > 0; i++)
		more = act(s, &input);
	if (more) {
		nbd_client_settle(&s->client);
		say_goodbye(s);
	}
	nbd_client_finish(&s->client);
	nbd_service_wait();
	return 0;
}
