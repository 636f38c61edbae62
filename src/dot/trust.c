/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is trusted, as OpenSSL has it, except that all is read at once: it would look into its
 * directory when it meets a certificate, and by then no file can be opened.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "dot/dot.h"

/* "4f06f81d.0", as c_rehash(1) has it; what is beside them may be anything. */
static bool is_hashed(const char *name)
{
	size_t n = strspn(name, "0123456789abcdef");

	return n == 8 && name[n] == '.' && isdigit((unsigned char)name[n + 1]);
}

static void read_directory(X509_STORE *store, const char *path)
{
	cleanup_dir DIR *d = opendir(path);
	const struct dirent *de;

	while (d && (de = readdir(d))) {
		cleanup_free char *file =
			is_hashed(de->d_name) ? str_fmt("%s/%s", path, de->d_name) : NULL;
		/* One that cannot be read is not trusted. */
		if (file)
			(void)X509_STORE_load_locations(store, file, NULL);
	}
}

static const char *said(const char *variable, const char *otherwise)
{
	const char *v = getenv(variable);

	return v && *v ? v : otherwise;
}

int dot_trust(SSL_CTX *ctx, struct err *err)
{
	const char *file = said(X509_get_default_cert_file_env(), X509_get_default_cert_file());
	const char *dirs = said(X509_get_default_cert_dir_env(), X509_get_default_cert_dir());
	X509_STORE *store = SSL_CTX_get_cert_store(ctx);
	cleanup_free char *copy = strdup(dirs);
	char *rest = copy, *dir;

	(void)X509_STORE_load_locations(store, file, NULL);
	while ((dir = strsep(&rest, ":")))
		read_directory(store, dir);
	if (sk_X509_OBJECT_num(X509_STORE_get0_objects(store)) > 0)
		return 0;
	err_set(err, ERR_NOT_FOUND,
		"no certificate of an authority is in %s or %s, by which name servers over TLS "
		"could be known",
		file, dirs);
	return err_hint(err, "install ca-certificates, or set SSL_CERT_FILE to a file of them");
}
