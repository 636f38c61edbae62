/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HEX.data in the making: the blocks of one file after the other, zero blocks as holes, and blocks
 * of a file that equal those of an earlier one taken back: both inodes then lead to the same ones.
 *
 * Equality is told by CRC and length first and by comparing the bytes then, so that nobody can
 * pass one file off as another. What is remembered, and how long is looked for it, is bounded; the
 * choice depends on the input alone: same stream, same bytes.
 *
 * Zero-initialise; blocks_done() is harmless on that. One thread.
 */
#ifndef IMAGE_BLOCKS_H
#define IMAGE_BLOCKS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Files remembered for comparison: 6 MiB of memory, and more than most images have in all. */
#define BLOCKS_FILES_MAX (1u << 18)

struct blocks_file {
	uint32_t crc, first, count; /* count 0: unused */
};

struct blocks {
	int fd; /* borrowed */
	uint8_t *buf;
	size_t len;  /* in buf */
	uint64_t at; /* file offset of buf, multiple of the block size */
	uint64_t written_back;
	struct blocks_file *files;
	uint32_t file_count, file_slots;
};

int blocks_init(struct blocks *b, int fd, struct err *err);
void blocks_done(struct blocks *b);

int blocks_add(struct blocks *b, const uint8_t *p, size_t n, struct err *err);
/* @n zero bytes. */
int blocks_hole(struct blocks *b, uint64_t n, struct err *err);
/* A file ends: zeros up to the next block. */
int blocks_pad(struct blocks *b, struct err *err);
/*
 * The file whose blocks are [@first, end) and whose contents have @crc is complete. Returns 1 with
 * *ret_first when an earlier one has the same, and drops those of this one; else 0.
 */
int blocks_share(struct blocks *b, uint64_t first, uint32_t crc, uint64_t *ret_first,
		 struct err *err);
/* Blocks so far. */
uint64_t blocks_count(const struct blocks *b);
/* Write out the rest. */
int blocks_finish(struct blocks *b, struct err *err);

#endif
