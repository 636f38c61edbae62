/* SPDX-License-Identifier: Apache-2.0 */
/* Properties of every message table, and the exact bytes of a few messages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "gen.h"
#include "wire/agent_msg.h"
#include "wire/cbor.h"

enum { ROUNDS = 60, MUTATIONS = 40 };

static void each_message(struct rng *rng, const struct wire_table *t)
{
	cleanup_buf struct buf b = BUF_INIT, again = BUF_INIT, dump = BUF_INIT;
	cleanup_free void *a = calloc(1, t->size);
	cleanup_free void *c = calloc(1, t->size);
	struct err err = ERR_INIT;
	uint8_t *copy;
	size_t n;

	gen_message(rng, t, a);
	wire_encode(t, a, &b);
	assert_false(buf_failed(&b));
	n = buf_size(&b);
	/* Round trip: equal, and the same bytes again. */
	if (wire_decode(t, buf_ptr(&b), n, c, &err))
		fail_msg("%s: %s", t->name, err.msg);
	assert_true(wire_equal(t, a, c));
	wire_encode(t, c, &again);
	assert_int_equal(n, buf_size(&again));
	assert_memory_equal(buf_ptr(&b), buf_ptr(&again), n);
	wire_dump(t, c, &dump);
	assert_non_null(buf_cstr(&dump));
	wire_free(t, c);
	/* Every truncation is refused and leaves the output alone. */
	for (size_t i = t->nfields || t->variants; i < n; i += 1 + i / 512) {
		copy = malloc(i + 1);
		memcpy(copy, buf_ptr(&b), i);
		memset(c, 0x5a, t->size);
		if (i || t->nfields || t->variants)
			assert_true(wire_decode(t, copy, i, c, &err) < 0);
		free(copy);
		if (i || t->nfields || t->variants)
			for (size_t k = 0; k < t->size; k++)
				assert_int_equal(((uint8_t *)c)[k], 0x5a);
	}
	/* Mutations never crash; what decodes can be encoded and freed. */
	for (int m = 0; m < MUTATIONS && n; m++) {
		copy = malloc(n);
		memcpy(copy, buf_ptr(&b), n);
		for (uint64_t k = 1 + rng_below(rng, 4); k; k--)
			copy[rng_below(rng, n)] = (uint8_t)rng_next(rng);
		memset(c, 0, t->size);
		if (!wire_decode(t, copy, n, c, &err)) {
			buf_reset(&again);
			wire_encode(t, c, &again);
			assert_false(buf_failed(&again));
			wire_free(t, c);
		} else {
			assert_true(err.msg[0]);
		}
		free(copy);
	}
	wire_free(t, a);
}

static void test_every_table(void **state)
{
	struct rng rng = {42};

	(void)state;
	for (int k = 0; k < MSG_KINDS; k++) {
		for (int i = 0; i < ROUNDS; i++)
			each_message(&rng, msg_types[k].table);
	}
}

static int unhex(const char *hex, uint8_t *out)
{
	int n = 0;

	for (; *hex; hex++) {
		if (*hex == ' ')
			continue;
		out[n++] = (uint8_t)strtoul((char[]){hex[0], hex[1], 0}, NULL, 16);
		hex++;
	}
	return n;
}

static void check_bytes(enum msg_kind kind, const void *msg, const char *hex)
{
	cleanup_buf struct buf b = BUF_INIT;
	uint8_t expected[512];
	int n = unhex(hex, expected);

	wire_encode(msg_types[kind].table, msg, &b);
	assert_int_equal(buf_size(&b), n);
	assert_memory_equal(buf_ptr(&b), expected, (size_t)n);
}

static void test_exact_bytes(void **state)
{
	struct msg_exec_exited exited = {.code = -1};
	struct msg_exec_resize resize = {.rows = 24, .cols = 300};
	struct msg_fs_request stat = {
		.op = {.kind = FS_STAT, .path = (char *)"/a", .follow_symlink = true}};
	struct msg_fs_response handle = {
		.ok = true, .has_data = true, .data = {.kind = FS_RESULT_HANDLE, .handle = 5}};
	struct msg_empty none = {0};
	struct msg_bootstrap boot = {
		.has_block_root = true,
		.block_root = {.kind = BOOT_ROOT_OCI_EROFS,
			       .lower = (char *)"/dev/vda",
			       .upper = {.kind = BOOT_UPPER_TMPFS}},
	};
	struct msg_exec_failed failed = {.kind = EXEC_NOT_FOUND, .message = (char *)"x"};

	(void)state;
	check_bytes(MSG_EXEC_EXITED, &exited, "a1 64636f6465 20");
	check_bytes(MSG_EXEC_RESIZE, &resize, "a2 64726f7773 1818 64636f6c73 19012c");
	/* serde: externally tagged variants, {"op": {"Stat": {…}}} */
	check_bytes(MSG_FS_REQUEST, &stat,
		    "a1 626f70 a1 6453746174 a2 6470617468 622f61"
		    "6e666f6c6c6f775f73796d6c696e6b f5");
	check_bytes(MSG_FS_RESPONSE, &handle,
		    "a3 626f6b f5 656572726f72 f6 6464617461 a1 6648616e646c65 05");
	check_bytes(MSG_PING, &none, "a0");
	/* internally tagged: the kind is one more key */
	check_bytes(MSG_BOOTSTRAP, &boot,
		    "a2 6a626c6f636b5f726f6f74 a3 646b696e64 696f63692d65726f6673"
		    "656c6f776572 682f6465762f766461 657570706572 a1 646b696e64 65746d706673"
		    "7073656375726974795f70726f66696c65 6764656661756c74");
	check_bytes(MSG_EXEC_FAILED, &failed,
		    "a5 646b696e64 696e6f745f666f756e64 656572726e6f f6 6a6572726e6f5f6e616d65 f6"
		    "676d657373616765 6178 657374616765 f6");
}

static int decode_hex(enum msg_kind kind, const char *hex, void *msg, struct err *err)
{
	uint8_t in[512];
	int n = unhex(hex, in);

	return wire_decode(msg_types[kind].table, in, (size_t)n, msg, err);
}

static void test_leniency(void **state)
{
	struct err err = ERR_INIT;
	struct msg_exec_request req;
	struct msg_exec_resize resize;
	struct msg_data data;
	struct msg_shutdown end;
	struct msg_empty none;

	(void)state;
	/* Only the command: everything else has a default. */
	assert_int_equal(decode_hex(MSG_EXEC_REQUEST, "a1 63636d64 626c73", &req, &err), 0);
	assert_string_equal(req.cmd, "ls");
	assert_int_equal(req.rows, 24);
	assert_int_equal(req.cols, 80);
	msg_free(MSG_EXEC_REQUEST, &req);
	/* Indefinite map, array and chunked text; a tag; an unknown key with nested things. */
	assert_int_equal(
		decode_hex(MSG_EXEC_REQUEST,
			   "bf 63636d64 7f 616c 6173 ff 6178 a1 01 9f f6 fb0000000000000000 ff"
			   "6461726773 9f c1 6161 ff ff",
			   &req, &err),
		0);
	assert_string_equal(req.cmd, "ls");
	assert_int_equal(req.args.n, 1);
	assert_string_equal(req.args.v[0], "a");
	msg_free(MSG_EXEC_REQUEST, &req);
	/* Long heads for small numbers. */
	assert_int_equal(decode_hex(MSG_EXEC_RESIZE,
				    "a2 64726f7773 1b0000000000000018 7804636f6c73 05", &resize,
				    &err),
			 0);
	assert_int_equal(resize.rows, 24);
	assert_int_equal(decode_hex(MSG_EXEC_STDIN, "a1 6464617461 5f 4101 4102 ff", &data, &err),
			 0);
	assert_int_equal(data.data.n, 2);
	msg_free(MSG_EXEC_STDIN, &data);
	/* No payload, null and maps with strangers are all "empty". */
	assert_int_equal(decode_hex(MSG_TOUCH, "", &none, &err), 0);
	assert_int_equal(decode_hex(MSG_TOUCH, "f6", &none, &err), 0);
	assert_int_equal(decode_hex(MSG_TOUCH, "a1 6161 01", &none, &err), 0);
	/* So they are where all may be left out. */
	assert_int_equal(decode_hex(MSG_SHUTDOWN, "", &end, &err), 0);
	assert_int_equal(decode_hex(MSG_SHUTDOWN, "f6", &end, &err), 0);
	assert_int_equal(decode_hex(MSG_SHUTDOWN, "a1 6161 01", &end, &err), 0);
	assert_int_equal(end.grace_ms, 0);
	assert_int_equal(decode_hex(MSG_SHUTDOWN, "a1 68 67726163655f6d73 19 2134", &end, &err), 0);
	assert_int_equal(end.grace_ms, 8500);
	assert_int_not_equal(decode_hex(MSG_SHUTDOWN, "f6 00", &end, &err), 0);
	assert_int_not_equal(decode_hex(MSG_SHUTDOWN, "01", &end, &err), 0);
}

static void refuse(enum msg_kind kind, const char *hex, const char *word)
{
	char out[sizeof(struct msg_bootstrap)];
	struct err err = ERR_INIT;

	assert_true(decode_hex(kind, hex, out, &err) < 0);
	if (!strstr(err.msg, word))
		fail_msg("'%s' does not mention '%s'", err.msg, word);
}

static void test_refusals(void **state)
{
	(void)state;
	refuse(MSG_EXEC_RESIZE, "a1 64726f7773 01", "'cols'");
	refuse(MSG_EXEC_RESIZE, "a2 64726f7773 01 64726f7773 01", "twice");
	refuse(MSG_EXEC_RESIZE, "a2 64726f7773 1a00010000 64636f6c73 01", "range");
	refuse(MSG_EXEC_RESIZE, "a2 64726f7773 20 64636f6c73 01", "range");
	refuse(MSG_EXEC_RESIZE, "a2 64726f7773 6161 64636f6c73 01", "'rows'");
	refuse(MSG_EXEC_RESIZE, "80", "map");
	refuse(MSG_EXEC_RESIZE, "a2 64726f7773 01 64636f6c73 01 00", "after");
	refuse(MSG_EXEC_REQUEST, "a1 63636d64 62ff61", "UTF-8");
	refuse(MSG_EXEC_REQUEST, "a1 63636d64 620061", "NUL");
	refuse(MSG_EXEC_REQUEST, "a1 63636d64 f6", "'cmd'");
	refuse(MSG_FS_REQUEST, "a1 626f70 a1 644e6f7065 a0", "Nope");
	refuse(MSG_FS_REQUEST, "a1 626f70 a0", "kind");
	refuse(MSG_EXEC_FAILED, "a2 646b696e64 6178 676d657373616765 6178", "unknown value");
	/* A nest of arrays a thousand deep in an unknown key. */
	{
		uint8_t deep[1100];
		char out[sizeof(struct msg_exec_resize)];
		struct err err = ERR_INIT;

		memset(deep, 0x81, sizeof(deep));
		memcpy(deep, "\xa1\x61x", 3);
		deep[sizeof(deep) - 1] = 0;
		assert_true(wire_decode(msg_types[MSG_EXEC_RESIZE].table, deep, sizeof(deep), out,
					&err) < 0);
	}
}

static void test_limits(void **state)
{
	cleanup_buf struct buf b = BUF_INIT;
	struct msg_exec_request req;
	struct err err = ERR_INIT;

	(void)state;
	/* A list that promises 2^60 entries, and one that really has too many. */
	assert_true(decode_hex(MSG_EXEC_REQUEST,
			       "a2 63636d64 6161 6461726773 9b1000000000000000 6161", &req,
			       &err) < 0);
	buf_add(&b,
		"\xa2\x63"
		"cmd\x61x\x64"
		"args\x9f",
		13);
	for (int i = 0; i <= WIRE_LIST_MAX; i++)
		buf_add_u8(&b, 0x60);
	buf_add_u8(&b, 0xff);
	assert_int_equal(wire_decode(msg_types[MSG_EXEC_REQUEST].table, buf_ptr(&b), buf_size(&b),
				     &req, &err),
			 -ERR_LIMIT);
}

/* A message of as many fields as there can be. */
static void test_many_fields(void **state)
{
	static char keys[WIRE_FIELDS_MAX][8];
	static struct wire_field f[WIRE_FIELDS_MAX];
	uint64_t in[WIRE_FIELDS_MAX], out[WIRE_FIELDS_MAX] = {0};
	const struct wire_table t = {
		.name = "many", .size = sizeof(in), .fields = f, .nfields = WIRE_FIELDS_MAX};
	cleanup_buf struct buf b = BUF_INIT;
	struct err err = ERR_INIT;

	(void)state;
	for (unsigned i = 0; i < WIRE_FIELDS_MAX; i++) {
		snprintf(keys[i], sizeof(keys[i]), "k%u", i);
		f[i] = (struct wire_field){
			.key = keys[i], .type = WIRE_U64, .offset = i * sizeof(in[0])};
		in[i] = i + 1;
	}
	wire_encode(&t, in, &b);
	if (wire_decode(&t, buf_ptr(&b), buf_size(&b), out, &err))
		fail_msg("%s", err.msg);
	assert_memory_equal(in, out, sizeof(in));
}

static void test_lossy_text(void **state)
{
	struct msg_tcp_failed m = {.error = (char *)"a\xff\xc3z"}, back;
	cleanup_buf struct buf b = BUF_INIT;
	struct err err = ERR_INIT;

	(void)state;
	wire_encode(msg_types[MSG_TCP_FAILED].table, &m, &b);
	assert_int_equal(wire_decode(msg_types[MSG_TCP_FAILED].table, buf_ptr(&b), buf_size(&b),
				     &back, &err),
			 0);
	assert_string_equal(back.error, "a\xef\xbf\xbd\xef\xbf\xbdz");
	msg_free(MSG_TCP_FAILED, &back);
}

static void test_secrets_hidden(void **state)
{
	char *env[] = {(char *)"TOKEN=hunter2"};
	struct msg_exec_request req = {.cmd = (char *)"x", .env = {env, 1}};
	cleanup_buf struct buf b = BUF_INIT;

	(void)state;
	wire_dump(msg_types[MSG_EXEC_REQUEST].table, &req, &b);
	assert_null(strstr(buf_cstr(&b), "hunter2"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_table),    cmocka_unit_test(test_exact_bytes),
		cmocka_unit_test(test_leniency),       cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_limits),	       cmocka_unit_test(test_lossy_text),
		cmocka_unit_test(test_secrets_hidden), cmocka_unit_test(test_many_fields),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
