/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/keys.h"

#include <string.h>
#include <strings.h>

#include "cli/opt.h"

/* One key: a printable character, or "ctrl-" and one of those that have a control code. */
static int parse_key(const char *text, size_t n)
{
	static const char ctrl[] = "ctrl-";
	size_t prefix = sizeof(ctrl) - 1;
	char c;

	if (n == 1 && text[0] > ' ' && text[0] < 0x7f)
		return text[0];
	if (n != prefix + 1 || strncasecmp(text, ctrl, prefix) != 0)
		return -1;
	c = text[prefix];
	if (c >= 'a' && c <= 'z')
		c = (char)(c - 'a' + 'A');
	return c >= '@' && c <= '_' ? c - '@' : -1;
}

int keys_parse(const char *text, struct keys *ret, struct err *err)
{
	struct keys k = {0};

	for (const char *at = text; *at;) {
		size_t n = strcspn(at, ",");
		int key = parse_key(at, n);

		if (key < 0 || k.n == KEYS_MAX || (at[n] && !at[n + 1])) {
			err_set(err, ERR_USAGE, "\"%s\" is no sequence of keys", text);
			return err_hint(err, "it is like ctrl-] or ctrl-p,ctrl-q, %d keys at most",
					KEYS_MAX);
		}
		k.seq[k.n++] = (uint8_t)key;
		at += n + (at[n] == ',');
	}
	*ret = k;
	return 0;
}

int keys_set(const struct opt *o, void *target, const char *value, struct err *err)
{
	return keys_parse(value, (struct keys *)((char *)target + o->offset), err);
}

size_t keys_filter(struct keys *k, const uint8_t *in, size_t n, uint8_t *out, bool *ret_done)
{
	size_t put = 0;

	*ret_done = false;
	if (!k->n) {
		memcpy(out, in, n);
		return n;
	}
	for (size_t i = 0; i < n; i++) {
		/* What was held and cannot be the beginning after all goes on, as far as need be.
		 */
		while (k->held && in[i] != k->seq[k->held]) {
			size_t keep = k->held - 1;

			while (keep && memcmp(k->seq, k->seq + k->held - keep, keep) != 0)
				keep--;
			memcpy(out + put, k->seq, k->held - keep);
			put += k->held - keep;
			k->held = keep;
		}
		if (in[i] != k->seq[k->held])
			out[put++] = in[i];
		else if (++k->held == k->n) {
			k->held = 0;
			*ret_done = true;
			return put;
		}
	}
	return put;
}
