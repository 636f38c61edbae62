/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/net_change.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "machine/control_msg.h"
#include "net/host.h"
#include "sandbox/control_client.h"
#include "sandbox/record.h"

static int out_of_memory(struct err *err)
{
	return err_set(err, ENOMEM, "out of memory");
}

int sandbox_net_tell(int control, const struct sandbox_spec *to, struct err *err)
{
	struct control_request q = {
		.op = CONTROL_NET,
		.has_net = true,
		.net = sandbox_vm_net(to),
	};

	return control_ask(control, &q, CONTROL_TIMEOUT_MS, NULL, err);
}

/* ---- ports ---- */

struct ports {
	struct net_port v[NET_PORTS_MAX];
	unsigned n;
};

static bool same(const struct net_port *a, const struct net_port *b)
{
	return a->port == b->port && a->guest_port == b->guest_port && a->proto == b->proto &&
	       net_addr_equal(&a->bind, &b->bind);
}

static int parse(const char *text, struct ports *ret, struct err *err)
{
	int r = net_port_parse(text, ret->v, NET_PORTS_MAX, err);

	ret->n = r > 0 ? (unsigned)r : 0;
	return r < 0 ? r : 0;
}

int sandbox_net_port_rm(struct strv *list, const char *text, struct err *err)
{
	cleanup_free struct ports *want = calloc(1, sizeof(*want));
	cleanup_free struct ports *have = calloc(1, sizeof(*have));
	int r = want && have ? parse(text, want, err) : out_of_memory(err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < list->n; i++) {
		unsigned k = 0;

		if (parse(list->v[i], have, NULL) < 0 || have->n != want->n)
			continue;
		while (k < have->n && same(&have->v[k], &want->v[k]))
			k++;
		if (k < have->n)
			continue;
		strv_remove(list, i);
		return 0;
	}
	err_set(err, ERR_NOT_FOUND, "it does not publish \"%s\"", text);
	return err_hint(err, "name it as it was said; `msb inspect` shows which there are");
}

/* Is this what is shown of @p, whose port may be any? */
static bool is_shown(const struct net_port *p, const char *shown)
{
	const char *number = strstr(shown, "->");
	struct net_port other = *p;
	char text[NET_PORT_TEXT];

	while (!p->port && number && number > shown && number[-1] >= '0' && number[-1] <= '9')
		number--;
	if (!p->port && number)
		other.port = (uint16_t)atoi(number);
	return strcmp(net_port_text(&other, text), shown) == 0;
}

/* Move what is published for @text from @published to @gone. */
static int take_out(const char *text, struct strv *published, struct strv *gone, struct err *err)
{
	cleanup_free struct ports *p = calloc(1, sizeof(*p));
	int r = p ? parse(text, p, err) : out_of_memory(err);

	for (unsigned i = 0; r == 0 && i < p->n; i++) {
		for (size_t k = 0; k < published->n; k++) {
			if (!is_shown(&p->v[i], published->v[k]))
				continue;
			if (strv_add(gone, published->v[k]) < 0)
				return out_of_memory(err);
			strv_remove(published, k);
			break;
		}
	}
	return r;
}

static int ask(int control, const struct strv *add, int *fds, const struct strv *rm,
	       struct err *err)
{
	struct control_request q = {.op = CONTROL_PORTS, .fds = fds};

	if (add) {
		q.ports_add = (struct wire_texts){add->v, add->n};
		q.nfds = (unsigned)add->n;
	}
	if (rm)
		q.ports_rm = (struct wire_texts){rm->v, rm->n};
	return control_ask(control, &q, CONTROL_TIMEOUT_MS, NULL, err);
}

/* Open the sockets here, where that is allowed, and hand them over. */
static int publish(int control, const char *text, struct strv *published, struct err *err)
{
	cleanup_free struct ports *p = calloc(1, sizeof(*p));
	cleanup_strv struct strv shown = {0};
	int fds[CONTROL_FDS_MAX], r = p ? parse(text, p, err) : out_of_memory(err);
	unsigned n = 0;

	if (r == 0 && p->n > CONTROL_FDS_MAX)
		r = err_set(err, ERR_LIMIT, "more than %d ports at once", CONTROL_FDS_MAX);
	while (r == 0 && n < p->n) {
		char one[NET_PORT_TEXT];

		r = net_port_open(&p->v[n], err);
		if (r < 0)
			break;
		fds[n] = p->v[n].fd;
		if (strv_add(&shown, net_port_text(&p->v[n], one)) < 0)
			r = out_of_memory(err);
		n++;
	}
	if (r == 0)
		r = ask(control, &shown, fds, NULL, err);
	while (n)
		close_fd(fds[--n]);
	for (size_t i = 0; r == 0 && i < shown.n; i++) {
		if (strv_add(published, shown.v[i]) < 0)
			r = out_of_memory(err);
	}
	return r;
}

/* Is it one that the machine has, be it on the way out? */
static bool is_ours(const struct net_port *p, const struct strv *published)
{
	char text[NET_PORT_TEXT];
	const size_t host = (size_t)(strstr(net_port_text(p, text), "->") - text);

	for (size_t i = 0; i < published->n; i++) {
		if (strncmp(published->v[i], text, host + 2) == 0 &&
		    str_eq(strrchr(published->v[i], '/'), strrchr(text, '/')))
			return true;
	}
	return false;
}

int sandbox_net_ports_try(int dirfd, const struct sandbox_spec *from, const struct sandbox_spec *to,
			  struct err *err)
{
	cleanup_free struct ports *p = calloc(1, sizeof(*p));
	cleanup_machine struct sandbox_machine m = {0};
	int r = p ? record_machine_read(dirfd, &m, err) : out_of_memory(err);

	for (size_t i = 0; r == 0 && i < to->ports.n; i++) {
		if (strv_has(&from->ports, to->ports.v[i]))
			continue;
		r = parse(to->ports.v[i], p, err);
		for (unsigned k = 0; r == 0 && k < p->n; k++) {
			if (is_ours(&p->v[k], &m.ports))
				continue;
			r = net_port_open(&p->v[k], err);
			if (r == 0)
				close_fd(p->v[k].fd);
		}
	}
	return r;
}

int sandbox_net_ports(int control, int dirfd, const struct sandbox_spec *from,
		      const struct sandbox_spec *to, struct err *err)
{
	cleanup_machine struct sandbox_machine m = {0};
	cleanup_strv struct strv gone = {0};
	cleanup_buf struct buf b = BUF_INIT;
	int r = record_machine_read(dirfd, &m, err), e;

	for (size_t i = 0; r == 0 && i < from->ports.n; i++) {
		if (!strv_has(&to->ports, from->ports.v[i]))
			r = take_out(from->ports.v[i], &m.ports, &gone, err);
	}
	if (r == 0 && gone.n)
		r = ask(control, NULL, NULL, &gone, err);
	if (r < 0)
		return r;
	for (size_t i = 0; r == 0 && i < to->ports.n; i++) {
		if (!strv_has(&from->ports, to->ports.v[i]))
			r = publish(control, to->ports.v[i], &m.ports, err);
	}
	/* What has changed has, whatever stopped the rest. */
	e = record_machine_encode(&m, &b);
	if (e == 0)
		e = record_put(dirfd, RECORD_MACHINE, &b);
	if (r == 0 && e < 0)
		r = err_set(err, e, "cannot write down its ports: %s", err_name(e));
	return r;
}
