/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * handshake - fuzz target: the NBD handshake, from a client's bytes to the server's
 *
 *   input:  export, portion, client flags, options
 *
 * The server's machine gets the bytes in one piece and once more in portions, each time in memory
 * that ends where what came ends. Oracles:
 *
 *   division   both give the same answers, state and agreement
 *   bounds     a step takes no more than it was offered, needs no more than it says, and its answer
 *              fits
 *   replies    each option that came whole is answered as a client of the protocol expects: by
 *              replies to that option, the last of them and no other an ACK or an error, with
 *              payloads that their type describes
 *   agreement  only GO and EXPORT_NAME lead to transmission; contexts are agreed upon only with
 *              structured replies
 */
#include <assert.h>
#include <string.h>

#include "server/nbd/nbd_handshake.h"
#include "tests/fuzz/fuzz.h"

#define OFFER_BYTES_MAX (NBD_OPTION_HEADER_BYTES + NBD_OPTION_BYTES_MAX)

/* What it did with a client's bytes. */
struct outcome {
	struct nbd_handshake handshake;
	size_t taken_bytes;
	size_t len_bytes;
	uint8_t *bytes; /* all answers */
};

/* Replies, read by a client. */
struct replies {
	struct nbd_reader reader;
	const struct nbd_handshake *handshake;
	bool context; /* the last SET_META_CONTEXT was answered with one */
	bool may_close; /* the client gave cause to */
};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	return 0;
}

static bool is_over(const struct nbd_handshake *handshake)
{
	return handshake->state == NBD_HANDSHAKE_TRANSMISSION ||
	       handshake->state == NBD_HANDSHAKE_CLOSE;
}

static void step(struct outcome *outcome, const uint8_t *from, size_t len_bytes, size_t *ret_taken)
{
	static struct nbd_answer answer;
	uint8_t *offer = malloc(len_bytes ? len_bytes : 1);

	FUZZ_CHECK(offer, "no memory");
	memcpy(offer, from, len_bytes);
	answer.len_bytes = 0;
	*ret_taken = nbd_handshake_step(&outcome->handshake, offer, len_bytes, &answer);
	free(offer);
	FUZZ_CHECK(*ret_taken <= len_bytes, "%zu of %zu taken", *ret_taken, len_bytes);
	FUZZ_CHECK(*ret_taken > 0 || len_bytes < OFFER_BYTES_MAX, "%zu bytes are not enough",
		   len_bytes);
	FUZZ_CHECK(*ret_taken > 0 || answer.len_bytes == 0, "an answer to nothing");
	FUZZ_CHECK(answer.len_bytes <= sizeof(answer.bytes), "%zu bytes of answer",
		   answer.len_bytes);
	if (answer.len_bytes == 0)
		return;
	outcome->bytes = realloc(outcome->bytes, outcome->len_bytes + answer.len_bytes);
	FUZZ_CHECK(outcome->bytes, "no memory");
	memcpy(outcome->bytes + outcome->len_bytes, answer.bytes, answer.len_bytes);
	outcome->len_bytes += answer.len_bytes;
}

static void feed(struct outcome *outcome, const struct nbd_export *export,
		 const struct input *input, size_t portion)
{
	size_t end = 0;

	memset(outcome, 0, sizeof(*outcome));
	nbd_handshake_init(&outcome->handshake, export);
	while (!is_over(&outcome->handshake)) {
		size_t taken;

		step(outcome, input->at + outcome->taken_bytes, end - outcome->taken_bytes, &taken);
		outcome->taken_bytes += taken;
		if (taken > 0)
			continue;
		if (end == input->left_bytes)
			return;
		end = input->left_bytes - end < portion ? input->left_bytes : end + portion;
	}
}

static void compare(const struct outcome *a, const struct outcome *b)
{
	FUZZ_CHECK(a->len_bytes == b->len_bytes &&
			   (a->len_bytes == 0 || memcmp(a->bytes, b->bytes, a->len_bytes) == 0),
		   "answers of %zu and %zu bytes", a->len_bytes, b->len_bytes);
	FUZZ_CHECK(a->handshake.state == b->handshake.state, "states %d and %d", a->handshake.state,
		   b->handshake.state);
	FUZZ_CHECK(a->handshake.structured == b->handshake.structured &&
			   a->handshake.extended == b->handshake.extended &&
			   a->handshake.allocation == b->handshake.allocation &&
			   a->handshake.shared == b->handshake.shared &&
			   a->handshake.no_zeroes == b->handshake.no_zeroes &&
			   a->handshake.options == b->handshake.options,
		   "they agree on different things");
}

/* --- the client --- */

static const uint8_t *take(struct nbd_reader *reader, size_t len_bytes)
{
	const uint8_t *at = reader->at;

	FUZZ_CHECK(reader->left_bytes >= len_bytes, "%zu bytes of a reply, %zu came", len_bytes,
		   reader->left_bytes);
	reader->at += len_bytes;
	reader->left_bytes -= len_bytes;
	return at;
}

static void look_at_export(const struct replies *replies, const uint8_t *info)
{
	const struct nbd_export *export = replies->handshake->export;
	uint16_t flags = nbd_get_u16(info + 8);

	FUZZ_CHECK(nbd_get_u64(info) == export->size_bytes, "another size");
	FUZZ_CHECK(flags & NBD_FLAG_HAS_FLAGS, "no flags");
	FUZZ_CHECK(!(flags & NBD_FLAG_READ_ONLY) == !export->read_only, "read-only");
}

static void look_at_info(const struct replies *replies, const uint8_t *data, uint32_t len_bytes)
{
	uint16_t kind;

	FUZZ_CHECK(len_bytes >= 2, "an info of %u bytes", len_bytes);
	kind = nbd_get_u16(data);
	FUZZ_CHECK(kind == NBD_INFO_EXPORT || kind == NBD_INFO_NAME || kind == NBD_INFO_BLOCK_SIZE,
		   "info %u", kind);
	FUZZ_CHECK(kind != NBD_INFO_EXPORT || len_bytes == 12, "an export in %u bytes", len_bytes);
	FUZZ_CHECK(kind != NBD_INFO_BLOCK_SIZE || len_bytes == 14, "sizes in %u bytes", len_bytes);
	FUZZ_CHECK(kind != NBD_INFO_NAME || len_bytes <= 2 + NBD_STRING_MAX, "a long name");
	if (kind == NBD_INFO_EXPORT)
		look_at_export(replies, data + 2);
}

static bool is_context(const uint8_t *name, size_t len_bytes)
{
	static const char *const names[] = {NBD_CONTEXT_ALLOCATION_NAME, NBD_CONTEXT_SHARED_NAME};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (len_bytes == strlen(names[i]) && memcmp(name, names[i], len_bytes) == 0)
			return true;
	return false;
}

static void look_at_payload(struct replies *replies, uint32_t option, uint32_t type,
			    const uint8_t *data, uint32_t len_bytes)
{
	bool context = option == NBD_OPT_LIST_META_CONTEXT || option == NBD_OPT_SET_META_CONTEXT;

	switch (type) {
	case NBD_REP_ACK:
		FUZZ_CHECK(len_bytes == 0, "an ACK with data");
		break;
	case NBD_REP_SERVER:
		FUZZ_CHECK(option == NBD_OPT_LIST && len_bytes >= 4 &&
				   nbd_get_u32(data) == len_bytes - 4,
			   "a server's name of %u bytes", len_bytes);
		break;
	case NBD_REP_INFO:
		FUZZ_CHECK(option == NBD_OPT_INFO || option == NBD_OPT_GO, "info for %u", option);
		look_at_info(replies, data, len_bytes);
		break;
	case NBD_REP_META_CONTEXT:
		FUZZ_CHECK(context && len_bytes > 4 && is_context(data + 4, len_bytes - 4),
			   "a context of %u bytes", len_bytes);
		replies->context = replies->context || option == NBD_OPT_SET_META_CONTEXT;
		break;
	default:
		FUZZ_CHECK(type & NBD_REP_ERROR(0), "reply %u", type);
		for (uint32_t i = 0; i < len_bytes; i++)
			FUZZ_CHECK(data[i] >= ' ' && data[i] <= '~', "an error to print");
	}
}

/* Replies to one option up to the last; its type. */
static uint32_t take_replies(struct replies *replies, uint32_t option)
{
	uint32_t type;

	if (option == NBD_OPT_SET_META_CONTEXT)
		replies->context = false;
	do {
		const uint8_t *header = take(&replies->reader, NBD_OPTION_REPLY_BYTES);
		uint32_t len_bytes = nbd_get_u32(header + 16);

		type = nbd_get_u32(header + 12);
		FUZZ_CHECK(nbd_get_u64(header) == NBD_OPTION_REPLY_MAGIC, "no reply");
		FUZZ_CHECK(nbd_get_u32(header + 8) == option, "a reply to %u, not to %u",
			   nbd_get_u32(header + 8), option);
		look_at_payload(replies, option, type, take(&replies->reader, len_bytes),
				len_bytes);
	} while (type != NBD_REP_ACK && !(type & NBD_REP_ERROR(0)));
	return type;
}

/* The last option of all: nothing follows, and it led where it says. */
static void look_at_end(struct replies *replies, uint32_t option, bool acknowledged)
{
	const struct nbd_handshake *handshake = replies->handshake;
	enum nbd_handshake_state state = handshake->state;
	bool agreed = handshake->allocation || handshake->shared;

	FUZZ_CHECK(replies->reader.left_bytes == 0, "%zu bytes too many",
		   replies->reader.left_bytes);
	FUZZ_CHECK((option == NBD_OPT_GO && acknowledged) ==
				   (state == NBD_HANDSHAKE_TRANSMISSION) ||
			   option == NBD_OPT_EXPORT_NAME,
		   "option %u led to state %d", option, state);
	FUZZ_CHECK(!agreed || (handshake->structured && replies->context),
		   "a context that was not agreed upon");
	FUZZ_CHECK(agreed || !replies->context || state == NBD_HANDSHAKE_TRANSMISSION,
		   "a context that was forgotten");
	FUZZ_CHECK(state != NBD_HANDSHAKE_CLOSE || replies->may_close, "it closes without cause");
}

static void look_at_export_name(struct replies *replies)
{
	if (replies->handshake->state == NBD_HANDSHAKE_CLOSE)
		return;
	FUZZ_CHECK(replies->handshake->state == NBD_HANDSHAKE_TRANSMISSION, "EXPORT_NAME: state %d",
		   replies->handshake->state);
	look_at_export(replies, take(&replies->reader, NBD_EXPORT_INFO_BYTES));
	if (!replies->handshake->no_zeroes)
		take(&replies->reader, NBD_EXPORT_ZEROES_BYTES);
}

/* INFO and GO: a name, a count and that many numbers, to the last byte. */
static bool is_info(const uint8_t *data, uint32_t len_bytes)
{
	uint32_t name_bytes = len_bytes >= 6 ? nbd_get_u32(data) : 0;

	return len_bytes >= 6 && name_bytes <= NBD_STRING_MAX && name_bytes <= len_bytes - 6 &&
	       len_bytes == 6 + name_bytes + 2u * nbd_get_u16(data + 4 + name_bytes);
}

static uint32_t look_at_option(struct replies *replies, const struct nbd_option_header *header,
			       const uint8_t *data)
{
	bool info = header->option == NBD_OPT_INFO || header->option == NBD_OPT_GO;
	bool looked_at = header->len_bytes <= NBD_OPTION_BYTES_MAX;
	uint32_t type;

	if (looked_at && header->option == NBD_OPT_EXPORT_NAME) {
		replies->may_close = true;
		look_at_export_name(replies);
		return NBD_REP_ERR_UNSUP;
	}
	replies->may_close = replies->may_close || (looked_at && header->option == NBD_OPT_ABORT);
	type = take_replies(replies, header->option);
	FUZZ_CHECK(looked_at == (type != NBD_REP_ERR_TOO_BIG), "%u bytes: reply %#x",
		   header->len_bytes, type);
	FUZZ_CHECK(!info || !looked_at ||
			   is_info(data, header->len_bytes) == (type != NBD_REP_ERR_INVALID),
		   "option %u of %u bytes: reply %#x", header->option, header->len_bytes, type);
	return type;
}

static void look_at_replies(const struct outcome *outcome, const struct input *input)
{
	struct replies replies = {
		.reader = {outcome->bytes, outcome->len_bytes, false},
		.handshake = &outcome->handshake,
	};
	struct nbd_reader in = {input->at, outcome->taken_bytes, false};
	uint32_t type = NBD_REP_ERR_UNSUP;
	struct nbd_option_header header = {0};
	unsigned options = 0;

	if (in.left_bytes < NBD_CLIENT_FLAGS_BYTES)
		return;
	replies.may_close = nbd_get_u32(take(&in, NBD_CLIENT_FLAGS_BYTES)) & ~3u;
	while (in.left_bytes >= NBD_OPTION_HEADER_BYTES) {
		struct nbd_option_header next;

		if (nbd_decode_option(take(&in, NBD_OPTION_HEADER_BYTES), &next) < 0 ||
		    next.len_bytes > NBD_OPTION_SKIP_BYTES_MAX || options++ == NBD_OPTIONS_MAX) {
			replies.may_close = true;
			break;
		}
		if (next.len_bytes > in.left_bytes)
			break;
		header = next;
		type = look_at_option(&replies, &header, take(&in, header.len_bytes));
	}
	look_at_end(&replies, header.option, type == NBD_REP_ACK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len_bytes)
{
	static struct outcome whole, parts;
	struct input input = {data, len_bytes};
	uint8_t kind = input_u8(&input);
	size_t portion = 1 + input_u8(&input);
	struct nbd_export export = {
		.name = kind & 1 ? NULL : "disk",
		.size_bytes = 1ull << (20 + kind / 4 % 32),
		.read_only = kind & 2,
	};

	feed(&whole, &export, &input, input.left_bytes);
	feed(&parts, &export, &input, portion);
	compare(&whole, &parts);
	look_at_replies(&whole, &input);
	free(whole.bytes);
	free(parts.bytes);
	return 0;
}
