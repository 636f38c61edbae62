/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What $MSB_HOME/config.json says about registries. All of it is optional:
 *
 *	{"registries": {
 *		"ca_certs": "/path/extra.pem",           one path, or a list of them
 *		"credential_helper": "pass",             keep logins with docker-credential-pass
 *		"certs_dir": "/etc/docker/certs.d",      where HOST[:PORT] has *.crt to trust
 *		"connect_timeout_secs": 10,              for a connection to come about
 *		"stall_timeout_secs": 30,                a transfer this long without life is cut
 *		"parallel_layers": 4,                    fetched at a time, up to 16
 *		"hosts": {"registry.example:5000": {
 *			"insecure": true,                plain HTTP
 *			"mirrors": ["https://mirror.example/docker"],
 *			"auth": {"username": "u", "password_env": "REGISTRY_PASSWORD"}}}}}
 *
 * Keys besides "registries" belong to others. Within it an unknown key is an error, because a
 * mistyped one would silently not protect or not help. One thread.
 */
#ifndef REGISTRY_CONFIG_H
#define REGISTRY_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/str.h"

#define CONFIG_FILE_MAX	  (1u << 20)
#define CONFIG_HOSTS_MAX  1024u
#define CONFIG_LIST_MAX	  32u /* certificates, mirrors of a host */
#define CONFIG_LAYERS_MAX 16u

struct host_config {
	char *host;
	bool insecure;
	struct strv mirrors;	       /* URLs without a slash at the end */
	char *username, *password_env; /* NULL: not given */
};

struct registries_config {
	struct strv ca_certs;
	char *credential_helper; /* NULL: none */
	char *certs_dir;	 /* NULL: not given, as 0 in these */
	unsigned connect_secs, stall_secs, parallel_layers;
	struct host_config *hosts;
	size_t host_count;
};

/* @home/config.json; a missing file is an empty one. */
int registries_config_read(const char *home, struct registries_config *ret, struct err *err);
/* The same from memory, for tests. */
int registries_config_parse(const char *json, size_t n, struct registries_config *ret,
			    struct err *err);
void registries_config_done(struct registries_config *c);
#define cleanup_registries_config __attribute__((cleanup(registries_config_done)))
/* NULL if nothing is said about @host. */
const struct host_config *registries_config_host(const struct registries_config *c,
						 const char *host);

#endif
