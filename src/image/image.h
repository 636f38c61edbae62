/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images: loading, finding, listing, removing.
 *
 * An image is known by its id, the SHA-256 of its OCI configuration ("sha256:HEX"), and by any
 * number of references ("docker.io/library/python:latest"). Its root file system is a read-only
 * disk made of extents: the image's own EROFS metadata followed by the data of each layer, shared
 * with every other image that has that layer.
 *
 * Theory of operation, file by file:
 *	source.c     where bytes come from: a directory or a tar archive, maybe compressed
 *	oci.c        which blobs make the image: layouts, archives, manifests, configurations
 *	stream.c     one pass over a layer: digest, decompression (own thread), diff_id
 *	tar.c        the layer's entries
 *	layer.c      entries to HEX.data, HEX.tails, HEX.tar and HEX.index
 *	blocks.c     HEX.data: holes, and files with equal contents sharing blocks
 *	layer_tar.c  HEX.tar: the tar stream again, byte for byte
 *	merge.c      the layers' indexes to one tree, whiteouts resolved
 *	tree.c       that tree
 *	erofs.c      tree to EROFS metadata
 *	load.c       all of the above under the store's locks
 *	pull.c       the same with a registry for a source
 *	catalog.c    the database side
 *	remove.c     images in use, removing, pruning
 *	verify.c     finding and mending damage
 *	save.c       images to archives
 *	bootstrap.c  an image from a distribution's packages
 *	directory.c  an image from a directory
 *	commit.c     an image of another one and what was written above it
 *
 * Functions taking a struct store belong to the thread that uses the store; image_load() starts
 * threads of its own and joins them before it returns.
 */
#ifndef IMAGE_IMAGE_H
#define IMAGE_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct store;

/* Digest of anything, as text: "sha256:" and 64 hex digits. */
#define IMAGE_DIGEST_LEN 71
/* Longest normalised reference: 255 repository, 128 tag, digest and separators. */
#define IMAGE_REFERENCE_MAX 768

/*
 * Ceilings against hostile input; 0 in a field means the default. The defaults are the peer's, so
 * that what loads there loads here.
 */
struct image_limits {
	uint64_t layer_bytes;	/* uncompressed tar stream of one layer */
	uint64_t file_bytes;	/* one file in it, holes included */
	uint64_t entries;	/* in one layer */
	uint64_t image_entries; /* in all layers together */
	uint32_t layers;
	uint32_t path_bytes;
	uint32_t depth;
	uint32_t link_bytes;  /* symbolic link target */
	uint32_t xattr_bytes; /* names and values of one entry */
};

#define IMAGE_LAYER_BYTES_MAX ((uint64_t)10 << 30)
#define IMAGE_FILE_BYTES_MAX  ((uint64_t)5 << 30)
#define IMAGE_ENTRIES_MAX     1000000u
#define IMAGE_ALL_ENTRIES_MAX 4000000u
#define IMAGE_LAYERS_MAX      512u /* Docker stops at 127; overlay stacks at 500 */
#define IMAGE_PATH_MAX	      4096u
#define IMAGE_DEPTH_MAX	      128u
#define IMAGE_LINK_MAX	      4095u  /* the kernel's PATH_MAX without the NUL */
#define IMAGE_XATTR_BYTES_MAX 65536u /* what Linux' listxattr() can list */

/* Fill zero fields with the defaults. */
void image_limits_default(struct image_limits *l);

/* One stretch of the image disk. Stretches lie end to end from block 0. */
struct image_extent {
	char *path;	      /* absolute */
	uint64_t file_offset; /* bytes, multiple of IMAGE_BLOCK */
	uint64_t blocks;      /* of IMAGE_BLOCK bytes */
};
#define IMAGE_BLOCK 4096u

struct image_layer_info {
	char *diff_id;	/* "sha256:HEX" */
	uint64_t bytes; /* sum of regular file sizes */
	uint64_t entries;
	uint64_t stored; /* bytes on disk, all files of the layer */
};

/* What the OCI configuration says. Strings are never NULL unless said so. */
struct image_config {
	char **entrypoint; /* NULL-terminated, as all lists here; never NULL itself */
	char **cmd;
	char **env;	/* "NAME=value" */
	char **exposed; /* "80/tcp", sorted */
	char **volumes; /* sorted */
	char **labels;	/* "name=value", sorted */
	char **shell;
	char *user;	    /* "" if unset */
	char *workdir;	    /* "" if unset */
	char *stop_signal;  /* "" if unset */
	char *architecture; /* GOARCH spelling: amd64, arm64 */
	char *variant;
	char *os;
	char *created; /* RFC 3339 or "" */
	char *author;
};

struct image_info {
	char *id;	       /* "sha256:HEX" of the configuration */
	char *manifest_digest; /* "" when it came from a docker archive */
	char **references;     /* sorted */
	char *config_json;     /* the OCI configuration, verbatim */
	struct image_config config;
	uint64_t size;	   /* sum of regular file sizes over the layers */
	uint64_t stored;   /* bytes on disk, layers shared with others included; see inspect */
	uint32_t meta_crc; /* of the first extent */
	int64_t loaded_at; /* Unix seconds */
	struct image_layer_info *layers;
	size_t layer_count;
	struct image_extent *extents; /* the disk */
	size_t extent_count;
	uint64_t blocks; /* of the disk */
};
#define IMAGE_INFO_INIT                                                                            \
	{                                                                                          \
		0                                                                                  \
	}

void image_info_done(struct image_info *i);
#define cleanup_image_info __attribute__((cleanup(image_info_done)))

struct image_list {
	struct image_info *items;
	size_t count;
};
void image_list_done(struct image_list *l);
#define cleanup_image_list __attribute__((cleanup(image_list_done)))

/*
 * Progress of a load. Called from any of its threads, never two at a time; must not block and
 * must not call back into the store. NULL: none.
 */
enum image_stage {
	IMAGE_STAGE_READ,	/* spooling or scanning the input; done/total in bytes */
	IMAGE_STAGE_LAYER,	/* converting; done/total in compressed bytes */
	IMAGE_STAGE_LAYER_DONE, /* done = uncompressed bytes */
	IMAGE_STAGE_LAYER_HAVE, /* already in the store */
	IMAGE_STAGE_MERGE,
	IMAGE_STAGE_BOOTSTRAP, /* text is a line of the package tool */
	IMAGE_STAGE_SAVE,      /* writing a layer out; done/total in bytes */
	IMAGE_STAGE_RESOLVE,   /* asking a registry for text, a reference */
	IMAGE_STAGE_NOTE,      /* text is for a person: what is being tried again, and why */
};
struct image_progress {
	enum image_stage stage;
	unsigned layer, layers; /* which of how many */
	uint64_t done, total;	/* total 0: unknown */
	const char *text;	/* digest, file or line; never NULL */
};
typedef void image_progress_fn(void *arg, const struct image_progress *p);

struct image_load_options {
	const char *const *tags; /* extra references, NULL-terminated; NULL: those in the input */
	const struct image_limits *limits; /* NULL: defaults */
	const char *architecture;	   /* GOARCH, maybe "/variant"; NULL: the host's */
	unsigned parallel;		   /* layers at a time at least; 0: as processors allow */
	bool again;			   /* layers that are there as well */
	image_progress_fn *progress;
	void *progress_arg;
};

/*
 * Load every image of this architecture found in @input: an OCI layout (directory, or tar) or a
 * `docker save` archive, plain, gzip or zstd; "-" is standard input. With tags given, the input
 * must hold exactly one image. *ret lists what was loaded; it may have been there before.
 */
int image_load(struct store *s, const char *input, const struct image_load_options *o,
	       struct image_list *ret, struct err *err);

struct image_pull_options {
	const char *program;		 /* msb-fetch */
	const char *platform;		 /* "linux/arm64", "linux/arm/v7"; NULL: the host's */
	bool insecure;			 /* plain HTTP */
	bool force;			 /* fetch and make everything again, then verify it */
	const char *const *ca_files;	 /* besides the system's; NULL-terminated, or NULL */
	const char *username, *password; /* in place of a login that is kept; NULL: that */
	const struct image_limits *limits;
	image_progress_fn *progress;
	void *progress_arg;
};
/*
 * Layers that are fetched at a time unless config.json says otherwise, as Docker does it with three
 * and the peer with four.
 */
#define IMAGE_PULL_PARALLEL 4u

/*
 * Fetch the image @ref from its registry (see registry/registry.h), unless it is there, and let
 * @ref name it. Layers that the store has are not fetched. After a failure of the network the
 * layers that are complete stay for the next attempt, until image_remove() collects them.
 */
int image_pull(struct store *s, const char *ref, const struct image_pull_options *o,
	       struct image_info *ret, struct err *err);

/*
 * An image made of the directory @path as it is now: owners, modes, times, links and those
 * attributes that can be read; sockets are left out, and so is what is mounted in it. Another call
 * is a walk without reading as long as nothing has changed, and otherwise a new image, with the
 * former given up. The image has no reference: it is kept while a sandbox uses it and can be
 * removed like any other (then it is made again).
 */
int image_from_directory(struct store *s, const char *path, const struct image_limits *limits,
			 struct image_info *ret, struct err *err);

/*
 * The image that @ref names: a reference in any spelling ("python"), an id, or an unambiguous
 * prefix of an id of at least IMAGE_ID_PREFIX_MIN digits. -ERR_NOT_FOUND if there is none.
 * One SELECT. Leaves layers and the full reference list empty; see image_inspect().
 */
#define IMAGE_ID_PREFIX_MIN 4
int image_find(struct store *s, const char *ref, struct image_info *ret, struct err *err);
/* The same with everything filled. */
int image_inspect(struct store *s, const char *ref, struct image_info *ret, struct err *err);
/* All images, newest first. Extents are left empty. */
int image_list(struct store *s, struct image_list *ret, struct err *err);

struct image_removed {
	char **untagged; /* references taken away */
	char *id;	 /* "sha256:HEX" if the image itself went, else NULL */
	uint64_t bytes;	 /* freed on disk */
	bool busy;	 /* a load was running; the space is freed by a later removal */
};
void image_removed_done(struct image_removed *r);
/*
 * Take the reference @ref away and, with the last one, the image; by id, all its references.
 * Refused with -EBUSY while a sandbox uses the image, unless @force: then a sandbox that runs goes
 * on, and one that is kept cannot be started again.
 */
int image_remove(struct store *s, const char *ref, bool force, struct image_removed *ret,
		 struct err *err);

struct image_pruned {
	char **images; /* a reference of each, or its id; NULL-terminated */
	uint64_t files, bytes;
	bool busy; /* as above */
};
void image_pruned_done(struct image_pruned *r);
/*
 * Remove the images without a reference, or @all, that no sandbox uses, and files that no image
 * needs. With @dry_run only say what would go.
 */
int image_prune(struct store *s, bool all, bool dry_run, struct image_pruned *ret, struct err *err);

/*
 * Keep an image from being removed until the descriptor that is returned is closed, and see that
 * its files are there and as long as they should be: -ERR_CORRUPT if not.
 */
int image_hold(struct store *s, const struct image_info *i, struct err *err);
/* Compare the metadata behind such a descriptor with its checksum; takes a millisecond or two. */
int image_check(int hold, const struct image_info *i, struct err *err);

/* What is said of an image that is made of another one; NULL: as it is there. */
struct image_commit_options {
	const char *tag;
	char *const *env;	 /* "K=V", on top of its; NULL-terminated, as the others */
	char *const *entrypoint; /* in place of its, which drops its command as well */
	char *const *cmd;
	const char *workdir, *user;
};
/*
 * An image of @base and one layer above: what an overlay's upper directory holds, which @upper has
 * as a tar stream. What is marked as removed there is removed in the image. What an agent writes at
 * each start (/etc/hosts and the like) is left out.
 */
int image_commit(struct store *s, const char *base, int upper, const struct image_commit_options *o,
		 struct image_info *ret, struct err *err);

enum image_archive {
	IMAGE_ARCHIVE_DOCKER, /* what `docker load` of any age reads, and everybody else too */
	IMAGE_ARCHIVE_OCI,    /* an OCI layout and nothing more */
};
struct image_save_options {
	enum image_archive format;
	image_progress_fn *progress;
	void *progress_arg;
};
/*
 * Write the images that @refs (NULL-terminated) name to @fd as one archive. Layers have the bytes
 * they came with, uncompressed; ids are the same after loading it. Nothing is written if an image
 * or one of its layers is missing.
 */
int image_save(struct store *s, const char *const *refs, const struct image_save_options *o, int fd,
	       struct err *err);

enum image_verify_event {
	IMAGE_VERIFY_IMAGE,   /* begins */
	IMAGE_VERIFY_LAYER,   /* begins */
	IMAGE_VERIFY_MENDED,  /* what was damaged has been made again */
	IMAGE_VERIFY_DAMAGED, /* err says how, and what to do */
};
typedef void image_verify_fn(void *arg, enum image_verify_event event, const char *what,
			     const struct err *err);
struct image_verified {
	uint64_t images, layers, mended, damaged;
};
/*
 * Read everything of these images (NULL: of all, and the database) back and compare it with its
 * checksums. Metadata that is damaged is made again; damaged layers are set aside, which the next
 * load mends. -ERR_CORRUPT if something is left to do; *ret is filled then as well.
 */
int image_verify(struct store *s, const char *const *refs, image_verify_fn *fn, void *arg,
		 struct image_verified *ret, struct err *err);

struct image_bootstrap_options {
	const char *tag;	    /* NULL: the suite as given */
	const char *const *include; /* package names, NULL-terminated; NULL: none */
	const char *mirror;	    /* NULL: the host's own sources on Debian, else the default */
	const char *architecture;   /* GOARCH; NULL: the host's */
	const struct image_limits *limits;
	/*
	 * No file is younger than this. < 0: $SOURCE_DATE_EPOCH, else last midnight UTC, so that
	 * repeating it on the same day over the same packages gives the same bytes. Nothing
	 * earlier: compiled Python files are valid only with the time stamps of their sources.
	 */
	int64_t source_date_epoch;
	image_progress_fn *progress;
	void *progress_arg;
};
/* @suite: "debian:bookworm", "bookworm", "ubuntu:noble". */
int image_bootstrap(struct store *s, const char *suite, const struct image_bootstrap_options *o,
		    struct image_info *ret, struct err *err);

#endif
