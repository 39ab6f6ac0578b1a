/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ublk_payload - see the header */
#include "server/ublk/ublk_payload.h"

#include <errno.h>
#include <unistd.h>

const struct ublk_straight ublk_straight_cached = {.write_bytes_min = 64u << 10};
const struct ublk_straight ublk_straight_direct = {0};
const struct ublk_straight ublk_straight_never = {UINT32_MAX, UINT32_MAX};

uint64_t ublk_payload_off_bytes(uint16_t queue, uint16_t tag)
{
	return UBLK_COPY_OFFSET + ((uint64_t)queue << UBLK_COPY_QUEUE_SHIFT) +
	       ((uint64_t)tag << UBLK_COPY_TAG_SHIFT);
}

struct ublk_table ublk_payload_table(unsigned queue, unsigned queues, unsigned loops,
				     unsigned depth)
{
	struct ublk_table table = {.first = queue / loops * depth};

	if (queue < loops)
		table.buffers = ((queues - queue - 1) / loops + 1) * depth;
	return table;
}

uint64_t ublk_payload_register(const struct ublk_payload *payload)
{
	return payload->number | UBLK_REGISTER_OR_GO_ON;
}

static bool transfers(const struct request *request)
{
	return request->op == REQUEST_READ || request->op == REQUEST_WRITE;
}

static bool goes_straight(const struct request *request, const struct ublk_straight *straight)
{
	return request->len_bytes >=
	       (request->op == REQUEST_READ ? straight->read_bytes_min : straight->write_bytes_min);
}

static int fetch(const struct ublk_payload *payload, uint64_t len_bytes)
{
	ssize_t got = pread(payload->fd, payload->buffer, len_bytes, (off_t)payload->off_bytes);

	if (got < 0)
		return -errno;
	return (uint64_t)got == len_bytes ? 0 : -EIO;
}

static int carry_back(const struct ublk_payload *payload, uint64_t len_bytes)
{
	ssize_t put = pwrite(payload->fd, payload->buffer, len_bytes, (off_t)payload->off_bytes);

	if (put < 0)
		return -errno;
	return (uint64_t)put == len_bytes ? 0 : -EIO;
}

int ublk_payload_bring(const struct ublk_payload *payload, struct request *request)
{
	request->data = payload->buffer;
	return request->op == REQUEST_WRITE ? fetch(payload, request->len_bytes) : 0;
}

int ublk_payload_begin(const struct ublk_payload *payload, struct request *request,
		       uint32_t op_flags, const struct ublk_straight *straight)
{
	request->data = payload->buffer;
	request->foreign = 0;
	if (payload->fd < 0 || !transfers(request))
		return 0;
	if ((op_flags & UBLK_IO_F_NOT_REGISTERED) != 0 || !goes_straight(request, straight))
		return ublk_payload_bring(payload, request);
	request->data = NULL; /* the offset into the registered buffer */
	request->foreign = payload->number + 1u;
	return 0;
}

int ublk_payload_end(const struct ublk_payload *payload, const struct request *request, int res)
{
	int r;

	if (payload->fd < 0 || res < 0 || request->op != REQUEST_READ || request->foreign != 0)
		return res;
	r = carry_back(payload, request->len_bytes);
	return r < 0 ? r : res;
}
