/* SPDX-License-Identifier: Apache-2.0 */
/* Trees to tar and back, and archives that mean harm. Python's tarfile judges what is written. */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "tree/tar_write.h"
#include "tree/tree.h"

struct stream {
	struct buf b;
	size_t at, piece;
	const char *dir; /* holds "mine" and nothing else when bytes before @until are asked for */
	size_t until;
};

static void sh(const char *dir, const char *script);

static int keep(void *arg, const void *p, size_t n, struct err *err)
{
	(void)err;
	buf_add(&((struct stream *)arg)->b, p, n);
	return 0;
}

static int feed(void *arg, const uint8_t **ret, size_t *len, struct err *err)
{
	struct stream *s = arg;
	size_t n = MIN(buf_size(&s->b) - s->at, s->piece);

	(void)err;
	if (s->dir && s->at < s->until)
		sh(s->dir, "test $(ls -A) = mine && test $(cat mine) = mine");
	*ret = buf_ptr(&s->b) + s->at;
	*len = n;
	s->at += n;
	return n > 0;
}

static void sh(const char *dir, const char *script)
{
	char text[2000];

	snprintf(text, sizeof(text), "cd '%s' && { %s; }", dir, script);
	if (system(text) != 0)
		fail_msg("failed: %s", script);
}

static void pack(struct stream *s, const char *path, const char *name, struct tree_notes *notes)
{
	const struct tree_pack o = {.path = path, .name = name};
	struct err err = ERR_INIT;

	s->piece = 100000;
	if (tree_pack(&o, keep, s, notes, &err) < 0)
		fail_msg("%s", err.msg);
}

/* 0, or the error's code. */
static int unpack(struct stream *s, const char *path, const char *name, bool rights,
		  struct err *err)
{
	const struct tree_unpack o = {.path = path, .name = name, .rights = rights};
	struct tree_notes notes = {0};
	int r;

	s->at = 0;
	err_clear(err);
	r = tree_unpack(&o, feed, s, &notes, err);
	return r < 0 ? err->code : 0;
}

static void check_same(const char *dir, const char *a, const char *b)
{
	char text[800];

	/* Everything that the two trees are, but for what they are called. */
	snprintf(
		text, sizeof(text),
		"for d in %s %s; do (cd $d && find . -printf '%%p %%y %%m %%U %%G %%T@ %%l %%n\\n' "
		"| sort && find . -type f -print0 | sort -z | xargs -0 sha256sum) "
		">list-$(basename $d); done; diff list-%s list-%s",
		a, b, a, b);
	sh(dir, text);
}

static void test_there_and_back(void **state)
{
	char src[200], dst[200];
	struct tree_notes notes = {0};
	struct stream s = {0};
	struct err err;
	struct stat st;

	snprintf(src, sizeof(src), "%s/src", (char *)*state);
	snprintf(dst, sizeof(dst), "%s/dst", (char *)*state);
	sh(*state,
	   "mkdir -p src/d/e src/empty src/closed && echo one >src/f && ln src/f src/d/g && "
	   "ln -s ../f src/d/l && ln -s /no/where src/dangling && mkfifo src/fifo && "
	   "truncate -s 300M src/sparse && printf x | dd of=src/sparse bs=1 seek=200000000 "
	   "conv=notrunc status=none && truncate -s 70000 src/hole && "
	   "head -c 700001 /dev/urandom >src/big && chmod 1777 src/d/e && chmod 400 src/hole && "
	   "touch -d '1999-12-31 23:59:59.123456789' src/big src/d/e src/d && "
	   "touch -h -d '1960-01-01' src/dangling && echo x >src/closed/x && "
	   "chmod 500 src/closed && printf n >\"src/$(printf '\\377\\001')\" && "
	   "n=$(printf '%0120d' 0) && mkdir -p src/$n/$n/$n && echo deep >src/$n/$n/$n/$n && "
	   "ln src/$n/$n/$n/$n src/d/$n");
	pack(&s, src, ".", &notes);
	assert_int_equal(notes.sockets + notes.vanished, 0);
	assert_true(buf_size(&s.b) < 2000000); /* holes are not sent */
	s.piece = 517;
	if (unpack(&s, dst, "src", true, &err))
		fail_msg("%s", err.msg);
	check_same(*state, "src", "dst");
	snprintf(dst, sizeof(dst), "%s/dst/sparse", (char *)*state);
	assert_int_equal(stat(dst, &st), 0);
	assert_true(st.st_blocks < 1000);
	/* Again, over it; and into a directory. */
	snprintf(dst, sizeof(dst), "%s", (char *)*state);
	sh(*state, "rm -rf list-*; mkdir in");
	snprintf(dst, sizeof(dst), "%s/in", (char *)*state);
	for (int i = 0; i < 2; i++)
		assert_int_equal(unpack(&s, dst, "again", true, &err), 0);
	sh(*state, "mv in/again again");
	check_same(*state, "src", "again");
	/* Only what is in it: the directory that was there stays what it was. */
	sh(*state, "chmod 751 in");
	assert_int_equal(unpack(&s, dst, "", true, &err), 0);
	assert_int_equal(stat(dst, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0751);
	sh(*state, "test -f in/f && test -d in/d/e && cmp in/big src/big");
	buf_done(&s.b);
}

static void test_others_can_read_it(void **state)
{
	struct tree_notes notes = {0};
	struct stream s = {0};
	char path[200];

	sh(*state, "mkdir -p t/d && printf hello >t/f && ln t/f t/d/h && ln -s f t/l && "
		   "truncate -s 1M t/sparse && printf end | dd of=t/sparse bs=1 seek=500000 "
		   "conv=notrunc status=none && printf n >\"t/$(printf '\\377')\" && "
		   "n=$(printf '%0120d' 0) && mkdir t/$n && printf deep >t/$n/$n");
	snprintf(path, sizeof(path), "%s/t", (char *)*state);
	pack(&s, path, "t", &notes);
	snprintf(path, sizeof(path), "%s/t.tar", (char *)*state);
	assert_int_equal(io_write_file_atomic(path, buf_ptr(&s.b), buf_size(&s.b), 0644, NULL), 0);
	buf_done(&s.b);
	sh(*state, "mkdir gnu py && tar -C gnu -xf t.tar && diff -r --no-dereference t gnu/t && "
		   "test $(stat -c %h gnu/t/f) = 2 && test $(stat -c %b gnu/t/sparse) -lt 1000 && "
		   "python3 -c 'import tarfile; tarfile.open(\"t.tar\").extractall(\"py\")' && "
		   "diff -r --no-dereference t py/t");
}

/* ---- archives that mean harm ---- */

static void add(struct stream *s, enum tar_type type, const char *path, const char *link,
		const char *data)
{
	const struct tar_entry e = {
		.type = type,
		.path = path,
		.link = link,
		.mode = type == TAR_DIRECTORY ? 0755 : 04755,
		.size = data ? strlen(data) : 0,
		.major = 1,
		.minor = 3,
	};

	tar_put_entry(&s->b, &e, NULL, 0);
	if (data) {
		buf_add_str(&s->b, data);
		tar_put_padding(&s->b, strlen(data));
	}
}

static void ready(struct stream *s)
{
	tar_put_end(&s->b);
	s->piece = 4096;
}

static void expect_untouched(void **state)
{
	sh(*state, "test \"$(cat outside/secret)\" = secret && test $(ls -A outside) = secret && "
		   "test $(stat -c %h outside/secret) = 1 && test $(stat -c %a outside) = 755");
}

static void test_nothing_outside(void **state)
{
	static const struct {
		const char *what;
		struct {
			enum tar_type type;
			const char *path, *link, *data;
		} v[4];
		bool fails;
	} cases[] = {
		{"parents", {{TAR_FILE, "../outside/new", NULL, "x"}}, true},
		{"parents inside", {{TAR_FILE, "a/../../outside/new", NULL, "x"}}, true},
		{"absolute is beneath", {{TAR_FILE, "/outside/new", NULL, "x"}}, false},
		{"through a link",
		 {{TAR_SYMLINK, "l", "../outside", NULL}, {TAR_FILE, "l/new", NULL, "x"}},
		 true},
		{"through an absolute link",
		 {{TAR_SYMLINK, "l", "/tmp", NULL}, {TAR_FILE, "l/new-by-tree-test", NULL, "x"}},
		 true},
		{"over a link",
		 {{TAR_SYMLINK, "l", "../outside/secret", NULL}, {TAR_FILE, "l", NULL, "x"}},
		 false},
		{"a directory over a link",
		 {{TAR_SYMLINK, "l", "../outside", NULL}, {TAR_DIRECTORY, "l", NULL, NULL}},
		 true},
		{"a link in the middle, to itself",
		 {{TAR_DIRECTORY, "d", NULL, NULL},
		  {TAR_SYMLINK, "d/l", "../../outside", NULL},
		  {TAR_DIRECTORY, "d/l/x", NULL, NULL}},
		 true},
		{"a hard link out", {{TAR_HARDLINK, "h", "../outside/secret", NULL}}, true},
		{"a hard link out, absolute", {{TAR_HARDLINK, "h", "/etc/passwd", NULL}}, true},
		{"a hard link through a link",
		 {{TAR_SYMLINK, "l", "../outside", NULL}, {TAR_HARDLINK, "h", "l/secret", NULL}},
		 true},
		{"the directory itself", {{TAR_SYMLINK, ".", "/", NULL}}, true},
		{"nothing as a name", {{TAR_FILE, "", NULL, "x"}}, true},
		{"proc",
		 {{TAR_SYMLINK, "p", "/proc/self/cwd", NULL}, {TAR_FILE, "p/n", NULL, "x"}},
		 true},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct stream s = {0};
		struct err err = ERR_INIT;
		char dst[200];
		int code;

		sh(*state,
		   "rm -rf dst outside && mkdir dst outside && echo secret >outside/secret");
		snprintf(dst, sizeof(dst), "%s/dst", (char *)*state);
		for (size_t k = 0; k < 4 && cases[i].v[k].path; k++)
			add(&s, cases[i].v[k].type, cases[i].v[k].path, cases[i].v[k].link,
			    cases[i].v[k].data);
		ready(&s);
		code = unpack(&s, dst, NULL, true, &err);
		if (!code == cases[i].fails)
			fail_msg("%s: %s", cases[i].what, code ? err.msg : "should have failed");
		expect_untouched(state);
		/* The same as a tree of which only the top's name is ours. */
		code = unpack(&s, dst, "tree", true, &err);
		expect_untouched(state);
		buf_done(&s.b);
	}
	assert_int_not_equal(access("/tmp/new-by-tree-test", F_OK), 0);
}

static void test_rights_are_asked_for(void **state)
{
	struct stream s = {0};
	struct err err = ERR_INIT;
	struct stat st;
	char dst[200];

	add(&s, TAR_DIRECTORY, "./", NULL, NULL);
	add(&s, TAR_FILE, "./su", NULL, "x");
	add(&s, TAR_CHARDEV, "./null", NULL, NULL);
	ready(&s);
	snprintf(dst, sizeof(dst), "%s/plain", (char *)*state);
	assert_int_equal(unpack(&s, dst, "t", false, &err), 0);
	assert_int_equal(stat(scratch_path(state, "plain/su"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0755);
	assert_int_not_equal(lstat(scratch_path(state, "plain/null"), &st), 0);
	if (geteuid() == 0) {
		snprintf(dst, sizeof(dst), "%s/all", (char *)*state);
		assert_int_equal(unpack(&s, dst, "t", true, &err), 0);
		assert_int_equal(stat(scratch_path(state, "all/su"), &st), 0);
		assert_int_equal(st.st_mode & 07777, 04755);
	}
	buf_done(&s.b);
	/* A device that is all there is to copy is not left out in silence. */
	s = (struct stream){0};
	add(&s, TAR_CHARDEV, ".", NULL, NULL);
	ready(&s);
	snprintf(dst, sizeof(dst), "%s/alone", (char *)*state);
	assert_int_equal(unpack(&s, dst, "x", false, &err), ERR_UNSUPPORTED);
	assert_non_null(strstr(err.hint, "-a"));
	assert_int_not_equal(access(dst, F_OK), 0);
	buf_done(&s.b);
}

static void test_places(void **state)
{
	static const struct {
		const char *dst;
		bool directory;
		int code; /* of the failure; 0: then @result is there */
		const char *result;
	} cases[] = {
		{"new", true, 0, "new/f"},	 {"new/", true, 0, "new/f"},
		{"dir", true, 0, "dir/name/f"},	 {"dir/", true, 0, "dir/name/f"},
		{"link", true, 0, "dir/name/f"}, {"file", true, ENOTDIR, NULL},
		{"no/new", true, ENOENT, NULL},	 {"new", false, 0, "new"},
		{"new/", false, ENOENT, NULL},	 {"dir", false, 0, "dir/name"},
		{"file", false, 0, "file"},	 {"file/", false, ENOTDIR, NULL},
		{"no/new", false, ENOENT, NULL}, {"fifo", false, EEXIST, NULL},
		{"tolink", false, 0, "tolink"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct stream s = {0};
		struct err err = ERR_INIT;
		char dst[200];
		struct stat st;
		int code;

		sh(*state, "rm -rf p && mkdir -p p/dir && echo old >p/file && ln -s dir p/link && "
			   "mkfifo p/fifo && ln -s file p/tolink");
		if (cases[i].directory)
			add(&s, TAR_DIRECTORY, "./", NULL, NULL);
		add(&s, TAR_FILE, cases[i].directory ? "./f" : ".", NULL, "new");
		ready(&s);
		snprintf(dst, sizeof(dst), "%s/p/%s", (char *)*state, cases[i].dst);
		code = unpack(&s, dst, "name", false, &err);
		if (code != cases[i].code)
			fail_msg("%s: %d, %s", cases[i].dst, code, err.msg);
		if (!code) {
			snprintf(dst, sizeof(dst), "%s/p/%s", (char *)*state, cases[i].result);
			assert_int_equal(lstat(dst, &st), 0);
			assert_true(S_ISREG(st.st_mode));
			assert_int_equal(st.st_size, 3);
		}
		/* A link that is replaced does not pass it on. */
		if (strcmp(cases[i].dst, "file") != 0)
			sh(*state, "test $(cat p/file) = old");
		buf_done(&s.b);
	}
}

static void test_a_copy_that_breaks_off_is_taken_back(void **state)
{
	struct stream s = {0}, whole = {0};
	struct err err = ERR_INIT;
	char dst[200];

	add(&whole, TAR_DIRECTORY, "./", NULL, NULL);
	add(&whole, TAR_DIRECTORY, "./d", NULL, NULL);
	add(&whole, TAR_FILE, "./d/f", NULL, "content");
	ready(&whole);
	snprintf(dst, sizeof(dst), "%s/new", (char *)*state);
	for (size_t n = 0; n < buf_size(&whole.b) - TAR_BLOCK; n += 256) {
		s = (struct stream){.piece = 300};
		buf_add(&s.b, buf_ptr(&whole.b), n);
		assert_int_not_equal(unpack(&s, dst, "x", false, &err), 0);
		assert_int_not_equal(access(dst, F_OK), 0);
		buf_done(&s.b);
	}
	/* What was there before stays. */
	sh(*state, "mkdir new && echo mine >new/mine");
	s = (struct stream){.piece = 300};
	buf_add(&s.b, buf_ptr(&whole.b), 3 * TAR_BLOCK);
	assert_int_not_equal(unpack(&s, dst, "", false, &err), 0);
	sh(*state, "test $(cat new/mine) = mine && rm -rf new/d");
	buf_done(&s.b);
	buf_done(&whole.b);
	/* Of a file, too: it is replaced by a whole one or not at all. */
	whole = (struct stream){.piece = 300};
	add(&whole, TAR_FILE, ".", NULL, "content");
	ready(&whole);
	snprintf(dst, sizeof(dst), "%s/new/mine", (char *)*state);
	for (size_t n = 0; n < buf_size(&whole.b) - TAR_BLOCK; n += 256) {
		s = (struct stream){.piece = 300};
		buf_add(&s.b, buf_ptr(&whole.b), n);
		assert_int_not_equal(unpack(&s, dst, "x", false, &err), 0);
		/* Behind the file's own bytes it is whole. */
		if (n <= TAR_BLOCK)
			sh(*state, "test $(cat new/mine) = mine");
		sh(*state, "test $(ls -A new) = mine");
		buf_done(&s.b);
	}
	whole.piece = 300;
	assert_int_equal(unpack(&whole, dst, "x", false, &err), 0);
	sh(*state, "test $(cat new/mine) = content && test $(ls -A new) = mine");
	buf_done(&whole.b);
}

/* Whoever is killed while a file is replaced leaves nothing of the new one. */
static void test_a_file_to_replace_another_has_no_name(void **state)
{
	struct stream s = {.piece = 300};
	char dst[200], text[3000] = "";
	int fd = open(*state, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);

	if (fd < 0) {
		print_message("no files without a name in %s\n", (char *)*state);
		skip();
	}
	close(fd);
	memset(text, 'n', sizeof(text) - 1);
	add(&s, TAR_FILE, ".", NULL, text);
	tar_put_end(&s.b);
	snprintf(dst, sizeof(dst), "%s/d", (char *)*state);
	sh(*state, "mkdir d && echo mine >d/mine");
	s.dir = dst;
	s.until = TAR_BLOCK + strlen(text);
	assert_int_equal(unpack(&s, dst, "mine", false, NULL), 0);
	sh(*state, "test $(ls -A d) = mine && test $(wc -c <d/mine) = 2999");
	buf_done(&s.b);
}

/* What fails is said of the path that a person would look at. */
static void test_what_messages_name(void **state)
{
	static const struct {
		const char *dst, *member, *said;
		bool directory;
	} cases[] = {
		{"dir", ".", "dir/name", false},	  {"dir/", ".", "dir/name", false},
		{"dir", "./name", "dir/name/name", true}, {"new", "./d", "new/d", true},
		{"new/", "./d", "new/d", true},
	};
	struct err err = ERR_INIT;
	char dst[200], said[300];

	sh(*state, "mkdir -p dir/name/name");
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct stream s = {0};

		if (cases[i].directory)
			add(&s, TAR_DIRECTORY, "./", NULL, NULL);
		if (cases[i].directory)
			add(&s, TAR_DIRECTORY, "./d", NULL, NULL);
		add(&s, TAR_FILE, cases[i].member, NULL, "content");
		ready(&s);
		snprintf(dst, sizeof(dst), "%s/%s", (char *)*state, cases[i].dst);
		assert_int_equal(unpack(&s, dst, "name", false, &err), EISDIR);
		snprintf(said, sizeof(said), "cannot make the file %s/%s: Is a directory",
			 (char *)*state, cases[i].said);
		assert_string_equal(err.msg, said);
		buf_done(&s.b);
	}
	sh(*state, "test -z \"$(find . -name '.msb*')\"");
}

static void test_refusals_of_the_packer(void **state)
{
	struct tree_notes notes = {0};
	struct tree_pack o = {.name = "."};
	struct stream s = {0};
	struct err err = ERR_INIT;
	char path[200];

	snprintf(path, sizeof(path), "%s/missing", (char *)*state);
	o.path = path;
	assert_int_equal(tree_pack(&o, keep, &s, &notes, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "missing"));
	/* A file of /proc has no size, and what is in it all the same. */
	o.path = "/proc/self/mountinfo";
	assert_int_equal(tree_pack(&o, keep, &s, &notes, &err), 0);
	assert_true(buf_size(&s.b) > 3 * TAR_BLOCK);
	buf_done(&s.b);
	/* One of /sys says that it has the size of a page. */
	s = (struct stream){0};
	o.path = "/sys/kernel/uevent_seqnum";
	if (access(o.path, R_OK) == 0)
		assert_int_equal(tree_pack(&o, keep, &s, &notes, &err), 0);
	buf_done(&s.b);
	/* A link at the top is a link, unless it is followed. */
	sh(*state, "echo x >real && ln -s real link && mkdir dir && ln -s dir dirlink");
	for (int follow = 0; follow < 2; follow++) {
		struct stat st;

		s = (struct stream){.piece = 512};
		o = (struct tree_pack){.path = path, .name = ".", .follow = follow};
		snprintf(path, sizeof(path), "%s/link", (char *)*state);
		assert_int_equal(tree_pack(&o, keep, &s, &notes, &err), 0);
		snprintf(path, sizeof(path), "%s/copy%d", (char *)*state, follow);
		assert_int_equal(unpack(&s, path, "n", false, &err), 0);
		assert_int_equal(lstat(path, &st), 0);
		assert_int_equal(S_ISREG(st.st_mode), follow);
		buf_done(&s.b);
	}
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, scratch_setup, scratch_teardown)
	const struct CMUnitTest tests[] = {
		T(test_there_and_back),
		T(test_others_can_read_it),
		T(test_nothing_outside),
		T(test_rights_are_asked_for),
		T(test_places),
		T(test_a_copy_that_breaks_off_is_taken_back),
		T(test_a_file_to_replace_another_has_no_name),
		T(test_what_messages_name),
		T(test_refusals_of_the_packer),
	};

	umask(022);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
