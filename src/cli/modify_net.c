/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/modify_net.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "config/field.h"
#include "sandbox/net_change.h"

int modify_net_set(struct sandbox_spec *wishes, const char *opt, const char *value, struct err *err)
{
	cleanup_free char *both = NULL;

	/* Profiles add up, as they do for a new sandbox. */
	if (str_eq(opt, "net") && wishes->net) {
		both = str_fmt("%s,%s", wishes->net, value);
		if (!both)
			return err_set(err, ENOMEM, "out of memory");
		value = both;
	}
	return field_by_opt(opt)->spec(wishes, value, err);
}

static int replace(char **at, const char *text)
{
	char *copy = text ? strdup(text) : NULL;

	if (text && !copy)
		return -ENOMEM;
	free(*at);
	*at = copy;
	return 0;
}

static int apply_rules(struct sandbox_spec *to, const struct strv *more, const struct strv *rm,
		       struct err *err)
{
	struct strv all = {0};
	int r = 0;

	for (size_t i = 0; i < rm->n; i++) {
		size_t k = strv_find(&to->net_rules, rm->v[i]);

		if (k == to->net_rules.n) {
			err_set(err, ERR_NOT_FOUND, "it has no rule \"%s\"", rm->v[i]);
			return err_hint(err, "`msb inspect` shows those that it has");
		}
		strv_remove(&to->net_rules, k);
	}
	/* The first that matches counts, so what is new comes first. */
	for (size_t i = 0; i < more->n; i++)
		r |= strv_add(&all, more->v[i]);
	for (size_t i = 0; i < to->net_rules.n; i++)
		r |= strv_add(&all, to->net_rules.v[i]);
	strv_done(&to->net_rules);
	to->net_rules = all;
	return r ? err_set(err, ENOMEM, "out of memory") : 0;
}

/* "KEY=none" takes it away. */
static int apply_limits(struct strv *limits, const struct strv *wishes)
{
	int r = 0;

	for (size_t i = 0; i < wishes->n && r == 0; i++) {
		const char *wish = wishes->v[i];
		size_t key = strcspn(wish, "=") + 1;

		if (!str_eq(wish + key, "none")) {
			r = strv_env_set(limits, wish);
			continue;
		}
		for (size_t k = limits->n; k-- > 0;) {
			if (strncmp(limits->v[k], wish, key) == 0)
				strv_remove(limits, k);
		}
	}
	return r;
}

int modify_net_apply(struct sandbox_spec *to, const struct sandbox_spec *w,
		     const struct strv *rule_rm, const struct strv *port_rm, struct err *err)
{
	int r = 0;

	/* A profile and a default for the same exclude each other; the later word counts. */
	if (w->net || w->net_egress) {
		r |= replace(&to->net, w->net);
		r |= replace(&to->net_egress, w->net_egress);
	}
	if (w->net_ingress)
		r |= replace(&to->net_ingress, w->net_ingress);
	r |= apply_limits(&to->net_limits, &w->net_limits);
	if (r)
		return err_set(err, ENOMEM, "out of memory");
	for (size_t i = 0; i < port_rm->n && r == 0; i++)
		r = sandbox_net_port_rm(&to->ports, port_rm->v[i], err);
	for (size_t i = 0; i < w->ports.n && r == 0; i++)
		r = sandbox_spec_port(to, w->ports.v[i], err);
	return r < 0 ? r : apply_rules(to, &w->net_rules, rule_rm, err);
}
