/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_nbd_handshake - the handshake as a machine from bytes to bytes
 *
 * What it answers to each option is tested over a socket (nbd_protocol.py); here is what needs no
 * socket: that any division of the input gives the same answers, and that no input leads out of the
 * buffers.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "server/nbd/nbd_handshake.h"

static const struct nbd_export export = {.name = "disk", .size_bytes = 1 << 20};

struct bytes {
	size_t len;
	uint8_t at[64 * 1024];
};

static void add(struct bytes *bytes, const void *more, size_t len)
{
	cr_assert_leq(bytes->len + len, sizeof(bytes->at));
	memcpy(bytes->at + bytes->len, more, len);
	bytes->len += len;
}

static void add_option(struct bytes *bytes, uint32_t option, const void *data, uint32_t len)
{
	uint8_t header[NBD_OPTION_HEADER_BYTES];

	nbd_put_u64(header, NBD_OPTION_MAGIC);
	nbd_put_u32(header + 8, option);
	nbd_put_u32(header + 12, len);
	add(bytes, header, sizeof(header));
	add(bytes, data, len);
}

static bool is_over(const struct nbd_handshake *handshake)
{
	return handshake->state == NBD_HANDSHAKE_TRANSMISSION ||
	       handshake->state == NBD_HANDSHAKE_STARTTLS ||
	       handshake->state == NBD_HANDSHAKE_CLOSE;
}

/* Feeds input in portions of at most portion bytes; what it did not take is offered again with
 * more, in memory that ends where the offer ends. */
static void feed(struct nbd_handshake *handshake, const struct bytes *input, size_t portion,
		 struct bytes *ret_output)
{
	size_t start = 0, end = 0;

	ret_output->len = 0;
	while (!is_over(handshake)) {
		struct nbd_answer answer = {.len_bytes = 0};
		uint8_t *offer = malloc(end - start + 1);
		size_t taken;

		memcpy(offer + 1, input->at + start, end - start);
		taken = nbd_handshake_step(handshake, offer + 1, end - start, &answer);
		free(offer);
		cr_assert_leq(taken, end - start);
		add(ret_output, answer.bytes, answer.len_bytes);
		start += taken;
		if (taken > 0)
			continue;
		if (end == input->len)
			return;
		end = end + portion < input->len ? end + portion : input->len;
	}
}

static void usual_session(struct bytes *bytes)
{
	static const char names[] = "\0\0\0\4disk\0\0\0\1\0\0\0\x0f"
				    "base:allocation";
	static uint8_t long_data[NBD_OPTION_BYTES_MAX + 1];

	bytes->len = 0;
	add(bytes, "\0\0\0\3", 4);
	add_option(bytes, NBD_OPT_STRUCTURED_REPLY, "", 0);
	add_option(bytes, 99, "unknown", 7);
	add_option(bytes, NBD_OPT_LIST, "", 0);
	add_option(bytes, 98, long_data, sizeof(long_data));
	add_option(bytes, NBD_OPT_SET_META_CONTEXT, names, sizeof(names) - 1);
	add_option(bytes, NBD_OPT_INFO, "\0\0\0\4disk\0\1\0\1", 12);
	add_option(bytes, NBD_OPT_GO, "\0\0\0\4disk\0\0", 10);
}

/* Mutant 33. */
Test(nbd_handshake, any_division_of_the_input_gives_the_same_answers)
{
	static struct bytes input, whole, parts;
	static const size_t portions[] = {1, 2, 3, 7, 16, 17, 100, 4096};
	struct nbd_handshake handshake;

	usual_session(&input);
	nbd_handshake_init(&handshake, &export);
	feed(&handshake, &input, input.len, &whole);
	cr_assert_eq(handshake.state, NBD_HANDSHAKE_TRANSMISSION);
	cr_assert(handshake.structured && handshake.allocation && handshake.no_zeroes);
	cr_assert_gt(whole.len, 200);
	for (size_t i = 0; i < sizeof(portions) / sizeof(portions[0]); i++) {
		nbd_handshake_init(&handshake, &export);
		feed(&handshake, &input, portions[i], &parts);
		cr_assert_eq(handshake.state, NBD_HANDSHAKE_TRANSMISSION);
		cr_assert_eq(parts.len, whole.len);
		cr_assert_eq(memcmp(parts.at, whole.at, whole.len), 0);
	}
}

/* Mutant 32: changed bytes of a good session, under a sanitizer. */
Test(nbd_handshake, no_input_leads_out_of_it)
{
	static struct bytes input, output;
	unsigned closed = 0;

	srand(1);
	for (unsigned round = 0; round < 3000; round++) {
		struct nbd_handshake handshake;

		usual_session(&input);
		for (int i = rand() % 8; i >= 0; i--)
			input.at[rand() % 200] = (uint8_t)(rand() % 3 == 0 ? 0xff : rand());
		nbd_handshake_init(&handshake, &export);
		feed(&handshake, &input, 1 + (size_t)rand() % 5000, &output);
		closed += handshake.state == NBD_HANDSHAKE_CLOSE;
	}
	cr_assert_gt(closed, 100);
}

Test(nbd_handshake, options_are_bounded_in_number)
{
	static struct bytes input, output;
	struct nbd_handshake handshake;

	nbd_handshake_init(&handshake, &export);
	add(&input, "\0\0\0\1", 4);
	for (unsigned i = 0; i < NBD_OPTIONS_MAX + 1; i++)
		add_option(&input, 99, "", 0);
	feed(&handshake, &input, input.len, &output);
	cr_assert_eq(handshake.state, NBD_HANDSHAKE_CLOSE);
	cr_assert_eq(handshake.options, NBD_OPTIONS_MAX);
}

Test(nbd_handshake, the_longest_name_fits_into_the_answer)
{
	static struct bytes input, output;
	static char name[NBD_STRING_MAX + 1], data[NBD_STRING_MAX + 8];
	struct nbd_export named = {.name = name, .size_bytes = 1};
	struct nbd_handshake handshake;

	memset(name, 'n', NBD_STRING_MAX);
	nbd_handshake_init(&handshake, &named);
	add(&input, "\0\0\0\1", 4);
	add_option(&input, NBD_OPT_LIST, "", 0);
	nbd_put_u32((uint8_t *)data, NBD_STRING_MAX);
	memcpy(data + 4, name, NBD_STRING_MAX);
	memcpy(data + 4 + NBD_STRING_MAX, "\0\1\0\1", 4);
	add_option(&input, NBD_OPT_GO, data, sizeof(data));
	feed(&handshake, &input, input.len, &output);
	cr_assert_eq(handshake.state, NBD_HANDSHAKE_TRANSMISSION);
	cr_assert_gt(output.len, 2 * NBD_STRING_MAX);
}

Test(nbd_handshake, flags_that_were_not_offered_end_it)
{
	static struct bytes input, output;
	struct nbd_handshake handshake;

	nbd_handshake_init(&handshake, &export);
	add(&input, "\0\0\0\7", 4);
	feed(&handshake, &input, 4, &output);
	cr_assert_eq(handshake.state, NBD_HANDSHAKE_CLOSE);
}

/* What one option is answered with: the type of the first reply, 0 for none. */
static uint32_t ask(struct nbd_handshake *handshake, uint32_t option, const void *data,
		    uint32_t len)
{
	static struct bytes input, output;

	input.len = 0;
	add_option(&input, option, data, len);
	feed(handshake, &input, input.len, &output);
	if (output.len == 0)
		return 0;
	cr_assert_geq(output.len, NBD_OPTION_REPLY_BYTES);
	cr_assert_eq(nbd_get_u32(output.at + 8), option);
	return nbd_get_u32(output.at + 12);
}

/* What was not agreed upon yet, and what cannot be taken back. */
Test(nbd_handshake, extended_headers_come_once_and_end_the_older_ways)
{
	struct nbd_handshake handshake;

	nbd_handshake_init(&handshake, &export);
	handshake.state = NBD_HANDSHAKE_OPTIONS;
	cr_assert_eq(ask(&handshake, NBD_OPT_EXTENDED_HEADERS, "x", 1), NBD_REP_ERR_INVALID);
	cr_assert_not(handshake.extended);
	cr_assert_eq(ask(&handshake, NBD_OPT_EXTENDED_HEADERS, "", 0), NBD_REP_ACK);
	cr_assert(handshake.extended && handshake.structured);
	cr_assert_eq(ask(&handshake, NBD_OPT_EXTENDED_HEADERS, "", 0), NBD_REP_ERR_INVALID);
	cr_assert_eq(ask(&handshake, NBD_OPT_STRUCTURED_REPLY, "", 0), NBD_REP_ERR_EXT_HEADER_REQD);
	cr_assert(handshake.extended && handshake.structured);
	cr_assert_eq(ask(&handshake, NBD_OPT_EXPORT_NAME, "disk", 4), 0);
	cr_assert_eq(handshake.state, NBD_HANDSHAKE_CLOSE);
}

/* --- TLS --- */

static const struct nbd_export offers_tls = {
	.name = "disk", .size_bytes = 1 << 20, .tls_available = true};
static const struct nbd_export requires_tls = {
	.name = "disk", .size_bytes = 1 << 20, .tls_available = true, .tls_required = true};

static void greet(struct nbd_handshake *handshake, const struct nbd_export *of, uint8_t flags)
{
	static struct bytes input, output;

	input.len = 0;
	nbd_handshake_init(handshake, of);
	add(&input, (uint8_t[]){0, 0, 0, flags}, 4);
	feed(handshake, &input, 4, &output);
}

Test(nbd_handshake, starttls_is_acknowledged_once_and_only_where_there_is_tls)
{
	struct nbd_handshake handshake;

	greet(&handshake, &export, 3);
	cr_assert_eq(ask(&handshake, NBD_OPT_STARTTLS, "", 0), NBD_REP_ERR_UNSUP);
	cr_assert_eq(handshake.state, NBD_HANDSHAKE_OPTIONS);
	greet(&handshake, &offers_tls, 3);
	cr_assert_eq(ask(&handshake, NBD_OPT_STARTTLS, "x", 1), NBD_REP_ERR_INVALID);
	cr_assert_eq(handshake.state, NBD_HANDSHAKE_OPTIONS);
	cr_assert_eq(ask(&handshake, NBD_OPT_STARTTLS, "", 0), NBD_REP_ACK);
	cr_assert_eq(handshake.state, NBD_HANDSHAKE_STARTTLS);
	nbd_handshake_tls_began(&handshake);
	cr_assert_eq(handshake.state, NBD_HANDSHAKE_OPTIONS);
	cr_assert_eq(ask(&handshake, NBD_OPT_STARTTLS, "", 0), NBD_REP_ERR_INVALID);
	cr_assert_eq(ask(&handshake, NBD_OPT_GO, "\0\0\0\4disk\0\0", 10), NBD_REP_INFO);
	cr_assert_eq(handshake.state, NBD_HANDSHAKE_TRANSMISSION);
}

Test(nbd_handshake, nothing_is_taken_beyond_the_option_that_starts_tls)
{
	static struct bytes input;
	struct nbd_handshake handshake;
	struct nbd_answer answer = {.len_bytes = 0};

	greet(&handshake, &offers_tls, 3);
	input.len = 0;
	add_option(&input, NBD_OPT_STARTTLS, "", 0);
	add_option(&input, NBD_OPT_GO, "\0\0\0\4disk\0\0", 10);
	cr_assert_eq(nbd_handshake_step(&handshake, input.at, input.len, &answer),
		     NBD_OPTION_HEADER_BYTES);
	cr_assert_eq(handshake.state, NBD_HANDSHAKE_STARTTLS);
	cr_assert_eq(answer.len_bytes, NBD_OPTION_REPLY_BYTES);
}

/* Mutant 34. */
Test(nbd_handshake, what_was_agreed_before_tls_is_void)
{
	static const char names[] = "\0\0\0\4disk\0\0\0\1\0\0\0\x0f"
				    "base:allocation";
	struct nbd_handshake handshake;
	unsigned options;

	greet(&handshake, &offers_tls, 3);
	cr_assert_eq(ask(&handshake, NBD_OPT_EXTENDED_HEADERS, "", 0), NBD_REP_ACK);
	cr_assert_eq(ask(&handshake, NBD_OPT_SET_META_CONTEXT, names, sizeof(names) - 1),
		     NBD_REP_META_CONTEXT);
	cr_assert(handshake.structured && handshake.extended && handshake.allocation);
	cr_assert_eq(ask(&handshake, NBD_OPT_STARTTLS, "", 0), NBD_REP_ACK);
	options = handshake.options;
	nbd_handshake_tls_began(&handshake);
	cr_assert_not(handshake.structured || handshake.extended);
	cr_assert_not(handshake.allocation || handshake.shared);
	cr_assert_eq(handshake.options, options, "a client gets no second helping of options");
	cr_assert_eq(ask(&handshake, NBD_OPT_SET_META_CONTEXT, names, sizeof(names) - 1),
		     NBD_REP_ERR_INVALID);
	cr_assert_eq(ask(&handshake, NBD_OPT_GO, "\0\0\0\4disk\0\0", 10), NBD_REP_INFO);
	cr_assert_not(handshake.structured || handshake.allocation);
	cr_assert_eq(nbd_handshake_transmission_flags(&handshake) & NBD_FLAG_SEND_DF, 0);
}

Test(nbd_handshake, where_tls_is_required_nothing_is_told_without)
{
	static const uint32_t refused[] = {
		NBD_OPT_LIST,
		NBD_OPT_INFO,
		NBD_OPT_GO,
		NBD_OPT_STRUCTURED_REPLY,
		NBD_OPT_LIST_META_CONTEXT,
		NBD_OPT_SET_META_CONTEXT,
		99,
	};
	static uint8_t long_data[NBD_OPTION_BYTES_MAX + 1];
	struct nbd_handshake handshake;

	greet(&handshake, &requires_tls, 3);
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		cr_assert_eq(ask(&handshake, refused[i], "\0\0\0\4disk\0\0", 10),
			     NBD_REP_ERR_TLS_REQD, "option %u", refused[i]);
		cr_assert_eq(ask(&handshake, refused[i], "", 0), NBD_REP_ERR_TLS_REQD);
	}
	cr_assert_eq(ask(&handshake, 98, long_data, sizeof(long_data)), NBD_REP_ERR_TLS_REQD);
	cr_assert_not(handshake.structured);
	cr_assert_eq(ask(&handshake, NBD_OPT_STARTTLS, "", 0), NBD_REP_ACK);
	nbd_handshake_tls_began(&handshake);
	cr_assert_eq(ask(&handshake, NBD_OPT_LIST, "", 0), NBD_REP_SERVER);
	cr_assert_eq(ask(&handshake, 99, "", 0), NBD_REP_ERR_UNSUP);
}

Test(nbd_handshake, where_tls_is_required_a_client_that_cannot_be_told_so_is_closed)
{
	static uint8_t long_name[NBD_OPTION_BYTES_MAX + 1];
	struct nbd_handshake handshake;

	greet(&handshake, &requires_tls, 3);
	cr_assert_eq(ask(&handshake, NBD_OPT_EXPORT_NAME, "disk", 4), 0);
	cr_assert_eq(handshake.state, NBD_HANDSHAKE_CLOSE);
	greet(&handshake, &requires_tls, 3);
	cr_assert_eq(ask(&handshake, NBD_OPT_EXPORT_NAME, long_name, sizeof(long_name)), 0);
	cr_assert_eq(handshake.state, NBD_HANDSHAKE_CLOSE);
	greet(&handshake, &requires_tls, 0);
	cr_assert_eq(handshake.state, NBD_HANDSHAKE_CLOSE);
	greet(&handshake, &requires_tls, 3);
	cr_assert_eq(ask(&handshake, NBD_OPT_ABORT, "", 0), NBD_REP_ACK);
	cr_assert_eq(handshake.state, NBD_HANDSHAKE_CLOSE);
	/* One that knows EXPORT_NAME only is served where TLS is optional, and never begins it. */
	greet(&handshake, &offers_tls, 0);
	cr_assert_eq(ask(&handshake, NBD_OPT_STARTTLS, "", 0), NBD_REP_ERR_UNSUP);
}
