/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/source.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "wire/cbor.h"

static const struct {
	const char *suffix, *format;
} formats[] = {
	{".raw", "raw"},
	{".img", "raw"},
	{".qcow2", "qcow2"},
	{".vmdk", "vmdk"},
};

static const char *const options[] = {"rw", "format", "fstype", "partition", "backing"};
enum { OPTION_RW, OPTION_FORMAT, OPTION_FSTYPE, OPTION_PARTITION, OPTION_BACKING };

void sandbox_source_done(struct sandbox_source *s)
{
	free(s->text);
	free(s->path);
	free(s->fstype);
	strv_done(&s->backing);
	memset(s, 0, sizeof(*s));
}

bool sandbox_source_is_path(const char *text)
{
	return text[0] == '/' || str_starts(text, "./") || str_starts(text, "../") ||
	       str_eq(text, ".") || str_eq(text, "..");
}

const char *sandbox_source_format(const char *path)
{
	for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
		size_t n = strlen(path), m = strlen(formats[i].suffix);

		if (n > m && strcasecmp(path + n - m, formats[i].suffix) == 0)
			return formats[i].format;
	}
	return NULL;
}

static int no_memory(struct err *err)
{
	return err_set(err, ENOMEM, "out of memory");
}

static int absolute(const char *path, char **ret, struct err *err)
{
	*ret = realpath(path, NULL);
	if (!*ret && errno == ENOENT)
		return err_set(err, ERR_NOT_FOUND, "there is no file or directory %s", path);
	if (!*ret)
		return err_errno(err, "cannot open %s", path);
	/* It travels in messages that carry text. */
	if (!cbor_utf8_valid((const uint8_t *)*ret, strlen(*ret))) {
		err_set(err, ERR_UNSUPPORTED, "the path %s is not valid UTF-8", path);
		return err_hint(err, "rename it, or give it a link with a plain name");
	}
	return 0;
}

static int set_format(struct sandbox_source *s, const char *value, struct err *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
		if (str_eq(formats[i].format, value))
			s->format = formats[i].format;
	}
	if (s->format)
		return 0;
	err_set(err, ERR_USAGE, "there is no disk format \"%s\"", value);
	return err_hint(err, "it is raw, qcow2 or vmdk");
}

static int set_fstype(struct sandbox_source *s, const char *value, struct err *err)
{
	/* Names as Linux has them. */
	if (!*value || strlen(value) > 16 ||
	    strspn(value, "abcdefghijklmnopqrstuvwxyz0123456789_") != strlen(value))
		return err_set(err, ERR_USAGE, "\"%s\" is no type of file system", value);
	s->fstype = strdup(value);
	return s->fstype ? 0 : no_memory(err);
}

static int set_partition(struct sandbox_source *s, const char *value, struct err *err)
{
	uint64_t n;

	if (str_to_u64(value, SOURCE_PARTITION_MAX, &n) < 0 || !n)
		return err_set(err, ERR_USAGE, "\"%s\" is not the number of a partition", value);
	s->partition = (unsigned)n;
	return 0;
}

static int add_backing(struct sandbox_source *s, const char *value, struct err *err)
{
	cleanup_free char *path = NULL;
	int r = absolute(value, &path, err);

	if (r < 0)
		return r;
	if (!sandbox_source_format(path)) {
		err_set(err, ERR_USAGE, "the format of %s cannot be told from its name", value);
		return err_hint(err, "give it one that ends in .raw, .img, .qcow2 or .vmdk");
	}
	if (s->backing.n == SOURCE_BACKING_MAX)
		return err_set(err, ERR_LIMIT, "a disk cannot rest on more than %u others",
			       SOURCE_BACKING_MAX);
	return strv_add(&s->backing, path) < 0 ? no_memory(err) : 0;
}

static int set_option(struct sandbox_source *s, char *word, struct err *err)
{
	char *value = strchr(word, '=');
	const char *like;
	size_t i = 0;

	if (value)
		*value++ = '\0';
	while (i < ARRAY_SIZE(options) && !str_eq(word, options[i]))
		i++;
	if (i == ARRAY_SIZE(options)) {
		like = str_suggest(word, options, ARRAY_SIZE(options));
		err_set(err, ERR_USAGE, "a disk has no option \"%s\"", word);
		return like ? err_hint(err, "did you mean %s?", like)
			    : err_hint(err, "the options are rw, format=, fstype=, partition= and "
					    "backing=");
	}
	if ((i == OPTION_RW) != !value)
		return err_set(err, ERR_USAGE, "the option %s takes %s value", options[i],
			       value ? "no" : "a");
	switch (i) {
	case OPTION_RW:
		s->writable = true;
		return 0;
	case OPTION_FORMAT:
		return set_format(s, value, err);
	case OPTION_FSTYPE:
		free(s->fstype);
		s->fstype = NULL;
		return set_fstype(s, value, err);
	case OPTION_PARTITION:
		return set_partition(s, value, err);
	default:
		return add_backing(s, value, err);
	}
}

/* Path and options in one text again. */
static char *render(const struct sandbox_source *s, const char *asked_format)
{
	cleanup_buf struct buf b = BUF_INIT;
	char sep = ':';
	char *text;

	buf_add_str(&b, s->path);
#define OPTION(...) (buf_addf(&b, "%c", sep), buf_addf(&b, __VA_ARGS__), sep = ',')
	if (s->writable)
		OPTION("rw");
	if (asked_format)
		OPTION("format=%s", asked_format);
	if (s->fstype)
		OPTION("fstype=%s", s->fstype);
	if (s->partition)
		OPTION("partition=%u", s->partition);
	for (size_t i = 0; i < s->backing.n; i++)
		OPTION("backing=%s", s->backing.v[i]);
#undef OPTION
	text = buf_cstr(&b);
	return text ? strdup(text) : NULL;
}

static int parse_path(const char *text, struct sandbox_source *s, struct err *err)
{
	cleanup_free char *path = strdup(text);
	const char *asked;
	struct stat st;
	char *rest;
	int r;

	if (!path)
		return no_memory(err);
	/* A name may have a colon in it; options then need one more. */
	rest = access(path, F_OK) < 0 ? strrchr(path, ':') : NULL;
	if (rest)
		*rest++ = '\0';
	r = absolute(path, &s->path, err);
	while (r == 0 && rest) {
		char *word = strsep(&rest, ",");

		r = set_option(s, word, err);
	}
	if (r < 0)
		return r;
	if (stat(s->path, &st) < 0)
		return err_errno(err, "cannot open %s", path);
	asked = s->format;
	s->kind = S_ISDIR(st.st_mode) ? SOURCE_DIRECTORY : SOURCE_DISK;
	if (s->kind == SOURCE_DIRECTORY && strchr(text + strlen(path), ':')) {
		err_set(err, ERR_USAGE, "a directory as a root has no options");
		return err_hint(err, "it stays as it is; what the sandbox writes is its own");
	}
	if (s->kind == SOURCE_DISK && !S_ISREG(st.st_mode))
		return err_set(err, ERR_USAGE, "%s is neither a directory nor a regular file",
			       path);
	if (s->kind == SOURCE_DISK && !s->format)
		s->format = sandbox_source_format(s->path);
	if (s->kind == SOURCE_DISK && !s->format) {
		err_set(err, ERR_USAGE, "the format of the disk %s cannot be told from its name",
			path);
		return err_hint(err, "say it: %s:format=raw (or qcow2, vmdk)", path);
	}
	s->text = render(s, asked);
	return s->text ? 0 : no_memory(err);
}

int sandbox_source_parse(const char *text, struct sandbox_source *ret, struct err *err)
{
	struct sandbox_source s = {.kind = SOURCE_IMAGE};
	int r = 0;

	if (sandbox_source_is_path(text)) {
		r = parse_path(text, &s, err);
	} else {
		s.text = strdup(text);
		r = s.text ? 0 : no_memory(err);
	}
	if (r < 0) {
		sandbox_source_done(&s);
		return r;
	}
	*ret = s;
	return 0;
}
