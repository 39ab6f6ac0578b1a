/* SPDX-License-Identifier: GPL-2.0-or-later */
/* nbd_handshake - see the header */
#include "server/nbd/nbd_handshake.h"

#include <assert.h>
#include <string.h>

#include "core/base/mutant.h"

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
		flags |= NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES |
			 NBD_FLAG_SEND_FAST_ZERO;
	if (handshake->structured)
		flags |= NBD_FLAG_SEND_DF;
	return flags;
}

static void forget_contexts(struct nbd_handshake *handshake)
{
	handshake->allocation = false;
	handshake->shared = false;
	handshake->context_export_bytes = 0;
}

void nbd_handshake_tls_began(struct nbd_handshake *handshake)
{
	assert(handshake->state == NBD_HANDSHAKE_STARTTLS && !handshake->tls);
	handshake->tls = true;
	handshake->state = NBD_HANDSHAKE_OPTIONS;
	if (MUTANT(34))
		return;
	handshake->structured = false;
	handshake->extended = false;
	forget_contexts(handshake);
}

static bool needs_tls(const struct nbd_handshake *handshake)
{
	return handshake->export->tls_required && !handshake->tls;
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
	if (!is_context_export(handshake, name))
		forget_contexts(handshake);
	handshake->state = NBD_HANDSHAKE_TRANSMISSION;
}

static void option_export_name(struct nbd_handshake *handshake, const uint8_t *data,
			       uint32_t len_bytes, struct nbd_answer *answer)
{
	static const uint8_t zeroes[NBD_EXPORT_ZEROES_BYTES];
	struct nbd_string name = {.text = (const char *)data, .len_bytes = len_bytes};
	uint8_t info[NBD_EXPORT_INFO_BYTES];

	/* This option has no way to say no. Extended headers go with GO only. */
	if (len_bytes > NBD_STRING_MAX || !is_served(handshake, name) || handshake->extended) {
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
	const uint32_t option = NBD_OPT_STRUCTURED_REPLY;

	if (len_bytes != 0) {
		put_error(answer, option, NBD_REP_ERR_INVALID, "STRUCTURED_REPLY takes no data");
	} else if (handshake->extended) {
		put_error(answer, option, NBD_REP_ERR_EXT_HEADER_REQD,
			  "extended headers were agreed upon");
	} else {
		handshake->structured = true;
		put_plain(answer, option, NBD_REP_ACK);
	}
}

static void option_extended(struct nbd_handshake *handshake, uint32_t len_bytes,
			    struct nbd_answer *answer)
{
	const uint32_t option = NBD_OPT_EXTENDED_HEADERS;

	if (len_bytes != 0) {
		put_error(answer, option, NBD_REP_ERR_INVALID, "EXTENDED_HEADERS takes no data");
	} else if (handshake->extended) {
		put_error(answer, option, NBD_REP_ERR_INVALID, "extended headers were agreed upon");
	} else {
		handshake->structured = true;
		handshake->extended = true;
		put_plain(answer, option, NBD_REP_ACK);
	}
}

static void option_starttls(struct nbd_handshake *handshake, uint32_t len_bytes,
			    struct nbd_answer *answer)
{
	const uint32_t option = NBD_OPT_STARTTLS;

	if (!handshake->export->tls_available || !handshake->fixed)
		put_error(answer, option, NBD_REP_ERR_UNSUP, "there is no TLS here");
	else if (handshake->tls)
		put_error(answer, option, NBD_REP_ERR_INVALID, "TLS has already begun");
	else if (len_bytes != 0)
		put_error(answer, option, NBD_REP_ERR_INVALID, "STARTTLS takes no data");
	else {
		put_plain(answer, option, NBD_REP_ACK);
		handshake->state = NBD_HANDSHAKE_STARTTLS;
	}
}

/* Without the TLS that is required. */
static void refuse_option(struct nbd_handshake *handshake, uint32_t option,
			  struct nbd_answer *answer)
{
	if (option == NBD_OPT_EXPORT_NAME)
		handshake->state = NBD_HANDSHAKE_CLOSE;
	else
		put_error(answer, option, NBD_REP_ERR_TLS_REQD, "STARTTLS comes first");
}

static const struct context {
	uint32_t id;
	const char *name;
	const char *space;
} contexts[NBD_CONTEXTS_MAX] = {
	{NBD_CONTEXT_ALLOCATION, NBD_CONTEXT_ALLOCATION_NAME, "base:"},
	{NBD_CONTEXT_SHARED, NBD_CONTEXT_SHARED_NAME, "sameblk:"},
};

/* The contexts that the queries name, a bit for each index; LIST also takes the bare namespace, and
 * no query at all for everything. */
static unsigned read_queries(struct nbd_reader *reader, bool list)
{
	uint32_t count = nbd_read_u32(reader);
	unsigned found = list && count == 0 ? (1u << NBD_CONTEXTS_MAX) - 1 : 0;

	for (uint32_t i = 0; i < count && !reader->bad; i++) {
		struct nbd_string query = nbd_read_string(reader);

		for (unsigned c = 0; c < NBD_CONTEXTS_MAX && !reader->bad; c++)
			if (nbd_string_is(query, contexts[c].name) ||
			    (list && nbd_string_is(query, contexts[c].space)))
				found |= 1u << c;
	}
	return found;
}

static void put_context(struct nbd_answer *answer, uint32_t option, const struct context *context)
{
	uint8_t header[NBD_OPTION_REPLY_BYTES + 4];
	size_t name_bytes = strlen(context->name);
	bool set = option == NBD_OPT_SET_META_CONTEXT;

	nbd_encode_option_reply(header, option, NBD_REP_META_CONTEXT, (uint32_t)(4 + name_bytes));
	nbd_put_u32(header + NBD_OPTION_REPLY_BYTES, set ? context->id : 0);
	put_bytes(answer, header, sizeof(header));
	put_bytes(answer, context->name, name_bytes);
}

static void remember_contexts(struct nbd_handshake *handshake, struct nbd_string name,
			      unsigned found)
{
	handshake->allocation = (found & 1) != 0;
	handshake->shared = (found & 2) != 0;
	handshake->context_export_bytes = name.len_bytes;
	memcpy(handshake->context_export, name.text, name.len_bytes);
}

static void option_context(struct nbd_handshake *handshake, uint32_t option,
			   struct nbd_reader *reader, struct nbd_answer *answer)
{
	bool set = option == NBD_OPT_SET_META_CONTEXT;
	struct nbd_string name = nbd_read_string(reader);
	unsigned found = read_queries(reader, !set);

	/* What was agreed before is void, also when this one fails. */
	if (set)
		forget_contexts(handshake);
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
	for (unsigned c = 0; c < NBD_CONTEXTS_MAX; c++)
		if ((found & 1u << c) != 0)
			put_context(answer, option, &contexts[c]);
	if (set)
		remember_contexts(handshake, name, found);
	put_plain(answer, option, NBD_REP_ACK);
}

static void take_option(struct nbd_handshake *handshake, const struct nbd_option_header *header,
			const uint8_t *data, struct nbd_answer *answer)
{
	struct nbd_reader reader = {.at = data, .left_bytes = header->len_bytes};

	if (needs_tls(handshake) && header->option != NBD_OPT_STARTTLS &&
	    header->option != NBD_OPT_ABORT) {
		refuse_option(handshake, header->option, answer);
		return;
	}
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
	case NBD_OPT_STARTTLS:
		option_starttls(handshake, header->len_bytes, answer);
		break;
	case NBD_OPT_INFO:
	case NBD_OPT_GO:
		option_info(handshake, header->option, &reader, answer);
		break;
	case NBD_OPT_STRUCTURED_REPLY:
		option_structured(handshake, header->len_bytes, answer);
		break;
	case NBD_OPT_EXTENDED_HEADERS:
		option_extended(handshake, header->len_bytes, answer);
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
	handshake->fixed = (flags & NBD_HANDSHAKE_FIXED_NEWSTYLE) != 0;
	/* Who only knows EXPORT_NAME cannot be told that it has to begin TLS. */
	handshake->state = (flags & ~offered) == 0 && (handshake->fixed || !needs_tls(handshake))
				   ? NBD_HANDSHAKE_OPTIONS
				   : NBD_HANDSHAKE_CLOSE;
	return NBD_CLIENT_FLAGS_BYTES;
}

static size_t step_skipping(struct nbd_handshake *handshake, size_t in_bytes,
			    struct nbd_answer *answer)
{
	size_t taken = in_bytes < handshake->skip_bytes ? in_bytes : handshake->skip_bytes;

	handshake->skip_bytes -= (uint32_t)taken;
	if (handshake->skip_bytes > 0)
		return taken;
	handshake->state = NBD_HANDSHAKE_OPTIONS;
	if (needs_tls(handshake))
		refuse_option(handshake, handshake->skipped_option, answer);
	else
		put_error(answer, handshake->skipped_option, NBD_REP_ERR_TOO_BIG,
			  "option is too long");
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
	if (in_bytes - (MUTANT(33) ? 0 : NBD_OPTION_HEADER_BYTES) < header.len_bytes)
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
	case NBD_HANDSHAKE_STARTTLS:
	case NBD_HANDSHAKE_TRANSMISSION:
	case NBD_HANDSHAKE_CLOSE:
		break;
	}
	assert(!"a handshake that is over");
}
