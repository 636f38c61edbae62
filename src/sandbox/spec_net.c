/* SPDX-License-Identifier: Apache-2.0 */
/* What a sandbox may reach, and from where it is reached. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "net/host.h"
#include "net/policy.h"
#include "sandbox/spec.h"

static int out_of_memory(struct err *err)
{
	return err_set(err, ENOMEM, "out of memory");
}

int sandbox_spec_net(struct sandbox_spec *s, const char *text, struct err *err)
{
	cleanup_free struct net_policy *p = calloc(1, sizeof(*p));
	char *copy;
	int r;

	if (!p)
		return out_of_memory(err);
	net_policy_init(p);
	r = net_policy_profile(p, text, err);
	if (r < 0)
		return r;
	copy = strdup(text);
	if (!copy)
		return out_of_memory(err);
	free(s->net);
	s->net = copy;
	return 0;
}

int sandbox_spec_net_rule(struct sandbox_spec *s, const char *text, struct err *err)
{
	cleanup_free struct net_policy *p = calloc(1, sizeof(*p));
	int r = 0;

	if (!p)
		return out_of_memory(err);
	/* With those before it, as there can be too many. */
	net_policy_init(p);
	for (size_t i = 0; i < s->net_rules.n && r == 0; i++)
		r = net_policy_rules(p, s->net_rules.v[i], err);
	if (r == 0)
		r = net_policy_rules(p, text, err);
	if (r < 0)
		return r;
	return strv_add(&s->net_rules, text) < 0 ? out_of_memory(err) : 0;
}

int sandbox_spec_port(struct sandbox_spec *s, const char *text, struct err *err)
{
	struct net_port port;
	int r = net_port_parse(text, &port, err);

	if (r < 0)
		return r;
	if (s->ports.n == NET_PORTS_MAX)
		return err_set(err, ERR_USAGE, "more than %d published ports", NET_PORTS_MAX);
	return strv_add(&s->ports, text) < 0 ? out_of_memory(err) : 0;
}
