/* SPDX-License-Identifier: GPL-2.0-or-later */
/* nbd_handshake - see the header */
#include "server/nbd_handshake.h"

#include <assert.h>
#include <string.h>

void nbd_handshake_init(struct nbd_handshake *handshake, const struct nbd_export *export)
{
	memset(handshake, 0, sizeof(*handshake));
	handshake->export = export;
	handshake->state = NBD_HANDSHAKE_FLAGS;
}

uint16_t nbd_handshake_transmission_flags(const struct nbd_handshake *handshake)
{
	uint16_t flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_CAN_MULTI_CONN |
			 NBD_FLAG_SEND_CACHE;

	if (handshake->export->read_only)
		flags |= NBD_FLAG_READ_ONLY;
	else
		flags |= NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES;
	if (handshake->structured)
		flags |= NBD_FLAG_SEND_DF;
	return flags;
}

static void put_bytes(struct nbd_answer *answer, const void *bytes, size_t len_bytes)
{
	assert(len_bytes <= sizeof(answer->bytes) - answer->len_bytes);
	memcpy(answer->bytes + answer->len_bytes, bytes, len_bytes);
	answer->len_bytes += len_bytes;
}

static void put_reply(struct nbd_answer *answer, uint32_t option, uint32_t type,
		      const void *payload, size_t len_bytes)
{
	uint8_t header[NBD_OPTION_REPLY_BYTES];

	nbd_encode_option_reply(header, option, type, (uint32_t)len_bytes);
	put_bytes(answer, header, sizeof(header));
	put_bytes(answer, payload, len_bytes);
}

static void put_plain(struct nbd_answer *answer, uint32_t option, uint32_t type)
{
	put_reply(answer, option, type, "", 0);
}

/* For people at the other end. */
static void put_error(struct nbd_answer *answer, uint32_t option, uint32_t type, const char *text)
{
	put_reply(answer, option, type, text, strlen(text));
}

static const char *own_name(const struct nbd_handshake *handshake)
{
	return handshake->export->name != NULL ? handshake->export->name : "";
}

static bool is_served(const struct nbd_handshake *handshake, struct nbd_string name)
{
	return handshake->export->name == NULL || nbd_string_is(name, handshake->export->name);
}

static bool is_context_export(const struct nbd_handshake *handshake, struct nbd_string name)
{
	return name.len_bytes == handshake->context_export_bytes &&
	       memcmp(name.text, handshake->context_export, name.len_bytes) == 0;
}

static void enter_transmission(struct nbd_handshake *handshake, struct nbd_string name)
{
	/* Contexts belong to the export they were asked for. */
	handshake->allocation = handshake->allocation && is_context_export(handshake, name);
	handshake->state = NBD_HANDSHAKE_TRANSMISSION;
}

static void option_export_name(struct nbd_handshake *handshake, const uint8_t *data,
			       uint32_t len_bytes, struct nbd_answer *answer)
{
	static const uint8_t zeroes[NBD_EXPORT_ZEROES_BYTES];
	struct nbd_string name = {.text = (const char *)data, .len_bytes = len_bytes};
	uint8_t info[NBD_EXPORT_INFO_BYTES];

	/* This option has no way to say no. */
	if (len_bytes > NBD_STRING_MAX || !is_served(handshake, name)) {
		handshake->state = NBD_HANDSHAKE_CLOSE;
		return;
	}
	enter_transmission(handshake, name);
	nbd_encode_export(info, handshake->export->size_bytes,
			  nbd_handshake_transmission_flags(handshake));
	put_bytes(answer, info, sizeof(info));
	if (!handshake->no_zeroes)
		put_bytes(answer, zeroes, sizeof(zeroes));
}

static void put_info_name(struct nbd_answer *answer, uint32_t option, struct nbd_string name)
{
	uint8_t header[NBD_OPTION_REPLY_BYTES + 2];

	nbd_encode_option_reply(header, option, NBD_REP_INFO, 2 + name.len_bytes);
	nbd_put_u16(header + NBD_OPTION_REPLY_BYTES, NBD_INFO_NAME);
	put_bytes(answer, header, sizeof(header));
	put_bytes(answer, name.text, name.len_bytes);
}

/* INFO and GO: all that there is to know, and the name if it was asked for. */
static void option_info(struct nbd_handshake *handshake, uint32_t option, struct nbd_reader *reader,
			struct nbd_answer *answer)
{
	struct nbd_string name = nbd_read_string(reader);
	unsigned count = nbd_read_u16(reader);
	bool wants_name = false;
	uint8_t info[14];

	for (unsigned i = 0; i < count && !reader->bad; i++) {
		uint16_t wanted = nbd_read_u16(reader);

		wants_name = wants_name || (!reader->bad && wanted == NBD_INFO_NAME);
	}
	if (!nbd_read_all(reader)) {
		put_error(answer, option, NBD_REP_ERR_INVALID, "malformed option");
		return;
	}
	if (!is_served(handshake, name)) {
		put_error(answer, option, NBD_REP_ERR_UNKNOWN, "no export of that name");
		return;
	}
	if (option == NBD_OPT_GO)
		enter_transmission(handshake, name);
	nbd_put_u16(info, NBD_INFO_EXPORT);
	nbd_encode_export(info + 2, handshake->export->size_bytes,
			  nbd_handshake_transmission_flags(handshake));
	put_reply(answer, option, NBD_REP_INFO, info, 2 + NBD_EXPORT_INFO_BYTES);
	nbd_put_u16(info, NBD_INFO_BLOCK_SIZE);
	nbd_put_u32(info + 2, NBD_BLOCK_BYTES_MIN);
	nbd_put_u32(info + 6, NBD_BLOCK_BYTES_PREFERRED);
	nbd_put_u32(info + 10, NBD_PAYLOAD_BYTES_MAX);
	put_reply(answer, option, NBD_REP_INFO, info, 14);
	if (wants_name)
		put_info_name(answer, option, name);
	put_plain(answer, option, NBD_REP_ACK);
}

static void option_list(struct nbd_handshake *handshake, uint32_t len_bytes,
			struct nbd_answer *answer)
{
	uint8_t payload[4 + NBD_STRING_MAX];
	size_t name_bytes = strlen(own_name(handshake));

	if (len_bytes != 0) {
		put_error(answer, NBD_OPT_LIST, NBD_REP_ERR_INVALID, "LIST takes no data");
		return;
	}
	assert(name_bytes <= NBD_STRING_MAX);
	nbd_put_u32(payload, (uint32_t)name_bytes);
	memcpy(payload + 4, own_name(handshake), name_bytes);
	put_reply(answer, NBD_OPT_LIST, NBD_REP_SERVER, payload, 4 + name_bytes);
	put_plain(answer, NBD_OPT_LIST, NBD_REP_ACK);
}

static void option_structured(struct nbd_handshake *handshake, uint32_t len_bytes,
			      struct nbd_answer *answer)
{
	if (len_bytes != 0) {
		put_error(answer, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ERR_INVALID,
			  "STRUCTURED_REPLY takes no data");
		return;
	}
	handshake->structured = true;
	put_plain(answer, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK);
}

/* Whether one of the queries names base:allocation; LIST also takes the bare namespace, and no
 * query at all for everything. */
static bool read_queries(struct nbd_reader *reader, bool list)
{
	uint32_t count = nbd_read_u32(reader);
	bool found = list && count == 0;

	for (uint32_t i = 0; i < count && !reader->bad; i++) {
		struct nbd_string query = nbd_read_string(reader);

		if (!reader->bad && (nbd_string_is(query, NBD_CONTEXT_ALLOCATION_NAME) ||
				     (list && nbd_string_is(query, "base:"))))
			found = true;
	}
	return found;
}

static void remember_context(struct nbd_handshake *handshake, struct nbd_string name)
{
	handshake->allocation = true;
	handshake->context_export_bytes = name.len_bytes;
	memcpy(handshake->context_export, name.text, name.len_bytes);
}

static void option_context(struct nbd_handshake *handshake, uint32_t option,
			   struct nbd_reader *reader, struct nbd_answer *answer)
{
	static const char context[] = NBD_CONTEXT_ALLOCATION_NAME;
	bool set = option == NBD_OPT_SET_META_CONTEXT;
	struct nbd_string name = nbd_read_string(reader);
	bool found = read_queries(reader, !set);
	uint8_t payload[4 + sizeof(context) - 1];

	/* What was agreed before is void, also when this one fails. */
	if (set)
		handshake->allocation = false;
	if (!handshake->structured) {
		put_error(answer, option, NBD_REP_ERR_INVALID, "needs structured replies");
		return;
	}
	if (!nbd_read_all(reader)) {
		put_error(answer, option, NBD_REP_ERR_INVALID, "malformed option");
		return;
	}
	if (!is_served(handshake, name)) {
		put_error(answer, option, NBD_REP_ERR_UNKNOWN, "no export of that name");
		return;
	}
	if (found) {
		nbd_put_u32(payload, set ? NBD_CONTEXT_ALLOCATION : 0);
		memcpy(payload + 4, context, sizeof(context) - 1);
		put_reply(answer, option, NBD_REP_META_CONTEXT, payload, sizeof(payload));
		if (set)
			remember_context(handshake, name);
	}
	put_plain(answer, option, NBD_REP_ACK);
}

static void take_option(struct nbd_handshake *handshake, const struct nbd_option_header *header,
			const uint8_t *data, struct nbd_answer *answer)
{
	struct nbd_reader reader = {.at = data, .left_bytes = header->len_bytes};

	switch (header->option) {
	case NBD_OPT_EXPORT_NAME:
		option_export_name(handshake, data, header->len_bytes, answer);
		break;
	case NBD_OPT_ABORT:
		put_plain(answer, header->option, NBD_REP_ACK);
		handshake->state = NBD_HANDSHAKE_CLOSE;
		break;
	case NBD_OPT_LIST:
		option_list(handshake, header->len_bytes, answer);
		break;
	case NBD_OPT_INFO:
	case NBD_OPT_GO:
		option_info(handshake, header->option, &reader, answer);
		break;
	case NBD_OPT_STRUCTURED_REPLY:
		option_structured(handshake, header->len_bytes, answer);
		break;
	case NBD_OPT_LIST_META_CONTEXT:
	case NBD_OPT_SET_META_CONTEXT:
		option_context(handshake, header->option, &reader, answer);
		break;
	default:
		put_error(answer, header->option, NBD_REP_ERR_UNSUP, "option not known here");
		break;
	}
}

static size_t step_flags(struct nbd_handshake *handshake, const uint8_t *in, size_t in_bytes)
{
	const uint32_t offered = NBD_HANDSHAKE_FIXED_NEWSTYLE | NBD_HANDSHAKE_NO_ZEROES;
	uint32_t flags;

	if (in_bytes < NBD_CLIENT_FLAGS_BYTES)
		return 0;
	flags = nbd_decode_client_flags(in);
	handshake->no_zeroes = (flags & NBD_HANDSHAKE_NO_ZEROES) != 0;
	handshake->state = (flags & ~offered) == 0 ? NBD_HANDSHAKE_OPTIONS : NBD_HANDSHAKE_CLOSE;
	return NBD_CLIENT_FLAGS_BYTES;
}

static size_t step_skipping(struct nbd_handshake *handshake, size_t in_bytes,
			    struct nbd_answer *answer)
{
	size_t taken = in_bytes < handshake->skip_bytes ? in_bytes : handshake->skip_bytes;

	handshake->skip_bytes -= (uint32_t)taken;
	if (handshake->skip_bytes == 0) {
		put_error(answer, handshake->skipped_option, NBD_REP_ERR_TOO_BIG,
			  "option is too long");
		handshake->state = NBD_HANDSHAKE_OPTIONS;
	}
	return taken;
}

static size_t step_option(struct nbd_handshake *handshake, const uint8_t *in, size_t in_bytes,
			  struct nbd_answer *answer)
{
	struct nbd_option_header header;

	if (in_bytes < NBD_OPTION_HEADER_BYTES)
		return 0;
	if (nbd_decode_option(in, &header) < 0 || header.len_bytes > NBD_OPTION_SKIP_BYTES_MAX ||
	    handshake->options >= NBD_OPTIONS_MAX) {
		handshake->state = NBD_HANDSHAKE_CLOSE;
		return NBD_OPTION_HEADER_BYTES;
	}
	if (header.len_bytes > NBD_OPTION_BYTES_MAX) {
		handshake->options++;
		handshake->skipped_option = header.option;
		handshake->skip_bytes = header.len_bytes;
		handshake->state = NBD_HANDSHAKE_SKIPPING;
		return NBD_OPTION_HEADER_BYTES;
	}
	if (in_bytes - NBD_OPTION_HEADER_BYTES < header.len_bytes)
		return 0;
	handshake->options++;
	take_option(handshake, &header, in + NBD_OPTION_HEADER_BYTES, answer);
	return NBD_OPTION_HEADER_BYTES + header.len_bytes;
}

size_t nbd_handshake_step(struct nbd_handshake *handshake, const uint8_t *in, size_t in_bytes,
			  struct nbd_answer *answer)
{
	assert(answer->len_bytes == 0);
	switch (handshake->state) {
	case NBD_HANDSHAKE_FLAGS:
		return step_flags(handshake, in, in_bytes);
	case NBD_HANDSHAKE_OPTIONS:
		return step_option(handshake, in, in_bytes, answer);
	case NBD_HANDSHAKE_SKIPPING:
		return step_skipping(handshake, in_bytes, answer);
	case NBD_HANDSHAKE_TRANSMISSION:
	case NBD_HANDSHAKE_CLOSE:
		break;
	}
	assert(!"a handshake that is over");
}
