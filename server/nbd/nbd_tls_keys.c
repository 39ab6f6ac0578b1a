/* SPDX-License-Identifier: GPL-2.0-or-later */
/* nbd_tls_keys - see the header */
#include "server/nbd/nbd_tls_keys.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PSK_FILE_BYTES_MAX (1024u * 1024)
#define PSK_UNKNOWN_USER   1 /* GnuTLS then goes on with a random key: users cannot be guessed */

/* Older versions have known weaknesses, and no client of today needs them. Of the exchanges with a
 * PSK only those are taken whose traffic stays secret when the key gets known later. */
#define PRIORITIES     "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"
#define PRIORITIES_PSK PRIORITIES ":+ECDHE-PSK:+DHE-PSK"

struct user {
	gnutls_datum_t name;
	gnutls_datum_t key;
};

struct nbd_tls_keys {
	gnutls_priority_t priorities;
	gnutls_certificate_credentials_t certificates; /* NULL: PSK */
	bool verify_peer;
	gnutls_psk_server_credentials_t psk; /* NULL: X.509 */
	struct user *users;
	unsigned user_count;
};

static char message_text[2 * PATH_MAX];

static int __attribute__((format(printf, 3, 4)))
fail(const char **reterr_message, int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(message_text, sizeof(message_text), format, args);
	va_end(args);
	*reterr_message = message_text;
	return error;
}

/* --- X.509 --- */

/* 0, -ENOENT without a message, or another error with one. */
static int join(const char *folder, const char *name, char path[PATH_MAX],
		const char **reterr_message)
{
	int len = snprintf(path, PATH_MAX, "%s/%s", folder, name);

	if (len >= PATH_MAX)
		return fail(reterr_message, -ENAMETOOLONG, "%s: the path is too long", folder);
	if (access(path, R_OK) < 0 && errno != ENOENT)
		return fail(reterr_message, -errno, "cannot read %s: %s", path, strerror(errno));
	return access(path, R_OK) < 0 ? -ENOENT : 0;
}

static int join_needed(const char *folder, const char *name, char path[PATH_MAX],
		       const char **reterr_message)
{
	int r = join(folder, name, path, reterr_message);

	return r == -ENOENT ? fail(reterr_message, r, "there is no %s", path) : r;
}

/* Clients are believed by this one alone. */
static int load_authority(struct nbd_tls_keys *keys, const char *folder,
			  const char **reterr_message)
{
	char path[PATH_MAX];
	int r = join_needed(folder, "ca-cert.pem", path, reterr_message);

	if (r < 0)
		return r;
	r = gnutls_certificate_set_x509_trust_file(keys->certificates, path, GNUTLS_X509_FMT_PEM);
	if (r == 0)
		return fail(reterr_message, -EINVAL, "%s: there is no certificate in it", path);
	if (r < 0)
		return fail(reterr_message, -EINVAL, "%s: %s", path, gnutls_strerror(r));
	r = join(folder, "ca-crl.pem", path, reterr_message);
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	r = gnutls_certificate_set_x509_crl_file(keys->certificates, path, GNUTLS_X509_FMT_PEM);
	return r < 0 ? fail(reterr_message, -EINVAL, "%s: %s", path, gnutls_strerror(r)) : 0;
}

static int load_own(struct nbd_tls_keys *keys, const char *folder, const char **reterr_message)
{
	char certificate[PATH_MAX], key[PATH_MAX];
	int r = join_needed(folder, "server-cert.pem", certificate, reterr_message);

	if (r == 0)
		r = join_needed(folder, "server-key.pem", key, reterr_message);
	if (r < 0)
		return r;
	r = gnutls_certificate_set_x509_key_file(keys->certificates, certificate, key,
						 GNUTLS_X509_FMT_PEM);
	return r < 0 ? fail(reterr_message, -EINVAL, "%s with %s: %s", certificate, key,
			    gnutls_strerror(r))
		     : 0;
}

static int load_certificates(struct nbd_tls_keys *keys, const char *folder,
			     const char **reterr_message)
{
	int r;

	if (gnutls_certificate_allocate_credentials(&keys->certificates) < 0)
		return fail(reterr_message, -ENOMEM, "%s: no memory", folder);
	/* An authority is of use only to look at what clients show. */
	if (keys->verify_peer) {
		r = load_authority(keys, folder, reterr_message);
		if (r < 0)
			return r;
	}
	return load_own(keys, folder, reterr_message);
}

/* --- PSK --- */

static int find_key(gnutls_session_t session, const gnutls_datum_t *name, gnutls_datum_t *ret_key)
{
	const struct nbd_tls_keys *keys = gnutls_session_get_ptr(session);

	for (unsigned i = 0; i < keys->user_count; i++) {
		const struct user *user = &keys->users[i];

		if (user->name.size != name->size ||
		    memcmp(user->name.data, name->data, name->size) != 0)
			continue;
		ret_key->data = gnutls_malloc(user->key.size);
		if (ret_key->data == NULL)
			return -1;
		memcpy(ret_key->data, user->key.data, user->key.size);
		ret_key->size = user->key.size;
		return 0;
	}
	return PSK_UNKNOWN_USER;
}

/* Whoever has a key is not to find it in memory that was given back. */
static void forget(gnutls_datum_t *datum)
{
	if (datum->data != NULL)
		gnutls_memset(datum->data, 0, datum->size);
	gnutls_free(datum->data);
	datum->data = NULL;
}

static int decode_hex(const char *text, size_t len_bytes, gnutls_datum_t *ret_datum)
{
	gnutls_datum_t hex = {.data = (unsigned char *)(uintptr_t)text,
			      .size = (unsigned)len_bytes};
	int r = len_bytes > 0 ? gnutls_hex_decode2(&hex, ret_datum) : -1;

	return r < 0 || ret_datum->size == 0 ? -EINVAL : 0;
}

static int copy_name(const char *text, size_t len_bytes, gnutls_datum_t *ret_datum)
{
	if (len_bytes == 0)
		return -EINVAL;
	ret_datum->data = gnutls_malloc(len_bytes);
	if (ret_datum->data == NULL)
		return -ENOMEM;
	memcpy(ret_datum->data, text, len_bytes);
	ret_datum->size = (unsigned)len_bytes;
	return 0;
}

static int take_user(struct nbd_tls_keys *keys, const char *line, size_t len_bytes)
{
	const char *colon = memchr(line, ':', len_bytes);
	struct user *users, *user;
	size_t name_bytes;
	int r;

	if (colon == NULL)
		return -EINVAL;
	users = reallocarray(keys->users, keys->user_count + 1, sizeof(*users));
	if (users == NULL)
		return -ENOMEM;
	keys->users = users;
	user = &users[keys->user_count++];
	*user = (struct user){.name.data = NULL};
	name_bytes = (size_t)(colon - line);
	r = line[0] == '#' ? decode_hex(line + 1, name_bytes - 1, &user->name)
			   : copy_name(line, name_bytes, &user->name);
	return r < 0 ? r : decode_hex(colon + 1, len_bytes - name_bytes - 1, &user->key);
}

static int take_users(struct nbd_tls_keys *keys, const char *path, const char *text,
		      const char **reterr_message)
{
	for (unsigned number = 1; *text != '\0'; number++) {
		size_t len_bytes = strcspn(text, "\r\n");
		int r = len_bytes > 0 ? take_user(keys, text, len_bytes) : 0;

		/* The line itself is a secret. */
		if (r < 0)
			return fail(reterr_message, r, "%s, line %u: %s", path, number,
				    r == -EINVAL ? "it is not USER:HEXKEY" : strerror(-r));
		text += len_bytes;
		text += *text == '\r';
		text += *text == '\n';
	}
	return keys->user_count > 0
		       ? 0
		       : fail(reterr_message, -EINVAL, "%s: there is no key in it", path);
}

/* The text, or NULL and errno. */
static char *read_file(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *text = fd >= 0 ? calloc(1, PSK_FILE_BYTES_MAX + 1) : NULL;
	size_t have_bytes = 0;
	ssize_t res = text != NULL ? 1 : -1;

	while (res > 0) {
		res = read(fd, text + have_bytes, PSK_FILE_BYTES_MAX + 1 - have_bytes);
		have_bytes += res > 0 ? (size_t)res : 0;
	}
	if (have_bytes > PSK_FILE_BYTES_MAX) {
		errno = EFBIG;
		res = -1;
	}
	if (fd >= 0)
		close(fd);
	if (res == 0)
		return text;
	free(text);
	return NULL;
}

static int load_psk(struct nbd_tls_keys *keys, const char *path, const char **reterr_message)
{
	char *text = read_file(path);
	int r;

	if (text == NULL)
		return fail(reterr_message, -errno, "cannot read %s: %s", path, strerror(errno));
	r = take_users(keys, path, text, reterr_message);
	gnutls_memset(text, 0, PSK_FILE_BYTES_MAX);
	free(text);
	if (r < 0)
		return r;
	if (gnutls_psk_allocate_server_credentials(&keys->psk) < 0)
		return fail(reterr_message, -ENOMEM, "%s: no memory", path);
	gnutls_psk_set_server_credentials_function2(keys->psk, find_key);
	return 0;
}

/* --- both --- */

void nbd_tls_keys_free(struct nbd_tls_keys *keys)
{
	if (keys == NULL)
		return;
	if (keys->certificates != NULL)
		gnutls_certificate_free_credentials(keys->certificates);
	if (keys->psk != NULL)
		gnutls_psk_free_server_credentials(keys->psk);
	if (keys->priorities != NULL)
		gnutls_priority_deinit(keys->priorities);
	for (unsigned i = 0; i < keys->user_count; i++) {
		forget(&keys->users[i].name);
		forget(&keys->users[i].key);
	}
	free(keys->users);
	free(keys);
}

int nbd_tls_keys_load(const struct nbd_tls_sources *sources, struct nbd_tls_keys **ret_keys,
		      const char **reterr_message)
{
	struct nbd_tls_keys *keys = calloc(1, sizeof(*keys));
	int r;

	assert((sources->certificates != NULL) != (sources->psk != NULL));
	if (keys == NULL)
		return fail(reterr_message, -ENOMEM, "no memory");
	keys->verify_peer = sources->verify_peer;
	r = sources->psk != NULL ? load_psk(keys, sources->psk, reterr_message)
				 : load_certificates(keys, sources->certificates, reterr_message);
	if (r == 0 &&
	    gnutls_priority_init(&keys->priorities,
				 sources->psk != NULL ? PRIORITIES_PSK : PRIORITIES, NULL) < 0)
		r = fail(reterr_message, -EINVAL, "this GnuTLS has no TLS 1.2 or 1.3");
	if (r < 0) {
		nbd_tls_keys_free(keys);
		return r;
	}
	*ret_keys = keys;
	return 0;
}

/* Who may serve may not for that reason be a client. Sessions keep a pointer to it. */
static gnutls_typed_vdata_st is_client = {
	.type = GNUTLS_DT_KEY_PURPOSE_OID,
	.data = (unsigned char *)GNUTLS_KP_TLS_WWW_CLIENT,
};

int nbd_tls_keys_apply(struct nbd_tls_keys *keys, struct gnutls_session_int *session)
{
	int r = gnutls_priority_set(session, keys->priorities);

	if (r < 0)
		return r;
	gnutls_session_set_ptr(session, keys);
	if (keys->psk != NULL)
		return gnutls_credentials_set(session, GNUTLS_CRD_PSK, keys->psk);
	if (keys->verify_peer) {
		gnutls_certificate_server_set_request(session, GNUTLS_CERT_REQUIRE);
		gnutls_session_set_verify_cert2(session, &is_client, 1, 0);
	}
	return gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, keys->certificates);
}
