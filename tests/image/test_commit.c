/* SPDX-License-Identifier: Apache-2.0 */
/* What an overlay's upper directory becomes as a layer. */
#include "test.h"

#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "image/commit.h"
#include "image/digest.h"
#include "image/scratch_store.h"
#include "tree/tar_write.h"

#define OVERLAY "trusted.overlay."

static struct tar_xattr attr(const char *name, const char *value)
{
	return (struct tar_xattr){name, (const uint8_t *)value, strlen(value)};
}

static void put(struct buf *b, enum tar_type type, const char *path, const char *link)
{
	const struct tar_entry e = {.type = type, .path = path, .link = link, .mode = 0755};

	tar_put_entry(b, &e, NULL, 0);
}

static void put_file(struct buf *b, const char *path, const char *text)
{
	const struct tar_entry e = {
		.type = TAR_FILE, .path = path, .mode = 04750, .uid = 7, .size = strlen(text)};

	tar_put_entry(b, &e, NULL, 0);
	buf_add(b, text, strlen(text));
	tar_put_padding(b, e.size);
}

static void put_marked(struct buf *b, enum tar_type type, const char *path, struct tar_xattr a)
{
	const struct tar_xattr v[] = {attr(OVERLAY "origin", "x"), a, attr("user.kept", "yes")};
	const struct tar_entry e = {
		.type = type, .path = path, .mode = 0755, .xattrs = v, .xattr_count = 3};

	tar_put_entry(b, &e, NULL, 0);
}

struct stream {
	uint8_t *p;
	size_t n;
};

static int feed(void *arg, const uint8_t **ret, size_t *len, struct err *err)
{
	struct stream *s = arg;

	(void)err;
	*ret = s->p;
	*len = s->n;
	s->n = 0;
	return *len > 0;
}

/* A line for each entry of the layer into @ret, or the error's code. */
static int layer_of(const struct buf *b, const struct image_limits *l, struct buf *ret,
		    struct err *err)
{
	cleanup_temp struct store_temp out = STORE_TEMP_INIT;
	cleanup_close int in = memfd_create("upper", MFD_CLOEXEC);
	cleanup_tar struct tar *t = NULL;
	struct stream s = {0};
	struct tar_entry e;
	struct digest id;
	int r;

	assert_int_equal(io_write_full(in, buf_ptr(b), buf_size(b)), 0);
	assert_int_equal(lseek(in, 0, SEEK_SET), 0);
	assert_int_equal(store_temp_new(scratch_store(), &out, NULL), 0);
	r = commit_layer(&out, in, l, &id, err);
	if (r < 0)
		return r;
	s.n = (size_t)lseek(out.fd, 0, SEEK_END);
	s.p = mmap(NULL, s.n, PROT_READ, MAP_PRIVATE, out.fd, 0);
	assert_true(s.p != MAP_FAILED);
	assert_int_equal(tar_open(&t, feed, NULL, &s, NULL), 0);
	while ((r = tar_next(t, &e, NULL)) > 0) {
		buf_addf(ret, "%s %o %u", e.path, e.mode, e.uid);
		for (size_t i = 0; i < e.xattr_count; i++)
			buf_addf(ret, " %s", e.xattrs[i].name);
		buf_addf(ret, "%s%s\n", e.link && *e.link ? " -> " : "", e.link ? e.link : "");
	}
	assert_int_equal(r, 0);
	assert_true(tar_complete(t));
	munmap(s.p, (size_t)lseek(out.fd, 0, SEEK_END));
	buf_add_u8(ret, 0);
	return 0;
}

static void limits(struct image_limits *l)
{
	*l = (struct image_limits){0};
	image_limits_default(l);
}

static void marks(void **state)
{
	cleanup_buf struct buf b = BUF_INIT, text = BUF_INIT;
	struct image_limits l;
	struct err err = ERR_INIT;

	(void)state;
	limits(&l);
	put(&b, TAR_DIRECTORY, "./", NULL);
	put(&b, TAR_CHARDEV, "./gone", NULL);
	put(&b, TAR_DIRECTORY, "./dir/", NULL);
	put(&b, TAR_HARDLINK, "./dir/gone too", "./gone");
	put_file(&b, "./dir/file", "text");
	put(&b, TAR_HARDLINK, "./dir/other", "./dir/file");
	put(&b, TAR_SYMLINK, "./dir/link", "./dir/../gone");
	put_marked(&b, TAR_DIRECTORY, "./new/", attr(OVERLAY "opaque", "y"));
	/* It says that there may be whiteouts of another kind in it, of which there are none. */
	put_marked(&b, TAR_DIRECTORY, "./merged/", attr(OVERLAY "opaque", "x"));
	put(&b, TAR_DIRECTORY, "./etc/", NULL);
	put_file(&b, "./etc/hosts", "127.0.0.1 localhost");
	put(&b, TAR_CHARDEV, "./etc/hostname", NULL);
	put_file(&b, "./srv/etc/hosts", "mine");
	tar_put_end(&b);
	if (layer_of(&b, &l, &text, &err) < 0)
		fail_msg("%s", err.msg);
	assert_string_equal((const char *)buf_ptr(&text), ".wh.gone 644 0\n"
							  "dir/ 755 0\n"
							  "dir/.wh.gone too 644 0\n"
							  "dir/file 4750 7\n"
							  "dir/other 755 0 -> dir/file\n"
							  "dir/link 755 0 -> ./dir/../gone\n"
							  "new/ 755 0 user.kept\n"
							  "new/.wh..wh..opq 644 0\n"
							  "merged/ 755 0 user.kept\n"
							  "etc/ 755 0\n"
							  "etc/.wh.hostname 644 0\n"
							  "srv/etc/hosts 4750 7\n");
}

static int refuses(const struct buf *b, const struct image_limits *l, const char *why)
{
	cleanup_buf struct buf text = BUF_INIT;
	struct err err = ERR_INIT;
	int r = layer_of(b, l, &text, &err);

	if (r == 0 || !strstr(err.msg, why))
		fail_msg("want %s, have %s", why, r ? err.msg : "a layer");
	return r;
}

static void what_no_layer_can_say(void **state)
{
	cleanup_buf struct buf name = BUF_INIT, moved = BUF_INIT, cut = BUF_INIT;
	struct image_limits l;

	(void)state;
	limits(&l);
	put_file(&name, "./dir/.wh.file", "");
	tar_put_end(&name);
	assert_int_equal(refuses(&name, &l, "means something else"), -ERR_UNSUPPORTED);
	put_marked(&moved, TAR_DIRECTORY, "./dir", attr(OVERLAY "redirect", "/old"));
	tar_put_end(&moved);
	assert_int_equal(refuses(&moved, &l, "no layer can tell"), -ERR_UNSUPPORTED);
	put_file(&cut, "./file", "text");
	assert_int_equal(refuses(&cut, &l, "not come whole"), -ERR_CORRUPT);
}

static void limits_hold(void **state)
{
	cleanup_buf struct buf b = BUF_INIT, sparse = BUF_INIT;
	const struct tar_fragment map = {(uint64_t)1 << 40, 0};
	const struct tar_entry e = {.type = TAR_FILE, .path = "f", .size = (uint64_t)1 << 40};
	struct image_limits l;

	(void)state;
	limits(&l);
	l.entries = 2;
	for (int i = 0; i < 3; i++)
		put(&b, TAR_DIRECTORY, "./dir", NULL);
	tar_put_end(&b);
	assert_int_equal(refuses(&b, &l, "more than 2 entries"), -ERR_LIMIT);
	/* A hole is easily sent, and is bytes in a layer. */
	l.layer_bytes = 1 << 20;
	tar_put_entry(&sparse, &e, &map, 1);
	tar_put_end(&sparse);
	assert_int_equal(refuses(&sparse, &l, "larger than 1048576 bytes"), -ERR_LIMIT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(marks),
		cmocka_unit_test(what_no_layer_can_say),
		cmocka_unit_test(limits_hold),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
