/* SPDX-License-Identifier: Apache-2.0 */
#include "config/net.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"

const char conf_network_schema[] = "{\"type\":[\"string\",\"object\"],"
				   "\"additionalProperties\":false,\"properties\":{}}";

int conf_load_network(struct conf_loading *l, const struct field *f, const struct conf_node *n,
		      struct err *err)
{
	if (n->kind == CONF_TEXT)
		return conf_load_plain(l, field_by_key("network.policy"), f->key, n, err);
	return conf_load_keys(l, f->key, n, err);
}

int conf_net_policy(struct model *m, const char *text, struct err *err)
{
	return sandbox_spec_net(&m->spec, str_eq(text, "open") ? "all" : text, err);
}

/* "TARGET..." or "DIRECTION@TARGET..." as a rule; NULL without memory. */
static char *rule(const char *action, const char *text)
{
	return str_fmt("%s%s%s", action, strchr(text, '@') ? ":" : "@", text);
}

static int add_rule(struct model *m, const char *action, const char *text, struct err *err)
{
	cleanup_free char *words = rule(action, text);

	return words ? sandbox_spec_net_rule(&m->spec, words, err)
		     : err_set(err, ENOMEM, "out of memory");
}

int conf_net_deny(struct model *m, const char *text, struct err *err)
{
	return add_rule(m, "deny", text, err);
}

int conf_net_allow(struct model *m, const char *text, struct err *err)
{
	return add_rule(m, "allow", text, err);
}

/* Say again what was taken for @f once. */
static int again(struct model *m, const struct field *f, bool by_hand, struct err *err)
{
	int r = 0;

	for (size_t i = 0; i < m->nsaid && r == 0; i++) {
		const struct said *s = &m->said[i];

		if (s->field == f && str_eq(s->from, SAID_BY_HAND) == by_hand)
			r = f->spec ? f->spec(&m->spec, s->text, err) : f->model(m, s->text, err);
	}
	return r;
}

static bool was_said(const struct model *m, const struct field *f)
{
	for (size_t i = 0; i < m->nsaid; i++) {
		if (m->said[i].field == f)
			return true;
	}
	return false;
}

/* What is said last counts; but profiles said by hand, one by one, add up. */
static int choose_profiles(struct model *m, const struct field *policy,
			   const struct field *profiles, struct err *err)
{
	cleanup_buf struct buf hand = BUF_INIT;
	int r = 0;

	for (size_t i = 0; i < m->nsaid && r == 0; i++) {
		const struct said *s = &m->said[i];
		const char *text = s->text;

		if (s->field == policy)
			r = conf_net_policy(m, text, err);
		if (s->field != profiles)
			continue;
		if (str_eq(s->from, SAID_BY_HAND)) {
			buf_addf(&hand, "%s%s", buf_size(&hand) ? "," : "", text);
			text = buf_cstr(&hand);
		}
		r = text ? sandbox_spec_net(&m->spec, text, err)
			 : err_set(err, ENOMEM, "out of memory");
	}
	return r;
}

int conf_net_compose(struct model *m, struct err *err)
{
	const struct field *rules = field_by_key("network.rules");
	const struct field *deny = field_by_key("network.deny");
	const struct field *allow = field_by_key("network.allow");
	const struct field *policy = field_by_key("network.policy");
	const struct field *profiles = field_by_key("network.profiles");
	struct sandbox_spec *s = &m->spec;
	int r;

	strv_done(&s->net_rules);
	r = again(m, rules, true, err);
	if (r == 0)
		r = again(m, rules, false, err);
	if (r == 0)
		r = again(m, deny, false, err);
	if (r == 0)
		r = again(m, allow, false, err);
	free(s->net);
	s->net = NULL;
	if (r == 0 && was_said(m, allow))
		return s->net_egress ? 0 : sandbox_spec_net(s, "none", err);
	return r == 0 ? choose_profiles(m, policy, profiles, err) : r;
}

void conf_net_ports(struct model *m)
{
	static const char *const keys[] = {"network.ports", "ports"};

	strv_done(&m->spec.ports);
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		(void)again(m, field_by_key(keys[i]), false, NULL);
}
