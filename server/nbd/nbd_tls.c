/* SPDX-License-Identifier: GPL-2.0-or-later */
/* nbd_tls - see the header */
#include "server/nbd/nbd_tls.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "core/base/units.h"

/* GnuTLS asks for a record's header and for its body, each with a call. What lies here saves most
 * of them, since a busy client's requests come many at a time. */
#define IN_BYTES     (32u * 1024)
#define RECORD_BYTES (16u * 1024) /* the most that TLS has in one */

struct nbd_tls {
	gnutls_session_t session;
	int fd;
	bool queued; /* a record is on its way */
	bool ended; /* the peer's side */
	uint32_t in_begin;
	uint32_t in_end;
	char why[256];
	uint8_t in[IN_BYTES]; /* encrypted */
	uint8_t out[RECORD_BYTES]; /* small parts, gathered into one record */
};

/* --- between GnuTLS and the socket --- */

static ssize_t pull(gnutls_transport_ptr_t pointer, void *to, size_t bytes)
{
	struct nbd_tls *tls = pointer;
	uint32_t taken;

	if (tls->in_begin == tls->in_end) {
		ssize_t res = recv(tls->fd, tls->in, sizeof(tls->in), MSG_DONTWAIT);

		if (res <= 0) {
			gnutls_transport_set_errno(tls->session, errno);
			return res;
		}
		tls->in_begin = 0;
		tls->in_end = (uint32_t)res;
	}
	taken = (uint32_t)min_u64(bytes, tls->in_end - tls->in_begin);
	memcpy(to, tls->in + tls->in_begin, taken);
	tls->in_begin += taken;
	return (ssize_t)taken;
}

/* GnuTLS asks this before it waits, which it never does here. */
static int pull_timeout(gnutls_transport_ptr_t pointer, unsigned ms)
{
	(void)pointer;
	(void)ms;
	return 1;
}

static ssize_t push(gnutls_transport_ptr_t pointer, const giovec_t *iov, int count)
{
	struct nbd_tls *tls = pointer;
	struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov,
			     .msg_iovlen = (size_t)count};
	ssize_t res = sendmsg(tls->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (res < 0)
		gnutls_transport_set_errno(tls->session, errno);
	return res;
}

/* --- beginning and end --- */

int nbd_tls_new(struct nbd_tls_keys *keys, int fd, struct nbd_tls **ret_tls)
{
	struct nbd_tls *tls = malloc(sizeof(*tls));

	if (tls == NULL)
		return -ENOMEM;
	tls->fd = fd;
	tls->queued = tls->ended = false;
	tls->in_begin = tls->in_end = 0;
	tls->why[0] = '\0';
	if (gnutls_init(&tls->session, GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL) < 0) {
		free(tls);
		return -ENOMEM;
	}
	if (nbd_tls_keys_apply(keys, tls->session) < 0) {
		nbd_tls_free(tls);
		return -ENOMEM;
	}
	gnutls_transport_set_ptr(tls->session, tls);
	gnutls_transport_set_pull_function(tls->session, pull);
	gnutls_transport_set_pull_timeout_function(tls->session, pull_timeout);
	gnutls_transport_set_vec_push_function(tls->session, push);
	*ret_tls = tls;
	return 0;
}

void nbd_tls_free(struct nbd_tls *tls)
{
	if (tls == NULL)
		return;
	gnutls_deinit(tls->session);
	free(tls);
}

void nbd_tls_bye(struct nbd_tls *tls)
{
	(void)gnutls_bye(tls->session, GNUTLS_SHUT_WR);
}

const char *nbd_tls_why(const struct nbd_tls *tls)
{
	return tls->why;
}

short nbd_tls_events(const struct nbd_tls *tls)
{
	return gnutls_record_get_direction(tls->session) == 0 ? POLLIN : POLLOUT;
}

/* --- handshake --- */

static void say_unverified(struct nbd_tls *tls)
{
	unsigned status = gnutls_session_get_verify_cert_status(tls->session);
	gnutls_datum_t text;

	if (gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0) < 0)
		return;
	snprintf(tls->why, sizeof(tls->why), "TLS: %s", (const char *)text.data);
	gnutls_free(text.data);
}

static int failed(struct nbd_tls *tls, int error)
{
	snprintf(tls->why, sizeof(tls->why), "TLS: %s", gnutls_strerror(error));
	if (error == GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR)
		say_unverified(tls);
	if (error == GNUTLS_E_FATAL_ALERT_RECEIVED)
		snprintf(tls->why, sizeof(tls->why), "TLS: the client says: %s",
			 gnutls_alert_get_name(gnutls_alert_get(tls->session)));
	return -EPROTO;
}

int nbd_tls_handshake(struct nbd_tls *tls)
{
	int r;

	do
		r = gnutls_handshake(tls->session);
	while (r == GNUTLS_E_INTERRUPTED);
	if (r == GNUTLS_E_AGAIN)
		return -EAGAIN;
	if (r == GNUTLS_E_SUCCESS)
		return 0;
	/* So that the client can say why, if the socket takes it. */
	(void)gnutls_alert_send_appropriate(tls->session, r);
	return failed(tls, r);
}

/* --- receiving --- */

bool nbd_tls_has_input(const struct nbd_tls *tls)
{
	return tls->in_begin != tls->in_end || gnutls_record_check_pending(tls->session) > 0;
}

/* Both kinds of end are one: what was asked before has come whole, or is not answered. */
static bool is_end(ssize_t res)
{
	return res == 0 || res == GNUTLS_E_PREMATURE_TERMINATION;
}

/* GnuTLS also says AGAIN after a record without data for us, with the next one already here. */
static bool may_go_on(const struct nbd_tls *tls, ssize_t res, uint32_t in_before)
{
	return res == GNUTLS_E_INTERRUPTED ||
	       (res == GNUTLS_E_AGAIN && tls->in_begin != tls->in_end &&
		tls->in_begin != in_before);
}

ssize_t nbd_tls_recv(struct nbd_tls *tls, uint8_t *at, uint32_t bytes)
{
	uint32_t got = 0;

	while (got < bytes && !tls->ended) {
		uint32_t in_before = tls->in_begin;
		ssize_t res = gnutls_record_recv(tls->session, at + got, bytes - got);

		if (res > 0)
			got += (uint32_t)res;
		else if (may_go_on(tls, res, in_before))
			continue;
		else if (is_end(res))
			tls->ended = true;
		else if (got > 0) /* the next call says what is wrong */
			break;
		else
			return res == GNUTLS_E_AGAIN ? -EAGAIN : failed(tls, (int)res);
	}
	return (ssize_t)got;
}

/* --- sending --- */

/* A place in the gathered bytes. */
struct cursor {
	const struct iovec *iov;
	size_t count;
	size_t taken_bytes; /* of the first one */
};

static void advance(struct cursor *cursor, size_t bytes)
{
	cursor->taken_bytes += bytes;
	while (cursor->count > 0 && cursor->taken_bytes >= cursor->iov->iov_len) {
		cursor->taken_bytes -= cursor->iov->iov_len;
		cursor->iov++;
		cursor->count--;
	}
}

/* The next record's bytes: where they lie if they lie in one piece, else copied together. */
static const uint8_t *next_record(struct nbd_tls *tls, struct cursor cursor, uint32_t *ret_bytes)
{
	const uint8_t *first = (const uint8_t *)cursor.iov->iov_base + cursor.taken_bytes;
	size_t first_bytes = cursor.iov->iov_len - cursor.taken_bytes;
	uint32_t have = 0;

	if (first_bytes >= RECORD_BYTES || cursor.count == 1) {
		*ret_bytes = (uint32_t)min_u64(first_bytes, RECORD_BYTES);
		return first;
	}
	while (cursor.count > 0 && have < RECORD_BYTES) {
		const uint8_t *from = (const uint8_t *)cursor.iov->iov_base + cursor.taken_bytes;
		uint32_t part = (uint32_t)min_u64(cursor.iov->iov_len - cursor.taken_bytes,
						  RECORD_BYTES - have);

		memcpy(tls->out + have, from, part);
		have += part;
		advance(&cursor, part);
	}
	*ret_bytes = have;
	return tls->out;
}

/* How many of the caller's bytes have gone with a record, or an error of GnuTLS. */
static ssize_t send_record(struct nbd_tls *tls, const struct cursor *cursor)
{
	ssize_t res = GNUTLS_E_INTERRUPTED; /* the queued one goes on */

	if (!tls->queued) {
		uint32_t bytes;
		const uint8_t *data = next_record(tls, *cursor, &bytes);

		res = gnutls_record_send(tls->session, data, bytes);
	}
	while (res == GNUTLS_E_INTERRUPTED)
		res = gnutls_record_send(tls->session, NULL, 0);
	tls->queued = res == GNUTLS_E_AGAIN;
	return res;
}

ssize_t nbd_tls_send(struct nbd_tls *tls, const struct iovec *iov, size_t count)
{
	struct cursor cursor = {.iov = iov, .count = count};
	size_t sent_bytes = 0;

	advance(&cursor, 0);
	while (cursor.count > 0) {
		ssize_t res = send_record(tls, &cursor);

		if (res < 0 && sent_bytes > 0) /* the next call says so again */
			break;
		if (res < 0)
			return res == GNUTLS_E_AGAIN ? -EAGAIN : failed(tls, (int)res);
		sent_bytes += (size_t)res;
		advance(&cursor, (size_t)res);
	}
	return (ssize_t)sent_bytes;
}
