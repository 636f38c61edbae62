/* SPDX-License-Identifier: Apache-2.0 */
/* Random trees through the writer; fsck.erofs is the judge where it is installed. */
#include "../test.h"

#include <sys/stat.h>
#include <unistd.h>

#include "image/erofs.h"

static uint32_t seed;

static uint32_t rnd(uint32_t n)
{
	seed = seed * 1664525u + 1013904223u;
	return (seed >> 8) % n;
}

static int tail(void *arg, const struct erofs_node *n, void *p, struct err *err)
{
	uint32_t *last = arg;

	(void)err;
	/* Asked for once each, in order of birth. */
	assert_true(n->id > *last);
	*last = n->id;
	memset(p, (int)(n->id & 0xff), n->tail_len);
	return 0;
}

static void fill(struct erofs_tree *t, unsigned entries, uint64_t *blocks)
{
	struct erofs_node *dirs[64], *last = NULL;
	unsigned ndirs = 1;
	char *target = erofs_tree_alloc(t, 4096);

	memset(target, 't', 4095);
	dirs[0] = erofs_tree_root(t);
	for (unsigned i = 0; i < entries; i++) {
		static const uint32_t modes[] = {S_IFREG, S_IFREG, S_IFREG, S_IFDIR,
						 S_IFLNK, S_IFCHR, S_IFIFO, S_IFSOCK};
		static const uint8_t value[5000];
		struct erofs_xattr x[3] = {{1, 3, (uint16_t)rnd(900), "abc", value},
					   {6, 1, (uint16_t)rnd(4), "s", value},
					   {4, 2, (uint16_t)rnd(5000), "tt", value}};
		struct erofs_node *dir = dirs[rnd(ndirs)];
		struct erofs_node *n = erofs_node_new(t, modes[rnd(8)] | rnd(07777));
		char name[256];
		int len = snprintf(name, sizeof(name), "%0*u", (int)(1 + rnd(200)), i);

		assert_int_equal(erofs_node_set_xattrs(t, n, x, rnd(8) ? 0 : rnd(4)), 0);
		n->uid = rnd(0xffffff) << 8;
		n->mtime = (int64_t)rnd(0xffffff) * 1000 - 1000000000;
		n->mtime_ns = rnd(1000000000);
		if (S_ISREG(n->mode)) {
			size_t xs = erofs_xattr_size(n->xattrs, n->xattr_count);

			n->size = rnd(20000);
			n->tail_len = n->size % EROFS_BLOCK;
			if (EROFS_INODE_SIZE + xs + n->tail_len > EROFS_BLOCK)
				n->tail_len = 0;
			n->block = *blocks;
			*blocks += (n->size - n->tail_len + EROFS_BLOCK - 1) / EROFS_BLOCK;
			last = n;
		} else if (S_ISLNK(n->mode)) {
			n->size = 1 + rnd(4095);
			n->target = target;
		} else if (S_ISDIR(n->mode) && ndirs < 64) {
			dirs[ndirs++] = n;
		}
		if (!erofs_lookup(t, dir, name, (size_t)len))
			assert_non_null(erofs_link(t, dir, name, (size_t)len, n));
		if (last && rnd(10) == 0) {
			len = snprintf(name, sizeof(name), "hard%u", i);
			assert_non_null(erofs_link(t, dir, name, (size_t)len, last));
		}
		if (rnd(20) == 0 && dir->first && !S_ISDIR(dir->first->node->mode))
			erofs_unlink(t, dir->first);
	}
}

static void write_random(const char *path, unsigned entries, uint32_t s)
{
	cleanup_tree struct erofs_tree *t = NULL;
	struct erofs_result res;
	uint32_t last = 0;
	struct erofs_options o = {.tail = tail, .tail_arg = &last};
	FILE *f = fopen(path, "w+");

	seed = s;
	assert_non_null(f);
	assert_int_equal(erofs_tree_new(&t, NULL), 0);
	fill(t, entries, &o.data_blocks);
	assert_int_equal(erofs_write(t, fileno(f), &o, &res, NULL), 0);
	assert_int_equal(ftruncate(fileno(f), (off_t)((res.blocks + o.data_blocks) * EROFS_BLOCK)),
			 0);
	fclose(f);
}

static void test_random_trees(void **state)
{
	char a[300], b[300], cmd[700];
	const int have_fsck = system("command -v fsck.erofs >/dev/null 2>&1") == 0;

	for (uint32_t s = 1; s < 40; s++) {
		unsigned entries = s < 10 ? s : s * 50;

		snprintf(a, sizeof(a), "%s/a", (char *)*state);
		snprintf(b, sizeof(b), "%s/b", (char *)*state);
		write_random(a, entries, s);
		write_random(b, entries, s);
		snprintf(cmd, sizeof(cmd), "cmp -s %s %s", a, b);
		assert_int_equal(system(cmd), 0);
		if (!have_fsck)
			continue;
		snprintf(cmd, sizeof(cmd), "fsck.erofs %s >%s/log 2>&1", a, (char *)*state);
		assert_int_equal(system(cmd), 0);
	}
	if (!have_fsck)
		print_message("fsck.erofs is missing: images were written but not judged\n");
}

static void test_xattr_names(void **state)
{
	size_t skip;

	(void)state;
	assert_int_equal(erofs_xattr_prefix("user.a", &skip), 1);
	assert_int_equal(skip, 5);
	assert_int_equal(erofs_xattr_prefix("security.capability", &skip), 6);
	assert_int_equal(erofs_xattr_prefix("system.posix_acl_access", &skip), 2);
	assert_int_equal(erofs_xattr_prefix("system.posix_acl_accessory", &skip), 0);
	assert_int_equal(erofs_xattr_prefix("user.", &skip), 0);
	assert_int_equal(erofs_xattr_prefix("com.apple.quarantine", &skip), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_random_trees, scratch_setup, scratch_teardown),
		cmocka_unit_test(test_xattr_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
